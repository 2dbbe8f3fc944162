//! Topics: heartbeats on time.

use std::time::{Duration, Instant};

use crate::measure::serial;
use crate::support::*;

#[test]
fn a_listener_gets_heartbeats_and_is_not_swept_while_it_reads() {
    let _guard = serial();
    let flags = ["--ping-every", "1s", "--idle-timeout", "2s"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    let begun = Instant::now();
    let mut heartbeats = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        let event = events.read();
        assert_eq!((&*event.kind, event.id, &*event.data), ("comment", None, ""));
        heartbeats += 1;
    }
    assert!((2..=6).contains(&heartbeats), "{heartbeats}");
    assert_eq!(fetch(falconet.address(), post("/topics/a", "heard")).status(), 202);
    while events.read().data != "heard" {}
}
