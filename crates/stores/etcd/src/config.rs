//! Which servers, which keys, and how to reach them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tenure_core::cluster;
use tenure_core::error::Error;
use tenure_core::identity::Namespace;

use crate::layout::Layout;

/// What stands before every key, unless the URL names something else.
pub const PREFIX_DEFAULT: &str = "tenure/";
/// How long one request is waited for, unless the URL says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long the record of a name that nobody uses stays, unless the URL says otherwise.
pub const HISTORY_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// The longest and the shortest history.
const HISTORY_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const HISTORY_MIN: Duration = Duration::from_secs(60);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The port of an endpoint that names none.
const PORT_DEFAULT: u16 = 2379;
/// The longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 255;

const OPTIONS: &str = "namespace, cluster, layout (hamode, with layout_prefix), ca, password_file, \
                       timeout_ms and history_s";

/// Which servers, which keys, and how to reach them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// `host:port` of each server of one cluster. One is asked; the others when it fails.
    pub endpoints: Vec<String>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The certificates that the servers' must be signed by, in PEM. None: those of the public
    /// web.
    pub root_certificates: Option<PathBuf>,
    /// Who asks, where the servers want to know.
    pub user: Option<User>,
    /// What stands before every key.
    pub prefix: String,
    /// What stands before every name.
    pub namespace: Namespace,
    /// The mark that the store must bear.
    pub cluster: Option<String>,
    /// How long one request is waited for.
    pub timeout: Duration,
    /// How long the record of a name stays at least half of, after the name was given back or its
    /// holder's session ended: for people, and so that a late copy of a claim is refused.
    pub history: Duration,
    /// The neighbour that the leases are shared with.
    pub layout: Option<Layout>,
}

/// A user of etcd's, and where the password is.
#[derive(Clone)]
pub struct User {
    pub(crate) name: String,
    pub(crate) password: Password,
}

/// Where a password is.
#[derive(Clone)]
pub(crate) enum Password {
    Known(String),
    /// Read anew each time that the servers want it.
    File(PathBuf),
}

impl User {
    /// A user whose password doesn't change.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: Password::Known(password.into()) }
    }

    /// A user whose password is the first line of a file, which is read each time that the
    /// servers want the password: so it can be replaced under open sessions.
    pub fn with_password_file(name: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), password: Password::File(file.into()) }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.name)
    }
}

impl EtcdConfig {
    /// Endpoints without encryption and password, and the defaults.
    pub fn new<T: Into<String>>(endpoints: impl IntoIterator<Item = T>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: false,
            root_certificates: None,
            user: None,
            prefix: PREFIX_DEFAULT.to_owned(),
            namespace: Namespace::default(),
            cluster: None,
            timeout: TIMEOUT_DEFAULT,
            history: HISTORY_DEFAULT,
            layout: None,
        }
    }

    /// Reads `etcd://USER:PASSWORD@HOST:PORT,HOST:PORT/PREFIX?namespace=N&cluster=C`; with
    /// `etcds` connections are encrypted. Nothing is percent-decoded: a password with `/` or `?`
    /// in it belongs into a file. `layout=hamode` shares the leases with a neighbour ([`Layout`]);
    /// `layout_prefix` is what its keys begin with.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): no such URL, or an option that is unknown,
    /// given twice, or can't be used. The message has no password in it.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (tls, rest) = match url.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(malformed("it doesn't begin with `etcd://` or `etcds://`")),
        };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, prefix) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<Vec<_>, _>>()?;
        let mut config = Self { tls, ..Self::new(endpoints) };
        if let Some(user) = user {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            config.user = Some(User::new(name, password));
        }
        if !prefix.is_empty() {
            config.prefix = format!("{}/", prefix.strip_suffix('/').unwrap_or(prefix));
        }
        let (mut seen, mut layout, mut layout_prefix) = (Vec::new(), None, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if seen.contains(&key) {
                return Err(Error::invalid(format!("the option `{key}` is given twice")));
            }
            seen.push(key);
            match key {
                "layout" => layout = Some(value),
                "layout_prefix" => layout_prefix = Some(value.to_owned()),
                _ => config.set(key, value)?,
            }
        }
        if layout.is_none() && layout_prefix.is_some() {
            return Err(Error::invalid("layout_prefix needs a layout: `layout=hamode`"));
        }
        config.layout = layout.map(|word| Layout::of_url(word, layout_prefix)).transpose()?;
        config.check()?;
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let whole = || {
            let what = || Error::invalid(format!("{key}={value} is not a whole number"));
            value.parse::<u64>().map_err(|_| what())
        };
        match key {
            "namespace" => self.namespace = Namespace::new(value)?,
            "cluster" => self.cluster = Some(value.to_owned()),
            "ca" => self.root_certificates = Some(PathBuf::from(value)),
            "password_file" => match &mut self.user {
                Some(user) => user.password = Password::File(PathBuf::from(value)),
                None => {
                    return Err(Error::invalid("password_file needs a user: `etcd://USER@HOST`"));
                }
            },
            "timeout_ms" => self.timeout = Duration::from_millis(whole()?),
            "history_s" => self.history = Duration::from_secs(whole()?),
            _ => {
                return Err(Error::invalid(format!(
                    "an etcd store has no option `{key}`; it has {OPTIONS}"
                )));
            }
        }
        Ok(())
    }

    /// Whether the values can be used, since the fields may have been set directly.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.endpoints.is_empty() {
            return Err(malformed("it names no host"));
        }
        if self.prefix.len() > PREFIX_BYTES_MAX || self.prefix.contains(|c: char| c.is_control()) {
            return Err(Error::invalid(format!(
                "the prefix is longer than {PREFIX_BYTES_MAX} bytes, or has control characters"
            )));
        }
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            return Err(Error::invalid(format!(
                "a timeout of {:?} is out of range; 1 ms to {TIMEOUT_MAX:?} can be chosen",
                self.timeout
            )));
        }
        if !(HISTORY_MIN..=HISTORY_MAX).contains(&self.history) {
            return Err(Error::invalid(format!(
                "a history of {:?} is out of range; {HISTORY_MIN:?} to {HISTORY_MAX:?} can be \
                 chosen",
                self.history
            )));
        }
        if self.root_certificates.is_some() && !self.tls {
            return Err(Error::invalid("ca= needs encrypted connections: write `etcds://`"));
        }
        self.layout.as_ref().map_or(Ok(()), |layout| layout.check(&self.prefix))?;
        self.cluster.as_deref().map_or(Ok(()), cluster::check)
    }

    /// Where the store is, without a secret: for profiles, errors and logs.
    pub(crate) fn location(&self) -> String {
        let scheme = if self.tls { "etcds" } else { "etcd" };
        format!("{scheme}://{}/{}", self.endpoints.join(","), self.prefix)
    }
}

