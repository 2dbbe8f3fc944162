//! A page of another origin in a real browser, with an origin that is allowed and one that is not.

use crate::support::access::bearer;
use crate::support::browser::Window;
use crate::support::folder::Folder;
use crate::support::*;

/// Opens a page of another server, whose policy does not forbid connections. Returns the origin of the page.
fn open_other_page() -> Option<(Window, Falconet, String)> {
    let mut window = Window::open()?;
    let elsewhere = Falconet::start(&[]);
    let origin = format!("http://{}", elsewhere.address());
    window.visit(&format!("{origin}/topics/"));
    Some((window, elsewhere, origin))
}

/// Returns an expression that sends a request. Its value is the status and the text of the response.
fn sending(falconet: &Falconet, path: &str, settings: &str) -> String {
    let url = format!("http://{}{path}", falconet.address());
    format!(
        "await fetch('{url}', {{ {settings} }})
            .then(async (response) => response.status + ' ' + await response.text(), (error) => error.name)"
    )
}

/// Returns an expression whose value is the first message of a topic's event stream, or `error`.
fn first_event(falconet: &Falconet, path: &str, settings: &str) -> String {
    let url = format!("http://{}{path}", falconet.address());
    format!(
        "await new Promise((resolve) => {{
            const source = new EventSource('{url}', {{ {settings} }});
            const end = (value) => {{ source.close(); resolve(value); }};
            source.onmessage = ({{ data }}) => end(data);
            source.onerror = () => end('error');
        }})"
    )
}

#[test]
fn a_page_of_an_allowed_origin_can_publish_read_and_subscribe() {
    let Some((mut window, _elsewhere, origin)) = open_other_page() else { return };
    for allowed in [&*origin, "any"] {
        let falconet = Falconet::start(&["--origin", allowed]);
        let sent =
            window.eval(&sending(&falconet, "/topics/t", "method: 'POST', body: 'from a page'"));
        assert!(sent.starts_with("202 {\"topic\":\"t\""), "{sent}");
        assert_eq!(window.eval(&sending(&falconet, "/topics/t", "")), "200 from a page");
        assert_eq!(window.eval(&first_event(&falconet, "/topics/t?last=1", "")), "from a page");
        let json = "method: 'POST', body: '1', headers: { 'Content-Type': 'application/json', \
            'X-Client-Id': 'page', 'Authorization': 'Bearer x' }";
        assert!(window.eval(&sending(&falconet, "/topics/t", json)).starts_with("202 "));
        let tag = format!(
            "(await fetch('http://{}/topics/t', {{ headers: {{ 'Last-Event-ID': 'x' }} }})).headers.get('ETag')",
            falconet.address()
        );
        assert!(window.eval(&tag).starts_with('"'), "exposed");
        assert_eq!(window.eval(&sending(&falconet, "/topics/t", "method: 'DELETE'")), "204 ");
        let gone = window.eval(&sending(&falconet, "/topics/t", ""));
        assert!(gone.starts_with("404 "), "{gone}");
    }
}

#[test]
fn a_page_of_an_allowed_origin_can_send_its_token_and_read_a_refusal() {
    let Some((mut window, _elsewhere, origin)) = open_other_page() else { return };
    let folder = Folder::new("browser-cors");
    let tokens = folder.write("tokens", "secret\nreader subscribe\n");
    for (allowed, fetch_credentials, source_credentials) in
        [(&*origin, "credentials: 'include',", "withCredentials: true"), ("any", "", "")]
    {
        let falconet =
            Falconet::start(&["--origin", allowed, "--token-file", &tokens, "--allow-query-token"]);
        let stream = first_event(&falconet, "/topics/t?last=1&token=reader", source_credentials);
        let long = format!("/{}", "x".repeat(3000));
        let mut assert_status = |status: &str, method: &str, path: &str, settings: &str| {
            let settings = format!("method: '{method}', {settings}");
            let answer = window.eval(&sending(&falconet, path, &settings));
            assert_eq!(answer.split(' ').next(), Some(status), "{allowed} {settings}");
        };
        let with = |token: &str| format!("headers: {{ 'Authorization': 'Bearer {token}' }}");
        let json = "body: '[1]', headers: { 'Content-Type': 'application/json', \
            'Authorization': 'Bearer secret' }";
        assert_status("202", "POST", "/topics/t", &format!("{fetch_credentials} {json}"));
        assert_status(
            "200",
            "GET",
            "/topics/t",
            &format!("{fetch_credentials} {}", with("reader")),
        );
        assert_status("403", "POST", "/topics/t", &format!("body: '2', {}", with("reader")));
        // With credentials, the browser would ask the user for a password.
        assert_status("401", "DELETE", "/topics/t", &with("wrong"));
        assert_status("401", "GET", "/topics/t", "");
        assert_status("414", "GET", &long, "");
        assert_eq!(window.eval(&stream), "[1]");
        let delete = format!("method: 'DELETE', {fetch_credentials} {}", with("secret"));
        assert_eq!(window.eval(&sending(&falconet, "/topics/t", &delete)), "204 ");
        let kept = fetch(falconet.address(), request("GET", "/topics/t", &bearer("secret"), ""));
        assert_eq!(kept.status(), 404, "the page has deleted it");
    }
}

#[test]
fn a_page_of_an_origin_that_is_not_allowed_can_do_nothing() {
    let Some((mut window, _elsewhere, _)) = open_other_page() else { return };
    let falconet = Falconet::start(&["--origin", "https://friend.example"]);
    fetch(falconet.address(), post("/topics/kept", "kept"));
    for (path, settings) in [
        ("/topics/t", "method: 'POST', body: 'x'"),
        ("/topics/t", "method: 'POST', body: '1', headers: { 'Content-Type': 'application/json' }"),
        ("/topics/kept", ""),
        ("/topics/kept", "method: 'DELETE'"),
        ("/", ""),
    ] {
        assert_eq!(
            window.eval(&sending(&falconet, path, settings)),
            "TypeError",
            "{path} {settings}"
        );
    }
    let opaque = sending(&falconet, "/topics/t", "method: 'POST', mode: 'no-cors', body: 'x'");
    assert_eq!(window.eval(&opaque), "0 ");
    assert_eq!(window.eval(&first_event(&falconet, "/topics/kept?last=1", "")), "error");
    assert_eq!(fetch(falconet.address(), get("/topics/t")).status(), 404, "nothing was published");
    assert_eq!(fetch(falconet.address(), get("/topics/kept")).text(), "kept");
}

#[test]
fn a_sandboxed_frame_can_read_if_null_is_allowed() {
    let Some((mut window, _elsewhere, _)) = open_other_page() else { return };
    for (flags, outcome) in [(&["--origin", "null"][..], "200 kept"), (&[], "TypeError")] {
        let falconet = Falconet::start(flags);
        fetch(falconet.address(), post("/topics/t", "kept"));
        let script = sending(&falconet, "/topics/t", "");
        let framed = format!(
            "await new Promise((resolve) => {{
                onmessage = ({{ data }}) => resolve(data);
                const frame = document.createElement('iframe');
                frame.sandbox = 'allow-scripts';
                frame.srcdoc = `<script type=module>parent.postMessage({script}, '*')</script>`;
                document.body.append(frame);
            }})"
        );
        assert_eq!(window.eval(&framed), outcome);
    }
}
