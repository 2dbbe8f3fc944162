//! What the server does under stress, and keeps doing: one guarantee a test.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::rig::*;

#[test]
fn readers_lose_no_broadcast_when_others_stop_reading() {
    let _turn = alone();
    let flags = ["--broadcast-every", "50ms", "--write-timeout", "1500ms"];
    let falconet = Falconet::start(&flags);
    let canaries = Canaries::start_every(CANARY_PAUSE, &falconet);
    let count = affordable(200);
    let mut readers: Vec<Client> =
        (0..count * 3 / 4).map(|_| Client::connect(falconet.address())).collect();
    let (files, before) = (falconet.open_files(), falconet.private_kib());
    let mut blocked = Blocked::connect(falconet.address(), count / 4);
    blocked.block();
    let during = falconet.private_kib();
    assert_eq!(falconet.open_files(), files + count / 4, "nobody is dropped before the deadline");
    wait_until("who does not read is gone", || falconet.open_files() == files);

    let last = "the last message";
    let broadcasts: Vec<Vec<String>> = readers.iter_mut().map(|r| r.broadcasts(last)).collect();
    println!(
        "{} readers with up to {} broadcasts each; {before} KiB before, {during} KiB with {} stuck",
        readers.len(),
        broadcasts[0].len(),
        count / 4
    );
    let of_first = &broadcasts[0];
    assert!(of_first.len() >= 20, "{of_first:?}");
    for broadcasts in &broadcasts {
        // Who came later and was asked later has an earlier beginning cut off, and a longer end.
        let from = of_first.iter().position(|text| *text == broadcasts[0]).expect("a common one");
        let common = of_first.len() - from;
        assert_eq!(of_first[from..], broadcasts[..common]);
    }
    // One message in, one going out, and what the library reads it into.
    let limit = 256 * (count as u64 / 4);
    assert!(during < before + limit, "{before} KiB before, {during} KiB with the blocked ones");
    canaries.assert_well();
}

impl Client {
    /// The broadcasts that have come before the echo of `last`.
    fn broadcasts(&mut self, last: &str) -> Vec<String> {
        self.send(true, TEXT, last);
        let mut texts = Vec::new();
        loop {
            match self.read().text() {
                text if text == last => return texts,
                text => texts.push(text.to_owned()),
            }
        }
    }
}

/// Clients that have big messages echoed and do not read.
struct Blocked {
    streams: Vec<TcpStream>,
    message: Vec<u8>,
    /// How many bytes the server has taken from each.
    sent: Vec<usize>,
}

