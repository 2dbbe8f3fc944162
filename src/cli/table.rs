//! The one table of options.

use log::LevelFilter;

use super::Options;
use super::values::{
    parse_time, set_choice, set_count, set_optional, set_path, set_size, set_time, show_choice,
    show_optional, show_path, show_size, show_time,
};
use crate::access::TrustedProxyError;
use crate::config::{Reject, SlowConsumer};
use crate::features::{Feature, NotBuiltIn};
use crate::hub::TopicName;
use crate::log::LogFormat;
use crate::net::ListenUrl;

/// One line of the option table.
pub struct OptionSpec {
    /// The name: `--NAME`, `FALCONET_NAME`, or `NAME = value`.
    pub name: &'static str,
    /// What stands for the value in the help; empty for a switch, which is `true` or `false` elsewhere.
    pub value: &'static str,
    /// What it does, in a few words; nothing in a build that lacks it.
    pub help: &'static str,
    /// The part of the program it is for, which a build may lack.
    pub feature: Option<Feature>,
    pub(super) set: Set,
    pub(super) show: Show,
}

/// Sets it; or says what would be right.
type Set = fn(&mut Options, &str) -> Result<(), String>;
/// Writes it as it would be set; empty if it is not.
type Show = fn(&Options) -> String;

impl OptionSpec {
    const fn new(
        name: &'static str,
        value: &'static str,
        help: &'static str,
        set: Set,
        show: Show,
    ) -> Self {
        Self { name, value, help, feature: None, set, show }
    }

    /// Marks an option that a build without `feature` refuses.
    const fn only_with(mut self, feature: Feature) -> Self {
        self.feature = Some(feature);
        if !feature.is_built_in() {
            self.help = "";
            self.set = match feature {
                Feature::Full => |_, _| Err(NotBuiltIn(Feature::Full).to_string()),
                Feature::Tls => |_, _| Err(NotBuiltIn(Feature::Tls).to_string()),
            };
            self.show = |_| String::new();
        }
        self
    }

    /// Whether this build has what it is for.
    pub fn is_built_in(&self) -> bool {
        self.feature.is_none_or(Feature::is_built_in)
    }

    /// The default, as one would write it; `none` if there is none.
    pub fn default(&self) -> String {
        Some((self.show)(&Options::default()))
            .filter(|text| !text.is_empty())
            .unwrap_or("none".into())
    }

    /// The flag, with what stands for its value.
    pub fn flag(&self) -> String {
        format!("--{} {}", self.name, self.value).trim_ascii_end().to_owned()
    }
}

