//! A publisher that holds one HTTP connection as long as the server lets it.

use std::io::{self, BufRead, BufReader, Error, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::server::Server;

/// Publishes to one topic.
pub(crate) struct Publisher<'s> {
    server: &'s Server,
    request: String,
    connection: Option<BufReader<TcpStream>>,
}

impl<'s> Publisher<'s> {
    /// A publisher of `message` to `topic`; it connects when it publishes.
    pub(crate) fn new(server: &'s Server, topic: &str, message: &str) -> Self {
        let (host, length) = (server.address, message.len());
        let request = format!(
            "POST /topics/{topic} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{message}"
        );
        Self { server, request, connection: None }
    }

    /// Publishes once and waits for the answer.
    ///
    /// # Errors
    ///
    /// If the answer is not 202 or does not come within 5 s.
    pub(crate) fn publish(&mut self) -> io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(connect(self.server)?),
        };
        connection.get_mut().write_all(self.request.as_bytes())?;
        let (mut length, mut last, mut line) = (0, false, String::new());
        connection.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 202 ") {
            return Err(Error::other(format!("not published: {line:?}")));
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
    let stream = TcpStream::connect_timeout(&server.address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// How long a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
