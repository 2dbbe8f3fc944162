//! The options of the server program. One table describes them for the command line, the environment, the
//! configuration file and the help.

mod check;
mod manual;
mod sources;
mod table;
mod text;
mod values;

use std::ffi::OsString;
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
use sources::{Action, Flags};

pub use manual::{completions, manual};
pub use table::{OPTIONS, OptionSpec};
pub use text::{help, print_config, print_default_config};
pub use values::{parse_time, show_time};

/// The values of all options, from the command line, the environment and the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The URLs to listen on. Default `http://localhost:8080`.
    pub listen: Vec<ListenUrl>,
    /// The URL of the admin listener. Default none.
    pub admin: Option<ListenUrl>,
    /// The topic that the lines of standard input are published to. Default none.
    pub stdin: Option<TopicName>,
    /// The byte that ends a line of standard input. Default a line feed.
    pub stdin_separator: u8,
    /// If true, the end of standard input stops the server. Default false.
    pub exit_on_eof: bool,
    /// The directory whose files are served. Default none.
    pub static_files: Option<PathBuf>,
    /// The PEM file with the certificate, followed by the certificates of its issuers. Default none.
    pub tls_cert: Option<PathBuf>,
    /// The PEM file with the private key of the certificate. Default none.
    pub tls_key: Option<PathBuf>,
    /// If true, the server creates a self-signed certificate. Default false.
    pub tls_self_signed: bool,
    /// The directory that keeps the self-signed certificate between two runs. Default none.
    pub state_dir: Option<PathBuf>,
    /// The user to switch to once all sockets are bound. Default none: the process keeps its user.
    pub user: Option<String>,
    /// If true, the process enters a sandbox after its start, if the kernel supports one. Default true.
    pub sandbox: bool,
    /// The interval between two broadcasts of the time; `None` disables them. Default 15 s (article).
    pub broadcast_every: Option<Duration>,
    /// The file with the access tokens. Default none, or the credential `tokens` if systemd passes one.
    pub token_file: Option<PathBuf>,
    /// If true, a request may carry its token in the URL. Default false.
    pub allow_query_token: bool,
    /// The origins, besides the server's own, whose pages may send requests. Default none.
    pub origins: Origins,
    /// The proxies whose statements about their clients are trusted. Default none.
    pub trusted_proxies: TrustedProxies,
    /// The configuration of the server.
    pub config: Config,
    /// The most verbose level that is logged. Default info.
    pub log_level: LevelFilter,
    /// The format of log lines. Default text.
    pub log_format: LogFormat,
}

impl Options {
    /// Returns the files and directories that are read while the server runs.
    pub fn read_later(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.token_file, &self.tls_cert, &self.tls_key, &self.static_files];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Returns a sandbox that permits everything that a server with these options does.
    pub fn sandbox(&self) -> Sandbox {
        let mut sandbox = Sandbox::default();
        for file in [&self.token_file, &self.tls_cert, &self.tls_key].into_iter().flatten() {
            sandbox.read_again(file);
        }
        for directory in [&self.static_files, &self.state_dir].into_iter().flatten() {
            sandbox.read_below(directory);
        }
        for url in self.listen.iter().chain(&self.admin) {
            if let ListenUrl::Unix(path) = url {
                sandbox.remove(path);
            }
        }
        if self.admin.is_some() {
            sandbox.ask_kernel();
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
    /// Report that the configuration is good.
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

/// Reads the command line (without the program's name), the environment, and the configuration file that
/// either of them names. Flags override the environment, which overrides the file.
///
/// # Errors
/// [`OptionsError`], which names the option, its value and the expected values.
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
        sources::apply(&mut options, sources::read_file(Path::new(&path))?)?;
    }
    sources::apply(&mut options, sources::read_environment(&environment)?)?;
    sources::apply(&mut options, flags.settings)?;
    if options.token_file.is_none() {
        options.token_file = sources::systemd_token_file(environment)?;
    }
    check::check(&options)?;
    options.config.tls.certificate = check::check_tls(&options)?;
    let options = Box::new(options);
    Ok(match flags.action {
        Action::Serve => Command::Serve(options),
        Action::CheckConfig => Command::CheckConfig,
        Action::PrintConfig => Command::PrintConfig(options),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_flags(flags: &[&str]) -> Result<Command, OptionsError> {
        parse(flags.iter().map(OsString::from), |_| None)
    }

    #[test]
    fn a_printed_configuration_is_read_back_unchanged() {
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
    fn an_error_names_the_option_its_value_and_the_expected_values() {
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

    /// A file in the temporary directory, removed when this is dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("falconet-cli-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        /// Parses the options with the path of this file in the environment variable `variable`.
        fn parse_as(&self, variable: &str) -> Result<Command, OptionsError> {
            parse([], |name| (name == variable).then(|| self.0.clone().into_os_string()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[cfg(feature = "full")]
    #[test]
    fn a_credentials_path_that_can_not_be_searched_is_an_error_and_a_missing_one_is_not() {
        // A file is not a directory that can be searched.
        let scratch = Scratch::new("credentials", "");
        let error = scratch.parse_as("CREDENTIALS_DIRECTORY").unwrap_err();
        assert_eq!(error.exit_code(), 78);
        let file = scratch.0.join("tokens").display().to_string();
        assert!(error.to_string().contains(&file), "{error}");
        let nowhere = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| "/nowhere".into());
        let Ok(Command::Serve(options)) = parse([], nowhere) else {
            panic!("no tokens are passed")
        };
        assert_eq!(options.token_file, None);
    }

    #[test]
    fn an_error_about_a_malformed_line_names_the_line_without_quoting_it() {
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
            let error = scratch.parse_as("FALCONET_CONFIG").unwrap_err().to_string();
            assert!(error.contains(":2: ") && error.contains(part), "{line}: {error}");
            assert!(!error.to_lowercase().contains("secret"), "{line}: {error}");
        }
    }

    #[test]
    fn every_option_is_in_the_help_with_its_default() {
        let help = help();
        for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
            assert!(help.contains(&format!("--{} {}", option.name, option.value)));
        }
        assert!(
            help.contains("[default: http://localhost:8080]") && help.contains("[default: 2500ms]")
        );
    }
}
