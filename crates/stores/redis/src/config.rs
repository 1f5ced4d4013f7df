//! Which server, which namespace, and what stands before every key.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use percent_encoding::percent_decode_str;
use redis::RedisConnectionInfo;
use tenure_core::cluster;
use tenure_core::error::Error;
use tenure_core::identity::{Name, Namespace};

use crate::keys::PREFIX;
use crate::layout::Layout;

const OPTIONS: &str = "namespace, cluster, prefix, layout (hamode with layout_prefix, leaderelection \
                       with layout_name and layout_key), with TLS ca, and with Sentinel \
                       sentinel_username and sentinel_password";
/// The longest prefix of keys, in bytes.
const PREFIX_BYTES_MAX: usize = 64;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Which server, which namespace, and what stands before every key.
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// What stands before every name.
    pub namespace: Namespace,
    /// The mark that the store must bear; a new store is given it.
    pub cluster: Option<String>,
    /// What all keys begin with: `tenure` unless set. Another prefix is another store.
    pub prefix: String,
    /// The neighbour that the leases are shared with.
    pub layout: Option<Layout>,
    /// Microseconds that are added to the server's clock: for tests, which turn it.
    #[doc(hidden)]
    pub clock_offset: Arc<AtomicI64>,
    pub(crate) place: Place,
}

/// How the servers are found.
#[derive(Clone)]
pub(crate) enum Place {
    /// One server.
    One(Server),
    /// The master of a service, as sentinels name it.
    Sentinel { sentinels: Vec<Server>, service: String, master: Login, tls: Option<Tls> },
    /// A cluster, of which these are known.
    Cluster(Vec<Server>),
    /// One server, as the host's own client reaches it.
    Client(redis::Client),
}

/// One server, and how to log in there.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) tls: Option<Tls>,
    pub(crate) login: Login,
}

/// An encrypted connection, and who is trusted with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// A PEM file of certificates. None: whom browsers trust.
    pub(crate) authorities: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Who one is there, and in which database.
#[derive(Clone, Default)]
pub(crate) struct Login {
    username: Option<String>,
    password: Option<String>,
    pub(crate) database: i64,
}

