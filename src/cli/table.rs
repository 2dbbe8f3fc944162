//! The table of all options.

use log::LevelFilter;

use super::options::Options;
use super::values::{
    parse_time, set_choice, set_count, set_optional, set_path, set_size, set_size_or_auto,
    set_time, show_choice, show_optional, show_path, show_size, show_size_or_auto, show_time,
};
use crate::access::{MAX_PUBLISH_KEYS, TrustedProxyError};
use crate::config::{Reject, SlowConsumer};
use crate::features::{Feature, NotBuiltIn};
use crate::hub::TopicName;
use crate::log::LogFormat;
use crate::net::ListenUrl;

/// An option in the table.
pub struct OptionSpec {
    /// The name, as in `--NAME`, `FALCONET_NAME` or `NAME = value`.
    pub name: &'static str,
    /// The placeholder of the value in the help. Empty for a switch, which takes no value as a flag and
    /// `true` or `false` in the environment and the file.
    pub value: &'static str,
    /// A short description; empty in a build that lacks the option.
    pub help: &'static str,
    /// The feature that a build must have for this option; `None` if every build has the option.
    pub feature: Option<Feature>,
    pub(super) set: Set,
    pub(super) show: Show,
}

/// A function that parses and sets the value, or returns a text that says what is expected.
type Set = fn(&mut Options, &str) -> Result<(), String>;
/// A function that formats the value in the form that [`Set`] parses; empty if the option is not set.
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

    /// Makes a build without `feature` refuse this option.
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

    /// Returns true if this build supports the option.
    pub fn is_built_in(&self) -> bool {
        self.feature.is_none_or(Feature::is_built_in)
    }

    /// Returns the default value as text, or `none`.
    pub fn default(&self) -> String {
        Some((self.show)(&Options::default()))
            .filter(|text| !text.is_empty())
            .unwrap_or("none".into())
    }

    /// Returns the flag with the placeholder of its value.
    pub fn flag(&self) -> String {
        format!("--{} {}", self.name, self.value).trim_ascii_end().to_owned()
    }
}

