//! Several requests on one connection: answered in order, within limits, and safe against request smuggling.

use std::io::Write;
use std::net::Shutdown;

use crate::support::*;

#[cfg(feature = "full")]
#[test]
fn a_publisher_can_keep_its_connection() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut publisher = Http::connect(falconet.address());
    for number in 1..=100 {
        let answer = publisher.fetch(post("/topics/a", format!("message {number}")));
        assert_eq!(answer.status(), 202);
        assert!(!answer.closes(), "{}", answer.head);
        assert!(answer.text().contains(&format!(":{number}\",")), "{}", answer.text());
    }
    assert_eq!(publisher.fetch(get("/topics/a")).text(), "message 100");
}

/// Returns requests of every kind, each with its method, the id of its response, and the status.
fn mixed_requests(count: usize) -> Vec<(Vec<u8>, &'static str, String, u16)> {
    let kinds: [(&str, &str, &str, u16); 11] = [
        ("GET", "/topics/mixed", "", 404),
        ("POST", "/topics/mixed", "a payload", 202),
        ("GET", "/topics/mixed", "", 200),
        ("HEAD", "/topics/mixed", "", 200),
        ("GET", "/", "", 200),
        ("HEAD", "/", "", 200),
        ("PUT", "/topics/mixed", "", 202),
        ("GET", "/nothing", "", 404),
        ("DELETE", "/topics/mixed", "", 204),
        ("BREW", "/topics/mixed", "", 405),
        ("HEAD", "/topics/mixed", "", 404),
    ];
    let of_number = |number: usize| {
        let (method, path, body, status) = kinds[number % kinds.len()];
        let id = format!("number-{number}");
        let request = request(method, path, &format!("X-Request-Id: {id}\r\n"), body);
        // One empty line before a request is ignored (RFC 9112 §2.2).
        let before: &[u8] = if number % 3 == 1 { b"\r\n" } else { b"" };
        ([before, &request].concat(), method, id, status)
    };
    (0..count).map(of_number).collect()
}

fn assert_answers(http: &mut Http, requests: &[(Vec<u8>, &str, String, u16)], context: &str) {
    for (_, method, id, status) in requests {
        let answer = http.read(*method != "HEAD");
        assert_eq!(answer.header("X-Request-Id"), Some(&**id), "{context}");
        assert_eq!(answer.status(), *status, "{context}, {id}");
    }
}

#[cfg(feature = "full")]
#[test]
fn pipelined_requests_are_answered_in_order() {
    let falconet = Falconet::start(NO_BROADCAST);
    let requests = mixed_requests(550);
    let mut http = Http::connect(falconet.address());
    let all: Vec<u8> = requests.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
    let mut writer = http.stream().try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&all).unwrap());
    assert_answers(&mut http, &requests, "in one write");
    writing.join().unwrap();
    // The next response is to the next request.
    assert_eq!(http.fetch(get("/topics/")).text(), "[]\n");
}

#[cfg(feature = "full")]
#[test]
fn pipelined_requests_may_be_split_anywhere() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut barrier = Client::connect(falconet.address());
    let requests = mixed_requests(11);
    let all: Vec<u8> = requests.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
    for cut in 1..all.len() {
        let mut http = Http::connect(falconet.address());
        http.send(&all[..cut]);
        wait_until_read(&mut barrier);
        http.send(&all[cut..]);
        assert_answers(&mut http, &requests, &format!("split at {cut}"));
    }
    let mut http = Http::connect(falconet.address());
    for byte in all.chunks(1) {
        http.send(byte);
        barrier.echo("read");
    }
    assert_answers(&mut http, &requests, "byte by byte");
}

#[test]
fn a_connection_closes_after_a_thousand_responses() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    let mut all = get("/topics/a").repeat(1000);
    all.extend(post("/topics/beyond", "x"));
    let mut writer = http.stream().try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&all));
    for count in 1..=1000 {
        assert_eq!(http.read(true).closes(), count == 1000, "{count}");
    }
    http.assert_ended();
    let _ = writing.join().unwrap();
    assert_eq!(fetch(falconet.address(), get("/topics/beyond")).status(), 404);
}

#[test]
fn without_keep_alive_a_connection_serves_one_request() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--keep-alive", "0"]].concat());
    for request in [get("/"), get("/nothing"), post("/topics/a", "x"), get("/topics/")] {
        let mut http = Http::connect(falconet.address());
        http.send([request, post("/topics/beyond", "x")].concat());
        assert!(http.read(true).closes());
        http.assert_ended();
    }
    assert_eq!(fetch(falconet.address(), get("/topics/beyond")).status(), 404);
}

