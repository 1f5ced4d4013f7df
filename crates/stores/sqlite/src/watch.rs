//! Hints for those who wait: looks for other processes' commits, but only while anybody listens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tenure_core::hint::Listener;
use tenure_core::store::{Answer, HintSource};
use tenure_core::{Error, Operation};

use crate::errors::{Fault, closed};
use crate::link::Link;
use crate::rows::{StoreRow, data_version};
use crate::shared::Shared;
use crate::worker::Job;

/// Between two looks while somebody listens. One costs a few microseconds.
const LOOK: Duration = Duration::from_millis(15);

/// The reading thread's job: to read, and to look for changes.
pub(crate) struct Reader {
    pub(crate) link: Link,
    /// SQLite's count of other connections' commits, as it was last seen. None: nobody listened.
    data_version: Option<i64>,
}

impl Reader {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, data_version: None }
    }

    /// Notes how things stand, so that a listener hears of all that comes after.
    pub(crate) fn begin_listening(&mut self) -> Result<(), Error> {
        if self.data_version.is_none() {
            self.link.connect(Operation::Watch)?;
            // In this order: a commit between the two is found by the next look.
            let version = self.link.current().and_then(|open| data_version(&open.connection));
            let transitions =
                self.link.read(Operation::Watch, |ledger| Ok(ledger.transitions()))?;
            self.link.shared.heard.store(transitions, Ordering::SeqCst);
            self.data_version = version;
        }
        Ok(())
    }

    /// `data_version` moves with every commit of another connection, renewals included; only
    /// then is it worth asking whether a transition was among them.
    fn look(&mut self) {
        let Some(open) = self.link.current() else {
            // Another file, or none: who waits shall read, and be told.
            if self.data_version.take().is_some() {
                self.link.shared.board.changed();
            }
            return;
        };
        let version = data_version(&open.connection);
        if version.is_some() && version == self.data_version {
            return;
        }
        match StoreRow::read(&open.connection) {
            Ok(Some(about)) => {
                self.data_version = version;
                self.link.shared.transitions_are(about.transitions);
            }
            // Somebody has the file to himself just now; the next look finds what this missed.
            Err(Fault::Sqlite(_)) => {}
            Ok(None) | Err(_) => self.link.shared.board.changed(),
        }
    }
}

impl Job for Reader {
    fn idle(&mut self) -> Option<Duration> {
        if !self.link.shared.board.has_listeners() {
            self.data_version = None;
            return None;
        }
        self.look();
        Some(LOOK)
    }
}

/// A listener who hears of the session's end, too.
pub(crate) struct Watching {
    pub(crate) listener: Listener,
    pub(crate) shared: Arc<Shared>,
}

impl HintSource for Watching {
    fn next(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            if !self.shared.closed.load(Ordering::SeqCst) {
                self.listener.changed().await;
            }
            if self.shared.closed.load(Ordering::SeqCst) {
                return Err(closed(Operation::Watch).with_store(self.shared.location.clone()));
            }
            Ok(())
        })
    }
}
