//! Escaping of untrusted text for log lines and error messages.

use std::fmt::{self, Write};

/// An untrusted text. `Display` writes it with all characters but printable ASCII replaced by Rust's
/// escape sequences, so that the text can't contain line breaks, terminal colours or a change of the
/// text direction.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            ' '..='~' => f.write_char(character),
            _ => character.escape_default().fmt(f),
        })
    }
}
