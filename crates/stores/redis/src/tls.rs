//! Encrypted connections, with rustls and ring.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tenure_core::{Error, ErrorKind, Operation};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Tls;
use crate::errors::unreachable;

/// Encrypts a connection to a host that must prove its name.
///
/// # Errors
/// `Misconfigured`: the certificates that are to be trusted can't be read, or the host's isn't one
/// that they vouch for.
pub(crate) async fn encrypted(
    tls: &Tls,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let name = ServerName::try_from(host.to_owned()).map_err(unreachable)?;
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unreachable)?
        .with_root_certificates(roots(tls)?)
        .with_no_client_auth();
    let connecting = TlsConnector::from(Arc::new(client)).connect(name, stream);
    connecting.await.map_err(|error| {
        let invalid = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match invalid {
            Some(rustls::Error::InvalidCertificate(why)) => Error::new(
                ErrorKind::Misconfigured,
                Operation::Open,
                format!(
                    "the server's certificate isn't trusted ({why}); name its authority by \
                     `?ca=FILE`, or a host that the certificate is for"
                ),
            ),
            _ => unreachable(error),
        }
    })
}

/// The authorities that are trusted, read anew for each connection: the file may be replaced.
fn roots(tls: &Tls) -> Result<RootCertStore, Error> {
    let Some(path) = &tls.authorities else {
        return Ok(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()));
    };
    let misfit = |why: String| {
        let message = format!("the certificates in `{}` can't be used: {why}", path.display());
        Error::new(ErrorKind::Misconfigured, Operation::Open, message)
    };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| misfit(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| misfit(error.to_string()))?;
        roots.add(certificate).map_err(|error| misfit(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(misfit("there is none".to_owned()));
    }
    Ok(roots)
}
