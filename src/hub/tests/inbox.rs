//! The way to the hub.

use std::pin::pin;

use futures_lite::future::{block_on, poll_once};

use super::*;

#[test]
fn a_question_the_hub_leaves_behind_is_answered_with_its_end() {
    let (handle, task) = open(Timeouts::default(), Topics::default(), Rc::default());
    let mut asked = pin!(handle.census());
    assert_eq!(block_on(poll_once(asked.as_mut())), None);
    drop(task);
    assert_eq!(block_on(poll_once(asked)), Some(Err(HubGone)));
    assert_eq!(block_on(poll_once(handle.census())), Some(Err(HubGone)));
}
