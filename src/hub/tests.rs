use std::time::SystemTime;

use crate::config::Timeouts;
use crate::frame::{CloseCode, Message};

use super::*;

mod deadlines;
mod ids;
mod inbox;
mod model;

const REASON: CloseReason = CloseReason::new(CloseCode::Policy, "test");

fn hub() -> Hub {
    hub_with(Topics::default())
}

fn hub_with(limits: Topics) -> Hub {
    hub_by(Timeouts::default(), limits)
}

/// A hub whose inbox nobody reads.
fn hub_by(timeouts: Timeouts, limits: Topics) -> Hub {
    Hub::new(open(timeouts, limits.clone(), Rc::default()).0, limits)
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn correlation(id: &str) -> CorrelationId {
    CorrelationId::new(id).unwrap()
}

pub(super) fn newcomer(id: &str) -> Newcomer {
    Newcomer::local(correlation(id))
}

/// A client that hears what is published to `topic` from now on.
fn subscribe(hub: &mut Hub, topic: &str) -> Subscription {
    subscribe_from(hub, topic, Start::Live).unwrap()
}

fn subscribe_from(hub: &mut Hub, topic: &str, start: Start) -> Result<Subscription, TooManyTopics> {
    hub.join(newcomer("test"), Some((name(topic), start)), Instant::now())
}

/// A client that hears nothing but its mail.
fn join(hub: &mut Hub, now: Instant) -> Subscription {
    hub.join(newcomer("test"), None, now).unwrap()
}

fn leave(hub: &mut Hub, subscription: Subscription) {
    hub.leave(subscription.client.id());
}

/// A message of `text`.
pub(super) fn publication(text: &str) -> Publication {
    let frame = Frame::message(&Message::from(text));
    Publication { frame, media_type: None, published: SystemTime::UNIX_EPOCH }
}

fn frame(text: &str) -> Frame {
    publication(text).frame
}

/// What it takes to keep a message of `text`.
fn cost(text: &str) -> usize {
    publication(text).cost()
}

/// Publishes and rings all subscribers.
fn publish(hub: &mut Hub, topic: &str, text: &str) -> Result<Published, TooManyTopics> {
    let published = hub.publish(&name(topic), publication(text))?;
    assert_eq!(hub.ring(&name(topic), 0, usize::MAX), None);
    Ok(published)
}

/// What there is to send now, in words: `2 b` is the message b, the topic's second.
pub(super) fn hear(subscription: &mut Subscription) -> Vec<String> {
    let text = |frame: &Frame| String::from_utf8(frame.payload().to_vec()).unwrap();
    let in_words = |delivery| match delivery {
        Delivery::Published(sequence, frame) => format!("{sequence} {}", text(&frame)),
        Delivery::Lagged(lost) => format!("lagged {lost}"),
        Delivery::Mail(frame) if frame.is_ping() => "ping".to_owned(),
        Delivery::Mail(frame) => format!("mail {}", text(&frame)),
    };
    let heard: Vec<_> =
        std::iter::from_fn(|| subscription.next()).take(1000).map(in_words).collect();
    assert!(heard.len() < 1000, "no end of it: {:?}", &heard[..9]);
    heard
}

/// The names of all topics.
fn topics(hub: &Hub) -> Vec<String> {
    hub.topics().iter().map(|census| census.name.to_string()).collect()
}

/// The sums and places that must be right whatever happened.
fn assert_consistent(hub: &Hub, context: &str) {
    let bytes: usize = hub.topics.iter().map(|topic| topic.log.bytes()).sum();
    assert_eq!(hub.bytes, bytes, "{context}");
    let mut subscribed = 0;
    for topic in &hub.topics {
        for (place, slot) in topic.subscribers.iter().enumerate() {
            let client = &hub.clients[*slot as usize];
            assert_eq!(client.log.as_ref().map(Log::topic), Some(topic.name()), "{context}");
            assert_eq!(client.place.get() as usize, place, "{context}");
            subscribed += 1;
        }
    }
    let clients = hub.clients.iter().filter(|(_, client)| client.log.is_some()).count();
    assert_eq!(subscribed, clients, "{context}");
}

#[test]
fn a_client_gets_what_is_broadcast_after_it_joined() {
    let mut hub = hub();
    let mut early = subscribe(&mut hub, "broadcast");
    publish(&mut hub, "broadcast", "one").unwrap();
    let mut late = subscribe(&mut hub, "broadcast");
    publish(&mut hub, "broadcast", "two").unwrap();
    assert_eq!(hear(&mut early), ["1 one", "2 two"]);
    assert_eq!(hear(&mut late), ["2 two"]);
}

#[test]
fn who_comes_later_gets_what_is_retained() {
    let mut hub = hub_with(Topics { retain_messages: 2, ..Topics::default() });
    for text in ["a", "b", "c"] {
        publish(&mut hub, "t", text).unwrap();
    }
    let mut late = subscribe_from(&mut hub, "t", Start::Last(9)).unwrap();
    assert_eq!(hear(&mut late), ["2 b", "3 c"]);
    assert_eq!(hub.last(&name("t")), Some((3, publication("c"))));
}

#[test]
fn publishing_says_the_number_and_how_many_are_subscribed() {
    let mut hub = hub();
    let _elsewhere = subscribe(&mut hub, "b");
    assert_eq!(publish(&mut hub, "a", "x"), Ok(Published { sequence: 1, subscribers: 0 }));
    let _here = [subscribe(&mut hub, "a"), subscribe(&mut hub, "a")];
    assert_eq!(publish(&mut hub, "a", "x"), Ok(Published { sequence: 2, subscribers: 2 }));
    assert_eq!((hub.subscribers(&name("a")), hub.subscribers(&name("c"))), (2, 0));
}

#[test]
fn each_topic_has_its_own_messages_and_numbers() {
    let mut hub = hub();
    let mut a = subscribe(&mut hub, "a");
    let mut b = subscribe(&mut hub, "b");
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "y").unwrap();
    assert_eq!(hear(&mut a), ["1 x"]);
    assert_eq!(hear(&mut b), ["1 y"]);
}

