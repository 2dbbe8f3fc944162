//! The values of all options, and the error for invalid options.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use crate::access::{Origins, TrustedProxies};
use crate::config::Config;
use crate::hub::TopicName;
use crate::log::LogFormat;
use crate::net::ListenUrl;
use crate::privileges::Sandbox;

/// The values of all options, from the command line, the environment and the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The URLs to listen on. Default: `http://localhost:8080`.
    pub listen: Vec<ListenUrl>,
    /// The URL of the admin listener. Default: none.
    pub admin: Option<ListenUrl>,
    /// The topic that the lines of standard input are published to. Default: none.
    pub stdin: Option<TopicName>,
    /// The byte that ends a line of standard input. Default: a line feed.
    pub stdin_separator: u8,
    /// If true, the end of standard input stops the server. Default: false.
    pub exit_on_eof: bool,
    /// The directory whose files are served. Default: none.
    pub static_files: Option<PathBuf>,
    /// The PEM file with the certificate, followed by the certificates of its issuers. Default: none.
    pub tls_cert: Option<PathBuf>,
    /// The PEM file with the private key of the certificate. Default: none.
    pub tls_key: Option<PathBuf>,
    /// If true, the server signs its certificate, with a certificate authority of its own. Default: false.
    pub tls_self_signed: bool,
    /// The directory that keeps this certificate authority between two runs. Default: none.
    pub state_dir: Option<PathBuf>,
    /// The user to switch to once all sockets are bound. Default: none; the process keeps its user.
    pub user: Option<String>,
    /// If true, the process enters a [`Sandbox`] after its start, if the kernel supports one. Default: true.
    pub sandbox: bool,
    /// The interval between two broadcasts of the time; `None` disables them. Default: 15 s.
    pub broadcast_every: Option<Duration>,
    /// The file with the access tokens. Default: none, or the credential `tokens` if systemd passes one.
    pub token_file: Option<PathBuf>,
    /// The file with the access tokens for the admin listener. Default: none; then [`Self::token_file`] applies
    /// there, too.
    pub admin_token_file: Option<PathBuf>,
    /// If true, a request may carry its token in the URL. Default: false.
    pub allow_query_token: bool,
    /// The origins, besides the server's own, whose pages may send requests. Default: none.
    pub origins: Origins,
    /// The proxies that are trusted to name their clients. Default: none.
    pub trusted_proxies: TrustedProxies,
    /// The configuration of the server.
    pub config: Config,
    /// The most verbose level that is logged. Default: info.
    pub log_level: LevelFilter,
    /// The format of log lines. Default: text.
    pub log_format: LogFormat,
}

impl Options {
    /// Returns the files and directories that are read while the server runs.
    pub fn read_later(&self) -> impl Iterator<Item = &Path> {
        self.reloaded().chain(&self.static_files).map(PathBuf::as_path)
    }

    /// Returns the files that are read again after a change.
    fn reloaded(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.token_file, &self.admin_token_file, &self.tls_cert, &self.tls_key];
        files.into_iter().flatten()
    }

    /// Returns a sandbox that permits everything that a server with these options does.
    pub fn sandbox(&self) -> Sandbox {
        let mut sandbox = Sandbox::default();
        for file in self.reloaded() {
            sandbox.allow_file(file);
        }
        if let Some(directory) = &self.static_files {
            sandbox.allow_directory(directory);
        }
        if self.tls_self_signed {
            sandbox.allow_addresses();
        }
        for url in self.listen.iter().chain(&self.admin) {
            if let ListenUrl::Unix(path) = url {
                sandbox.remove(path);
            }
        }
        if self.admin.is_some() {
            sandbox.allow_kernel_files();
        }
        sandbox
    }
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
            user: None,
            sandbox: true,
            broadcast_every: Some(Duration::from_secs(15)),
            token_file: None,
            admin_token_file: None,
            allow_query_token: false,
            origins: Origins::default(),
            trusted_proxies: TrustedProxies::default(),
            config: Config::default(),
            log_level: LevelFilter::Info,
            log_format: LogFormat::default(),
        }
    }
}

/// A command of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve(Box<Options>),
    /// Report that the configuration is valid.
    CheckConfig,
    /// Print the effective configuration, in the format of a `--config` file.
    PrintConfig(Box<Options>),
    /// Print this text.
    Print(String),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// The error that the options can't be used. `Display` writes one line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// The command line is invalid. Exit code 2.
    Usage(String),
    /// The environment or the file is invalid, or options contradict each other. Exit code 78 (sysexits.h).
    Config(String),
}

impl OptionsError {
    /// Returns the exit code of the process.
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
