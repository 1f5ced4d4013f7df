//! From a URL to an open store: the only file that names the store crates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tenure_core::chance::Chance;
use tenure_core::clock::Clock;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::Namespace;
use tenure_core::memory::MemoryStore;
use tenure_core::store::{Level, Store, StoreAdmin};

#[cfg(feature = "dapr")]
mod dapr;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "object")]
mod object;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

/// An open store, and what its URL said beside it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) namespace: Namespace,
    pub(crate) require: Option<Level>,
    pub(crate) guard: TransactionGuard,
}

/// What guards a user's own transactions, where lease and resource can be in one.
#[derive(Clone, Default)]
pub(crate) enum TransactionGuard {
    #[default]
    None,
    #[cfg(feature = "sqlite")]
    Sqlite(tenure_sqlite::Guard),
    #[cfg(feature = "postgres")]
    Postgres(tenure_postgres::Guard),
}

/// A store that was just opened, with its guard.
type WithGuard = (Arc<dyn Store>, TransactionGuard);

/// What a URL says, taken apart.
struct Url<'a> {
    scheme: &'a str,
    /// Without the options that are the session's own.
    rest: String,
    require: Option<Level>,
    namespace: Option<Namespace>,
}

/// The schemes of stores that tenure has, the feature that compiles each in, and whether it is.
const SCHEMES: [(&str, Option<&str>, bool); 11] = [
    ("memory", None, true),
    ("sqlite", Some("sqlite"), cfg!(feature = "sqlite")),
    ("postgres", Some("postgres"), cfg!(feature = "postgres")),
    ("postgresql", Some("postgres"), cfg!(feature = "postgres")),
    ("redis", Some("redis"), cfg!(feature = "redis")),
    ("etcd", Some("etcd"), cfg!(feature = "etcd")),
    ("dapr", Some("dapr"), cfg!(feature = "dapr")),
    ("s3", Some("object"), cfg!(feature = "object")),
    ("gs", Some("object"), cfg!(feature = "object")),
    ("az", Some("object"), cfg!(feature = "object")),
    ("kubernetes", Some("kubernetes"), cfg!(feature = "kubernetes")),
];

/// The schemes that this build can open.
#[must_use]
pub fn schemes() -> Vec<&'static str> {
    SCHEMES.iter().filter(|(.., compiled)| *compiled).map(|(scheme, ..)| *scheme).collect()
}

