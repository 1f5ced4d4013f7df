//! Requests as the arrays that the functions take, and rows as the contract's answers.

use std::time::Duration;

use serde::Serialize;
use tenure_core::clock::Timestamp;
use tenure_core::decide;
use tenure_core::identity::{FencingToken, Instance, Name, StoreId};
use tenure_core::neighbour::Neighbour;
use tenure_core::record::{Bound, Happened, Metadata, Order, Record, State};
use tenure_core::store::{
    Acquired, Claim, Grant, Hold, Release, Released, Renewed, Snapshot, Version,
};
use tenure_core::{Error, ErrorKind, Operation};

use crate::driver::{Column, Row};
use crate::layout::Hamode;

const JSON: &str = "every part of a record has a JSON form";

/// Where rows come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The store that the session believed in when it asked.
    pub(crate) store: StoreId,
    /// Whether its names are shared, so that a row may be a neighbour's.
    pub(crate) shared: bool,
}

/// Claims, column by column.
#[derive(Default)]
pub(crate) struct Claims {
    pub(crate) names: Vec<String>,
    pub(crate) holders: Vec<String>,
    pub(crate) incarnations: Vec<String>,
    pub(crate) ids: Vec<String>,
    pub(crate) nonces: Vec<String>,
    pub(crate) ttls: Vec<i64>,
    pub(crate) min_holds: Vec<i64>,
    pub(crate) unanswered: Vec<i64>,
    pub(crate) watched: Vec<Option<String>>,
    pub(crate) above: Vec<Option<i64>>,
    pub(crate) records: Vec<String>,
    pub(crate) lines: Vec<String>,
}

impl Claims {
    pub(crate) fn of(claims: &[Claim]) -> Self {
        let mut columns = Self::default();
        for claim in claims {
            columns.names.push(claim.name.to_string());
            columns.holders.push(claim.instance.name().to_string());
            columns.incarnations.push(claim.instance.incarnation().to_string());
            columns.ids.push(claim.id.to_string());
            columns.nonces.push(claim.nonce.to_string());
            columns.ttls.push(millis(claim.ttl));
            columns.min_holds.push(millis(claim.min_hold));
            columns.unanswered.push(micros(claim.unanswered_for));
            columns.watched.push(claim.watched.as_ref().map(|version| version.as_str().to_owned()));
            columns.above.push(claim.above.map(|token| token.get().cast_signed()));
            columns.records.push(json(&Granted::of(claim)));
            columns.lines.push(Happening::line(claim));
        }
        columns
    }
}

/// What a record says of a grant that lies in no column of its own.
#[derive(Serialize)]
struct Granted<'a> {
    name: &'a Name,
    holder: &'a Instance,
    acquired_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_to: Option<&'a Bound>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: &'a Metadata,
}

impl<'a> Granted<'a> {
    fn of(claim: &'a Claim) -> Self {
        Self {
            name: &claim.name,
            holder: &claim.instance,
            acquired_at: claim.at,
            bound_to: claim.bound_to.as_ref(),
            metadata: &claim.metadata,
        }
    }
}

/// A grant's transition, without what only the server knows: its token, and what was before.
#[derive(Serialize)]
struct Happening {
    what: Happened,
    who: String,
    at: Timestamp,
}

impl Happening {
    /// As the functions go on with it: a JSON object without its end.
    fn line(claim: &Claim) -> String {
        let who = claim.instance.to_string();
        let mut line = json(&Self { what: Happened::Granted, who, at: claim.at });
        line.pop();
        line
    }
}

/// Holds, column by column.
#[derive(Default)]
pub(crate) struct Holds {
    pub(crate) names: Vec<String>,
    pub(crate) holders: Vec<String>,
    pub(crate) claims: Vec<String>,
    pub(crate) tokens: Vec<i64>,
    pub(crate) ttls: Vec<i64>,
    pub(crate) not_befores: Vec<i64>,
    pub(crate) nonces: Vec<String>,
    pub(crate) unconfirmed: Vec<i64>,
}

impl Holds {
    pub(crate) fn of(holds: &[Hold]) -> Self {
        let mut columns = Self::default();
        for hold in holds {
            columns.names.push(hold.name.to_string());
            columns.holders.push(hold.instance.to_string());
            columns.claims.push(hold.claim.to_string());
            columns.tokens.push(hold.token.get().cast_signed());
            columns.ttls.push(millis(hold.ttl));
            columns.not_befores.push(millis(hold.not_before));
            columns.nonces.push(hold.nonce.to_string());
            columns.unconfirmed.push(micros(hold.unconfirmed_for));
        }
        columns
    }
}

/// Releases, column by column.
#[derive(Default)]
pub(crate) struct Releases {
    pub(crate) names: Vec<String>,
    pub(crate) holders: Vec<String>,
    pub(crate) claims: Vec<String>,
    pub(crate) tokens: Vec<i64>,
    pub(crate) nonces: Vec<String>,
    pub(crate) reservations: Vec<Option<String>>,
    pub(crate) lines: Vec<String>,
}

impl Releases {
    pub(crate) fn of(releases: &[Release]) -> Self {
        let mut columns = Self::default();
        for release in releases {
            let (state, transition) = decide::released_as(release);
            let reserved = match state {
                State::Released { reserved_for } => reserved_for,
                _ => None,
            };
            columns.names.push(release.name.to_string());
            columns.holders.push(release.instance.to_string());
            columns.claims.push(release.claim.to_string());
            columns.tokens.push(release.token.get().cast_signed());
            columns.nonces.push(release.nonce.to_string());
            columns.reservations.push(reserved.as_ref().map(json));
            columns.lines.push(json(&transition));
        }
        columns
    }
}

