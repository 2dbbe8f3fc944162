//! The standard input as a publisher: `producer | falconet --stdin NAME`.

use std::fs::File;
use std::io::{PipeWriter, Write, pipe};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat, open};
use rustix::net::sockopt;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::rig::*;

#[test]
fn each_line_is_published_in_order_and_the_server_outlives_the_input() {
    let (falconet, mut producer) = start_piped(&[]);
    let mut client = Client::connect_to(falconet.address(), LINES);
    let mut listener = Events::connect(falconet.address(), LINES, "");
    let mut hear = |opcode, payload: &[u8], id| {
        let frame = client.read();
        assert_eq!((frame.opcode, &*frame.payload), (opcode, payload));
        let event = listener.read();
        assert_eq!((event.id, event.kind == "message"), (Some(id), opcode == TEXT));
    };
    producer.write_all(b"one\r\n\ntwo").unwrap();
    hear(TEXT, b"one", 1);
    hear(TEXT, b"", 2);
    producer.write_all(b" halves\n\xc3").unwrap();
    hear(TEXT, b"two halves", 3);
    producer.write_all(b"\xa4\n\xff\xfe\nthe last").unwrap();
    hear(TEXT, "ä".as_bytes(), 4);
    hear(BINARY, b"\xff\xfe", 5);
    drop(producer);
    hear(TEXT, b"the last", 6);
    falconet.wait_for_line(END);

    Client::connect(falconet.address()).echo("it goes on");
    Client::connect_to(falconet.address(), LINES).send(true, TEXT, "from a client");
    hear(TEXT, b"from a client", 7);
}

#[test]
fn a_line_may_end_with_nul() {
    let (falconet, mut producer) = start_piped(&["--stdin-separator", "nul"]);
    let mut client = Client::connect_to(falconet.address(), LINES);
    producer.write_all(b"a\nb\r\n\0c\r\0\0").unwrap();
    for expected in ["a\nb\r\n", "c\r", ""] {
        assert_eq!(client.read().text(), expected);
    }
}

#[test]
fn a_line_too_long_is_dropped_with_a_warning_and_the_next_one_published() {
    let (falconet, mut producer) = start_piped(&["--max-message", "1k"]);
    let mut client = Client::connect_to(falconet.address(), LINES);
    let longest = "x".repeat(1024);
    producer.write_all(format!("{longest}\n{longest}\r\n{longest}x\nnext\n").as_bytes()).unwrap();
    for expected in [&*longest, &longest, "next"] {
        assert_eq!(client.read().text(), expected);
    }
    let warning = falconet.wait_for_line("dropped a line of more than 1024 bytes");
    assert!(warning.contains("<4>") || warning.to_lowercase().contains("warn"), "{warning}");

    let before = falconet.private_kib();
    producer.write_all(&vec![b'y'; 8 << 20]).unwrap();
    // A pipe holds 64 KiB, so nearly all of it has been read.
    let after = falconet.private_kib();
    producer.write_all(b"\nafter it\n").unwrap();
    assert_eq!(client.read().text(), "after it");
    falconet.wait_for_line("dropped a line of more than 1024 bytes");
    println!("a line of 8 MiB: {before} KiB before, {after} KiB after");
    assert!(after < before + 256, "{before} KiB before, {after} KiB after");
}

#[test]
fn at_the_end_of_the_input_everybody_gets_every_line_and_the_server_exits() {
    // Lines and end come at once, so each round has another chance to lose something between them.
    for round in 0..20 {
        let (mut falconet, mut producer) = start_piped(&["--exit-on-eof"]);
        let mut client = Client::connect_to(falconet.address(), LINES);
        let mut listener = Events::connect(falconet.address(), LINES, "");
        let elsewhere = Client::connect(falconet.address());
        let lines: Vec<String> = (0..round * 50).map(|line| format!("line {line}")).collect();
        producer.write_all((lines.join("\n") + "\nend").as_bytes()).unwrap();
        drop(producer);
        let lines = lines.iter().map(String::as_str);
        let lines = if round == 0 { vec!["", "end"] } else { lines.chain(["end"]).collect() };
        for line in &lines {
            assert_eq!(client.read().text(), *line);
            assert_eq!(listener.read().data, *line);
        }
        for mut client in [client, elsewhere] {
            assert_eq!(client.read().close_code(), 1001);
            client.send(true, CLOSE, 1001_u16.to_be_bytes());
            assert_eq!(client.read_to_close(), None, "nothing follows the Close");
        }
        assert_eq!(listener.try_read(), None);
        drop(listener);
        assert_eq!(falconet.wait_for_exit(Duration::from_secs(3)).code(), Some(0));
        falconet.wait_for_line(END);
    }
}

