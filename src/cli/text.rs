//! What is printed when asked for: the help, the configuration, what systemd needs.

use super::table::{OPTIONS, OptionSpec, REPEATED};
use super::{Options, OptionsError};
use crate::escaped::Escaped;
use crate::features::Feature;

/// The help, with every option and its default.
pub fn help() -> String {
    let mut text = String::from(HELP_HEAD);
    if Feature::Full.is_built_in() {
        text += HELP_OF_TOPICS;
    }
    text += HELP_OPTIONS;
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let (flag, default) = (option.flag(), option.default());
        text += &format!("  {flag:<24} {}\n{:27}[default: {default}]\n", option.help, "");
    }
    text += HELP_TAIL;
    if Feature::Full.is_built_in() {
        text += HELP_OF_SYSTEM;
    }
    text + HELP_END
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

/// A file `--config` reads in which nothing is set, and every option explained and shown with its default.
pub fn print_default_config() -> String {
    let mut text = String::from(CONFIG_HEAD);
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let default = (option.show)(&Options::default());
        let value = if default.is_empty() { option.value } else { &default };
        text += &format!("\n# {}\n#{} = {value}\n", option.help, option.name);
    }
    text
}

/// The unit of systemd that is called `falconet.NAME`.
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
# The configuration of falconet(1). Flags and FALCONET_NAME in the environment beat what is set here.
";
const HELP_HEAD: &str = "\
falconet: a WebSocket server for small hosts

Usage: falconet [OPTION...]

Serves a page, an echo WebSocket at the same URL, and the time to everybody.
";
const HELP_OF_TOPICS: &str = "\
Topics: publish to /topics/NAME with POST or WebSocket, subscribe with WebSocket or SSE.

  producer | falconet --stdin NAME     each line to whoever hears /topics/NAME
";
const HELP_OPTIONS: &str = "
Options, from a flag, else FALCONET_NAME in the environment, else the file:
";
const HELP_TAIL: &str = "
  --config FILE            read `name = value` lines from FILE (# begins a comment)
  --check-config           say whether the configuration is good, and exit
  --print-config           print the effective configuration, and exit
";
const HELP_OF_SYSTEM: &str =
    "  --print-default-config   print a configuration in which nothing is set, and exit
  --print-unit NAME        print a unit for systemd, and exit: service or socket
  --print-man              print the manual page, and exit
  --print-completions SHELL print completions for bash, zsh or fish, and exit
";
const HELP_END: &str = "  -h, --help               print this, and exit
  -V, --version            print the version, and exit

Times are like 250ms, 25s, 2m, 1h; 0 is off (for --close-timeout: do not wait). Sizes are bytes, or like 64k, 1m.
Exit codes: 0 stopped, 1 failed, 2 wrong usage, 78 bad configuration.
";
