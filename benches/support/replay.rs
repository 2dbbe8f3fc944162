//! Readers of a long history, and a client that measures how long an echo takes meanwhile.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::clients;
use super::server::Server;
use super::tls::{self, TlsDirectory};

/// A connection, plain or TLS.
pub(crate) trait Connection: Read + Write + Send {}

impl<C: Read + Write + Send> Connection for C {}

/// Connects `count` WebSocket clients to `path`, over TLS if there is a directory.
///
/// # Errors
///
/// If a connection or a handshake fails.
pub(crate) fn websockets(
    server: &Server,
    directory: Option<&TlsDirectory>,
    count: usize,
    path: &str,
) -> io::Result<Vec<Box<dyn Connection>>> {
    let mut connections: Vec<Box<dyn Connection>> = Vec::new();
    match directory {
        Some(directory) => {
            for stream in tls::connect(server, directory, count, path)? {
                stream.sock.set_nonblocking(false)?;
                connections.push(Box::new(stream));
            }
        }
        None => {
            for stream in clients::connect(server, count, path)? {
                stream.set_nonblocking(false)?;
                connections.push(Box::new(stream));
            }
        }
    }
    Ok(connections)
}

/// Opens `count` event streams at `path`.
///
/// # Errors
///
/// If a connection fails.
pub(crate) fn event_streams(
    server: &Server,
    count: usize,
    path: &str,
) -> io::Result<Vec<Box<dyn Connection>>> {
    let open = |_| {
        let mut stream = clients::open(server.address)?;
        let host = server.address;
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let connection: Box<dyn Connection> = Box::new(stream);
        Ok(connection)
    };
    (0..count).map(open).collect()
}

/// Publishes `text`, of at most 125 bytes, `count` times, over a WebSocket that only publishes to a topic.
///
/// # Errors
///
/// If the connection fails, or if the server does not answer the Close that follows.
pub(crate) fn fill(connection: &mut dyn Connection, text: &str, count: usize) -> io::Result<()> {
    let mut frame = vec![FINAL_TEXT, MASKED | text.len() as u8, 0, 0, 0, 0];
    frame.extend(text.bytes());
    for begin in (0..count).step_by(FRAMES_PER_WRITE) {
        connection.write_all(&frame.repeat(FRAMES_PER_WRITE.min(count - begin)))?;
    }
    connection.write_all(&CLOSE)?;
    // The server reads the Close after all messages.
    let mut close = [0; 2];
    connection.read_exact(&mut close)?;
    match close[0] == CLOSE[0] {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::InvalidData, "not a Close")),
    }
}

/// The delays of an echo while histories were read.
pub(crate) struct Replay {
    /// The time until every reader had everything.
    pub(crate) duration: Duration,
    /// Milliseconds of each round trip meanwhile.
    pub(crate) delays: Vec<f64>,
}

impl Replay {
    /// Opens readers with `connect`, lets each one read until it has received `count` bytes with the value
    /// `mark`, and measures one round trip of `canary` after another until all are done.
    ///
    /// # Errors
    ///
    /// If a connection fails, or nothing arrives for 5 s.
    pub(crate) fn measure(
        canary: &mut dyn Connection,
        mark: u8,
        count: usize,
        connect: impl FnOnce() -> io::Result<Vec<Box<dyn Connection>>>,
    ) -> io::Result<Self> {
        let (begin, is_done) = (Instant::now(), AtomicBool::new(false));
        thread::scope(|scope| {
            let measuring = scope.spawn(|| echo(canary, &is_done));
            let reading = connect().and_then(|connections| {
                let read = |mut connection: Box<dyn Connection>| {
                    scope.spawn(move || read(&mut *connection, mark, count))
                };
                let readers: Vec<_> = connections.into_iter().map(read).collect();
                readers.into_iter().try_for_each(|reader| join(reader.join()))
            });
            let duration = begin.elapsed();
            is_done.store(true, Ordering::Relaxed);
            let delays = join(measuring.join());
            reading?;
            Ok(Self { duration, delays: delays? })
        })
    }
}

fn join<T>(ended: thread::Result<io::Result<T>>) -> io::Result<T> {
    ended.unwrap_or_else(|_| Err(Error::other("a thread of the bench panicked")))
}

/// Reads until `count` bytes with the value `mark` have arrived.
fn read(connection: &mut dyn Connection, mark: u8, count: usize) -> io::Result<()> {
    let (mut marks, mut buffer) = (0, vec![0; BUFFER_BYTES]);
    while marks < count {
        let read = connection.read(&mut buffer)?;
        if read == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed a reader"));
        }
        marks += buffer[..read].iter().filter(|byte| **byte == mark).count();
    }
    Ok(())
}

/// Echoes a short message again and again until `is_done`, at least once. Returns the milliseconds of each
/// round trip.
fn echo(canary: &mut dyn Connection, is_done: &AtomicBool) -> io::Result<Vec<f64>> {
    let mut delays = Vec::new();
    while delays.is_empty() || !is_done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        canary.write_all(&MESSAGE)?;
        let mut echo = [0; ECHO.len()];
        canary.read_exact(&mut echo)?;
        if echo != ECHO {
            return Err(Error::new(ErrorKind::InvalidData, "the echo differs"));
        }
        delays.push(begin.elapsed().as_secs_f64() * 1e3);
        // A canary without pauses would compete with the readers for processors.
        thread::sleep(PAUSE);
    }
    Ok(delays)
}

const FINAL_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;

/// Frames whose mask is 0.
const MESSAGE: [u8; 8] = [FINAL_TEXT, MASKED | 2, 0, 0, 0, 0, b'h', b'i'];
const CLOSE: [u8; 6] = [0x88, MASKED, 0, 0, 0, 0];

/// The echo of [`MESSAGE`].
const ECHO: [u8; 4] = [FINAL_TEXT, 2, b'h', b'i'];

/// Frames that are written at once.
const FRAMES_PER_WRITE: usize = 1000;

/// Size of the buffer for one read.
const BUFFER_BYTES: usize = 64 * 1024;

/// Pause of the canary between two messages.
const PAUSE: Duration = Duration::from_millis(1);
