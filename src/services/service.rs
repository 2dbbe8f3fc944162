//! The trait of services.

use std::future::Future;
use std::pin::Pin;

use crate::hub::HubHandle;

use super::stop::Stop;

/// A task that runs beside the connections from the server's start to its stop, and reaches the
/// clients through the hub.
///
/// If a service panics or returns, the server and the other services continue.
#[allow(async_fn_in_trait, reason = "everything runs on one thread; no future needs to be Send")]
pub trait Service {
    /// Runs until the work is done or `stop` is requested. A service that still runs after the
    /// drain is dropped.
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop);
}

/// A [`Service`] with a boxed future, so that services of different types fit into one list.
pub(crate) trait AnyService {
    fn run_boxed(self: Box<Self>, hub: HubHandle, stop: Stop) -> Pin<Box<dyn Future<Output = ()>>>;
}

impl<S: Service + 'static> AnyService for S {
    fn run_boxed(self: Box<Self>, hub: HubHandle, stop: Stop) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.run(hub, stop))
    }
}
