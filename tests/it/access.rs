//! Access control: tokens, origins, host names, addresses, rates and proxies.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use falconet::{CloseReason, Session, TrustedProxies};
use rustix::process::Signal;

use crate::support::access::{assert_no_token_leak, basic, bearer};
use crate::support::folder::Folder;
use crate::support::*;

/// Sends a handshake for `path` with more header `lines`. Returns the status and the head of the response.
fn upgrade(falconet: &Falconet, path: &str, lines: &str) -> (u16, String) {
    let mut stream = connect(falconet.address());
    let head = handshake_with(path, lines);
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    (status_of(&head), head)
}

/// Sends a request with more header `lines`. Returns the status.
fn status(falconet: &Falconet, method: &str, path: &str, lines: &str) -> u16 {
    fetch(falconet.address(), request(method, path, lines, "")).status()
}

const TOKENS: &str = "\
# the rights of each token
reader subscribe
writer publish
manager admin
all-of-it
gardener all garden # and the topics below
";

#[cfg(feature = "full")]
#[test]
fn a_token_grants_the_rights_of_its_line() {
    let folder = Folder::new("tokens");
    let file = folder.write("tokens", TOKENS);
    let falconet = Falconet::start(&["--token-file", &file]);
    for (token, page, echo, subscribes, publishes, garden) in [
        ("reader", 200, 101, 200, 403, 403),
        ("writer", 200, 403, 403, 202, 202),
        ("manager", 200, 403, 403, 403, 403),
        ("all-of-it", 200, 101, 200, 202, 202),
        ("gardener", 200, 403, 403, 403, 202),
        ("nobody", 401, 401, 401, 401, 401),
    ] {
        let lines = bearer(token);
        let status = |method, path| status(&falconet, method, path, &lines);
        let upgraded = |wanted: u16| if wanted < 300 { 101 } else { wanted };
        assert_eq!(status("PUT", "/topics/t"), publishes, "{token}");
        assert_eq!(
            status("DELETE", "/topics/t"),
            if publishes == 202 { 204 } else { publishes },
            "{token}"
        );
        fetch(falconet.address(), request("POST", "/topics/t", &bearer("all-of-it"), "there"));
        assert_eq!(status("GET", "/"), page, "{token}");
        assert_eq!(status("GET", "/topics/t"), subscribes, "{token}");
        assert_eq!(status("GET", "/topics/"), subscribes, "{token}");
        assert_eq!(status("POST", "/topics/garden/gate"), garden, "{token}");
        assert_eq!(upgrade(&falconet, "/", &lines).0, echo, "{token}");
        assert_eq!(upgrade(&falconet, "/topics/t", &lines).0, upgraded(subscribes), "{token}");
        assert_eq!(
            upgrade(&falconet, "/topics/t?mode=in", &lines).0,
            upgraded(publishes),
            "{token}"
        );
    }
    let mut subscriber =
        Client::connect_with_headers(falconet.address(), "/topics/t", &bearer("reader")).0;
    subscriber.send(true, TEXT, "may I?");
    assert_eq!(subscriber.read_to_close(), Some(1008));
}

#[cfg(feature = "full")]
#[test]
fn a_request_without_a_valid_token_is_challenged() {
    let folder = Folder::new("challenge");
    let file = folder.write("tokens", "secret\n");
    let falconet = Falconet::start(&["--token-file", &file]);
    for lines in ["", "Authorization: Bearer wrong\r\n", "Authorization: Digest secret\r\n"] {
        for path in ["/", "/app.js", "/nowhere", "/topics/", "/topics/t"] {
            let answer = fetch(falconet.address(), request("GET", path, lines, ""));
            assert_eq!(answer.status(), 401, "{path} {lines}");
            let challenge = answer.header("WWW-Authenticate").expect("a challenge");
            assert!(challenge.starts_with("Basic realm=") && challenge.contains("Bearer"));
        }
        assert_eq!(upgrade(&falconet, "/", lines).0, 401);
    }
}

#[cfg(feature = "full")]
#[test]
fn a_token_is_accepted_in_a_header_a_password_or_a_subprotocol() {
    let folder = Folder::new("ways");
    let file = folder.write("tokens", "secret\n");
    let falconet = Falconet::start(&["--token-file", &file]);
    let protocol = "Sec-WebSocket-Protocol: falconet, bearer.secret\r\n".to_owned();
    for lines in [bearer("secret"), basic("anybody:secret"), protocol.clone()] {
        assert_eq!(upgrade(&falconet, "/", &lines).0, 101, "{lines}");
        assert_eq!(status(&falconet, "GET", "/", &lines), 200, "{lines}");
    }
    let (_, head) = upgrade(&falconet, "/", &protocol);
    assert_eq!(header_of(&head, "Sec-WebSocket-Protocol"), Some("falconet"));
    assert!(!head.contains("secret"), "{head}");
    // Only what was offered can be selected (RFC 6455 §4.1).
    for lines in [bearer("secret"), "Sec-WebSocket-Protocol: bearer.secret\r\n".to_owned()] {
        let (status, head) = upgrade(&falconet, "/", &lines);
        assert_eq!((status, header_of(&head, "Sec-WebSocket-Protocol")), (101, None));
    }
    assert_eq!(
        upgrade(&falconet, "/?token=secret", "").0,
        401,
        "refused without --allow-query-token"
    );
    assert_eq!(status(&falconet, "GET", "/topics/?token=secret", ""), 401);
}

#[cfg(feature = "full")]
#[test]
fn a_token_is_accepted_in_the_url_if_allowed() {
    let folder = Folder::new("query");
    let file = folder.write("tokens", "secret\n");
    let falconet = Falconet::start(&["--token-file", &file, "--allow-query-token"]);
    assert_eq!(upgrade(&falconet, "/?token=secret", "").0, 101);
    assert_eq!(status(&falconet, "GET", "/topics/?a=b&token=secret", ""), 200);
    assert_eq!(status(&falconet, "GET", "/topics/?token=wrong", ""), 401);
}

