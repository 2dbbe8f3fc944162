//! Raw connections, and the heads of requests and responses as text.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, socket};

use super::wait::TIMEOUT;

/// Opens a TCP connection whose reads and writes fail after [`TIMEOUT`].
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).expect("the server accepts");
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Opens a TCP connection from an address of this host. Its reads fail after [`TIMEOUT`].
pub fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Sends `request`, closes the sending side, and returns everything up to the end of the stream.
pub fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut stream = connect(address);
    // The server may refuse before it has read everything.
    let _ = stream.write_all(request.as_ref());
    // The server closes a kept connection once no further request can arrive.
    let _ = stream.shutdown(Shutdown::Write);
    String::from_utf8(rest_of(stream)).expect("answers are UTF-8")
}

/// Reads to the end of a stream. An error such as a reset ends it, too.
///
/// # Panics
///
/// If the read timeout passes first.
pub fn rest_of(mut stream: impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the stream does not end");
    }
    rest
}

/// Returns a request head that asks for a WebSocket at `path`.
pub fn handshake(path: &str) -> String {
    handshake_with(path, "")
}

/// Returns a request head that asks for a WebSocket at `path`, with more header `lines`, each of which
/// ends with CR LF.
pub fn handshake_with(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// Reads a response head, up to and including its empty line.
pub fn read_response_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            // A read with a timeout is not restarted after SIGCONT (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).expect("heads are ASCII")
}

/// Returns the status code of a response.
pub fn status_of(response: &str) -> u16 {
    let code = response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    code.unwrap_or_else(|| panic!("not a response: {response:?}"))
}

/// Returns the value of the header `name` in a response or a request.
pub fn header_of<'r>(response: &'r str, name: &str) -> Option<&'r str> {
    let head = response.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Returns the text after the head of a response or a request.
pub fn body_of(response: &str) -> &str {
    response.split_once("\r\n\r\n").expect("a head ends with an empty line").1
}
