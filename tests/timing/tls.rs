//! TLS: peers that break the protocol or stall are dropped without delay.

#![cfg(feature = "tls")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::measure::serial;
use crate::support::tls::*;
use crate::support::*;

#[test]
fn a_handshake_message_that_another_record_breaks_into_ends_the_connection_and_nothing_else() {
    let _guard = serial();
    let secure = TlsServer::start("tls-broken-into", &[]);
    let record = |kind: u8, body: &[u8]| [&[kind, 3, 1, 0, body.len() as u8][..], body].concat();
    // The beginning of a ClientHello of 256 bytes.
    let mut hello = vec![1, 0, 1, 0, 3, 3];
    hello.resize(60, 7);
    let (alert, data, change) = ([2, 40], [0; 20], [1]);
    for (kind, body) in [(21, &alert[..]), (23, &data[..]), (20, &change[..]), (22, &[9; 30][..])] {
        for apart in [false, true] {
            let mut stream = connect(secure.address());
            stream.write_all(&record(22, &hello)).unwrap();
            if apart {
                // It has been read when the server answers somebody who came later.
                secure.client("/").echo("next");
            }
            let _ = stream.write_all(&record(kind, body));
            let _ = stream.shutdown(Shutdown::Write);
            let (_, taken) = time_to_end(stream, Instant::now());
            assert!(taken < Duration::from_secs(2), "{kind}: {taken:?}");
        }
    }
    secure.client("/").echo("still here");
    assert!(!secure.falconet.log_so_far().iter().any(|line| line.contains("panicked")));
}

#[test]
fn garbage_where_tls_is_spoken_ends_at_once() {
    let _guard = serial();
    let secure = TlsServer::start("tls-garbage", &[]);
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..200 {
        let length = random.usize(1..2000);
        let mut garbage: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        if round % 2 == 0 {
            // A record header, of a handshake, that promises what does not come.
            let header = [0x16, 3, 1, 0, 5, 1, 0, 0, 1];
            let length = header.len().min(garbage.len());
            garbage[..length].copy_from_slice(&header[..length]);
        }
        let mut stream = connect(secure.address());
        let begun = Instant::now();
        let _ = stream.write_all(&garbage);
        // Without that, what could yet become a record is waited for.
        if garbage.len() < 10 || (round % 2 == 1 && (0x14..=0x18).contains(&garbage[0])) {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let (answer, taken) = time_to_end(stream, begun);
        assert!(taken < Duration::from_secs(2), "{taken:?}");
        // One that begins as HTTP does is told so.
        let is_alert = answer.len() < 10 || garbage[0].is_ascii_uppercase();
        assert!(is_alert, "{:?}", String::from_utf8_lossy(&answer));
    }
    secure.client("/").echo("still here");
    assert!(!secure.falconet.log_so_far().iter().any(|line| line.contains("panicked")));
}

#[test]
fn a_record_longer_than_any_may_be_ends_at_once() {
    let _guard = serial();
    let secure = TlsServer::start("tls-long", &[]);
    let mut stream = connect(secure.address());
    let begun = Instant::now();
    stream.write_all(&[0x16, 3, 1, 0xff, 0xff]).unwrap();
    assert!(time_to_end(stream, begun).1 < Duration::from_secs(2));
    // A handshake message of the longest length there is, in many records: bounded, too.
    let mut stream = connect(secure.address());
    let mut records = Vec::new();
    for record in 0..16 {
        records.extend([0x16, 3, 1, 0x10, 0]);
        let mut payload = vec![0; 0x1000];
        if record == 0 {
            payload[..4].copy_from_slice(&[1, 0, 0xff, 0xf0]);
        }
        records.extend(payload);
    }
    let begun = Instant::now();
    let _ = stream.write_all(&records);
    assert!(time_to_end(stream, begun).1 < Duration::from_secs(2));
    secure.falconet.wait_for_line("a TLS handshake message is too long");
}

#[test]
fn handshake_and_head_share_one_deadline() {
    let _guard = serial();
    let secure =
        TlsServer::start("tls-stall", &["--tls-timeout", "600ms", "--head-timeout", "60s"]);
    let within = |taken: Duration| {
        assert!((500..5000).contains(&taken.as_millis()), "{taken:?}");
    };
    let begun = Instant::now();
    let silent = connect(secure.address());
    let mut stalled = connect(secure.address());
    stalled.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).unwrap();
    let headless = secure.connect();
    let mut headless = headless;
    headless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    within(time_to_end(silent, begun).1);
    within(time_to_end(stalled, begun).1);
    let mut answer = Vec::new();
    let _ = headless.read_to_end(&mut answer);
    within(begun.elapsed());
    assert_eq!(answer, b"");
    // And a head of a plain connection has its own.
    let mut kept = secure.client("/");
    std::thread::sleep(Duration::from_millis(700));
    kept.echo("the deadline was for the head");
}

/// Reads to the end of a raw connection. Returns the bytes, and the time of the end after `since`.
fn time_to_end(mut stream: TcpStream, since: Instant) -> (Vec<u8>, Duration) {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    (answer, since.elapsed())
}
