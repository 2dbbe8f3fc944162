//! Messages that arrive together: replies are complete, in order, and not held back.

use std::io::Write;
use std::time::{Duration, Instant};

use falconet::{CloseReason, Endpoint, HubHandle, Session, SessionEnd, TopicName};

use crate::support::*;

#[test]
fn messages_in_one_write_are_answered_completely_and_in_order() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    for size in [0, 1, 125, 126, 1000] {
        let messages: Vec<(u8, Vec<u8>)> = (0..16)
            .map(|index: u8| {
                (if index.is_multiple_of(3) { BINARY } else { TEXT }, vec![b'a' + index; size])
            })
            .collect();
        let frames = messages.iter().map(|(opcode, payload)| masked(true, *opcode, payload));
        client.stream.write_all(&frames.collect::<Vec<_>>().concat()).unwrap();
        for (opcode, payload) in messages {
            assert_eq!(client.read(), Frame { fin: true, opcode, payload });
        }
    }
}

#[test]
fn pipelined_messages_around_fragments_and_pings_are_answered_in_order() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let mut client = Client::connect(falconet.address());
    let frames = [
        masked(true, TEXT, b"one"),
        masked(true, PING, b"two"),
        masked(true, BINARY, b"three"),
        masked(false, TEXT, b"fi"),
        masked(true, PING, b"four"),
        masked(true, CONTINUATION, b"ve"),
        masked(true, TEXT, b"six"),
    ];
    client.stream.write_all(&frames.concat()).unwrap();
    for (opcode, payload) in [
        (TEXT, "one"),
        (PONG, "two"),
        (BINARY, "three"),
        (PONG, "four"),
        (TEXT, "five"),
        (TEXT, "six"),
    ] {
        assert_eq!(client.read(), Frame { fin: true, opcode, payload: payload.into() });
    }
}

#[cfg(feature = "full")]
#[test]
fn messages_above_the_rate_limit_are_all_answered_at_the_limit() {
    let falconet = Falconet::start(&["--broadcast-every", "0", "--max-message-rate", "20"]);
    let canaries = Canaries::start(falconet.address());
    for size in [1, 20_000] {
        let mut client = Client::connect(falconet.address());
        let begun = Instant::now();
        let payload = |index: u8| vec![b'a' + index; size];
        for index in 0..26 {
            client.stream.write_all(&masked(true, TEXT, &payload(index))).unwrap();
        }
        for index in 0..26 {
            assert_eq!(client.read().payload, payload(index));
        }
        // The first 20 messages are answered at once, the other six at intervals of a twentieth of a second.
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
        client.echo("after the limit");
    }
    canaries.finish();
}

/// An endpoint that replies to each message, and then waits for a signal.
struct Gated(async_channel::Receiver<()>);

impl Endpoint for Gated {
    async fn serve(&self, mut session: Session) -> SessionEnd {
        while let Some(message) = session.next().await {
            session.send(message).await;
            if self.0.recv().await.is_err() {
                break;
            }
        }
        session.close(CloseReason::NORMAL).await
    }
}

#[test]
fn a_reply_is_sent_while_the_endpoint_waits_for_something_else() {
    let (release, released) = async_channel::bounded(1);
    let server = Embedded::start(|server| server.endpoint("/gated", Gated(released)));
    let mut client = Client::connect_to(server.address, "/gated");
    let messages = ["one", "two", "three", "four"];
    // In one write, so that more messages are pending when the endpoint replies.
    let frames = messages.map(|message| masked(true, TEXT, message.as_bytes()));
    client.stream.write_all(&frames.concat()).unwrap();
    for message in messages {
        assert_eq!(client.read().text(), message);
        release.send_blocking(()).unwrap();
    }
}

/// An endpoint that replies to each message, and then waits until the hub reports a subscriber.
struct Expecting;

impl Endpoint for Expecting {
    async fn serve(&self, mut session: Session) -> SessionEnd {
        while let Some(message) = session.next().await {
            let topic = TopicName::new(message.as_text().unwrap()).unwrap();
            session.send(message).await;
            until_subscribed_to(session.hub(), &topic).await;
        }
        session.close(CloseReason::NORMAL).await
    }
}

async fn until_subscribed_to(hub: &HubHandle, topic: &TopicName) {
    hub.until_subscribed(topic).await.unwrap();
}

#[cfg(feature = "full")]
#[test]
fn a_reply_is_sent_while_the_endpoint_waits_for_the_hub() {
    let server = Embedded::start(|server| server.endpoint("/expecting", Expecting).topics());
    let mut client = Client::connect_to(server.address, "/expecting");
    let topics = ["one", "two", "three"];
    let frames = topics.map(|topic| masked(true, TEXT, topic.as_bytes()));
    client.stream.write_all(&frames.concat()).unwrap();
    let mut subscribers = Vec::new();
    for topic in topics {
        assert_eq!(client.read().text(), topic);
        subscribers.push(Client::connect_to(server.address, &format!("/topics/{topic}")));
    }
}
