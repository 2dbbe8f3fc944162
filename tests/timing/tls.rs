//! TLS: peers that break the protocol or stall are dropped without delay.

#![cfg(feature = "tls")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection};

use crate::measure::*;
use crate::support::folder::Folder;
use crate::support::tls::*;
use crate::support::*;

#[test]
fn another_record_within_a_handshake_message_ends_only_its_connection() {
    let _guard = serial();
    let server = TlsServer::start("tls-broken-into", &[]);
    let record = |kind: u8, body: &[u8]| [&[kind, 3, 1, 0, body.len() as u8][..], body].concat();
    // The first part of a ClientHello of 256 bytes.
    let mut hello = vec![1, 0, 1, 0, 3, 3];
    hello.resize(60, 7);
    let (alert, data, change) = ([2, 40], [0; 20], [1]);
    for (kind, body) in [(21, &alert[..]), (23, &data[..]), (20, &change[..]), (22, &[9; 30][..])] {
        for separately in [false, true] {
            let mut stream = connect(server.address());
            stream.write_all(&record(22, &hello)).unwrap();
            if separately {
                // Once the server has answered a client that connected later, it has read the record.
                server.client("/").echo("next");
            }
            let _ = stream.write_all(&record(kind, body));
            let _ = stream.shutdown(Shutdown::Write);
            let (_, taken) = time_to_end(stream, Instant::now());
            assert!(taken < Duration::from_secs(2), "{kind}: {taken:?}");
        }
    }
    server.client("/").echo("still here");
    assert!(!server.falconet.log_so_far().iter().any(|line| line.contains("panicked")));
}

#[test]
fn garbage_instead_of_tls_ends_the_connection_at_once() {
    let _guard = serial();
    let server = TlsServer::start("tls-garbage", &[]);
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..200 {
        let length = random.usize(1..2000);
        let mut garbage: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        if round % 2 == 0 {
            // The header of a handshake record that is longer than the bytes after the header.
            let header = [0x16, 3, 1, 0, 5, 1, 0, 0, 1];
            let length = header.len().min(garbage.len());
            garbage[..length].copy_from_slice(&header[..length]);
        }
        let mut stream = connect(server.address());
        let start = Instant::now();
        let _ = stream.write_all(&garbage);
        // Otherwise the server would wait for the rest of a possible record.
        if garbage.len() < 10 || (round % 2 == 1 && (0x14..=0x18).contains(&garbage[0])) {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let (answer, taken) = time_to_end(stream, start);
        assert!(taken < Duration::from_secs(2), "{taken:?}");
        // Garbage that begins like HTTP gets an HTTP response.
        let is_alert = answer.len() < 10 || garbage[0].is_ascii_uppercase();
        assert!(is_alert, "{:?}", String::from_utf8_lossy(&answer));
    }
    server.client("/").echo("still here");
    assert!(!server.falconet.log_so_far().iter().any(|line| line.contains("panicked")));
}

#[test]
fn an_overlong_record_ends_the_connection_at_once() {
    let _guard = serial();
    let server = TlsServer::start("tls-long", &[]);
    let mut stream = connect(server.address());
    let start = Instant::now();
    stream.write_all(&[0x16, 3, 1, 0xff, 0xff]).unwrap();
    assert!(time_to_end(stream, start).1 < Duration::from_secs(2));
    // A handshake message that is too long, in many records.
    let mut stream = connect(server.address());
    let mut records = Vec::new();
    for record in 0..16 {
        records.extend([0x16, 3, 1, 0x10, 0]);
        let mut payload = vec![0; 0x1000];
        if record == 0 {
            payload[..4].copy_from_slice(&[1, 0, 0xff, 0xf0]);
        }
        records.extend(payload);
    }
    let start = Instant::now();
    let _ = stream.write_all(&records);
    assert!(time_to_end(stream, start).1 < Duration::from_secs(2));
    server.falconet.wait_for_line("a TLS handshake message is too long");
}

#[test]
fn handshake_and_head_share_one_deadline() {
    let _guard = serial();
    let server =
        TlsServer::start("tls-stall", &["--tls-timeout", "600ms", "--head-timeout", "60s"]);
    let within = |taken: Duration| {
        assert!((500..5000).contains(&taken.as_millis()), "{taken:?}");
    };
    let start = Instant::now();
    let silent = connect(server.address());
    let mut stalled = connect(server.address());
    stalled.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).unwrap();
    let mut headless = server.connect();
    headless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    within(time_to_end(silent, start).1);
    within(time_to_end(stalled, start).1);
    assert_eq!(rest_of(headless), b"");
    within(start.elapsed());
    // The deadline no longer applies once the head is complete.
    let mut kept = server.client("/");
    std::thread::sleep(Duration::from_millis(700));
    kept.echo("after the deadline");
}