#[cfg(feature = "full")]
#[test]
fn a_changed_token_file_is_read_again_and_an_invalid_one_is_not_used() {
    let folder = Folder::new("reread");
    let file = folder.write("tokens", "first\n");
    let falconet = Falconet::start(&["--token-file", &file]);
    let status = |token: &str| status(&falconet, "GET", "/", &bearer(token));
    assert_eq!(status("first"), 200);
    folder.write("tokens", "second\n");
    wait_until("the new token is valid", || status("second") == 200);
    assert_eq!(status("first"), 401);
    folder.write("tokens", "third\nfourth with-no-right\n");
    wait_until("the invalid file is logged", || {
        // The server checks the file when a client connects.
        assert_eq!(status("second"), 200);
        falconet.log_so_far().iter().any(|line| line.contains("tokens:2: expected second one of"))
    });
    assert_eq!((status("second"), status("third")), (200, 401));
    std::fs::remove_file(&file).unwrap();
    wait_until("the missing file is logged", || {
        assert_eq!(status("second"), 200);
        falconet.log_so_far().iter().any(|line| line.contains("can't read the tokens"))
    });
    let log = falconet.log_so_far().join("\n");
    assert!(!log.contains("third") && !log.contains("with-no-right"), "{log}");
}

#[cfg(feature = "full")]
#[test]
fn a_warning_is_logged_for_a_token_file_that_all_users_can_read_and_for_short_tokens() {
    let folder = Folder::new("unsafe-tokens");
    let long = "0123456789abcdef\n";
    let is_public = "every user of this host can read or change";
    let is_short = "fewer than 16 characters";
    for (text, mode, expected) in [
        (long, 0o600, [0, 0]),
        (long, 0o640, [0, 0]),
        (long, 0o604, [1, 0]),
        (long, 0o602, [1, 0]),
        ("0123456789abcde\nshort\n", 0o600, [0, 1]),
        ("0123456789abcde\nshort\n", 0o644, [1, 1]),
    ] {
        let file = folder.write("tokens", text);
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let falconet = Falconet::start(&["--token-file", &file]);
        let log = falconet.log_so_far();
        let count = |part: &str| {
            let is_warning = |line: &&String| line.contains(" warn ") && line.contains(part);
            log.iter().filter(is_warning).count()
        };
        assert_eq!([is_public, is_short].map(count), expected, "{mode:o} {log:#?}");
        assert!(!log.concat().contains("0123456789abcde"), "{log:#?}");
    }
    // The file is checked while the server runs, too.
    let file = folder.write("tokens", long);
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let falconet = Falconet::start(&["--token-file", &file]);
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(status(&falconet, "GET", "/", &bearer(long.trim())), 200);
    falconet.wait_for_line(is_public);
}

#[cfg(feature = "full")]
#[test]
fn tokens_are_read_from_the_credentials_of_systemd() {
    let folder = Folder::new("credentials");
    let listen = ["--listen", "http://127.0.0.1:0"];
    let start = |more: &[&str]| {
        let mut command = Falconet::command();
        command.env("CREDENTIALS_DIRECTORY", &folder.path);
        Falconet::start_with(command.args(listen).args(more))
    };
    assert_eq!(status(&start(&[]), "GET", "/", ""), 200, "no credential is passed");
    folder.write("tokens", "passed\n");
    let other = folder.write("other", "given\n");
    let falconet = start(&[]);
    assert_eq!(status(&falconet, "GET", "/", ""), 401);
    assert_eq!(status(&falconet, "GET", "/", &bearer("passed")), 200);
    let falconet = start(&["--token-file", &other]);
    assert_eq!(status(&falconet, "GET", "/", &bearer("passed")), 401);
    assert_eq!(status(&falconet, "GET", "/", &bearer("given")), 200);
}

#[cfg(feature = "full")]
#[test]
fn an_invalid_token_file_is_exit_code_78_and_its_line_is_named() {
    let folder = Folder::new("wrong-tokens");
    let file = folder.write("tokens", "one\npublish two\n");
    for flag in ["--check-config", "--listen=http://127.0.0.1:0"] {
        let output = Falconet::command().args(["--token-file", &file, flag]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("token-file") && text.contains("tokens:2: expected"), "{text}");
        assert!(!text.contains("two"), "{text}");
    }
    for (flags, part) in [
        (&["--token-file", "/nowhere"][..], "/nowhere"),
        (&["--allow-query-token"], "token-file"),
        (&["--proxy-protocol"], "trust-proxy"),
    ] {
        let output = Falconet::command().args(flags).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains(part) && text.contains(&flags[0][2..]), "{text}");
    }
}

#[cfg(feature = "full")]
#[test]
fn without_tokens_other_hosts_may_read_but_not_publish() {
    let mut command = Falconet::command();
    let falconet = Falconet::start_with(command.args(["--listen", "http://0.0.0.0:0"]));
    let line = falconet.wait_for_line("publishing is forbidden at http://0.0.0.0:");
    assert_eq!(line.contains("--token-file"), cfg!(feature = "full"), "{line}");
    for (method, path, wanted) in [
        ("POST", "/topics/t", 403),
        ("PUT", "/topics/t", 403),
        ("DELETE", "/topics/t", 403),
        ("GET", "/topics/t", 404),
        ("GET", "/topics/", 200),
        ("GET", "/", 200),
    ] {
        assert_eq!(status(&falconet, method, path, ""), wanted, "{method} {path}");
    }
    assert_eq!(upgrade(&falconet, "/topics/t?mode=in", "").0, 403);
    Client::connect(falconet.address()).echo("anyone may echo");
    let mut subscriber = Client::connect_to(falconet.address(), "/topics/t");
    subscriber.send(true, TEXT, "may I?");
    assert_eq!(subscriber.read_to_close(), Some(1008));
}

