//! Which file, which namespace, and how long to wait for it.

use std::path::PathBuf;
use std::time::Duration;

use tenure_core::cluster;
use tenure_core::error::Error;
use tenure_core::identity::Namespace;

/// How long a request waits for the file at most, unless the configuration says otherwise.
///
/// As long as a session of the default ttl waits for one request (ttl/6 of 30 s).
pub const BUSY_DEFAULT: Duration = Duration::from_secs(5);
/// The longest such wait that can be chosen.
pub const BUSY_MAX: Duration = Duration::from_secs(60);

const OPTIONS: &str = "namespace, cluster and busy_ms";

/// Which file, which namespace, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// The database file. It is created if its directory exists.
    pub path: PathBuf,
    /// What stands before every name.
    pub namespace: Namespace,
    /// The mark that the store must bear; a new store is given it.
    pub cluster: Option<String>,
    /// How long a request waits while others hold the file, before it is `Unavailable`.
    pub busy: Duration,
    /// What tells this machine's interval clock from another one. None: the kernel's boot id and
    /// the time namespace. Tests set it to play another boot.
    pub clock_identity: Option<String>,
}

impl SqliteConfig {
    /// The file at `path`, in the default namespace.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            namespace: Namespace::default(),
            cluster: None,
            busy: BUSY_DEFAULT,
            clock_identity: None,
        }
    }

    /// Reads `sqlite:PATH?namespace=N&cluster=C&busy_ms=5000`.
    ///
    /// The path and the values are taken as they stand: nothing is percent-decoded, so a path
    /// with a `?` in it needs [`SqliteConfig::new`]. A relative path counts from the working
    /// directory; `sqlite:///PATH` is an absolute one, too.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): another scheme, no path, a host, an option
    /// that is unknown or given twice, or a value that can't be used.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let Some(rest) = url.strip_prefix("sqlite:") else {
            return Err(Error::invalid("the URL of an SQLite store begins with `sqlite:`"));
        };
        let (path, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
        let mut config = Self::new(path_of(path)?);
        let mut seen = Vec::new();
        for option in query.into_iter().flat_map(|query| query.split('&')) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if seen.contains(&key) {
                return Err(Error::invalid(format!("the option `{key}` is given twice")));
            }
            seen.push(key);
            config.set(key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        match key {
            "namespace" => self.namespace = Namespace::new(value)?,
            "cluster" => self.cluster = Some(value.to_owned()),
            "busy_ms" => {
                let millis = value.parse().map_err(|_| {
                    Error::invalid(format!("busy_ms={value} is not a number of milliseconds"))
                })?;
                self.busy = Duration::from_millis(millis);
            }
            _ => {
                return Err(Error::invalid(format!(
                    "an SQLite store has no option `{key}`; it has {OPTIONS}"
                )));
            }
        }
        self.check()
    }

    /// Whether the values can be used, since the fields may have been set directly.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.busy.is_zero() || self.busy > BUSY_MAX {
            return Err(Error::invalid(format!(
                "waiting {:?} for the file is out of range; 1 ms to {BUSY_MAX:?} can be chosen",
                self.busy
            )));
        }
        if let Some(cluster) = &self.cluster {
            cluster::check(cluster)?;
        }
        if self.clock_identity.as_ref().is_some_and(String::is_empty) {
            return Err(Error::invalid("the clock identity is empty; leave it out or name one"));
        }
        Ok(())
    }
}

fn path_of(text: &str) -> Result<PathBuf, Error> {
    let path = match text.strip_prefix("//") {
        // `sqlite:///var/x.db` has an empty host; `sqlite://var/x.db` names one by mistake.
        Some(path) if path.starts_with('/') => path,
        Some(path) => {
            return Err(Error::invalid(format!(
                "`sqlite://{path}` names a host, and a file has none; write `sqlite:///PATH` or \
                 `sqlite:PATH`"
            )));
        }
        None => text,
    };
    if path.is_empty() {
        return Err(Error::invalid("the URL names no file; write `sqlite:/path/to/file.db`"));
    }
    if path == ":memory:" {
        return Err(Error::invalid(
            "an SQLite database in memory is shared with nobody; use the `memory:` store",
        ));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_url_is_read_as_it_stands() {
        let config =
            SqliteConfig::from_url("sqlite:/var/a%20b.db?namespace=shop&cluster=prod&busy_ms=900")
                .unwrap();
        assert_eq!(config.path, Path::new("/var/a%20b.db"));
        assert_eq!(config.namespace.as_str(), "shop");
        assert_eq!(config.cluster.as_deref(), Some("prod"));
        assert_eq!(config.busy, Duration::from_millis(900));
        assert_eq!(SqliteConfig::from_url("sqlite:///x.db").unwrap().path, Path::new("/x.db"));
        assert_eq!(SqliteConfig::from_url("sqlite:x.db").unwrap().path, Path::new("x.db"));
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_with_a_sentence() {
        for (url, why) in [
            ("postgres:/x", "begins with `sqlite:`"),
            ("sqlite:", "names no file"),
            ("sqlite:?namespace=a", "names no file"),
            ("sqlite://var/x.db", "names a host"),
            ("sqlite::memory:", "`memory:` store"),
            ("sqlite:/x?mode=ro", "no option `mode`; it has namespace, cluster and busy_ms"),
            ("sqlite:/x?", "no option ``"),
            ("sqlite:/x?namespace=a&namespace=b", "given twice"),
            ("sqlite:/x?namespace=", "namespace is empty"),
            ("sqlite:/x?cluster=", "cluster mark can't be used"),
            ("sqlite:/x?busy_ms=2s", "not a number"),
            ("sqlite:/x?busy_ms=0", "out of range"),
            ("sqlite:/x?busy_ms=60001", "out of range"),
        ] {
            let error = SqliteConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), tenure_core::ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
    }
}
