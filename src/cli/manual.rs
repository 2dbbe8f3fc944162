//! Manual pages and completions, made from the help: what is in one is in all.

use super::OptionsError;
use crate::escaped::Escaped;

/// The manual page of a program in roff (man(7)), from its help: `NAME: what it is`, then paragraphs,
/// examples with two spaces in front, and options that go on at `TEXT_COLUMN`.
pub fn manual(help: &str) -> String {
    let (title, rest) = help.split_once('\n').unwrap_or((help, ""));
    let (name, what) = title.split_once(": ").unwrap_or((title, ""));
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH {} 1 \"\" \"falconet {version}\"\n", name.to_uppercase());
    page += &format!(".SH NAME\n{} \\- {}\n.SH SYNOPSIS\n", roff(name), roff(what));
    let mut above = Line::Empty;
    for text in rest.lines() {
        let line = Line::of(text);
        write_roff(&mut page, text, line, above);
        above = line;
    }
    page + ".SH SEE ALSO\n.BR falconet (1),\n.BR falconet\\-client (1)\n"
}

/// The options in a help, completed in a shell: `bash`, `zsh` or `fish`.
///
/// # Errors
/// [`OptionsError::Usage`], if it is another shell.
pub fn completions(shell: &str, help: &str) -> Result<String, OptionsError> {
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

/// What a line of a help is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Empty,
    Usage,
    Options,
    Codes,
    Option,
    Continued,
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
            text if text.len() > TEXT_COLUMN && text[..TEXT_COLUMN].trim().is_empty() => {
                Self::Continued
            }
            text if text.starts_with("  ") => Self::Example,
            _ => Self::Text,
        }
    }
}

fn write_roff(page: &mut String, text: &str, line: Line, above: Line) {
    let mut begin = |macros: &str| page.push_str(macros);
    match (line, above) {
        (Line::Example, above) if above != Line::Example => begin(".PP\n.nf\n"),
        (line, Line::Example) if line != Line::Example => begin(".fi\n"),
        _ => {}
    }
    match (line, above) {
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

/// A text in which roff finds nothing to do.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// An option in a help.
struct Entry<'h> {
    /// `-h, --help` or `--config FILE`.
    flags: &'h str,
    /// The long name, without its hyphens.
    name: &'h str,
    /// What stands for its value; empty for a switch.
    value: &'h str,
    text: &'h str,
}

impl<'h> Entry<'h> {
    fn of(line: &'h str) -> Self {
        let line = line.trim_start();
        // The text begins at the first word that is neither a flag nor stands for a value.
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

    fn all(help: &'h str) -> impl Iterator<Item = Self> {
        help.lines().filter(|line| Line::of(line) == Line::Option).map(Self::of)
    }

    /// The short name, if it has one.
    fn short(&self) -> Option<char> {
        self.flags.strip_prefix('-')?.chars().next().filter(|short| *short != '-')
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
        let text = entry.text.replace('\'', "'\\''").replace([':', '[', ']'], " ");
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
        let text = entry.text.replace('\\', "\\\\").replace('\'', "\\'");
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

/// Where the texts of options begin in a help.
const TEXT_COLUMN: usize = 27;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_in_the_help_is_taken_apart() {
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
    fn roff_leaves_a_text_as_it_is() {
        assert_eq!(roff(".x\\n-1"), "\\&.x\\en\\-1");
        assert_eq!(roff("'x"), "\\&'x");
    }
}
