//! The state that the connections of a server share.

use std::rc::Rc;

use crate::access::{Access, HandshakeRate};
use crate::config::Config;
use crate::counters::{Counters, Refusal, Rejection};
use crate::hub::HubHandle;
use crate::resource::Resource;
use crate::services::Stop;

use super::request::IdGenerator;

/// The state that the connections share. One context is for the connections of all public listeners,
/// another one for those of the administrator's listener.
pub(crate) struct Context {
    pub(crate) config: Rc<Config>,
    /// The resources, in the order in which they are asked to plan a request.
    pub(crate) resources: Vec<Box<dyn Resource>>,
    pub(crate) access: Rc<Access>,
    /// `None` without a limit.
    pub(crate) handshake_rate: Option<HandshakeRate>,
    pub(crate) hub: HubHandle,
    pub(crate) stop: Stop,
    pub(crate) ids: IdGenerator,
    pub(crate) counters: Rc<Counters>,
}

impl Context {
    /// Returns true for the connections of the administrator's listener. Their requests are not counted.
    pub(crate) fn is_admin(&self) -> bool {
        self.access.is_admin
    }

    /// Counts a request by the status of its response.
    pub(super) fn count_answer(&self, status: u16) {
        if !self.is_admin() {
            self.counters.answer(status);
        }
    }

    /// Counts a connection that was rejected.
    pub(super) fn count_rejection(&self, reason: Rejection) {
        if !self.is_admin() {
            self.counters.reject(reason);
        }
    }

    /// Counts a request that was refused because of its sender.
    pub(super) fn count_refusal(&self, reason: Refusal) {
        if !self.is_admin() {
            self.counters.refuse(reason);
        }
    }
}
