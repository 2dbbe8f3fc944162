//! The numbered requirements for a server that does what the article's server does. A test's name begins with
//! the number of its requirement. Those of the console client (`c32`) are in `client.rs`, and those that judge
//! times in `tests/timing`.

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use rustix::net::sockopt;
use rustix::process::Signal;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use crate::support::time::unix_nanoseconds;
use crate::support::*;

#[test]
fn c01_localhost_is_both_loopbacks_on_one_port() {
    let falconet =
        Falconet::start_with(Falconet::command().args(["--listen", "http://localhost:0"]));
    let port = falconet.address().port();
    assert_page(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    // A machine without IPv6 has one loopback.
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        assert_page(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    }
}

#[test]
fn c01_the_default_is_localhost_8080() {
    assert!(default_config().contains("listen = http://localhost:8080\n"));
}

#[test]
fn c02_the_start_up_line_has_the_url_and_how_to_stop() {
    // Lines for the journal have no time, so the whole line is known.
    let falconet = Falconet::start_with(
        Falconet::command().env("JOURNAL_STREAM", "8:1").args(["--listen", "http://127.0.0.1:0"]),
    );
    let url = format!("http://{}/", falconet.address());
    let line = format!("<6>listening on {url} (open it in a browser; Ctrl+C stops)");
    let mut lines = falconet.log_so_far();
    // As root the server logs a warning.
    lines.retain(|line| !line.contains("running as root"));
    assert_eq!(lines, [line]);
}

#[test]
fn c02_there_is_one_line_per_listen_url() {
    let path = std::env::temp_dir().join(format!("falconet-c02-{}", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let urls = ["http://localhost:0", "http://127.0.0.1:0", &unix];
    let mut command = Falconet::command();
    command.args(urls.iter().flat_map(|url| ["--listen", *url]));
    let mut falconet = Falconet::start_with(&mut command);
    let unix_line = falconet.wait_for_line("listening on unix:");
    let lines = falconet.log_so_far();
    assert_eq!(lines.iter().filter(|line| line.contains("listening on ")).count(), 3, "{lines:#?}");
    // A browser can't open a Unix socket.
    assert!(unix_line.ends_with(&format!("listening on {unix} (Ctrl+C stops)")), "{unix_line}");
    // A killed server would leave the socket's file behind.
    falconet.signal(Signal::TERM);
    falconet.wait_for_exit(TIMEOUT);
}

#[test]
fn c03_page_and_echo_are_at_one_url() {
    let falconet = Falconet::start(&[]);
    assert_page(falconet.address());
    Client::connect_to(falconet.address(), "/").echo("beside the page");
}

#[test]
fn c04_the_page_is_sent_to_clients_that_accept_html() {
    let falconet = Falconet::start(&[]);
    for (accept, status) in [
        ("text/html", 200),
        ("TEXT/HTML", 200),
        ("text/html;level=1", 200),
        ("text/*", 200),
        ("*/*", 200),
        // The header that Firefox and Chrome send.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200),
        ("image/png, text/html;q=0.001", 200),
        ("application/json", 404),
        ("image/*", 404),
        ("text/html;q=0", 404),
        ("text/html;q=0, */*", 404),
        ("text/plain, */*;q=0", 404),
    ] {
        let answer = get(&falconet, "/", &format!("Accept: {accept}\r\n"));
        assert_eq!(status_of(&answer), status, "Accept: {accept}");
    }
}

#[test]
fn c04_the_page_has_its_type_and_length() {
    let falconet = Falconet::start(&[]);
    let page = get(&falconet, "/", "Accept: text/html\r\n");
    assert_eq!(header_of(&page, "Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(header_of(&page, "Content-Length"), Some(&*body_of(&page).len().to_string()));
    assert!(body_of(&page).starts_with("<!doctype html>"));
}

#[test]
fn c04_head_gets_the_same_head_and_no_body() {
    let falconet = Falconet::start(&[]);
    for path in ["/", "/app.js", "/nothing-here"] {
        let id = "X-Request-Id: the-same\r\n";
        let full = get(&falconet, path, id);
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n{id}\r\n");
        let head = exchange(falconet.address(), request);
        assert_eq!(head, full.strip_suffix(body_of(&full)).unwrap());
    }
}

#[test]
fn c05_any_other_plain_request_is_404_with_a_short_text() {
    let falconet = Falconet::start(&[]);
    for (path, headers) in [("/nothing-here", ""), ("/", "Accept: image/png\r\n")] {
        let answer = get(&falconet, path, headers);
        assert_eq!(status_of(&answer), 404);
        assert_eq!(header_of(&answer, "Content-Type"), Some("text/plain; charset=utf-8"));
        assert!((1..100).contains(&body_of(&answer).len()), "{answer}");
    }
}

#[test]
fn c05_a_404_is_logged() {
    let falconet = Falconet::start(&[]);
    get(&falconet, "/nothing-here?secret", "");
    let line = falconet.wait_for_line("status=404");
    assert!(line.contains(" method=GET path=/nothing-here "), "{line}");
}

#[test]
fn c06_a_request_without_an_accept_header_gets_the_page() {
    let falconet = Falconet::start(&[]);
    assert_eq!(status_of(&get(&falconet, "/", "")), 200);
    // Such a request ends the accept loop of the article's server.
    assert_eq!(status_of(&get(&falconet, "/", "")), 200);
}

#[test]
fn c07_the_headers_of_an_upgrade_may_be_lists_and_several_lines() {
    let falconet = Falconet::start(&[]);
    for headers in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "connection: keep-alive, UPGRADE\r\nupgrade: WebSocket\r\n",
        "Connection: keep-alive\r\nConnection: ,upgrade ,\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
    ] {
        let mut stream = connect(falconet.address());
        stream.write_all(upgrade(headers, "13", KEY).as_bytes()).unwrap();
        let head = read_response_head(&mut stream);
        assert_eq!(status_of(&head), 101, "{headers}");
        // The example key and the accept value that belongs to it (RFC 6455 §1.3).
        let accept = header_of(&head, "Sec-WebSocket-Accept");
        assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Client { stream }.echo("upgraded");
    }
}

#[test]
fn c07_a_wrong_version_is_426_and_names_the_right_one() {
    let falconet = Falconet::start(&[]);
    for version in ["8", "14", "13, 8", "thirteen"] {
        let answer = exchange(falconet.address(), upgrade(UPGRADE, version, KEY));
        assert_eq!(status_of(&answer), 426, "{version}");
        assert_eq!(header_of(&answer, "Sec-WebSocket-Version"), Some("13"));
    }
}

#[test]
fn c07_an_invalid_key_is_400() {
    let falconet = Falconet::start(&[]);
    for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZQ==", "not base64 not base64 =="] {
        let answer = exchange(falconet.address(), upgrade(UPGRADE, "13", key));
        assert_eq!(status_of(&answer), 400, "{key}");
    }
}

#[test]
fn c08_no_offered_protocol_or_extension_is_selected() {
    let falconet = Falconet::start(&[]);
    let offers = "Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut stream = connect(falconet.address());
    stream.write_all(upgrade(&format!("{UPGRADE}{offers}"), "13", KEY).as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    assert_eq!(status_of(&head), 101);
    assert_eq!(header_of(&head, "Sec-WebSocket-Protocol"), None);
    assert_eq!(header_of(&head, "Sec-WebSocket-Extensions"), None);
    Client { stream }.echo("plain");
}

#[test]
fn c09_a_failed_upgrade_ends_only_its_connection() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let canaries = Canaries::start(falconet.address());
    for _ in 0..5 {
        assert_eq!(status_of(&exchange(falconet.address(), upgrade(UPGRADE, "13", "bad"))), 400);
        let bare = exchange(falconet.address(), "GET / HTTP/1.1\nHost: a\n\n");
        assert_eq!(status_of(&bare), 400);
        assert_eq!(exchange(falconet.address(), "EHLO a\r\n\r\n"), "");
        let half = upgrade(UPGRADE, "13", KEY);
        connect(falconet.address()).write_all(&half.as_bytes()[..half.len() / 2]).unwrap();
        let reset = connect(falconet.address());
        (&reset).write_all(half.as_bytes()).unwrap();
        sockopt::set_socket_linger(&reset, Some(Duration::ZERO)).unwrap();
    }
    canaries.finish();
    Client::connect(falconet.address()).echo("still here");
}

#[test]
fn c11_a_connection_is_logged_in_one_line() {
    let falconet = Falconet::start(&[]);
    let client = Client::connect_to(falconet.address(), "/?token=secret");
    let address = client.stream.local_addr().unwrap();
    let line = falconet.wait_for_line("new connection");
    let fields = format!(" new connection client=1 address={address} path=/ correlation=");
    assert!(line.contains(&fields), "{line}");
    Client::connect(falconet.address());
    assert!(falconet.wait_for_line("new connection").contains(" client=2 "));
}

#[test]
fn c11_valid_ids_of_the_client_are_used_and_others_replaced() {
    let longest = "x".repeat(64);
    let rows = [
        ("abc-1.2_3", true),
        (&longest, true),
        (&format!("{longest}x"), false),
        ("two words", false),
        ("quo\"te", false),
        ("", false),
    ];
    for (header, key, other_key) in [
        ("X-Client-Id", " correlation=", " request="),
        ("X-Request-Id", " request=", " correlation="),
    ] {
        let falconet = Falconet::start(&[]);
        for (id, taken) in rows {
            let headers = format!("{UPGRADE}{header}: {id}\r\n");
            let mut stream = connect(falconet.address());
            stream.write_all(upgrade(&headers, "13", KEY).as_bytes()).unwrap();
            let line = falconet.wait_for_line("new connection");
            let logged = |key: &str| line.split(key).nth(1).unwrap().split(' ').next().unwrap();
            let is_made = |id: &str| {
                assert!(id.len() == 16 && u64::from_str_radix(id, 16).is_ok(), "{line}");
            };
            if taken {
                assert_eq!(logged(key), id);
            } else {
                is_made(logged(key));
            }
            is_made(logged(other_key));
            let head = read_response_head(&mut stream);
            assert_eq!(header_of(&head, header), Some(logged(key)), "the response has the id");
        }
    }
}

#[test]
fn c12_an_echo_goes_only_to_its_sender() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let (mut one, mut other) =
        (Client::connect(falconet.address()), Client::connect(falconet.address()));
    one.echo("mine");
    // No message precedes the Pong.
    other.send(true, PING, "other");
    assert_eq!(other.read().opcode, PONG);
    other.echo("my own");
}

#[test]
fn c12_a_real_client_gets_its_echo() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = real_client(&falconet);
    for text in ["hello", "grüße ☂", ""] {
        client.send(Message::text(text)).unwrap();
        assert_eq!(client.read().unwrap(), Message::text(text));
    }
}

#[test]
fn c14_an_echo_keeps_the_type() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    // The payloads include bytes that are not UTF-8, and the same payload as text and as binary.
    for (opcode, payload) in [(TEXT, &b"text"[..]), (BINARY, b"\xff\x00\xc3"), (BINARY, b"text")] {
        client.send(true, opcode, payload);
        assert_eq!(client.read(), Frame { fin: true, opcode, payload: payload.into() });
    }
    let mut client = real_client(&falconet);
    for message in [Message::text("text"), Message::binary(vec![0xff, 0x00, 0xc3])] {
        client.send(message.clone()).unwrap();
        assert_eq!(client.read().unwrap(), message);
    }
}

