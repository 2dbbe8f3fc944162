//! Topics: publishing and subscribing by WebSocket, server-sent events and plain HTTP.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use falconet::{Action, Denied, Echo, RequestHead};
use rustix::net::sockopt;
use rustix::process::Signal;

use crate::support::*;

// Names.

#[test]
fn valid_names_are_topics_and_others_are_404() {
    let falconet = Falconet::start(NO_BROADCAST);
    let (longest, too_long) = ("x".repeat(256), "x".repeat(257));
    for name in [
        "a",
        "garden/temperature",
        "A-z_0.9",
        "...",
        "a/.b/c..",
        "-",
        "0",
        "a~b",
        "a:b",
        "a;b",
        "a@b=c",
        "*",
        "a'b",
        &longest,
    ] {
        assert_eq!(publish(&falconet, name, "x").status(), 202, "{name}");
        assert_eq!(
            fetch(falconet.address(), get(&format!("/topics/{name}"))).text(),
            "x",
            "{name}"
        );
    }
    for name in [
        "/",
        "/a",
        "a//b",
        ".",
        "..",
        "a/.",
        "a/..",
        "../a",
        "a/../b",
        "./a",
        "a%",
        "%2e%2e",
        "a%2f..%2fb",
        "a%0",
        "a%00",
        "a%ff",
        "a+b",
        "a%2Bb",
        "a%23",
        &too_long,
    ] {
        let path = format!("/topics/{name}");
        for (method, lines) in
            [("GET", ""), ("GET", SSE), ("HEAD", ""), ("POST", ""), ("PUT", ""), ("DELETE", "")]
        {
            let answer = fetch(falconet.address(), request(method, &path, lines, ""));
            assert_eq!(answer.status(), 404, "{method} {path}");
        }
        assert_eq!(status_of(&exchange(falconet.address(), handshake(&path))), 404, "{path}");
    }
    for path in ["/topics", "/topic/a", "/Topics/a", "/topicsa", "/a/topics/a"] {
        assert_eq!(fetch(falconet.address(), post(path, "x")).status(), 404, "{path}");
    }
    assert_eq!(topics(&falconet).len(), 14);
}

#[test]
fn an_encoded_name_is_the_name_of_the_same_topic() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--log-level", "debug"]].concat());
    assert_eq!(with_numbers(publish(&falconet, "%78", "x").text()), accepted("x", 1, 0));
    assert_eq!(fetch(falconet.address(), get("/topics/x?last=1")).text(), "x");
    // `encodeURIComponent('garden/temperature')`
    let encoded = "/topics/garden%2Ftemperature";
    let mut client = Client::connect_to(falconet.address(), &format!("{encoded}?mode=out"));
    let mut events = Events::connect(falconet.address(), encoded, "");
    publish(&falconet, "garden/temperature", "21.5");
    assert_eq!((client.read().text(), &*events.read().data), ("21.5", "21.5"));
    assert_eq!(fetch(falconet.address(), get(encoded)).text(), "21.5");
    assert_eq!(fetch(falconet.address(), request("DELETE", encoded, "", "")).status(), 204);
    assert_eq!(newest_number(&falconet, "garden/temperature"), None);
    // The log has the path as it was sent.
    falconet.wait_for_line(" method=POST path=/topics/%78 ");
}

// WebSocket.

#[test]
fn a_message_goes_to_all_subscribers_including_the_sender() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut clients = [(); 3].map(|()| Client::connect_to(falconet.address(), "/topics/a"));
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    let mut elsewhere = Client::connect_to(falconet.address(), "/topics/b");
    let mut page = Client::connect(falconet.address());
    for (index, (opcode, payload)) in
        [(TEXT, "one"), (BINARY, "two"), (TEXT, ""), (BINARY, "")].into_iter().enumerate()
    {
        clients[index % 3].send(true, opcode, payload);
        for client in &mut clients {
            let received = client.read();
            assert_eq!(
                (received.fin, received.opcode, &*received.payload),
                (true, opcode, payload.as_bytes())
            );
        }
        let event = events.read();
        assert_eq!((event.id, event.kind == "binary"), (Some(index as u64 + 1), opcode == BINARY));
    }
    // A fragmented message is one message.
    clients[0].send(false, TEXT, "in ");
    clients[0].send(true, CONTINUATION, "pieces");
    for client in &mut clients {
        assert_eq!(client.read().text(), "in pieces");
    }
    // No other client has received any of it.
    elsewhere.send(true, TEXT, "elsewhere");
    assert_eq!(elsewhere.read().text(), "elsewhere");
    page.send(true, TEXT, "an echo");
    assert_eq!(page.read().text(), "an echo");
}

#[test]
fn publishing_where_it_is_not_allowed_closes_with_1008() {
    let server = Embedded::start(|server| {
        server.topics().endpoint("/", Echo).authorize(|_: &RequestHead<'_>| {
            Ok(|action: Action<'_>| match action {
                Action::Publish("open") | Action::Subscribe("open" | "read") => Ok(()),
                Action::Publish(_) | Action::Subscribe(_) => Err(Denied::Forbidden),
                _ => Ok(()),
            })
        })
    });
    let mut reader = Client::connect_to(server.address, "/topics/read");
    reader.send(true, TEXT, "may I?");
    assert_closed(reader, 1008, "publishing is not allowed");
    let mut open = Client::connect_to(server.address, "/topics/open");
    open.echo("published");
    for (method, path, lines, status) in [
        ("POST", "/topics/read", "", 403),
        ("PUT", "/topics/read", "", 403),
        ("DELETE", "/topics/read", "", 403),
        ("GET", "/topics/read", "", 404),
        ("POST", "/topics/open", "", 202),
        ("GET", "/topics/open", "", 200),
        ("GET", "/topics/closed", "", 403),
        ("GET", "/topics/closed", SSE, 403),
        ("POST", "/topics/closed", "", 403),
        ("GET", "/topics/", "", 403),
        ("GET", "/topics/open,read", "", 200),
        ("GET", "/topics/open,closed", "", 403),
    ] {
        let answer = fetch(server.address, request(method, path, lines, ""));
        assert_eq!(answer.status(), status, "{method} {path}");
    }
    for path in ["/topics/closed", "/topics/read?mode=in", "/topics/closed?mode=out"] {
        assert_eq!(status_of(&exchange(server.address, handshake(path))), 403, "{path}");
    }
    drop(open);
    server.stop().unwrap().unwrap();
}

