//! TLS: HTTP and WebSocket over TLS, certificates, alerts, and session resumption.

#![cfg(feature = "tls")]

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64ct::{Base64, Encoding};
use falconet::config::{Certificate, Config, Tls};
use falconet::{Echo, Server};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, HandshakeKind};

use crate::support::client::{PipedClient, client_command, exit_code};
use crate::support::folder::Folder;
use crate::support::tls::*;
use crate::support::*;

/// Sends a request and reads to the end of the stream.
fn exchange_over(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("close_notify");
    answer
}

/// A stream that writes one byte and reads three bytes at a time.
struct Dribble(TcpStream);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(3);
        self.0.read(&mut buffer[..count])
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(feature = "full")]
#[test]
fn pages_sessions_topics_and_broadcasts_work_over_both_versions_of_tls() {
    let server = TlsServer::start("tls-versions", &[]);
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&server.certificate(), version);
        let connect = || connect_tls(server.address(), &config).unwrap();

        let page = exchange_over(
            connect(),
            &request("GET", "/", "Accept: text/html\r\nConnection: close\r\n", ""),
        );
        assert_eq!(status_of(&page), 200);
        assert!(body_of(&page).contains("<title>falconet</title>"));

        let mut client = Client::upgrade(connect(), "/");
        client.echo("hello");
        client.send(true, BINARY, [0, 255]);
        assert_eq!(client.read(), Frame { fin: true, opcode: BINARY, payload: vec![0, 255] });
        let large = "x".repeat(60 * 1024);
        client.echo(&large);
        client.send(false, TEXT, &large[..30_000]);
        client.send(false, CONTINUATION, "");
        client.send(true, CONTINUATION, "end");
        assert_eq!(client.read().text().len(), 30_003);
        client.send(true, PING, "p");
        assert_eq!(client.read(), Frame { fin: true, opcode: PONG, payload: b"p".to_vec() });

        let mut subscriber = Client::upgrade(connect(), "/topics/a");
        let mut events = connect();
        let accept = "Accept: text/event-stream\r\n";
        events.write_all(&request("GET", "/topics/a", accept, "")).unwrap();
        assert_eq!(status_of(&read_response_head(&mut events)), 200);
        let answer = exchange_over(
            connect(),
            &request("POST", "/topics/a", "Connection: close\r\n", "21.5"),
        );
        assert_eq!(status_of(&answer), 202, "{answer}");
        loop {
            // A message retained from the previous round comes first.
            let frame = subscriber.read();
            if frame.text() == "21.5" {
                break;
            }
        }
        let mut events = BufReader::new(events);
        let mut blocks = std::iter::from_fn(|| read_chunk(&mut events));
        assert!(blocks.any(|block| Event::parse(block.trim_end()).data == "21.5"));
        let answer = exchange_over(
            connect(),
            &request("POST", "/topics/broadcast", "Connection: close\r\n", "to all"),
        );
        assert_eq!(status_of(&answer), 202, "{answer}");
        assert_eq!(client.read().text(), "to all");
    }
}

#[test]
fn records_may_arrive_byte_by_byte() {
    let server = TlsServer::start("tls-dribble", &["--broadcast-every", "0"]);
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&server.certificate(), version);
        let stream = connect_tls_over(Dribble(connect(server.address())), &config).unwrap();
        let mut client = Client::upgrade(stream, "/");
        for text in ["", "hello", &"x".repeat(3000)] {
            client.echo(text);
        }
    }
}

#[test]
fn a_record_of_maximum_length_may_arrive_in_two_pieces() {
    let server = TlsServer::start("tls-pieces", &["--broadcast-every", "0"]);
    let mut barrier = server.client("/");
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&server.certificate(), version);
        let mut client = Client::upgrade(connect_tls(server.address(), &config).unwrap(), "/");
        let text = "x".repeat(16 * 1024 - 8);
        client.stream.conn.writer().write_all(&masked(true, TEXT, text.as_bytes())).unwrap();
        let mut record = Vec::new();
        client.stream.conn.write_tls(&mut record).unwrap();
        let (most, last) = record.split_at(record.len() - 1);
        client.stream.sock.write_all(most).unwrap();
        wait_until_read(&mut barrier);
        client.stream.sock.write_all(last).unwrap();
        assert_eq!(client.read().text(), text);
    }
}

