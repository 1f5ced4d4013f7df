//! Which bucket, which namespace, and what stands before every key.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use object_store::ObjectStore;
use percent_encoding::percent_decode_str;
use tenure_core::cluster;
use tenure_core::error::Error;
use tenure_core::identity::{Name, Namespace};

use crate::keys::{Keys, PREFIX};
use crate::layout::Layout;

const OPTIONS: &str = "namespace, cluster, endpoint, ca, poll_ms, for s3 region and layout (with \
                       layout_key, layout_name and layout_ttl_ms), for az account";
/// How often a waiter looks unless the URL says otherwise.
const POLL: Duration = Duration::from_secs(1);
/// What `poll_ms` may be: below it, looking costs more than it finds.
const POLL_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Which bucket, which namespace, and what stands before every key.
#[derive(Clone)]
#[non_exhaustive]
pub struct ObjectConfig {
    /// What stands before every name.
    pub namespace: Namespace,
    /// The mark that the store must bear; a new store is given it.
    pub cluster: Option<String>,
    /// What all keys begin with: `tenure` unless set. Another prefix is another store.
    pub prefix: String,
    /// How often a waiter looks: 1 s unless set.
    pub poll: Duration,
    /// The neighbour that one name is shared with.
    pub layout: Option<Layout>,
    /// How many writes were not refused: for tests, which count them.
    #[doc(hidden)]
    pub writes: Arc<AtomicU64>,
    pub(crate) place: Place,
}

/// How the objects are reached.
#[derive(Clone)]
pub(crate) enum Place {
    S3(Bucket),
    Google(Bucket),
    Azure {
        container: Bucket,
        account: Option<String>,
    },
    /// As the host's own client reaches them.
    Client(Arc<dyn ObjectStore>),
}

/// A bucket or container, and what the URL says of its endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    /// A PEM file of certificates. None: whom browsers trust.
    pub(crate) authorities: Option<PathBuf>,
}

