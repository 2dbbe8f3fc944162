//! The handle of the hub.

use std::pin::pin;

use futures_lite::future::{block_on, poll_once};

use super::*;

#[test]
fn a_call_fails_when_the_hub_ends_before_it_answers() {
    let (handle, task) = open(Timeouts::default(), Topics::default(), Rc::default());
    let mut asked = pin!(handle.client_counts());
    assert_eq!(block_on(poll_once(asked.as_mut())), None);
    drop(task);
    assert_eq!(block_on(poll_once(asked)), Some(Err(HubGone)));
    assert_eq!(block_on(poll_once(handle.client_counts())), Some(Err(HubGone)));
}

#[test]
fn a_subscriber_that_reads_after_each_turn_misses_no_large_message() {
    const COUNT: usize = 20;
    const BYTES: usize = 1000;
    let limits = Topics { log_bytes: 4 * BYTES, ..Topics::default() };
    let (handle, task) = open(Timeouts::default(), limits, Rc::default());
    let mut running = pin!(task.run());
    let subscription = Subscription::to(TopicName::broadcast(), Start::Live);
    let mut joining = pin!(handle.join(new_client("test"), subscription, Instant::now()));
    let membership = block_on(async {
        assert!(poll_once(joining.as_mut()).await.is_none());
        assert!(poll_once(running.as_mut()).await.is_none());
        joining.await.unwrap().unwrap()
    });
    for _ in 0..COUNT {
        block_on(handle.broadcast(vec![0; BYTES])).unwrap();
    }
    let mut received = 0;
    for _ in 0..COUNT {
        assert!(block_on(poll_once(running.as_mut())).is_none());
        while let Some(delivery) = membership.client().next_delivery() {
            assert!(matches!(delivery, Delivery::Published(_)), "{received} messages came before");
            received += 1;
        }
    }
    assert_eq!(received, COUNT);
}
