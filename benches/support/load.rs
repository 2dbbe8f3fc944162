//! The load of the echo bench: many connections that each send messages and wait for their echoes.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::clients;
use super::readiness::Readiness;
use super::server::Server;
use super::tls::{self, Stream, TlsDirectory};

/// Connections that send text messages and check every byte of the echoes.
pub(crate) struct Load {
    /// `None` once a connection has failed.
    connections: Vec<Option<Connection>>,
    readiness: Readiness,
}

/// The results of one [`Load::run`].
#[derive(Default)]
pub(crate) struct Counters {
    /// Microseconds from before the first byte of a message is written until the last byte of its
    /// echo is compared. Messages sent in one write have one entry: the latency of the last.
    pub(crate) latencies: Vec<f64>,
    /// Time from the first message sent to the last echo read.
    pub(crate) elapsed: Duration,
    /// One text for each connection that was closed or received other bytes than its echo, and one
    /// for all missing echoes.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Connects `connections` clients. Each sends messages of `payload_bytes`, `at_once` of them in
    /// one write.
    ///
    /// # Errors
    ///
    /// If a client cannot connect.
    pub(crate) fn connect(
        server: &Server,
        connections: usize,
        payload_bytes: u16,
        at_once: usize,
    ) -> io::Result<Self> {
        let streams = clients::connect(server, connections, "/")?;
        Self::new(streams.into_iter().map(Transport::Plain).collect(), payload_bytes, at_once)
    }

    /// Connects `connections` clients over TLS. Each sends one message of `payload_bytes` at a time.
    ///
    /// # Errors
    ///
    /// If a client cannot connect.
    pub(crate) fn connect_tls(
        server: &Server,
        directory: &TlsDirectory,
        connections: usize,
        payload_bytes: u16,
    ) -> io::Result<Self> {
        let streams = tls::connect(server, directory, connections, "/")?;
        let streams = streams.into_iter().map(|stream| Transport::Tls(Box::new(stream))).collect();
        Self::new(streams, payload_bytes, 1)
    }

    fn new(streams: Vec<Transport>, payload_bytes: u16, at_once: usize) -> io::Result<Self> {
        let readiness = Readiness::of(streams.iter().map(Transport::socket))?;
        let connections = streams
            .into_iter()
            .enumerate()
            .map(|(index, stream)| Some(Connection::new(stream, index, payload_bytes, at_once)))
            .collect();
        Ok(Self { connections, readiness })
    }

    /// Sends messages on every connection for `duration`. A connection sends its next messages once the
    /// echoes of the previous ones have arrived. Then waits at most 5 s for the last echoes.
    ///
    /// # Errors
    ///
    /// If epoll fails. An error on a connection is reported in [`Counters::failures`].
    pub(crate) fn run(&mut self, duration: Duration) -> io::Result<Counters> {
        let Self { connections, readiness } = self;
        let mut counters = Counters::default();
        let mut scratch = vec![0; SCRATCH_BYTES];
        let start = Instant::now();
        let (end, deadline) = (start + duration, start + duration + TIMEOUT);

        for connection in connections.iter_mut().flatten() {
            connection.begin();
        }
        let mut active = connections.iter().flatten().count();
        let mut ready: Vec<usize> = (0..connections.len()).collect();
        loop {
            for index in ready.drain(..) {
                let Some(connection) = &mut connections[index] else { continue };
                match step(connection, end, &mut counters.latencies, &mut scratch) {
                    Ok(false) => {}
                    Ok(true) => active -= 1,
                    Err(error) => {
                        counters.failures.push(format!("connection {index}: {error}"));
                        connections[index] = None;
                        active -= 1;
                    }
                }
            }
            if active == 0 || Instant::now() >= deadline {
                break;
            }
            ready.extend(readiness.wait(deadline)?);
        }
        counters.elapsed = start.elapsed();
        if active > 0 {
            let failure = format!("{active} connections got no echo within {TIMEOUT:?}");
            counters.failures.push(failure);
        }
        Ok(counters)
    }
}

/// Writes and reads as much as possible without waiting. Once the echo is complete, begins the
/// next message if `end` has not passed. Returns true if the connection is done.
fn step(
    connection: &mut Connection,
    end: Instant,
    latencies: &mut Vec<f64>,
    scratch: &mut [u8],
) -> io::Result<bool> {
    let Some(latency) = connection.advance(scratch)? else { return Ok(false) };
    latencies.push(latency.as_secs_f64() * 1e6);
    if Instant::now() >= end {
        return Ok(true);
    }
    connection.begin();
    connection.send()?;
    Ok(false)
}

/// The byte stream of one client.
enum Transport {
    Plain(TcpStream),
    Tls(Box<Stream>),
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }
}

/// One client. Every client has a different message, so that an echo to the wrong client is found.
struct Connection {
    stream: Transport,
    /// The masked frames to send.
    message: Vec<u8>,
    /// Bytes of `message` that are written.
    sent_bytes: usize,
    /// The expected answer.
    echo: Vec<u8>,
    /// Bytes of `echo` that have arrived.
    echoed_bytes: usize,
    /// Start time of the current message; `None` between two messages.
    begun: Option<Instant>,
}

impl Connection {
    fn new(stream: Transport, index: usize, payload_bytes: u16, at_once: usize) -> Self {
        let payload = format!("{index:0>width$}", width = usize::from(payload_bytes));
        let mut echo = frame_head(payload_bytes, 0);
        echo.extend(payload.bytes());
        let mut message = frame_head(payload_bytes, MASKED);
        message.extend(MASK);
        message.extend(payload.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let (message, echo) = (message.repeat(at_once), echo.repeat(at_once));
        Self { stream, message, sent_bytes: 0, echo, echoed_bytes: 0, begun: None }
    }

    fn begin(&mut self) {
        (self.sent_bytes, self.echoed_bytes) = (0, 0);
        self.begun = Some(Instant::now());
    }

    /// Writes as much of the rest of the message as the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while self.sent_bytes < self.message.len() {
            match self.stream.write(&self.message[self.sent_bytes..]) {
                Ok(written) => self.sent_bytes += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes and reads as much as possible without waiting. Returns the latency once the echo is
    /// complete.
    fn advance(&mut self, scratch: &mut [u8]) -> io::Result<Option<Duration>> {
        let Some(begun) = self.begun else { return Ok(None) };
        self.send()?;
        while self.echoed_bytes < self.echo.len() {
            let read = match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            if !self.echo[self.echoed_bytes..].starts_with(&scratch[..read]) {
                return Err(Error::new(ErrorKind::InvalidData, "the echo differs"));
            }
            self.echoed_bytes += read;
        }
        self.begun = None;
        Ok(Some(begun.elapsed()))
    }
}

/// Returns the header of an unfragmented text frame (RFC 6455, section 5.2), without the masking
/// key.
fn frame_head(payload_bytes: u16, mask_bit: u8) -> Vec<u8> {
    let [high, low] = payload_bytes.to_be_bytes();
    match payload_bytes {
        0..=125 => vec![FINAL_TEXT, mask_bit | low],
        _ => vec![FINAL_TEXT, mask_bit | LENGTH_IN_TWO_BYTES, high, low],
    }
}

const FINAL_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const LENGTH_IN_TWO_BYTES: u8 = 126;

/// The masking key of every message. A browser takes a random key for each message; for the server
/// the cost is the same.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Longest time for the last echoes after the load has ended.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Size of the buffer for one read.
const SCRATCH_BYTES: usize = 32 * 1024;
