//! The client side of TLS, and the verification of the server's certificate.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::session::{Session, SharedBuffers, Side};
use super::setup::{TlsError, Trust};

/// A factory for the client side of TLS connections.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    buffers: Rc<SharedBuffers>,
}

impl Connector {
    /// Reads the trusted certificates.
    ///
    /// # Errors
    /// [`TlsError`], if no trusted certificate can be read.
    pub fn new(trust: &Trust) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(error.to_string()))?;
        let builder = match trust {
            Trust::System => builder.with_root_certificates(system_roots()?),
            Trust::File(path) => builder.with_root_certificates(roots(path)?),
            Trust::Any => {
                let verifier = Arc::new(AcceptAnyCertificate { provider });
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let config = Arc::new(builder.with_no_client_auth());
        Ok(Self { config, buffers: Rc::default() })
    }

    /// Creates a session with the server `host`: a name, or an address without brackets.
    pub(in crate::net) fn session(&self, host: &str) -> io::Result<Session> {
        let invalid = |error: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, format!("`{host}`: {error}"))
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| invalid(&error))?;
        UnbufferedClientConnection::new(self.config.clone(), name)
            .and_then(|client| Session::new(Side::Client(client), self.buffers.clone()))
            .map_err(|error| invalid(&error))
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return roots(Path::new(&path));
    }
    match SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.is_file()) {
        Some(path) => roots(path),
        None => Err(TlsError::new(format!(
            "no certificate authorities found on this host: expected one of {}",
            SYSTEM_ROOTS.join(", ")
        ))),
    }
}

/// Reads the certificates of a PEM file. Those that rustls can't parse are skipped, because the files
/// of distributions may contain some.
fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let file_error = |error: &dyn std::fmt::Display| {
        TlsError::new(format!("`{}`: {error}: expected certificates in PEM", path.display()))
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| file_error(&error))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(file_error(&"no certificate")) } else { Ok(roots) }
}

/// A verifier that accepts every certificate. The server must still prove with a signature that it has
/// the certificate's key.
#[derive(Debug)]
struct AcceptAnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The files of certificate authorities in distributions: Debian and Alpine, Fedora, openSUSE, and
/// others.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
