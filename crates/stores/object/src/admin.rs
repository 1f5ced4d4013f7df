//! The operator's side: what `init` writes and what `doctor` finds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenure_core::chance::Chance;
use tenure_core::exchange::store_id;
use tenure_core::identity::StoreId;
use tenure_core::preconditions::{Ignored, RACERS, Trial};
use tenure_core::record_mark;
use tenure_core::record_store::{RecordStore, store_key};
use tenure_core::store::{Answer, Finding, InitOptions, StoreAdmin, Verdict};
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::{ObjectConfig, Place};
use crate::errors;
use crate::layout::Layout;
use crate::pace::Pace;
use crate::records::Objects;
use crate::store::{ObjectLeases, objects};

/// An answer that takes longer than this makes a short ttl hard to keep.
const ANSWER_MOST: Duration = Duration::from_millis(500);
/// How often the round trip is measured.
const ROUND_TRIPS: usize = 5;

/// The operator's side of an object store, which may well be one that can't be opened.
pub struct ObjectAdmin {
    config: ObjectConfig,
    objects: Objects,
    chance: Mutex<Chance>,
}

impl ObjectAdmin {
    /// Nothing is sent before something is asked for.
    ///
    /// # Errors
    /// `Invalid` or `Misconfigured`: the configuration's values.
    pub fn new(config: ObjectConfig, chance: Chance) -> Result<Self, Error> {
        Ok(Self { objects: objects(&config)?, config, chance: Mutex::new(chance) })
    }

    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) -> Chance {
        Chance::seeded(self.chance().next_u64())
    }

    fn durability(&self) -> Finding {
        let (verdict, detail) = match &self.config.place {
            Place::S3(bucket) if bucket.endpoint.is_some() => (
                Verdict::Limited,
                "what an S3-compatible server keeps of what it acknowledged is its own affair; \
                 AWS keeps each write in three places first",
            ),
            Place::Client(_) => (
                Verdict::Limited,
                "the client is the host's own, so nobody here knows what it keeps",
            ),
            _ => (Verdict::Good, "each write is kept in several places before it is acknowledged"),
        };
        Finding::new("durability", verdict, detail)
    }

    async fn latency(&self) -> Finding {
        let mut slowest = Duration::ZERO;
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            if let Err(error) = self.objects.read(&[store_key()]).await {
                return Finding::new("latency", Verdict::Limited, error.to_string());
            }
            slowest = slowest.max(begun.elapsed());
        }
        let detail = format!("the slowest of {ROUND_TRIPS} answers took {slowest:.1?}");
        if slowest > ANSWER_MOST {
            Finding::new("latency", Verdict::Limited, format!("{detail}: use a longer ttl"))
        } else {
            Finding::new("latency", Verdict::Good, detail)
        }
    }

    /// Writes are tried by the others; this lists and reads.
    async fn permissions(&self) -> Finding {
        let listed = self.objects.list(&Default::default(), None, 1).await;
        match listed {
            Ok(_) => {
                Finding::new("permissions", Verdict::Good, "this identity may do what is needed")
            }
            Err(error) => Finding::new("permissions", Verdict::Bad, error.to_string()),
        }
    }
}

/// What a trial of the endpoint came to.
fn tried(check: &str, good: &str, outcome: Result<Option<Ignored>, Error>) -> Finding {
    match outcome {
        Ok(None) => Finding::new(check, Verdict::Good, good),
        Ok(Some(ignored)) => Finding::new(check, Verdict::Bad, errors::consequence(ignored)),
        Err(error) => {
            Finding::new(check, Verdict::Limited, format!("it could not be tried: {error}"))
        }
    }
}

