//! Cross-origin resource sharing: the response headers that let pages of allowed origins read a response
//! (Fetch, "CORS protocol").

use crate::http::response::METHODS;
use crate::http::{RequestHead, Response};

use super::origin::Origins;

/// Returns the header lines for the response to a request with this Origin header. Empty if only the
/// server's own pages may read the response and no cache has to know.
pub(super) fn header_lines(
    origins: &Origins,
    origin: Option<&[u8]>,
    has_authorizer: bool,
) -> String {
    let is_public = origins.is_any() && !has_authorizer;
    let allowed = match is_public {
        true => Some("*"),
        false => origin.and_then(|origin| origins.allowed(origin)),
    };
    let mut lines = String::new();
    if origins.has_named() || (origins.is_any() && !is_public) {
        // Also without an Origin: a cache must not give this response to a page (Fetch, "CORS protocol and
        // HTTP caches").
        lines += "Vary: Origin\r\n";
    }
    if let Some(allowed) = allowed {
        for part in ["Access-Control-Allow-Origin: ", allowed, "\r\n", EXPOSED] {
            lines += part;
        }
        // Every page can have the origin `null`, as with `any`.
        if !origins.is_any() && allowed != "null" {
            lines += "Access-Control-Allow-Credentials: true\r\n";
        }
    }
    lines
}

/// Returns the response to a preflight request of an allowed origin: the question whether the page may send
/// a request with other methods or headers than a form sends. `None` if the request is not one. A preflight
/// has no token, and its response is the same for all paths.
pub(super) fn preflight(origins: &Origins, head: &RequestHead<'_>) -> Option<Response> {
    head.single("access-control-request-method")?;
    origins.allowed(head.single("origin")?)?;
    let response = Response::without_body(204)
        .with_header("Access-Control-Allow-Methods", METHODS)
        .with_header("Access-Control-Allow-Headers", READ_HEADERS)
        .with_header("Access-Control-Max-Age", MAX_AGE_SECONDS);
    Some(response)
}

/// The line with the response headers that a page may read, besides those that Fetch always allows.
const EXPOSED: &str = "Access-Control-Expose-Headers: Content-Range, ETag, Last-Event-ID, Retry-After, \
    X-Client-Id, X-Message-Id, X-Request-Id\r\n";
/// The request headers that the server reads and a page may set.
const READ_HEADERS: &str = "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, \
    If-Range, Last-Event-ID, Range, X-Client-Id, X-Request-Id";
/// The time for which a browser may keep the response to a preflight: the longest that Chromium allows.
const MAX_AGE_SECONDS: &str = "7200";
