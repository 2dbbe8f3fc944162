//! The certificate authority of a server that signs its own certificate: what real clients think of it, its
//! files, and how the certificate follows the host.

#![cfg(feature = "tls")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;

use crate::support::command::{KillOnDrop, assert_refused, run, stdout_of, wait_for_exit};
use crate::support::folder::Folder;
use crate::support::installed::are_installed;
use crate::support::tls::*;
use crate::support::*;

/// Returns the certificate that a server presents to a client that trusts `authority`.
fn presented(address: SocketAddr, authority: &Path) -> CertificateDer<'static> {
    let stream = connect_tls(address, &tls_config(authority, &TLS13)).unwrap();
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Returns the names of the files in a folder, with their permissions.
fn files_of(folder: &Path) -> Vec<(String, u32)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut files: Vec<(String, u32)> = entries
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    files.sort_unstable();
    files
}

#[test]
fn only_the_authority_is_kept_in_the_state_directory() {
    let state = Folder::new("tls-kept");
    let inner = state.file("made/for/it");
    let authority = inner.join("ca.pem");
    let run = || {
        let falconet = TlsServer::start_in(&inner, &[]);
        let leaf = presented(falconet.address(), &authority);
        let files = [("ca-key.pem".to_owned(), 0o600), ("ca.pem".to_owned(), 0o644)];
        assert_eq!(files_of(&inner), files);
        (fs::read(&authority).unwrap(), leaf)
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0, second.0, "who trusts the authority once never has to again");
    assert_ne!(first.1, second.1, "the server's certificate lives in memory");
    fs::remove_file(&authority).unwrap();
    run();
    fs::write(&authority, &first.0).unwrap();
    assert_eq!(run().0, first.0, "an authority that was made again has the same key");
}

#[test]
fn a_certificate_of_the_old_kind_is_replaced_with_a_warning() {
    let state = Folder::new("tls-old-kind");
    copy_pair("old", &state.path);
    let falconet = TlsServer::start_in(&state.path, &[]);
    let log = falconet.log_so_far();
    let warning = log.iter().find(|line| line.contains("self-signed certificate")).unwrap();
    for name in ["tls-cert.pem` is replaced", "ca.pem"] {
        assert!(warning.contains(name), "{warning}");
    }
    presented(falconet.address(), &state.file("ca.pem"));
    let names: Vec<String> = files_of(&state.path).into_iter().map(|file| file.0).collect();
    assert_eq!(names, ["ca-key.pem", "ca.pem"]);
    // The certificate of another authority is not of this kind.
    copy_pair("ec", &state.path);
    let falconet = TlsServer::start_in(&state.path, &[]);
    assert!(!falconet.log_so_far().concat().contains("is replaced"));
    assert_eq!(files_of(&state.path).len(), 4);
}

#[test]
fn an_authority_without_its_key_is_replaced_with_a_warning() {
    let state = Folder::new("tls-keyless");
    drop(TlsServer::start_in(&state.path, &[]));
    fs::remove_file(state.file("ca-key.pem")).unwrap();
    let falconet = TlsServer::start_in(&state.path, &[]);
    let log = falconet.log_so_far().concat();
    assert!(log.contains("ca.pem` is replaced: its key is missing"), "{log}");
    presented(falconet.address(), &state.file("ca.pem"));
}

