//! The standard input as a publisher: `producer | falconet --stdin NAME`.

use std::fs::File;
use std::io::{Write, pipe};
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat, open};
use rustix::net::sockopt;

use crate::support::folder::Folder;
use crate::support::stdin::*;
use crate::support::*;

#[test]
fn each_line_is_published_in_order_and_the_server_outlives_the_input() {
    let (falconet, mut producer) = start_piped(&[]);
    let mut client = Client::connect_to(falconet.address(), LINES);
    let mut events = Events::connect(falconet.address(), LINES, "");
    let mut expect_message = |opcode, payload: &[u8], id| {
        let frame = client.read();
        assert_eq!((frame.opcode, &*frame.payload), (opcode, payload));
        let event = events.read();
        assert_eq!((event.id, event.kind == "message"), (Some(id), opcode == TEXT));
    };
    producer.write_all(b"one\r\n\ntwo").unwrap();
    expect_message(TEXT, b"one", 1);
    expect_message(TEXT, b"", 2);
    producer.write_all(b" halves\n\xc3").unwrap();
    expect_message(TEXT, b"two halves", 3);
    producer.write_all(b"\xa4\n\xff\xfe\nthe last").unwrap();
    expect_message(TEXT, "ä".as_bytes(), 4);
    expect_message(BINARY, b"\xff\xfe", 5);
    drop(producer);
    expect_message(TEXT, b"the last", 6);
    falconet.wait_for_line(END);

    Client::connect(falconet.address()).echo("still served");
    Client::connect_to(falconet.address(), LINES).send(true, TEXT, "from a client");
    expect_message(TEXT, b"from a client", 7);
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
    // A pipe holds 64 KiB, so the server has read nearly everything.
    let after = falconet.private_kib();
    producer.write_all(b"\nafter it\n").unwrap();
    assert_eq!(client.read().text(), "after it");
    falconet.wait_for_line("dropped a line of more than 1024 bytes");
    println!("a line of 8 MiB: {before} KiB before, {after} KiB after");
    assert!(after < before + 256, "{before} KiB before, {after} KiB after");
}

#[test]
fn at_the_end_of_the_input_every_client_gets_every_line_and_the_server_exits() {
    // The lines and the end of the input arrive together, so a line could be lost in each round.
    for round in 0..20 {
        let (mut falconet, mut producer) = start_piped(&["--exit-on-eof"]);
        let mut client = Client::connect_to(falconet.address(), LINES);
        let mut events = Events::connect(falconet.address(), LINES, "");
        let elsewhere = Client::connect(falconet.address());
        let lines: Vec<String> = (0..round * 50).map(|line| format!("line {line}")).collect();
        producer.write_all((lines.join("\n") + "\nend").as_bytes()).unwrap();
        drop(producer);
        let lines = lines.iter().map(String::as_str);
        let lines = if round == 0 { vec!["", "end"] } else { lines.chain(["end"]).collect() };
        for line in &lines {
            assert_eq!(client.read().text(), *line);
            assert_eq!(events.read().data, *line);
        }
        for mut client in [client, elsewhere] {
            assert_eq!(client.read().close_code(), 1001);
            client.send(true, CLOSE, 1001_u16.to_be_bytes());
            client.assert_ended();
        }
        assert_eq!(events.try_read(), None);
        drop(events);
        assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
        falconet.wait_for_line(END);
    }
}

/// The lines are more than the kernel buffers for a client that does not read, and less than the log holds.
#[test]
fn a_client_that_has_not_read_at_the_end_of_the_input_gets_every_line() {
    const COUNT: usize = 300;
    let flags = ["--exit-on-eof", "--log-messages", "1000", "--log-bytes", "2m"];
    let (mut falconet, producer) = start_piped(&flags);
    let mut client = Client::connect_to(falconet.address(), LINES);
    let mut events = Events::connect(falconet.address(), LINES, "");
    for stream in [&client.stream, events.stream()] {
        sockopt::set_socket_recv_buffer_size(stream, 64 * 1024).unwrap();
    }
    let lines = (0..COUNT).map(|line| format!("{line:04000}\n")).collect::<String>();
    feed(producer, lines.into_bytes()).join().unwrap();
    falconet.wait_for_line("stopping");
    let reading = std::thread::spawn(move || {
        for line in 0..COUNT {
            assert_eq!(events.read().data, format!("{line:04000}"));
        }
        assert_eq!(events.try_read(), None);
    });
    for line in 0..COUNT {
        assert_eq!(client.read().text(), format!("{line:04000}"));
    }
    assert_eq!(client.read().close_code(), 1001);
    drop(client);
    reading.join().unwrap();
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

#[test]
fn a_named_pipe_ends_when_its_writer_closes_it() {
    let folder = Folder::new("stdin-fifo");
    let path = folder.file("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
    // Opened like `falconet --stdin lines <fifo`, which waits for the writer, and opened without waiting. The
    // input must not count as ended before a writer has opened it.
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
        assert_eq!(thread_count(&falconet), 2);
        writer.write_all(b"a\nb").unwrap();
        assert_eq!(client.read().text(), "a");
        assert!(!falconet.log_so_far().iter().any(|line| line.contains(END)));
        drop(writer);
        assert_eq!(client.read().text(), "b");
        falconet.wait_for_line(END);
        Client::connect(falconet.address()).echo("still served");
    }
}

#[test]
fn a_shared_pipe_keeps_its_blocking_mode() {
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
fn an_unreadable_input_is_logged_once_and_the_server_goes_on() {
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

/// Before `main`, the standard library opens /dev/null for a descriptor 0 that is not open.
#[test]
fn without_a_descriptor_0_the_input_has_ended_and_the_server_goes_on() {
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "exec \"$@\" <&-", "sh", env!("CARGO_BIN_EXE_falconet")]);
    let falconet = Falconet::start_with(command.args(STDIN_FLAGS));
    let line = falconet.wait_for_line("standard input");
    assert!(line.contains(END), "{line}");
    assert_goes_on(&falconet);

    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "exec \"$@\" <&-", "sh", env!("CARGO_BIN_EXE_falconet")]);
    let mut falconet = Falconet::start_with(command.args(STDIN_FLAGS).arg("--exit-on-eof"));
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

/// Checks that the server still serves, and that it has logged one line about its input.
fn assert_goes_on(falconet: &Falconet) {
    Client::connect(falconet.address()).echo("still served");
    let log = falconet.log_so_far();
    let lines = log.iter().filter(|line| line.contains("standard input"));
    assert_eq!(lines.count(), 1, "{log:#?}");
}
