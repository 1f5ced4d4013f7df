//! The sidecar over HTTP: its four calls that leases need, and what came of each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::DaprConfig;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a connection is kept for the next request.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One state store of one sidecar.
#[derive(Clone)]
pub(crate) struct Sidecar {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: String,
    pub(crate) component: String,
    token: Option<HeaderValue>,
    timeout: Duration,
}

/// What was read of a key.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) etag: String,
    /// The JSON that the store keeps.
    pub(crate) json: Bytes,
}

/// What a save was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    Done,
    /// The etag isn't the key's; or, by some components, anything else that went wrong.
    Mismatch,
    /// The component failed, or refused to create what is there; its own words.
    Failed(String),
}

/// A component as the sidecar tells of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Component {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) capabilities: Vec<String>,
}

/// What the sidecar says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) id: String,
    #[serde(rename = "runtimeVersion", default)]
    pub(crate) runtime: String,
    #[serde(default)]
    pub(crate) components: Vec<Component>,
}

#[derive(Serialize)]
struct Save<'a> {
    key: &'a str,
    /// Text, since the sidecar reads numbers as floating point and would round a token.
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    options: Options,
}

#[derive(Serialize)]
struct Options {
    concurrency: &'static str,
    consistency: &'static str,
}

/// How a request failed before an answer came.
enum Silence {
    /// Nothing was sent.
    Unreached(String),
    /// It was sent, perhaps.
    Unanswered(String),
}

struct Answer {
    status: StatusCode,
    etag: Option<String>,
    body: Bytes,
}

