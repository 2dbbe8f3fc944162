//! What the command line says.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use falconet::cli::parse_time;
use lexopt::Arg::{Long, Short, Value};

use crate::url::{Url, UrlError};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Talk to a server.
    Talk(Options),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// How to talk to which server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The server. Default `ws://localhost:8080/`.
    pub(crate) url: Url,
    /// Whether a connection that ended otherwise than wished is followed by another. Default true.
    pub(crate) reconnect: bool,
    /// How often to phone home with a Ping; `None` is never. Default 25 s.
    pub(crate) ping_every: Option<Duration>,
    /// How long nothing may come from the server, or be taken by it, before the connection is
    /// lost; `None` is for ever. Default 75 s.
    pub(crate) idle_timeout: Option<Duration>,
}

/// Reads the command line, without the program's name.
///
/// # Errors
/// [`UsageError`], which says what would be right.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut options = Options {
        url: DEFAULT_URL.parse()?,
        reconnect: true,
        ping_every: Some(Duration::from_secs(25)),
        idle_timeout: Some(Duration::from_secs(75)),
    };
    let mut urls = 0;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("no-reconnect") => options.reconnect = false,
            Long("ping-every") => options.ping_every = time("--ping-every", &parser.value()?)?,
            Long("idle-timeout") => {
                options.idle_timeout = time("--idle-timeout", &parser.value()?)?;
            }
            Value(url) if urls == 0 => {
                options.url = url.to_string_lossy().parse()?;
                urls += 1;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if let (Some(ping), Some(idle)) = (options.ping_every, options.idle_timeout)
        && idle <= ping
    {
        return Err(UsageError(format!(
            "--idle-timeout is {idle:?}: expected more than --ping-every, {ping:?}, or the server \
             is given up before it is asked for a sign of life"
        )));
    }
    Ok(Command::Talk(options))
}

fn time(option: &str, value: &OsString) -> Result<Option<Duration>, UsageError> {
    let text = value.to_string_lossy();
    let time = parse_time(&text).map_err(|expected| {
        UsageError(format!("{option} `{}`: {expected}", text.escape_debug()))
    })?;
    Ok(Some(time).filter(|time| !time.is_zero()))
}

/// What is wrong with the command line; `Display` is a line for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(String);

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<UrlError> for UsageError {
    fn from(error: UrlError) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

pub(crate) const HELP: &str = "\
falconet-client: a console client for WebSocket servers

Usage: falconet-client [OPTION...] [URL]

URL is ws://HOST[:PORT][/PATH] or unix:PATH [default: ws://localhost:8080/].

In a terminal each keystroke is a message, and so is a paste. ESC closes the
connection; then R reconnects, and any other key exits. Otherwise each line of
stdin is a message, and each message received a line of stdout.

Options:
  --no-reconnect           do not reconnect when the connection is lost
  --ping-every TIME        how often to send the server a Ping; 0 = never
                           [default: 25s]
  --idle-timeout TIME      how long the server may be silent before the
                           connection is lost; 0 = for ever [default: 75s]
  -h, --help               print this, and exit
  -V, --version            print the version, and exit

Times are like 250ms, 25s, 2m, 1h.
Exit codes: 0 the connection ended as wished, 1 it did not, 2 wrong usage.
";
const DEFAULT_URL: &str = "ws://localhost:8080/";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, UsageError> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let arguments = ["--no-reconnect", "--ping-every", "0", "--idle-timeout=9s", "ws://pi"];
        let Ok(Command::Talk(options)) = parsed(&arguments) else { panic!("that is right") };
        assert!(!options.reconnect);
        assert_eq!(options.ping_every, None);
        assert_eq!(options.idle_timeout, Some(Duration::from_secs(9)));
        for (arguments, expected) in [
            (&["--ping-every", "5"][..], "--ping-every `5`: expected"),
            (&["--idle-timeout", "20s"], "more than --ping-every"),
            (&["ws://a", "ws://b"], "unexpected argument"),
            (&["--frobnicate"], "--frobnicate"),
            (&["localhost"], "`localhost` is no server's URL"),
        ] {
            let error = parsed(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(parsed(&["-h"]), Ok(Command::Help));
        assert_eq!(parsed(&["--version"]), Ok(Command::Version));
    }
}
