use crate::hub::cursor::{Cursor, Step};
use crate::hub::ids::Epoch;
use crate::hub::publication::{Draft, HeldBytes};
use crate::hub::tests::draft;

use super::*;

/// Limits that are so high that no message is dropped in these tests.
const WIDE: Topics = Topics {
    count: 8,
    filters: 8,
    retain_messages: 100,
    retain_bytes: usize::MAX,
    log_messages: 100,
    log_bytes: usize::MAX,
    total_bytes: usize::MAX,
    slow_consumer: crate::config::SlowConsumer::Skip,
};

/// A log, and the epoch of its ids.
struct TestLog {
    log: Log,
    epoch: Epoch,
}

/// Returns a log with `messages`, which have the numbers from 1 on.
fn log(limits: &Topics, messages: &[&str]) -> TestLog {
    let log = TestLog { log: Log::new(TopicName::broadcast(), 0), epoch: Epoch::random() };
    log.append(limits, messages);
    log
}

impl TestLog {
    fn append(&self, limits: &Topics, messages: &[&str]) {
        for message in messages {
            let id = EventId { number: self.log.highest() + 1, epoch: self.epoch };
            self.log.append(self.publication(id, draft(message)), limits);
        }
    }

    fn clear(&self) {
        let id = EventId { number: self.log.highest() + 1, epoch: self.epoch };
        let cleared = Draft::cleared(self.log.topic());
        self.log.clear(self.publication(id, cleared));
    }

    fn publication(&self, id: EventId, draft: Draft) -> Rc<Publication> {
        Publication::new(Some(id), self.log.topic(), draft, HeldBytes::default())
    }

    fn after(&self, number: u64) -> Start {
        Start::After(Some(EventId { number, epoch: self.epoch }))
    }

    /// Returns a new cursor, and true if there is a gap before it.
    fn start(&self, limits: &Topics, start: Start) -> (Cursor, bool) {
        let counter = EventId { number: self.log.highest(), epoch: self.epoch };
        let (position, has_gap) = self.log.start(start, counter, limits);
        (Cursor::new(self.log.clone(), position), has_gap)
    }

    fn cursor(&self, limits: &Topics, start: Start) -> Cursor {
        self.start(limits, start).0
    }

    /// Returns the messages that a new cursor delivers, with `gap` before them if there is one.
    fn replay(&self, limits: &Topics, start: Start) -> Vec<String> {
        let (cursor, has_gap) = self.start(limits, start);
        let gap = has_gap.then(|| "gap".to_owned());
        gap.into_iter().chain(read(&cursor)).collect()
    }
}

/// Takes the next step of a cursor and returns it as text: `2 b` is the message b with the number 2.
fn step(cursor: &Cursor) -> Option<String> {
    Some(match cursor.next()? {
        Step::Message(cleared) if cleared.is_cleared() => format!("{} cleared", cleared.number()),
        Step::Message(publication) => {
            let text = str::from_utf8(publication.frame().payload()).unwrap();
            format!("{} {text}", publication.number())
        }
        Step::Lagged(lost) => format!("lagged {}", lost.expect("a position has the count")),
        Step::Gap => unreachable!("a cursor begins after the gap"),
    })
}

fn read(cursor: &Cursor) -> Vec<String> {
    std::iter::from_fn(|| step(cursor)).collect()
}

#[test]
fn a_live_cursor_gets_the_messages_appended_after_it() {
    let log = log(&WIDE, &["a"]);
    let subscription = log.cursor(&WIDE, Start::Live);
    assert_eq!(read(&subscription), [""; 0]);
    log.append(&WIDE, &["b", "c"]);
    assert_eq!(read(&subscription), ["2 b", "3 c"]);
    assert_eq!(read(&subscription), [""; 0]);
}

