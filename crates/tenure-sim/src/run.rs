//! One run: a seed in, a report or a shrunk violation out.

use std::fmt;
use std::time::Duration;

use crate::config::Config;
use crate::oracle::{Breach, Invariant};
use crate::rules::{Rules, Sound};
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::shrink::shrunk;
use crate::world::World;

/// What a clean run went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many events there were.
    pub steps: u64,
    /// How many grants.
    pub grants: u64,
    /// How long it lasted, in true time.
    pub lasted: Duration,
}

/// A guarantee that was broken, and the least that breaks it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed that reproduces it.
    pub seed: u64,
    /// Which guarantee.
    pub invariant: Invariant,
    /// How.
    pub what: String,
    /// When, in true time.
    pub at: Duration,
    /// The schedule, shrunk.
    pub schedule: Schedule,
    /// How many faults it had at first.
    pub faults_at_first: usize,
    /// The course of the shrunk run: time, who, what.
    pub course: Vec<String>,
}

/// How many lines of the course are printed.
const COURSE_PRINTED: usize = 60;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, invariant, what, at, schedule, faults_at_first, course } = self;
        writeln!(f, "seed {seed} breaks {invariant} at {:.3} s: {what}", at.as_secs_f64())?;
        write!(f, "schedule ({faults_at_first} faults before it was shrunk): {schedule}")?;
        let skipped = course.len().saturating_sub(COURSE_PRINTED);
        writeln!(f, "course ({skipped} lines before these):")?;
        for line in &course[skipped..] {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// Runs one seed under the rules as they are.
///
/// # Errors
/// The guarantee that was broken.
pub fn run(seed: u64, config: &Config) -> Result<Report, Box<Violation>> {
    run_under(seed, config, &Sound)
}

/// Runs one seed under rules that a test has changed.
///
/// # Errors
/// The guarantee that was broken.
pub fn run_under(seed: u64, config: &Config, rules: &dyn Rules) -> Result<Report, Box<Violation>> {
    let scenario = Scenario::drawn(seed, config);
    let broken = match attempt(&scenario, config, rules) {
        Ok(report) => return Ok(report),
        Err((breach, _)) => breach,
    };
    let faults_at_first = scenario.schedule.faults.len();
    let scenario = if config.shrinks {
        shrunk(scenario, |candidate| {
            attempt(candidate, config, rules)
                .err()
                .filter(|(breach, _)| breach.invariant == broken.invariant)
                .map(|(_, at)| at)
        })
    } else {
        scenario
    };
    let mut world = World::new(&scenario, config, rules, true);
    let breach = world.run().err().unwrap_or(broken);
    let at = world.now;
    Err(Box::new(Violation {
        seed,
        invariant: breach.invariant,
        what: breach.what,
        at,
        schedule: scenario.schedule.clone(),
        faults_at_first,
        course: world.course(),
    }))
}

fn attempt(
    scenario: &Scenario,
    config: &Config,
    rules: &dyn Rules,
) -> Result<Report, (Breach, Duration)> {
    let mut world = World::new(scenario, config, rules, false);
    match world.run() {
        Ok(()) => {
            Ok(Report { steps: world.steps, grants: world.oracle.grants(), lasted: world.now })
        }
        Err(breach) => Err((breach, world.now)),
    }
}
