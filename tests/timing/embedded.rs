//! The library: services and sessions that do not stop by themselves.

use std::time::Duration;

use falconet::{Config, HubHandle, Service, Stop};

use crate::measure::serial;
use crate::support::operator::{command_operator, start_operated};
use crate::support::*;

#[test]
fn a_service_that_does_not_stop_is_dropped_after_the_drain() {
    let _guard = serial();
    let server = Embedded::start(|server| {
        let mut config = Config::default();
        config.timeouts.drain = Duration::from_millis(300);
        server.config(config).service(Stubborn)
    });
    let start = std::time::Instant::now();
    server.stop().unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
}

#[cfg(feature = "full")]
#[test]
fn an_sse_subscriber_that_does_not_read_is_evicted() {
    let _guard = serial();
    let (server, mut operator) = start_operated();
    let events = Events::connect(server.address, "/topics/t?client=stuck", "");
    for _ in 0..40 {
        command_operator(&mut operator, &format!("publish t {}", "x".repeat(60_000)));
    }
    assert_eq!(command_operator(&mut operator, "evict stuck"), "1");
    // The close handshake has 2 s.
    let evicted = std::time::Instant::now();
    wait_until("the subscriber is disconnected", || {
        command_operator(&mut operator, "evict stuck") == "0"
    });
    assert!(evicted.elapsed() < Duration::from_secs(4), "{:?}", evicted.elapsed());
    drop((events, operator));
    server.stop().unwrap().unwrap();
}

/// A service that ignores the request to stop.
struct Stubborn;

impl Service for Stubborn {
    async fn run(self: Box<Self>, _: HubHandle, _: Stop) {
        std::future::pending().await
    }
}
