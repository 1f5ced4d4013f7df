//! Which server, database and schema, and how to reach them.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tenure_core::cluster;
use tenure_core::error::Error;
use tenure_core::identity::Namespace;
use tokio_postgres::config::{Host, SslMode};

use crate::driver::Pool;
use crate::layout::Hamode;

/// How long connecting may take, unless the URL says otherwise.
pub const CONNECT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a request may take, unless the URL says otherwise: as long as a session of the
/// default ttl waits for one (ttl/6 of 30 s).
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How many connections a session opens at most, one for hints aside.
pub const CONNECTIONS_DEFAULT: usize = 4;
/// The schema that tenure's tables are in, unless the URL names another.
pub const SCHEMA_DEFAULT: &str = "tenure";

/// The option by which the others of a layout mean something, wherever it stands.
const LAYOUT_HAMODE: &str = "layout=hamode";
const OPTIONS: &str = "namespace, cluster, schema, sslmode, sslrootcert, push, connections, \
                       timeout_ms, layout, table and skew_ms, and what libpq knows of a connection";

/// How a connection is encrypted, with the meanings that libpq gives these words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// Never.
    Disable,
    /// If the server offers it. Nothing proves which server that is.
    #[default]
    Prefer,
    /// Always. Nothing proves which server it is.
    Require,
    /// Always, and the server's certificate must be good for its name.
    VerifyFull,
}

/// Which server, database and schema, and how to reach them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// Hosts, user, password and database, as the client knows them.
    pub server: tokio_postgres::Config,
    /// What stands before every name.
    pub namespace: Namespace,
    /// The mark that the store must bear.
    pub cluster: Option<String>,
    /// The schema of the tables.
    pub schema: Schema,
    /// How connections are encrypted.
    pub tls: Tls,
    /// The certificates that a server's must be signed by, in PEM. None: those of the public web.
    pub root_certificates: Option<PathBuf>,
    /// Whether to listen for the store's hints. It takes a connection of its own while somebody
    /// waits; without one, waiters poll.
    pub push: bool,
    /// How many connections a session opens at most, one for hints aside.
    pub connections: usize,
    /// How long a request may take before its outcome counts as unknown.
    pub timeout: Duration,
    /// HAMode's table, whose entries are respected and written beside tenure's own records.
    pub hamode: Option<Hamode>,
}

/// A schema's name: letters, digits and underscores, not a digit first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema(String);

