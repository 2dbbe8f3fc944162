//! The administrator's listener: an end without delay, events on time, and rest.

use std::time::{Duration, Instant};

use tinyjson::JsonValue;

use crate::measure::{context_switches, serial};
use crate::support::admin::*;
use crate::support::*;

#[cfg(feature = "full")]
#[test]
fn nobody_waits_for_a_listener_that_was_given_up() {
    let _guard = serial();
    let flags = ["--ping-every", "0", "--idle-timeout", "0", "--write-timeout", "200ms"];
    let (mut falconet, admin) = start(&[NO_BROADCAST, &flags, &["--close-timeout", "1h"]].concat());
    // It reads nothing.
    let _stuck = Events::connect(falconet.address(), "/topics/a", "");
    let mut publisher = Http::connect(falconet.address());
    let payload = "x".repeat(60_000);
    wait_until("it is swept", || {
        assert_eq!(publisher.fetch(post("/topics/a", &payload)).status(), 202);
        Metrics::read(admin).total("falconet_clients_swept_total") == 1.0
    });
    let begun = Instant::now();
    assert_eq!(fetch(admin, post("/drain", "")).status(), 202);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    // The answer to a Close, which it can't give, would have 2 s.
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[cfg(feature = "full")]
#[test]
fn the_dashboard_is_told_every_second_how_things_are() {
    let _guard = serial();
    let (falconet, admin) = start(NO_BROADCAST);
    let mut client = Client::connect(falconet.address());
    client.echo("one");
    let _events = Events::connect(falconet.address(), "/topics/a", "");
    let mut kept = Http::connect(falconet.address());
    kept.fetch(get("/"));
    let mut looker = Events::connect(admin, "/events", "");
    assert_eq!(looker.read().kind, "history", "others were there before");
    let first = looker.read();
    assert_eq!(first.kind, "stats");
    client.echo("two");
    let second = looker.read();
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
    // Nobody is told of the topic that they come by.
    for address in [falconet.address(), admin] {
        assert!(!read(address, "/topics/").contains("stats"));
    }
    assert_eq!(Metrics::read(admin).total("falconet_topics"), 2.0);
    assert_eq!(Metrics::read(admin).value("falconet_messages_published_total", "admin"), 0.0);
}

#[test]
fn while_nobody_looks_it_does_not_wake_up() {
    let _guard = serial();
    let (falconet, admin) = start(NO_BROADCAST);
    for _ in 0..2 {
        let mut looker = Events::connect(admin, "/events", "");
        looker.read();
    }
    wait_until("they have left", || clients(admin).is_empty());
    // There is no event to wait for: that nothing happens is the claim.
    wait_until("it rests for as long as two events take", || {
        let before = context_switches(&falconet);
        std::thread::sleep(Duration::from_millis(2100));
        context_switches(&falconet) == before
    });
}

#[test]
fn what_nobody_looks_at_is_remembered_while_anybody_is_connected() {
    let _guard = serial();
    let (falconet, admin) = start(NO_BROADCAST);
    let _client = Client::connect(falconet.address());
    let (since, before) = (Instant::now(), context_switches(&falconet));
    wait_until("it has woken up by itself", || {
        since.elapsed() > Duration::from_secs(5) && context_switches(&falconet) > before
    });
    let samples = history(admin);
    assert_eq!(websocket_counts(&samples), [1.0, 1.0]);
    let samples: JsonValue = samples.parse().unwrap();
    let time = |index: usize| *samples[index]["time"].get::<f64>().unwrap();
    assert!((4.9..8.0).contains(&(time(1) - time(0))), "{samples:?}");
}
