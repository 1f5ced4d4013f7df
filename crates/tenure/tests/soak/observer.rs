//! Who acted when, found in files that all contenders append to, by plain code that knows nothing
//! of tenure.
//!
//! A line of `acts` is `grant WHO TOKEN AT`, `act WHO TOKEN BEFORE AFTER` (the clock before and after
//! the check that allowed it), `end WHO TOKEN AT CAUSE` or `open WHO AT`. Times are nanoseconds of
//! CLOCK_BOOTTIME, which all processes of a machine share. The order of the lines is the order of
//! the effects, as the kernel appended them. A line of `guarded` is `WHO TOKEN`, written behind a
//! high-water guard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many of the newest events a failure shows.
const SHOWN: usize = 40;

/// One uninterrupted time of one holder.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub who: u64,
    /// When its holder had heard of the grant; the store granted it before.
    pub granted: u64,
    /// The first and last time at which a check that passed had not begun yet.
    pub first: u64,
    pub last: u64,
    pub acts: usize,
    pub ended: bool,
}

/// What has been read so far.
pub(crate) struct Observer {
    acts: Tail,
    guarded: Tail,
    terms: BTreeMap<u64, Term>,
    opened: BTreeSet<u64>,
    newest_effect: u64,
    newest_guarded: u64,
    /// Effects that came after one of a newer token: of a pause between check and effect.
    pub late_effects: usize,
    /// How many of them a guard let through, and how many acts it let through at all.
    pub late_guarded: usize,
    pub guarded_acts: usize,
    /// Why holders lost what they held, and how often.
    pub losses: BTreeMap<String, usize>,
    events: Vec<(u64, String)>,
    violations: Vec<String>,
}

impl Observer {
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            acts: Tail::of(folder.join("acts")),
            guarded: Tail::of(folder.join("guarded")),
            terms: BTreeMap::new(),
            opened: BTreeSet::new(),
            newest_effect: 0,
            newest_guarded: 0,
            late_effects: 0,
            late_guarded: 0,
            guarded_acts: 0,
            losses: BTreeMap::new(),
            events: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Reads what has been appended.
    pub(crate) fn look(&mut self) {
        for line in self.acts.lines() {
            self.take(&line);
        }
        for line in self.guarded.lines() {
            let token = line.split(' ').nth(1).and_then(|token| token.parse().ok());
            let token: u64 = token.expect("a guarded line has a token");
            self.late_guarded += usize::from(token < self.newest_guarded);
            self.newest_guarded = token.max(self.newest_guarded);
            self.guarded_acts += 1;
        }
    }

    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a whole line was read");
        match words[0] {
            "open" => {
                self.opened.insert(number(1));
            }
            "grant" => self.granted(number(1), number(2), number(3)),
            "act" => self.acted(number(1), number(2), number(3)),
            "end" => self.ended(number(1), number(2), number(3), &words[4..].join(" ")),
            other => panic!("`{other}` begins no line of a contender"),
        }
    }

    fn granted(&mut self, who: u64, token: u64, at: u64) {
        self.note(at, format!("c{who} was granted token {token}"));
        let term = Term { who, granted: at, first: 0, last: 0, acts: 0, ended: false };
        if let Some(before) = self.terms.insert(token, term) {
            self.violations.push(format!("token {token} went to c{} and to c{who}", before.who));
        }
    }

    fn ended(&mut self, who: u64, token: u64, at: u64, why: &str) {
        self.note(at, format!("c{who} ended (token {token}): {why}"));
        if let Some(cause) = why.strip_prefix("lost: ") {
            *self.losses.entry(cause.to_owned()).or_default() += 1;
        }
        if let Some(term) = self.terms.get_mut(&token) {
            term.ended = true;
        }
    }

    fn acted(&mut self, who: u64, token: u64, before: u64) {
        let Some(term) = self.terms.get_mut(&token).filter(|term| term.who == who) else {
            self.violations.push(format!("c{who} acted under token {token}, which wasn't its own"));
            return;
        };
        if term.acts == 0 {
            term.first = before;
        }
        term.last = before.max(term.last);
        term.acts += 1;
        self.late_effects += usize::from(token < self.newest_effect);
        self.newest_effect = token.max(self.newest_effect);
    }

    /// Remembers something for the timeline that a failure shows.
    pub(crate) fn note(&mut self, at: u64, what: String) {
        self.events.push((at, what));
    }

    /// The terms that somebody acted in, by token.
    pub(crate) fn terms(&self) -> impl Iterator<Item = (u64, &Term)> {
        self.terms.iter().filter(|(_, term)| term.acts > 0).map(|(token, term)| (*token, term))
    }

    pub(crate) fn term(&self, token: u64) -> Option<&Term> {
        self.terms.get(&token)
    }

    /// The term with the newest token, unless it is known to have ended.
    pub(crate) fn holder(&self) -> Option<(u64, &Term)> {
        self.terms().last().filter(|(_, term)| !term.ended)
    }

    /// Whether somebody has acted under a newer token.
    pub(crate) fn has_newer(&self, token: u64) -> bool {
        self.terms().any(|(newer, _)| newer > token)
    }

    /// Whether a contender has opened a session.
    pub(crate) fn has_opened(&self, who: u64) -> bool {
        self.opened.contains(&who)
    }

    /// Forgets that a contender had: it is about to open another.
    pub(crate) fn opens_again(&mut self, who: u64) {
        self.opened.remove(&who);
    }

    /// Whether somebody acted by a check that began after `at`.
    pub(crate) fn acted_after(&self, at: u64) -> bool {
        self.terms().any(|(_, term)| term.last > at)
    }

    /// Nobody may have acted under `token` by a check that began after `limit`.
    pub(crate) fn must_have_stopped(&mut self, token: u64, limit: u64, why: &str) {
        let late = self.terms.get(&token).filter(|term| term.last > limit);
        if let Some(term) = late {
            let by = Duration::from_nanos(term.last - limit);
            self.violations.push(format!("token {token} acted {by:?} too long: {why}"));
        }
    }

    /// What must never be, of all that was read: a token that went to two, and a check that passed
    /// although a newer token was granted already. The latter is an overlap, or tokens that went
    /// back: in both cases a token acted after a newer one had been handed out.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = self.violations.clone();
        let terms: Vec<_> = self.terms().collect();
        // The newest grants first: the earliest grant of all that are newer.
        let mut soonest: Option<(u64, u64)> = None;
        for (token, term) in terms.into_iter().rev() {
            if let Some((newer, granted)) = soonest
                && term.last >= granted
            {
                let kind = if term.granted >= granted { "tokens went back" } else { "overlap" };
                let by = Duration::from_nanos(term.last - granted);
                found.push(format!(
                    "{kind}: token {token} of c{} passed a check {by:?} after token {newer} was granted",
                    term.who
                ));
            }
            if soonest.is_none_or(|(_, granted)| term.granted < granted) {
                soonest = Some((token, term.granted));
            }
        }
        if self.late_guarded > 0 {
            found.push(format!("a guard let {} late effects through", self.late_guarded));
        }
        found
    }

    /// The least time between the last check that passed under a token and the next grant.
    pub(crate) fn closest(&self) -> Option<Duration> {
        let terms: Vec<_> = self.terms().map(|(_, term)| term).collect();
        let gaps = terms.windows(2).map(|pair| pair[1].granted.saturating_sub(pair[0].last));
        gaps.min().map(Duration::from_nanos)
    }

    /// The newest events in the order of their times, with who acted until when.
    pub(crate) fn timeline(&self) -> String {
        self.newest_events(SHOWN)
    }

    /// As many of the newest events.
    pub(crate) fn newest_events(&self, count: usize) -> String {
        let mut events = self.events.clone();
        for (token, term) in self.terms() {
            events.push((term.first, format!("c{} acts first (token {token})", term.who)));
            events.push((
                term.last,
                format!("c{} acts last (token {token}, {} acts)", term.who, term.acts),
            ));
        }
        events.sort();
        let from = events.len().saturating_sub(count);
        let origin = events.get(from).map_or(0, |(at, _)| *at);
        let mut text = String::new();
        for (at, what) in &events[from..] {
            let seconds = Duration::from_nanos(at - origin).as_secs_f64();
            let _ = writeln!(text, "{seconds:>9.4} s  {what}");
        }
        text
    }
}

