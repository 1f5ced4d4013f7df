//! Encrypted connections, with rustls and ring.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tenure_core::{Error, ErrorKind, Operation};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{PostgresConfig, Tls};

/// What makes encrypted connections of a configuration.
///
/// # Errors
/// `Misconfigured`: the certificates that it names can't be read.
pub(crate) fn connector(config: &PostgresConfig) -> Result<MakeRustlsConnect, Error> {
    let provider = Arc::new(ring::default_provider());
    let misfit = |error: rustls::Error| {
        Error::new(ErrorKind::Misconfigured, Operation::Open, "TLS can't be set up")
            .with_source(error)
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(misfit)?;
    let client = match config.tls {
        Tls::VerifyFull => builder.with_root_certificates(roots(config)?).with_no_client_auth(),
        Tls::Disable | Tls::Prefer | Tls::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            .with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(client))
}

fn roots(config: &PostgresConfig) -> Result<RootCertStore, Error> {
    let Some(path) = &config.root_certificates else {
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

/// Takes any certificate, as libpq's `prefer` and `require` do: the connection is encrypted, and
/// nothing proves who is at its other end.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
