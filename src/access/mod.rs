//! Access control: the checks of origins, proxies and tokens, and the limits per address.

mod address_place;
mod authorize;
mod cors;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gatekeeper;
mod handshake_rate;
mod origin;
mod prefix_rates;
mod proxies;
pub(crate) mod proxy_protocol;
mod publish_keys;
mod publish_rate;
mod tokens;

pub(crate) use address_place::{
    AddressPermit, AddressPlace, Addresses, FilePermit, Places, warn_no_room,
};
pub(crate) use authorize::AnyAuthorizer;
pub use authorize::{Action, AllowAll, Authorize, Denied};
pub(crate) use gatekeeper::{Access, Gatekeeper, Refused};
pub(crate) use handshake_rate::HandshakeRate;
pub use origin::{OriginError, Origins};
pub use proxies::{TrustedProxies, TrustedProxy, TrustedProxyError};
pub(crate) use publish_keys::{MAX_PUBLISH_KEYS, PublishKey, PublishKeys};
pub(crate) use publish_rate::PublishRate;
pub use tokens::{TokenFile, TokenFileError};
