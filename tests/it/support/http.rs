//! Requests, responses, and a client that keeps its connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::websocket::Client;
use super::wire::{connect, connect_from, header_of, read_response_head, status_of};

/// Returns a request with header `lines`, each of which ends with CR LF. It has a Content-Length if there is
/// a body or the method is one that has a body.
pub fn request(method: &str, path: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = match method {
        "POST" | "PUT" => format!("Content-Length: {}\r\n", body.len()),
        _ if !body.is_empty() => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}{length}\r\n");
    [head.as_bytes(), body].concat()
}

/// Returns a GET request for `path`.
pub fn get(path: &str) -> Vec<u8> {
    request("GET", path, "", "")
}

/// Returns a POST request of `body` to `path`.
pub fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST", path, "", body)
}

/// Sends one request on a new connection and reads the response.
pub fn fetch(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    Http::connect(address).fetch(request)
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        status_of(&self.head)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.head, name)
    }

    /// Returns the body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Returns true if the response announces that the server closes the connection.
    pub fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

/// An HTTP/1.1 client that keeps its connection and relies on Content-Length.
pub struct Http {
    reader: BufReader<TcpStream>,
}

impl Http {
    pub fn connect(address: SocketAddr) -> Self {
        // A buffer of one byte, because another reader may take over the stream after a response.
        Self { reader: BufReader::with_capacity(1, connect(address)) }
    }

    /// Connects from an address of this host.
    pub fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        Self { reader: BufReader::with_capacity(1, connect_from(source, address)) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request and reads the response.
    pub fn fetch(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(&request);
        self.read(!request.as_ref().starts_with(b"HEAD "))
    }

    /// Reads one response. A response to HEAD has no body, whatever its Content-Length.
    pub fn read(&mut self, has_body: bool) -> Answer {
        self.try_read(has_body).expect("an answer")
    }

    /// Reads one response.
    ///
    /// # Errors
    ///
    /// The error that ended the stream before the first byte of a response.
    pub fn try_read(&mut self, has_body: bool) -> io::Result<Answer> {
        let has_ended = loop {
            match self.reader.fill_buf() {
                // A read with a timeout is not restarted after SIGCONT (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?.is_empty(),
            }
        };
        if has_ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let head = read_response_head(&mut self.reader);
        let status = status_of(&head);
        let bodiless = !has_body || status < 200 || matches!(status, 204 | 304);
        let length = header_of(&head, "Content-Length").map(|length| length.parse().unwrap());
        assert!(!matches!(status, 100..200 | 204) || length.is_none(), "{head}");
        let mut body = vec![0; length.filter(|_| !bodiless).unwrap_or(0)];
        assert!(bodiless || length.is_some(), "{head}");
        self.reader.read_exact(&mut body)?;
        Ok(Answer { head, body })
    }

    /// Checks that the stream ends without another byte.
    pub fn assert_ended(&mut self) {
        match self.reader.fill_buf() {
            Ok([]) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("no end: {:?}", other.map(String::from_utf8_lossy)),
        }
    }

    /// Turns an upgraded connection into a WebSocket client.
    pub fn into_client(self) -> Client {
        assert_eq!(self.reader.buffer(), b"", "whole answers were read");
        Client { stream: self.reader.into_inner() }
    }
}