#[test]
fn a_broken_or_foreign_file_is_named() {
    let [state, other] = ["tls-broken", "tls-foreign"].map(Folder::new);
    let start = || drop(TlsServer::start_in(&state.path, &[]));
    start();
    drop(TlsServer::start_in(&other.path, &[]));
    let foreign = fs::read_to_string(other.file("ca.pem")).unwrap();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
    for (name, text, part) in [
        ("ca.pem", "broken".to_owned(), "as falconet has stored it"),
        ("ca.pem", foreign, "another certificate"),
        ("ca.pem", read("rsa-cert.pem"), "another certificate"),
        ("ca-key.pem", String::new(), "the key that falconet has stored"),
        ("ca-key.pem", read("rsa-key.pem"), "the key that falconet has stored"),
    ] {
        let path = state.file(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        let mut command = Falconet::command();
        command.args([
            "--listen",
            "https://127.0.0.1:0",
            "--tls-self-signed",
            "--log-level",
            "off",
        ]);
        let path_text = path.to_str().unwrap();
        assert_refused(command.arg("--state-dir").arg(&state.path), 1, &[path_text, part]);
        fs::write(&path, good).unwrap();
    }
    start();
}

#[test]
fn openssl_accepts_the_certificates_under_its_strict_rules() {
    if !are_installed(&["openssl"]) {
        return;
    }
    let server = TlsServer::start("tls-openssl", &["--listen", "https://127.0.0.2:0"]);
    let authority = server.certificate();
    let folder = Folder::new("tls-openssl-leaf");
    let leaf = folder.file("leaf.der");
    fs::write(&leaf, presented(server.address(), &authority)).unwrap();
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    for (kind, name) in [
        ("-verify_hostname", "localhost"),
        ("-verify_hostname", &*host),
        ("-verify_hostname", &format!("{host}.local")),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_ip", "127.0.0.2"),
        ("-verify_ip", "::1"),
    ] {
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslserver"]);
        command.args([kind, name]).arg("-CAfile").args([&authority, &leaf]);
        assert!(stdout_of(&mut command).ends_with(": OK\n"), "{name}");
    }
    let text_of =
        |file: &Path| stdout_of(Command::new("openssl").args(["x509", "-text", "-in"]).arg(file));
    let (authority, leaf) = (text_of(&authority), text_of(&leaf));
    for part in
        ["CA:TRUE, pathlen:0", "Name Constraints: critical", "DNS:local\n", "IP:10.0.0.0/255.0.0.0"]
    {
        assert!(authority.contains(part), "{part}\n{authority}");
    }
    assert!(leaf.contains("TLS Web Server Authentication"), "{leaf}");
    assert_eq!(days_of(&authority), 3652);
    assert_eq!(days_of(&leaf), 396, "397 days without the last second");
}

#[test]
fn the_keys_of_the_own_certificates_are_on_the_curve_p_256() {
    if !are_installed(&["openssl"]) {
        return;
    }
    let server = TlsServer::start("tls-curve", &[]);
    let folder = Folder::new("tls-curve-leaf");
    let leaf = folder.file("leaf.der");
    fs::write(&leaf, presented(server.address(), &server.certificate())).unwrap();
    for file in [server.certificate(), leaf] {
        let mut command = Command::new("openssl");
        let text = stdout_of(command.args(["x509", "-noout", "-text", "-in"]).arg(&file));
        assert!(text.contains("NIST CURVE: P-256\n"), "{text}");
        assert!(text.contains("Signature Algorithm: ecdsa-with-SHA256\n"), "{text}");
    }
}

/// Returns the number of whole days that a certificate is valid for, from the text of openssl.
fn days_of(text: &str) -> i64 {
    let seconds = |label: &str| {
        let date = text.split(label).nth(1).unwrap().lines().next().unwrap();
        let output = stdout_of(Command::new("date").args(["+%s", "-d", date]));
        output.trim().parse::<i64>().unwrap()
    };
    (seconds("Not After : ") - seconds("Not Before: ")) / (24 * 60 * 60)
}

#[test]
fn curl_trusts_the_authority() {
    if !are_installed(&["curl"]) {
        return;
    }
    let server = TlsServer::start("tls-curl", &[]);
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/style.css", server.address().port());
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]);
        assert!(stdout_of(command.arg(server.certificate()).arg(url)).contains('{'));
    }
}

#[test]
fn java_trusts_the_authority() {
    if !are_installed(&["java", "javac", "keytool"]) {
        return;
    }
    let server = TlsServer::start("tls-java", &[]);
    let folder = Folder::new("tls-java-trust");
    let store = folder.file("trust.p12");
    let mut keytool = Command::new("keytool");
    keytool.args(["-importcert", "-noprompt", "-storepass", "changeit", "-file"]);
    let (code, _, error) = run(keytool.arg(server.certificate()).arg("-keystore").arg(&store));
    assert_eq!(code, Some(0), "{error}");
    let mut java = Command::new("java");
    java.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
    java.arg("-Djavax.net.ssl.trustStorePassword=changeit");
    java.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/Fetch.java"));
    let port = server.address().port();
    let urls = ["localhost", "127.0.0.1"].map(|host| format!("https://{host}:{port}/"));
    let (code, output, error) = run(java.args(urls));
    assert_eq!((code, &*output), (Some(0), "200\n200\n"), "{error}");
}

