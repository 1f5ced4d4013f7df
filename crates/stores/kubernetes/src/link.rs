//! The way to the API server: one request at a time, and a client that is made anew when its credentials end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tenure_core::{Error, ErrorKind, Operation};
use tokio::time::timeout;

use crate::config::{Found, Place};
use crate::errors::{Effect, closed, from_client, late, unintelligible};
use crate::lease::Lease;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long an answer may take.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two clients that are made anew because credentials were refused.
const RENEWED_EVERY: Duration = Duration::from_secs(2);

/// The API server, as one session reaches it.
pub(crate) struct Link {
    place: Place,
    pub(crate) kube_namespace: String,
    client: Mutex<Option<Current>>,
}

struct Current {
    client: Client,
    since: Instant,
}

/// What a watch tells.
pub(crate) type Events = BoxStream<'static, Result<WatchEvent<Lease>, kube::Error>>;

/// What a request came to, beside failure.
pub(crate) enum Reply<T> {
    Done(T),
    /// 409: another state than the one that was meant, or the object is there already.
    Conflict,
    /// 404.
    Missing,
}

impl Link {
    pub(crate) async fn open(place: Place) -> Result<Self, Error> {
        let (client, kube_namespace) = match &place {
            Place::Client { client, kube_namespace } => (client.clone(), kube_namespace.clone()),
            Place::Found(found) => {
                let client = found_client(found, Operation::Open).await?;
                let of_context = || client.default_namespace().to_owned();
                let kube_namespace = found.kube_namespace.clone().unwrap_or_else(of_context);
                (client, kube_namespace)
            }
        };
        let current = Current { client, since: Instant::now() };
        Ok(Self { place, kube_namespace, client: Mutex::new(Some(current)) })
    }

    /// The path of the objects, or of one.
    pub(crate) fn path(&self, object: Option<&str>) -> String {
        let all = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.kube_namespace);
        object.map_or_else(|| all.clone(), |object| format!("{all}/{object}"))
    }

    /// One request, and its answer. Nothing is sent twice but what was refused for its credentials.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        operation: Operation,
    ) -> Result<Reply<T>, Error> {
        let effect = if method == Method::GET { Effect::None } else { Effect::Write };
        let (client, since) = self.client(operation)?;
        let sent = send(&client, &method, path, body.clone()).await;
        let answer = match sent {
            Err(kube::Error::Api(status)) if status.code == 401 => {
                let Some(anew) = self.renewed(since, operation).await? else {
                    return Err(from_client(kube::Error::Api(status), operation, effect));
                };
                send(&anew, &method, path, body).await
            }
            sent => sent,
        };
        match answer {
            Ok(Some(text)) => serde_json::from_str(&text)
                .map(Reply::Done)
                .map_err(|error| unintelligible(operation, effect).with_source(error)),
            Ok(None) => Err(late(operation, effect)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Reply::Conflict),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Reply::Missing),
            Err(error) => Err(from_client(error, operation, effect)),
        }
    }

    /// What happens to the objects of a path from now on: first all that there are, then the changes.
    pub(crate) async fn events(&self, path: &str) -> Result<Events, Error> {
        let (client, since) = self.client(Operation::Watch)?;
        let failed = |error| from_client(error, Operation::Watch, Effect::None);
        let ask = |client: Client| async move {
            let request = request(&Method::GET, path, Vec::new())?;
            let events = client.request_events::<Lease>(request).await?;
            Ok::<Events, kube::Error>(events.boxed())
        };
        let answer = timeout(ANSWER_MAX, ask(client)).await;
        let answer = match answer {
            Ok(Err(kube::Error::Api(status))) if status.code == 401 => {
                match self.renewed(since, Operation::Watch).await? {
                    Some(anew) => timeout(ANSWER_MAX, ask(anew)).await,
                    None => Ok(Err(kube::Error::Api(status))),
                }
            }
            answer => answer,
        };
        answer.map_err(|_| late(Operation::Watch, Effect::None))?.map_err(failed)
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, operation: Operation) -> Result<(Client, Instant), Error> {
        let current = self.current();
        let current = current.as_ref().ok_or_else(|| closed(operation))?;
        Ok((current.client.clone(), current.since))
    }

    /// After a refusal of credentials: a client that has read them anew, since tokens and certificates
    /// are replaced where they lie. None: it was done just now, or the client is the host's own.
    async fn renewed(&self, since: Instant, operation: Operation) -> Result<Option<Client>, Error> {
        let Place::Found(found) = &self.place else { return Ok(None) };
        {
            let current = self.current();
            let current = current.as_ref().ok_or_else(|| closed(operation))?;
            if current.since != since {
                return Ok(Some(current.client.clone()));
            }
            if current.since.elapsed() < RENEWED_EVERY {
                return Ok(None);
            }
        }
        let client = found_client(found, operation).await?;
        let mut current = self.current();
        let current = current.as_mut().ok_or_else(|| closed(operation))?;
        *current = Current { client: client.clone(), since: Instant::now() };
        Ok(Some(client))
    }

    /// The version of the API server, as it names it.
    pub(crate) async fn server_version(&self) -> Result<String, Error> {
        let answer = self.ask::<Value>(Method::GET, "/version", Vec::new(), Operation::Diagnose);
        let Reply::Done(version) = answer.await? else {
            return Err(unintelligible(Operation::Diagnose, Effect::None));
        };
        Ok(version["gitVersion"].as_str().unwrap_or("unknown").to_owned())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.current().is_none()
    }

    pub(crate) fn close(&self) {
        self.current().take();
    }
}

