//! Hints through etcd's watch, begun again where it broke off.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tenure_core::hint::{HintBoard, Listener};
use tenure_core::store::{Answer, HintSource, Prefix};
use tenure_core::{Error, Operation};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Streaming;

use crate::errors::closed;
use crate::link::Link;
use crate::wire::{WatchCreateRequest, WatchRequest, WatchResponse, path};

/// Between two tries to watch again.
const RETRY: Duration = Duration::from_secs(1);

/// Hints for one who waits.
pub(crate) struct Source {
    listener: Listener,
    closed: watch::Receiver<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A watch under way, and the first revision that it hasn't told yet.
struct Watching {
    answers: Streaming<WatchResponse>,
    next: i64,
}

impl Source {
    /// Hints for names under a prefix, from now on; and for what a neighbour has there.
    pub(crate) async fn begin(
        link: Arc<Link>,
        prefix: &Prefix,
        closed: watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        // What this session has seen isn't told again, and what came after it isn't missed.
        let next = link.highest() + 1;
        let board = Arc::new(HintBoard::default());
        let listener = board.listen();
        let mut source = Self { listener, closed, tasks: Vec::new() };
        let theirs = link.keys.entries_under(prefix);
        for range in [link.keys.under(prefix)].into_iter().chain(theirs) {
            let watching = Watching::begin(&link, &range, next).await?;
            let listening = listen(Arc::clone(&link), range, watching, Arc::clone(&board));
            source.tasks.push(tokio::spawn(listening));
        }
        Ok(source)
    }
}

/// Listens for ever, whatever becomes of connections.
async fn listen(
    link: Arc<Link>,
    range: Range<Vec<u8>>,
    mut watching: Watching,
    board: Arc<HintBoard>,
) {
    loop {
        watching.pass_on(&board).await;
        // Whoever waits shall not sleep on while nothing can be heard.
        board.changed();
        watching = loop {
            // Lower where the store was reset: its revisions have begun anew.
            let next = watching.next.min(link.highest() + 1);
            match Watching::begin(&link, &range, next).await {
                Ok(anew) => break anew,
                Err(error) => tracing::debug!(%error, "hints are away; polls go on"),
            }
            tokio::time::sleep(RETRY).await;
        };
    }
}

impl Watching {
    async fn begin(
        link: &Link,
        range: &Range<Vec<u8>>,
        start_revision: i64,
    ) -> Result<Self, Error> {
        let create = WatchCreateRequest {
            key: range.start.clone(),
            range_end: range.end.clone(),
            start_revision,
            progress_notify: true,
        };
        let question = WatchRequest { create: Some(create) };
        let begun = link.client.listen(path::WATCH, &question, Operation::Watch).await;
        let (answers, first): (_, WatchResponse) = begun.map_err(Error::from)?;
        if first.canceled {
            let message = format!("the server doesn't let us watch: {}", first.cancel_reason);
            let kind = if first.cancel_reason.contains("permission denied") {
                tenure_core::ErrorKind::Denied
            } else {
                tenure_core::ErrorKind::Unavailable
            };
            return Err(Error::new(kind, Operation::Watch, message));
        }
        Ok(Self { answers, next: start_revision })
    }

    /// Passes on what changes, until the watch breaks off.
    async fn pass_on(&mut self, board: &HintBoard) {
        while let Ok(Some(answer)) = self.answers.message().await {
            if answer.canceled {
                // What was compacted away is lost; the hint that follows makes up for it.
                self.next = self.next.max(answer.compact_revision);
                return;
            }
            if let Some(header) = answer.header {
                self.next = self.next.max(header.revision + 1);
            }
            if !answer.events.is_empty() {
                board.changed();
            }
        }
    }
}

impl HintSource for Source {
    fn next(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            tokio::select! {
                biased;
                _ = self.closed.wait_for(|closed| *closed) => Err(closed(Operation::Watch)),
                () = self.listener.changed() => Ok(()),
            }
        })
    }
}