#[test]
fn an_http_1_0_connection_serves_one_request() {
    let falconet = Falconet::start(NO_BROADCAST);
    for lines in ["", "Connection: keep-alive\r\n", "Keep-Alive: timeout=5\r\n"] {
        for request in [get("/"), get("/nothing"), post("/topics/a", "x")] {
            let request = String::from_utf8(request).unwrap();
            let request = request.replacen("1.1\r\n", &format!("1.0\r\n{lines}"), 1);
            let mut http = Http::connect(falconet.address());
            http.send(request + std::str::from_utf8(&post("/topics/beyond", "x")).unwrap());
            assert!(http.read(true).closes(), "{lines}");
            http.assert_ended();
        }
    }
    assert_eq!(fetch(falconet.address(), get("/topics/beyond")).status(), 404);
}

#[test]
fn connection_close_is_obeyed_in_any_form() {
    let falconet = Falconet::start(NO_BROADCAST);
    for (lines, closes) in [
        ("Connection: close\r\n", true),
        ("connection:CLOSE\r\n", true),
        ("CONNECTION: \t Close \t\r\n", true),
        ("Connection: keep-alive, close\r\n", true),
        ("Connection: close , x\r\n", true),
        ("Connection: x\r\nConnection: close\r\n", true),
        ("Connection: ,,close,\r\n", true),
        ("Connection: keep-alive\r\n", false),
        ("Connection: closed\r\n", false),
        ("Connection: not-close\r\n", false),
        ("Connection:\r\n", false),
        ("X-Connection: close\r\n", false),
    ] {
        for (method, path) in [("GET", "/"), ("GET", "/nothing"), ("POST", "/topics/a")] {
            let mut http = Http::connect(falconet.address());
            assert_eq!(http.fetch(request(method, path, lines, "")).closes(), closes, "{lines}");
            if closes {
                http.assert_ended();
            } else {
                assert_eq!(http.fetch(get("/")).status(), 200, "{lines}");
            }
        }
    }
}

#[cfg(feature = "full")]
#[test]
fn a_response_before_the_body_closes_the_connection() {
    let falconet = Falconet::start(NO_BROADCAST);
    for (method, path, lines, status) in [
        ("DELETE", "/topics/a", "", 204),
        ("POST", "/", "", 405),
        ("POST", "/nothing", "", 404),
        ("POST", "/topics/a//", "", 404),
        ("POST", "/topics/a/", "", 405),
        ("PATCH", "/topics/a", "", 405),
        ("POST", "/topics/a", "Expect: x\r\n", 417),
        ("POST", "/topics/a", "Upgrade: websocket\r\n", 405),
    ] {
        let whole = request(method, path, lines, "a body");
        for sent in [whole.len() - "a body".len(), whole.len() - 1, whole.len()] {
            let mut http = Http::connect(falconet.address());
            let answer = http.fetch(&whole[..sent]);
            assert_eq!((answer.status(), answer.closes()), (status, true), "{method} {path}");
            http.assert_ended();
        }
        // Without a body the connection is kept.
        let answer = fetch(falconet.address(), request(method, path, lines, ""));
        assert_eq!((answer.status(), answer.closes()), (status, false), "{method} {path}");
    }
}

#[cfg(feature = "full")]
#[test]
fn an_incomplete_body_is_not_published() {
    let falconet = Falconet::start(NO_BROADCAST);
    let request = post("/topics/short", "a body");
    for cut in 1..request.len() {
        assert_eq!(exchange(falconet.address(), &request[..cut]), "", "cut at {cut}");
    }
    assert_eq!(fetch(falconet.address(), get("/topics/short")).status(), 404);
    assert_eq!(fetch(falconet.address(), request).status(), 202);
}

#[cfg(feature = "full")]
#[test]
fn a_body_needs_a_length_within_the_limit() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-message", "1000"]].concat());
    for method in ["POST", "PUT"] {
        let publish = |bytes: usize| request(method, "/topics/a", "", "x".repeat(bytes));
        assert_eq!(fetch(falconet.address(), publish(0)).status(), 202);
        assert_eq!(fetch(falconet.address(), publish(1000)).status(), 202);
        let too_large = fetch(falconet.address(), publish(1001));
        assert_eq!(too_large.status(), 413);
        assert!(too_large.closes(), "{}", too_large.head);
        assert_eq!(too_large.text(), "message is 1001 bytes, limit 1000\n");
        // The server waits only for the head.
        for bytes in ["1001", "9999999999999999999"] {
            let head = format!(
                "{method} /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n"
            );
            assert_eq!(fetch(falconet.address(), head).status(), 413);
        }
        let head = format!("{method} /topics/a HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(fetch(falconet.address(), head).status(), 411);
    }
    let kept = fetch(falconet.address(), get("/topics/a"));
    assert_eq!((kept.header("X-Message-Id").map(number_of), kept.body.len()), (Some(4), 1000));
}