#[cfg(feature = "full")]
#[test]
fn a_page_of_another_site_gets_no_stream_and_publishes_nothing_without_an_origin() {
    let falconet = Falconet::start(&["--origin", "https://friend.example"]);
    let any = Falconet::start(&["--origin", "any"]);
    let cross_site = "Sec-Fetch-Site: cross-site\r\n";
    let stream = format!("{cross_site}{SSE}");
    for (method, path, lines, status) in [
        ("POST", "/topics/t", cross_site, 403),
        ("PUT", "/topics/t", cross_site, 403),
        ("DELETE", "/topics/t", cross_site, 403),
        ("GET", "/topics/t", &stream, 403),
        ("GET", "/topics/t", cross_site, 404),
        ("GET", "/topics/", cross_site, 200),
        ("GET", "/", cross_site, 200),
        ("GET", "/app.js", &stream, 404),
        ("POST", "/topics/t", &format!("{cross_site}Origin: https://friend.example\r\n"), 202),
        ("POST", "/topics/t", "Sec-Fetch-Site: same-site\r\n", 202),
        ("POST", "/topics/t", "Sec-Fetch-Site: none\r\n", 202),
    ] {
        assert_eq!(self::status(&falconet, method, path, lines), status, "{method} {path} {lines}");
    }
    assert_eq!(upgrade(&falconet, "/topics/t", cross_site).0, 403);
    assert_eq!(upgrade(&falconet, "/", cross_site).0, 403);
    falconet.wait_for_line("pages of other origins may not do this");
    assert_eq!(status(&any, "POST", "/topics/t", cross_site), 202);
    let allowed = format!("{stream}Origin: https://friend.example\r\n");
    for (falconet, lines) in [(&falconet, allowed), (&any, cross_site.to_owned())] {
        let mut events = Events::connect(falconet.address(), "/topics/t?last=1", &lines);
        assert_eq!(events.read().kind, "message");
    }
}

#[cfg(feature = "full")]
#[test]
fn a_token_publishes_from_other_hosts() {
    let folder = Folder::new("exposed");
    let file = folder.write("tokens", "secret\n");
    let listen = ["--listen", "http://0.0.0.0:0", "--token-file", &file];
    let falconet = Falconet::start_with(Falconet::command().args(listen));
    assert_eq!(status(&falconet, "POST", "/topics/t", &bearer("secret")), 202);
    assert_eq!(status(&falconet, "POST", "/topics/t", ""), 401);
    assert!(!falconet.log_so_far().iter().any(|line| line.contains("without a --token-file")));
}

#[cfg(feature = "full")]
#[test]
fn on_loopback_and_unix_sockets_any_client_may_publish() {
    let folder = Folder::new("open");
    let socket = folder.path.join("socket");
    let url = format!("unix:{}", socket.display());
    let falconet = Falconet::start(&["--listen", &url]);
    assert_eq!(status(&falconet, "POST", "/topics/t", ""), 202);
    assert_eq!(status(&falconet, "DELETE", "/topics/t", ""), 204);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let head = "POST /topics/t HTTP/1.1\r\nHost: what.ever\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(status_of(&read_response_head(&mut stream)), 202);
    assert!(!falconet.log_so_far().iter().any(|line| line.contains("without a --token-file")));
}

#[cfg(feature = "full")]
#[test]
fn pages_of_other_origins_may_neither_publish_nor_connect() {
    let falconet =
        Falconet::start(&["--origin", "https://friend.example", "--origin", TEST_ORIGIN]);
    let here = format!("http://{}", falconet.address());
    for (origin, passes) in [
        (&*here, false),
        (TEST_ORIGIN, true),
        ("https://friend.example", true),
        ("http://friend.example", false),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let lines = format!("Origin: {origin}\r\n");
        let (posted, upgraded) = if passes { (202, 101) } else { (403, 403) };
        for path in ["/topics/t", "/topics/t?mode=in"] {
            assert_eq!(status(&falconet, "POST", path, &lines), posted, "{origin}");
            assert_eq!(upgrade(&falconet, path, &lines).0, upgraded, "{origin}");
        }
        assert_eq!(upgrade(&falconet, "/", &lines).0, upgraded, "{origin}");
    }
    falconet.wait_for_line("pages of other origins");
    let post = request("POST", "/topics/quiet", "Origin: http://evil.example\r\n", "evil");
    assert_eq!(fetch(falconet.address(), post).status(), 403);
    assert_eq!(status(&falconet, "GET", "/topics/quiet", ""), 404, "nothing was published");
    // A request of the server's own page: its origin is the host name of the request.
    let post = format!(
        "POST /topics/t HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\n",
        falconet.address()
    );
    let post = post + "Content-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&exchange(falconet.address(), post)), 202);
}

#[cfg(feature = "full")]
#[test]
fn pages_of_other_origins_may_load_files_and_nothing_else() {
    let folder = Folder::new("load");
    folder.write("font.woff2", "font");
    let falconet = Falconet::start(&["--static", folder.path.to_str().unwrap()]);
    let evil = "Origin: http://evil.example\r\n";
    for path in ["/", "/app.js", "/style.css", "/icon.svg", "/font.woff2"] {
        for method in ["GET", "HEAD"] {
            let mut http = Http::connect(falconet.address());
            http.send(request(method, path, evil, ""));
            let answer = http.read(method == "GET");
            assert_eq!(answer.status(), 200, "{method} {path}");
            // Without this header, the browser does not give the content to the page.
            assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{method} {path}");
        }
        assert_eq!(status(&falconet, "POST", path, evil), 403, "{path}");
        let rebound = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n{evil}\r\n");
        assert_eq!(status_of(&exchange(falconet.address(), rebound)), 403, "{path}");
    }
    for path in ["/topics/", "/topics/t", "/nothing"] {
        assert_eq!(status(&falconet, "GET", path, evil), 403, "{path}");
    }
    assert_eq!(upgrade(&falconet, "/", evil).0, 403);
}