#[test]
fn c15_a_message_up_to_the_limit_is_echoed_whole() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut raw = Client::connect(falconet.address());
    let mut real = real_client(&falconet);
    for size in [1, 125, 126, 4095, 4096, 4097, 65535, 65536] {
        let payload: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        real.send(Message::binary(payload.clone())).unwrap();
        assert_eq!(real.read().unwrap(), Message::binary(payload.clone()), "{size}");
        // In one frame and in three.
        raw.send(true, BINARY, &payload);
        raw.send(false, BINARY, &payload[..size / 3]);
        raw.send(false, CONTINUATION, &payload[size / 3..size / 2]);
        raw.send(true, CONTINUATION, &payload[size / 2..]);
        let whole = Frame { fin: true, opcode: BINARY, payload };
        assert!(raw.read() == whole && raw.read() == whole, "{size}");
    }
}

#[test]
fn c15_a_message_above_the_limit_is_1009() {
    let falconet = Falconet::start(&[]);
    let small = Falconet::start(&["--max-message", "1k"]);
    for (falconet, limit) in [(&falconet, 64 * 1024), (&small, 1024)] {
        for sizes in [
            &[limit + 1][..],
            &[limit, 1],
            &[1, limit],
            &[limit * 2 / 3, limit * 2 / 3],
            &[limit * 2],
            &[limit / 2, limit * 2],
        ] {
            let mut client = Client::connect(falconet.address());
            for (index, size) in sizes.iter().enumerate() {
                let opcode = if index == 0 { BINARY } else { CONTINUATION };
                // The server may close before it has read everything.
                client.send_raw(&masked(index + 1 == sizes.len(), opcode, &vec![7; *size]));
            }
            assert_eq!(client.read_to_close(), Some(1009), "{sizes:?} with limit {limit}");
        }
    }
}

