//! Hints for those who wait: a connection that listens, but only while anybody does.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::PubSub;
use tenure_core::hint::Listener;
use tenure_core::store::{Answer, HintSource};
use tenure_core::{Error, Operation};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::errors::{closed, from_login, unreachable};
use crate::link::{ANSWER_MAX, CONNECT_MAX};
use crate::session::Session;

/// How often it is looked whether anybody listens still, and whether the connection lives.
const LOOK: Duration = Duration::from_secs(5);
/// Between two tries to listen again.
const AGAIN: Duration = Duration::from_millis(250);

/// What listens to the server for all of a session's listeners.
#[derive(Default)]
pub(crate) struct Watcher(Mutex<Option<Task>>);

struct Task {
    abort: AbortHandle,
    state: watch::Receiver<State>,
    /// Whether it has seen that nobody listens any more. Whoever comes to listen registers first
    /// and then looks here, so that either the task sees him or he sees that it has ended.
    ended: Arc<Mutex<bool>>,
}

/// How far listening has come.
#[derive(Clone)]
enum State {
    Begun,
    /// The server was heard to take the subscription.
    Listening,
    Failed(Error),
}

impl Watcher {
    /// A listener who hears of all changes from now on.
    pub(crate) async fn watch(&self, session: &Arc<Session>) -> Result<Watching, Error> {
        if session.closed.load(Ordering::SeqCst) {
            return Err(closed(Operation::Watch));
        }
        let listener = session.board.listen();
        let mut state = self.state(session);
        let settled = state.wait_for(|state| !matches!(state, State::Begun));
        let settled = match timeout(CONNECT_MAX + ANSWER_MAX, settled).await {
            Ok(settled) => settled.map_err(unreachable).map(|state| state.clone()),
            Err(late) => Err(unreachable(late)),
        };
        match settled {
            Ok(State::Failed(error)) | Err(error) => Err(error.during(Operation::Watch)),
            Ok(_) => Ok(Watching { listener, session: Arc::clone(session) }),
        }
    }

    /// How far the task has come that listens; it is begun if there is none.
    fn state(&self, session: &Arc<Session>) -> watch::Receiver<State> {
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.as_ref().filter(|task| !task.has_ended()) {
            return task.state.clone();
        }
        let (tell, state) = watch::channel(State::Begun);
        let ended = Arc::<Mutex<bool>>::default();
        let listening = tokio::spawn(listen(Arc::clone(session), tell, Arc::clone(&ended)));
        *task = Some(Task { abort: listening.abort_handle(), state: state.clone(), ended });
        state
    }

    pub(crate) fn end(&self) {
        if let Some(task) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort.abort();
        }
    }
}

impl Task {
    fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) || self.abort.is_finished()
    }
}

/// Listens until nobody wants it any more, whatever becomes of connections.
async fn listen(session: Arc<Session>, tell: watch::Sender<State>, ended: Arc<Mutex<bool>>) {
    loop {
        {
            let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
            if !wanted(&session) {
                *ended = true;
                return;
            }
        }
        match subscribed(&session).await {
            Ok(mut connection) => {
                tell.send_replace(State::Listening);
                // What was told while nobody listened is lost: whoever waits shall look.
                session.board.changed();
                hear(&session, &mut connection).await;
                session.board.changed();
                tell.send_replace(State::Begun);
            }
            Err(error) => {
                tell.send_replace(State::Failed(error));
            }
        }
        if wanted(&session) {
            session.route.doubt();
            sleep(AGAIN).await;
        }
    }
}

fn wanted(session: &Session) -> bool {
    session.board.has_listeners() && !session.closed.load(Ordering::SeqCst)
}

async fn subscribed(session: &Session) -> Result<PubSub, Error> {
    // A cluster tells all its nodes of what is published at one.
    let [link, ..] = session.route.links().await?;
    let mut connection = link.listen().await?;
    let channel = session.keys.channel();
    match timeout(ANSWER_MAX, connection.subscribe(channel)).await {
        Ok(subscribed) => subscribed.map_err(from_login)?,
        Err(late) => return Err(unreachable(late)),
    }
    Ok(connection)
}

/// Passes on what is told, until the connection is gone or nobody listens.
async fn hear(session: &Session, connection: &mut PubSub) {
    loop {
        let told = timeout(LOOK, async { connection.on_message().next().await }).await;
        match told {
            Ok(Some(_)) => session.board.changed(),
            Ok(None) => return,
            Err(_) => {
                let alive = timeout(ANSWER_MAX, connection.ping::<redis::Value>()).await;
                if !matches!(alive, Ok(Ok(_))) || !wanted(session) {
                    return;
                }
            }
        }
    }
}

/// A listener who hears of the session's end, too.
pub(crate) struct Watching {
    listener: Listener,
    session: Arc<Session>,
}

impl HintSource for Watching {
    fn next(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            if !self.session.closed.load(Ordering::SeqCst) {
                self.listener.changed().await;
            }
            if self.session.closed.load(Ordering::SeqCst) {
                let location = Arc::clone(&self.session.location);
                return Err(closed(Operation::Watch).with_store(location));
            }
            Ok(())
        })
    }
}
