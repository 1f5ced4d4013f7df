//! What was measured: durations, their percentiles, and rows that set ours beside something else.

use std::time::{Duration, Instant};

/// The durations of one side.
#[derive(Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Times one turn.
    pub(crate) async fn time<T>(&mut self, turn: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = turn.await;
        self.add(started.elapsed());
        done
    }

    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// The duration that so many percent don't exceed.
    pub(crate) fn at(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }

    fn mean(&self) -> Duration {
        self.0.iter().sum::<Duration>() / u32::try_from(self.0.len().max(1)).unwrap_or(u32::MAX)
    }
}

/// Calls of one kind by a number of tasks: each call's duration, and that of each round, in which
/// every task calls once.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    pub(crate) each: Samples,
    pub(crate) rounds: Samples,
}

/// One row of the report.
pub(crate) struct Row {
    pub(crate) store: String,
    pub(crate) what: String,
    pub(crate) tasks: usize,
    /// How often ours is as fast as what it is set beside, by medians; by means of whole rounds.
    pub(crate) ratio: f64,
}

/// All rows so far. Each is printed as it comes.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn heading(&self, store: &str, beside: &str) {
        println!("\n{store}, beside {beside}");
        println!(
            "  {:<34} {:>5} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6} {:>6}",
            "", "tasks", "rate", "p50", "p99", "theirs", "p50", "p99", "p50", "rate"
        );
    }

    /// Sets `ours` beside `theirs`, made by as many tasks in the same run.
    pub(crate) fn beside(
        &mut self,
        store: &str,
        what: &str,
        tasks: usize,
        ours: &Calls,
        theirs: &Calls,
    ) {
        let (at, raw) = (ours.each.at(50).as_secs_f64(), theirs.each.at(50).as_secs_f64());
        let rates = rate(tasks, ours) / rate(tasks, theirs).max(f64::EPSILON);
        println!(
            "  {what:<34} {tasks:>5} {:>8.0}/s {:>10} {:>10} {:>8.0}/s {:>10} {:>10} {:>6.2} {rates:>6.2}",
            rate(tasks, ours),
            shown(ours.each.at(50)),
            shown(ours.each.at(99)),
            rate(tasks, theirs),
            shown(theirs.each.at(50)),
            shown(theirs.each.at(99)),
            raw / at.max(1e-12),
        );
        let ratio = raw / at.max(1e-12);
        self.rows.push(Row { store: store.to_owned(), what: what.to_owned(), tasks, ratio });
    }

    /// What has nothing beside it.
    pub(crate) fn alone(&self, what: &str, samples: &Samples) {
        println!("  {what:<40} {:>10} {:>10}", shown(samples.at(50)), shown(samples.at(99)));
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

fn rate(tasks: usize, calls: &Calls) -> f64 {
    tasks as f64 / calls.rounds.mean().as_secs_f64().max(1e-12)
}

fn shown(took: Duration) -> String {
    format!("{took:.1?}")
}
