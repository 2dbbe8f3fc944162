//! What the administrator is told of the last ten minutes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tinyjson::JsonValue;

use crate::admin::admin_address;
use crate::rig::*;

fn start() -> (Falconet, SocketAddr) {
    let flags = ["--admin", "http://127.0.0.1:0", "--broadcast-every", "0"];
    let falconet = Falconet::start(&flags);
    let admin = admin_address(&falconet);
    (falconet, admin)
}

/// The samples that somebody is told of who looks only now, as JSON; empty if there are none.
pub fn remembered(admin: SocketAddr) -> String {
    let first = Events::connect(admin, "/events", "").read();
    if first.kind == "history" { first.data } else { String::new() }
}

/// Of each sample how many WebSocket clients there were.
fn crowds(samples: &str) -> Vec<f64> {
    let samples: Vec<JsonValue> = samples.parse::<JsonValue>().unwrap().try_into().unwrap();
    let crowd = |sample: &JsonValue| *sample["connections"]["websocket"].get::<f64>().unwrap();
    samples.iter().map(crowd).collect()
}

#[test]
fn who_looks_is_told_first_how_things_were() {
    let (falconet, admin) = start();
    let mut looker = Events::connect(admin, "/events", "");
    assert_eq!(looker.read().kind, "stats", "nobody was there before");
    let mut client = Client::connect(falconet.address());
    client.echo("one");
    while !looker.read().data.contains(r#""websocket":1,"#) {}
    drop(looker);
    wait_until("it is remembered", || crowds(&remembered(admin)) == [0.0, 1.0]);
    let samples: JsonValue = remembered(admin).parse().unwrap();
    let number = |index: usize, name: &str| *samples[index][name].get::<f64>().unwrap();
    assert!(number(0, "time") < number(1, "time"));
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    assert!((now.unwrap().as_secs_f64() - number(1, "time")).abs() < 10.0);
    assert_eq!((number(0, "received"), number(1, "received")), (0.0, 1.0));
    assert!(number(1, "resident_bytes") > 500_000.0);
}

#[test]
fn what_nobody_looks_at_is_remembered_while_anybody_is_connected() {
    let (falconet, admin) = start();
    let _client = Client::connect(falconet.address());
    let (since, before) = (Instant::now(), falconet.context_switches());
    wait_until("it has woken up by itself", || {
        since.elapsed() > Duration::from_secs(5) && falconet.context_switches() > before
    });
    let samples = remembered(admin);
    assert_eq!(crowds(&samples), [1.0, 1.0]);
    let samples: JsonValue = samples.parse().unwrap();
    let time = |index: usize| *samples[index]["time"].get::<f64>().unwrap();
    assert!((4.9..8.0).contains(&(time(1) - time(0))), "{samples:?}");
}