fn endpoint(text: &str) -> Result<String, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        return Err(malformed("a host in it is empty, or has characters that no host has"));
    }
    // The colons within brackets are an address's own.
    let after = text.rsplit_once(']').map_or(text, |(_, after)| after);
    match after.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        Some(_) => Err(malformed("a port in it is not a number up to 65535")),
        None => Ok(format!("{text}:{PORT_DEFAULT}")),
    }
}

/// The URL itself could have a password in it, and isn't repeated.
fn malformed(why: &str) -> Error {
    Error::invalid(format!(
        "the URL can't be read: {why}; `etcd://USER:PASSWORD@HOST:PORT,HOST:PORT/PREFIX?OPTIONS` \
         is its form, and the options are {OPTIONS}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let url = "etcds://app:se:c@ret@db1,db2:2380,[::1]:2381/shop/leases?namespace=shop\
                   &cluster=prod&ca=/etc/ca.pem&timeout_ms=900&history_s=7200";
        let config = EtcdConfig::from_url(url).unwrap();
        assert_eq!(config.endpoints, ["db1:2379", "db2:2380", "[::1]:2381"]);
        assert_eq!((config.tls, config.prefix.as_str()), (true, "shop/leases/"));
        assert_eq!(config.timeout, Duration::from_millis(900));
        assert_eq!(config.history, Duration::from_secs(7200));
        assert_eq!(config.location(), "etcds://db1:2379,db2:2380,[::1]:2381/shop/leases/");
        assert!(!format!("{config:?}").contains("ret"), "{config:?}");
        let Some(User { name, password: Password::Known(password) }) = config.user else {
            panic!()
        };
        assert_eq!((name.as_str(), password.as_str()), ("app", "se:c@ret"));
        let config = EtcdConfig::from_url("etcd://h").unwrap();
        assert_eq!((config.prefix.as_str(), config.layout), (PREFIX_DEFAULT, None));
        for (options, prefix) in
            [("layout=hamode", "app_runtime_leases/"), ("layout_prefix=x/&layout=hamode", "x/")]
        {
            let config = EtcdConfig::from_url(&format!("etcd://h?{options}")).unwrap();
            assert_eq!(config.layout.unwrap().prefix(), prefix);
        }
    }

    #[test]
    fn bad_urls_say_why_and_keep_the_password() {
        for (url, why) in [
            ("redis://u:secret@h", "doesn't begin with"),
            ("etcd://u:secret@", "a host in it"),
            ("etcd://u:secret@h:port", "a port in it"),
            ("etcd://u:secret@h?color=red", "it has namespace"),
            ("etcd://u:secret@h?cluster=a&cluster=a", "given twice"),
            ("etcd://u:secret@h?timeout_ms=0", "out of range"),
            ("etcd://u:secret@h?timeout_ms=soon", "not a whole number"),
            ("etcd://u:secret@h?history_s=1", "out of range"),
            ("etcd://u:secret@h?ca=/etc/ca.pem", "etcds"),
            ("etcd://h?password_file=/etc/secret", "needs a user"),
            ("etcd://h?layout=redis", "hamode is"),
            ("etcd://h?layout_prefix=x/", "needs a layout"),
            ("etcd://h?layout=hamode&layout_prefix=", "1 to 255"),
            ("etcd://h?layout=hamode&layout_prefix=ten", "mix the neighbour's keys"),
            ("etcd://h/a?layout=hamode&layout_prefix=a/b/", "mix the neighbour's keys"),
        ] {
            let error = EtcdConfig::from_url(url).unwrap_err();
            assert!(error.to_string().contains(why), "{url}: {error}");
            let said = format!("{error} {error:?}").replace("/etc/secret", "");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
