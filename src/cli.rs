//! The options: one table that flags, environment, file and help all read.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use crate::access::{Origins, TokenFile, TrustedProxies, TrustedProxyError};
use crate::admin;
use crate::config::{Certificate, Config, Reject, SlowConsumer};
use crate::hub::TopicName;
use crate::log::LogFormat;
use crate::net::{self, Acceptor, ListenUrl};

/// Everything the command line, the environment and the file can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to listen. Default `http://localhost:8080`.
    pub listen: Vec<ListenUrl>,
    /// Where the administrator looks after the server. Default nowhere.
    pub admin: Option<ListenUrl>,
    /// The topic that the lines of the standard input are published to. Default none.
    pub stdin: Option<TopicName>,
    /// What ends a line of it. Default a line feed.
    pub stdin_separator: u8,
    /// Whether its end stops the server. Default false.
    pub exit_on_eof: bool,
    /// The directory whose files are served. Default none.
    pub static_files: Option<PathBuf>,
    /// The file of the certificate, and those of who signed it. Default none.
    pub tls_cert: Option<PathBuf>,
    /// The file of its private key. Default none.
    pub tls_key: Option<PathBuf>,
    /// Whether the server signs a certificate for itself. Default false.
    pub tls_self_signed: bool,
    /// The directory for what outlasts the server. Default none.
    pub state_dir: Option<PathBuf>,
    /// How often the time is broadcast; `None` is never. Default 15 s (article).
    pub broadcast_every: Option<Duration>,
    /// The file of the tokens that let in. Default none; or `tokens` among the credentials that systemd
    /// passes, if it does.
    pub token_file: Option<PathBuf>,
    /// Whether a token may come in a URL. Default false.
    pub allow_query_token: bool,
    /// The other origins whose pages may talk to the server. Default none.
    pub origins: Origins,
    /// The proxies that are believed when they say for whom they ask. Default none.
    pub trusted_proxies: TrustedProxies,
    /// What the server is told.
    pub config: Config,
    /// How much is logged. Default info.
    pub log_level: LevelFilter,
    /// How log lines look. Default text.
    pub log_format: LogFormat,
}