#[test]
fn c16_an_empty_message_is_echoed() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    for opcode in [TEXT, BINARY] {
        let empty = Frame { fin: true, opcode, payload: Vec::new() };
        client.send(true, opcode, "");
        assert_eq!(client.read(), empty);
        client.send(false, opcode, "");
        client.send(true, CONTINUATION, "");
        assert_eq!(client.read(), empty);
    }
}

#[test]
fn c17_a_client_that_does_not_read_is_not_read() {
    let falconet = Falconet::start(&["--broadcast-every", "0", "--write-timeout", "0"]);
    let mut client = Client::connect(falconet.address());
    client.echo("warm");
    let canaries = Canaries::start(falconet.address());
    let memory_before = falconet.private_kib();
    let mut flood = Flood::start(&client.stream);
    assert!(flood.push(&client.stream) == Stuck::Blocked);
    let grown = falconet.private_kib().saturating_sub(memory_before);
    assert!(grown < 1024, "{grown} KiB for a client that does not read");
    canaries.finish();

    // Every echo arrives once the client reads again.
    let mut writer = client.stream.try_clone().unwrap();
    let rest = flood.rest.clone();
    let finish = std::thread::spawn(move || writer.write_all(&rest).unwrap());
    for number in 0..flood.messages {
        let echo = client.read();
        assert_eq!(echo.payload, Flood::payload(number), "echo {number}");
    }
    finish.join().unwrap();
    client.echo("complete");
}

