//! The administrator's listener: health, metrics, clients, topics, the dashboard and the access log.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use falconet::log::LogFormat;
use falconet::net::ListenUrl;
use falconet::{Action, Denied, Echo, Origins, RequestHead, Server, Session, SessionEnd};
use rustix::net::sockopt;
use rustix::process::Signal;

use crate::support::access::bearer;
use crate::support::admin::*;
use crate::support::command::assert_refused;
use crate::support::folder::Folder;
use crate::support::*;

// Listeners.

#[test]
fn a_public_listener_does_not_serve_the_administrators_urls() {
    let (falconet, _) = start(&[NO_BROADCAST, &["--reject", "respond"]].concat());
    let mut bystander = Client::connect(falconet.address());
    for path in [
        "/metrics",
        "/healthz",
        "/readyz",
        "/clients",
        "/clients/1",
        "/clients?client=x",
        "/broadcast",
        "/drain",
        "/events",
        "/admin.html",
        "/topics/%00stats",
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE", "PUT"] {
            let answer = fetch(falconet.address(), request(method, path, "", ""));
            assert_eq!(answer.status(), 404, "{method} {path}");
        }
        let lines = "Accept: text/event-stream\r\n";
        let answer = fetch(falconet.address(), request("GET", path, lines, ""));
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(status_of(&exchange(falconet.address(), handshake(path))), 404, "{path}");
    }
    bystander.echo("still here");
}

#[test]
fn the_administrators_listener_does_not_serve_public_urls() {
    let (_falconet, admin) = start(NO_BROADCAST);
    for path in ["/app.js", "/style.css", "/anything", "/topics/a/", "/topicsa", "/clients/"] {
        assert_eq!(fetch(admin, get(path)).status(), 404, "{path}");
    }
    // A server may ignore a request for an upgrade (RFC 9110 §7.8).
    for (path, status) in [("/", 200), ("/events", 200), ("/topics/a", 404)] {
        let head = handshake(path).replace("Connection: Upgrade", "Connection: Upgrade, close");
        let mut stream = connect(admin);
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(status_of(&read_response_head(&mut stream)), status, "{path}");
    }
    for (method, path, allow) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("PUT", "/readyz", "GET, HEAD"),
        ("POST", "/topics/a", "GET, HEAD"),
        ("DELETE", "/topics/a", "GET, HEAD"),
        ("POST", "/topics/", "GET, HEAD"),
        ("GET", "/broadcast", "POST"),
        ("GET", "/drain", "POST"),
        ("POST", "/events", "GET"),
        ("PUT", "/clients", "GET, HEAD, DELETE"),
        ("GET", "/clients/1", "DELETE, POST"),
    ] {
        let allow = format!("{allow}, OPTIONS");
        for (method, status) in [(method, 405), ("OPTIONS", 204)] {
            let answer = fetch(admin, request(method, path, "", ""));
            let answered = (answer.status(), answer.header("Allow"));
            assert_eq!(answered, (status, Some(&*allow)), "{method} {path}");
        }
    }
}

#[test]
fn an_administrators_url_that_other_hosts_can_reach_is_refused() {
    for url in ["http://0.0.0.0:0", "http://[::]:0", "http://192.0.2.1:0"] {
        let mut command = Falconet::command();
        command.args(["--listen", "http://127.0.0.1:0", "--admin", url, "--check-config"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(&format!("admin `{url}`: expected unix:PATH or a loop")), "{text}");
        let public = "http://127.0.0.1:0".parse().unwrap();
        let refused = Server::builder().admin(url.parse().unwrap()).bind([&public]);
        let error = refused.err().unwrap().to_string();
        assert!(error.contains(url) && error.contains("expected unix:PATH"), "{error}");
    }
}

#[test]
fn the_administrators_listener_may_be_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("falconet-admin-{}", std::process::id()));
    let url = format!("unix:{}", path.display());
    let mut falconet = Falconet::start(&[&["--admin", &url], NO_BROADCAST].concat());
    falconet.wait_for_line(&format!("administration on {url}"));
    let fetch = |request: Vec<u8>| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let close = "Connection: close\r\n";
    assert_eq!(body_of(&fetch(request("GET", "/healthz", close, ""))), "ok\n");
    assert_eq!(status_of(&fetch(request("POST", "/drain", close, ""))), 202);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn every_request_of_the_administrator_is_authorized() {
    let keyed = |head: &RequestHead<'_>| {
        let requested = head.path().to_owned();
        let has_key = head.single("x-key") == Some(b"right");
        Ok(move |action: Action<'_>| match action {
            Action::Admin(path) if path != requested => Err(Denied::Forbidden),
            Action::Admin(_) if !has_key => Err(Denied::Unauthenticated("Key")),
            _ => Ok(()),
        })
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let url = "http://127.0.0.1:0".parse().unwrap();
        let mut origins = Origins::default();
        origins.add(TEST_ORIGIN).unwrap();
        let server = Server::builder().origins(origins).endpoint("/", Echo).authorize(keyed);
        let server = server.admin("http://127.0.0.1:0".parse().unwrap()).bind([&url]).unwrap();
        sender.send((server.admin_url().unwrap().to_string(), server.stopper())).unwrap();
        server.run()
    });
    let (url, stopper) = receiver.recv_timeout(TIMEOUT).unwrap();
    let admin = url.trim_start_matches("http://").parse().unwrap();
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/clients", 200),
        ("GET", "/topics/", 200),
        ("DELETE", "/clients/7", 404),
        ("POST", "/broadcast", 202),
        ("GET", "/nowhere", 404),
    ] {
        assert_eq!(fetch(admin, request(method, path, "", "")).status(), 401, "{path}");
        let lines = "X-Key: right\r\n";
        assert_eq!(fetch(admin, request(method, path, lines, "")).status(), status, "{path}");
    }
    stopper.stop();
    thread.join().unwrap().unwrap();
}

#[cfg(feature = "full")]
#[test]
fn with_tokens_the_administrators_listener_may_be_public() {
    let file = std::env::temp_dir().join(format!("falconet-admin-tokens-{}", std::process::id()));
    std::fs::write(&file, "reader subscribe\nmanager admin\n").unwrap();
    let path = file.display().to_string();
    let flags = ["--admin", "http://0.0.0.0:0", "--token-file", &path];
    let falconet = Falconet::start(&flags);
    let port = admin_address(&falconet).port();
    for (lines, status) in [
        ("", 401),
        ("Authorization: Bearer unknown\r\n", 401),
        ("Authorization: Bearer reader\r\n", 403),
        ("Authorization: Bearer manager\r\n", 200),
    ] {
        let answer = fetch(([127, 0, 0, 1], port).into(), request("GET", "/clients", lines, ""));
        assert_eq!(answer.status(), status, "{lines}");
    }
    std::fs::remove_file(&file).unwrap();
}

