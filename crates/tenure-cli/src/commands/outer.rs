//! The `run`s around this one: a name that one of them holds would be waited for for ever.

use std::ffi::OsString;

use tenure::core::record::State;
use tenure::{Incarnation, Instance, Name, Session};

use crate::exit::Failure;

/// The instance that runs directly around this process.
const INNERMOST: &str = "TENURE_INSTANCE";
/// The incarnations of those around that one.
const OTHERS: &str = "TENURE_OUTER";

/// The incarnations of all that run around this process.
pub(super) struct Outer(Vec<Incarnation>);

impl Outer {
    pub(super) fn read() -> Self {
        let others = std::env::var(OTHERS).unwrap_or_default();
        let innermost = std::env::var(INNERMOST).ok().and_then(|text| text.parse().ok());
        let others = others.split_ascii_whitespace().filter_map(|text| text.parse().ok());
        Self(others.chain(innermost.map(|instance: Instance| instance.incarnation())).collect())
    }

    /// What CMD must know of them; its own instance it is told anyway.
    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let all: Vec<String> = self.0.iter().map(Incarnation::to_string).collect();
        vec![(OTHERS.into(), all.join(" ").into())]
    }

    /// Refuses a name that one of them holds in this very store.
    pub(super) async fn refuse(&self, session: &Session, name: &Name) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let read = session.store().read(std::slice::from_ref(name)).await?;
        let Some(snapshot) = read.into_iter().next().flatten() else { return Ok(()) };
        let record = snapshot.record;
        if record.state == State::Held && self.0.contains(&record.holder.incarnation()) {
            return Err(Failure::usage(format!(
                "lease `{name}` is held by the `tenure` command that this one runs under, and \
                 would be waited for for ever; leave the inner one out, or give it another name"
            )));
        }
        Ok(())
    }
}
