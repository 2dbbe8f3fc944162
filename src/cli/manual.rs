//! Manual pages and shell completions, generated from the help so that they never differ from it.

use super::options::OptionsError;
use crate::escaped::Escaped;

/// Returns the manual page of a program in roff (man(7)), generated from its help.
///
/// The first line of the help is `NAME: SUMMARY`. Paragraphs follow; examples, which are indented by two
/// spaces; and options, whose descriptions continue on lines that are indented by `TEXT_COLUMN` spaces.
pub fn manual(help: &str) -> String {
    let help = &join_descriptions(help);
    let (title, rest) = help.split_once('\n').unwrap_or((help, ""));
    let (name, summary) = title.split_once(": ").unwrap_or((title, ""));
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH {} 1 \"\" \"falconet {version}\"\n", name.to_uppercase());
    page += &format!(".SH NAME\n{} \\- {}\n.SH SYNOPSIS\n", roff(name), roff(summary));
    let mut previous = Line::Empty;
    for text in rest.lines() {
        let line = Line::of(text);
        write_roff(&mut page, text, line, previous);
        previous = line;
    }
    page + ".SH SEE ALSO\n.BR falconet (1),\n.BR falconet\\-client (1)\n"
}

/// Returns a script that completes the options in a help. The shell is `bash`, `zsh` or `fish`.
///
/// # Errors
/// [`OptionsError::Usage`], if the shell is another one.
pub fn completions(shell: &str, help: &str) -> Result<String, OptionsError> {
    let help = &join_descriptions(help);
    let name = help.split(':').next().unwrap_or_default();
    match shell {
        "bash" => Ok(complete_bash(name, help)),
        "zsh" => Ok(complete_zsh(name, help)),
        "fish" => Ok(complete_fish(name, help)),
        other => Err(OptionsError::Usage(format!(
            "--print-completions `{}`: expected one of bash, zsh, fish",
            Escaped(other)
        ))),
    }
}

/// Puts the description of each option on one line.
fn join_descriptions(help: &str) -> String {
    help.replace(CONTINUATION, " ")
}

/// The kind of a line in a help.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Empty,
    Usage,
    Options,
    Codes,
    Option,
    Example,
    Text,
}

impl Line {
    fn of(text: &str) -> Self {
        match text {
            "" => Self::Empty,
            text if text.starts_with("Usage: ") || text.starts_with("       falconet") => {
                Self::Usage
            }
            text if text.starts_with("Options") => Self::Options,
            text if text.starts_with("Exit codes: ") => Self::Codes,
            text if text.starts_with("  -") => Self::Option,
            text if text.starts_with("  ") => Self::Example,
            _ => Self::Text,
        }
    }
}

/// Appends a line of the help, of kind `line`, after one of kind `previous`.
fn write_roff(page: &mut String, text: &str, line: Line, previous: Line) {
    let mut begin = |macros: &str| page.push_str(macros);
    match (line, previous) {
        (Line::Example, previous) if previous != Line::Example => begin(".PP\n.nf\n"),
        (line, Line::Example) if line != Line::Example => begin(".fi\n"),
        _ => {}
    }
    match (line, previous) {
        (Line::Empty, _) => return,
        (Line::Usage, Line::Usage) => begin(".br\n"),
        (Line::Text, Line::Usage) => {}
        (Line::Options, _) => {
            let is_first = !page.contains(".SH OPTIONS\n");
            page.push_str(if is_first { ".SH OPTIONS\n" } else { ".PP\n" });
            if text == "Options:" {
                return;
            }
        }
        (Line::Codes, _) => page.push_str(".SH EXIT STATUS\n"),
        (Line::Text, Line::Empty) if !page.contains(".SH DESCRIPTION\n") => {
            page.push_str(".SH DESCRIPTION\n");
        }
        (Line::Text, Line::Empty) => page.push_str(".PP\n"),
        (Line::Option, _) => {
            let entry = Entry::of(text);
            page.push_str(".TP\n.B ");
            page.push_str(&roff(entry.flags));
            page.push('\n');
            page.push_str(&roff(entry.text));
            page.push('\n');
            return;
        }
        _ => {}
    }
    let text = text.trim_start_matches("Usage: ").trim_start_matches("Exit codes: ");
    page.push_str(&roff(text.trim_start()));
    page.push('\n');
}

/// Escapes a text so that roff prints it unchanged.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// The entry of an option in a help.
struct Entry<'h> {
    /// `-h, --help` or `--config FILE`.
    flags: &'h str,
    /// The long name, without its hyphens.
    name: &'h str,
    /// The placeholder of the value; empty for a switch.
    value: &'h str,
    /// The description.
    text: &'h str,
}

