//! SQLite files by URL.

use std::sync::Arc;

use tenure_core::chance::Chance;
use tenure_core::clock::Clock;
use tenure_core::error::Error;
use tenure_core::identity::Namespace;
use tenure_core::store::StoreAdmin;
use tenure_sqlite::{SqliteConfig, SqliteStore};

use super::{TransactionGuard, Url, WithGuard};

pub(super) async fn open(
    url: &Url<'_>,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    chance: &mut Chance,
) -> Result<WithGuard, Error> {
    let store = opened(url, namespace, clock, chance).await?;
    let guard = TransactionGuard::Sqlite(store.guard());
    Ok((Arc::new(store), guard))
}

pub(super) async fn admin(
    url: &Url<'_>,
    chance: &mut Chance,
) -> Result<Arc<dyn StoreAdmin>, Error> {
    let namespace = url.namespace.clone().unwrap_or_default();
    Ok(Arc::new(opened(url, namespace, Arc::new(crate::clock::SystemClock), chance).await?))
}

async fn opened(
    url: &Url<'_>,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    chance: &mut Chance,
) -> Result<SqliteStore, Error> {
    let mut config = SqliteConfig::from_url(&format!("sqlite:{}", url.rest))?;
    config.namespace = namespace;
    SqliteStore::open(config, clock, Chance::seeded(chance.next_u64())).await
}
