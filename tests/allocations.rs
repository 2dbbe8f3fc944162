//! Allocations for messages: none per subscriber of a published message, and none for an echo. This target is
//! separate because its allocator counts the allocations of the whole process.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of this crate is tests")]
// Most tests here are about topics.
#![cfg_attr(not(feature = "full"), allow(dead_code))]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use async_channel::Receiver;
use falconet::{Echo, HubHandle, Server, ServerBuilder, Service, Stop, Stopper, TopicName};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[cfg(feature = "full")]
#[test]
fn a_message_to_a_thousand_websocket_subscribers_allocates_nothing_for_each() {
    let request = "GET /topics/t HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    measure(request, 0, |_, _| [&[0x81, MESSAGE.len() as u8], MESSAGE.as_bytes()].concat());
}

#[cfg(feature = "full")]
#[test]
fn a_message_to_a_thousand_sse_subscribers_allocates_nothing_for_each() {
    let request = "GET /topics/t HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    let end_of_replay = chunk("id: k3f9x2ab:0\n\n");
    measure(request, end_of_replay.len(), |head, number| {
        let begin = head.split("Last-Event-ID: ").nth(1).unwrap();
        let epoch = begin.split(':').next().unwrap();
        chunk(&format!("id: {epoch}:{number}\ndata: {MESSAGE}\n\n"))
    });
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

#[test]
fn an_echo_of_a_small_message_allocates_nothing() {
    let _guard = serial();
    let (address, stopper, server) = start(|| Server::builder().endpoint("/echo", Echo));
    let request = "GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (mut client, _) = subscribe(address, request);
    let mut counts = Vec::new();
    for size in [1, 125, 126, 1000, 4000] {
        for first in [0x81, 0x82] {
            let (frame, expected) = (masked_zeros(first, size), unmasked_zeros(first, size));
            let mut buffer = vec![0; expected.len()];
            let mut echo = || {
                client.write_all(&frame).unwrap();
                client.read_exact(&mut buffer).unwrap();
                assert!(buffer == expected);
            };
            // The first echo may allocate buffers that later ones use again.
            echo();
            // The minimum of three, because the test harness may be printing the result of another test.
            let rounds = (0..3).map(|_| {
                let region = Region::new(ALLOCATOR);
                (0..ECHOES).for_each(|_| echo());
                let change = region.change();
                change.allocations + change.reallocations
            });
            counts.extend(rounds.min());
        }
    }
    println!("allocations for {ECHOES} echoes: {counts:?}");
    // The queue of the executor allocates a block for every 31 wake-ups.
    assert!(counts.iter().all(|count| *count <= ECHOES / 31 + 1), "{counts:?}");
    drop(client);
    stopper.stop();
    server.join().unwrap().unwrap();
}

/// Returns a frame of `size` zeros as a client sends it, with a masking key of zeros.
fn masked_zeros(first: u8, size: usize) -> Vec<u8> {
    let mut frame = unmasked_zeros(first, size);
    frame[1] |= 0x80;
    frame.extend([0; 4]);
    frame
}

/// Returns a frame of `size` zeros as the server sends it.
fn unmasked_zeros(first: u8, size: usize) -> Vec<u8> {
    let mut frame = vec![first];
    match size {
        0..=125 => frame.push(size as u8),
        _ => {
            frame.push(126);
            frame.extend((size as u16).to_be_bytes());
        }
    }
    frame.extend(vec![0; size]);
    frame
}

/// Publishes five messages to subscribers that connect with `request`, checks that each receives the bytes
/// `expected(head, number)`, where `head` is the head of the response, and limits the allocations for a message.
/// `replay_bytes` follow the head.
fn measure(request: &str, replay_bytes: usize, expected: impl Fn(&str, u64) -> Vec<u8>) {
    let _guard = serial();
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    // Both ends of each connection are in this process.
    let count = limit.map_or(SUBSCRIBERS, |limit| SUBSCRIBERS.min(limit as usize / 4));
    let (publish, publishing) = async_channel::bounded(1);
    let (address, stopper, server) =
        start(|| Server::builder().topics().service(Publisher(publishing)));
    let connected = (0..count).map(|_| subscribe(address, request));
    let (mut subscribers, heads): (Vec<TcpStream>, Vec<String>) = connected.unzip();
    for subscriber in &mut subscribers {
        subscriber.read_exact(&mut vec![0; replay_bytes]).unwrap();
    }

    let mut counts = [0; 5];
    for (index, allocations) in counts.iter_mut().enumerate() {
        let expected = expected(&heads[0], index as u64 + 1);
        let mut buffer = vec![0; expected.len()];
        let region = Region::new(ALLOCATOR);
        publish.try_send(()).unwrap();
        for subscriber in &mut subscribers {
            subscriber.read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, expected);
        }
        let change = region.change();
        *allocations = change.allocations + change.reallocations;
    }
    println!("allocations for a message to {count}: {counts:?}");
    // The first message may allocate buffers that later ones use again. The queue of the executor allocates a
    // block for every 31 tasks that are woken.
    let most = counts[1..].iter().max().unwrap();
    assert!(*most <= count / 31 + CONSTANT, "{counts:?}");
    drop(subscribers);
    stopper.stop();
    server.join().unwrap().unwrap();
}

/// Waits until no other test runs, and keeps others from running until the guard is dropped: the allocator
/// counts the allocations of all tests together.
fn serial() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs the server that `compose` builds, in another thread.
fn start(
    compose: impl FnOnce() -> ServerBuilder + Send + 'static,
) -> (SocketAddr, Stopper, JoinHandle<std::io::Result<()>>) {
    let (started, starting) = channel::<(String, Stopper)>();
    let thread = std::thread::spawn(move || {
        let url = "http://127.0.0.1:0".parse().unwrap();
        let server = compose().bind([&url]).unwrap();
        started.send((server.urls()[0].to_string(), server.stopper())).unwrap();
        server.run()
    });
    let (url, stopper) = starting.recv_timeout(TIMEOUT).unwrap();
    (url.trim_start_matches("http://").parse().unwrap(), stopper, thread)
}

/// Connects, sends `request`, and returns the connection with the head of the response.
fn subscribe(address: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
    (stream, head)
}

/// Publishes a message for each signal.
struct Publisher(Receiver<()>);

impl Service for Publisher {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        let topic = TopicName::new("t").unwrap();
        while let Some(Ok(())) = stop.unless_requested(self.0.recv()).await {
            hub.publish(&topic, MESSAGE).await.unwrap();
        }
    }
}

const SUBSCRIBERS: usize = 1000;
const ECHOES: usize = 100;
const MESSAGE: &str = "not as long as to need a long header";
/// The limit of allocations for a message that do not depend on the number of subscribers: for the frame, the
/// command and its reply. 11 or 12 were observed.
const CONSTANT: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(10);
