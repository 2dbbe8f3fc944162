//! falconet-client and servers that require a token.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::client::*;
use crate::support::folder::Folder;
use crate::support::*;

/// A token that occurs nowhere else.
const MARKER: &str = "MARKER-77c1";

/// Starts a server with two tokens: the marker with all rights, and another that may only subscribe.
fn start(folder: &Folder) -> Falconet {
    let file = folder.write("tokens", &format!("# all\n{MARKER}\n{MARKER}-reader subscribe\n"));
    Falconet::start(&["--token-file", &file, "--broadcast-every", "0", "--retain", "5"])
}

/// Returns a command for the client with `arguments`, with the token in `FALCONET_TOKEN` or in a file.
fn command_for(
    falconet: &Falconet,
    arguments: &[&str],
    token: Option<&str>,
    file: Option<&str>,
) -> Command {
    let flags = file.map(|file| ["--token-file", file]);
    let mut command = client_command(arguments);
    command.args(flags.iter().flatten());
    match arguments.first() {
        Some(&("pub" | "sub")) => {
            command.args(["--server", &format!("http://{}", falconet.address())])
        }
        _ => command.arg(format!("ws://{}/", falconet.address())),
    };
    command.envs(token.map(|token| ("FALCONET_TOKEN", token))).stdin(Stdio::null());
    command
}

const MODES: &[&[&str]] =
    &[&[], &["pub", "news", "one"], &["sub", "news"], &["sub", "--sse", "news"]];

#[cfg(feature = "full")]
#[test]
fn the_client_sends_its_token_with_every_request() {
    let folder = Folder::new("client-tokens");
    let falconet = start(&folder);
    // The client accepts a token file of the server. A file takes precedence over the environment.
    let file = folder.write("mine", &format!("# mine\n{MARKER} all # and more\nother\n"));
    for (token, file) in [(Some(MARKER), None), (None, Some(&file)), (Some("none"), Some(&file))] {
        let file = file.map(String::as_str);
        let output = command_for(&falconet, &["pub", "news", "one"], token, file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        for way in [&["sub", "--last", "1", "news"][..], &["sub", "--sse", "--last", "1", "news"]] {
            let mut subscriber = PipedClient::spawn(command_for(&falconet, way, token, file));
            assert_eq!(subscriber.line(), "one\n");
            let pid = subscriber.child.id();
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            assert!(!String::from_utf8_lossy(&arguments).contains(MARKER));
            subscriber.signal(Signal::TERM);
            assert_eq!(exit_code(&mut subscriber.child), 0);
            assert_eq!(subscriber.finish(), (0, String::new(), String::new()));
        }
        let mut client = PipedClient::spawn(command_for(&falconet, &[], token, file));
        client.send("two\n");
        assert_eq!(client.line(), "two\n");
        assert_eq!(client.finish(), (0, String::new(), String::new()));
    }
}

#[cfg(feature = "full")]
#[test]
fn a_refused_client_reports_what_was_expected_but_no_token() {
    let folder = Folder::new("client-refused");
    let falconet = start(&folder);
    let wrong = format!("{MARKER}-wrong");
    let reader = format!("{MARKER}-reader");
    let file = folder.write("mine", &format!("{wrong}\n"));
    for (ways, token, file, expected) in [
        (
            MODES,
            None,
            None,
            "401 Unauthorized: authentication required; expected a token, with --token-file",
        ),
        (MODES, Some(""), None, "expected a token, with --token-file FILE or FALCONET_TOKEN"),
        (
            MODES,
            Some(&*wrong),
            None,
            "a token that the server accepts, unlike the one in FALCONET_TOKEN",
        ),
        (
            MODES,
            None,
            Some(&*file),
            "a token that the server accepts, unlike the one in --token-file /",
        ),
        (
            &MODES[1..2],
            Some(&*reader),
            None,
            "a token with the right to do this, unlike the one in FALCONET_TO",
        ),
    ] {
        for way in ways {
            let output = command_for(&falconet, way, token, file).output().unwrap();
            let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(1), "{way:?}: {printed}");
            assert!(printed.contains(expected), "{way:?}: {printed}");
            assert!(!printed.contains(MARKER) && !printed.contains("reconnecting"), "{printed}");
        }
    }
}

#[test]
fn a_missing_or_malformed_token_is_exit_code_2() {
    let folder = Folder::new("client-no-token");
    let falconet = Falconet::start(&[]);
    let empty = folder.write("empty", "\n# none\n");
    let wrong = folder.write("wrong", &format!("{MARKER}:{MARKER}\n"));
    let bad = format!("{MARKER} {MARKER}");
    for (token, file, expected) in [
        (None, Some("/nowhere/token"), "--token-file /nowhere/token: No such file"),
        (None, Some(&*empty), "contains no token: expected a file that begins with a token"),
        (None, Some(&*wrong), "is not a valid token: expected 1 to 4096 of A-Z"),
        (Some(&*bad), None, "FALCONET_TOKEN is not a valid token: expected 1 to 4096 of A-Z"),
    ] {
        for way in MODES {
            let output = command_for(&falconet, way, token, file).output().unwrap();
            let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(2), "{way:?}: {printed}");
            assert!(printed.contains(expected) && !printed.contains(MARKER), "{printed}");
        }
    }
}