/// All options that can be set in the environment and the configuration file as well.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "listen",
        "URL",
        "where to listen: http://HOST:PORT, https://HOST:PORT, unix:PATH, or systemd (the sockets it passes); may be repeated",
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
        "where the admin interface listens: unix:PATH, or http://HOST:PORT on loopback or with a file of tokens",
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
        "publish each line of standard input to this topic",
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
        "what ends a line of standard input: newline or nul",
        |options, text| set_choice(&mut options.stdin_separator, SEPARATORS, text),
        |options| show_choice(&options.stdin_separator, SEPARATORS),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "exit-on-eof",
        "",
        "stop the server at the end of standard input",
        |options, text| set_choice(&mut options.exit_on_eof, SWITCHES, text),
        |options| show_choice(&options.exit_on_eof, SWITCHES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "static",
        "DIR",
        "serve the files of this directory; they take precedence over the built-in page",
        |options, text| set_path(&mut options.static_files, text),
        |options| show_path(&options.static_files),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "tls-cert",
        "FILE",
        "certificate for https://, in PEM, followed by the certificates of its issuers",
        |options, text| set_path(&mut options.tls_cert, text),
        |options| show_path(&options.tls_cert),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "tls-key",
        "FILE",
        "private key of the certificate, in PEM: PKCS#8, PKCS#1 or SEC1",
        |options, text| set_path(&mut options.tls_key, text),
        |options| show_path(&options.tls_key),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "tls-self-signed",
        "",
        "sign certificates for this host with a certificate authority (CA) of its own, and log fingerprints",
        |options, text| set_choice(&mut options.tls_self_signed, SWITCHES, text),
        |options| show_choice(&options.tls_self_signed, SWITCHES),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "state-dir",
        "DIR",
        "keep the CA in this directory, and use it again at the next start; clients trust its ca.pem",
        |options, text| set_path(&mut options.state_dir, text),
        |options| show_path(&options.state_dir),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "user",
        "NAME",
        "switch to this user once all sockets are bound",
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
        "once started, restrict opening files, TCP connections and execution with Landlock: auto (if the kernel supports it) or off",
        |options, text| set_choice(&mut options.sandbox, SANDBOXES, text),
        |options| show_choice(&options.sandbox, SANDBOXES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "broadcast-every",
        "TIME",
        "how often the server time is broadcast; 0 = never",
        |options, text| set_time(&mut options.broadcast_every, text),
        |options| show_time(options.broadcast_every),
    ),
    OptionSpec::new(
        "ping-every",
        "TIME",
        "how long a client may be silent before it is pinged; 0 = no pings",
        |options, text| set_time(&mut options.config.timeouts.ping_every, text),
        |options| show_time(options.config.timeouts.ping_every),
    ),
    OptionSpec::new(
        "idle-timeout",
        "TIME",
        "how long a client may be silent before it is dropped; 0 = no limit",
        |options, text| set_time(&mut options.config.timeouts.idle, text),
        |options| show_time(options.config.timeouts.idle),
    ),
    OptionSpec::new(
        "head-timeout",
        "TIME",
        "how long a client may take to send its request head; 0 = no limit",
        |options, text| set_time(&mut options.config.timeouts.head, text),
        |options| show_time(options.config.timeouts.head),
    ),
    OptionSpec::new(
        "tls-timeout",
        "TIME",
        "how long a client may take for TLS handshake and request head together; 0 = no limit",
        |options, text| set_time(&mut options.config.timeouts.tls_head, text),
        |options| show_time(options.config.timeouts.tls_head),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "keep-alive",
        "TIME",
        "how long a connection may stay idle between two requests; 0 = one request per connection",
        |options, text| set_time(&mut options.config.timeouts.keep_alive, text),
        |options| show_time(options.config.timeouts.keep_alive),
    ),
    OptionSpec::new(
        "write-timeout",
        "TIME",
        "how long a client that does not read may block a write; 0 = no limit",
        |options, text| set_time(&mut options.config.timeouts.write, text),
        |options| show_time(options.config.timeouts.write),
    ),
    OptionSpec::new(
        "min-rate",
        "SIZE",
        "bytes per second that a client must read to renew the write timeout; 0 = any progress renews it",
        |options, text| set_size(&mut options.config.timeouts.min_rate, text, 0..=1 << 30),
        |options| show_size(options.config.timeouts.min_rate),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "close-timeout",
        "TIME",
        "how long the server waits for its clients when it stops; 0 = not at all",
        |options, text| {
            options.config.timeouts.drain = parse_time(text)?;
            Ok(())
        },
        |options| show_time(Some(options.config.timeouts.drain)),
    ),
    OptionSpec::new(
        "max-message",
        "SIZE",
        "largest message accepted from a client",
        |options, text| set_size(&mut options.config.limits.message_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.limits.message_bytes),
    ),
    OptionSpec::new(
        "max-pending",
        "SIZE",
        "largest memory of unfinished input and output of all clients; auto = 8m, or a quarter of the control group's limit if that is less, but at least four messages",
        |options, text| set_size_or_auto(&mut options.config.limits.pending_bytes, text),
        |options| show_size_or_auto(options.config.limits.pending_bytes),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-head",
        "SIZE",
        "largest request head accepted from a client",
        |options, text| set_size(&mut options.config.limits.head_bytes, text, 256..=1 << 20),
        |options| show_size(options.config.limits.head_bytes),
    ),
    OptionSpec::new(
        "max-connections",
        "COUNT",
        "how many connections may be open, besides 16 from this host; fewer if the limit on open files is too low",
        |options, text| set_count(&mut options.config.limits.connections, text, 1..=1_000_000),
        |options| options.config.limits.connections.to_string(),
    ),
    OptionSpec::new(
        "max-per-address",
        "COUNT",
        "connections allowed per remote address; 0 = an eighth of all",
        |options, text| set_optional(&mut options.config.limits.per_address, text),
        |options| show_optional(options.config.limits.per_address),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-handshake-rate",
        "COUNT",
        "how many TLS handshakes one remote address may begin per second; further ones wait; 0 = no limit",
        |options, text| set_optional(&mut options.config.limits.handshake_rate, text),
        |options| show_optional(options.config.limits.handshake_rate),
    )
    .only_with(Feature::Tls),
    OptionSpec::new(
        "max-publish-rate",
        "COUNT",
        "messages per second that one remote address, or one local connection, may publish over HTTP; 0 = no limit",
        |options, text| set_optional(&mut options.config.limits.publish_rate, text),
        |options| show_optional(options.config.limits.publish_rate),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "publish-keys",
        "COUNT",
        "how many idempotency keys of one publisher are remembered, for 5 minutes; 0 = none",
        |options, text| set_count(&mut options.config.limits.publish_keys, text, 0..=MAX_PUBLISH_KEYS),
        |options| options.config.limits.publish_keys.to_string(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-message-rate",
        "COUNT",
        "messages per second that are read from one WebSocket client; 0 = no limit",
        |options, text| set_optional(&mut options.config.limits.message_rate, text),
        |options| show_optional(options.config.limits.message_rate),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-topics",
        "COUNT",
        "how many topics may exist",
        |options, text| set_count(&mut options.config.topics.count, text, 1..=1_000_000),
        |options| options.config.topics.count.to_string(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "max-filters",
        "COUNT",
        "how many different topic filters with a wildcard may have subscribers",
        |options, text| set_count(&mut options.config.topics.filters, text, 0..=1_000_000),
        |options| options.config.topics.filters.to_string(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "retain",
        "COUNT",
        "how many messages a topic retains for later subscribers",
        |options, text| {
            set_count(&mut options.config.topics.retain_messages, text, 0..=1_000_000)
        },
        |options| options.config.topics.retain_messages.to_string(),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "retain-bytes",
        "SIZE",
        "total size of the messages a topic retains; the newest is retained at any size",
        |options, text| set_size(&mut options.config.topics.retain_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.topics.retain_bytes),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "log-messages",
        "COUNT",
        "how many messages a subscriber may fall behind",
        |options, text| {
            set_count(&mut options.config.topics.log_messages, text, 1..=1_000_000)
        },
        |options| options.config.topics.log_messages.to_string(),
    ),
    OptionSpec::new(
        "log-bytes",
        "SIZE",
        "how many bytes a subscriber may fall behind",
        |options, text| set_size(&mut options.config.topics.log_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.topics.log_bytes),
    ),
    OptionSpec::new(
        "log-total",
        "SIZE",
        "total memory of the messages kept in all topics",
        |options, text| set_size(&mut options.config.topics.total_bytes, text, 1..=1 << 30),
        |options| show_size(options.config.topics.total_bytes),
    ),
    OptionSpec::new(
        "slow-consumer",
        "HOW",
        "what happens to a subscriber that falls further behind: skip (it misses messages) or close (with code 1008)",
        |options, text| {
            set_choice(&mut options.config.topics.slow_consumer, SLOW_CONSUMERS, text)
        },
        |options| show_choice(&options.config.topics.slow_consumer, SLOW_CONSUMERS),
    ),
    OptionSpec::new(
        "token-file",
        "FILE",
        "require tokens; each line of the file is TOKEN [RIGHT] [TOPIC]",
        |options, text| set_path(&mut options.token_file, text),
        |options| show_path(&options.token_file),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "admin-token-file",
        "FILE",
        "require tokens of this file for the admin interface, instead of those of --token-file",
        |options, text| set_path(&mut options.admin_token_file, text),
        |options| show_path(&options.admin_token_file),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "allow-query-token",
        "",
        "accept a token in the URL, as ?token=",
        |options, text| set_choice(&mut options.allow_query_token, SWITCHES, text),
        |options| show_choice(&options.allow_query_token, SWITCHES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "origin",
        "URL",
        "accept requests from pages of this origin, besides the server's own, and for its host name; null = from pages without an origin, such as local files, but also from every page that uses a sandboxed frame; any = from all pages; may be repeated",
        |options, text| options.origins.add(text).map_err(|error| error.to_string()),
        |options| options.origins.to_string(),
    ),
    OptionSpec::new(
        "trust-proxy",
        "PEER",
        "trust what this proxy reports about its clients: an IP address, a network, or unix; may be repeated",
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
        "require trusted proxies to begin each connection with a PROXY protocol header",
        |options, text| {
            set_choice(&mut options.trusted_proxies.proxy_protocol, SWITCHES, text)
        },
        |options| show_choice(&options.trusted_proxies.proxy_protocol, SWITCHES),
    )
    .only_with(Feature::Full),
    OptionSpec::new(
        "reject",
        "HOW",
        "how a refused request is answered: respond (with a short error) or drop (not at all)",
        |options, text| set_choice(&mut options.config.reject, REJECTS, text),
        |options| show_choice(&options.config.reject, REJECTS),
    ),
    OptionSpec::new(
        "log-level",
        "LEVEL",
        "how much is logged: off, error, warn, info or debug",
        |options, text| set_choice(&mut options.log_level, LOG_LEVELS, text),
        |options| show_choice(&options.log_level, LOG_LEVELS),
    ),
    OptionSpec::new(
        "log-format",
        "FORMAT",
        "format of log lines: text, logfmt or json",
        |options, text| set_choice(&mut options.log_format, LOG_FORMATS, text),
        |options| show_choice(&options.log_format, LOG_FORMATS),
    ),
];

/// Returns the option with this name.
pub(super) fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// The options that one source may set several times.
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