/// More than the kernel takes for a client that does not read, and less than the log holds.
#[test]
fn who_has_yet_to_read_when_the_input_ends_gets_every_line_all_the_same() {
    const COUNT: usize = 300;
    let flags = ["--exit-on-eof", "--log-messages", "1000", "--log-bytes", "2m"];
    let (mut falconet, producer) = start_piped(&flags);
    let mut client = Client::connect_to(falconet.address(), LINES);
    let mut listener = Events::connect(falconet.address(), LINES, "");
    for stream in [&client.stream, listener.stream()] {
        sockopt::set_socket_recv_buffer_size(stream, 64 * 1024).unwrap();
    }
    let lines = (0..COUNT).map(|line| format!("{line:04000}\n")).collect::<String>();
    feed(producer, lines.into_bytes()).join().unwrap();
    falconet.wait_for_line("stopping");
    let listening = std::thread::spawn(move || {
        for line in 0..COUNT {
            assert_eq!(listener.read().data, format!("{line:04000}"));
        }
        assert_eq!(listener.try_read(), None);
    });
    for line in 0..COUNT {
        assert_eq!(client.read().text(), format!("{line:04000}"));
    }
    assert_eq!(client.read().close_code(), 1001);
    drop(client);
    listening.join().unwrap();
    assert_eq!(falconet.wait_for_exit(Duration::from_secs(3)).code(), Some(0));
}

