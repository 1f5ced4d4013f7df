//! `release --force`: the operator's order to end a grant.

use std::process::ExitCode;

use tenure::core::clock::Clock as _;
use tenure::core::identity::Nonce;
use tenure::core::record::{Demand, Order};
use tenure::core::store::{OrderRequest, Ordered};

use crate::args::{Arguments, ForceRelease};
use crate::duration;
use crate::exit::{Failure, NOT_ACQUIRED};
use crate::holder;
use crate::output::{self, Form};
use crate::store::{self, Default as Own};
use crate::view::LeaseView;

pub(super) async fn release(
    arguments: &Arguments,
    release: &ForceRelease,
) -> Result<ExitCode, Failure> {
    let session = store::choose(arguments, Own::Allowed)?.open().await?;
    let demand = if release.now { Demand::RevokeNow } else { Demand::Revoke };
    let by = format!("{} on {}", user(), session.instance().name());
    let at = tenure::SystemClock.now().wall;
    let request = OrderRequest {
        order: Order::new(demand, by, release.reason.clone(), at),
        token: None,
        nonce: Nonce::draw(&mut session.chance()),
    };
    let ordered = session.store().order(&release.name, &request).await?;
    let snapshot = match ordered {
        Ordered::Ordered(snapshot) => snapshot,
        Ordered::NotHeld(_) => {
            let message = format!("nobody holds lease `{}`; there is nothing to end", release.name);
            return Err(Failure::new(NOT_ACQUIRED, message));
        }
        Ordered::Failed(error) => return Err(error.into()),
        _ => return Err(Failure::new(crate::exit::UNAVAILABLE, "the store's answer is unknown")),
    };
    let view = LeaseView::of(&snapshot, session.instance());
    let (name, who) =
        (&release.name, holder::who(&snapshot.record.holder, &snapshot.record.metadata));
    let told = match Form::of(arguments.common.json) {
        Form::Json => output::json_line(&view),
        Form::Human if release.now => output::line(&format!(
            "lease `{name}` is free at once; until it hears of this, {who} may still act, and \
             only guards stop it"
        )),
        Form::Human => output::line(&format!(
            "lease `{name}` is revoked; it is free when {who} has released it, or in {} at the \
             latest",
            duration::show(std::time::Duration::from_millis(view.left_ms))
        )),
    };
    told.map_err(|error| Failure::stdout(&error))?;
    session.close().await?;
    Ok(ExitCode::SUCCESS)
}

fn user() -> String {
    std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "an operator".to_owned())
}
