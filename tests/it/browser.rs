//! The page in a real browser. Without a browser these tests print that they are skipped, and pass; with
//! `CI=true` they fail.

use crate::support::browser::{IS_OPEN, PHONE, Window, check_layouts, row_contains, send_message};
use crate::support::*;

#[test]
fn the_page_echoes_text_and_binary() {
    let Some((mut window, _falconet)) = open_page("") else { return };
    send_message(&mut window, "grüße <b>🦅</b>");
    window.wait_for(&row_contains("received text echo", "grüße <b>🦅</b>"));
    window.eval("document.getElementById('hex').click()");
    send_message(&mut window, "00 ff 48 69");
    window.wait_for(&row_contains("received binary echo", "..Hi"));
    window.wait_for("/^2 · /.test(document.getElementById('received').textContent)");
    assert_eq!(window.console_errors(), [""; 0]);
}

#[cfg(feature = "full")]
#[test]
fn the_page_shows_a_broadcast() {
    let Some((mut window, falconet)) = open_page("") else { return };
    assert_eq!(fetch(falconet.address(), post("/topics/broadcast", "to everybody")).status(), 202);
    window.wait_for(&row_contains("received text broadcast", "to everybody"));
}

#[cfg(feature = "full")]
#[test]
fn the_page_reconnects_to_a_restarted_server() {
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
    assert_eq!(fetch(again.address(), post("/topics/news", "after the restart")).status(), 202);
    window.wait_for(&row_contains("received text published", "after the restart"));
}

#[cfg(feature = "full")]
#[test]
fn numbers_published_over_http_are_drawn() {
    let Some((mut window, falconet)) = open_page("#garden/temperature") else { return };
    let line = "document.querySelector('#charts path').getAttribute('d')";
    assert_eq!(window.eval("document.querySelectorAll('#charts figure').length"), "0");
    for number in ["21.5", "22", "19.25"] {
        assert_eq!(
            fetch(falconet.address(), post("/topics/garden/temperature", number)).status(),
            202
        );
        window.wait_for(&row_contains("received text published", number));
    }
    let caption = "document.querySelector('#charts figure').innerText.replace(/\\s+/g, ' ')";
    window.wait_for(&format!("{caption} === 'garden/temperature 19.25 19.25 to 22'"));
    assert_eq!(window.eval(line), "M0.0 12.2L150.0 2.0L300.0 58.0L300.0 58.0");
    let json = r#"{"cpu":{"user":7,"idle":90},"host":"pi","load":[0.5,0.25,1],"more":1}"#;
    fetch(falconet.address(), post("/topics/garden/temperature", json));
    let names = "[...document.querySelectorAll('#charts span')].map((s) => s.textContent).join()";
    window.wait_for(&format!("{names} === 'garden/temperature,cpu.user,cpu.idle,load.0'"));
    assert_eq!(window.console_errors(), [""; 0]);
}

#[cfg(feature = "full")]
#[test]
fn a_topic_can_be_chosen_and_published_to_by_keyboard() {
    let Some((mut window, falconet)) = open_page("") else { return };
    window.eval("document.getElementById('topic').focus()");
    window.insert_text("a/b");
    window.press("Enter");
    window.wait_for("location.hash === '#a/b' && document.getElementById('address').textContent.endsWith('/topics/a/b')");
    window.wait_for(IS_OPEN);
    window.wait_for(&row_contains("opened", "/topics/a/b?last=64"));
    send_message(&mut window, "typed");
    window.wait_for(&row_contains("received text echo", "typed"));
    assert_eq!(fetch(falconet.address(), get("/topics/a/b")).text(), "typed");

    fetch(falconet.address(), post("/topics/other", "kept"));
    window.eval("(document.activeElement.blur(), document.getElementById('topic').focus())");
    let link = "document.querySelector('#places a[href=\"#other\"]')";
    window.wait_for(&format!("{link} !== null"));
    window.eval(&format!("{link}.focus()"));
    window.press("Enter");
    window.wait_for(&row_contains("received text published", "kept"));
    window.wait_for(&format!("{link}.getAttribute('aria-current') === 'page'"));

    window.eval("(document.getElementById('topic').value = '../x', document.getElementById('topic').focus())");
    window.press("Enter");
    window.wait_for("document.getElementById('topic-problem').textContent !== ''");
    window.wait_for("document.getElementById('address').textContent.endsWith('/topics/other')");
    assert_eq!(window.console_errors(), [""; 0]);
}