#[test]
fn who_is_subscribed_to_nothing_gets_its_mail() {
    let mut hub = hub();
    let mut client = join(&mut hub, Instant::now());
    publish(&mut hub, "broadcast", "x").unwrap();
    assert!(!client.client.bell.is_rung());
    assert!(hub.send_to(client.client.id(), frame("m")));
    assert!(client.client.bell.is_rung());
    assert_eq!(hear(&mut client), ["mail m"]);
}

#[test]
fn ringing_wakes_every_subscriber_in_bounded_steps() {
    let mut hub = hub();
    let clients: Vec<_> = (0..600).map(|_| subscribe(&mut hub, "t")).collect();
    hub.publish(&name("t"), publication("x")).unwrap();
    let rung = || clients.iter().filter(|client| client.client.bell.is_rung()).count();
    for (from, next, expected) in [(0, Some(256), 256), (256, Some(512), 512), (512, None, 600)] {
        assert_eq!(hub.ring(&name("t"), from, 256), next);
        assert_eq!(rung(), expected);
    }
    assert_eq!(hub.ring(&name("t"), 0, 600), None, "exactly all of them");
}

#[test]
fn ringing_wakes_nobody_elsewhere() {
    let mut hub = hub();
    let here = subscribe(&mut hub, "a");
    let elsewhere = [subscribe(&mut hub, "b"), subscribe(&mut hub, "broadcast")];
    publish(&mut hub, "a", "x").unwrap();
    assert!(here.client.bell.is_rung());
    assert!(!elsewhere.iter().any(|client| client.client.bell.is_rung()));
}