impl Blocked {
    fn connect(address: SocketAddr, count: usize) -> Self {
        let client = |_| {
            let stream = Client::connect(address).stream;
            // Little room in the kernel, so that it takes little to block; but with less than a segment
            // of loopback, 64 KiB, reading on later would go at a few KiB a second.
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

    /// Sends until the server takes nothing more from anyone.
    fn block(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut fds: Vec<PollFd<'_>> =
                self.streams.iter().map(|stream| PollFd::new(stream, PollFlags::OUT)).collect();
            // Whoever is not blocked is served within this, also on a busy machine.
            let wait = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
            if poll(&mut fds, Some(&wait)).unwrap() == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "the server takes what it can't give back");
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (index, stream) in self.streams.iter_mut().enumerate().filter(|(i, _)| ready[*i]) {
                match stream.write(&self.message[self.sent[index] % self.message.len()..]) {
                    Ok(count) => self.sent[index] += count,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        }
    }

    /// Reads it all, to the Close: every message begun comes back.
    fn unblock(self) {
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

/// How large the messages are that block a client.
const BLOCKED_BYTES: usize = 60_000;

#[test]
fn a_flood_of_connections_beyond_the_limit_harms_nobody_inside() {
    let _turn = alone();
    let inside = affordable(200);
    let falconet = Falconet::start(&["--max-connections", &(inside + 2).to_string()]);
    let canaries = Canaries::start_every(CANARY_PAUSE, &falconet);
    let files = falconet.open_files();
    for round in 0..2 {
        let mut clients: Vec<Client> =
            (0..inside).map(|_| Client::connect(falconet.address())).collect();
        for _ in 0..inside * 3 / 2 {
            let answer = exchange(falconet.address(), handshake("/"));
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
        }
        for (index, client) in clients.iter_mut().enumerate() {
            client.echo(&format!("client {index} in round {round}"));
        }
        assert_eq!(falconet.open_files(), files + inside, "nobody else is inside");
        drop(clients);
        wait_until("there is room again", || falconet.open_files() == files);
    }
    canaries.assert_well();
}

#[test]
fn one_connection_too_many_is_told_so_unless_refusals_are_silent() {
    for (reject, answer) in [("respond", "HTTP/1.1 503 Service Unavailable"), ("drop", "")] {
        let falconet = Falconet::start(&["--max-connections", "1", "--reject", reject]);
        let _inside = Client::connect(falconet.address());
        // Says nothing, so that no reset overtakes the answer.
        assert_eq!(exchange(falconet.address(), "").lines().next().unwrap_or_default(), answer);
    }
}

#[test]
fn out_of_descriptors_the_server_rests_and_recovers_within_a_second() {
    let _turn = alone();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let canaries = Canaries::start_every(Duration::from_millis(100), &falconet);
    let mut holders: Vec<Client> = (0..20).map(|_| Client::connect(falconet.address())).collect();
    let files = falconet.open_files();
    // The server keeps its own limit of connections clear of the limit of open files at its start, so
    // the ground is taken from under it now.
    let pid = Pid::from_raw(falconet.pid() as i32);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(falconet.next_file()), maximum };
    prlimit(pid, Resource::Nofile, limit).unwrap();

    let mut waiting: Vec<TcpStream> = (0..40).map(|_| connect(falconet.address())).collect();
    for stream in &mut waiting {
        // The server may have turned it away already.
        let _ = stream.write_all(handshake("/").as_bytes());
    }
    let cpu_before = falconet.cpu_time();
    // The window of the measurement.
    std::thread::sleep(EXHAUSTED);
    let busy = (falconet.cpu_time() - cpu_before).as_secs_f64() / EXHAUSTED.as_secs_f64();
    let attempts = count_attempts(&falconet.log_so_far());
    println!("exhausted for {EXHAUSTED:?}: {attempts} attempts, {:.1} % busy", busy * 100.0);
    assert!(attempts >= 1, "it was not exhausted");
    assert!(attempts < 50 * EXHAUSTED.as_secs() as usize, "{attempts} attempts to accept");
    assert!(busy < 0.05, "{:.1} % of a processor", busy * 100.0);
    assert_eq!(falconet.open_files(), files, "the spare descriptor is back");
    for holder in &mut holders {
        holder.echo("still here");
    }

    let freed = Instant::now();
    drop(holders);
    // Those at the front of the queue were turned away; the next are let in.
    let served = waiting.iter_mut().filter_map(|stream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).ok()?;
        assert_eq!(&head, b"HTTP/1.1 101");
        Some(freed.elapsed())
    });
    let recovered = served.take(10).last().expect("somebody is let in");
    println!("ten were let in {recovered:?} after there was room");
    assert!(recovered < Duration::from_millis(1500), "{recovered:?}");
    drop(waiting);
    Client::connect(falconet.address()).echo("as ever");
    canaries.assert_well();
}

/// How often the log says that there were no descriptors, with what it leaves out.
fn count_attempts(log: &[String]) -> usize {
    let lines = log.iter().filter(|line| line.contains("out of file descriptors"));
    let count = |line: &String| -> usize {
        let suppressed = line.split("suppressed=").nth(1).unwrap_or("0");
        1 + suppressed.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    lines.map(count).sum()
}

/// Longer than the longest pause between two attempts.
const EXHAUSTED: Duration = Duration::from_secs(2);

#[test]
fn a_storm_of_resets_leaves_nothing_behind() {
    let _turn = alone();
    let at_once = affordable(120);
    let falconet = Falconet::start(&["--max-connections", &(at_once + 2).to_string()]);
    let canaries = Canaries::start_every(CANARY_PAUSE, &falconet);
    let files = falconet.open_files();
    let head = handshake("/");
    let big = masked(true, BINARY, &[b'x'; 60_000]);
    // What a peer has sent before it resets the connection, and how many answers it has awaited.
    let phases: [(&str, &[&[u8]], bool); 6] = [
        ("before its head", &[], false),
        ("in its head", &[&head.as_bytes()[..40]], false),
        ("after its head", &[head.as_bytes()], false),
        ("after the handshake", &[head.as_bytes()], true),
        ("in a frame", &[head.as_bytes(), &big[..1000]], true),
        ("in an echo", &[head.as_bytes(), &big, &big, &big, &big], true),
    ];
    for (phase, parts, upgraded) in phases {
        let mut peers: Vec<TcpStream> = (0..at_once).map(|_| connect(falconet.address())).collect();
        for peer in &mut peers {
            sockopt::set_socket_linger(&*peer, Some(Duration::ZERO)).unwrap();
            for (index, part) in parts.iter().enumerate() {
                peer.write_all(part).unwrap();
                if upgraded && index == 0 {
                    let head = read_response_head(peer);
                    assert!(head.starts_with("HTTP/1.1 101 "), "{phase}: {head}");
                }
            }
        }
        drop(peers);
        wait_until(&format!("everybody is gone who left {phase}"), || {
            falconet.open_files() == files
        });
    }
    // The connections are as many as before: the limit lets exactly as many in.
    let mut clients: Vec<Client> =
        (0..at_once).map(|_| Client::connect(falconet.address())).collect();
    assert!(exchange(falconet.address(), &head).starts_with("HTTP/1.1 503 "));
    for client in &mut clients {
        client.echo("after the storm");
    }
    let log = falconet.log_so_far();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
    canaries.assert_well();
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
    let quiet: Vec<Quiet> =
        (0..20).map(|_| Quiet::start(Client::connect(falconet.address()))).collect();
    wait_until("everybody has been pinged", || quiet.iter().all(|client| client.pongs() > 0));
    // One that is slow to read, but not as slow as that.
    let mut slow = Blocked::connect(falconet.address(), 1);
    slow.block();

    falconet.signal(Signal::STOP);
    // The time it stands still.
    std::thread::sleep(Duration::from_millis(4500));
    falconet.signal(Signal::CONT);

    let slow = std::thread::spawn(move || slow.unblock());
    let pongs: Vec<usize> = quiet.iter().map(Quiet::pongs).collect();
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
    let falconet = Falconet::start_unheard(&["--log-level", "debug"], writer.into());
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
    serve_while_logging(Falconet::start_unheard(&["--log-level", "debug"], writer.into()));
}

#[test]
fn a_log_on_a_full_disk_does_not_stop_the_server() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    serve_while_logging(Falconet::start_unheard(&["--log-level", "debug"], full.into()));
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
    assert_eq!(falconet.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_stop_tells_the_healthy_and_does_not_wait_for_the_stuck() {
    let _turn = alone();
    let mut falconet = Falconet::start(&["--broadcast-every", "0", "--write-timeout", "1m"]);
    let count = affordable(300);
    let mut healthy: Vec<Client> =
        (0..count * 2 / 3).map(|_| Client::connect(falconet.address())).collect();
    let mut stuck = Blocked::connect(falconet.address(), count / 3);
    stuck.block();
    for client in &mut healthy {
        client.echo("well");
    }

    falconet.signal(Signal::TERM);
    let stopped = Instant::now();
    for client in &mut healthy {
        assert_eq!(client.read().close_code(), 1001);
        client.send(true, CLOSE, 1001_u16.to_be_bytes());
        // Nothing follows but the orderly end.
        assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    }
    let told = stopped.elapsed();
    let status = falconet.wait_for_exit(PATIENCE);
    let ended = stopped.elapsed();
    println!("{} healthy clients closed within {told:?}, end after {ended:?}", healthy.len());
    assert_eq!(status.code(), Some(0));
    assert!(told < Duration::from_secs(2), "{told:?}");
    assert!(ended < Duration::from_millis(2500 + 500), "{ended:?}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
        let mut falconet = Falconet::start(&["--close-timeout", "1m", "--write-timeout", "1m"]);
        // It never answers the Close, so the first signal takes its time.
        let _silent = Client::connect(falconet.address());
        falconet.signal(first);
        falconet.wait_for_line("stopping");
        falconet.signal(second);
        let signalled = Instant::now();
        assert_eq!(falconet.wait_for_exit(PATIENCE).code(), Some(1));
        assert!(signalled.elapsed() < Duration::from_millis(500), "{:?}", signalled.elapsed());
    }
}

#[test]
fn with_nobody_connected_nothing_ever_wakes() {
    let falconet = Falconet::start(&["--broadcast-every", "50ms", "--ping-every", "100ms"]);
    // A server that has had visitors must come to rest as one that has had none.
    let files = falconet.open_files();
    for _ in 0..10 {
        Client::connect(falconet.address()).echo("and gone");
    }
    drop(connect(falconet.address()));
    wait_until("everybody has left", || falconet.open_files() == files);
    let mut switches = falconet.context_switches();
    wait_until("it has come to rest", || {
        // Longer than a broadcast and a ping are apart.
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut switches, falconet.context_switches());
        before == switches
    });
    // The time in which nothing may happen.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(falconet.context_switches(), switches);
    Client::connect(falconet.address()).echo("awake again");
}

#[test]
fn a_client_that_sent_much_leaves_no_buffer_of_it_behind() {
    let _turn = alone();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(falconet.address())).collect();
    clients.iter_mut().for_each(|client| client.echo("hello"));
    let before = falconet.private_kib();
    let message = "x".repeat(60_000);
    clients.iter_mut().for_each(|client| client.echo(&message));
    let grown = falconet.private_kib().saturating_sub(before);
    // One message is under way at a time: two or three copies of it, and what malloc keeps.
    assert!(grown < 600, "{grown} KiB for 100 clients after 60 KB each");
    clients.iter_mut().for_each(|client| client.echo("still there"));
}

#[test]
fn a_client_holds_buffers_only_while_a_message_is_under_way() {
    let _turn = alone();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut clients: Vec<Client> = (0..1000).map(|_| Client::connect(falconet.address())).collect();
    let silent = falconet.private_kib();
    let begin_and_end = |clients: &mut [Client]| {
        for client in &mut *clients {
            client.send(false, TEXT, "half");
            client.send(true, PING, "have you heard it?");
            assert_eq!(client.read().opcode, PONG);
        }
        let most = falconet.private_kib();
        for client in clients {
            client.send(true, CONTINUATION, " and half");
            assert_eq!(client.read().text(), "half and half");
            client.echo("all's well");
        }
        most
    };
    let (first, second) = clients.split_at_mut(500);
    let grown = begin_and_end(first) - silent;
    assert!(grown > 200, "{grown} KiB for half a message of 500 clients");
    // malloc has the memory of the first again, and nothing outside shows it before others use it.
    let more = begin_and_end(second) - silent - grown;
    assert!(more < grown / 2, "{grown} KiB for 500 clients, {more} KiB more for 500 others");
    begin_and_end(&mut clients);
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
