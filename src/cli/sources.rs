//! The sources of option values: command line, environment and configuration file.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::manual::{completions, manual};
use super::options::{Command, Options, OptionsError};
use super::table::{OPTIONS, OptionSpec, REPEATED, find};
use super::text::{help, print_default_config, unit};
use crate::access::Origins;
use crate::escaped::Escaped;
use crate::features::{Feature, NotBuiltIn};

/// A value of an option, and its source.
pub(super) struct Setting {
    option: &'static OptionSpec,
    value: String,
    source: Source,
}

impl Setting {
    /// Returns the error that another value is expected.
    fn error(&self, expected: &str) -> OptionsError {
        let (name, value) = (self.option.name, Escaped(&self.value));
        match &self.source {
            Source::Flag => OptionsError::Usage(format!("--{name} `{value}`: {expected}")),
            Source::Environment => {
                let name = name.to_ascii_uppercase().replace('-', "_");
                OptionsError::Config(format!("FALCONET_{name} `{value}`: {expected}"))
            }
            Source::File { path, line } => {
                OptionsError::Config(format!("{path}:{line}: {name} `{value}`: {expected}"))
            }
        }
    }

    /// Returns the error that the option has been given before, by the same source.
    fn error_of_repeat(&self, earlier: &Self) -> OptionsError {
        let value = Escaped(&earlier.value);
        self.error(&match &earlier.source {
            Source::File { line, .. } => {
                format!("expected the option once, but line {line} sets it already, to `{value}`")
            }
            _ => format!("expected the option once, but it was given before, as `{value}`"),
        })
    }
}

/// The source of a value, named in error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Flag,
    Environment,
    File { path: String, line: usize },
}

/// The action to take with the options.
pub(super) enum Action {
    Serve,
    CheckConfig,
    PrintConfig,
}

/// The parsed command line.
pub(super) struct Flags {
    pub(super) information: Option<Command>,
    pub(super) action: Action,
    pub(super) config: Option<OsString>,
    pub(super) settings: Vec<Setting>,
}

impl Flags {
    pub(super) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, OptionsError> {
        use lexopt::Arg::{Long, Short};
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut flags =
            Self { information: None, action: Action::Serve, config: None, settings: Vec::new() };
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => flags.information = Some(Command::Help),
                Short('V') | Long("version") => flags.information = Some(Command::Version),
                Long("print-man") if HAS_PRINT_OPTIONS => {
                    flags.information = Some(Command::Print(manual(&help())));
                }
                Long("print-completions") if HAS_PRINT_OPTIONS => {
                    let script = completions(&parser.value()?.to_string_lossy(), &help())?;
                    flags.information = Some(Command::Print(script));
                }
                Long("print-unit") if HAS_PRINT_OPTIONS => {
                    let unit = unit(&parser.value()?.to_string_lossy())?;
                    flags.information = Some(Command::Print(unit.to_owned()));
                }
                Long("print-default-config") if HAS_PRINT_OPTIONS => {
                    flags.information = Some(Command::Print(print_default_config()));
                }
                Long("print-man" | "print-completions" | "print-unit" | "print-default-config") => {
                    return Err(OptionsError::Usage(NotBuiltIn(Feature::Full).to_string()));
                }
                Long("check-config") => flags.set_action(Action::CheckConfig)?,
                Long("print-config") => flags.set_action(Action::PrintConfig)?,
                Long("config") => {
                    let file = parser.value()?;
                    let name = file.to_string_lossy().into_owned();
                    if let Some(earlier) = flags.config.replace(file) {
                        return Err(OptionsError::Usage(format!(
                            "--config `{}`: expected the option once, but it was given before, as `{}`",
                            Escaped(&name),
                            Escaped(&earlier.to_string_lossy())
                        )));
                    }
                }
                Long(name) => {
                    let Some(option) = find(name) else { return Err(argument.unexpected().into()) };
                    let value = match option.value {
                        "" => "true".to_owned(),
                        _ => parser.value()?.into_string().map_err(|value| {
                            OptionsError::Usage(not_utf_8(&format!("--{}", option.name), &value))
                        })?,
                    };
                    flags.settings.push(Setting { option, value, source: Source::Flag });
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(flags)
    }

    fn set_action(&mut self, action: Action) -> Result<(), OptionsError> {
        match std::mem::replace(&mut self.action, action) {
            Action::Serve => Ok(()),
            _ => Err(OptionsError::Usage(
                "--check-config, --print-config: expected only one of them, once".to_owned(),
            )),
        }
    }
}

/// Reads the settings in the environment.
pub(super) fn read_environment(
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Setting>, OptionsError> {
    let mut settings = Vec::new();
    for option in OPTIONS {
        let name = format!("FALCONET_{}", option.name.to_ascii_uppercase().replace('-', "_"));
        let Some(value) = environment(&name) else { continue };
        let value =
            value.into_string().map_err(|value| OptionsError::Config(not_utf_8(&name, &value)))?;
        // So a path with a space can be set only by a flag or in the file.
        let several = value.split_ascii_whitespace().filter(|_| REPEATED.contains(&option.name));
        let values: Vec<String> = several.map(str::to_owned).collect();
        let values = if values.is_empty() { vec![value] } else { values };
        let setting = |value| Setting { option, value, source: Source::Environment };
        settings.extend(values.into_iter().map(setting));
    }
    Ok(settings)
}

/// Reads the settings in the configuration file.
pub(super) fn read_file(path: &Path) -> Result<Vec<Setting>, OptionsError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| OptionsError::Config(format!("can't read the file {name}: {error}")))?;
    let mut settings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let error = |text: String| OptionsError::Config(format!("{name}:{}: {text}", index + 1));
        let Some((key, value)) = line.split_once('=') else {
            return Err(error(malformed_line(line)));
        };
        let (key, value) = (key.trim_ascii(), value.trim_ascii().to_owned());
        let option = find(key).ok_or_else(|| error(unknown_option(key)))?;
        let source = Source::File { path: name.clone(), line: index + 1 };
        settings.push(Setting { option, value, source });
    }
    Ok(settings)
}

