//! Where values come from: flags, the environment, a file.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::table::{OPTIONS, OptionSpec, REPEATED, find};
use super::text::{help, print_default_config, unit};
use super::{Command, Options, OptionsError, completions, manual};
use crate::access::Origins;
use crate::escaped::Escaped;
use crate::features::{Feature, NotBuiltIn};

/// A value for an option, and where it came from.
pub(super) struct Setting {
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

/// What is to be done with the options.
pub(super) enum Action {
    Serve,
    CheckConfig,
    PrintConfig,
}

/// What the command line says.
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
                // What is printed for the host's system.
                Long("print-man") if PRINTS => {
                    flags.information = Some(Command::Print(manual(&help())));
                }
                Long("print-completions") if PRINTS => {
                    let script = completions(&parser.value()?.to_string_lossy(), &help())?;
                    flags.information = Some(Command::Print(script));
                }
                Long("print-unit") if PRINTS => {
                    let unit = unit(&parser.value()?.to_string_lossy())?;
                    flags.information = Some(Command::Print(unit.to_owned()));
                }
                Long("print-default-config") if PRINTS => {
                    flags.information = Some(Command::Print(print_default_config()));
                }
                Long("print-man" | "print-completions" | "print-unit" | "print-default-config") => {
                    return Err(OptionsError::Usage(NotBuiltIn(Feature::Full).to_string()));
                }
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

/// What the environment says.
pub(super) fn read_environment(
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Setting>, OptionsError> {
    let mut settings = Vec::new();
    for option in OPTIONS {
        let name = format!("FALCONET_{}", option.name.to_ascii_uppercase().replace('-', "_"));
        let Some(value) = environment(&name) else { continue };
        let value = value.to_string_lossy().into_owned();
        // A path with a space is for a flag or the file.
        let several = value.split_ascii_whitespace().filter(|_| REPEATED.contains(&option.name));
        let values: Vec<String> = several.map(str::to_owned).collect();
        let values = if values.is_empty() { vec![value] } else { values };
        let setting = |value| Setting { option, value, origin: Origin::Environment };
        settings.extend(values.into_iter().map(setting));
    }
    Ok(settings)
}

/// What the file says.
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
        let wrong = |what: String| OptionsError::Config(format!("{name}:{}: {what}", index + 1));
        let Some((key, value)) = line.split_once('=') else {
            return Err(wrong(no_setting(line)));
        };
        let (key, value) = (key.trim_ascii(), value.trim_ascii().to_owned());
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
pub(super) fn passed_tokens(
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
pub(super) fn apply(options: &mut Options, settings: Vec<Setting>) -> Result<(), OptionsError> {
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
            let (name, value) = (option.name, Escaped(&value));
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

/// Whether this build prints what a service of the host needs.
const PRINTS: bool = Feature::Full.is_built_in();