#[test]
fn a_foreign_host_name_that_resolves_to_loopback_is_refused() {
    let falconet = Falconet::start(&["--origin", "https://friend.example"]);
    let any = Falconet::start(&["--origin", "any"]);
    let get = |host: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\r\n"
        )
    };
    for (host, wanted) in [
        ("localhost:8080", 200),
        ("app.localhost", 200),
        ("127.0.0.1", 200),
        ("[::1]:1", 200),
        ("rebound.example", 403),
        ("127.0.0.1.nip.io", 403),
        ("192.168.0.1", 403),
    ] {
        assert_eq!(status_of(&exchange(falconet.address(), get(host))), wanted, "{host}");
        assert_eq!(status_of(&exchange(any.address(), get(host))), 200, "{host}");
    }
    let friend = "GET / HTTP/1.1\r\nHost: friend.example:8080\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&exchange(falconet.address(), friend)), 200);
    falconet.wait_for_line("the requested host is not a name of this server");
}

#[cfg(feature = "full")]
#[test]
fn the_host_of_an_absolute_target_wins_over_the_host_header() {
    let falconet = Falconet::start(&["--origin", "https://friend.example"]);
    for (target, host, origin, wanted) in [
        ("http://localhost/topics/", "rebound.example", "", 200),
        ("http://rebound.example/topics/", "localhost", "", 403),
        ("HTTP://FRIEND.example:80/topics/", "rebound.example", "", 200),
        ("http://localhost/topics/", "a", "Origin: http://localhost\r\n", 200),
        ("http://LocalHost:80/topics/", "a", "Origin: http://localhost\r\n", 200),
        ("http://localhost:/topics/", "a:81", "Origin: http://localhost:80\r\n", 200),
        ("http://localhost:81/topics/", "localhost", "Origin: http://localhost\r\n", 403),
        ("http://localhost/topics/", "127.0.0.1", "Origin: http://127.0.0.1\r\n", 403),
        ("http://user@localhost/topics/", "localhost", "", 400),
    ] {
        let head =
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: close\r\n\r\n");
        let status = status_of(&exchange(falconet.address(), head));
        assert_eq!(status, wanted, "{target} {host} {origin}");
    }
    let line = falconet.wait_for_line("the requested host is not a name of this server");
    assert!(line.contains("host=rebound.example"), "{line}");
}

#[cfg(feature = "full")]
#[test]
fn a_token_for_a_topic_is_for_all_spellings_of_its_name() {
    let folder = Folder::new("spellings");
    let file = folder.write("tokens", "gardener all garden\nreader subscribe secret\n");
    let falconet = Falconet::start(&["--token-file", &file]);
    for (path, wanted) in [
        ("/topics/garden/a", 202),
        ("/topics/garden%2Fa", 202),
        ("/topics/%67arden%2fa", 202),
        ("/%74opics/g%61rden", 202),
        ("/topics%2Fgarden", 202),
        ("/topics/%73ecret", 403),
        ("/topics/garden%2f..%2Fsecret", 404),
        ("/topics/garden%252Fa", 403),
    ] {
        assert_eq!(status(&falconet, "POST", path, &bearer("gardener")), wanted, "{path}");
        let read = status(&falconet, "GET", path, &bearer("reader"));
        let allowed = if path.ends_with("%73ecret") { 404 } else { wanted.max(403) };
        assert_eq!(read, allowed, "{path}");
    }
}

#[cfg(feature = "full")]
#[test]
fn origins_are_checked_before_tokens() {
    let folder = Folder::new("order");
    let file = folder.write("tokens", "secret\n");
    let falconet = Falconet::start(&["--token-file", &file]);
    let evil = "Origin: http://evil.example\r\n";
    assert_eq!(status(&falconet, "GET", "/topics/t", evil), 403);
    assert_eq!(status(&falconet, "GET", "/", evil), 401);
    assert_eq!(status(&falconet, "POST", "/topics/t", &(bearer("secret") + evil)), 403);
}

#[cfg(feature = "full")]
#[test]
fn a_refusal_announces_the_close_only_if_the_connection_closes() {
    let folder = Folder::new("refusals");
    let file = folder.write("tokens", "secret\nreader subscribe\n");
    let flags = ["--token-file", &file, "--trust-proxy", "127.0.0.1", "--max-per-address", "1"];
    let falconet = Falconet::start(&flags);
    let client = "X-Forwarded-For: 192.0.2.1\r\n";
    let _held =
        Client::connect_with_headers(falconet.address(), "/", &(bearer("secret") + client)).0;
    let refused = [
        (bearer("secret") + "Origin: http://evil.example\r\n", 403),
        (bearer("secret") + "Forwarded: for=\"\r\n", 400),
        (bearer("secret") + client, 503),
        (bearer("reader"), 403),
        (String::new(), 401),
    ];
    for (lines, status) in refused {
        for body in ["", "a body"] {
            let mut http = Http::connect(falconet.address());
            let request = request("POST", "/topics/t", &lines, body);
            // The server must not wait for the body, nor fail when the body arrives with the head.
            for sent in [request.len() - body.len(), request.len()] {
                let answer = http.fetch(&request[..sent]);
                let answered = (answer.status(), answer.closes());
                assert_eq!(answered, (status, !body.is_empty()), "{lines}{body}");
                if answer.closes() {
                    http.assert_ended();
                    http = Http::connect(falconet.address());
                }
            }
            let again = http.fetch(self::request("GET", "/", &bearer("secret"), ""));
            assert_eq!((again.status(), again.closes()), (200, false), "{lines}");
        }
    }
    // The end of a malformed request is unknown, so the connection closes.
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(2100));
    for (head, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (&*long, 414),
    ] {
        let mut http = Http::connect(falconet.address());
        let answer = http.fetch(head);
        assert_eq!((answer.status(), answer.closes()), (status, true), "{head}");
        http.assert_ended();
    }
    // The end of a request whose body has no length is unknown, too.
    let mut http = Http::connect(falconet.address());
    let lines = format!("Host: localhost\r\n{}", bearer("secret"));
    let answer = http.fetch(format!("POST /topics/t HTTP/1.1\r\n{lines}\r\n"));
    assert_eq!((answer.status(), answer.closes()), (411, true));
    http.assert_ended();
}