#[cfg(feature = "full")]
#[test]
fn the_administrators_listener_may_have_tokens_of_its_own() {
    let folder = Folder::new("admin-own-tokens");
    let own = folder.write("own", "manager admin\nreader subscribe\n");
    let public = folder.write("public", "client\nboth admin\n");
    let ask = |address, token: &str, path| {
        fetch(address, request("GET", path, &bearer(token), "")).status()
    };
    for (url, more, public_status) in [
        ("http://127.0.0.1:0", &[][..], 200),
        ("http://0.0.0.0:0", &[], 200),
        ("http://127.0.0.1:0", &["--token-file", &public], 401),
    ] {
        let flags = ["--admin", url, "--admin-token-file", &own];
        let falconet = Falconet::start(&[&flags[..], more].concat());
        let admin = ([127, 0, 0, 1], admin_address(&falconet).port()).into();
        for (token, status) in [("manager", 200), ("reader", 403), ("client", 401), ("both", 401)] {
            assert_eq!(ask(admin, token, "/clients"), status, "{flags:?} {token}");
        }
        assert_eq!(fetch(admin, get("/clients")).status(), 401);
        assert_eq!(fetch(falconet.address(), get("/")).status(), public_status);
        // A token of the administrator opens nothing else.
        assert_eq!(ask(falconet.address(), "manager", "/"), public_status);
        assert_eq!(ask(falconet.address(), "client", "/"), 200);
    }
}

#[cfg(feature = "full")]
#[test]
fn a_token_file_for_no_administrator_is_refused() {
    let folder = Folder::new("admin-no-listener");
    let tokens = folder.write("tokens", "manager admin\n");
    let mut command = Falconet::command();
    command.args(["--check-config", "--admin-token-file", &tokens]);
    assert_refused(&mut command, 78, &["admin-token-file `", "expected admin as well"]);
    folder.write("tokens", "manager all-of-it\n");
    command.args(["--admin", "http://127.0.0.1:0"]);
    assert_refused(&mut command, 78, &["admin-token-file `", "tokens:1: expected second"]);
}

#[test]
fn the_administrator_has_a_connection_limit_of_its_own() {
    let (falconet, admin) = start(&[NO_BROADCAST, &["--max-connections", "1"]].concat());
    let inside = fill(falconet.address());
    assert_eq!(status_of(&exchange(falconet.address(), get("/"))), 503);
    let mut held: Vec<Http> = (0..8).map(|_| Http::connect(admin)).collect();
    held.extend((0..8).map(|_| Http::connect_from([127, 0, 0, 2], admin)));
    for connection in &mut held {
        assert_eq!(connection.fetch(get("/healthz")).status(), 200);
    }
    // The administrator's connections are limited, too.
    assert_eq!(Http::connect_from([127, 0, 0, 3], admin).fetch(get("/healthz")).status(), 503);
    let page = Metrics::of(&held[0].fetch(get("/metrics")));
    assert_eq!(page.value("falconet_connections", "admin"), 16.0);
    assert_eq!(page.value("falconet_connections", "websocket"), inside.len() as f64);
    assert_eq!(page.value("falconet_connections", "http"), 0.0);
    assert_eq!(page.value("falconet_connections_rejected_total", "connections"), 1.0);
    assert_eq!(page.total("falconet_connections_accepted_total"), inside.len() as f64);
}

#[test]
fn one_address_has_at_most_half_of_the_administrators_connections() {
    let (_falconet, admin) = start(NO_BROADCAST);
    let mut held: Vec<Http> = (0..8).map(|_| Http::connect(admin)).collect();
    for connection in &mut held {
        assert_eq!(connection.fetch(get("/healthz")).status(), 200);
    }
    let refused = Http::connect(admin).fetch(get("/healthz"));
    assert!(refused.status() == 503 && refused.closes(), "{}", refused.head);
    let mut other = Http::connect_from([127, 0, 0, 2], admin);
    assert_eq!(other.fetch(get("/healthz")).status(), 200);
    held.truncate(7);
    wait_until("there is room again", || {
        Http::connect(admin).fetch(get("/healthz")).status() == 200
    });
}

#[cfg(feature = "full")]
#[test]
fn a_unix_socket_gives_all_of_the_administrators_connections() {
    let folder = Folder::new("admin-places");
    let url = format!("unix:{}", folder.file("socket").display());
    let _falconet = Falconet::start(&["--admin", &url]);
    let connect = || {
        let mut stream = UnixStream::connect(folder.file("socket")).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(&get("/healthz")).unwrap();
        let status = status_of(&read_response_head(&mut stream));
        (stream, status)
    };
    let held: Vec<_> = (0..16).map(|_| connect()).collect();
    assert!(held.iter().all(|(_, status)| *status == 200));
    assert_eq!(connect().1, 503);
}

#[cfg(feature = "full")]
#[test]
fn a_refused_request_to_the_administrators_listener_ends_its_connection() {
    let folder = Folder::new("admin-refusals");
    let file = folder.write("tokens", "reader subscribe\nmanager admin\n");
    let (_falconet, admin) = start(&["--token-file", &file]);
    let manager = bearer("manager");
    for (method, path, lines, status) in [
        ("GET", "/clients", "", 401),
        ("GET", "/nowhere", "", 401),
        ("POST", "/drain", "", 401),
        ("OPTIONS", "*", "", 204),
        ("OPTIONS", "/", "", 401),
        ("GET", "/clients", &*bearer("reader"), 403),
        ("GET", "/clients", &*format!("{manager}Origin: http://evil.example\r\n"), 403),
    ] {
        let mut http = Http::connect(admin);
        let answer = http.fetch(request(method, path, lines, ""));
        assert_eq!((answer.status(), answer.closes()), (status, true), "{method} {path} {lines}");
        http.assert_ended();
    }
    // An error of the administrator is no refusal.
    let mut http = Http::connect(admin);
    for (path, status) in [("/nowhere", 404), ("/clients/7", 405), ("/clients", 200)] {
        let answer = http.fetch(request("GET", path, &manager, ""));
        assert_eq!((answer.status(), answer.closes()), (status, false), "{path}");
    }
}

#[cfg(feature = "full")]
#[test]
fn refused_requests_do_not_keep_the_administrator_out() {
    let folder = Folder::new("admin-locked");
    let file = folder.write("tokens", "manager admin\n");
    let (_falconet, admin) = start(&["--token-file", &file]);
    // All strangers of two addresses read their refusal, and do not close their connection.
    let sources = [[127, 0, 0, 1], [127, 0, 0, 2]].into_iter().flat_map(|source| [source; 8]);
    let _strangers: Vec<Http> = sources
        .map(|source| {
            let mut stranger = Http::connect_from(source, admin);
            assert_eq!(stranger.fetch(get("/clients")).status(), 401);
            stranger
        })
        .collect();
    let metrics = request("GET", "/metrics", &bearer("manager"), "");
    // Even from the address of strangers.
    wait_until("the administrator is admitted", || fetch(admin, &metrics).status() == 200);
}

#[test]
fn the_administrator_gets_a_response_when_refused_requests_are_dropped() {
    let (falconet, admin) = start(&[NO_BROADCAST, &["--reject", "drop"]].concat());
    assert_eq!(exchange(falconet.address(), get("/nowhere")), "");
    assert_eq!(fetch(admin, get("/nowhere")).status(), 404);
    assert_eq!(status_of(&exchange(admin, "GET / HTTP/1.1\r\n\r\n")), 400);
}

// Health and drain.

