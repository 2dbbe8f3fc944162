//! The state that all sessions and event streams of a server share.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Instant;

use crate::config::Config;
use crate::hub::HubHandle;
use crate::rate::Rate;

use super::decode::Payloads;

/// The state that all sessions and event streams of a server share.
pub(crate) struct SessionShared {
    pub(crate) config: Rc<Config>,
    pub(crate) hub: HubHandle,
    pub(super) controls: Rate,
    pub(super) messages: Option<Rate>,
    pub(super) payloads: RefCell<Payloads>,
}

impl SessionShared {
    /// The state for sessions of the clients in `hub`.
    pub(crate) fn new(config: Rc<Config>, hub: HubHandle) -> Self {
        let epoch = Instant::now();
        let messages = config.limits.message_rate.map(|rate| Rate::new(rate, epoch));
        let controls = control_rate(epoch);
        Self { config, hub, controls, messages, payloads: RefCell::new(Payloads::new()) }
    }
}

/// The rate at which a client may send control frames.
pub(super) fn control_rate(epoch: Instant) -> Rate {
    Rate::with_burst(CONTROLS_PER_SECOND, CONTROLS_AT_ONCE, epoch)
}

const CONTROLS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("10 is not 0");
const CONTROLS_AT_ONCE: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