#[test]
fn cursors_do_not_disturb_each_other() {
    let log = log(&WIDE, &["a", "b"]);
    let one = log.cursor(&WIDE, Start::Last(2));
    assert_eq!(step(&one).as_deref(), Some("1 a"));
    assert_eq!(log.replay(&WIDE, Start::Last(2)), ["1 a", "2 b"]);
    assert_eq!(read(&one), ["2 b"]);
}

#[test]
fn a_cursor_whose_message_was_dropped_continues_with_the_oldest_message_kept() {
    let limits = Topics { log_messages: 3, retain_messages: 1, ..WIDE };
    let log = log(&WIDE, &[]);
    let slow = log.cursor(&limits, Start::Live);
    log.append(&limits, &["a", "b", "c"]);
    assert_eq!(step(&slow).as_deref(), Some("1 a"));
    log.append(&limits, &["d", "e", "f"]);
    assert_eq!(read(&slow), ["lagged 2", "4 d", "5 e", "6 f"]);
}

#[test]
fn a_cursor_as_far_behind_as_the_limit_allows_loses_nothing() {
    let limits = Topics { log_messages: 3, retain_messages: 1, ..WIDE };
    let log = log(&WIDE, &[]);
    let slow = log.cursor(&limits, Start::Live);
    log.append(&limits, &["a", "b", "c"]);
    assert_eq!(read(&slow), ["1 a", "2 b", "3 c"]);
}

#[test]
fn the_log_is_bounded_in_bytes() {
    let limits = Topics { log_bytes: 250_000, retain_bytes: 1000, ..WIDE };
    let log = log(&WIDE, &[]);
    for _ in 0..10 {
        log.append(&limits, &[&"x".repeat(100_000)]);
    }
    assert_eq!(log.log.len(), 2);
    assert!((200_000..=250_000).contains(&log.log.payload_bytes()), "{}", log.log.payload_bytes());
}

#[test]
fn messages_may_fill_the_bytes_exactly() {
    let limits = Topics { log_bytes: 2, retain_bytes: 0, ..WIDE };
    assert_eq!(log(&limits, &["a", "b", "c"]).log.len(), 2);
}

#[test]
fn the_newest_message_is_kept_whatever_its_size() {
    let limits = Topics { log_bytes: 1000, retain_bytes: 1000, ..WIDE };
    let large = "x".repeat(5000);
    let log = log(&limits, &["a", "b", &large]);
    assert_eq!((log.log.len(), log.log.payload_bytes()), (1, large.len()));
    log.append(&limits, &["c"]);
    assert_eq!((log.log.len(), log.log.payload_bytes()), (1, 1));
}

#[test]
fn retained_messages_are_kept_beyond_the_limit_for_slow_subscribers() {
    let limits = Topics { log_messages: 1, retain_messages: 3, ..WIDE };
    let log = log(&limits, &["a", "b", "c", "d"]);
    assert_eq!(log.replay(&limits, Start::Last(9)), ["2 b", "3 c", "4 d"]);
}

#[test]
fn the_limits_of_the_log_and_of_retention_do_not_add_up() {
    let few = Topics { log_messages: 2, log_bytes: 9, ..WIDE };
    let limits = Topics { retain_messages: 9, retain_bytes: 3, ..few };
    assert_eq!(log(&limits, &["a"; 9]).log.len(), 3);
}

#[test]
fn last_replays_no_more_messages_than_requested() {
    let log = log(&WIDE, &["a", "b", "c"]);
    assert_eq!(log.replay(&WIDE, Start::Last(0)), [""; 0]);
    assert_eq!(log.replay(&WIDE, Start::Last(2)), ["2 b", "3 c"]);
    assert_eq!(log.replay(&WIDE, Start::Last(usize::MAX)), ["1 a", "2 b", "3 c"]);
}

