//! The framing of event streams, and the clients and proxies that depend on it. Tests with a program that is
//! not installed print that they are skipped, and pass; with `CI=true` they fail.

use std::io::{Read, Write};

use rustix::net::sockopt;
use rustix::process::Signal;

use crate::support::browser::{Window, open_event_source};
use crate::support::peer::{Peer, peer, python_with_requests};
use crate::support::proxy::Proxy;
use crate::support::*;

#[test]
fn an_event_is_one_chunk_for_http_1_1_and_bare_for_http_1_0() {
    let falconet = Falconet::start(NO_BROADCAST);
    let framed = request("GET", "/topics/a", SSE, "");
    let bare = String::from_utf8(framed.clone()).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let [framed, bare] = [framed, bare.into_bytes()].map(|request| {
        let mut stream = connect(falconet.address());
        stream.write_all(&request).unwrap();
        (read_response_head(&mut stream), stream)
    });
    for (head, coding) in [(&framed.0, Some("chunked")), (&bare.0, None)] {
        assert_eq!(status_of(head), 200);
        for (name, value) in [
            ("Transfer-Encoding", coding),
            ("Content-Length", None),
            ("Connection", Some("close")),
            ("Cache-Control", Some("no-cache, no-transform")),
            ("X-Accel-Buffering", Some("no")),
        ] {
            assert_eq!(header_of(head, name), value, "{name}: {head}");
        }
    }
    let id = header_of(&framed.0, "Last-Event-ID").unwrap().replace(":0", ":1");
    publish(&falconet, "one\ntwo");
    falconet.signal(Signal::TERM);
    let blocks = [
        format!("id: {}\n\n", id.replace(":1", ":0")),
        format!("id: {id}\ndata: one\ndata: two\n\n"),
    ];
    let chunks = blocks.each_ref().map(|block| format!("{:x}\r\n{block}\r\n", block.len()));
    let framed = String::from_utf8(rest_of(framed.1)).unwrap();
    assert_eq!(framed, chunks.concat() + "0\r\n\r\n");
    assert_eq!(String::from_utf8(rest_of(bare.1)).unwrap(), blocks.concat());
}

#[test]
fn the_administrators_stream_begins_with_one_chunk_for_http_1_1_and_a_bare_event_for_http_1_0() {
    let (_falconet, admin) = crate::support::admin::start(NO_BROADCAST);
    // There is no history yet, and a chunk without data would end the stream.
    assert_eq!(Events::connect(admin, "/events", "").read().kind, "stats");
    let mut events = Events::connect(admin, "/events", "");
    assert_eq!((&*events.read().kind, &*events.read().kind), ("history", "stats"));
    let mut stream = connect(admin);
    stream.write_all(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(header_of(&read_response_head(&mut stream), "Transfer-Encoding"), None);
    let mut begin = [0; 15];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"event: history\n");
}