#[test]
fn c19_the_broadcast_is_local_time_in_round_trip_format() {
    let zones = [
        ("XXX4", Some("-04:00")),
        ("<+0545>-5:45", Some("+05:45")),
        ("UTC0", Some("+00:00")),
        // Checked only if the time zone is installed. The offset depends on the season.
        ("America/New_York", None),
    ];
    for (zone, offset) in zones {
        if offset.is_none() && !std::path::Path::new("/usr/share/zoneinfo").join(zone).exists() {
            continue;
        }
        let falconet = Falconet::start_with(Falconet::command().env("TZ", zone).args([
            "--listen",
            "http://127.0.0.1:0",
            "--broadcast-every",
            "50ms",
        ]));
        let frame = Client::connect(falconet.address()).read();
        let text = frame.text();
        let time = text.strip_prefix("Server time: ").unwrap_or_else(|| panic!("{text}"));
        let given = &time[time.len() - 6..];
        assert!(
            offset.map_or(["-04:00", "-05:00"].contains(&given), |o| o == given),
            "{zone}: {text}"
        );
        let sent = Duration::from_nanos(unix_nanoseconds(time));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(sent) < Duration::from_secs(60), "{zone}: {text}");
    }
}

#[test]
fn c20_every_client_gets_the_next_broadcast() {
    let falconet = Falconet::start(&["--broadcast-every", "300ms"]);
    let (mut one, mut other) =
        (Client::connect(falconet.address()), Client::connect(falconet.address()));
    // A broadcast may have been sent between the two connections.
    let (mut first, mut second) = (one.read(), other.read());
    while first.text() < second.text() {
        first = one.read();
    }
    while second.text() < first.text() {
        second = other.read();
    }
    assert_eq!(first, second);
    assert_eq!(one.read(), other.read());
}

#[test]
fn c21_a_silent_client_is_pinged_and_swept() {
    let falconet = Falconet::start(&[
        "--broadcast-every",
        "0",
        "--ping-every",
        "200ms",
        "--idle-timeout",
        "900ms",
        "--log-level",
        "debug",
    ]);
    let start = Instant::now();
    let mut client = Client::connect(falconet.address());
    let ping = client.read();
    assert_eq!(ping.opcode, PING);
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(client.read_to_close(), Some(1008));
    assert!(start.elapsed() >= Duration::from_millis(900));
    falconet.wait_for_line("idle timeout client=1 ");
}

#[test]
fn c21_a_client_that_answers_pings_stays() {
    let falconet = Falconet::start(&[
        "--broadcast-every",
        "0",
        "--ping-every",
        "200ms",
        "--idle-timeout",
        "2s",
    ]);
    let mut client = Client::connect(falconet.address());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        let ping = client.read();
        assert_eq!(ping.opcode, PING);
        client.send(true, PONG, ping.payload);
    }
    client.echo("alive");
}