#[test]
fn last_replays_only_the_retained_messages() {
    for (retain_messages, expected) in
        [(0, &[][..]), (1, &["3 c"]), (2, &["2 b", "3 c"]), (9, &["1 a", "2 b", "3 c"])]
    {
        let limits = Topics { retain_messages, ..WIDE };
        let log = log(&limits, &["a", "b", "c"]);
        assert_eq!(log.log.len(), 3);
        assert_eq!(log.log.is_retaining(&limits), !expected.is_empty(), "{retain_messages}");
        assert_eq!(log.replay(&limits, Start::Last(9)), expected, "{retain_messages}");
    }
}

#[test]
fn retention_is_bounded_in_bytes() {
    let limits = Topics { retain_bytes: 2, ..WIDE };
    let log = log(&limits, &["a", "b", "c"]);
    assert_eq!(log.replay(&limits, Start::Last(9)), ["2 b", "3 c"]);
}

#[test]
fn retention_ends_at_a_message_that_does_not_fit() {
    let limits = Topics { retain_bytes: 1000, ..WIDE };
    let log = log(&limits, &["a", &"x".repeat(1000), "c"]);
    assert_eq!(log.replay(&limits, Start::Last(9)), ["3 c"]);
}

#[test]
fn the_newest_message_is_retained_whatever_its_size_and_displaces_the_others() {
    let limits = Topics { retain_bytes: 1000, ..WIDE };
    let large = "x".repeat(1000);
    let log = log(&limits, &["a", &large]);
    assert_eq!(log.replay(&limits, Start::Last(9)), [format!("2 {large}")]);
}

#[test]
fn the_newest_message_is_returned_while_it_is_retained() {
    let limits = Topics { retain_messages: 1, ..WIDE };
    let log = log(&limits, &[]);
    let last = |limits: &Topics| log.log.retained_last(limits).map(|last| last.number());
    assert_eq!(last(&limits), None);
    log.append(&limits, &["a", "b"]);
    assert_eq!(last(&limits), Some(2));
    assert_eq!(last(&Topics { retain_messages: 0, ..limits.clone() }), None);
    log.clear();
    assert_eq!(last(&limits), None);
}

#[test]
fn a_resume_begins_with_the_next_message() {
    let log = log(&WIDE, &["a", "b", "c"]);
    assert_eq!(log.replay(&WIDE, log.after(0)), ["1 a", "2 b", "3 c"]);
    assert_eq!(log.replay(&WIDE, log.after(1)), ["2 b", "3 c"]);
    assert_eq!(log.replay(&WIDE, log.after(2)), ["3 c"]);
}

#[test]
fn a_resume_after_the_newest_message_gets_the_ones_published_next() {
    let log = log(&WIDE, &["a", "b"]);
    let subscription = log.cursor(&WIDE, log.after(2));
    assert_eq!(read(&subscription), [""; 0]);
    log.append(&WIDE, &["c"]);
    assert_eq!(read(&subscription), ["3 c"]);
}

#[test]
fn a_resume_gets_messages_that_are_kept_but_not_retained() {
    let limits = Topics { retain_messages: 0, ..WIDE };
    let log = log(&limits, &["a", "b", "c"]);
    assert_eq!(log.replay(&limits, log.after(1)), ["2 b", "3 c"]);
}

#[test]
fn a_resume_whose_next_message_was_dropped_begins_with_a_gap() {
    let limits = Topics { log_messages: 2, retain_messages: 2, ..WIDE };
    let log = log(&limits, &["a", "b", "c", "d", "e"]);
    assert_eq!(log.replay(&limits, log.after(0)), ["gap", "4 d", "5 e"]);
    assert_eq!(log.replay(&limits, log.after(2)), ["gap", "4 d", "5 e"]);
    assert_eq!(log.replay(&limits, log.after(3)), ["4 d", "5 e"]);
}

#[test]
fn a_resume_after_a_number_not_assigned_yet_gets_everything_kept_after_a_gap() {
    let limits = Topics { log_messages: 2, retain_messages: 1, ..WIDE };
    let log = log(&limits, &["a", "b", "c"]);
    for number in [4, 5, u64::MAX] {
        let replay = log.replay(&limits, log.after(number));
        assert_eq!(replay, ["gap", "2 b", "3 c"], "{number}");
    }
}

