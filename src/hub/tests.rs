use crate::config::Timeouts;
use crate::frame::{CloseCode, Message};
use crate::hub::publication::RECORD_BYTES;

use super::*;

mod deadlines;
#[cfg(feature = "full")]
mod filters;
mod handle;
mod ids;
mod model;
mod resume;

const REASON: CloseReason = CloseReason::new(CloseCode::Policy, "test");

fn hub() -> Hub {
    hub_with(Topics::default())
}

fn hub_with(limits: Topics) -> Hub {
    hub_by(Timeouts::default(), limits)
}

fn hub_by(timeouts: Timeouts, limits: Topics) -> Hub {
    Hub::new(Rc::new(Watch::new(timeouts, Rc::default())), limits)
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn correlation(id: &str) -> CorrelationId {
    CorrelationId::new(id).unwrap()
}

fn new_client(id: &str) -> NewClient {
    NewClient::local(correlation(id))
}

/// Adds a client that subscribes to `topic` from now on.
fn subscribe(hub: &mut Hub, topic: &str) -> Rc<Client> {
    subscribe_from(hub, topic, Start::Live).unwrap()
}

/// Adds a client that subscribes to `filters`, which are separated by commas.
fn subscribe_from(
    hub: &mut Hub,
    filters: &str,
    start: Start,
) -> Result<Rc<Client>, SubscribeError> {
    let subscription = subscription(filters, start);
    hub.join(new_client("test"), subscription, Instant::now()).map(|(client, _)| client)
}

fn subscription(filters: &str, start: Start) -> Subscription {
    Subscription { filters: Filter::parse_list(filters).unwrap(), start }
}

/// Adds a client that subscribes to nothing.
fn join(hub: &mut Hub, now: Instant) -> Rc<Client> {
    hub.join(new_client("test"), Subscription::none(), now).unwrap().0
}

fn leave(hub: &mut Hub, client: Rc<Client>) {
    hub.leave(client.id());
}

/// Returns a draft of a text message.
pub(super) fn draft(text: &str) -> Draft {
    Draft::new(frame(text))
}

fn frame(text: &str) -> Frame {
    Frame::message(&Message::from(text))
}

/// Returns the memory that a text message takes.
fn cost(text: &str) -> usize {
    RECORD_BYTES + frame(text).len()
}

/// Publishes a message and rings the bells of all subscribers.
fn publish(hub: &mut Hub, topic: &str, text: &str) -> Result<Published, TooManyTopics> {
    let published = hub.publish(&name(topic), draft(text))?;
    assert_eq!(hub.ring(&name(topic), 0, usize::MAX), None);
    Ok(published)
}

/// Returns the number of a published message, and the number of subscribers.
fn numbers(published: Result<Published, TooManyTopics>) -> (u64, usize) {
    let published = published.unwrap();
    (published.id.number, published.subscribers)
}

/// Returns the text of a message.
fn text(frame: &Frame) -> String {
    String::from_utf8(frame.payload().to_vec()).unwrap()
}

/// Takes all deliveries that wait for a client, as text: `2 b` is the message b with the number 2.
fn deliveries(client: &Client) -> Vec<String> {
    let as_text = |delivery| match delivery {
        Delivery::Published(publication) => {
            format!("{} {}", publication.number(), text(publication.frame()))
        }
        Delivery::Cleared(cleared) => format!("{} cleared", cleared.number()),
        Delivery::Lagged(Some(lost)) => format!("lagged {lost}"),
        Delivery::Lagged(None) => "lagged".to_owned(),
        Delivery::Gap => "gap".to_owned(),
        Delivery::Mail(frame) if frame.is_ping() => "ping".to_owned(),
        Delivery::Mail(frame) => format!("mail {}", text(&frame)),
    };
    let delivered = std::iter::from_fn(|| client.next_delivery()).take(1000).map(as_text);
    let delivered: Vec<_> = delivered.collect();
    assert!(delivered.len() < 1000, "endless: {:?}", &delivered[..9]);
    delivered
}

/// Returns the names of all topics.
fn topics(hub: &Hub) -> Vec<String> {
    hub.topics().iter().map(|topic| topic.name.to_string()).collect()
}

/// Returns the memory that all messages take.
fn held(hub: &Hub) -> usize {
    hub.topics.held().get()
}

/// Returns the number and the text of the newest message of a topic.
fn last(hub: &Hub, topic: &str) -> Option<(u64, String)> {
    hub.last(&name(topic)).map(|last| (last.number(), text(last.frame())))
}

/// Checks that the subscribers of the topics and the cursors of the clients match.
fn assert_consistent(hub: &Hub, context: &str) {
    let mut subscribed = 0;
    let mut check = |filter: Filter, subscribers: &[u32]| {
        for slot in subscribers {
            let client = &hub.clients[*slot as usize];
            assert!(client.filters().any(|subscribed| subscribed == filter), "{context}");
            subscribed += 1;
        }
    };
    for topic in hub.topics.all() {
        check(topic.name().clone().into(), &topic.subscribers);
    }
    for feed in hub.topics.feeds() {
        assert!(!feed.subscribers().is_empty(), "{context}");
        check(Filter::Pattern(feed.pattern().clone()), &feed.subscribers());
    }
    let cursors: usize = hub.clients.iter().map(|(_, client)| client.filters().count()).sum();
    assert_eq!(subscribed, cursors, "{context}");
}

#[test]
fn a_client_gets_the_messages_published_after_it_joined() {
    let mut hub = hub();
    let early = subscribe(&mut hub, "broadcast");
    publish(&mut hub, "broadcast", "one").unwrap();
    let late = subscribe(&mut hub, "broadcast");
    publish(&mut hub, "broadcast", "two").unwrap();
    assert_eq!(deliveries(&early), ["1 one", "2 two"]);
    assert_eq!(deliveries(&late), ["2 two"]);
}

#[test]
fn a_later_subscriber_gets_the_retained_messages() {
    let mut hub = hub_with(Topics { retain_messages: 2, ..Topics::default() });
    for text in ["a", "b", "c"] {
        publish(&mut hub, "t", text).unwrap();
    }
    let late = subscribe_from(&mut hub, "t", Start::Last(9)).unwrap();
    assert_eq!(deliveries(&late), ["2 b", "3 c"]);
    assert_eq!(last(&hub, "t"), Some((3, "c".to_owned())));
}

#[test]
fn a_publish_returns_the_number_and_the_count_of_subscribers() {
    let mut hub = hub();
    let _elsewhere = subscribe(&mut hub, "b");
    assert_eq!(numbers(publish(&mut hub, "a", "x")), (1, 0));
    let _here = [subscribe(&mut hub, "a"), subscribe(&mut hub, "a")];
    assert_eq!(numbers(publish(&mut hub, "a", "x")), (2, 2));
    assert_eq!((hub.subscribers(&name("a")), hub.subscribers(&name("c"))), (2, 0));
}

#[test]
fn topics_have_their_own_messages_and_share_one_counter() {
    let mut hub = hub();
    let a = subscribe(&mut hub, "a");
    let b = subscribe(&mut hub, "b");
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "y").unwrap();
    assert_eq!(deliveries(&a), ["1 x"]);
    assert_eq!(deliveries(&b), ["2 y"]);
}

