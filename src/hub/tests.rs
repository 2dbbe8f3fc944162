use std::collections::HashMap;

use crate::ws::frame::{CloseCode, Message};

use super::*;

const REASON: CloseReason = CloseReason::new(CloseCode::Policy, "test");

fn hub() -> Hub {
    Hub::new(Timeouts::default(), Rc::new(Alarm::default()))
}

fn frame(text: &str) -> Frame {
    Frame::message(&Message::from(text))
}

/// Everything a subscriber has to send now.
fn deliveries(subscription: &mut Subscription) -> Vec<Delivery> {
    std::iter::from_fn(|| subscription.next()).collect()
}

fn at(seconds: u64) -> impl Fn(Instant) -> Instant {
    move |start| start + Duration::from_secs(seconds)
}

#[test]
fn a_client_gets_what_is_broadcast_after_it_joined() {
    let mut hub = hub();
    let mut early = hub.join(Instant::now());
    hub.broadcast(frame("one"));
    let mut late = hub.join(Instant::now());
    hub.broadcast(frame("two"));
    assert_eq!(
        deliveries(&mut early),
        [Delivery::Frame(frame("one")), Delivery::Frame(frame("two"))]
    );
    assert_eq!(deliveries(&mut late), [Delivery::Frame(frame("two"))]);
}

#[test]
fn ringing_wakes_every_client_in_bounded_steps() {
    let mut hub = hub();
    let clients: Vec<_> = (0..600).map(|_| hub.join(Instant::now())).collect();
    hub.broadcast(frame("x"));
    let mut from = 0;
    let mut steps = 1;
    while let Some(next) = hub.ring(from, 256) {
        from = next;
        steps += 1;
    }
    assert!(steps >= 3);
    assert!(clients.iter().all(|subscription| subscription.client.bell.is_rung()));
}

#[test]
fn who_falls_off_the_log_is_told_how_much_was_lost() {
    let mut hub = hub();
    let mut slow = hub.join(Instant::now());
    for number in 0..100 {
        hub.broadcast(frame(&number.to_string()));
    }
    let delivered = deliveries(&mut slow);
    let Delivery::Lagged(lost) = delivered[0] else { panic!("{:?}", delivered[0]) };
    assert_eq!(delivered[1], Delivery::Frame(frame(&lost.to_string())));
    assert_eq!(lost as usize + delivered.len() - 1, 100);
    assert_eq!(deliveries(&mut slow), []);
}

#[test]
fn the_log_is_bounded_in_bytes() {
    let mut hub = hub();
    let mut slow = hub.join(Instant::now());
    for _ in 0..10 {
        hub.broadcast(frame(&"x".repeat(100_000)));
    }
    let kept = deliveries(&mut slow).len() - 1;
    assert!((1..=2).contains(&kept), "{kept}");
}

#[test]
fn a_stale_id_does_not_reach_the_next_client_in_its_slot() {
    let mut hub = hub();
    let gone = hub.join(Instant::now()).client.id;
    hub.leave(gone);
    let mut next = hub.join(Instant::now());
    assert_eq!(next.client.id.slot, gone.slot, "the slab reuses the slot");
    assert!(!hub.send_to(gone, frame("late")));
    assert!(!hub.evict(gone, REASON));
    hub.leave(gone);
    assert_eq!(hub.census().clients, 1);
    assert_eq!(deliveries(&mut next), []);
    assert!(next.client.eviction().is_none());
}

#[test]
fn a_mailbox_is_bounded_and_says_so() {
    let mut hub = hub();
    let mut client = hub.join(Instant::now());
    let taken = (0..1000).filter(|_| hub.send_to(client.client.id, frame("m"))).count();
    assert_eq!(taken, deliveries(&mut client).len());
    assert!(taken < 100);
    assert!(hub.send_to(client.client.id, frame("room again")));
}

#[test]
fn the_silent_are_pinged_and_the_dead_are_given_up() {
    let mut hub = hub();
    let start = Instant::now();
    let mut silent = hub.join(start);
    let mut alive = hub.join(start);
    let mut pings = 0;
    for second in 1..=75 {
        let now = at(second)(start);
        alive.client.seen(now);
        if hub.alarm.due().is_some_and(|due| due <= now) {
            hub.sweep(now);
        }
        pings += deliveries(&mut silent)
            .iter()
            .filter(|d| **d == Delivery::Frame(Frame::ping()))
            .count();
    }
    assert_eq!(pings, 2);
    let eviction = silent.client.eviction().expect("75 s are over");
    assert!(!eviction.answering);
    assert!(alive.client.eviction().is_none());
    assert_eq!(deliveries(&mut alive), []);
}

