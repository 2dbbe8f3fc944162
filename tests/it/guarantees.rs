//! The guarantees of the server under stress, one per test.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use crate::support::*;

#[test]
fn a_connection_above_the_limit_gets_503_unless_refusals_are_silent() {
    for (reject, answer) in [("respond", "HTTP/1.1 503 Service Unavailable"), ("drop", "")] {
        let falconet = Falconet::start(&["--max-connections", "1", "--reject", reject]);
        let _inside = fill(falconet.address());
        // Sends nothing, because a reset for unread data could overtake the response.
        assert_eq!(exchange(falconet.address(), "").lines().next().unwrap_or_default(), answer);
    }
}

/// The server must be stopped for longer than the idle timeout, and for longer than the two seconds after which
/// it concludes that it was stopped itself. The timeouts are much shorter than the defaults of 75 s and 30 s, so
/// that the test is short.
#[test]
fn a_server_that_was_stopped_drops_no_healthy_client() {
    let falconet = Falconet::start(&[
        "--ping-every",
        "600ms",
        "--idle-timeout",
        "1800ms",
        "--write-timeout",
        "2s",
    ]);
    let canaries = Canaries::start(falconet.address());
    let quiet: Vec<IdleClient> =
        (0..20).map(|_| IdleClient::start(Client::connect(falconet.address()))).collect();
    wait_until("every client has been pinged", || quiet.iter().all(|client| client.pongs() > 0));
    // A client that reads slowly, but within the write timeout.
    let mut slow = BlockedClients::connect(falconet.address(), 1);
    slow.block();

    falconet.signal(Signal::STOP);
    // The time for which the server is stopped.
    std::thread::sleep(Duration::from_millis(4500));
    falconet.signal(Signal::CONT);

    let slow = std::thread::spawn(move || slow.unblock());
    let pongs: Vec<usize> = quiet.iter().map(IdleClient::pongs).collect();
    wait_until("every client has been pinged twice since", || {
        quiet.iter().zip(&pongs).all(|(client, before)| client.pongs() >= before + 2)
    });
    for client in quiet {
        assert_eq!(client.finish(), Some(1000), "the client was dropped");
    }
    slow.join().unwrap();
    canaries.finish();
}

#[test]
fn a_log_pipe_that_is_full_does_not_stop_the_server() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let falconet = Falconet::start_with_stderr(&["--log-level", "debug"], writer.into());
    // Open the pipe again for a separate file description, so that the server's writes stay blocking.
    let path = format!("/proc/{}/fd/2", falconet.pid());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let writer: OwnedFd = rustix::fs::open(path, flags, Mode::empty()).unwrap();
    while rustix::io::write(&writer, &[b'\n'; 4096]).is_ok() {}
    serve_while_logging(falconet);
    drop(reader);
}

#[test]
fn a_log_whose_reader_has_closed_does_not_stop_the_server() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    serve_while_logging(Falconet::start_with_stderr(&["--log-level", "debug"], writer.into()));
}

#[test]
fn a_log_on_a_full_disk_does_not_stop_the_server() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    serve_while_logging(Falconet::start_with_stderr(&["--log-level", "debug"], full.into()));
}

/// Makes a server log as much as possible for more than a second, because the limit of lines is per second.
fn serve_while_logging(mut falconet: Falconet) {
    let canaries = Canaries::start(falconet.address());
    let until = Instant::now() + Duration::from_millis(1200);
    while Instant::now() < until {
        let answer = exchange(falconet.address(), "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert_eq!(exchange(falconet.address(), "no request at all\r\n\r\n"), "");
        Client::connect(falconet.address()).echo("hello");
    }
    canaries.finish();
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

#[test]
fn every_message_of_a_burst_is_echoed() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    // A few small messages, a message that does not fit into the read buffer, and many messages that are read
    // together with the end of that one.
    let sizes = [500; 5].into_iter().chain([40_000]).chain([500; 50]);
    let messages: Vec<String> = sizes.map(|size| "x".repeat(size)).collect();
    let frames: Vec<u8> =
        messages.iter().flat_map(|text| masked(true, TEXT, text.as_bytes())).collect();
    client.stream.write_all(&frames).unwrap();
    for message in &messages {
        assert_eq!(client.read().text(), message);
    }
}
