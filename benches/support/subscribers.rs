//! The subscribers of the fanout bench: clients that send nothing and time the frames they receive.

use std::io::{self, Error, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::clients;
use super::readiness::Readiness;
use super::server::Server;

/// Clients of one server that all wait for the same broadcasts.
pub(crate) struct Subscribers {
    clients: Vec<Client>,
    readiness: Readiness,
    /// The index of each client that has a complete frame, and the time at which the frame was
    /// complete; in order of time.
    arrivals: Vec<(usize, Instant)>,
}

/// The delivery of one broadcast to all subscribers.
#[derive(Default)]
pub(crate) struct Delivery {
    /// Time from the first client with the complete frame to the last, as this process read them.
    pub(crate) spread: Duration,
    /// Number of clients that received the same bytes as the first client.
    pub(crate) delivered: usize,
}

impl Subscribers {
    /// Connects `count` clients to `path`.
    ///
    /// # Errors
    ///
    /// If a client cannot connect.
    pub(crate) fn connect(server: &Server, count: usize, path: &str) -> io::Result<Self> {
        let streams = clients::connect(server, count, path)?;
        let readiness = Readiness::of(&streams)?;
        let clients = streams.into_iter().map(|stream| Client { stream, received: Vec::new() });
        Ok(Self { clients: clients.collect(), readiness, arrivals: Vec::with_capacity(count) })
    }

    /// Reads and discards everything until nothing has arrived for `quiet`.
    ///
    /// # Errors
    ///
    /// If epoll fails, or if data still arrives after 5 s.
    pub(crate) fn discard_until_quiet(&mut self, quiet: Duration) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while self.read_ready(Instant::now() + quiet)? {
            if Instant::now() > deadline {
                return Err(Error::other(format!(
                    "the server did not pause for {quiet:?} within {TIMEOUT:?}"
                )));
            }
        }
        self.arrivals.clear();
        self.clients.iter_mut().for_each(|client| client.received.clear());
        Ok(())
    }

    /// Waits until every client has received the next broadcast, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// If epoll fails. A client that is disconnected or receives other bytes is not an error; it
    /// is not counted in [`Delivery::delivered`].
    pub(crate) fn next_broadcast(&mut self, timeout: Duration) -> io::Result<Delivery> {
        let deadline = Instant::now() + timeout;
        while self.arrivals.len() < self.clients.len() && Instant::now() < deadline {
            self.read_ready(deadline)?;
        }
        Ok(self.take_broadcast())
    }

    /// Removes the oldest complete frame of every client, and returns the totals.
    fn take_broadcast(&mut self) -> Delivery {
        let frames: Vec<_> = self.clients.iter_mut().map(Client::take_frame).collect();
        let mut delivery = Delivery::default();
        if let (Some(&(first, from)), Some(&(_, until))) =
            (self.arrivals.first(), self.arrivals.last())
        {
            delivery.spread = until - from;
            delivery.delivered = frames.iter().filter(|frame| **frame == frames[first]).count();
        }
        self.arrivals.clear();
        // If a slow server has begun the next broadcast already, its frames count for the next call.
        for (index, client) in self.clients.iter().enumerate() {
            if client.has_frame() {
                self.arrivals.push((index, Instant::now()));
            }
        }
        delivery
    }

    /// Waits until `deadline` for clients to be ready, and reads from them. Returns true if any
    /// client was ready.
    fn read_ready(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut any = false;
        for index in self.readiness.wait(deadline)? {
            any = true;
            let client = &mut self.clients[index];
            if client.read() {
                self.arrivals.push((index, Instant::now()));
            }
        }
        Ok(any)
    }
}

/// One subscriber.
struct Client {
    stream: TcpStream,
    /// Bytes read and not yet taken. They begin at the start of a frame.
    received: Vec<u8>,
}

impl Client {
    /// Reads once. Returns true if this completes the first frame.
    ///
    /// One read takes all bytes that have arrived, because the buffer is much larger. On a closed
    /// connection nothing is read, so no frame is ever completed.
    fn read(&mut self) -> bool {
        let had_frame = self.has_frame();
        let mut buffer = [0; BUFFER_BYTES];
        let read = self.stream.read(&mut buffer).unwrap_or_default();
        self.received.extend_from_slice(&buffer[..read]);
        self.has_frame() && !had_frame
    }

    fn has_frame(&self) -> bool {
        self.frame_bytes().is_some()
    }

    /// Returns the length of the first frame if the frame is complete and is a text message of at
    /// most 125 bytes (RFC 6455, section 5.2).
    fn frame_bytes(&self) -> Option<usize> {
        match self.received[..] {
            [FINAL_TEXT, length, ref rest @ ..] if rest.len() >= usize::from(length) => {
                Some(2 + usize::from(length))
            }
            _ => None,
        }
    }

    fn take_frame(&mut self) -> Option<Vec<u8>> {
        self.frame_bytes().map(|bytes| self.received.drain(..bytes).collect())
    }
}

const FINAL_TEXT: u8 = 0x81;

/// More than a server sends to one client between two reads: room for a few dozen broadcasts.
const BUFFER_BYTES: usize = 4 * 1024;

/// Longest time until a server must pause.
const TIMEOUT: Duration = Duration::from_secs(5);
