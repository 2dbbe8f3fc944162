//! Requests that a full or stopping server can't serve: a client that asks for an event stream is asked to
//! reconnect, and all others get an error.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::admin::Metrics;
use crate::support::browser::{Window, open_event_source};
use crate::support::*;

#[test]
fn a_full_server_asks_event_streams_to_reconnect_and_refuses_the_rest() {
    let falconet = Falconet::start(FULL);
    let _inside = fill(falconet.address());
    let delays: Vec<u32> =
        (0..6).map(|_| retry_of(&exchange(falconet.address(), stream("")))).collect();
    assert!(delays.iter().any(|delay| *delay != delays[0]), "not random: {delays:?}");
    let old = String::from_utf8(stream("")).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    retry_of(&exchange(falconet.address(), old));
    let head = request("HEAD", "/topics/a", SSE, "");
    for refused in
        [get("/"), post("/topics/a", "x"), handshake("/").into_bytes(), head, b"x".to_vec()]
    {
        let answer = exchange(falconet.address(), &refused);
        assert_eq!(status_of(&answer), 503, "{}", String::from_utf8_lossy(&refused));
        let text = if refused.starts_with(b"HEAD") { "" } else { "too many connections\n" };
        assert_eq!(body_of(&answer), text);
    }
}

#[test]
fn bytes_that_are_not_http_get_no_answer_from_a_full_server() {
    let falconet = Falconet::start(FULL);
    let _inside = fill(falconet.address());
    for bytes in [&b"SSH-2.0-x\r\n\r\n"[..], b"hello\n", b"\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n"] {
        assert_eq!(exchange(falconet.address(), bytes), "", "{}", String::from_utf8_lossy(bytes));
    }
    // Broken HTTP is HTTP.
    let broken = b"GET / HTTP/1.1\r\nHost a\r\n\r\n";
    assert_eq!(status_of(&exchange(falconet.address(), broken)), 503);
}

#[test]
fn connections_that_are_turned_away_are_not_open_ones_and_end_within_seconds() {
    let (falconet, admin) = admin::start(FULL);
    let _inside = fill(falconet.address());
    let begun = Instant::now();
    let silent: Vec<TcpStream> = (0..8).map(|_| connect(falconet.address())).collect();
    // More of them get an answer at once, without having sent a request.
    let answer = rest_of(connect(falconet.address()));
    assert_eq!(status_of(std::str::from_utf8(&answer).unwrap()), 503);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let page = Metrics::read(admin);
    assert_eq!(page.value("falconet_connections", "websocket"), PLACES as f64);
    assert_eq!(page.value("falconet_connections", "http"), 0.0);
    assert_eq!(page.value("falconet_connections_rejected_total", "connections"), 9.0);
    for stream in silent {
        let answer = rest_of(stream);
        assert_eq!(status_of(std::str::from_utf8(&answer).unwrap()), 503);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    wait_until("there is room for the next", || {
        status_of(&exchange(falconet.address(), stream(""))) == 200
    });
}

#[test]
fn connections_that_are_turned_away_end_when_the_server_stops() {
    let mut falconet = Falconet::start(FULL);
    let inside = fill(falconet.address());
    let mut silent = connect(falconet.address());
    silent.write_all(b"GET /topics/a HTTP/1.1\r\n").unwrap();
    falconet.wait_for_line("too many connections");
    drop(inside);
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(Duration::from_millis(900)).code(), Some(0));
    assert_eq!(rest_of(silent), b"");
}

#[test]
fn an_address_that_has_used_up_its_share_is_asked_to_reconnect() {
    let flags = ["--trust-proxy", "127.0.0.1", "--max-per-address", "1"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let client = "X-Forwarded-For: 192.0.2.1\r\n";
    let _held = Events::connect(falconet.address(), "/topics/a", client);
    retry_of(&exchange(falconet.address(), stream(client)));
    assert_eq!(status_of(&exchange(falconet.address(), request("GET", "/", client, ""))), 503);

    let falconet = Falconet::start(&[NO_BROADCAST, &flags, &["--proxy-protocol"]].concat());
    let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    let via_proxy = |request: &[u8]| exchange(falconet.address(), [header, request].concat());
    let mut http = Http::connect(falconet.address());
    http.send(header);
    let _held = Events::over(http, &stream(""));
    retry_of(&via_proxy(&stream("")));
    assert_eq!(status_of(&via_proxy(&get("/"))), 503);
}

#[test]
fn a_full_server_reads_the_header_of_a_proxy_before_a_request() {
    let flags = ["--trust-proxy", "127.0.0.1", "--proxy-protocol"];
    let falconet = Falconet::start(&[FULL, &flags].concat());
    let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    let mut held = Http::connect(falconet.address());
    held.send(header);
    assert_eq!(held.fetch(get("/")).status(), 200);
    retry_of(&exchange(falconet.address(), [&header[..], &stream("")].concat()));
}

#[test]
fn a_stream_of_a_topic_that_cannot_be_created_is_asked_to_reconnect() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-topics", "1"]].concat());
    let answer = exchange(falconet.address(), stream(""));
    retry_of(&answer);
    assert!(body_of(&answer).starts_with(": too many topics: the limit is 1\n"), "{answer}");
}

