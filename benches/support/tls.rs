//! TLS clients, which trust the certificate authority of the server under test.

use std::io::{self, Error, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs, process};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::clients;
use super::server::{Program, Server};

/// The client side of a TLS connection.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The directory in which the servers of this process keep their certificate authority. Dropping this value
/// removes the directory.
pub(crate) struct TlsDirectory {
    path: PathBuf,
}

impl TlsDirectory {
    /// Chooses a path. The server creates the directory.
    pub(crate) fn new() -> Self {
        Self { path: env::temp_dir().join(format!("falconet-bench-{}", process::id())) }
    }

    /// Returns `plain` with TLS and with a certificate authority in this directory.
    pub(crate) fn program(&self, plain: &Program) -> Program {
        let https = |option: &String| option.replace("http://", "https://");
        let directory = self.path.display().to_string();
        let certificate = ["--tls-self-signed".to_owned(), "--state-dir".to_owned(), directory];
        let options = plain.options.iter().map(https).chain(certificate).collect();
        Program { name: "falconet, TLS", path: plain.path.clone(), options }
    }

    /// Returns a client configuration that trusts the server's certificate authority.
    ///
    /// # Errors
    ///
    /// If no server has written the certificate of its authority here, or if rustls refuses it.
    pub(crate) fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let certificate = CertificateDer::from_pem_file(self.path.join("ca.pem"));
        let mut roots = RootCertStore::empty();
        roots.add(certificate.map_err(Error::other)?).map_err(Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl Drop for TlsDirectory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// Connects `count` WebSocket clients to `path` over TLS, one after the other. Their sockets are
/// non-blocking.
///
/// # Errors
///
/// If a connection or a handshake fails or takes longer than 5 s.
pub(crate) fn connect(
    server: &Server,
    directory: &TlsDirectory,
    count: usize,
    path: &str,
) -> io::Result<Vec<Stream>> {
    let config = directory.client_config()?;
    let connect = |_| {
        let socket = clients::open(server.address)?;
        let mut client = handshake(socket, &config)?;
        client.write_all(clients::request(server.address, path).as_bytes())?;
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            response.push(byte[0]);
        }
        clients::check_response(&response)?;
        client.sock.set_nonblocking(true)?;
        Ok(client)
    };
    (0..count).map(connect).collect()
}

/// Completes the TLS handshake on a blocking connection.
fn handshake(mut socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Stream> {
    let name = ServerName::try_from("localhost").map_err(Error::other)?;
    let mut connection = ClientConnection::new(config.clone(), name).map_err(Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(Stream::new(connection, socket))
}
