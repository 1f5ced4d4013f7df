//! What came of a run: the figures, and what makes a run that proves nothing fail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::fault::Kind;
use crate::observer::Observer;
use crate::place::Place;
use crate::scene::Scene;

/// Set, it has the whole timeline printed at the end.
const TIMELINE: &str = "TENURE_SOAK_TIMELINE";

/// What was seen of one kind of fault.
#[derive(Default)]
struct Seen {
    times: usize,
    /// How long nobody acted, where the fault ended the term.
    leaderless: Vec<Duration>,
    /// How long after the fault was over somebody acted again.
    recovered: Vec<Duration>,
}

pub(crate) struct Report {
    place: Place,
    seed: u64,
    begun: Instant,
    beside: usize,
    kinds: BTreeMap<Kind, Seen>,
}

impl Report {
    pub(crate) fn new(place: Place, seed: u64) -> Self {
        Self { place, seed, begun: Instant::now(), beside: 0, kinds: BTreeMap::new() }
    }

    /// Takes in a fault that is over, under which `token` was held; somebody acted `again` so long
    /// after it.
    pub(crate) fn befell(
        &mut self,
        kind: Kind,
        beside: bool,
        token: u64,
        again: Duration,
        observer: &Observer,
    ) {
        self.beside += usize::from(beside);
        let seen = self.kinds.entry(kind).or_default();
        seen.times += 1;
        let next = observer.terms().find(|(newer, _)| *newer > token);
        if let (Some(term), Some((_, next))) = (observer.term(token), next) {
            let gap = next.first.saturating_sub(term.last);
            seen.leaderless.push(Duration::from_nanos(gap));
        }
        seen.recovered.push(again);
    }

    /// Prints the figures, and asserts that it all happened.
    pub(crate) fn end(&self, scene: &mut Scene, wanted: &[Kind]) {
        scene.look();
        let observer = &scene.observer;
        let terms = observer.terms().count();
        let acts: usize = observer.terms().map(|(_, term)| term.acts).sum();
        let happened: usize = self.kinds.values().map(|seen| seen.times).sum();
        let ended: usize = self.kinds.values().map(|seen| seen.leaderless.len()).sum();
        println!(
            "{}: {happened} faults, {} with another beside, in {} s, seed {}\n\
             {terms} terms, {acts} acts; overlaps 0, tokens that went back or came twice 0; closest \
             check before the next grant {:?}\n\
             late effects {} without a guard (of {acts}), {} behind one (of {}); a late effect is one\n\
             that the kernel carried out after one of a newer token",
            self.place.name(),
            self.beside,
            self.begun.elapsed().as_secs(),
            self.seed,
            observer.closest().unwrap_or_default(),
            observer.late_effects,
            observer.late_guarded,
            observer.guarded_acts,
        );
        println!("lost by: {:?}", observer.losses);
        if std::env::var_os(TIMELINE).is_some() {
            println!("{}", observer.newest_events(usize::MAX));
        }
        println!("{:<20} times  ended the term  leaderless: median, max  acted again after", "");
        let mut all = Seen::default();
        for (kind, seen) in &self.kinds {
            line(&format!("{kind:?}"), seen);
            all.times += seen.times;
            all.leaderless.extend(&seen.leaderless);
            all.recovered.extend(&seen.recovered);
        }
        line("all", &all);
        assert_eq!(happened, wanted.len());
        assert!(ended * 3 >= happened, "{ended} of {happened} faults ended a term: hardly any");
        assert!(terms > ended, "{terms} terms for {ended} ends");
        assert!(acts >= happened * 10, "{acts} acts in {happened} faults: hardly any");
        assert!(observer.guarded_acts * 2 > acts, "the guard let hardly anything through");
    }
}

fn line(what: &str, seen: &Seen) {
    let (median, most) = spread(&seen.leaderless);
    let (_, again) = spread(&seen.recovered);
    println!(
        "{what:<20} {:>5}  {:>14}  {median:>18?}, {most:?}  {again:?} at most",
        seen.times,
        seen.leaderless.len()
    );
}

/// The median and the maximum, in whole milliseconds.
fn spread(times: &[Duration]) -> (Duration, Duration) {
    let mut times: Vec<u64> = times.iter().map(|time| time.as_millis() as u64).collect();
    times.sort_unstable();
    let at = |index: usize| Duration::from_millis(times.get(index).copied().unwrap_or(0));
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}