#[test]
fn chromium_trusts_the_authority() {
    if !are_installed(&["chromium", "certutil"]) {
        return;
    }
    let server = TlsServer::start("tls-chromium", &[]);
    let home = Folder::new("tls-chromium-home");
    let store = home.file(".pki/nssdb");
    fs::create_dir_all(&store).unwrap();
    let store = format!("sql:{}", store.display());
    stdout_of(Command::new("certutil").args(["-N", "--empty-password", "-d", &store]));
    let mut certutil = Command::new("certutil");
    certutil.args(["-A", "-n", "falconet", "-t", "C,,", "-d", &store, "-i"]);
    stdout_of(certutil.arg(server.certificate()));
    let page = home.file("page");
    let mut chromium = Command::new("chromium");
    chromium
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--no-proxy-server", "--disable-background-networking"])
        .arg(format!("--user-data-dir={}", home.file("profile").display()))
        .args(["--dump-dom", &format!("{}/style.css", server.url("https"))])
        .env("HOME", &home.path)
        .stdin(Stdio::null())
        .stdout(File::create(&page).unwrap())
        .stderr(Stdio::null());
    wait_for_exit(&mut KillOnDrop(chromium.spawn().unwrap()).0);
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("<pre") && page.contains("color"), "{page}");
}

/// A server in namespaces of its own, in which a test may change the host's name and addresses.
struct Host {
    falconet: Falconet,
    state: Folder,
}

impl Host {
    /// Starts a server on a host called `pi`, after `setup`, a shell command.
    fn start(name: &str, setup: &str) -> Option<Self> {
        if !are_installed(&["unshare", "nsenter", "ip", "curl"]) {
            return None;
        }
        let namespaces = ["--user", "--map-root-user", "--net", "--uts"];
        if run(Command::new("unshare").args(namespaces).arg("true")).0 != Some(0) {
            println!("skipped: unshare(2) is forbidden here");
            return None;
        }
        let state = Folder::new(name);
        let script = format!("hostname pi && ip link set lo up && {setup} && exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", &script, env!("CARGO_BIN_EXE_falconet")]);
        command.args(["--listen", "https://0.0.0.0:0", "--tls-self-signed", "--state-dir"]);
        let falconet = Falconet::start_with(command.arg(&state.path));
        Some(Self { falconet, state })
    }

    /// Runs a command on the host.
    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let pid = self.falconet.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--user", "--preserve-credentials", "--net", "--uts"]);
        run(command.args(words))
    }

    /// Returns true if a client on the host gets an answer from `name` at `address`.
    fn answers(&self, name: &str, address: &str) -> bool {
        let port = self.falconet.address().port();
        let (ca, url) = (self.state.file("ca.pem"), format!("https://{name}:{port}/"));
        let (ca, place) = (ca.to_str().unwrap(), format!("{name}:{port}:{address}"));
        let quiet = ["curl", "--silent", "--output", "/dev/null", "--noproxy", "*", "--cacert", ca];
        self.run(&[&quiet[..], &["--resolve", &place, &url]].concat()).0 == Some(0)
    }
}

#[test]
fn new_names_and_addresses_are_learned_in_the_sandbox_without_a_restart() {
    let Some(host) = Host::start("tls-learns", "true") else { return };
    for command in ["ip addr add 10.9.9.9/32 dev lo", "hostname hut"] {
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(host.run(&words).0, Some(0), "{command}");
    }
    assert!(host.answers("10.9.9.9", "10.9.9.9"));
    assert!(host.answers("hut.local", "127.0.0.1"));
    assert!(!host.answers("pi.local", "127.0.0.1"));
    // The authority was made for a host called `pi`, and can't sign for `hut`.
    let line = host.falconet.wait_for_line("left out of the TLS certificate");
    assert!(line.ends_with(": hut"), "{line}");
}

#[test]
fn public_names_and_addresses_are_left_out_with_one_line() {
    let setup = "ip addr add 2001:db8::5/128 dev lo && ip addr add 198.51.100.5/32 dev lo";
    let Some(host) = Host::start("tls-public", setup) else { return };
    assert!(host.answers("pi", "127.0.0.1"), "the rest of the certificate is not spoilt");
    let log = host.falconet.log_so_far();
    let mut lines = log.iter().filter(|line| line.contains("left out of the TLS certificate"));
    let line = lines.next().unwrap();
    assert!(line.ends_with(": 198.51.100.5, 2001:db8::5"), "{line}");
    assert_eq!(lines.next(), None);
}