#[test]
fn ringing_reaches_who_is_left_in_whatever_order_others_leave() {
    // Each number is an order: which of those still there leaves next.
    for order in 0..4 * 3 * 2 {
        let mut hub = hub();
        let mut there: Vec<_> = (0..4).map(|_| subscribe(&mut hub, "t")).collect();
        for leaving in [order % 4, order / 4 % 3, order / 12, 0] {
            let gone = there.remove(leaving);
            hub.leave(gone.client.id());
            publish(&mut hub, "t", "x").unwrap();
            let context = format!("order {order}, {} left", there.len());
            assert_consistent(&hub, &context);
            assert!(!gone.client.bell.is_rung(), "{context}");
            for client in &mut there {
                assert!(client.client.bell.is_rung(), "{context}");
                client.client.bell.hush();
            }
        }
    }
}

#[test]
fn a_topic_vanishes_when_nobody_hears_it_and_nothing_is_retained() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "t");
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    leave(&mut hub, client);
    assert_eq!(topics(&hub), ["broadcast"]);
}

#[test]
fn a_message_nobody_hears_is_forgotten_where_nothing_is_retained() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    for _ in 0..2 {
        assert_eq!(publish(&mut hub, "t", "x"), Ok(Published { sequence: 1, subscribers: 0 }));
        assert_eq!((topics(&hub).len(), hub.bytes), (1, 0));
    }
}

#[test]
fn a_topic_somebody_hears_stays() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    let (one, mut other) = (subscribe(&mut hub, "t"), subscribe(&mut hub, "t"));
    leave(&mut hub, one);
    publish(&mut hub, "t", "x").unwrap();
    hub.clear(&name("t"));
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    assert_eq!(hear(&mut other), ["1 x"]);
}

#[test]
fn a_topic_with_something_retained_keeps_its_numbers_while_nobody_hears_it() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "t");
    publish(&mut hub, "t", "x").unwrap();
    leave(&mut hub, client);
    assert_eq!(publish(&mut hub, "t", "y").unwrap().sequence, 2);
}

#[test]
fn a_topic_that_vanished_counts_from_one_again() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    let client = subscribe(&mut hub, "t");
    publish(&mut hub, "t", "x").unwrap();
    leave(&mut hub, client);
    let mut next = subscribe_from(&mut hub, "t", Start::After(1)).unwrap();
    publish(&mut hub, "t", "y").unwrap();
    assert_eq!(hear(&mut next), ["1 y"]);
}

#[test]
fn a_cleared_topic_vanishes_with_its_last_subscriber() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "t");
    publish(&mut hub, "t", "x").unwrap();
    hub.clear(&name("t"));
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    leave(&mut hub, client);
    assert_eq!((topics(&hub).len(), hub.bytes), (1, 0));
}

#[test]
fn a_cleared_topic_that_nobody_hears_vanishes_at_once() {
    let mut hub = hub();
    publish(&mut hub, "t", "x").unwrap();
    hub.clear(&name("t"));
    assert_eq!((topics(&hub).len(), hub.bytes), (1, 0));
    hub.clear(&name("t"));
}

#[test]
fn a_topic_vanishes_when_its_last_subscriber_is_found_gone() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "t");
    drop(client);
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    hub.sweep(Instant::now());
    assert_eq!(topics(&hub), ["broadcast"]);
}

#[test]
fn broadcast_never_vanishes() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    let client = subscribe(&mut hub, "broadcast");
    publish(&mut hub, "broadcast", "x").unwrap();
    hub.clear(&name("broadcast"));
    leave(&mut hub, client);
    assert_eq!(publish(&mut hub, "broadcast", "y").unwrap().sequence, 2);
    assert_eq!(topics(&hub), ["broadcast"]);
}

#[test]
fn one_topic_too_many_is_refused() {
    let mut hub = hub_with(Topics { count: 2, ..Topics::default() });
    publish(&mut hub, "a", "x").unwrap();
    assert_eq!(publish(&mut hub, "b", "x"), Err(TooManyTopics { limit: 2 }));
    let refused = subscribe_from(&mut hub, "b", Start::Live);
    assert_eq!(refused.err(), Some(TooManyTopics { limit: 2 }));
    assert_eq!(hub.census(), ClientCounts { clients: 0, joins: 0 });
    assert_eq!(hub.last(&name("b")), None);
    assert_consistent(&hub, "refused");
}