#[test]
fn a_client_without_topics_gets_its_mail() {
    let mut hub = hub();
    let client = join(&mut hub, Instant::now());
    publish(&mut hub, "broadcast", "x").unwrap();
    assert!(!client.bell.is_rung());
    assert!(hub.send_to(client.id(), frame("m")));
    assert!(client.bell.is_rung());
    assert_eq!(deliveries(&client), ["mail m"]);
}

#[test]
fn ringing_wakes_every_subscriber_in_bounded_steps() {
    let mut hub = hub();
    let clients: Vec<_> = (0..600).map(|_| subscribe(&mut hub, "t")).collect();
    hub.publish(&name("t"), draft("x")).unwrap();
    let rung = || clients.iter().filter(|client| client.bell.is_rung()).count();
    for (from, next, expected) in [(0, Some(256), 256), (256, Some(512), 512), (512, None, 600)] {
        assert_eq!(hub.ring(&name("t"), from, 256), next);
        assert_eq!(rung(), expected);
    }
    assert_eq!(hub.ring(&name("t"), 0, 600), None, "exactly all of them");
}

#[test]
fn ringing_wakes_only_the_subscribers_of_the_topic() {
    let mut hub = hub();
    let here = subscribe(&mut hub, "a");
    let elsewhere = [subscribe(&mut hub, "b"), subscribe(&mut hub, "broadcast")];
    publish(&mut hub, "a", "x").unwrap();
    assert!(here.bell.is_rung());
    assert!(!elsewhere.iter().any(|client| client.bell.is_rung()));
}