#[test]
fn c21_every_received_byte_restarts_the_idle_timeout() {
    let falconet = Falconet::start(&[
        "--broadcast-every",
        "250ms",
        "--ping-every",
        "0",
        "--idle-timeout",
        "1500ms",
    ]);
    let mut client = Client::connect(falconet.address());
    let frame = masked(true, BINARY, b"byte by byte");
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_millis(2500) {
        assert!(client.read().text().starts_with("Server time: "));
        assert!(client.send_raw(&frame[sent..=sent]));
        sent += 1;
    }
    assert!(client.send_raw(&frame[sent..]));
    let whole = Frame { fin: true, opcode: BINARY, payload: b"byte by byte".into() };
    assert!((0..10).any(|_| client.read() == whole));
}

#[test]
fn c22_a_ping_is_answered_with_its_payload() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut raw = Client::connect(falconet.address());
    let mut real = real_client(&falconet);
    for payload in [&b""[..], b"p", b"\xff\x00", &[b'x'; 125]] {
        raw.send(true, PING, payload);
        assert_eq!(raw.read(), Frame { fin: true, opcode: PONG, payload: payload.into() });
        real.send(Message::Ping(payload.to_vec().into())).unwrap();
        assert_eq!(real.read().unwrap(), Message::Pong(payload.to_vec().into()));
    }
    // Also between the fragments of a message.
    raw.send(false, TEXT, "one ");
    raw.send(true, PING, "now");
    assert_eq!(raw.read(), Frame { fin: true, opcode: PONG, payload: b"now".into() });
    raw.send(true, CONTINUATION, "message");
    assert_eq!(raw.read().text(), "one message");
}

#[test]
fn c22_control_frames_may_be_longer_than_messages() {
    let falconet = Falconet::start(&["--max-message", "1"]);
    let mut client = Client::connect(falconet.address());
    client.echo("x");
    client.send(true, PING, [7; 125]);
    let pong = client.read();
    assert_eq!((pong.opcode, pong.payload), (PONG, vec![7; 125]));
    client.send(true, CLOSE, 1000_u16.to_be_bytes());
    assert_eq!(client.read_to_close(), Some(1000));

    let mut client = Client::connect(falconet.address());
    client.send(true, TEXT, "xy");
    assert_eq!(client.read_to_close(), Some(1009));
}

#[test]
fn c23_a_close_is_answered_with_the_right_code() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let code = |code: u16| code.to_be_bytes().to_vec();
    let with_reason = |reason: &[u8]| [&code(1000)[..], reason].concat();
    let rows = [
        ("no code", vec![], 1005),
        ("1000", code(1000), 1000),
        ("1000 and a reason", with_reason("grüße".as_bytes()), 1000),
        ("1000 and the longest reason", with_reason(&[b'x'; 123]), 1000),
        ("1001", code(1001), 1001),
        ("1003", code(1003), 1003),
        ("1007", code(1007), 1007),
        ("1011", code(1011), 1011),
        ("1014", code(1014), 1014),
        ("1014 and a reason", [&code(1014)[..], b"grue"].concat(), 1014),
        ("3000", code(3000), 3000),
        ("3999", code(3999), 3999),
        ("4000", code(4000), 4000),
        ("4999", code(4999), 4999),
        ("0", code(0), 1002),
        ("999", code(999), 1002),
        ("1004", code(1004), 1002),
        ("1005 on the wire", code(1005), 1002),
        ("1006 on the wire", code(1006), 1002),
        ("1015 on the wire", code(1015), 1002),
        ("1016", code(1016), 1002),
        ("2999", code(2999), 1002),
        ("5000", code(5000), 1002),
        ("65535", code(65535), 1002),
        ("half a code", vec![3], 1002),
        ("a reason that is not UTF-8", with_reason(b"\xc3\x28"), 1007),
    ];
    for (name, payload, answer) in rows {
        let mut client = Client::connect(falconet.address());
        client.send(true, CLOSE, payload);
        assert_eq!(client.read_to_close(), Some(answer), "{name}");
    }
}

