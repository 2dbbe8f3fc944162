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
    assert_eq!(
        falconet.open_files(),
        files + count / 4,
        "no client is dropped before the deadline"
    );
    wait_until("the blocked clients are dropped", || falconet.open_files() == files);

    let last = "the last message";
    let broadcasts: Vec<Vec<String>> = readers.iter_mut().map(|r| r.broadcasts(last)).collect();
    println!(
        "{} readers with up to {} broadcasts each; {before} KiB before, {during} KiB with {} blocked",
        readers.len(),
        broadcasts[0].len(),
        count / 4
    );
    let of_first = &broadcasts[0];
    assert!(of_first.len() >= 20, "{of_first:?}");
    for broadcasts in &broadcasts {
        // A reader that connected later lacks the first broadcasts, and has more at the end.
        let from = of_first
            .iter()
            .position(|text| *text == broadcasts[0])
            .expect("the readers have a broadcast in common");
        let common = of_first.len() - from;
        assert_eq!(of_first[from..], broadcasts[..common]);
    }
    // One message received, one being sent, and the read buffer of the library.
    let limit = 256 * (count as u64 / 4);
    assert!(during < before + limit, "{before} KiB before, {during} KiB with the blocked ones");
    assert_prompt(canaries);
}

impl Client {
    /// Returns the broadcasts that arrive before the echo of `last`.
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
fn a_flood_of_connections_above_the_limit_harms_no_connected_client() {
    let _guard = serial();
    let inside = connection_budget(200);
    let limit = inside + 2 - LOCAL_PLACES;
    let falconet = Falconet::start(&["--max-connections", &limit.to_string()]);
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
        assert_eq!(falconet.open_files(), files + inside, "no more clients than the limit");
        drop(clients);
        wait_until("there is room again", || falconet.open_files() == files);
    }
    assert_prompt(canaries);
}

#[test]
fn without_free_descriptors_the_server_stays_idle_and_recovers_within_a_second() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let canaries = start_canaries(Duration::from_millis(100), &falconet);
    let mut holders: Vec<Client> = (0..20).map(|_| Client::connect(falconet.address())).collect();
    let files = falconet.open_files();
    // At its start the server keeps its limit of connections below the limit of open files, so the limit of
    // open files is lowered only now.
    let pid = Pid::from_raw(falconet.pid() as i32);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(next_descriptor(&falconet)), maximum };
    prlimit(pid, Resource::Nofile, limit).unwrap();

    let mut waiting: Vec<TcpStream> = (0..40).map(|_| connect(falconet.address())).collect();
    for stream in &mut waiting {
        // The server may have rejected the connection already.
        let _ = stream.write_all(handshake("/").as_bytes());
    }
    let cpu_before = falconet.cpu_time();
    // The duration of the measurement.
    std::thread::sleep(EXHAUSTED);
    let busy = (falconet.cpu_time() - cpu_before).as_secs_f64() / EXHAUSTED.as_secs_f64();
    let attempts = count_attempts(&falconet.log_so_far());
    println!("exhausted for {EXHAUSTED:?}: {attempts} attempts, {:.1} % busy", busy * 100.0);
    assert!(attempts >= 1, "the descriptors were not exhausted");
    assert!(attempts < 50 * EXHAUSTED.as_secs() as usize, "{attempts} attempts to accept");
    assert!(busy < 0.05, "{:.1} % of a processor", busy * 100.0);
    assert_eq!(falconet.open_files(), files, "the spare descriptor is back");
    for holder in &mut holders {
        holder.echo("still here");
    }

    let freed = Instant::now();
    drop(holders);
    // The first connections in the queue were rejected. The server accepts those after them.
    let served = waiting.iter_mut().filter_map(|stream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).ok()?;
        assert_eq!(&head, b"HTTP/1.1 101");
        Some(freed.elapsed())
    });
    let recovered = served.take(10).last().expect("ten connections are accepted");
    println!("ten connections were accepted within {recovered:?}");
    assert!(recovered < Duration::from_millis(1500), "{recovered:?}");
    drop(waiting);
    Client::connect(falconet.address()).echo("accepted again");
    assert_prompt(canaries);
}