impl Default for Options {
    fn default() -> Self {
        let localhost = ListenUrl::Http { host: "localhost".to_owned(), port: 8080 };
        Self {
            listen: vec![localhost],
            admin: None,
            stdin: None,
            stdin_separator: b'\n',
            exit_on_eof: false,
            static_files: None,
            tls_cert: None,
            tls_key: None,
            tls_self_signed: false,
            state_dir: None,
            broadcast_every: Some(Duration::from_secs(15)),
            token_file: None,
            allow_query_token: false,
            origins: Origins::default(),
            trusted_proxies: TrustedProxies::default(),
            config: Config::default(),
            log_level: LevelFilter::Info,
            log_format: LogFormat::default(),
        }
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve(Box<Options>),
    /// Say that the configuration is good.
    CheckConfig,
    /// Print the effective configuration, as a file `--config` reads.
    PrintConfig(Box<Options>),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// One line of the option table.
pub struct OptionSpec {
    /// The name: `--NAME`, `FALCONET_NAME`, or `NAME = value`.
    pub name: &'static str,
    /// What stands for the value in the help; empty for a switch, which is `true` or `false` elsewhere.
    pub value: &'static str,
    /// What it does, in a few words.
    pub help: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
    show: fn(&Options) -> String,
}

impl OptionSpec {
    /// The default, as one would write it; `none` if there is none.
    pub fn default(&self) -> String {
        Some((self.show)(&Options::default()))
            .filter(|text| !text.is_empty())
            .unwrap_or("none".into())
    }

    /// The flag, with what stands for its value.
    pub fn flag(&self) -> String {
        format!("--{} {}", self.name, self.value).trim_end().to_owned()
    }
}

/// Every option that has a value and a place in the configuration.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "listen",
        value: "URL",
        help: "where to listen: http://HOST:PORT, https://HOST:PORT or unix:PATH; may be repeated",
        set: |options, text| {
            options.listen.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        },
        show: |options| {
            options.listen.iter().map(ListenUrl::to_string).collect::<Vec<_>>().join(" ")
        },
    },
    OptionSpec {
        name: "admin",
        value: "URL",
        help: "where to look after the server: unix:PATH, or http://HOST:PORT on loopback or with tokens",
        set: |options, text| {
            options.admin = Some(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        },
        show: |options| options.admin.as_ref().map(ListenUrl::to_string).unwrap_or_default(),
    },
    OptionSpec {
        name: "stdin",
        value: "NAME",
        help: "publish each line of the standard input to this topic",
        set: |options, text| {
            options.stdin = Some(TopicName::new(text).map_err(|error| error.to_string())?);
            Ok(())
        },
        show: |options| options.stdin.as_ref().map(TopicName::to_string).unwrap_or_default(),
    },
    OptionSpec {
        name: "stdin-separator",
        value: "BYTE",
        help: "what ends a line of the standard input: newline or nul",
        set: |options, text| set_choice(&mut options.stdin_separator, SEPARATORS, text),
        show: |options| show_choice(&options.stdin_separator, SEPARATORS),
    },
    OptionSpec {
        name: "exit-on-eof",
        value: "",
        help: "stop at the end of the standard input",
        set: |options, text| set_choice(&mut options.exit_on_eof, SWITCHES, text),
        show: |options| show_choice(&options.exit_on_eof, SWITCHES),
    },
    OptionSpec {
        name: "static",
        value: "DIR",
        help: "serve the files of this directory, before the page",
        set: |options, text| set_path(&mut options.static_files, text),
        show: |options| show_path(&options.static_files),
    },
    OptionSpec {
        name: "tls-cert",
        value: "FILE",
        help: "the certificate of https:// in PEM, and after it those of who signed it",
        set: |options, text| set_path(&mut options.tls_cert, text),
        show: |options| show_path(&options.tls_cert),
    },
    OptionSpec {
        name: "tls-key",
        value: "FILE",
        help: "its private key in PEM: PKCS#8, PKCS#1 or SEC1",
        set: |options, text| set_path(&mut options.tls_key, text),
        show: |options| show_path(&options.tls_key),
    },
    OptionSpec {
        name: "tls-self-signed",
        value: "",
        help: "sign a certificate for this host, and log its fingerprint",
        set: |options, text| set_choice(&mut options.tls_self_signed, SWITCHES, text),
        show: |options| show_choice(&options.tls_self_signed, SWITCHES),
    },
    OptionSpec {
        name: "state-dir",
        value: "DIR",
        help: "keep that certificate in this directory, and use it again",
        set: |options, text| set_path(&mut options.state_dir, text),
        show: |options| show_path(&options.state_dir),
    },
    OptionSpec {
        name: "broadcast-every",
        value: "TIME",
        help: "how often the server time is sent to everybody; 0 = never",
        set: |options, text| set_time(&mut options.broadcast_every, text),
        show: |options| show_time(options.broadcast_every),
    },
    OptionSpec {
        name: "ping-every",
        value: "TIME",
        help: "how long a client may be silent before it is pinged; 0 = for ever",
        set: |options, text| set_time(&mut options.config.timeouts.ping_every, text),
        show: |options| show_time(options.config.timeouts.ping_every),
    },
    OptionSpec {
        name: "idle-timeout",
        value: "TIME",
        help: "how long a client may be silent before it is dropped; 0 = for ever",
        set: |options, text| set_time(&mut options.config.timeouts.idle, text),
        show: |options| show_time(options.config.timeouts.idle),
    },
    OptionSpec {
        name: "head-timeout",
        value: "TIME",
        help: "how long a peer may take over its request head; 0 = for ever",
        set: |options, text| set_time(&mut options.config.timeouts.head, text),
        show: |options| show_time(options.config.timeouts.head),
    },
    OptionSpec {
        name: "tls-timeout",
        value: "TIME",
        help: "how long a peer may take over TLS handshake and request head; 0 = for ever",
        set: |options, text| set_time(&mut options.config.timeouts.tls_head, text),
        show: |options| show_time(options.config.timeouts.tls_head),
    },
    OptionSpec {
        name: "keep-alive",
        value: "TIME",
        help: "how long a connection may rest between two requests; 0 = one request each",
        set: |options, text| set_time(&mut options.config.timeouts.keep_alive, text),
        show: |options| show_time(options.config.timeouts.keep_alive),
    },
    OptionSpec {
        name: "write-timeout",
        value: "TIME",
        help: "how long one write may be blocked by a peer that does not read; 0 = for ever",
        set: |options, text| set_time(&mut options.config.timeouts.write, text),
        show: |options| show_time(options.config.timeouts.write),
    },
    OptionSpec {
        name: "close-timeout",
        value: "TIME",
        help: "how long the server waits for its clients when it stops",
        set: |options, text| {
            options.config.timeouts.drain = parse_time(text)?;
            Ok(())
        },
        show: |options| show_time(Some(options.config.timeouts.drain)),
    },
    OptionSpec {
        name: "max-message",
        value: "SIZE",
        help: "the largest message accepted",
        set: |options, text| set_size(&mut options.config.limits.message_bytes, text, 1..=1 << 30),
        show: |options| show_size(options.config.limits.message_bytes),
    },
    OptionSpec {
        name: "max-head",
        value: "SIZE",
        help: "the largest request head accepted",
        set: |options, text| set_size(&mut options.config.limits.head_bytes, text, 256..=1 << 20),
        show: |options| show_size(options.config.limits.head_bytes),
    },
    OptionSpec {
        name: "max-connections",
        value: "COUNT",
        help: "how many connections may be open, if the limit of open files allows it",
        set: |options, text| set_count(&mut options.config.limits.connections, text, 1..=1_000_000),
        show: |options| options.config.limits.connections.to_string(),
    },
    OptionSpec {
        name: "max-per-address",
        value: "COUNT",
        help: "how many of these one other host may hold; 0 = an eighth",
        set: |options, text| set_optional(&mut options.config.limits.per_address, text),
        show: |options| show_optional(options.config.limits.per_address),
    },
    OptionSpec {
        name: "max-publish-rate",
        value: "COUNT",
        help: "how many messages a second one other host, or one connection, may publish by HTTP; 0 = any",
        set: |options, text| set_optional(&mut options.config.limits.publish_rate, text),
        show: |options| show_optional(options.config.limits.publish_rate),
    },
    OptionSpec {
        name: "max-message-rate",
        value: "COUNT",
        help: "how many messages a second of one WebSocket client are read; 0 = any",
        set: |options, text| set_optional(&mut options.config.limits.message_rate, text),
        show: |options| show_optional(options.config.limits.message_rate),
    },
    OptionSpec {
        name: "max-topics",
        value: "COUNT",
        help: "how many topics there may be",
        set: |options, text| set_count(&mut options.config.topics.count, text, 1..=1_000_000),
        show: |options| options.config.topics.count.to_string(),
    },
    OptionSpec {
        name: "retain",
        value: "COUNT",
        help: "how many messages a topic keeps for who comes later",
        set: |options, text| {
            set_count(&mut options.config.topics.retain_messages, text, 0..=1_000_000)
        },
        show: |options| options.config.topics.retain_messages.to_string(),
    },
    OptionSpec {
        name: "retain-bytes",
        value: "SIZE",
        help: "how much they may be together; the newest is kept whatever its size",
        set: |options, text| set_size(&mut options.config.topics.retain_bytes, text, 1..=1 << 30),
        show: |options| show_size(options.config.topics.retain_bytes),
    },
    OptionSpec {
        name: "log-messages",
        value: "COUNT",
        help: "how many messages a subscriber may be behind",
        set: |options, text| {
            set_count(&mut options.config.topics.log_messages, text, 1..=1_000_000)
        },
        show: |options| options.config.topics.log_messages.to_string(),
    },
    OptionSpec {
        name: "log-bytes",
        value: "SIZE",
        help: "how much a subscriber may be behind",
        set: |options, text| set_size(&mut options.config.topics.log_bytes, text, 1..=1 << 30),
        show: |options| show_size(options.config.topics.log_bytes),
    },
    OptionSpec {
        name: "log-total",
        value: "SIZE",
        help: "how much the messages of all topics may be together",
        set: |options, text| set_size(&mut options.config.topics.total_bytes, text, 1..=1 << 30),
        show: |options| show_size(options.config.topics.total_bytes),
    },
    OptionSpec {
        name: "slow-consumer",
        value: "HOW",
        help: "a subscriber that is further behind: skip (it misses messages) or close (with 1008)",
        set: |options, text| {
            set_choice(&mut options.config.topics.slow_consumer, SLOW_CONSUMERS, text)
        },
        show: |options| show_choice(&options.config.topics.slow_consumer, SLOW_CONSUMERS),
    },
    OptionSpec {
        name: "token-file",
        value: "FILE",
        help: "let in who has a token: lines of TOKEN [RIGHT] [TOPIC]",
        set: |options, text| {
            options.token_file = Some(text.into());
            Ok(())
        },
        show: |options| {
            options.token_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default()
        },
    },
    OptionSpec {
        name: "allow-query-token",
        value: "",
        help: "let a token come in the URL, as ?token=",
        set: |options, text| set_choice(&mut options.allow_query_token, SWITCHES, text),
        show: |options| show_choice(&options.allow_query_token, SWITCHES),
    },
    OptionSpec {
        name: "origin",
        value: "URL",
        help: "let pages of this origin in, beside our own; or any; may be repeated",
        set: |options, text| options.origins.add(text).map_err(|error| error.to_string()),
        show: |options| options.origins.to_string(),
    },
    OptionSpec {
        name: "trust-proxy",
        value: "PEER",
        help: "believe whom this address or network, or unix, asks for; may be repeated",
        set: |options, text| {
            options
                .trusted_proxies
                .add(text.parse().map_err(|e: TrustedProxyError| e.to_string())?);
            Ok(())
        },
        show: |options| options.trusted_proxies.to_string(),
    },
    OptionSpec {
        name: "proxy-protocol",
        value: "",
        help: "have trusted proxies say it by the PROXY protocol, or be dropped",
        set: |options, text| {
            set_choice(&mut options.trusted_proxies.proxy_protocol, SWITCHES, text)
        },
        show: |options| show_choice(&options.trusted_proxies.proxy_protocol, SWITCHES),
    },
    OptionSpec {
        name: "reject",
        value: "HOW",
        help: "what a refused request gets: respond (a short answer) or drop (nothing)",
        set: |options, text| set_choice(&mut options.config.reject, REJECTS, text),
        show: |options| show_choice(&options.config.reject, REJECTS),
    },
    OptionSpec {
        name: "log-level",
        value: "LEVEL",
        help: "off, error, warn, info, debug or trace",
        set: |options, text| set_choice(&mut options.log_level, LOG_LEVELS, text),
        show: |options| show_choice(&options.log_level, LOG_LEVELS),
    },
    OptionSpec {
        name: "log-format",
        value: "FORMAT",
        help: "text, logfmt or json",
        set: |options, text| set_choice(&mut options.log_format, LOG_FORMATS, text),
        show: |options| show_choice(&options.log_format, LOG_FORMATS),
    },
];

/// Reads the command line (without the program's name), the environment and the file they name. Flags
/// beat the environment, which beats the file.
///
/// # Errors
/// [`OptionsError`], which names the option, its value and what would be right.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, OptionsError> {
    let flags = Flags::parse(arguments)?;
    if let Some(command) = flags.information {
        return Ok(command);
    }
    let mut options = Options::default();
    let file = flags.config.or_else(|| environment("FALCONET_CONFIG"));
    if let Some(path) = file {
        apply(&mut options, read_file(Path::new(&path))?)?;
    }
    apply(&mut options, read_environment(&environment)?)?;
    apply(&mut options, flags.settings)?;
    if options.token_file.is_none() {
        options.token_file = passed_tokens(environment)?;
    }
    check(&options)?;
    options.config.tls.certificate = check_tls(&options)?;
    let options = Box::new(options);
    Ok(match flags.action {
        Action::Serve => Command::Serve(options),
        Action::CheckConfig => Command::CheckConfig,
        Action::PrintConfig => Command::PrintConfig(options),
    })
}