impl Sidecar {
    /// # Errors
    /// `Invalid`: a token that no header can carry. `Misconfigured`: no TLS can be had.
    pub(crate) fn new(config: &DaprConfig) -> Result<Self, Error> {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                let message = format!("no TLS can be had: {error}");
                Error::new(ErrorKind::Misconfigured, Operation::Open, message)
            })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .build(https);
        let token = config.token.as_deref().map(|token| {
            let mut value = HeaderValue::from_str(token).map_err(|_| {
                Error::invalid("the API token (DAPR_API_TOKEN) has characters that no header can")
            })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        Ok(Self {
            client,
            address: config.address.clone(),
            component: config.component.clone(),
            token: token.transpose()?,
            timeout: config.timeout,
        })
    }

    /// Reads a key as the store's primary has it.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Value>, Error> {
        let path = format!("/v1.0/state/{}/{key}?consistency=strong", self.component);
        let answer = self.read(&path).await?;
        match (answer.status, answer.etag) {
            (StatusCode::NO_CONTENT | StatusCode::NOT_FOUND, _) => Ok(None),
            (StatusCode::OK, _) if answer.body.is_empty() => Ok(None),
            (StatusCode::OK, Some(etag)) => Ok(Some(Value { etag, json: answer.body })),
            (StatusCode::OK, None) => Err(Error::new(
                ErrorKind::Misconfigured,
                Operation::Read,
                format!(
                    "the state store `{}` tells no etag of what it keeps, so no lease can be had \
                     there; use another component",
                    self.component
                ),
            )),
            (status, _) => Err(self.refused(status, &answer.body, Operation::Read, false)),
        }
    }

    /// Writes a key if it has this etag, or, without one, if it isn't there.
    ///
    /// # Errors
    /// `Unavailable` only if nothing was sent; else `OutcomeUnknown`, or what is wrong for good.
    pub(crate) async fn save(
        &self,
        key: &str,
        text: &str,
        etag: Option<&str>,
    ) -> Result<Saved, Error> {
        let options = Options { concurrency: "first-write", consistency: "strong" };
        let body = serde_json::to_vec(&[Save { key, value: text, etag, options }])
            .expect("text has a JSON form");
        let path = format!("/v1.0/state/{}", self.component);
        let answer = match self.send(Method::POST, &path, body.into()).await {
            Ok(answer) => answer,
            Err(Silence::Unreached(why)) => return Err(self.unreached(why)),
            Err(Silence::Unanswered(why)) => {
                let message = format!("the sidecar did not answer: {why}; it may be done or not");
                return Err(Error::new(ErrorKind::OutcomeUnknown, Operation::Acquire, message));
            }
        };
        match answer.status {
            status if status.is_success() => Ok(Saved::Done),
            StatusCode::CONFLICT => Ok(Saved::Mismatch),
            StatusCode::INTERNAL_SERVER_ERROR => Ok(Saved::Failed(words(&answer.body))),
            status => Err(self.refused(status, &answer.body, Operation::Acquire, true)),
        }
    }

    /// Which application this sidecar serves, and with what.
    pub(crate) async fn metadata(&self) -> Result<Metadata, Error> {
        let answer = self.read("/v1.0/metadata").await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(answer.status, &answer.body, Operation::Open, false));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            let message = format!(
                "what answers at {} is no sidecar of Dapr; name its HTTP address by \
                 DAPR_HTTP_ENDPOINT, DAPR_HTTP_PORT or `?address=`",
                self.address
            );
            Error::new(ErrorKind::Misconfigured, Operation::Open, message).with_source(error)
        })
    }

    async fn read(&self, path: &str) -> Result<Answer, Error> {
        match self.send(Method::GET, path, Bytes::new()).await {
            Ok(answer) => Ok(answer),
            Err(Silence::Unreached(why)) => Err(self.unreached(why)),
            Err(Silence::Unanswered(why)) => {
                let message = format!("the sidecar did not answer: {why}");
                Err(Error::new(ErrorKind::Unavailable, Operation::Read, message))
            }
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Silence> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("dapr-api-token", token.clone());
        }
        let request =
            request.body(Full::new(body)).map_err(|error| Silence::Unreached(error.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                let why = root_of(&error);
                if error.is_connect() { Silence::Unreached(why) } else { Silence::Unanswered(why) }
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| Silence::Unanswered(error.to_string()))?.to_bytes();
            let etag = parts.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
            Ok(Answer { status: parts.status, etag: etag.map(str::to_owned), body })
        };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            Err(Silence::Unanswered(format!("nothing came within {:?}", self.timeout)))
        })
    }

    fn unreached(&self, why: String) -> Error {
        let message = format!(
            "the sidecar at {} can't be reached ({why}); is `daprd` up, and is the address right \
             (DAPR_HTTP_ENDPOINT, DAPR_HTTP_PORT or `?address=`)?",
            self.address
        );
        Error::new(ErrorKind::Unavailable, Operation::Open, message)
    }

    /// An answer that is neither success nor a refused precondition.
    fn refused(&self, status: StatusCode, body: &[u8], doing: Operation, writes: bool) -> Error {
        let said = words(body);
        let component = &self.component;
        let (kind, message) = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
                ErrorKind::Denied,
                format!(
                    "the sidecar refuses this process ({said}); DAPR_API_TOKEN must be the \
                     sidecar's, and `{component}` open to this application"
                ),
            ),
            _ if body.windows(9).any(|part| part == b"NOT_FOUND")
                || said.contains("is not found")
                || said.contains("not configured") =>
            {
                (
                    ErrorKind::Misconfigured,
                    format!(
                        "the sidecar has no state store `{component}` ({said}); add the component, \
                         or name another: `dapr:COMPONENT`"
                    ),
                )
            }
            status if status.is_client_error() => (
                ErrorKind::Misconfigured,
                format!("the sidecar refuses the request ({status}: {said})"),
            ),
            _ if writes => (
                ErrorKind::OutcomeUnknown,
                format!("the sidecar failed ({status}: {said}); the write may be done or not"),
            ),
            _ => (ErrorKind::Unavailable, format!("the sidecar failed ({status}: {said})")),
        };
        Error::new(kind, doing, message)
    }
}

/// The innermost reason of an error, which is the one that tells.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// What the sidecar says, in one line.
fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let text = match serde_json::from_slice::<Said>(body) {
        Ok(said) => said.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let text: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    if text.is_empty() { "no words".to_owned() } else { text }
}
