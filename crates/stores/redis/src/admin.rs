//! The operator's side: what `init` writes and what `doctor` finds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Value;
use tenure_core::cluster;
use tenure_core::identity::StoreId;
use tenure_core::store::{Answer, Finding, InitOptions, StoreAdmin, Verdict};
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::unintelligible;
use crate::keys::BUCKETS;
use crate::layout::Layout;
use crate::link::Link;
use crate::nature::Nature;
use crate::reply::{list, text};
use crate::script::{Call, MARK, carry_out};
use crate::store::RedisStore;

/// A clock that is off by more than this is worth a word.
const OFFSET_MOST: Duration = Duration::from_secs(1);
/// A clock that ran ahead by more than this, in µs, was set: half the margin of the shortest ttl.
const STEP_MOST: i64 = 125_000;
/// An answer that takes longer than this makes a short ttl hard to keep.
const ANSWER_MOST: Duration = Duration::from_millis(100);
/// How often the round trip is measured.
const ROUND_TRIPS: usize = 8;

impl StoreAdmin for RedisStore {
    fn setup(&self) -> String {
        let prefix = &self.session.config.prefix;
        let (shared, commands) = match &self.session.config.layout {
            Some(layout) => (format!(" ~{}", layout.pattern()), "+get +set +pttl "),
            None => (String::new(), ""),
        };
        format!(
            "# redis.conf: keep what was acknowledged, and drop nothing\n\
             appendonly yes\nappendfsync always\nmaxmemory-policy noeviction\n\
             # a user for tenure alone\n\
             ACL SETUSER tenure on >PASSWORD ~{prefix}:*{shared} &{prefix}:* -@all +@connection \
             {commands}+eval +evalsha +time +hget +hmget +hset +hincrby +exists +pexpire +persist +zadd \
             +zrem +zcard +zrange +zrangebylex +publish +subscribe +unsubscribe +config|get +info +cluster|slots\n\
             # the ids, one for each bucket: written when the store is first opened\n\
             HSET {} format 1 id … token 0\n",
            self.session.keys.store(0)
        )
    }

    /// Opening has written the ids; this adds the mark.
    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId> {
        Box::pin(async move {
            if options.observed {
                return Err(self.located(Error::new(
                    ErrorKind::Misconfigured,
                    Operation::Init,
                    "a Redis store's expiry is decided by the server's clock; leave the clock out",
                )));
            }
            if let Some(mark) = &options.cluster {
                cluster::check(mark)?;
                self.bear(mark).await.map_err(|error| self.located(error))?;
            }
            let store = self.session.store();
            store.ok_or_else(|| self.located(unintelligible(Operation::Init)))
        })
    }

    fn diagnose(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            let found = async {
                let mut findings =
                    Nature::ask(&self.session.route, Operation::Diagnose).await?.findings();
                let (mut clocks, mut stepped) = (Vec::new(), 0);
                let mut slowest = Duration::ZERO;
                for link in self.session.route.servers().await? {
                    let Measured { now, off, took } = measured(&link).await?;
                    clocks.push(off);
                    stepped = self.session.stepped(now).unwrap_or(0).max(stepped);
                    slowest = slowest.max(took);
                }
                findings.push(clock(&clocks, stepped));
                findings.push(latency(slowest));
                findings.push(self.permissions().await);
                findings.extend(self.session.config.layout.as_ref().map(sharing));
                Ok(findings)
            };
            found.await.map_err(|error: Error| self.located(error))
        })
    }
}

impl RedisStore {
    async fn bear(&self, mark: &str) -> Result<(), Error> {
        let keys = &self.session.keys;
        let calls: Vec<Call> = (0..BUCKETS)
            .map(|bucket| {
                let mut call = Call::new(bucket, &MARK, &[keys.store(bucket)]);
                call.arg(mark);
                call
            })
            .collect();
        for reply in carry_out(&self.session.route, Operation::Init, &calls).await {
            if text(&reply?) != Some(mark) {
                return Err(cluster::taken(mark));
            }
        }
        Ok(())
    }

    /// Opening tries all commands that a script needs; a lack of one would have been told.
    async fn permissions(&self) -> Finding {
        let looked = self.session.look(Operation::Diagnose).await.map(drop);
        let tried = match looked {
            Ok(()) => self.session.try_layout(Operation::Diagnose).await,
            Err(error) => Err(error),
        };
        match tried {
            Ok(()) => Finding::new("permissions", Verdict::Good, "this user may do what is needed"),
            Err(error) => Finding::new("permissions", Verdict::Bad, error.to_string()),
        }
    }
}

fn sharing(layout: &Layout) -> Finding {
    let detail = format!(
        "names are shared with {} at `{}`: its holders carry no token, so the level is `lease` at \
         most; leave the layout out once all of it has moved",
        layout.word(),
        layout.pattern()
    );
    Finding::new("layout", Verdict::Limited, detail)
}

/// What a few questions for the time have come to.
struct Measured {
    /// The server's clock, in µs since 1970.
    now: i64,
    /// How far it stands from this machine's, in µs.
    off: i64,
    /// The slowest answer.
    took: Duration,
}

async fn measured(link: &Link) -> Result<Measured, Error> {
    let mut measured = Measured { now: 0, off: 0, took: Duration::ZERO };
    let mut least = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        let answer = link.ask(redis::cmd("TIME"), Operation::Diagnose).await?;
        let took = begun.elapsed();
        let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() - took / 2;
        measured.now = micros(&answer).ok_or_else(|| unintelligible(Operation::Diagnose))?;
        if took < least {
            least = took;
            let here = i64::try_from(here.as_micros()).unwrap_or(i64::MAX);
            measured.off = measured.now.saturating_sub(here);
        }
        measured.took = measured.took.max(took);
    }
    Ok(measured)
}

fn micros(answer: &Value) -> Option<i64> {
    let [seconds, micros] = list(answer)? else { return None };
    let seconds: i64 = text(seconds)?.parse().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(text(micros)?.parse().ok()?)
}

fn clock(off: &[i64], stepped: i64) -> Finding {
    let furthest = off.iter().copied().max_by_key(|off| off.abs()).unwrap_or(0);
    let apart = Duration::from_micros(furthest.unsigned_abs());
    let side = if furthest < 0 { "behind" } else { "ahead of" };
    let detail = format!("the server's clock is {apart:.1?} {side} this machine's");
    if stepped > STEP_MOST {
        let by = Duration::from_micros(stepped.unsigned_abs());
        let cure = "grants have ended early; let NTP slew it, and never step";
        let detail =
            format!("{detail}, and was set {by:.1?} ahead since this session began; {cure}");
        Finding::new("clock", Verdict::Bad, detail)
    } else if apart > OFFSET_MOST {
        let cure = "no decision compares the two, but one of them may be about to be set: run NTP \
                    on both, slewing";
        Finding::new("clock", Verdict::Limited, format!("{detail}; {cure}"))
    } else {
        Finding::new("clock", Verdict::Good, detail)
    }
}

fn latency(slowest: Duration) -> Finding {
    let detail = format!("the slowest of {ROUND_TRIPS} answers took {slowest:.1?}");
    if slowest > ANSWER_MOST {
        Finding::new("latency", Verdict::Limited, format!("{detail}: use a longer ttl"))
    } else {
        Finding::new("latency", Verdict::Good, detail)
    }
}