/// The help, with every option and its default.
pub fn help() -> String {
    let mut text = String::from(HELP_HEAD);
    for option in OPTIONS {
        let (flag, default) = (option.flag(), option.default());
        text += &format!("  {flag:<24} {}\n{:27}[default: {default}]\n", option.help, "");
    }
    text + HELP_TAIL
}

/// The configuration as a file `--config` reads.
pub fn print_config(options: &Options) -> String {
    let line = |option: &OptionSpec| match option.name {
        "listen" => options.listen.iter().map(|url| format!("listen = {url}\n")).collect(),
        name if REPEATED.contains(&name) => {
            let values = (option.show)(options);
            values.split(' ').filter(|v| !v.is_empty()).map(|v| format!("{name} = {v}\n")).collect()
        }
        name => match (option.show)(options) {
            unset if unset.is_empty() => String::new(),
            value => format!("{name} = {value}\n"),
        },
    };
    OPTIONS.iter().map(line).collect()
}

/// A value for an option, and where it came from.
struct Setting {
    option: &'static OptionSpec,
    value: String,
    origin: Origin,
}

/// Where a value came from; the message names it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    File { path: String, line: usize },
}

enum Action {
    Serve,
    CheckConfig,
    PrintConfig,
}

struct Flags {
    information: Option<Command>,
    action: Action,
    config: Option<OsString>,
    settings: Vec<Setting>,
}

