//! HTTP: timeouts that are kept, and a server that stays responsive.

use std::io::Write;
use std::time::{Duration, Instant};

use falconet::Config;
use rustix::net::sockopt;
use rustix::process::Signal;

use crate::measure::*;
use crate::support::*;

#[test]
fn an_idle_connection_is_closed_after_the_keep_alive_timeout() {
    let _guard = serial();
    let falconet = Falconet::start(&[NO_BROADCAST, &["--keep-alive", "1s"]].concat());
    let canaries = Canaries::start(falconet.address());
    let mut http = Http::connect(falconet.address());
    for _ in 0..4 {
        http.fetch(get("/topics/a"));
        // Wait: each request restarts the timeout.
        std::thread::sleep(Duration::from_millis(300));
    }
    http.fetch(get("/topics/a"));
    let start = Instant::now();
    http.assert_ended();
    let idle_for = start.elapsed();
    assert!(
        idle_for > Duration::from_millis(950) && idle_for < Duration::from_millis(2000),
        "{idle_for:?}"
    );
    canaries.finish();
}

#[test]
fn the_head_timeout_applies_to_later_requests() {
    let _guard = serial();
    let falconet = Falconet::start(&[NO_BROADCAST, &["--head-timeout", "300ms"]].concat());
    let mut http = Http::connect(falconet.address());
    assert_eq!(http.fetch(get("/")).status(), 200);
    let start = Instant::now();
    http.send("GET / HTTP/1.1\r\nHost");
    http.assert_ended();
    let elapsed = start.elapsed();
    assert!(
        elapsed > Duration::from_millis(250) && elapsed < Duration::from_secs(2),
        "{elapsed:?}"
    );
    falconet.wait_for_line("dropped: no request in time");
}

#[cfg(feature = "full")]
#[test]
fn the_message_timeout_applies_to_a_body_that_arrives_slowly() {
    let _guard = serial();
    let server = Embedded::start(|server| {
        let mut config = Config::default();
        config.timeouts.message = Some(Duration::from_millis(400));
        server.config(config).topics()
    });
    let body = "x".repeat(1000);
    let request = post("/topics/slow", &body);
    let mut http = Http::connect(server.address);
    let start = Instant::now();
    let mut writer = http.stream().try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let (head, body) = request.split_at(request.len() - 1000);
        let _ = writer.write_all(head);
        for byte in body.chunks(1) {
            // Wait between two bytes.
            std::thread::sleep(Duration::from_millis(20));
            if writer.write_all(byte).is_err() {
                break;
            }
        }
    });
    let answer = http.read(true);
    let elapsed = start.elapsed();
    assert_eq!(answer.status(), 408);
    assert!(answer.closes() && answer.header("X-Request-Id").is_some(), "{}", answer.head);
    assert!(
        elapsed > Duration::from_millis(350) && elapsed < Duration::from_secs(2),
        "{elapsed:?}"
    );
    http.assert_ended();
    drop(http);
    writing.join().unwrap();
    assert_eq!(fetch(server.address, get("/topics/slow")).status(), 404);
    // The default is long enough for slow networks.
    assert_eq!(Config::default().timeouts.message, Some(Duration::from_secs(30)));
    server.stop().unwrap().unwrap();
}

#[cfg(feature = "full")]
#[test]
fn a_client_that_pipelines_and_does_not_read_is_dropped() {
    let _guard = serial();
    let falconet = Falconet::start(&[NO_BROADCAST, &["--write-timeout", "500ms"]].concat());
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
    let files = falconet.open_files();
    fetch(falconet.address(), post("/topics/large", "x".repeat(60_000)));
    wait_until("the publisher is disconnected", || falconet.open_files() == files);
    let before = falconet.private_kib();
    let peers: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = connect(falconet.address());
            sockopt::set_socket_recv_buffer_size(&stream, 16 * 1024).unwrap();
            stream.write_all(&get("/topics/large").repeat(900)).unwrap();
            stream
        })
        .collect();
    wait_until("the peers are accepted", || falconet.open_files() >= files + 4);
    let start = Instant::now();
    let grown = falconet.private_kib().saturating_sub(before);
    wait_until("the peers are dropped", || falconet.open_files() <= files);
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    // For each peer the server holds one response that waits, and the requests that it has not handled.
    assert!(grown < 4 * 400, "{grown} KiB");
    drop(peers);
    assert_prompt(canaries);
}

#[cfg(feature = "full")]
#[test]
fn a_flood_of_pipelined_requests_delays_no_other_client() {
    let _guard = serial();
    let falconet = Falconet::start(NO_BROADCAST);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
    let address = falconet.address();
    let until = Instant::now() + Duration::from_millis(1500);
    let floods = [get("/topics/flood"), post("/topics/flood", "x")].map(|request| {
        std::thread::spawn(move || {
            let mut answers = 0;
            while Instant::now() < until {
                let mut http = Http::connect(address);
                for _ in 0..10 {
                    http.send(request.repeat(100));
                    answers += (0..100).map(|_| http.read(true)).count();
                }
            }
            answers
        })
    });
    let answers = floods.map(|flood| flood.join().unwrap());
    println!("{answers:?} answers");
    assert!(answers.iter().all(|count| *count >= 1000), "too few answers for a flood: {answers:?}");
    assert_prompt(canaries);
}

#[cfg(feature = "full")]
#[test]
fn an_idle_connection_is_closed_at_once_when_the_server_stops() {
    let _guard = serial();
    let mut falconet = Falconet::start(&[NO_BROADCAST, &["--close-timeout", "5s"]].concat());
    let mut idle: Vec<Http> = (0..10).map(|_| Http::connect(falconet.address())).collect();
    for http in &mut idle {
        assert_eq!(http.fetch(post("/topics/a", "x")).status(), 202);
    }
    let start = Instant::now();
    falconet.signal(Signal::TERM);
    for http in &mut idle {
        http.assert_ended();
    }
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[cfg(feature = "full")]
#[test]
fn a_request_being_read_when_the_server_stops_gets_503() {
    let _guard = serial();
    let mut falconet = Falconet::start(&[NO_BROADCAST, &["--close-timeout", "5s"]].concat());
    let whole = request("POST", "/topics/a", "Expect: 100-continue\r\n", "a body");
    let head_bytes = whole.len() - "a body".len();
    let mut barrier = Client::connect(falconet.address());
    let mut halves: Vec<Http> = [10, head_bytes, head_bytes + 3]
        .map(|cut| {
            let mut http = Http::connect(falconet.address());
            assert_eq!(http.fetch(get("/topics/a")).status(), 404);
            http.send(&whole[..cut]);
            if cut >= head_bytes {
                assert_eq!(http.read(true).status(), 100);
            }
            http
        })
        .into();
    wait_until_read(&mut barrier);
    let start = Instant::now();
    falconet.signal(Signal::TERM);
    for http in &mut halves {
        let answer = http.read(true);
        assert_eq!(answer.status(), 503);
        assert!(answer.closes(), "{}", answer.head);
        http.assert_ended();
    }
    drop((halves, barrier));
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
