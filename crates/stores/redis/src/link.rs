//! Connections to one server: made when they are needed, checked, and replaced when they are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisResult, Value};
use tenure_core::{Error, ErrorKind, Operation};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::config::{Address, Login, Server, Tls};
use crate::errors::{from_login, from_server, unanswered, unintelligible, unreachable};
use crate::reply::{list, pairs, text};
use crate::tls::encrypted;

/// How long connecting may take, from the look-up of the name to the server's word for itself.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long an answer may take. A session waits for ttl/6, which is 5 s by default.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often one connection is sought anew because a sentinel named a server that isn't master.
const SENTINEL_ROUNDS_MAX: usize = 2;

/// Where a link leads.
pub(crate) enum Target {
    Server(Server),
    Client(redis::Client),
    Sentinel { sentinels: Vec<Server>, service: String, master: Login, tls: Option<Tls> },
}

/// The way to one server. Its connection is shared by all requests.
pub(crate) struct Link {
    target: Target,
    live: Mutex<Option<Live>>,
}

/// A connection that works, as far as is known.
#[derive(Clone)]
pub(crate) struct Live {
    connection: MultiplexedConnection,
    alive: Arc<AtomicBool>,
    driver: Option<AbortHandle>,
    pub(crate) about: Arc<About>,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) version: String,
    /// `standalone`, `cluster` or `sentinel`; empty where it wouldn't say.
    pub(crate) mode: String,
    pub(crate) role: String,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Takes a connection for dead when it is dropped: whoever stopped waiting for an answer doesn't
/// know whether one would have come.
struct Doubt<'a>(Option<&'a AtomicBool>);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(alive) = self.0 {
            alive.store(false, Ordering::SeqCst);
        }
    }
}

impl Link {
    pub(crate) fn new(target: Target) -> Arc<Self> {
        Arc::new(Self { target, live: Mutex::new(None) })
    }

    /// The connection, made anew if there is none that works.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(crate) async fn live(&self) -> Result<Live, Error> {
        let mut live = self.live.lock().await;
        if let Some(live) = live.as_ref().filter(|live| live.alive.load(Ordering::SeqCst)) {
            return Ok(live.clone());
        }
        *live = None;
        let connected = match timeout(CONNECT_MAX, self.connect()).await {
            Ok(connected) => connected?,
            Err(late) => return Err(unreachable(late)),
        };
        Ok(live.insert(connected).clone())
    }

    /// Sends commands in one go, and reads the answer to each.
    ///
    /// # Errors
    /// `OutcomeUnknown` once anything was sent.
    pub(crate) async fn send(
        &self,
        commands: &Pipeline,
        count: usize,
        operation: Operation,
    ) -> Result<Vec<Value>, Error> {
        let mut live = self.live().await.map_err(|error| error.during(operation))?;
        let alive = Arc::clone(&live.alive);
        let mut doubt = Doubt(Some(&alive));
        let sent = live.connection.send_packed_commands(commands, 0, count);
        match timeout(ANSWER_MAX, sent).await {
            Ok(Ok(values)) if values.len() == count => {
                doubt.0 = None;
                Ok(values)
            }
            Ok(Ok(_)) => Err(unintelligible(operation)),
            Ok(Err(error)) => {
                Err(unanswered(operation, "the connection was lost").with_source(error))
            }
            Err(late) => {
                let why = format!("{ANSWER_MAX:?} passed");
                Err(unanswered(operation, &why).with_source(late))
            }
        }
    }

    /// Sends one command, and reads its answer.
    pub(crate) async fn ask(
        &self,
        command: redis::Cmd,
        operation: Operation,
    ) -> Result<Value, Error> {
        let mut commands = Pipeline::new();
        commands.add_command(command);
        match self.send(&commands, 1, operation).await?.pop() {
            Some(Value::ServerError(said)) => Err(from_server(&said, operation)),
            Some(value) => Ok(value),
            None => Err(unintelligible(operation)),
        }
    }

    /// Whether sentinels say where it leads.
    pub(crate) fn is_by_sentinel(&self) -> bool {
        matches!(self.target, Target::Sentinel { .. })
    }

    /// Seeks the server anew at the next request.
    pub(crate) async fn doubt(&self) {
        if let Some(live) = self.live.lock().await.as_ref() {
            live.alive.store(false, Ordering::SeqCst);
        }
    }

    /// Lets go of the connection.
    pub(crate) async fn close(&self) {
        let live = self.live.lock().await.take();
        if let Some(driver) = live.and_then(|live| live.driver) {
            driver.abort();
        }
    }

    /// A connection of its own, that listens.
    pub(crate) async fn listen(&self) -> Result<PubSub, Error> {
        let connected = timeout(CONNECT_MAX, async {
            match &self.target {
                Target::Server(server) => listen_at(server).await,
                Target::Client(client) => client.get_async_pubsub().await.map_err(from_login),
                Target::Sentinel { .. } => listen_at(&self.master().await?).await,
            }
        });
        connected.await.unwrap_or_else(|late| Err(unreachable(late)))
    }

    async fn connect(&self) -> Result<Live, Error> {
        let mut rounds = 0;
        loop {
            let live = match &self.target {
                Target::Server(server) => connect_to(server).await?,
                Target::Client(client) => {
                    let config = config();
                    let connected = client.get_multiplexed_async_connection_with_config(&config);
                    introduced(connected.await.map_err(from_login)?, Arc::default(), None).await?
                }
                Target::Sentinel { .. } => connect_to(&self.master().await?).await?,
            };
            if live.about.role != "slave" && live.about.role != "replica" {
                return Ok(live);
            }
            rounds += 1;
            if rounds >= SENTINEL_ROUNDS_MAX || !matches!(self.target, Target::Sentinel { .. }) {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    Operation::Open,
                    "the server is a replica; name the master, or the sentinels that know it",
                ));
            }
        }
    }

    /// The master of the service, as the first sentinel that answers names it.
    async fn master(&self) -> Result<Server, Error> {
        let Target::Sentinel { sentinels, service, master, tls } = &self.target else {
            return Err(unintelligible(Operation::Open));
        };
        let mut failed = None;
        for sentinel in sentinels {
            match named_by(sentinel, service).await {
                Ok(address) => {
                    return Ok(Server { address, tls: tls.clone(), login: master.clone() });
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| unintelligible(Operation::Open)))
    }
}