#[test]
fn with_no_room_for_one_more_those_there_are_go_on() {
    let mut hub = hub_with(Topics { count: 2, ..Topics::default() });
    publish(&mut hub, "a", "x").unwrap();
    for topic in ["a", "broadcast"] {
        let mut client = subscribe(&mut hub, topic);
        let sequence = publish(&mut hub, topic, "y").unwrap().sequence;
        assert_eq!(hear(&mut client), [format!("{sequence} y")]);
    }
}

#[test]
fn a_topic_that_vanished_makes_room_for_another() {
    let mut hub = hub_with(Topics { count: 2, ..Topics::default() });
    let client = subscribe(&mut hub, "a");
    publish(&mut hub, "b", "x").unwrap_err();
    leave(&mut hub, client);
    publish(&mut hub, "b", "x").unwrap();
}

#[test]
fn beyond_the_total_the_topic_that_holds_most_loses_its_oldest() {
    let limits = Topics { total_bytes: 5 * cost("x"), retain_messages: 9, ..Topics::default() };
    let mut hub = hub_with(limits);
    for topic in ["a", "broadcast", "broadcast", "broadcast", "c"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    assert_eq!(hub.bytes, 5 * cost("x"), "the total may be reached");
    publish(&mut hub, "a", "y").unwrap();
    let mut replay = |topic| {
        let replayed = hear(&mut subscribe_from(&mut hub, topic, Start::Last(9)).unwrap());
        assert_consistent(&hub, topic);
        replayed
    };
    assert_eq!(replay("a"), ["1 x", "2 y"]);
    assert_eq!(replay("broadcast"), ["2 x", "3 x"]);
    assert_eq!(replay("c"), ["1 x"]);
}

#[test]
fn what_a_topic_holds_is_counted_in_bytes() {
    let large = "x".repeat(3 * cost("x"));
    let total_bytes = cost(&large) + 2 * cost("x");
    let mut hub = hub_with(Topics { total_bytes, retain_messages: 9, ..Topics::default() });
    publish(&mut hub, "a", &large).unwrap();
    for topic in ["b", "b", "c"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    assert_eq!(topics(&hub), ["b", "broadcast", "c"]);
    assert_eq!(hub.bytes, 3 * cost("x"));
}

#[test]
fn a_large_message_takes_the_room_of_as_many_as_it_needs() {
    let large = "x".repeat(2 * cost("x"));
    let total_bytes = cost(&large) + cost("x");
    let mut hub = hub_with(Topics { total_bytes, retain_messages: 9, ..Topics::default() });
    for topic in ["a", "a", "b"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    publish(&mut hub, "c", &large).unwrap();
    assert_eq!(topics(&hub).len(), 3, "c, broadcast and one more");
    assert_eq!(hub.bytes, total_bytes);
}

#[test]
fn what_was_just_published_is_not_lost_to_the_total() {
    let limits = Topics { total_bytes: 3 * cost("x"), retain_messages: 9, ..Topics::default() };
    let mut hub = hub_with(limits);
    let large = "x".repeat(1000);
    let mut slow = subscribe(&mut hub, "a");
    publish(&mut hub, "b", "x").unwrap();
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "a", &large).unwrap();
    assert_eq!(topics(&hub), ["a", "broadcast"]);
    assert_eq!(hear(&mut slow), ["lagged 1".to_owned(), format!("2 {large}")]);
    assert_eq!(hub.bytes, cost(&large));
    publish(&mut hub, "b", "y").unwrap();
    assert_eq!(hub.bytes, cost("y"), "a later one takes its room");
}

#[test]
fn a_topic_emptied_for_the_total_vanishes_if_nobody_hears_it() {
    let mut hub = hub_with(Topics { total_bytes: cost("x"), ..Topics::default() });
    let mut slow = subscribe(&mut hub, "a");
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "x").unwrap();
    assert_eq!(topics(&hub), ["a", "b", "broadcast"], "somebody hears a");
    assert_eq!(hear(&mut slow), ["lagged 1"]);
    assert_eq!(hub.last(&name("a")), None);
    publish(&mut hub, "a", "y").unwrap();
    assert_eq!(topics(&hub), ["a", "broadcast"], "nobody hears b");
    assert_eq!(hear(&mut slow), ["2 y"]);
}

#[test]
fn a_message_that_is_forgotten_at_once_takes_nobodys_room() {
    let limits = Topics { total_bytes: cost("x"), retain_messages: 0, ..Topics::default() };
    let mut hub = hub_with(limits);
    let mut slow = subscribe(&mut hub, "a");
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "y").unwrap();
    assert_eq!(hear(&mut slow), ["1 x"]);
}