#[test]
fn c23_a_real_client_closes_cleanly() {
    let falconet = Falconet::start(&["--log-level", "debug"]);
    for code in [CloseCode::Normal, CloseCode::Iana(3000), CloseCode::Library(4999)] {
        let mut client = real_client(&falconet);
        let frame = CloseFrame { code, reason: "done".into() };
        client.close(Some(frame.clone())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Close(Some(frame)));
        let end = client.read().unwrap_err();
        assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end}");
        drop(client);
        falconet.wait_for_line(&format!("closed by the peer with {code}"));
    }
}

#[test]
fn c24_an_abrupt_disconnect_is_one_line_and_releases_everything() {
    let falconet = Falconet::start(&["--broadcast-every", "0", "--log-level", "debug"]);
    let files_before = falconet.open_files();
    for (number, (name, reset, unfinished)) in [
        ("end of stream", false, &b""[..]),
        ("reset", true, b""),
        ("end of stream within a frame", false, b"\x81\x85\x00\x00"),
        ("reset within a message", true, b"\x01\x81\x00\x00\x00\x00x"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::connect(falconet.address());
        client.echo("here");
        assert!(client.send_raw(unfinished));
        if reset {
            sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        let id = number + 1;
        let line = falconet.wait_for_line("connection ended");
        assert!(
            line.contains(" info ") && line.contains(&format!(": lost client={id} ")),
            "{name}: {line}"
        );
        wait_until("the descriptor is released", || falconet.open_files() == files_before);
        let lines = falconet.log_so_far();
        let lines_of_client = lines.iter().filter(|line| line.contains(&format!("client={id} ")));
        // One line for the start of the connection and one for its end.
        assert_eq!(lines_of_client.count(), 2, "{name}: {lines:#?}");
    }
}

#[test]
fn c25_a_violation_is_answered_with_its_code() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let (one, half_umlaut) = (masked(true, TEXT, b"x"), masked(false, TEXT, b"\xc3"));
    let with_first = |first: u8| [&[first], &one[1..]].concat();
    let mut rows = vec![
        ("rsv1", with_first(0xc1), 1002),
        ("rsv2", with_first(0xa1), 1002),
        ("rsv3", with_first(0x91), 1002),
        ("rsv1 of a ping", with_first(0xc9), 1002),
        ("a fragmented ping", with_first(0x09), 1002),
        ("a fragmented pong", with_first(0x0a), 1002),
        ("a fragmented close", masked(false, CLOSE, &[3, 232]), 1002),
        ("a ping of 126 bytes", masked(true, PING, &[0; 126]), 1002),
        ("a pong of 126 bytes", masked(true, PONG, &[0; 126]), 1002),
        ("a close of 126 bytes", masked(true, CLOSE, &[3; 126]), 1002),
        ("an unmasked text", b"\x81\x01x".to_vec(), 1002),
        ("an unmasked empty ping", b"\x89\x00".to_vec(), 1002),
        ("an unmasked close", b"\x88\x02\x03\xe8".to_vec(), 1002),
        ("a lone continuation", masked(true, CONTINUATION, b"x"), 1002),
        ("a lone first continuation", masked(false, CONTINUATION, b"x"), 1002),
        ("a text within a message", [masked(false, TEXT, b"x"), one.clone()].concat(), 1002),
        ("a fragment within a message", masked(false, BINARY, b"x").repeat(2), 1002),
        ("a continuation after the last", [one, masked(true, CONTINUATION, b"x")].concat(), 1002),
        ("a text that is not UTF-8", masked(true, TEXT, b"\xff"), 1007),
        ("an overlong text", masked(true, TEXT, b"\xc0\xaf"), 1007),
        ("a surrogate in a text", masked(true, TEXT, b"\xed\xa0\x80"), 1007),
        ("beyond Unicode in a text", masked(true, TEXT, b"\xf4\x90\x80\x80"), 1007),
        ("a text that ends within a character", masked(true, TEXT, b"x\xe2\x82"), 1007),
        ("a bad first fragment", masked(false, TEXT, b"\xff"), 1007),
        (
            "a character broken across fragments",
            [half_umlaut.clone(), masked(true, CONTINUATION, b"x")].concat(),
            1007,
        ),
        (
            "a message that ends within one",
            [half_umlaut, masked(true, CONTINUATION, b"")].concat(),
            1007,
        ),
        ("a frame beyond the limit", masked(true, BINARY, &[0; 65537]), 1009),
    ];
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        rows.push(("an unknown opcode", masked(true, opcode, b""), 1002));
    }
    for (name, bytes, code) in rows {
        let mut client = Client::connect(falconet.address());
        client.send_raw(&bytes);
        assert_eq!(client.read_to_close(), Some(code), "{name}");
    }
}

