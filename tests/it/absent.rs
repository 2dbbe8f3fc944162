//! Builds without a feature refuse the options of that feature.

#![cfg(not(all(feature = "full", feature = "tls")))]

use std::process::{Command, Output};

use falconet::cli::OPTIONS;
use falconet::net::ListenUrl;
use falconet::{Feature, Server, StartError};

#[cfg(not(feature = "full"))]
use crate::support::http::{fetch, get};
use crate::support::process::Falconet;

#[test]
fn options_of_a_missing_feature_are_refused_by_name_and_not_in_the_help() {
    let help = Falconet::command().arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    for option in OPTIONS {
        let flag = format!("--{}", option.name);
        assert_eq!(help.contains(&format!("  {flag}")), option.is_built_in(), "{flag}");
        if option.is_built_in() {
            continue;
        }
        let value = (!option.value.is_empty()).then_some("1");
        let output = Falconet::command().arg(&flag).args(value).output().unwrap();
        assert_refused(&output, 2, &flag);
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn tls_urls_are_refused() {
    let output = Falconet::command().args(["--listen", "https://127.0.0.1:0"]).output().unwrap();
    assert_refused(&output, 78, "https://127.0.0.1:0");
    let mut client = Command::new(env!("CARGO_BIN_EXE_falconet-client"));
    assert_refused(&client.arg("wss://localhost:1").output().unwrap(), 2, "wss://localhost:1");
}

#[cfg(not(feature = "full"))]
#[test]
fn packaging_output_and_systemd_sockets_are_refused() {
    for print in ["--print-default-config", "--print-man", "--print-completions", "--print-unit"] {
        let output = Falconet::command().args([print, "bash"]).output().unwrap();
        assert_refused(&output, 2, "feature `full`");
    }
    let output = Falconet::command().args(["--listen", "systemd"]).output().unwrap();
    assert_refused(&output, 1, "feature `full`");
}

#[cfg(not(feature = "full"))]
#[test]
fn tokens_from_systemd_are_refused() {
    let folder = std::env::temp_dir().join(format!("falconet-passed-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("tokens"), "secret\n").unwrap();
    let output = Falconet::command().env("CREDENTIALS_DIRECTORY", &folder).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_refused(&output, 78, "feature `full`");
}

#[cfg(not(feature = "full"))]
#[test]
fn no_warning_about_publishing_is_logged_without_topics() {
    let falconet = Falconet::start(&["--listen", "http://0.0.0.0:0", "--log-level", "debug"]);
    assert_eq!(fetch(falconet.address(), get("/")).status(), 200);
    falconet.wait_for_line("answered");
    assert!(!falconet.log_so_far().iter().any(|line| line.contains("publish")));
}

#[cfg(not(feature = "full"))]
#[test]
fn a_server_with_topics_does_not_start() {
    assert_lacks(Server::builder().topics().bind(&[] as &[ListenUrl]), Feature::Full);
    assert_lacks(Server::builder().files("/").bind(&[] as &[ListenUrl]), Feature::Full);
}

#[cfg(not(feature = "full"))]
#[test]
fn a_server_with_an_administrator_does_not_start() {
    let url = "http://127.0.0.1:0".parse().unwrap();
    assert_lacks(Server::builder().admin(url).bind(&[] as &[ListenUrl]), Feature::Full);
}

fn assert_lacks(bound: Result<Server, StartError>, feature: Feature) {
    match bound {
        Err(StartError::NotBuiltIn(lacking)) => assert_eq!(lacking.0, feature),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("the server started"),
    }
}

/// Checks that the program has ended with `code`, and that its error names the missing feature and the
/// option that needs it.
fn assert_refused(output: &Output, code: i32, name: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{name}: {text}");
    assert!(text.contains(name) && text.contains("the cargo feature `"), "{name}: {text}");
}
