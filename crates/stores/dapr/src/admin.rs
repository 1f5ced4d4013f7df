//! The operator's side: what `init` writes and what `doctor` finds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tenure_core::chance::Chance;
use tenure_core::exchange::store_id;
use tenure_core::identity::StoreId;
use tenure_core::preconditions::{Ignored, RACERS, Trial};
use tenure_core::record_mark;
use tenure_core::record_store::{RecordStore, store_key};
use tenure_core::store::{Answer, Finding, InitOptions, Level, StoreAdmin, Verdict};
use tenure_core::{Error, ErrorKind, Operation};

use crate::component::{Found, Kinds};
use crate::config::DaprConfig;
use crate::store::{DaprLeases, Place};

/// An answer that takes longer than this makes a short ttl hard to keep.
const ANSWER_MOST: Duration = Duration::from_millis(500);
/// How often the round trip is measured.
const ROUND_TRIPS: usize = 5;

/// The operator's side of a state store, which may well be one that can't be opened.
pub struct DaprAdmin {
    config: DaprConfig,
    chance: Mutex<Chance>,
}

impl DaprAdmin {
    /// Nothing is sent before something is asked for.
    ///
    /// # Errors
    /// `Invalid`: the configuration's values.
    pub fn new(config: DaprConfig, chance: Chance) -> Result<Self, Error> {
        Ok(Self { config: config.checked()?, chance: Mutex::new(chance) })
    }

    fn draw(&self) -> Chance {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        Chance::seeded(chance.next_u64())
    }
}

fn tried(check: &str, good: &str, outcome: Result<Option<Ignored>, Error>) -> Finding {
    match outcome {
        Ok(None) => Finding::new(check, Verdict::Good, good),
        Ok(Some(ignored)) => {
            let detail =
                format!("{}; no lease can be had there, use another component", ignored.fact());
            Finding::new(check, Verdict::Bad, detail)
        }
        Err(error) => {
            Finding::new(check, Verdict::Limited, format!("it could not be tried: {error}"))
        }
    }
}

fn component(found: &Found) -> Finding {
    let component = &found.component;
    let detail = format!(
        "`{}` is a {}/{} of Dapr {}, and keys begin with `{}||` unless its `keyPrefix` says \
         otherwise: replicas share leases only under one application id, or one `keyPrefix: name`",
        component.name, component.kind, component.version, found.runtime, found.application
    );
    let verdict = if found.proven { Verdict::Good } else { Verdict::Limited };
    Finding::new("component", verdict, detail)
}

/// What is written on a version of a missing key.
fn missing(outcome: Result<Option<Ignored>, Error>) -> Finding {
    match outcome {
        Ok(Some(Ignored::VersionOnMissing)) => Finding::new(
            "missing_keys",
            Verdict::Limited,
            "a write with an etag makes a key that isn't there: after the store was wiped a holder \
             goes on renewing, and who never saw the old store may hold the name, too",
        ),
        outcome => tried("missing_keys", "an etag of a missing key is refused", outcome),
    }
}

impl StoreAdmin for DaprAdmin {
    fn setup(&self) -> String {
        format!(
            "# a state store that compares etags, under one application id or with `keyPrefix: \
             name`, and without `ttlInSeconds`:\n\
             apiVersion: dapr.io/v1alpha1\n\
             kind: Component\n\
             metadata:\n  name: {}\n\
             spec:\n  type: state.postgresql\n  version: v2\n  metadata:\n\
             \x20   - name: connectionString\n      value: \"…\"\n\
             \x20   - name: keyPrefix\n      value: name\n\
             # no resiliency policy needs to repeat its writes: tenure does\n",
            self.config.component
        )
    }

    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId> {
        Box::pin(async move {
            let mut config = self.config.clone();
            let records = Place::find(&config, Kinds::Accepted).await?.records;
            if let Some(cluster) = &options.cluster {
                // The mark that is asked for is compared by `give`; opening writes the id.
                config.cluster = None;
                record_mark::give(&records.beside(), cluster)
                    .await
                    .map_err(|error| records.located(error.during(Operation::Init)))?;
            }
            DaprLeases::open(config, self.draw()).await?;
            let read = records.read(&[store_key()]).await?.pop().flatten();
            let missing = || {
                let message = "the store's id is gone as soon as it was written; try again";
                records.located(Error::new(ErrorKind::Unavailable, Operation::Init, message))
            };
            store_id(&read.ok_or_else(missing)?)
        })
    }

    fn diagnose(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            // One that must be accepted by name is tried all the same.
            let place = Place::find(&self.config, Kinds::Any).await;
            let Place { found, records } = place.map_err(|e| e.during(Operation::Diagnose))?;
            let mut trial = Trial::new(&records, self.draw());
            let mut findings = vec![component(&found)];
            // Whoever can't be reached, or refuses this process, is told as such.
            let first = trial.quick().await;
            let first =
                first.map_err(|error| records.located(error.during(Operation::Diagnose)))?;
            let good = "a key that is there isn't created again, and an old etag is refused";
            findings.push(tried("preconditions", good, Ok(first)));
            let good = "each etag is accepted once, and what was written is read at once";
            findings.push(tried("versions", good, trial.versions().await));
            findings.push(missing(trial.missing().await));
            let good = format!(
                "of {RACERS} writers at once one wins, on a missing key and on one \
                 that is there"
            );
            findings.push(tried("atomicity", &good, trial.race().await));
            let (level, why) = found.level();
            let why = why.unwrap_or("nothing limits it");
            let verdict = if level > Level::BestEffort { Verdict::Good } else { Verdict::Limited };
            findings.push(Finding::new("durability", verdict, format!("{level}: {why}")));
            findings.push(Finding::new(
                "clock",
                Verdict::Good,
                "no clock but each contender's own decides: a grant ends when it has been seen \
                 unchanged for its ttl",
            ));
            let mut slowest = Duration::ZERO;
            for _ in 0..ROUND_TRIPS {
                let begun = Instant::now();
                records.values.read(&records.keys.record(&store_key())).await?;
                slowest = slowest.max(begun.elapsed());
            }
            let detail = format!("the slowest of {ROUND_TRIPS} answers took {slowest:.1?}");
            let verdict = if slowest > ANSWER_MOST { Verdict::Limited } else { Verdict::Good };
            findings.push(Finding::new("latency", verdict, detail));
            Ok(findings)
        })
    }
}