impl Schema {
    /// Parses a schema's name.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): empty, longer than 50 bytes, or with
    /// characters that would need quoting.
    pub fn new(text: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let first = text.chars().next();
        if first.is_none_or(|c| c.is_ascii_digit()) || !text.chars().all(plain) || text.len() > 50 {
            return Err(Error::invalid(format!(
                "`{text}` can't be a schema of tenure's: ASCII letters, digits and `_` can, up to \
                 50 of them, and no digit first"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as it stands in messages.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in a statement, whatever its case.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }

    /// The channel that this schema's hints come through.
    pub(crate) fn channel(&self) -> String {
        format!("tenure_{}", self.0)
    }
}

impl PostgresConfig {
    /// Reads `postgres://user:password@host/database?namespace=N&schema=S&sslmode=verify-full`.
    ///
    /// The part before the `?`, and the options that aren't tenure's, are read as libpq reads
    /// them.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): no such URL, or an option that is unknown,
    /// given twice, or can't be used. The message has no password in it.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let (place, options) = url.split_once('?').unwrap_or((url, ""));
        let mut config = Self::of(tokio_postgres::Config::new());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        if options.split('&').any(|option| option == LAYOUT_HAMODE) {
            config.hamode = Some(Hamode::default());
        }
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if ours.contains(&key) {
                return Err(Error::invalid(format!("the option `{key}` is given twice")));
            }
            if config.set(key, value)? {
                ours.push(key);
            } else {
                theirs.push(option);
            }
        }
        let plain = if theirs.is_empty() {
            place.to_owned()
        } else {
            format!("{place}?{}", theirs.join("&"))
        };
        let mut server: tokio_postgres::Config = plain.parse().map_err(|_| {
            // The client's own words could repeat the URL, and with it a password.
            Error::invalid(format!(
                "the URL can't be read; `postgres://USER:PASSWORD@HOST/DATABASE?OPTIONS` is its \
                 form, and the options are {OPTIONS}"
            ))
        })?;
        if server.get_hosts().is_empty() {
            return Err(Error::invalid("the URL names no host: `postgres://HOST/DATABASE`"));
        }
        if server.get_connect_timeout().is_none() {
            server.connect_timeout(CONNECT_DEFAULT);
        }
        if server.get_application_name().is_none() {
            server.application_name("tenure");
        }
        // A connection that nobody answers on is given up some time.
        server.keepalives_idle(Duration::from_secs(15)).tcp_user_timeout(Duration::from_secs(30));
        server.ssl_mode(match config.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyFull => SslMode::Require,
        });
        config.server = server;
        Ok(config)
    }

    /// The defaults around a connection's own configuration, which is taken as it is.
    #[must_use]
    pub fn of(server: tokio_postgres::Config) -> Self {
        Self {
            server,
            namespace: Namespace::default(),
            cluster: None,
            schema: Schema(SCHEMA_DEFAULT.to_owned()),
            tls: Tls::default(),
            root_certificates: None,
            push: true,
            connections: CONNECTIONS_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
            hamode: None,
        }
    }

    /// Takes an option, if it is one of tenure's.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        match key {
            "namespace" => self.namespace = Namespace::new(value)?,
            "cluster" => {
                cluster::check(value)?;
                self.cluster = Some(value.to_owned());
            }
            "schema" => self.schema = Schema::new(value)?,
            "sslmode" => {
                self.tls = match value {
                    "disable" => Tls::Disable,
                    "prefer" => Tls::Prefer,
                    "require" => Tls::Require,
                    "verify-full" => Tls::VerifyFull,
                    _ => {
                        return Err(Error::invalid(format!(
                            "sslmode={value} is not known; disable, prefer, require and \
                             verify-full are"
                        )));
                    }
                };
            }
            "sslrootcert" => self.root_certificates = Some(PathBuf::from(value)),
            "push" => {
                self.push = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(Error::invalid(format!("push={value}: on and off are known"))),
                }
            }
            "timeout_ms" => {
                let millis = value.parse().ok().filter(|millis| (1..=60_000).contains(millis));
                self.timeout = millis.map(Duration::from_millis).ok_or_else(|| {
                    Error::invalid(format!("timeout_ms={value} is not within 1 and 60000"))
                })?;
            }
            "connections" => {
                self.connections =
                    value.parse().ok().filter(|count| (1..=64).contains(count)).ok_or_else(
                        || Error::invalid(format!("connections={value} is not within 1 and 64")),
                    )?;
            }
            "layout" if value == Hamode::WORD => {}
            "layout" => {
                return Err(Error::invalid(format!("layout={value} is not known; hamode is")));
            }
            "table" => {
                let table = percent_decode_str(value).decode_utf8_lossy();
                self.hamode = Some(self.shared(key)?.with_table_named(&table)?);
            }
            "skew_ms" => {
                let millis = value.parse().map_err(|_| {
                    Error::invalid(format!("skew_ms={value} is not a number of milliseconds"))
                })?;
                self.hamode = Some(self.shared(key)?.with_skew(Duration::from_millis(millis))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn shared(&self, option: &str) -> Result<Hamode, Error> {
        self.hamode.clone().ok_or_else(|| {
            Error::invalid(format!("{option}= means nothing without {LAYOUT_HAMODE}; add that"))
        })
    }

    /// Where the store is, without a secret: for profiles, errors and logs.
    pub(crate) fn location(&self, pool: &Pool) -> String {
        let place = match pool {
            Pool::Own(_) | Pool::Hosts(_) => self.place(),
            #[cfg(feature = "sqlx")]
            Pool::Sqlx(pool) => crate::sqlx_pool::place(pool),
        };
        format!("postgres://{place} ({})", self.schema.as_str())
    }

    /// The hosts and the database that the configuration names.
    fn place(&self) -> String {
        let ports = self.server.get_ports();
        let hosts = self.server.get_hosts().iter().enumerate().map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(host) => format!("{host}:{port}"),
                #[cfg(unix)]
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        });
        let hosts: Vec<_> = hosts.collect();
        let database = self.server.get_dbname().or(self.server.get_user()).unwrap_or_default();
        format!("{}/{database}", hosts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let url = "postgres://app:secret@db1,db2:6432/app?namespace=shop&schema=ops&cluster=prod\
                   &sslmode=verify-full&push=off&connections=2&target_session_attrs=read-write";
        let config = PostgresConfig::from_url(url).unwrap();
        assert_eq!(config.namespace.as_str(), "shop");
        assert_eq!(config.schema.channel(), "tenure_ops");
        assert_eq!((config.tls, config.push, config.connections), (Tls::VerifyFull, false, 2));
        assert_eq!(config.server.get_connect_timeout(), Some(&CONNECT_DEFAULT));
        assert_eq!(config.place(), "db1:5432,db2:6432/app", "without the password");
    }

    #[test]
    fn a_layout_names_a_table_of_any_name() {
        let of = |options: &str| {
            PostgresConfig::from_url(&format!("postgres://h/d?{options}")).unwrap().hamode
        };
        assert_eq!(of("push=on"), None);
        assert_eq!(of("layout=hamode").unwrap().to_string(), "public.app_runtime_leases");
        let other = of("table=ops.My%20leases%26more&skew_ms=250&layout=hamode").unwrap();
        assert_eq!(other.quoted(), "\"ops\".\"My leases&more\"");
        assert_eq!(other.skew, Duration::from_millis(250));
    }

    #[test]
    fn bad_urls_say_why_and_keep_the_password() {
        for (url, why) in [
            ("postgres://u:secret@h/d?sslmode=maybe", "sslmode=maybe"),
            ("postgres://u:secret@h/d?schema=a.b", "can't be a schema"),
            ("postgres://u:secret@h/d?connections=0", "connections=0"),
            ("postgres://u:secret@h/d?color=red", "options are namespace"),
            ("postgres://u:secret@h/d?schema=a&schema=b", "given twice"),
            ("postgres://u:secret@h:port/d", "can't be read"),
            ("postgres:///d", "no host"),
            ("postgres://u:secret@h/d?layout=consul", "hamode is"),
            ("postgres://u:secret@h/d?table=a.b", "without layout=hamode"),
            ("postgres://u:secret@h/d?layout=hamode&skew_ms=300001", "more than 300s"),
        ] {
            let error = PostgresConfig::from_url(url).unwrap_err();
            assert!(error.to_string().contains(why), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}
