//! falconet-client pub and sub, against fake servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::WebSocket;

use crate::support::client::*;
use crate::support::*;

const TEXT_PLAIN: &str = "text/plain; charset=utf-8";
const EVENT_STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// Returns the exact request that `pub` sends, with the key that it chose.
fn post(host: &str, topic: &str, kind: &str, key: &str, body: &str) -> String {
    format!(
        "POST /topics/{topic} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nIdempotency-Key: {key}\r\nUser-Agent: falconet-client/{}\r\n\r\n{body}",
        body.len(),
        env!("CARGO_PKG_VERSION")
    )
}

/// Returns the key of a request.
fn key_of(request: &str) -> &str {
    header_of(request, "idempotency-key").unwrap()
}

/// Returns the response to an accepted message, with more header `fields`.
fn accepted(fields: &str) -> String {
    let body = "{\"topic\":\"a\",\"id\":\"k3f9x2:7\",\"subscribers\":0}";
    format!("HTTP/1.1 202 Accepted\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

/// Reads a request with its body.
fn read_request(stream: &mut impl Read) -> Vec<u8> {
    let head = read_response_head(stream);
    let length = header_of(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    [head.as_bytes(), &body].concat()
}

/// Reads a request, checks its body, and sends `response`. Returns the key of the request.
fn answer(stream: &mut TcpStream, body: &str, response: &str) -> String {
    let request = String::from_utf8(read_request(stream)).unwrap();
    assert_eq!(body_of(&request), body);
    stream.write_all(response.as_bytes()).unwrap();
    key_of(&request).to_owned()
}

/// Accepts a connection over a Unix socket.
fn accept_unix(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let mut connected = None;
    wait_until("a client connects", || {
        connected = listener.accept().ok();
        connected.is_some()
    });
    let (stream, _) = connected.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Returns how many bytes are unread at the other end of a connection over IPv4 (proc_pid_net(5)).
fn unread_bytes(stream: &TcpStream) -> u32 {
    let port = format!(":{:04X}", stream.peer_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let unread = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, queue) = fields.get(4).filter(|_| fields[1].ends_with(&port))?.split_once(':')?;
        u32::from_str_radix(queue, 16).ok()
    });
    unread.expect("the other end is on this host")
}

fn start(subcommand: &str, server: &FakeServer, arguments: &[&str]) -> PipedClient {
    let server = format!("http://{}", server.address());
    PipedClient::start(&[&[subcommand, "--server", &server], arguments].concat())
}

fn assert_no_other_connection(server: &FakeServer) {
    assert!(server.listener.accept().is_err(), "there is another connection");
}

/// Accepts a WebSocket. Returns it with the target of its request.
fn accept_websocket(server: &FakeServer) -> (WebSocket<TcpStream>, String) {
    let mut target = String::new();
    #[allow(clippy::result_large_err, reason = "the library's signature")]
    let note = |request: &Request, response: Response| {
        target = request.uri().to_string();
        Ok(response)
    };
    let socket = tungstenite::accept_hdr(server.accept_raw(), note).expect("a handshake");
    (socket, target)
}

/// Accepts a request for events and sends `events`. Returns the stream and the head of the request.
fn stream_events(server: &FakeServer, events: &str) -> (TcpStream, String) {
    let mut stream = server.accept_raw();
    let head = read_response_head(&mut stream);
    assert_eq!(header_of(&head, "accept"), Some("text/event-stream"));
    stream.write_all(format!("{EVENT_STREAM}{events}").as_bytes()).unwrap();
    (stream, head)
}

#[test]
fn a_message_is_published_with_one_post() {
    for (message, kind) in [("done, käse\n", TEXT_PLAIN), ("", TEXT_PLAIN)] {
        let server = FakeServer::start();
        let client = start("pub", &server, &["home/backups", message]);
        let mut stream = server.accept_raw();
        let request = String::from_utf8(read_request(&mut stream)).unwrap();
        let host = server.address().to_string();
        assert_eq!(request, post(&host, "home/backups", kind, key_of(&request), message));
        stream.write_all(accepted("").as_bytes()).unwrap();
        assert_eq!(client.finish(), (0, String::new(), String::new()));
    }
}

#[test]
fn lines_are_published_one_after_the_other_over_one_connection() {
    let server = FakeServer::start();
    let mut client = start("pub", &server, &["a", "-"]);
    client.send(b"one\r\n\n\xff\x00\nlast without newline");
    let mut stream = server.accept_raw();
    drop(client.stdin.take());
    for (kind, body) in [
        (TEXT_PLAIN, &b"one"[..]),
        (TEXT_PLAIN, b""),
        ("application/octet-stream", b"\xff\x00"),
        (TEXT_PLAIN, b"last without newline"),
    ] {
        let request = read_request(&mut stream);
        let text = String::from_utf8_lossy(&request);
        assert_eq!(header_of(&text, "content-type"), Some(kind));
        assert!(request.ends_with(&[b"\r\n\r\n", body].concat()), "{text}");
        stream.write_all(accepted("").as_bytes()).unwrap();
    }
    assert_eq!(client.finish(), (0, String::new(), String::new()));
    assert_no_other_connection(&server);
}

#[test]
fn publishing_continues_on_a_new_connection_if_the_server_closes_one() {
    let server = FakeServer::start();
    let mut client = start("pub", &server, &["a"]);
    client.send("one\ntwo\n");
    let mut first = server.accept_raw();
    answer(&mut first, "one", &accepted("Connection: close\r\n"));
    let mut second = server.accept_raw();
    answer(&mut second, "two", &accepted(""));
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "the client has closed the first connection");
    wait_until("the client has read the answer", || unread_bytes(&second) == 0);
    // A server may send a response without a request when it closes an idle connection.
    second.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").unwrap();
    drop(second);
    client.send("three\n");
    let mut third = server.accept_raw();
    answer(&mut third, "three", &accepted(""));
    assert_eq!(client.finish(), (0, String::new(), String::new()));
}

#[test]
fn a_line_whose_answer_was_not_seen_is_sent_again_and_no_other() {
    let server = FakeServer::start();
    let mut client = start("pub", &server, &["a"]);
    client.send("one\ntwo\nthree\n");
    let mut stream = server.accept_raw();
    let one = answer(&mut stream, "one", &accepted(""));
    let two = answer(&mut stream, "two", "");
    drop(stream);
    // At once, because the kept connection may have been idle for too long.
    assert_eq!(answer(&mut server.accept_raw(), "two", ""), two);
    // After a delay.
    assert_eq!(answer(&mut server.accept_raw(), "two", "HTTP/1.1 2"), two);
    let mut stream = server.accept_raw();
    assert_eq!(answer(&mut stream, "two", &accepted("")), two);
    let three = answer(&mut stream, "three", &accepted(""));
    assert!(one != two && two != three && three != one, "each line has a key of its own");
    let (code, stdout, stderr) = client.finish();
    let expected = "falconet-client: line 2: refused: the connection broke before the response: \
                    the server closed the connection; retrying\n\
                    falconet-client: line 2: accepted (retries: 2)\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", expected));
    assert_no_other_connection(&server);
}

