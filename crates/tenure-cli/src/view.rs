//! A lease as operators see it: one record, in a table's row or as a JSON object.

use serde::Serialize;
use std::collections::BTreeMap;
use tenure::Instance;
use tenure::core::clock::Timestamp;
use tenure::core::decide::{Occupancy, occupancy};
use tenure::core::record::State;
use tenure::core::store::Snapshot;

use crate::{duration, holder};

/// Schema `tenure.lease.1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeaseView {
    schema: &'static str,
    pub(crate) name: String,
    /// `held`, `revoked`, `expired`, `kept` (released, and not free yet) or `free`.
    pub(crate) state: &'static str,
    pub(crate) holder: String,
    pub(crate) incarnation: String,
    pub(crate) token: u64,
    /// When it was granted, by the holder's clock.
    pub(crate) since: String,
    /// How much longer the name is taken, unless it is renewed or released before.
    pub(crate) left_ms: u64,
    /// By the store's clock; else `left_ms` is the most that it can be.
    pub(crate) left_known: bool,
    ttl_ms: u64,
    /// How long ago the holder last wrote it, where the store's clock says.
    pub(crate) renewed_ms_ago: Option<u64>,
    pub(crate) asked: Option<String>,
    metadata: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) who: String,
    #[serde(skip)]
    pub(crate) left: String,
}

impl LeaseView {
    pub(crate) fn of(snapshot: &Snapshot, me: &Instance) -> Self {
        let record = &snapshot.record;
        let (left, left_known) = match occupancy(snapshot, me) {
            Occupancy::Free => (std::time::Duration::ZERO, true),
            Occupancy::Left(left) => (left, true),
            Occupancy::Watch(whole) => (whole, false),
        };
        let state = match (&record.state, left.is_zero()) {
            (State::Held, false) => "held",
            (State::Held, true) => "expired",
            (State::Revoked, false) => "revoked",
            (State::Released { .. }, false) => "kept",
            (_, _) => "free",
        };
        let shown = match (left.is_zero(), left_known) {
            (true, _) => "-".to_owned(),
            (false, true) => duration::show(left),
            (false, false) => format!("≤ {}", duration::show(left)),
        };
        Self {
            schema: "tenure.lease.1",
            name: record.name.to_string(),
            state,
            holder: record.holder.name().to_string(),
            incarnation: record.holder.incarnation().to_string(),
            token: record.token.get(),
            since: since(record.acquired_at),
            left_ms: millis(left),
            left_known,
            ttl_ms: millis(record.ttl),
            renewed_ms_ago: snapshot.age.map(millis),
            asked: record.order.as_ref().map(|order| format!("{}: {}", order.by, order.reason)),
            metadata: record.metadata.clone().into(),
            who: holder::who(&record.holder, &record.metadata),
            left: shown,
        }
    }

    /// Whether somebody holds it.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.state, "held" | "revoked")
    }

    pub(crate) const HEADERS: [&'static str; 6] =
        ["name", "state", "holder", "token", "left", "since"];

    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.to_owned(),
            self.who.clone(),
            self.token.to_string(),
            self.left.clone(),
            self.since.clone(),
        ]
    }

    /// One line of a log: what a watcher prints.
    pub(crate) fn line(&self) -> String {
        let (name, token) = (&self.name, self.token);
        match self.state {
            "held" => format!("{name} is held by {} (token {token})", self.who),
            "revoked" => format!("{name} is revoked from {} (token {token})", self.who),
            "expired" => format!("{name} has expired; {} held it (token {token})", self.who),
            "kept" => format!("{name} is released, and kept for {} more", self.left),
            _ => format!("{name} is free; {} held it last (token {token})", self.who),
        }
    }
}

pub(crate) fn since(at: Timestamp) -> String {
    let text = at.to_string();
    // People don't need the milliseconds.
    format!("{}Z", text.split('.').next().unwrap_or(&text))
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
