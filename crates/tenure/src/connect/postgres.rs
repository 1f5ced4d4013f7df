//! PostgreSQL by URL.

use std::sync::Arc;

use tenure_core::chance::Chance;
use tenure_core::error::Error;
use tenure_core::identity::Namespace;
use tenure_core::store::StoreAdmin;
use tenure_postgres::{PostgresAdmin, PostgresConfig, PostgresStore};

use super::{TransactionGuard, Url, WithGuard};

pub(super) async fn open(
    url: &Url<'_>,
    namespace: Namespace,
    chance: &mut Chance,
) -> Result<WithGuard, Error> {
    let mut config = config(url)?;
    config.namespace = namespace;
    let store = PostgresStore::open(config, Chance::seeded(chance.next_u64())).await?;
    let guard = TransactionGuard::Postgres(store.guard());
    Ok((Arc::new(store), guard))
}

pub(super) fn admin(url: &Url<'_>, chance: &mut Chance) -> Result<Arc<dyn StoreAdmin>, Error> {
    Ok(Arc::new(PostgresAdmin::new(config(url)?, Chance::seeded(chance.next_u64()))?))
}

fn config(url: &Url<'_>) -> Result<PostgresConfig, Error> {
    PostgresConfig::from_url(&format!("postgres:{}", url.rest))
}