impl StoreAdmin for ObjectAdmin {
    fn setup(&self) -> String {
        let prefix = &self.config.prefix;
        let shared = self.config.layout.as_ref().map(|layout| layout.key.as_str());
        let more = shared.map(|key| format!("# and the same for `{key}`, which is shared\n"));
        let grant = match &self.config.place {
            Place::S3(bucket) => format!(
                "# the bucket: `aws s3 mb s3://{0}`; no lifecycle rule may delete under `{prefix}/`\n\
                 # a policy for tenure alone; nothing is ever deleted\n\
                 {{\"Effect\":\"Allow\",\"Action\":[\"s3:GetObject\",\"s3:PutObject\"],\
                 \"Resource\":\"arn:aws:s3:::{0}/{prefix}/*\"}}\n\
                 {{\"Effect\":\"Allow\",\"Action\":\"s3:ListBucket\",\"Resource\":\"arn:aws:s3:::{0}\"}}\n",
                bucket.name
            ),
            Place::Google(bucket) => format!(
                "# the bucket: `gcloud storage buckets create gs://{}`; no lifecycle rule may \
                 delete under `{prefix}/`\n\
                 # roles/storage.objectUser for tenure's account (an overwrite is \
                 storage.objects.delete there)\n",
                bucket.name
            ),
            Place::Azure { container, .. } => format!(
                "# the container: `az storage container create --name {}`; no lifecycle rule may \
                 delete under `{prefix}/`\n\
                 # Storage Blob Data Contributor on the container\n",
                container.name
            ),
            Place::Client(_) => format!(
                "# the host's client needs to get, to put on a condition, and to list under \
                 `{prefix}/`\n"
            ),
        };
        format!(
            "{grant}{}# written when the store is first opened: {prefix}/{}/=40store, \
             {prefix}/=40probe\n",
            more.unwrap_or_default(),
            self.config.namespace
        )
    }

    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId> {
        Box::pin(async move {
            let mut config = self.config.clone();
            if let Some(cluster) = &options.cluster {
                // The mark that is asked for is compared by `give`; opening writes the id.
                config.cluster = None;
                record_mark::give(&self.objects.beside(), cluster)
                    .await
                    .map_err(|error| self.objects.located(error.during(Operation::Init)))?;
            }
            let store = ObjectLeases::open(config, self.draw()).await?;
            let read = store.objects().read(&[store_key()]).await?.pop().flatten();
            let missing = || {
                let message = "the store's id is gone as soon as it was written; try again";
                Error::new(ErrorKind::Unavailable, Operation::Init, message)
            };
            store_id(&read.ok_or_else(|| self.objects.located(missing()))?)
        })
    }

    fn diagnose(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            let mut beside = self.objects.beside();
            // Trials are no leases: they are written as often as it takes, and read anew.
            beside.bucket.pace = Arc::new(Pace::new(Duration::ZERO));
            beside.bucket.seen = Arc::default();
            let mut trial = Trial::new(&beside, self.draw());
            // Whoever can't be reached, or refuses this identity, is told as such.
            let first = crate::store::tried(&mut trial)
                .await
                .map_err(|error| self.objects.located(error.during(Operation::Diagnose)))?;
            let good = "`If-None-Match` and `If-Match` are honoured, on objects that are there and \
                        on missing ones";
            let mut findings = vec![tried("preconditions", good, Ok(first))];
            let good = "each version is accepted once, and what was written is read at once";
            findings.push(tried("versions", good, trial.versions().await));
            let good = format!("of {RACERS} writers at once one wins, twice over");
            findings.push(tried("atomicity", &good, trial.race().await));
            findings.push(self.durability());
            findings.push(Finding::new(
                "clock",
                Verdict::Good,
                "no clock but each contender's own decides: a grant ends when it has been seen \
                 unchanged for its ttl",
            ));
            findings.push(self.latency().await);
            findings.push(self.permissions().await);
            findings.extend(self.config.layout.as_ref().map(sharing));
            Ok(findings)
        })
    }
}

fn sharing(layout: &Layout) -> Finding {
    let detail = format!(
        "`{}` is shared with LeaderElection.S3 at `{}`: its replicas compare wall clocks and carry \
         no token, so the level is `best-effort`; leave the layout out once all of it has moved",
        layout.name, layout.key
    );
    Finding::new("layout", Verdict::Limited, detail)
}
