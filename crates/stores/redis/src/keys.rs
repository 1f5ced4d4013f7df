//! Where things are kept: buckets, and the names of their keys.

use tenure_core::identity::{Name, Namespace};

/// How many buckets there are, a constant of the format.
///
/// A bucket has a hash slot, a store id and a count of tokens of its own; one script call
/// touches one bucket. More would spread a cluster's load further and cost a beat more calls.
pub(crate) const BUCKETS: usize = 16;

/// What all keys begin with unless the configuration says otherwise.
pub(crate) const PREFIX: &str = "tenure";

/// How a session's keys are called.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    namespace: Namespace,
    /// As it stands in keys: without a colon, so that no two namespaces meet.
    escaped: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, namespace: Namespace) -> Self {
        let escaped = namespace.as_str().replace('%', "%25").replace(':', "%3A");
        Self { prefix: prefix.to_owned(), namespace, escaped }
    }

    /// The bucket of a name: FNV-1a over the namespace, a zero byte and the name.
    pub(crate) fn bucket(&self, name: &Name) -> usize {
        let parts = [self.namespace.as_str().as_bytes(), &[0], name.as_str().as_bytes()];
        let hash = parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of FNV depend on the low bits of the input alone.
        ((hash ^ (hash >> 32)) % BUCKETS as u64) as usize
    }

    /// What a bucket says of itself: id, format, mark, and the count of its tokens.
    pub(crate) fn store(&self, bucket: usize) -> String {
        format!("{}:{{{bucket:02}}}:store", self.prefix)
    }

    /// The sorted set of the names in a bucket.
    pub(crate) fn names(&self, bucket: usize) -> String {
        format!("{}:{{{bucket:02}}}:names:{}", self.prefix, self.escaped)
    }

    /// A lease.
    pub(crate) fn lease(&self, bucket: usize, name: &Name) -> String {
        self.lease_text(bucket, name.as_str())
    }

    /// A key in the place of a lease that can't be one: no name is empty.
    pub(crate) fn no_lease(&self, bucket: usize) -> String {
        self.lease_text(bucket, "")
    }

    fn lease_text(&self, bucket: usize, name: &str) -> String {
        format!("{}:{{{bucket:02}}}:lease:{}:{name}", self.prefix, self.escaped)
    }

    /// Where grants, releases and orders of the namespace are told.
    pub(crate) fn channel(&self) -> String {
        format!("{}:changes:{}", self.prefix, self.escaped)
    }

    /// The hash slot of a bucket in a Redis cluster.
    pub(crate) fn slot(bucket: usize) -> u16 {
        crc16(format!("{bucket:02}").as_bytes()) % 16384
    }
}

/// CRC-16/XMODEM, as the cluster's specification says.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn keys(namespace: &str) -> Keys {
        Keys::new(PREFIX, Namespace::new(namespace).unwrap())
    }

    #[test]
    fn no_two_leases_share_a_key() {
        let key = |namespace: &str, name: &str| {
            let (keys, name) = (keys(namespace), Name::new(name).unwrap());
            keys.lease(0, &name)
        };
        assert_eq!(key("shop", "a:b"), "tenure:{00}:lease:shop:a:b");
        assert_ne!(key("a:b", "c"), key("a", "b:c"));
        assert_ne!(key("a%3Ab", "c"), key("a:b", "c"));
    }

    #[test]
    fn buckets_are_stable_and_even() {
        // Of the format: a change would lose every lease that is there.
        let keys = keys("default");
        assert_eq!(keys.bucket(&Name::new("billing").unwrap()), BILLING);
        let mut counts = [0_u32; BUCKETS];
        for n in 0..1600 {
            counts[keys.bucket(&Name::new(format!("job/{n}")).unwrap())] += 1;
        }
        assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
    }

    /// The bucket of `billing` in the namespace `default`.
    const BILLING: usize = 0;

    #[test]
    fn slots_are_those_of_the_cluster() {
        // The specification's own example.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        let slots: BTreeSet<u16> = (0..BUCKETS).map(Keys::slot).collect();
        assert_eq!(slots.len(), BUCKETS);
    }
}
