//! Cross-origin resource sharing: which pages may read the responses, and requests with the method OPTIONS.

use falconet::Origins;

use crate::support::access::bearer;
use crate::support::admin;
use crate::support::folder::Folder;
use crate::support::*;

const FRIEND: &str = "https://friend.example";
const FROM_FRIEND: &str = "Origin: https://friend.example\r\n";
const FROM_EVIL: &str = "Origin: https://evil.example\r\n";
/// The lines of a request that asks whether a page may send another request.
const PREFLIGHT: &str = "Access-Control-Request-Method: PUT\r\n\
    Access-Control-Request-Headers: authorization,content-type\r\n";

/// Returns the values of Access-Control-Allow-Origin, Access-Control-Allow-Credentials, and Vary as far as it
/// is not about Accept.
fn sharing(head: &str) -> [Option<&str>; 3] {
    let [allowed, credentials] =
        ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"]
            .map(|name| header_of(head, name));
    let mut varying = head.lines().filter_map(|line| line.strip_prefix("Vary: "));
    [allowed, credentials, varying.find(|value| *value != "Accept")]
}

/// Sends a request with more header `lines` on its own connection. Returns the head of the response.
fn head_of(falconet: &Falconet, method: &str, path: &str, lines: &str) -> String {
    let lines = format!("Connection: close\r\n{lines}");
    let answer = exchange(falconet.address(), request(method, path, &lines, ""));
    answer.split_inclusive("\r\n\r\n").next().unwrap_or_default().to_owned()
}

/// Sends requests of many outcomes with more header `lines`. Returns the heads of the responses.
fn heads_of_all_kinds(falconet: &Falconet, lines: &str) -> Vec<String> {
    let long = format!("/{}", "x".repeat(3000));
    let cookies = format!("{lines}Cookie: {}\r\n", "x".repeat(60_000));
    let with = |more: &str| format!("{lines}{more}");
    let mut heads = Vec::new();
    for (status, method, path, lines) in [
        (202, "POST", "/topics/t", lines),
        (200, "GET", "/", lines),
        (200, "HEAD", "/", lines),
        (200, "GET", "/topics/t", lines),
        (304, "GET", "/topics/t", &with("If-None-Match: *\r\n")),
        (200, "GET", "/topics/", lines),
        (204, "DELETE", "/topics/gone", lines),
        (204, "OPTIONS", "/topics/t", lines),
        (204, "OPTIONS", "*", lines),
        (404, "GET", "/topics/none", lines),
        (404, "GET", "/nothing", lines),
        (405, "PATCH", "/topics/t", lines),
        (400, "GET", "nothing", lines),
        (400, "GET", "/", &with("Content-Length: x\r\n")),
        (400, "GET", "/topics/t", &with("Upgrade: websocket\r\n")),
        (414, "GET", &long, lines),
        (417, "POST", "/topics/t", &with("Expect: x\r\n")),
        (431, "GET", "/", &cookies),
    ] {
        let head = head_of(falconet, method, path, lines);
        assert_eq!(status_of(&head), status, "{method} {path} {head}");
        heads.push(head);
    }
    let stream = Events::connect(falconet.address(), "/topics/t", lines);
    heads.push(stream.head);
    heads
}

#[test]
fn a_page_of_a_named_origin_may_read_every_response() {
    let falconet = Falconet::start(&["--origin", FRIEND]);
    for head in heads_of_all_kinds(&falconet, FROM_FRIEND) {
        assert_eq!(sharing(&head), [Some(FRIEND), Some("true"), Some("Origin")], "{head}");
        let exposed = "Content-Range, ETag, Last-Event-ID, Retry-After, X-Client-Id, X-Message-Id, \
            X-Request-Id";
        assert_eq!(header_of(&head, "Access-Control-Expose-Headers"), Some(exposed), "{head}");
    }
}

#[test]
fn once_an_origin_is_named_every_response_depends_on_the_origin() {
    let falconet = Falconet::start(&["--origin", FRIEND]);
    for head in heads_of_all_kinds(&falconet, "") {
        assert_eq!(sharing(&head), [None, None, Some("Origin")], "{head}");
    }
    let full = Falconet::start(&["--origin", FRIEND, "--max-connections", "1"]);
    let _held = fill(full.address());
    let head = head_of(&full, "GET", "/", "");
    assert_eq!((status_of(&head), sharing(&head)), (503, [None, None, Some("Origin")]), "{head}");
}

