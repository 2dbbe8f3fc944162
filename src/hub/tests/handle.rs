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