#[cfg(feature = "full")]
#[test]
fn a_client_that_expects_100_continue_gets_it_once() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut barrier = Client::connect(falconet.address());
    let mut http = Http::connect(falconet.address());
    for expect in ["Expect: 100-continue\r\n", "expect:100-Continue\r\n"] {
        let whole = request("POST", "/topics/a", expect, "a body");
        let (head, body) = whole.split_at(whole.len() - "a body".len());
        http.send(head);
        let go_on = http.read(true);
        assert_eq!(go_on.head, "HTTP/1.1 100 Continue\r\n\r\n");
        http.send(&body[..3]);
        wait_until_read(&mut barrier);
        http.send(&body[3..]);
        let answer = http.read(true);
        assert_eq!(answer.status(), 202);
        assert!(!answer.closes(), "{}", answer.head);
    }
    assert_eq!(http.fetch(get("/topics/a")).header("X-Message-Id").map(number_of), Some(2));
}

#[cfg(feature = "full")]
#[test]
fn no_100_continue_is_sent_to_a_client_that_does_not_wait() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    // The body arrives with the head.
    let expect = "Expect: 100-continue\r\n";
    let eager = request("POST", "/topics/a", expect, "a body");
    assert_eq!(http.fetch(&eager).status(), 202);
    http.send([&eager[..], &eager, &get("/topics/a")].concat());
    assert_eq!([202, 202, 200].map(|_| http.read(true).status()), [202, 202, 200]);
    // There is no body.
    assert_eq!(http.fetch(request("POST", "/topics/a", expect, "")).status(), 202);
    assert_eq!(http.fetch(request("GET", "/topics/a", expect, "")).status(), 200);
    // HTTP/1.0 has no 100 Continue (RFC 9110 §10.1.1).
    let old = String::from_utf8(eager).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let (head, body) = old.split_at(old.len() - "a body".len());
    let mut http = Http::connect(falconet.address());
    http.send(head);
    wait_until_read(&mut Client::connect(falconet.address()));
    http.send(body);
    assert_eq!(http.read(true).status(), 202);
    http.assert_ended();
}