#[test]
fn a_stream_that_is_requested_while_the_server_stops_is_asked_to_reconnect() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--close-timeout", "9s"]].concat());
    let request = stream("");
    let (begin, rest) = request.split_at(20);
    let mut late = connect(falconet.address());
    late.write_all(begin).unwrap();
    // This client connected later and is served, so the server waits for the rest.
    let mut client = Client::connect(falconet.address());
    client.echo("here");
    falconet.signal(Signal::TERM);
    assert_eq!(client.read().close_code(), 1001);
    late.write_all(rest).unwrap();
    let answer = String::from_utf8(rest_of(late)).unwrap();
    retry_of(&answer);
    assert!(body_of(&answer).starts_with(": the server is stopping\n"), "{answer}");
}

#[test]
fn with_reject_drop_event_streams_get_no_answer_either() {
    let drops = ["--reject", "drop"];
    let falconet = Falconet::start(&[FULL, &drops].concat());
    let _inside = fill(falconet.address());
    assert_eq!(exchange(falconet.address(), stream("")), "");
    let falconet = Falconet::start(&[NO_BROADCAST, &drops, &["--max-topics", "1"]].concat());
    assert_eq!(exchange(falconet.address(), stream("")), "");
}

#[cfg(feature = "tls")]
#[test]
fn a_full_server_asks_event_streams_over_tls_to_reconnect() {
    let server = tls::TlsServer::start("tls-full", FULL);
    let _inside: Vec<_> = (0..PLACES).map(|_| server.client("/")).collect();
    let mut over_tls = server.connect();
    over_tls.write_all(&stream("")).unwrap();
    retry_of(&String::from_utf8(rest_of(over_tls)).unwrap());
}

#[test]
fn an_event_source_reconnects_to_a_full_server_until_there_is_room() {
    let Some(mut window) = Window::open() else { return };
    // Without kept connections, so that the browser needs a new one.
    let flags = ["--max-connections", "8", "--keep-alive", "0"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    window.visit(&format!("http://{}/", falconet.address()));
    window.wait_for(browser::IS_OPEN);
    let mut held = Vec::new();
    while let Some(client) = try_connect(falconet.address()) {
        held.push(client);
    }
    open_event_source(&mut window, "/topics/a");
    window.wait_for("window.failed && source.readyState === 0");
    drop(held);
    // The longest delay is as long as the time that `wait_for` waits.
    let deadline = Instant::now() + TIMEOUT + Duration::from_secs(5);
    while window.eval("source.readyState") != "1" {
        assert!(Instant::now() < deadline, "no connection within {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fetch(falconet.address(), post("/topics/a", "at last")).status(), 202);
    window.wait_for("seen.join() === 'at last'");
}

/// Opens a WebSocket, unless the server is full.
fn try_connect(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect(address);
    stream.write_all(handshake("/").as_bytes()).unwrap();
    let is_open = status_of(&read_response_head(&mut stream)) == 101;
    if !is_open {
        let _ = stream.shutdown(Shutdown::Both);
    }
    is_open.then_some(stream)
}

/// Returns a request for the event stream of the topic `a`.
fn stream(lines: &str) -> Vec<u8> {
    request("GET", "/topics/a", &format!("{SSE}{lines}"), "")
}

/// Checks that an answer is an event stream that asks the client to reconnect, and returns the delay in
/// milliseconds.
fn retry_of(answer: &str) -> u32 {
    assert_eq!(status_of(answer), 200, "{answer}");
    let body = body_of(answer);
    let length = body.len().to_string();
    for (name, value) in [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-cache, no-transform"),
        ("Connection", "close"),
        ("Content-Length", &length),
    ] {
        assert_eq!(header_of(answer, name), Some(value), "{name}: {answer}");
    }
    let retry = body.strip_suffix("\n\n").and_then(|events| events.split_once("\nretry: "));
    let delay = retry.expect(answer).1.parse().expect(answer);
    assert!((2000..=10_000).contains(&delay), "{answer}");
    delay
}

const FULL: &[&str] = &["--broadcast-every", "0", "--max-connections", "1"];
/// The number of clients on this host that such a server admits.
const PLACES: usize = 1 + LOCAL_PLACES;
