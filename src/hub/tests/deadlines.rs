//! Sweeps at given times.

use super::*;
use crate::features::Feature;

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
    assert!(silent.eviction().is_some() && silent.is_aborted(), "75 s have passed");
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
    let first = if Feature::Full.is_built_in() { 9 } else { 10 };
    assert_eq!(hub.watch.alarm().due(), Some(at(first)(start)), "the alarm is brought forward");
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
fn a_client_that_reads_at_the_minimum_rate_is_kept_and_one_below_it_is_evicted() {
    let timeouts = Timeouts { idle: Some(Duration::from_secs(20)), ..Timeouts::default() };
    let mut hub = hub_by(timeouts, Topics::default());
    let start = Instant::now();
    let [steady, slow] = [(); 2].map(|()| join(&mut hub, start));
    steady.write_blocked(start);
    slow.write_blocked(start);
    for second in 1..=120 {
        let now = at(second)(start);
        // The kernel reports progress in pieces.
        if second % 5 == 0 {
            steady.write_progressed(5 * 8 * 1024, now);
            slow.write_progressed(3 * 8 * 1024, now);
        }
        hub.sweep(now);
        assert!(steady.eviction().is_none(), "{second}");
        // At 5, 10 and 15 s the deadline moves by 3 s, from 10 s to 13, 16 and 19 s.
        assert_eq!(slow.eviction().is_some(), second >= 19, "{second}");
    }
    assert!(slow.is_aborted());
}

#[test]
fn a_blocked_write_is_probed_before_each_deadline() {
    if !Feature::Full.is_built_in() {
        return;
    }
    let mut hub = hub();
    let start = Instant::now();
    let client = join(&mut hub, start);
    client.write_blocked(start);
    for second in 1..=18 {
        client.bell.clear();
        hub.sweep(at(second)(start));
        assert_eq!(client.bell.is_rung(), [9, 18].contains(&second), "{second}");
        assert_eq!(client.is_write_probed(), [9, 18].contains(&second), "{second}");
        if second == 9 {
            // The probe has found that the client has read something.
            client.write_progressed(1 << 20, at(second)(start));
        }
    }
}

#[test]
fn progress_renews_the_deadline_of_a_write_to_at_most_the_full_time() {
    for min_rate in [1, 8 * 1024, 0] {
        let timeouts = Timeouts { min_rate, ..Timeouts::default() };
        let mut hub = hub_by(timeouts, Topics::default());
        let start = Instant::now();
        let client = join(&mut hub, start);
        client.write_blocked(start);
        for second in 1..=20 {
            if second == 7 {
                client.write_progressed(usize::MAX, at(second)(start));
            }
            hub.sweep(at(second)(start));
            assert_eq!(client.eviction().is_some(), second >= 17, "{min_rate} {second}");
        }
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