#[test]
fn ringing_reaches_the_remaining_clients_in_whatever_order_others_leave() {
    // Each number encodes an order in which the clients leave.
    for order in 0..4 * 3 * 2 {
        let mut hub = hub();
        let mut clients: Vec<_> = (0..4).map(|_| subscribe(&mut hub, "t")).collect();
        for leaving in [order % 4, order / 4 % 3, order / 12, 0] {
            let left = clients.remove(leaving);
            hub.leave(left.id());
            publish(&mut hub, "t", "x").unwrap();
            let context = format!("order {order}, {} clients", clients.len());
            assert_consistent(&hub, &context);
            assert!(!left.bell.is_rung(), "{context}");
            for client in &clients {
                assert!(client.bell.is_rung(), "{context}");
                client.bell.clear();
            }
        }
    }
}

#[test]
fn a_topic_without_subscribers_and_retained_messages_is_removed() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "t");
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    leave(&mut hub, client);
    assert_eq!(topics(&hub), ["broadcast"]);
}

#[test]
fn a_message_without_subscribers_is_dropped_if_nothing_is_retained() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    for number in 1..=2 {
        assert_eq!(numbers(publish(&mut hub, "t", "x")), (number, 0));
        assert_eq!((topics(&hub).len(), held(&hub)), (1, 0));
    }
}

#[test]
fn a_topic_with_a_subscriber_stays() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    let (one, other) = (subscribe(&mut hub, "t"), subscribe(&mut hub, "t"));
    leave(&mut hub, one);
    publish(&mut hub, "t", "x").unwrap();
    hub.clear(&name("t"));
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    assert_eq!(deliveries(&other), ["2 cleared"]);
}

#[test]
fn a_cleared_topic_is_removed_with_its_last_subscriber() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "t");
    publish(&mut hub, "t", "x").unwrap();
    hub.clear(&name("t"));
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    leave(&mut hub, client);
    assert_eq!((topics(&hub).len(), held(&hub)), (1, 0));
}

#[test]
fn a_cleared_topic_without_subscribers_is_removed_at_once() {
    let mut hub = hub();
    publish(&mut hub, "t", "x").unwrap();
    hub.clear(&name("t"));
    assert_eq!((topics(&hub).len(), held(&hub)), (1, 0));
    hub.clear(&name("t"));
}

#[test]
fn a_sweep_removes_a_topic_whose_last_subscriber_left_without_notice() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "t");
    drop(client);
    assert_eq!(topics(&hub), ["broadcast", "t"]);
    hub.sweep(Instant::now());
    assert_eq!(topics(&hub), ["broadcast"]);
}

#[test]
fn broadcast_is_never_removed() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    let client = subscribe(&mut hub, "broadcast");
    publish(&mut hub, "broadcast", "x").unwrap();
    hub.clear(&name("broadcast"));
    leave(&mut hub, client);
    assert_eq!(numbers(publish(&mut hub, "broadcast", "y")), (3, 0));
    assert_eq!(topics(&hub), ["broadcast"]);
}

#[test]
fn a_topic_beyond_the_limit_is_refused() {
    let mut hub = hub_with(Topics { count: 2, ..Topics::default() });
    publish(&mut hub, "a", "x").unwrap();
    assert_eq!(publish(&mut hub, "b", "x"), Err(TooManyTopics { limit: 2 }));
    let refused = subscribe_from(&mut hub, "b", Start::Live);
    assert_eq!(refused.err(), Some(TooManyTopics { limit: 2 }.into()));
    assert_eq!(hub.client_counts(), ClientCounts { clients: 0, joins: 0 });
    assert_eq!(last(&hub, "b"), None);
    assert_consistent(&hub, "refused");
}

#[test]
fn existing_topics_still_work_when_no_topic_can_be_created() {
    let mut hub = hub_with(Topics { count: 2, ..Topics::default() });
    publish(&mut hub, "a", "x").unwrap();
    for topic in ["a", "broadcast"] {
        let client = subscribe(&mut hub, topic);
        let (number, _) = numbers(publish(&mut hub, topic, "y"));
        assert_eq!(deliveries(&client), [format!("{number} y")]);
    }
}

