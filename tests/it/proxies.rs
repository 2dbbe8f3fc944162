//! The README's examples for proxies, each with the real proxy, and the pages behind them. Without the proxy a
//! test prints that it is skipped, and passes; with `CI=true` it fails.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;

use crate::support::admin::{self, field};
use crate::support::browser::{IS_OPEN, Window, row_contains, send_message};
use crate::support::proxy::Proxy;
use crate::support::*;

#[test]
fn the_example_for_nginx_works() {
    check_example("nginx", Proxy::nginx);
}

#[test]
fn the_example_for_caddy_works() {
    check_example("caddy", Proxy::caddy);
}

#[test]
fn the_example_for_apache_works() {
    check_example("apache", Proxy::apache);
}

#[test]
fn the_example_for_haproxy_works() {
    check_example("haproxy", Proxy::haproxy);
}

#[test]
fn the_page_works_below_a_path_of_nginx() {
    check_page(|address| Proxy::nginx(&with_host(&example("nginx", address))));
}

#[test]
fn the_page_works_below_a_path_of_caddy() {
    check_page(|address| Proxy::caddy(&example("caddy", address)));
}

#[test]
fn the_dashboard_works_below_a_path_of_nginx() {
    check_dashboard(|address| Proxy::nginx(&with_host(&example("nginx", address))));
}

#[test]
fn the_dashboard_works_below_a_path_of_caddy() {
    check_dashboard(|address| Proxy::caddy(&example("caddy", address)));
}

#[test]
fn the_page_works_in_a_frame_of_its_own_origin() {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(NO_BROADCAST);
    let frame = r#"location = / {
        default_type text/html;
        return 200 '<!doctype html><iframe src="live/"></iframe>';
    }"#;
    let example = with_host(&example("nginx", falconet.address()));
    let Some(proxy) = Proxy::nginx(&format!("{frame}\n{example}")) else { return };
    window.visit(&format!("http://{}/", proxy.address()));
    let page = "document.querySelector('iframe').contentDocument";
    window.wait_for(&IS_OPEN.replace("document", &format!("{page}?")).replace(").", ")?."));
}

#[test]
fn the_page_says_that_its_origin_is_refused_and_what_to_set() {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(NO_BROADCAST);
    // This proxy replaces the Host, and no --origin is set.
    let Some(proxy) = Proxy::nginx(&example("nginx", falconet.address())) else { return };
    window.visit(&format!("http://{}/live/", proxy.address()));
    window.wait_for(&row_contains("error", &format!("--origin http://{}", proxy.address())));
    window.wait_for(&row_contains("error", "proxy_set_header Host $http_host"));
}

#[test]
fn the_page_says_that_the_proxy_does_not_pass_on_websockets() {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(NO_BROADCAST);
    let example = with_host(&example("nginx", falconet.address()));
    let example = example.replace("proxy_set_header Upgrade $http_upgrade;", "");
    let Some(proxy) = Proxy::nginx(&example) else { return };
    window.visit(&format!("http://{}/live/", proxy.address()));
    window.wait_for(&row_contains("error", "must pass on the headers Upgrade and Connection"));
}

/// Checks that the page works at `/live/` of a proxy for falconet's address: the echo, a topic, and the list
/// of topics.
fn check_page(start: impl Fn(SocketAddr) -> Option<Proxy>) {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(NO_BROADCAST);
    let Some(proxy) = start(falconet.address()) else { return };
    window.visit(&format!("http://{}/live/", proxy.address()));
    window.wait_for(IS_OPEN);
    window.wait_for(&row_contains("opened", &format!("ws://{}/live/", proxy.address())));
    send_message(&mut window, "below a path");
    window.wait_for(&row_contains("received text echo", "below a path"));

    assert_eq!(fetch(falconet.address(), post("/topics/a/b", "21.5")).status(), 202);
    window.eval("(document.getElementById('topic').focus(), 0)");
    let link = "document.querySelector('#places a[href=\"#a/b\"]')";
    window.wait_for(&format!("{link} !== null"));
    window.eval(&format!("{link}.click()"));
    window.wait_for(&row_contains("received text published", "21.5"));
    window.wait_for("document.querySelectorAll('#charts figure').length === 1");
    send_message(&mut window, "typed");
    window.wait_for(&row_contains("received text echo", "typed"));
    assert_eq!(fetch(falconet.address(), get("/topics/a/b")).text(), "typed");
    assert_eq!(window.console_errors(), [""; 0]);
}

/// Checks that the dashboard works at `/live/` of a proxy for the administrator's address: the numbers, the
/// lists, and the button that evicts a client.
fn check_dashboard(start: impl Fn(SocketAddr) -> Option<Proxy>) {
    let Some(mut window) = Window::open() else { return };
    let (falconet, admin) = admin::start(NO_BROADCAST);
    let Some(proxy) = start(admin) else { return };
    let mut client = Client::connect(falconet.address());
    assert_eq!(fetch(falconet.address(), post("/topics/a/b", "kept")).status(), 202);
    window.visit(&format!("http://{}/live/", proxy.address()));
    window.wait_for("document.getElementById('state').textContent === 'live'");
    window.wait_for("document.getElementById('topics').textContent.includes('kept')");
    window.wait_for("document.querySelector('#clients button') !== null");
    window.eval("document.querySelector('#clients button').click()");
    assert_eq!(client.read_to_close(), Some(1008));
    window.wait_for("document.getElementById('outcome').textContent.endsWith('is evicted.')");
    assert_eq!(window.console_errors(), [""; 0]);
}

