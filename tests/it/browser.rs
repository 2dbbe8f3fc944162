//! The page and the dashboard in a real browser. Without one the tests say so and pass, but not under
//! `CI=true`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::browser_rig::Window;
use crate::rig::{Falconet, ask, get, post, wait_until};

/// Says whether the page is connected.
pub const IS_OPEN: &str = "document.getElementById('state').textContent === 'open'";
const PHONE: (u32, u32) = (360, 740);

#[test]
fn the_page_echoes_text_and_binary() {
    let Some((mut window, _falconet)) = at_the_page("") else { return };
    send(&mut window, "grüße <b>🦅</b>");
    window.wait_for(&row("received text echo", "grüße <b>🦅</b>"));
    window.say("document.getElementById('hex').click()");
    send(&mut window, "00 ff 48 69");
    window.wait_for(&row("received binary echo", "..Hi"));
    window.wait_for("/^2 · /.test(document.getElementById('received').textContent)");
    assert_eq!(window.complaints(), [""; 0]);
}

#[test]
fn the_page_shows_a_broadcast() {
    let Some((mut window, falconet)) = at_the_page("") else { return };
    assert_eq!(ask(falconet.address(), post("/topics/broadcast", "to everybody")).status(), 202);
    window.wait_for(&row("received text broadcast", "to everybody"));
}

#[test]
fn the_page_comes_back_to_a_server_that_was_killed() {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let address = falconet.address();
    window.visit(&format!("http://{address}/#news"));
    window.wait_for(IS_OPEN);
    drop(falconet);
    window.wait_for("document.querySelector('#rows .closed pre')?.textContent.startsWith('1006')");
    window.wait_for("document.getElementById('state').textContent !== 'open'");
    let again =
        Falconet::start_with(Falconet::command().args(["--listen", &format!("http://{address}")]));
    window.wait_for(IS_OPEN);
    assert_eq!(ask(again.address(), post("/topics/news", "I am back")).status(), 202);
    window.wait_for(&row("received text published", "I am back"));
}

#[test]
fn a_topic_published_by_plain_http_is_drawn() {
    let Some((mut window, falconet)) = at_the_page("#garden/temperature") else { return };
    let line = "document.querySelector('#charts path').getAttribute('d')";
    assert_eq!(window.say("document.querySelectorAll('#charts figure').length"), "0");
    for number in ["21.5", "22", "19.25"] {
        assert_eq!(
            ask(falconet.address(), post("/topics/garden/temperature", number)).status(),
            202
        );
        window.wait_for(&row("received text published", number));
    }
    let caption = "document.querySelector('#charts figure').innerText.replace(/\\s+/g, ' ')";
    window.wait_for(&format!("{caption} === 'garden/temperature 19.25 19.25 to 22'"));
    assert_eq!(window.say(line), "M0.0 12.2L150.0 2.0L300.0 58.0L300.0 58.0");
    let json = r#"{"cpu":{"user":7,"idle":90},"host":"pi","load":[0.5,0.25,1],"more":1}"#;
    ask(falconet.address(), post("/topics/garden/temperature", json));
    let names = "[...document.querySelectorAll('#charts span')].map((s) => s.textContent).join()";
    window.wait_for(&format!("{names} === 'garden/temperature,cpu.user,cpu.idle,load.0'"));
    assert_eq!(window.complaints(), [""; 0]);
}

#[test]
fn a_topic_is_picked_or_typed_and_published_to_with_the_keyboard_alone() {
    let Some((mut window, falconet)) = at_the_page("") else { return };
    window.say("document.getElementById('topic').focus()");
    window.write("a/b");
    window.press("Enter");
    window.wait_for("location.hash === '#a/b' && document.getElementById('address').textContent.endsWith('/topics/a/b')");
    window.wait_for(IS_OPEN);
    window.wait_for(&row("opened", "/topics/a/b?last=64"));
    send(&mut window, "typed");
    window.wait_for(&row("received text echo", "typed"));
    assert_eq!(ask(falconet.address(), get("/topics/a/b")).text(), "typed");

    ask(falconet.address(), post("/topics/other", "kept"));
    window.say("(document.activeElement.blur(), document.getElementById('topic').focus())");
    let link = "document.querySelector('#places a[href=\"#other\"]')";
    window.wait_for(&format!("{link} !== null"));
    window.say(&format!("{link}.focus()"));
    window.press("Enter");
    window.wait_for(&row("received text published", "kept"));
    window.wait_for(&format!("{link}.getAttribute('aria-current') === 'page'"));

    window.say("(document.getElementById('topic').value = '../x', document.getElementById('topic').focus())");
    window.press("Enter");
    window.wait_for("document.getElementById('topic-problem').textContent !== ''");
    window.wait_for("document.getElementById('address').textContent.endsWith('/topics/other')");
    assert_eq!(window.complaints(), [""; 0]);
}

