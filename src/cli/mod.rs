//! The options of the server program. One table describes them for the command line, the environment, the
//! configuration file and the help.

mod check;
mod manual;
mod options;
mod sources;
mod table;
mod text;
mod values;

use std::ffi::OsString;
use std::path::Path;

use sources::{Action, Flags};

pub use manual::{completions, manual};
pub use options::{Command, Options, OptionsError};
pub use table::{OPTIONS, OptionSpec};
pub use text::{help, print_config, print_default_config};
pub use values::{parse_time, show_time};

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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use log::LevelFilter;

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
    fn an_option_given_twice_on_the_command_line_is_refused_unless_it_may_be_repeated() {
        for (flags, parts) in [
            (&["--max-head", "8k", "--max-head=4k"][..], &["--max-head `4k`", "`8k`"][..]),
            (&["--max-head", "8k", "--max-head", "8k"], &["--max-head `8k`", "once"]),
            (&["--tls-self-signed", "--tls-self-signed"], &["--tls-self-signed", "once"]),
            (&["--config", "a", "--config", "b"], &["--config `b`", "`a`"]),
            (&["--check-config", "--check-config"], &["--check-config", "once"]),
            (&["--print-config", "--check-config"], &["--print-config", "one of them"]),
        ] {
            let error = parse_flags(flags).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        let twice =
            ["--listen", "unix:a", "--listen", "unix:b", "--origin", "any", "--origin", "http://a"];
        assert!(parse_flags(&twice).is_ok());
    }

    #[test]
    fn an_option_given_twice_in_the_file_is_refused_with_both_lines() {
        let text = "listen = unix:a\nmax-head = 8k\nlisten = unix:b\n\nmax-head = 4k\n";
        let error = Scratch::new("twice", text).parse_as("FALCONET_CONFIG").unwrap_err();
        assert_eq!(error.exit_code(), 78);
        let error = error.to_string();
        for part in [":5: max-head `4k`", "line 2 ", "`8k`"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn each_source_may_give_an_option_once() {
        let scratch = Scratch::new("sources", "max-head = 8k\n");
        let read = parse(["--max-head", "2k"].map(OsString::from), |name| match name {
            "FALCONET_CONFIG" => Some(scratch.0.clone().into_os_string()),
            "FALCONET_MAX_HEAD" => Some("4k".into()),
            _ => None,
        });
        let Ok(Command::Serve(options)) = read else { panic!("{read:?}") };
        assert_eq!(options.config.limits.head_bytes, 2048);
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
