use std::time::Instant;

use crate::config::Timeouts;
use crate::hub::client::{ClientId, CorrelationId};
use crate::hub::tests::{hear, publication};

use super::*;

/// Limits that hold nothing back.
const WIDE: Topics = Topics {
    count: 8,
    retain_messages: 100,
    retain_bytes: usize::MAX,
    log_messages: 100,
    log_bytes: usize::MAX,
    total_bytes: usize::MAX,
    slow_consumer: crate::config::SlowConsumer::Skip,
};

/// A log that was told `messages`.
fn log(limits: &Topics, messages: &[&str]) -> Log {
    let log = Log::new(TopicName::broadcast());
    append(&log, limits, messages);
    log
}

fn append(log: &Log, limits: &Topics, messages: &[&str]) {
    for message in messages {
        log.append(publication(message), limits);
    }
}

fn subscribe(log: &Log, limits: &Topics, start: Start) -> Subscription {
    let id = ClientId { slot: 0, generation: 1 };
    let correlation = CorrelationId::new("test").unwrap();
    let (hub, _) = crate::hub::open(Timeouts::default(), limits.clone());
    let client = Client::new(id, correlation, Some(log.clone()), Instant::now(), hub);
    Subscription::new(Rc::new(client), start, limits)
}

/// What a subscriber hears that begins with `start`.
fn replay(log: &Log, limits: &Topics, start: Start) -> Vec<String> {
    hear(&mut subscribe(log, limits, start))
}

#[test]
fn messages_are_numbered_from_one() {
    let log = Log::new(TopicName::broadcast());
    assert_eq!(log.last(), 0);
    assert_eq!(log.append(publication("a"), &WIDE), 1);
    assert_eq!(log.append(publication("b"), &WIDE), 2);
    assert_eq!(log.last(), 2);
}

#[test]
fn a_live_subscriber_gets_what_comes_after_it() {
    let log = log(&WIDE, &["a"]);
    let mut subscription = subscribe(&log, &WIDE, Start::Live);
    assert_eq!(hear(&mut subscription), [""; 0]);
    append(&log, &WIDE, &["b", "c"]);
    assert_eq!(hear(&mut subscription), ["2 b", "3 c"]);
    assert_eq!(hear(&mut subscription), [""; 0]);
}

#[test]
fn cursors_do_not_disturb_each_other() {
    let log = log(&WIDE, &["a", "b"]);
    let mut one = subscribe(&log, &WIDE, Start::Last(2));
    assert_eq!(one.next(), Some(Delivery::Published(1, publication("a").frame)));
    assert_eq!(replay(&log, &WIDE, Start::Last(2)), ["1 a", "2 b"]);
    assert_eq!(hear(&mut one), ["2 b"]);
}

#[test]
fn who_falls_off_the_log_goes_on_with_the_oldest_kept() {
    let limits = Topics { log_messages: 3, retain_messages: 1, ..WIDE };
    let log = Log::new(TopicName::broadcast());
    let mut slow = subscribe(&log, &limits, Start::Live);
    append(&log, &limits, &["a", "b", "c"]);
    assert_eq!(slow.next(), Some(Delivery::Published(1, publication("a").frame)));
    append(&log, &limits, &["d", "e", "f"]);
    assert_eq!(hear(&mut slow), ["lagged 2", "4 d", "5 e", "6 f"]);
}

#[test]
fn a_subscriber_exactly_as_far_behind_as_it_may_be_loses_nothing() {
    let limits = Topics { log_messages: 3, retain_messages: 1, ..WIDE };
    let log = Log::new(TopicName::broadcast());
    let mut slow = subscribe(&log, &limits, Start::Live);
    append(&log, &limits, &["a", "b", "c"]);
    assert_eq!(hear(&mut slow), ["1 a", "2 b", "3 c"]);
}

#[test]
fn the_log_is_bounded_in_bytes() {
    let limits = Topics { log_bytes: 250_000, retain_bytes: 1000, ..WIDE };
    let log = Log::new(TopicName::broadcast());
    for _ in 0..10 {
        append(&log, &limits, &[&"x".repeat(100_000)]);
    }
    assert_eq!(log.len(), 2);
    assert!((200_000..=250_000).contains(&log.bytes()), "{}", log.bytes());
}

#[test]
fn messages_may_fill_the_bytes_exactly() {
    let limits = Topics { log_bytes: 2 * publication("a").cost(), retain_bytes: 0, ..WIDE };
    assert_eq!(log(&limits, &["a", "b", "c"]).len(), 2);
}

