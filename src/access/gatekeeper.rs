//! The checks that a request passes before a resource serves it.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::counters::Refusal;
use crate::escaped::Escaped;
use crate::features::Feature;
use crate::http::response::METHODS;
use crate::http::{RequestHead, Response};
use crate::net::{AddressPrefix, OwnNames, Peer, Reach};

use super::address_place::{AddressPlace, FilePermit, warn_no_room};
use super::authorize::{Action, AnyAuthorizer, Denied, Permissions};
use super::cors;
use super::origin::{self, AcceptedHosts, OriginCheckError, Origins};
use super::proxies::{self, ForwardedClient, TrustedProxies};
use super::publish_keys::Publisher;

/// The access rules for the connections of a listener.
pub(crate) struct Access {
    pub(crate) origins: Origins,
    pub(crate) proxies: TrustedProxies,
    /// The names of this host, which a listener that other hosts can reach accepts without an authorizer.
    pub(crate) own_names: OwnNames,
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
    /// The reason, if the request is refused because of its sender or of a limit. `None` if the request itself
    /// is invalid.
    pub(crate) reason: Option<Refusal>,
    /// The response.
    pub(crate) response: Response,
}

impl Refused {
    fn new(reason: Refusal, response: Response) -> Self {
        Self { reason: Some(reason), response }
    }

    /// Names the topics, as a filter, that the sender may not subscribe to, if the sender lacks a right.
    pub(crate) fn naming(self, filter: &str) -> Self {
        match self.reason {
            Some(Refusal::Forbidden) => {
                let text = format!("not allowed to subscribe to `{}`\n", Escaped(filter));
                Self::new(Refusal::Forbidden, Response::text(403, text))
            }
            _ => self,
        }
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
    /// Returns the rules of the administrator's listener: `authorizer`, or else the same one as for the public,
    /// but no pages of other origins and no trusted proxies, because both may act for the public.
    pub(crate) fn of_admin(&self, authorizer: Option<Rc<dyn AnyAuthorizer>>) -> Self {
        Self {
            origins: Origins::default(),
            proxies: TrustedProxies::default(),
            own_names: OwnNames::default(),
            authorizer: authorizer.or_else(|| self.authorizer.clone()),
            is_admin: true,
        }
    }

    /// Checks the host, the origin and the proxy headers of a request that arrived on a connection of `peer`
    /// through a listener with this reach, and gives `address_place` to the request's client. A GET or HEAD of
    /// a page of another origin is admitted, but the gatekeeper lets it do nothing but
    /// [load](Gatekeeper::may_load) files.
    ///
    /// # Errors
    /// [`Refused`], if a check fails or the client's address has too many connections.
    pub(crate) fn admit<'r>(
        &'r self,
        head: &'r RequestHead<'r>,
        peer: Peer,
        reach: Reach,
        is_tls: bool,
        address_place: &'r AddressPlace,
    ) -> Result<Gatekeeper<'r>, Refused> {
        let is_proxied = Feature::Full.is_built_in()
            && self.proxies.trust(peer)
            && !address_place.has_proxy_header();
        let mut external = match is_proxied {
            true => proxies::external_origin(head),
            false => origin::ExternalOrigin::default(),
        };
        let is_unknown = self.place(head, peer, is_proxied, address_place)?;
        external.scheme = external.scheme.or(is_tls.then_some("https"));
        let is_own = |name: &str| self.own_names.contains(name);
        let hosts = match reach {
            Reach::Loopback => AcceptedHosts::Loopback,
            // The smallest build has nothing that a page of another origin must not read.
            Reach::Network if Feature::Full.is_built_in() && self.authorizer.is_none() => {
                AcceptedHosts::Local { is_own: &is_own }
            }
            Reach::Network | Reach::Unix => AcceptedHosts::All,
        };
        let mut checked = self.origins.check(head, hosts, external);
        if Feature::Full.is_built_in() && self.is_admin {
            checked = checked.and_then(|()| origin::check_site(head));
        }
        let may_load =
            !self.is_admin && matches!(head.method(), "GET" | "HEAD") && !head.wants_websocket();
        let is_foreign = match checked {
            Ok(()) => false,
            Err(OriginCheckError::Origin) if may_load => true,
            Err(error) => {
                let forwarded =
                    external.host.filter(|_| matches!(hosts, AcceptedHosts::Local { .. }));
                let host = forwarded.map_or(head.host(), |host| Some(host.as_bytes()));
                return Err(refused(error, head, host, address_place));
            }
        };
        let reach = if is_unknown { Reach::Network } else { address_place.reach(reach) };
        let permissions = OnceCell::new();
        Ok(Gatekeeper { access: self, head, address_place, reach, is_foreign, permissions })
    }

    /// Gives `address_place` to the client that a trusted proxy names. Returns true if the address of the client
    /// is unknown, and the client may be on another host. If another proxy on this host names a client, the
    /// proxy keeps its place, but the place is none of those that are kept for this host.
    fn place(
        &self,
        head: &RequestHead<'_>,
        peer: Peer,
        is_proxied: bool,
        address_place: &AddressPlace,
    ) -> Result<bool, Refused> {
        let mut client = ForwardedClient { nearest: peer, is_unknown: false };
        let placed = if is_proxied {
            let named = self.proxies.client_of(peer, head);
            client = named.map_err(|error| Refused::new(Refusal::Proxy, error.response()))?;
            let placed = address_place.reassign(client.nearest, self.proxies.trust(client.nearest));
            if client.is_unknown {
                placed.and_then(|()| address_place.leave_host())
            } else {
                placed
            }
        } else if Feature::Full.is_built_in() && proxies::is_forwarded(head) {
            client.is_unknown = proxies::names_another_host(head);
            address_place.leave_host()
        } else {
            Ok(())
        };
        placed.map(|()| client.is_unknown).map_err(|refusal| {
            warn_no_room(client.nearest, refusal);
            Refused::new(refusal, Response::text(503, "too many connections\n"))
        })
    }

    /// Returns the header lines that let the page that sent a request read the response, if its origin is
    /// allowed. `origin` is the value of the request's Origin header.
    pub(crate) fn cors_lines(&self, origin: Option<&[u8]>) -> String {
        match Feature::Full.is_built_in() {
            true => cors::header_lines(&self.origins, origin, self.authorizer.is_some()),
            false => String::new(),
        }
    }

    /// Returns the response to a request with the method OPTIONS that is about no particular resource:
    /// `OPTIONS *` (RFC 9110 §9.3.7), or a preflight request of an allowed origin. The response depends on
    /// neither paths nor tokens, so it reveals nothing.
    pub(crate) fn answer_options(&self, head: &RequestHead<'_>) -> Option<Response> {
        if head.method() != "OPTIONS" {
            return None;
        }
        if Feature::Full.is_built_in()
            && let Some(response) = cors::preflight(&self.origins, head)
        {
            return Some(response);
        }
        (head.path() == "*").then(|| Response::other_method(head.method(), METHODS))
    }
}

