//! Which sidecar, which of its state stores, and which namespace.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tenure_core::cluster;
use tenure_core::error::Error;
use tenure_core::identity::{Name, Namespace};

use crate::keys::{Keys, PREFIX};

const OPTIONS: &str = "address, accept, cluster, namespace, poll_ms and timeout_ms";
/// Where a sidecar listens unless the environment says otherwise.
const ADDRESS: &str = "http://127.0.0.1:3500";
const POLL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// What `poll_ms` and `timeout_ms` may be.
const MILLISECONDS: std::ops::RangeInclusive<u64> = 50..=60_000;

/// Which sidecar, which of its state stores, and which namespace.
#[derive(Clone)]
#[non_exhaustive]
pub struct DaprConfig {
    /// The sidecar's HTTP address: `http://127.0.0.1:3500` unless the environment says otherwise.
    pub address: String,
    /// What the sidecar asks each request for.
    pub token: Option<String>,
    /// The state store, by its component's name.
    pub component: String,
    /// What stands before every name.
    pub namespace: Namespace,
    /// The mark that the store must bear; a new store is given it.
    pub cluster: Option<String>,
    /// A type of component that the suite hasn't run on, and that is used all the same.
    pub accept: Option<String>,
    /// What all keys begin with: `tenure` unless set. Another prefix is another store.
    pub prefix: String,
    /// How often a waiter looks: 1 s unless set.
    pub poll: Duration,
    /// How long an answer may take: 5 s unless set.
    pub timeout: Duration,
    /// How many writes were not refused: for tests, which count them.
    #[doc(hidden)]
    pub writes: Arc<AtomicU64>,
}

/// Without the token.
impl fmt::Display for DaprConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dapr:{}/{}?address={}", self.component, self.prefix, self.address)
    }
}

impl fmt::Debug for DaprConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaprConfig")
            .field("place", &self.to_string())
            .field("namespace", &self.namespace)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl DaprConfig {
    /// A state store of this process's own sidecar: DAPR_HTTP_ENDPOINT or DAPR_HTTP_PORT say where
    /// it is, DAPR_API_TOKEN what it asks for.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): the component's name, or one of the variables.
    pub fn from_environment(component: impl Into<String>) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = match (variable("DAPR_HTTP_ENDPOINT"), variable("DAPR_HTTP_PORT")) {
            (Some(endpoint), _) => endpoint,
            (None, Some(port)) => {
                let port: u16 = port.parse().map_err(|_| {
                    Error::invalid(format!("DAPR_HTTP_PORT is `{port}`, which is no port"))
                })?;
                format!("http://127.0.0.1:{port}")
            }
            (None, None) => ADDRESS.to_owned(),
        };
        let config = Self {
            address,
            token: variable("DAPR_API_TOKEN"),
            component: component.into(),
            namespace: Namespace::default(),
            cluster: None,
            accept: None,
            prefix: PREFIX.to_owned(),
            poll: POLL,
            timeout: TIMEOUT,
            writes: Arc::default(),
        };
        config.checked()
    }

    /// Reads a URL: `dapr:COMPONENT[/PREFIX][?address=http://HOST:PORT&namespace=N&cluster=C&poll_ms=1000&
    /// timeout_ms=5000&accept=state.TYPE]`. What it doesn't say, the environment does; the token
    /// stands in the environment alone.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): another scheme, no component, an option that is
    /// unknown or given twice, or a value that can't be used.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let Some(rest) = url.strip_prefix("dapr:") else {
            return Err(Error::invalid("the URL of a Dapr state store begins with `dapr:`"));
        };
        let rest = rest.trim_start_matches('/');
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (component, prefix) = place.split_once('/').unwrap_or((place, ""));
        let mut config = Self::from_environment(decoded(component)?)?;
        if !prefix.is_empty() {
            config.prefix = decoded(prefix)?;
        }
        let mut given = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if given.contains(&key) {
                return Err(Error::invalid(format!("the option `{key}` is given twice")));
            }
            given.push(key);
            let value = decoded(value)?;
            if value.is_empty() {
                return Err(Error::invalid(format!("the option `{key}` is empty; leave it out")));
            }
            match key {
                "address" => config.address = value,
                "accept" => config.accept = Some(value),
                "cluster" => config.cluster = Some(value),
                "namespace" => config.namespace = Namespace::new(value)?,
                "poll_ms" => config.poll = milliseconds(key, &value)?,
                "timeout_ms" => config.timeout = milliseconds(key, &value)?,
                _ => {
                    return Err(Error::invalid(format!(
                        "a Dapr state store has no option `{key}`; it has {OPTIONS}"
                    )));
                }
            }
        }
        config.checked()
    }

    /// The key of a record, for tests that look behind a store's back.
    #[doc(hidden)]
    #[must_use]
    pub fn key(&self, name: &Name) -> String {
        self.keys().record(name)
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::new(&self.prefix, &self.namespace)
    }

    /// Checks the values, since the fields may have been set directly.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.cluster.as_deref().map_or(Ok(()), cluster::check)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.component.is_empty() || !self.component.chars().all(fits) {
            return Err(Error::invalid(
                "name the state store by its component: `dapr:COMPONENT`, for example \
                 `dapr:statestore`",
            ));
        }
        if self.prefix.is_empty()
            || !self.prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        {
            return Err(Error::invalid(format!(
                "`{}` can't stand before keys; letters, digits and `-` can",
                self.prefix
            )));
        }
        let http = self.address.starts_with("http://") || self.address.starts_with("https://");
        if !http || self.address.contains(['@', '?', '#']) {
            return Err(Error::invalid(
                "the sidecar's address is written `http://HOST:PORT`, without credentials",
            ));
        }
        self.address.truncate(self.address.trim_end_matches('/').len());
        Ok(self)
    }
}

