//! The page and the dashboard over TLS, in a real browser.

#![cfg(feature = "tls")]

use crate::support::browser::{IS_OPEN, Window, row_contains, send_message};
use crate::support::process::Falconet;

#[test]
fn the_page_speaks_wss_to_a_server_with_a_self_signed_certificate() {
    let Some(mut window) = Window::open() else { return };
    window.ignore_certificate_errors();
    let falconet = Falconet::start_with(Falconet::command().args([
        "--listen",
        "https://127.0.0.1:0",
        "--tls-self-signed",
    ]));
    let log = falconet.log_so_far().concat();
    let url = log.split("listening on ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    window.visit(url);
    window.wait_for(IS_OPEN);
    send_message(&mut window, "over TLS");
    window.wait_for(&row_contains("received text echo", "over TLS"));
    window.wait_for("document.getElementById('address').textContent.startsWith('wss://')");
}

#[cfg(feature = "full")]
#[test]
fn the_dashboard_works_over_tls() {
    let Some(mut window) = Window::open() else { return };
    window.ignore_certificate_errors();
    let falconet = Falconet::start_with(Falconet::command().args([
        "--listen",
        "https://127.0.0.1:0",
        "--admin",
        "https://127.0.0.1:0",
        "--tls-self-signed",
    ]));
    let line = falconet.wait_for_line("administration on ");
    window.visit(line.split("administration on ").nth(1).unwrap());
    window.wait_for("document.getElementById('state').textContent === 'live'");
    window.wait_for("document.querySelectorAll('#topics tr').length === 1");
    assert_eq!(window.console_errors(), [""; 0]);
}