impl<'h> Entry<'h> {
    fn of(line: &'h str) -> Self {
        let line = line.trim_start();
        // The description begins at the first word that is neither a flag nor a placeholder.
        let is_flag =
            |word: &str| word.starts_with('-') || word.bytes().all(|b| b.is_ascii_uppercase());
        let mut words = line.split(' ').take_while(|word| !word.is_empty() && is_flag(word));
        let length: usize = words.by_ref().map(|word| word.len() + 1).sum();
        let (flags, text) = line.split_at(length.min(line.len()));
        let flags = flags.trim_end();
        let long = flags.split("--").nth(1).unwrap_or_default();
        let (name, value) = long.split_once(' ').unwrap_or((long, ""));
        Self { flags, name, value, text: text.trim_start() }
    }

    /// Returns all entries of a help.
    fn all(help: &'h str) -> impl Iterator<Item = Self> {
        help.lines().filter(|line| Line::of(line) == Line::Option).map(Self::of)
    }

    /// Returns the short name, if there is one.
    fn short(&self) -> Option<char> {
        self.flags.strip_prefix('-')?.chars().next().filter(|short| *short != '-')
    }

    /// Returns the description without the default.
    fn description(&self) -> &'h str {
        self.text.split(" [default").next().unwrap_or_default()
    }
}

fn complete_bash(name: &str, help: &str) -> String {
    let (mut files, mut directories, mut others, mut all) =
        (String::new(), String::new(), String::new(), String::new());
    for entry in Entry::all(help) {
        all += &format!(" --{}", entry.name);
        let values = match entry.value {
            "" => continue,
            "FILE" => &mut files,
            "DIR" => &mut directories,
            _ => &mut others,
        };
        values.push_str(&format!("|--{}", entry.name));
    }
    let mut script = format!("_{name}() {{\n  COMPREPLY=()\n  case $3 in\n");
    for (flags, action) in [
        (files, "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$2\")"),
        (directories, "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$2\")"),
        (others, ""),
        ("|*".to_owned(), "mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$2\")"),
    ] {
        if let Some(flags) = flags.strip_prefix('|') {
            script += &format!("    {flags}) {action} ;;\n");
        }
    }
    script = script.replace("$words", all.trim_start());
    script + &format!("  esac\n}}\ncomplete -F _{name} {name}\n")
}

fn complete_zsh(name: &str, help: &str) -> String {
    let mut script = format!("#compdef {name}\n\n_arguments");
    for entry in Entry::all(help) {
        let text = entry.description().replace('\'', "'\\''").replace([':', '[', ']'], " ");
        let value = match entry.value {
            "" => String::new(),
            "FILE" => ":FILE:_files".to_owned(),
            "DIR" => ":DIR:_files -/".to_owned(),
            other => format!(":{other}:"),
        };
        script += &format!(" \\\n  '*--{}[{text}]{value}'", entry.name);
    }
    script + "\n"
}

fn complete_fish(name: &str, help: &str) -> String {
    let mut script = format!("complete -c {name} -f\n");
    for entry in Entry::all(help) {
        let text = entry.description().replace('\\', "\\\\").replace('\'', "\\'");
        let short = entry.short().map_or(String::new(), |short| format!(" -s {short}"));
        let value = match entry.value {
            "" => "",
            "FILE" => " -r -F",
            "DIR" => " -x -a '(__fish_complete_directories)'",
            _ => " -x",
        };
        script += &format!("complete -c {name}{short} -l {}{value} -d '{text}'\n", entry.name);
    }
    script
}

/// The column, counted from 0, at which the descriptions of options begin in a help.
pub(super) const TEXT_COLUMN: usize = 27;
/// The line break within a description, with the indentation after it: `TEXT_COLUMN` spaces.
pub(super) const CONTINUATION: &str = "\n                           ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_option_is_split_into_its_parts() {
        for (line, flags, name, value, short) in [
            ("  --config FILE            read it", "--config FILE", "config", "FILE", None),
            (
                "  --max-publish-rate COUNT how many",
                "--max-publish-rate COUNT",
                "max-publish-rate",
                "COUNT",
                None,
            ),
            ("  -h, --help               print this", "-h, --help", "help", "", Some('h')),
            ("  --insecure               trust any", "--insecure", "insecure", "", None),
        ] {
            let entry = Entry::of(line);
            let got = (entry.flags, entry.name, entry.value, entry.short());
            assert_eq!(got, (flags, name, value, short));
            assert!(line.ends_with(&format!(" {}", entry.text)), "{}", entry.text);
        }
    }

    #[test]
    fn escaped_text_is_printed_unchanged_by_roff() {
        assert_eq!(roff(".x\\n-1"), "\\&.x\\en\\-1");
        assert_eq!(roff("'x"), "\\&'x");
    }
}