#[cfg(feature = "full")]
#[test]
fn refused_requests_can_be_dropped_without_a_response() {
    let folder = Folder::new("silence");
    let file = folder.write("tokens", "secret\nreader subscribe\n");
    let flags = [
        "--reject",
        "drop",
        "--token-file",
        &file,
        "--max-publish-rate",
        "1",
        "--log-level",
        "debug",
    ];
    let falconet = Falconet::start(&flags);
    let mut http = Http::connect(falconet.address());
    let post = |lines: &str| request("POST", "/topics/t", lines, "x");
    assert_eq!(http.fetch(post(&bearer("secret"))).status(), 202);
    http.send(post(&bearer("secret")));
    http.assert_ended();
    falconet.wait_for_line("status=429");
    for (lines, logged) in [
        (String::new(), "status=401"),
        (bearer("reader"), "status=403"),
        (bearer("secret") + "Origin: http://evil.example\r\n", "status=403"),
    ] {
        for request in [post(&lines), handshake_with("/topics/t?mode=in", &lines).into()] {
            let mut http = Http::connect(falconet.address());
            http.send(request);
            http.assert_ended();
            let line = falconet.wait_for_line("dropped");
            assert!(line.contains(logged), "{line}");
        }
    }
}

#[cfg(feature = "full")]
#[test]
fn the_publish_rate_of_a_connection_is_limited() {
    let falconet = Falconet::start(&["--max-publish-rate", "3"]);
    let mut http = Http::connect(falconet.address());
    let mut statuses = Vec::new();
    while !statuses.contains(&429) && statuses.len() < 1000 {
        let answer = http.fetch(post("/topics/t", "x"));
        statuses.push(answer.status());
        assert_eq!(answer.header("Retry-After"), (answer.status() == 429).then_some("1"));
        assert!(!answer.closes(), "the body was read");
    }
    assert!(statuses.len() > 3 && statuses.last() == Some(&429), "{statuses:?}");
    assert_eq!(
        fetch(falconet.address(), post("/topics/t", "x")).status(),
        202,
        "another connection has its own limit"
    );
    assert_eq!(http.fetch(get("/topics/t")).status(), 200, "reading is not limited");
    let topics = with_numbers(http.fetch(get("/topics/")).text());
    let published = statuses.iter().filter(|status| **status == 202).count() + 1;
    assert!(topics.contains(&format!("\"id\":{published},")), "{topics}");
    wait_until("publishing is allowed again", || {
        http.fetch(post("/topics/t", "x")).status() == 202
    });
}

#[cfg(feature = "full")]
#[test]
fn the_publish_rate_of_an_address_is_limited_across_connections() {
    let folder = Folder::new("publish-rate");
    let file = folder.write("tokens", TOKENS);
    let flags = ["--max-publish-rate", "1", "--trust-proxy", "127.0.0.1", "--token-file", &file];
    let falconet = Falconet::start(&flags);
    let publish = |address: &str| {
        let lines = format!("X-Forwarded-For: {address}\r\nAuthorization: Bearer all-of-it\r\n");
        status(&falconet, "POST", "/topics/t", &lines)
    };
    let mut statuses = (0..100).map(|_| publish("192.0.2.1"));
    assert_eq!(statuses.next(), Some(202));
    assert!(statuses.any(|status| status == 429));
    assert_eq!(publish("192.0.2.2"), 202);
    // All networks of a customer with a /48 may publish four times as much.
    let mut networks = (0..100).map(|network| publish(&format!("2001:db8:0:{network:x}00::1")));
    assert!(networks.by_ref().take(4).all(|status| status == 202));
    assert!(networks.any(|status| status == 429));
}

#[cfg(feature = "full")]
#[test]
fn forwarded_addresses_count_only_from_a_trusted_proxy() {
    let flags = ["--log-level", "debug", "--trust-proxy", "10.0.0.0/8"];
    let trusting = Falconet::start(&[&flags[..], &["--trust-proxy", "127.0.0.1"]].concat());
    let wary = Falconet::start(&flags);
    for (index, (lines, client)) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 198.51.100.1, 192.0.2.1, 10.1.1.1\r\n", "192.0.2.1"),
        ("Forwarded: for=\"[2001:db8::1]:5\";proto=https\r\n", "2001:db8::1"),
        ("X-Forwarded-For: unknown\r\n", "127.0.0.1:"),
        ("", "127.0.0.1:"),
    ]
    .into_iter()
    .enumerate()
    {
        for (falconet, client) in [(&trusting, client), (&wary, "127.0.0.1:")] {
            let lines = format!("{lines}X-Request-Id: number-{index}\r\n");
            assert_eq!(status(falconet, "GET", "/", &lines), 200);
            let line = falconet.wait_for_line(&format!("number-{index}"));
            assert!(line.contains(&format!("address={client}")), "{line}");
        }
    }
    let two = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.2\r\n";
    assert_eq!(status(&trusting, "GET", "/", two), 400);
    assert_eq!(status(&wary, "GET", "/", two), 200);
}

