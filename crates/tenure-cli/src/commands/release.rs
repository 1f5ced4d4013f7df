//! `__release`: gives back what a dead keeper held. The supervisor runs it, with the ticket on
//! stdin, when everything that was started under the hold is proven gone.

use std::io::Read as _;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tenure::{Lease, Namespace, Session, Ticket};

use crate::exit::Failure;

/// All that giving back needs, for a process that has nothing else. It may hold a password: it
/// stays in memory.
#[derive(Serialize, Deserialize)]
pub(super) struct HoldTicket {
    store: String,
    namespace: Namespace,
    ticket: Ticket,
}

impl HoldTicket {
    /// The ticket of `lease`, as bytes.
    pub(super) fn of(url: &str, session: &Session, lease: &Lease) -> Vec<u8> {
        let ticket = Self {
            store: url.to_owned(),
            namespace: session.namespace().clone(),
            ticket: lease.ticket(),
        };
        serde_json::to_vec(&ticket).expect("every field of a ticket has a JSON form")
    }
}

pub(super) async fn give_back() -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(1 << 20)
        .read_to_end(&mut text)
        .map_err(|error| Failure::usage(format!("the ticket can't be read from stdin: {error}")))?;
    let HoldTicket { store, namespace, ticket } = serde_json::from_slice(&text)
        .map_err(|_| Failure::usage("what stands on stdin is no ticket of a supervisor"))?;
    let session =
        Session::builder().url(store).namespace(namespace).work_outlives_process().open().await?;
    // A name that isn't held any more needs no giving back.
    session.release_ticket(&ticket, "its keeper died, and all it had started is gone").await?;
    session.close().await?;
    Ok(ExitCode::SUCCESS)
}