#[test]
fn a_removed_topic_does_not_count_for_the_limit() {
    let mut hub = hub_with(Topics { count: 2, ..Topics::default() });
    let client = subscribe(&mut hub, "a");
    publish(&mut hub, "b", "x").unwrap_err();
    leave(&mut hub, client);
    publish(&mut hub, "b", "x").unwrap();
}

#[test]
fn beyond_the_total_the_largest_topic_loses_its_oldest_message() {
    let limits = Topics { total_bytes: 5 * cost("x"), retain_messages: 9, ..Topics::default() };
    let mut hub = hub_with(limits);
    for topic in ["a", "broadcast", "broadcast", "broadcast", "c"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    assert_eq!(held(&hub), 5 * cost("x"), "the total may be reached");
    publish(&mut hub, "a", "y").unwrap();
    let mut replay = |topic| {
        let replayed = deliveries(&subscribe_from(&mut hub, topic, Start::Last(9)).unwrap());
        assert_consistent(&hub, topic);
        replayed
    };
    assert_eq!(replay("a"), ["1 x", "6 y"]);
    assert_eq!(replay("broadcast"), ["3 x", "4 x"]);
    assert_eq!(replay("c"), ["5 x"]);
}

#[test]
fn the_largest_topic_is_the_one_with_the_most_bytes() {
    let large = "x".repeat(3 * cost("x"));
    let total_bytes = cost(&large) + 2 * cost("x");
    let mut hub = hub_with(Topics { total_bytes, retain_messages: 9, ..Topics::default() });
    publish(&mut hub, "a", &large).unwrap();
    for topic in ["b", "b", "c"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    assert_eq!(topics(&hub), ["b", "broadcast", "c"]);
    assert_eq!(held(&hub), 3 * cost("x"));
}

#[test]
fn many_small_messages_make_a_topic_larger_than_one_message_with_more_payload() {
    let value = "x".repeat(9);
    let total_bytes = cost(&value) + 3 * cost("x");
    let mut hub = hub_with(Topics { total_bytes, retain_messages: 9, ..Topics::default() });
    publish(&mut hub, "value", &value).unwrap();
    for topic in ["history", "history", "history", "other"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    let mut replay = |topic| deliveries(&subscribe_from(&mut hub, topic, Start::Last(9)).unwrap());
    assert_eq!(replay("value"), ["1 xxxxxxxxx"]);
    assert_eq!(replay("history"), ["3 x", "4 x"]);
}

#[test]
fn a_large_message_displaces_as_many_messages_as_it_needs() {
    let large = "x".repeat(2 * cost("x"));
    let total_bytes = cost(&large) + cost("x");
    let mut hub = hub_with(Topics { total_bytes, retain_messages: 9, ..Topics::default() });
    for topic in ["a", "a", "b"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    publish(&mut hub, "c", &large).unwrap();
    assert_eq!(topics(&hub).len(), 3, "c, broadcast and one more");
    assert_eq!(held(&hub), total_bytes);
}

#[test]
fn the_newest_message_is_kept_whatever_the_total() {
    let limits = Topics { total_bytes: 3 * cost("x"), retain_messages: 9, ..Topics::default() };
    let mut hub = hub_with(limits);
    let large = "x".repeat(1000);
    let slow = subscribe(&mut hub, "a");
    publish(&mut hub, "b", "x").unwrap();
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "a", &large).unwrap();
    assert_eq!(topics(&hub), ["a", "broadcast"]);
    assert_eq!(deliveries(&slow), ["lagged 1".to_owned(), format!("3 {large}")]);
    assert_eq!(held(&hub), cost(&large));
    publish(&mut hub, "b", "y").unwrap();
    assert_eq!(held(&hub), cost("y"), "a later message displaces it");
}

#[test]
fn a_topic_emptied_for_the_total_is_removed_if_it_has_no_subscriber() {
    let mut hub = hub_with(Topics { total_bytes: cost("x"), ..Topics::default() });
    let slow = subscribe(&mut hub, "a");
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "x").unwrap();
    assert_eq!(topics(&hub), ["a", "b", "broadcast"], "a has a subscriber");
    assert_eq!(deliveries(&slow), ["lagged 1"]);
    assert_eq!(last(&hub, "a"), None);
    publish(&mut hub, "a", "y").unwrap();
    assert_eq!(topics(&hub), ["a", "broadcast"], "b has no subscriber");
    assert_eq!(deliveries(&slow), ["3 y"]);
}

#[test]
fn a_message_that_is_dropped_at_once_displaces_no_other() {
    let limits = Topics { total_bytes: cost("x"), retain_messages: 0, ..Topics::default() };
    let mut hub = hub_with(limits);
    let slow = subscribe(&mut hub, "a");
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "y").unwrap();
    assert_eq!(deliveries(&slow), ["1 x"]);
}

#[test]
fn topics_are_listed_by_name_with_their_subscribers_and_newest_message() {
    let mut hub = hub_with(Topics { log_messages: 1, ..Topics::default() });
    let _clients = [subscribe(&mut hub, "z"), subscribe(&mut hub, "a"), subscribe(&mut hub, "z")];
    publish(&mut hub, "m", "x").unwrap();
    let newest = publish(&mut hub, "m", "y").unwrap().id;
    let info = |topic, subscribers, last| TopicInfo { name: name(topic), subscribers, last };
    let expected = [
        info("a", 1, None),
        info("broadcast", 0, None),
        info("m", 0, Some(newest)),
        info("z", 2, None),
    ];
    assert_eq!(hub.topics(), expected);
}

#[test]
fn clients_are_found_by_their_correlation_id() {
    let mut hub = hub();
    let now = Instant::now();
    let mut joined = |id| hub.join(new_client(id), Subscription::none(), now).unwrap().0;
    let (anna, bert, also_anna) = (joined("anna"), joined("bert"), joined("anna"));
    let ids = [anna.id(), also_anna.id()];
    assert_eq!(hub.correlated(&correlation("anna")), ids);
    assert_eq!(hub.correlated(&correlation("bert")), [bert.id()]);
    leave(&mut hub, anna);
    assert_eq!(hub.correlated(&correlation("anna")), [ids[1]]);
    assert_eq!(hub.correlated(&correlation("ann")), []);
}

#[test]
fn a_stale_id_does_not_reach_the_next_client_in_its_slot() {
    let mut hub = hub();
    let stale = subscribe(&mut hub, "broadcast").id();
    hub.leave(stale);
    let next = subscribe(&mut hub, "broadcast");
    assert_eq!(next.id().slot, stale.slot, "the slab reuses the slot");
    assert!(!hub.send_to(stale, frame("late")));
    assert!(!hub.evict(stale, REASON));
    hub.leave(stale);
    assert_eq!(hub.client_counts().clients, 1);
    assert_eq!(deliveries(&next), [""; 0]);
    assert!(next.eviction().is_none());
}

#[test]
fn a_full_mailbox_refuses_frames() {
    let mut hub = hub();
    let client = subscribe(&mut hub, "broadcast");
    let taken = (0..1000).filter(|_| hub.send_to(client.id(), frame("m"))).count();
    assert_eq!(taken, 16);
    assert_eq!(deliveries(&client).len(), 16);
    assert!(hub.send_to(client.id(), frame("m")), "the mailbox has been read");
}

#[test]
fn a_second_eviction_does_not_change_the_reason() {
    let mut hub = hub();
    let client = join(&mut hub, Instant::now());
    assert!(hub.evict(client.id(), REASON));
    assert!(hub.evict(client.id(), CloseReason::STOPPING));
    assert_eq!(client.eviction(), Some(REASON));
}

#[test]
fn a_drain_evicts_current_and_later_clients_and_the_administrator_last() {
    let mut hub = hub();
    let before = subscribe(&mut hub, "broadcast");
    let admin = |hub: &mut Hub| {
        let admin = NewClient { kind: ClientKind::Admin, ..new_client("admin") };
        hub.join(admin, Subscription::to(TopicName::stats(), Start::Live), Instant::now())
            .unwrap()
            .0
    };
    let admin_before = admin(&mut hub);
    hub.drain(DrainScope::Public, REASON);
    let after = subscribe(&mut hub, "broadcast");
    let admin_during = admin(&mut hub);
    for admin in [&admin_before, &admin_during] {
        assert!(admin.eviction().is_none(), "the administrator is evicted last");
    }
    hub.drain(DrainScope::All, REASON);
    let admin_after = admin(&mut hub);
    for client in [before, after, admin_before, admin_during, admin_after] {
        assert_eq!(client.eviction(), Some(REASON));
        assert!(!client.is_aborted());
    }
}

#[test]
fn stats_count_clients_by_kind_and_topics() {
    let mut hub = hub();
    let subscribed = subscribe(&mut hub, "a");
    let silent = join(&mut hub, Instant::now());
    let event_stream = NewClient { kind: ClientKind::Events, ..new_client("test") };
    let event_stream =
        hub.join(event_stream, Subscription::to(name("b"), Start::Live), Instant::now()).unwrap().0;
    publish(&mut hub, "a", "one").unwrap();
    let expected = HubStats { websocket: 2, events: 1, topics: 3, log_bytes: cost("one") };
    assert_eq!(hub.stats(), expected);
    assert_eq!(hub.clients().len(), 3);
    for client in [&subscribed, &silent, &event_stream] {
        let id = client.id();
        assert_eq!(hub.find(id.to_string().parse().unwrap()), Some(id));
    }
    leave(&mut hub, subscribed);
    leave(&mut hub, event_stream);
    assert_eq!(hub.find(1), None);
    // The message of `a` is retained.
    let expected = HubStats { websocket: 1, events: 0, topics: 2, log_bytes: cost("one") };
    assert_eq!(hub.stats(), expected);
}

#[test]
fn the_servers_own_topic_is_not_shown_and_takes_no_numbers() {
    let mut hub = hub_with(Topics { count: 1, ..Topics::default() });
    let stats = Subscription::to(TopicName::stats(), Start::Live);
    let watcher = hub.join(new_client("test"), stats, Instant::now()).unwrap().0;
    assert_eq!((hub.stats().topics, hub.topics().len()), (1, 1));
    assert!(subscribe_from(&mut hub, "a", Start::Live).is_err());
    hub.publish(&TopicName::stats(), draft("one")).unwrap();
    assert_eq!(deliveries(&watcher), ["0 one"]);
    assert_eq!(hub.newest().number, 0);
    leave(&mut hub, watcher);
    hub.publish(&TopicName::stats(), draft("two")).unwrap();
    assert_eq!(hub.subscribers(&TopicName::stats()), 0);
    assert_eq!(hub.stats().log_bytes, 0);
    assert!(hub.last(&TopicName::stats()).is_none());
}

#[test]
fn a_subscriber_is_behind_by_the_messages_it_has_not_taken() {
    let mut hub = hub_with(Topics { log_messages: 2, ..Topics::default() });
    let slow = subscribe(&mut hub, "a");
    assert_eq!(slow.behind(), 0);
    for text in ["one", "two", "three"] {
        publish(&mut hub, "a", text).unwrap();
    }
    assert_eq!(slow.behind(), 3);
    assert_eq!(deliveries(&slow), ["lagged 1", "2 two", "3 three"]);
    assert_eq!(slow.behind(), 0);
    assert_eq!(join(&mut hub, Instant::now()).behind(), 0);
}

#[test]
fn the_counts_of_a_client_stop_at_their_maximum() {
    let mut hub = hub();
    let client = join(&mut hub, Instant::now());
    client.count_lagged(Some(u64::from(u32::MAX) - 1));
    client.count_lagged(Some(u64::MAX / 2));
    client.count_received();
    assert_eq!(client.counts(), [1, 0, u32::MAX]);
}

#[test]
fn the_servers_counts_do_not_include_messages_to_the_administrator() {
    let mut hub = hub();
    let dashboard = NewClient { kind: ClientKind::Admin, ..new_client("test") };
    let dashboard = hub.join(dashboard, Subscription::none(), Instant::now()).unwrap().0;
    for client in [dashboard, join(&mut hub, Instant::now())] {
        client.count_sent();
        client.count_lagged(None);
        client.count_lagged(Some(2));
        assert_eq!(client.counts(), [0, 1, 3]);
    }
    let counters = &hub.watch.counters;
    assert_eq!((counters.messages_sent.total(), counters.messages_lagged.total()), (1, 3));
}