#[test]
fn messages_without_payload_take_room_too() {
    let limits = Topics { log_messages: 1000, log_bytes: 1000, retain_messages: 0, ..WIDE };
    assert!(log(&limits, &[""; 500]).len() < 50);
}

#[test]
fn the_newest_is_kept_whatever_its_size() {
    let limits = Topics { log_bytes: 1000, retain_bytes: 1000, ..WIDE };
    let large = "x".repeat(5000);
    let log = log(&limits, &["a", "b", &large]);
    assert_eq!((log.len(), log.bytes()), (1, publication(&large).cost()));
    append(&log, &limits, &["c"]);
    assert_eq!((log.len(), log.bytes()), (1, publication("c").cost()));
}

#[test]
fn what_is_retained_is_kept_though_the_slow_may_not_be_so_far_behind() {
    let limits = Topics { log_messages: 1, retain_messages: 3, ..WIDE };
    let log = log(&limits, &["a", "b", "c", "d"]);
    assert_eq!(replay(&log, &limits, Start::Last(9)), ["2 b", "3 c", "4 d"]);
}

#[test]
fn a_log_of_many_small_and_retention_of_few_large_do_not_add_up() {
    let cost = publication("a").cost();
    let few = Topics { log_messages: 2, log_bytes: 9 * cost, ..WIDE };
    let limits = Topics { retain_messages: 9, retain_bytes: 3 * cost, ..few };
    assert_eq!(log(&limits, &["a"; 9]).len(), 3);
}

#[test]
fn last_replays_no_more_than_was_asked_for() {
    let log = log(&WIDE, &["a", "b", "c"]);
    assert_eq!(replay(&log, &WIDE, Start::Last(0)), [""; 0]);
    assert_eq!(replay(&log, &WIDE, Start::Last(2)), ["2 b", "3 c"]);
    assert_eq!(replay(&log, &WIDE, Start::Last(usize::MAX)), ["1 a", "2 b", "3 c"]);
}

#[test]
fn last_replays_only_what_is_retained_of_what_is_kept() {
    for (retain_messages, expected) in
        [(0, &[][..]), (1, &["3 c"]), (2, &["2 b", "3 c"]), (9, &["1 a", "2 b", "3 c"])]
    {
        let limits = Topics { retain_messages, ..WIDE };
        let log = log(&limits, &["a", "b", "c"]);
        assert_eq!(log.len(), 3);
        assert_eq!(log.is_retaining(&limits), !expected.is_empty(), "{retain_messages}");
        assert_eq!(replay(&log, &limits, Start::Last(9)), expected, "{retain_messages}");
    }
}

#[test]
fn retention_is_bounded_in_bytes() {
    let limits = Topics { retain_bytes: 2 * publication("a").cost(), ..WIDE };
    let log = log(&limits, &["a", "b", "c"]);
    assert_eq!(replay(&log, &limits, Start::Last(9)), ["2 b", "3 c"]);
}

#[test]
fn retention_has_no_gap_where_a_large_message_was() {
    let limits = Topics { retain_bytes: 1000, ..WIDE };
    let log = log(&limits, &["a", &"x".repeat(1000), "c"]);
    assert_eq!(replay(&log, &limits, Start::Last(9)), ["3 c"]);
}

#[test]
fn the_newest_is_retained_whatever_its_size_and_takes_the_room_of_the_others() {
    let limits = Topics { retain_bytes: 1000, ..WIDE };
    let large = "x".repeat(1000);
    let log = log(&limits, &["a", &large]);
    assert_eq!(replay(&log, &limits, Start::Last(9)), [format!("2 {large}")]);
}

#[test]
fn the_last_message_is_known_with_its_number_while_it_is_retained() {
    let limits = Topics { retain_messages: 1, ..WIDE };
    let log = log(&limits, &[]);
    assert_eq!(log.retained_last(&limits), None);
    append(&log, &limits, &["a", "b"]);
    assert_eq!(log.retained_last(&limits), Some((2, publication("b"))));
    let none = Topics { retain_messages: 0, ..limits.clone() };
    assert_eq!(log.retained_last(&none), None);
    log.clear();
    assert_eq!(log.retained_last(&limits), None);
}

#[test]
fn after_a_number_the_next_comes_first() {
    let log = log(&WIDE, &["a", "b", "c"]);
    assert_eq!(replay(&log, &WIDE, Start::After(0)), ["1 a", "2 b", "3 c"]);
    assert_eq!(replay(&log, &WIDE, Start::After(1)), ["2 b", "3 c"]);
    assert_eq!(replay(&log, &WIDE, Start::After(2)), ["3 c"]);
}

