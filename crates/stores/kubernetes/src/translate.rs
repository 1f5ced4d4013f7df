//! From an object to a record and back: our own, a neighbour's, or one that nobody holds.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tenure_core::clock;
use tenure_core::decide::blocks_for;
use tenure_core::identity::{Incarnation, Instance, Name, StoreId};
use tenure_core::neighbour::{Neighbour, holder_id, is_made_up, takes_no_orders};
use tenure_core::record::{Demand, Order, Record, State};
use tenure_core::record_store::Stored;
use tenure_core::store::{Snapshot, Version};
use tenure_core::{Error, ErrorKind, Operation};

use crate::lease::{Lease, OurSpec, Spec};
use crate::version::At;

/// How records of theirs are shown: as `layout` in the metadata.
pub(crate) const LAYOUT: &str = "client-go";
/// How long a holder is given that doesn't say for how long it holds: client-go's default.
const UNSAID: Duration = Duration::from_secs(15);
/// What a free lease says of its length, as client-go writes it.
const FREE_SECONDS: i32 = 1;
/// The least that a held one says: client-go's replicas see whole seconds alone.
const HELD_SECONDS_MIN: i32 = 2;
/// What stands in the holder's place where we only wish to know what keeps everybody out.
const ANYBODY: &str = "anybody";
/// The last time that is followed by a later one; none that a clock shows is near it.
const LATEST_MICROS: i64 = 253_000_000_000_000_000;

/// What an object says of the lease `name`.
///
/// The spec is what client-go's replicas see and write. As long as it is the one that we wrote, our
/// record is the truth. Where it isn't, its holder is a neighbour, or nobody.
pub(crate) fn stored(name: &Name, lease: &Lease) -> Result<Stored, Error> {
    let at = At::of(lease);
    let version = at.version();
    let bytes = match (&lease.metadata.annotations.record, at.ours) {
        (Some(record), true) => asked_by_the_cluster(name, record, &lease.spec)?,
        (Some(record), false) => match Record::from_json(record.as_bytes()) {
            Ok(ours) => theirs(name, Some(&ours), &lease.spec, &version),
            // Of a release to come, or damaged: whoever reads it says so.
            Err(_) => record.clone().into_bytes(),
        },
        (None, _) => theirs(name, None, &lease.spec, &version),
    };
    Ok(Stored { bytes, version })
}

/// Our own record; where a coordinated election prefers another holder, with an order to resign.
fn asked_by_the_cluster(name: &Name, record: &str, spec: &Spec) -> Result<Vec<u8>, Error> {
    let Ok(mut ours) = Record::from_json(record.as_bytes()) else {
        return Ok(record.as_bytes().to_vec());
    };
    if ours.name != *name {
        return Err(Error::new(
            ErrorKind::Corrupt,
            Operation::Read,
            format!("the object keeps the record of `{}`; look at who has written it", ours.name),
        )
        .with_name(name));
    }
    let Some(preferred) = spec.preferred() else { return Ok(record.as_bytes().to_vec()) };
    if ours.state == State::Held && ours.order.is_none() {
        let reason = format!("`preferredHolder` of the Lease is `{preferred}`");
        let demand = Demand::Resign { to: None };
        let at = clock::Timestamp::default();
        ours.order = Some(Order::new(demand, "coordinated leader election", reason, at));
    }
    Ok(ours.to_json())
}

/// A record made up for a spec that we didn't write. `ours` is what we wrote last.
fn theirs(name: &Name, ours: Option<&Record>, spec: &Spec, version: &Version) -> Vec<u8> {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let left = seconds.filter(|seconds| *seconds > 0).map_or(UNSAID, Duration::from_secs);
    let since = spec.acquire_time.map_or(0, Timestamp::as_millisecond);
    let neighbour = Neighbour {
        layout: LAYOUT,
        holder: spec.holder().unwrap_or_default(),
        left,
        since: clock::Timestamp::from_millis(since),
        version: version.clone(),
    };
    // The record goes on as bytes, without a store.
    let mut shown = neighbour.snapshot(name, ours, StoreId::from_u128(0)).record;
    if spec.holder().is_none() {
        if let Some(ours) = ours {
            // Whoever took it from us has given it back: free, and our last grant is over.
            shown = ours.clone();
            shown.not_before = Duration::ZERO;
            shown.order = None;
        }
        shown.state = State::Released { reserved_for: None };
    }
    shown.to_json()
}