#[test]
fn a_modified_record_ends_the_connection_with_an_alert() {
    let server = TlsServer::start("tls-changed", &["--broadcast-every", "0"]);
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&server.certificate(), version);
        let mut client = Client::upgrade(connect_tls(server.address(), &config).unwrap(), "/");
        client.stream.conn.writer().write_all(&masked(true, TEXT, b"hello")).unwrap();
        let mut record = Vec::new();
        client.stream.conn.write_tls(&mut record).unwrap();
        *record.last_mut().unwrap() ^= 1;
        client.stream.sock.write_all(&record).unwrap();
        let error = client.try_read().unwrap_err().to_string();
        assert!(error.contains("BadRecordMac"), "{error}");
    }
}

#[test]
fn several_records_in_one_packet_are_all_answered() {
    let server = TlsServer::start("tls-together", &["--broadcast-every", "0"]);
    let mut client = server.client("/");
    for round in 0..50 {
        // Twenty records in one write.
        for message in 0..20 {
            let text = format!("{round} {message}");
            let frame = masked(true, TEXT, text.as_bytes());
            client.stream.conn.writer().write_all(&frame).unwrap();
        }
        client.stream.flush().unwrap();
        for message in 0..20 {
            assert_eq!(client.read().text(), format!("{round} {message}"));
        }
    }
}

#[cfg(feature = "full")]
#[test]
fn a_peer_that_reads_late_gets_every_byte_in_order() {
    let server = TlsServer::start("tls-late", &["--broadcast-every", "0"]);
    let mut client = server.client("/topics/late?mode=out");
    let mut publisher = server.connect();
    // More than the kernel buffers, and less than the topic keeps.
    let messages = 60;
    for message in 0..messages {
        let body = format!("{message} {}", "y".repeat(4000));
        publisher.write_all(&request("POST", "/topics/late", "", body)).unwrap();
        let head = read_response_head(&mut publisher);
        assert_eq!(status_of(&head), 202);
        let length = header_of(&head, "Content-Length").unwrap().parse().unwrap();
        publisher.read_exact(&mut vec![0; length]).unwrap();
    }
    for message in 0..messages {
        assert!(client.read().text().starts_with(&format!("{message} y")));
    }
    // The echoes are read only after the server has blocked. Then all arrive.
    let client = server.client("/");
    let mut raw = client.stream.sock.try_clone().unwrap();
    raw.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut stream = client.stream;
    let messages = 100;
    let mut records = Vec::new();
    for message in 0..messages {
        let text = format!("{message} {}", "z".repeat(60_000));
        stream.conn.writer().write_all(&masked(true, TEXT, text.as_bytes())).unwrap();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut records).unwrap();
        }
    }
    let writer = std::thread::spawn(move || raw.write_all(&records));
    // The server has stopped reading when it can send no more.
    wait_until("the server has blocked", || {
        let before = server.falconet.cpu_time();
        std::thread::sleep(Duration::from_millis(100));
        server.falconet.cpu_time() == before
    });
    assert!(!writer.is_finished(), "the kernel buffered everything: the server was not blocked");
    let mut client = Client { stream };
    for message in 0..messages {
        let frame = client.read();
        assert_eq!(frame.payload.len(), format!("{message} ").len() + 60_000);
        assert!(frame.text().starts_with(&format!("{message} z")));
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn a_peer_that_does_not_read_is_closed_with_1008() {
    let flags = ["--broadcast-every", "0", "--write-timeout", "300ms", "--log-level", "debug"];
    let server = TlsServer::start("tls-stuck", &flags);
    let client = server.client("/");
    let mut stream = client.stream;
    let frame = masked(true, TEXT, &vec![b'x'; 60_000]);
    stream.sock.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    for _ in 0..200 {
        if stream.write_all(&frame).is_err() {
            break;
        }
    }
    let line = server.falconet.wait_for_line("connection ended");
    assert!(line.contains("1008"), "{line}");
}

#[test]
fn plain_http_on_a_tls_port_gets_an_explanation_in_plain_text() {
    let server = TlsServer::start("tls-plain", &[]);
    for begin in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /topics/a HTTP/1.1\r\n", "G"] {
        let answer = exchange(server.address(), begin);
        assert_eq!(status_of(&answer), 400, "{begin}");
        assert_eq!(body_of(&answer), "this port speaks TLS: the URL begins with https://\n");
    }
    let silent = TlsServer::start("tls-plain-drop", &["--reject", "drop"]);
    assert_eq!(exchange(silent.address(), get("/")), "");
}