/// A file that grows, read line by line.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end hasn't been read yet.
    rest: String,
}

impl Tail {
    fn of(path: PathBuf) -> Self {
        Self { path, file: None, rest: String::new() }
    }

    fn lines(&mut self) -> Vec<String> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            file.read_to_string(&mut self.rest).expect("what contenders write is text");
        }
        let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(whole);
        std::mem::replace(&mut self.rest, rest).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(lines: &str) -> Observer {
        let mut observer = Observer::of(Path::new("/nowhere"));
        lines.lines().for_each(|line| observer.take(line.trim()));
        observer
    }

    #[test]
    fn terms_that_follow_each_other_are_no_overlap() {
        let observer = observed(
            "grant 1 1 10
             act 1 1 11 12
             act 1 1 19 20
             end 1 1 21 expired
             grant 2 2 20
             act 2 2 21 22",
        );
        assert_eq!(observer.violations(), Vec::<String>::new());
        assert_eq!(observer.closest(), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn a_check_that_passes_after_the_next_grant_is_an_overlap() {
        let observer = observed(
            "grant 1 1 10
             act 1 1 11 12
             grant 2 2 20
             act 2 2 21 22
             grant 3 3 30
             act 3 3 31 32
             act 1 1 20 21",
        );
        let [found] = observer.violations().try_into().unwrap();
        assert!(found.contains("overlap: token 1 of c1"), "{found}");
        assert_eq!(observer.late_effects, 1);
    }

    #[test]
    fn an_effect_that_is_late_after_a_check_in_time_is_none() {
        let observer = observed(
            "grant 1 1 10
             grant 2 2 20
             act 2 2 21 22
             act 1 1 19 23",
        );
        assert_eq!(observer.violations(), Vec::<String>::new());
        assert_eq!(observer.late_effects, 1);
    }

    #[test]
    fn tokens_that_go_back_or_come_twice_are_found() {
        let back = observed(
            "grant 1 5 10
             act 1 5 11 12
             grant 2 4 20
             act 2 4 21 22",
        );
        assert!(back.violations()[0].contains("tokens went back"), "{:?}", back.violations());
        let twice = observed(
            "grant 1 5 10
             act 1 5 11 12
             grant 2 5 20",
        );
        assert!(twice.violations()[0].contains("to c1 and to c2"), "{:?}", twice.violations());
    }
}