#[test]
fn a_connected_subscriber_gets_a_notice_in_place_of_messages_that_were_cleared() {
    let log = log(&WIDE, &[]);
    let [slow, fast] = [(); 2].map(|()| log.cursor(&WIDE, Start::Live));
    log.append(&WIDE, &["a", "b"]);
    assert_eq!(read(&fast), ["1 a", "2 b"]);
    log.clear();
    log.append(&WIDE, &["d"]);
    assert_eq!(read(&slow), ["3 cleared", "4 d"]);
    assert_eq!(read(&fast), ["3 cleared", "4 d"]);
}

#[test]
fn two_deletions_are_one_notice_for_a_subscriber_that_has_got_neither() {
    let log = log(&WIDE, &[]);
    let slow = log.cursor(&WIDE, Start::Live);
    log.append(&WIDE, &["a"]);
    log.clear();
    log.append(&WIDE, &["c"]);
    log.clear();
    assert_eq!(read(&slow), ["4 cleared"]);
}

#[test]
fn a_subscriber_that_lags_behind_a_deletion_has_not_lost_the_messages_before_it() {
    let limits = Topics { log_messages: 2, retain_messages: 2, ..WIDE };
    let log = log(&limits, &[]);
    let slow = log.cursor(&limits, Start::Live);
    log.append(&limits, &["a", "b"]);
    log.clear();
    log.append(&limits, &["d", "e", "f"]);
    // The notice itself and the message after it.
    assert_eq!(read(&slow), ["lagged 2", "5 e", "6 f"]);
}

#[test]
fn a_later_subscriber_gets_no_message_that_was_cleared() {
    let log = log(&WIDE, &["a", "b"]);
    log.clear();
    for (start, expected) in [
        (Start::Last(9), &[][..]),
        (log.after(0), &["gap"]),
        (log.after(1), &["gap"]),
        (log.after(2), &["gap"]),
        (log.after(3), &[]),
        (log.after(9), &["gap"]),
    ] {
        assert_eq!(log.replay(&WIDE, start), expected, "{start:?}");
    }
    log.append(&WIDE, &["d", "e"]);
    assert_eq!(log.replay(&WIDE, Start::Last(9)), ["4 d", "5 e"]);
    assert_eq!(log.replay(&WIDE, log.after(1)), ["gap", "4 d", "5 e"]);
    assert_eq!(log.replay(&WIDE, log.after(3)), ["4 d", "5 e"]);
}

#[test]
fn a_resume_has_one_gap_for_cleared_and_dropped_messages() {
    let limits = Topics { log_messages: 2, retain_messages: 2, ..WIDE };
    let log = log(&limits, &["a", "b"]);
    log.clear();
    log.append(&limits, &["d", "e", "f"]);
    assert_eq!(log.replay(&limits, log.after(0)), ["gap", "5 e", "6 f"]);
}

#[test]
fn a_log_that_dropped_all_messages_continues_its_positions() {
    let log = log(&WIDE, &["a", "b"]);
    let slow = log.cursor(&WIDE, Start::Last(2));
    log.log.drop_oldest();
    log.log.drop_oldest();
    assert_eq!((log.log.len(), log.log.payload_bytes(), log.log.highest()), (0, 0, 2));
    assert!(!log.log.is_retaining(&WIDE));
    assert_eq!(read(&slow), ["lagged 2"]);
    log.append(&WIDE, &["c"]);
    assert_eq!(read(&slow), ["3 c"]);
}

#[test]
fn an_emptied_log_holds_no_memory() {
    let log = log(&WIDE, &["a", "b"]);
    log.log.drop_oldest();
    log.log.drop_oldest();
    assert_eq!(log.log.0.entries.borrow().kept.capacity(), 0);
}