#[test]
fn a_closed_connection_ends_with_close_notify() {
    let server = TlsServer::start("tls-close-notify", &[]);
    let mut client = server.client("/");
    client.send(true, CLOSE, 1000_u16.to_be_bytes());
    assert_eq!(client.read().close_code(), 1000);
    // Without close_notify, rustls reports an unexpected end.
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    let answer =
        exchange_over(server.connect(), &request("GET", "/nothing", "Connection: close\r\n", ""));
    assert_eq!(status_of(&answer), 404);
}

#[test]
fn a_peer_that_has_sent_close_notify_still_gets_its_response() {
    let server = TlsServer::start("tls-half", &[]);
    let mut stream = server.connect();
    stream.conn.writer().write_all(&get("/style.css")).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status_of(&answer), 200);
}

#[test]
fn a_disconnect_is_logged_as_lost_with_or_without_close_notify() {
    let server = TlsServer::start("tls-disconnect", &["--log-level", "debug"]);
    for sends_close_notify in [false, true] {
        let mut client = server.client("/");
        if sends_close_notify {
            client.stream.conn.send_close_notify();
            client.stream.flush().unwrap();
        }
        drop(client.stream.sock);
        server.falconet.wait_for_line("connection ended: lost");
    }
    // A peer that sends close_notify and keeps the connection open has disconnected, too.
    let mut client = server.client("/");
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    server.falconet.wait_for_line("connection ended: lost");
}

#[test]
fn a_stopping_server_closes_with_1001_over_tls() {
    let mut server = TlsServer::start("tls-drain", &[]);
    let mut client = server.client("/");
    client.echo("hello");
    server.falconet.signal(Signal::TERM);
    assert_eq!(client.read().close_code(), 1001);
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    assert!(server.falconet.wait_for_exit(TIMEOUT).success());
}

#[test]
fn a_tls_session_is_resumed() {
    let server = TlsServer::start("tls-again", &[]);
    for version in [&TLS12, &TLS13] {
        let config = tls_config(&server.certificate(), version);
        let kinds = [(); 2].map(|()| {
            let stream = connect_tls(server.address(), &config).unwrap();
            let mut client = Client::upgrade(stream, "/");
            client.echo("the session ticket precedes this");
            client.stream.conn.handshake_kind().unwrap()
        });
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    }
}

#[test]
fn a_self_signed_certificate_names_this_host_and_the_listen_address() {
    let state = Folder::new("tls-names");
    let made = Falconet::start_with(
        Falconet::command()
            .args(["--listen", "https://127.0.0.2:0", "--tls-self-signed", "--state-dir"])
            .arg(&state.path),
    );
    let config = tls_config(&state.file("ca.pem"), &TLS13);
    let system = rustix::system::uname();
    for name in ["localhost", "127.0.0.1", "::1", "127.0.0.2", &system.nodename().to_string_lossy()]
    {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(config.clone(), name).unwrap();
        connection.complete_io(&mut connect(made.address())).unwrap();
    }
    let name = ServerName::try_from("elsewhere.example").unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    assert!(connection.complete_io(&mut connect(made.address())).is_err());
}