#[cfg(feature = "full")]
#[test]
fn a_refused_request_with_expect_gets_its_final_status_at_once() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-message", "1000"]].concat());
    let expect = "Expect: 100-continue\r\n";
    for (line, lines, status) in [
        ("POST /topics/a", &format!("{expect}Content-Length: 1001\r\n"), 413),
        ("POST /topics/a", &expect.to_owned(), 411),
        ("POST /topics/a//b", &format!("{expect}Content-Length: 5\r\n"), 404),
        ("POST /nothing", &format!("{expect}Content-Length: 5\r\n"), 404),
        ("POST /", &format!("{expect}Content-Length: 5\r\n"), 405),
        ("PATCH /topics/a", &format!("{expect}Content-Length: 5\r\n"), 405),
        ("POST /topics/", &format!("{expect}Content-Length: 5\r\n"), 405),
        ("POST /topics/a", &"Expect: 200-ok\r\nContent-Length: 5\r\n".to_owned(), 417),
        ("PUT /topics/a", &"Expect: \r\nContent-Length: 5\r\n".to_owned(), 417),
        ("POST /topics/a", &"Expect: 100-continue, x\r\nContent-Length: 5\r\n".to_owned(), 417),
        ("POST /topics/a", &format!("{expect}Expect: x\r\nContent-Length: 5\r\n"), 417),
        ("POST /topics/a", &format!("Expect: x\r\n{expect}Content-Length: 5\r\n"), 417),
    ] {
        let mut http = Http::connect(falconet.address());
        let answer = http.fetch(format!("{line} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!(answer.status(), status, "{line} {lines}");
        assert!(answer.closes(), "{line} {lines}: the client may still send the body");
        http.assert_ended();
    }
    assert_eq!(fetch(falconet.address(), get("/topics/a")).status(), 404);
}

#[cfg(feature = "full")]
#[test]
fn a_kept_connection_can_become_a_session() {
    let falconet = Falconet::start(NO_BROADCAST);
    for (path, publishes) in [("/", false), ("/topics/a", true)] {
        let mut http = Http::connect(falconet.address());
        assert_eq!(http.fetch(post("/topics/b", "before")).status(), 202);
        assert_eq!(http.fetch(get("/")).status(), 200);
        // The first message follows the handshake in the same write.
        http.send([handshake(path).as_bytes(), &masked(true, TEXT, b"early")].concat());
        assert_eq!(http.read(true).status(), 101);
        let mut client = http.into_client();
        assert_eq!(client.read().text(), "early");
        client.echo("late");
        let kept = fetch(falconet.address(), get(path));
        assert_eq!(publishes, kept.text() == "late");
    }
    // The connection can become an event stream, too.
    let mut http = Http::connect(falconet.address());
    assert_eq!(http.fetch(get("/nothing")).status(), 404);
    let listen = request("GET", "/topics/a?last=1", "Accept: text/event-stream\r\n", "");
    assert_eq!(Events::over(http, &listen).read().data, "late");
    // All requests and the upgrade in one write.
    let mut http = Http::connect(falconet.address());
    let upgrade = handshake("/");
    http.send([&post("/topics/b", "1"), &get("/nothing"), upgrade.as_bytes()].concat());
    assert_eq!([(); 3].map(|()| http.read(true).status()), [202, 404, 101]);
    http.into_client().echo("upgraded");
}

#[cfg(feature = "full")]
#[test]
fn a_refused_upgrade_keeps_the_connection() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    for (path, status) in [("/nothing", 404), ("/topics/..", 404), ("/topics/a?mode=no", 400)] {
        let answer = http.fetch(handshake(path));
        assert_eq!((answer.status(), answer.closes()), (status, false), "{path}");
    }
    let answer = http.fetch(handshake("/").replace("Version: 13", "Version: 12"));
    assert_eq!((answer.status(), answer.closes()), (426, false));
    http.send(handshake("/"));
    assert_eq!(http.read(true).status(), 101);
    http.into_client().echo("upgraded");
}

#[cfg(feature = "full")]
#[test]
fn bytes_after_an_upgrade_are_not_read_as_a_request() {
    let falconet = Falconet::start(NO_BROADCAST);
    for path in ["/", "/topics/a"] {
        let mut http = Http::connect(falconet.address());
        // `PO` is the header of an invalid frame of 79 bytes.
        http.send([handshake(path).as_bytes(), &smuggled(), &smuggled()].concat());
        assert_eq!(http.read(true).status(), 101);
        assert_eq!(http.into_client().read_to_close(), Some(1002));
    }
    // Bytes after the request for an event stream are not read as a request, either.
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    let mut stream = events.stream();
    stream.write_all(&smuggled()).unwrap();
    assert_eq!(fetch(falconet.address(), post("/topics/a", "an event")).status(), 202);
    assert_eq!(events.read().data, "an event");
    assert_eq!(fetch(falconet.address(), get("/topics/smuggled")).status(), 404);
}

/// Returns a request that the server must not find inside another request. If the server executes it, a topic
/// has a message.
fn smuggled() -> Vec<u8> {
    post("/topics/smuggled", "evil")
}

