//! What a fault does to a connection, and what that means for bytes of one direction.

use std::time::Duration;

/// How a [`FaultProxy`](super::FaultProxy) treats connections.
///
/// **Invariant:** no stream ever has a gap. A connection of which bytes were swallowed carries no
/// other byte: at the next change of its fault it is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// All bytes pass, at once.
    #[default]
    Pass,
    /// Each byte leaves the proxy no sooner than this after it arrived, in order. Throughput is
    /// not limited: a thousand bytes that arrive together leave together. The end of a stream is
    /// delayed likewise; accepting a connection is not.
    Delay {
        /// For bytes from the client.
        requests: Duration,
        /// For bytes from the server.
        answers: Duration,
    },
    /// Bytes of this direction are kept, up to [`HELD_MAX`](super::HELD_MAX) of a connection, and
    /// delivered in order when the fault changes. The ends of streams are kept likewise: a client
    /// that gave up and closed has its request delivered to the server all the same, late.
    Hold(Direction),
    /// Requests reach the server and are carried out; its answers are lost from one of them on.
    DropAnswers {
        /// How many answers of each connection pass first, counted from when the fault was set.
        /// An answer is a run of bytes from the server: see [`Count`](super::Count). The rest of
        /// one that was already passing then counts as the first.
        pass: u32,
        /// What the client sees in place of the first lost answer. It happens when that answer
        /// has arrived at the proxy, so the server has done its work by then.
        then: Then,
    },
    /// Existing connections are reset on both sides (`ECONNRESET`), and bytes on their way are
    /// lost; new ones are accepted and then reset.
    Reset,
    /// Nothing is read, written or closed, on either side; new connections are accepted. What is
    /// sent piles up in the kernel's buffers, so that the sender first notices nothing and then
    /// finds that it can't write. When the fault changes, all goes on.
    HalfOpen,
    /// All bytes, and the ends of streams, are read and swallowed, in both directions; new
    /// connections are accepted, and the server isn't told of them.
    BlackHole,
    /// New connections are refused (`ECONNREFUSED`); existing ones pass as with
    /// [`Pass`](Self::Pass). The port stays the proxy's own.
    Refuse,
}

impl Fault {
    /// Loses every answer from now on, and stays silent: the work is done, and nobody knows.
    pub const fn drop_answers() -> Self {
        Self::DropAnswers { pass: 0, then: Then::Silence }
    }
}

/// Whose bytes a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those from the client to the server.
    Requests,
    /// Those from the server to the client.
    Answers,
    /// All.
    Both,
}

/// What follows a lost answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Then {
    /// Nothing: later answers, and the server's closing, are lost too; requests still reach it.
    Silence,
    /// Both sides are closed in order.
    Close,
    /// Both sides are reset.
    Reset,
}

/// One of the two streams of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Requests,
    Answers,
}

/// What a fault means for one stream, as long as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// Read, and written so long after it arrived.
    Deliver(Duration),
    /// Read, and not written.
    Keep,
    /// Read, and forgotten.
    Swallow,
    /// Not even read.
    Stand,
}

impl Fault {
    /// What becomes of a stream. Of answers that are to be dropped, the first so many still
    /// pass; the connection counts them.
    pub(super) fn flow(self, stream: Stream) -> Flow {
        match self {
            Self::Pass | Self::DropAnswers { .. } | Self::Refuse => Flow::Deliver(Duration::ZERO),
            Self::Delay { requests, .. } if stream == Stream::Requests => Flow::Deliver(requests),
            Self::Delay { answers, .. } => Flow::Deliver(answers),
            Self::Hold(Direction::Both) => Flow::Keep,
            Self::Hold(Direction::Requests) if stream == Stream::Requests => Flow::Keep,
            Self::Hold(Direction::Answers) if stream == Stream::Answers => Flow::Keep,
            Self::Hold(_) => Flow::Deliver(Duration::ZERO),
            Self::HalfOpen | Self::Reset => Flow::Stand,
            Self::BlackHole => Flow::Swallow,
        }
    }
}
