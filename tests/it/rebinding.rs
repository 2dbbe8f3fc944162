//! DNS rebinding on addresses that other hosts can reach: an attacker makes a DNS name lead to this host, so that
//! a page of the attacker has the origin of the server.

use std::process::Command;

use crate::support::access::bearer;
use crate::support::folder::Folder;
use crate::support::installed::are_installed;
use crate::support::*;

/// Starts a server that other hosts can reach, with more `flags`.
fn start(flags: &[&str]) -> Falconet {
    let listen = ["--listen", "http://0.0.0.0:0"];
    Falconet::start_with(Falconet::command().args(listen).args(flags))
}

/// Returns a request of a page at `http://HOST`, which is on the server itself if its name leads there.
fn of_page_at(host: &str, method: &str, path: &str, lines: &str) -> String {
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\
         Connection: close\r\n{lines}{length}\r\n"
    )
}

/// Returns the status of the response to a GET of a page at `http://HOST`.
fn status_at(falconet: &Falconet, host: &str) -> u16 {
    status_of(&exchange(falconet.address(), of_page_at(host, "GET", "/", "")))
}

const EVIL: &str = "rebind.evil.example";

#[test]
fn a_rebound_page_reads_nothing_and_publishes_nothing() {
    let falconet = start(&[]);
    for (method, path, lines) in [
        ("GET", "/", ""),
        ("GET", "/app.js", ""),
        ("GET", "/topics/", ""),
        ("GET", "/topics/t", ""),
        ("GET", "/topics/t", SSE),
        ("POST", "/topics/t", ""),
        ("OPTIONS", "/topics/t", ""),
    ] {
        for host in [EVIL, &format!("{EVIL}:8080")] {
            let answer = exchange(falconet.address(), of_page_at(host, method, path, lines));
            assert_eq!(status_of(&answer), 403, "{method} {path} {host} {answer}");
            assert!(body_of(&answer).contains("--origin SCHEME://HOST"), "{answer}");
        }
    }
    for path in ["/", "/topics/t"] {
        let head = handshake_with(path, &format!("Origin: http://{EVIL}\r\n"));
        let head = head.replacen("Host: localhost", &format!("Host: {EVIL}"), 1);
        assert_eq!(status_of(&exchange(falconet.address(), head)), 403, "{path}");
    }
    let line = falconet.wait_for_line("is not a name of this server");
    assert!(line.contains(&format!("host={EVIL}")), "{line}");
}

#[test]
fn a_server_without_tokens_accepts_addresses_and_names_of_local_networks() {
    let falconet = start(&[]);
    for (host, status) in [
        (&*format!("{}", falconet.address()), 200),
        ("192.0.2.1", 200),
        ("[2001:db8::1]:8080", 200),
        ("localhost", 200),
        ("pi", 200),
        ("pi.local", 200),
        ("pi.lan:8080", 200),
        ("pi.internal", 200),
        ("pi.home.arpa", 200),
        (EVIL, 403),
        ("pi.local.evil.example", 403),
        ("192.0.2.1.nip.io", 403),
    ] {
        assert_eq!(status_at(&falconet, host), status, "{host}");
    }
    assert_eq!(status_of(&exchange(falconet.address(), "GET / HTTP/1.0\r\n\r\n")), 200);
}

#[test]
fn a_public_name_is_accepted_once_it_is_the_host_of_an_allowed_origin() {
    let named = start(&["--origin", "https://live.example", "--origin", "http://a"]);
    let any = start(&["--origin", "any"]);
    for (host, status) in [("live.example", 200), ("live.example:8080", 200), (EVIL, 403)] {
        assert_eq!(status_at(&named, host), status, "{host}");
        assert_eq!(status_at(&any, host), 200, "{host}");
    }
}

#[test]
fn with_tokens_every_name_is_accepted() {
    let folder = Folder::new("rebinding-tokens");
    let file = folder.write("tokens", "secret\n");
    let falconet = start(&["--token-file", &file]);
    for (lines, status) in [(bearer("secret"), 200), (String::new(), 401)] {
        let request = of_page_at(EVIL, "GET", "/topics/", &lines);
        assert_eq!(status_of(&exchange(falconet.address(), request)), status, "{lines}");
    }
}