/// Whom a sentinel takes for the master.
async fn named_by(sentinel: &Server, service: &str) -> Result<Address, Error> {
    let mut live = connect_to(sentinel).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    let answer = live.connection.send_packed_command(&command).await.map_err(from_login)?;
    let named = list(&answer).and_then(|parts| match parts {
        [host, port] => Some((text(host)?.to_owned(), text(port)?.parse().ok()?)),
        _ => None,
    });
    match (named, answer) {
        (Some((host, port)), _) => Ok(Address::Tcp { host, port }),
        (None, Value::ServerError(said)) => Err(from_server(&said, Operation::Open)),
        (None, _) => Err(Error::new(
            ErrorKind::Misconfigured,
            Operation::Open,
            format!("the sentinel at {} knows no service `{service}`", sentinel.address),
        )),
    }
}

/// Without bounds of the client's own: they are set here, around the whole.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None)
}

async fn listen_at(server: &Server) -> Result<PubSub, Error> {
    let stream = dial(server).await?;
    PubSub::new(&server.login.info(), stream).await.map_err(from_login)
}

async fn connect_to(server: &Server) -> Result<Live, Error> {
    let stream = dial(server).await?;
    let info: RedisConnectionInfo = server.login.info();
    let connected = MultiplexedConnection::new_with_config(&info, stream, config());
    let (connection, driver) = connected.await.map_err(from_login)?;
    let alive = Arc::new(AtomicBool::new(true));
    let ends = Arc::clone(&alive);
    let driver = tokio::spawn(async move {
        // Also if the runtime ends under it.
        let _doubt = Doubt(Some(&ends));
        driver.await;
    });
    introduced(connection, alive, Some(driver.abort_handle())).await
}

/// A connection whose server has said what it is.
async fn introduced(
    mut connection: MultiplexedConnection,
    alive: Arc<AtomicBool>,
    driver: Option<AbortHandle>,
) -> Result<Live, Error> {
    let about = Arc::new(about(&mut connection).await.map_err(from_login)?);
    alive.store(true, Ordering::SeqCst);
    Ok(Live { connection, alive, driver, about })
}

/// What the server says of itself, by HELLO, or by INFO where that is too old. A user who may
/// use neither isn't told, and goes on.
async fn about(connection: &mut MultiplexedConnection) -> RedisResult<About> {
    let mut about = About::default();
    let answer = connection.send_packed_command(&redis::cmd("HELLO")).await?;
    let found = pairs(&answer);
    if !found.is_empty() {
        for (key, value) in found {
            match key {
                "version" => about.version = value.to_owned(),
                "mode" => about.mode = value.to_owned(),
                "role" => about.role = value.to_owned(),
                _ => {}
            }
        }
        return Ok(about);
    }
    let answer = connection.send_packed_command(&redis::cmd("INFO")).await?;
    for line in text(&answer).unwrap_or_default().lines() {
        match line.split_once(':') {
            Some(("redis_version", value)) => about.version = value.to_owned(),
            Some(("redis_mode", value)) => about.mode = value.to_owned(),
            Some(("role", value)) => about.role = value.to_owned(),
            _ => {}
        }
    }
    Ok(about)
}

async fn dial(server: &Server) -> Result<Box<dyn Stream>, Error> {
    match &server.address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?)),
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            match &server.tls {
                None => Ok(Box::new(stream)),
                Some(tls) => Ok(Box::new(encrypted(tls, host, stream).await?)),
            }
        }
    }
}