/// Without credentials: there are none in a URL.
impl fmt::Display for ObjectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket) = match &self.place {
            Place::S3(bucket) => ("s3", bucket),
            Place::Google(bucket) => ("gs", bucket),
            Place::Azure { container, .. } => ("az", container),
            Place::Client(client) => return write!(f, "object:{client}/{}", self.prefix),
        };
        write!(f, "{scheme}://{}/{}", bucket.name, self.prefix)?;
        match &bucket.endpoint {
            Some(endpoint) => write!(f, "?endpoint={endpoint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ObjectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectConfig")
            .field("place", &self.to_string())
            .field("namespace", &self.namespace)
            .field("cluster", &self.cluster)
            .field("poll", &self.poll)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl ObjectConfig {
    fn at(place: Place) -> Self {
        Self {
            namespace: Namespace::default(),
            cluster: None,
            prefix: PREFIX.to_owned(),
            poll: POLL,
            layout: None,
            writes: Arc::default(),
            place,
        }
    }

    /// Objects as the host's own client reaches them, in the default namespace, all their keys
    /// beginning with `prefix`.
    ///
    /// The client must write on a condition (`PutMode::Create` and `PutMode::Update`), and should
    /// send each write once (`max_retries: 0`): one that repeats them is safe, too, but what it
    /// can't reach may then be done.
    #[must_use]
    pub fn of_client(client: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::at(Place::Client(client)) }
    }

    /// Reads a URL:
    ///
    /// - `s3://BUCKET[/PREFIX][?endpoint=URL&region=R]`, for S3 and what speaks its protocol
    /// - `gs://BUCKET[/PREFIX]`
    /// - `az://CONTAINER[/PREFIX][?account=A&endpoint=URL]`
    ///
    /// with `&namespace=N&cluster=C&poll_ms=1000`. `endpoint` may be `http:`; `ca` is a PEM file
    /// of the authorities that TLS trusts, in the place of those that browsers trust. Credentials
    /// come from the environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`) or from the machine's identity,
    /// never from a URL. `layout=leaderelection&layout_key=KEY&layout_name=NAME` shares one name
    /// with a neighbour ([`Layout`]), on S3.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): another scheme, no bucket, an option that is
    /// unknown or given twice, or a value that can't be used.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        if !["s3", "gs", "az"].contains(&scheme) {
            return Err(Error::invalid(
                "the URL of an object store begins with `s3:`, `gs:` or `az:`",
            ));
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(Error::invalid(format!("write `{scheme}://BUCKET` with two slashes")));
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        if name.contains('@') {
            return Err(Error::invalid(
                "no credentials stand in the URL of an object store; put them into the environment",
            ));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(fits) {
            return Err(Error::invalid(format!("name the bucket: `{scheme}://BUCKET/PREFIX`")));
        }
        let mut options = Options::parse(query)?;
        let mut bucket = Bucket {
            name: name.to_owned(),
            endpoint: options.take("endpoint")?,
            region: None,
            authorities: options.take("ca")?.map(PathBuf::from),
        };
        let http = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if bucket.endpoint.as_ref().is_some_and(|url| !http(url) || url.contains('@')) {
            return Err(Error::invalid(
                "an endpoint is written `http://HOST[:PORT]` or `https://HOST`, without credentials",
            ));
        }
        let mut layout = None;
        let place = match scheme {
            "s3" => {
                bucket.region = options.take("region")?;
                layout = options.layout()?;
                Place::S3(bucket)
            }
            "gs" => Place::Google(bucket),
            _ => Place::Azure { container: bucket, account: options.take("account")? },
        };
        let mut config = Self { layout, ..Self::at(place) };
        if let Some(namespace) = options.take("namespace")? {
            config.namespace = Namespace::new(namespace)?;
        }
        config.cluster = options.take("cluster")?;
        if let Some(poll) = options.milliseconds("poll_ms", POLL_MS)? {
            config.poll = poll;
        }
        let prefix = decoded(prefix)?;
        if !prefix.trim_matches('/').is_empty() {
            config.prefix = prefix.trim_matches('/').to_owned();
        }
        options.none_left()?;
        config.keys()?;
        Ok(config)
    }

    /// The object of a record, for tests that look behind a store's back.
    #[doc(hidden)]
    pub fn object(&self, name: &Name) -> Result<object_store::path::Path, Error> {
        Ok(self.keys()?.record(name))
    }

    /// How objects are called; checks the values, since the fields may have been set directly.
    pub(crate) fn keys(&self) -> Result<Keys, Error> {
        self.cluster.as_deref().map_or(Ok(()), cluster::check)?;
        let keys = Keys::new(&self.prefix, &self.namespace)?;
        if let Some(layout) = &self.layout {
            layout.check(&keys)?;
        }
        Ok(keys)
    }
}

