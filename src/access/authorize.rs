//! Authorization: identifies the sender of a request, and decides which actions the sender may do.

use std::rc::Rc;

use crate::counters::Refusal;
use crate::http::{RequestHead, Response};

/// An action that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Read the page or file at a path, percent-decoded (see [`RequestHead::path`]).
    Read(&'a str),
    /// Open a WebSocket session at a path.
    Connect(&'a str),
    /// Subscribe to a topic, or read its retained messages. The text is the name of the topic, or a filter of
    /// topics: in it, the segment `+` stands for any one, and a last segment `#` for any number of them, also
    /// for none. A filter must be denied unless the sender may subscribe to all topics that it matches:
    /// `garden/#` to `garden` and everything below it, `#` to every topic. A request for several topics and
    /// filters is one action for each of them.
    Subscribe(&'a str),
    /// Publish to a topic, or clear it.
    Publish(&'a str),
    /// Administer the server, at a path.
    Admin(&'a str),
}

/// A policy that decides which actions a request may do. The server applies it after it has checked the host
/// name and the origin (see [`Origins`]), and before it looks up anything for the request.
///
/// A closure is an authorizer, too: it identifies a request by returning another closure, which decides
/// on actions.
///
/// ```
/// use falconet::{Action, Denied, RequestHead, Server};
///
/// let server = Server::builder().authorize(|head: &RequestHead<'_>| {
///     let is_writer = head.single("x-role") == Some(b"writer");
///     Ok(move |action: Action<'_>| match action {
///         Action::Publish(_) if !is_writer => Err(Denied::Forbidden),
///         _ => Ok(()),
///     })
/// });
/// # drop(server);
/// ```
///
/// [`Origins`]: crate::Origins
pub trait Authorize {
    /// The proven identity of a request. It outlives the request head.
    type Identity: 'static;

    /// Identifies the sender of a request, once per request.
    ///
    /// # Errors
    /// [`Denied`], if the request does not prove an identity. Its response is sent.
    fn identify(&self, head: &RequestHead<'_>) -> Result<Self::Identity, Denied>;

    /// Checks that an identity may do an action.
    ///
    /// # Errors
    /// [`Denied`], if it may not. Its response is sent.
    fn may(&self, identity: &Self::Identity, action: Action<'_>) -> Result<(), Denied>;

    /// Returns the name of an identity, such as a user or a token. Messages with the same `Idempotency-Key` from
    /// identities with different names are different messages. The server keeps only a hash of the name, with a
    /// random seed. Default: `None`; then the address of the client is compared instead.
    fn name<'i>(&self, identity: &'i Self::Identity) -> Option<&'i [u8]> {
        let _ = identity;
        None
    }
}

impl<F, I> Authorize for F
where
    F: Fn(&RequestHead<'_>) -> Result<I, Denied>,
    I: Fn(Action<'_>) -> Result<(), Denied> + 'static,
{
    type Identity = I;

    fn identify(&self, head: &RequestHead<'_>) -> Result<I, Denied> {
        self(head)
    }

    fn may(&self, identity: &I, action: Action<'_>) -> Result<(), Denied> {
        identity(action)
    }
}

/// An [`Authorize`] that allows every action to everyone, on every address that the server listens on.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorize for AllowAll {
    type Identity = ();

    fn identify(&self, _: &RequestHead<'_>) -> Result<(), Denied> {
        Ok(())
    }

    fn may(&self, (): &(), _: Action<'_>) -> Result<(), Denied> {
        Ok(())
    }
}

/// An [`Authorize`] of any type.
pub(crate) trait AnyAuthorizer {
    fn identify(self: Rc<Self>, head: &RequestHead<'_>) -> Result<Box<dyn Permissions>, Denied>;
}

/// The actions that one identified sender may do.
pub(crate) trait Permissions {
    fn may(&self, action: Action<'_>) -> Result<(), Denied>;
    fn name(&self) -> Option<&[u8]>;
}

/// An identity, and the authorizer that has identified it.
struct Identified<A: Authorize> {
    authorizer: Rc<A>,
    identity: A::Identity,
}

impl<A: Authorize + 'static> AnyAuthorizer for A {
    fn identify(self: Rc<Self>, head: &RequestHead<'_>) -> Result<Box<dyn Permissions>, Denied> {
        let identity = Authorize::identify(&*self, head)?;
        Ok(Box::new(Identified { authorizer: self, identity }))
    }
}

impl<A: Authorize> Permissions for Identified<A> {
    fn may(&self, action: Action<'_>) -> Result<(), Denied> {
        self.authorizer.may(&self.identity, action)
    }

    fn name(&self) -> Option<&[u8]> {
        self.authorizer.name(&self.identity)
    }
}

/// The reason why a request may not do what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The request does not prove its identity. The text is the challenge, such as `Bearer`
    /// (RFC 9110 §11.6.1). The response is 401.
    Unauthenticated(&'static str),
    /// The identity is known, but may not do this. The response is 403.
    Forbidden,
}

impl Denied {
    /// Returns the reason for the counters.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Unauthenticated(_) => Refusal::Unauthenticated,
            Self::Forbidden => Refusal::Forbidden,
        }
    }

    /// Returns the response.
    pub(crate) fn response(self) -> Response {
        match self {
            Self::Unauthenticated(challenge) => Response::text(401, "authentication required\n")
                .with_header("WWW-Authenticate", challenge),
            Self::Forbidden => Response::text(403, "not allowed\n"),
        }
    }
}
