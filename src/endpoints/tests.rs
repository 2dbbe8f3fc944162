use std::os::unix::net::UnixStream;
use std::rc::Rc;

use futures_lite::future;

use super::endpoint::AnyEndpoint;
use super::*;
use crate::config::Config;
use crate::hub::{self, Membership, Newcomer, Start, TopicName};
use crate::net::{Reactor, Transport};
use crate::ws::Session;
use crate::ws::SessionShared;

/// The size of the future that serves an idle client. Its session and the hub's record are not in it.
#[test]
fn the_future_that_serves_a_client_is_small() {
    let echo = Rc::new(Echo).begin(session());
    let subscriber = topic::subscribe::converse(session(), TopicName::new("t").unwrap(), true);
    let (transport, membership, shared) = parts();
    let stream = events::EventStream::new(transport, None, membership, shared).begin();
    let sizes = [echo, subscriber, stream].map(|stage| stage.size());
    let fits = sizes.iter().zip(BUDGETS_BYTES).all(|(size, budget)| *size <= budget);
    assert!(
        fits,
        "an echo client, a subscriber and an event stream take {sizes:?}: {BUDGETS_BYTES:?}"
    );
}

fn session() -> Session {
    let (transport, membership, shared) = parts();
    Session::begin(transport, Vec::new(), None, membership, shared)
}

/// The parts of a session or an event stream.
fn parts() -> (Transport, Membership, Rc<SessionShared>) {
    let config = Rc::new(Config::default());
    let reactor = Reactor::new().unwrap();
    let (ours, _) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let transport = Transport::new(&reactor, ours.into()).unwrap();
    let (hub, hub_task) = hub::open(config.timeouts.clone(), config.topics.clone(), Rc::default());
    let topic = (TopicName::new("t").unwrap(), Start::Live);
    let now = transport.timer().now();
    let joining = async { hub.join(Newcomer::local(1.into()), vec![topic], now).await.ok() };
    let running = async {
        hub_task.run().await;
        None
    };
    let membership = future::block_on(future::or(joining, running)).unwrap();
    (transport, membership, Rc::new(SessionShared::new(config, hub)))
}

/// The sizes of an echo client, a subscriber of a topic and an event stream when this was written.
const BUDGETS_BYTES: [usize; 3] = [96, 64, 136];