fn milliseconds(key: &str, text: &str) -> Result<Duration, Error> {
    let number = text.parse().ok().filter(|number| MILLISECONDS.contains(number));
    number.map(Duration::from_millis).ok_or_else(|| {
        let (least, most) = (MILLISECONDS.start(), MILLISECONDS.end());
        Error::invalid(format!("`{key}={text}` is no number from {least} to {most}"))
    })
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
            ("dapr:statestore", "dapr:statestore/tenure?address=http://127.0.0.1:3500"),
            ("dapr://state/shop?poll_ms=200", "dapr:state/shop?address=http://127.0.0.1:3500"),
            ("dapr:s?address=https://dapr.example/", "dapr:s/tenure?address=https://dapr.example"),
        ] {
            assert_eq!(DaprConfig::from_url(url).unwrap().to_string(), shown);
        }
        let config = DaprConfig::from_url("dapr:s?namespace=shop&accept=state.mysql").unwrap();
        assert_eq!(config.namespace.as_str(), "shop");
        assert_eq!(config.accept.as_deref(), Some("state.mysql"));
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_with_a_sentence() {
        for (url, why) in [
            ("redis:x", "begins with `dapr:`"),
            ("dapr:", "name the state store"),
            ("dapr:a b", "name the state store"),
            ("dapr:a/b.c", "can't stand before keys"),
            ("dapr:s?address=host:3500", "written `http://HOST:PORT`"),
            ("dapr:s?address=http://me:SECRET@host", "without credentials"),
            ("dapr:s?ttl=5", "no option `ttl`"),
            ("dapr:s?poll_ms=1", "from 50 to 60000"),
            ("dapr:s?poll_ms=100&poll_ms=100", "given twice"),
            ("dapr:s?accept=", "is empty"),
            ("dapr:s?cluster=a%0Ab", "cluster mark can't be used"),
        ] {
            let error = DaprConfig::from_url(url).map(drop).unwrap_err();
            assert_eq!(error.kind(), tenure_core::ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(why), "{url}: {error}");
            assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        }
    }
}