/// What to write beside a record: none for bytes that are no record, such as the store's id.
///
/// `before` is what is overwritten. `now` is this machine's wall clock, which nobody compares with
/// his own: it must only go forward.
pub(crate) fn spec_for(
    bytes: &[u8],
    before: Option<&At>,
    now: Timestamp,
) -> Result<Option<OurSpec>, Error> {
    let Ok(record) = Record::from_json(bytes) else { return Ok(None) };
    if is_made_up(&record) {
        return Err(takes_no_orders(&record));
    }
    let granted = before.is_none_or(|at| !at.ours || at.token != Some(record.token.get()));
    if granted && before.is_some_and(|at| at.coordinated) {
        return Err(given_by_the_cluster(&record.name));
    }
    let transitions = match before {
        None => 0,
        Some(at) if granted => at.transitions.saturating_add(1),
        Some(at) => at.transitions,
    };
    let kept_for = keeps_out_for(&record);
    let (holder_identity, seconds) = match whole_seconds(kept_for) {
        0 => (None, FREE_SECONDS),
        seconds => (Some(shown_holder(&record)), seconds.max(HELD_SECONDS_MIN)),
    };
    Ok(Some(OurSpec {
        holder_identity,
        lease_duration_seconds: seconds,
        acquire_time: Timestamp::from_millisecond(record.acquired_at.as_millis())
            .unwrap_or_default(),
        renew_time: after(before.and_then(|at| at.renewed), now),
        lease_transitions: transitions,
    }))
}

/// A coordinated election has a strategy, and is the control plane's to decide.
fn given_by_the_cluster(name: &Name) -> Error {
    Error::new(
        ErrorKind::Misconfigured,
        Operation::Acquire,
        "the Lease has a `strategy`: the control plane chooses its holder, so tenure doesn't take \
         it; clear the strategy, or choose another name",
    )
    .with_name(name)
}

/// How long what the record says keeps everybody else out: a ttl, a min-hold, a reservation.
fn keeps_out_for(record: &Record) -> Duration {
    let snapshot = Snapshot {
        record: record.clone(),
        version: Version::new(""),
        store: StoreId::from_u128(0),
        age: None,
        holder_gone: false,
    };
    let anybody = Name::new(ANYBODY).expect("it is a name: plain letters");
    blocks_for(&snapshot, &Instance::new(anybody, Incarnation::from_u128(0)))
}

/// Rounded up: what client-go's replicas see must not end before the grant does.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// By whom the name is kept, as a neighbour knows it: another at each start of a process.
fn shown_holder(record: &Record) -> String {
    match &record.state {
        State::Released { reserved_for: Some(reserved) } if record.not_before.is_zero() => {
            // With a suffix, since a replica of client-go might be called just so.
            format!("{}/successor", reserved.successor)
        }
        _ => holder_id(&record.holder),
    }
}