#[test]
fn markup_that_is_published_is_never_run() {
    let Some((mut window, falconet)) = at_the_page("#markup") else { return };
    let payloads = [
        "<img src=x onerror=\"window.owned = 1\">",
        "<script>window.owned = 1</script>",
        "\"><svg/onload=\"window.owned = 1\">",
        r#"{"<img src=x onerror='window.owned = 1'>": 1}"#,
    ];
    for payload in payloads {
        ask(falconet.address(), post("/topics/markup", payload));
        window.wait_for(&row("received text published", &payload.replace('\\', "\\\\")));
    }
    window.wait_for("document.querySelector('#charts span').textContent.startsWith('<img')");
    let made = "document.querySelectorAll('#rows :is(img, script, svg), #charts img').length";
    assert_eq!(window.say(made), "0");
    assert_eq!(window.say("window.owned"), "undefined");
    assert_eq!(window.complaints(), [""; 0]);

    // Nor would it be if the page let it in.
    let watch = "new Promise((resolve) => {
        document.addEventListener('securitypolicyviolation', ({ violatedDirective }) => resolve(violatedDirective));
        document.body.insertAdjacentHTML('beforeend', '<svg onload=\"window.owned = 1\"></svg>');
    })";
    assert!(window.say(&format!("await {watch}")).starts_with("script-src"));
    assert_eq!(window.say("window.owned"), "undefined");
}