#[test]
fn last_replays_retained_messages_before_new_ones() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--retain", "5"]].concat());
    for number in 1..=8 {
        publish(&falconet, "a", number.to_string());
    }
    let rows: [(&str, &[&str]); 7] = [
        ("", &["8"]),
        ("?last=0", &[]),
        ("?last=1", &["8"]),
        ("?last=3", &["6", "7", "8"]),
        ("?mode=out&last=5", &["4", "5", "6", "7", "8"]),
        ("?last=100&client=me", &["4", "5", "6", "7", "8"]),
        ("?last=18446744073709551615", &["4", "5", "6", "7", "8"]),
    ];
    let mut clients = rows.map(|(query, replayed)| {
        let path = format!("/topics/a{query}");
        let client = Client::connect_to(falconet.address(), &path);
        (client, Events::connect(falconet.address(), &path, ""), replayed, query)
    });
    publish(&falconet, "a", "live");
    for (client, events, replayed, query) in &mut clients {
        for expected in replayed.iter().chain(&["live"]) {
            assert_eq!(client.read().text(), *expected, "{query}");
            assert_eq!(events.read().data, *expected, "{query}");
        }
    }
}

#[test]
fn mode_out_only_subscribes() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut client = Client::connect_to(falconet.address(), "/topics/a?mode=out");
    publish(&falconet, "a", "received");
    assert_eq!(client.read().text(), "received");
    client.send(true, TEXT, "");
    assert_closed(client, 1008, "publishing is not allowed");
    assert_eq!(newest_number(&falconet, "a"), Some(1));
}

#[test]
fn mode_in_only_publishes() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut other = Client::connect_to(falconet.address(), "/topics/a");
    let mut client = Client::connect_to(falconet.address(), "/topics/a?mode=in&last=5");
    for message in ["one", "two"] {
        client.send(true, TEXT, message);
        assert_eq!(other.read().text(), message);
    }
    assert_eq!(with_numbers(publish(&falconet, "a", "three").text()), accepted("a", 3, 1));
    assert_eq!(other.read().text(), "three");
    // A received message would precede the Pong.
    client.send(true, PING, "still there?");
    let pong = client.read();
    assert_eq!((pong.opcode, &*pong.payload), (PONG, &b"still there?"[..]));
}

#[test]
fn an_invalid_mode_or_last_is_400_and_named() {
    let falconet = Falconet::start(NO_BROADCAST);
    for (query, named) in [
        ("mode=both", "mode is `both`"),
        ("mode=", "mode is ``"),
        ("mode=IN", "mode is `IN`"),
        ("mode=in,out", "mode is `in,out`"),
        ("last=many", "last is `many`"),
        ("last=-1", "last is `-1`"),
        ("last=1.5", "last is `1.5`"),
        ("last=", "last is ``"),
        ("last=0x1", "last is `0x1`"),
        ("last=99999999999999999999", "last is `99999999999999999999`"),
        ("mode=out&last=%31", "last is `%31`"),
    ] {
        let path = format!("/topics/a?{query}");
        let answer = exchange(falconet.address(), handshake(&path));
        assert_eq!(status_of(&answer), 400, "{query}");
        assert!(body_of(&answer).starts_with(named), "{query}: {answer}");
        if query.starts_with("last") {
            let answer = fetch(falconet.address(), request("GET", &path, SSE, ""));
            assert_eq!(answer.status(), 400, "{query}");
            assert!(answer.text().starts_with(named), "{query}: {answer:?}");
        }
    }
    assert_eq!(topics(&falconet).len(), 0, "no topic was created for them");
}

// Server-sent events.

#[test]
fn events_have_the_id_of_their_message() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    assert_eq!(header_of(&events.head, "Cache-Control"), Some("no-cache, no-transform"));
    assert_eq!(header_of(&events.head, "Connection"), Some("close"));
    assert_eq!(header_of(&events.head, "Content-Length"), None);
    let rows: [(&str, &[u8], &str, &str); 6] = [
        ("text/plain", b"21.5", "message", "21.5"),
        ("text/plain", b"", "message", ""),
        ("text/plain", b"two\nlines\r\nand\rmore\n", "message", "two\nlines\nand\nmore\n"),
        (
            "text/plain",
            b"id: 7\n\nevent: forged\n\n: x",
            "message",
            "id: 7\n\nevent: forged\n\n: x",
        ),
        ("application/octet-stream", b"\0\xff", "binary", "AP8="),
        ("text/plain", b"\xff", "binary", "/w=="),
    ];
    for (index, (content_type, payload, kind, data)) in rows.into_iter().enumerate() {
        let lines = format!("Content-Type: {content_type}\r\n");
        fetch(falconet.address(), request("POST", "/topics/a", &lines, payload));
        let event =
            Event { id: Some(index as u64 + 1), kind: kind.to_owned(), data: data.to_owned() };
        assert_eq!(events.read(), event);
    }
}

#[test]
fn events_are_sent_only_to_clients_that_accept_them() {
    let falconet = Falconet::start(NO_BROADCAST);
    publish(&falconet, "a", "x");
    for (accept, streams) in [
        ("text/event-stream", true),
        ("text/html, text/event-stream;q=0.5, */*", true),
        ("TEXT/Event-Stream", true),
        ("*/*", false),
        ("text/*", false),
        ("text/event-stream;q=0", false),
        ("text/html", false),
    ] {
        let lines = format!("Accept: {accept}\r\n");
        let mut stream = connect(falconet.address());
        stream.write_all(&request("GET", "/topics/a", &lines, "")).unwrap();
        let head = read_response_head(&mut stream);
        let content_type = header_of(&head, "Content-Type").unwrap();
        assert_eq!(content_type == "text/event-stream", streams, "{accept}: {head}");
    }
}

