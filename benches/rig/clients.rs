//! WebSocket clients: bare sockets that have done their handshake.

use std::fs;
use std::io::{self, Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::server::Server;

/// The numbers of clients in `wanted`, ascending, cut to what the limit of open files allows. Says
/// so if that is fewer.
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

/// Connects `count` WebSocket clients to `path`, at most 100 at a time. Their sockets do not block.
///
/// # Errors
///
/// If a connection or a handshake fails or takes longer than 5 s; the error says whose.
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
    clients.iter_mut().try_for_each(read_answer)?;
    Ok(clients)
}

fn send_request(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut client = open(address)?;
    client.write_all(request(address, path).as_bytes())?;
    Ok(client)
}

/// Opens a connection whose reads have a deadline.
///
/// # Errors
///
/// If that takes longer than 5 s.
pub(crate) fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let client = TcpStream::connect_timeout(&address, PATIENCE)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    Ok(client)
}

/// What asks for a WebSocket.
pub(crate) fn request(address: SocketAddr, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// Says whether that was allowed.
///
/// # Errors
///
/// If it was not.
pub(crate) fn check_answer(answer: &[u8]) -> io::Result<()> {
    let head = String::from_utf8_lossy(answer);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
        return Err(Error::other(format!("refused: {head:?}")));
    }
    Ok(())
}

/// Reads the answer to the upgrade, and not a byte of the frames that may follow it.
fn read_answer(client: &mut TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut answer = [0; 1024];
    while Instant::now() < deadline {
        let seen = client.peek(&mut answer)?;
        let head_end = answer[..seen].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(head_end) = head_end {
            client.read_exact(&mut answer[..head_end + 4])?;
            check_answer(&answer[..head_end])?;
            return client.set_nonblocking(true);
        }
        if seen == 0 || seen == answer.len() {
            return Err(Error::other("closed or overlong in the handshake"));
        }
    }
    Err(Error::new(io::ErrorKind::TimedOut, "no whole answer to the upgrade"))
}

/// Files kept free beside the clients: falconet itself keeps 32 back.
const SPARE_FILES: usize = 64;

/// How many handshakes are under way at once; the smallest backlog in use holds them.
const BATCH_CLIENTS: usize = 100;

/// How long a connection or its handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The key of RFC 6455, section 1.3, and the answer that section gives to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