impl Flags {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        use lexopt::Arg::{Long, Short};
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut flags =
            Self { information: None, action: Action::Serve, config: None, settings: Vec::new() };
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => flags.information = Some(Command::Help),
                Short('V') | Long("version") => flags.information = Some(Command::Version),
                Long("check-config") => flags.action = Action::CheckConfig,
                Long("print-config") => flags.action = Action::PrintConfig,
                Long("config") => flags.config = Some(parser.value()?),
                Long(name) => {
                    let Some(option) = find(name) else { return Err(argument.unexpected().into()) };
                    let value = match option.value {
                        "" => "true".to_owned(),
                        _ => parser.value()?.to_string_lossy().into_owned(),
                    };
                    flags.settings.push(Setting { option, value, origin: Origin::Flag });
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(flags)
    }
}

fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.name == name)
}

fn read_environment(
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Setting>, OptionsError> {
    let mut settings = Vec::new();
    for option in OPTIONS {
        let name = format!("FALCONET_{}", option.name.to_ascii_uppercase().replace('-', "_"));
        let Some(value) = environment(&name) else { continue };
        let value = value.to_string_lossy().into_owned();
        // A path with a space is for a flag or the file.
        let several = value.split_whitespace().filter(|_| REPEATED.contains(&option.name));
        let values: Vec<String> = several.map(str::to_owned).collect();
        let values = if values.is_empty() { vec![value] } else { values };
        let setting = |value| Setting { option, value, origin: Origin::Environment };
        settings.extend(values.into_iter().map(setting));
    }
    Ok(settings)
}

fn read_file(path: &Path) -> Result<Vec<Setting>, OptionsError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| OptionsError::Config(format!("can't read the file {name}: {error}")))?;
    let mut settings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: String| OptionsError::Config(format!("{name}:{}: {what}", index + 1));
        let Some((key, value)) = line.split_once('=') else {
            return Err(wrong(no_setting(line)));
        };
        let (key, value) = (key.trim(), value.trim().to_owned());
        let option = find(key).ok_or_else(|| wrong(no_option(key)))?;
        let origin = Origin::File { path: name.clone(), line: index + 1 };
        settings.push(Setting { option, value, origin });
    }
    Ok(settings)
}