/// Returns how often the server ran out of descriptors according to its log, with the suppressed lines.
fn count_attempts(log: &[String]) -> usize {
    let lines = log.iter().filter(|line| line.contains("out of file descriptors"));
    let count = |line: &String| -> usize {
        let suppressed = line.split("suppressed=").nth(1).unwrap_or("0");
        1 + suppressed.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    lines.map(count).sum()
}

/// The duration of the measurement, longer than the longest pause between two attempts to accept.
const EXHAUSTED: Duration = Duration::from_secs(2);

#[test]
fn a_storm_of_resets_leaves_nothing_behind() {
    let _guard = serial();
    let at_once = connection_budget(120);
    let limit = at_once + 2 - LOCAL_PLACES;
    let falconet = Falconet::start(&["--max-connections", &limit.to_string()]);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
    let files = falconet.open_files();
    let head = handshake("/");
    let big = masked(true, BINARY, &[b'x'; 60_000]);
    // The bytes that a peer sends before it resets the connection, and true if it awaits the upgrade.
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
        wait_until(&format!("every connection that was reset {phase} is closed"), || {
            falconet.open_files() == files
        });
    }
    // No connection is left: the limit admits exactly as many as before.
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
fn a_stop_closes_healthy_clients_and_does_not_wait_for_blocked_ones() {
    let _guard = serial();
    let mut falconet = Falconet::start(&["--broadcast-every", "0", "--write-timeout", "1m"]);
    let count = connection_budget(300);
    let mut healthy: Vec<Client> =
        (0..count * 2 / 3).map(|_| Client::connect(falconet.address())).collect();
    let mut stuck = BlockedClients::connect(falconet.address(), count / 3);
    stuck.block();
    for client in &mut healthy {
        client.echo("connected");
    }

    falconet.signal(Signal::TERM);
    let stopped = Instant::now();
    for client in &mut healthy {
        assert_eq!(client.read().close_code(), 1001);
        client.send(true, CLOSE, 1001_u16.to_be_bytes());
        // The stream ends after the Close, without a reset.
        assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    }
    let closed_after = stopped.elapsed();
    let status = falconet.wait_for_exit(TIMEOUT);
    let ended_after = stopped.elapsed();
    println!(
        "{} healthy clients closed within {closed_after:?}, end after {ended_after:?}",
        healthy.len()
    );
    assert_eq!(status.code(), Some(0));
    assert!(closed_after < Duration::from_secs(2), "{closed_after:?}");
    assert!(ended_after < Duration::from_millis(2500 + 500), "{ended_after:?}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let _guard = serial();
    for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
        let mut falconet = Falconet::start(&["--close-timeout", "1m", "--write-timeout", "1m"]);
        // This client never answers the Close, so the drain after the first signal would take long.
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
fn without_clients_the_server_does_not_wake_up() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "50ms", "--ping-every", "100ms"]);
    // The server must also sleep again after it has had clients.
    let files = falconet.open_files();
    for _ in 0..10 {
        Client::connect(falconet.address()).echo("one echo");
    }
    drop(connect(falconet.address()));
    wait_until("all clients are disconnected", || falconet.open_files() == files);
    let mut switches = context_switches(&falconet);
    wait_until("the server sleeps", || {
        // Longer than the intervals of broadcasts and pings.
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut switches, context_switches(&falconet));
        before == switches
    });
    // The duration of the measurement, in which nothing may wake up the server.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(context_switches(&falconet), switches);
    Client::connect(falconet.address()).echo("awake again");
}

#[test]
fn no_buffer_is_kept_for_a_client_that_sent_a_large_message() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(falconet.address())).collect();
    clients.iter_mut().for_each(|client| client.echo("hello"));
    let before = falconet.private_kib();
    let message = "x".repeat(60_000);
    clients.iter_mut().for_each(|client| client.echo(&message));
    let grown = falconet.private_kib().saturating_sub(before);
    // The server handles one message at a time, in two or three copies. malloc keeps the rest.
    assert!(grown < 600, "{grown} KiB for 100 clients after 60 KB each");
    clients.iter_mut().for_each(|client| client.echo("still there"));
}

#[test]
fn a_client_holds_buffers_only_while_a_message_is_incomplete() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut clients: Vec<Client> = (0..1000).map(|_| Client::connect(falconet.address())).collect();
    let silent = falconet.private_kib();
    let begin_and_end = |clients: &mut [Client]| {
        for client in &mut *clients {
            client.send(false, TEXT, "half");
            client.send(true, PING, "between the fragments");
            assert_eq!(client.read().opcode, PONG);
        }
        let most = falconet.private_kib();
        for client in clients {
            client.send(true, CONTINUATION, " and half");
            assert_eq!(client.read().text(), "half and half");
            client.echo("complete");
        }
        most
    };
    let (first, second) = clients.split_at_mut(500);
    let grown = begin_and_end(first) - silent;
    assert!(grown > 200, "{grown} KiB for half a message of 500 clients");
    // malloc keeps the memory that the first 500 clients have freed, and the next 500 use it again.
    let more = begin_and_end(second) - silent - grown;
    assert!(more < grown / 2, "{grown} KiB for 500 clients, {more} KiB more for 500 others");
    begin_and_end(&mut clients);
}