#[test]
fn a_draining_server_is_healthy_but_not_ready() {
    let (mut falconet, admin) = start(&[NO_BROADCAST, &["--close-timeout", "1h"]].concat());
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        assert_eq!(read(admin, path), text);
    }
    // This client does not answer the Close, which keeps the drain waiting.
    let mut client = Client::connect(falconet.address());
    client.echo("here");
    let mut watcher = Events::connect(admin, "/events", "");
    assert_eq!(field(&watcher.read().data, "draining"), "false");
    let mut early = Http::connect(admin);
    let answer = early.fetch(post("/drain", ""));
    assert_eq!((answer.status(), answer.text()), (202, "draining\n"));
    assert_eq!(client.read().close_code(), 1001);
    for connection in [&mut early, &mut Http::connect(admin)] {
        let answer = connection.fetch(get("/readyz"));
        assert_eq!((answer.status(), answer.text()), (503, "draining\n"));
        assert_eq!(connection.fetch(get("/healthz")).status(), 200);
        let page = Metrics::of(&connection.fetch(get("/metrics")));
        assert_eq!(page.value("falconet_connections", "websocket"), 1.0);
    }
    // Open and new streams of statistics continue during the drain.
    for watcher in [&mut watcher, &mut Events::connect(admin, "/events", "")] {
        let stats =
            (0..3).map(|_| watcher.read().data).find(|data| field(data, "draining") == "true");
        let stats = stats.expect("statistics of the drain within three events");
        assert!(stats.contains(r#"{"websocket":1,"#), "{stats}");
    }
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    early.assert_ended();
    read_to_end(&mut watcher);
}

#[test]
fn a_drain_ends_the_server_as_a_signal_does() {
    let (mut falconet, admin) = start(NO_BROADCAST);
    let mut client = Client::connect(falconet.address());
    let mut watcher = Events::connect(admin, "/events", "");
    watcher.read();
    assert_eq!(fetch(admin, post("/drain", "")).status(), 202);
    assert_eq!(client.read().close_code(), 1001);
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    read_to_end(&mut watcher);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

// Metrics.

#[cfg(feature = "full")]
#[test]
fn the_metrics_have_the_format_of_prometheus() {
    let (falconet, admin) = start(&[]);
    let mut client = Client::connect_to(falconet.address(), "/topics/a");
    client.send(true, TEXT, "x");
    client.read();
    fetch(falconet.address(), get("/"));
    let mut kept = Http::connect(admin);
    let answer = kept.fetch(get("/metrics"));
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = Metrics::of(&answer);
    for (name, kind) in [
        ("falconet_connections", "gauge"),
        ("falconet_connections_accepted_total", "counter"),
        ("falconet_connections_rejected_total", "counter"),
        ("falconet_requests_refused_total", "counter"),
        ("falconet_requests_total", "counter"),
        ("falconet_messages_received_total", "counter"),
        ("falconet_messages_sent_total", "counter"),
        ("falconet_received_bytes_total", "counter"),
        ("falconet_sent_bytes_total", "counter"),
        ("falconet_messages_lagged_total", "counter"),
        ("falconet_sessions_closed_total", "counter"),
        ("falconet_clients_swept_total", "counter"),
        ("falconet_messages_published_total", "counter"),
        ("falconet_loop_lag_seconds", "histogram"),
        ("falconet_topics", "gauge"),
        ("falconet_topic_log_bytes", "gauge"),
        ("falconet_panics_total", "counter"),
        ("falconet_log_lines_dropped_total", "counter"),
        ("falconet_build_info", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_max_fds", "gauge"),
        ("process_start_time_seconds", "gauge"),
    ] {
        assert_eq!(page.kind(name), kind, "{name}");
    }
    check_by_promtool(answer.text());
    assert_eq!(page.value("falconet_build_info", env!("CARGO_PKG_VERSION")), 1.0);
    wait_until("the number of open descriptors is right", || {
        // Another connection may be closing at this moment.
        let page = Metrics::of(&kept.fetch(get("/metrics")));
        page.total("process_open_fds") == falconet.open_files() as f64
    });
    let resident = page.total("process_resident_memory_bytes");
    assert!(resident > 500_000.0 && resident < 100_000_000.0, "{resident}");
    let cpu = page.total("process_cpu_seconds_total");
    assert!(cpu >= 0.0 && cpu <= falconet.cpu_time().as_secs_f64(), "{cpu}");
    let started = std::time::SystemTime::UNIX_EPOCH
        + Duration::from_secs_f64(page.total("process_start_time_seconds"));
    assert!(started.elapsed().unwrap_or_default() < Duration::from_secs(60));
    assert!(page.total("process_max_fds") > 32.0);
}

/// Checks a page with Prometheus's own tool, if it is installed.
fn check_by_promtool(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = spawned else {
        eprintln!("skipped: no promtool");
        return;
    };
    // The tool reads its whole input before it prints anything.
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_metrics_parser_of_these_tests_is_strict() {
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"\\\\\\\"\\n\"} 1\n";
    Metrics::parse(good).unwrap();
    for (wrong, right) in [
        ("# HELP a_total A.\n", ""),
        ("# TYPE a_total counter\n", ""),
        ("counter\na", "gauge\na"),
        ("a_total{", "b_total{"),
        ("x=", "0x="),
        ("\\n\"}", "\\t\"}"),
        ("\\n\"}", "\n\"}"),
        ("} 1\n", "} one\n"),
        ("} 1\n", "} 1"),
        ("} 1\n", "} 1\n\n"),
        ("} 1\n", "}1\n"),
        ("} 1\n", "} 1\na_total{x=\"\\\\\\\"\\n\"} 2\n"),
        ("} 1\n", "} 1\n# HELP a_total A.\n# TYPE a_total counter\na_total 1\n"),
    ] {
        let page = good.replace(wrong, right);
        assert_ne!(page, good);
        assert!(Metrics::parse(&page).is_err(), "{page}");
    }
    let histogram = "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n";
    Metrics::parse(histogram).unwrap();
    for (right, wrong) in [
        ("} 2", "} 4"),
        ("le=\"1\"", "le=\"+Inf\""),
        ("h_count 3", "h_count 2"),
        ("h_sum 4\n", ""),
        ("h_bucket{le=\"+Inf\"} 3\n", ""),
    ] {
        assert!(Metrics::parse(&histogram.replace(right, wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn echoed_messages_are_counted() {
    let (falconet, admin) = start(&[NO_BROADCAST, &["--ping-every", "200ms"]].concat());
    let mut client = Client::connect(falconet.address());
    let before = Metrics::read(admin);
    for text in ["one", "two", "three"] {
        client.echo(text);
    }
    // Control frames in either direction are not messages.
    client.send(true, PING, "p");
    assert_eq!(client.read().opcode, PONG);
    assert_eq!(client.read().opcode, PING);
    let after = Metrics::read(admin);
    let grown = |name| after.total(name) - before.total(name);
    assert_eq!(grown("falconet_messages_received_total"), 3.0);
    assert_eq!(grown("falconet_messages_sent_total"), 3.0);
    // At least the masked messages and the ping, and not much more.
    assert!(grown("falconet_received_bytes_total") >= 3.0 * 6.0 + 11.0 + 7.0);
    assert!(grown("falconet_received_bytes_total") < 1000.0);
    assert!(grown("falconet_sent_bytes_total") >= 3.0 * 2.0 + 11.0 + 3.0);
    assert!(grown("falconet_loop_lag_seconds_count") >= 3.0);
    let line = &clients(admin)[0];
    assert_eq!((number(line, "received"), number(line, "sent")), (3.0, 3.0), "{line}");
}

#[cfg(feature = "full")]
#[test]
fn connections_and_requests_are_counted_by_their_outcome() {
    let (falconet, admin) = start(&[NO_BROADCAST, &["--head-timeout", "300ms"]].concat());
    let address = falconet.address();
    let client = Client::connect(address);
    let events = Events::connect(address, "/topics/a", "");
    let mut kept = Http::connect(address);
    assert_eq!(kept.fetch(get("/")).status(), 200);
    let page = Metrics::read(admin);
    for (kind, count) in [("http", 1.0), ("websocket", 1.0), ("events", 1.0), ("admin", 1.0)] {
        assert_eq!(page.value("falconet_connections", kind), count, "{kind}");
    }
    assert_eq!(page.total("falconet_connections_accepted_total"), 3.0);
    for (class, count) in [("1xx", 1.0), ("2xx", 2.0), ("4xx", 0.0)] {
        assert_eq!(page.value("falconet_requests_total", class), count, "{class}");
    }
    assert_eq!(fetch(address, get("/nowhere")).status(), 404);
    exchange(address, "no request\r\n\r\n");
    connect(address).read_to_end(&mut Vec::new()).unwrap();
    drop((client, events));
    wait_until("both clients are disconnected", || clients(admin).is_empty());
    let page = Metrics::read(admin);
    // The administrator's requests are not counted.
    assert_eq!(page.value("falconet_requests_total", "2xx"), 2.0);
    assert_eq!(page.value("falconet_requests_total", "4xx"), 1.0);
    assert_eq!(page.value("falconet_connections_rejected_total", "head"), 1.0);
    assert_eq!(page.value("falconet_connections_rejected_total", "timeout"), 1.0);
    assert_eq!(page.value("falconet_sessions_closed_total", "websocket 1006"), 1.0);
    assert_eq!(page.value("falconet_connections", "websocket"), 0.0);
    assert_eq!(page.value("falconet_connections", "events"), 0.0);
}

#[cfg(feature = "full")]
#[test]
fn refused_requests_are_counted_by_their_reason() {
    let folder = Folder::new("refused");
    let file = folder.write("tokens", "reader subscribe\nall-of-it\n");
    let limits = ["--max-publish-rate", "1", "--max-per-address", "1"];
    let flags = ["--token-file", &file, "--trust-proxy", "127.0.0.1"];
    let (falconet, admin) = start(&[NO_BROADCAST, &flags, &limits].concat());
    let address = falconet.address();
    let fetch = |method, lines: &str| {
        let status = fetch(address, request(method, "/topics/a", lines, "")).status();
        let page = Metrics::read_as(admin, "all-of-it");
        let reasons =
            ["host", "origin", "proxy", "address", "unauthenticated", "forbidden", "rate"];
        let counts = reasons.map(|why| page.value("falconet_requests_refused_total", why));
        (status, counts.map(|count| count as u32))
    };
    let [reader, all] =
        ["reader", "all-of-it"].map(|token| format!("Authorization: Bearer {token}\r\n"));
    let evil = "Origin: http://evil.example\r\n";
    assert_eq!(fetch("GET", &format!("{all}{evil}")), (403, [0, 1, 0, 0, 0, 0, 0]));
    let unclear = format!("{all}Forwarded: for=\"\r\n");
    assert_eq!(fetch("GET", &unclear), (400, [0, 1, 1, 0, 0, 0, 0]));
    assert_eq!(fetch("GET", ""), (401, [0, 1, 1, 0, 1, 0, 0]));
    assert_eq!(fetch("POST", &reader), (403, [0, 1, 1, 0, 1, 1, 0]));
    // A subscription that may not publish is not a refusal.
    exchange(address, handshake_with("/topics/a", &reader));
    let mut publisher = Http::connect(address);
    let publish = request("POST", "/topics/a", &all, "x");
    wait_until("the rate is exceeded", || publisher.fetch(&publish).status() == 429);
    let client = format!("{all}X-Forwarded-For: 192.0.2.1\r\n");
    let held = Events::connect(address, "/topics/a", &client);
    assert_eq!(fetch("GET", &client), (503, [0, 1, 1, 1, 1, 1, 1]));
    drop(held);
    let rebound = "GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n";
    assert_eq!(status_of(&exchange(address, rebound)), 403);
    // Neither a method that is not allowed nor a request to the administrator's listener counts as a refusal.
    assert_eq!(fetch("PATCH", &all).1, [1, 1, 1, 1, 1, 1, 1]);
    let answer = exchange(admin, request("GET", "/metrics", "", ""));
    assert_eq!(status_of(&answer), 401);
    let page = Metrics::read_as(admin, "all-of-it");
    assert_eq!(page.value("falconet_requests_refused_total", "unauthenticated"), 1.0);
}

#[cfg(feature = "full")]
#[test]
fn connections_without_a_proxy_header_are_counted() {
    let proxy = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--head-timeout", "100ms"];
    let (falconet, admin) = start(&[NO_BROADCAST, &proxy, &["--max-per-address", "1"]].concat());
    let rejected = |why| Metrics::read(admin).value("falconet_connections_rejected_total", why);
    assert_eq!(exchange(falconet.address(), get("/")), "");
    assert_eq!(rejected("proxy"), 1.0);
    let mut late = Http::connect(falconet.address());
    late.send("PROXY TCP4 192.0");
    late.assert_ended();
    assert_eq!(rejected("proxy"), 2.0);
    // A connection that closes without a byte, as port scanners do, is not counted.
    drop(connect(falconet.address()));
    let header = "PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    let mut held = Http::connect(falconet.address());
    held.send(header);
    assert_eq!(held.fetch(get("/")).status(), 200);
    assert_eq!(status_of(&exchange(falconet.address(), header)), 503);
    assert_eq!((rejected("proxy"), rejected("address")), (2.0, 1.0));
}

#[test]
fn sessions_are_counted_by_the_code_they_closed_with() {
    let (falconet, admin) = start(NO_BROADCAST);
    for (code, label) in [
        (1000_u16, "websocket 1000"),
        (1001, "websocket 1001"),
        (3999, "websocket other"),
        (4000, "websocket other"),
    ] {
        let before = Metrics::read(admin).value("falconet_sessions_closed_total", label);
        let mut client = Client::connect(falconet.address());
        client.send(true, CLOSE, code.to_be_bytes());
        assert_eq!(client.read_to_close(), Some(code));
        wait_until("the close is counted", || {
            Metrics::read(admin).value("falconet_sessions_closed_total", label) == before + 1.0
        });
    }
}

#[cfg(feature = "full")]
#[test]
fn event_streams_are_counted_by_the_code_of_their_end() {
    let idle = ["--ping-every", "100ms", "--idle-timeout", "300ms", "--write-timeout", "200ms"];
    let flags = [NO_BROADCAST, &idle, &["--close-timeout", "1h"]].concat();
    let (falconet, admin) = start(&flags);
    let subscribe = |path| Events::connect(falconet.address(), path, "");
    let ended = |code: &str| {
        let labels = format!("events {code}");
        Metrics::read(admin).value("falconet_sessions_closed_total", &labels)
    };
    drop(subscribe("/topics/a"));
    wait_until("the close is counted", || ended("1006") == 1.0);
    let mut evicted = subscribe("/topics/a");
    assert_eq!(fetch(admin, request("DELETE", "/clients/2", "", "")).status(), 200);
    read_to_end(&mut evicted);
    wait_until("the eviction is counted", || ended("1008") == 1.0);
    // A subscriber that reads nothing is swept.
    let stuck = subscribe("/topics/b");
    let mut publisher = Http::connect(falconet.address());
    let payload = "x".repeat(60_000);
    wait_until("the subscriber is swept", || {
        assert_eq!(publisher.fetch(post("/topics/b", &payload)).status(), 202);
        Metrics::read(admin).total("falconet_clients_swept_total") == 1.0
    });
    wait_until("the close is counted", || ended("1008") == 2.0);
    drop(stuck);
    // The administrator's own streams are not counted.
    drop(Events::connect(admin, "/events", ""));
    let mut client = Client::connect(falconet.address());
    let mut draining = subscribe("/topics/a");
    assert_eq!(fetch(admin, post("/drain", "")).status(), 202);
    read_to_end(&mut draining);
    assert_eq!(client.read().close_code(), 1001);
    wait_until("the end by the drain is counted", || ended("1001") == 1.0);
    assert_eq!((ended("1006"), ended("1008")), (1.0, 2.0));
    let page = Metrics::read(admin);
    assert_eq!(page.value("falconet_sessions_closed_total", "websocket 1008"), 0.0);
}

#[cfg(feature = "full")]
#[test]
fn published_messages_are_counted_by_their_source() {
    let mut command = Falconet::command();
    command.args(["--listen", "http://127.0.0.1:0", "--admin", "http://127.0.0.1:0"]);
    command.args(["--broadcast-every", "50ms", "--stdin", "fed"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let falconet = Falconet::start_with_stdin(&mut command, reader);
    let admin = admin_address(&falconet);
    let mut client = Client::connect_to(falconet.address(), "/topics/a");
    for _ in 0..2 {
        client.send(true, TEXT, "x");
        client.read();
    }
    for _ in 0..3 {
        assert_eq!(fetch(falconet.address(), post("/topics/a", "x")).status(), 202);
    }
    for _ in 0..4 {
        assert_eq!(fetch(admin, post("/broadcast", "x")).status(), 202);
    }
    writer.write_all(b"1\n2\n3\n4\n5\n").unwrap();
    // The server publishes the time only while a client is connected.
    let mut subscriber = Client::connect(falconet.address());
    for _ in 0..6 {
        subscriber.read();
    }
    let of = |source| Metrics::read(admin).value("falconet_messages_published_total", source);
    assert_eq!((of("websocket"), of("http"), of("admin")), (2.0, 3.0, 4.0));
    wait_until("the lines are published", || of("stdin") == 5.0);
    assert!(of("service") >= 6.0);
}

#[test]
fn suppressed_log_lines_are_counted() {
    let (falconet, admin) = start(NO_BROADCAST);
    assert_eq!(Metrics::read(admin).total("falconet_log_lines_dropped_total"), 0.0);
    // Ten lines a second are logged.
    let (mut sent, mut dropped) = (0.0, 0.0);
    wait_until("a log line is dropped", || {
        fetch(falconet.address(), get("/nowhere"));
        sent += 1.0;
        dropped = Metrics::read(admin).total("falconet_log_lines_dropped_total");
        dropped >= 1.0
    });
    let logged = falconet.log_so_far().iter().filter(|line| line.contains("/nowhere")).count();
    assert!(logged as f64 + dropped <= sent, "{logged} and {dropped} of {sent}");
    assert_eq!(Metrics::read(admin).total("falconet_panics_total"), 0.0);
}

#[test]
fn a_silent_client_is_swept_and_counted() {
    let flags = ["--ping-every", "200ms", "--idle-timeout", "1s"];
    let (falconet, admin) = start(&[NO_BROADCAST, &flags].concat());
    let mut client = Client::connect(falconet.address());
    assert_eq!(client.read_to_close(), Some(1008));
    let page = Metrics::read(admin);
    assert_eq!(page.total("falconet_clients_swept_total"), 1.0);
    assert_eq!(page.value("falconet_sessions_closed_total", "websocket 1008"), 1.0);
}

#[cfg(feature = "full")]
#[test]
fn a_client_closed_for_reading_too_slowly_is_counted() {
    let limits = ["--slow-consumer", "close", "--log-messages", "8", "--log-bytes", "1m"];
    let (falconet, admin) = start(&[NO_BROADCAST, &limits].concat());
    let mut client = Client::connect_to(falconet.address(), "/topics/a?mode=out");
    let events = Events::connect(falconet.address(), "/topics/a", "");
    let mut publisher = Http::connect(falconet.address());
    let payload = "x".repeat(60_000);
    let is_behind = |line: &String| number(line, "behind") >= 16.0;
    wait_until("both subscribers are too far behind", || {
        assert_eq!(publisher.fetch(post("/topics/a", &payload)).status(), 202);
        clients(admin).iter().all(is_behind)
    });
    // The client receives the Close once it reads.
    assert_eq!(client.read_to_close(), Some(1008));
    let mut stream = events.into_stream();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let closed = "falconet_sessions_closed_total";
    wait_until("both closes are counted", || {
        let page = Metrics::read(admin);
        let counts = ["websocket 1008", "events 1008"].map(|labels| page.value(closed, labels));
        counts == [1.0, 1.0]
    });
    let page = Metrics::read(admin);
    assert!(page.total("falconet_messages_lagged_total") >= 16.0);
    assert_eq!(page.total("falconet_clients_swept_total"), 0.0);
}

#[cfg(feature = "full")]
#[test]
fn a_slow_client_is_listed_with_its_lag_and_its_losses() {
    let (falconet, admin) =
        start(&[NO_BROADCAST, &["--log-messages", "8", "--log-bytes", "1m"]].concat());
    let mut client = Client::connect_to(falconet.address(), "/topics/a?mode=out");
    sockopt::set_socket_recv_buffer_size(&client.stream, 65_536).unwrap();
    let payload = "x".repeat(60_000);
    let mut publisher = Http::connect(falconet.address());
    let mut published = 0;
    let behind = |admin| number(&clients(admin)[0], "behind");
    while behind(admin) < 8.0 {
        assert!(published < 500, "the client never lags");
        assert_eq!(publisher.fetch(post("/topics/a", &payload)).status(), 202);
        published += 1;
    }
    for _ in 0..8 {
        assert_eq!(publisher.fetch(post("/topics/a", &payload)).status(), 202);
    }
    // Once the last message has arrived, all losses are counted.
    assert_eq!(publisher.fetch(post("/topics/a", "last")).status(), 202);
    while client.read().payload != b"last" {}
    let line = &clients(admin)[0];
    let (lagged, sent) = (number(line, "lagged"), number(line, "sent"));
    assert!(lagged >= 8.0, "{line}");
    assert_eq!(lagged + sent, f64::from(published + 8 + 1), "{line}");
    assert_eq!(number(line, "behind"), 0.0, "{line}");
    assert_eq!(Metrics::read(admin).total("falconet_messages_lagged_total"), lagged);
}

#[cfg(feature = "full")]
#[test]
fn no_metric_contains_names_or_payloads() {
    let (falconet, admin) = start(NO_BROADCAST);
    let marker = "marker-7f3a";
    let path = format!("/topics/{marker}?client={marker}");
    let mut client = Client::connect_to(falconet.address(), &path);
    client.send(true, TEXT, marker);
    client.read();
    let line = format!("X-Request-Id: {marker}\r\nUser-Agent: {marker}\r\n");
    fetch(falconet.address(), request("POST", &path, &line, marker));
    client.read();
    client.send(true, CLOSE, [&4000_u16.to_be_bytes()[..], marker.as_bytes()].concat());
    client.read_to_close();
    fetch(admin, post("/broadcast", marker));
    fetch(admin, get(&format!("/topics/{marker}")));
    assert!(!read(admin, "/metrics").contains(marker));
}

// Clients.

#[cfg(feature = "full")]
#[test]
fn the_clients_are_listed_with_their_fields() {
    let (falconet, admin) = start(NO_BROADCAST);
    let address = falconet.address();
    let mut echo = Client::connect_to(address, "/?client=anna");
    echo.echo("x");
    let events = Events::connect(address, "/topics/a", "X-Client-Id: bert\r\n");
    let subscriber = Client::connect_to(address, "/topics/b/c");
    let publisher = Client::connect_to(address, "/topics/d?mode=in");
    // The administrator's own stream is not listed.
    let mut watcher = Events::connect(admin, "/events", "");
    watcher.read();
    let lines = clients(admin);
    let id = |line: &str| number(line, "id") as u64;
    let expected = [
        (&echo.stream, "\"anna\"", "\"websocket\"", "\"/\"", 1.0),
        (events.stream(), "\"bert\"", "\"events\"", "\"/topics/a\"", 0.0),
        (&subscriber.stream, "", "\"websocket\"", "\"/topics/b/c\"", 0.0),
        (&publisher.stream, "", "\"websocket\"", "\"/topics/d\"", 0.0),
    ];
    let topics = ["\"broadcast\"", "\"a\"", "\"b/c\"", "\"\""];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (index, (stream, correlation, kind, path, messages)) in expected.into_iter().enumerate() {
        let line = lines.iter().find(|line| id(line) == index as u64 + 1).unwrap();
        let peer = format!("\"{}\"", stream.local_addr().unwrap());
        assert_eq!(field(line, "address"), peer, "{line}");
        assert_eq!((field(line, "kind"), field(line, "path")), (kind, path), "{line}");
        assert_eq!(field(line, "topic"), topics[index], "{line}");
        let id = field(line, "correlation");
        assert!(id == correlation || (correlation.is_empty() && id.len() == 18), "{line}");
        for name in ["received", "sent"] {
            assert_eq!(number(line, name), messages, "{line}");
        }
        for name in ["lagged", "behind"] {
            assert_eq!(number(line, name), 0.0, "{line}");
        }
        for name in ["age_seconds", "last_seen_seconds"] {
            assert!((0.0..10.0).contains(&number(line, name)), "{line}");
        }
        let keys: Vec<&str> = line
            .split(",\"")
            .filter_map(|pair| pair.split('"').find(|key| !key.is_empty()))
            .collect();
        assert_eq!(
            keys,
            [
                "id",
                "correlation",
                "address",
                "kind",
                "topic",
                "path",
                "age_seconds",
                "last_seen_seconds",
                "received",
                "sent",
                "lagged",
                "behind"
            ]
        );
    }
}

#[test]
fn a_client_is_evicted_by_its_number() {
    let (falconet, admin) = start(NO_BROADCAST);
    let mut first = Client::connect(falconet.address());
    let mut second = Client::connect(falconet.address());
    let answer = fetch(admin, request("DELETE", "/clients/1", "", ""));
    assert_eq!((answer.status(), answer.text()), (200, "{\"evicted\":1}\n"));
    let close = first.read();
    assert_eq!(close.close_code(), 1008);
    assert_eq!(&close.payload[2..], b"evicted by the administrator");
    first.send(true, CLOSE, 1008_u16.to_be_bytes());
    assert_eq!(first.read_to_close(), None);
    second.echo("still here");
    wait_until("the client is disconnected", || clients(admin).len() == 1);
    for path in ["/clients/1", "/clients/3", "/clients/-1", "/clients/x", "/clients/1/2"] {
        let answer = fetch(admin, request("DELETE", path, "", ""));
        assert_eq!(answer.status(), 404, "{path}");
    }
    assert_eq!(Metrics::read(admin).value("falconet_sessions_closed_total", "websocket 1008"), 1.0);
}

#[cfg(feature = "full")]
#[test]
fn an_sse_subscriber_is_evicted_by_its_number() {
    let (falconet, admin) = start(NO_BROADCAST);
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    assert_eq!(fetch(admin, request("DELETE", "/clients/1", "", "")).status(), 200);
    assert!(events.try_read().is_none() && events.has_ended, "the end is regular");
}

#[test]
fn all_clients_of_a_user_are_evicted_by_the_correlation_id() {
    let (falconet, admin) = start(NO_BROADCAST);
    let mut annas = [(); 2].map(|()| Client::connect_to(falconet.address(), "/?client=anna"));
    let mut bert = Client::connect_to(falconet.address(), "/?client=bert");
    let delete = |path| fetch(admin, request("DELETE", path, "", ""));
    let answer = delete("/clients?client=anna");
    assert_eq!((answer.status(), answer.text()), (200, "{\"evicted\":2}\n"));
    for anna in &mut annas {
        assert_eq!(anna.read().close_code(), 1008);
    }
    bert.echo("still here");
    assert_eq!(delete("/clients?client=carl").status(), 404);
    // A request without a valid id must not evict all clients.
    for path in ["/clients", "/clients?client=", "/clients?client=a%20b", "/clients?x=anna"] {
        assert_eq!(delete(path).status(), 400, "{path}");
    }
    bert.echo("still here");
}

#[test]
fn one_client_is_sent_a_message() {
    let (falconet, admin) = start(NO_BROADCAST);
    let mut first = Client::connect(falconet.address());
    let mut second = Client::connect(falconet.address());
    let answer = fetch(admin, post("/clients/2", "only you"));
    assert_eq!((answer.status(), answer.text()), (202, "{\"sent\":1}\n"));
    assert_eq!(second.read().text(), "only you");
    assert_eq!(fetch(admin, post("/clients/2", [0xff])).status(), 202);
    assert_eq!(second.read(), Frame { fin: true, opcode: BINARY, payload: vec![0xff] });
    // The body arrives separately, because this client waits for 100 Continue.
    let mut http = Http::connect(admin);
    let lines = "Expect: 100-continue\r\n";
    let (head, body) = (request("POST", "/clients/2", lines, "late"), "late");
    http.send(&head[..head.len() - body.len()]);
    let mut go_on = [0; 25];
    http.stream().read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    http.send(body);
    assert_eq!(http.read(true).status(), 202);
    assert_eq!(second.read().text(), "late");
    first.echo("nothing for me");
    assert_eq!(fetch(admin, post("/clients/9", "x")).status(), 404);
    assert_eq!(fetch(admin, post("/clients/1", "x".repeat(65_537))).status(), 413);
    let without_length = "POST /clients/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status_of(&exchange(admin, without_length)), 411);
}

#[test]
fn every_client_is_sent_a_broadcast() {
    let (falconet, admin) = start(NO_BROADCAST);
    let mut clients = [(); 2].map(|()| Client::connect(falconet.address()));
    let answer = fetch(admin, post("/broadcast", "to everybody"));
    assert_eq!(answer.status(), 202);
    assert_eq!(number(answer.text(), "subscribers"), 2.0);
    for client in &mut clients {
        assert_eq!(client.read().text(), "to everybody");
    }
}

#[cfg(feature = "full")]
#[test]
fn the_topics_are_listed_and_read() {
    let (falconet, admin) = start(NO_BROADCAST);
    fetch(falconet.address(), post("/topics/garden/t", "21.5"));
    let listed = concat!(
        "[{\"topic\":\"broadcast\",\"id\":null,\"subscribers\":0},\n ",
        "{\"topic\":\"garden/t\",\"id\":1,\"subscribers\":0}]\n"
    );
    for path in ["/topics", "/topics/"] {
        assert_eq!(with_numbers(&read(admin, path)), listed);
    }
    let answer = fetch(admin, get("/topics/garden/t"));
    assert_eq!((answer.text(), answer.header("X-Message-Id").map(number_of)), ("21.5", Some(1)));
    assert_eq!(fetch(admin, get("/topics/garden")).status(), 404);
    let page = Metrics::read(admin);
    assert_eq!(page.total("falconet_topics"), 2.0);
    assert!(page.total("falconet_topic_log_bytes") > 4.0);
}

// The dashboard.

#[test]
fn the_dashboard_runs_nothing_but_its_own_script() {
    let (_falconet, admin) = start(NO_BROADCAST);
    let policy = |answer: &Answer| answer.header("Content-Security-Policy").unwrap().to_owned();
    let (one, other) = (fetch(admin, get("/")), fetch(admin, get("/")));
    assert_eq!(one.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(one.text().contains("<title>"));
    assert_ne!(policy(&one), policy(&other));
    let policy = policy(&one);
    for part in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(nonce.len(), 32);
    for element in ["<script", "<style"] {
        let with_nonce = format!("{element} nonce=\"{nonce}\">");
        let counts = [element, &with_nonce].map(|part| one.text().matches(part).count());
        assert_eq!(counts, [1, 1], "{element}");
    }
    assert_eq!(one.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(fetch(admin, request("HEAD", "/", "", "")).status(), 200);
}

#[cfg(feature = "full")]
#[test]
fn the_topic_of_the_statistics_does_not_count_against_the_limit() {
    let (falconet, admin) = start(&[NO_BROADCAST, &["--max-topics", "2"]].concat());
    assert_eq!(fetch(falconet.address(), post("/topics/a", "x")).status(), 202);
    let mut watcher = Events::connect(admin, "/events", "");
    watcher.read();
    assert_eq!(fetch(falconet.address(), post("/topics/a", "x")).status(), 202);
    assert_eq!(fetch(falconet.address(), post("/topics/b", "x")).status(), 503);
    fetch(falconet.address(), request("DELETE", "/topics/a", "", ""));
    assert_eq!(fetch(falconet.address(), post("/topics/b", "x")).status(), 202);
}

// The access log.

#[cfg(feature = "full")]
#[test]
fn the_end_of_a_client_is_logged_with_its_fields() {
    let (falconet, _) = start(NO_BROADCAST);
    let mut client = Client::connect_to(falconet.address(), "/?client=anna&token=secret");
    client.echo("one");
    client.echo("two");
    let peer = client.stream.local_addr().unwrap();
    client.send(true, CLOSE, 1000_u16.to_be_bytes());
    client.read_to_close();
    let line = falconet.wait_for_line("connection ended");
    let start = format!(
        "connection ended: closed by the peer with 1000 client=1 address={peer} correlation=anna \
         kind=websocket path=/ duration_ms="
    );
    assert!(line.contains(" info ") && line.contains(&start), "{line}");
    assert!(line.ends_with(" received=2 sent=2") && !line.contains("secret"), "{line}");
    drop(Events::connect(falconet.address(), "/topics/a?last=1", ""));
    let line = falconet.wait_for_line("connection ended");
    assert!(line.contains("connection ended: lost client=2 "), "{line}");
    assert!(line.contains(" kind=events path=/topics/a duration_ms="), "{line}");
    assert!(line.ends_with(" received=0 sent=0"), "{line}");
}

#[cfg(feature = "full")]
#[test]
fn the_end_of_an_http_connection_is_logged_at_debug_level() {
    let flags = ["--log-level", "debug", "--keep-alive", "300ms"];
    let (falconet, _) = start(&[NO_BROADCAST, &flags].concat());
    let mut http = Http::connect(falconet.address());
    let peer = http.stream().local_addr().unwrap();
    let first = get("/topics/");
    let second = post("/topics/a?client=anna&token=secret", "21.5");
    let answered: usize = [&first, &second]
        .map(|request| http.fetch(request))
        .iter()
        .map(|answer| answer.head.len() + answer.body.len())
        .sum();
    let requested = first.len() + second.len();
    drop(http);
    let line = falconet.wait_for_line("connection ended");
    let fields = format!(
        "connection ended: closed by the peer address={peer} correlation=anna kind=http \
         path=/topics/a request="
    );
    assert!(line.contains(" debug ") && line.contains(&fields), "{line}");
    assert!(line.contains(" requests=2 status=202 duration_ms="), "{line}");
    let bytes = format!(" received_bytes={requested} sent_bytes={answered}");
    assert!(line.ends_with(&bytes) && !line.contains("secret"), "{line}");
    // The other ways in which a connection ends.
    let close = request("GET", "/topics/", "Connection: close\r\n", "");
    let cut = [
        get("/topics/"),
        b"POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx".to_vec(),
    ];
    let wrong = [get("/topics/"), b"GET / HTTP/1.1\r\n\r\n".to_vec()];
    for (bytes, how) in [
        (close, "closed by us"),
        (get("/topics/"), "idle"),
        (wrong.concat(), "refused"),
        (cut.concat(), "lost"),
    ] {
        let mut stream = connect(falconet.address());
        stream.write_all(&bytes).unwrap();
        if how == "lost" {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        stream.read_to_end(&mut Vec::new()).unwrap();
        let line = falconet.wait_for_line("connection ended");
        assert!(line.contains(&format!("connection ended: {how} ")), "{how}: {line}");
        assert!(line.contains(" requests=1 "), "{line}");
    }
    // A connection that became a session has only the line of the session. A connection without a request has
    // no line.
    let mut http = Http::connect(falconet.address());
    http.fetch(get("/topics/"));
    http.send(handshake("/"));
    assert_eq!(http.read(true).status(), 101);
    drop(connect(falconet.address()));
    drop(http);
    let line = falconet.wait_for_line("connection ended");
    assert!(line.contains("kind=websocket"), "{line}");
    fetch(falconet.address(), get("/"));
    let line = falconet.wait_for_line("connection ended");
    assert!(line.contains("kind=http path=/ "), "{line}");
    let (quiet, _) = start(NO_BROADCAST);
    fetch(quiet.address(), get("/"));
    drop(Client::connect(quiet.address()));
    let line = quiet.wait_for_line("connection ended");
    assert!(line.contains("kind=websocket"), "{line}");
}

#[test]
fn a_client_that_is_lost_during_its_upgrade_has_one_line() {
    let (falconet, _) = start(&[NO_BROADCAST, &["--log-level", "debug"]].concat());
    let mut http = Http::connect(falconet.address());
    http.fetch(get("/"));
    // The server finds the request and the reset together, so it cannot send the response.
    falconet.signal(Signal::STOP);
    http.send(handshake("/"));
    sockopt::set_socket_linger(http.stream(), Some(Duration::ZERO)).unwrap();
    drop(http);
    falconet.signal(Signal::CONT);
    let line = falconet.wait_for_line("connection ended");
    assert!(line.contains("connection ended: lost client=1 "), "{line}");
    fetch(falconet.address(), get("/"));
    let line = falconet.wait_for_line("connection ended");
    assert!(line.contains("connection ended: closed by the peer "), "{line}");
}

#[test]
fn an_aborted_connection_is_logged() {
    let flags = ["--close-timeout", "300ms", "--log-level", "debug"];
    let (mut falconet, admin) = start(&[NO_BROADCAST, &flags].concat());
    // A client that does not answer the Close, and an idle connection.
    let mut client = Client::connect(falconet.address());
    client.echo("here");
    let mut http = Http::connect(falconet.address());
    assert_eq!(http.fetch(get("/")).status(), 200);
    assert_eq!(fetch(admin, post("/drain", "")).status(), 202);
    let line = falconet.wait_for_line("kind=http path=/ ");
    assert!(line.contains("connection ended: the server is stopping "), "{line}");
    let line = falconet.wait_for_line("kind=websocket");
    assert!(line.contains("connection ended: aborted client=1 "), "{line}");
    assert!(line.ends_with(" received=1 sent=1"), "{line}");
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

#[test]
fn a_panic_of_an_endpoint_is_counted_and_logged() {
    // Panics are counted for the whole process, so this test runs itself in another process.
    if std::env::var_os(PANICS).is_some() {
        return serve_a_panicking_endpoint();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "admin::a_panic_of_an_endpoint_is_counted_and_logged";
    command.args(["--exact", name, "--nocapture"]).env(PANICS, "1");
    let falconet = Falconet::start_with(&mut command);
    let admin = admin_address(&falconet);
    let mut bystander = Client::connect_to(falconet.address(), "/echo");
    let mut client = Client::connect(falconet.address());
    client.send(true, TEXT, "boo");
    assert_eq!(client.read_to_close(), None);
    let line = falconet.wait_for_line("connection ended");
    assert!(line.contains("connection ended: its endpoint panicked client=2 "), "{line}");
    assert!(line.ends_with(" received=1 sent=0"), "{line}");
    let page = Metrics::read(admin);
    assert_eq!(page.total("falconet_panics_total"), 1.0);
    assert_eq!(page.value("falconet_sessions_closed_total", "websocket 1006"), 1.0);
    wait_until("the client is disconnected", || clients(admin).len() == 1);
    bystander.echo("still here");
}

/// Runs a server with an endpoint that panics at its first message, and with an administrator.
fn serve_a_panicking_endpoint() {
    let process_errors = falconet::log::install(log::LevelFilter::Info, LogFormat::Text);
    let url: ListenUrl = "http://127.0.0.1:0".parse().unwrap();
    let server =
        Server::builder().process_errors(process_errors).endpoint("/echo", Echo).admin(url.clone());
    let server = server.endpoint("/", async |mut session: Session| -> SessionEnd {
        let message = session.next().await;
        panic!("the message was {message:?}")
    });
    let server = server.bind([&url]).unwrap();
    eprintln!("listening on {}/", server.urls()[0]);
    eprintln!("administration on {}", server.admin_url().unwrap());
    server.run().unwrap();
}

/// The environment variable that makes this process run the server.
const PANICS: &str = "FALCONET_TEST_PANICS";

#[test]
fn requests_that_succeed_are_not_logged() {
    let (falconet, admin) = start(NO_BROADCAST);
    read(admin, "/metrics");
    assert_eq!(fetch(admin, post("/broadcast", "x")).status(), 202);
    assert_eq!(fetch(admin, get("/none")).status(), 404);
    let line = falconet.wait_for_line("path=/none");
    assert!(line.contains(" info ") && line.contains("status=404"), "{line}");
    let log = falconet.log_so_far();
    let logged = |path: &str| log.iter().any(|line| line.contains(path));
    assert!(!logged("/metrics") && !logged("/broadcast"), "{log:#?}");
}

#[test]
fn an_allowed_origin_is_not_allowed_at_the_administrators_listener() {
    for origin in ["any", "https://partner.example"] {
        let (falconet, admin) = start(&["--origin", origin]);
        let client = Client::connect(falconet.address());
        let from = |host: &str, origin: &str| {
            format!(
                "POST /drain HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n"
            )
        };
        for (host, from_page) in [
            ("localhost", "https://partner.example"),
            ("partner.example", "https://partner.example"),
            ("rebind.evil", "http://rebind.evil"),
        ] {
            assert_eq!(fetch(admin, from(host, from_page)).status(), 403, "{origin}: {host}");
        }
        assert_eq!(read(admin, "/readyz"), "ready\n", "the server does not drain");
        drop(client);
    }
}

#[test]
fn a_page_of_another_site_can_neither_control_nor_read_the_administrators_listener() {
    let (falconet, admin) = start(NO_BROADCAST);
    let visit = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    for (site, passes) in [
        ("same-origin", true),
        ("none", true),
        ("same-site", false),
        ("cross-site", false),
        ("anything", false),
        ("same-origin\r\nSec-Fetch-Site: cross-site", false),
    ] {
        let site = format!("Sec-Fetch-Site: {site}\r\n");
        let image = format!("{site}Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n");
        let wanted = if passes { 200 } else { 403 };
        for (method, path) in
            [("GET", "/"), ("HEAD", "/"), ("GET", "/metrics"), ("GET", "/clients")]
        {
            assert_eq!(fetch(admin, request(method, path, &image, "")).status(), wanted, "{site}");
        }
        let lines = format!("Accept: text/event-stream\r\n{image}");
        let mut events = Http::connect(admin);
        events.send(request("GET", "/events", &lines, ""));
        let head = read_response_head(&mut events.into_client().stream);
        assert_eq!(status_of(&head), wanted, "{site}");
        let posted = fetch(admin, request("POST", "/broadcast", &image, "x")).status();
        assert_eq!(posted, if passes { 202 } else { 403 }, "{site}");
        // A link from another site may lead to the dashboard, but to nothing else, and not into a frame.
        let visited = |path, lines: &str| {
            fetch(admin, request("GET", path, &format!("{site}{lines}"), "")).status()
        };
        assert_eq!(visited("/", visit), 200, "{site}");
        assert_eq!(visited("/metrics", visit), wanted, "{site}");
        assert_eq!(visited("/", &visit.replace("document", "iframe")), wanted, "{site}");
        // The public listeners check the Origin instead.
        assert_eq!(fetch(falconet.address(), request("GET", "/", &image, "")).status(), 200);
    }
}

#[cfg(feature = "full")]
#[test]
fn the_administrators_listener_needs_no_proxy_header() {
    let flags = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--broadcast-every", "0"];
    let (_falconet, admin) = start(&flags);
    assert_eq!(read(admin, "/healthz"), "ok\n");
}