#[test]
fn the_topics_are_told_by_name_with_subscribers_and_last_number() {
    let mut hub = hub_with(Topics { log_messages: 1, ..Topics::default() });
    let _clients = [subscribe(&mut hub, "z"), subscribe(&mut hub, "a"), subscribe(&mut hub, "z")];
    publish(&mut hub, "m", "x").unwrap();
    publish(&mut hub, "m", "y").unwrap();
    let census =
        |topic, subscribers, sequence| TopicInfo { name: name(topic), subscribers, sequence };
    assert_eq!(
        hub.topics(),
        [census("a", 1, 0), census("broadcast", 0, 0), census("m", 0, 2), census("z", 2, 0)]
    );
}

#[test]
fn clients_are_found_by_their_correlation_id() {
    let mut hub = hub();
    let now = Instant::now();
    let mut joined = |id| hub.join(newcomer(id), None, now).unwrap();
    let (anna, bert, also_anna) = (joined("anna"), joined("bert"), joined("anna"));
    let ids = [anna.client.id(), also_anna.client.id()];
    assert_eq!(hub.correlated(&correlation("anna")), ids);
    assert_eq!(hub.correlated(&correlation("bert")), [bert.client.id()]);
    leave(&mut hub, anna);
    assert_eq!(hub.correlated(&correlation("anna")), [ids[1]]);
    assert_eq!(hub.correlated(&correlation("ann")), []);
}

#[test]
fn a_stale_id_does_not_reach_the_next_client_in_its_slot() {
    let mut hub = hub();
    let gone = subscribe(&mut hub, "broadcast").client.id();
    hub.leave(gone);
    let mut next = subscribe(&mut hub, "broadcast");
    assert_eq!(next.client.id().slot, gone.slot, "the slab reuses the slot");
    assert!(!hub.send_to(gone, frame("late")));
    assert!(!hub.evict(gone, REASON));
    hub.leave(gone);
    assert_eq!(hub.census().clients, 1);
    assert_eq!(hear(&mut next), [""; 0]);
    assert!(next.client.eviction().is_none());
}

#[test]
fn a_mailbox_is_bounded_and_says_so() {
    let mut hub = hub();
    let mut client = subscribe(&mut hub, "broadcast");
    let taken = (0..1000).filter(|_| hub.send_to(client.client.id(), frame("m"))).count();
    assert_eq!(taken, 16);
    assert_eq!(hear(&mut client).len(), 16);
    assert!(hub.send_to(client.client.id(), frame("room again")));
}

#[test]
fn the_first_reason_to_be_evicted_stands() {
    let mut hub = hub();
    let client = join(&mut hub, Instant::now());
    assert!(hub.evict(client.client.id(), REASON));
    assert!(hub.evict(client.client.id(), CloseReason::STOPPING));
    assert_eq!(client.client.eviction().unwrap().reason, REASON);
}

