//! The command line.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::Message;
use falconet::cli::{OptionsError, completions, manual, parse_time, show_time};
use falconet::net::Trust;
use falconet::{TopicName, TopicNameError};
use lexopt::Arg::{Long, Short, Value};
use lexopt::{Arg, Parser};

use crate::message;
use crate::token::{Token, TokenError};
use crate::url::{Url, UrlError};

/// A command of the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Exchange messages with a server.
    Connect(Options),
    /// Publish to a topic.
    Publish(Publication),
    /// Print the messages of a topic, received over a WebSocket.
    Subscribe(Options),
    /// Print the messages of a topic, received as server-sent events.
    Follow(Options),
    /// Print this text.
    Print(String),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// A server, with the settings of authentication in both directions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// The address of the server and the request target. Default: `ws://localhost:8080/`, or a topic on that
    /// server.
    pub(crate) url: Url,
    /// The certificate authorities trusted over TLS. Default: those that this host trusts.
    pub(crate) trust: Trust,
    /// The token sent with each request. Default: none.
    pub(crate) token: Option<Token>,
}

/// The settings of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The server.
    pub(crate) server: Server,
    /// The request target after the first connection; `None` is the same target. Default: `None`.
    pub(crate) next_target: Option<String>,
    /// The number of times in a row that the client reconnects after a connection that was refused or did not
    /// end normally; `None` is no limit. Default: `None`.
    pub(crate) retries: Option<u32>,
    /// The interval between two Pings to the server; `None` disables them. Default: 25 s.
    pub(crate) ping_every: Option<Duration>,
    /// The time without received bytes, or without progress in sending, after which a connection is lost;
    /// `None` is no limit. Default: 75 s.
    pub(crate) idle_timeout: Option<Duration>,
}

/// A message or messages to publish.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    /// The server, with the path of the topic as the request target.
    pub(crate) server: Server,
    /// The message; `None` publishes each line of stdin.
    pub(crate) message: Option<Message>,
    /// The number of times in a row that a message is sent again after a failure that may be temporary;
    /// `None` is no limit for lines of stdin, and 30 s for a single message. Default: `None`.
    pub(crate) retries: Option<u32>,
}

/// Parses the command line, without the program's name. A token on the command line overrides `token`, which
/// is the one in the environment.
///
/// # Errors
/// [`UsageError`], which says what is expected.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    token: Option<&OsStr>,
) -> Result<Command, UsageError> {
    let mut command = parse_command(arguments)?;
    if let Some(server) = command.server()
        && server.token.is_none()
    {
        server.token = Token::in_environment(token)?;
    }
    Ok(command)
}

fn parse_command(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut arguments = arguments.into_iter().peekable();
    let subcommand = arguments.next_if(|first| first == "pub" || first == "sub");
    let parser = Parser::from_args(arguments);
    match subcommand {
        None => parse_connection(parser),
        Some(name) if name == "pub" => parse_publication(parser),
        Some(_) => parse_subscription(parser),
    }
}