/// A record, but for what lies in columns of its own, with these columns.
pub(crate) fn stored(record: &Record) -> (String, String, i64) {
    (json(record), record.nonce.to_string(), millis(record.not_before))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect(JSON)
}

/// Puts answers that name their items, counted from 1, into the batch's order.
pub(crate) fn in_order<T>(
    items: usize,
    rows: &[Row],
    absent: impl Fn() -> T,
    answer: impl Fn(&Row, usize) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut answers: Vec<T> = (0..items).map(|_| absent()).collect();
    for row in rows {
        let item: i64 = get(row, "item")?;
        let at = usize::try_from(item - 1).unwrap_or(usize::MAX);
        if let Some(place) = answers.get_mut(at) {
            *place = answer(row, at)?;
        }
    }
    Ok(answers)
}

/// What a claim came to.
pub(crate) fn acquired(row: &Row, name: &Name, origin: Origin) -> Result<Acquired, Error> {
    let outcome: &str = get(row, "outcome")?;
    if matches!(outcome, "granted" | "found") {
        let token = token(get(row, "token")?)?;
        return Ok(Acquired::Granted(Grant { token, version: version(row)?, store: origin.store }));
    }
    if outcome == "locked" {
        let message = "the name is free, but a transaction under its last grant's guard has not \
                       ended; try again";
        let error = Error::new(ErrorKind::Unavailable, Operation::Acquire, message);
        return Ok(Acquired::Failed(error.with_name(name)));
    }
    Ok(match snapshot(row, name, origin) {
        Ok(Some(snapshot)) => Acquired::Refused(Box::new(snapshot)),
        Ok(None) => return Err(garbled()),
        Err(error) => Acquired::Failed(error.during(Operation::Acquire)),
    })
}

/// What a renewal came to.
pub(crate) fn renewed(row: &Row, name: &Name, origin: Origin) -> Result<Renewed, Error> {
    Ok(match snapshot(row, name, origin) {
        Ok(None) => match get::<Option<&str>>(row, "asked")? {
            Some(order) => Renewed::Asked(version(row)?, Box::new(asked(order, name)?)),
            None => Renewed::Renewed(version(row)?),
        },
        Ok(Some(instead)) => Renewed::NotHeld(Some(Box::new(instead))),
        Err(error) => Renewed::Failed(error.during(Operation::Renew)),
    })
}

fn asked(order: &str, name: &Name) -> Result<Order, Error> {
    serde_json::from_str(order).map_err(|error| {
        let message = "the order on the record can't be read; look at it";
        Error::new(ErrorKind::Corrupt, Operation::Renew, message).with_name(name).with_source(error)
    })
}

/// What a release came to.
pub(crate) fn released(row: &Row, name: &Name, origin: Origin) -> Result<Released, Error> {
    Ok(match snapshot(row, name, origin) {
        Ok(None) => Released::Released(version(row)?),
        Ok(Some(instead)) => Released::NotHeld(Some(Box::new(instead))),
        Err(error) => Released::Failed(error.during(Operation::Release)),
    })
}

/// The record in a row, if there is one, or what a neighbour's entry shows in its place.
pub(crate) fn snapshot(row: &Row, name: &Name, origin: Origin) -> Result<Option<Snapshot>, Error> {
    let ours = ours(row, name, origin.store)?;
    if origin.shared
        && let Some(holder) = get::<Option<&str>>(row, "neighbour")?
    {
        let entry = Neighbour {
            layout: Hamode::WORD,
            holder,
            left: Duration::from_micros(get::<i64>(row, "entry_left")?.cast_unsigned()),
            since: Timestamp::from_millis(get(row, "entry_since")?),
            version: Version::new(get::<&str>(row, "entry_version")?),
        };
        let record = ours.as_ref().map(|ours| &ours.record);
        return Ok(Some(entry.snapshot(name, record, origin.store)));
    }
    Ok(ours)
}

fn ours(row: &Row, name: &Name, store: StoreId) -> Result<Option<Snapshot>, Error> {
    let Some(json) = get::<Option<&str>>(row, "snapshot")? else { return Ok(None) };
    let record = Record::from_json(json.as_bytes()).map_err(|error| error.with_name(name))?;
    if record.name != *name {
        return Err(Error::new(
            ErrorKind::Corrupt,
            Operation::Read,
            format!("its row holds the record of `{}`; somebody copied it", record.name),
        )
        .with_name(name));
    }
    let age = get::<Option<i64>>(row, "age")?.map(|age| Duration::from_micros(age.cast_unsigned()));
    Ok(Some(Snapshot { record, version: version(row)?, store, age, holder_gone: false }))
}

pub(crate) fn version(row: &Row) -> Result<Version, Error> {
    Ok(Version::new(get::<&str>(row, "version")?))
}

fn token(number: i64) -> Result<FencingToken, Error> {
    FencingToken::new(number.cast_unsigned()).ok_or_else(garbled)
}

pub(crate) fn get<'a, T: Column<'a>>(row: &'a Row, column: &str) -> Result<T, Error> {
    row.get(column).map_err(|error| garbled().with_source(error))
}

fn garbled() -> Error {
    Error::new(
        ErrorKind::Misconfigured,
        Operation::Read,
        "the schema's functions answer otherwise than this release expects; run `tenure init`",
    )
}

/// Rounded up: a grant must not look shorter than it is.
fn millis(duration: Duration) -> i64 {
    bounded(duration.as_nanos().div_ceil(1_000_000))
}

fn micros(duration: Duration) -> i64 {
    bounded(duration.as_micros())
}

/// At most what the functions can still multiply by a thousand: as good as for ever.
fn bounded(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX).min(i64::MAX / 1000)
}