/// Every option that has a value and a place in the configuration.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "listen",
        "URL",
        "where to listen: http://HOST:PORT, https://HOST:PORT, unix:PATH, or systemd for what it passes; may be repeated",
        |options, text| {
            options.listen.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        },
        |options| {
            options.listen.iter().map(ListenUrl::to_string).collect::<Vec<_>>().join(" ")
        },
    ),
    OptionSpec::new(
        "admin",
        "URL",
        "where to look after the server: unix:PATH, or http://HOST:PORT on loopback or with tokens",
        |options, text| {
            let url: ListenUrl = text.parse().map_err(|error| format!("{error}"))?;
            if url == ListenUrl::Systemd {
                return Err("expected http://HOST:PORT, https://HOST:PORT or unix:PATH".to_owned());
            }
            options.admin = Some(url);
            Ok(())
        },
        |options| options.admin.as_ref().map(ListenUrl::to_string).unwrap_or_default(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "stdin",
        "NAME",
        "publish each line of the standard input to this topic",
        |options, text| {
            options.stdin = Some(TopicName::new(text).map_err(|error| error.to_string())?);
            Ok(())
        },
        |options| options.stdin.as_ref().map(TopicName::to_string).unwrap_or_default(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "stdin-separator",
        "BYTE",
        "what ends a line of the standard input: newline or nul",
        |options, text| set_choice(&mut options.stdin_separator, SEPARATORS, text),
        |options| show_choice(&options.stdin_separator, SEPARATORS),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "exit-on-eof",
        "",
        "stop at the end of the standard input",
        |options, text| set_choice(&mut options.exit_on_eof, SWITCHES, text),
        |options| show_choice(&options.exit_on_eof, SWITCHES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "static",
        "DIR",
        "serve the files of this directory, before the page",
        |options, text| set_path(&mut options.static_files, text),
        |options| show_path(&options.static_files),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "tls-cert",
        "FILE",
        "the certificate of https:// in PEM, and after it those of who signed it",
        |options, text| set_path(&mut options.tls_cert, text),
        |options| show_path(&options.tls_cert),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "tls-key",
        "FILE",
        "its private key in PEM: PKCS#8, PKCS#1 or SEC1",
        |options, text| set_path(&mut options.tls_key, text),
        |options| show_path(&options.tls_key),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "tls-self-signed",
        "",
        "sign a certificate for this host, and log its fingerprint",
        |options, text| set_choice(&mut options.tls_self_signed, SWITCHES, text),
        |options| show_choice(&options.tls_self_signed, SWITCHES),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "state-dir",
        "DIR",
        "keep that certificate in this directory, and use it again",
        |options, text| set_path(&mut options.state_dir, text),
        |options| show_path(&options.state_dir),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "user",
        "NAME",
        "become this user once everything is bound",
        |options, text| {
            options.user = Some(text.to_owned());
            Ok(())
        },
        |options| options.user.clone().unwrap_or_default(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "sandbox",
        "HOW",
        "open, connect to and execute nothing else once started: auto (if the kernel can) or off",
        |options, text| set_choice(&mut options.sandbox, SANDBOXES, text),
        |options| show_choice(&options.sandbox, SANDBOXES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "broadcast-every",
        "TIME",
        "how often the server time is sent to everybody; 0 = never",
        |options, text| set_time(&mut options.broadcast_every, text),
        |options| show_time(options.broadcast_every),
    ),
    OptionSpec::new(
        "ping-every",
        "TIME",
        "how long a client may be silent before it is pinged; 0 = for ever",
        |options, text| set_time(&mut options.config.timeouts.ping_every, text),
        |options| show_time(options.config.timeouts.ping_every),
    ),
    OptionSpec::new(
        "idle-timeout",
        "TIME",
        "how long a client may be silent before it is dropped; 0 = for ever",
        |options, text| set_time(&mut options.config.timeouts.idle, text),
        |options| show_time(options.config.timeouts.idle),
    ),
    OptionSpec::new(
        "head-timeout",
        "TIME",
        "how long a peer may take over its request head; 0 = for ever",
        |options, text| set_time(&mut options.config.timeouts.head, text),
        |options| show_time(options.config.timeouts.head),
    ),
    OptionSpec::new(
        "tls-timeout",
        "TIME",
        "how long a peer may take over TLS handshake and request head; 0 = for ever",
        |options, text| set_time(&mut options.config.timeouts.tls_head, text),
        |options| show_time(options.config.timeouts.tls_head),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "keep-alive",
        "TIME",
        "how long a connection may rest between two requests; 0 = one request each",
        |options, text| set_time(&mut options.config.timeouts.keep_alive, text),
        |options| show_time(options.config.timeouts.keep_alive),
    ),
    OptionSpec::new(
        "write-timeout",
        "TIME",
        "how long one write may be blocked by a peer that does not read; 0 = for ever",
        |options, text| set_time(&mut options.config.timeouts.write, text),
        |options| show_time(options.config.timeouts.write),
    ),
    OptionSpec::new(
        "close-timeout",
        "TIME",
        "how long the server waits for its clients when it stops",
        |options, text| {
            options.config.timeouts.drain = parse_time(text)?;
            Ok(())
        },
        |options| show_time(Some(options.config.timeouts.drain)),
    ),
    OptionSpec::new(
        "max-message",
        "SIZE",
        "the largest message accepted",
        |options, text| set_size(&mut options.config.limits.message_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.limits.message_bytes),
    ),
    OptionSpec::new(
        "max-head",
        "SIZE",
        "the largest request head accepted",
        |options, text| set_size(&mut options.config.limits.head_bytes, text, 256..=1 << 20),
        |options| show_size(options.config.limits.head_bytes),
    ),
    OptionSpec::new(
        "max-connections",
        "COUNT",
        "how many connections may be open, if the limit of open files allows it",
        |options, text| set_count(&mut options.config.limits.connections, text, 1..=1_000_000),
        |options| options.config.limits.connections.to_string(),
    ),
    OptionSpec::new(
        "max-per-address",
        "COUNT",
        "how many of these one other host may hold; 0 = an eighth",
        |options, text| set_optional(&mut options.config.limits.per_address, text),
        |options| show_optional(options.config.limits.per_address),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-publish-rate",
        "COUNT",
        "how many messages a second one other host, or one connection, may publish by HTTP; 0 = any",
        |options, text| set_optional(&mut options.config.limits.publish_rate, text),
        |options| show_optional(options.config.limits.publish_rate),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-message-rate",
        "COUNT",
        "how many messages a second of one WebSocket client are read; 0 = any",
        |options, text| set_optional(&mut options.config.limits.message_rate, text),
        |options| show_optional(options.config.limits.message_rate),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-topics",
        "COUNT",
        "how many topics there may be",
        |options, text| set_count(&mut options.config.topics.count, text, 1..=1_000_000),
        |options| options.config.topics.count.to_string(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "retain",
        "COUNT",
        "how many messages a topic keeps for who comes later",
        |options, text| {
            set_count(&mut options.config.topics.retain_messages, text, 0..=1_000_000)
        },
        |options| options.config.topics.retain_messages.to_string(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "retain-bytes",
        "SIZE",
        "how much they may be together; the newest is kept whatever its size",
        |options, text| set_size(&mut options.config.topics.retain_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.topics.retain_bytes),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "log-messages",
        "COUNT",
        "how many messages a subscriber may be behind",
        |options, text| {
            set_count(&mut options.config.topics.log_messages, text, 1..=1_000_000)
        },
        |options| options.config.topics.log_messages.to_string(),
    ),
    OptionSpec::new(
        "log-bytes",
        "SIZE",
        "how much a subscriber may be behind",
        |options, text| set_size(&mut options.config.topics.log_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.topics.log_bytes),
    ),
    OptionSpec::new(
        "log-total",
        "SIZE",
        "how much the messages of all topics may be together",
        |options, text| set_size(&mut options.config.topics.total_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.topics.total_bytes),
    ),
    OptionSpec::new(
        "slow-consumer",
        "HOW",
        "a subscriber that is further behind: skip (it misses messages) or close (with 1008)",
        |options, text| {
            set_choice(&mut options.config.topics.slow_consumer, SLOW_CONSUMERS, text)
        },
        |options| show_choice(&options.config.topics.slow_consumer, SLOW_CONSUMERS),
    ),
    OptionSpec::new(
        "token-file",
        "FILE",
        "let in who has a token: lines of TOKEN [RIGHT] [TOPIC]",
        |options, text| {
            options.token_file = Some(text.into());
            Ok(())
        },
        |options| {
            options.token_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default()
        },
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "allow-query-token",
        "",
        "let a token come in the URL, as ?token=",
        |options, text| set_choice(&mut options.allow_query_token, SWITCHES, text),
        |options| show_choice(&options.allow_query_token, SWITCHES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "origin",
        "URL",
        "let pages of this origin in, beside our own; or any; may be repeated",
        |options, text| options.origins.add(text).map_err(|error| error.to_string()),
        |options| options.origins.to_string(),
    ),
    OptionSpec::new(
        "trust-proxy",
        "PEER",
        "believe whom this address or network, or unix, asks for; may be repeated",
        |options, text| {
            options
                .trusted_proxies
                .add(text.parse().map_err(|e: TrustedProxyError| e.to_string())?);
            Ok(())
        },
        |options| options.trusted_proxies.to_string(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "proxy-protocol",
        "",
        "have trusted proxies say it by the PROXY protocol, or be dropped",
        |options, text| {
            set_choice(&mut options.trusted_proxies.proxy_protocol, SWITCHES, text)
        },
        |options| show_choice(&options.trusted_proxies.proxy_protocol, SWITCHES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "reject",
        "HOW",
        "what a refused request gets: respond (a short answer) or drop (nothing)",
        |options, text| set_choice(&mut options.config.reject, REJECTS, text),
        |options| show_choice(&options.config.reject, REJECTS),
    ),
    OptionSpec::new(
        "log-level",
        "LEVEL",
        "off, error, warn, info or debug",
        |options, text| set_choice(&mut options.log_level, LOG_LEVELS, text),
        |options| show_choice(&options.log_level, LOG_LEVELS),
    ),
    OptionSpec::new(
        "log-format",
        "FORMAT",
        "text, logfmt or json",
        |options, text| set_choice(&mut options.log_format, LOG_FORMATS, text),
        |options| show_choice(&options.log_format, LOG_FORMATS),
    ),
];

/// The option of this name.
pub(super) fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// The options that may be given several times by one source.
pub(super) const REPEATED: &[&str] = &["listen", "origin", "trust-proxy"];
const SEPARATORS: &[(&str, u8)] = &[("newline", b'\n'), ("nul", 0)];
const SANDBOXES: &[(&str, bool)] = &[("auto", true), ("off", false)];
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
];
