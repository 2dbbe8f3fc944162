//! What is printed when asked for: the help, the configuration.

use super::Options;
use super::table::{OPTIONS, OptionSpec, REPEATED};

/// The help, with every option and its default.
pub fn help() -> String {
    let mut text = String::from(HELP_HEAD);
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let (flag, default) = (option.flag(), option.default());
        text += &format!("  {flag:<24} {}\n{:27}[default: {default}]\n", option.help, "");
    }
    text + HELP_TAIL
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

const HELP_HEAD: &str = "\
falconet: a WebSocket server for small hosts

Usage: falconet [OPTION...]

Serves a page, an echo WebSocket at the same URL, the time to everybody, and topics:
publish to /topics/NAME with POST or WebSocket, subscribe with WebSocket or SSE.

  producer | falconet --stdin NAME     each line to whoever hears /topics/NAME

Options, from a flag, else FALCONET_NAME in the environment, else the file:
";
const HELP_TAIL: &str = "
  --config FILE            read `name = value` lines from FILE (# begins a comment)
  --check-config           say whether the configuration is good, and exit
  --print-config           print the effective configuration, and exit
  -h, --help               print this, and exit
  -V, --version            print the version, and exit

Times are like 250ms, 25s, 2m, 1h; 0 is off (for --close-timeout: do not wait). Sizes are bytes, or like 64k, 1m.
Exit codes: 0 stopped, 1 failed, 2 wrong usage, 78 bad configuration.
";
