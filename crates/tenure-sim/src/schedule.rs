//! The schedule of a run: what goes wrong, when, and for whom.

use std::fmt;
use std::time::Duration;

use tenure_core::chance::Chance;

use crate::config::Config;

/// One thing that goes wrong, or that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, in true time since the run began.
    pub at: Duration,
    /// At which instance, where that means anything.
    pub who: usize,
    /// What.
    pub what: What,
}

/// The kinds of fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The process stops, and goes on with everything that waited, in any order.
    Pause(Duration),
    /// The process stops between a check and its effect; the effect comes late.
    Stall(Duration),
    /// The machine sleeps; its interval clock counts that.
    Suspend(Duration),
    /// The hypervisor stops the machine; its interval clock doesn't count that. `seen`: the
    /// wall clock shows it.
    Freeze {
        /// For how long.
        lasts: Duration,
        /// Whether the wall clock shows it.
        seen: bool,
    },
    /// The process dies, and starts anew.
    Crash(Duration),
    /// The wall clock is set.
    StepWall(i64),
    /// No message comes through, either way.
    Cut(Duration),
    /// Requests are lost.
    LoseRequests(Duration),
    /// Requests arrive, their answers are lost.
    LoseAnswers(Duration),
    /// Messages take long.
    Slow {
        /// For how long.
        lasts: Duration,
        /// How much longer at most.
        by: Duration,
    },
    /// Messages arrive twice.
    Double(Duration),
    /// The store can't be connected to.
    Refuse(Duration),
    /// The store's clock is set, within assumption B.
    JumpStore(i64),
    /// The store loses everything, its id too: outside assumption C.
    ForgetStore,
    /// The store is backed up.
    BackUpStore,
    /// The store goes back to its backup: outside assumption C.
    RestoreStore,
    /// An operator asks the holder of a name to resign.
    OrderResign(usize),
    /// An operator revokes the grant of a name.
    Revoke(usize),
    /// An operator revokes it and doesn't wait.
    RevokeNow(usize),
    /// The holder gives a name up, in favour of the next instance if `true`.
    Resign(usize, bool),
    /// The work under a name ends by itself.
    EndWork(usize),
    /// The instance isn't fit to lead.
    Unhealthy(Duration),
}

/// What a run goes through. The seed decides everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How many instances take part.
    pub instances: usize,
    /// How many names they contend for.
    pub names: usize,
    /// How long the chaos lasts.
    pub chaos: Duration,
    /// What goes wrong, in order of time.
    pub faults: Vec<Fault>,
}

/// What the faults of a run are drawn by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) ttl_min: Duration,
    pub(crate) ttl_max: Duration,
    pub(crate) margin_min: Duration,
    /// Machines are frozen by their hypervisors; the store's clock doesn't jump then.
    pub(crate) hypervisor: bool,
}

impl Schedule {
    /// Draws a schedule.
    pub(crate) fn drawn(config: &Config, bounds: &Bounds, chance: &mut Chance) -> Self {
        let more = config.instances_max.saturating_sub(1).max(1) as u64;
        // Few instances make each one matter.
        let instances = 2 + chance.below(more).min(chance.below(more));
        let names = 1 + chance.below(config.names_max.max(1) as u64);
        let chaos = bounds.ttl_max * config.chaos_ttls;
        let count = 1 + chance.below(config.faults_max.max(1) as u64);
        let mut schedule =
            Self { instances: instances as usize, names: names as usize, chaos, faults: vec![] };
        let mut troubled = None;
        for _ in 0..count {
            // Troubles rarely come alone: half of them follow another of the same instance.
            let (at, who) = match troubled {
                Some((before, who)) if chance.one_in(2) => {
                    (before + chance.between(Duration::ZERO, bounds.ttl_max / 2), who)
                }
                _ => (chance.between(Duration::ZERO, chaos), chance.below(instances) as usize),
            };
            troubled = Some((at, who));
            let name = chance.below(names) as usize;
            let what = draw(config, bounds, name, chance);
            schedule.faults.push(Fault { at, who, what });
        }
        schedule.faults.sort_by_key(|fault| fault.at);
        schedule.keep_assumption_b(bounds);
        schedule
    }

    /// Within one ttl the store's clock jumps once at most.
    fn keep_assumption_b(&mut self, bounds: &Bounds) {
        let mut last: Option<Duration> = None;
        self.faults.retain(|fault| {
            if !matches!(fault.what, What::JumpStore(_)) {
                return true;
            }
            let apart = bounds.ttl_max + bounds.ttl_max / 10;
            let keeps = last.is_none_or(|last| fault.at >= last + apart);
            if keeps {
                last = Some(fault.at);
            }
            keeps
        });
    }
}