#[test]
fn c25_a_character_may_be_split_across_fragments() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    let text = "é☂\u{1f600}";
    for (index, byte) in text.bytes().enumerate() {
        client.send(false, if index == 0 { TEXT } else { CONTINUATION }, [byte]);
    }
    client.send(true, CONTINUATION, "");
    assert_eq!(client.read().text(), text);
}

#[test]
fn c26_a_client_that_stops_reading_is_released_within_the_write_timeout() {
    let falconet = Falconet::start(&[
        "--broadcast-every",
        "100ms",
        "--write-timeout",
        "400ms",
        "--log-level",
        "debug",
    ]);
    let files_before = falconet.open_files();
    let canaries = Canaries::start(falconet.address());
    let client = Client::connect(falconet.address());
    let start = Instant::now();
    Flood::start(&client.stream).push(&client.stream);
    let line = falconet.wait_for_line("connection ended");
    assert!(line.contains("closed by us with 1008 not reading client=3 "), "{line}");
    assert!(start.elapsed() >= Duration::from_millis(400));
    canaries.finish();
    wait_until("the descriptor is released", || falconet.open_files() == files_before);
}

#[test]
fn c27_a_signal_stops_with_exit_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut falconet = Falconet::start(&[]);
        let mut client = Client::connect(falconet.address());
        falconet.signal(signal);
        assert_eq!(client.read().close_code(), 1001, "{signal:?}");
        client.send(true, CLOSE, 1001_u16.to_be_bytes());
        drop(client);
        assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0), "{signal:?}");
    }
}

#[test]
fn c27_a_second_signal_exits_at_once() {
    let mut falconet = Falconet::start(&["--close-timeout", "1h"]);
    // This client does not answer the Close.
    let mut client = Client::connect(falconet.address());
    falconet.signal(Signal::TERM);
    assert_eq!(client.read().opcode, CLOSE);
    falconet.signal(Signal::INT);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(1));
}

#[test]
fn c28_all_clients_are_closed_at_once() {
    let mut falconet = Falconet::start(&["--close-timeout", "1h"]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(falconet.address())).collect();
    falconet.signal(Signal::TERM);
    // Every client receives its Close before any client answers.
    for client in &mut clients {
        assert_eq!(client.read().close_code(), 1001);
    }
    for client in &mut clients {
        client.send(true, CLOSE, 1001_u16.to_be_bytes());
    }
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    for client in &mut clients {
        client.assert_ended();
    }
}

