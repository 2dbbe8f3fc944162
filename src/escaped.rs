//! Escaping of untrusted text for log lines, error messages and JSON.

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

/// A text as a JSON string (RFC 8259 §7): `Display` writes it in quotes, with all characters escaped that a JSON
/// string can't contain.
pub(crate) struct JsonString<'a>(pub(crate) &'a str);

impl fmt::Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut rest = self.0;
        while let Some(index) = rest.find(|one| matches!(one, '"' | '\\' | '\0'..' ')) {
            let (plain, escaped) = rest.split_at(index);
            f.write_str(plain)?;
            match escaped.as_bytes()[0] {
                byte @ (b'"' | b'\\') => write!(f, "\\{}", char::from(byte))?,
                byte => write!(f, "\\u{byte:04x}")?,
            }
            rest = &escaped[1..];
        }
        f.write_str(rest)?;
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_characters_becomes_a_json_string() {
        let json = JsonString("/a\"b\\c\n\u{e9}").to_string();
        assert_eq!(json, "\"/a\\\"b\\\\c\\u000a\u{e9}\"");
        assert_eq!(JsonString("").to_string(), "\"\"");
        assert_eq!(JsonString("\0\u{1f}").to_string(), "\"\\u0000\\u001f\"");
    }
}