#[test]
fn last_event_id_resumes_and_reports_lost_messages() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--log-messages", "5"]].concat());
    for number in 1..=10 {
        publish(&falconet, "a", number.to_string());
    }
    let id = |number| id_of(falconet.address(), number);
    for (id, is_lagged, first) in [
        (id(9), false, 10),
        (id(5), false, 6),
        (id(4), true, 6),
        (id(0), true, 6),
        // A number that is not given yet, and ids that this server does not know.
        (id(11), true, 6),
        (id(u64::MAX), true, 6),
        ("zzzzzzzz:9".to_owned(), true, 6),
        ("9".to_owned(), true, 6),
        ("x y".to_owned(), true, 6),
        (id(9).replace(':', ""), true, 6),
        (format!("{},{}", id(9), id(9)), true, 6),
        (format!("{}0000000000000000000", id(9)), true, 6),
        ("\u{1f985}".to_owned(), true, 6),
        ("x".repeat(4096), true, 6),
    ] {
        let lines = format!("Last-Event-ID: {id}\r\n");
        let mut events = Events::connect(falconet.address(), "/topics/a?last=1", &lines);
        if is_lagged {
            let (kind, data) = ("lagged".to_owned(), "unknown".to_owned());
            assert_eq!(events.read(), Event { id: None, kind, data }, "after {id}");
        }
        for number in first..=10_u64 {
            let (id, data) = (Some(number), number.to_string());
            assert_eq!(events.read(), Event { id, kind: "message".to_owned(), data });
        }
    }
    // A subscriber that missed nothing receives only new messages.
    let lines = format!("Last-Event-ID: {}\r\n", id(10));
    let mut events = Events::connect(falconet.address(), "/topics/a", &lines);
    publish(&falconet, "a", "new");
    assert_eq!(events.read().id, Some(11));
}

#[test]
fn a_subscriber_that_resumes_after_a_restart_gets_everything_the_new_server_keeps() {
    let before = Falconet::start(NO_BROADCAST);
    for _ in 0..5 {
        publish(&before, "a", "old");
    }
    let lines = format!("Last-Event-ID: {}\r\n", id_of(before.address(), 5));
    drop(before);
    let after = Falconet::start(NO_BROADCAST);
    for number in 1..=7 {
        publish(&after, "a", number.to_string());
    }
    let mut events = Events::connect(after.address(), "/topics/a", &lines);
    assert_eq!(events.read().kind, "lagged");
    for number in 1..=7 {
        assert_eq!(events.read().data, number.to_string());
    }
}

#[test]
fn a_subscriber_that_resumes_a_deleted_and_recreated_topic_is_notified_of_the_loss() {
    let falconet = Falconet::start(NO_BROADCAST);
    publish(&falconet, "a", "one");
    publish(&falconet, "a", "two");
    fetch(falconet.address(), request("DELETE", "/topics/a", "", ""));
    publish(&falconet, "a", "three");
    let lines = format!("Last-Event-ID: {}\r\n", id_of(falconet.address(), 1));
    let mut events = Events::connect(falconet.address(), "/topics/a", &lines);
    assert_eq!(events.read().kind, "lagged");
    assert_eq!(events.read().data, "three");
}

#[test]
fn a_subscriber_that_resumes_receives_every_message_once() {
    let flags = ["--retain", "1", "--log-messages", "1000"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let address = falconet.address();
    let canaries = Canaries::start(address);
    let count = 300;
    let publisher = std::thread::spawn(move || {
        let mut http = Http::connect(address);
        for number in 1..=count {
            assert_eq!(http.fetch(post("/topics/a", number.to_string())).status(), 202);
            // A steady stream rather than a burst.
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let mut random = fastrand::Rng::with_seed(7);
    let epoch = id_of(address, 0).trim_end_matches(":0").to_owned();
    let (mut received, mut connections) = (Vec::new(), 0);
    while received.last() != Some(&count) {
        let lines = format!("Last-Event-ID: {epoch}:{}\r\n", received.last().unwrap_or(&0));
        let mut events = Events::connect(address, "/topics/a", &lines);
        connections += 1;
        for _ in 0..random.u64(0..20) {
            if received.last() == Some(&count) {
                break;
            }
            let event = events.read();
            assert_eq!((&*event.kind, &*event.data), ("message", &*event.id.unwrap().to_string()));
            received.push(event.id.unwrap());
        }
        if random.bool() {
            sockopt::set_socket_linger(events.stream(), Some(Duration::ZERO)).unwrap();
        }
    }
    publisher.join().unwrap();
    assert_eq!(received, (1..=count).collect::<Vec<_>>());
    assert!(connections > 20, "{connections}");
    canaries.finish();
}

#[test]
fn a_subscriber_that_is_always_behind_is_not_idle() {
    let flags = ["--ping-every", "1s", "--idle-timeout", "2s"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let events = Events::connect(falconet.address(), "/topics/a", "");
    let mut stream = events.into_stream();
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 32 * 1024).unwrap();
    let mut publisher = Http::connect(falconet.address());
    let request = post("/topics/a", "x".repeat(20_000));
    let begun = Instant::now();
    let mut buffer = [0; 20_000];
    while begun.elapsed() < Duration::from_secs(4) {
        // Ten times as much as the subscriber reads.
        for _ in 0..10 {
            if publisher.fetch(&request).closes() {
                publisher = Http::connect(falconet.address());
            }
        }
        std::io::Read::read(&mut stream, &mut buffer).unwrap();
        let is_subscribed = topics(&falconet).iter().any(|topic| topic.starts_with("a 1 "));
        assert!(is_subscribed, "dropped after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn subscribers_that_do_not_read_share_the_kept_messages() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--write-timeout", "0"]].concat());
    let subscribers: Vec<Events> =
        (0..50).map(|_| Events::connect(falconet.address(), "/topics/a", "")).collect();
    let before = falconet.private_kib();
    // Each line end takes seven bytes in an event.
    for _ in 0..12 {
        publish(&falconet, "a", "\n".repeat(65_536));
    }
    let grown = falconet.private_kib() - before;
    // The log, and a few events of 448 KiB that are partly sent.
    assert!(grown < 256 + 8 * 448, "{grown} KiB for {} subscribers", subscribers.len());
}

#[test]
fn the_head_of_a_stream_has_the_id_of_the_message_before_the_first_event() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--retain", "5"]].concat());
    let begin = |query: &str, lines: &str| {
        let events = Events::connect(falconet.address(), &format!("/topics/a{query}"), lines);
        number_of(header_of(&events.head, "Last-Event-ID").unwrap())
    };
    assert_eq!(begin("", ""), 0);
    for _ in 0..3 {
        publish(&falconet, "a", "x");
    }
    assert_eq!(begin("", ""), 2);
    assert_eq!(begin("?last=0", ""), 3);
    assert_eq!(begin("?last=2", ""), 1);
    let resume = format!("Last-Event-ID: {}\r\n", id_of(falconet.address(), 2));
    assert_eq!(begin("", &resume), 2);
}

// Reading what is retained.

#[test]
fn the_newest_message_can_be_read_with_its_type_and_id() {
    let falconet = Falconet::start(NO_BROADCAST);
    let path = "/topics/a";
    for method in ["GET", "HEAD"] {
        assert_eq!(fetch(falconet.address(), request(method, path, "", "")).status(), 404);
    }
    let (text, binary) = ("text/plain; charset=utf-8", "application/octet-stream");
    let rows: [(&str, &[u8], &str); 12] = [
        ("", b"21.5", text),
        ("", b"\xff", binary),
        ("Content-Type: text/plain\r\n", b"words", text),
        ("Content-Type: text/plain\r\n", b"\xff", binary),
        ("Content-Type: application/json; charset=utf-8\r\n", b"{}", "application/json"),
        ("Content-Type: application/x-www-form-urlencoded\r\n", b"a=b", text),
        ("Content-Type: Text/CSV\r\n", b"a,b", "text/csv"),
        ("Content-Type: image/png\r\n", b"\x89PNG", "image/png"),
        ("Content-Type: application/octet-stream\r\n", b"words", binary),
        // Types that a browser would run are not returned.
        ("Content-Type: text/html\r\n", b"<script>", text),
        ("Content-Type: image/svg+xml\r\n", b"<svg/>", binary),
        ("Content-Type:\r\n", b"words", binary),
    ];
    for (index, (lines, payload, content_type)) in rows.into_iter().enumerate() {
        let before = http_date_now();
        let answer = fetch(falconet.address(), request("POST", path, lines, payload));
        assert_eq!(with_numbers(answer.text()), accepted("a", index as u64 + 1, 0));
        let after = http_date_now();
        let kept = fetch(falconet.address(), get(path));
        assert_eq!((kept.status(), &*kept.body), (200, payload), "{lines}");
        assert_eq!(kept.header("Content-Type"), Some(content_type), "{lines}");
        assert_eq!(kept.header("X-Message-Id").map(number_of), Some(index as u64 + 1));
        let modified = kept.header("Last-Modified").unwrap();
        assert!(modified == before || modified == after, "{before} {modified} {after}");
        assert_eq!(kept.header("X-Content-Type-Options"), Some("nosniff"));
    }
}

#[test]
fn a_known_message_is_304() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    let known = |method, lines: &str| request(method, "/topics/a", lines, "");
    assert_eq!(http.fetch(known("GET", "If-None-Match: *\r\n")).status(), 404);
    http.fetch(post("/topics/a", "the same"));
    let first = http.fetch(get("/topics/a"));
    let tag = first.header("ETag").unwrap();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
    for (lines, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {tag} ,\"y\"\r\n"), 304),
        (format!("If-None-Match: \"x\",W/{tag}\r\n"), 304),
        (format!("If-None-Match: \"x\"\r\nif-none-match: {tag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        (format!("If-None-Match: {}\r\n", tag.trim_matches('"')), 200),
        (format!("If-None-Match: w/{tag}\r\n"), 200),
        ("If-None-Match:\r\n".to_owned(), 200),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = http.fetch(known(method, &lines));
            assert_eq!(answer.status(), status, "{lines}");
            assert_eq!(answer.header("ETag"), Some(tag));
            assert_eq!(answer.header("X-Message-Id").map(number_of), Some(1));
        }
    }
    // Another message has another tag, even with the same payload.
    http.fetch(post("/topics/a", "the same"));
    let lines = format!("If-None-Match: {tag}\r\n");
    assert_eq!(http.fetch(known("GET", &lines)).status(), 200);
    http.fetch(request("DELETE", "/topics/a", "", ""));
    http.fetch(post("/topics/a", "the same"));
    let again = http.fetch(known("GET", &lines));
    assert_eq!((again.status(), again.header("X-Message-Id").map(number_of)), (200, Some(4)));
}