fn draw(config: &Config, bounds: &Bounds, name: usize, chance: &mut Chance) -> What {
    let ttl = bounds.ttl_max;
    let brief = chance.between(ttl / 50, ttl / 2);
    let long = chance.between(ttl / 4, ttl * 2);
    let lasts = if chance.one_in(2) { brief } else { long };
    let jump = (bounds.margin_min.as_millis() as u64 / 2).saturating_sub(2);
    let step = [3_600_000, 120_000, 1_000, 90][chance.below(4) as usize];
    let step = if chance.one_in(2) { step } else { -step };
    match chance.below(28) {
        0..=2 => What::Pause(lasts),
        3 => What::Stall(lasts),
        4 if bounds.hypervisor => What::Freeze { lasts, seen: true },
        5 if bounds.hypervisor => What::Freeze { lasts, seen: false },
        4 | 5 => What::Suspend(lasts),
        6 | 7 => What::Crash(chance.between(Duration::from_millis(1), ttl * 2)),
        8 => What::StepWall(step),
        9 | 10 => What::Cut(lasts),
        11 => What::LoseRequests(lasts),
        12..=14 => What::LoseAnswers(lasts),
        15..=17 => {
            let by = if chance.one_in(2) { ttl / 6 } else { ttl * 3 / 2 };
            What::Slow { lasts: long * 3, by: chance.between(ttl / 30, by) }
        }
        18 => What::Double(long),
        19 => What::Refuse(lasts),
        20 if config.store.has_clock() && !bounds.hypervisor => {
            What::JumpStore(jump as i64 - chance.below(2 * jump + 1) as i64)
        }
        21 if config.store.forgets() => What::ForgetStore,
        22 if config.store.forgets() => What::BackUpStore,
        23 if config.store.forgets() => What::RestoreStore,
        20 | 21 => What::Revoke(name),
        22 => What::OrderResign(name),
        23 => What::RevokeNow(name),
        24 => What::Resign(name, true),
        25 => What::Resign(name, false),
        26 => What::EndWork(name),
        _ => What::Unhealthy(lasts),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instances, names, chaos, faults } = self;
        writeln!(
            f,
            "{instances} instances, {names} names, {:.1} s of chaos, {} faults",
            chaos.as_secs_f64(),
            faults.len()
        )?;
        for fault in faults {
            writeln!(f, "  {fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64();
        let who = match self.what {
            What::JumpStore(_) | What::ForgetStore | What::BackUpStore | What::RestoreStore => {
                "the store".to_owned()
            }
            What::OrderResign(_) | What::Revoke(_) | What::RevokeNow(_) => "an operator".to_owned(),
            _ => format!("i{}", self.who),
        };
        write!(f, "{at:9.3} s  {who:<11}  {}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = |lasts: &Duration| format!("{:.3} s", lasts.as_secs_f64());
        match self {
            Self::Pause(lasts) => write!(f, "is paused for {}", secs(lasts)),
            Self::Stall(lasts) => {
                write!(f, "is paused for {} between a check and its effect", secs(lasts))
            }
            Self::Suspend(lasts) => write!(f, "sleeps for {}", secs(lasts)),
            Self::Freeze { lasts, seen } => {
                let how =
                    if *seen { "and its wall clock shows it" } else { "and nothing shows it" };
                write!(f, "is frozen by its hypervisor for {}, {how}", secs(lasts))
            }
            Self::Crash(lasts) => write!(f, "crashes, and is back after {}", secs(lasts)),
            Self::StepWall(millis) => write!(f, "has its wall clock set by {millis} ms"),
            Self::Cut(lasts) => write!(f, "is cut off for {}", secs(lasts)),
            Self::LoseRequests(lasts) => write!(f, "loses requests for {}", secs(lasts)),
            Self::LoseAnswers(lasts) => write!(f, "loses answers for {}", secs(lasts)),
            Self::Slow { lasts, by } => {
                write!(f, "has a network slower by up to {} for {}", secs(by), secs(lasts))
            }
            Self::Double(lasts) => write!(f, "has messages doubled for {}", secs(lasts)),
            Self::Refuse(lasts) => write!(f, "can't connect for {}", secs(lasts)),
            Self::JumpStore(millis) => write!(f, "has its clock set by {millis} ms"),
            Self::ForgetStore => f.write_str("forgets everything"),
            Self::BackUpStore => f.write_str("is backed up"),
            Self::RestoreStore => f.write_str("is restored from its backup"),
            Self::OrderResign(name) => write!(f, "asks the holder of n{name} to resign"),
            Self::Revoke(name) => write!(f, "revokes n{name}"),
            Self::RevokeNow(name) => write!(f, "revokes n{name} at once"),
            Self::Resign(name, true) => write!(f, "hands n{name} to the next instance"),
            Self::Resign(name, false) => write!(f, "gives n{name} up"),
            Self::EndWork(name) => write!(f, "ends its work under n{name}"),
            Self::Unhealthy(lasts) => write!(f, "is unfit to lead for {}", secs(lasts)),
        }
    }
}