/// Returns ambiguous requests, each with a name and the expected statuses of all responses.
fn smuggling_table() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let smuggled = smuggled();
    let length = smuggled.len();
    let raw = |head: &str, rest: &[u8]| [head.as_bytes(), rest].concat();
    // A POST with header lines, and the smuggled request where the body may end.
    let lines = |lines: &str| {
        let head = format!("POST /topics/a HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n");
        raw(&head, &smuggled)
    };
    // A request whose body is exactly the smuggled request.
    let covered = |line: &str, lines: &str| {
        let head = format!("{line}\r\nHost: a\r\n{lines}Content-Length: {length}\r\n\r\n");
        raw(&head, &smuggled)
    };
    // A chunked request whose body is the smuggled request, then a trailer.
    let chunked = |line: &str, trailer: &str| {
        let head = format!("POST /topics/a HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n{length:x}\r\n");
        let end = format!("\r\n0\r\n{trailer}\r\n");
        [head.as_bytes(), &smuggled, end.as_bytes()].concat()
    };
    // A request with a malformed body, then the smuggled request.
    let chunks = |body: &str| {
        let head = "POST /topics/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        raw(&format!("{head}{body}"), &smuggled)
    };
    // A valid request, then other bytes, then the smuggled request.
    let after = |between: &str| {
        let good = "POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
        raw(&format!("{good}{between}"), &smuggled)
    };
    let http_1_1 = "POST /topics/a HTTP/1.1";
    vec![
        // Variants of Transfer-Encoding.
        ("chunks", chunked("Transfer-Encoding: chunked", ""), &[202]),
        ("chunks, then a length", lines("Transfer-Encoding: chunked\r\nContent-Length: 5"), &[400]),
        ("a length, then chunks", lines("Content-Length: 5\r\nTransfer-Encoding: chunked"), &[400]),
        (
            "a length of 0 and chunks",
            lines("Content-Length: 0\r\nTransfer-Encoding: chunked"),
            &[400],
        ),
        ("chunks in capitals", chunked("TRANSFER-ENCODING: CHUNKED", ""), &[202]),
        ("chunks without a space", chunked("Transfer-Encoding:chunked", ""), &[202]),
        ("chunks after a tab", chunked("Transfer-Encoding:\tchunked", ""), &[202]),
        ("chunks after a vertical tab", lines("Transfer-Encoding: \x0bchunked"), &[400]),
        ("a space before the colon", lines("Transfer-Encoding : chunked"), &[400]),
        ("a tab before the colon", lines("Transfer-Encoding\t: chunked"), &[400]),
        ("a space before the name", lines(" Transfer-Encoding: chunked"), &[400]),
        ("chunks in a folded line", lines("X: a\r\n Transfer-Encoding: chunked"), &[400]),
        ("chunks in a line folded by a tab", lines("X: a\r\n\tTransfer-Encoding: chunked"), &[400]),
        ("a folded value", lines("Transfer-Encoding:\r\n chunked"), &[400]),
        ("an unknown coding", lines("Transfer-Encoding: xchunked"), &[400]),
        ("identity", lines("Transfer-Encoding: identity"), &[400]),
        ("an empty coding", lines("Transfer-Encoding:"), &[400]),
        ("two codings", lines("Transfer-Encoding: gzip, chunked"), &[400]),
        ("chunks and identity", lines("Transfer-Encoding: chunked, identity"), &[400]),
        (
            "two lines of codings",
            lines("Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
            &[400],
        ),
        ("a quoted coding", lines("Transfer-Encoding: \"chunked\""), &[400]),
        ("a coding with a null", lines("Transfer-Encoding: chunked\0"), &[400]),
        ("a name with a null", lines("Transfer-Encoding\0: chunked"), &[400]),
        ("a name with an underscore", lines("Transfer_Encoding: chunked"), &[411]),
        (
            "a GET with chunks",
            raw(
                "GET /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                &smuggled,
            ),
            &[404],
        ),
        (
            "HTTP/1.0 with chunks",
            raw(
                "POST /topics/a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                &smuggled,
            ),
            &[400],
        ),
        (
            "a DELETE with chunks",
            raw(
                "DELETE /topics/none HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                &smuggled,
            ),
            &[204],
        ),
        // Variants of chunks.
        (
            "a length in the trailer",
            chunked("Transfer-Encoding: chunked", "Content-Length: 5\r\n"),
            &[202],
        ),
        ("chunks that end with bare line feeds", chunks("0\n\n"), &[400]),
        ("a bare line feed ends the last chunk", chunks("0\r\n\n"), &[400]),
        ("a bare line feed ends an extension", chunks("0;\n\r\n"), &[400]),
        ("a bare carriage return ends an extension", chunks("0;\r0\r\n\r\n"), &[400]),
        ("a space before the size of a chunk", chunks(" 0\r\n\r\n"), &[400]),
        ("a space after the size of a chunk", chunks("0 \r\n\r\n"), &[400]),
        ("a size in 0x", chunks("0x0\r\n\r\n"), &[400]),
        ("a negative size", chunks("-1\r\n\r\n"), &[400]),
        ("an empty size", chunks("\r\n\r\n"), &[400]),
        ("a size beyond 64 bits", chunks("10000000000000000\r\n\r\n"), &[400]),
        ("a size of 64 bits", chunks("FFFFFFFFFFFFFFFF\r\n"), &[413]),
        ("a chunk longer than its size", chunks("1\r\nab\r\n0\r\n\r\n"), &[400]),
        ("a chunk without an end", chunks("1\r\na0\r\n\r\n"), &[400]),
        ("extensions beyond 8 KiB", chunks(&format!("0;{}\r\n\r\n", "x".repeat(8193))), &[400]),
        // Variants of Content-Length.
        ("two equal lengths", lines("Content-Length: 5\r\nContent-Length: 5"), &[400]),
        ("two lengths", covered(http_1_1, "Content-Length: 0\r\n"), &[400]),
        ("two lengths in other cases", covered(http_1_1, "content-length: 0\r\n"), &[400]),
        ("a list of lengths", lines("Content-Length: 5, 5"), &[400]),
        ("a length with a plus", lines("Content-Length: +5"), &[400]),
        ("a length with a minus", lines("Content-Length: -5"), &[400]),
        ("a length in hex", lines("Content-Length: 0x5"), &[400]),
        ("a length with an exponent", lines("Content-Length: 5e0"), &[400]),
        ("a length with a point", lines("Content-Length: 5.0"), &[400]),
        ("a length in two words", lines("Content-Length: 5 5"), &[400]),
        ("a length with a parameter", lines("Content-Length: 5;a"), &[400]),
        ("a quoted length", lines("Content-Length: \"5\""), &[400]),
        ("an empty length", lines("Content-Length:"), &[400]),
        ("a length of 20 digits", lines("Content-Length: 00000000000000000005"), &[400]),
        ("a length beyond 64 bits", lines("Content-Length: 18446744073709551621"), &[400]),
        ("a length in other digits", lines("Content-Length: \u{ff15}"), &[400]),
        ("a length before a space and a colon", lines("Content-Length : 5"), &[400]),
        ("a folded length", lines("Content-Length:\r\n 5"), &[400]),
        ("a length folded in two", lines("Content-Length: 5\r\n 5"), &[400]),
        ("a length whose name has an underscore", lines("Content_Length: 5"), &[411]),
        ("no length, and chunks", lines("X: a"), &[411]),
        ("no length", raw("POST /topics/a HTTP/1.1\r\nHost: a\r\n\r\n", &smuggled), &[411]),
        // Bodies where none is expected.
        ("a GET with a body", covered("GET /topics/a HTTP/1.1", ""), &[400]),
        ("a GET of the page with a body", covered("GET / HTTP/1.1", ""), &[400]),
        ("a HEAD with a body", covered("HEAD /topics/a HTTP/1.1", ""), &[400]),
        ("a DELETE with a body", covered("DELETE /topics/a HTTP/1.1", ""), &[204]),
        ("a POST to the page", covered("POST / HTTP/1.1", ""), &[405]),
        ("a POST to an unknown path", covered("POST /nothing HTTP/1.1", ""), &[404]),
        ("a POST to the list of topics", covered("POST /topics/ HTTP/1.1", ""), &[405]),
        ("a POST to an invalid topic name", covered("POST /topics/a/../b HTTP/1.1", ""), &[404]),
        ("a PATCH", covered("PATCH /topics/a HTTP/1.1", ""), &[405]),
        ("an OPTIONS", covered("OPTIONS /topics/a HTTP/1.1", ""), &[204]),
        ("a TRACE", covered("TRACE /topics/a HTTP/1.1", ""), &[405]),
        ("a CONNECT", covered("CONNECT /topics/a HTTP/1.1", ""), &[405]),
        (
            "a POST that upgrades",
            covered(http_1_1, "Upgrade: websocket\r\nConnection: upgrade\r\n"),
            &[405],
        ),
        ("a POST too large", lines("Content-Length: 65537"), &[413]),
        (
            "a POST too large that waits",
            lines("Content-Length: 65537\r\nExpect: 100-continue"),
            &[413],
        ),
        ("an unknown expectation", covered(http_1_1, "Expect: x\r\n"), &[417]),
        // Bodies longer or shorter than their length.
        ("a request as the body", covered(http_1_1, ""), &[202]),
        ("a body longer than its length", after("X"), &[202, 405]),
        ("a body with a word too many", after("GARBAGE "), &[202, 400]),
        ("a body with a space too many", after(" "), &[202, 400]),
        ("a body with a null too many", after("\0"), &[202, 400]),
        ("chunks after a body", after("0\r\n\r\n"), &[202]),
        // Between two requests.
        ("two empty lines", after("\r\n\r\n"), &[202]),
        ("a line feed", after("\n"), &[202]),
        ("a carriage return", after("\r"), &[202, 400]),
        ("an empty line and a line feed", after("\r\n\n"), &[202]),
        ("an empty line and a space", after("\r\n "), &[202, 400]),
        // Ends of lines and heads.
        (
            "bare line feeds",
            raw("POST /topics/a HTTP/1.1\nHost: a\nContent-Length: 0\n\n", &smuggled),
            &[400],
        ),
        ("a bare line feed in a head", lines("X: a\nContent-Length: 5"), &[400]),
        (
            "a bare line feed ends a head",
            raw("POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\n", &smuggled),
            &[400],
        ),
        ("a bare carriage return in a head", lines("X: a\rContent-Length: 5"), &[400]),
        ("a null in a head", lines("X: \0\r\nContent-Length: 5"), &[400]),
        ("no colon", lines("X\r\nContent-Length: 5"), &[400]),
        // Hosts and versions.
        ("two hosts", lines("Host: b\r\nContent-Length: 5"), &[400]),
        ("another host in the target", covered("POST http://b/topics/a HTTP/1.1", ""), &[403]),
        (
            "HTTP/1.0",
            covered("POST /topics/a HTTP/1.0", "").into_iter().chain(smuggled.clone()).collect(),
            &[202],
        ),
        (
            "HTTP/1.0 with keep-alive",
            raw("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", &smuggled),
            &[200],
        ),
        ("HTTP/0.9", raw("GET /topics/a\r\n\r\n", &smuggled), &[]),
        ("HTTP/1.2", covered("POST /topics/a HTTP/1.2", ""), &[]),
        ("HTTP/2", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &smuggled), &[]),
        (
            "the last request",
            raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &smuggled),
            &[200],
        ),
        ("a head too long", lines(&format!("X: {}", "x".repeat(16_384))), &[431]),
        ("too many headers", lines(&"X: a\r\n".repeat(64)), &[431]),
        (
            "a target too long",
            raw(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(2048)), &smuggled),
            &[414],
        ),
    ]
}