// Publishing.

#[test]
fn a_body_is_a_text_message_if_its_type_and_its_bytes_are_text() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut client = Client::connect_to(falconet.address(), "/topics/a");
    let mut number = 0;
    for method in ["POST", "PUT"] {
        for (content_type, is_text) in [
            ("", true),
            ("Content-Type: text/plain\r\n", true),
            ("Content-Type: TEXT/Anything; charset=utf-8\r\n", true),
            ("Content-Type: application/json\r\n", true),
            ("Content-Type: application/ld+json\r\n", true),
            ("Content-Type: application/x-www-form-urlencoded\r\n", true),
            ("Content-Type: application/octet-stream\r\n", false),
            ("Content-Type: image/png\r\n", false),
            ("Content-Type: application/jsonp\r\n", false),
            ("Content-Type: multipart/form-data\r\n", false),
        ] {
            for (payload, is_utf8) in [(&b"\xc3\xa9"[..], true), (b"\xc3", false), (b"", true)] {
                let request = request(method, "/topics/a", content_type, payload);
                let answer = fetch(falconet.address(), request);
                number += 1;
                let text = with_numbers(answer.text());
                assert_eq!((answer.status(), text), (202, accepted("a", number, 1)));
                assert_eq!(answer.header("Content-Type"), Some("application/json"));
                let received = client.read();
                let opcode = if is_text && is_utf8 { TEXT } else { BINARY };
                assert_eq!(
                    (received.opcode, &*received.payload),
                    (opcode, payload),
                    "{content_type}"
                );
            }
        }
    }
}

// Deleting.

#[test]
fn delete_withdraws_all_messages_and_tells_event_streams() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--retain", "5"]].concat());
    let delete = || fetch(falconet.address(), request("DELETE", "/topics/a", "", ""));
    let cleared = delete();
    assert_eq!(
        (cleared.status(), cleared.body.len(), cleared.header("Content-Length")),
        (204, 0, None)
    );
    let mut client = Client::connect_to(falconet.address(), "/topics/a");
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    for number in ["1", "2", "3"] {
        publish(&falconet, "a", number);
        assert_eq!([client.read().text(), &events.read().data], [number; 2]);
    }
    assert_eq!(delete().status(), 204);
    let (kind, data) = ("cleared".to_owned(), "a".to_owned());
    assert_eq!(events.read(), Event { id: Some(4), kind, data });
    assert_eq!(fetch(falconet.address(), get("/topics/a")).status(), 404);
    let mut late = Client::connect_to(falconet.address(), "/topics/a?last=5");
    let lines = format!("Last-Event-ID: {}\r\n", id_of(falconet.address(), 1));
    let mut resumed = Events::connect(falconet.address(), "/topics/a", &lines);
    // A subscriber that resumes from before the deletion is notified of the loss.
    assert_eq!(with_numbers(publish(&falconet, "a", "5").text()), accepted("a", 5, 4));
    assert_eq!(resumed.read().kind, "lagged");
    assert_eq!([client.read().text(), late.read().text()], ["5"; 2]);
    assert_eq!([resumed.read().data, events.read().data], ["5"; 2]);
    let mut later = Client::connect_to(falconet.address(), "/topics/a?last=5");
    assert_eq!(later.read().text(), "5");
}