impl Login {
    pub(crate) fn info(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_db(self.database)
            .set_lib_name("tenure", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        info
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Without credentials.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |tls: &Option<Tls>| if tls.is_some() { "s" } else { "" };
        let all = |servers: &[Server]| {
            let each: Vec<String> =
                servers.iter().map(|server| server.address.to_string()).collect();
            each.join(",")
        };
        match self {
            Self::One(Server { address: Address::Unix(path), login, .. }) => {
                write!(f, "redis+unix://{}?db={}", path.display(), login.database)
            }
            Self::One(Server { address, tls, login }) => {
                write!(f, "redis{}://{address}/{}", s(tls), login.database)
            }
            Self::Sentinel { sentinels, service, master, tls } => write!(
                f,
                "redis{}+sentinel://{}/{service}/{}",
                s(tls),
                all(sentinels),
                master.database
            ),
            Self::Cluster(servers) => {
                let tls = servers.first().map_or("", |server| s(&server.tls));
                write!(f, "redis{tls}+cluster://{}/", all(servers))
            }
            Self::Client(client) => {
                let info = client.get_connection_info();
                write!(f, "redis://{}/{}", info.addr(), info.redis_settings().db())
            }
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("place", &self.place.to_string())
            .field("namespace", &self.namespace)
            .field("cluster", &self.cluster)
            .field("prefix", &self.prefix)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl RedisConfig {
    fn at(place: Place) -> Self {
        Self {
            namespace: Namespace::default(),
            cluster: None,
            prefix: PREFIX.to_owned(),
            layout: None,
            clock_offset: Arc::default(),
            place,
        }
    }

    /// The server that a client of the host's own reaches, in the default namespace.
    ///
    /// Connections are made with the client's address, credentials and TLS. One server, not a
    /// node of a cluster.
    #[must_use]
    pub fn of_client(client: redis::Client) -> Self {
        Self::at(Place::Client(client))
    }

    /// Reads a URL:
    ///
    /// - `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`
    /// - `redis+unix:///PATH?db=0`
    /// - `redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST…/SERVICE[/DATABASE]`: the
    ///   credentials are the master's; the sentinels' own are `sentinel_username` and
    ///   `sentinel_password`
    /// - `redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],HOST…/`
    ///
    /// with `rediss` in the place of `redis` for TLS, and `?namespace=N&cluster=C&prefix=P`. `ca` is a
    /// PEM file of the authorities that TLS trusts, in the place of those that browsers trust.
    /// `layout=hamode` and `layout=leaderelection&layout_name=NAME` share leases with a neighbour
    /// ([`Layout`]); `layout_prefix` and `layout_key` say what its keys are called.
    /// User and password are percent-decoded. `cluster` is the mark that the store must bear,
    /// and has nothing to do with Redis Cluster.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): another scheme, no host, an option that is
    /// unknown or given twice, or a value that can't be used. `Misconfigured`: a layout in a cluster.
    /// The message tells no credentials.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis" | "valkey", kind) => (false, kind),
            ("rediss" | "valkeys", kind) => (true, kind),
            _ => return Err(Error::invalid("the URL of a Redis store begins with `redis`")),
        };
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(Error::invalid(format!("write `{scheme}://HOST` with two slashes")));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Options::parse(query)?;
        let tls = tls.then(|| Tls { authorities: options.take("ca").map(PathBuf::from) });
        let place = match kind {
            "" => {
                let (login, host, path) = authority(rest)?;
                let login = Login { database: database(path)?, ..login };
                Place::One(Server { address: address(host, REDIS_PORT)?, tls, login })
            }
            "unix" if tls.is_none() => {
                let database = database(&options.take("db").unwrap_or_default())?;
                let login = Login { database, ..Login::default() };
                if !rest.starts_with('/') {
                    return Err(Error::invalid("write `redis+unix:///PATH/TO/SOCKET`"));
                }
                Place::One(Server { address: Address::Unix(rest.into()), tls, login })
            }
            "cluster" => {
                let (login, hosts, path) = authority(rest)?;
                if !path.is_empty() {
                    return Err(Error::invalid("a Redis cluster has no databases to choose from"));
                }
                Place::Cluster(servers(hosts, REDIS_PORT, tls.as_ref(), &login)?)
            }
            "sentinel" => {
                let (login, hosts, path) = authority(rest)?;
                let (service, number) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(Error::invalid(
                        "name the service: `redis+sentinel://HOST/SERVICE`",
                    ));
                }
                let own = Login {
                    username: options.take("sentinel_username"),
                    password: options.take("sentinel_password"),
                    database: 0,
                };
                Place::Sentinel {
                    sentinels: servers(hosts, SENTINEL_PORT, tls.as_ref(), &own)?,
                    service: decoded(service)?,
                    master: Login { database: database(number)?, ..login },
                    tls,
                }
            }
            _ => {
                return Err(Error::invalid(
                    "a Redis store is named by `redis:`, `redis+unix:`, `redis+sentinel:` or \
                     `redis+cluster:`, with `rediss` for TLS",
                ));
            }
        };
        let mut config = Self::at(place);
        if let Some(namespace) = options.take("namespace") {
            config.namespace = Namespace::new(namespace)?;
        }
        config.cluster = options.take("cluster");
        if let Some(prefix) = options.take("prefix") {
            config.prefix = prefix;
        }
        config.layout = options.layout()?;
        options.none_left()?;
        config.check()?;
        Ok(config)
    }

    /// Whether the values can be used, since the fields may have been set directly.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let unfit = |c: char| c.is_control() || c == '{' || c == '}';
        if self.prefix.is_empty() || self.prefix.len() > PREFIX_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the prefix of keys is {} bytes long; 1 to {PREFIX_BYTES_MAX} are allowed",
                self.prefix.len()
            )));
        }
        if self.prefix.contains(unfit) {
            return Err(Error::invalid(
                "the prefix of keys has a brace or a control character in it; leave it out",
            ));
        }
        if let Some(layout) = &self.layout {
            layout.check(&self.prefix, matches!(self.place, Place::Cluster(_)))?;
        }
        self.cluster.as_deref().map_or(Ok(()), cluster::check)
    }

    pub(crate) fn offset(&self) -> i64 {
        self.clock_offset.load(Ordering::SeqCst)
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

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| *known == key)?;
        Some(self.0.remove(at).1.to_owned())
    }

    /// The neighbour, if one is named.
    fn layout(&mut self) -> Result<Option<Layout>, Error> {
        let Some(word) = self.take("layout") else { return Ok(None) };
        let mut layout = match word.as_str() {
            "hamode" => Layout::hamode(),
            "leaderelection" => match self.take("layout_name") {
                Some(name) => Layout::leader_election(Name::new(decoded(&name)?)?),
                None => {
                    return Err(Error::invalid(
                        "LeaderElection has one key; say which name it stands for: \
                         `layout=leaderelection&layout_name=NAME`",
                    ));
                }
            },
            _ => {
                return Err(Error::invalid(format!(
                    "`{word}` is no layout; hamode and leaderelection are"
                )));
            }
        };
        match &mut layout {
            Layout::Hamode { prefix } => {
                *prefix = self.take("layout_prefix").unwrap_or(std::mem::take(prefix));
            }
            Layout::LeaderElection { key, .. } => {
                *key = self.take("layout_key").unwrap_or(std::mem::take(key));
            }
        }
        Ok(Some(layout))
    }

    fn none_left(&self) -> Result<(), Error> {
        let Some((key, _)) = self.0.first() else { return Ok(()) };
        Err(Error::invalid(format!("a Redis store has no option `{key}` here; it has {OPTIONS}")))
    }
}

