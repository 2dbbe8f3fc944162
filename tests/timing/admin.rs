//! The administrator's listener: a drain without delay, events on time, and no needless wake-ups.

use std::time::{Duration, Instant};

use tinyjson::JsonValue;

use crate::measure::{context_switches, serial};
use crate::support::admin::*;
use crate::support::*;

#[cfg(feature = "full")]
#[test]
fn a_drain_does_not_wait_for_a_subscriber_that_was_swept() {
    let _guard = serial();
    let flags = ["--ping-every", "0", "--idle-timeout", "0", "--write-timeout", "200ms"];
    let (mut falconet, admin) = start(&[NO_BROADCAST, &flags, &["--close-timeout", "1h"]].concat());
    // This subscriber reads nothing.
    let _stuck = Events::connect(falconet.address(), "/topics/a", "");
    let mut publisher = Http::connect(falconet.address());
    let payload = "x".repeat(60_000);
    wait_until("the subscriber is swept", || {
        assert_eq!(publisher.fetch(post("/topics/a", &payload)).status(), 202);
        Metrics::read(admin).total("falconet_clients_swept_total") == 1.0
    });
    let begun = Instant::now();
    assert_eq!(fetch(admin, post("/drain", "")).status(), 202);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    // A client that can still answer a Close would have 2 s for it.
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[cfg(feature = "full")]
#[test]
fn the_dashboard_receives_statistics_every_second() {
    let _guard = serial();
    let (falconet, admin) = start(NO_BROADCAST);
    let mut client = Client::connect(falconet.address());
    client.echo("one");
    let _events = Events::connect(falconet.address(), "/topics/a", "");
    let mut kept = Http::connect(falconet.address());
    kept.fetch(get("/"));
    let mut watcher = Events::connect(admin, "/events", "");
    assert_eq!(watcher.read().kind, "history", "samples exist, because clients connected before");
    let first = watcher.read();
    assert_eq!(first.kind, "stats");
    client.echo("two");
    let second = watcher.read();
    let grown = |name| number(&second.data, name) - number(&first.data, name);
    assert!((0.9..3.0).contains(&grown("time")), "{first:?} {second:?}");
    assert_eq!((grown("received"), grown("sent")), (1.0, 1.0));
    let data = &second.data;
    assert!(data.contains(r#""connections":{"websocket":1,"events":1,"http":1}"#), "{data}");
    assert_eq!(number(data, "lagged"), 0.0);
    assert_eq!(number(data, "topics"), 2.0);
    assert!(number(data, "resident_bytes") > 500_000.0);
    assert!((0.0..1000.0).contains(&number(data, "loop_lag_ms")));
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    assert!((since.unwrap().as_secs_f64() - number(data, "time")).abs() < 10.0);
    // The topic of the statistics is not listed.
    for address in [falconet.address(), admin] {
        assert!(!read(address, "/topics/").contains("stats"));
    }
    assert_eq!(Metrics::read(admin).total("falconet_topics"), 2.0);
    assert_eq!(Metrics::read(admin).value("falconet_messages_published_total", "admin"), 0.0);
}

#[test]
fn the_server_does_not_wake_up_without_a_dashboard() {
    let _guard = serial();
    let (falconet, admin) = start(NO_BROADCAST);
    for _ in 0..2 {
        let mut watcher = Events::connect(admin, "/events", "");
        watcher.read();
    }
    wait_until("both subscribers have left", || clients(admin).is_empty());
    // The test claims that nothing happens, so it can only watch for a while.
    wait_until("no wake-up for the time of two events", || {
        let before = context_switches(&falconet);
        std::thread::sleep(Duration::from_millis(2100));
        context_switches(&falconet) == before
    });
}

#[test]
fn samples_are_kept_without_a_dashboard_while_a_client_is_connected() {
    let _guard = serial();
    let (falconet, admin) = start(NO_BROADCAST);
    let _client = Client::connect(falconet.address());
    let (since, before) = (Instant::now(), context_switches(&falconet));
    wait_until("the server has woken up by itself", || {
        since.elapsed() > Duration::from_secs(5) && context_switches(&falconet) > before
    });
    let samples = history(admin);
    assert_eq!(websocket_counts(&samples), [1.0, 1.0]);
    let samples: JsonValue = samples.parse().unwrap();
    let time = |index: usize| *samples[index]["time"].get::<f64>().unwrap();
    assert!((4.9..8.0).contains(&(time(1) - time(0))), "{samples:?}");
}