/// The options of a URL, each taken once.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn parse(query: &'a str) -> Result<Self, Error> {
        let mut options = Vec::<(&str, &str)>::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if options.iter().any(|(known, _)| *known == key) {
                return Err(Error::invalid(format!("the option `{key}` is given twice")));
            }
            options.push((key, value));
        }
        Ok(Self(options))
    }

    fn take(&mut self, key: &str) -> Result<Option<String>, Error> {
        let Some(at) = self.0.iter().position(|(known, _)| *known == key) else { return Ok(None) };
        let value = decoded(self.0.remove(at).1)?;
        if value.is_empty() {
            return Err(Error::invalid(format!("the option `{key}` is empty; leave it out")));
        }
        Ok(Some(value))
    }

    fn milliseconds(
        &mut self,
        key: &str,
        allowed: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<Duration>, Error> {
        let Some(text) = self.take(key)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| allowed.contains(number));
        let number = number.ok_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            Error::invalid(format!("`{key}={text}` is no number from {least} to {most}"))
        })?;
        Ok(Some(Duration::from_millis(number)))
    }

    /// The neighbour, if one is named.
    fn layout(&mut self) -> Result<Option<Layout>, Error> {
        let Some(word) = self.take("layout")? else { return Ok(None) };
        if word != "leaderelection" {
            return Err(Error::invalid(format!("`{word}` is no layout; leaderelection is")));
        }
        let (Some(key), Some(name)) = (self.take("layout_key")?, self.take("layout_name")?) else {
            return Err(Error::invalid(
                "LeaderElection has one object; say which, and which name it stands for: \
                 `layout=leaderelection&layout_key=KEY&layout_name=NAME`",
            ));
        };
        let mut layout = Layout::leader_election(Name::new(name)?, key);
        if let Some(ttl) = self.milliseconds("layout_ttl_ms", 1000..=86_400_000)? {
            layout.their_ttl = ttl;
        }
        Ok(Some(layout))
    }

    fn none_left(&self) -> Result<(), Error> {
        let Some((key, _)) = self.0.first() else { return Ok(()) };
        Err(Error::invalid(format!("an object store has no option `{key}` here; it has {OPTIONS}")))
    }
}

fn decoded(text: &str) -> Result<String, Error> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| Error::invalid("a part of the URL isn't percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown() {
        for (url, shown) in [
            ("s3://bucket", "s3://bucket/tenure"),
            ("s3://bucket/", "s3://bucket/tenure"),
            ("s3://bucket/a/b/?region=eu-west-1&namespace=shop", "s3://bucket/a/b"),
            (
                "s3://bucket/x?endpoint=http://127.0.0.1:9000",
                "s3://bucket/x?endpoint=http://127.0.0.1:9000",
            ),
            ("gs://bucket/x", "gs://bucket/x"),
            ("az://container/x?account=acme", "az://container/x"),
        ] {
            let config = ObjectConfig::from_url(url).unwrap();
            assert_eq!(config.to_string(), shown);
        }
        let config = ObjectConfig::from_url(
            "s3://b/x?namespace=shop&cluster=prod&poll_ms=250\
             &layout=leaderelection&layout_key=lock.json&layout_name=a%2Fb",
        )
        .unwrap();
        assert_eq!(config.namespace.as_str(), "shop");
        assert_eq!(config.cluster.as_deref(), Some("prod"));
        assert_eq!(config.poll, Duration::from_millis(250));
        let layout = config.layout.unwrap();
        assert_eq!((layout.name.as_str(), layout.key.as_str()), ("a/b", "lock.json"));
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_with_a_sentence() {
        for (url, why) in [
            ("file:///x", "begins with `s3:`"),
            ("s3:bucket", "two slashes"),
            ("s3://", "name the bucket"),
            ("s3://KEY:SECRET@bucket/x", "put them into the environment"),
            ("s3://b?endpoint=host", "written `http://HOST"),
            ("s3://b?endpoint=http://me:SECRET@host", "without credentials"),
            ("s3://b?account=x", "no option `account`"),
            ("gs://b?region=x", "no option `region`"),
            ("gs://b?layout=leaderelection", "no option `layout`"),
            ("s3://b?region=a&region=b", "given twice"),
            ("s3://b?region=", "is empty"),
            ("s3://b?poll_ms=5", "from 100 to 60000"),
            ("s3://b/a//b", "can't stand before keys"),
            ("s3://b?cluster=a%0Ab", "cluster mark can't be used"),
            ("s3://b?layout=hamode", "leaderelection is"),
            ("s3://b?layout=leaderelection&layout_key=x", "layout_name=NAME"),
            ("s3://b?layout=leaderelection&layout_key=tenure/x&layout_name=n", "tenure's own"),
        ] {
            let error = ObjectConfig::from_url(url).map(drop).unwrap_err();
            assert_eq!(error.kind(), tenure_core::ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(why), "{url}: {error}");
            assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        }
    }
}