/// What is wrong with a line that sets nothing. Of the line it has no more than the name of an option: the
/// file may be one of tokens, given by mistake.
fn no_setting(line: &str) -> String {
    let first = line.split([' ', '\t', ':']).next().and_then(find);
    let name = first.map_or_else(String::new, |option| format!("{}: ", option.name));
    format!("{name}expected `name = value`")
}

/// What is wrong with a name that no option has. It is quoted only where it could be the name of one.
fn no_option(key: &str) -> String {
    match key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        true => format!("no option is called `{key}`"),
        false => "no option is called what is before the `=`: expected `name = value`".to_owned(),
    }
}

/// The tokens that systemd passes (systemd.exec(5), LoadCredential=).
///
/// # Errors
/// Why nobody knows whether it passes some: without tokens there would be a server that lets anybody read.
fn passed_tokens(
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<PathBuf>, OptionsError> {
    let Some(directory) = environment("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    let file = Path::new(&directory).join("tokens");
    // One that can't be read is found out when it is read.
    match std::fs::symlink_metadata(&file) {
        Ok(_) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OptionsError::Config(format!(
            "can't look for the tokens in {}: {error}",
            file.display()
        ))),
    }
}

/// Sets what one source says. What may be repeated replaces that of lesser sources.
fn apply(options: &mut Options, settings: Vec<Setting>) -> Result<(), OptionsError> {
    for setting in &settings {
        match setting.option.name {
            "listen" => options.listen.clear(),
            "origin" => options.origins = Origins::default(),
            "trust-proxy" => options.trusted_proxies.clear(),
            _ => {}
        }
    }
    for Setting { option, value, origin } in settings {
        (option.set)(options, &value).map_err(|expected| {
            let (name, value) = (option.name, value.escape_debug());
            match origin {
                Origin::Flag => OptionsError::Usage(format!("--{name} `{value}`: {expected}")),
                Origin::Environment => {
                    let name = name.to_ascii_uppercase().replace('-', "_");
                    OptionsError::Config(format!("FALCONET_{name} `{value}`: {expected}"))
                }
                Origin::File { path, line } => {
                    OptionsError::Config(format!("{path}:{line}: {name} `{value}`: {expected}"))
                }
            }
        })?;
    }
    Ok(())
}

/// What no option can know alone.
fn check(options: &Options) -> Result<(), OptionsError> {
    let timeouts = &options.config.timeouts;
    if let (Some(ping), Some(idle)) = (timeouts.ping_every, timeouts.idle)
        && idle <= ping
    {
        return Err(OptionsError::Config(format!(
            "idle-timeout `{}`: expected more than ping-every `{}`, or clients are dropped before \
             they are asked for a sign of life",
            show_time(Some(idle)),
            show_time(Some(ping)),
        )));
    }
    if options.exit_on_eof && options.stdin.is_none() {
        let text = "exit-on-eof `true`: expected stdin as well, which says what is read";
        return Err(OptionsError::Config(text.to_owned()));
    }
    if let Some(url) = options.listen.iter().find(|url| url.tls_host().is_some())
        && options.trusted_proxies.proxy_protocol
    {
        return Err(OptionsError::Config(format!(
            "listen `{url}`: expected http:// or unix: with proxy-protocol, which is not understood \
             before a TLS handshake"
        )));
    }
    if let Some(url) = &options.admin
        && options.token_file.is_none()
        && matches!(admin::may_listen_at(url), Ok(false))
    {
        return Err(OptionsError::Config(format!(
            "admin `{url}`: expected unix:PATH or a loopback address, or token-file as well, since \
             others could come there"
        )));
    }
    if let Some(file) = &options.token_file
        && let Err(error) = TokenFile::open(file)
    {
        let file = file.display();
        return Err(OptionsError::Config(format!("token-file `{file}`: {error}")));
    }
    if options.allow_query_token && options.token_file.is_none() {
        let text = "allow-query-token `true`: expected token-file as well, which has the tokens";
        return Err(OptionsError::Config(text.to_owned()));
    }
    if options.trusted_proxies.proxy_protocol && options.trusted_proxies.is_empty() {
        let text = "proxy-protocol `true`: expected trust-proxy as well, which says whose";
        return Err(OptionsError::Config(text.to_owned()));
    }
    if let Some(dir) = &options.static_files
        && let Err(error) = std::fs::read_dir(dir)
    {
        return Err(OptionsError::Config(format!(
            "static `{}`: expected a directory that can be read: {error}",
            dir.display()
        )));
    }
    Ok(())
}

/// What is said of TLS: where its certificate comes from, if it is spoken.
fn check_tls(options: &Options) -> Result<Option<Certificate>, OptionsError> {
    let mut urls = options.listen.iter().chain(&options.admin);
    let listens = urls.find(|url| url.tls_host().is_some());
    let said = [
        ("listen", listens.map(ListenUrl::to_string)),
        ("tls-cert", options.tls_cert.as_ref().map(|path| path.display().to_string())),
        ("tls-key", options.tls_key.as_ref().map(|path| path.display().to_string())),
        ("tls-self-signed", options.tls_self_signed.then(|| "true".to_owned())),
        ("state-dir", options.state_dir.as_ref().map(|path| path.display().to_string())),
    ];
    let said: Vec<(&str, String)> =
        said.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let Some((name, value)) = said.first() else { return Ok(None) };
    let wrong = |what: &dyn fmt::Display| OptionsError::Config(format!("{name} `{value}`: {what}"));
    net::tls_built_in().map_err(|error| wrong(&error))?;
    if listens.is_none() {
        return Err(wrong(&"expected listen with https:// as well, which says where"));
    }
    let certificate = match (&options.tls_cert, &options.tls_key, options.tls_self_signed) {
        (Some(chain), Some(key), false) => {
            Certificate::Files { chain: chain.clone(), key: key.clone() }
        }
        (None, None, true) => Certificate::SelfSigned { state_dir: options.state_dir.clone() },
        _ => return Err(wrong(&"expected both tls-cert and tls-key, or tls-self-signed alone")),
    };
    if let (Certificate::Files { .. }, Some(directory)) = (&certificate, &options.state_dir) {
        return Err(OptionsError::Config(format!(
            "state-dir `{}`: expected tls-self-signed as well, whose certificate is kept there",
            directory.display()
        )));
    }
    let checked = Acceptor::check(&certificate);
    checked.map_err(|error| OptionsError::Config(format!("tls-cert, tls-key: {error}")))?;
    Ok(Some(certificate))
}

fn set_path(target: &mut Option<PathBuf>, text: &str) -> Result<(), String> {
    *target = Some(text.into());
    Ok(())
}

fn show_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

fn set_time(target: &mut Option<Duration>, text: &str) -> Result<(), String> {
    *target = Some(parse_time(text)?).filter(|time| !time.is_zero());
    Ok(())
}

/// Reads a time such as `250ms`, `25s`, `2m`, `1h` or `0`.
///
/// # Errors
/// What would be right.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time such as 250ms, 25s, 2m or 1h, or 0 for off".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let milliseconds = number.checked_mul(milliseconds).filter(|time| *time <= LONGEST_TIME_MS);
    milliseconds.map(Duration::from_millis).ok_or_else(|| "expected 1000h at most".to_owned())
}