#[cfg(feature = "full")]
#[test]
fn a_line_whose_answer_is_lost_is_published_once() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    let forwarder = FakeServer::start();
    let mut client = start("pub", &forwarder, &["a"]);
    client.send("one\ntwo\nthree\n");
    let mut stream = forwarder.accept_raw();
    for line in 1..=3 {
        // The server accepts the line, and the client gets nothing but the end of the connection.
        let first = fetch(falconet.address(), read_request(&mut stream));
        assert_eq!(first.status(), 202, "line {line}");
        drop(stream);
        stream = forwarder.accept_raw();
        let second = fetch(falconet.address(), read_request(&mut stream));
        assert_eq!(second.text(), first.text(), "line {line}");
        stream.write_all(&[second.head.as_bytes(), &second.body].concat()).unwrap();
    }
    assert_eq!(client.finish().0, 0);
    fetch(falconet.address(), request("POST", "/topics/a", "", "the last"));
    let received: Vec<String> = (0..4).map(|_| events.read().data).collect();
    assert_eq!(received, ["one", "two", "three", "the last"]);
}

#[cfg(feature = "full")]
#[test]
fn lines_survive_a_restart_of_the_server() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let falconet = || {
        let arguments = ["--listen", &url, "--retain", "10"];
        Falconet::start_with(Falconet::command().args(arguments))
    };
    let lines = |count| {
        let mut events = Events::connect(address, "/topics/a?last=10", "");
        (0..count).map(|_| events.read().data).collect::<Vec<_>>()
    };
    let before = falconet();
    let mut client = PipedClient::start(&["pub", "--server", &url, "a"]);
    client.send("one\ntwo\n");
    assert_eq!(lines(2), ["one", "two"]);
    // Subscribers may get a line before its publisher gets the answer, but a later request is answered later.
    assert_eq!(fetch(address, get("/topics/a")).text(), "two");
    drop(before);
    client.send("three\n");
    client.wait_for_stderr("line 3: refused: ");
    client.send("four\n");
    let _after = falconet();
    client.wait_for_stderr("line 3: accepted (retries: ");
    client.send("five\n");
    assert_eq!(client.finish(), (0, String::new(), String::new()));
    assert_eq!(lines(3), ["three", "four", "five"]);
}

