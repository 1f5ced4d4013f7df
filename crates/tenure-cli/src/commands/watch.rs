//! `watch`: one line each time that something changes, until it is stopped.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use tenure::Name;
use tenure::Session;
use tenure::core::store::{Hints, Prefix, Query};

use crate::args::{Arguments, Watch};
use crate::exit::{Failure, explained, say};
use crate::output::{self, Form};
use crate::store::{self, Default as Own};
use crate::view::LeaseView;

/// After a look that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The state and token of each name, as they were told.
type Known = BTreeMap<String, (&'static str, u64, String)>;

pub(super) async fn watch(arguments: &Arguments, watch: &Watch) -> Result<ExitCode, Failure> {
    let session = store::choose(arguments, Own::Allowed)?.open().await?;
    let form = Form::of(arguments.common.json);
    let prefix = watch.name.as_ref().map_or_else(Prefix::all, Prefix::from);
    let mut hints = session.store().watch(&prefix).await?;
    let mut known: Option<Known> = None;
    let poll = session.profile().wake.poll();
    let stopped = tokio::signal::ctrl_c();
    tokio::pin!(stopped);
    loop {
        let wait = match look(&session, &prefix, watch.name.as_ref()).await {
            Ok(views) => {
                for view in changed(&mut known, views) {
                    tell(form, &view)?;
                }
                poll
            }
            Err(failure) => {
                failure.say();
                RETRY
            }
        };
        tokio::select! {
            () = hint(&mut hints) => {}
            () = tokio::time::sleep(wait) => {}
            _ = &mut stopped => break,
        }
    }
    session.close().await?;
    Ok(ExitCode::SUCCESS)
}

async fn look(
    session: &Session,
    prefix: &Prefix,
    name: Option<&Name>,
) -> Result<Vec<LeaseView>, Failure> {
    if let Some(name) = name {
        let read = super::list::read(session, name).await?;
        return Ok(read.iter().map(|s| LeaseView::of(s, session.instance())).collect());
    }
    let query = Query::new(prefix.clone());
    let mut views = Vec::new();
    let mut after = None;
    loop {
        let page = session.store().list(&query, after.as_ref()).await?;
        views.extend(page.snapshots.iter().map(|s| LeaseView::of(s, session.instance())));
        after = page.next;
        if after.is_none() {
            return Ok(views);
        }
    }
}

/// What isn't as it was. At first, when nothing is known, that is everything that is held.
fn changed(known: &mut Option<Known>, views: Vec<LeaseView>) -> Vec<LeaseView> {
    let first = known.is_none();
    let known = known.get_or_insert_default();
    views
        .into_iter()
        .filter(|view| {
            // Two holders of another system have no tokens that differ.
            let now = (view.state, view.token, view.holder.clone());
            let before = known.insert(view.name.clone(), now.clone());
            before != Some(now) && (!first || view.is_held())
        })
        .collect()
}

fn tell(form: Form, view: &LeaseView) -> Result<(), Failure> {
    let told = match form {
        Form::Json => output::json_line(view),
        Form::Human => output::line(&view.line()),
    };
    told.map_err(|error| Failure::stdout(&error))
}

async fn hint(hints: &mut Option<Hints>) {
    match hints {
        Some(open) => {
            if let Err(error) = open.next().await {
                say(&format!("changes are polled for from here on: {}", explained(&error)));
                *hints = None;
            }
        }
        None => std::future::pending().await,
    }
}
