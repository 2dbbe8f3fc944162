//! How texts from elsewhere are shown.

use std::fmt::{self, Write};

/// A text of any origin, shown in a line that nothing in it can end, colour or turn around: what is not
/// printable ASCII stands as an escape of Rust's.
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
