//! A console client for WebSocket servers (the article's, and more).
//!
//! ```text
//! falconet-client [OPTION...] [URL]          URL: ws(s)://HOST[:PORT][/PATH] or unix:PATH
//! printf 'a\nb\n' | falconet-client          prints a and b, and exits with 0
//! falconet-client pub NAME [MESSAGE|-]       publishes to a topic
//! falconet-client sub [--sse] NAME           prints what is published to it
//! ```
//!
//! In a terminal each keystroke is sent as a text message: a whole character, or all that is pasted at
//! once. Arrows and other keys that are no character are not sent. ESC closes with 1000 and waits up to
//! 10 s for the server's Close; then R reconnects and any other key exits. One character received is
//! printed where the cursor is, anything longer on its own line. On a terminal control characters are
//! escaped and binary is hex.
//!
//! When stdin is no terminal, each line is a message (a binary one if it is not UTF-8), and each message
//! received is a line on stdout, as it came. At the end of the input everything has been sent; the client
//! closes with 1000 and prints what comes until the server has answered.
//!
//! A connection that was lost, refused or closed with another code than 1000 is followed by another,
//! after a random time below a ceiling that doubles from 0.5 s to 30 s. (In a terminal only a lost one
//! is; otherwise R decides.) It is not after our own Close, nor when the server has declined for good,
//! with 404 for example. Lines are read only when they can be sent, so only what was under way when a
//! connection broke can be lost: what the server had not read, and its answers. A client whose stdout is
//! not read does not read the server, which may then give it up. Messages are at most 16 MiB; a longer
//! line ends the program.
//!
//! Over TLS (`wss://`, `https://`) a server must show a certificate that this host trusts, or that `--ca
//! FILE` vouches for. One that does not is refused for good; `--insecure` lets it pass with a warning.
//!
//! A server that asks who we are is shown a token with each request: the first one in the file of
//! `--token-file FILE`, else that in the variable `FALCONET_TOKEN`. It is never in an argument, which
//! other users of this host could read, and never shown. One that is not let in stays out: it is not tried again.
//!
//! SIGINT, SIGTERM and SIGHUP close with 1000, a second one exits at once; the terminal is given back
//! either way.
//!
//! `pub` publishes the message, or each line of stdin, by HTTP requests one after the other over one
//! connection, and stops at the first that is not accepted. What may have been accepted is not sent
//! again, with one exception told in `publisher.rs`. `sub` never reads stdin. Over a WebSocket what
//! is published while it is not connected is missed; with `--sse` it asks for it when it is again.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;

use falconet::net::{Reactor, Trust};
use smol::LocalExecutor;

use crate::client::Client;
use crate::follower::Follower;
use crate::input::Input;
use crate::interrupts::Interrupts;
use crate::options::{Command, HELP, Options, Publication};
use crate::terminal::RawMode;

mod backoff;
mod client;
mod connection;
mod follower;
mod handshake;
mod http;
mod input;
mod interrupts;
mod message;
mod options;
mod publisher;
mod response;
mod screen;
mod sse;
mod terminal;
mod token;
mod url;

fn main() -> ExitCode {
    let environment = std::env::var_os(token::VARIABLE);
    match options::parse(std::env::args_os().skip(1), environment.as_deref()) {
        Ok(Command::Talk(options)) => talk(options),
        Ok(Command::Publish(publication)) => publish(publication),
        Ok(Command::Subscribe(options)) => {
            warn_of(&options.server.trust);
            converse(None, |reactor, interrupts| {
                let input = Input::nothing(&reactor);
                Client::new(options, reactor, input, interrupts).run()
            })
        }
        Ok(Command::Follow(options)) => {
            warn_of(&options.server.trust);
            converse(None, |reactor, interrupts| Follower::new(options, reactor, interrupts).run())
        }
        Ok(Command::Print(text)) => say(&text),
        Ok(Command::Help) => say(HELP),
        Ok(Command::Version) => say(concat!("falconet-client ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => fail(&error, WRONG_USAGE),
    }
}

fn talk(options: Options) -> ExitCode {
    warn_of(&options.server.trust);
    let raw_mode = match RawMode::enter(io::stdin()) {
        Ok(raw_mode) => raw_mode,
        Err(error) => return fail(&format!("can't read the terminal: {error}"), FAILURE),
    };
    converse(raw_mode.as_ref(), |reactor, interrupts| {
        let input = match raw_mode {
            Some(_) => Input::keys(&reactor),
            None => Input::lines(&reactor),
        };
        Client::new(options, reactor, input, interrupts).run()
    })
}

/// Runs what talks to a server until it or a signal ends it, and says whether it ended as wished.
fn converse<F: Future<Output = bool> + 'static>(
    raw_mode: Option<&RawMode>,
    client: impl FnOnce(Rc<Reactor>, Interrupts) -> F,
) -> ExitCode {
    let interrupts = match Interrupts::listen(raw_mode, FAILURE) {
        Ok(interrupts) => interrupts,
        Err(error) => return fail(&format!("can't handle signals: {error}"), FAILURE),
    };
    match run(|reactor| client(reactor, interrupts)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => FAILURE.into(),
        Err(error) => fail(&format!("can't wait for events: {error}"), FAILURE),
    }
}

fn publish(publication: Publication) -> ExitCode {
    warn_of(&publication.server.trust);
    match run(|reactor| publisher::publish(publication, reactor)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(why)) => fail(&why, FAILURE),
        Err(error) => fail(&format!("can't wait for events: {error}"), FAILURE),
    }
}

/// Runs `program` to its end.
fn run<T: 'static, F: Future<Output = T> + 'static>(
    program: impl FnOnce(Rc<Reactor>) -> F,
) -> io::Result<T> {
    let reactor = Reactor::new()?;
    let executor = LocalExecutor::new().leak();
    reactor.run(executor, executor.spawn(program(reactor.clone())))
}

/// Says so if nobody knows with whom we will talk.
fn warn_of(trust: &Trust) {
    if *trust == Trust::Anybody {
        let warning = "warning: --insecure: anybody could be the server";
        let _ = writeln!(io::stderr(), "falconet-client: {warning}");
    }
}

/// Prints what was asked for; nobody reading it is no failure.
fn say(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "falconet-client: {error}");
    code.into()
}

const FAILURE: u8 = 1;
const WRONG_USAGE: u8 = 2;