#[test]
fn a_stream_that_is_cut_has_no_last_chunk() {
    let flags = ["--write-timeout", "300ms", "--log-bytes", "10m", "--log-total", "10m"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let events = Events::connect(falconet.address(), "/topics/a", "");
    let mut stream = events.into_stream();
    sockopt::set_socket_recv_buffer_size(&stream, 32 * 1024).unwrap();
    for _ in 0..30 {
        publish(&falconet, "x".repeat(60_000));
    }
    falconet.wait_for_line("connection ended: ");
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    assert!(!received.ends_with(b"0\r\n\r\n"), "{} bytes", received.len());
}

#[test]
fn a_head_request_has_no_stream() {
    let falconet = Falconet::start(NO_BROADCAST);
    publish(&falconet, "x");
    let head = request("HEAD", "/topics/a", &format!("{SSE}Connection: close\r\n"), "");
    assert_eq!(body_of(&exchange(falconet.address(), head)), "");
}

#[test]
fn nginx_with_its_defaults_passes_events_on_at_once() {
    let falconet = Falconet::start(NO_BROADCAST);
    let upstream = format!("http://{}", falconet.address());
    // `/1.1/` is passed on with HTTP/1.1, everything else with nginx's default of HTTP/1.0.
    let directives = format!(
        "location / {{ proxy_pass {upstream}; }}
         location /1.1/ {{ proxy_pass {upstream}/; proxy_http_version 1.1; }}"
    );
    let Some(nginx) = Proxy::nginx(&directives) else { return };
    for path in ["/topics/a", "/1.1/topics/a"] {
        let mut stream = connect(nginx.address());
        stream.write_all(&request("GET", path, SSE, "")).unwrap();
        let head = read_response_head(&mut stream);
        assert_eq!(status_of(&head), 200, "{head}");
        for number in 1..=3 {
            let text = format!("event {number}");
            publish(&falconet, &text);
            read_up_to(&mut stream, &format!("data: {text}\n\n"));
        }
    }
}

#[test]
fn iter_lines_of_python_yields_each_short_event_at_once() {
    let Some(mut python) = python_with_requests() else { return };
    let falconet = Falconet::start(NO_BROADCAST);
    let script = "import requests, sys\n\
        answer = requests.get(sys.argv[1], headers={'Accept': 'text/event-stream'}, stream=True, timeout=10)\n\
        print(answer.status_code, flush=True)\n\
        for line in answer.iter_lines():\n    print(line.decode(), flush=True)\n";
    let python = Peer::start(python.args(["-c", script, &url(&falconet)]));
    assert_eq!(python.text(), "200");
    assert!(python.text().starts_with("id: "));
    for number in 1..=6 {
        publish(&falconet, number.to_string());
        assert!(python.text().starts_with("id: "));
        assert_eq!(python.text(), format!("data: {number}"));
    }
    falconet.signal(Signal::TERM);
    assert_eq!(python.exit_code(), Some(0), "the end is not an error");
}

#[test]
fn curl_prints_events_at_once_and_distinguishes_a_regular_end_from_a_cut() {
    for (version, signal, code) in [
        ("--http1.1", Signal::TERM, 0),
        ("--http1.0", Signal::TERM, 0),
        // CURLE_PARTIAL_FILE
        ("--http1.1", Signal::KILL, 18),
    ] {
        let Some(mut curl) = peer("curl") else { return };
        let falconet = Falconet::start(NO_BROADCAST);
        let accept = "Accept: text/event-stream";
        let curl = Peer::start(curl.args(["-sSN", version, "-H", accept, &url(&falconet)]));
        assert!(curl.text().starts_with("id: "));
        for text in ["one", "two"] {
            publish(&falconet, text);
            assert!(curl.text().starts_with("id: "));
            assert_eq!(curl.text(), format!("data: {text}"));
        }
        falconet.signal(signal);
        assert_eq!(curl.exit_code(), Some(code), "{version}");
    }
}

#[test]
fn node_receives_events_at_once_and_a_complete_response() {
    let Some(mut node) = peer("node") else { return };
    let falconet = Falconet::start(NO_BROADCAST);
    let script = "require('http').get(process.argv[1], { headers: { Accept: 'text/event-stream' } }, (answer) => {\n\
        console.log(answer.statusCode);\n\
        answer.on('data', (data) => console.log(String(data).trim()));\n\
        answer.on('end', () => console.log('complete', answer.complete));\n\
        });";
    let node = Peer::start(node.args(["-e", script, &url(&falconet)]));
    assert_eq!(node.text(), "200");
    assert!(node.text().starts_with("id: "));
    publish(&falconet, "one");
    assert!(node.text().starts_with("id: "));
    assert_eq!(node.text(), "data: one");
    falconet.signal(Signal::TERM);
    assert_eq!(node.text(), "complete true");
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn an_event_source_resumes_at_a_restarted_server_that_does_not_know_its_last_event_id() {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(NO_BROADCAST);
    let address = falconet.address();
    window.visit(&format!("http://{address}/"));
    open_event_source(&mut window, "/topics/a");
    window.wait_for("source.readyState === 1");
    publish(&falconet, "one");
    window.wait_for("seen.join() === 'one'");
    drop(falconet);
    window.wait_for("source.readyState === 0");
    let again = Falconet::start_with(
        Falconet::command().args(["--listen", &format!("http://{address}")]).args(NO_BROADCAST),
    );
    publish(&again, "two");
    window.wait_for("seen.join() === 'one,lagged unknown,two'");
}

/// Publishes to the topic `a`.
fn publish(falconet: &Falconet, text: impl AsRef<[u8]>) {
    assert_eq!(fetch(falconet.address(), post("/topics/a", text)).status(), 202);
}

fn url(falconet: &Falconet) -> String {
    format!("http://{}/topics/a", falconet.address())
}

/// Reads until the bytes read contain `end`.
fn read_up_to(stream: &mut impl Read, end: &str) {
    let mut received = String::new();
    let mut byte = [0];
    while !received.ends_with(end) {
        let read = stream.read(&mut byte);
        assert!(matches!(read, Ok(1)), "{read:?} after {received:?}");
        received.push(byte[0].into());
    }
}
