//! The dashboard of a running server in a real browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::time::Instant;

use crate::support::admin::{history, start};
use crate::support::browser::{IS_OPEN, Window, check_layouts, row_contains, send_message};
use crate::support::folder::Folder;
use crate::support::*;

/// An expression that is true while the dashboard receives statistics.
const IS_LIVE: &str = "document.getElementById('state').textContent === 'live'";

/// Starts a server and opens its dashboard in a window. `credentials` precede the address in the URL.
fn open_dashboard(flags: &[&str], credentials: &str) -> Option<(Window, Falconet, SocketAddr)> {
    let mut window = Window::open()?;
    let (falconet, admin) = start(&[NO_BROADCAST, flags].concat());
    window.visit(&format!("http://{credentials}{admin}/"));
    window.wait_for(IS_LIVE);
    Some((window, falconet, admin))
}

/// Returns an expression for the latest number of a chart.
fn latest(name: &str) -> String {
    let figure = format!(
        "[...document.querySelectorAll('figure')].find((f) => f.querySelector('span').textContent === {name:?})"
    );
    format!("{figure}.querySelector('b').textContent")
}

/// Returns an expression for the text of the row that contains `part` in the table `id`, or an empty string.
fn row_of(id: &str, part: &str) -> String {
    format!(
        "([...document.querySelectorAll('#{id} tr')].map((row) => [...row.cells].map((cell) => cell.textContent).join('|'))\
         .find((text) => text.includes({part:?})) ?? '')"
    )
}

#[cfg(feature = "full")]
#[test]
fn the_dashboard_lists_clients_and_evicts_by_a_button() {
    let Some((mut window, falconet, _)) = open_dashboard(&[], "") else { return };
    let address = falconet.address();
    let mut anna = Client::connect_to(address, "/?client=anna");
    anna.echo("one");
    anna.echo("two");
    let mut bob = Client::connect_to(address, "/topics/garden?client=bob");
    let _events = Events::connect(address, "/topics/garden", "X-Client-Id: carla\r\n");
    window.wait_for("document.querySelectorAll('#clients tr').length === 3");
    for (user, kind, path) in [
        ("anna", "websocket", "/"),
        ("bob", "websocket", "/topics/garden"),
        ("carla", "events", "/topics/garden"),
    ] {
        let cells = window.eval(&row_of("clients", user));
        assert!(
            cells.contains(&format!("|{user}|127.0.0.1:"))
                && cells.contains(&format!("|{kind}|{path}|")),
            "{cells}"
        );
    }
    window.wait_for(&format!("{}.includes(' s|2|2|0|0|Evict')", row_of("clients", "anna")));
    window.wait_for("document.getElementById('clients-note').textContent === '3'");
    for (name, number) in [("WebSocket", "2"), ("Events", "1"), ("Topics", "2")] {
        window.wait_for(&format!("{} === {number:?}", latest(name)));
    }

    window.eval("[...document.querySelectorAll('#clients tr')].find((row) => row.innerText.includes('anna')).querySelector('button').focus()");
    window.press("Enter");
    assert_eq!(anna.read_to_close(), Some(1008));
    window.wait_for(
        "/^Client \\d+ is evicted.$/.test(document.getElementById('outcome').textContent)",
    );
    window.wait_for("document.querySelectorAll('#clients tr').length === 2");
    assert_eq!(window.eval(&row_of("clients", "anna")), "");
    window.wait_for(&format!("{} === '1'", latest("WebSocket")));
    bob.send(true, PING, "still here");
    assert_eq!(bob.read().payload, b"still here");
    assert_eq!(window.console_errors(), [""; 0]);
}

#[cfg(feature = "full")]
#[test]
fn the_dashboard_shows_the_last_messages_and_never_runs_them() {
    let Some((mut window, falconet, _)) = open_dashboard(&[], "") else { return };
    let markup = "<img src=x onerror=\"window.owned = 1\">";
    let publish = |topic: &str, body: &[u8], lines: &str| {
        let answer =
            fetch(falconet.address(), request("POST", &format!("/topics/{topic}"), lines, body));
        assert_eq!(answer.status(), 202);
    };
    publish("markup", markup.as_bytes(), "");
    publish("bytes", &[0, 255, 1], "Content-Type: application/octet-stream\r\n");
    publish("long", "W".repeat(300).as_bytes(), "");
    publish("garden/gate", b"open", "");
    publish("garden/gate", b"shut", "");
    publish("home/k%C3%BCche%2C%2050%25%3F", b"warm", "");
    for (topic, cells) in [
        ("markup", format!("markup|1|0|{markup}")),
        ("bytes", "bytes|2|0|3 bytes".to_owned()),
        ("long", format!("long|3|0|{}…", "W".repeat(256))),
        ("garden/gate", "garden/gate|5|0|shut".to_owned()),
        ("home/", "home/küche, 50%?|6|0|warm".to_owned()),
    ] {
        window.wait_for(&format!("{} === {cells:?}", row_of("topics", topic)));
    }
    publish("garden/gate", b"ajar", "");
    window.wait_for(&format!("{} === 'garden/gate|7|0|ajar'", row_of("topics", "garden/gate")));
    assert_eq!(window.eval("document.querySelectorAll('#topics img').length"), "0");
    assert_eq!(window.eval("window.owned"), "undefined");
    assert_eq!(window.console_errors(), [""; 0]);
}

