//! HTTP for `object_store`, on hyper: what came of a request is told as exactly as it is known.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpService,
};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tenure_core::{Error, ErrorKind, Operation};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a request may take, from the first byte to the last of its answer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next request: less than a server that closes idle ones
/// early, so that a renewal seldom meets a connection that is about to end.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How many idle connections are kept.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// The longest answer that is read, in bytes: a page of a listing is a few hundred thousand.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

type Https = HttpsConnector<TcpConnector>;

/// Makes the clients of `object_store`, all of which share one pool of connections.
#[derive(Clone)]
pub(crate) struct Wire {
    client: Client<Https, HttpRequestBody>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// A pool that trusts the authorities in a PEM file; none: those that browsers trust.
    ///
    /// # Errors
    /// `Misconfigured`: the file can't be used.
    pub(crate) fn new(authorities: Option<&Path>) -> Result<Self, Error> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                let message = format!("no TLS can be had: {error}");
                Error::new(ErrorKind::Misconfigured, Operation::Open, message)
            })?
            .with_root_certificates(roots(authorities)?)
            .with_no_client_auth();
        let mut tcp = TcpConnector::new();
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
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(https);
        Ok(Self { client })
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// What a server answered that `object_store` has no word for; certainly not with a success.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    /// The server's own code, such as `NoSuchBucket`; empty where it gave none.
    pub(crate) code: String,
    /// The region in which the server says that the bucket lies.
    pub(crate) region: Option<String>,
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Answered {}

/// The whole of [`ANSWER_MAX`] has passed.
#[derive(Debug)]
struct Silence;

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {} s", ANSWER_MAX.as_secs())
    }
}

impl std::error::Error for Silence {}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        tokio::time::timeout(ANSWER_MAX, self.exchange(request))
            .await
            .unwrap_or_else(|_| Err(HttpError::new(HttpErrorKind::Timeout, Silence)))
    }
}

impl Wire {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.request(request).await.map_err(|error| {
            // `Interrupted` where bytes may have left: it says that the outcome is unknown.
            let kind = if error.is_connect() {
                HttpErrorKind::Connect
            } else {
                HttpErrorKind::Interrupted
            };
            HttpError::new(kind, error)
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| HttpError::new_boxed(HttpErrorKind::Interrupted, error))?
            .to_bytes();
        if let Some(answered) = refusal(&parts, &body) {
            return Err(HttpError::new(HttpErrorKind::Unknown, answered));
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

/// The refusals that `object_store` would tell in a word for something else, or in none.
fn refusal(parts: &http::response::Parts, body: &[u8]) -> Option<Answered> {
    let status = parts.status;
    let known = matches!(
        status,
        StatusCode::NOT_MODIFIED
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::CONFLICT
            | StatusCode::FORBIDDEN
            | StatusCode::UNAUTHORIZED
    );
    if status.is_success() || known {
        return None;
    }
    let header = |name: &str| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let text = String::from_utf8_lossy(body);
    let code = header("x-ms-error-code").or_else(|| element(&text, "Code")).unwrap_or_default();
    // A missing object is an answer, a missing bucket isn't.
    let is_place =
        matches!(code.as_str(), "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName");
    if status == StatusCode::NOT_FOUND && !is_place {
        return None;
    }
    let region = header("x-amz-bucket-region").or_else(|| element(&text, "Region"));
    Some(Answered { status, code, region })
}

/// The text of an XML element that holds nothing but text.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    Some(text.trim().to_owned())
}

/// The authorities that are trusted.
fn roots(authorities: Option<&Path>) -> Result<RootCertStore, Error> {
    let Some(path) = authorities else {
        return Ok(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()));
    };
    let path = PathBuf::from(path);
    let misfit = |why: String| {
        let message = format!("the certificates in `{}` can't be used: {why}", path.display());
        Error::new(ErrorKind::Misconfigured, Operation::Open, message)
    };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(&path).map_err(|error| misfit(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| misfit(error.to_string()))?;
        roots.add(certificate).map_err(|error| misfit(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(misfit("there is none".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(status: u16, headers: &[(&str, &str)]) -> http::response::Parts {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    #[test]
    fn a_missing_object_is_an_answer_and_a_missing_bucket_is_not() {
        let missing = b"<Error><Code>NoSuchKey</Code></Error>";
        assert!(refusal(&parts(404, &[]), missing).is_none());
        let bucket = b"<?xml?><Error><Code>NoSuchBucket</Code></Error>";
        let told = refusal(&parts(404, &[]), bucket).expect("a refusal");
        assert_eq!(told.to_string(), "404 NoSuchBucket");
        let container = parts(404, &[("x-ms-error-code", "ContainerNotFound")]);
        assert_eq!(refusal(&container, b"").expect("a refusal").code, "ContainerNotFound");
    }

    #[test]
    fn a_redirection_names_the_region() {
        let elsewhere = parts(301, &[("x-amz-bucket-region", "eu-west-1")]);
        let told = refusal(&elsewhere, b"<Error><Code>PermanentRedirect</Code></Error>");
        assert_eq!(told.and_then(|told| told.region).as_deref(), Some("eu-west-1"));
        assert!(refusal(&parts(200, &[]), b"").is_none());
        assert!(refusal(&parts(412, &[]), b"").is_none());
    }
}