#[cfg(feature = "full")]
#[test]
fn no_request_can_be_smuggled() {
    let falconet = Falconet::start(NO_BROADCAST);
    let canaries = Canaries::start(falconet.address());
    let mut barrier = Client::connect(falconet.address());
    let mut witness = Http::connect(falconet.address());
    let table = smuggling_table();
    assert!(table.len() >= 80, "{}", table.len());
    let mut wrong = Vec::new();
    for (name, bytes, right) in &table {
        for piece_bytes in [bytes.len(), bytes.len().div_ceil(40)] {
            let mut http = Http::connect(falconet.address());
            for (index, piece) in bytes.chunks(piece_bytes).enumerate() {
                if index > 0 {
                    wait_until_read(&mut barrier);
                }
                // The server may have refused the request already.
                if http.stream().write_all(piece).is_err() {
                    break;
                }
            }
            let _ = http.stream().shutdown(Shutdown::Write);
            let mut got = Vec::new();
            while let Ok(answer) = http.try_read(true) {
                got.push(answer.status());
            }
            let smuggled_status = witness.fetch(get("/topics/smuggled")).status();
            if got != *right || smuggled_status != 404 {
                wrong.push((name, piece_bytes, got, right, smuggled_status));
                fetch(falconet.address(), request("DELETE", "/topics/smuggled", "", ""));
            }
        }
        witness = Http::connect(falconet.address());
    }
    assert!(wrong.is_empty(), "name, size of pieces, got, right, smuggled_status: {wrong:#?}");
    // This test can detect a smuggled request: as a body the request is stored, and on its own it is executed.
    assert_eq!(fetch(falconet.address(), covered_body()).status(), 202);
    assert_eq!(fetch(falconet.address(), get("/topics/a")).body, smuggled());
    assert_eq!(fetch(falconet.address(), smuggled()).status(), 202);
    assert_eq!(fetch(falconet.address(), get("/topics/smuggled")).text(), "evil");
    canaries.finish();
}

