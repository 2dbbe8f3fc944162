//! One publisher at full speed, and many subscribers, some of which do not read.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use crate::measure::*;
use crate::support::*;

#[cfg(feature = "full")]
#[test]
fn sse_subscribers_get_every_message_or_the_number_of_lost_ones() {
    let _guard = serial();
    let crowd = Crowd::connect(Protocol::Events, &["--slow-consumer", "skip"]);
    let stuck = crowd.run(publish_by_http);
    for subscriber in stuck {
        // Subscriber::read has checked that received and lost messages add up.
        assert!(subscriber.lost > 0 && subscriber.closed.is_none());
    }
}

#[cfg(feature = "full")]
#[test]
fn websocket_subscribers_get_every_message_or_are_closed() {
    let _guard = serial();
    let crowd = Crowd::connect(Protocol::WebSocket, &["--slow-consumer", "close"]);
    let stuck = crowd.run(publish_by_websocket);
    for subscriber in stuck {
        assert!(subscriber.received > 0);
        assert_eq!(subscriber.closed.as_deref(), Some("1008 slow consumer"));
    }
}

#[cfg(feature = "full")]
#[test]
fn a_subscriber_costs_no_more_memory_than_an_idle_client() {
    let _guard = serial();
    let count = connection_budget(2000);
    let bytes_per_client = |path: &str| {
        let falconet = Falconet::start(&["--broadcast-every", "0", "--ping-every", "0"]);
        let first = Client::connect_to(falconet.address(), path);
        let before = falconet.private_kib();
        let clients: Vec<Client> =
            (0..count).map(|_| Client::connect_to(falconet.address(), path)).collect();
        let after = falconet.private_kib();
        drop((first, clients));
        (after - before) * 1024 / count as u64
    };
    let (echo, topic) = (bytes_per_client("/"), bytes_per_client(TOPIC));
    println!("{count} clients: {echo} bytes each of the echo, {topic} of a topic");
    assert!(topic * 100 <= echo * 105, "{echo} bytes of the echo, {topic} of a topic");
}

/// A server and its subscribers.
struct Crowd {
    falconet: Falconet,
    readers: Vec<Subscriber>,
    stuck: Vec<Subscriber>,
}

impl Crowd {
    fn connect(protocol: Protocol, flags: &[&str]) -> Self {
        let falconet = Falconet::start(&[&["--broadcast-every", "0"], flags].concat());
        let subscribe = |_| Subscriber::connect(falconet.address(), protocol);
        let count = connection_budget(200);
        let readers = (0..count * 3 / 4).map(subscribe).collect();
        let stuck: Vec<Subscriber> = (0..count / 4).map(subscribe).collect();
        for subscriber in &stuck {
            // Otherwise the kernel would buffer megabytes for this subscriber.
            sockopt::set_socket_recv_buffer_size(&subscriber.stream, 64 * 1024).unwrap();
        }
        Self { falconet, readers, stuck }
    }

    /// Publishes for a while with `publish`, and checks the messages that the reading subscribers receive. Then
    /// the other subscribers read all messages. Returns the other subscribers.
    fn run(mut self, publish: fn(SocketAddr, &Clock) -> u64) -> Vec<Subscriber> {
        let address = self.falconet.address();
        let canaries = Canaries::start(address);
        let clock = Clock::start(&self.falconet);
        let last = AtomicU64::new(0);
        let before = self.falconet.private_kib();
        let (mut most, mut latencies, mut measured) = (before, Vec::new(), Instant::now());
        std::thread::scope(|scope| {
            scope.spawn(|| last.store(publish(address, &clock), Ordering::Relaxed));
            latencies = read_all(&mut self.readers, &last, &clock, || {
                if measured.elapsed() > Duration::from_millis(20) {
                    most = most.max(self.falconet.private_kib());
                    measured = Instant::now();
                }
            });
        });
        let times = canaries.finish();
        latencies.sort_unstable();
        let lagging = self.readers.iter().filter(|reader| reader.lost > 0).count();
        println!(
            "{} messages to {} subscribers that read and {} that do not: latency {:?} median, {:?} p99, {:?} at \
             most; {lagging} readers lost some, {} were closed; canaries' p99 {:?} of {}; {before} \
             KiB before, {most} KiB at most",
            last.load(Ordering::Relaxed),
            self.readers.len(),
            self.stuck.len(),
            latencies[latencies.len() / 2],
            p99(&latencies),
            latencies[latencies.len() - 1],
            self.readers.iter().filter(|reader| reader.closed.is_some()).count(),
            p99(&times),
            times.len(),
        );
        assert!(p99(&latencies) < Duration::from_millis(100), "{:?}", p99(&latencies));
        // The log of a topic is 256 KiB by default. A subscriber that does not read holds part of one message.
        // The buffers of the kernel do not count.
        let limit = 256 + self.stuck.len() * 2 * MESSAGE_BYTES / 1024 + SLACK_KIB;
        assert!(most < before + limit as u64, "{before} KiB before, {most} KiB at most");

        read_all(&mut self.stuck, &last, &clock, || {});
        self.stuck
    }
}

