//! Paired timings: two ways of one thing, turn by turn, so that noise hits both.

use std::time::{Duration, Instant};

/// The durations of one side.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Times one turn.
    pub(crate) async fn time<T>(&mut self, turn: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = turn.await;
        self.0.push(started.elapsed());
        done
    }

    fn at(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    }

    /// The median.
    pub(crate) fn median(&self) -> Duration {
        self.at(50)
    }

    fn rate(&self) -> f64 {
        let total: Duration = self.0.iter().sum();
        self.0.len() as f64 / total.as_secs_f64().max(f64::EPSILON)
    }
}

/// One row of the report.
pub(crate) fn row(what: &str, samples: &Samples, beside: Option<&Samples>) {
    let ratio = beside.map_or_else(String::new, |raw| {
        let ratio = raw.median().as_secs_f64() / samples.median().as_secs_f64().max(1e-12);
        format!("{ratio:8.2}")
    });
    println!(
        "{what:<44} {:>10.0}/s {:>11} {:>11} {ratio}",
        samples.rate(),
        format!("{:.1?}", samples.at(50)),
        format!("{:.1?}", samples.at(99)),
    );
}
