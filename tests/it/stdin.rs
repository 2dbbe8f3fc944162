//! The standard input as a publisher: `producer | falconet --stdin NAME`.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat, open};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Signal, geteuid};

use crate::support::command::{KillOnDrop, wait_for_exit};
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
fn writers_of_a_named_pipe_come_and_go() {
    let folder = Folder::new("stdin-fifo");
    let path = make_fifo(&folder, 0o600);
    for (how, flags) in [("sandboxed", &[][..]), ("no sandbox", &["--sandbox", "off"])] {
        let mut falconet = start(open_reader(&path), flags);
        let mut client = Client::connect_to(falconet.address(), LINES);
        for line in ["one", "two", "three"] {
            let mut writer = File::options().write(true).open(&path).unwrap();
            writeln!(writer, "{line}").unwrap();
            drop(writer);
            assert_eq!(client.read().text(), line, "{how}");
        }
        assert_eq!(thread_count(&falconet), 2);
        assert!(!falconet.log_so_far().iter().any(|line| line.contains(END)), "{how}");
        client.send(true, CLOSE, 1000_u16.to_be_bytes());
        drop(client);
        falconet.signal(Signal::TERM);
        assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    }
}

/// The shell waits for the first writer before it starts the server.
#[test]
fn a_named_pipe_that_a_shell_opens_takes_every_writer() {
    let folder = Folder::new("stdin-shell");
    let path = make_fifo(&folder, 0o600);
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.env_clear().args(["-c", script, env!("CARGO_BIN_EXE_falconet")]).arg(&path);
        command
    };
    let writing = |line: &str| shell(&format!("echo {line} >\"$1\"")).spawn().unwrap();
    let mut first = KillOnDrop(writing("one"));
    let script = r#"path=$1; shift; exec "$0" "$@" <"$path""#;
    let falconet = Falconet::start_with(shell(script).args(STDIN_FLAGS));
    let mut client = Client::connect_to(falconet.address(), "/topics/lines?last=1");
    assert_eq!(client.read().text(), "one");
    assert_eq!(wait_for_exit(&mut first.0), Some(0));
    for line in ["two", "three"] {
        let mut writer = KillOnDrop(writing(line));
        assert_eq!(client.read().text(), line);
        assert_eq!(wait_for_exit(&mut writer.0), Some(0));
    }
}

#[test]
fn with_exit_on_eof_a_named_pipe_ends_with_its_last_writer() {
    let folder = Folder::new("stdin-last");
    let path = make_fifo(&folder, 0o600);
    let reader = open_reader(&path);
    let [mut first, mut last] = [(); 2].map(|()| File::options().write(true).open(&path).unwrap());
    let mut falconet = start(reader, &["--exit-on-eof"]);
    let mut client = Client::connect_to(falconet.address(), LINES);
    first.write_all(b"one\n").unwrap();
    assert_eq!(client.read().text(), "one");
    drop(first);
    last.write_all(b"two\nthree").unwrap();
    assert_eq!(client.read().text(), "two");
    assert!(!falconet.log_so_far().iter().any(|line| line.contains(END)));
    drop(last);
    assert_eq!(client.read().text(), "three");
    client.send(true, CLOSE, 1000_u16.to_be_bytes());
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

/// The server may read the pipe, but not open it for writing.
#[test]
fn a_named_pipe_that_can_not_be_held_open_is_closed_at_its_end() {
    let folder = Folder::new("stdin-closed");
    let path = make_fifo(&folder, 0o600);
    let reader = open_reader(&path);
    let mut writer = File::options().write(true).open(&path).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let mut command = Falconet::command();
    if geteuid().is_root() {
        let version = Command::new(env!("CARGO_BIN_EXE_falconet")).arg("-V").uid(NOBODY).output();
        if version.is_err() {
            return println!("skipped: the user nobody can't start the program");
        }
        command.uid(NOBODY);
    }
    let falconet = Falconet::start_with_stdin(command.args(STDIN_FLAGS), reader);
    // The command has a copy of the reader.
    drop(command);
    let log = falconet.log_so_far();
    let warning = log.iter().find(|line| line.contains("can't open /proc/self/fd/0 for writing"));
    assert!(warning.is_some_and(|line| line.contains("ermission denied")), "{log:?}");
    let mut client = Client::connect_to(falconet.address(), LINES);
    writer.write_all(b"one\n").unwrap();
    assert_eq!(client.read().text(), "one");
    drop(writer);
    falconet.wait_for_line(END);
    let refused = open(&path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
    assert_eq!(refused.err(), Some(Errno::NXIO), "nobody reads the pipe");
    Client::connect(falconet.address()).echo("still served");
}

#[test]
fn a_producer_gets_an_error_as_soon_as_the_server_stops() {
    let folder = Folder::new("stdin-stop");
    let path = make_fifo(&folder, 0o600);
    let reader = open_reader(&path);
    let fifo = OwnedFd::from(File::options().write(true).open(&path).unwrap());
    let (pipe_reader, pipe_writer) = pipe().unwrap();
    for (what, reader, writer) in
        [("a FIFO", reader, fifo), ("a pipe", pipe_reader.into(), pipe_writer.into())]
    {
        let mut falconet = start(reader, &["--close-timeout", "1m"]);
        // A client that does not answer the server's Close delays the exit.
        let mut client = Client::connect(falconet.address());
        falconet.signal(Signal::TERM);
        assert_eq!(client.read().close_code(), 1001);
        let mut writer = File::from(writer);
        // More than a pipe holds, so the last writes would wait for ever if nobody read them or closed it.
        let error = (0..17).find_map(|_| writer.write_all(&[b'x'; 4096]).err());
        assert_eq!(error.expect(what).kind(), ErrorKind::BrokenPipe, "{what}");
        client.stream.set_nonblocking(true).unwrap();
        let more = client.stream.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(more, Err(ErrorKind::WouldBlock), "the server still waits for the client");
        drop(client);
        assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    }
}

/// The id of the user nobody.
const NOBODY: u32 = 65534;

/// Makes a named pipe.
fn make_fifo(folder: &Folder, mode: u32) -> String {
    let path = folder.file("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(mode), 0).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Opens a named pipe for reading, without waiting for a writer.
fn open_reader(path: &str) -> OwnedFd {
    let reader = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    reader.unwrap()
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
