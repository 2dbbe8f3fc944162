//! Clients that put load on a server, and clients that check that it still serves them.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit};

use super::wait::TIMEOUT;
use super::websocket::{BINARY, CLOSE, Client, PING, PONG, masked};

/// The default pause of canaries between two messages: a steady trickle, not a flood.
pub const CANARY_PAUSE: Duration = Duration::from_millis(1);

/// Two healthy clients that echo all the time, each in a thread of its own. A server under attack must keep
/// serving them.
pub struct Canaries {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Duration>>>,
}

impl Canaries {
    /// Starts canaries with the default pause.
    pub fn start(address: SocketAddr) -> Self {
        Self::start_with(address, CANARY_PAUSE, || Duration::ZERO)
    }

    /// Starts canaries with `pause` between their messages. The difference of `excluded` before and after a
    /// round trip, read in the canary's thread, does not count as a part of the round trip.
    pub fn start_with(
        address: SocketAddr,
        pause: Duration,
        excluded: impl Fn() -> Duration + Send + Clone + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..2)
            .map(|canary| {
                let (stop, excluded) = (stop.clone(), excluded.clone());
                let mut client = Client::connect(address);
                std::thread::spawn(move || {
                    let mut times = Vec::new();
                    // At least one message, even if the canaries are stopped before this thread first runs.
                    while times.is_empty() || !stop.load(Ordering::Relaxed) {
                        let (sent, excluded_before) = (Instant::now(), excluded());
                        client.echo(&format!("canary {canary} message {}", times.len()));
                        let elapsed = sent.elapsed();
                        times.push(elapsed.saturating_sub(excluded() - excluded_before));
                        std::thread::sleep(pause);
                    }
                    client.send(true, CLOSE, 1000_u16.to_be_bytes());
                    assert_eq!(client.read_to_close(), Some(1000));
                    times
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// Stops the canaries and returns their round-trip times, shortest first.
    ///
    /// # Panics
    ///
    /// If one of them lost a message or its connection.
    pub fn finish(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let times =
            self.threads.into_iter().map(|thread| thread.join().expect("the canary did not panic"));
        let mut times: Vec<Duration> = times.flatten().collect();
        times.sort_unstable();
        times
    }
}

/// A healthy client that sends nothing but the answers to pings, in a thread of its own.
pub struct IdleClient {
    pub stream: TcpStream,
    pongs: Arc<AtomicUsize>,
    pub thread: JoinHandle<Option<u16>>,
}

impl IdleClient {
    pub fn start(mut client: Client) -> Self {
        let stream = client.stream.try_clone().unwrap();
        let pongs = Arc::new(AtomicUsize::new(0));
        let count = pongs.clone();
        let thread = std::thread::spawn(move || {
            loop {
                match client.try_read() {
                    Ok(ping) if ping.opcode == PING => {
                        client.send(true, PONG, ping.payload);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(close) if close.opcode == CLOSE => return Some(close.close_code()),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        });
        Self { stream, pongs, thread }
    }

    /// Returns how many pings the client has answered.
    pub fn pongs(&self) -> usize {
        self.pongs.load(Ordering::Relaxed)
    }

    /// Sends a Close and returns the code of the server's, or `None` if the connection was lost before.
    pub fn finish(self) -> Option<u16> {
        let _ = (&self.stream).write_all(&masked(true, CLOSE, &1000_u16.to_be_bytes()));
        self.thread.join().expect("no client panics")
    }
}

/// Clients that send large messages to the echo and do not read.
pub struct BlockedClients {
    streams: Vec<TcpStream>,
    message: Vec<u8>,
    /// The number of bytes that each client has written.
    sent: Vec<usize>,
}

impl BlockedClients {
    /// Connects `count` clients.
    pub fn connect(address: SocketAddr, count: usize) -> Self {
        let client = |_| {
            let stream = Client::connect(address).stream;
            // Small kernel buffers block soon. A receive buffer below one segment of loopback, 64 KiB,
            // would later slow reading down to a few KiB a second.
            sockopt::set_socket_recv_buffer_size(&stream, 64 * 1024).unwrap();
            sockopt::set_socket_send_buffer_size(&stream, 16 * 1024).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        };
        let streams = (0..count).map(client).collect();
        Self {
            streams,
            message: masked(true, BINARY, &[b'x'; BLOCKED_BYTES]),
            sent: vec![0; count],
        }
    }

    /// Sends until no client can write any more.
    pub fn block(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut fds: Vec<PollFd<'_>> =
                self.streams.iter().map(|stream| PollFd::new(stream, PollFlags::OUT)).collect();
            // Even on a busy machine, the server reads from a client that is not blocked within this time.
            let wait = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
            if poll(&mut fds, Some(&wait)).unwrap() == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the server keeps reading from clients that do not read"
            );
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (index, stream) in self.streams.iter_mut().enumerate().filter(|(i, _)| ready[*i]) {
                match stream.write(&self.message[self.sent[index] % self.message.len()..]) {
                    Ok(count) => self.sent[index] += count,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        }
    }

    /// Completes the last message of each client, sends a Close, and checks that every message is echoed.
    pub fn unblock(self) {
        for (stream, sent) in self.streams.into_iter().zip(self.sent) {
            stream.set_nonblocking(false).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let begun = sent.div_ceil(self.message.len());
            let rest =
                self.message[self.message.len() - (begun * self.message.len() - sent)..].to_vec();
            let writer = std::thread::spawn(move || {
                writer.write_all(&rest).unwrap();
                writer.write_all(&masked(true, CLOSE, &1000_u16.to_be_bytes())).unwrap();
            });
            let mut client = Client { stream };
            for _ in 0..begun {
                let echo = client.read();
                assert_eq!((echo.opcode, echo.payload.len()), (BINARY, BLOCKED_BYTES));
            }
            assert_eq!(client.read_to_close(), Some(1000));
            writer.join().unwrap();
        }
    }
}

/// The size of a message of [`BlockedClients`].
const BLOCKED_BYTES: usize = 60_000;

/// Returns how many of the `wanted` connections a test may open with both ends on this machine: all of
/// them, unless the hard limit of open files is low. Raises the soft limit to the hard one.
pub fn connection_budget(wanted: usize) -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("a limit may rise to its maximum");
    let most = limit.maximum.map_or(usize::MAX, |maximum| maximum as usize / 8);
    if most < wanted {
        eprintln!("only {most} connections instead of {wanted}: the limit of open files is low");
    }
    wanted.min(most)
}