#[cfg(feature = "full")]
#[test]
fn a_topic_of_any_name_can_be_chosen_published_to_and_linked_to() {
    let Some((mut window, falconet)) = open_page("") else { return };
    let names = [
        ("zigbee2mqtt/Living Room", "zigbee2mqtt/Living%20Room"),
        ("home/küche", "home/k%C3%BCche"),
        (r#"50% "a\b", <i>?&🦅"#, "50%25%20%22a%5Cb%22%2C%20%3Ci%3E%3F%26%F0%9F%A6%85"),
    ];
    let is_shown = |name: &str| {
        let link =
            "[...document.querySelectorAll('#places a')].find((a) => a.ariaCurrent === 'page')";
        format!(
            "{link}?.textContent === {name:?} && document.title === {title:?} && {IS_OPEN}",
            title = format!("{name} – falconet")
        )
    };
    for (name, encoded) in names {
        window.eval("(document.getElementById('topic').value = '', document.getElementById('topic').focus())");
        window.insert_text(name);
        window.press("Enter");
        window.wait_for(&row_contains("opened", &format!("/topics/{encoded}?last=64")));
        send_message(&mut window, &format!("typed to {encoded}"));
        window.wait_for(&row_contains("received text echo", &format!("typed to {encoded}")));
        let path = format!("/topics/{encoded}");
        assert_eq!(fetch(falconet.address(), get(&path)).text(), format!("typed to {encoded}"));
        assert_eq!(
            fetch(falconet.address(), post(&path, format!("sent to {encoded}"))).status(),
            202
        );
        window.wait_for(&row_contains("received text published", &format!("sent to {encoded}")));
        window.wait_for(&is_shown(name));
    }
    // A link may have all characters but a percent sign as they are.
    for fragment in ["zigbee2mqtt/Living Room", "home/küche", names[2].1] {
        window.visit(&format!("http://{}/#{fragment}", falconet.address()));
        let (name, _) =
            names.iter().find(|(name, form)| [*name, *form].contains(&fragment)).unwrap();
        window.wait_for(&is_shown(name));
    }
    for fragment in ["50%", "a+b", "a%23", "a//b", "a%00", &"x".repeat(257)] {
        window.eval(&format!("(document.getElementById('topic-problem').textContent = '', location.hash = {fragment:?})"));
        window
            .wait_for("document.getElementById('topic-problem').textContent.includes('256 bytes')");
    }
    window.wait_for(&is_shown(names[2].0));
    assert_eq!(window.console_errors(), [""; 0]);
}

#[cfg(feature = "full")]
#[test]
fn markup_that_is_published_is_never_run() {
    let Some((mut window, falconet)) = open_page("#markup") else { return };
    let payloads = [
        "<img src=x onerror=\"window.owned = 1\">",
        "<script>window.owned = 1</script>",
        "\"><svg/onload=\"window.owned = 1\">",
        r#"{"<img src=x onerror='window.owned = 1'>": 1}"#,
    ];
    for payload in payloads {
        fetch(falconet.address(), post("/topics/markup", payload));
        window.wait_for(&row_contains("received text published", &payload.replace('\\', "\\\\")));
    }
    window.wait_for("document.querySelector('#charts span').textContent.startsWith('<img')");
    let made = "document.querySelectorAll('#rows :is(img, script, svg), #charts img').length";
    assert_eq!(window.eval(made), "0");
    assert_eq!(window.eval("window.owned"), "undefined");
    assert_eq!(window.console_errors(), [""; 0]);

    // Even if the page inserted markup, the policy would keep it from running.
    let watch = "new Promise((resolve) => {
        document.addEventListener('securitypolicyviolation', ({ violatedDirective }) => resolve(violatedDirective));
        document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = 1\">');
    })";
    assert!(window.eval(&format!("await {watch}")).starts_with("script-src"));
    assert_eq!(window.eval("window.owned"), "undefined");
}

#[cfg(feature = "full")]
#[test]
fn the_page_fits_a_phone_and_is_light_or_dark() {
    let Some((mut window, falconet)) = open_page("#garden/temperature") else { return };
    for number in [20.0, 21.5, 21.0, 22.5, 24.0, 23.5, 23.0] {
        let json = format!(r#"{{"temperature":{number},"humidity":{}}}"#, 80.0 - number);
        fetch(falconet.address(), post("/topics/garden/temperature", json));
    }
    let long = format!("topic-{}", "x".repeat(100));
    fetch(falconet.address(), post(&format!("/topics/{long}"), "W".repeat(300)));
    window.wait_for(&row_contains("received text published", "23"));
    send_message(&mut window, &"W".repeat(300));
    window.eval("(document.activeElement.blur(), document.getElementById('topic').focus())");
    window.wait_for("document.querySelectorAll('#places a').length >= 3");
    check_layouts(&mut window, "page");
    window.visit(&format!("http://{}/#{long}", falconet.address()));
    window.wait_for(IS_OPEN);
    assert_eq!(window.eval("document.documentElement.scrollWidth"), PHONE.0.to_string());
}

#[test]
fn a_page_of_another_origin_can_neither_connect_nor_publish() {
    let Some(mut window) = Window::open() else { return };
    let falconet = Falconet::start(&[]);
    let (address, elsewhere) = (falconet.address(), Falconet::start(&[]));
    // A page of another server whose own policy does not forbid connections.
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
        assert_eq!(window.eval(&connect(path)), "1006", "{path}");
    }
    // A page may always send such a request, but cannot read the response.
    window.eval(&format!(
        "await fetch('http://{address}/topics/a', {{ method: 'POST', mode: 'no-cors', body: 'x' }})"
    ));
    assert_eq!(fetch(address, get("/topics/a")).status(), 404);
    // From its own origin the same connection succeeds.
    window.visit(&format!("http://{address}/topics/"));
    assert_eq!(window.eval(&connect("/")), "opened");
}

/// Starts a server and opens its page in a window.
fn open_page(fragment: &str) -> Option<(Window, Falconet)> {
    let mut window = Window::open()?;
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    window.visit(&format!("http://{}/{fragment}", falconet.address()));
    window.wait_for(IS_OPEN);
    Some((window, falconet))
}