/// Logs that a check of the origin refuses a request for `host`, and returns the refusal.
#[cold]
fn refused(
    error: OriginCheckError,
    head: &RequestHead<'_>,
    host: Option<&[u8]>,
    address_place: &AddressPlace,
) -> Refused {
    log::info!(
        target: "falconet::access",
        address = address_place.client().to_string(),
        origin = text_of(head.single("origin")), host = text_of(host);
        "refused: {error}"
    );
    Refused::new(error.refusal(), error.response())
}

/// The checks of the actions that one request may do, after [`Access::admit`] has admitted the request.
pub(crate) struct Gatekeeper<'r> {
    access: &'r Access,
    head: &'r RequestHead<'r>,
    address_place: &'r AddressPlace,
    /// The reach of the request's client.
    reach: Reach,
    /// True if a page of another origin sent the request.
    is_foreign: bool,
    /// Set once the sender has been identified.
    permissions: OnceCell<Box<dyn Permissions>>,
}

impl<'r> Gatekeeper<'r> {
    /// Checks that the sender may do an action. The first call identifies the sender.
    ///
    /// # Errors
    /// [`Refused`], if the sender is not identified or may not do this.
    pub(crate) fn may(&self, action: Action<'_>) -> Result<(), Refused> {
        if self.is_foreign {
            let head = self.head;
            return Err(refused(OriginCheckError::Origin, head, head.host(), self.address_place));
        }
        self.permits(action)
    }

    /// Checks that the sender may load the file at a path. Pages of other origins may: nothing changes, and
    /// the browser does not show them the content. Browsers send an Origin with module scripts and fonts,
    /// and behind a proxy that replaces the header Host the server's own page seems to be one of another
    /// origin.
    ///
    /// # Errors
    /// [`Refused`], if the sender is not identified or may not do this.
    pub(crate) fn may_load(&self, path: &str) -> Result<(), Refused> {
        self.permits(Action::Read(path))
    }

    /// Returns the sender as a publisher, after the sender [may](Self::may) publish: the identity, if the
    /// authorizer knows its name, or else the address. All clients on this host have the same address.
    pub(crate) fn publisher(&self) -> Publisher<'_> {
        let name = self.permissions.get().and_then(|permissions| permissions.name());
        let address = || self.address_place.client().limited_prefix();
        name.map_or_else(
            || Publisher::At(address().unwrap_or(AddressPrefix::THIS_HOST)),
            Publisher::Named,
        )
    }

    /// Permits a file to be open while it is sent as the response.
    ///
    /// # Errors
    /// [`Refused`], if too many files are open already, or no descriptor is left for one more.
    pub(crate) fn permit_file(&self) -> Result<FilePermit, Refused> {
        self.address_place.permit_file().ok_or_else(|| {
            log::warn!(
                target: "falconet::limit",
                address = self.address_place.client().to_string();
                "too many files are being sent: refused"
            );
            let response = Response::text(503, "too many files are being sent\n");
            Refused::new(Refusal::Files, response)
        })
    }

    fn permits(&self, action: Action<'_>) -> Result<(), Refused> {
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
fn text_of(value: Option<&[u8]>) -> String {
    value.map(String::from_utf8_lossy).unwrap_or_default().into_owned()
}
