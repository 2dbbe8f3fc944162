//! The checks that a request passes before a resource serves it.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::counters::Refusal;
use crate::features::Feature;
use crate::http::{RequestHead, Response};
use crate::net::{Peer, Reach};

use super::address_place::AddressPlace;
use super::authorize::{Action, AnyAuthorizer, Denied, Permissions};
use super::origin::{self, Origins};
use super::proxies::{self, TrustedProxies};

/// The access rules for the connections of a listener.
pub(crate) struct Access {
    pub(crate) origins: Origins,
    pub(crate) proxies: TrustedProxies,
    /// Decides on actions. With `None`, actions that change something are allowed only on addresses that no
    /// other host can reach; all other actions are allowed everywhere.
    pub(crate) authorizer: Option<Rc<dyn AnyAuthorizer>>,
    /// True for the administrator's listener. It refuses every request that a page of another site sends,
    /// even one that only reads.
    pub(crate) is_admin: bool,
}

/// The refusal of a request.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The reason, if the request is refused because of its sender. `None` if the request itself is invalid.
    pub(crate) reason: Option<Refusal>,
    /// The response.
    pub(crate) response: Response,
}

impl Refused {
    fn new(reason: Refusal, response: Response) -> Self {
        Self { reason: Some(reason), response }
    }
}

impl From<Response> for Refused {
    /// Refuses a request that is invalid, independent of its sender.
    fn from(response: Response) -> Self {
        Self { reason: None, response }
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::new(denied.refusal(), denied.response())
    }
}

impl Access {
    /// Returns the rules of the administrator's listener: the same authorizer, but no pages of other origins
    /// and no trusted proxies, because both may act for the public.
    pub(crate) fn of_admin(&self) -> Self {
        Self {
            origins: Origins::default(),
            proxies: TrustedProxies::default(),
            authorizer: self.authorizer.clone(),
            is_admin: true,
        }
    }

    /// Checks the host, the origin and the proxy headers of a request that arrived on a connection of `peer`,
    /// and gives `address_place` to the request's client.
    ///
    /// # Errors
    /// [`Refused`], if a check fails or the client's address has too many connections.
    pub(crate) fn admit(
        &self,
        head: &RequestHead<'_>,
        peer: Peer,
        reach: Reach,
        is_tls: bool,
        address_place: &AddressPlace,
    ) -> Result<(), Refused> {
        let is_proxied = Feature::Full.is_built_in() && self.proxies.trust(peer);
        let mut external = match is_proxied {
            true => proxies::external_origin(head),
            false => origin::ExternalOrigin::default(),
        };
        if is_proxied {
            let client = self.proxies.client_of(peer, head);
            let client = client.map_err(|error| Refused::new(Refusal::Proxy, error.response()))?;
            if !address_place.reassign(client, self.proxies.trust(client)) {
                log::warn!(target: "falconet::limit", address = client.to_string(); "{TOO_MANY}: refused");
                let response = Response::text(503, "too many connections\n");
                return Err(Refused::new(Refusal::Address, response));
            }
        }
        external.scheme = external.scheme.or(is_tls.then_some("https"));
        let mut checked = self.origins.check(head, reach, external);
        if Feature::Full.is_built_in() && self.is_admin {
            checked = checked.and_then(|()| origin::check_site(head));
        }
        checked.map_err(|error| {
            log::info!(
                target: "falconet::access",
                address = address_place.client().to_string(),
                origin = header_text(head, "origin"), host = header_text(head, "host");
                "refused: {error}"
            );
            Refused::new(error.refusal(), error.response())
        })
    }
}

/// The checks of the actions that one request may do. [`Access::admit`] must have admitted the request.
pub(crate) struct Gatekeeper<'r> {
    access: &'r Access,
    head: &'r RequestHead<'r>,
    reach: Reach,
    /// Set once the sender has been identified.
    permissions: OnceCell<Box<dyn Permissions>>,
}

impl<'r> Gatekeeper<'r> {
    /// Creates the gatekeeper of a request. `reach` is that of the request's client.
    pub(crate) fn new(access: &'r Access, head: &'r RequestHead<'r>, reach: Reach) -> Self {
        Self { access, head, reach, permissions: OnceCell::new() }
    }

    /// Checks that the sender may do an action. The first call identifies the sender.
    ///
    /// # Errors
    /// [`Refused`], if the sender is not identified or may not do this.
    pub(crate) fn may(&self, action: Action<'_>) -> Result<(), Refused> {
        match &self.access.authorizer {
            Some(authorizer) => Ok(self.permissions(authorizer)?.may(action)?),
            None if self.reach == Reach::Network && changes_something(action) => {
                let response = Response::text(403, "publishing needs a token here\n");
                Err(Refused::new(Refusal::Forbidden, response))
            }
            None => Ok(()),
        }
    }

    fn permissions(&self, authorizer: &Rc<dyn AnyAuthorizer>) -> Result<&dyn Permissions, Denied> {
        if let Some(permissions) = self.permissions.get() {
            return Ok(&**permissions);
        }
        let permissions = authorizer.clone().identify(self.head)?;
        Ok(&**self.permissions.get_or_init(|| permissions))
    }
}

/// Returns true if the action changes something that other clients can notice.
fn changes_something(action: Action<'_>) -> bool {
    matches!(action, Action::Publish(_) | Action::Admin(_))
}

/// Returns the value of a header as text for the log; empty if the header is missing or repeated.
fn header_text(head: &RequestHead<'_>, name: &str) -> String {
    head.single(name).map(String::from_utf8_lossy).unwrap_or_default().into_owned()
}

const TOO_MANY: &str = "too many connections from one address";