#[test]
fn topics_without_subscribers_and_retained_messages_are_removed() {
    let falconet = Falconet::start(NO_BROADCAST);
    let listed = || topics(&falconet).iter().any(|topic| topic.starts_with("a "));
    // Removed by a deletion.
    publish(&falconet, "a", "x");
    assert!(listed());
    fetch(falconet.address(), request("DELETE", "/topics/a", "", ""));
    assert!(!listed());
    // Removed when the last subscriber disconnects.
    let client = Client::connect_to(falconet.address(), "/topics/a");
    assert!(listed());
    drop(client);
    wait_until("the topic is removed after its client has disconnected", || !listed());
    let events = Events::connect(falconet.address(), "/topics/a", "");
    assert!(listed());
    drop(events);
    wait_until("the topic is removed after its event stream has ended", || !listed());
    // First the messages are deleted, then the last subscriber disconnects.
    let client = Client::connect_to(falconet.address(), "/topics/a");
    publish(&falconet, "a", "x");
    fetch(falconet.address(), request("DELETE", "/topics/a", "", ""));
    assert!(listed());
    drop(client);
    wait_until("the topic is removed after its last client has disconnected", || !listed());
    // The numbers continue. The topic `broadcast` stays.
    assert_eq!(with_numbers(publish(&falconet, "a", "x").text()), accepted("a", 5, 0));
    fetch(falconet.address(), request("DELETE", "/topics/broadcast", "", ""));
}

#[test]
fn a_topic_above_the_limit_is_refused_and_logged_while_existing_topics_still_work() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-topics", "3"]].concat());
    let canaries = Canaries::start(falconet.address());
    let full = |path: &str| {
        let upgrade = exchange(falconet.address(), handshake(path));
        let others = [request("GET", path, SSE, ""), post(path, "x")];
        let [events, publish] = others.map(|request| fetch(falconet.address(), request).status());
        [status_of(&upgrade), events, publish]
    };
    // The third topic is `broadcast`, which always exists.
    publish(&falconet, "a", "x");
    let mut client = Client::connect_to(falconet.address(), "/topics/b");
    // An EventSource reconnects only after status 200.
    assert_eq!(full("/topics/c"), [503, 200, 503]);
    for _ in 0..3 {
        falconet.wait_for_line("topic refused: too many topics: the limit is 3");
    }
    assert_eq!(topics(&falconet), ["a 0 1", "b 1 -"]);
    // Existing topics, and requests that need no new topic, are not affected.
    assert_eq!(publish(&falconet, "a", "y").status(), 202);
    client.echo("still here");
    assert_eq!(fetch(falconet.address(), get("/topics/c")).status(), 404);
    let mut publisher = Client::connect_to(falconet.address(), "/topics/c?mode=in");
    publisher.send(true, TEXT, "x");
    assert_closed(publisher, 1013, "too many topics");
    // A removed topic makes room.
    fetch(falconet.address(), request("DELETE", "/topics/a", "", ""));
    assert_eq!(publish(&falconet, "c", "x").status(), 202);
    canaries.finish();
}

// Limits of what is kept.

#[test]
fn the_number_of_retained_messages_is_limited() {
    for (flags, retained) in [
        (&[][..], &["9"][..]),
        (&["--retain", "0"], &[]),
        (&["--retain", "3"], &["7", "8", "9"]),
        // Retained messages do not count against the log for slow subscribers.
        (&["--retain", "3", "--log-messages", "1"], &["7", "8", "9"]),
        (&["--retain", "3", "--log-bytes", "1"], &["7", "8", "9"]),
    ] {
        let falconet = Falconet::start(&[NO_BROADCAST, flags].concat());
        for number in 1..=9 {
            publish(&falconet, "a", number.to_string());
        }
        assert_eq!(replayed(&falconet, "a"), retained, "{flags:?}");
        let last = fetch(falconet.address(), get("/topics/a"));
        match retained {
            [] => {
                assert_eq!(last.status(), 404);
                let mut client = Client::connect_to(falconet.address(), "/topics/a?last=5");
                let live = publish(&falconet, "a", "live");
                assert_eq!(with_numbers(live.text()), accepted("a", 10, 1));
                assert_eq!(client.read().text(), "live");
                assert_eq!(fetch(falconet.address(), get("/topics/a")).status(), 404);
            }
            retained => assert_eq!(last.text(), retained[retained.len() - 1]),
        }
    }
}

#[test]
fn the_retained_bytes_are_limited_except_for_the_newest_message() {
    let falconet =
        Falconet::start(&[NO_BROADCAST, &["--retain", "100", "--retain-bytes", "10k"]].concat());
    for number in 0..9 {
        publish(&falconet, "a", sized(number, 3_000));
    }
    assert_eq!(numbers(&replayed(&falconet, "a")), [6, 7, 8]);
    publish(&falconet, "a", sized(9, 20_000));
    assert_eq!(numbers(&replayed(&falconet, "a")), [9]);
    assert_eq!(fetch(falconet.address(), get("/topics/a")).body.len(), 20_000);
    for number in 10..12 {
        publish(&falconet, "a", sized(number, 3_000));
    }
    assert_eq!(numbers(&replayed(&falconet, "a")), [10, 11]);
}

#[test]
fn the_log_for_resuming_subscribers_is_limited() {
    for (flags, first) in [(["--log-messages", "4"], 7), (["--log-bytes", "10k"], 8)] {
        let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
        for number in 1..=10 {
            publish(&falconet, "a", sized(number, 3_000));
        }
        let lines = format!("Last-Event-ID: {}\r\n", id_of(falconet.address(), 1));
        let mut events = Events::connect(falconet.address(), "/topics/a", &lines);
        assert_eq!(events.read().kind, "lagged", "{flags:?}");
        assert_eq!(events.read().id, Some(first), "{flags:?}");
    }
}

