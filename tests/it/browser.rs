//! The page in a real browser. Without one the tests say so and pass, but not under
//! `CI=true`.

use crate::browser_rig::Window;
use crate::rig::{Falconet, ask, get, post};

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

#[cfg(feature = "full")]
#[test]
fn the_page_shows_a_broadcast() {
    let Some((mut window, falconet)) = at_the_page("") else { return };
    assert_eq!(ask(falconet.address(), post("/topics/broadcast", "to everybody")).status(), 202);
    window.wait_for(&row("received text broadcast", "to everybody"));
}

#[cfg(feature = "full")]
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

#[cfg(feature = "full")]
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

#[cfg(feature = "full")]
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

#[cfg(feature = "full")]
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

#[cfg(feature = "full")]
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
pub fn look(window: &mut Window, name: &str) {
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