/// Credentials, hosts, and the path without its first slash.
fn authority(rest: &str) -> Result<(Login, &str, &str), Error> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some((who, hosts)) = authority.rsplit_once('@') else {
        return Ok((Login::default(), authority, path));
    };
    let (username, password) = who.split_once(':').unwrap_or((who, ""));
    let given = |text: &str| match decoded(text) {
        Ok(text) => Ok((!text.is_empty()).then_some(text)),
        Err(_) => Err(Error::invalid("the credentials in the URL aren't percent-encoded UTF-8")),
    };
    let login = Login { username: given(username)?, password: given(password)?, database: 0 };
    if login.username.is_some() && login.password.is_none() {
        return Err(Error::invalid(
            "the URL names a user without a password: `USER:PASSWORD@HOST`",
        ));
    }
    Ok((login, hosts, path))
}

fn decoded(text: &str) -> Result<String, Error> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| Error::invalid("a part of the URL isn't percent-encoded UTF-8"))
}

fn servers(hosts: &str, port: u16, tls: Option<&Tls>, login: &Login) -> Result<Vec<Server>, Error> {
    let each = hosts.split(',').filter(|host| !host.is_empty());
    let servers: Vec<Server> = each
        .map(|host| {
            Ok(Server { address: address(host, port)?, tls: tls.cloned(), login: login.clone() })
        })
        .collect::<Result<_, Error>>()?;
    if servers.is_empty() {
        return Err(Error::invalid("the URL names no host"));
    }
    Ok(servers)
}

fn address(text: &str, default_port: u16) -> Result<Address, Error> {
    let refused = || Error::invalid("a host in the URL can't be used; write `HOST` or `HOST:PORT`");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(refused)?;
            (host, rest.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(Error::invalid("the URL names no host"));
    }
    let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| refused()))?;
    Ok(Address::Tcp { host: host.to_owned(), port })
}

