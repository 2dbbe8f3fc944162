//! Servers and clients that speak TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::folder::Folder;
use super::process::Falconet;
use super::websocket::Client;
use super::wire::connect;

/// A server process that speaks TLS with a certificate it has signed itself, and its state directory.
pub struct TlsServer {
    pub falconet: Falconet,
    state: Folder,
}

impl TlsServer {
    /// Starts a server with more `flags`. No two tests may use the same `name`.
    pub fn start(name: &str, flags: &[&str]) -> Self {
        let state = Folder::new(name);
        let falconet = Self::start_in(&state.path, flags);
        Self { falconet, state }
    }

    /// Starts a server whose certificate authority is in `state`, or made there.
    pub fn start_in(state: &Path, flags: &[&str]) -> Falconet {
        let tls = ["--listen", "https://127.0.0.1:0", "--tls-self-signed", "--state-dir"];
        Falconet::start_with(Falconet::command().args(tls).arg(state).args(flags))
    }

    /// Returns the path of the certificate of its authority.
    pub fn certificate(&self) -> PathBuf {
        self.state.file("ca.pem")
    }

    pub fn address(&self) -> SocketAddr {
        self.falconet.address()
    }

    /// Opens a connection and completes its TLS handshake.
    pub fn connect(&self) -> TlsStream {
        connect_tls(self.address(), &tls_config(&self.certificate(), &TLS13)).unwrap()
    }

    /// Opens a WebSocket at `path`.
    pub fn client(&self, path: &str) -> Client<TlsStream> {
        Client::upgrade(self.connect(), path)
    }

    /// Returns the server's URL for `falconet-client`, with a host name that is in the certificate.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.address().port())
    }
}

/// Copies the certificate and the key called `name` from `tests/tls` to `tls-cert.pem` and `tls-key.pem` in
/// `directory`, and returns the certificate.
pub fn copy_pair(name: &str, directory: &Path) -> CertificateDer<'static> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    for part in ["cert", "key"] {
        let copy = directory.join(format!("tls-{part}.pem"));
        std::fs::copy(files.join(format!("{name}-{part}.pem")), copy).unwrap();
    }
    CertificateDer::from_pem_file(directory.join("tls-cert.pem")).unwrap()
}

pub type TlsStream<S = TcpStream> = StreamOwned<ClientConnection, S>;

/// Returns the configuration of a client that trusts one authority and speaks one version of TLS.
pub fn tls_config(
    certificate: &Path,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    tls_config_of(certificate, &[version])
}

/// Returns the configuration of a client that trusts one authority and speaks some versions of TLS.
pub fn tls_config_of(
    certificate: &Path,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// Opens a connection and completes its TLS handshake.
pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream> {
    connect_tls_over(connect(address), config)
}

/// Completes the TLS handshake over `stream`.
pub fn connect_tls_over<S: Read + Write>(
    mut stream: S,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(config.clone(), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}