#[cfg(feature = "full")]
#[test]
fn a_session_has_the_address_that_the_proxy_named() {
    let server = Embedded::start(|server| {
        let mut proxies = TrustedProxies::default();
        proxies.add("127.0.0.0/8".parse().unwrap());
        server.trust_proxies(proxies).endpoint("/", async |mut session: Session| {
            let peer = session.peer().to_string();
            session.send(peer).await;
            session.close(CloseReason::NORMAL).await
        })
    });
    let lines = "X-Forwarded-For: 192.0.2.1\r\n";
    let mut client = Client::connect_with_headers(server.address, "/", lines).0;
    assert_eq!(client.read().text(), "192.0.2.1");
    let mut client = Client::connect(server.address);
    assert!(client.read().text().starts_with("127.0.0.1:"));
    server.stop().unwrap().unwrap();
}

#[cfg(feature = "full")]
#[test]
fn the_connections_of_an_address_are_limited() {
    let flags = ["--trust-proxy", "127.0.0.1", "--max-per-address", "2"];
    let falconet = Falconet::start(&flags);
    let as_client = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    let connect = |address: &str| {
        Client::connect_with_headers(falconet.address(), "/", &as_client(address)).0
    };
    let first = connect("192.0.2.1");
    let events = Events::connect(falconet.address(), "/topics/t", &as_client("192.0.2.1"));
    assert_eq!(upgrade(&falconet, "/", &as_client("192.0.2.1")).0, 503);
    assert_eq!(status(&falconet, "GET", "/", &as_client("192.0.2.1")), 503);
    falconet.wait_for_line("too many connections from one address");
    connect("192.0.2.2").echo("another address has its own limit");
    drop(first);
    wait_until("a connection is allowed again", || {
        upgrade(&falconet, "/", &as_client("192.0.2.1")).0 == 101
    });
    drop(events);
    // The proxy itself is exempt, and so is this host.
    let many: Vec<Client> = (0..10).map(|_| Client::connect(falconet.address())).collect();
    assert_eq!(many.len(), 10);
}

#[cfg(feature = "full")]
#[test]
fn the_connections_of_an_ipv6_network_are_limited() {
    let flags = ["--trust-proxy", "127.0.0.1", "--max-per-address", "1"];
    let falconet = Falconet::start(&flags);
    let mut held = Vec::new();
    for (address, status) in [
        ("2001:db8:0:100::1", 101),
        ("2001:db8:0:100::2", 503),
        ("2001:db8:0:101::1", 101),
        ("2001:db8:0:1ff::1", 503),
        ("2001:db8:0:200::1", 101),
        ("2001:db8:0:ff00::1", 101),
        ("2001:db8:0:300::1", 503),
        ("2001:db8:1:300::1", 101),
    ] {
        let lines = format!("X-Forwarded-For: {address}\r\n");
        let mut http = Http::connect(falconet.address());
        http.send(handshake_with("/", &lines));
        assert_eq!(status_of(&read_response_head(&mut http.stream())), status, "{address}");
        held.push(http);
    }
}

#[cfg(feature = "full")]
#[test]
fn a_proxys_connection_counts_for_its_client_during_one_request() {
    let falconet = Falconet::start(&["--trust-proxy", "127.0.0.1", "--max-per-address", "1"]);
    let as_client =
        |address: &str| request("GET", "/", &format!("X-Forwarded-For: {address}\r\n"), "");
    let mut one = Http::connect(falconet.address());
    let mut other = Http::connect(falconet.address());
    for _ in 0..3 {
        assert_eq!(one.fetch(as_client("192.0.2.1")).status(), 200);
        assert_eq!(other.fetch(as_client("192.0.2.1")).status(), 200);
        assert_eq!(other.fetch(as_client("192.0.2.2")).status(), 200);
        assert_eq!(other.fetch(get("/")).status(), 200);
    }
    // A refusal does not close the proxy's connection.
    let held =
        Client::connect_with_headers(falconet.address(), "/", "X-Forwarded-For: 192.0.2.1\r\n").0;
    assert_eq!(one.fetch(as_client("192.0.2.1")).status(), 503);
    assert_eq!(one.fetch(as_client("192.0.2.2")).status(), 200);
    drop(held);
}

#[cfg(feature = "full")]
#[test]
fn the_forwarded_host_of_a_trusted_proxy_counts_as_the_servers_own_origin() {
    let trusting = Falconet::start(&["--trust-proxy", "127.0.0.1"]);
    let wary = Falconet::start(&[]);
    let lines = "Origin: https://pi.example\r\nX-Forwarded-Proto: https\r\n\
                 X-Forwarded-Host: pi.example\r\n";
    assert_eq!(upgrade(&trusting, "/", lines).0, 101);
    assert_eq!(upgrade(&wary, "/", lines).0, 403);
    let other = lines.replace("https://pi", "https://evil");
    assert_eq!(upgrade(&trusting, "/", &other).0, 403);
    // On a loopback listener, X-Forwarded-Host does not make a foreign host name acceptable.
    let rebound = "GET / HTTP/1.1\r\nHost: rebound.example\r\nX-Forwarded-Host: localhost\r\n\r\n";
    assert_eq!(status_of(&exchange(trusting.address(), rebound)), 403);
}

