//! The load of the echo bench: many connections, each with so many messages on their way at a time.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::clients;
use super::readiness::Readiness;
use super::secure::{self, State, Stream};
use super::server::Server;

/// Connections that send text messages and check that each comes back whole.
pub(crate) struct Load {
    /// `None` once a connection has failed.
    connections: Vec<Option<Connection>>,
    readiness: Readiness,
}

/// What one spell of load saw.
#[derive(Default)]
pub(crate) struct Counters {
    /// How long each echo took, in microseconds: from before the first byte is written until the
    /// last is read and compared. Of messages sent at once, the last one's.
    pub(crate) latencies: Vec<f64>,
    /// From the first message sent to the last echo read.
    pub(crate) elapsed: Duration,
    /// The connections that were lost, that got something other than their echo, or that got none.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Connects `connections` clients whose messages have `payload_bytes`, and that send `at_once` of
    /// them in one go.
    ///
    /// # Errors
    ///
    /// If one of them cannot connect.
    pub(crate) fn connect(
        server: &Server,
        connections: usize,
        payload_bytes: u16,
        at_once: usize,
    ) -> io::Result<Self> {
        let streams = clients::connect(server, connections, "/")?;
        Self::over(streams.into_iter().map(Wire::Plain).collect(), payload_bytes, at_once)
    }

    /// The same over TLS.
    ///
    /// # Errors
    ///
    /// If one of them cannot connect.
    pub(crate) fn connect_secure(
        server: &Server,
        state: &State,
        connections: usize,
        payload_bytes: u16,
    ) -> io::Result<Self> {
        let streams = secure::connect(server, state, connections, "/")?;
        let wires = streams.into_iter().map(|stream| Wire::Tls(Box::new(stream))).collect();
        Self::over(wires, payload_bytes, 1)
    }

    fn over(streams: Vec<Wire>, payload_bytes: u16, at_once: usize) -> io::Result<Self> {
        let readiness = Readiness::of(streams.iter().map(Wire::socket))?;
        let connections = streams
            .into_iter()
            .enumerate()
            .map(|(index, stream)| Some(Connection::new(stream, index, payload_bytes, at_once)))
            .collect();
        Ok(Self { connections, readiness })
    }

    /// Keeps one message, or those sent at once, of each connection on its way for `duration`, then waits at most 5 s for
    /// the last echoes.
    ///
    /// # Errors
    ///
    /// If epoll fails. What goes wrong on a connection is counted in the counters.
    pub(crate) fn drive(&mut self, duration: Duration) -> io::Result<Counters> {
        let Self { connections, readiness } = self;
        let mut counters = Counters::default();
        let mut scratch = vec![0; SCRATCH_BYTES];
        let begun = Instant::now();
        let (end, last_call) = (begun + duration, begun + duration + PATIENCE);

        for connection in connections.iter_mut().flatten() {
            connection.begin();
        }
        let mut under_way = connections.iter().flatten().count();
        let mut ready: Vec<usize> = (0..connections.len()).collect();
        loop {
            for index in ready.drain(..) {
                let Some(connection) = &mut connections[index] else { continue };
                match turn(connection, end, &mut counters.latencies, &mut scratch) {
                    Ok(false) => {}
                    Ok(true) => under_way -= 1,
                    Err(error) => {
                        counters.failures.push(format!("connection {index}: {error}"));
                        connections[index] = None;
                        under_way -= 1;
                    }
                }
            }
            if under_way == 0 || Instant::now() >= last_call {
                break;
            }
            ready.extend(readiness.wait(last_call)?);
        }
        counters.elapsed = begun.elapsed();
        if under_way > 0 {
            let failure = format!("{under_way} messages were not echoed within {PATIENCE:?}");
            counters.failures.push(failure);
        }
        Ok(counters)
    }
}

/// Moves a connection on as far as it goes without waiting, into its next message too if it is not
/// yet `end`. Returns whether it has come to rest.
fn turn(
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

/// A client's byte stream.
enum Wire {
    Plain(TcpStream),
    Tls(Box<Stream>),
}

impl Wire {
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

/// One client. Its message is its own, so that an echo to the wrong client is found out.
struct Connection {
    stream: Wire,
    /// What it sends, in masked frames, and how much of it is written.
    message: Vec<u8>,
    sent_bytes: usize,
    /// What must come back, and how much of it has.
    echo: Vec<u8>,
    echoed_bytes: usize,
    /// When the message under way was begun.
    begun: Option<Instant>,
}

impl Connection {
    fn new(stream: Wire, index: usize, payload_bytes: u16, at_once: usize) -> Self {
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

    /// Writes what is left of the message, as far as there is room.
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

    /// Writes and reads as far as it goes without waiting. Once the echo is whole, returns how long
    /// it took.
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

/// The head of a whole text frame (RFC 6455, section 5.2), without the masking key.
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

/// The masking key of every message. A browser draws one for each, which costs the server nothing.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// How long the last echoes may take after the time is up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much is read at once.
const SCRATCH_BYTES: usize = 32 * 1024;