/// Opens the store of a URL.
pub(crate) async fn open(
    url: &str,
    namespace: Option<Namespace>,
    clock: Arc<dyn Clock>,
    chance: &mut Chance,
) -> Result<Opened, Error> {
    let url = Url::parse(url)?;
    let namespace = namespace.or(url.namespace.clone()).unwrap_or_default();
    let (store, guard): WithGuard = match family(url.scheme) {
        "memory" => {
            let store = memory(&url.rest, clock, chance).opened(namespace.clone());
            (Arc::new(store), TransactionGuard::None)
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::open(&url, namespace.clone(), clock, chance).await?,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::open(&url, namespace.clone(), chance).await?,
        #[cfg(feature = "dapr")]
        "dapr" => dapr::open(&url, namespace.clone(), chance).await?,
        #[cfg(feature = "etcd")]
        "etcd" => etcd::open(&url, namespace.clone(), chance).await?,
        #[cfg(feature = "object")]
        "s3" | "gs" | "az" => object::open(&url, namespace.clone(), chance).await?,
        #[cfg(feature = "kubernetes")]
        "kubernetes" => kubernetes::open(&url, namespace.clone(), chance).await?,
        #[cfg(feature = "redis")]
        "redis" => redis::open(&url, namespace.clone(), chance).await?,
        other => return Err(not_compiled(other)),
    };
    Ok(Opened { store, namespace, require: url.require, guard })
}

/// Opens the operator's side of the store of a URL.
///
/// # Errors
/// As [`SessionBuilder::open`](crate::SessionBuilder::open); and
/// [`Misconfigured`](ErrorKind::Misconfigured) for a store that needs no setting up.
///
/// # Cancel safety
/// Nothing was changed yet.
pub async fn admin(url: &str, chance: &mut Chance) -> Result<Arc<dyn StoreAdmin>, Error> {
    let url = Url::parse(url)?;
    match family(url.scheme) {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::admin(&url, chance).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::admin(&url, chance),
        #[cfg(feature = "dapr")]
        "dapr" => dapr::admin(&url, chance),
        #[cfg(feature = "etcd")]
        "etcd" => etcd::admin(&url, chance),
        #[cfg(feature = "object")]
        "s3" | "gs" | "az" => object::admin(&url, chance),
        #[cfg(feature = "kubernetes")]
        "kubernetes" => kubernetes::admin(&url, chance),
        #[cfg(feature = "redis")]
        "redis" => redis::admin(&url, chance).await,
        "memory" => {
            let _ = chance;
            let message = "a store in memory needs no setting up, and ends with its process";
            Err(Error::new(ErrorKind::Misconfigured, Operation::Init, message))
        }
        other => Err(not_compiled(other)),
    }
}

/// `memory:NAME` is one store for all sessions of this process; `memory:` is the caller's own.
fn memory(name: &str, clock: Arc<dyn Clock>, chance: &mut Chance) -> MemoryStore {
    static SHARED: OnceLock<Mutex<HashMap<String, MemoryStore>>> = OnceLock::new();
    let name = name.trim_start_matches('/');
    if name.is_empty() {
        return MemoryStore::new(clock, chance);
    }
    let mut shared =
        SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    shared.entry(name.to_owned()).or_insert_with(|| MemoryStore::new(clock, chance)).clone()
}

/// The scheme that a store is known by: others say how its servers are found, or TLS.
fn family(scheme: &str) -> &str {
    match scheme.split_once('+').map_or(scheme, |(first, _)| first) {
        "redis" | "rediss" | "valkey" | "valkeys" => "redis",
        "etcds" => "etcd",
        _ => scheme,
    }
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self, Error> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(Error::invalid(format!(
                "a store is named by a URL such as `sqlite:/var/lib/app/leases.db`; what was \
                 given has no scheme, and this build opens {}",
                schemes().join(" and ")
            )));
        };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self { scheme, rest: place.to_owned(), require: None, namespace: None };
        let mut kept = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("require", level)) => once("require", &mut url.require, level.parse()?)?,
                Some(("namespace", name)) => {
                    once("namespace", &mut url.namespace, Namespace::new(name)?)?;
                }
                _ => kept.push(option),
            }
        }
        if !kept.is_empty() {
            url.rest = format!("{place}?{}", kept.join("&"));
        }
        Ok(url)
    }
}

fn once<T>(option: &str, place: &mut Option<T>, value: T) -> Result<(), Error> {
    if place.replace(value).is_some() {
        return Err(Error::invalid(format!("the option `{option}` is given twice in the URL")));
    }
    Ok(())
}

fn not_compiled(scheme: &str) -> Error {
    match SCHEMES.iter().find(|(known, ..)| *known == scheme) {
        Some((_, Some(feature), _)) => Error::new(
            ErrorKind::Misconfigured,
            Operation::Open,
            format!(
                "`{scheme}:` stores are not compiled in; build tenure with `--features {feature}`"
            ),
        ),
        _ => Error::invalid(format!(
            "`{scheme}:` is no store that tenure knows; this build opens {}",
            schemes().join(" and ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_session_are_taken_out_of_the_url() {
        let url = Url::parse("sqlite:/a?namespace=shop&busy_ms=5&require=lease")
            .expect("it is well formed");
        assert_eq!(url.rest, "/a?busy_ms=5");
        assert_eq!(url.require, Some(Level::Lease));
        assert_eq!(url.namespace, Some(Namespace::new("shop").expect("a namespace")));
    }

    #[test]
    fn what_is_no_url_says_what_would_be_one() {
        for (text, why) in [
            ("leases.db", "no scheme"),
            ("sqlite:/a?require=much", "not a level"),
            ("sqlite:/a?namespace=a&namespace=b", "given twice"),
        ] {
            let error = Url::parse(text).map(|_| ()).expect_err(text);
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        assert_eq!(family("rediss+sentinel"), "redis");
        assert!(not_compiled("zookeeper").to_string().contains("this build opens"));
    }

    #[tokio::test]
    async fn sessions_of_one_memory_name_share_a_store() {
        let first = crate::Session::open("memory:shared-by-name").await.unwrap();
        let second = crate::Session::open("memory:shared-by-name").await.unwrap();
        let lease = match first.lease("x").try_acquire().await.unwrap() {
            crate::Attempt::Granted(lease) => lease,
            crate::Attempt::Refused(by) => panic!("{by}"),
        };
        let refused = second.lease("x").try_acquire().await.unwrap();
        assert!(matches!(refused, crate::Attempt::Refused(by) if by.token == lease.token()));
        first.close().await.unwrap();
    }
}
