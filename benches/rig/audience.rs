//! The listeners of the fanout bench: clients that send nothing and time what reaches them.

use std::io::{self, Error, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::clients;
use super::readiness::Readiness;
use super::server::Server;

/// Clients of one server that all wait for the same broadcasts.
pub(crate) struct Audience {
    clients: Vec<Client>,
    readiness: Readiness,
    /// The clients that have a whole frame, by place, and since when; in the order of arrival.
    heard: Vec<(usize, Instant)>,
}

/// How one broadcast reached the audience.
#[derive(Default)]
pub(crate) struct Arrival {
    /// From the first client that had the whole frame to the last, as this process read them.
    pub(crate) spread: Duration,
    /// How many clients got it: once, and the same bytes as the first.
    pub(crate) delivered: usize,
}

impl Audience {
    /// Connects `count` clients to `path`.
    ///
    /// # Errors
    ///
    /// If one of them cannot connect.
    pub(crate) fn connect(server: &Server, count: usize, path: &str) -> io::Result<Self> {
        let streams = clients::connect(server, count, path)?;
        let readiness = Readiness::of(&streams)?;
        let clients = streams.into_iter().map(|stream| Client { stream, received: Vec::new() });
        Ok(Self { clients: clients.collect(), readiness, heard: Vec::with_capacity(count) })
    }

    /// Reads and forgets what comes, until nothing has come for `quiet`.
    ///
    /// # Errors
    ///
    /// If epoll fails, or there is no such quiet within 5 s.
    pub(crate) fn settle(&mut self, quiet: Duration) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.read_ready(Instant::now() + quiet)? {
            if Instant::now() > deadline {
                return Err(Error::other(format!("the server was not silent for {quiet:?}")));
            }
        }
        self.heard.clear();
        self.clients.iter_mut().for_each(|client| client.received.clear());
        Ok(())
    }

    /// Waits until every client has the next broadcast, or for `patience`.
    ///
    /// # Errors
    ///
    /// If epoll fails. A client that is lost or gets something else is one not delivered to.
    pub(crate) fn next_broadcast(&mut self, patience: Duration) -> io::Result<Arrival> {
        let deadline = Instant::now() + patience;
        while self.heard.len() < self.clients.len() && Instant::now() < deadline {
            self.read_ready(deadline)?;
        }
        Ok(self.take_broadcast())
    }

    /// Takes the oldest frame from every client that has one whole, and sums them up.
    fn take_broadcast(&mut self) -> Arrival {
        let frames: Vec<_> = self.clients.iter_mut().map(Client::take_frame).collect();
        let mut arrival = Arrival::default();
        if let (Some(&(first, from)), Some(&(_, until))) = (self.heard.first(), self.heard.last()) {
            arrival.spread = until - from;
            arrival.delivered = frames.iter().filter(|frame| **frame == frames[first]).count();
        }
        self.heard.clear();
        // A server so late that the next broadcast has begun is slow, but has lost nothing.
        for (index, client) in self.clients.iter().enumerate() {
            if client.has_frame() {
                self.heard.push((index, Instant::now()));
            }
        }
        arrival
    }

    /// Waits until `deadline` for clients to be ready, and reads from those that are. Returns
    /// whether there were any.
    fn read_ready(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut any = false;
        for index in self.readiness.wait(deadline)? {
            any = true;
            let client = &mut self.clients[index];
            if client.read() {
                self.heard.push((index, Instant::now()));
            }
        }
        Ok(any)
    }
}

/// One listener.
struct Client {
    stream: TcpStream,
    /// What it has read, from the start of a frame on.
    received: Vec<u8>,
}

impl Client {
    /// Reads once, which takes all there is: far less than the buffer holds. Returns whether this
    /// has made the first frame whole. A lost connection reads nothing, and so is never whole.
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

    /// The length of the first frame, once it is whole and if it is a short text (RFC 6455, 5.2).
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

/// More than a client is ever sent between two readings: a few dozen broadcasts.
const BUFFER_BYTES: usize = 4 * 1024;

/// How long a server may take to fall silent.
const PATIENCE: Duration = Duration::from_secs(5);
