//! Sweeps, with the time passed in.

use super::*;

fn at(seconds: u64) -> impl Fn(Instant) -> Instant {
    move |start| start + Duration::from_secs(seconds)
}

#[test]
fn the_silent_are_pinged_and_the_dead_are_given_up() {
    let mut hub = hub();
    let start = Instant::now();
    let mut silent = join(&mut hub, start);
    let mut alive = join(&mut hub, start);
    let mut pings = 0;
    for second in 1..=75 {
        let now = at(second)(start);
        alive.client.seen(now);
        if hub.handle.alarm().due().is_some_and(|due| due <= now) {
            hub.sweep(now);
        }
        pings += hear(&mut silent).iter().filter(|heard| *heard == "ping").count();
    }
    assert_eq!(pings, 2);
    let eviction = silent.client.eviction().expect("75 s are over");
    assert!(!eviction.answering);
    assert!(alive.client.eviction().is_none());
    assert_eq!(hear(&mut alive), [""; 0]);
}

#[test]
fn a_blocked_write_and_an_unfinished_message_have_their_own_deadlines() {
    let mut hub = hub();
    let start = Instant::now();
    let blocked = join(&mut hub, start);
    let unfinished = join(&mut hub, start);
    blocked.client.write_blocked(start);
    unfinished.client.message_began(start);
    assert_eq!(hub.handle.alarm().due(), Some(at(10)(start)), "the alarm is brought forward");
    for second in 1..=30 {
        let now = at(second)(start);
        for client in [&blocked, &unfinished] {
            client.client.seen(now);
        }
        hub.sweep(now);
        assert_eq!(blocked.client.eviction().is_some(), second >= 10, "{second}");
        assert_eq!(unfinished.client.eviction().is_some(), second >= 30, "{second}");
    }
}

#[test]
fn a_message_is_not_unfinished_while_we_do_not_read_it() {
    let timeouts = Timeouts { write: None, ..Timeouts::default() };
    let mut hub = hub_by(timeouts, Topics::default());
    let start = Instant::now();
    let client = join(&mut hub, start);
    client.client.message_began(start);
    client.client.write_blocked(start);
    for second in 1..=100 {
        let now = at(second)(start);
        client.client.seen(now);
        if second == 50 {
            client.client.write_unblocked(now);
        }
        hub.sweep(now);
        assert_eq!(client.client.eviction().is_some(), second >= 80, "{second}");
    }
}

#[test]
fn a_sweep_long_overdue_blames_nobody() {
    let mut hub = hub();
    let start = Instant::now();
    let client = join(&mut hub, start);
    client.client.write_blocked(start);
    hub.sweep(at(1)(start));
    // SIGSTOP for ten minutes.
    hub.sweep(at(600)(start));
    assert!(client.client.eviction().is_none());
    assert!(hub.handle.alarm().due().unwrap() > at(600)(start));
    hub.sweep(at(613)(start));
    assert!(client.client.eviction().is_none(), "this one is late too");
    hub.sweep(at(623)(start));
    assert!(client.client.eviction().is_some(), "nobody stood still any more");
}

#[test]
fn with_nobody_there_nothing_is_due() {
    let mut hub = hub();
    assert_eq!(hub.handle.alarm().due(), None);
    let client = join(&mut hub, Instant::now());
    assert!(hub.handle.alarm().due().is_some());
    hub.leave(client.client.id());
    assert_eq!(hub.handle.alarm().due(), None);
}