#[test]
fn the_fingerprint_of_the_certificate_is_logged() {
    let server = TlsServer::start("tls-fingerprint", &[]);
    let certificate = presented_certificate(server.address(), &[&server.certificate()]);
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let digits: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let log = server.falconet.log_so_far().concat();
    assert!(log.contains(&format!("SHA-256 fingerprint {}", digits.join(":"))), "{log}");
}

#[test]
fn the_whole_chain_is_presented() {
    let own = Folder::new("tls-chain");
    copy_pair("ec", &own.path);
    let signer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/rsa-cert.pem");
    let [leaf, chain] = ["tls-cert.pem", "chain.pem"].map(|name| own.file(name));
    let both = [&leaf, &signer].map(|file| fs::read_to_string(file).unwrap()).concat();
    fs::write(&chain, both).unwrap();
    let falconet = Falconet::start_with(
        Falconet::command()
            .args(["--listen", "https://127.0.0.1:0", "--tls-cert"])
            .arg(&chain)
            .arg("--tls-key")
            .arg(own.file("tls-key.pem")),
    );
    for version in [&TLS12, &TLS13] {
        let stream = connect_tls(falconet.address(), &tls_config(&leaf, version)).unwrap();
        let expected = [&leaf, &signer].map(|file| CertificateDer::from_pem_file(file).unwrap());
        assert_eq!(stream.conn.peer_certificates().unwrap(), expected);
    }
}

/// Returns the certificate that a server presents.
fn presented_certificate(address: SocketAddr, roots: &[&Path]) -> CertificateDer<'static> {
    let stream = roots.iter().find_map(|root| connect_tls(address, &tls_config(root, &TLS13)).ok());
    let stream = stream.expect("one of the certificates is the server's");
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_renewed_certificate_is_loaded_and_an_invalid_one_is_not() {
    let [old, new, used] = ["tls-old", "tls-new", "tls-used"].map(Folder::new);
    let (first, second) = (copy_pair("old", &old.path), copy_pair("ec", &new.path));
    let [chain, key] = ["tls-cert.pem", "tls-key.pem"].map(|name| used.file(name));
    let copy = |from: &Folder, name: &str| {
        fs::copy(from.file(name), used.file("incoming")).unwrap();
        fs::rename(used.file("incoming"), used.file(name)).unwrap();
    };
    copy(&old, "tls-cert.pem");
    copy(&old, "tls-key.pem");
    let certificate = Certificate::Files { chain: chain.clone(), key: key.clone() };
    let server = Embedded::start_on("https://127.0.0.1:0", |server: falconet::ServerBuilder| {
        let tls = Tls { certificate: Some(certificate), check_every: Duration::ZERO };
        server.config(Config { tls, ..Config::default() }).endpoint("/", Echo)
    });
    let roots = [&*old.file("tls-cert.pem"), &*new.file("tls-cert.pem")];
    assert_eq!(presented_certificate(server.address, &roots), first);
    let config = tls_config(&old.file("tls-cert.pem"), &TLS13);
    let mut client = Client::upgrade(connect_tls(server.address, &config).unwrap(), "/");
    client.echo("before");

    // Neither half of the new pair nor a broken file replaces the old pair.
    copy(&new, "tls-cert.pem");
    assert_eq!(presented_certificate(server.address, &roots), first);
    fs::write(&key, "broken").unwrap();
    assert_eq!(presented_certificate(server.address, &roots), first);
    fs::remove_file(&key).unwrap();
    assert_eq!(presented_certificate(server.address, &roots), first);

    copy(&new, "tls-key.pem");
    assert_eq!(presented_certificate(server.address, &roots), second);
    client.echo("still connected");
}

