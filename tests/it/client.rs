//! falconet-client with pipes and on a pseudo-terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocket};
use tungstenite::{Error, Message};

use crate::support::client::*;
use crate::support::*;

/// Closes a connection from the side of the server, and checks that the client answers with the same code.
fn close(mut socket: WebSocket<TcpStream>, code: CloseCode, reason: &str) {
    socket.close(Some(CloseFrame { code, reason: reason.to_owned().into() })).unwrap();
    assert_eq!(
        read_to_close(&mut socket),
        Some(code.into()),
        "the client answers with the same code"
    );
}

fn falconet_on(path: &std::path::Path) -> Falconet {
    let listen = format!("unix:{}", path.display());
    let arguments = ["--listen", &listen, "--broadcast-every", "0"];
    Falconet::start_with(Falconet::command().args(arguments))
}

/// Starts a server without broadcasts. Returns it with the URL of its echo.
fn echo() -> (Falconet, String) {
    let falconet = Falconet::start(&["--broadcast-every", "0", "--max-message", "2m"]);
    let url = format!("ws://{}/", falconet.address());
    (falconet, url)
}

#[test]
fn c32_piped_lines_are_messages_and_messages_are_lines() {
    let (_falconet, url) = echo();
    let mut client = PipedClient::start(&[&url]);
    client.send("a\nb\r\n\nlast without newline");
    assert_eq!(client.finish(), (0, "a\nb\n\nlast without newline\n".to_owned(), String::new()));
}

#[test]
fn c32_without_input_the_client_exits_with_0() {
    let (_falconet, url) = echo();
    let output = client_command(&[&url]).stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout, output.stderr), (Some(0), vec![], vec![]));
}

#[test]
fn c32_a_line_that_is_not_utf8_is_a_binary_message() {
    let server = FakeServer::start();
    let mut client = PipedClient::start(&[&server.url()]);
    let mut socket = server.accept();
    client.send(b"text\n\xff\xfe\x00\n");
    assert_eq!(socket.read().unwrap(), Message::text("text"));
    assert_eq!(socket.read().unwrap(), Message::binary(b"\xff\xfe\x00".to_vec()));
    socket.send(Message::binary(b"\x1b[1mbinary as it is".to_vec())).unwrap();
    assert_eq!(client.line(), "\x1b[1mbinary as it is\n");
}

#[test]
fn c32_long_lines_come_back_whole() {
    let (_falconet, url) = echo();
    let mut client = PipedClient::start(&[&url]);
    let input: String = (0..4).map(|line| format!("{line}{}\n", "x".repeat(1_000_000))).collect();
    client.send(&input);
    let (code, stdout, stderr) = client.finish();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout == input, "{} bytes of {}", stdout.len(), input.len());
}

#[test]
fn c32_the_end_of_a_file_waits_for_every_echo() {
    let (_falconet, url) = echo();
    let input: String = (0..5000).map(|line| format!("line {line}\n")).collect();
    let path = socket_path("input").with_extension("txt");
    std::fs::write(&path, &input).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let output = client_command(&[&url]).stdin(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == input.as_bytes(), "{} of {}", output.stdout.len(), input.len());
}

