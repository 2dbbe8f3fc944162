use std::os::unix::net::UnixStream;

use futures_lite::future;

use super::*;
use crate::config::Config;
use crate::hub::{self, Membership, Newcomer, Start, TopicName};
use crate::net::{Reactor, Transport};
use crate::ws::SessionShared;

/// What a client that says nothing takes on the heap beside what sessions share and the hub knows: the
/// future that serves it.
#[test]
fn what_serves_a_client_takes_little_memory() {
    let echo = Rc::new(Echo).begin(session());
    let subscriber = topic::converse(session(), TopicName::new("t").unwrap(), true);
    let (transport, membership, shared) = parts();
    let encoder = events::Encoder::default();
    let listener = events::EventStream::new(transport, None, membership, encoder, shared).begin();
    let sizes = [echo, subscriber, listener].map(|stage| size_of_val(&*stage.0));
    let fits = sizes.iter().zip(BUDGETS_BYTES).all(|(size, budget)| *size <= budget);
    assert!(fits, "an echo client, a subscriber and a listener take {sizes:?}: {BUDGETS_BYTES:?}");
}

fn session() -> Session {
    let (transport, membership, shared) = parts();
    Session::begin(transport, Vec::new(), None, membership, shared)
}

/// What a session or a stream of events is made of.
fn parts() -> (Transport, Membership, Rc<SessionShared>) {
    let config = Rc::new(Config::default());
    let reactor = Reactor::new().unwrap();
    let (ours, _) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let transport = Transport::new(&reactor, ours.into()).unwrap();
    let (hub, hub_task) = hub::open(config.timeouts.clone(), config.topics.clone(), Rc::default());
    let topic = (TopicName::new("t").unwrap(), Start::Live);
    let now = transport.timer().now();
    let joining = async { hub.join(Newcomer::local(1.into()), Some(topic), now).await.ok() };
    let running = async {
        hub_task.run().await;
        None
    };
    let membership = future::block_on(future::or(joining, running)).unwrap();
    (transport, membership, Rc::new(SessionShared::new(config)))
}

/// An echo client, a topic's subscriber and a listener: what they were when this was written.
const BUDGETS_BYTES: [usize; 3] = [96, 64, 136];
