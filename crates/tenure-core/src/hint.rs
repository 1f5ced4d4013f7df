//! A board that tells its listeners of changes, for stores that push from within this process.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::store::{Answer, HintSource};

/// Counts changes and wakes whoever listens.
#[derive(Clone, Debug, Default)]
pub struct HintBoard {
    shared: Arc<Mutex<Board>>,
}

#[derive(Debug, Default)]
struct Board {
    changes: u64,
    listeners: usize,
    wakers: Vec<Waker>,
}

/// One who listens to a [`HintBoard`]; changes since the last look are merged into one.
#[derive(Debug)]
pub struct Listener {
    board: HintBoard,
    seen: u64,
}

impl HintBoard {
    /// Tells all listeners that something may have changed.
    pub fn changed(&self) {
        let wakers = {
            let mut board = self.board();
            board.changes += 1;
            std::mem::take(&mut board.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A new listener, who hears of changes from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        let mut board = self.board();
        board.listeners += 1;
        let seen = board.changes;
        drop(board);
        Listener { board: self.clone(), seen }
    }

    /// Whether anybody listens: a store polls for changes only then.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.board().listeners > 0
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Waits for the next change.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn changed(&mut self) {
        poll_fn(|context| {
            let mut board = self.board.board();
            if board.changes != self.seen {
                self.seen = board.changes;
                return Poll::Ready(());
            }
            if !board.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                board.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.board.board().listeners -= 1;
    }
}

impl HintSource for Listener {
    fn next(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.changed().await;
            Ok(())
        })
    }
}