#[test]
fn a_page_of_another_origin_is_refused_and_may_read_nothing() {
    let falconet = Falconet::start(&["--origin", FRIEND]);
    for lines in [FROM_EVIL, &FROM_FRIEND.repeat(2), "Origin: null\r\n"] {
        for (method, path) in [
            ("GET", "/topics/t"),
            ("POST", "/topics/t"),
            ("DELETE", "/topics/t"),
            ("OPTIONS", "/"),
            ("OPTIONS", "*"),
        ] {
            for lines in [lines.to_owned(), format!("{lines}{PREFLIGHT}")] {
                let head = head_of(&falconet, method, path, &lines);
                let read = (status_of(&head), sharing(&head));
                assert_eq!(read, (403, [None, None, Some("Origin")]), "{method} {head}");
                assert_eq!(header_of(&head, "Access-Control-Allow-Methods"), None, "{head}");
            }
        }
    }
    assert_eq!(fetch(falconet.address(), get("/topics/t")).status(), 404, "nothing was published");
}

#[test]
fn without_an_allowed_origin_no_response_names_one() {
    let server = Embedded::start(|builder| builder.topics().origins(Origins::default()));
    let own = format!("Origin: http://localhost\r\n{PREFLIGHT}");
    for (lines, status) in [("", 204), (&*own, 204), (FROM_EVIL, 403)] {
        let head = fetch(server.address, request("OPTIONS", "/topics/t", lines, "")).head;
        assert_eq!((status_of(&head), sharing(&head)), (status, [None; 3]), "{head}");
        assert!(!head.contains("Access-Control-"), "{head}");
    }
}

#[test]
fn with_any_and_without_tokens_every_page_may_read_but_not_with_credentials() {
    let any = Falconet::start(&["--origin", "any"]);
    let also_named = Falconet::start(&["--origin", "any", "--origin", FRIEND]);
    for lines in ["", FROM_EVIL, FROM_FRIEND, "Origin: null\r\n"] {
        for head in heads_of_all_kinds(&any, lines) {
            assert_eq!(sharing(&head), [Some("*"), None, None], "{head}");
        }
        let head = head_of(&also_named, "GET", "/", lines);
        assert_eq!(sharing(&head), [Some("*"), None, Some("Origin")], "{head}");
    }
}

#[test]
fn with_any_and_tokens_a_response_names_the_origin_but_allows_no_credentials() {
    let folder = Folder::new("cors-any-tokens");
    let tokens = folder.write("tokens", "secret\n");
    let falconet = Falconet::start(&["--origin", "any", "--token-file", &tokens]);
    for (lines, status) in
        [(FROM_EVIL.to_owned(), 401), (FROM_EVIL.to_owned() + &bearer("secret"), 200)]
    {
        let head = head_of(&falconet, "GET", "/", &lines);
        let wanted = [Some("https://evil.example"), None, Some("Origin")];
        assert_eq!((status_of(&head), sharing(&head)), (status, wanted), "{head}");
    }
    let head = head_of(&falconet, "GET", "/", "");
    assert_eq!((status_of(&head), sharing(&head)), (401, [None, None, Some("Origin")]), "{head}");
}

#[test]
fn a_preflight_is_answered_before_any_token_is_asked_for() {
    let folder = Folder::new("preflight");
    let tokens = folder.write("tokens", "secret\n");
    let falconet = Falconet::start(&["--origin", FRIEND, "--token-file", &tokens]);
    let lines = format!("{FROM_FRIEND}{PREFLIGHT}");
    for path in ["/", "/nothing", "/topics/", "/topics/t", "/topics//t"] {
        let head = head_of(&falconet, "OPTIONS", path, &lines);
        let answered = (status_of(&head), sharing(&head));
        assert_eq!(answered, (204, [Some(FRIEND), Some("true"), Some("Origin")]), "{path} {head}");
        for (name, value) in [
            ("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE"),
            (
                "Access-Control-Allow-Headers",
                "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, If-Range, \
                 Last-Event-ID, Range, X-Client-Id, X-Request-Id",
            ),
            ("Access-Control-Max-Age", "7200"),
        ] {
            assert_eq!(header_of(&head, name), Some(value), "{path} {head}");
        }
    }
    // Without a question about a method, it is an ordinary request.
    assert_eq!(status_of(&head_of(&falconet, "OPTIONS", "/", FROM_FRIEND)), 401);
    assert_eq!(status_of(&head_of(&falconet, "PUT", "/topics/t", &lines)), 401);
}