/// A clock that excludes the time for which the server and the reading thread waited for a processor, as
/// [`start_canaries`] does. Subscribers on this machine compete with the server for processors; remote ones
/// would not.
struct Clock {
    start: Instant,
    queues: [String; 2],
}

impl Clock {
    /// Starts a clock for subscribers that this thread reads.
    fn start(falconet: &Falconet) -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let queues = [
            format!("/proc/{}/schedstat", falconet.pid()),
            format!("/proc/self/task/{thread}/schedstat"),
        ];
        Self { start: Instant::now(), queues }
    }

    /// Returns how long the server and the thread have waited for a processor.
    fn queued(&self) -> Duration {
        let nanoseconds = self.queues.iter().map(|queue| {
            let text = std::fs::read_to_string(queue).unwrap();
            text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Returns the time, given the result of an earlier call of [`Self::queued`].
    fn now(&self, queued: Duration) -> Duration {
        self.start.elapsed().saturating_sub(queued)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Events,
    WebSocket,
}

/// A subscriber that checks that its messages are numbered from 1 without a gap, except for losses that the
/// server reports.
struct Subscriber {
    protocol: Protocol,
    stream: TcpStream,
    unparsed: Vec<u8>,
    next: u64,
    received: u64,
    lost: u64,
    /// The code and the reason of the Close.
    closed: Option<String>,
}

impl Subscriber {
    fn connect(address: SocketAddr, protocol: Protocol) -> Self {
        let stream = match protocol {
            Protocol::Events => Events::connect(address, TOPIC, "").into_stream(),
            Protocol::WebSocket => Client::connect_to(address, TOPIC).stream,
        };
        stream.set_nonblocking(true).unwrap();
        let unparsed = Vec::new();
        Self { protocol, stream, unparsed, next: 1, received: 0, lost: 0, closed: None }
    }

    /// Returns true if the subscriber is closed, or has received or lost the message `last`.
    fn is_done(&self, last: u64) -> bool {
        self.closed.is_some() || (last > 0 && self.next > last)
    }

    /// Reads everything available, and records the latency of each message.
    fn read(&mut self, clock: &Clock, queued: Duration, latencies: &mut Vec<Duration>) {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the stream ended before message {}", self.next),
                Ok(count) => self.unparsed.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error} before message {}", self.next),
            }
            let now = clock.now(queued);
            let unparsed = std::mem::take(&mut self.unparsed);
            let mut rest = &unparsed[..];
            while let Some(sent) = match self.protocol {
                Protocol::Events => self.take_event(&mut rest),
                Protocol::WebSocket => self.take_frame(&mut rest),
            } {
                latencies.extend(sent.map(|sent| now.saturating_sub(sent)));
                if self.closed.is_some() {
                    return;
                }
            }
            self.unparsed = rest.to_vec();
        }
    }

    /// Parses one complete event in a chunk. The inner value is the time at which a message was sent.
    fn take_event(&mut self, bytes: &mut &[u8]) -> Option<Option<Duration>> {
        // Checking more than one event for UTF-8 each time would take quadratic time.
        let text = std::str::from_utf8(&bytes[..bytes.len().min(2 * MESSAGE_BYTES)]).unwrap();
        let (head, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(head, 16).unwrap();
        rest.get(..size + 2)?;
        let event = rest[..size].strip_suffix("\n\n").unwrap();
        *bytes = &bytes[head.len() + 2 + size + 2..];
        // The fast path for messages: with slow subscribers this test would measure only the subscribers.
        let message = event.strip_prefix("id: ").and_then(|event| event.split_once("\ndata: "));
        let Some((id, data)) = message else {
            let event = Event::parse(event);
            if event.kind == "lagged" {
                let lost: u64 = event.data.parse().unwrap();
                (self.next, self.lost) = (self.next + lost, self.lost + lost);
            }
            return Some(None);
        };
        assert_eq!(number_of(id), self.next, "after {} lost", self.lost);
        Some(Some(self.take_message(data)))
    }

    /// Parses one complete frame. The inner value is the time at which a message was sent.
    fn take_frame(&mut self, bytes: &mut &[u8]) -> Option<Option<Duration>> {
        let (header, length) = match bytes.get(1)? {
            126 => (4, u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]).into()),
            length => (2, usize::from(*length)),
        };
        let payload = bytes.get(header..header + length)?;
        let opcode = bytes[0] & 0xf;
        *bytes = &bytes[header + length..];
        if opcode == CLOSE {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            self.closed = Some(format!("{code} {}", String::from_utf8_lossy(&payload[2..])));
            return Some(None);
        }
        assert_eq!(opcode, TEXT);
        Some(Some(self.take_message(std::str::from_utf8(payload).unwrap())))
    }

    /// Checks the number of the next message, and returns the time at which it was sent.
    fn take_message(&mut self, message: &str) -> Duration {
        let mut parts = message.split(' ');
        let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
        assert_eq!(number(), self.next, "after {} lost", self.lost);
        (self.next, self.received) = (self.next + 1, self.received + 1);
        Duration::from_nanos(number())
    }
}

