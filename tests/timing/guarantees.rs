//! The guarantees of the server under load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::measure::*;
use crate::support::*;

#[test]
fn readers_lose_no_broadcast_when_others_stop_reading() {
    let _guard = serial();
    let flags = ["--broadcast-every", "50ms", "--write-timeout", "1500ms"];
    let falconet = Falconet::start(&flags);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
    let count = connection_budget(200);
    let mut readers: Vec<Client> =
        (0..count * 3 / 4).map(|_| Client::connect(falconet.address())).collect();
    let (files, before) = (falconet.open_files(), falconet.private_kib());
    let mut blocked = BlockedClients::connect(falconet.address(), count / 4);
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
    assert_prompt(canaries);
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

#[test]
fn a_flood_of_connections_beyond_the_limit_harms_nobody_inside() {
    let _guard = serial();
    let inside = connection_budget(200);
    let falconet = Falconet::start(&["--max-connections", &(inside + 2).to_string()]);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
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
    assert_prompt(canaries);
}

#[test]
fn out_of_descriptors_the_server_rests_and_recovers_within_a_second() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let canaries = start_canaries(Duration::from_millis(100), &falconet);
    let mut holders: Vec<Client> = (0..20).map(|_| Client::connect(falconet.address())).collect();
    let files = falconet.open_files();
    // The server keeps its own limit of connections clear of the limit of open files at its start, so
    // the ground is taken from under it now.
    let pid = Pid::from_raw(falconet.pid() as i32);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(next_descriptor(&falconet)), maximum };
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
    assert_prompt(canaries);
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
    let _guard = serial();
    let at_once = connection_budget(120);
    let falconet = Falconet::start(&["--max-connections", &(at_once + 2).to_string()]);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
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
    assert_prompt(canaries);
}

#[test]
fn a_stop_tells_the_healthy_and_does_not_wait_for_the_stuck() {
    let _guard = serial();
    let mut falconet = Falconet::start(&["--broadcast-every", "0", "--write-timeout", "1m"]);
    let count = connection_budget(300);
    let mut healthy: Vec<Client> =
        (0..count * 2 / 3).map(|_| Client::connect(falconet.address())).collect();
    let mut stuck = BlockedClients::connect(falconet.address(), count / 3);
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
    let status = falconet.wait_for_exit(TIMEOUT);
    let ended = stopped.elapsed();
    println!("{} healthy clients closed within {told:?}, end after {ended:?}", healthy.len());
    assert_eq!(status.code(), Some(0));
    assert!(told < Duration::from_secs(2), "{told:?}");
    assert!(ended < Duration::from_millis(2500 + 500), "{ended:?}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let _guard = serial();
    for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
        let mut falconet = Falconet::start(&["--close-timeout", "1m", "--write-timeout", "1m"]);
        // It never answers the Close, so the first signal takes its time.
        let _silent = Client::connect(falconet.address());
        falconet.signal(first);
        falconet.wait_for_line("stopping");
        falconet.signal(second);
        let signalled = Instant::now();
        assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(1));
        assert!(signalled.elapsed() < Duration::from_millis(500), "{:?}", signalled.elapsed());
    }
}

#[test]
fn with_nobody_connected_nothing_ever_wakes() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "50ms", "--ping-every", "100ms"]);
    // A server that has had visitors must come to rest as one that has had none.
    let files = falconet.open_files();
    for _ in 0..10 {
        Client::connect(falconet.address()).echo("and gone");
    }
    drop(connect(falconet.address()));
    wait_until("everybody has left", || falconet.open_files() == files);
    let mut switches = context_switches(&falconet);
    wait_until("it has come to rest", || {
        // Longer than a broadcast and a ping are apart.
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut switches, context_switches(&falconet));
        before == switches
    });
    // The time in which nothing may happen.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(context_switches(&falconet), switches);
    Client::connect(falconet.address()).echo("awake again");
}

#[test]
fn a_client_that_sent_much_leaves_no_buffer_of_it_behind() {
    let _guard = serial();
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
    let _guard = serial();
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
