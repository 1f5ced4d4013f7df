//! `list` and `status`: what is held, by whom, and for how long.

use std::process::ExitCode;

use tenure::Name;
use tenure::core::store::{Prefix, Query, Snapshot};

use crate::args::{Arguments, List, Status};
use crate::exit::{Failure, say};
use crate::output::{self, Form};
use crate::store::{self, Default as Own};
use crate::view::LeaseView;

pub(super) async fn list(arguments: &Arguments, list: &List) -> Result<ExitCode, Failure> {
    let session = store::choose(arguments, Own::Allowed)?.open().await?;
    let query = Query::new(Prefix::new(list.prefix.clone().unwrap_or_default()));
    let mut views = Vec::new();
    let mut after: Option<Name> = None;
    loop {
        let page = session.store().list(&query, after.as_ref()).await?;
        let page_views = page.snapshots.iter().map(|s| LeaseView::of(s, session.instance()));
        views.extend(page_views.filter(|view| list.all || view.is_held()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    print(Form::of(arguments.common.json), &views)?;
    if views.is_empty() && !arguments.common.json && !arguments.common.quiet {
        say("nothing is held here; `tenure list --all` shows what was");
    }
    session.close().await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(arguments: &Arguments, status: &Status) -> Result<ExitCode, Failure> {
    let session = store::choose(arguments, Own::Allowed)?.open().await?;
    let views = match read(&session, &status.name).await? {
        Some(snapshot) => vec![LeaseView::of(&snapshot, session.instance())],
        None => {
            say(&format!("lease `{}` was never granted here", status.name));
            Vec::new()
        }
    };
    print(Form::of(arguments.common.json), &views)?;
    session.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// One record, if there is one.
pub(super) async fn read(
    session: &tenure::Session,
    name: &Name,
) -> Result<Option<Snapshot>, Failure> {
    Ok(session.store().read(std::slice::from_ref(name)).await?.into_iter().next().flatten())
}

fn print(form: Form, views: &[LeaseView]) -> Result<(), Failure> {
    let printed = match form {
        Form::Json => views.iter().try_for_each(output::json_line),
        Form::Human if views.is_empty() => Ok(()),
        Form::Human => output::table(&LeaseView::HEADERS, views.iter().map(LeaseView::row)),
    };
    printed.map_err(|error| Failure::stdout(&error))
}
