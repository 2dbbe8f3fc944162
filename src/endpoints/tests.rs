use std::os::unix::net::UnixStream;
use std::rc::Rc;

use futures_lite::future;

use super::endpoint::AnyEndpoint;
use super::*;
use crate::config::Config;
use crate::hub::{self, Membership, NewClient, Start, TopicName};
use crate::net::{Reactor, Transport};
use crate::ws::Session;
use crate::ws::SessionShared;

/// The memory of an idle client contains this future, the session and the hub's record of the client.
#[test]
fn the_future_that_serves_a_client_is_within_its_budget() {
    let echo = Rc::new(Echo).begin(session());
    let subscriber = topic::subscribe::serve(session(), TopicName::new("t").unwrap(), true);
    let (transport, membership, shared) = parts();
    let stream = events::EventStream::new(transport, None, membership, true, shared).begin();
    let sizes = [echo, subscriber, stream].map(|stage| stage.size());
    let fits = sizes.iter().zip(BUDGETS_BYTES).all(|(size, budget)| *size <= budget);
    assert!(fits, "sizes {sizes:?}, budgets {BUDGETS_BYTES:?}");
}

fn session() -> Session {
    let (transport, membership, shared) = parts();
    Session::begin(transport, Vec::new(), None, membership, shared)
}

/// Creates the parts of a session or an event stream.
fn parts() -> (Transport, Membership, Rc<SessionShared>) {
    let config = Rc::new(Config::default());
    let reactor = Reactor::new().unwrap();
    let (ours, _) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let transport = Transport::new(&reactor, ours.into()).unwrap();
    let (hub, hub_task) = hub::open(config.timeouts.clone(), config.topics.clone(), Rc::default());
    let topic = (TopicName::new("t").unwrap(), Start::Live);
    let now = transport.timer().now();
    let joining = async { hub.join(NewClient::local(1.into()), vec![topic], now).await.ok() };
    let running = async {
        hub_task.run().await;
        None
    };
    let membership = future::block_on(future::or(joining, running)).unwrap();
    (transport, membership, Rc::new(SessionShared::new(config, hub)))
}

/// The largest sizes of the futures of an echo client, a subscriber of a topic and an event stream. They
/// are the sizes at the time when the test was written.
const BUDGETS_BYTES: [usize; 3] = [96, 64, 136];
