//! The state that all sessions and event streams of a server share.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Instant;

use crate::config::Config;
use crate::frame::Message;
use crate::hub::HubHandle;
use crate::rate::Rate;

use super::decode::{PayloadBuffer, whole_message};

/// The state that all sessions and event streams of a server share.
pub(crate) struct SessionShared {
    pub(crate) config: Rc<Config>,
    pub(crate) hub: HubHandle,
    /// The rate limit of each client for control frames.
    pub(super) control_rate: Rate,
    /// The rate limit of each client for messages, if one is configured.
    pub(super) message_rate: Option<Rate>,
    payload_buffer: RefCell<PayloadBuffer>,
}

impl SessionShared {
    /// Creates the state for the clients of `hub`.
    pub(crate) fn new(config: Rc<Config>, hub: HubHandle) -> Self {
        let epoch = Instant::now();
        let message_rate = config.limits.message_rate.map(|rate| Rate::new(rate, epoch));
        Self {
            config,
            hub,
            control_rate: control_rate(epoch),
            message_rate,
            payload_buffer: RefCell::new(PayloadBuffer::new()),
        }
    }

    /// Returns the message that `bytes` start with, and the number of its bytes, if the message is whole and
    /// in one frame.
    pub(super) fn whole_message(&self, bytes: &[u8]) -> Option<(Message, usize)> {
        let limit = self.config.limits.message_bytes;
        whole_message(bytes, limit, &mut self.payload_buffer.borrow_mut())
    }
}

/// Returns the rate limit for control frames: 10 per second, with a burst of 20.
pub(super) fn control_rate(epoch: Instant) -> Rate {
    Rate::with_burst(CONTROLS_PER_SECOND, CONTROLS_BURST, epoch)
}

const CONTROLS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("10 is not 0");
const CONTROLS_BURST: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
