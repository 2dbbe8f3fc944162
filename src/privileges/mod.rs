//! Dropping privileges once the listeners are bound, to limit what an attacker could do with a
//! compromised server.

mod account;
mod sandbox;

pub use account::{Account, AccountError, is_root};
pub use sandbox::{Sandbox, SandboxStatus};
