//! falconet-client: pings on time.

use std::time::{Duration, Instant};

use tungstenite::Message;

use crate::measure::serial;
use crate::support::client::{FakeServer, PipedClient};

#[test]
fn the_client_pings_the_server() {
    let _guard = serial();
    let server = FakeServer::start();
    let _client = PipedClient::start(&[&server.url(), "--ping-every", "100ms"]);
    let mut socket = server.accept();
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(socket.read().unwrap(), Message::Ping(tungstenite::Bytes::new()));
    }
    let elapsed = start.elapsed();
    assert!(
        (Duration::from_millis(200)..Duration::from_millis(1500)).contains(&elapsed),
        "{elapsed:?}"
    );
}
