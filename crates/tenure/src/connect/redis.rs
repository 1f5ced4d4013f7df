//! Redis and Valkey by URL.

use std::sync::Arc;

use tenure_core::chance::Chance;
use tenure_core::error::Error;
use tenure_core::identity::Namespace;
use tenure_core::store::StoreAdmin;
use tenure_redis::{RedisConfig, RedisStore};

use super::{TransactionGuard, Url, WithGuard};

pub(super) async fn open(
    url: &Url<'_>,
    namespace: Namespace,
    chance: &mut Chance,
) -> Result<WithGuard, Error> {
    Ok((Arc::new(opened(url, namespace, chance).await?), TransactionGuard::None))
}

pub(super) async fn admin(
    url: &Url<'_>,
    chance: &mut Chance,
) -> Result<Arc<dyn StoreAdmin>, Error> {
    let namespace = url.namespace.clone().unwrap_or_default();
    Ok(Arc::new(opened(url, namespace, chance).await?))
}

async fn opened(
    url: &Url<'_>,
    namespace: Namespace,
    chance: &mut Chance,
) -> Result<RedisStore, Error> {
    let mut config = RedisConfig::from_url(&format!("{}:{}", url.scheme, url.rest))?;
    config.namespace = namespace;
    RedisStore::open(config, Chance::seeded(chance.next_u64())).await
}
