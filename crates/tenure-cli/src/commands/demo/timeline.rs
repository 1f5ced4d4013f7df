//! What the demo's workers did, from the lines that they wrote themselves: nothing is claimed.

use std::time::Duration;

/// One line of a worker: it acted, then, as this instance, under this token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Act {
    /// CLOCK_BOOTTIME, in nanoseconds: one clock for all workers.
    pub(super) at: u64,
    pub(super) instance: String,
    pub(super) token: u64,
}

/// The time from a term's first act to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) instance: String,
    pub(super) token: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) acts: u64,
}

/// Reads what the workers wrote. A line that was cut short by a kill is left out.
pub(super) fn acts(text: &str) -> Vec<Act> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let at = words.next()?.parse().ok()?;
            let token = words.next()?.parse().ok()?;
            let instance = words.next()?.to_owned();
            (words.next() == Some(".")).then_some(Act { at, instance, token })
        })
        .collect()
}

/// The terms, in the order of their first acts.
pub(super) fn terms(acts: &[Act]) -> Vec<Term> {
    let mut terms: Vec<Term> = Vec::new();
    for act in acts {
        match terms.iter_mut().find(|term| term.token == act.token) {
            Some(term) => {
                term.first = term.first.min(act.at);
                term.last = term.last.max(act.at);
                term.acts += 1;
            }
            None => terms.push(Term {
                instance: act.instance.clone(),
                token: act.token,
                first: act.at,
                last: act.at,
                acts: 1,
            }),
        }
    }
    terms.sort_by_key(|term| term.first);
    terms
}

/// How long two terms were under way at once, over all pairs.
pub(super) fn overlap(terms: &[Term]) -> Duration {
    let mut nanos = 0;
    for (index, one) in terms.iter().enumerate() {
        for other in &terms[index + 1..] {
            nanos += one.last.min(other.last).saturating_sub(one.first.max(other.first));
        }
    }
    Duration::from_nanos(nanos)
}

/// How long nobody acted between a term and the next.
pub(super) fn leaderless(before: &Term, after: &Term) -> Duration {
    Duration::from_nanos(after.first.saturating_sub(before.last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(token: u64, first: u64, last: u64) -> Term {
        Term { instance: "a".to_owned(), token, first, last, acts: 2 }
    }

    #[test]
    fn lines_that_were_cut_short_are_left_out() {
        let acts = acts("10 1 a .\n20 1 a .\n30 2 b .\n40 2 ");
        assert_eq!(acts.len(), 3);
        let terms = terms(&acts);
        assert_eq!(terms.len(), 2);
        assert_eq!((terms[0].first, terms[0].last, terms[0].acts), (10, 20, 2));
    }

    #[test]
    fn overlap_is_found_where_there_is_one() {
        let apart = [term(1, 0, 10), term(2, 11, 20), term(3, 25, 30)];
        assert_eq!(overlap(&apart), Duration::ZERO);
        assert_eq!(leaderless(&apart[1], &apart[2]), Duration::from_nanos(5));
        let together = [term(1, 0, 10), term(2, 7, 20), term(3, 18, 19)];
        assert_eq!(overlap(&together), Duration::from_nanos(4));
    }
}
