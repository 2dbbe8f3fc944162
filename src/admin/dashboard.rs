//! The page the administrator looks at: one file, with its script and style in it.

use std::fmt::Write;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::http::Response;

/// The dashboard, with what it shares with the page at the places named so. Its elements `<script>` and
/// `<style>`, written just so, get this response's nonce, and nothing else in it is run (CSP 3 §7.1).
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
         frame-ancestors 'none'"
    );
    Response::new(200, "text/html; charset=utf-8", page.into_bytes())
        .with_header("Cache-Control", "no-store")
        .with_header("Content-Security-Policy", policy)
}

/// What nobody can guess; nothing while the kernel has no randomness, and then nothing is run.
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

const PAGE: &str = include_str!("../../www/admin.html");
const BASE_STYLE: &str = include_str!("../../www/base.css");
const CHART_TEMPLATE: &str = include_str!("../../www/chart.html");
const DOM: &str = include_str!("../../www/dom.js");
const CHART: &str = include_str!("../../www/chart.js");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nonce_is_used_twice() {
        assert_eq!(nonce().len(), 32);
        assert_ne!(nonce(), nonce());
    }
}
