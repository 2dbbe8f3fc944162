//! A console client for WebSocket servers, which can also publish and subscribe to topics.
//!
//! ```text
//! falconet-client [OPTION...] [URL]          URL: ws(s)://HOST[:PORT][/PATH] or unix:PATH
//! printf 'a\nb\n' | falconet-client          prints a and b, and exits with 0
//! falconet-client pub NAME [MESSAGE|-]       publishes to a topic
//! falconet-client sub [--sse] NAME           prints the messages of a topic
//! ```
//!
//! In a terminal, each keystroke is sent as a text message: one character, or the whole of a pasted text.
//! Arrows and other keys that produce no character are not sent. ESC closes the connection with 1000 and
//! waits up to 10 s for the server's Close; then R reconnects, and any other key exits. A received message
//! of one character is printed at the cursor, a longer one on its own line. On a terminal, control
//! characters are escaped, and binary messages are printed in hexadecimal.
//!
//! If stdin is not a terminal, each line is a message (binary if it is not UTF-8), and each message received
//! is printed unchanged as a line on stdout. At the end of stdin the client sends the remaining messages,
//! closes with 1000, and prints messages until the server has answered the Close.
//!
//! After a connection is lost, refused, or closed with another code than 1000, the client reconnects. It
//! first waits for a random time below a ceiling that doubles from 0.5 s to 30 s. In a terminal it
//! reconnects by itself only if the connection was lost; otherwise R reconnects. It does not reconnect
//! after its own Close, or if the server refused the request permanently, for example with 404. A line is
//! read only when it can be sent, so a broken connection loses only the messages in transit: those that
//! the server had not read, and its answers. While stdout is blocked, the client does not read from the
//! server, which may then drop the client. A message is at most 16 MiB; a longer line ends the program.
//!
//! Over TLS (`wss://`, `https://`) the certificate of the server must be issued by an authority that this
//! host trusts, or by one in the file of `--ca FILE`. Otherwise the server is refused permanently;
//! `--insecure` accepts it with a warning.
//!
//! The token sent with each request is the first in the file of `--token-file FILE`, or else the variable
//! `FALCONET_TOKEN`. No option takes the token itself, because other users of this host can read
//! arguments. The token is never printed. A request that the server refuses because of its token is not
//! repeated.
//!
//! SIGINT, SIGTERM and SIGHUP close the connection with 1000; a second signal exits at once. In both cases
//! the terminal is restored.
//!
//! `pub` publishes the message, or each line of stdin, by successive HTTP requests over one connection. It
//! stops at the first message that the server refuses permanently. After a lost connection or a temporary
//! refusal, such as 429, 502 and 503, it sends the message again, after the same delays and at least that of
//! Retry-After: a single message for 30 s, a line until the server has accepted it. An accepted message is
//! neither lost nor sent again; one whose response was not received is sent again. Each message has a random
//! `Idempotency-Key`, so a server that accepted it publishes it once, unless the server was restarted in between
//! or five minutes have passed. `--retries N` limits the failures in a row, of `pub` as of all other commands.
//! `sub` never reads stdin. Over a WebSocket, messages published while `sub` is disconnected are missed; with
//! `--sse` it requests them when it has reconnected, which it does not before the time that the field `retry` of
//! the stream asks for.

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
mod chunks;
mod client;
mod connection;
mod follower;
#[cfg(test)]
mod fuzz;
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
        Ok(Command::Connect(options)) => connect(options),
        Ok(Command::Publish(publication)) => publish(publication),
        Ok(Command::Subscribe(options)) => {
            warn_if_insecure(&options.server.trust);
            run_client(None, |reactor, interrupts| {
                let input = Input::none(&reactor);
                Client::new(options, reactor, input, interrupts).run()
            })
        }
        Ok(Command::Follow(options)) => {
            warn_if_insecure(&options.server.trust);
            run_client(None, |reactor, interrupts| {
                Follower::new(options, reactor, interrupts).run()
            })
        }
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => print(concat!("falconet-client ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => fail(&error, WRONG_USAGE),
    }
}

fn connect(options: Options) -> ExitCode {
    warn_if_insecure(&options.server.trust);
    let raw_mode = match RawMode::enter(io::stdin()) {
        Ok(raw_mode) => raw_mode,
        Err(error) => return fail(&format!("can't read the terminal: {error}"), FAILURE),
    };
    run_client(raw_mode.as_ref(), |reactor, interrupts| {
        let input = match raw_mode {
            Some(_) => Input::keys(&reactor),
            None => Input::lines(&reactor),
        };
        Client::new(options, reactor, input, interrupts).run()
    })
}

/// Runs `client` until it ends by itself or by a signal. Returns the exit code of the program.
fn run_client<F: Future<Output = bool> + 'static>(
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
    warn_if_insecure(&publication.server.trust);
    match run(|reactor| publisher::publish(publication, reactor)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(reason)) => fail(&reason, FAILURE),
        Err(error) => fail(&format!("can't wait for events: {error}"), FAILURE),
    }
}

/// Runs the future that `program` returns until it completes.
fn run<T: 'static, F: Future<Output = T> + 'static>(
    program: impl FnOnce(Rc<Reactor>) -> F,
) -> io::Result<T> {
    let reactor = Reactor::new()?;
    let executor = LocalExecutor::new().leak();
    reactor.run(executor, executor.spawn(program(reactor.clone())))
}

/// Prints a warning if certificates are not verified.
fn warn_if_insecure(trust: &Trust) {
    if *trust == Trust::Any {
        let warning = "warning: --insecure: the identity of the server is not verified";
        let _ = writeln!(io::stderr(), "falconet-client: {warning}");
    }
}

/// Prints `text` to stdout. A closed stdout is not a failure.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints an error to stderr and returns the exit code.
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "falconet-client: {error}");
    code.into()
}

const FAILURE: u8 = 1;
const WRONG_USAGE: u8 = 2;