#[test]
fn a_drain_evicts_everybody_and_who_still_joins_the_administrator_last() {
    let mut hub = hub();
    let before = subscribe(&mut hub, "broadcast");
    let admin = |hub: &mut Hub| {
        let admin = Newcomer { kind: ClientKind::Admin, ..newcomer("admin") };
        hub.join(admin, Some((TopicName::stats(), Start::Live)), Instant::now()).unwrap()
    };
    let admin_before = admin(&mut hub);
    hub.drain(Whom::Public, REASON);
    let after = subscribe(&mut hub, "broadcast");
    let admin_meanwhile = admin(&mut hub);
    for admin in [&admin_before, &admin_meanwhile] {
        assert!(admin.client.eviction().is_none(), "who watches goes last");
    }
    hub.drain(Whom::Everybody, REASON);
    let admin_after = admin(&mut hub);
    for client in [before, after, admin_before, admin_meanwhile, admin_after] {
        let eviction = client.client.eviction().unwrap();
        assert!(eviction.answering);
        assert_eq!(eviction.reason, REASON);
    }
}

#[test]
fn the_administrator_is_told_who_and_what_there_is() {
    let mut hub = hub();
    let heard = subscribe(&mut hub, "a");
    let silent = join(&mut hub, Instant::now());
    let listener = Newcomer { kind: ClientKind::Events, ..newcomer("test") };
    let listener = hub.join(listener, Some((name("b"), Start::Live)), Instant::now()).unwrap();
    publish(&mut hub, "a", "one").unwrap();
    let expected = HubStats { websocket: 2, events: 1, topics: 3, log_bytes: cost("one") };
    assert_eq!(hub.stats(), expected);
    assert_eq!(hub.clients().len(), 3);
    for subscription in [&heard, &silent, &listener] {
        let id = subscription.client.id();
        assert_eq!(hub.find(id.to_string().parse().unwrap()), Some(id));
    }
    leave(&mut hub, heard);
    leave(&mut hub, listener);
    assert_eq!(hub.find(1), None);
    // What was published to `a` is retained.
    let expected = HubStats { websocket: 1, events: 0, topics: 2, log_bytes: cost("one") };
    assert_eq!(hub.stats(), expected);
}

#[test]
fn the_servers_own_topic_is_no_topic_to_others() {
    let mut hub = hub_with(Topics { count: 1, ..Topics::default() });
    let stats = Some((TopicName::stats(), Start::Live));
    let looker = hub.join(newcomer("test"), stats, Instant::now()).unwrap();
    assert_eq!((hub.stats().topics, hub.topics().len()), (1, 1));
    assert!(subscribe_from(&mut hub, "a", Start::Live).is_err());
    hub.publish(&TopicName::stats(), publication("one")).unwrap();
    leave(&mut hub, looker);
    hub.clear(&TopicName::stats());
    assert_eq!(hub.subscribers(&TopicName::stats()), 0);
    assert_eq!((hub.stats().log_bytes, hub.last(&TopicName::stats())), (0, None));
}

#[test]
fn a_subscriber_is_behind_by_what_it_has_not_taken() {
    let mut hub = hub_with(Topics { log_messages: 2, ..Topics::default() });
    let mut slow = subscribe(&mut hub, "a");
    assert_eq!(slow.client.behind(), 0);
    for text in ["one", "two", "three"] {
        publish(&mut hub, "a", text).unwrap();
    }
    assert_eq!(slow.client.behind(), 3);
    assert_eq!(hear(&mut slow), ["lagged 1", "2 two", "3 three"]);
    assert_eq!(slow.client.behind(), 0);
    assert_eq!(join(&mut hub, Instant::now()).client.behind(), 0);
}

#[test]
fn a_clients_counts_stop_where_they_are_full() {
    let mut hub = hub();
    let client = join(&mut hub, Instant::now()).client;
    client.count_lagged(u64::from(u32::MAX) - 1);
    client.count_lagged(u64::MAX / 2);
    client.count_received();
    assert_eq!(client.counts(), [1, 0, u32::MAX]);
}
