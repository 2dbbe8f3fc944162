//! WebSocket clients: plain sockets on which the handshake is complete.

use std::fs;
use std::io::{self, Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::server::Server;

/// Returns the client counts in `wanted` (ascending), each reduced to what the limit on open files
/// allows. Prints a line if any count is reduced.
///
/// # Errors
///
/// If `/proc/self/limits` cannot be read.
pub(crate) fn affordable(wanted: &[usize]) -> io::Result<Vec<usize>> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let soft_limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(usize::MAX);
    let most = soft_limit.saturating_sub(SPARE_FILES);
    let mut affordable: Vec<usize> = wanted.iter().map(|&count| count.min(most)).collect();
    affordable.dedup();
    if affordable != wanted {
        println!("scaled down: ulimit -n is {soft_limit}, which allows {most} clients");
    }
    Ok(affordable)
}

/// Connects `count` WebSocket clients to `path`, at most 100 at a time. Returns non-blocking
/// sockets.
///
/// # Errors
///
/// If a connection or a handshake fails or takes longer than 5 s. The error names the server and
/// the number of clients connected before.
pub(crate) fn connect(server: &Server, count: usize, path: &str) -> io::Result<Vec<TcpStream>> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let batch = BATCH_CLIENTS.min(count - clients.len());
        let batch = connect_batch(server.address, batch, path).map_err(|error| {
            let (name, connected) = (server.name, clients.len());
            Error::new(error.kind(), format!("{name}, with {connected} clients: {error}"))
        })?;
        clients.extend(batch);
    }
    Ok(clients)
}

fn connect_batch(address: SocketAddr, count: usize, path: &str) -> io::Result<Vec<TcpStream>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(send_request(address, path)?);
    }
    clients.iter_mut().try_for_each(read_response)?;
    Ok(clients)
}

fn send_request(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut client = open(address)?;
    client.write_all(request(address, path).as_bytes())?;
    Ok(client)
}

/// Opens a connection. A read on it fails after 5 s.
///
/// # Errors
///
/// If the server cannot be reached within 5 s.
pub(crate) fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let client = TcpStream::connect_timeout(&address, TIMEOUT)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(TIMEOUT))?;
    Ok(client)
}

/// Returns an upgrade request for a WebSocket at `path`.
pub(crate) fn request(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// Checks that the server has accepted the upgrade.
///
/// # Errors
///
/// If the response is not a 101 with the right `Sec-WebSocket-Accept`.
pub(crate) fn check_response(response: &[u8]) -> io::Result<()> {
    let head = String::from_utf8_lossy(response);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
        return Err(Error::other(format!("upgrade refused: {head:?}")));
    }
    Ok(())
}

/// Reads the response to the upgrade, and none of the frames that may follow it.
fn read_response(client: &mut TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut response = [0; 1024];
    while Instant::now() < deadline {
        let peeked = client.peek(&mut response)?;
        let head_end = response[..peeked].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(head_end) = head_end {
            client.read_exact(&mut response[..head_end + 4])?;
            check_response(&response[..head_end])?;
            return client.set_nonblocking(true);
        }
        if peeked == 0 || peeked == response.len() {
            return Err(Error::other(
                "the server closed the connection during the handshake, or sent a head that is too long",
            ));
        }
    }
    Err(Error::new(io::ErrorKind::TimedOut, "no complete response to the upgrade"))
}

/// Open files that are not used for clients. falconet itself reserves 32.
const SPARE_FILES: usize = 64;

/// Handshakes in progress at once. The smallest listen backlog among the servers has room for them.
const BATCH_CLIENTS: usize = 100;

/// Longest time for a connection or its handshake.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The example key of RFC 6455, section 1.3, and the accept value that belongs to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
