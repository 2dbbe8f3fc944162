//! A resume from an id: the client gets exactly the messages after the id, and is notified if some of them
//! are no longer kept.

use super::*;

/// Returns an id of this hub.
fn id(hub: &Hub, number: u64) -> Option<EventId> {
    Some(EventId { number, ..hub.newest() })
}

/// Returns the deliveries to a client that resumes a topic after a number of this hub.
fn resume(hub: &mut Hub, topic: &str, number: u64) -> Vec<String> {
    let start = Start::After(id(hub, number));
    deliveries(&subscribe_from(hub, topic, start).unwrap())
}

/// Returns limits with which no message is retained, so that a topic is removed with its last subscriber.
fn nothing_retained() -> Topics {
    Topics { retain_messages: 0, ..Topics::default() }
}

#[test]
fn a_resume_gets_the_messages_after_the_id() {
    let mut hub = hub();
    let _keeper = subscribe(&mut hub, "t");
    for topic in ["t", "other", "t", "other", "t"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    assert_eq!(resume(&mut hub, "t", 0), ["1 x", "3 x", "5 x"]);
    assert_eq!(resume(&mut hub, "t", 1), ["3 x", "5 x"]);
    assert_eq!(resume(&mut hub, "t", 2), ["3 x", "5 x"], "2 is a number of another topic");
    assert_eq!(resume(&mut hub, "t", 5), [""; 0]);
}

#[test]
fn an_id_of_another_run_of_the_server_gets_everything_kept_after_a_gap() {
    let mut before = hub();
    for _ in 0..5 {
        publish(&mut before, "t", "old").unwrap();
    }
    let mut hub = hub_with(Topics { retain_messages: 9, ..Topics::default() });
    for _ in 0..7 {
        publish(&mut hub, "t", "new").unwrap();
    }
    let start = Start::After(id(&before, 5));
    let deliveries = deliveries(&subscribe_from(&mut hub, "t", start).unwrap());
    assert_eq!(deliveries[..3], ["gap", "1 new", "2 new"]);
    assert_eq!(deliveries.len(), 8);
}

#[test]
fn an_id_that_cannot_be_parsed_or_is_not_assigned_yet_gets_everything_kept_after_a_gap() {
    let mut hub = hub();
    publish(&mut hub, "t", "x").unwrap();
    for start in [Start::After(None), Start::After(id(&hub, 2)), Start::After(id(&hub, u64::MAX))] {
        let client = subscribe_from(&mut hub, "t", start).unwrap();
        assert_eq!(deliveries(&client), ["gap", "1 x"], "{start:?}");
    }
}

#[test]
fn a_resume_has_a_gap_for_messages_that_were_cleared() {
    let mut hub = hub();
    let _keeper = subscribe(&mut hub, "t");
    publish(&mut hub, "t", "x").unwrap();
    publish(&mut hub, "t", "y").unwrap();
    hub.clear(&name("t"));
    publish(&mut hub, "t", "z").unwrap();
    assert_eq!(resume(&mut hub, "t", 1), ["gap", "4 z"]);
    assert_eq!(
        resume(&mut hub, "t", 2),
        ["gap", "4 z"],
        "the client has not heard of the deletion"
    );
    assert_eq!(resume(&mut hub, "t", 3), ["4 z"]);
}

#[test]
fn a_resume_has_a_gap_for_messages_of_a_topic_that_was_cleared_and_created_again() {
    let mut hub = hub();
    publish(&mut hub, "t", "x").unwrap();
    publish(&mut hub, "t", "y").unwrap();
    hub.clear(&name("t"));
    assert_eq!(topics(&hub), ["broadcast"]);
    publish(&mut hub, "t", "z").unwrap();
    assert_eq!(resume(&mut hub, "t", 2), ["gap", "4 z"]);
    assert_eq!(resume(&mut hub, "t", 3), ["4 z"]);
}

#[test]
fn a_resume_has_a_gap_for_messages_of_a_topic_that_was_removed() {
    let mut hub = hub_with(nothing_retained());
    let client = subscribe(&mut hub, "t");
    publish(&mut hub, "t", "x").unwrap();
    leave(&mut hub, client);
    assert_eq!(topics(&hub), ["broadcast"]);
    assert_eq!(resume(&mut hub, "t", 0), ["gap"]);
    assert_eq!(resume(&mut hub, "t", 1), [""; 0]);
    assert_eq!(resume(&mut hub, "never", 0), [""; 0]);
}

#[test]
fn a_resume_has_a_gap_for_messages_that_were_dropped_to_limit_the_total() {
    let mut hub = hub_with(Topics { total_bytes: cost("x"), ..Topics::default() });
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "x").unwrap();
    assert_eq!(topics(&hub), ["b", "broadcast"]);
    assert_eq!(resume(&mut hub, "a", 0), ["gap"]);
}

#[test]
fn a_resume_of_a_forgotten_topic_has_a_gap_if_a_message_may_be_missing() {
    let mut hub = hub_with(nothing_retained());
    for number in 1..=1030 {
        publish(&mut hub, &format!("t{number}"), "x").unwrap();
    }
    assert_eq!(resume(&mut hub, "t1030", 1029), ["gap"], "the name is remembered");
    assert_eq!(resume(&mut hub, "t1030", 1030), [""; 0]);
    assert_eq!(resume(&mut hub, "t1", 6), [""; 0], "no number after 6 is forgotten");
    assert_eq!(resume(&mut hub, "never", 5), ["gap"], "6 may have been one of its messages");
    assert_eq!(resume(&mut hub, "never", 6), [""; 0]);
}

#[test]
fn a_client_learns_the_id_before_its_first_message() {
    let mut hub = hub_with(Topics { retain_messages: 2, ..Topics::default() });
    for topic in ["t", "other", "t", "t", "other"] {
        publish(&mut hub, topic, "x").unwrap();
    }
    let newest = hub.newest();
    let mut before = |start| {
        let subscription = subscription("t", start);
        hub.join(new_client("test"), subscription, Instant::now()).unwrap().1.number
    };
    assert_eq!(before(Start::Live), 5);
    assert_eq!(before(Start::Last(1)), 3);
    assert_eq!(before(Start::Last(9)), 2);
    assert_eq!(before(Start::After(None)), 0);
    let [current, later] = [1, 6].map(|number| Start::After(Some(EventId { number, ..newest })));
    assert_eq!(before(current), 1, "the id that the client has named");
    assert_eq!(before(later), 0);
}

#[test]
fn a_refused_topic_leaves_no_subscription_behind() {
    let mut hub = hub_with(Topics { count: 2, ..Topics::default() });
    let refused = subscribe_from(&mut hub, "a,b", Start::Live);
    assert_eq!(refused.err(), Some(TooManyTopics { limit: 2 }.into()));
    assert_eq!(self::topics(&hub), ["broadcast"]);
    assert_eq!(hub.client_counts(), ClientCounts::default());
}