/// Reads with all subscribers until each is done with the message `last`, which is 0 until it is known.
/// Returns the latencies of all messages. Calls `meanwhile` now and then.
fn read_all(
    subscribers: &mut [Subscriber],
    last: &AtomicU64,
    clock: &Clock,
    mut meanwhile: impl FnMut(),
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let last = last.load(Ordering::Relaxed);
        let mut open: Vec<&mut Subscriber> =
            subscribers.iter_mut().filter(|subscriber| !subscriber.is_done(last)).collect();
        if open.is_empty() {
            return latencies;
        }
        assert!(Instant::now() < deadline, "{} subscribers are not done", open.len());
        let mut fds: Vec<PollFd<'_>> =
            open.iter().map(|subscriber| PollFd::new(&subscriber.stream, PollFlags::IN)).collect();
        // The timeout lets the loop notice that `last` is known.
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
        meanwhile();
        let queued = clock.queued();
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (subscriber, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            subscriber.read(clock, queued, &mut latencies);
        }
    }
}

/// Publishes over kept connections, and returns the number of messages. At most [`WINDOW`] messages are
/// unanswered, or not yet received by this publisher's own subscriber: the time that more messages wait in the
/// kernel would count as latency.
fn publish_by_http(address: SocketAddr, clock: &Clock) -> u64 {
    let mut own = Client::connect_to(address, TOPIC);
    let (mut sent, mut answered) = (0, 0);
    while is_unfinished(sent, clock) {
        let mut stream = connect(address);
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut take_answer = || {
            answered += 1;
            read_answer(&mut answers, answered);
            let number = answered.to_string();
            assert_eq!(own.read().text().split(' ').next(), Some(&*number));
            answered
        };
        // The server answers a thousand requests on one connection.
        let (end, mut behind) = (sent + 1000, 0);
        while sent < end && is_unfinished(sent, clock) {
            sent += 1;
            behind += 1;
            stream.write_all(&post(TOPIC, message(sent, clock))).unwrap();
            if behind == WINDOW {
                behind = sent - take_answer();
            }
        }
        while behind > 0 {
            behind = sent - take_answer();
        }
    }
    sent
}

fn read_answer(answers: &mut BufReader<TcpStream>, number: u64) {
    let head = read_response_head(answers);
    assert!(head.starts_with("HTTP/1.1 202 "), "{head}");
    let mut body = vec![0; header_of(&head, "content-length").unwrap().parse().unwrap()];
    answers.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains(&format!(":{number}\",")), "{body}");
}

/// Publishes over WebSocket, and returns the number of messages. At most [`WINDOW`] messages have not been
/// received back: the time that more messages wait in the kernel would count as latency.
fn publish_by_websocket(address: SocketAddr, clock: &Clock) -> u64 {
    let mut client = Client::connect_to(address, TOPIC);
    let (mut sent, mut received) = (0, 0);
    while is_unfinished(sent, clock) {
        sent += 1;
        client.send(true, TEXT, message(sent, clock));
        while sent - received == WINDOW {
            received += 1;
            assert_eq!(client.read().text().split(' ').next(), Some(&*received.to_string()));
        }
    }
    sent
}

/// Returns true if the publisher is not finished: it publishes for two seconds, and more messages than the
/// kernel buffers for a subscriber that does not read.
fn is_unfinished(sent: u64, clock: &Clock) -> bool {
    clock.start.elapsed() < Duration::from_secs(2) || sent < 500
}

/// Returns a message that begins with its number and the time.
fn message(number: u64, clock: &Clock) -> String {
    let message = format!("{number} {} ", clock.now(clock.queued()).as_nanos());
    format!("{message:.<MESSAGE_BYTES$}")
}

const TOPIC: &str = "/topics/crowd";
/// The number of messages in flight at once, so that the server always has one to publish.
const WINDOW: u64 = 2;
const MESSAGE_BYTES: usize = 2048;
/// The memory of closed connections that the allocator keeps, in KiB.
const SLACK_KIB: usize = 256;
