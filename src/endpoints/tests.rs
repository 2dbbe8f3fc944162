use std::io::Read;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use rustix::net::sockopt;
use smol::LocalExecutor;

use super::endpoint::AnyEndpoint;
use super::*;
use crate::config::Config;
use crate::features::Feature;
use crate::hub::{self, Membership, NewClient, Start, Subscription, TopicName};
use crate::net::{Reactor, Transport};
use crate::ws::Session;
use crate::ws::SessionShared;

/// The memory of an idle client contains this future, the session and the hub's record of the client.
#[test]
fn the_future_that_serves_a_client_is_within_its_budget() {
    let echo = Rc::new(Echo).begin(session());
    let subscriber = topic::subscribe::serve(session(), TopicName::new("t").ok());
    let (transport, membership, shared) = parts();
    let stream = events::EventStream::new(transport, None, membership, CHUNKED, shared).begin();
    let sizes = [echo, subscriber, stream].map(|stage| stage.size());
    let fits = sizes.iter().zip(BUDGETS_BYTES).all(|(size, budget)| *size <= budget);
    assert!(fits, "sizes {sizes:?}, budgets {BUDGETS_BYTES:?}");
}

/// A client that has a long history to receive must not keep the thread, however fast it reads.
#[test]
fn at_most_64_messages_or_256_kib_are_sent_in_a_turn() {
    if !Feature::Full.is_built_in() {
        return;
    }
    for (message_bytes, at_most) in [(10, 64), (16 * 1024, 16)] {
        for is_websocket in [true, false] {
            let turns = replay(message_bytes, is_websocket);
            let context = format!("{message_bytes} {is_websocket}: {turns:?}");
            assert_eq!(turns.iter().sum::<usize>(), REPLAYED, "{context}");
            assert_eq!(*turns.iter().max().unwrap(), at_most, "{context}");
        }
    }
}

/// Replays [`REPLAYED`] messages to a client, and returns how many it was sent in each turn.
fn replay(message_bytes: usize, is_websocket: bool) -> Vec<usize> {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new().leak();
    let mut config = Config::default();
    config.topics.retain_messages = REPLAYED;
    config.topics.retain_bytes = 1 << 30;
    config.topics.total_bytes = 1 << 30;
    let config = Rc::new(config);
    let (hub, hub_task) = hub::open(config.timeouts.clone(), config.topics.clone(), Rc::default());
    executor.spawn(hub_task.run()).detach();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    // Everything that is sent in a turn fits.
    sockopt::set_socket_send_buffer_size(&ours, 1 << 20).unwrap();
    let transport = Transport::new(&reactor, ours.into()).unwrap();
    let main = executor.spawn(async move {
        let (topic, timer) = (TopicName::new("t").unwrap(), transport.timer());
        for _ in 0..REPLAYED {
            hub.publish(&topic, "x".repeat(message_bytes - 1) + "!").await.unwrap();
        }
        let subscription = Subscription::to(topic.clone(), Start::Last(REPLAYED));
        let client = NewClient::local(1.into());
        let membership = hub.join(client, subscription, timer.now()).await.unwrap().unwrap();
        let shared = Rc::new(SessionShared::new(config, hub));
        let mut stage = match is_websocket {
            true => {
                let session = Session::begin(transport, Vec::new(), None, membership, shared);
                topic::subscribe::serve(session, Some(topic))
            }
            false => events::EventStream::new(transport, None, membership, CHUNKED, shared).begin(),
        };
        let (mut turns, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
        while turns.iter().sum::<usize>() < REPLAYED && turns.len() < 10 * REPLAYED {
            let mut count = 0;
            // Another event in the same turn does not bring more.
            for _ in 0..3 {
                assert!(future::poll_once(&mut stage).await.is_none());
                while let Ok(received) = theirs.read(&mut buffer) {
                    count += buffer[..received].iter().filter(|byte| **byte == b'!').count();
                }
            }
            turns.push(count);
            // Waits for a later turn.
            timer.sleep(Some(Duration::ZERO)).await;
        }
        turns
    });
    reactor.run(executor, main).unwrap()
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
    let subscription = Subscription::to(TopicName::new("t").unwrap(), Start::Live);
    let now = transport.timer().now();
    let joining =
        async { hub.join(NewClient::local(1.into()), subscription, now).await.ok()?.ok() };
    let running = async {
        hub_task.run().await;
        None
    };
    let membership = future::block_on(future::or(joining, running)).unwrap();
    (transport, membership, Rc::new(SessionShared::new(config, hub)))
}

const CHUNKED: events::Format = events::Format { is_chunked: true, is_json: false };
/// The number of messages of a replay: more than twice the messages of one turn.
const REPLAYED: usize = 150;
/// The largest sizes of the futures of an echo client, a subscriber of a topic and an event stream. They
/// are the sizes at the time when the test was written.
const BUDGETS_BYTES: [usize; 3] = [96, 64, 136];
