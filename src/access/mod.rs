//! What stands between a request and what it asks for.

mod address_place;
mod authorize;
mod origin;
mod proxies;
pub(crate) mod proxy_protocol;
mod publish_rate;
mod tokens;

use std::rc::Rc;

use crate::counters::Refusal;
use crate::features::Feature;
use crate::http::{RequestHead, Response};
use crate::net::{Peer, Reach};

pub(crate) use address_place::{AddressPermit, AddressPlace, Addresses};
pub use authorize::{Action, AllowAll, Authorize, Denied};
pub use origin::{OriginError, Origins};
pub use proxies::{TrustedProxies, TrustedProxy, TrustedProxyError};
pub(crate) use publish_rate::PublishRate;
pub use tokens::{TokenFile, TokenFileError};

/// Who is let in, and to what.
pub(crate) struct Access {
    pub(crate) origins: Origins,
    pub(crate) proxies: TrustedProxies,
    /// Without one, only who reaches this host's own listeners may change anything.
    pub(crate) authorizer: Option<Rc<dyn Authorize>>,
    pub(crate) publish_rate: Option<PublishRate>,
    /// Whether it is the administrator's, whom no page from elsewhere is even to ask for anything.
    pub(crate) is_admin: bool,
}

/// That a request gets nothing of what it asks for.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Why, if that lies with who sent it.
    pub(crate) why: Option<Refusal>,
    /// What the peer gets.
    pub(crate) response: Response,
}

impl Refused {
    fn new(why: Refusal, response: Response) -> Self {
        Self { why: Some(why), response }
    }
}

impl From<Response> for Refused {
    /// A request that nobody could make so.
    fn from(response: Response) -> Self {
        Self { why: None, response }
    }
}

impl Access {
    /// Who is let in to the administrator: by the same authorizer, and no page from elsewhere and no proxy
    /// that the public may come by.
    pub(crate) fn of_admin(&self) -> Self {
        Self {
            origins: Origins::default(),
            proxies: TrustedProxies::default(),
            authorizer: self.authorizer.clone(),
            publish_rate: None,
            is_admin: true,
        }
    }

    /// Lets a request in that came over a connection of `peer`; the address_place is its client's then.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn admit(
        &self,
        head: &RequestHead<'_>,
        peer: Peer,
        reach: Reach,
        is_tls: bool,
        address_place: &AddressPlace,
    ) -> Result<(), Refused> {
        let is_proxied = Feature::Full.is_built_in() && self.proxies.trust(peer);
        let mut outside = match is_proxied {
            true => proxies::outside(head),
            false => origin::Outside::default(),
        };
        if is_proxied {
            let client = self.proxies.client_of(peer, head);
            let client = client.map_err(|error| Refused::new(Refusal::Proxy, error.response()))?;
            if !address_place.give_to(client, self.proxies.trust(client)) {
                log::warn!(target: "falconet::limit", address = client.to_string(); "{TOO_MANY}: refused");
                let response = Response::text(503, "too many connections\n");
                return Err(Refused::new(Refusal::Address, response));
            }
        }
        outside.scheme = outside.scheme.or(is_tls.then_some("https"));
        let mut checked = self.origins.check(head, reach, outside);
        if Feature::Full.is_built_in() && self.is_admin {
            checked = checked.and_then(|()| origin::check_site(head));
        }
        checked.map_err(|foreign| {
            log::info!(
                target: "falconet::access",
                address = address_place.client().to_string(), origin = text(head, "origin"), host = text(head, "host");
                "refused: {foreign}"
            );
            Refused::new(foreign.refusal(), foreign.response())
        })
    }

    /// Lets a request do something, or says why not.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn authorize(
        &self,
        head: &RequestHead<'_>,
        action: Action<'_>,
        reach: Reach,
    ) -> Result<(), Refused> {
        match &self.authorizer {
            Some(authorizer) => authorizer
                .authorize(head, action)
                .map_err(|denied| Refused::new(denied.refusal(), denied.response())),
            None if reach == Reach::Network && changes(action) => {
                let response = Response::text(403, "nobody may publish here without tokens\n");
                Err(Refused::new(Refusal::Forbidden, response))
            }
            None => Ok(()),
        }
    }
}

/// Whether others notice that it is done.
fn changes(action: Action<'_>) -> bool {
    matches!(action, Action::Publish(_) | Action::Admin(_))
}

fn text(head: &RequestHead<'_>, name: &str) -> String {
    head.single(name).map(String::from_utf8_lossy).unwrap_or_default().into_owned()
}

const TOO_MANY: &str = "too many connections of one address";