fn parse_connection(mut parser: Parser) -> Result<Command, UsageError> {
    let mut options = Options::new(DEFAULT_URL.parse()?);
    let (mut urls, mut seen) = (0, Vec::new());
    while let Some(argument) = parser.next()? {
        refuse_repeat(&mut seen, &argument)?;
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("ca") => options.server.trust_file(&mut parser)?,
            Long("insecure") => options.server.trust_any()?,
            Long("token-file") => options.server.read_token(&mut parser)?,
            Long("print-man") => return Ok(Command::Print(manual(HELP))),
            Long("print-completions") => {
                let shell = parser.value()?;
                return Ok(Command::Print(completions(&shell.to_string_lossy(), HELP)?));
            }
            Long("retries") => options.retries = Some(count("--retries", &mut parser)?),
            Long("no-reconnect") => options.retries = Some(0),
            Long("ping-every") => options.ping_every = time("--ping-every", &mut parser)?,
            Long("idle-timeout") => options.idle_timeout = time("--idle-timeout", &mut parser)?,
            Value(url) if urls == 0 => {
                options.server.url = url.to_string_lossy().parse()?;
                urls += 1;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    options.server.check_trust()?;
    options.check_times()?;
    Ok(Command::Connect(options))
}

fn parse_publication(mut parser: Parser) -> Result<Command, UsageError> {
    let mut server = Server::at(Url::of_server(DEFAULT_SERVER)?);
    let (mut topic, mut text, mut retries, mut seen) = (None, None, None, Vec::new());
    while let Some(argument) = parser.next()? {
        refuse_repeat(&mut seen, &argument)?;
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("server") => server.url = Url::of_server(&parser.value()?.to_string_lossy())?,
            Long("ca") => server.trust_file(&mut parser)?,
            Long("insecure") => server.trust_any()?,
            Long("token-file") => server.read_token(&mut parser)?,
            Long("retries") => retries = Some(count("--retries", &mut parser)?),
            Long("no-reconnect") => retries = Some(0),
            Value(name) if topic.is_none() => topic = Some(topic_name(&name)?),
            Value(value) if text.is_none() => text = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    server.check_trust()?;
    server.url.target = topic.ok_or_else(missing_topic)?.path();
    let text = text.filter(|text| text != "-");
    let message = text.map(|text| message::from_bytes(text.as_encoded_bytes()));
    Ok(Command::Publish(Publication { server, message, retries }))
}

fn parse_subscription(mut parser: Parser) -> Result<Command, UsageError> {
    let mut options = Options::new(Url::of_server(DEFAULT_SERVER)?);
    let (mut topic, mut last, mut is_sse, mut seen) = (None, None, false, Vec::new());
    while let Some(argument) = parser.next()? {
        refuse_repeat(&mut seen, &argument)?;
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("server") => {
                options.server.url = Url::of_server(&parser.value()?.to_string_lossy())?;
            }
            Long("ca") => options.server.trust_file(&mut parser)?,
            Long("insecure") => options.server.trust_any()?,
            Long("token-file") => options.server.read_token(&mut parser)?,
            Long("last") => last = Some(count("--last", &mut parser)?),
            Long("sse") => is_sse = true,
            Long("retries") => options.retries = Some(count("--retries", &mut parser)?),
            Long("no-reconnect") => options.retries = Some(0),
            Long("ping-every") => options.ping_every = time("--ping-every", &mut parser)?,
            Long("idle-timeout") => options.idle_timeout = time("--idle-timeout", &mut parser)?,
            Value(name) if topic.is_none() => topic = Some(topic_name(&name)?),
            other => return Err(other.unexpected().into()),
        }
    }
    options.server.check_trust()?;
    let path = topic.ok_or_else(missing_topic)?.path();
    let (target, separator) = match is_sse {
        true => (path, '?'),
        false => (path + "?mode=out", '&'),
    };
    let target_with = |last| format!("{target}{separator}last={last}");
    options.server.url.target = last.map_or_else(|| target.clone(), target_with);
    // An event stream is resumed by the id of its last event. A WebSocket has no ids.
    options.next_target = Some(if is_sse { target } else { target_with(0) });
    if is_sse {
        return Ok(Command::Follow(options));
    }
    options.check_times()?;
    Ok(Command::Subscribe(options))
}

impl Command {
    /// Returns the server that the command is for.
    fn server(&mut self) -> Option<&mut Server> {
        match self {
            Self::Connect(options) | Self::Subscribe(options) | Self::Follow(options) => {
                Some(&mut options.server)
            }
            Self::Publish(publication) => Some(&mut publication.server),
            Self::Help | Self::Version | Self::Print(_) => None,
        }
    }
}

impl Server {
    fn at(url: Url) -> Self {
        Self { url, trust: Trust::default(), token: None }
    }

    fn trust_file(&mut self, parser: &mut Parser) -> Result<(), UsageError> {
        let path = parser.value()?.into();
        if self.trust == Trust::Any {
            return Err(ca_and_insecure());
        }
        self.trust = Trust::File(path);
        Ok(())
    }

    fn trust_any(&mut self) -> Result<(), UsageError> {
        if let Trust::File(_) = self.trust {
            return Err(ca_and_insecure());
        }
        self.trust = Trust::Any;
        Ok(())
    }

    /// Refuses options of trust for a server without TLS.
    fn check_trust(&self) -> Result<(), UsageError> {
        let Self { url, trust, .. } = self;
        let option = match trust {
            Trust::System => return Ok(()),
            Trust::File(_) => "--ca",
            Trust::Any => "--insecure",
        };
        match url.address.tls_host() {
            Some(_) => Ok(()),
            None => {
                Err(UsageError(format!("{option}: expected a wss:// or https:// URL, not `{url}`")))
            }
        }
    }

    fn read_token(&mut self, parser: &mut Parser) -> Result<(), UsageError> {
        self.token = Some(Token::in_file(Path::new(&parser.value()?))?);
        Ok(())
    }
}

impl Options {
    fn new(url: Url) -> Self {
        Self {
            server: Server::at(url),
            next_target: None,
            retries: None,
            ping_every: Some(Duration::from_secs(25)),
            idle_timeout: Some(Duration::from_secs(75)),
        }
    }

    fn check_times(&self) -> Result<(), UsageError> {
        match (self.ping_every, self.idle_timeout) {
            (Some(ping), Some(idle)) if idle <= ping => Err(UsageError(format!(
                "--idle-timeout is {}: expected more than --ping-every, {}; otherwise the connection \
                 is lost before the server is pinged",
                show_time(Some(idle)),
                show_time(Some(ping)),
            ))),
            _ => Ok(()),
        }
    }
}

/// Refuses an option that is in `seen`, and adds it otherwise: no option can be repeated.
fn refuse_repeat(seen: &mut Vec<String>, argument: &Arg<'_>) -> Result<(), UsageError> {
    let Long(name) = argument else { return Ok(()) };
    // Both names set the same value.
    let other = match *name {
        "retries" => "no-reconnect",
        "no-reconnect" => "retries",
        _ => "",
    };
    if seen.iter().any(|seen| seen == other) {
        return Err(UsageError(format!("--{other} and --{name}: expected one of them")));
    }
    if seen.iter().any(|seen| seen == name) {
        return Err(UsageError(format!("--{name}: given more than once; expected it once")));
    }
    seen.push((*name).to_owned());
    Ok(())
}

fn ca_and_insecure() -> UsageError {
    UsageError("--ca and --insecure contradict each other: expected one of them".to_owned())
}

fn time(option: &str, parser: &mut Parser) -> Result<Option<Duration>, UsageError> {
    let value = parser.value()?;
    let text = value.to_string_lossy();
    let time = parse_time(&text).map_err(|expected| {
        UsageError(format!("{option} `{}`: {expected}", text.escape_debug()))
    })?;
    Ok(Some(time).filter(|time| !time.is_zero()))
}

fn count(option: &str, parser: &mut Parser) -> Result<u32, UsageError> {
    let value = parser.value()?;
    let text = value.to_string_lossy();
    text.parse().map_err(|_| {
        UsageError(format!("{option} `{}`: expected a count, such as 10", text.escape_debug()))
    })
}

fn topic_name(name: &OsStr) -> Result<TopicName, UsageError> {
    let is_utf_8 =
        |name: &OsStr| UsageError(format!("{name:?} is not a topic name: expected UTF-8"));
    Ok(TopicName::new(name.to_str().ok_or_else(|| is_utf_8(name))?)?)
}

fn missing_topic() -> UsageError {
    UsageError("expected NAME, the name of a topic".to_owned())
}

/// The error that the command line is invalid. `Display` writes one line for the user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(String);

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<OptionsError> for UsageError {
    fn from(error: OptionsError) -> Self {
        Self(error.to_string())
    }
}

impl From<TopicNameError> for UsageError {
    fn from(error: TopicNameError) -> Self {
        Self(error.to_string())
    }
}

impl From<TokenError> for UsageError {
    fn from(error: TokenError) -> Self {
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

/// The help of the program, also the source of its manual page and completions.
pub(crate) const HELP: &str = "\
falconet-client: a console client for WebSocket servers

Usage: falconet-client [OPTION...] [URL]
       falconet-client pub [--server URL] NAME [MESSAGE|-]
       falconet-client sub [--server URL] [OPTION...] NAME

URL is ws://HOST[:PORT][/PATH], the same with wss://, or unix:PATH
[default: ws://localhost:8080/].

In a terminal, each keystroke or pasted text is sent as a message. ESC closes
the connection; then R reconnects, and any other key exits. Without a terminal,
each line of stdin is sent as a message, and each received message is printed as
a line.

pub publishes MESSAGE, or each line of stdin, to the topic NAME of a falconet
server, and prints nothing if each is accepted at once. From cron, over a Unix
socket:
  falconet-client pub --server unix:/run/falconet.sock backups \"done\"

sub prints each message of the topic NAME as a line. For example, the last ten
messages and all that follow, including those published during a reconnect:
  falconet-client sub --sse --last 10 backups

Options:
  --ca FILE                trust certificates issued by those in FILE (PEM)
                           [default: by the authorities that this host trusts]
  --insecure               accept any certificate: the server is not verified
  --token-file FILE        send the first token in FILE with each request
                           [default: the variable FALCONET_TOKEN]
  --retries N              how often in a row to try again when the server is away
                           or refuses for now [default: for ever; with MESSAGE,
                           for 30 s]
  --no-reconnect           the same as --retries 0
  --ping-every TIME        how often to send the server a Ping; 0 = never
                           [default: 25s]
  --idle-timeout TIME      how long the server may be silent before the
                           connection is lost; 0 = no limit [default: 75s]
  --print-man              print the manual page, and exit
  --print-completions SHELL print completions for bash, zsh or fish, and exit
  -h, --help               print this help, and exit
  -V, --version            print the version, and exit

Options of pub and sub:
  --server URL             the server: http://HOST[:PORT], https://HOST[:PORT] or
                           unix:PATH
                           [default: http://localhost:8080]

Options of sub, besides those above:
  --last N                 begin with up to N messages that the server retains
                           [default: 1]
  --sse                    receive server-sent events, without Pings; after a
                           lost connection, continue where it broke

A TIME is a number with a unit, such as 250ms, 25s, 2m or 1h.
Exit codes: 0 the connection ended normally, or all was published; 1 failed;
2 wrong usage.
";
const DEFAULT_URL: &str = "ws://localhost:8080/";
const DEFAULT_SERVER: &str = "http://localhost:8080";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, UsageError> {
        parse(arguments.iter().map(OsString::from), None)
    }

    #[test]
    fn options_are_parsed_and_invalid_ones_are_refused() {
        let arguments = ["--no-reconnect", "--ping-every", "0", "--idle-timeout=9s", "ws://pi"];
        let Ok(Command::Connect(options)) = parsed(&arguments) else {
            panic!("the options are valid")
        };
        assert_eq!(options.retries, Some(0));
        assert_eq!(options.ping_every, None);
        assert_eq!(options.idle_timeout, Some(Duration::from_secs(9)));
        for (arguments, expected) in [
            (&["--ping-every", "5"][..], "--ping-every `5`: expected"),
            (&["--idle-timeout", "20s"], "more than --ping-every"),
            (&["ws://a", "ws://b"], "unexpected argument"),
            (&["--frobnicate"], "--frobnicate"),
            (&["localhost"], "`localhost` is not the URL of a server"),
            (&["--ca", "a.pem", "ws://pi"], "--ca: expected a wss://"),
            (&["--insecure"], "--insecure: expected a wss://"),
            (&["--ca", "a.pem", "--insecure", "wss://pi"], "expected one of them"),
            (&["pub", "--insecure", "a"], "--insecure: expected a wss://"),
            (&["sub", "--ca", "a.pem", "a"], "--ca: expected a wss://"),
            (&["--token-file", "/nowhere/token"], "--token-file /nowhere/token: "),
            (&["pub", "--token-file", "/nowhere/token", "a"], "--token-file /nowhere/token: "),
            (&["sub", "--token-file", "/nowhere/token", "a"], "--token-file /nowhere/token: "),
            (&["pub"], "expected NAME"),
            (&["pub", "a/../b"], "`a/../b` is not a topic name"),
            (&["sub", "home/+"], "`home/+` is not a topic name: expected 1 to 256 bytes"),
            (&["pub", "--server", "http://pi/x", "a"], "without a path"),
            (&["pub", "a", "b", "c"], "unexpected argument"),
            (&["pub", "--retries", "ever", "a"], "--retries `ever`: expected a count"),
            (&["sub", "--retries=-1", "a"], "--retries `-1`: expected a count"),
            (&["--retries"], "--retries"),
            (&["pub", "--sse", "a"], "--sse"),
            (&["sub"], "expected NAME"),
            (&["sub", "a", "b"], "unexpected argument"),
            (&["--idle-timeout", "90s", "--idle-timeout=80s"], "--idle-timeout: given more than"),
            (&["pub", "--server", "http://a", "--server", "http://b", "a"], "--server: given more"),
            (&["sub", "--last", "1", "a", "--last", "1"], "--last: given more than once"),
            (&["sub", "--sse", "a", "--sse"], "--sse: given more than once"),
            (
                &["pub", "--retries", "5", "--no-reconnect", "a"],
                "--retries and --no-reconnect: exp",
            ),
            (&["--no-reconnect", "--retries=5"], "--no-reconnect and --retries: expected one"),
            (&["sub", "--last", "-1", "a"], "--last `-1`: expected a count"),
            (&["sub", "--idle-timeout", "20s", "a"], "more than --ping-every"),
        ] {
            let error = parsed(arguments).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(parsed(&["-h"]), Ok(Command::Help));
        assert_eq!(parsed(&["sub", "--help"]), Ok(Command::Help));
        assert_eq!(parsed(&["--version"]), Ok(Command::Version));
    }

    #[test]
    fn the_retries_of_each_command_are_limited_by_one_option() {
        for (option, expected) in [
            (&[][..], None),
            (&["--retries", "5"], Some(5)),
            (&["--retries=0"], Some(0)),
            (&["--no-reconnect"], Some(0)),
        ] {
            for command in [&[][..], &["pub", "a"], &["sub", "a"], &["sub", "a", "--sse"]] {
                let retries = match parsed(&[command, option].concat()).unwrap() {
                    Command::Connect(options)
                    | Command::Subscribe(options)
                    | Command::Follow(options) => options.retries,
                    Command::Publish(publication) => publication.retries,
                    other => panic!("{other:?}"),
                };
                assert_eq!(retries, expected, "{command:?} {option:?}");
            }
        }
    }

    #[test]
    fn the_token_in_the_environment_is_used_only_without_a_token_file() {
        let token = || Some(OsStr::new("wrong\n"));
        for arguments in [&[][..], &["pub", "a"], &["sub", "a"], &["sub", "--sse", "a"]] {
            let error = parse(arguments.iter().map(OsString::from), token()).unwrap_err();
            assert!(
                error.to_string().starts_with("FALCONET_TOKEN is not a valid token"),
                "{error}"
            );
        }
        assert_eq!(parse(["--help".into()], token()), Ok(Command::Help));
        let other = concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE");
        assert!(parse(["--token-file".into(), other.into()], token()).is_ok());
    }

    #[test]
    fn a_publication_is_a_message_or_stdin() {
        for (arguments, expected) in [
            (&["pub", "a/b", "done"][..], Some(Message::text("done"))),
            (&["pub", "a/b", ""], Some(Message::text(""))),
            (&["pub", "--server=unix:/x", "a/b", "--", "-v"], Some(Message::text("-v"))),
            (&["pub", "a/b", "-"], None),
            (&["pub", "a/b"], None),
        ] {
            let Ok(Command::Publish(publication)) = parsed(arguments) else {
                panic!("{arguments:?} are valid")
            };
            assert_eq!(publication.server.url.target, "/topics/a/b");
            assert_eq!(publication.message, expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_subscription_requests_the_last_messages_only_on_its_first_connection() {
        for (arguments, first, next) in [
            (&["sub", "a"][..], "/topics/a?mode=out", "/topics/a?mode=out&last=0"),
            (
                &["sub", "a", "--last", "5"],
                "/topics/a?mode=out&last=5",
                "/topics/a?mode=out&last=0",
            ),
            (
                &["sub", "Living Room"],
                "/topics/Living%20Room?mode=out",
                "/topics/Living%20Room?mode=out&last=0",
            ),
            (&["sub", "--sse", "a,b?"], "/topics/a%2Cb%3F", "/topics/a%2Cb%3F"),
            (&["sub", "--sse", "a"], "/topics/a", "/topics/a"),
            (&["sub", "--sse", "--last=5", "a"], "/topics/a?last=5", "/topics/a"),
            (&["sub", "--sse", "--idle-timeout=9s", "a"], "/topics/a", "/topics/a"),
        ] {
            let is_sse = arguments.contains(&"--sse");
            let options = match parsed(arguments) {
                Ok(Command::Subscribe(options)) if !is_sse => options,
                Ok(Command::Follow(options)) if is_sse => options,
                other => panic!("{other:?}"),
            };
            assert_eq!(options.server.url.target, first);
            assert_eq!(options.next_target.as_deref(), Some(next));
        }
    }
}