#[test]
fn c32_a_closed_stdout_ends_the_client_without_an_error() {
    let (_falconet, url) = echo();
    let mut child = client_command(&[&url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(b"one\n").unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    drop(stdout);
    // A process that another test is starting may hold the read end of the pipe open for a moment.
    wait_until("the client fails to write to the closed pipe", || {
        let _ = stdin.write_all(b"two\n");
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(exit_code(&mut child), 0);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn a_stdout_that_is_full_is_an_error() {
    let (_falconet, url) = echo();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut client = Command::new("sh");
    client.args(["-c", "printf 'a\\nb\\n' | \"$0\" \"$1\""]);
    client.args([env!("CARGO_BIN_EXE_falconet-client"), &url]);
    let output = client.stdout(full).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("can't write to stdout: No space left"), "{stderr}");
}

#[test]
fn a_signal_closes_with_1000_and_a_second_one_exits_at_once() {
    let server = FakeServer::start();
    let mut client = PipedClient::start(&[&server.url()]);
    let mut socket = server.accept();
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(client.line(), "hello\n");
    client.signal(Signal::TERM);
    assert_eq!(read_to_close(&mut socket), Some(1000));
    drop(socket);
    assert_eq!(exit_code(&mut client.child), 0);

    let mut client = PipedClient::start(&[&server.url()]);
    let mut socket = server.accept();
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(client.line(), "hello\n");
    client.signal(Signal::INT);
    // Read without the library, which would answer the Close.
    let mut close = [0; 2];
    socket.get_mut().read_exact(&mut close).unwrap();
    assert_eq!(close, [0x88, 0x82]);
    client.signal(Signal::INT);
    assert_eq!(exit_code(&mut client.child), 1);
}

#[test]
fn a_hangup_ignored_by_nohup_stays_ignored() {
    let (_falconet, url) = echo();
    let mut nohup = Command::new("sh");
    nohup.args([
        "-c",
        "trap '' HUP; exec \"$0\" \"$1\"",
        env!("CARGO_BIN_EXE_falconet-client"),
        &url,
    ]);
    let mut client = PipedClient::spawn(nohup);
    client.send("one\n");
    assert_eq!(client.line(), "one\n");
    client.signal(Signal::HUP);
    // Enough round trips for the signal to arrive.
    for _ in 0..100 {
        client.send("two\n");
        assert_eq!(client.line(), "two\n");
    }
    assert_eq!(client.finish().0, 0);
}

#[test]
fn a_client_reconnects_to_a_server_that_was_killed_and_started_again() {
    let path = socket_path("killed");
    let falconet = falconet_on(&path);
    let mut client = PipedClient::start(&[&format!("unix:{}", path.display())]);
    client.send("one\n");
    assert_eq!(client.line(), "one\n");
    drop(falconet);
    client.wait_for_stderr("lost: ");
    client.wait_for_stderr("reconnecting in ");
    // The client does not read this before it is connected again.
    client.send("two\n");
    let _falconet = falconet_on(&path);
    client.wait_for_stderr("reconnected to unix:");
    assert_eq!(client.line(), "two\n");
    client.send("three\n");
    let (code, stdout, stderr) = client.finish();
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "three\n", ""));
}

#[test]
fn the_client_does_not_reconnect_with_no_reconnect() {
    let path = socket_path("no-reconnect");
    let falconet = falconet_on(&path);
    let mut client = PipedClient::start(&["--no-reconnect", &format!("unix:{}", path.display())]);
    client.send("one\n");
    assert_eq!(client.line(), "one\n");
    drop(falconet);
    assert_eq!(exit_code(&mut client.child), 1);
    let (_, _, stderr) = client.finish();
    assert!(stderr.starts_with("lost: ") && !stderr.contains("reconnecting"), "{stderr}");
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_refused_connection_is_reported_and_tried_again() {
    let path = socket_path("refused");
    let url = format!("unix:{}", path.display());
    let (code, _, stderr) = PipedClient::start(&["--no-reconnect", &url]).finish();
    assert_eq!(code, 1);
    assert!(stderr.starts_with("refused: unix:") && stderr.contains("No such file"), "{stderr}");

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = PipedClient::start(&[&format!("ws://{free}/")]);
    let line = client.wait_for_stderr("refused: ");
    assert!(line.contains("Connection refused"), "{line}");
    client.wait_for_stderr("reconnecting in ");
    client.signal(Signal::TERM);
    assert_eq!(client.finish().0, 1);
}

#[test]
fn a_permanent_refusal_is_not_tried_again() {
    let (falconet, _) = echo();
    let (code, _, stderr) =
        PipedClient::start(&[&format!("ws://{}/nowhere", falconet.address())]).finish();
    assert_eq!(code, 1);
    assert!(stderr.starts_with("refused: 404 Not Found: "), "{stderr}");
    assert!(!stderr.contains("reconnecting"), "{stderr}");
}

#[test]
fn a_temporary_refusal_is_tried_again() {
    let server = FakeServer::start();
    let mut client = PipedClient::start(&[&server.url()]);
    server.answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nfull\n");
    assert_eq!(client.wait_for_stderr("refused: "), "refused: 503 Service Unavailable: full\n");
    let mut socket = server.accept();
    client.send("now\n");
    assert_eq!(socket.read().unwrap(), Message::text("now"));
}

#[test]
fn a_wrong_sec_websocket_accept_is_refused() {
    let server = FakeServer::start();
    let client = PipedClient::start(&[&server.url()]);
    server.answer(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    let (code, _, stderr) = client.finish();
    assert_eq!((code, stderr.as_str()), (1, "refused: Sec-WebSocket-Accept is wrong\n"));
}

#[test]
fn a_close_by_the_server_is_reported_with_code_and_reason() {
    let server = FakeServer::start();
    let mut client = PipedClient::start(&[&server.url()]);
    close(server.accept(), CloseCode::Normal, "bye \x1b[31mnow");
    assert_eq!(exit_code(&mut client.child), 0, "1000 is not a failure");
    let (_, _, stderr) = client.finish();
    assert_eq!(stderr, "closed by the server: 1000 bye \\u{1b}[31mnow\n");

    let client = PipedClient::start(&[&server.url(), "--no-reconnect"]);
    close(server.accept(), CloseCode::Away, "server stopping");
    let (code, _, stderr) = client.finish();
    assert_eq!((code, stderr.as_str()), (1, "closed by the server: 1001 server stopping\n"));
}

#[test]
fn a_close_is_reported_even_if_the_server_left_data_unread() {
    let server = FakeServer::start();
    let mut client = PipedClient::start(&[&server.url(), "--no-reconnect"]);
    let mut socket = server.accept();
    let mut stdin = client.stdin.take().unwrap();
    let (sent, sending) = channel();
    let writer = std::thread::spawn(move || {
        let line = [&[b'x'; 65535][..], b"\n"].concat();
        while stdin.write_all(&line).is_ok() {
            let _ = sent.send(());
        }
    });
    // Wait until the client can send no more.
    while sending.recv_timeout(Duration::from_millis(200)).is_ok() {}
    socket.get_mut().write_all(b"\x88\x06\x03\xe9stop").unwrap();
    // Closing with unread data resets the connection.
    drop(socket);
    let (code, _, stderr) = client.finish();
    assert_eq!((code, stderr.as_str()), (1, "closed by the server: 1001 stop\n"));
    writer.join().unwrap();
}

#[test]
fn the_client_reconnects_after_a_close_with_1001() {
    let server = FakeServer::start();
    let client = PipedClient::start(&[&server.url()]);
    close(server.accept(), CloseCode::Away, "");
    assert_eq!(client.wait_for_stderr("closed"), "closed by the server: 1001\n");
    client.wait_for_stderr("reconnecting in ");
    server.accept();
}

#[test]
fn the_client_disconnects_from_a_silent_server() {
    let server = FakeServer::start();
    let limits = ["--ping-every", "50ms", "--idle-timeout", "300ms", "--no-reconnect"];
    let mut client = PipedClient::start(&[&[server.url().as_str()][..], &limits].concat());
    let _socket = server.accept();
    assert_eq!(exit_code(&mut client.child), 1);
    assert_eq!(client.finish().2, "lost: nothing received from the server for 300ms\n");
}

#[test]
fn the_client_stays_connected_to_a_server_that_only_answers_pings() {
    let server = FakeServer::start();
    let limits = ["--ping-every", "100ms", "--idle-timeout", "1s", "--no-reconnect"];
    let mut client = PipedClient::start(&[&[server.url().as_str()][..], &limits].concat());
    let mut socket = server.accept();
    let until = Instant::now() + Duration::from_millis(1600);
    // Each read answers a Ping.
    while Instant::now() < until {
        match socket.read() {
            // A suspended and resumed machine interrupts a read with a timeout (signal(7)).
            Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
            read => assert!(read.unwrap().is_ping()),
        }
    }
    socket.send(Message::text("still here")).unwrap();
    assert_eq!(client.line(), "still here\n");
    assert_eq!(client.child.try_wait().unwrap(), None);
}

#[test]
fn the_client_disconnects_from_a_server_that_reads_nothing_and_leaves_its_input_unread() {
    let server = FakeServer::start();
    let limits = ["--ping-every", "0", "--idle-timeout", "400ms", "--no-reconnect"];
    let mut client = PipedClient::start(&[&[server.url().as_str()][..], &limits].concat());
    let mut socket = server.accept();
    let mut stdin = client.stdin.take().unwrap();
    let line = [&[b'x'; 65535][..], b"\n"].concat();
    let writer = std::thread::spawn(move || {
        (0..1000).take_while(|_| stdin.write_all(&line).is_ok()).count()
    });
    // The server sends, but does not read.
    wait_until("the client disconnects", || socket.send(Message::text("tick")).is_err());
    let (code, _, stderr) = client.finish();
    assert_eq!((code, stderr.as_str()), (1, "lost: the server accepted no data for 400ms\n"));
    assert!(
        writer.join().unwrap() < 500,
        "the client kept reading its input although the server read nothing"
    );
}

#[test]
fn a_protocol_violation_is_closed_with_its_code() {
    for (bytes, code) in [
        (&[0x81, 0x81, 0, 0, 0, 0, b'x'][..], 1002),
        (&[0xc1, 0x01, b'x'], 1002),
        (&[0x81, 0x01, 0xff], 1007),
        (&[0x81, 127, 0, 0, 0, 0, 0xff, 0, 0, 0], 1009),
    ] {
        let server = FakeServer::start();
        let client = PipedClient::start(&[&server.url(), "--no-reconnect"]);
        let mut socket = server.accept();
        socket.get_mut().write_all(bytes).unwrap();
        assert_eq!(read_to_close(&mut socket), Some(code), "{bytes:?}");
        let (exit, _, stderr) = client.finish();
        assert_eq!(exit, 1);
        assert!(stderr.starts_with("lost: the server violated the protocol: "), "{stderr}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for (arguments, part) in [
        (&["--insecure", "ws://localhost/"][..], "--insecure: expected a wss://"),
        (&["localhost"], "expected ws://HOST"),
        (&["--ping-every", "soon"], "--ping-every `soon`: expected a time"),
    ] {
        let (code, stdout, stderr) = PipedClient::start(arguments).finish();
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.starts_with("falconet-client: ") && stderr.contains(part), "{stderr}");
    }
    let (code, stdout, _) = PipedClient::start(&["--help"]).finish();
    assert!(code == 0 && stdout.contains("--idle-timeout"), "{stdout}");
}

#[test]
fn c32_keystrokes_are_messages_and_esc_closes_with_1000() {
    let (_falconet, url) = echo();
    let mut terminal = TerminalClient::start(&[&url]);
    terminal.wait_for("ESC closes\r\n");
    for key in ["h", "ö", "🦅"] {
        terminal.press(key);
        assert_eq!(terminal.wait_for(key), key, "only the server's echo is shown");
    }
    // An arrow key is not sent. Pasted text is one message, on a line of its own.
    terminal.press("\x1b[A");
    terminal.press("pasted");
    assert_eq!(terminal.wait_for("pasted\r\n"), "\r\npasted\r\n");
    terminal.press("\x1b");
    terminal.wait_for("closed\r\nR reconnects, any other key exits\r\n");
    terminal.press("x");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn c32_each_keystroke_is_a_message_of_its_own() {
    let server = FakeServer::start();
    let mut terminal = TerminalClient::start(&[&server.url()]);
    let mut socket = server.accept();
    terminal.wait_for("ESC closes");
    for key in ["a", "€", "\n", "\x04", "\x1a"] {
        for byte in key.as_bytes().chunks(1) {
            terminal.press(byte);
        }
        assert_eq!(socket.read().unwrap(), Message::text(key));
    }
    terminal.press("\x1b");
    assert_eq!(read_to_close(&mut socket), Some(1000));
    drop(socket);
    terminal.wait_for("any other key exits");
    terminal.press("\x1b[A");
    assert_eq!(terminal.exit_code(), 0, "an arrow key counts as another key");
}

#[test]
fn c32_r_reconnects() {
    let (_falconet, url) = echo();
    let mut terminal = TerminalClient::start(&[&url]);
    for key in ["r", "R"] {
        terminal.wait_for("ESC closes");
        terminal.press("\x1b");
        terminal.wait_for("any other key exits");
        terminal.press(key);
    }
    terminal.wait_for("ESC closes\r\n");
    terminal.press("z");
    terminal.wait_for("z");
    terminal.press("\x1b");
    terminal.wait_for("any other key exits");
    terminal.press("q");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn c32_a_terminal_is_restored_after_a_signal() {
    let server = FakeServer::start();
    let mut terminal = TerminalClient::start(&[&server.url()]);
    let mut socket = server.accept();
    terminal.wait_for("ESC closes");
    assert_ne!(terminal_mode(&terminal.tty), terminal.initial_mode);
    send_signal(&terminal.child, Signal::TERM);
    assert_eq!(read_to_close(&mut socket), Some(1000));
    drop(socket);
    assert_eq!(terminal.exit_code(), 0);

    let mut terminal = TerminalClient::start(&[&server.url()]);
    let mut socket = server.accept();
    terminal.wait_for("ESC closes");
    send_signal(&terminal.child, Signal::TERM);
    socket.get_mut().read_exact(&mut [0; 2]).unwrap();
    send_signal(&terminal.child, Signal::TERM);
    assert_eq!(terminal.exit_code(), 1);
}

#[test]
fn control_characters_of_a_server_are_escaped_on_a_terminal() {
    let server = FakeServer::start();
    let mut terminal = TerminalClient::start(&[&server.url()]);
    let mut socket = server.accept();
    for message in [Message::text("\x1b]0;evil\x07"), Message::binary(b"\x1b[2J".to_vec())] {
        socket.send(message).unwrap();
    }
    let mut seen = terminal.wait_for("binary, 4 bytes: 1b 5b 32 4a\r\n");
    assert!(seen.contains("\\u{1b}]0;evil\\u{7}\r\n"), "{seen:?}");
    close(socket, CloseCode::Policy, "\x1b[2J\x07");
    seen += &terminal.wait_for("any other key exits");
    assert!(seen.contains("closed by the server: 1008 \\u{1b}[2J\\u{7}\r\n"), "{seen:?}");
    assert!(!seen.contains(['\x1b', '\x07']), "{seen:?}");
    terminal.press("n");
    assert_eq!(terminal.exit_code(), 1);
}

#[test]
fn on_a_terminal_the_client_reconnects_once_and_then_asks() {
    let server = FakeServer::start();
    let mut terminal = TerminalClient::start(&[&server.url()]);
    drop(server.accept());
    terminal.wait_for("lost: ");
    let mut socket = server.accept();
    socket.send(Message::text("again")).unwrap();
    terminal.wait_for("again\r\n");
    drop(server);
    drop(socket);
    terminal.wait_for("lost: ");
    terminal.wait_for("any other key exits");
    terminal.press("n");
    assert_eq!(terminal.exit_code(), 1);
}

#[test]
fn on_a_terminal_the_client_asks_before_it_tries_again() {
    let path = socket_path("asked");
    let mut terminal = TerminalClient::start(&[&format!("unix:{}", path.display())]);
    terminal.wait_for("refused: ");
    terminal.wait_for("R reconnects, any other key exits\r\n");
    let _falconet = falconet_on(&path);
    terminal.press("r");
    terminal.wait_for("connected to ");
    terminal.press("\x1b");
    terminal.wait_for("any other key exits");
    terminal.press(" ");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn a_message_is_shown_before_the_report_of_the_close() {
    let server = FakeServer::start();
    let mut terminal = TerminalClient::start(&[&server.url(), "--no-reconnect"]);
    let mut socket = server.accept();
    socket.send(Message::text("x")).unwrap();
    close(socket, CloseCode::Normal, "");
    terminal.wait_for("x\r\nclosed by the server: 1000\r\n");
    terminal.press("n");
    assert_eq!(terminal.exit_code(), 0);
}
