//! Tokens without a counter of their own: the cluster's revision, which grows with every write.
//!
//! A claim reads the revision before it swaps, and its swap makes a later one. So whoever claims the name
//! after it, even if its object was deleted by hand in between, reads a higher revision, and draws a higher
//! token. A counter beside the leases would promise no more (it lies in the same etcd), and all claims
//! of a namespace would compete for it.

use http::Method;
use serde::Deserialize;
use tenure_core::record_store::{Stored, Written};
use tenure_core::store::Version;
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::{Effect, unintelligible};
use crate::link::{Link, Reply};

/// A listing of nothing: what counts is as of when.
#[derive(Deserialize)]
struct AsOf {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "resourceVersion")]
    resource_version: String,
}

/// The revision of now, in the form of the counter that the core reads.
///
/// `object` is the name of an object that is never made. Without a resource version in the request,
/// the API server answers as of a revision that its etcd has told it meanwhile.
pub(crate) async fn counted(link: &Link, object: &str) -> Result<Stored, Error> {
    let path = format!("{}?fieldSelector=metadata.name%3D{object}", link.path(None));
    let as_of = match link.ask::<AsOf>(Method::GET, &path, Vec::new(), Operation::Read).await? {
        Reply::Done(listed) => listed.metadata.resource_version,
        _ => return Err(unintelligible(Operation::Read, Effect::None)),
    };
    let revision = as_of.parse::<u64>().ok().filter(|revision| *revision > 0).ok_or_else(|| {
        let message = format!(
            "the API server counts its writes as `{as_of}`, which is no number: tokens can't be \
             drawn from that; use a server whose resource versions can be compared"
        );
        Error::new(ErrorKind::Misconfigured, Operation::Acquire, message)
    })?;
    let bytes = format!("{{\"format\":1,\"last\":{revision}}}").into_bytes();
    Ok(Stored { bytes, version: Version::new(as_of) })
}

/// What comes of writing the count: nothing has to be written, since the swap itself raises it.
pub(crate) fn raised(version: &Version) -> Written {
    Written::Written(version.clone())
}
