//! A build without TLS: `cargo test --no-default-features --test it tls_absent`.

#![cfg(not(feature = "tls"))]

use std::process::Command;

use crate::rig::Falconet;

#[test]
fn a_build_without_tls_says_so_for_every_option_that_needs_it() {
    for flags in [
        &["--listen", "https://127.0.0.1:0"][..],
        &["--tls-cert", "a.pem"],
        &["--tls-key", "a.pem"],
        &["--tls-self-signed"],
    ] {
        let output = Falconet::command().args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{flags:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("this build has no TLS (feature \"tls\")"), "{text}");
        assert!(text.contains(&flags[0][2..]), "{text}");
    }
}

#[test]
fn a_client_without_tls_says_so() {
    let mut client = Command::new(env!("CARGO_BIN_EXE_falconet-client"));
    let output = client.arg("wss://localhost:1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("this build has no TLS (feature \"tls\")"), "{text}");
}
