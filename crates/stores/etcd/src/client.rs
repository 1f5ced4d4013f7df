//! The way to the servers: one request, one answer; which server is asked, and as whom.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use prost::Message;
use tenure_core::{Error, ErrorKind, Operation};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::all::Job;
use crate::config::{EtcdConfig, Password, User};
use crate::errors::{Effect, Failure, closed, from_status, garbled, timed_out};
use crate::keys::end_of;
use crate::wire::{AuthenticateRequest, AuthenticateResponse, path};

/// The largest answer that is read, in bytes: a page of the longest records.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Between two pings on a connection that somebody waits on. The server counts more as abuse.
const PING: Duration = Duration::from_secs(10);
/// How long a ping's answer is waited for.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Who gives up waiting after this has waited in vain, and the next request goes elsewhere.
const PATIENCE: Duration = Duration::from_millis(200);

/// A way to the servers of one cluster.
pub(crate) struct Client {
    servers: Vec<Channel>,
    /// Which of them is asked.
    current: AtomicUsize,
    user: Option<User>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    timeout: Duration,
    needs: String,
    sent: AtomicU64,
    closed: AtomicBool,
}

/// A request that is on its way. If it is dropped before it was answered, after a while of
/// waiting, the next one asks another server.
struct Underway<'c> {
    client: &'c Client,
    server: usize,
    since: Instant,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if self.since.elapsed() > PATIENCE {
            self.client.leave(self.server);
        }
    }
}