fn show_time(time: Option<Duration>) -> String {
    match time.unwrap_or_default().as_millis() {
        0 => "0".to_owned(),
        time if time % 3_600_000 == 0 => format!("{}h", time / 3_600_000),
        time if time % 60_000 == 0 => format!("{}m", time / 60_000),
        time if time % 1_000 == 0 => format!("{}s", time / 1_000),
        time => format!("{time}ms"),
    }
}

fn parse_size(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    let number: usize = number
        .parse()
        .map_err(|_| "expected a size in bytes, such as 65536, 64k or 1m".to_owned())?;
    let (least, most) = (show_size(*range.start()), show_size(*range.end()));
    number
        .checked_mul(1 << shift)
        .filter(|size| range.contains(size))
        .ok_or_else(|| format!("expected from {least} to {most}"))
}

fn set_size(target: &mut usize, text: &str, range: RangeInclusive<usize>) -> Result<(), String> {
    *target = parse_size(text, range)?;
    Ok(())
}

fn set_count(target: &mut usize, text: &str, range: RangeInclusive<usize>) -> Result<(), String> {
    let (least, most) = (range.start(), range.end());
    let count = text.parse().ok().filter(|count| range.contains(count));
    *target = count.ok_or_else(|| format!("expected a number from {least} to {most}"))?;
    Ok(())
}