#[test]
fn who_never_reads_delays_the_exit_by_the_close_timeout_and_no_more() {
    let (mut falconet, producer) = start_piped(&["--exit-on-eof", "--close-timeout", "300ms"]);
    let _stuck = [
        Client::connect_to(falconet.address(), LINES).stream,
        Events::connect(falconet.address(), LINES, "").into_stream(),
    ];
    feed(producer, vec![b'\n'; 1 << 20]).join().unwrap();
    falconet.wait_for_line("stopping");
    let asked = Instant::now();
    assert_eq!(falconet.wait_for_exit(Duration::from_secs(2)).code(), Some(0));
    println!("stopped after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_millis(800), "{:?}", asked.elapsed());
}

#[test]
fn a_producer_faster_than_the_clients_costs_no_memory() {
    let _turn = alone();
    let (falconet, producer) = start_piped(&[]);
    let address = falconet.address();
    let canaries = Canaries::start(address);
    let mut hasty: Vec<Events> = (0..2).map(|_| Events::connect(address, LINES, "")).collect();
    let mut stuck = Events::connect(address, LINES, "");
    let stuck_client = Client::connect_to(address, LINES);
    for stream in [stuck.stream(), &stuck_client.stream] {
        // Or the kernel takes megabytes for it.
        sockopt::set_socket_recv_buffer_size(stream, 64 * 1024).unwrap();
    }
    let before = falconet.private_kib();

    let begun = Instant::now();
    let mut most = before;
    let feeding = feed(producer, numbered_lines(FED_LINES));
    std::thread::scope(|scope| {
        let hearing: Vec<_> = hasty
            .iter_mut()
            .map(|listener| scope.spawn(|| hear_all(listener, FED_LINES)))
            .collect();
        while hearing.iter().any(|hearing| !hearing.is_finished()) {
            most = most.max(falconet.private_kib());
            std::thread::sleep(Duration::from_millis(20));
        }
        for hearing in hearing {
            println!("one who reads was told of {} lost", hearing.join().unwrap());
        }
    });
    feeding.join().unwrap();
    println!(
        "{FED_LINES} lines of {LINE_BYTES} bytes in {:?}; {before} KiB before, {most} KiB at most",
        begun.elapsed()
    );
    // The log of 256 KiB, a line on its way to each client, and what the allocator makes of it.
    assert!(most < before + 1024, "{before} KiB before, {most} KiB at most");
    // Who did not read is told what it missed, and loses nothing else.
    let lost = hear_all(&mut stuck, FED_LINES);
    println!("who did not read was told of {lost} lost");
    assert!(lost > FED_LINES / 2, "{lost} lost");
    canaries.finish();
}

/// Numbered lines of [`LINE_BYTES`].
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

/// Listens to numbered lines up to `last`, each either heard in its place or told to be lost; says how
/// many were lost.
fn hear_all(listener: &mut Events, last: usize) -> usize {
    let (mut next, mut lost) = (1, 0);
    while next <= last {
        let event = listener.read();
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

/// 48 MiB together.
const FED_LINES: usize = 12 * 1024;
const LINE_BYTES: usize = 4096;

#[test]
fn whatever_the_input_is_there_is_no_helper_thread_and_no_wake_up() {
    let _turn = alone();
    let flags = ["--retain", "2", "--log-level", "debug"];
    let check = |what: &str, falconet: &Falconet, lines: &[&str]| {
        let mut client = Client::connect_to(falconet.address(), "/topics/lines?last=2");
        for line in lines {
            assert_eq!(client.read().text(), *line, "{what}");
        }
        assert_eq!(threads(falconet), 2, "{what}");
        // Until it has gone to sleep.
        let mut before = 0;
        wait_until("it rests", || {
            let last = std::mem::replace(&mut before, falconet.context_switches());
            before == last
        });
        // The window of the measurement.
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(falconet.context_switches(), before, "{what}");
        assert_eq!(threads(falconet), 2, "{what}");
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

    let path = temporary("file");
    std::fs::write(&path, "a\nb\nc").unwrap();
    let falconet = start(File::open(&path).unwrap(), &flags);
    falconet.wait_for_line(END);
    check("a file", &falconet, &["b", "c"]);
    std::fs::remove_file(path).unwrap();

    let (mut keyboard, terminal) = open_terminal();
    let falconet = start(terminal, &flags);
    keyboard.write_all(b"a\nb\n").unwrap();
    check("a terminal", &falconet, &["a", "b"]);
    // Ctrl+D, which is the end.
    keyboard.write_all(b"\x04").unwrap();
    falconet.wait_for_line(END);
    check("a terminal after Ctrl+D", &falconet, &["a", "b"]);
}

fn open_terminal() -> (File, OwnedFd) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let path = ptsname(&keyboard, Vec::new()).unwrap();
    let terminal = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    (keyboard.into(), terminal.unwrap())
}

#[test]
fn a_named_pipe_ends_when_its_writer_closes_it() {
    let path = temporary("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
    // As `falconet --stdin lines <fifo` does, which waits for the writer; and opened so that it does
    // not wait: then there is no end before there was a beginning.
    for nonblocking in [OFlags::empty(), OFlags::NONBLOCK] {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | nonblocking;
        let writing = || File::options().write(true).open(&path).unwrap();
        let (falconet, mut writer) = std::thread::scope(|scope| {
            if nonblocking.is_empty() {
                let writer = scope.spawn(writing);
                let reader = open(&path, flags, Mode::empty()).unwrap();
                (start(reader, &["--retain", "2"]), writer.join().unwrap())
            } else {
                let falconet =
                    start(open(&path, flags, Mode::empty()).unwrap(), &["--retain", "2"]);
                Client::connect(falconet.address()).echo("up and running");
                (falconet, writing())
            }
        });
        let mut client = Client::connect_to(falconet.address(), LINES);
        assert_eq!(threads(&falconet), 2);
        writer.write_all(b"a\nb").unwrap();
        assert_eq!(client.read().text(), "a");
        assert!(!falconet.log_so_far().iter().any(|line| line.contains(END)));
        drop(writer);
        assert_eq!(client.read().text(), "b");
        falconet.wait_for_line(END);
        Client::connect(falconet.address()).echo("it goes on");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_pipe_others_share_is_left_as_blocking_as_it_was() {
    for nonblocking in [OFlags::empty(), OFlags::NONBLOCK] {
        let (reader, mut producer) = pipe().unwrap();
        fcntl_setfl(&reader, fcntl_getfl(&reader).unwrap() | nonblocking).unwrap();
        let found = fcntl_getfl(&reader).unwrap();
        assert_eq!(found.contains(OFlags::NONBLOCK), !nonblocking.is_empty());
        let falconet = start(reader.try_clone().unwrap(), &[]);
        let mut client = Client::connect_to(falconet.address(), LINES);
        for line in ["one", "two"] {
            writeln!(producer, "{line}").unwrap();
            assert_eq!(client.read().text(), line);
        }
        assert_eq!(fcntl_getfl(&reader).unwrap(), found);
        drop(producer);
        falconet.wait_for_line(END);
        assert_eq!(fcntl_getfl(&reader).unwrap(), found);
    }
}

#[test]
fn an_input_that_cannot_be_read_is_one_line_in_the_log_and_the_server_goes_on() {
    let directory = File::open(std::env::temp_dir()).unwrap();
    let (_reader, write_only) = pipe().unwrap();
    drop(_reader);
    for (stdin, reason) in [
        (OwnedFd::from(directory), "Is a directory"),
        (OwnedFd::from(write_only), "Bad file descriptor"),
    ] {
        let falconet = start(stdin, &[]);
        let line = falconet.wait_for_line("standard input");
        assert!(line.contains("can't read the standard input"), "{line}");
        assert!(line.contains(reason), "{line}");
        assert_goes_on(&falconet);
    }
}

/// The standard library opens /dev/null in place of a descriptor 0 that is not open, before any of our
/// code runs: so there is an input, and it has ended.
#[test]
fn without_a_descriptor_0_the_input_has_ended_and_the_server_goes_on() {
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "exec \"$@\" <&-", "sh", env!("CARGO_BIN_EXE_falconet")]);
    let falconet = Falconet::start_with(command.args(FLAGS));
    let line = falconet.wait_for_line("standard input");
    assert!(line.contains(END), "{line}");
    assert_goes_on(&falconet);

    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "exec \"$@\" <&-", "sh", env!("CARGO_BIN_EXE_falconet")]);
    let mut falconet = Falconet::start_with(command.args(FLAGS).arg("--exit-on-eof"));
    assert_eq!(falconet.wait_for_exit(PATIENCE).code(), Some(0));
}

/// Checks that it serves, and says no more of its input.
fn assert_goes_on(falconet: &Falconet) {
    Client::connect(falconet.address()).echo("it goes on");
    let log = falconet.log_so_far();
    let lines = log.iter().filter(|line| line.contains("standard input"));
    assert_eq!(lines.count(), 1, "{log:#?}");
}

/// A file can always be read: the server is not to do nothing else.
#[test]
fn an_input_without_end_holds_nobody_up_and_costs_no_memory() {
    let _turn = alone();
    for (what, flags) in [("lines", &["--stdin-separator", "nul"][..]), ("one line", &[])] {
        let mut falconet = start(File::open("/dev/zero").unwrap(), flags);
        let canaries = Canaries::start_every(CANARY_PAUSE, &falconet);
        let before = falconet.private_kib();
        // How long it is watched.
        std::thread::sleep(Duration::from_millis(500));
        let after = falconet.private_kib();
        println!("{what} without end: {before} KiB before, {after} KiB after");
        assert!(after < before + 256, "{before} KiB before, {after} KiB after");
        canaries.assert_well();
        stop_at_once(&mut falconet);
    }
}

#[test]
fn a_silent_input_does_not_delay_the_stop() {
    let (mut falconet, mut producer) = start_piped(&[]);
    producer.write_all(b"begun").unwrap();
    Client::connect(falconet.address()).echo("running");
    stop_at_once(&mut falconet);
    drop(producer);
    let (keyboard, terminal) = open_terminal();
    stop_at_once(&mut start(terminal, &[]));
    drop(keyboard);
}

fn stop_at_once(falconet: &mut Falconet) {
    let asked = Instant::now();
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(Duration::from_secs(2)).code(), Some(0));
    println!("stopped after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
}

/// The program with `stdin` and more `flags`, listening.
fn start(stdin: impl Into<Stdio>, flags: &[&str]) -> Falconet {
    Falconet::start_reading(Falconet::command().args(FLAGS).args(flags), stdin)
}

/// The program at the end of a pipe.
fn start_piped(flags: &[&str]) -> (Falconet, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    (start(reader, flags), writer)
}

/// How many threads it has.
fn threads(falconet: &Falconet) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", falconet.pid())).unwrap().count()
}

/// Writes and closes on a thread of its own: a pipe takes only 64 KiB at once.
fn feed(mut writer: PipeWriter, bytes: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || writer.write_all(&bytes).expect("the server reads on"))
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("falconet-stdin-{name}-{}", std::process::id()))
}

const FLAGS: [&str; 6] =
    ["--listen", "http://127.0.0.1:0", "--broadcast-every", "0", "--stdin", "lines"];

/// Where the lines are heard.
const LINES: &str = "/topics/lines";
/// What the log says when there is no more.
const END: &str = "end of the standard input";