#[test]
fn the_page_fits_a_phone_and_is_light_or_dark() {
    let Some((mut window, falconet)) = at_the_page("#garden/temperature") else { return };
    for number in [20.0, 21.5, 21.0, 22.5, 24.0, 23.5, 23.0] {
        let json = format!(r#"{{"temperature":{number},"humidity":{}}}"#, 80.0 - number);
        ask(falconet.address(), post("/topics/garden/temperature", json));
    }
    let long = format!("topic-{}", "x".repeat(100));
    ask(falconet.address(), post(&format!("/topics/{long}"), "W".repeat(300)));
    window.wait_for(&row("received text published", "23"));
    send(&mut window, &"W".repeat(300));
    window.say("(document.activeElement.blur(), document.getElementById('topic').focus())");
    window.wait_for("document.querySelectorAll('#places a').length >= 3");
    look(&mut window, "page");
    window.visit(&format!("http://{}/#{long}", falconet.address()));
    window.wait_for(IS_OPEN);
    assert_eq!(window.say("document.documentElement.scrollWidth"), PHONE.0.to_string());
}

#[test]
fn the_dashboard_lists_evicts_and_draws() {
    let Some(mut window) = Window::open() else { return };
    let admin = Admin::start();
    window.visit(&format!("http://{}/", admin.address));
    window.wait_for("document.querySelectorAll('#clients tr').length === 3");
    let first = "document.querySelector('#clients tr').innerText.replace(/\\s+/g, ' ')";
    let cells = window.say(first);
    assert!(cells.contains("41 anna 127.0.0.1 websocket /topics/a 1 h 3 s 1,234 5 6 7"), "{cells}");
    window.wait_for("document.querySelectorAll('#topics tr').length === 2");
    let topics = window.say("document.getElementById('topics').innerText");
    assert!(topics.contains("<img src=x onerror=\"window.owned = 1\">"), "{topics}");
    assert!(topics.contains("3 bytes"), "{topics}");

    let lines = "[...document.querySelectorAll('path')].map((p) => p.getAttribute('d') ?? '')";
    window.wait_for(&format!("{lines}.every((d) => d.split('L').length > 3)"));
    let before = window.say(lines);
    window.wait_for(&format!("{lines}.join() !== {before:?}"));
    let rate = "document.querySelectorAll('figcaption b')[3].textContent";
    window.wait_for(&format!("{rate} === '12/s'"));

    window.say("document.querySelector('#clients tr:nth-child(2) button').focus()");
    window.press("Enter");
    window.wait_for("document.getElementById('outcome').textContent === 'Client 42 is evicted.'");
    window.wait_for("document.querySelectorAll('#clients tr').length === 2");
    assert_eq!(*admin.state.evicted.lock().unwrap(), ["42"]);
    assert_eq!(window.say("window.owned"), "undefined");
    look(&mut window, "dashboard");
    assert_eq!(window.complaints(), [""; 0]);
}

#[test]
fn the_dashboard_comes_back_to_a_server_that_refused_it() {
    let Some(mut window) = Window::open() else { return };
    let admin = Admin::start();
    window.visit(&format!("http://{}/", admin.address));
    window.wait_for("document.getElementById('state').textContent === 'live'");
    admin.state.refuses.store(true, Ordering::Relaxed);
    window.wait_for("document.getElementById('state').textContent === 'waiting to reconnect'");
    wait_until("its events were refused", || admin.state.has_refused.load(Ordering::Relaxed));
    admin.state.refuses.store(false, Ordering::Relaxed);
    window.wait_for("document.getElementById('state').textContent === 'live'");
}

#[test]
fn the_page_and_the_dashboard_draw_by_the_same_hand() {
    let [page, dashboard] = [include_str!("../../www/app.js"), DASHBOARD];
    let start = page.find("/**\n * A small live line").unwrap();
    let chart = &page[start..start + page[start..].find("\n}\n").unwrap()];
    assert!(dashboard.contains(chart), "the dashboard lacks\n{chart}");
}

#[test]
fn a_page_of_another_origin_can_neither_connect_nor_publish() {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(&[]);
    let (address, elsewhere) = (falconet.address(), Falconet::start(&[]));
    // Plain files of another server: its own policy does not stand in the way.
    window.visit(&format!("http://{}/topics/", elsewhere.address()));
    let connect = |path: &str| {
        format!(
            "await new Promise((resolve) => {{
                const socket = new WebSocket('ws://{address}{path}');
                socket.onopen = () => resolve('opened');
                socket.onclose = ({{ code }}) => resolve(code);
            }})"
        )
    };
    for path in ["/", "/topics/a", "/topics/a?mode=in"] {
        assert_eq!(window.say(&connect(path)), "1006", "{path}");
    }
    // A page may always send such a request; it does not hear what became of it.
    window.say(&format!(
        "await fetch('http://{address}/topics/a', {{ method: 'POST', mode: 'no-cors', body: 'x' }})"
    ));
    assert_eq!(ask(address, get("/topics/a")).status(), 404);
    // It is the origin that is in the way.
    window.visit(&format!("http://{address}/topics/"));
    assert_eq!(window.say(&connect("/")), "opened");
}

/// A window at the page of a server that says nothing of itself.
fn at_the_page(fragment: &str) -> Option<(Window, Falconet)> {
    let mut window = Window::open()?;
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    window.visit(&format!("http://{}/{fragment}", falconet.address()));
    window.wait_for(IS_OPEN);
    Some((window, falconet))
}

/// Sends a message as a person does.
pub fn send(window: &mut Window, text: &str) {
    window.say("document.getElementById('message').focus()");
    window.write(text);
    window.press("Enter");
    window.wait_for("document.getElementById('message').value === ''");
}

/// Says whether a row with these classes has `text` in it.
pub fn row(classes: &str, text: &str) -> String {
    let selector = classes.replace(' ', ".");
    format!(
        "[...document.querySelectorAll('#rows .{selector} pre')].some((row) => row.textContent.includes({text:?}))"
    )
}

/// Takes pictures, light and dark, wide and narrow. Nothing is wider than the window, and the colours
/// are the ones asked for.
fn look(window: &mut Window, name: &str) {
    for (scheme, is_dark) in [("light", false), ("dark", true)] {
        window.prefer(scheme);
        let color = window.say("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]");
        assert_eq!(color.parse::<u8>().unwrap() < 64, is_dark, "{scheme}: {color}");
        for (width, height) in [(1280, 800), PHONE] {
            window.resize(width, height);
            window.wait_for(&format!("innerWidth === {width}"));
            let widest: u32 = window.say("document.documentElement.scrollWidth").parse().unwrap();
            assert!(widest <= width, "{name}: {widest} of {width}");
            window.picture(&format!("{name}-{scheme}-{width}"));
        }
    }
}

