//! From a URL to an open store: the only file that names the store crates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tenure_core::chance::Chance;
use tenure_core::clock::Clock;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::Namespace;
use tenure_core::memory::MemoryStore;
use tenure_core::store::{Level, Store, StoreAdmin};

/// An open store, and what its URL said beside it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) namespace: Namespace,
    pub(crate) require: Option<Level>,
    /// What guards transactions on the leases' own file.
    #[cfg(feature = "sqlite")]
    pub(crate) guard: Option<SqliteGuard>,
}

#[cfg(feature = "sqlite")]
pub(crate) use tenure_sqlite::{Guard as SqliteGuard, SqliteStore};

/// What a URL says, taken apart.
struct Url<'a> {
    scheme: &'a str,
    /// Without the options that are the session's own.
    rest: String,
    require: Option<Level>,
    namespace: Option<Namespace>,
}

/// The schemes of stores that tenure has, and the feature that compiles each in.
const SCHEMES: [(&str, Option<&str>); 4] =
    [("memory", None), ("sqlite", Some("sqlite")), ("etcd", Some("etcd")), ("etcds", Some("etcd"))];

/// The schemes that this build can open.
#[must_use]
pub fn schemes() -> Vec<&'static str> {
    SCHEMES.iter().filter(|(_, feature)| compiled(*feature)).map(|(scheme, _)| *scheme).collect()
}

fn compiled(feature: Option<&str>) -> bool {
    match feature {
        None => true,
        Some("sqlite") => cfg!(feature = "sqlite"),
        Some("etcd") => cfg!(feature = "etcd"),
        Some(_) => false,
    }
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
    #[cfg(feature = "sqlite")]
    let mut guard = None;
    let store: Arc<dyn Store> = match url.scheme {
        "memory" => Arc::new(memory(&url.rest, clock, chance).opened(namespace.clone())),
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let store = sqlite(&url, namespace.clone(), clock, chance).await?;
            guard = Some(store.guard());
            Arc::new(store)
        }
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => {
            let config = etcd(&url, namespace.clone())?;
            let chance = Chance::seeded(chance.next_u64());
            Arc::new(tenure_etcd::EtcdStore::open(config, chance).await?)
        }
        other => return Err(not_compiled(other)),
    };
    Ok(Opened {
        store,
        namespace,
        require: url.require,
        #[cfg(feature = "sqlite")]
        guard,
    })
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
    match url.scheme {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let namespace = url.namespace.clone().unwrap_or_default();
            let clock = Arc::new(crate::clock::SystemClock);
            Ok(Arc::new(sqlite(&url, namespace, clock, chance).await?))
        }
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => {
            let config = etcd(&url, url.namespace.clone().unwrap_or_default())?;
            let chance = Chance::seeded(chance.next_u64());
            Ok(Arc::new(tenure_etcd::EtcdAdmin::new(config, chance)?))
        }
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

#[cfg(feature = "sqlite")]
async fn sqlite(
    url: &Url<'_>,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    chance: &mut Chance,
) -> Result<SqliteStore, Error> {
    let mut config = tenure_sqlite::SqliteConfig::from_url(&format!("sqlite:{}", url.rest))?;
    config.namespace = namespace;
    SqliteStore::open(config, clock, Chance::seeded(chance.next_u64())).await
}

#[cfg(feature = "etcd")]
fn etcd(url: &Url<'_>, namespace: Namespace) -> Result<tenure_etcd::EtcdConfig, Error> {
    let text = format!("{}:{}", url.scheme, url.rest);
    let mut config = tenure_etcd::EtcdConfig::from_url(&text)?;
    config.namespace = namespace;
    Ok(config)
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
    match SCHEMES.iter().find(|(known, _)| *known == scheme) {
        Some((_, Some(feature))) => Error::new(
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