/// Sets a number that 0 leaves to the default.
fn set_optional<N: FromStr>(target: &mut Option<N>, text: &str) -> Result<(), String> {
    *target = match text.parse() {
        Ok(number) => Some(number),
        Err(_) if text == "0" => None,
        Err(_) => return Err("expected a number from 0 to 4294967295".to_owned()),
    };
    Ok(())
}

fn show_optional<N: ToString>(number: Option<N>) -> String {
    number.map_or_else(|| "0".to_owned(), |number| number.to_string())
}

fn show_size(size: usize) -> String {
    match size {
        size if size > 0 && size % (1 << 20) == 0 => format!("{}m", size >> 20),
        size if size > 0 && size % (1 << 10) == 0 => format!("{}k", size >> 10),
        size => size.to_string(),
    }
}

fn set_choice<T: Copy>(target: &mut T, choices: &[(&str, T)], text: &str) -> Result<(), String> {
    let chosen = choices.iter().find(|(name, _)| *name == text);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    *target = chosen.ok_or_else(|| format!("expected one of {}", names()))?.1;
    Ok(())
}

fn show_choice<T: PartialEq>(value: &T, choices: &[(&str, T)]) -> String {
    let name = choices.iter().find(|(_, choice)| choice == value).map(|(name, _)| *name);
    name.unwrap_or_default().to_owned()
}

/// Why the options can't be used; `Display` is a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// The environment, the file, or how values go together is wrong: exit code 78 (sysexits.h).
    Config(String),
}

impl OptionsError {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
        }
    }
}

impl From<lexopt::Error> for OptionsError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Config(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OptionsError {}

/// The options that may be given several times by one source.
const REPEATED: &[&str] = &["listen", "origin", "trust-proxy"];
const SEPARATORS: &[(&str, u8)] = &[("newline", b'\n'), ("nul", 0)];
const SWITCHES: &[(&str, bool)] = &[("true", true), ("false", false)];
const SLOW_CONSUMERS: &[(&str, SlowConsumer)] =
    &[("skip", SlowConsumer::Skip), ("close", SlowConsumer::Close)];
const REJECTS: &[(&str, Reject)] = &[("respond", Reject::Respond), ("drop", Reject::Drop)];
const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)];
const LOG_LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];
const LONGEST_TIME_MS: u64 = 1000 * 3_600_000;
const HELP_HEAD: &str = "\
falconet: a WebSocket server for small hosts

Usage: falconet [OPTION...]

Serves a page, an echo WebSocket at the same URL, the time to everybody, and topics:
publish to /topics/NAME with POST or WebSocket, subscribe with WebSocket or SSE.

  producer | falconet --stdin NAME     each line to whoever hears /topics/NAME

