//! Files embedded in the program.

use super::response::Response;

/// A file embedded in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// The media type, which is the value of the Content-Type header.
    pub content_type: &'static str,
    /// The content.
    pub body: &'static [u8],
}

impl Asset {
    /// Returns the response that sends this file.
    pub(crate) fn response(&self) -> Response {
        Response::new(200, self.content_type, self.body)
            .with_header("Cache-Control", "no-cache")
            .with_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    }
}

/// Allows scripts, styles, images and connections of this server only, and nothing inline. Only pages of the
/// same origin may show the page in a frame, as Home Assistant does.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'self'";
