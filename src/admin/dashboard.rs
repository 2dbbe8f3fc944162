//! The dashboard: a page for the administrator, sent as one file that contains its scripts and styles.

use std::fmt::Write;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::http::Response;

/// Returns the response with the dashboard. Comments in the page, such as `/* base.css */`, are replaced by
/// the files that the dashboard shares with the public page.
///
/// Each response has a nonce, which is added to the tags `<script>` and `<style>`. The browser runs no other
/// script and applies no other style (CSP Level 3, section 7.1). The tags must be written exactly so.
pub(super) fn response() -> Response {
    let nonce = nonce();
    let page = PAGE
        .replace("/* base.css */", BASE_STYLE)
        .replace("<!-- chart.html -->", CHART_TEMPLATE)
        .replace("/* dom.js */", DOM)
        .replace("/* chart.js */", CHART)
        .replace("<script>", &format!("<script nonce=\"{nonce}\">"))
        .replace("<style>", &format!("<style nonce=\"{nonce}\">"));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'self'"
    );
    Response::new(200, "text/html; charset=utf-8", page.into_bytes())
        .with_header("Cache-Control", "no-store")
        .with_header("Content-Security-Policy", policy)
}

/// Returns 16 random bytes in hexadecimal digits. While the kernel has no random numbers yet, the nonce is
/// empty, and the browser runs no script.
fn nonce() -> String {
    let mut bytes = [0; 16];
    let mut nonce = String::with_capacity(2 * bytes.len());
    if getrandom(&mut bytes, GetRandomFlags::NONBLOCK).is_ok() {
        for byte in bytes {
            let _ = write!(nonce, "{byte:02x}");
        }
    }
    nonce
}

const PAGE: &str = include_str!(concat!(env!("OUT_DIR"), "/admin.html"));
const BASE_STYLE: &str = include_str!(concat!(env!("OUT_DIR"), "/base.css"));
const CHART_TEMPLATE: &str = include_str!(concat!(env!("OUT_DIR"), "/chart.html"));
const DOM: &str = include_str!(concat!(env!("OUT_DIR"), "/dom.js"));
const CHART: &str = include_str!(concat!(env!("OUT_DIR"), "/chart.js"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_differ() {
        assert_eq!(nonce().len(), 32);
        assert_ne!(nonce(), nonce());
    }
}