#[test]
fn the_bytes_of_all_topics_together_are_limited() {
    let flags = ["--retain", "100", "--retain-bytes", "1m", "--log-total", "100k"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let kept = |name| numbers(&replayed(&falconet, name));
    for number in 0..20 {
        publish(&falconet, "a", sized(number, 9_900));
    }
    // The largest topic loses its oldest messages.
    for number in 0..8 {
        publish(&falconet, "b", sized(number, 9_900));
    }
    assert_eq!((kept("a").len(), kept("b").len()), (5, 5));
    assert_eq!((kept("a").last(), kept("b").last()), (Some(&19), Some(&7)));
    // By now all of them are encoded as events too, and these encodings count against the limit.
    publish(&falconet, "c", "small");
    assert_eq!(kept("a").len() + kept("b").len(), 5);
}

#[test]
fn the_memory_of_many_topics_is_bounded() {
    let flags = ["--max-topics", "200", "--log-total", "2m", "--max-message", "64k"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let canaries = Canaries::start(falconet.address());
    let before = falconet.private_kib();
    let mut http = Http::connect(falconet.address());
    let body = "x".repeat(64 * 1024);
    for number in 0..300 {
        let answer = http.fetch(post(&format!("/topics/{number}"), &body));
        assert_eq!(answer.status(), 202, "topics that have lost all their messages are removed");
    }
    let grown = falconet.private_kib().saturating_sub(before);
    assert!(grown < 3 * 1024, "{grown} KiB for 2 MiB");
    canaries.finish();
}

// Slow consumers.

/// Publishes more than can be sent to a subscriber that does not read, numbered from 1.
fn overwhelm(address: SocketAddr) {
    let mut http = Http::connect(address);
    for number in 1..=OVERWHELMING {
        assert_eq!(http.fetch(post("/topics/a", sized(number, 60_000))).status(), 202);
    }
}

#[test]
fn a_slow_client_skips_lost_messages_and_goes_on() {
    let falconet = Falconet::start(
        &[NO_BROADCAST, &["--log-messages", "8", "--log-bytes", "1m", "--log-level", "debug"]]
            .concat(),
    );
    let canaries = Canaries::start(falconet.address());
    let mut client = Client::connect_to(falconet.address(), "/topics/a?client=slow-one");
    overwhelm(falconet.address());
    let mut received = Vec::new();
    while received.last() != Some(&OVERWHELMING) {
        received.extend(numbers(&[client.read().text().to_owned()]));
    }
    assert!(received.is_sorted_by(|one, next| one < next), "{received:?}");
    let gaps: Vec<_> =
        received.windows(2).map(|pair| pair[1] - pair[0] - 1).filter(|gap| *gap > 0).collect();
    assert_eq!(received[0], 1);
    assert!(!gaps.is_empty(), "no message was lost: {received:?}");
    // The losses are logged.
    let line = falconet.wait_for_line("reads too slowly: messages lost");
    assert!(
        line.contains(" correlation=slow-one ")
            && line.ends_with(&format!(" messages={}", gaps[0])),
        "{line}"
    );
    client.send(true, TEXT, "and on");
    assert_eq!(client.read().text(), "and on");
    canaries.finish();
}

#[test]
fn a_slow_sse_subscriber_gets_the_number_of_lost_messages() {
    let falconet =
        Falconet::start(&[NO_BROADCAST, &["--log-messages", "8", "--log-bytes", "1m"]].concat());
    let canaries = Canaries::start(falconet.address());
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    overwhelm(falconet.address());
    let (mut next, mut lags) = (1, 0);
    while next <= OVERWHELMING {
        let event = events.read();
        match event.id {
            Some(id) => {
                assert_eq!(
                    id, next,
                    "every loss is reported, and nothing else is reported as lost"
                );
                assert_eq!(numbers(&[event.data]), [id]);
                next = id + 1;
            }
            None => {
                assert_eq!(event.kind, "lagged");
                next += event.data.parse::<u64>().unwrap();
                lags += 1;
            }
        }
    }
    assert!(lags > 0, "no message was lost");
    publish(&falconet, "a", "and on");
    assert_eq!(events.read().data, "and on");
    canaries.finish();
}

#[test]
fn a_slow_client_is_closed_with_1008_if_so_configured() {
    let flags = ["--log-messages", "8", "--log-bytes", "1m", "--slow-consumer", "close"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let canaries = Canaries::start(falconet.address());
    let mut client = Client::connect_to(falconet.address(), "/topics/a");
    let mut quick = Client::connect_to(falconet.address(), "/topics/b");
    overwhelm(falconet.address());
    let mut next = 1;
    loop {
        let frame = client.read();
        if frame.opcode == CLOSE {
            assert_eq!((frame.close_code(), &frame.payload[2..]), (1008, &b"slow consumer"[..]));
            break;
        }
        assert_eq!(numbers(&[frame.text().to_owned()]), [next], "nothing is skipped");
        next += 1;
    }
    assert!(next < OVERWHELMING, "{next}");
    quick.echo("not affected");
    canaries.finish();
}

#[test]
fn a_slow_sse_subscriber_gets_the_number_of_lost_messages_and_is_closed_if_so_configured() {
    let flags = ["--log-messages", "8", "--log-bytes", "1m", "--slow-consumer", "close"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let canaries = Canaries::start(falconet.address());
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    overwhelm(falconet.address());
    let mut next = 1;
    let lost: u64 = loop {
        let event = events.read();
        match event.id {
            Some(id) => assert_eq!(id, next, "nothing is skipped"),
            None => {
                assert_eq!(event.kind, "lagged");
                break event.data.parse().unwrap();
            }
        }
        next += 1;
    };
    assert!(lost > 0 && next + lost <= OVERWHELMING, "{next} {lost}");
    assert!(events.try_read().is_none() && events.has_ended, "the end is regular");
    // A subscriber that resumes too late is notified and stays connected, because it did not read slowly.
    let lines = format!("Last-Event-ID: {}\r\n", id_of(falconet.address(), 1));
    let mut late = Events::connect(falconet.address(), "/topics/a", &lines);
    assert_eq!((&*late.read().kind, late.read().id), ("lagged", Some(OVERWHELMING - 7)));
    canaries.finish();
}

#[test]
fn a_subscriber_that_reads_loses_no_message_of_a_burst() {
    for log_messages in ["64", "2", "1"] {
        let falconet = Falconet::start(&[NO_BROADCAST, &["--log-messages", log_messages]].concat());
        let address = falconet.address();
        let mut clients = [(); 5].map(|()| Client::connect_to(address, "/topics/a?mode=out"));
        let mut subscribers = [(); 5].map(|()| Events::connect(address, "/topics/a", ""));
        // Few enough bytes for the kernel to buffer, and many more messages at once than the log holds.
        let mut sessions = [(); 50].map(|()| Client::connect_to(address, "/topics/a?mode=in"));
        let mut publishers = [(); 50].map(|()| Http::connect(address));
        for (session, publisher) in sessions.iter_mut().zip(&mut publishers) {
            assert!(session.send_raw(&masked(true, TEXT, b"x").repeat(10)));
            publisher.send(post("/topics/a", "x").repeat(10));
        }
        for number in 1..=1000 {
            for client in &mut clients {
                assert_eq!(client.read().text(), "x", "{log_messages}, {number}");
            }
            for events in &mut subscribers {
                assert_eq!(events.read().id, Some(number), "{log_messages}");
            }
        }
    }
}

// Correlation ids.

#[test]
fn the_correlation_id_is_in_every_log_line() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--log-level", "debug"]].concat());
    let address = falconet.address();
    for (query, lines) in [("?client=anna-1", ""), ("", "X-Client-Id: anna-1\r\n")] {
        let path = format!("/topics/a{query}");
        let (session, head) = Client::connect_with_headers(address, &path, lines);
        assert_eq!(header_of(&head, "X-Client-Id"), Some("anna-1"));
        let line = falconet.wait_for_line("new connection");
        assert!(line.contains(" path=/topics/a correlation=anna-1 "), "{line}");
        drop(session);
        assert_correlated(&falconet.wait_for_line("connection ended"));
        let events = Events::connect(address, &path, lines);
        assert_eq!(header_of(&events.head, "X-Client-Id"), Some("anna-1"));
        assert_correlated(&falconet.wait_for_line("new connection"));
        drop(events);
        assert_correlated(&falconet.wait_for_line("connection ended"));
        fetch(address, request("POST", &path, lines, "x"));
        assert_correlated(&falconet.wait_for_line("answered"));
        fetch(address, request("GET", &path, lines, ""));
        assert_correlated(&falconet.wait_for_line("answered"));
    }
}

#[test]
fn a_missing_or_invalid_client_id_is_replaced() {
    let falconet = Falconet::start(NO_BROADCAST);
    let address = falconet.address();
    let (longest, too_long) = ("x".repeat(64), "x".repeat(65));
    let mut made = Vec::new();
    for (query, header, taken) in [
        ("?client=A-z_0.9", "", Some("A-z_0.9")),
        ("?x=y&client=me&last=1", "", Some("me")),
        (&format!("?client={longest}"), "", Some(&*longest)),
        ("", "A-z_0.9", Some("A-z_0.9")),
        ("?client=first", "second", Some("first")),
        ("", "", None),
        ("?client=", "", None),
        (&format!("?client={too_long}"), "", None),
        ("?client=a%20b", "", None),
        ("?client=a/b", "", None),
        ("", "two words", None),
        ("", "a=b", None),
        ("", "a,b", None),
        ("", &too_long, None),
    ] {
        let lines = format!("X-Client-Id: {header}\r\n");
        let path = format!("/topics/a{query}");
        for path in [&path, &format!("/{query}")] {
            let (_, head) = Client::connect_with_headers(address, path, &lines);
            let id = header_of(&head, "X-Client-Id").unwrap().to_owned();
            match taken {
                Some(taken) => assert_eq!(id, taken),
                None => made.push(id),
            }
        }
    }
    let count = made.len();
    assert!(made.iter().all(|id| !id.is_empty() && id.len() <= 64), "{made:?}");
    made.sort_unstable();
    made.dedup();
    assert_eq!(made.len(), count, "the ids are unique");
}

#[test]
fn the_server_time_is_published_to_the_topic_broadcast() {
    let falconet = Falconet::start(&["--broadcast-every", "1s"]);
    let mut page = Client::connect(falconet.address());
    let mut elsewhere = Client::connect_to(falconet.address(), "/topics/a");
    let mut events = Events::connect(falconet.address(), "/topics/broadcast", "");
    let time = events.read();
    assert!(time.data.starts_with("Server time: "), "{time:?}");
    assert_eq!(page.read().text(), time.data);
    let answer = publish(&falconet, "broadcast", "to everybody");
    assert!(answer.text().contains("\"subscribers\":2"), "{}", answer.text());
    wait_until("the message arrives", || {
        let next = page.read();
        assert!(next.text().starts_with("Server time: ") || next.text() == "to everybody");
        next.text() == "to everybody"
    });
    // A message to `/` is echoed only to its sender.
    page.echo("an echo");
    let mut client = Client::connect_to(falconet.address(), "/topics/broadcast?last=0");
    client.echo("from a client");
    wait_until("the client's message arrives", || {
        let event = events.read();
        assert_ne!(event.data, "an echo");
        event.data == "from a client"
    });
    // Subscribers of other topics have received none of it.
    elsewhere.send(true, TEXT, "nothing before this");
    assert_eq!(elsewhere.read().text(), "nothing before this");
}

#[test]
fn the_list_of_topics_has_subscriber_counts_that_go_down_after_a_disconnect() {
    let falconet = Falconet::start(NO_BROADCAST);
    assert_eq!(topics(&falconet), [""; 0]);
    let page = Client::connect(falconet.address());
    let mut sessions: Vec<_> =
        (0..3).map(|_| Client::connect_to(falconet.address(), "/topics/b/c")).collect();
    let events = Events::connect(falconet.address(), "/topics/b/c", "");
    sessions.push(Client::connect_to(falconet.address(), "/topics/b/c?mode=in"));
    publish(&falconet, "a", "x");
    publish(&falconet, "a", "x");
    let listed = || topics(&falconet).join(", ");
    assert_eq!(listed(), "a 0 2, b/c 4 -");
    // Every kind of disconnect.
    sessions[0].send(true, CLOSE, 1000_u16.to_be_bytes());
    wait_until("one session is closed", || listed() == "a 0 2, b/c 3 -");
    sockopt::set_socket_linger(&sessions[1].stream, Some(Duration::ZERO)).unwrap();
    drop(sessions.remove(1));
    wait_until("one connection is reset", || listed() == "a 0 2, b/c 2 -");
    drop(events);
    wait_until("the event stream has ended", || listed() == "a 0 2, b/c 1 -");
    drop((sessions, page));
    wait_until("all are disconnected", || listed() == "a 0 2");
    for method in ["POST", "DELETE", "PUT"] {
        assert_eq!(fetch(falconet.address(), request(method, "/topics/", "", "")).status(), 405);
    }
}

// Stopping and refusing.

#[test]
fn streams_end_after_the_last_message_when_the_server_stops() {
    let flags = ["--log-bytes", "10m", "--log-total", "10m", "--close-timeout", "9s"];
    let mut falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let address = falconet.address();
    let subscribers = [(); 5].map(|()| Events::connect(address, "/topics/a", ""));
    let clients = [(); 5].map(|()| Client::connect_to(address, "/topics/a"));
    let mut http = Http::connect(address);
    // Far more than the kernel buffers for a client that does not read yet.
    let count: u64 = 30;
    for number in 1..=count {
        assert_eq!(http.fetch(post("/topics/a", sized(number, 60_000))).status(), 202);
    }
    falconet.signal(Signal::TERM);
    // Idle connections are closed first.
    http.assert_ended();
    // Read on several threads: every client has 2 s from now to read the rest.
    let clients = clients.map(|mut client| {
        std::thread::spawn(move || {
            for number in 1..=count {
                assert_eq!(numbers(&[client.read().text().to_owned()]), [number]);
            }
            assert_eq!(client.read().close_code(), 1001);
        })
    });
    let subscribers = subscribers.map(|mut events| {
        std::thread::spawn(move || {
            for number in 1..=count {
                assert_eq!(events.read().id, Some(number));
            }
            assert!(events.try_read().is_none() && events.has_ended, "the end is regular");
        })
    });
    clients.into_iter().chain(subscribers).for_each(|thread| thread.join().unwrap());
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

#[test]
fn with_reject_drop_refused_requests_for_topics_get_no_response() {
    let flags = ["--reject", "drop", "--max-topics", "2", "--max-message", "1k"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let address = falconet.address();
    assert_eq!(publish(&falconet, "a", "x").status(), 202, "an accepted request is answered");
    let upgrade = |path| handshake(path).into_bytes();
    for refused in [
        post("/topics/a//b", "x"),
        get("/topics/.."),
        upgrade("/topics/a//"),
        upgrade("/topics/a?mode=no"),
        upgrade("/topics/a?last=no"),
        handshake("/topics/a").replace("Version: 13", "Version: 8").into_bytes(),
        request("GET", "/topics/a?last=x", SSE, ""),
        request("PATCH", "/topics/a", "", ""),
        post("/topics/", "x"),
        b"POST /topics/a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        post("/topics/a", "x".repeat(1025)),
        request("POST", "/topics/a", "Expect: x\r\n", "x"),
        request("POST", "/topics/a", "Transfer-Encoding: chunked\r\n", "x"),
        // The topic does not exist, and the limit is reached.
        get("/topics/b"),
        post("/topics/b", "x"),
        upgrade("/topics/b"),
        request("GET", "/topics/b", SSE, ""),
    ] {
        // The request after the refused one must not be read.
        let bytes = [&refused[..], &post("/topics/a", "beyond")].concat();
        assert_eq!(exchange(address, bytes), "", "{}", String::from_utf8_lossy(&refused));
    }
    let kept = fetch(address, get("/topics/a"));
    assert_eq!((kept.text(), newest_number(&falconet, "a")), ("x", Some(1)));
    let dropped = falconet.log_so_far().iter().filter(|line| line.contains(" dropped ")).count();
    assert!(dropped >= 5, "the dropped requests are logged: {:#?}", falconet.log_so_far());
}

/// Publishes to a topic on a new connection.
fn publish(falconet: &Falconet, topic: &str, body: impl AsRef<[u8]>) -> Answer {
    fetch(falconet.address(), post(&format!("/topics/{topic}"), body))
}

/// Returns the body of the response to a published message, [with the number](with_numbers) of its id.
fn accepted(topic: &str, number: u64, subscribers: usize) -> String {
    format!("{{\"topic\":\"{topic}\",\"id\":{number},\"subscribers\":{subscribers}}}\n")
}

/// Returns the number of the newest message of a topic, if it is retained.
fn newest_number(falconet: &Falconet, topic: &str) -> Option<u64> {
    let newest = fetch(falconet.address(), get(&format!("/topics/{topic}")));
    newest.header("X-Message-Id").map(number_of)
}

/// Returns the topics, each with its number of subscribers and the number of its newest message.
fn topics(falconet: &Falconet) -> Vec<String> {
    let list = fetch(falconet.address(), request("GET", "/topics/", "Accept: text/plain\r\n", ""));
    assert_eq!(list.header("Content-Type"), Some("text/plain; charset=utf-8"));
    let line = |line: &str| {
        let (topic, id) = line.rsplit_once(' ').unwrap();
        let number = if id == "-" { id.to_owned() } else { number_of(id).to_string() };
        format!("{topic} {number}")
    };
    list.text().lines().map(line).collect()
}

/// Returns all retained messages of a topic.
fn replayed(falconet: &Falconet, topic: &str) -> Vec<String> {
    let path = format!("/topics/{topic}");
    let Some(newest) = newest_number(falconet, topic) else { return Vec::new() };
    let mut events = Events::connect(falconet.address(), &format!("{path}?last=1000000"), "");
    let mut messages = Vec::new();
    loop {
        let Event { id, data, .. } = events.read();
        messages.push(data);
        if id == Some(newest) {
            return messages;
        }
    }
}

/// Returns a text of `bytes` bytes that begins with its number.
fn sized(number: u64, bytes: usize) -> String {
    format!("{:x<bytes$}", format!("{number} "))
}

/// Returns the numbers at the beginning of [`sized`] texts.
fn numbers(texts: &[String]) -> Vec<u64> {
    texts.iter().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn assert_closed(mut client: Client, code: u16, reason: &str) {
    let close = client.read();
    assert_eq!(close.close_code(), code);
    assert_eq!(&close.payload[2..], reason.as_bytes());
}

fn assert_correlated(line: &str) {
    let mut words = line.split(' ');
    assert!(words.any(|word| word.trim_end_matches(';') == "correlation=anna-1"), "{line}");
}

/// Returns the current time as an HTTP date, from date(1).
fn http_date_now() -> String {
    let format = "+%a, %d %b %Y %H:%M:%S GMT";
    let output = Command::new("date").env("LC_ALL", "C").args(["-u", format]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A number of messages of 60 KB that exceeds what the kernel buffers for a subscriber.
const OVERWHELMING: u64 = 100;