/// Returns a request whose body is the smuggled request.
fn covered_body() -> Vec<u8> {
    post("/topics/a", smuggled())
}

#[cfg(feature = "full")]
#[test]
fn every_response_has_the_request_id() {
    let falconet =
        Falconet::start(&[NO_BROADCAST, &["--max-topics", "2", "--max-message", "1k"]].concat());
    let mut http = Http::connect(falconet.address());
    assert_eq!(http.fetch(post("/topics/a", "x")).status(), 202);
    let tag = http.fetch(get("/topics/a")).header("ETag").unwrap().to_owned();
    let known = format!("If-None-Match: {tag}\r\n");
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let events = "Accept: text/event-stream\r\n";
    let too_large = "x".repeat(1025);
    for (method, path, lines, body, status) in [
        ("GET", "/", "", "", 200),
        ("HEAD", "/", "", "", 200),
        ("GET", "/nothing", "", "", 404),
        ("POST", "/", "", "", 405),
        ("GET", "/topics/", "", "", 200),
        ("GET", "/topics/a", "", "", 200),
        ("GET", "/topics/a", &known, "", 304),
        ("GET", "/topics/none", "", "", 404),
        ("GET", "/topics//", "", "", 404),
        ("POST", "/topics/a", "", "y", 202),
        ("POST", "/topics/a", "Expect: x\r\n", "", 417),
        ("POST", "/topics/a", "", &too_large, 413),
        ("DELETE", "/topics/b", "", "", 204),
        ("PATCH", "/topics/a", "", "", 405),
        ("GET", "/topics/a?mode=no", upgrade, "", 400),
        ("GET", "/topics/a", upgrade, "", 101),
        ("GET", "/", upgrade, "", 101),
        ("GET", "/", "Upgrade: websocket\r\n", "", 400),
        ("GET", "/topics/a", events, "", 200),
        ("POST", "/topics/b", "", "x", 503),
        ("GET", "/topics/b", upgrade, "", 503),
        ("GET", "/topics/b", events, "", 200),
    ] {
        for (sent, taken) in [("abc-1.2_3", true), ("two words", false), ("", false)] {
            let lines = format!("{lines}X-Request-Id: {sent}\r\n");
            let mut stream = connect(falconet.address());
            stream.write_all(&request(method, path, &lines, body)).unwrap();
            let head = read_response_head(&mut stream);
            assert_eq!(status_of(&head), status, "{method} {path}");
            let id = header_of(&head, "X-Request-Id").expect(&head);
            assert_eq!(id == sent, taken, "{method} {path}");
            assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
            assert_eq!(head.matches("X-Request-Id").count(), 1, "{head}");
        }
    }
}

