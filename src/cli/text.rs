//! Texts that the program prints on request: help, configuration files and systemd units.

use super::manual::{CONTINUATION, TEXT_COLUMN};
use super::options::{Options, OptionsError};
use super::table::{OPTIONS, OptionSpec, REPEATED};
use crate::escaped::Escaped;
use crate::features::Feature;

/// Returns the help, with every option and its default.
pub fn help() -> String {
    let mut text = String::from(HELP_HEAD);
    if Feature::Full.is_built_in() {
        text += HELP_OF_TOPICS;
    }
    text += HELP_OPTIONS;
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let (flag, default) = (option.flag(), option.default());
        text += &format!("  {flag:<24}");
        push_wrapped(&mut text, option.help);
        text += &format!("{CONTINUATION}[default: {default}]\n");
    }
    text += HELP_TAIL;
    if Feature::Full.is_built_in() {
        text += HELP_OF_SYSTEM;
    }
    text + HELP_END
}

/// Appends the description of an option, broken into lines of at most [`HELP_COLUMNS`].
fn push_wrapped(text: &mut String, description: &str) {
    let mut column = TEXT_COLUMN - 1;
    for word in description.split(' ') {
        if column + 1 + word.len() > HELP_COLUMNS {
            text.push_str(CONTINUATION);
            column = TEXT_COLUMN;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
}

/// Returns the configuration in the format of a `--config` file.
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

/// Returns a `--config` file that sets nothing; its comments describe every option and show its default.
pub fn print_default_config() -> String {
    let mut text = String::from(CONFIG_HEAD);
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let default = (option.show)(&Options::default());
        let value = if default.is_empty() { option.value } else { &default };
        text += &format!("\n# {}\n#{} = {value}\n", option.help, option.name);
    }
    text
}

/// Returns the text of the systemd unit `falconet.NAME`.
///
/// # Errors
/// [`OptionsError::Usage`], if there is no such unit.
pub(super) fn unit(name: &str) -> Result<&'static str, OptionsError> {
    match name {
        "service" => Ok(include_str!("falconet.service")),
        "socket" => Ok(include_str!("falconet.socket")),
        other => Err(OptionsError::Usage(format!(
            "--print-unit `{}`: expected one of service, socket",
            Escaped(other)
        ))),
    }
}

const CONFIG_HEAD: &str = "\
# Configuration of falconet(1). Flags and FALCONET_NAME environment variables override this file.
";
/// The width of the help, so that it fits a terminal of the usual size.
const HELP_COLUMNS: usize = 80;
const HELP_HEAD: &str = "\
falconet: a WebSocket server for small hosts

Usage: falconet [OPTION...]

Serves a web page and, at the same URL, a WebSocket that echoes each message and
sends the server time.
";
const HELP_OF_TOPICS: &str = "
Topics: publish to /topics/NAME by POST or WebSocket, subscribe by WebSocket or
server-sent events.

  producer | falconet --stdin NAME     publishes each line to /topics/NAME
";
const HELP_OPTIONS: &str = "
Options (flags override FALCONET_NAME variables, which override the file):
";
const HELP_TAIL: &str = "
  --config FILE            read lines of `name = value` from FILE; # begins
                           a comment
  --check-config           check the configuration, and exit
  --print-config           print the effective configuration, and exit
";
const HELP_OF_SYSTEM: &str =
    "  --print-default-config   print a file for --config with all defaults, and
                           exit
  --print-unit NAME        print a systemd unit (service or socket), and exit
  --print-man              print the manual page, and exit
  --print-completions SHELL print completions for bash, zsh or fish, and exit
";
const HELP_END: &str = "  -h, --help               print this help, and exit
  -V, --version            print the version, and exit

A TIME is a number with a unit, such as 250ms, 25s, 2m or 1h. A SIZE is a number
of bytes, or a number with k or m, such as 64k or 1m.
Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage, 78 bad configuration.
";