/// None: no answer came in time.
async fn send(
    client: &Client,
    method: &Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Option<String>, kube::Error> {
    let request = request(method, path, body)?;
    match timeout(ANSWER_MAX, client.request_text(request)).await {
        Ok(answer) => answer.map(Some),
        Err(_) => Ok(None),
    }
}

fn request(method: &Method, path: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, kube::Error> {
    let kind = match *method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = Request::builder().method(method).uri(path);
    let request = request.header(http::header::ACCEPT, "application/json");
    request.header(http::header::CONTENT_TYPE, kind).body(body).map_err(kube::Error::HttpError)
}

async fn found_client(found: &Found, operation: Operation) -> Result<Client, Error> {
    let mut config = configured(found).await?;
    // A repeated write that was carried out the first time would meet itself as a conflict.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_MAX);
    Client::try_from(config).map_err(|error| from_client(error, operation, Effect::None))
}

async fn configured(found: &Found) -> Result<Config, Error> {
    let told = |what: String, error: kube::config::KubeconfigError| {
        let message = format!("{what} can't be used ({error}); name another file or context");
        Error::new(ErrorKind::Misconfigured, Operation::Open, message).with_source(error)
    };
    if found.context.is_none() && found.kubeconfig.is_none() {
        return Config::infer().await.map_err(|error| {
            let message = format!(
                "neither a kubeconfig nor a pod's service account was found ({error}); name one: \
                 `kubernetes://NAMESPACE?kubeconfig=FILE&context=CONTEXT`"
            );
            Error::new(ErrorKind::Misconfigured, Operation::Open, message).with_source(error)
        });
    }
    let (read, file) = match &found.kubeconfig {
        Some(path) => (Kubeconfig::read_from(path), format!("the kubeconfig {}", path.display())),
        None => (Kubeconfig::read(), "the kubeconfig".to_owned()),
    };
    let kubeconfig = read.map_err(|error| told(file.clone(), error))?;
    let options = KubeConfigOptions { context: found.context.clone(), ..Default::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
        let what = match &found.context {
            Some(context) => format!("the context `{context}` of {file}"),
            None => format!("the current context of {file}"),
        };
        told(what, error)
    })
}