Options, from a flag, else FALCONET_NAME in the environment, else the file:
";
const HELP_TAIL: &str = "
  --config FILE            read `name = value` lines from FILE (# begins a comment)
  --check-config           say whether the configuration is good, and exit
  --print-config           print the effective configuration, and exit
  -h, --help               print this, and exit
  -V, --version            print the version, and exit

Times are like 250ms, 25s, 2m, 1h; 0 is off (for --close-timeout: do not wait). Sizes are bytes, or like 64k, 1m.
Exit codes: 0 stopped, 1 failed, 2 wrong usage, 78 bad configuration.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_flags(flags: &[&str]) -> Result<Command, OptionsError> {
        parse(flags.iter().map(OsString::from), |_| None)
    }

    #[test]
    fn what_is_printed_is_read_back_the_same() {
        let mut options = Options::default();
        options.listen.push("unix:/tmp/x".parse().unwrap());
        options.broadcast_every = None;
        options.config.limits.message_bytes = 70_000;
        options.log_level = LevelFilter::Debug;
        let path = std::env::temp_dir().join(format!("falconet-cli-{}", std::process::id()));
        std::fs::write(&path, print_config(&options)).unwrap();
        let file = path.clone().into_os_string();
        let read = parse([], |name| (name == "FALCONET_CONFIG").then(|| file.clone()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read, Ok(Command::Serve(Box::new(options))));
    }

    #[test]
    fn times_and_sizes_are_read_and_written() {
        for (text, written) in [
            ("0", "0"),
            ("0s", "0"),
            ("250ms", "250ms"),
            ("90s", "90s"),
            ("120s", "2m"),
            ("1h", "1h"),
        ] {
            assert_eq!(show_time(Some(parse_time(text).unwrap())), written, "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1.5s", "5 s", "1d", "99999999999h", "18446744073709551616s"]
        {
            assert!(parse_time(text).unwrap_err().starts_with("expected"), "{text}");
        }
        for (text, written) in [("64k", "64k"), ("65536", "64k"), ("1M", "1m"), ("1000", "1000")] {
            assert_eq!(show_size(parse_size(text, 1..=1 << 30).unwrap()), written, "{text}");
        }
        for text in ["", "k", "-1", "1g", "2048m", "0", "99999999999999999999"] {
            assert!(parse_size(text, 1..=1 << 30).unwrap_err().starts_with("expected"), "{text}");
        }
    }

    #[test]
    fn a_bad_value_names_the_option_the_value_and_what_would_be_right() {
        for (flags, parts) in [
            (["--ping-every", "5"], ["--ping-every", "`5`", "25s"]),
            (["--max-head", "1k7"], ["--max-head", "`1k7`", "64k"]),
            (["--reject", "maybe"], ["--reject", "`maybe`", "respond, drop"]),
            (["--listen", "ftp://x"], ["--listen", "ftp://x", "http://HOST:PORT"]),
            (["--max-connections", "0"], ["--max-connections", "`0`", "1 to 1000000"]),
            (["--log-level", "loud"], ["--log-level", "`loud`", "error, warn"]),
        ] {
            let error = parse_flags(&flags).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    /// A file of the host's temporary directory, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("falconet-cli-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        /// What the options are where the environment names this file so.
        fn passed_as(&self, variable: &str) -> Result<Command, OptionsError> {
            parse([], |name| (name == variable).then(|| self.0.clone().into_os_string()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn passed_tokens_that_cannot_be_looked_for_are_an_error_and_missing_ones_none() {
        // In a file there is nothing to look for.
        let scratch = Scratch::new("credentials", "");
        let error = scratch.passed_as("CREDENTIALS_DIRECTORY").unwrap_err();
        assert_eq!(error.exit_code(), 78);
        let file = scratch.0.join("tokens").display().to_string();
        assert!(error.to_string().contains(&file), "{error}");
        let nowhere = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| "/nowhere".into());
        let Ok(Command::Serve(options)) = parse([], nowhere) else { panic!("no tokens are fine") };
        assert_eq!(options.token_file, None);
    }

    #[test]
    fn a_line_that_is_no_setting_is_named_and_not_quoted() {
        for (line, part) in [
            ("secret", "`name = value`"),
            ("secret subscribe garden", "`name = value`"),
            ("ping-every secret", "ping-every: "),
            ("ping-every: secret", "ping-every: "),
            ("secret subscribe a=b", "no option"),
            ("SECRET==", "no option"),
            ("ping-evry = secret", "`ping-evry`"),
        ] {
            let scratch = Scratch::new("lines", &format!("# fine\n{line}\n"));
            let error = scratch.passed_as("FALCONET_CONFIG").unwrap_err().to_string();
            assert!(error.contains(":2: ") && error.contains(part), "{line}: {error}");
            assert!(!error.to_lowercase().contains("secret"), "{line}: {error}");
        }
    }

    #[test]
    fn every_option_is_in_the_help_with_its_default() {
        let help = help();
        for option in OPTIONS {
            assert!(help.contains(&format!("--{} {}", option.name, option.value)));
        }
        assert!(
            help.contains("[default: http://localhost:8080]") && help.contains("[default: 2500ms]")
        );
    }
}