#[test]
fn replayed_client_hellos_delay_no_other_client() {
    let _guard = serial();
    let server = RsaServer::start("tls-replay", &[]);
    let canaries = start_canaries(CANARY_PAUSE, &server.falconet);
    let until = Instant::now() + FLOOD;
    let answered = replay(|| connect(server.tls), &client_hello(&server.config), until);
    println!("{answered} replayed ClientHellos answered in {FLOOD:?}");
    assert!(answered > 20, "addresses of this host have no limit");
    assert_prompt(canaries);
}

#[cfg(feature = "full")]
#[test]
fn an_address_that_floods_handshakes_slows_down_only_itself() {
    let _guard = serial();
    let flags = ["--trust-proxy", "127.0.0.2", "--proxy-protocol", "--max-handshake-rate", "20"];
    let server = RsaServer::start("tls-flood", &flags);
    let canaries = start_canaries(CANARY_PAUSE, &server.falconet);
    let connect_for = |client: &str| {
        let mut stream = connect_from([127, 0, 0, 2].into(), server.tls);
        write!(stream, "PROXY TCP4 {client} 127.0.0.1 4711 443\r\n").unwrap();
        stream
    };
    let hello = client_hello(&server.config);
    let (cpu_before, until) = (server.falconet.cpu_time(), Instant::now() + FLOOD);
    let (answered, mut times) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| replay(|| connect_for("192.0.2.1"), &hello, until));
        let mut times = Vec::new();
        while !flood.is_finished() {
            let start = Instant::now();
            connect_tls_over(connect_for("192.0.2.2"), &server.config).unwrap();
            times.push(start.elapsed());
            // The pause between two handshakes, so that this address stays within its rate.
            std::thread::sleep(Duration::from_millis(60));
        }
        (flood.join().unwrap(), times)
    });
    let cpu_time = server.falconet.cpu_time() - cpu_before;
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("{answered} replayed ClientHellos answered in {FLOOD:?}, processor time {cpu_time:?}");
    println!(
        "{} handshakes of another address: median {median:?}, {:?}",
        times.len(),
        times.last()
    );
    // 20 at once, and 20 a second.
    assert!((21..=55).contains(&answered), "{answered}");
    assert!(cpu_time < FLOOD * 2 / 3, "{cpu_time:?}");
    assert!(median < Duration::from_millis(100), "{median:?}");
    assert_prompt(canaries);
}

/// A server with a plain port, and a port for TLS with an RSA key of 4096 bits, with which one signature takes
/// some milliseconds.
struct RsaServer {
    falconet: Falconet,
    tls: SocketAddr,
    config: Arc<ClientConfig>,
    _files: Folder,
}

impl RsaServer {
    fn start(name: &str, flags: &[&str]) -> Self {
        let files = Folder::new(name);
        copy_pair("rsa4096", &files.path);
        let [certificate, key] = ["tls-cert.pem", "tls-key.pem"].map(|name| files.file(name));
        let listen = ["--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0"];
        let mut command = Falconet::command();
        command.args(listen).args(["--broadcast-every", "0"]).args(flags);
        command.arg("--tls-cert").arg(&certificate).arg("--tls-key").arg(&key);
        let falconet = Falconet::start_with(&mut command);
        let line = falconet.wait_for_line("listening on https://");
        let authority = line.split("https://").nth(1).unwrap().split('/').next().unwrap();
        let (tls, config) = (authority.parse().unwrap(), tls_config(&certificate, &TLS13));
        Self { falconet, tls, config, _files: files }
    }
}

/// Returns the first message of a client.
fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(config.clone(), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

/// Sends `hello` on [`REPLAYED`] connections at once, and on a new connection for each that the server has
/// answered or closed, until `until`. Returns how many were answered.
fn replay(connect: impl Fn() -> TcpStream, hello: &[u8], until: Instant) -> usize {
    let (mut open, mut answered) = (VecDeque::new(), 0);
    while Instant::now() < until {
        while open.len() < REPLAYED {
            let mut stream = connect();
            // The server may have closed the connection already.
            let _ = stream.write_all(hello);
            open.push_back(stream);
        }
        let oldest: Option<TcpStream> = open.pop_front();
        answered += usize::from(oldest.unwrap().read(&mut [0]).is_ok_and(|count| count > 0));
    }
    answered
}

/// Opens a connection from the address `own` of this host.
fn connect_from(own: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((own, 0))).unwrap();
    rustix::net::connect(&socket, &server).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// The duration of a flood.
const FLOOD: Duration = Duration::from_millis(1500);
/// The number of replayed ClientHellos at once: two turns' worth of tasks.
const REPLAYED: usize = 128;

/// Reads to the end of a raw connection. Returns the bytes, and the time from `since` to the end.
fn time_to_end(stream: TcpStream, since: Instant) -> (Vec<u8>, Duration) {
    (rest_of(stream), since.elapsed())
}
