//! falconet-client and servers that ask who it is.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::client::*;
use crate::support::folder::Folder;
use crate::support::*;

/// A token that nothing else looks like.
const MARKER: &str = "MARKER-77c1";

/// A server that lets in who shows the marker, and to hear only who shows another token.
fn start(folder: &Folder) -> Falconet {
    let file = folder.write("tokens", &format!("# all\n{MARKER}\n{MARKER}-hears subscribe\n"));
    Falconet::start(&["--token-file", &file, "--broadcast-every", "0", "--retain", "5"])
}

/// What is asked of the server by each of the client's ways, with the token in `FALCONET_TOKEN` or a file.
fn asked(
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

const WAYS: &[&[&str]] =
    &[&[], &["pub", "news", "one"], &["sub", "news"], &["sub", "--sse", "news"]];

#[cfg(feature = "full")]
#[test]
fn the_client_shows_its_token_with_every_request() {
    let folder = Folder::new("client-tokens");
    let falconet = start(&folder);
    // A server's own file will do, and what is in a file goes before what is in the environment.
    let file = folder.write("mine", &format!("# mine\n{MARKER} all # and more\nother\n"));
    for (token, file) in [(Some(MARKER), None), (None, Some(&file)), (Some("none"), Some(&file))] {
        let file = file.map(String::as_str);
        let output = asked(&falconet, &["pub", "news", "one"], token, file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        for way in [&["sub", "--last", "1", "news"][..], &["sub", "--sse", "--last", "1", "news"]] {
            let mut subscriber = PipedClient::spawn(asked(&falconet, way, token, file));
            assert_eq!(subscriber.line(), "one\n");
            let pid = subscriber.child.id();
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            assert!(!String::from_utf8_lossy(&arguments).contains(MARKER));
            subscriber.signal(Signal::TERM);
            assert_eq!(exit_code(&mut subscriber.child), 0);
            assert_eq!(subscriber.finish(), (0, String::new(), String::new()));
        }
        let mut talker = PipedClient::spawn(asked(&falconet, &[], token, file));
        talker.send("two\n");
        assert_eq!(talker.line(), "two\n");
        assert_eq!(talker.finish(), (0, String::new(), String::new()));
    }
}

#[cfg(feature = "full")]
#[test]
fn a_client_that_is_not_let_in_says_what_would_be_right_and_no_token() {
    let folder = Folder::new("client-refused");
    let falconet = start(&folder);
    let wrong = format!("{MARKER}-wrong");
    let hears = format!("{MARKER}-hears");
    let file = folder.write("mine", &format!("{wrong}\n"));
    for (ways, token, file, expected) in [
        (WAYS, None, None, "401 Unauthorized: who are you?; expected a token, by --token-file"),
        (WAYS, Some(""), None, "expected a token, by --token-file FILE or FALCONET_TOKEN"),
        (WAYS, Some(&*wrong), None, "a token that the server knows, unlike that of FALCONET_TOKEN"),
        (WAYS, None, Some(&*file), "a token that the server knows, unlike that of --token-file /"),
        (&WAYS[1..2], Some(&*hears), None, "a token that may do this, unlike that of FALCONET_TO"),
    ] {
        for way in ways {
            let output = asked(&falconet, way, token, file).output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(1), "{way:?}: {said}");
            assert!(said.contains(expected), "{way:?}: {said}");
            assert!(!said.contains(MARKER) && !said.contains("reconnecting"), "{said}");
        }
    }
}

#[test]
fn without_a_token_where_one_should_be_the_client_does_not_begin() {
    let folder = Folder::new("client-no-token");
    let falconet = Falconet::start(&[]);
    let empty = folder.write("empty", "\n# none\n");
    let wrong = folder.write("wrong", &format!("{MARKER}:{MARKER}\n"));
    let bad = format!("{MARKER} {MARKER}");
    for (token, file, expected) in [
        (None, Some("/nowhere/token"), "--token-file /nowhere/token: No such file"),
        (None, Some(&*empty), "is empty: expected a file that begins with a token"),
        (None, Some(&*wrong), "is no token: expected 1 to 4096 of A-Z"),
        (Some(&*bad), None, "FALCONET_TOKEN is no token: expected 1 to 4096 of A-Z"),
    ] {
        for way in WAYS {
            let output = asked(&falconet, way, token, file).output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(2), "{way:?}: {said}");
            assert!(said.contains(expected) && !said.contains(MARKER), "{said}");
        }
    }
}