#[cfg(feature = "full")]
#[test]
fn the_proxy_header_has_the_address_of_the_client_and_is_required() {
    let flags = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--max-per-address", "1"];
    let falconet = Falconet::start(&[&flags[..], &["--log-level", "debug"]].concat());
    let text = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n".to_vec();
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
        &[192, 0, 2, 2, 127, 0, 0, 1, 0x12, 0x67, 0, 80],
    ]
    .concat();
    for (header, client) in [
        (&text[..], "address=192.0.2.1:4711"),
        (&binary[..], "address=192.0.2.2:4711"),
        (b"PROXY UNKNOWN\r\n", "address=127.0.0.1:"),
        (LOCAL, "address=127.0.0.1:"),
    ] {
        let mut http = Http::connect(falconet.address());
        http.send(header);
        assert_eq!(
            http.fetch(request("GET", "/", "X-Forwarded-For: 192.0.2.9\r\n", "")).status(),
            200
        );
        let line = falconet.wait_for_line("answered");
        // The client may have written X-Forwarded-For.
        assert!(line.contains(client), "{line}");
        assert_eq!(http.fetch(get("/")).status(), 200, "one header per connection is enough");
        falconet.wait_for_line("answered");
    }
    let hold = |header: &[u8]| {
        let mut stream = connect(falconet.address());
        stream.write_all(&[header, handshake("/").as_bytes()].concat()).unwrap();
        (status_of(&read_response_head(&mut stream)) == 101).then_some(stream)
    };
    let held = hold(&text).expect("one connection is allowed");
    assert!(hold(&text).is_none(), "a second connection of the address is refused");
    assert!(hold(&binary).is_some(), "a connection of another address is allowed");
    drop(held);
    wait_until("a connection is allowed again", || hold(&text).is_some());
    for wrong in [&b""[..], b"PROXY TCP9 a b c d\r\n", b"PROXY TCP4 192.0.2.1 127.0.0.1 x 80\r\n"] {
        assert_eq!(exchange(falconet.address(), [wrong, &get("/")].concat()), "");
        falconet.wait_for_line("of the PROXY protocol");
    }
}

#[cfg(feature = "full")]
#[test]
fn an_untrusted_peer_may_not_send_a_proxy_header() {
    let falconet = Falconet::start(&["--trust-proxy", "unix", "--proxy-protocol"]);
    assert_eq!(status(&falconet, "GET", "/", ""), 200);
    let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    assert_eq!(exchange(falconet.address(), [&header[..], &get("/")].concat()), "");
}

#[cfg(feature = "full")]
#[test]
fn a_proxy_that_sends_no_header_in_time_is_dropped() {
    let flags = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--head-timeout", "50ms"];
    let falconet = Falconet::start(&flags);
    let mut http = Http::connect(falconet.address());
    http.send("PROXY TCP4 192.0");
    http.assert_ended();
    falconet.wait_for_line("no header of the PROXY protocol in time");
}

#[cfg(feature = "full")]
#[test]
fn a_proxy_that_sends_no_header_does_not_delay_the_stop() {
    let no_timeouts = ["--close-timeout", "1h", "--head-timeout", "0"];
    let flags = [&["--trust-proxy", "127.0.0.1", "--proxy-protocol"], &no_timeouts[..]].concat();
    let mut falconet = Falconet::start(&flags);
    let mut http = Http::connect(falconet.address());
    http.send("PROXY TCP4 192.0");
    // This connection was opened later. Once it has its response, the server waits for the header of the first.
    let mut other = Http::connect(falconet.address());
    other.send(b"PROXY UNKNOWN\r\n");
    assert_eq!(other.fetch(get("/")).status(), 200);
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    http.assert_ended();
}

#[cfg(feature = "full")]
#[test]
fn a_token_is_in_no_log_line_and_on_no_command_line() {
    let folder = Folder::new("marker");
    let protocol = format!("Sec-WebSocket-Protocol: falconet, bearer.{MARKER}\r\n");
    let wrong = bearer(&format!("{MARKER}-wrong"));
    let ways = [bearer(MARKER), basic(&format!("me:{MARKER}")), protocol, wrong, String::new()];
    for (format, rights) in [("text", ""), ("logfmt", " subscribe"), ("json", " publish garden")] {
        let file = folder.write("tokens", &format!("{MARKER}{rights}\n"));
        let flags = [
            "--token-file",
            &file,
            "--log-format",
            format,
            "--log-level",
            "debug",
            "--allow-query-token",
        ];
        for lines in &ways {
            for path in ["/", "/nowhere", "/topics/t", "/topics/garden/gate", "/topics/t?mode=x"] {
                // Each case has its own server, because only ten lines of a kind are logged in a second.
                let falconet = Falconet::start(&flags);
                let separator = if path.contains('?') { '&' } else { '?' };
                let path = match lines.is_empty() {
                    true => format!("{path}{separator}token={MARKER}"),
                    false => path.to_owned(),
                };
                send_all_kinds(&falconet, &path, lines);
                assert_no_token_leak(&falconet, MARKER);
            }
        }
        let falconet = Falconet::start(&flags);
        folder.write("tokens", &format!("{MARKER} {MARKER} {MARKER}\npublish {MARKER}\n"));
        wait_until("the invalid file is logged", || {
            status(&falconet, "GET", "/", &bearer(MARKER));
            falconet.log_so_far().iter().any(|line| line.contains("tokens:1: expected"))
        });
        assert_no_token_leak(&falconet, MARKER);
    }
}

