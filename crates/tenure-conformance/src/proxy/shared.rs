//! What the two streams of one connection know of each other, and how they end it.

use std::cell::Cell;

use super::count::Counter;
use super::fault::Stream;

/// How a whole connection ends before both of its streams have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// In order.
    Close,
    /// With `RST`.
    Reset,
}

/// What both streams of a connection know.
pub(super) struct Shared {
    pub counter: Counter,
    /// Whether bytes were swallowed: then no others may follow.
    pub lost: Cell<bool>,
    /// Whether a side can't be written to any more: then the other learns of it by a reset.
    pub broken: Cell<bool>,
    last_spoke: Cell<Option<Stream>>,
}

impl Shared {
    /// Nothing has passed yet.
    pub(super) fn new(counter: Counter) -> Self {
        let (lost, broken) = (Cell::new(false), Cell::new(false));
        Self { counter, lost, broken, last_spoke: Cell::new(None) }
    }

    /// Counts bytes that arrived; true if they begin a run.
    pub(super) fn arrived(&self, stream: Stream, bytes: usize) -> bool {
        let begins = self.last_spoke.replace(Some(stream)) != Some(stream);
        self.counter.arrived(stream, bytes, begins);
        begins
    }
}
