//! The requirements of `tests/it/conformance.rs` whose tests judge times.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::measure::{context_switches, serial};
use crate::support::time::unix_nanoseconds;
use crate::support::*;

#[test]
fn c17_echoes_are_not_delayed() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    let start = Instant::now();
    for number in 0..100 {
        client.echo(&format!("message {number}"));
    }
    // With the article's server, which answers four messages a second, this takes 25 s.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn c20_broadcasts_stay_on_a_fixed_schedule_after_a_late_one() {
    let _guard = serial();
    const EVERY: u64 = 200_000_000;
    let falconet = Falconet::start(&["--broadcast-every", "200ms"]);
    let mut client = Client::connect(falconet.address());
    let mut times = |count| -> Vec<u64> { (0..count).map(|_| next_time(&mut client)).collect() };
    let before = times(4);
    // After the server was stopped for one and a half periods, a timer that adds its period to the time of its
    // last wake-up would be half a period off its schedule.
    falconet.signal(Signal::STOP);
    std::thread::sleep(Duration::from_nanos(EVERY * 3 / 2));
    falconet.signal(Signal::CONT);
    // The first broadcast is late. On a busy machine any other may be late too, so one on time is enough.
    let after = &times(5)[1..];
    let off_schedule = |from: u64, to: u64| {
        let phase = (to - from) % EVERY;
        phase.min(EVERY - phase)
    };
    let pairs = before.iter().flat_map(|from| after.iter().map(|to| off_schedule(*from, *to)));
    assert!(pairs.min().unwrap() < EVERY / 10, "{before:?}, then {after:?}");
}

#[test]
fn c20_without_clients_the_server_does_not_wake_up() {
    let _guard = serial();
    let idle = Falconet::start(&["--broadcast-every", "50ms", "--log-level", "debug"]);
    // The server has served a client before.
    next_time(&mut Client::connect(idle.address()));
    idle.wait_for_line("connection ended");
    // The broadcasts of another server are the clock.
    let clock = Falconet::start(&["--broadcast-every", "50ms"]);
    let mut ticks = Client::connect(clock.address());
    let mut counts = vec![context_switches(&idle)];
    wait_until("no wake-up for six ticks", || {
        next_time(&mut ticks);
        counts.push(context_switches(&idle));
        counts.windows(7).any(|ticks| ticks.iter().all(|count| *count == ticks[0]))
    });
    // A server that wakes up at each tick never sleeps that long. This one may wake up once or twice to finish
    // earlier work.
    assert!(counts.len() <= 9, "{counts:?}");
}

#[test]
fn c28_connections_left_after_the_close_timeout_are_aborted() {
    let _guard = serial();
    let mut falconet = Falconet::start(&["--close-timeout", "300ms"]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(falconet.address())).collect();
    let start = Instant::now();
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(300));
    // Aborting one after another, as the article's server does, takes eight times as long.
    assert!(start.elapsed() < Duration::from_millis(8 * 300), "{:?}", start.elapsed());
    falconet.wait_for_line("aborting 8 connections");
    for client in &mut clients {
        assert_eq!(client.read_to_close(), Some(1001));
    }
}

/// Reads a broadcast and returns its time, in nanoseconds since 1970.
fn next_time(client: &mut Client) -> u64 {
    let frame = client.read();
    unix_nanoseconds(frame.text().strip_prefix("Server time: ").unwrap())
}