#[test]
fn the_forwarded_host_of_a_trusted_proxy_counts_instead_of_the_host() {
    let trusting = start(&["--trust-proxy", "127.0.0.1", "--origin", "https://live.example"]);
    let wary = start(&["--origin", "https://live.example"]);
    for (host, forwarded, [trusted, untrusted]) in [
        ("10.0.0.1:8080", "live.example", [200, 200]),
        ("10.0.0.1:8080", EVIL, [403, 200]),
        // A browser sends such a name, too.
        ("10.0.0.1:8080", "a~b.evil.example", [403, 200]),
        (EVIL, "live.example", [200, 403]),
        (EVIL, "pi.lan", [200, 403]),
        (EVIL, EVIL, [403, 403]),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: {forwarded}\r\n");
        let head = head + "Connection: close\r\n\r\n";
        for (falconet, status) in [(&trusting, trusted), (&wary, untrusted)] {
            let answer = exchange(falconet.address(), &head);
            assert_eq!(status_of(&answer), status, "{host} {forwarded}");
        }
    }
}

#[test]
fn the_names_of_the_host_are_accepted_in_the_sandbox() {
    if !are_installed(&["unshare", "nsenter", "hostname"]) {
        return;
    }
    let namespaces = ["--user", "--map-root-user", "--mount", "--uts"];
    let probe = Command::new("unshare").args(namespaces).arg("true").status().unwrap();
    if !probe.success() {
        println!("skipped: unshare(2) is forbidden here");
        return;
    }
    let folder = Folder::new("rebinding-names");
    let hosts =
        "127.0.0.1 localhost\n127.0.0.9 listen.example\n127.0.1.1 pi.full.example pi.short\n";
    let hosts = folder.write("hosts", hosts);
    let script = "hostname pi.short && mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(namespaces);
    command.args(["sh", "-c", script, &hosts, env!("CARGO_BIN_EXE_falconet")]);
    let urls = ["--listen", "http://0.0.0.0:0", "--listen", "http://listen.example:0"];
    let falconet = Falconet::start_with(command.args(urls));
    for (host, status) in [
        ("pi.short", 200),
        ("PI.short:8080", 200),
        ("listen.example", 200),
        ("pi.full.example", 200),
        ("evil.example", 403),
        ("hut.example", 403),
    ] {
        assert_eq!(status_at(&falconet, host), status, "{host}");
    }
    // The host gets another name while the server runs.
    let mut rename = Command::new("nsenter");
    rename.args(["--target", &falconet.pid().to_string(), "--user", "--preserve-credentials"]);
    assert!(rename.args(["--uts", "hostname", "hut.example"]).status().unwrap().success());
    assert_eq!(status_at(&falconet, "hut.example"), 200);
    assert_eq!(status_at(&falconet, "pi.short"), 200, "it is beside the first name in the file");
}

#[cfg(feature = "tls")]
#[test]
fn the_names_in_the_certificate_are_accepted() {
    if !are_installed(&["curl", "openssl"]) {
        return;
    }
    let folder = Folder::new("rebinding-tls");
    let [cert, key] = ["cert.pem", "key.pem"].map(|file| folder.file(file));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    openssl.args(["-subj", "/CN=falconet", "-addext"]);
    openssl.arg("subjectAltName=DNS:live.example,DNS:*.wild.example");
    let made = openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert).output().unwrap();
    assert!(made.status.success(), "{made:?}");

    let mut command = Falconet::command();
    command.args(["--listen", "https://0.0.0.0:0", "--tls-cert"]).arg(&cert);
    let falconet = Falconet::start_with(command.arg("--tls-key").arg(&key));
    let port = falconet.address().port();
    for (host, status) in [
        (format!("live.example:{port}"), "200"),
        ("Live.example".to_owned(), "200"),
        ("a.wild.example".to_owned(), "200"),
        ("pi.local".to_owned(), "200"),
        ("wild.example".to_owned(), "403"),
        ("a.live.example".to_owned(), "403"),
        (EVIL.to_owned(), "403"),
    ] {
        // A browser would check the certificate.
        let quiet = ["--silent", "--output", "/dev/null", "--noproxy", "*", "--insecure"];
        let mut curl = Command::new("curl");
        curl.args(quiet).args(["--write-out", "%{http_code}", "--header"]);
        curl.args([format!("Host: {host}"), format!("https://127.0.0.1:{port}/")]);
        let output = curl.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), status, "{host}");
    }
}
