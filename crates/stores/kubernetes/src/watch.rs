//! Hints for those who wait: one watch of a namespace's objects, but only while anybody listens.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::core::WatchEvent;
use tenure_core::hint::{HintBoard, Listener};
use tenure_core::record::Record;
use tenure_core::store::{Answer, HintSource};
use tenure_core::{Error, Operation};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::errors::{Effect, closed, late};
use crate::lease::Lease;
use crate::link::{ANSWER_MAX, Events, Link};

/// How often it is looked whether anybody listens still.
const LOOK: Duration = Duration::from_secs(5);
/// How long the server keeps one watch, in seconds: a connection that died unnoticed ends then at the latest.
const WATCH_SECONDS: u64 = 240;
/// How long one watch is believed in.
const WATCH_MAX: Duration = Duration::from_secs(WATCH_SECONDS + 10);
/// Between two tries to watch again.
const AGAIN: Duration = Duration::from_millis(250);

/// What watches for all of a session's listeners.
#[derive(Default)]
pub(crate) struct Watcher(Mutex<Slot>);

#[derive(Default)]
struct Slot {
    task: Option<Task>,
    closed: bool,
}

struct Task {
    abort: AbortHandle,
    state: watch::Receiver<State>,
    /// Whether it has seen that nobody listens any more. Whoever comes to listen registers first
    /// and then looks here, so that either the task sees him or he sees that it has ended.
    ended: Arc<Mutex<bool>>,
}

/// How far watching has come.
#[derive(Clone)]
enum State {
    Begun,
    Watching,
    Failed(Error),
}

impl Watcher {
    /// A listener who hears of all changes from now on.
    pub(crate) async fn watch(
        &self,
        link: &Arc<Link>,
        path: String,
        board: &HintBoard,
    ) -> Result<Watching, Error> {
        let listener = board.listen();
        let mut state = self.state(link, path, board)?;
        let settled = state.wait_for(|state| !matches!(state, State::Begun));
        let settled = timeout(ANSWER_MAX, settled).await;
        let late = || late(Operation::Watch, Effect::None);
        match settled.map_err(|_| late())?.map_err(|_| late())?.clone() {
            State::Failed(error) => Err(error),
            State::Begun | State::Watching => Ok(Watching { listener, link: Arc::clone(link) }),
        }
    }

    /// How far the task has come that watches; it is begun if there is none.
    fn state(
        &self,
        link: &Arc<Link>,
        path: String,
        board: &HintBoard,
    ) -> Result<watch::Receiver<State>, Error> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.closed {
            return Err(closed(Operation::Watch));
        }
        if let Some(task) = slot.task.as_ref().filter(|task| !task.has_ended()) {
            return Ok(task.state.clone());
        }
        let (tell, state) = watch::channel(State::Begun);
        let ended = Arc::<Mutex<bool>>::default();
        let path = format!("{path}&timeoutSeconds={WATCH_SECONDS}");
        let task = keep_watching(Arc::clone(link), path, board.clone(), tell, Arc::clone(&ended));
        let abort = tokio::spawn(task).abort_handle();
        slot.task = Some(Task { abort, state: state.clone(), ended });
        Ok(state)
    }

    pub(crate) fn end(&self) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.closed = true;
        if let Some(task) = slot.task.take() {
            task.abort.abort();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

impl Task {
    fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) || self.abort.is_finished()
    }
}

/// Watches until nobody wants it any more, whatever becomes of connections.
async fn keep_watching(
    link: Arc<Link>,
    path: String,
    board: HintBoard,
    tell: watch::Sender<State>,
    ended: Arc<Mutex<bool>>,
) {
    loop {
        {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            if !board.has_listeners() {
                *ended = true;
                return;
            }
        }
        match link.events(&path).await {
            Ok(events) => {
                tell.send_replace(State::Watching);
                // What changed while nobody watched was told to nobody: whoever waits shall look.
                board.changed();
                hear(events, &board).await;
                board.changed();
                tell.send_replace(State::Begun);
            }
            Err(error) => {
                tell.send_replace(State::Failed(error));
            }
        }
        if board.has_listeners() {
            sleep(AGAIN).await;
        }
    }
}

/// Passes on what changes, until the watch ends, the server has forgotten where it was (410), or
/// nobody listens.
async fn hear(mut events: Events, board: &HintBoard) {
    let begun = Instant::now();
    let mut seen = HashMap::new();
    while begun.elapsed() < WATCH_MAX {
        match timeout(LOOK, events.try_next()).await {
            Ok(Ok(Some(WatchEvent::Added(lease) | WatchEvent::Modified(lease)))) => {
                let now = fingerprint(&lease);
                if seen.insert(lease.metadata.name, now) != Some(now) {
                    board.changed();
                }
            }
            Ok(Ok(Some(WatchEvent::Deleted(lease)))) => {
                seen.remove(&lease.metadata.name);
                board.changed();
            }
            Ok(Ok(Some(WatchEvent::Bookmark(_)))) => {}
            Ok(Ok(Some(WatchEvent::Error(_)) | None) | Err(_)) => return,
            Err(_) if !board.has_listeners() => return,
            Err(_) => {}
        }
    }
}

/// What a renewal leaves as it was, and a grant, a release and an order don't.
fn fingerprint(lease: &Lease) -> u64 {
    let mut hasher = DefaultHasher::new();
    lease.spec.holder().hash(&mut hasher);
    lease.spec.lease_transitions.hash(&mut hasher);
    lease.spec.preferred().hash(&mut hasher);
    let record = lease.metadata.annotations.record.as_deref();
    match record.map(|text| Record::from_json(text.as_bytes())) {
        Some(Ok(record)) => {
            record.token.hash(&mut hasher);
            record.order.is_some().hash(&mut hasher);
            record.transitions.len().hash(&mut hasher);
            let last = record.transitions.last().map(|last| (last.what, last.at));
            last.hash(&mut hasher);
        }
        _ => record.hash(&mut hasher),
    }
    hasher.finish()
}

/// A listener who hears of the session's end, too.
pub(crate) struct Watching {
    listener: Listener,
    link: Arc<Link>,
}

impl HintSource for Watching {
    fn next(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            if !self.link.is_closed() {
                self.listener.changed().await;
            }
            if self.link.is_closed() {
                return Err(closed(Operation::Watch));
            }
            Ok(())
        })
    }
}