#[test]
fn valid_certificate_files_are_read_once_a_minute() {
    let [used, new] = ["tls-minute", "tls-minute-new"].map(Folder::new);
    let (first, _) = (copy_pair("old", &used.path), copy_pair("ec", &new.path));
    let tls_cert = used.file("tls-cert.pem");
    let falconet = Falconet::start_with(
        Falconet::command()
            .args(["--listen", "https://127.0.0.1:0", "--tls-cert"])
            .arg(&tls_cert)
            .arg("--tls-key")
            .arg(used.file("tls-key.pem")),
    );
    fs::copy(&tls_cert, used.file("root.pem")).unwrap();
    let root = used.file("root.pem");
    // The first connection reads the files. Connections within the same minute do not read them again.
    assert_eq!(presented_certificate(falconet.address(), &[&root]), first);
    for name in ["tls-cert.pem", "tls-key.pem"] {
        fs::copy(new.file(name), used.file(name)).unwrap();
    }
    assert_eq!(presented_certificate(falconet.address(), &[&root]), first);
}

#[test]
fn keys_of_every_supported_format_are_read() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let own = Folder::new("tls-kinds");
    copy_pair("ec", &own.path);
    // The innermost part of PKCS#8 is a key in the form of SEC1.
    let key = PrivateKeyDer::from_pem_file(own.file("tls-key.pem")).unwrap();
    let der = key.secret_der();
    let begin = der.windows(5).position(|part| part == [0x02, 1, 1, 4, 32]).unwrap() - 2;
    let sec1 = own.file("sec1.pem");
    let kind = "EC PRIVATE KEY";
    let encoded = Base64::encode_string(&der[begin..]);
    fs::write(&sec1, format!("-----BEGIN {kind}-----\n{encoded}\n-----END {kind}-----\n")).unwrap();
    for (chain, key) in [
        (own.file("tls-cert.pem"), own.file("tls-key.pem")),
        (own.file("tls-cert.pem"), sec1),
        (files.join("rsa-cert.pem"), files.join("rsa-key.pem")),
    ] {
        let with_files = || {
            let mut command = Falconet::command();
            command.args(["--listen", "https://127.0.0.1:0", "--tls-cert"]).arg(&chain);
            command.arg("--tls-key").arg(&key);
            command
        };
        let printed = with_files().arg("--print-config").output().unwrap().stdout;
        let line = format!("tls-cert = {}\ntls-key = {}\n", chain.display(), key.display());
        assert!(String::from_utf8(printed).unwrap().contains(&line), "{line}");
        let falconet = Falconet::start_with(&mut with_files());
        for version in [&TLS12, &TLS13] {
            connect_tls(falconet.address(), &tls_config(&chain, version)).unwrap();
        }
    }
}