#[cfg(feature = "full")]
#[test]
fn a_single_message_waits_for_the_server_to_start() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let client = PipedClient::start(&["pub", "--server", &url, "a", "hello"]);
    let line = client.wait_for_stderr("; retrying");
    assert!(
        line.starts_with("falconet-client: refused: ") && line.contains("refused (os"),
        "{line}"
    );
    let falconet = Falconet::start_with(Falconet::command().args(["--listen", &url]));
    let (code, _, stderr) = client.finish();
    assert!(code == 0 && stderr.starts_with("falconet-client: accepted (retries: "), "{stderr}");
    assert_eq!(fetch(falconet.address(), get("/topics/a")).text(), "hello");
}

#[test]
fn a_signal_ends_the_wait_of_a_publisher_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = PipedClient::start(&["pub", "--server", &format!("http://{address}"), "a"]);
    client.send("one\n");
    client.wait_for_stderr("; retrying");
    client.signal(Signal::INT);
    let mut status = None;
    wait_until("the client has ended", || {
        status = client.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn a_message_waits_as_long_as_the_server_asks_for() {
    let server = FakeServer::start();
    let mut client = start("pub", &server, &["a"]);
    client.send("one\n");
    let busy = |seconds| {
        format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    answer(&mut server.accept_raw(), "one", &busy(1));
    let refused = Instant::now();
    answer(&mut server.accept_raw(), "one", &accepted(""));
    assert!(refused.elapsed() >= Duration::from_millis(990), "after {:?}", refused.elapsed());
    assert_eq!(client.finish().0, 0);

    // A single message is not sent again after 30 s.
    let client = start("pub", &server, &["a", "one"]);
    answer(&mut server.accept_raw(), "one", &busy(31));
    let expected = "falconet-client: refused: 429 Too Many Requests\n";
    assert_eq!(client.finish(), (1, String::new(), expected.to_owned()));
}

#[test]
fn a_publisher_gives_up_after_its_retries() {
    for message in [&["a", "one"][..], &["a"]] {
        let server = FakeServer::start();
        let mut client = start("pub", &server, &[&["--retries", "2"], message].concat());
        client.send("one\n");
        for _ in 0..3 {
            let full = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
            answer(&mut server.accept_raw(), "one", full);
        }
        let (code, _, stderr) = client.finish();
        let name = if message.len() == 1 { "line 1: " } else { "" };
        let line = format!("falconet-client: {name}refused: 503 Service Unavailable; ");
        assert_eq!((code, stderr), (1, format!("{line}retrying\n{line}gave up (retries: 2)\n")));
        assert_no_other_connection(&server);
    }
}

#[test]
fn a_permanent_refusal_ends_the_publishing_at_once_with_the_number_of_the_line() {
    for status in ["400 Bad Request", "401 No", "403 No", "404 Not Found", "413 Too Large"] {
        let server = FakeServer::start();
        let mut client = start("pub", &server, &["a"]);
        client.send("one\ntwo\nthree\n");
        let mut stream = server.accept_raw();
        answer(&mut stream, "one", &accepted(""));
        answer(&mut stream, "two", &format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        let (code, _, stderr) = client.finish();
        let expected = format!("falconet-client: line 2: refused: {status}");
        assert!(code == 1 && stderr.starts_with(&expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_no_other_connection(&server);
    }
}

#[test]
fn subscribers_and_connections_give_up_after_their_retries_and_report_no_more_than_that() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (http, websocket) = (format!("http://{address}"), format!("ws://{address}/"));
    for arguments in [
        &["sub", "--server", &http, "a"][..],
        &["sub", "--sse", "--server", &http, "a"],
        &[&websocket],
    ] {
        let client = PipedClient::start(&[arguments, &["--retries", "2"]].concat());
        let (code, _, stderr) = client.finish();
        let lines: Vec<&str> = stderr.lines().collect();
        let [first, second, last] = lines[..] else { panic!("{stderr}") };
        assert!(code == 1 && first.starts_with("refused: ") && first == last, "{stderr}");
        assert!(second.starts_with("reconnecting in "), "{stderr}");
    }
}

#[test]
fn subscribers_wait_as_long_as_the_server_asks_for() {
    for flags in [&["a"][..], &["--sse", "a"]] {
        let server = FakeServer::start();
        let client = start("sub", &server, flags);
        server.answer("HTTP/1.1 503 Full\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
        let refused = Instant::now();
        assert_eq!(client.wait_for_stderr("reconnecting"), "reconnecting in 1.0 s\n");
        let _stream = server.accept_raw();
        assert!(refused.elapsed() >= Duration::from_millis(990), "after {:?}", refused.elapsed());
    }
}

#[test]
fn no_message_is_lost_if_the_server_closes_after_each_response() {
    let path = socket_path("abrupt");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client =
        PipedClient::start(&["pub", "--server", &format!("unix:{}", path.display()), "a"]);
    let messages: Vec<String> = (0..100).map(|number| format!("message {number}")).collect();
    client.send(messages.join("\n"));
    drop(client.stdin.take());
    for message in &messages {
        let mut stream = accept_unix(&listener);
        let request = String::from_utf8(read_request(&mut stream)).unwrap();
        assert_eq!(body_of(&request), message);
        stream.write_all(accepted("").as_bytes()).unwrap();
    }
    assert_eq!(client.finish(), (0, String::new(), String::new()));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn without_retries_publishing_fails_if_the_server_does_not_answer() {
    let server = FakeServer::start();
    let mut client = start("pub", &server, &["--retries", "0", "a"]);
    client.send("one\ntwo\n");
    let mut stream = server.accept_raw();
    answer(&mut stream, "one", &accepted(""));
    answer(&mut stream, "two", "");

    // The same applies to a server that does not read.
    let unreading = FakeServer::start();
    let mut blocked = start("pub", &unreading, &["--retries", "0", "a"]);
    let mut stdin = blocked.stdin.take().unwrap();
    let line = [b"one\n", &vec![b'x'; 15 << 20][..], b"\n"].concat();
    let writer = std::thread::spawn(move || stdin.write_all(&line));
    let mut stream = unreading.accept_raw();
    answer(&mut stream, "one", &accepted(""));

    for (client, server) in [(client, server), (blocked, unreading)] {
        let (code, _, stderr) = client.finish();
        let expected = "falconet-client: line 2: refused: no response within 5 s\n";
        assert_eq!((code, stderr.as_str()), (1, expected));
        assert_no_other_connection(&server);
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn a_refusal_is_one_line_and_ends_the_publishing() {
    let server = FakeServer::start();
    let client = start("pub", &server, &["a", "hello"]);
    answer(
        &mut server.accept_raw(),
        "hello",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 23\r\n\r\nnot\x1b[2J you\nsecond line",
    );
    let (code, stdout, stderr) = client.finish();
    let expected = "falconet-client: refused: 403 Forbidden: not\\u{1b}[2J you\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "", expected));

    let mut client = start("pub", &server, &["a"]);
    client.send("one\ntwo\n");
    answer(&mut server.accept_raw(), "one", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (code, _, stderr) = client.finish();
    assert_eq!((code, stderr.as_str()), (1, "falconet-client: line 1: refused: 200 OK\n"));
    assert_no_other_connection(&server);
}

#[test]
fn a_refusal_is_read_before_the_whole_message_is_sent() {
    let server = FakeServer::start();
    let mut client = start("pub", &server, &["a"]);
    let mut stdin = client.stdin.take().unwrap();
    let line = [&vec![b'x'; 15 << 20][..], b"\n"].concat();
    let writer = std::thread::spawn(move || stdin.write_all(&line));
    let mut stream = server.accept_raw();
    read_response_head(&mut stream);
    stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n").unwrap();
    let (code, _, stderr) = client.finish();
    let expected = "falconet-client: line 1: refused: 413 Payload Too Large\n";
    assert_eq!((code, stderr.as_str()), (1, expected));
    writer.join().unwrap().unwrap();
}

#[test]
fn a_connection_with_a_partly_sent_message_is_not_used_again() {
    let server = FakeServer::start();
    let mut client = start("pub", &server, &["a"]);
    let mut stdin = client.stdin.take().unwrap();
    let lines = [b"one\n", &vec![b'x'; 15 << 20][..], b"\ntwo\n"].concat();
    let writer = std::thread::spawn(move || stdin.write_all(&lines));
    let mut first = server.accept_raw();
    answer(&mut first, "one", &accepted(""));
    read_response_head(&mut first);
    first.write_all(accepted("").as_bytes()).unwrap();
    answer(&mut server.accept_raw(), "two", &accepted(""));
    assert_eq!(client.finish(), (0, String::new(), String::new()));
    writer.join().unwrap().unwrap();
}

#[test]
fn a_message_is_published_over_a_unix_socket() {
    let path = socket_path("pub");
    let server = format!("unix:{}", path.display());
    let (code, _, stderr) =
        PipedClient::start(&["pub", "--no-reconnect", "--server", &server, "a", "hello"]).finish();
    assert_eq!(code, 1);
    assert!(stderr.starts_with("falconet-client: refused: unix:"), "{stderr}");
    assert!(stderr.contains("No such file") && stderr.lines().count() == 1, "{stderr}");

    let listener = UnixListener::bind(&path).unwrap();
    let client = PipedClient::start(&["pub", "--server", &server, "a", "hello"]);
    let mut stream = accept_unix(&listener);
    let request = String::from_utf8(read_request(&mut stream)).unwrap();
    assert_eq!(request, post("localhost", "a", TEXT_PLAIN, key_of(&request), "hello"));
    stream.write_all(accepted("").as_bytes()).unwrap();
    assert_eq!(client.finish(), (0, String::new(), String::new()));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_wrong_topic_or_server_exits_with_2() {
    for (arguments, part) in [
        (&["pub", "a//b", "x"][..], "`a//b` is not a topic name: expected 1 to 256 bytes"),
        (&["sub", "../a"], "`../a` is not a topic name: expected 1 to 256 bytes"),
        (&["sub", "--sse", "--last", "x", "a"], "--last `x`: expected a count"),
        (&["pub", "--server", "http://localhost/a", "a"], "without a path"),
        (&["pub"], "expected NAME, the name of a topic"),
    ] {
        let (code, stdout, stderr) = PipedClient::start(arguments).finish();
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.starts_with("falconet-client: ") && stderr.contains(part), "{stderr}");
    }
    let (_, help, _) = PipedClient::start(&["sub", "-h"]).finish();
    let example = "falconet-client pub --server unix:/run/falconet.sock backups \"done\"";
    assert!(help.contains(example) && help.contains("falconet-client sub "), "{help}");
}

#[test]
fn a_subscriber_requests_the_last_messages_only_on_its_first_connection() {
    let server = FakeServer::start();
    let mut client = start("sub", &server, &["home/attic", "--last", "3"]);
    // A subscriber ignores its stdin, and the end of it.
    client.send("ignored\n");
    drop(client.stdin.take());
    // A refusal is not yet a connection.
    server.answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let (mut socket, target) = accept_websocket(&server);
    assert_eq!(target, "/topics/home/attic?mode=out&last=3");
    socket.send(Message::text("one\x1b[1m")).unwrap();
    socket.send(Message::binary(b"\x00two".to_vec())).unwrap();
    assert_eq!([client.line(), client.line()], ["one\x1b[1m\n", "\0two\n"]);
    drop(socket);
    client.wait_for_stderr("lost: ");
    let (mut socket, target) = accept_websocket(&server);
    assert_eq!(target, "/topics/home/attic?mode=out&last=0");
    client.wait_for_stderr("reconnected to http://127.0.0.1:");
    socket.send(Message::text("three")).unwrap();
    assert_eq!(client.line(), "three\n");
    client.signal(Signal::INT);
    assert_eq!(read_to_close(&mut socket), Some(1000));
    drop(socket);
    assert_eq!(client.finish(), (0, String::new(), String::new()));
}

#[test]
fn no_reconnect_applies_to_subscribers() {
    let server = FakeServer::start();
    let client = start("sub", &server, &["--no-reconnect", "a"]);
    drop(accept_websocket(&server));
    let (code, _, stderr) = client.finish();
    assert!(code == 1 && stderr.starts_with("lost: "), "{stderr}");

    let client = start("sub", &server, &["--no-reconnect", "--sse", "a"]);
    drop(stream_events(&server, "data: cut off\n"));
    let (code, stdout, stderr) = client.finish();
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (1, "", "lost: the server closed the connection\n")
    );
}

#[test]
fn on_a_terminal_a_subscriber_escapes_control_characters_and_reads_no_keys() {
    let server = FakeServer::start();
    let url = format!("http://{}", server.address());
    let mut terminal = TerminalClient::start(&["sub", "--sse", "--server", &url, "a"]);
    let (_stream, _) = stream_events(&server, "data: x\n\ndata: \x1b[2J\n\n");
    terminal.wait_for("x\r\n\\u{1b}[2J\r\n");
    assert_eq!(terminal_mode(&terminal.tty), terminal.initial_mode);

    let mut terminal = TerminalClient::start(&["sub", "--server", &url, "a"]);
    let (mut socket, _) = accept_websocket(&server);
    socket.send(Message::text("\x1b[2J")).unwrap();
    terminal.wait_for("\\u{1b}[2J\r\n");
    assert_eq!(terminal_mode(&terminal.tty), terminal.initial_mode);
}

#[test]
fn events_are_printed_and_resumed_after_the_last_one_received() {
    let server = FakeServer::start();
    let client = start("sub", &server, &["--sse", "--last", "2", "home/attic"]);
    let events = ":beat\n\nid: 5\ndata: one\ndata: and\ndata: \n\nevent: binary\nid: 6\n\
                  data: AP9iaW4=\n\nevent: new\nid: 7\ndata: unknown\n\nid: 8\ndata: cut off\n";
    let (stream, head) = stream_events(&server, events);
    assert!(head.starts_with("GET /topics/home/attic?last=2 HTTP/1.1\r\n"), "{head}");
    assert_eq!(header_of(&head, "last-event-id"), None);
    assert_eq!([client.line(), client.line(), client.line()], ["one\n", "and\n", "\n"]);
    assert_eq!(client.line(), "\0\u{fffd}bin\n");
    drop(stream);
    client.wait_for_stderr("lost: the server closed the connection");
    // Two connections, because a connection without events must not change the position.
    for _ in 0..2 {
        let (_, head) = stream_events(&server, ":beat\n");
        assert!(head.starts_with("GET /topics/home/attic HTTP/1.1\r\n"), "{head}");
        assert_eq!(header_of(&head, "last-event-id"), Some("7"));
        client.wait_for_stderr("reconnected to http://127.0.0.1:");
    }
    let (_stream, _) = stream_events(
        &server,
        "event: lagged\ndata: 3\n\nevent: lagged\ndata: unknown\n\nid: 11\ndata: later\n\n",
    );
    client.wait_for_stderr("reconnected to http://127.0.0.1:");
    assert_eq!(client.wait_for_stderr("lost 3"), "falconet-client: lost 3 messages\n");
    let unknown = "falconet-client: lost an unknown number of messages\n";
    assert_eq!(client.wait_for_stderr("unknown"), unknown);
    assert_eq!(client.line(), "later\n");
    client.signal(Signal::INT);
    assert_eq!(client.finish(), (0, String::new(), String::new()));
}

#[test]
fn a_stream_without_events_is_resumed_from_where_it_began() {
    let server = FakeServer::start();
    let client = start("sub", &server, &["--sse", "a"]);
    let mut stream = server.accept_raw();
    let head = read_response_head(&mut stream);
    assert_eq!(header_of(&head, "last-event-id"), None);
    let begin = EVENT_STREAM.replace("Connection", "Last-Event-ID: 7\r\nConnection");
    stream.write_all(begin.as_bytes()).unwrap();
    drop(stream);
    let (_stream, head) = stream_events(&server, "id: 8\ndata: while away\n\n");
    assert_eq!(header_of(&head, "last-event-id"), Some("7"));
    assert_eq!(client.line(), "while away\n");
    client.wait_for_stderr("reconnected to http://127.0.0.1:");
    client.signal(Signal::INT);
    assert_eq!(client.finish().0, 0);
}

#[test]
fn a_silent_stream_of_events_counts_as_lost() {
    let server = FakeServer::start();
    let arguments = ["--sse", "--idle-timeout", "300ms", "--no-reconnect", "a"];
    let client = start("sub", &server, &arguments);
    let (_stream, _) = stream_events(&server, "data: x\n\n");
    let (code, stdout, stderr) = client.finish();
    assert_eq!((code, stdout.as_str()), (1, "x\n"));
    assert_eq!(stderr, "lost: nothing received from the server for 300ms\n");
}

#[test]
fn a_response_that_is_no_event_stream_is_refused() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    for (answer, expected) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n", "refused: 404 Not Found: no"),
        ("HTTP/1.1 200 OK\r\n\r\n", "refused: the response is not text/event-stream"),
        (
            &format!("{ok}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            "refused: the response has an unknown Transfer-Encoding",
        ),
    ] {
        let server = FakeServer::start();
        let client = start("sub", &server, &["--sse", "a"]);
        server.answer(answer);
        let (code, _, stderr) = client.finish();
        assert!(code == 1 && stderr.starts_with(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "the client does not try again: {stderr}");
    }
    for (events, rule) in [
        ("id: 4\nevent: binary\ndata: !\n\n", "a binary event is not base64"),
        ("id: 4\nevent: lagged\ndata: many\n\n", "a lagged event has no valid count"),
    ] {
        let server = FakeServer::start();
        let client = start("sub", &server, &["--sse", "a"]);
        stream_events(&server, events);
        client.wait_for_stderr(&format!("lost: the server violated the protocol: {rule}"));
        let (_stream, head) = stream_events(&server, "");
        assert_eq!(header_of(&head, "last-event-id"), Some("4"), "the invalid event is skipped");
        client.wait_for_stderr("reconnected to ");
        client.signal(Signal::INT);
        assert_eq!(client.finish().0, 0);
    }
}

#[test]
fn a_chunked_stream_is_decoded_and_ends_with_its_last_chunk() {
    let server = FakeServer::start();
    let client = start("sub", &server, &["--sse", "a"]);
    let chunked = EVENT_STREAM.replace("Connection", "Transfer-Encoding: chunked\r\nConnection");
    let mut stream = server.accept_raw();
    read_response_head(&mut stream);
    // The client must not depend on the borders of chunks or of writes.
    for piece in [&*chunked, "12\r\nid: 7\ndata: one\n\n", "d\r\n9\r\nata: two\n\r\n1\r\n\n\r\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    assert_eq!([client.line(), client.line()], ["one\n", "two\n"]);
    // The connection stays open, as one to a proxy does.
    stream.write_all(b"0\r\n\r\n").unwrap();
    client.wait_for_stderr("lost: the server ended the stream");
    let (_stream, head) = stream_events(&server, "");
    assert_eq!(header_of(&head, "last-event-id"), Some("7"));
    client.wait_for_stderr("reconnected to ");
    client.signal(Signal::INT);
    assert_eq!(client.finish().0, 0);
}

#[test]
fn a_stream_that_asks_to_reconnect_is_a_temporary_refusal() {
    let server = FakeServer::start();
    let client = start("sub", &server, &["--sse", "--last", "2", "a"]);
    server.answer(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 36\r\n\r\n\
         : too many connections\nretry: 1200\n\n",
    );
    assert_eq!(client.wait_for_stderr("refused: "), "refused: too many connections\n");
    assert_eq!(client.wait_for_stderr("reconnecting"), "reconnecting in 1.2 s\n");
    let (_stream, head) = stream_events(&server, "data: x\n\n");
    assert!(head.starts_with("GET /topics/a?last=2 "), "{head}");
    assert_eq!(client.line(), "x\n");
    client.signal(Signal::INT);
    assert_eq!(client.finish().0, 0);
}

#[test]
fn a_lost_stream_is_requested_again_after_the_reconnection_time_that_it_has_set() {
    let server = FakeServer::start();
    let client = start("sub", &server, &["--sse", "a"]);
    drop(stream_events(&server, "retry: 1100\ndata: x\n\n"));
    assert_eq!(client.wait_for_stderr("reconnecting"), "reconnecting in 1.1 s\n");
    // A stream that sets no time keeps the last one.
    drop(stream_events(&server, "data: y\n\n"));
    client.wait_for_stderr("lost: ");
    let lost = Instant::now();
    let (_stream, _) = stream_events(&server, "");
    assert!(lost.elapsed() >= Duration::from_millis(1000), "after {:?}", lost.elapsed());
    client.wait_for_stderr("reconnected to ");
    client.signal(Signal::INT);
    assert_eq!(client.finish().0, 0);
}

#[test]
fn a_failed_proxy_is_asked_again_by_publishers_and_subscribers() {
    for status in ["500 Failed", "502 Bad Gateway", "504 Gateway Timeout"] {
        let failure = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let server = FakeServer::start();
        let client = start("pub", &server, &["a", "one"]);
        answer(&mut server.accept_raw(), "one", &failure);
        answer(&mut server.accept_raw(), "one", &accepted(""));
        assert_eq!(client.finish().0, 0);

        let client = start("sub", &server, &["--sse", "a"]);
        server.answer(&failure);
        let (_stream, _) = stream_events(&server, "data: x\n\n");
        assert_eq!(client.line(), "x\n");
        client.signal(Signal::INT);
        assert_eq!(client.finish().0, 0);
    }
}

#[test]
fn a_full_stdout_is_an_error_of_a_subscriber_and_a_closed_one_is_not() {
    let server = FakeServer::start();
    let url = format!("http://{}", server.address());
    let arguments = ["sub", "--sse", "--server", &url, "a"];
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for (stdout, expected) in [
        (Stdio::from(full), (1, "can't write to stdout: No space left on device (os error 28)\n")),
        (Stdio::from(writer), (0, "")),
    ] {
        let mut command = client_command(&arguments);
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        let (_stream, _) = stream_events(&server, "data: x\n\n");
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(expected.0), expected.1));
    }
}