#[test]
fn the_origin_null_is_shared_with_but_gets_no_credentials() {
    let falconet = Falconet::start(&["--origin", "null", "--origin", "file://"]);
    falconet.wait_for_line("--origin null also lets in every page that uses a sandboxed frame");
    for (origin, credentials) in [("null", None), ("file://", Some("true"))] {
        let head = head_of(&falconet, "GET", "/", &format!("Origin: {origin}\r\n"));
        assert_eq!(sharing(&head), [Some(origin), credentials, Some("Origin")], "{head}");
    }
}

#[test]
fn the_administrators_listener_shares_nothing() {
    for origin in [FRIEND, "any"] {
        let (_falconet, admin) = admin::start(&["--origin", origin]);
        for (method, lines, status) in [
            ("GET", "", 200),
            ("GET", FROM_FRIEND, 403),
            ("OPTIONS", FROM_FRIEND, 403),
            ("OPTIONS", "", 204),
        ] {
            let lines = format!("{lines}{PREFLIGHT}");
            let head = fetch(admin, request(method, "/metrics", &lines, "")).head;
            assert_eq!((status_of(&head), sharing(&head)), (status, [None; 3]), "{head}");
            assert!(!head.contains("Access-Control-"), "{head}");
        }
    }
}

#[test]
fn a_microcontroller_may_connect_with_its_odd_origin_if_that_is_named() {
    for (named, origin) in [
        ("file://", "file://"),
        ("null", "null"),
        ("https://github.com", "https://github.com/gilmaimon/TinyWebsockets"),
    ] {
        let head = handshake_with("/", &format!("Origin: {origin}\r\n"));
        let allowing = Falconet::start(&["--origin", named]);
        let status = |falconet: &Falconet| status_of(&exchange(falconet.address(), &head));
        assert_eq!(status(&allowing), 101, "{origin}");
        assert_eq!(status(&Falconet::start(&[])), 403, "{origin}");
    }
}

#[test]
fn options_lists_the_methods_of_a_url() {
    let falconet = Falconet::start(&[]);
    for (path, allow) in [
        ("/", "GET, HEAD, OPTIONS"),
        ("/app.js", "GET, HEAD, OPTIONS"),
        ("/topics/", "GET, HEAD, OPTIONS"),
        ("/topics/t", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("*", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    ] {
        let answer = fetch(falconet.address(), request("OPTIONS", path, "", ""));
        assert_eq!((answer.status(), answer.header("Allow")), (204, Some(allow)), "{path}");
    }
    for path in ["/nothing", "/topics//t"] {
        assert_eq!(status_of(&head_of(&falconet, "OPTIONS", path, "")), 404, "{path}");
    }
    let topics = fetch(falconet.address(), get("/topics/"));
    assert!(!topics.text().contains("\"t\""), "no topic is created: {}", topics.text());
}

#[test]
fn options_does_not_reveal_to_a_client_without_a_token_which_paths_exist() {
    let folder = Folder::new("options");
    let (tokens, _) = (folder.write("tokens", "secret\n"), folder.write("there.txt", ""));
    let files = folder.path.to_str().unwrap();
    let falconet = Falconet::start(&["--token-file", &tokens, "--static", files]);
    for (path, status) in [
        ("/", 204),
        ("/there.txt", 204),
        ("/not-there.txt", 404),
        ("/topics/", 204),
        ("/topics/t", 204),
    ] {
        let without = head_of(&falconet, "OPTIONS", path, "");
        assert_eq!((status_of(&without), header_of(&without, "Allow")), (401, None), "{path}");
        let with = head_of(&falconet, "OPTIONS", path, &bearer("secret"));
        assert_eq!(status_of(&with), status, "{path}");
    }
    assert_eq!(status_of(&head_of(&falconet, "OPTIONS", "*", "")), 204, "a health check");
}
