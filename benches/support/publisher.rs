//! A publisher that reuses one HTTP connection until the server closes it.

use std::io::{self, BufRead, BufReader, Error, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::server::Server;

/// An HTTP client that publishes to one topic.
pub(crate) struct Publisher<'s> {
    server: &'s Server,
    request: String,
    connection: Option<BufReader<TcpStream>>,
}

impl<'s> Publisher<'s> {
    /// Returns a publisher of `message` to `topic`. It connects at the first publish.
    pub(crate) fn new(server: &'s Server, topic: &str, message: &str) -> Self {
        let (host, length) = (server.address, message.len());
        let request = format!(
            "POST /topics/{topic} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{message}"
        );
        Self { server, request, connection: None }
    }

    /// Publishes once and waits for the response.
    ///
    /// # Errors
    ///
    /// If the status is not 202, or if no response arrives within 5 s.
    pub(crate) fn publish(&mut self) -> io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(connect(self.server)?),
        };
        connection.get_mut().write_all(self.request.as_bytes())?;
        let (mut length, mut last, mut line) = (0, false, String::new());
        connection.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 202 ") {
            return Err(Error::other(format!("publish failed: {line:?}; expected status 202")));
        }
        while line != "\r\n" {
            line.clear();
            connection.read_line(&mut line)?;
            last |= line == "Connection: close\r\n";
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim_end().parse().map_err(Error::other)?;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        self.connection = Some(connection).filter(|_| !last);
        Ok(())
    }
}

fn connect(server: &Server) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server.address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Longest time for a connection or a response.
const TIMEOUT: Duration = Duration::from_secs(5);