fn database(text: &str) -> Result<i64, Error> {
    match text.trim_end_matches('/') {
        "" => Ok(0),
        text => text
            .parse::<u16>()
            .map(i64::from)
            .map_err(|_| Error::invalid("the database in the URL is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> RedisConfig {
        RedisConfig::from_url(url).unwrap()
    }

    #[test]
    fn a_url_is_read_and_shown_without_its_secrets() {
        for (url, shown) in [
            ("redis://host", "redis://host:6379/0"),
            ("rediss://me:p%40ss@host:7000/3", "rediss://host:7000/3"),
            ("redis://:secret@[::1]:7000", "redis://[::1]:7000/0"),
            ("valkey://host/0?namespace=shop", "redis://host:6379/0"),
            ("redis+unix:///run/redis.sock?db=2", "redis+unix:///run/redis.sock?db=2"),
            ("redis+cluster://:secret@a,b:7001/", "redis+cluster://a:6379,b:7001/"),
            (
                "rediss+sentinel://me:secret@a,b:1/main/4?sentinel_password=other",
                "rediss+sentinel://a:26379,b:1/main/4",
            ),
        ] {
            let config = read(url);
            assert_eq!(config.place.to_string(), shown);
            let debug = format!("{config:?}");
            assert!(!debug.contains("secret") && !debug.contains("p@ss"), "{debug}");
        }
        let config = read("redis://me:p%40ss@host/?namespace=shop&cluster=prod&prefix=x");
        assert_eq!(config.namespace.as_str(), "shop");
        assert_eq!(config.cluster.as_deref(), Some("prod"));
        assert_eq!(config.prefix, "x");
        let Place::One(server) = &config.place else { panic!("{config:?}") };
        assert_eq!(server.login.info().password(), Some("p@ss"));
        let shared = |options: &str| {
            let layout = read(&format!("redis://host/?{options}")).layout.unwrap();
            let entry = |name: &str| layout.entry(&Name::new(name).unwrap());
            [entry("a/b"), entry("c")].map(Option::unwrap_or_default)
        };
        assert_eq!(shared("layout=hamode"), ["app_runtime_leases:a/b", "app_runtime_leases:c"]);
        assert_eq!(shared("layout=hamode&layout_prefix=x:"), ["x:a/b", "x:c"]);
        assert_eq!(
            shared("layout=leaderelection&layout_name=a%2Fb"),
            ["leader-election-lock".to_owned(), String::new()]
        );
        assert_eq!(shared("layout=leaderelection&layout_name=c&layout_key=k")[1], "k");
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_with_a_sentence() {
        for (url, why) in [
            ("sqlite:/x", "begins with `redis`"),
            ("redis:host", "two slashes"),
            ("redis://", "names no host"),
            ("redis://host:port", "write `HOST` or `HOST:PORT`"),
            ("redis://me@host", "without a password"),
            ("redis://host/x", "not a number"),
            ("redis+cluster://host/1", "no databases"),
            ("redis+cluster://", "names no host"),
            ("redis+sentinel://host", "name the service"),
            ("redis+unix://run/x", "redis+unix:///PATH"),
            ("redis+ring://host", "`redis+sentinel:`"),
            ("redis://host?db=1", "no option `db` here; it has namespace, cluster, prefix"),
            ("redis://host?ca=/x", "no option `ca`"),
            ("redis://host?sentinel_password=x", "no option `sentinel_password`"),
            ("redis://host?prefix=a&prefix=b", "given twice"),
            ("redis://host?prefix=", "1 to 64"),
            ("redis://host?prefix={a}", "brace"),
            ("redis://host?namespace=", "namespace is empty"),
            ("redis://host?cluster=", "cluster mark can't be used"),
            ("redis://host?layout=etcd", "hamode and leaderelection are"),
            ("redis://host?layout_prefix=x", "no option `layout_prefix`"),
            ("redis://host?layout=hamode&layout_key=x", "no option `layout_key`"),
            ("redis://host?layout=hamode&layout_prefix=", "1 to 255"),
            ("redis://host?layout=hamode&layout_prefix=tenure:", "mix the neighbour's keys"),
            ("redis://host?layout=leaderelection", "layout_name=NAME"),
        ] {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), tenure_core::ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
        let error = RedisConfig::from_url("redis://me:secret@host:x/1?y=z").unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