/// Returns an example for nginx in which the proxy keeps the header Host.
fn with_host(example: &str) -> String {
    example.replacen(
        "proxy_set_header",
        "proxy_set_header Host $http_host;\n    proxy_set_header",
        1,
    )
}

#[test]
fn without_an_allowed_origin_a_public_name_that_the_proxy_passes_on_is_refused() {
    type Start = fn(&str) -> Option<Proxy>;
    let trust = ["--trust-proxy", "127.0.0.1", "--listen", "http://0.0.0.0:0"];
    let falconet = Falconet::start(&[&trust, NO_BROADCAST].concat());
    let upstreams = upstreams(&falconet);
    for (language, start, statuses) in [
        // nginx and Apache replace Host. All four send X-Forwarded-Host, which counts on the second listener.
        ("nginx", Proxy::nginx as Start, [200, 403]),
        ("caddy", Proxy::caddy, [403, 403]),
        ("apache", Proxy::apache, [200, 403]),
        ("haproxy", Proxy::haproxy, [403, 403]),
    ] {
        for (upstream, status) in upstreams.into_iter().zip(statuses) {
            let Some(proxy) = start(&example(language, upstream)) else { break };
            let head = "GET /live/ HTTP/1.1\r\nHost: example.org\r\n\r\n";
            let answer = fetch(proxy.address(), head);
            assert_eq!(answer.status(), status, "{language} {upstream} {}", answer.head);
            let text = answer.text();
            assert_eq!(text.contains("--origin SCHEME://HOST"), status == 403, "{text}");
        }
    }
}

/// Returns the addresses at which a proxy on this host reaches a server that [`Falconet::start`] has started with
/// a second listener, which other hosts can reach: that of the loopback listener, and that of the other one.
fn upstreams(falconet: &Falconet) -> [SocketAddr; 2] {
    let line = falconet.wait_for_line("publishing is forbidden at http://0.0.0.0:");
    let port = line.split("0.0.0.0:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    [falconet.address(), SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))]
}

/// Checks an example for a proxy that leads to a listener on loopback, and to one that other hosts can reach.
fn check_example(language: &str, start: impl Fn(&str) -> Option<Proxy>) {
    for listener in 0..2 {
        let flags = ["--trust-proxy", "127.0.0.1", "--origin", "https://example.org"];
        let listen = ["--listen", "http://0.0.0.0:0"];
        let (falconet, admin) = admin::start(&[&flags, &listen[..], NO_BROADCAST].concat());
        let upstream = upstreams(&falconet)[listener];
        let Some(proxy) = start(&example(language, upstream)) else { return };
        check_proxy(&proxy, &falconet, admin);
        check_comma(language, &proxy);
    }
}

/// Checks that WebSockets and event streams of an allowed origin pass the proxy, that each event is passed on
/// at once, and that falconet knows the address of the client.
fn check_proxy(proxy: &Proxy, falconet: &Falconet, admin: SocketAddr) {
    let page = "Host: example.org\r\nOrigin: https://example.org\r\n";

    let mut stream = connect_from([127, 0, 0, 2], proxy.address());
    let head = handshake_with("/live/", page).replacen("Host: localhost\r\n", "", 1);
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}\n{}", proxy.errors());
    let mut client = Client { stream };
    client.echo("by a proxy");
    let clients = admin::clients(admin);
    assert_eq!(field(&clients[0], "address"), "\"127.0.0.2\"", "{clients:?}");

    let mut stream = connect_from([127, 0, 0, 3], proxy.address());
    let head = format!("GET /live{TOPIC} HTTP/1.1\r\nAccept: text/event-stream\r\n{page}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    assert_eq!(status_of(&head), 200, "{head}");
    let mut lines = BufReader::new(stream).lines();
    for text in ["first", "second"] {
        assert_eq!(fetch(falconet.address(), post(TOPIC, text)).status(), 202);
        let data = format!("data: {text}");
        assert!(lines.any(|line| line.unwrap() == data), "no {data}");
    }
}

/// Checks that a comma in the name of a topic passes the proxy, or stands between two topics because the proxy decodes
/// it.
fn check_comma(language: &str, proxy: &Proxy) {
    let decodes = matches!(language, "nginx" | "apache");
    let head = "GET /live/topics/a%2Cb HTTP/1.1\r\nHost: example.org\r\n\r\n";
    let answer = fetch(proxy.address(), head);
    assert_eq!(answer.text() == "[]\n", decodes, "{language}: {answer:?}");
    assert_eq!(answer.text().contains("retains no message"), !decodes, "{language}: {answer:?}");
}

/// The path of a topic whose name has characters that a proxy may decode and must encode again.
const TOPIC: &str = "/topics/50%25%20k%C3%BCche%3F%22%26";

/// Returns the README's example whose code block has this language, for a server at `address`.
fn example(language: &str, address: SocketAddr) -> String {
    let readme = include_str!("../../README.md");
    let (_, block) = readme.split_once(&format!("\n```{language}\n")).unwrap();
    let (example, _) = block.split_once("```").unwrap();
    example.replace("127.0.0.1:8080", &address.to_string())
}