#[test]
fn invalid_tls_options_are_refused_with_the_expected_ones() {
    let own = Folder::new("tls-wrong");
    copy_pair("ec", &own.path);
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (cert, key) = (text(own.file("tls-cert.pem")), text(own.file("tls-key.pem")));
    let other_key = text(files.join("rsa-key.pem"));
    let https = ["--listen", "https://127.0.0.1:0"];
    for (flags, parts) in [
        (vec![https[0], https[1]], ["https://127.0.0.1:0", "tls-self-signed"]),
        (vec!["--tls-self-signed"], ["tls-self-signed `true`", "https://"]),
        (vec!["--tls-cert", &cert, "--tls-key", &key], ["tls-cert `", "https://"]),
        (vec![https[0], https[1], "--tls-cert", &cert], ["listen `https", "tls-key"]),
        (
            vec![https[0], https[1], "--tls-cert", &cert, "--tls-key", &key, "--tls-self-signed"],
            ["tls-self-signed alone", ""],
        ),
        (
            vec![https[0], https[1], "--tls-cert", "/nowhere", "--tls-key", &key],
            ["/nowhere", "PEM"],
        ),
        (
            vec![https[0], https[1], "--tls-cert", &key, "--tls-key", &key],
            ["no certificate", "PEM"],
        ),
        (vec![https[0], https[1], "--tls-cert", &cert, "--tls-key", &cert], ["PKCS#8", "SEC1"]),
        (
            vec![https[0], https[1], "--tls-cert", &cert, "--tls-key", &other_key],
            ["rsa-key.pem", "the key of the certificate"],
        ),
    ] {
        let output = Falconet::command().args(&flags).arg("--check-config").output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{flags:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(parts.iter().all(|part| error.contains(part)), "{flags:?}: {error}");
    }
}

#[test]
fn an_https_url_without_a_certificate_is_an_error_of_the_library() {
    let url = "https://127.0.0.1:0".parse().unwrap();
    let error = Server::builder().bind([&url]).err().unwrap();
    assert!(error.to_string().contains("needs a certificate"), "{error}");
}

#[cfg(feature = "full")]
#[test]
fn the_client_trusts_the_certificates_of_a_file() {
    let server = TlsServer::start("tls-client", &["--broadcast-every", "0", "--retain", "5"]);
    let (wss, https) = (server.url("wss"), server.url("https"));
    let certificate = server.certificate();
    let ca = certificate.to_str().unwrap();
    let mut client = PipedClient::start(&["--ca", ca, &wss]);
    client.send("one\n");
    assert_eq!(client.line(), "one\n");
    assert_eq!(client.finish().0, 0);

    let large = "l".repeat(50_000);
    for message in ["first", &large] {
        let output =
            client_command(&["pub", "--server", &https, "--ca", ca, "news", message]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr, b"");
    }
    for flags in [&["--last", "2"][..], &["--sse", "--last", "2"]] {
        let arguments = [&["sub", "--server", &https, "--ca", ca], flags, &["news"]].concat();
        let mut subscriber = PipedClient::start(&arguments);
        assert_eq!(subscriber.line(), "first\n");
        assert_eq!(subscriber.line(), format!("{large}\n"));
        subscriber.signal(Signal::TERM);
        assert_eq!(exit_code(&mut subscriber.child), 0);
    }
}

#[test]
fn the_client_refuses_an_untrusted_certificate() {
    let server = TlsServer::start("tls-unknown", &[]);
    let other = TlsServer::start("tls-unknown-other", &[]);
    let roots = other.certificate();
    for arguments in [&["--ca"][..], &["pub", "a", "b", "--ca"], &["sub", "--sse", "a", "--ca"]] {
        let is_session = arguments.len() == 1;
        let scheme = server.url(if is_session { "wss" } else { "https" });
        let mut command = client_command(arguments);
        command.arg(&roots);
        if !is_session {
            command.arg("--server");
        }
        let output = command.arg(&scheme).stdin(std::process::Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("UnknownIssuer") && error.contains("--ca FILE"), "{error}");
        assert!(!error.contains("reconnecting"), "{error}");
    }
    // This server does not speak TLS.
    let plain = Falconet::start(&[]);
    let url = format!("wss://{}", plain.address());
    let output = client_command(&["--insecure", "--no-reconnect", &url])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[cfg(feature = "full")]
#[test]
fn the_client_warns_when_it_trusts_every_certificate() {
    let server = TlsServer::start("tls-insecure", &["--broadcast-every", "0"]);
    let mut client = PipedClient::start(&["--insecure", &server.url("wss")]);
    client.wait_for_stderr("warning: --insecure");
    client.send("one\n");
    assert_eq!(client.line(), "one\n");
    assert_eq!(client.finish().0, 0);
    let https = server.url("https");
    let output =
        client_command(&["pub", "--insecure", "--server", &https, "a", "b"]).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("warning: --insecure"));
}

#[cfg(feature = "full")]
#[test]
fn the_client_uses_the_certificate_authorities_of_the_host() {
    let server = TlsServer::start("tls-system", &["--broadcast-every", "0"]);
    let https = server.url("https");
    let publish = |roots: Option<&Path>| {
        let mut command = client_command(&["pub", "--server", &https, "a", "b"]);
        if let Some(roots) = roots {
            command.env("SSL_CERT_FILE", roots);
        }
        command.output().unwrap()
    };
    assert!(publish(Some(&server.certificate())).status.success());
    let refused = publish(None);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "no authority of the host has signed the certificate"
    );
    let refused = publish(Some(Path::new("/nowhere")));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("/nowhere"));
}
