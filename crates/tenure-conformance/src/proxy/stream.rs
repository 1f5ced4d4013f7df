//! One stream of a connection: bytes from one side to the other, as the fault wants it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use tokio::io::AsyncWrite;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::HELD_MAX;
use super::fault::{Fault, Flow, Stream, Then};
use super::shared::{End, Shared};

/// How many bytes are read at once.
pub(super) const CHUNK: usize = 64 * 1024;

/// Carries one stream.
pub(super) struct Pump<'a> {
    stream: Stream,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    changes: watch::Receiver<Fault>,
    shared: &'a Shared,
    fault: Fault,
    /// What has arrived and not left yet, with when it arrived.
    queue: VecDeque<(Instant, Item)>,
    queued: usize,
    /// Whether nothing more can arrive.
    ended: bool,
    /// Answers that have begun since the fault was set.
    answers: u64,
    chunk: Vec<u8>,
}

enum Item {
    /// Bytes, and how many of them have left.
    Bytes(Vec<u8>, usize),
    /// The stream's end.
    End(End),
}

/// What a step means for the pump.
enum Step {
    GoOn,
    /// This stream is over.
    StreamOver,
    /// The connection is over.
    ConnectionOver(End),
}

impl<'a> Pump<'a> {
    pub(super) fn new(
        stream: Stream,
        from: ReadHalf<'a>,
        to: WriteHalf<'a>,
        mut changes: watch::Receiver<Fault>,
        shared: &'a Shared,
    ) -> Self {
        let fault = *changes.borrow_and_update();
        Self {
            stream,
            from,
            to,
            changes,
            shared,
            fault,
            queue: VecDeque::new(),
            queued: 0,
            ended: false,
            answers: 0,
            chunk: vec![0; CHUNK],
        }
    }

    pub(super) fn shared(&self) -> &'a Shared {
        self.shared
    }

    /// Carries bytes until the stream ends (None), or says how the connection ends.
    pub(super) async fn run(mut self) -> Option<End> {
        loop {
            let step = self.step().await;
            match step {
                Step::GoOn => {}
                Step::StreamOver => return None,
                Step::ConnectionOver(end) => return Some(end),
            }
        }
    }

    async fn step(&mut self) -> Step {
        let flow = self.fault.flow(self.stream);
        let reads = flow != Flow::Stand && !self.ended && self.queued < HELD_MAX;
        let due = match (flow, self.queue.front()) {
            (Flow::Deliver(delay), Some((arrived, _))) => Some(*arrived + delay),
            _ => None,
        };
        let is_due = due.is_some_and(|due| due <= Instant::now());
        tokio::select! {
            // A change comes before everything, so that nothing meets a fault of before.
            biased;
            changed = self.changes.changed() => match changed {
                Ok(()) => self.changed(),
                // The proxy is being dropped.
                Err(_) => Step::ConnectionOver(End::Reset),
            },
            writable = self.to.writable(), if is_due => match writable {
                Ok(()) => self.write().await,
                Err(_) => self.broken(),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !is_due => {
                Step::GoOn
            }
            // An error is told again by the read.
            _ = self.from.readable(), if reads => self.read(flow),
        }
    }

    fn changed(&mut self) -> Step {
        self.fault = *self.changes.borrow_and_update();
        self.answers = 0;
        if self.fault == Fault::Reset || self.shared.lost.get() {
            return Step::ConnectionOver(End::Reset);
        }
        Step::GoOn
    }

    fn read(&mut self, flow: Flow) -> Step {
        let item = match self.from.try_read(&mut self.chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::GoOn,
            Err(_) => Item::End(End::Reset),
            Ok(0) => Item::End(End::Close),
            Ok(count) => {
                let begins = self.shared.arrived(self.stream, count);
                self.answers += u64::from(begins || self.answers == 0);
                Item::Bytes(self.chunk[..count].to_vec(), 0)
            }
        };
        self.ended |= matches!(item, Item::End(_));
        if flow == Flow::Swallow {
            return self.swallow(item, Then::Silence);
        }
        if let Fault::DropAnswers { pass, then } = self.fault
            && self.stream == Stream::Answers
            && (self.shared.lost.get() || self.answers > u64::from(pass))
        {
            return self.swallow(item, then);
        }
        if let Item::Bytes(bytes, _) = &item {
            self.queued += bytes.len();
        }
        self.queue.push_back((Instant::now(), item));
        Step::GoOn
    }

    fn swallow(&mut self, item: Item, then: Then) -> Step {
        self.shared.lost.set(true);
        match (item, then) {
            (Item::End(_), _) => Step::StreamOver,
            (Item::Bytes(..), Then::Silence) => Step::GoOn,
            (Item::Bytes(..), Then::Close) => Step::ConnectionOver(End::Close),
            (Item::Bytes(..), Then::Reset) => Step::ConnectionOver(End::Reset),
        }
    }

    async fn write(&mut self) -> Step {
        match self.queue.front_mut() {
            None => Step::GoOn,
            Some((_, Item::End(End::Reset))) => Step::ConnectionOver(End::Reset),
            Some((_, Item::End(End::Close))) => {
                close(&mut self.to).await;
                Step::StreamOver
            }
            Some((_, Item::Bytes(bytes, left))) => match self.to.try_write(&bytes[*left..]) {
                Ok(count) => {
                    *left += count;
                    self.queued -= count;
                    if *left == bytes.len() {
                        self.queue.pop_front();
                    }
                    Step::GoOn
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::GoOn,
                Err(_) => self.broken(),
            },
        }
    }

    /// The side that reads is gone. The other stream goes on to its own end, so that a request
    /// that is held reaches the server although its client has left.
    fn broken(&mut self) -> Step {
        self.shared.broken.set(true);
        Step::StreamOver
    }
}

/// Closes for writing.
pub(super) async fn close(side: &mut (impl AsyncWrite + Unpin)) {
    // It fails if the other side has closed first.
    let _ = poll_fn(|context| Pin::new(&mut *side).poll_shutdown(context)).await;
}
