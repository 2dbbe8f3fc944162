//! What the server does under stress, and keeps doing: one guarantee a test.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use crate::support::*;

#[test]
fn one_connection_too_many_is_told_so_unless_refusals_are_silent() {
    for (reject, answer) in [("respond", "HTTP/1.1 503 Service Unavailable"), ("drop", "")] {
        let falconet = Falconet::start(&["--max-connections", "1", "--reject", reject]);
        let _inside = Client::connect(falconet.address());
        // Says nothing, so that no reset overtakes the answer.
        assert_eq!(exchange(falconet.address(), "").lines().next().unwrap_or_default(), answer);
    }
}

/// The server's timeouts are 75 s and 30 s by default, and it would stop for 90 s. Here all of it is a
/// fiftieth: what counts is that it stops for longer than its clients may be silent, and for longer
/// than the two seconds by which it tells that it was not they who stood still.
#[test]
fn a_server_that_stood_still_drops_no_healthy_client() {
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
    wait_until("everybody has been pinged", || quiet.iter().all(|client| client.pongs() > 0));
    // One that is slow to read, but not as slow as that.
    let mut slow = BlockedClients::connect(falconet.address(), 1);
    slow.block();

    falconet.signal(Signal::STOP);
    // The time it stands still.
    std::thread::sleep(Duration::from_millis(4500));
    falconet.signal(Signal::CONT);

    let slow = std::thread::spawn(move || slow.unblock());
    let pongs: Vec<usize> = quiet.iter().map(IdleClient::pongs).collect();
    wait_until("everybody has been pinged twice since", || {
        quiet.iter().zip(&pongs).all(|(client, before)| client.pongs() >= before + 2)
    });
    for client in quiet {
        assert_eq!(client.finish(), Some(1000), "it was dropped");
    }
    slow.join().unwrap();
    canaries.finish();
}

#[test]
fn a_log_nobody_reads_does_not_stop_the_server() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let falconet = Falconet::start_with_stderr(&["--log-level", "debug"], writer.into());
    // Through a file description of its own: the server's keeps its blocking writes.
    let path = format!("/proc/{}/fd/2", falconet.pid());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let writer: OwnedFd = rustix::fs::open(path, flags, Mode::empty()).unwrap();
    while rustix::io::write(&writer, &[b'\n'; 4096]).is_ok() {}
    serve_while_logging(falconet);
    drop(reader);
}

#[test]
fn a_log_whose_reader_is_gone_does_not_stop_the_server() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    serve_while_logging(Falconet::start_with_stderr(&["--log-level", "debug"], writer.into()));
}

#[test]
fn a_log_on_a_full_disk_does_not_stop_the_server() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    serve_while_logging(Falconet::start_with_stderr(&["--log-level", "debug"], full.into()));
}

/// Has a server log all it can for more than a second: each second has its own share of lines.
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
fn a_client_that_sent_much_at_once_is_heard_to_the_end() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    // Some come whole, one does not, and the rest is already read when it is done.
    let sizes = [500; 5].into_iter().chain([40_000]).chain([500; 50]);
    let messages: Vec<String> = sizes.map(|size| "x".repeat(size)).collect();
    let frames: Vec<u8> =
        messages.iter().flat_map(|text| masked(true, TEXT, text.as_bytes())).collect();
    client.stream.write_all(&frames).unwrap();
    for message in &messages {
        assert_eq!(client.read().text(), message);
    }
}
