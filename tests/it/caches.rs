//! The rules for a cache between client and server: it must not store errors, and must not answer a request with a
//! response for another value of the header Accept.

use crate::support::folder::Folder;
use crate::support::*;

/// Sends a request on its own connection. Returns the head of the response.
fn head_of(falconet: &Falconet, request: impl AsRef<[u8]>) -> String {
    let mut http = Http::connect(falconet.address());
    http.send(request);
    http.read(false).head
}

/// Returns the values of all lines of the header `name`.
fn lines_of<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(line_name, _)| *line_name == name).map(|(_, value)| value).collect()
}

/// Returns true if a `Vary` line of a response names Accept.
fn depends_on_accept(head: &str) -> bool {
    lines_of(head, "Vary").contains(&"Accept")
}

#[test]
fn no_error_may_be_stored() {
    let falconet = Falconet::start(NO_BROADCAST);
    let long = format!("/{}", "x".repeat(3000));
    let cookies = format!("Cookie: {}\r\n", "x".repeat(60_000));
    for (status, method, path, lines) in [
        (400, "GET", "nothing", ""),
        (400, "GET", "/topics/t?last=x", SSE),
        (400, "GET", "/topics/t", "Upgrade: websocket\r\n"),
        (403, "GET", "/topics/t", "Origin: http://evil.example\r\n"),
        (404, "GET", "/nothing", ""),
        (404, "HEAD", "/nothing", ""),
        (404, "GET", "/topics/t", ""),
        (404, "GET", "/", "Accept: image/png\r\n"),
        (405, "PATCH", "/topics/t", ""),
        (405, "DELETE", "/", ""),
        (414, "GET", &long, ""),
        (417, "POST", "/topics/t", "Expect: x\r\n"),
        (426, "GET", "/", "Upgrade: websocket\r\nConnection: upgrade\r\n"),
        (431, "GET", "/", &cookies),
    ] {
        let head = head_of(&falconet, request(method, path, lines, ""));
        assert_eq!(status_of(&head), status, "{method} {path} {head}");
        assert_eq!(lines_of(&head, "Cache-Control"), ["no-store"], "{method} {path} {head}");
    }
    let folder = Folder::new("caches-tokens");
    let tokens = folder.write("tokens", "secret\n");
    let falconet = Falconet::start(&["--token-file", &tokens]);
    let head = head_of(&falconet, get("/"));
    let answered = (status_of(&head), header_of(&head, "Cache-Control"));
    assert_eq!(answered, (401, Some("no-store")), "{head}");
    let full = Falconet::start(&[NO_BROADCAST, &["--max-connections", "1"]].concat());
    let _held = fill(full.address());
    let head = head_of(&full, get("/"));
    let answered = (status_of(&head), header_of(&head, "Cache-Control"));
    assert_eq!(answered, (503, Some("no-store")), "{head}");
}

#[test]
fn a_response_that_is_no_error_may_be_stored_and_is_checked_before_it_is_used() {
    let falconet = Falconet::start(NO_BROADCAST);
    assert_eq!(fetch(falconet.address(), post("/topics/t", "x")).status(), 202);
    for (status, path, lines) in [
        (200, "/", ""),
        (200, "/topics/", ""),
        (200, "/topics/t", ""),
        (304, "/topics/t", "If-None-Match: *\r\n"),
    ] {
        let head = head_of(&falconet, request("GET", path, lines, ""));
        assert_eq!(status_of(&head), status, "{path} {head}");
        assert_eq!(lines_of(&head, "Cache-Control"), ["no-cache"], "{path} {head}");
    }
}

#[test]
fn a_response_that_depends_on_accept_says_so() {
    let folder = Folder::new("caches-files");
    folder.write("a.txt", "file");
    let falconet =
        Falconet::start(&[NO_BROADCAST, &["--static", folder.path.to_str().unwrap()]].concat());
    assert_eq!(fetch(falconet.address(), post("/topics/t", "x")).status(), 202);
    for (status, method, path, lines, depends) in [
        (200, "GET", "/", "", true),
        (404, "GET", "/", "Accept: image/png\r\n", true),
        (200, "HEAD", "/app.js", "", true),
        (200, "GET", "/topics/", "", true),
        (200, "GET", "/topics/", "Accept: text/plain\r\n", true),
        (200, "GET", "/topics/t", "", true),
        (200, "HEAD", "/topics/t", "", true),
        (304, "GET", "/topics/t", "If-None-Match: *\r\n", true),
        (404, "GET", "/topics/none", "", true),
        (200, "GET", "/a.txt", "Accept: image/png\r\n", false),
        (202, "POST", "/topics/t", "", false),
        (204, "DELETE", "/topics/none", "", false),
        (204, "OPTIONS", "/topics/t", "", false),
    ] {
        let head = head_of(&falconet, request(method, path, lines, ""));
        let found = (status_of(&head), depends_on_accept(&head));
        assert_eq!(found, (status, depends), "{method} {path} {head}");
    }
    let stream = Events::connect(falconet.address(), "/topics/t", "");
    assert!(depends_on_accept(&stream.head), "{}", stream.head);
    // A stream that can't be served now.
    let full = Falconet::start(&[NO_BROADCAST, &["--max-connections", "1"]].concat());
    let _held = fill(full.address());
    let head = head_of(&full, request("GET", "/topics/t", SSE, ""));
    assert!(status_of(&head) == 200 && depends_on_accept(&head), "{head}");
}

#[test]
fn a_response_that_depends_on_accept_and_on_the_origin_names_both() {
    let falconet = Falconet::start(&["--origin", "https://friend.example"]);
    let head = head_of(&falconet, get("/topics/"));
    assert_eq!(lines_of(&head, "Vary"), ["Accept", "Origin"], "{head}");
}
