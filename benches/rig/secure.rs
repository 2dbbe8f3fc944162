//! What a client of a TLS server needs: trust in the certificate the server signed for itself.

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

/// A client's end of a TLS connection.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The directory that servers of this process keep their certificate in; it is gone when this value is
/// dropped.
pub(crate) struct State {
    directory: PathBuf,
}

impl State {
    /// Names a directory, which the server makes.
    pub(crate) fn new() -> Self {
        Self { directory: env::temp_dir().join(format!("falconet-bench-{}", process::id())) }
    }

    /// The same program where it speaks TLS: it signs a certificate and keeps it there.
    pub(crate) fn program(&self, plain: &Program) -> Program {
        let https = |option: &String| option.replace("http://", "https://");
        let directory = self.directory.display().to_string();
        let certificate = ["--tls-self-signed".to_owned(), "--state-dir".to_owned(), directory];
        let options = plain.options.iter().map(https).chain(certificate).collect();
        Program { name: "falconet, TLS", path: plain.path.clone(), options }
    }

    /// A client's settings, which trust that certificate.
    ///
    /// # Errors
    ///
    /// If no server has been there, or rustls does not like what it left.
    pub(crate) fn trusting(&self) -> io::Result<Arc<ClientConfig>> {
        let certificate = CertificateDer::from_pem_file(self.directory.join("tls-cert.pem"));
        let mut roots = RootCertStore::empty();
        roots.add(certificate.map_err(Error::other)?).map_err(Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// Connects `count` WebSocket clients to `path` over TLS, one after the other. Their sockets do not
/// block.
///
/// # Errors
///
/// If a connection or a handshake fails or takes longer than 5 s.
pub(crate) fn connect(
    server: &Server,
    state: &State,
    count: usize,
    path: &str,
) -> io::Result<Vec<Stream>> {
    let config = state.trusting()?;
    let connect = |_| {
        let socket = clients::open(server.address)?;
        let mut client = secure(socket, &config)?;
        client.write_all(clients::request(server.address, path).as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        clients::check_answer(&answer)?;
        client.sock.set_nonblocking(true)?;
        Ok(client)
    };
    (0..count).map(connect).collect()
}

/// Speaks TLS on a connection that blocks.
fn secure(mut socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Stream> {
    let name = ServerName::try_from("localhost").map_err(Error::other)?;
    let mut connection = ClientConnection::new(config.clone(), name).map_err(Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(Stream::new(connection, socket))
}
