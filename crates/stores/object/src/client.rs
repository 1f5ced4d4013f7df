//! From a configuration to a client that sends each request once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ObjectStore, RetryConfig};
use tenure_core::{Error, ErrorKind, Operation};

use crate::config::{ObjectConfig, Place};
use crate::errors::Client;
use crate::pace::Pace;
use crate::records::Bucket;
use crate::seen::Seen;
use crate::wire::Wire;

/// How often Google's store takes a write of one object.
const GOOGLE_PACE: Duration = Duration::from_millis(1100);

/// Reads the environment, and makes the client. Nothing is sent.
///
/// # Errors
/// `Misconfigured`: credentials or certificates that can't be used.
pub(crate) fn bucket(config: &ObjectConfig) -> Result<Bucket, Error> {
    // Its own repetitions turn a write of ours that landed into somebody else's.
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let plain =
        |endpoint: &Option<String>| endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    let store: Arc<dyn ObjectStore> = match &config.place {
        Place::Client(client) => Arc::clone(client),
        Place::S3(bucket) => {
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(&bucket.name)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_retry(once)
                .with_http_connector(Wire::new(bucket.authorities.as_deref())?);
            if let Some(endpoint) = &bucket.endpoint {
                builder = builder.with_endpoint(endpoint).with_allow_http(plain(&bucket.endpoint));
            }
            if let Some(region) = &bucket.region {
                builder = builder.with_region(region);
            }
            Arc::new(builder.build().map_err(misfit)?)
        }
        Place::Google(bucket) => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(&bucket.name)
                .with_retry(once)
                .with_http_connector(Wire::new(bucket.authorities.as_deref())?);
            if let Some(endpoint) = &bucket.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            Arc::new(builder.build().map_err(misfit)?)
        }
        Place::Azure { container, account } => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(&container.name)
                .with_retry(once)
                .with_http_connector(Wire::new(container.authorities.as_deref())?);
            if let Some(account) = account {
                builder = builder.with_account(account);
            }
            if let Some(endpoint) = &container.endpoint {
                builder = builder
                    .with_endpoint(endpoint.clone())
                    .with_allow_http(plain(&container.endpoint));
            }
            Arc::new(builder.build().map_err(misfit)?)
        }
    };
    let google = matches!(config.place, Place::Google(_));
    let hosts = matches!(config.place, Place::Client(_));
    Ok(Bucket {
        store,
        client: if hosts { Client::Hosts } else { Client::Ours },
        generations: google,
        ordered: !hosts,
        pace: Arc::new(Pace::new(if google { GOOGLE_PACE } else { Duration::ZERO })),
        writes: Arc::clone(&config.writes),
        seen: Arc::new(Mutex::new(Seen::default())),
    })
}

/// What the environment holds may be a secret, so the client's words aren't repeated.
fn misfit(error: object_store::Error) -> Error {
    let what = match &error {
        object_store::Error::UnknownConfigurationKey { key, .. } => format!("`{key}`"),
        _ => "the credentials, account or endpoint".to_owned(),
    };
    let message = format!(
        "{what} of the environment or the URL can't be used; look at AWS_…, GOOGLE_… or AZURE_…, \
         and at `account` and `endpoint`"
    );
    Error::new(ErrorKind::Misconfigured, Operation::Open, message)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use object_store::PutOptions;
    use object_store::path::Path;
    use tenure_core::record_store::{Expected, Written};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request with the next of these, and tells what was asked.
    async fn asked(answers: &'static [&'static str], listener: TcpListener) -> Vec<String> {
        let mut asked = Vec::new();
        let (mut stream, _) = listener.accept().await.expect("a connection");
        for answer in answers {
            let mut request = vec![0; 8192];
            let mut length = 0;
            loop {
                length += stream.read(&mut request[length..]).await.expect("a request");
                let text = String::from_utf8_lossy(&request[..length]).to_lowercase();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let wanted = head.split_once("content-length: ").map_or(0, |(_, rest)| {
                    rest.lines().next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0)
                });
                if body.len() >= wanted {
                    asked.push(head.to_owned());
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).await.expect("an answer");
        }
        asked
    }

    const WRITTEN: &str = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nx-goog-generation: 1700\r\n\
                           Content-Length: 0\r\n\r\n";
    const REFUSED: &str = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n";
    const FOUND: &str = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nx-goog-generation: 1700\r\n\
                         Last-Modified: Sat, 21 Nov 2026 20:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}";
    const THE_SAME: &str = "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n";

    /// Google's store compares generations, where S3 and Azure compare etags.
    #[tokio::test]
    async fn requests_to_google_have_its_forms() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let answers = &[WRITTEN, REFUSED, WRITTEN, FOUND, THE_SAME];
        let server = tokio::spawn(asked(answers, listener));
        let store = GoogleCloudStorageBuilder::new()
            .with_bucket_name("bucket")
            .with_base_url(&format!("http://{address}"))
            .with_bearer_token("token")
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(Wire::new(None).expect("a connector"))
            .build()
            .expect("a client");
        let bucket = Bucket {
            store: Arc::new(store),
            client: Client::Ours,
            generations: true,
            ordered: true,
            pace: Arc::new(Pace::new(Duration::ZERO)),
            seen: Arc::default(),
            writes: Arc::new(AtomicU64::new(0)),
        };
        let object = Path::from("tenure/default/job");
        let write = |expected| bucket.write(&object, b"{}", expected, PutOptions::default());
        let written = write(Expected::Absent).await.expect("an answer");
        let Written::Written(version) = written else { panic!("{written:?}") };
        assert_eq!(write(Expected::Absent).await.expect("an answer"), Written::Conflict);
        write(Expected::Version(&version)).await.expect("an answer");
        *bucket.seen.lock().expect("nobody panicked") = Seen::default();
        for _ in 0..2 {
            let read = bucket.fetch(&object).await.expect("an answer").expect("an object");
            assert_eq!((read.bytes.as_slice(), read.tag.version()), (&b"{}"[..], version.clone()));
        }
        let asked = server.await.expect("it answers all");
        for (head, forms) in asked.iter().zip([
            ["put /bucket/tenure%2fdefault%2fjob ", "x-goog-if-generation-match: 0"],
            ["put /bucket/tenure%2fdefault%2fjob ", "x-goog-if-generation-match: 0"],
            ["put /bucket/tenure%2fdefault%2fjob ", "x-goog-if-generation-match: 1700"],
            ["get /bucket/tenure%2fdefault%2fjob ", "accept"],
            ["get /bucket/tenure%2fdefault%2fjob ", "if-none-match: \"e\""],
        ]) {
            assert!(head.starts_with(forms[0]), "{head}");
            assert!(forms[1] == "accept" || head.contains(forms[1]), "{forms:?} in {head}");
        }
    }
}