#[test]
fn c29_stopping_closes_the_listener_and_answers_an_incomplete_head_with_503() {
    let falconet = Falconet::start(&["--close-timeout", "1h"]);
    let mut half = connect(falconet.address());
    half.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    // This client connected later and is served, so the first connection has been accepted. The client keeps the
    // drain waiting.
    let mut client = Client::connect(falconet.address());
    client.echo("here");
    falconet.signal(Signal::TERM);
    assert_eq!(status_of(&read_response_head(&mut half)), 503);
    assert_eq!(client.read().close_code(), 1001);
    wait_until("connections are refused", || {
        let refused = TcpStream::connect(falconet.address());
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    // The server has not ended: it still waits for this client.
    client.stream.set_nonblocking(true).unwrap();
    let more = client.stream.peek(&mut [0]);
    assert!(more.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{more:?}");
}

#[test]
fn c31_the_page_loads_nothing_from_other_servers() {
    let falconet = Falconet::start(&[]);
    let page = get(&falconet, "/", "");
    let policy = header_of(&page, "Content-Security-Policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"));
    assert!(policy.contains("connect-src 'self'") && !policy.contains("unsafe"), "{policy}");

    let (mut assets, mut scripts) = (Vec::new(), 0);
    for tag in body_of(&page).split('<').skip(1) {
        let (tag, content) = tag.split_once('>').expect("tags end");
        let name = tag.split_whitespace().next().unwrap();
        assert_ne!(name, "style", "no inline style");
        if name == "script" {
            scripts += 1;
            assert!(attribute(tag, "src").is_some() && content.trim().is_empty(), "<{tag}>");
        }
        for (key, _) in attributes(tag) {
            assert!(key != "style" && !key.starts_with("on"), "<{tag}>");
        }
        assets.extend(["src", "href"].iter().filter_map(|key| attribute(tag, key)));
    }
    assert!(scripts > 0, "the page has a script");
    for path in assets {
        assert!(!path.starts_with('/') && !path.contains(':'), "{path} is not relative");
        let asset = get(&falconet, &format!("/{path}"), "");
        assert_eq!(status_of(&asset), 200, "{path}");
        for (name, value) in
            [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "same-origin")]
        {
            assert_eq!(header_of(&asset, name), Some(value), "{path}");
        }
        let body = body_of(&asset).replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for foreign in ["http://", "https://", "ws://", "wss://", "url(//", "@import"] {
            assert!(!body.contains(foreign), "{path} has {foreign}");
        }
    }
}

#[test]
fn c31_the_scripts_insert_text_only_and_use_the_address_of_the_page() {
    let falconet = Falconet::start(&[]);
    let page = get(&falconet, "/", "");
    let scripts = body_of(&page).split("<script").skip(1).filter_map(|tag| attribute(tag, "src"));
    let script: String =
        scripts.map(|path| body_of(&get(&falconet, &format!("/{path}"), "")).to_owned()).collect();
    for (part, there) in [
        ("new WebSocket(", true),
        ("location", true),
        ("textContent", true),
        ("Math.random()", true),
        ("innerHTML", false),
        ("outerHTML", false),
        ("insertAdjacentHTML", false),
        ("document.write", false),
        ("eval(", false),
        ("localhost", false),
    ] {
        assert_eq!(script.contains(part), there, "{part}");
    }
}

#[test]
fn c33_the_defaults_are_those_of_the_article() {
    let config = default_config();
    for line in [
        "broadcast-every = 15s",
        "close-timeout = 2500ms",
        "write-timeout = 10s",
        "ping-every = 30s",
        "idle-timeout = 75s",
        "head-timeout = 5s",
        "max-message = 64k",
        "max-head = 16k",
        "max-connections = 10000",
    ] {
        assert!(config.lines().any(|there| there == line), "{line} is not in\n{config}");
    }
}

/// Connects a client of another implementation.
fn real_client(falconet: &Falconet) -> WebSocket<TcpStream> {
    tungstenite::client("ws://localhost/", connect(falconet.address())).expect("a handshake").0
}

fn get(falconet: &Falconet, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    exchange(falconet.address(), request)
}

fn assert_page(address: SocketAddr) {
    let answer = exchange(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status_of(&answer), 200, "{address}");
}

fn upgrade(headers: &str, version: &str, key: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\
         Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
}

fn default_config() -> String {
    let output = Falconet::command().arg("--print-config").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Messages that are sent without reading the echoes, until a write blocks or fails.
struct Flood {
    messages: u8,
    /// The unsent part of the last message.
    rest: Vec<u8>,
}

/// The reason for the end of a flood.
#[derive(PartialEq, Eq)]
enum Stuck {
    Blocked,
    Closed,
}

impl Flood {
    /// Prepares `stream`: with small kernel buffers the server blocks sooner.
    fn start(stream: &TcpStream) -> Self {
        sockopt::set_socket_recv_buffer_size(stream, 32 * 1024).unwrap();
        sockopt::set_socket_send_buffer_size(stream, 32 * 1024).unwrap();
        Self { messages: 0, rest: Vec::new() }
    }

    fn payload(number: u8) -> Vec<u8> {
        vec![number; 60_000]
    }

    /// Sends until a write blocks for half a second or fails.
    fn push(&mut self, mut stream: &TcpStream) -> Stuck {
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let end = loop {
            if self.rest.is_empty() {
                assert!(
                    self.messages < u8::MAX,
                    "the server keeps reading from a client that does not read"
                );
                self.rest = masked(true, BINARY, &Self::payload(self.messages));
                self.messages += 1;
            }
            match stream.write(&self.rest) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Stuck::Blocked,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break Stuck::Closed,
            }
        };
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        end
    }
}

/// Returns the attributes of a tag, with their values.
fn attributes(tag: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = tag.split_once(char::is_whitespace).map_or("", |(_, rest)| rest).trim();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix("=\"") {
            Some(after) => after.split_once('"').expect("quotes close"),
            None => ("", after),
        };
        found.push((key, value));
        rest = after.trim_start();
    }
    found
}

fn attribute<'t>(tag: &'t str, name: &str) -> Option<&'t str> {
    let tag = tag.split('>').next().unwrap_or_default();
    attributes(tag).into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
