//! The standard input as a publisher: bounded memory, no wake-ups, and an exit on time.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::process::Signal;

use crate::measure::*;
use crate::support::folder::Folder;
use crate::support::stdin::*;
use crate::support::terminal::open_terminal;
use crate::support::*;

#[test]
fn a_client_that_never_reads_delays_the_exit_by_the_close_timeout() {
    let _guard = serial();
    let (mut falconet, producer) = start_piped(&["--exit-on-eof", "--close-timeout", "300ms"]);
    let _stuck = [
        Client::connect_to(falconet.address(), LINES).stream,
        Events::connect(falconet.address(), LINES, "").into_stream(),
    ];
    feed(producer, vec![b'\n'; 1 << 20]).join().unwrap();
    falconet.wait_for_line("stopping");
    let start = Instant::now();
    assert_eq!(falconet.wait_for_exit(Duration::from_secs(2)).code(), Some(0));
    println!("stopped after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
}

#[test]
fn a_producer_faster_than_the_clients_costs_no_memory() {
    let _guard = serial();
    let (falconet, producer) = start_piped(&[]);
    let address = falconet.address();
    let canaries = Canaries::start(address);
    let mut fast: Vec<Events> = (0..2).map(|_| Events::connect(address, LINES, "")).collect();
    let mut stuck = Events::connect(address, LINES, "");
    let stuck_client = Client::connect_to(address, LINES);
    for stream in [stuck.stream(), &stuck_client.stream] {
        // Otherwise the kernel would buffer megabytes for this subscriber.
        sockopt::set_socket_recv_buffer_size(stream, 64 * 1024).unwrap();
    }
    let before = falconet.private_kib();

    let begun = Instant::now();
    let mut most = before;
    let feeding = feed(producer, numbered_lines(FED_LINES));
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            fast.iter_mut().map(|events| scope.spawn(|| read_all(events, FED_LINES))).collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            most = most.max(falconet.private_kib());
            std::thread::sleep(Duration::from_millis(20));
        }
        for reader in readers {
            println!("a subscriber that reads lost {} lines", reader.join().unwrap());
        }
    });
    feeding.join().unwrap();
    println!(
        "{FED_LINES} lines of {LINE_BYTES} bytes in {:?}; {before} KiB before, {most} KiB at most",
        begun.elapsed()
    );
    // The log of 256 KiB, one line being sent to each client, and the overhead of the allocator.
    assert!(most < before + 1024, "{before} KiB before, {most} KiB at most");
    // The subscriber that did not read receives the number of lost lines, and all other lines.
    let lost = read_all(&mut stuck, FED_LINES);
    println!("a subscriber that did not read lost {lost} lines");
    assert!(lost > FED_LINES / 2, "{lost} lost");
    canaries.finish();
}

/// Returns `count` numbered lines of [`LINE_BYTES`] bytes.
fn numbered_lines(count: usize) -> Vec<u8> {
    let mut lines = Vec::with_capacity(count * LINE_BYTES);
    for number in 1..=count {
        let begun = lines.len();
        write!(lines, "{number} ").unwrap();
        lines.resize(begun + LINE_BYTES - 1, b'.');
        lines.push(b'\n');
    }
    lines
}

/// Reads numbered lines up to `last`, each of which must be received in order or reported as lost. Returns the
/// number of lost lines.
fn read_all(events: &mut Events, last: usize) -> usize {
    let (mut next, mut lost) = (1, 0);
    while next <= last {
        let event = events.read();
        if event.kind == "lagged" {
            let missed: usize = event.data.parse().unwrap();
            (next, lost) = (next + missed, lost + missed);
        } else {
            assert_eq!(event.id, Some(next as u64));
            assert_eq!(event.data.split(' ').next(), Some(&*next.to_string()));
            next += 1;
        }
    }
    lost
}

/// The number of lines, together 48 MiB.
const FED_LINES: usize = 12 * 1024;

const LINE_BYTES: usize = 4096;

#[test]
fn no_kind_of_input_needs_another_thread_or_wakes_up_the_server() {
    let _guard = serial();
    let flags = ["--retain", "2", "--log-level", "debug"];
    let check = |what: &str, falconet: &Falconet, lines: &[&str]| {
        let mut client = Client::connect_to(falconet.address(), "/topics/lines?last=2");
        for line in lines {
            assert_eq!(client.read().text(), *line, "{what}");
        }
        assert_eq!(thread_count(falconet), 2, "{what}");
        // Wait until the server sleeps.
        let mut before = 0;
        wait_until("the server sleeps", || {
            let last = std::mem::replace(&mut before, context_switches(falconet));
            before == last
        });
        // The duration of the measurement.
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(context_switches(falconet), before, "{what}");
        assert_eq!(thread_count(falconet), 2, "{what}");
    };

    let (falconet, mut producer) = start_piped(&flags);
    producer.write_all(b"a\nb\nbegun").unwrap();
    check("a pipe that is silent", &falconet, &["a", "b"]);
    drop(producer);
    falconet.wait_for_line(END);
    check("a pipe that has ended", &falconet, &["b", "begun"]);

    let falconet = start(Stdio::null(), &flags);
    falconet.wait_for_line(END);
    check("/dev/null", &falconet, &[]);

    let folder = Folder::new("stdin-file");
    let path = folder.file("file");
    std::fs::write(&path, "a\nb\nc").unwrap();
    let falconet = start(File::open(&path).unwrap(), &flags);
    falconet.wait_for_line(END);
    check("a file", &falconet, &["b", "c"]);

    let (mut keyboard, terminal) = open_terminal();
    let falconet = start(terminal, &flags);
    keyboard.write_all(b"a\nb\n").unwrap();
    check("a terminal", &falconet, &["a", "b"]);
    // Ctrl+D ends the input.
    keyboard.write_all(b"\x04").unwrap();
    falconet.wait_for_line(END);
    check("a terminal after Ctrl+D", &falconet, &["a", "b"]);
}

/// /dev/zero is always readable, but the server must also serve its clients.
#[test]
fn an_endless_input_delays_no_client_and_costs_no_memory() {
    let _guard = serial();
    for (what, flags) in [("lines", &["--stdin-separator", "nul"][..]), ("one line", &[])] {
        let mut falconet = start(File::open("/dev/zero").unwrap(), flags);
        let canaries = start_canaries(CANARY_PAUSE, &falconet);
        let before = falconet.private_kib();
        // The duration of the measurement.
        std::thread::sleep(Duration::from_millis(500));
        let after = falconet.private_kib();
        println!("{what} without end: {before} KiB before, {after} KiB after");
        assert!(after < before + 256, "{before} KiB before, {after} KiB after");
        assert_prompt(canaries);
        assert_stops_at_once(&mut falconet);
    }
}

#[test]
fn a_silent_input_does_not_delay_the_stop() {
    let _guard = serial();
    let (mut falconet, mut producer) = start_piped(&[]);
    producer.write_all(b"begun").unwrap();
    Client::connect(falconet.address()).echo("running");
    assert_stops_at_once(&mut falconet);
    drop(producer);
    let (keyboard, terminal) = open_terminal();
    assert_stops_at_once(&mut start(terminal, &[]));
    drop(keyboard);
}

fn assert_stops_at_once(falconet: &mut Falconet) {
    let start = Instant::now();
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(Duration::from_secs(2)).code(), Some(0));
    println!("stopped after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}
