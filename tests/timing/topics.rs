//! Topics: heartbeats on time.

use std::time::{Duration, Instant};

use crate::measure::serial;
use crate::support::*;

#[test]
fn an_sse_subscriber_gets_heartbeats_and_is_not_swept() {
    let _guard = serial();
    let flags = ["--ping-every", "1s", "--idle-timeout", "2s"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    let start = Instant::now();
    assert_eq!(events.read_end_of_replay(), 0);
    let mut heartbeats = 0;
    while start.elapsed() < Duration::from_secs(5) {
        assert_eq!(events.read_heartbeat(), Some(0));
        heartbeats += 1;
    }
    assert!((2..=6).contains(&heartbeats), "{heartbeats}");
    assert_eq!(fetch(falconet.address(), post("/topics/a", "published")).status(), 202);
    wait_until("the message arrives", || events.read().data == "published");
}
