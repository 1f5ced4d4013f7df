//! `demo`: three real processes on a fresh file; one is killed, one frozen, one hands over.

mod processes;
mod timeline;
mod worker;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tenure::core::clock::Clock as _;
use tenure::core::identity::{Nonce, Successor};
use tenure::core::record::{Demand, Order};
use tenure::core::store::{OrderRequest, Ordered};
use tenure::{Name, Session};

use self::processes::Candidates;
use self::timeline::{Term, leaderless, overlap};
pub(super) use self::worker::work;
use crate::args::Arguments;
use crate::exit::Failure;
use crate::output::{self, Form};

/// The demo's ttl: short, so that a freeze past it doesn't take long.
const TTL: &str = "3s";
/// How long a step is waited for before the demo gives up.
const STEP_MAX: Duration = Duration::from_secs(20);
/// How long each leader is left to lead.
const LEAD: Duration = Duration::from_millis(1500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// The elected name.
const NAME: &str = "demo";

/// One change of leader, as the workers' own lines show it.
struct Change {
    what: String,
    before: Term,
    after: Term,
}

pub(super) async fn demo(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut candidates = Candidates::start(TTL)?;
    let mut show = Show { form: Form::of(arguments.common.json), started: Instant::now() };
    show.tell(&format!(
        "three processes stand for `{NAME}` on {}: {}",
        candidates.file().display(),
        candidates.describe()
    ))?;
    let first = candidates.leader_after(0, STEP_MAX).await?;
    show.leads(&first)?;
    let mut changes = Vec::new();

    tokio::time::sleep(LEAD).await;
    show.tell(&format!("{} is killed with SIGKILL", first.instance))?;
    candidates.kill(&first.instance)?;
    let second = candidates.leader_after(first.token, STEP_MAX).await?;
    show.leads(&second)?;
    candidates.restart_if_ended(&first.instance, STEP_MAX).await?;
    show.tell(&format!("{} is started again", first.instance))?;
    changes.push((format!("{} killed", first.instance), first.token, second.token));

    tokio::time::sleep(LEAD).await;
    show.tell(&format!("{} and all it started are frozen with SIGSTOP", second.instance))?;
    let frozen = candidates.freeze(&second.instance)?;
    let third = candidates.leader_after(second.token, STEP_MAX).await?;
    show.leads(&third)?;
    show.tell(&format!("{} is continued", second.instance))?;
    candidates.thaw(&frozen);
    if let Some(code) = candidates.restart_if_ended(&second.instance, LEAD).await? {
        let instance = &second.instance;
        show.tell(&format!(
            "{instance} found that it had lost, and ended with {code}; it is started again"
        ))?;
    }
    changes.push((format!("{} frozen past its ttl", second.instance), second.token, third.token));

    tokio::time::sleep(LEAD).await;
    show.tell(&format!("{} is asked to hand over to {}", third.instance, second.instance))?;
    let session = Session::open(candidates.url()).await?;
    hand_over(&session, &second.instance).await?;
    let fourth = candidates.leader_after(third.token, STEP_MAX).await?;
    show.leads(&fourth)?;
    session.close().await?;
    changes.push((format!("{} hands over", third.instance), third.token, fourth.token));

    tokio::time::sleep(LEAD).await;
    candidates.end();
    report(&mut show, &candidates, &changes)
}

/// Asks the leader to resign in favour of an instance.
async fn hand_over(session: &Session, to: &str) -> Result<(), Failure> {
    let successor = Successor { name: Name::new(to)?, incarnation: None };
    let demand = Demand::Resign { to: Some(successor) };
    let at = tenure::SystemClock.now().wall;
    let request = OrderRequest {
        order: Order::new(demand, "the demo", "a graceful transfer", at),
        token: None,
        nonce: Nonce::draw(&mut session.chance()),
    };
    match session.store().order(&Name::new(NAME)?, &request).await? {
        Ordered::Ordered(_) => Ok(()),
        other => Err(Failure::new(70, format!("the leader could not be asked: {other:?}"))),
    }
}

/// What happened, computed from what the workers wrote.
fn report(
    show: &mut Show,
    candidates: &Candidates,
    changes: &[(String, u64, u64)],
) -> Result<ExitCode, Failure> {
    let terms = candidates.terms()?;
    let term = |token| terms.iter().find(|term: &&Term| term.token == token).cloned();
    let changes: Vec<Change> = changes
        .iter()
        .filter_map(|(what, before, after)| {
            Some(Change { what: what.clone(), before: term(*before)?, after: term(*after)? })
        })
        .collect();
    let both = overlap(&terms);
    match show.form {
        Form::Json => {
            for change in &changes {
                output::json_line(&serde_json::json!({
                    "schema": "tenure.demo.1",
                    "what": change.what,
                    "from": change.before.instance, "from_token": change.before.token,
                    "to": change.after.instance, "to_token": change.after.token,
                    "leaderless_us": leaderless(&change.before, &change.after).as_micros() as u64,
                    "overlap_us": both.as_micros() as u64,
                }))
                .map_err(|error| Failure::stdout(&error))?;
            }
        }
        Form::Human => {
            show.blank()?;
            let rows = changes.iter().map(|change| {
                let gap = leaderless(&change.before, &change.after);
                vec![
                    change.what.clone(),
                    format!("{} (token {})", change.after.instance, change.after.token),
                    format!("{:.0} ms", gap.as_secs_f64() * 1e3),
                ]
            });
            output::table(&["change", "next leader", "leaderless"], rows)
                .map_err(|error| Failure::stdout(&error))?;
            let acts: u64 = terms.iter().map(|term| term.acts).sum();
            show.blank()?;
            let line = format!(
                "{acts} acts in {} terms, as their lines show; two leaders at once: {}",
                terms.len(),
                if both.is_zero() { "never".to_owned() } else { format!("{both:?}") }
            );
            output::line(&line).map_err(|error| Failure::stdout(&error))?;
        }
    }
    Ok(if both.is_zero() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells the story as it goes.
struct Show {
    form: Form,
    started: Instant,
}

impl Show {
    fn tell(&mut self, what: &str) -> Result<(), Failure> {
        if self.form == Form::Json {
            return Ok(());
        }
        let at = self.started.elapsed().as_secs_f64();
        output::line(&format!("{at:6.2} s  {what}")).map_err(|error| Failure::stdout(&error))
    }

    fn leads(&mut self, term: &Term) -> Result<(), Failure> {
        self.tell(&format!("{} leads (token {})", term.instance, term.token))
    }

    fn blank(&mut self) -> Result<(), Failure> {
        output::line("").map_err(|error| Failure::stdout(&error))
    }
}