#[cfg(feature = "full")]
#[test]
fn a_request_is_logged_only_if_it_fails_unless_the_level_is_debug() {
    let requests = || {
        [
            (get("/"), 200),
            (post("/topics/a", "x"), 202),
            (get("/topics/a"), 200),
            (post("/topics/", "x"), 405),
            (get("/topics/none"), 404),
            (get("/none"), 404),
        ]
    };
    for (level, logs_success) in [("info", false), ("debug", true)] {
        let falconet = Falconet::start(&[NO_BROADCAST, &["--log-level", level]].concat());
        for (request, status) in requests() {
            assert_eq!(fetch(falconet.address(), request).status(), status);
        }
        falconet.wait_for_line("path=/none ");
        let log = falconet.log_so_far();
        let lines: Vec<&String> = log.iter().filter(|line| line.contains(" answered ")).collect();
        let expected = requests().into_iter().map(|(_, status)| status);
        let expected = expected.filter(|status| logs_success || *status >= 400);
        let is_line_of = |(line, status): (&&String, u16)| {
            let level = if status < 400 { " debug " } else { " info " };
            line.contains(level) && line.ends_with(&format!(" status={status}"))
        };
        assert_eq!(lines.len(), expected.clone().count(), "{log:#?}");
        assert!(lines.iter().zip(expected).all(is_line_of), "{log:#?}");
    }
}

#[cfg(feature = "full")]
#[test]
fn the_request_id_is_logged() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--log-level", "debug"]].concat());
    let lines = "X-Request-Id: mine\r\nX-Client-Id: me\r\n";
    fetch(falconet.address(), request("POST", "/topics/a", lines, "x"));
    let line = falconet.wait_for_line("answered");
    let fields = " method=POST path=/topics/a request=mine correlation=me status=202";
    assert!(line.ends_with(fields), "{line}");
    let made = fetch(falconet.address(), get("/topics/a"));
    let line = falconet.wait_for_line("answered");
    let id = made.header("X-Request-Id").unwrap();
    assert!(line.contains(&format!(" request={id} correlation=- status=200")), "{line}");
}

#[cfg(feature = "full")]
#[test]
fn head_has_the_same_head_as_get() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    http.fetch(post("/topics/a", "a payload"));
    for path in ["/topics/a", "/topics/none", "/topics/", "/app.js"] {
        let fetch = |http: &mut Http, method| {
            http.fetch(request(method, path, "X-Request-Id: same\r\n", "")).head
        };
        assert_eq!(fetch(&mut http, "HEAD"), fetch(&mut http, "GET"), "{path}");
    }
}