/// What stands behind the dashboard, as far as it asks.
struct Admin {
    address: SocketAddr,
    state: Arc<AdminState>,
}

#[derive(Default)]
struct AdminState {
    evicted: Mutex<Vec<String>>,
    refuses: AtomicBool,
    /// Whether it has refused events.
    has_refused: AtomicBool,
}

impl Admin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<AdminState> = Arc::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                // It ends when the browser leaves.
                std::thread::spawn(move || serve_admin(&stream, &state));
            }
        });
        Self { address, state }
    }
}

/// Answers one request.
fn serve_admin(stream: &TcpStream, state: &AdminState) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next()?;
    lines.find(String::is_empty)?;
    let (method, rest) = request.split_once(' ')?;
    let path = rest.split([' ', '?']).next()?;
    let respond = |status: &str, kind: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Content-Security-Policy: {POLICY}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        stream.write_all(&[head.as_bytes(), body].concat()).ok()
    };
    if state.refuses.load(Ordering::Relaxed) {
        state.has_refused.fetch_or(path == "/events", Ordering::Relaxed);
        return respond("503 Service Unavailable", "text/plain", b"not now\n");
    }
    match (method, path) {
        (_, "/") => {
            let page = DASHBOARD
                .replace("<script>", "<script nonce=\"once\">")
                .replace("<style>", "<style nonce=\"once\">");
            respond("200 OK", "text/html; charset=utf-8", page.as_bytes())
        }
        ("GET", "/events") => send_stats(stream, state),
        ("GET", "/clients") => {
            let evicted = state.evicted.lock().unwrap().clone();
            let clients =
                ["41", "42", "43"].into_iter().filter(|id| !evicted.iter().any(|e| e == id));
            let clients: Vec<String> = clients.map(client).collect();
            respond("200 OK", "application/json", format!("[{}]", clients.join(",\n")).as_bytes())
        }
        ("DELETE", _) => {
            state.evicted.lock().unwrap().push(path.strip_prefix("/clients/")?.to_owned());
            respond("204 No Content", "text/plain", b"")
        }
        (_, "/topics/") => respond("200 OK", "application/json", TOPICS.as_bytes()),
        (_, "/topics/binary") => respond("200 OK", "application/octet-stream", &[0, 255, 1]),
        (_, "/topics/a") => {
            respond("200 OK", "text/plain", b"<img src=x onerror=\"window.owned = 1\">")
        }
        _ => respond("404 Not Found", "text/plain", b"nothing here\n"),
    }
}

/// Tells the state of things until nobody listens: ten minutes at once, then a little every few milliseconds.
fn send_stats(mut stream: &TcpStream, state: &AdminState) -> Option<()> {
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n\
              retry: 10\n",
        )
        .ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(20))).ok()?;
    for second in (0_u64..).step_by(6) {
        if state.refuses.load(Ordering::Relaxed) {
            break;
        }
        let (time, wave) = (1_800_000_000 + second, (second / 6 % 40).abs_diff(20));
        let (received, sent, resident) =
            (second * 12, second * 100 + wave * 7, 2_600_000 + wave * 9_000);
        let event = format!(
            "event: stats\ndata: {{\"time\":{time},\"connections\":{{\"websocket\":{},\"events\":2,\"http\":1}},\
             \"received\":{received},\"sent\":{sent},\"lagged\":0,\"resident_bytes\":{resident},\
             \"loop_lag_ms\":0.{wave},\"topics\":2}}\n\n",
            30 + wave
        );
        stream.write_all(event.as_bytes()).ok()?;
        if second < 600 {
            continue;
        }
        // The pause; a browser that listens says nothing.
        if matches!(stream.read(&mut [0]), Ok(0)) {
            break;
        }
    }
    Some(())
}

fn client(id: &str) -> String {
    format!(
        r#"{{"id":{id},"correlation":"anna","address":"127.0.0.1","kind":"websocket","path":"/topics/a","age_seconds":4000.5,"last_seen_seconds":3.2,"received":1234,"sent":5,"lagged":6,"behind":7}}"#
    )
}

const DASHBOARD: &str = include_str!("../../www/admin.html");
const POLICY: &str = "default-src 'none'; script-src 'nonce-once'; style-src 'nonce-once'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const TOPICS: &str = r#"[{"topic":"a","sequence":1500,"subscribers":2},
    {"topic":"binary","sequence":7,"subscribers":0}]"#;