#[test]
fn after_the_last_number_comes_what_is_published_next() {
    let log = log(&WIDE, &["a", "b"]);
    let mut subscription = subscribe(&log, &WIDE, Start::After(2));
    assert_eq!(hear(&mut subscription), [""; 0]);
    append(&log, &WIDE, &["c"]);
    assert_eq!(hear(&mut subscription), ["3 c"]);
}

#[test]
fn after_a_number_all_that_is_kept_comes_though_it_is_not_retained() {
    let limits = Topics { retain_messages: 0, ..WIDE };
    let log = log(&limits, &["a", "b", "c"]);
    assert_eq!(replay(&log, &limits, Start::After(1)), ["2 b", "3 c"]);
}

#[test]
fn after_a_number_that_fell_off_the_lost_are_counted() {
    let limits = Topics { log_messages: 2, retain_messages: 2, ..WIDE };
    let log = log(&limits, &["a", "b", "c", "d", "e"]);
    assert_eq!(replay(&log, &limits, Start::After(0)), ["lagged 3", "4 d", "5 e"]);
    assert_eq!(replay(&log, &limits, Start::After(2)), ["lagged 1", "4 d", "5 e"]);
    assert_eq!(replay(&log, &limits, Start::After(3)), ["4 d", "5 e"]);
}

#[test]
fn after_a_number_of_before_a_restart_comes_all_there_is() {
    let limits = Topics { log_messages: 2, retain_messages: 1, ..WIDE };
    let log = log(&limits, &["a", "b", "c"]);
    for number in [4, 5, u64::MAX] {
        let replay = replay(&log, &limits, Start::After(number));
        assert_eq!(replay, ["2 b", "3 c"], "{number}");
    }
}

#[test]
fn what_is_cleared_still_comes_to_who_was_there() {
    let log = Log::new(TopicName::broadcast());
    let mut slow = subscribe(&log, &WIDE, Start::Live);
    append(&log, &WIDE, &["a", "b"]);
    log.clear();
    append(&log, &WIDE, &["c"]);
    assert_eq!(hear(&mut slow), ["1 a", "2 b", "3 c"]);
}

#[test]
fn what_is_cleared_comes_to_nobody_who_comes_later() {
    let log = log(&WIDE, &["a", "b"]);
    log.clear();
    for start in [Start::Last(9), Start::After(0), Start::After(1), Start::After(9)] {
        assert_eq!(replay(&log, &WIDE, start), [""; 0], "{start:?}");
    }
    append(&log, &WIDE, &["c", "d"]);
    for start in [Start::Last(9), Start::After(0), Start::After(1), Start::After(9)] {
        assert_eq!(replay(&log, &WIDE, start), ["3 c", "4 d"], "{start:?}");
    }
}

#[test]
fn what_is_cleared_is_not_counted_as_lost() {
    let limits = Topics { log_messages: 2, retain_messages: 2, ..WIDE };
    let log = log(&limits, &["a", "b"]);
    log.clear();
    append(&log, &limits, &["c", "d", "e"]);
    assert_eq!(replay(&log, &limits, Start::After(0)), ["lagged 1", "4 d", "5 e"]);
}

#[test]
fn a_log_that_lost_all_goes_on_counting() {
    let log = log(&WIDE, &["a", "b"]);
    let mut slow = subscribe(&log, &WIDE, Start::Last(2));
    log.drop_oldest();
    log.drop_oldest();
    assert_eq!((log.len(), log.bytes(), log.last()), (0, 0, 2));
    assert!(!log.is_retaining(&WIDE));
    assert_eq!(hear(&mut slow), ["lagged 2"]);
    append(&log, &WIDE, &["c"]);
    assert_eq!(hear(&mut slow), ["3 c"]);
}

#[test]
fn an_emptied_log_holds_no_memory() {
    let log = log(&WIDE, &["a", "b"]);
    log.drop_oldest();
    log.drop_oldest();
    assert_eq!(log.0.entries.borrow().kept.capacity(), 0);
}

#[test]
fn who_begins_with_a_replay_is_rung_at_once() {
    let log = log(&WIDE, &["a"]);
    for start in [Start::Last(1), Start::After(0)] {
        assert!(subscribe(&log, &WIDE, start).client.bell.is_rung(), "{start:?}");
    }
    assert!(!subscribe(&log, &WIDE, Start::Live).client.bell.is_rung());
}

#[test]
fn mail_goes_before_the_log() {
    let log = log(&WIDE, &["a"]);
    let mut subscription = subscribe(&log, &WIDE, Start::Last(1));
    assert!(subscription.client.deliver(publication("m").frame));
    assert_eq!(hear(&mut subscription), ["mail m", "1 a"]);
}
