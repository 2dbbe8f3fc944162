//! The one table of options.

use log::LevelFilter;

use super::Options;
use super::values::{
    parse_time, set_choice, set_count, set_optional, set_path, set_size, set_time, show_choice,
    show_optional, show_path, show_size, show_time,
};
use crate::access::TrustedProxyError;
use crate::config::{Reject, SlowConsumer};
use crate::hub::TopicName;
use crate::log::LogFormat;
use crate::net::ListenUrl;

/// One line of the option table.
pub struct OptionSpec {
    /// The name: `--NAME`, `FALCONET_NAME`, or `NAME = value`.
    pub name: &'static str,
    /// What stands for the value in the help; empty for a switch, which is `true` or `false` elsewhere.
    pub value: &'static str,
    /// What it does, in a few words.
    pub help: &'static str,
    pub(super) set: fn(&mut Options, &str) -> Result<(), String>,
    pub(super) show: fn(&Options) -> String,
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

/// The option of this name.
pub(super) fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// The options that may be given several times by one source.
pub(super) const REPEATED: &[&str] = &["listen", "origin", "trust-proxy"];
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
