//! `why`: a lease explained, with what happened to it last.

use std::process::ExitCode;

use serde::Serialize;
use tenure::core::record::{Record, Transition};
use tenure::core::store::Snapshot;
use tenure::{Instance, Session};

use crate::args::{Arguments, Status};
use crate::exit::{Failure, say};
use crate::output::{self, Form};
use crate::store::{self, Default as Own};
use crate::view::{LeaseView, since};
use crate::{duration, holder};

/// Schema `tenure.why.1`: a lease, and its last transitions, oldest first.
#[derive(Serialize)]
struct Why {
    schema: &'static str,
    lease: LeaseView,
    explanation: String,
    transitions: Vec<Transition>,
}

pub(super) async fn why(arguments: &Arguments, status: &Status) -> Result<ExitCode, Failure> {
    let session = store::choose(arguments, Own::Allowed)?.open().await?;
    let printed = match super::list::read(&session, &status.name).await? {
        Some(snapshot) => print(Form::of(arguments.common.json), &session, &snapshot),
        None => {
            say(&format!("lease `{}` was never granted here, so it is free", status.name));
            Ok(())
        }
    };
    printed.map_err(|error| Failure::stdout(&error))?;
    session.close().await?;
    Ok(ExitCode::SUCCESS)
}

fn print(form: Form, session: &Session, snapshot: &Snapshot) -> std::io::Result<()> {
    let why = Why {
        schema: "tenure.why.1",
        lease: LeaseView::of(snapshot, session.instance()),
        explanation: explain(snapshot, session.instance()),
        transitions: snapshot.record.transitions.clone(),
    };
    if form == Form::Json {
        return output::json_line(&why);
    }
    output::line(&why.explanation)?;
    if let Some(order) = &snapshot.record.order {
        let asked = format!("an order stands on it, of {}: {}", order.by, order.reason);
        output::line(&asked)?;
    }
    output::line("")?;
    let rows = snapshot.record.transitions.iter().map(|transition| {
        vec![
            since(transition.at),
            format!("{:?}", transition.what).to_lowercase(),
            transition.token.to_string(),
            short(&transition.who),
            transition.why.clone(),
        ]
    });
    output::table(&["when", "what", "token", "who", "why"], rows)
}

/// An instance by its name and the beginning of its incarnation.
fn short(who: &str) -> String {
    match who.parse::<Instance>() {
        Ok(instance) => {
            let incarnation = instance.incarnation().to_string();
            format!("{}#{}", instance.name(), &incarnation[..6])
        }
        Err(_) => who.to_owned(),
    }
}

fn explain(snapshot: &Snapshot, me: &Instance) -> String {
    let record: &Record = &snapshot.record;
    let taken = holder::taken(snapshot, me);
    let age = snapshot.age.map(|age| format!("; last renewed {} ago", duration::show(age)));
    match taken {
        Some(taken) => format!(
            "{taken}{}; unless it is renewed before, the next contender can have it then",
            age.unwrap_or_default()
        ),
        None if snapshot.holder_gone => format!(
            "lease `{}` is free: the process of {} is gone, which the kernel proves",
            record.name,
            holder::who(&record.holder, &record.metadata)
        ),
        None => format!(
            "lease `{}` is free; {} held it last (token {})",
            record.name,
            holder::who(&record.holder, &record.metadata),
            record.token
        ),
    }
}