/// When it was written: now, and by whole seconds later than the time before.
///
/// client-go's replicas take two times within one second for one, so a renewal that shows none later
/// would be none for them.
fn after(before: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
    let Some(before) = before.filter(|at| at.as_microsecond() < LATEST_MICROS) else { return now };
    if now.as_second() > before.as_second() {
        return now;
    }
    Timestamp::from_second(before.as_second()).map_or(now, |at| at + SignedDuration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tenure_core::identity::{ClaimId, FencingToken, Nonce};
    use tenure_core::record::Metadata;
    use tenure_core::store::Claim;

    use super::*;
    use crate::lease::body;

    fn name() -> Name {
        Name::new("billing").unwrap()
    }

    fn second(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).unwrap()
    }

    fn record(token: u64, ttl: u64) -> Record {
        let claim = Claim {
            name: name(),
            instance: Instance::new(Name::new("api-1").unwrap(), Incarnation::from_u128(7)),
            id: ClaimId::from_u128(1),
            nonce: Nonce::from_u128(2),
            ttl: Duration::from_millis(ttl),
            min_hold: Duration::ZERO,
            metadata: Metadata::new(),
            bound_to: None,
            at: clock::Timestamp::from_millis(1_767_225_600_000),
            unanswered_for: Duration::ZERO,
            watched: None,
            above: None,
            ends_with_process: true,
        };
        tenure_core::decide::granted(None, &claim, FencingToken::new(token).unwrap())
    }

    /// The object after a write.
    fn written(record: &Record, before: Option<&At>, now: Timestamp) -> (Lease, OurSpec) {
        let json = record.to_json();
        let spec = spec_for(&json, before, now).unwrap().unwrap();
        let text = String::from_utf8(json).unwrap();
        let mut lease: Lease =
            serde_json::from_slice(&body("billing", None, "default", &text, Some(&spec))).unwrap();
        lease.metadata.uid = "u".to_owned();
        lease.metadata.resource_version = "1".to_owned();
        (lease, spec)
    }

    fn read(lease: &Lease) -> Record {
        Record::from_json(&stored(&name(), lease).unwrap().bytes).unwrap()
    }

    #[test]
    fn a_grant_is_what_client_go_expects_and_our_record_is_read_back() {
        let granted = record(5, 1500);
        let (lease, spec) = written(&granted, None, second(0));
        assert_eq!(spec.holder_identity.as_deref(), Some(holder_id(&granted.holder).as_str()));
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (2, 0));
        assert_eq!(read(&lease), granted);
        // A renewal keeps the count, a grant adds to it.
        let (_, spec) = written(&granted, Some(&At::of(&lease)), second(1));
        assert_eq!(spec.lease_transitions, 0);
        let (_, spec) = written(&record(6, 30_000), Some(&At::of(&lease)), second(1));
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (30, 1));
    }

    #[test]
    fn each_write_shows_a_later_second_whatever_the_wall_clock_does() {
        let granted = record(5, 1500);
        let (lease, first) = written(&granted, None, second(0));
        let (again, next) = written(&granted, Some(&At::of(&lease)), second(0));
        assert_eq!(next.renew_time, first.renew_time + SignedDuration::from_secs(1));
        let (_, set_back) = written(&granted, Some(&At::of(&again)), second(-3600));
        assert_eq!(set_back.renew_time, next.renew_time + SignedDuration::from_secs(1));
        let (_, later) = written(&granted, Some(&At::of(&again)), second(60));
        assert_eq!(later.renew_time, second(60));
    }

    #[test]
    fn a_neighbours_hold_is_watched_for_as_long_as_it_says() {
        let (mut lease, _) = written(&record(5, 30_000), None, second(0));
        lease.spec.holder_identity = Some("go-pod_x".to_owned());
        lease.spec.lease_duration_seconds = Some(15);
        lease.spec.renew_time = Some(second(9));
        let seen = read(&lease);
        assert!(is_made_up(&seen) && seen.state == State::Held);
        assert_eq!((seen.holder.name().as_str(), seen.ttl), ("go-pod_x", Duration::from_secs(15)));
        assert_eq!(seen.token.get(), 5, "our tokens go on from ours");
        assert_eq!(seen.transitions.len(), 1, "our history stays");
        lease.spec.lease_duration_seconds = None;
        assert_eq!(read(&lease).ttl, UNSAID);
        // It would read no order, so none is written.
        let error = spec_for(&read(&lease).to_json(), None, second(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        // One that holds what we have never held.
        lease.metadata.annotations = Default::default();
        assert!(is_made_up(&read(&lease)) && read(&lease).state == State::Held);
    }

    #[test]
    fn what_a_neighbour_gave_back_is_free_and_our_last_grant_is_over() {
        let granted = record(5, 30_000);
        let (mut lease, _) = written(&granted, None, second(0));
        lease.spec = serde_json::from_value(json!({ "leaseDurationSeconds": 1 })).unwrap();
        for ours in [true, false] {
            if !ours {
                lease.metadata.annotations = Default::default();
            }
            let seen = read(&lease);
            assert_eq!(seen.state, State::Released { reserved_for: None });
            assert_eq!(is_made_up(&seen), !ours);
            assert_eq!(seen.claim == granted.claim, ours, "a copy of the old claim is refused");
        }
    }

    #[test]
    fn a_free_lease_has_no_holder_and_a_reserved_one_keeps_client_go_out() {
        let mut given_back = record(5, 30_000);
        given_back.state = State::Released { reserved_for: None };
        let (_, spec) = written(&given_back, None, second(0));
        assert_eq!((spec.holder_identity, spec.lease_duration_seconds), (None, 1));
        given_back.not_before = Duration::from_secs(7);
        let (_, spec) = written(&given_back, None, second(0));
        assert!(spec.holder_identity.is_some());
        assert_eq!(spec.lease_duration_seconds, 7);
        given_back.not_before = Duration::ZERO;
        let successor: tenure_core::identity::Successor = "api-2".parse().unwrap();
        given_back.state = State::Released {
            reserved_for: Some(tenure_core::record::Reservation {
                successor,
                lasts: Duration::from_secs(5),
            }),
        };
        let (_, spec) = written(&given_back, None, second(0));
        assert_eq!(spec.holder_identity.as_deref(), Some("api-2/successor"));
    }

    #[test]
    fn in_a_coordinated_election_we_take_nothing_and_make_way() {
        let granted = record(5, 30_000);
        let (mut lease, _) = written(&granted, None, second(0));
        lease.spec.strategy = Some("OldestEmulationVersion".to_owned());
        let error =
            spec_for(&record(6, 30_000).to_json(), Some(&At::of(&lease)), second(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains("`strategy`"), "{error}");
        // What we hold already we renew, until another is preferred.
        assert!(read(&lease).order.is_none());
        lease.spec.preferred_holder = Some("scheduler-2".to_owned());
        let order = read(&lease).order.expect("an order");
        assert_eq!(order.demand, Demand::Resign { to: None });
        assert!(order.reason.contains("scheduler-2"), "{}", order.reason);
    }

    #[test]
    fn bytes_that_are_no_record_have_no_spec_and_another_names_record_is_corrupt() {
        assert_eq!(spec_for(b"{\"store\":\"x\"}", None, second(0)).unwrap(), None);
        let (lease, _) = written(&record(5, 30_000), None, second(0));
        let error = stored(&Name::new("other").unwrap(), &lease).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