#[cfg(feature = "full")]
#[test]
fn the_dashboard_draws_and_fits_a_phone_light_or_dark() {
    let Some((mut window, falconet, _)) = open_dashboard(&[], "") else { return };
    let address = falconet.address();
    let long = format!("topic-{}", "x".repeat(100));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(address)).collect();
    let _long = Client::connect_to(address, &format!("/topics/{long}?client={}", "i".repeat(64)));
    fetch(address, post(&format!("/topics/{long}"), "W".repeat(300)));
    fetch(address, post("/topics/garden/temperature", r#"{"temperature":21.5,"humidity":58}"#));
    let lines = "[...document.querySelectorAll('path')].map((p) => p.getAttribute('d') ?? '')";
    let is_drawn = format!("{lines}.every((d) => d.split('L').length > 4)");
    // A chart gets one point a second, and its line needs five.
    let begun = Instant::now();
    while window.eval(&is_drawn) != "true" {
        assert!(begun.elapsed() < 3 * TIMEOUT, "a chart without a line");
        clients.iter_mut().for_each(|client| client.echo("x"));
    }
    let rate = latest("Received");
    window.wait_for(&format!("/^[\\d.,]+\\/s$/.test({rate})"));
    window.wait_for(&format!("/^\\d+\\.\\d MiB$/.test({})", latest("Memory")));
    window.wait_for("document.querySelectorAll('#clients tr').length === 4");
    window.wait_for(&format!("{} !== ''", row_of("topics", "garden/temperature")));
    check_layouts(&mut window, "dashboard");
    assert_eq!(window.console_errors(), [""; 0]);
}

#[test]
fn a_dashboard_opened_later_draws_earlier_samples() {
    let Some(mut window) = Window::open() else { return };
    let (falconet, admin) = start(NO_BROADCAST);
    let client = Client::connect(falconet.address());
    wait_until("the sample is kept", || history(admin).contains("\"websocket\":1,"));
    drop(client);
    wait_until("the client is disconnected", || fetch(admin, get("/clients")).text() == "[]\n");
    window.visit(&format!("http://{admin}/"));
    window.wait_for(IS_LIVE);
    window.wait_for(&format!("{} === '0'", latest("WebSocket")));
    let range = latest("WebSocket").replace("'b'", "'small'");
    window.wait_for(&format!("{range} === 'up to 1'"));
    assert_eq!(window.console_errors(), [""; 0]);
}

#[cfg(feature = "full")]
#[test]
fn the_dashboard_and_the_page_work_with_a_token() {
    let folder = Folder::new("browser-tokens");
    let file = folder.write("tokens", "MARKER-b33f\n");
    let flags = ["--token-file", &file];
    let credentials = "anybody:MARKER-b33f@";
    let Some((mut window, falconet, _)) = open_dashboard(&flags, credentials) else { return };
    window.wait_for(&format!("{} === '0'", latest("WebSocket")));
    let (mut client, _) = Client::connect_with_headers(
        falconet.address(),
        "/?client=anna",
        "Authorization: Bearer MARKER-b33f\r\n",
    );
    client.echo("one");
    window.wait_for(&format!("{} !== ''", row_of("clients", "anna")));
    window.eval("document.querySelector('#clients button').focus()");
    window.press("Enter");
    assert_eq!(client.read_to_close(), Some(1008));
    window.wait_for("document.querySelectorAll('#clients tr').length === 0");
    assert_eq!(window.console_errors(), [""; 0]);

    window.visit(&format!("http://{credentials}{}/#news", falconet.address()));
    window.wait_for(IS_OPEN);
    send_message(&mut window, "by a browser");
    window.wait_for(&row_contains("received text echo", "by a browser"));
    window.wait_for("document.querySelectorAll('#places a').length === 2");
    assert_eq!(window.console_errors(), [""; 0]);
}

#[test]
fn the_dashboard_shows_that_the_server_drains() {
    let flags = ["--close-timeout", "1h"];
    let Some((mut window, mut falconet, admin)) = open_dashboard(&flags, "") else { return };
    // This client does not answer the Close, which keeps the drain waiting.
    let mut client = Client::connect(falconet.address());
    assert_eq!(fetch(admin, post("/drain", "")).status(), 202);
    window.wait_for("document.getElementById('state').textContent === 'draining'");
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    window.wait_for("document.getElementById('state').textContent === 'waiting to reconnect'");
}

#[test]
fn the_dashboard_reconnects_after_an_outage_or_a_refusal() {
    let Some((mut window, falconet, admin)) = open_dashboard(&[], "") else { return };
    drop(falconet);
    window.wait_for("document.getElementById('state').textContent === 'waiting to reconnect'");
    // Another server at the same address refuses every request.
    let listener = TcpListener::bind(admin).unwrap();
    let (refused, refusals) = channel();
    let refusing = std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or_default();
            let _ = stream.write_all(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
            if refused.send(head[..length].starts_with(b"GET /events")).is_err() {
                break;
            }
        }
    });
    while !refusals.recv_timeout(TIMEOUT).expect("the dashboard reconnects") {}
    drop(refusals);
    // The last request lets the thread notice that its channel is closed.
    let _ = fetch(admin, get("/"));
    refusing.join().unwrap();
    let again = Falconet::start(&["--admin", &format!("http://{admin}")]);
    window.wait_for(IS_LIVE);
    let _client = Client::connect(again.address());
    window.wait_for(&format!("{} === '1'", latest("WebSocket")));
}