#[test]
fn a_blocked_write_and_an_unfinished_message_have_their_own_deadlines() {
    let mut hub = hub();
    let timeouts = Timeouts::default();
    let start = Instant::now();
    let blocked = hub.join(start);
    let unfinished = hub.join(start);
    blocked.client.write_blocked(start, &timeouts);
    unfinished.client.set_message_started(Some(start), &timeouts);
    assert_eq!(hub.alarm.due(), Some(at(10)(start)), "the alarm is brought forward");
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
    let mut hub = Hub::new(timeouts.clone(), Rc::new(Alarm::default()));
    let start = Instant::now();
    let client = hub.join(start);
    client.client.set_message_started(Some(start), &timeouts);
    client.client.write_blocked(start, &timeouts);
    for second in 1..=100 {
        let now = at(second)(start);
        client.client.seen(now);
        if second == 50 {
            client.client.write_unblocked(now, &timeouts);
        }
        hub.sweep(now);
        assert_eq!(client.client.eviction().is_some(), second >= 80, "{second}");
    }
}

#[test]
fn a_sweep_long_overdue_blames_nobody() {
    let mut hub = hub();
    let start = Instant::now();
    let client = hub.join(start);
    client.client.write_blocked(start, &Timeouts::default());
    hub.sweep(at(1)(start));
    // SIGSTOP for ten minutes.
    hub.sweep(at(600)(start));
    assert!(client.client.eviction().is_none());
    assert!(hub.alarm.due().unwrap() > at(600)(start));
    hub.sweep(at(613)(start));
    assert!(client.client.eviction().is_none(), "this one is late too");
    hub.sweep(at(623)(start));
    assert!(client.client.eviction().is_some(), "nobody stood still any more");
}

#[test]
fn with_nobody_there_nothing_is_due() {
    let mut hub = hub();
    assert_eq!(hub.alarm.due(), None);
    let client = hub.join(Instant::now());
    assert!(hub.alarm.due().is_some());
    hub.leave(client.client.id);
    assert_eq!(hub.alarm.due(), None);
}

#[test]
fn a_drain_evicts_everybody_and_who_still_joins() {
    let mut hub = hub();
    let before = hub.join(Instant::now());
    hub.drain(REASON);
    let after = hub.join(Instant::now());
    for client in [before, after] {
        let eviction = client.client.eviction().unwrap();
        assert!(eviction.answering);
        assert_eq!(eviction.reason, REASON);
    }
}

/// What the hub does, done the slow and obvious way: a queue for every client.
#[derive(Default)]
struct Model {
    queues: HashMap<ClientId, Vec<Frame>>,
    evicted: HashMap<ClientId, CloseReason>,
}

#[test]
fn random_commands_do_what_the_naive_model_does() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut hub, mut model) = (hub(), Model::default());
        let mut there: Vec<Subscription> = Vec::new();
        let mut gone: Vec<ClientId> = Vec::new();
        let start = Instant::now();
        for step in 0..300 {
            let context = format!("seed {seed}, step {step}");
            match random.u8(0..10) {
                0 | 1 => {
                    let client = hub.join(start);
                    model.queues.insert(client.client.id, Vec::new());
                    there.push(client);
                }
                2 if !there.is_empty() => {
                    let client = there.swap_remove(random.usize(0..there.len()));
                    hub.leave(client.client.id);
                    gone.push(client.client.id);
                    model.queues.remove(&client.client.id);
                }
                3 => {
                    // A session that vanishes without a word; the sweep finds it.
                    if let Some(client) = there.pop() {
                        gone.push(client.client.id);
                        model.queues.remove(&client.client.id);
                        drop(client);
                        hub.sweep(start);
                    }
                }
                4 | 5 => {
                    let frame = frame(&step.to_string());
                    hub.broadcast(frame.clone());
                    model.queues.values_mut().for_each(|queue| queue.push(frame.clone()));
                }
                6 if !there.is_empty() => {
                    // Mail goes before the log, so compare it when nothing else waits.
                    let client = random.choice(&mut there).unwrap();
                    let expected = std::mem::take(model.queues.get_mut(&client.client.id).unwrap());
                    assert_eq!(frames(deliveries(client)), expected, "{context}");
                    let frame = frame("mail");
                    assert!(hub.send_to(client.client.id, frame.clone()), "{context}");
                    assert_eq!(frames(deliveries(client)), [frame], "{context}");
                }
                7 if !gone.is_empty() => {
                    let id = *random.choice(&gone).unwrap();
                    assert!(
                        !hub.send_to(id, frame("stale")) && !hub.evict(id, REASON),
                        "{context}"
                    );
                }
                8 if !there.is_empty() => {
                    let id = random.choice(&there).unwrap().client.id;
                    assert!(hub.evict(id, REASON), "{context}");
                    model.evicted.insert(id, REASON);
                }
                _ => {
                    for client in &mut there {
                        let queue = model.queues.get_mut(&client.client.id).unwrap();
                        assert_eq!(frames(deliveries(client)), std::mem::take(queue), "{context}");
                    }
                }
            }
            assert_eq!(hub.census().clients, model.queues.len(), "{context}");
            for client in &there {
                let evicted = client.client.eviction().map(|eviction| eviction.reason);
                assert_eq!(evicted.as_ref(), model.evicted.get(&client.client.id), "{context}");
            }
        }
    }
}

fn frames(deliveries: Vec<Delivery>) -> Vec<Frame> {
    let frame = |delivery| match delivery {
        Delivery::Frame(frame) => frame,
        Delivery::Lagged(lost) => panic!("lost {lost}"),
    };
    deliveries.into_iter().map(frame).collect()
}
