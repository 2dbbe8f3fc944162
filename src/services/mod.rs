//! Services: tasks that run beside the connections.

mod service;
mod stdin;
mod stop;
mod supervision;
mod sweep;
mod timestamp;

pub(crate) use service::AnyService;
pub use service::Service;
pub use stdin::Stdin;
pub use stop::{Stop, Stopper};
pub use supervision::Supervision;
pub(crate) use sweep::Sweep;
pub use timestamp::{LocalClock, Timestamp};
