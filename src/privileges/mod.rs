//! What a server gives up once it is bound, so that who takes it over has little.

mod account;
mod sandbox;

pub use account::{Account, AccountError, is_root};
pub use sandbox::{Sandbox, SandboxStatus};
