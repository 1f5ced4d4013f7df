//! What the threads of one session share, and which store they believe in.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenure_core::clock::Clock;
use tenure_core::hint::HintBoard;
use tenure_core::identity::{Namespace, StoreId};
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::SqliteConfig;
use crate::place::{FileId, Place};

/// What the threads of one session share.
pub(crate) struct Shared {
    /// As the user named it, made absolute: this is where the file must lie.
    pub(crate) path: PathBuf,
    pub(crate) namespace: Namespace,
    pub(crate) cluster: Option<String>,
    pub(crate) busy: Duration,
    pub(crate) location: Arc<str>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) clock_identity: String,
    pub(crate) board: HintBoard,
    /// The transitions that this session's listeners have heard of.
    pub(crate) heard: AtomicI64,
    pub(crate) closed: AtomicBool,
    place: Mutex<Place>,
    opened: Mutex<Option<Opened>>,
}

/// The store that this session believes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) store: StoreId,
    pub(crate) file: FileId,
}

impl Shared {
    pub(crate) fn new(
        config: SqliteConfig,
        path: PathBuf,
        place: Place,
        location: Arc<str>,
        clock: Arc<dyn Clock>,
        clock_identity: String,
    ) -> Self {
        Self {
            path,
            namespace: config.namespace,
            cluster: config.cluster,
            busy: config.busy,
            location,
            clock,
            clock_identity,
            board: HintBoard::default(),
            heard: AtomicI64::new(0),
            closed: AtomicBool::new(false),
            place: Mutex::new(place),
            opened: Mutex::new(None),
        }
    }

    /// The file lies elsewhere now.
    pub(crate) fn moved_to(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Where the file lies.
    pub(crate) fn place(&self) -> Place {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The id of the store that this session believes in.
    pub(crate) fn store(&self) -> Option<StoreId> {
        self.opened().map(|opened| opened.store)
    }

    fn opened(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the listeners, unless they have heard of this transition already.
    pub(crate) fn transitions_are(&self, transitions: i64) {
        if self.heard.swap(transitions, Ordering::SeqCst) != transitions {
            self.board.changed();
        }
    }

    /// Believes in this store from now on.
    ///
    /// # Errors
    /// `StoreReset`, if it believed in another before.
    pub(crate) fn believe(
        &self,
        now: Opened,
        vanished: bool,
        operation: Operation,
    ) -> Result<(), Error> {
        let before = self.opened().replace(now);
        let Some(before) = before.filter(|before| *before != now) else { return Ok(()) };
        let path = self.path.display();
        let fact = if vanished {
            format!("the file `{path}` was deleted, and a new one was created")
        } else if before.file != now.file {
            format!("another file was put in the place of `{path}`")
        } else {
            format!("the store's id changed from {} to {}", before.store, now.store)
        };
        // Whoever waits for something in the old one should look.
        self.board.changed();
        let message = format!("{fact}: what was held is lost; claim it anew");
        Err(Error::new(ErrorKind::StoreReset, operation, message))
    }
}
