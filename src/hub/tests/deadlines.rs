//! Sweeps at given times.

use super::*;

fn at(seconds: u64) -> impl Fn(Instant) -> Instant {
    move |start| start + Duration::from_secs(seconds)
}

#[test]
fn a_silent_client_is_pinged_and_then_evicted() {
    let mut hub = hub();
    let start = Instant::now();
    let silent = join(&mut hub, start);
    let alive = join(&mut hub, start);
    let mut pings = 0;
    for second in 1..=75 {
        let now = at(second)(start);
        alive.seen(now);
        if hub.watch.alarm().due().is_some_and(|due| due <= now) {
            hub.sweep(now);
        }
        pings += deliveries(&silent).iter().filter(|delivery| *delivery == "ping").count();
    }
    assert_eq!(pings, 2);
    assert!(silent.eviction().is_some() && silent.has_missed_deadline(), "75 s have passed");
    assert!(alive.eviction().is_none());
    assert_eq!(deliveries(&alive), [""; 0]);
}

#[test]
fn a_blocked_write_and_an_unfinished_message_have_their_own_deadlines() {
    let mut hub = hub();
    let start = Instant::now();
    let blocked = join(&mut hub, start);
    let unfinished = join(&mut hub, start);
    blocked.write_blocked(start);
    unfinished.message_began(start);
    assert_eq!(hub.watch.alarm().due(), Some(at(10)(start)), "the alarm is brought forward");
    for second in 1..=30 {
        let now = at(second)(start);
        for client in [&blocked, &unfinished] {
            client.seen(now);
        }
        hub.sweep(now);
        assert_eq!(blocked.eviction().is_some(), second >= 10, "{second}");
        assert_eq!(unfinished.eviction().is_some(), second >= 30, "{second}");
    }
}

#[test]
fn the_time_of_a_message_does_not_run_while_the_client_is_not_read() {
    let timeouts = Timeouts { write: None, ..Timeouts::default() };
    let mut hub = hub_by(timeouts, Topics::default());
    let start = Instant::now();
    let client = join(&mut hub, start);
    client.message_began(start);
    client.write_blocked(start);
    for second in 1..=100 {
        let now = at(second)(start);
        client.seen(now);
        if second == 50 {
            client.write_unblocked(now);
        }
        hub.sweep(now);
        assert_eq!(client.eviction().is_some(), second >= 80, "{second}");
    }
}

#[test]
fn a_sweep_long_overdue_evicts_no_client() {
    let mut hub = hub();
    let start = Instant::now();
    let client = join(&mut hub, start);
    client.write_blocked(start);
    hub.sweep(at(1)(start));
    // The process is suspended for ten minutes.
    hub.sweep(at(600)(start));
    assert!(client.eviction().is_none());
    assert!(hub.watch.alarm().due().unwrap() > at(600)(start));
    hub.sweep(at(613)(start));
    assert!(client.eviction().is_none(), "this sweep is late as well");
    hub.sweep(at(623)(start));
    assert!(client.eviction().is_some(), "this sweep is on time");
}

#[test]
fn without_clients_no_sweep_is_due() {
    let mut hub = hub();
    assert_eq!(hub.watch.alarm().due(), None);
    let client = join(&mut hub, Instant::now());
    assert!(hub.watch.alarm().due().is_some());
    hub.leave(client.id());
    assert_eq!(hub.watch.alarm().due(), None);
}