impl Client {
    /// Prepares to connect; nothing is sent yet.
    pub(crate) fn new(config: &EtcdConfig) -> Result<Self, Error> {
        config.check()?;
        let tls = config.tls.then(|| tls(config)).transpose()?;
        let scheme = if config.tls { "https" } else { "http" };
        let server = |address: &String| {
            let endpoint = Endpoint::from_str(&format!("{scheme}://{address}"))
                .map_err(|error| Error::invalid(format!("`{address}` is no address: {error}")))?
                .connect_timeout(config.timeout)
                .tcp_nodelay(true)
                .tcp_keepalive(Some(PING))
                .http2_keep_alive_interval(PING)
                .keep_alive_timeout(PING_TIMEOUT)
                // Answers to who gave up waiting come late, and h2 counts each as an error of
                // the server's; after 1024 it would close the connection under everybody else.
                .http2_max_local_error_reset_streams(None);
            let endpoint = match &tls {
                Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| {
                    misfit(format!("TLS can't be set up for `{address}`: {error}"))
                })?,
                None => endpoint,
            };
            Ok(endpoint.connect_lazy())
        };
        Self::on(config.endpoints.iter().map(server).collect::<Result<_, Error>>()?, config)
    }

    /// The same over channels that somebody else has made.
    pub(crate) fn on(servers: Vec<Channel>, config: &EtcdConfig) -> Result<Self, Error> {
        config.check()?;
        if servers.is_empty() {
            return Err(Error::invalid("there is no channel to a server"));
        }
        let end = end_of(config.prefix.as_bytes());
        Ok(Self {
            servers,
            current: AtomicUsize::new(0),
            user: config.user.clone(),
            token: Mutex::default(),
            timeout: config.timeout,
            needs: format!(
                "the range `{}` to `{}`; grant a role of the user's readwrite on it",
                config.prefix,
                String::from_utf8_lossy(&end)
            ),
            sent: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// How many requests were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many servers there are.
    pub(crate) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Sends nothing from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// One request, one answer.
    pub(crate) async fn ask<Q, A>(
        &self,
        method: &'static str,
        question: &Q,
        effect: Effect,
        operation: Operation,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let send = |channel, request| -> Job<'static, Result<A, Status>> {
            let request = with(request, question.clone());
            Box::pin(async move {
                let mut grpc = ready(channel).await?;
                let codec = ProstCodec::<Q, A>::default();
                let path = PathAndQuery::from_static(method);
                grpc.unary(request, path, codec).await.map(|answer| answer.into_inner())
            })
        };
        self.through(operation, effect, send).await
    }

    /// One request for a stream of answers, and the first of them.
    pub(crate) async fn listen<Q, A>(
        &self,
        method: &'static str,
        question: &Q,
        operation: Operation,
    ) -> Result<(Streaming<A>, A), Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let send = |channel, request| -> Job<'static, Result<_, Status>> {
            let request = with(request, question.clone());
            Box::pin(async move {
                let mut grpc = ready(channel).await?;
                let codec = ProstCodec::<Q, A>::default();
                let path = PathAndQuery::from_static(method);
                let answer = grpc.server_streaming(request, path, codec).await?;
                let mut answers = answer.into_inner();
                let first = answers.message().await?;
                Ok((answers, first))
            })
        };
        let (answers, first) = self.through(operation, Effect::Reads, send).await?;
        Ok((answers, first.ok_or_else(|| garbled(operation, Effect::Reads))?))
    }

    /// One question to one server, whichever is asked otherwise.
    pub(crate) async fn ask_server<Q, A>(
        &self,
        server: usize,
        method: &'static str,
        question: &Q,
        operation: Operation,
    ) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let Some(channel) = self.servers.get(server) else {
            return Err(Error::new(ErrorKind::Invalid, operation, "there is no such server"));
        };
        let token = self.token(operation).await?;
        let asked = async {
            let mut grpc = ready(channel.clone()).await?;
            let codec = ProstCodec::<Q, A>::default();
            let request = with(request(token), question.clone());
            grpc.unary(request, PathAndQuery::from_static(method), codec).await
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                Err(from_status(&status, operation, Effect::Reads, &self.needs).into())
            }
            Err(_) => Err(timed_out(operation, Effect::Reads)),
        }
    }

    /// Asks the current server; another where that certainly did nothing; as somebody the servers
    /// still know.
    async fn through<T>(
        &self,
        operation: Operation,
        effect: Effect,
        send: impl Fn(Channel, Request<()>) -> Job<'static, Result<T, Status>>,
    ) -> Result<T, Failure> {
        let (mut left, mut renewed) = (self.servers.len(), false);
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(closed(operation).into());
            }
            let token = self.token(operation).await?;
            let server = self.current.load(Ordering::Relaxed);
            let underway = Underway { client: self, server, since: Instant::now() };
            self.sent.fetch_add(1, Ordering::Relaxed);
            let sent = send(self.servers[server].clone(), request(token));
            let answered = tokio::time::timeout(self.timeout, sent).await;
            std::mem::forget(underway);
            let failure = match answered {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => from_status(&status, operation, effect, &self.needs),
                Err(_) => {
                    self.leave(server);
                    return Err(timed_out(operation, effect).into());
                }
            };
            match failure {
                Failure::Elsewhere(_) if left > 1 => {
                    left -= 1;
                    self.leave(server);
                }
                Failure::TokenExpired(_) if self.user.is_some() && !renewed => {
                    renewed = true;
                    *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                Failure::Told(error) if error.kind().is_transient() => {
                    self.leave(server);
                    return Err(error.into());
                }
                other => return Err(other),
            }
        }
    }

    /// Asks the next server from now on, unless that happened meanwhile.
    fn leave(&self, server: usize) {
        let next = (server + 1) % self.servers.len();
        let _ = self.current.compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The token that says who we are, if we are somebody.
    async fn token(&self, operation: Operation) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let Some(user) = &self.user else { return Ok(None) };
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Some(token.clone()));
        }
        let password = match &user.password {
            Password::Known(password) => password.clone(),
            Password::File(file) => first_line(file, operation)?,
        };
        let question = AuthenticateRequest { name: user.name.clone(), password };
        let mut answered = Err(closed(operation));
        for _ in 0..self.servers.len() {
            let server = self.current.load(Ordering::Relaxed);
            answered = self.authenticate(server, &question, operation).await;
            match &answered {
                Err(error) if error.kind() == ErrorKind::Unavailable => self.leave(server),
                _ => break,
            }
        }
        let Some(token) = answered? else { return Ok(None) };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }

    /// None: the servers don't ask who we are.
    async fn authenticate(
        &self,
        server: usize,
        question: &AuthenticateRequest,
        operation: Operation,
    ) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let channel = self.servers[server].clone();
        let asked = async {
            let mut grpc = ready(channel).await?;
            let codec = ProstCodec::<AuthenticateRequest, AuthenticateResponse>::default();
            let path = PathAndQuery::from_static(path::AUTHENTICATE);
            grpc.unary(with(request(None), question.clone()), path, codec).await
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(answer)) => {
                let token = MetadataValue::from_str(&answer.into_inner().token);
                token.map(Some).map_err(|_| garbled(operation, Effect::Reads))
            }
            Ok(Err(status)) if status.message().contains("authentication is not enabled") => {
                Ok(None)
            }
            Ok(Err(status)) => {
                Err(from_status(&status, operation, Effect::Reads, &self.needs).into())
            }
            Err(_) => Err(timed_out(operation, Effect::Reads)),
        }
    }
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    Ok(grpc)
}

/// An empty request, which wants a server that has a leader, from whom the token says.
fn request(token: Option<MetadataValue<Ascii>>) -> Request<()> {
    let mut request = Request::new(());
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}

fn with<Q>(request: Request<()>, question: Q) -> Request<Q> {
    request.map(|()| question)
}

fn tls(config: &EtcdConfig) -> Result<ClientTlsConfig, Error> {
    let Some(file) = &config.root_certificates else {
        return Ok(ClientTlsConfig::new().with_webpki_roots());
    };
    let pem = std::fs::read(file).map_err(|error| {
        misfit(format!("the certificates in `{}` can't be read: {error}", file.display()))
    })?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

fn first_line(file: &std::path::Path, operation: Operation) -> Result<String, Error> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let message = format!("the password in `{}` can't be read: {error}", file.display());
        Error::new(ErrorKind::Denied, operation, message)
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn misfit(message: String) -> Error {
    Error::new(ErrorKind::Misconfigured, Operation::Open, message)
}
