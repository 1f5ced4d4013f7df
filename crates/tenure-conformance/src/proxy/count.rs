//! What was seen at the wire.

use std::ops::Sub;

use tokio::sync::watch;

use super::fault::Stream;

/// What a [`FaultProxy`](super::FaultProxy) has seen, since it started or, as a difference of two
/// counts, between them. Bytes count when they arrive at the proxy, whatever becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Connections accepted.
    pub connections: u64,
    /// What came from clients.
    pub requests: Traffic,
    /// What came from the server.
    pub answers: Traffic,
}

/// What came from one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Runs of bytes of one connection that no byte of the other side interrupted: a request, or
    /// several sent without awaiting an answer, and an answer, however many packets they took.
    pub runs: u64,
}

impl Count {
    /// Turns: how often bytes from a client came after bytes from the server, or first of all.
    ///
    /// For a protocol of requests and answers each turn is one round trip, so an operation that
    /// took one turn took exactly one. Where a client also sends what no answer calls for, as
    /// HTTP/2 does (acknowledgements, window updates, pings), turns are at least the round trips.
    /// A server that answers before a long request is complete makes a turn more.
    pub const fn turns(&self) -> u64 {
        self.requests.runs
    }
}

impl Sub for Count {
    type Output = Self;

    /// What was seen since `earlier`, a count of the same proxy.
    fn sub(self, earlier: Self) -> Self {
        Self {
            connections: self.connections - earlier.connections,
            requests: self.requests - earlier.requests,
            answers: self.answers - earlier.answers,
        }
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { bytes: self.bytes - earlier.bytes, runs: self.runs - earlier.runs }
    }
}

/// Counts for all connections of a proxy.
#[derive(Clone)]
pub(super) struct Counter(watch::Sender<Count>);

impl Counter {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Count::default()))
    }

    pub(super) fn now(&self) -> Count {
        *self.0.borrow()
    }

    pub(super) fn follow(&self) -> watch::Receiver<Count> {
        self.0.subscribe()
    }

    pub(super) fn connection(&self) {
        self.0.send_modify(|count| count.connections += 1);
    }

    /// Bytes of a stream arrived; `begins` says that the other side was the last to speak.
    pub(super) fn arrived(&self, stream: Stream, bytes: usize, begins: bool) {
        self.0.send_modify(|count| {
            let traffic = match stream {
                Stream::Requests => &mut count.requests,
                Stream::Answers => &mut count.answers,
            };
            traffic.bytes += bytes as u64;
            traffic.runs += u64::from(begins);
        });
    }
}
