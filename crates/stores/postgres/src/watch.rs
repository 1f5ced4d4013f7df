//! Hints through LISTEN and NOTIFY, on a connection that is open only while somebody waits.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tenure_core::identity::Namespace;
use tenure_core::store::{Answer, HintSource, Prefix};
use tenure_core::{Error, ErrorKind, Operation};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;
use tokio_postgres::types::Type;

use crate::config::PostgresConfig;
use crate::errors::from_connecting;
use crate::link::{Effect, Server};
use crate::tls;

/// How many hints may wait for a listener; one that falls behind looks at everything.
const HINTS_MAX: usize = 256;
/// Between two tries to connect again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a notification may take that a session sends to itself.
const HEARS_WITHIN: Duration = Duration::from_millis(500);
/// What a connection is marked with as it starts. Poolers refuse it or leave it out.
const MARK: &str = "tenure.listens";
/// Between the namespace and the name in a notification. Names have no control characters.
const SEPARATOR: char = '\u{1f}';

/// What a notification says: the namespace and the name, or nothing at all for "look yourself".
type Heard = Arc<str>;

/// Who listens for a store.
pub(crate) struct Listening {
    config: PostgresConfig,
    tap: Mutex<Weak<Tap>>,
    closed: watch::Sender<bool>,
}

/// One open connection that hears, shared by all sources. It is closed with the last of them.
struct Tap {
    hints: broadcast::Sender<Heard>,
    connected: watch::Receiver<Option<Result<(), Error>>>,
    task: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listening {
    pub(crate) fn new(config: &PostgresConfig) -> Self {
        let (closed, _) = watch::channel(false);
        Self { config: config.clone(), tap: Mutex::default(), closed }
    }

    /// Hints for names under a prefix, from now on.
    pub(crate) async fn listen(
        &self,
        namespace: &Namespace,
        prefix: &Prefix,
    ) -> Result<Source, Error> {
        let tap = self.tap();
        let hints = tap.hints.subscribe();
        let mut connected = tap.connected.clone();
        match connected.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(()))?,
            Err(_) => return Err(closed()),
        }
        let prefix = format!("{}{SEPARATOR}{}", namespace.as_str(), prefix.as_str());
        Ok(Source { _tap: tap, hints, prefix, closed: self.closed.subscribe() })
    }

    /// Ends all sources.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    fn tap(&self) -> Arc<Tap> {
        let mut tap = self.locked();
        if let Some(open) = tap.upgrade().filter(|open| !open.task.is_finished()) {
            return open;
        }
        let (hints, _) = broadcast::channel(HINTS_MAX);
        let (tell, connected) = watch::channel(None);
        let task = tokio::spawn(hear(self.config.clone(), hints.clone(), tell));
        let opened = Arc::new(Tap { hints, connected, task });
        *tap = Arc::downgrade(&opened);
        opened
    }

    fn locked(&self) -> MutexGuard<'_, Weak<Tap>> {
        self.tap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on what one connection hears after another.
async fn hear(
    config: PostgresConfig,
    hints: broadcast::Sender<Heard>,
    tell: watch::Sender<Option<Result<(), Error>>>,
) {
    loop {
        let ears = Ears::open(&config).await;
        let first = tell.borrow().is_none();
        match ears {
            Ok(mut ears) => {
                tell.send_replace(Some(Ok(())));
                if !first {
                    // Something may have happened while nobody heard.
                    let _ = hints.send("".into());
                }
                while let Some(heard) = ears.next().await {
                    let _ = hints.send(heard);
                }
                // Whoever waits shall not sleep on while nothing can be heard.
                let _ = hints.send("".into());
            }
            Err(error) if first => {
                tell.send_replace(Some(Err(error)));
                return;
            }
            Err(error) => tracing::debug!(%error, "hints are away; polls go on"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A connection that listens.
struct Ears {
    heard: tokio::sync::mpsc::Receiver<Heard>,
    driver: JoinHandle<()>,
    _client: tokio_postgres::Client,
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Ears {
    /// Listens, on a connection that is the server's own: a pooler would leave the listening on
    /// one that it gives to others, and not every client takes a notification that it didn't ask
    /// for (sqlx fails).
    async fn open(config: &PostgresConfig) -> Result<Self, Error> {
        let connecting = |error| from_connecting(error, Operation::Watch);
        let mut server = config.server.clone();
        let options = server.get_options().unwrap_or_default();
        server.options(format!("{options} -c {MARK}=on").trim_start());
        let (client, mut connection) =
            server.connect(tls::connector(config)?).await.map_err(connecting)?;
        let (send, heard) = tokio::sync::mpsc::channel(HINTS_MAX);
        let driver = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        if send.send(notification.payload().into()).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        });
        let marked = format!("SELECT current_setting('{MARK}', true) = 'on'");
        let rows = client.query_typed(&marked, &[]).await.map_err(connecting)?;
        if !rows.iter().any(|row| row.get::<_, Option<bool>>(0) == Some(true)) {
            return Err(pooled());
        }
        let listen = format!("LISTEN \"{}\"", config.schema.channel());
        client.batch_execute(&listen).await.map_err(connecting)?;
        Ok(Self { heard, driver, _client: client })
    }

    /// The next notification. None: the connection is gone.
    async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }
}

/// Whether a notification arrives that this session sends to itself: through a pooler that
/// hands the server's connections around, none does.
pub(crate) async fn hears_itself(server: &Server, config: &PostgresConfig) -> bool {
    let Ok(mut ears) = Ears::open(config).await else { return false };
    let channel = config.schema.channel();
    let payload = format!("probe{SEPARATOR}{SEPARATOR}{}", std::process::id());
    let params = &[
        (&channel as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT),
        (&payload, Type::TEXT),
    ];
    let notify = "SELECT pg_notify($1, $2)";
    let sent = server.query(Operation::Open, Effect::Writes, notify, params).await;
    if sent.is_err() {
        return false;
    }
    let heard = async {
        while let Some(heard) = ears.next().await {
            if *heard == *payload {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(HEARS_WITHIN, heard).await.unwrap_or(false)
}

fn pooled() -> Error {
    let message = "a pooler stands before the server, where nobody can listen";
    Error::new(ErrorKind::Unavailable, Operation::Watch, message)
}

/// Hints for one who waits.
pub(crate) struct Source {
    _tap: Arc<Tap>,
    hints: broadcast::Receiver<Heard>,
    prefix: String,
    closed: watch::Receiver<bool>,
}

impl HintSource for Source {
    fn next(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            loop {
                let heard = tokio::select! {
                    biased;
                    _ = self.closed.wait_for(|closed| *closed) => return Err(closed()),
                    heard = self.hints.recv() => heard,
                };
                match heard {
                    Ok(heard) if heard.is_empty() || heard.starts_with(&self.prefix) => {
                        return Ok(());
                    }
                    Ok(_) => {}
                    // Too many at once: something under the prefix may have been among them.
                    Err(broadcast::error::RecvError::Lagged(_)) => return Ok(()),
                    Err(broadcast::error::RecvError::Closed) => return Err(closed()),
                }
            }
        })
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Watch, "the session was closed")
}
