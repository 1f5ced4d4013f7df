//! What the servers are: how durably they keep what they acknowledge, and what they might drop.

use tenure_core::store::{Finding, Level, Verdict};
use tenure_core::{Error, Operation};

use crate::link::Link;
use crate::reply::{pairs, text};
use crate::route::Route;

/// What decides over durability, as CONFIG GET names it.
const SETTINGS: [&str; 5] =
    ["appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy"];

/// What the servers are, together.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    servers: Vec<Settings>,
    /// A replica may take over by itself.
    fails_over: bool,
}

/// What one server says of its settings; none where it wouldn't.
#[derive(Clone, Debug, Default)]
struct Settings {
    appendonly: Option<String>,
    appendfsync: Option<String>,
    lazy_on_rewrite: Option<String>,
    maxmemory: Option<String>,
    policy: Option<String>,
    version: String,
}

/// One look at durability: whether it holds, and the fact with its cure.
type Judged = (Verdict, String);

impl Nature {
    /// Asks each server.
    pub(crate) async fn ask(route: &Route, operation: Operation) -> Result<Self, Error> {
        let mut servers = Vec::new();
        for link in route.servers().await? {
            servers.push(Settings::ask(&link, operation).await?);
        }
        Ok(Self { servers, fails_over: route.fails_over().await })
    }

    /// What they promise.
    pub(crate) fn level(&self) -> Level {
        let kept = [self.durability(), self.eviction(), self.failover()];
        let good = kept.iter().all(|(verdict, _)| *verdict == Verdict::Good);
        if good { Level::Fenced } else { Level::BestEffort }
    }

    /// Findings for `doctor`.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let version = |one: &Settings| match one.version.as_str() {
            "" => "one that it doesn't say".to_owned(),
            version => version.to_owned(),
        };
        let versions: Vec<String> = self.servers.iter().map(version).collect();
        let found = |check: &str, (verdict, detail): Judged| Finding::new(check, verdict, detail);
        vec![
            Finding::new("version", Verdict::Good, format!("it is {}", versions.join(", "))),
            found("durability", self.durability()),
            found("eviction", self.eviction()),
            found("failover", self.failover()),
        ]
    }

    fn worst(&self, judge: impl Fn(&Settings) -> Judged) -> Judged {
        let rank = |verdict: Verdict| match verdict {
            Verdict::Good => 0,
            Verdict::Limited => 1,
            Verdict::Bad => 2,
        };
        let judged = self.servers.iter().map(judge);
        judged.max_by_key(|(verdict, _)| rank(*verdict)).unwrap_or((Verdict::Limited, unsaid()))
    }

    fn durability(&self) -> Judged {
        self.worst(|server| {
            let is = |setting: &Option<String>, value: &str| setting.as_deref() == Some(value);
            if server.appendonly.is_none() || server.appendfsync.is_none() {
                (Verdict::Limited, unsaid())
            } else if !is(&server.appendonly, "yes") {
                let detail = "a restart loses what was granted since the last snapshot; set \
                              `appendonly yes` and `appendfsync always`";
                (Verdict::Bad, detail.to_owned())
            } else if !is(&server.appendfsync, "always") {
                let detail = "a crash of the machine loses up to a second of grants; set \
                              `appendfsync always`";
                (Verdict::Limited, detail.to_owned())
            } else if !is(&server.lazy_on_rewrite, "no") {
                let detail = "a crash while the log is rewritten loses grants; set \
                              `no-appendfsync-on-rewrite no`";
                (Verdict::Limited, detail.to_owned())
            } else {
                (Verdict::Good, "each write is on the disk before it is acknowledged".to_owned())
            }
        })
    }

    fn eviction(&self) -> Judged {
        self.worst(|server| match (server.policy.as_deref(), server.maxmemory.as_deref()) {
            (None, _) => (Verdict::Limited, unsaid()),
            (Some("noeviction"), _) => (Verdict::Good, "nothing is evicted".to_owned()),
            (Some(_), Some("0")) => {
                (Verdict::Good, "nothing is evicted: there is no maxmemory".to_owned())
            }
            (Some(policy), _) => (
                Verdict::Bad,
                format!("`maxmemory-policy {policy}` may drop leases; set `noeviction`"),
            ),
        })
    }

    fn failover(&self) -> Judged {
        if self.fails_over {
            let detail = "a replica that takes over has lost what hadn't reached it; guards and \
                          `min-replicas-to-write 1` narrow the gap, nothing closes it";
            (Verdict::Limited, detail.to_owned())
        } else {
            (Verdict::Good, "no replica takes over by itself".to_owned())
        }
    }
}

fn unsaid() -> String {
    "the server doesn't say (CONFIG GET and INFO are refused): it counts as best effort; \
     allow this user `config|get`"
        .to_owned()
}

impl Settings {
    async fn ask(link: &Link, operation: Operation) -> Result<Self, Error> {
        let mut commands = redis::Pipeline::new();
        for name in SETTINGS {
            commands.cmd("CONFIG").arg("GET").arg(name);
        }
        commands.cmd("INFO");
        let answers = link.send(&commands, SETTINGS.len() + 1, operation).await?;
        let mut settings =
            Self { version: link.live().await?.about.version.clone(), ..Self::default() };
        for answer in &answers[..SETTINGS.len()] {
            for (name, value) in pairs(answer) {
                settings.set(name, value);
            }
        }
        // A managed server hides CONFIG, and tells some of it in INFO.
        for line in answers.last().and_then(text).unwrap_or_default().lines() {
            match line.split_once(':') {
                Some(("aof_enabled", "0")) => settings.set("appendonly", "no"),
                Some(("aof_enabled", "1")) => settings.set("appendonly", "yes"),
                Some((name @ ("maxmemory" | "maxmemory_policy"), value)) => {
                    settings.set(&name.replace('_', "-"), value);
                }
                _ => {}
            }
        }
        if settings.appendonly.as_deref() == Some("no") {
            // It makes no difference then.
            settings.appendfsync.get_or_insert_default();
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) {
        let field = match name {
            "appendonly" => &mut self.appendonly,
            "appendfsync" => &mut self.appendfsync,
            "no-appendfsync-on-rewrite" => &mut self.lazy_on_rewrite,
            "maxmemory" => &mut self.maxmemory,
            "maxmemory-policy" => &mut self.policy,
            _ => return,
        };
        *field = Some(value.to_owned());
    }
}