/// Returns the error text for a value that is not UTF-8. With a replacement for the other bytes, it would be
/// another path or topic.
fn not_utf_8(name: &str, value: &OsStr) -> String {
    format!("{name} `{}`: expected UTF-8", Escaped(&value.to_string_lossy()))
}

/// Returns the error text for a line without `=`. It quotes nothing of the line but the name of an option,
/// because the file may be a token file that was given by mistake.
fn malformed_line(line: &str) -> String {
    let first = line.split([' ', '\t', ':']).next().and_then(find);
    let name = first.map_or_else(String::new, |option| format!("{}: ", option.name));
    format!("{name}expected `name = value`")
}

/// Returns the error text for a name that no option has. It quotes the name only if the name has the form
/// of an option, because it may be a token (see [`malformed_line`]).
fn unknown_option(key: &str) -> String {
    match key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        true => format!("no option has the name `{key}`"),
        false => "no option has the name before the `=`: expected `name = value`".to_owned(),
    }
}

/// Returns the path of the token file that systemd passes, if there is one (systemd.exec(5),
/// LoadCredential=).
///
/// # Errors
/// [`OptionsError::Config`], if it is unknown whether the file exists: a server that starts without its
/// tokens would let anyone subscribe.
pub(super) fn systemd_token_file(
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<PathBuf>, OptionsError> {
    let Some(directory) = environment("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    let file = Path::new(&directory).join("tokens");
    // A file that exists but can't be read is reported when it is read.
    match std::fs::symlink_metadata(&file) {
        Ok(_) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OptionsError::Config(format!(
            "can't search for the token file {}: {error}",
            file.display()
        ))),
    }
}

/// Applies the settings of one source. Values of a repeatable option replace those of earlier sources.
///
/// # Errors
/// [`OptionsError`], for a value that is not valid, and for a second value of an option that is not repeatable.
pub(super) fn apply(options: &mut Options, settings: Vec<Setting>) -> Result<(), OptionsError> {
    for (index, setting) in settings.iter().enumerate() {
        let name = setting.option.name;
        let earlier = settings[..index].iter().find(|earlier| earlier.option.name == name);
        if let Some(earlier) = earlier.filter(|_| !REPEATED.contains(&name)) {
            return Err(setting.error_of_repeat(earlier));
        }
        match name {
            "listen" => options.listen.clear(),
            "origin" => options.origins = Origins::default(),
            "trust-proxy" => options.trusted_proxies.clear(),
            _ => {}
        }
    }
    for setting in settings {
        (setting.option.set)(options, &setting.value)
            .map_err(|expected| setting.error(&expected))?;
    }
    Ok(())
}

/// True if this build has the options that print manual pages, completions, units and the default file.
const HAS_PRINT_OPTIONS: bool = Feature::Full.is_built_in();