/// Sends all kinds of requests, valid and invalid ones.
fn send_all_kinds(falconet: &Falconet, path: &str, lines: &str) {
    for method in ["GET", "POST", "DELETE"] {
        status(falconet, method, path, lines);
        status(falconet, method, path, &format!("{lines}Origin: http://evil.example\r\n"));
    }
    let mut http = Http::connect(falconet.address());
    http.send(handshake_with(path, lines));
    let _ = http.try_read(true);
    drop(http);
    // A malformed header line.
    exchange(falconet.address(), format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\n"));
    // The log is complete up to this request, and nothing was suppressed.
    status(falconet, "GET", "/", "X-Request-Id: the-last-of-all\r\n");
    falconet.wait_for_line("the-last-of-all");
    assert!(!falconet.log_so_far().iter().any(|line| line.contains("suppressed")));
}

/// Headers of the PROXY protocol, version 2: a connection of the proxy itself, a client that is not named, and
/// one that has connected over a Unix socket.
#[cfg(feature = "full")]
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
#[cfg(feature = "full")]
const UNSPEC: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";
#[cfg(feature = "full")]
const UNIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\0";

/// A token that occurs nowhere else.
const MARKER: &str = "MARKER-5f3a";

#[cfg(feature = "full")]
#[test]
fn a_remote_client_of_a_local_proxy_may_not_publish_without_tokens() {
    let falconet = Falconet::start(&["--trust-proxy", "127.0.0.1"]);
    let publish = |lines: &str| {
        let head = format!(
            "POST /topics/a HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 1\r\n\r\nx"
        );
        fetch(falconet.address(), head).status()
    };
    assert_eq!(publish(""), 202);
    assert_eq!(publish("X-Forwarded-For: 127.0.0.1\r\n"), 202);
    assert_eq!(publish("X-Forwarded-For: 192.0.2.1\r\n"), 403);
    assert_eq!(publish(""), 202, "the next request is the proxy's own");
}

#[cfg(feature = "full")]
#[test]
fn a_remote_client_in_a_proxy_header_may_not_publish_without_tokens() {
    let falconet = Falconet::start(&["--trust-proxy", "127.0.0.1", "--proxy-protocol"]);
    let publish = |client: &str| {
        let header = format!("PROXY TCP4 {client} 127.0.0.1 5000 80\r\n");
        let head = "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
        fetch(falconet.address(), header + head).status()
    };
    assert_eq!(publish("127.0.0.1"), 202);
    assert_eq!(publish("192.0.2.1"), 403);
}

#[cfg(feature = "full")]
#[test]
fn a_client_without_a_readable_address_may_not_publish_without_tokens() {
    let falconet = Falconet::start(&["--trust-proxy", "127.0.0.1"]);
    let mut http = Http::connect(falconet.address());
    for lines in [
        "X-Forwarded-For: unknown\r\n",
        "X-Forwarded-For: 192.0.2.1,\r\n",
        "X-Forwarded-For:\r\n",
        "X-Forwarded-For: unknown, 127.0.0.1\r\n",
        "X-Forwarded-For: 127.0.0.1, unix:\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: _a\r\n",
        "Forwarded: for=_hidden\r\n",
        "Forwarded: for=unknown;proto=http, for=127.0.0.1\r\n",
        "Forwarded: proto=http\r\n",
    ] {
        assert_eq!(http.fetch(request("POST", "/topics/t", lines, "")).status(), 403, "{lines}");
        assert_eq!(upgrade(&falconet, "/topics/t?mode=in", lines).0, 403, "{lines}");
        assert_eq!(http.fetch(request("GET", "/topics/t", lines, "")).status(), 404, "{lines}");
        // The next request is the proxy's own.
        assert_eq!(http.fetch(request("DELETE", "/topics/t", "", "")).status(), 204, "{lines}");
    }
}

#[cfg(feature = "full")]
#[test]
fn a_client_that_a_proxy_header_does_not_reveal_may_not_publish_without_tokens() {
    let proxies = ["--trust-proxy", "127.0.0.1", "--trust-proxy", "192.0.2.0/24"];
    let falconet = Falconet::start(&[&proxies[..], &["--proxy-protocol"]].concat());
    let remote = b"PROXY TCP4 192.0.2.1 127.0.0.1 5000 80\r\n";
    for (header, status) in [
        (&b"PROXY UNKNOWN\r\n"[..], 403),
        (b"PROXY UNKNOWN 127.0.0.1 127.0.0.1 5000 80\r\n", 403),
        (UNSPEC, 403),
        (UNIX, 403),
        (remote, 403),
        (LOCAL, 202),
    ] {
        // A client behind a proxy may have written these lines.
        for lines in ["", "X-Forwarded-For: 127.0.0.1\r\n", "Forwarded: for=127.0.0.1\r\n"] {
            let mut http = Http::connect(falconet.address());
            http.send(header);
            let shown = header.escape_ascii();
            for _ in 0..2 {
                let answer = http.fetch(request("POST", "/topics/t", lines, ""));
                assert_eq!(answer.status(), status, "{shown} {lines}");
            }
            assert_eq!(http.fetch(get("/topics/")).status(), 200, "{shown} {lines}");
        }
    }
}

#[cfg(feature = "full")]
#[test]
fn a_remote_client_of_an_untrusted_proxy_on_this_host_may_not_publish_without_tokens() {
    let falconet = Falconet::start(&[]);
    let mut http = Http::connect(falconet.address());
    for (lines, status) in [
        ("", 202),
        ("X-Forwarded-For: 127.0.0.1\r\n", 202),
        ("X-Forwarded-For: ::ffff:127.0.0.1, [::1]:5\r\n", 202),
        ("Forwarded: for=127.0.0.1;proto=http\r\n", 202),
        ("X-Forwarded-For: 192.0.2.1\r\n", 403),
        ("X-Forwarded-For: 127.0.0.1, 192.0.2.1\r\n", 403),
        ("X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n", 403),
        ("X-Forwarded-For: unknown\r\n", 403),
        ("Forwarded: for=_hidden\r\n", 403),
        ("Forwarded: for=\"\r\n", 403),
        ("", 202),
    ] {
        let answer = http.fetch(request("POST", "/topics/t", lines, ""));
        assert_eq!(answer.status(), status, "{lines}");
    }
}
