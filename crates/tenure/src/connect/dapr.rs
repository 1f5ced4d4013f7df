//! Dapr state stores by URL.

use std::sync::Arc;

use tenure_core::chance::Chance;
use tenure_core::error::Error;
use tenure_core::identity::Namespace;
use tenure_core::store::StoreAdmin;
use tenure_dapr::{DaprAdmin, DaprConfig, DaprLeases};

use super::{TransactionGuard, Url, WithGuard};

pub(super) async fn open(
    url: &Url<'_>,
    namespace: Namespace,
    chance: &mut Chance,
) -> Result<WithGuard, Error> {
    let config = config(url, namespace)?;
    let store = DaprLeases::open(config, Chance::seeded(chance.next_u64())).await?;
    Ok((Arc::new(store), TransactionGuard::None))
}

pub(super) fn admin(url: &Url<'_>, chance: &mut Chance) -> Result<Arc<dyn StoreAdmin>, Error> {
    let config = config(url, url.namespace.clone().unwrap_or_default())?;
    Ok(Arc::new(DaprAdmin::new(config, Chance::seeded(chance.next_u64()))?))
}

fn config(url: &Url<'_>, namespace: Namespace) -> Result<DaprConfig, Error> {
    let mut config = DaprConfig::from_url(&format!("{}:{}", url.scheme, url.rest))?;
    config.namespace = namespace;
    Ok(config)
}
