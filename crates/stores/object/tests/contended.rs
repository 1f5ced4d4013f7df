//! Contended rounds against the published rule of LeaderElection.S3 2.x, on one object.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::harness::Objects;
use common::{run, url_of};
use serde_json::{Value, json};
use tenure_conformance::contended::{Contenders, Neighbour, ROUNDS_VARIABLE, race};
use tenure_conformance::player::namespace;
use tenure_object::object_store::path::Path;
use tenure_object::object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion,
};

/// The name that is raced for.
const NAME: &str = "contended";
/// How many rounds are played where nobody says otherwise: a request takes this server long.
const ROUNDS_FEW: u64 = 40;

/// Their `RetryInterval`, much shortened.
const RETRY_INTERVAL: Duration = Duration::from_millis(150);

/// One process of LeaderElection.S3 2.x, as its `S3LeaderElection` sends it.
struct Process {
    client: Arc<dyn ObjectStore>,
    object: Path,
    /// The etag of its last write, which its release demands.
    last: Option<String>,
}

impl Process {
    fn read(&self) -> Option<(Value, String)> {
        let got = run(async {
            let got = self.client.get(&self.object).await?;
            let e_tag = got.meta.e_tag.clone().unwrap();
            Ok((got.bytes().await?, e_tag))
        });
        match got {
            Ok((bytes, e_tag)) => Some((serde_json::from_slice(&bytes).unwrap(), e_tag)),
            Err(Error::NotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn put(&mut self, entry: &Value, e_tag: Option<String>) -> bool {
        let mode = match e_tag {
            Some(e_tag) => PutMode::Update(UpdateVersion { e_tag: Some(e_tag), version: None }),
            None => PutMode::Create,
        };
        let options = PutOptions::from(mode);
        let put = self.client.put_opts(&self.object, entry.to_string().into(), options);
        match run(put) {
            Ok(written) => {
                self.last = written.e_tag;
                true
            }
            Err(Error::Precondition { .. } | Error::AlreadyExists { .. }) => {
                self.last = None;
                false
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// As .NET writes a `DateTimeOffset`.
fn time(at: Duration) -> String {
    let at = jiff::Timestamp::from_microsecond(i64::try_from(at.as_micros()).unwrap()).unwrap();
    at.to_string().replace('Z', "+00:00")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn is_over(entry: &Value) -> bool {
    let until: jiff::Timestamp = entry["leaseUntilUtc"].as_str().unwrap().parse().unwrap();
    until.as_microsecond() <= i64::try_from(now().as_micros()).unwrap()
}

impl Neighbour for Process {
    fn acquire(&mut self, _: &str, holder: &str, ttl: Duration) -> bool {
        // A candidate waits between two attempts, 5 s by default; our claim takes seven requests.
        if self.last.is_none() {
            std::thread::sleep(RETRY_INTERVAL);
        }
        let until = time(now() + ttl);
        let read = self.read();
        if let Some((entry, _)) = &read
            && !is_over(entry)
            && entry["holderId"] != holder
        {
            return false;
        }
        let entry = json!({ "holderId": holder, "leaseUntilUtc": until });
        self.put(&entry, read.map(|(_, e_tag)| e_tag))
    }

    fn release(&mut self, _: &str, _: &str) {
        let free = json!({ "holderId": "", "leaseUntilUtc": "0001-01-01T00:00:00+00:00" });
        let last = self.last.take();
        assert!(self.put(&free, last), "what it held was another's");
    }

    fn holder(&mut self, _: &str) -> Option<String> {
        let (entry, _) = self.read()?;
        let holder = entry["holderId"].as_str().unwrap();
        (!holder.is_empty() && !is_over(&entry)).then(|| holder.to_owned())
    }
}

#[test]
fn contended_rounds_with_leader_election_have_one_holder() {
    let harness = Objects::at("s3 (contended)", url_of("TENURE_TEST_S3")).shared(NAME);
    let connect =
        || Process { client: harness.by_hand(), object: harness.entry(&namespace()), last: None };
    let mut contenders = Contenders::from_env();
    if std::env::var_os(ROUNDS_VARIABLE).is_none() {
        contenders.rounds = ROUNDS_FEW;
    }
    println!("{:?}", race(&harness, connect, contenders));
}
