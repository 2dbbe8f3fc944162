//! Who may do what.

use crate::counters::Refusal;
use crate::http::{RequestHead, Response};

/// What a request asks to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Read the page or file at a path.
    Read(&'a str),
    /// Open a WebSocket session at a path.
    Connect(&'a str),
    /// Hear what is published to a topic, or read what it retains.
    Subscribe(&'a str),
    /// Publish to a topic, or clear it.
    Publish(&'a str),
    /// Rule the server, at a path.
    Admin(&'a str),
}

/// Decides on every request that comes from a page and by a name that may be (see [`Origins`]), before
/// anything is looked up for it.
///
/// [`Origins`]: crate::Origins
pub trait Authorize {
    /// Lets the request pass or says why not.
    ///
    /// # Errors
    /// [`Denied`], which becomes the response.
    fn authorize(&self, head: &RequestHead<'_>, action: Action<'_>) -> Result<(), Denied>;
}

impl<F: Fn(&RequestHead<'_>, Action<'_>) -> Result<(), Denied>> Authorize for F {
    fn authorize(&self, head: &RequestHead<'_>, action: Action<'_>) -> Result<(), Denied> {
        self(head, action)
    }
}

/// Lets everybody do everything, wherever the server listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorize for AllowAll {
    fn authorize(&self, _: &RequestHead<'_>, _: Action<'_>) -> Result<(), Denied> {
        Ok(())
    }
}

/// Why a request may not do what it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It does not say who it is; the text is the challenge, such as `Bearer` (RFC 9110 §11.6.1).
    Unauthenticated(&'static str),
    /// Whoever it is, it may not.
    Forbidden,
}

impl Denied {
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Unauthenticated(_) => Refusal::Unauthenticated,
            Self::Forbidden => Refusal::Forbidden,
        }
    }

    pub(crate) fn response(self) -> Response {
        match self {
            Self::Unauthenticated(challenge) => {
                Response::text(401, "who are you?\n").with_header("WWW-Authenticate", challenge)
            }
            Self::Forbidden => Response::text(403, "not allowed\n"),
        }
    }
}
