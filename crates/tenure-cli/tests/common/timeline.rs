//! Who acted when, as an outside observer finds it in one file that all append to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// First and last act of each token, and how many there were.
pub struct Timeline {
    terms: BTreeMap<u64, (u64, u64, usize)>,
}

impl Timeline {
    /// Reads lines of a token and a time.
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut terms: BTreeMap<u64, (u64, u64, usize)> = BTreeMap::new();
        for line in text.lines() {
            let mut numbers = line.split(' ').map_while(|number| number.parse().ok());
            let (Some(token), Some(at)) = (numbers.next(), numbers.next()) else { continue };
            let (first, last, acts) = terms.entry(token).or_insert((at, at, 0));
            *first = at.min(*first);
            *last = at.max(*last);
            *acts += 1;
        }
        Self { terms }
    }

    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    pub fn acts(&self, token: u64) -> usize {
        self.terms.get(&token).map_or(0, |(_, _, acts)| *acts)
    }

    /// When that token was acted under last.
    pub fn last(&self, token: u64) -> std::time::Duration {
        std::time::Duration::from_nanos(self.terms.get(&token).map_or(0, |(_, last, _)| *last))
    }

    /// How many terms began before the one before had acted last.
    pub fn overlaps(&self) -> usize {
        self.overlaps_but_of(&[])
    }

    /// The same without those of `paused` terms, whose last acts are looked at one by one.
    pub fn overlaps_but_of(&self, paused: &[u64]) -> usize {
        let spans: Vec<_> = self.terms.iter().collect();
        let counted = spans.windows(2).filter(|pair| !paused.contains(pair[0].0));
        counted.filter(|pair| pair[1].1.0 <= pair[0].1.1).count()
    }

    /// The longest time that nobody acted between two terms, in nanoseconds.
    pub fn longest_gap(&self) -> u64 {
        let spans: Vec<_> = self.terms.values().collect();
        spans.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].1)).max().unwrap_or(0)
    }
}
