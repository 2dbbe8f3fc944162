//! The names of topics.

use std::fmt;
use std::str::FromStr;

/// A topic's name: 1 to 128 bytes of `A–Z a–z 0–9 . _ - /`, in segments of which none is empty, `.` or
/// `..`, so that it stands in a URL as it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TopicName(String);

impl TopicName {
    /// The path of the topic on a server.
    pub(crate) fn path(&self) -> String {
        format!("/topics/{}", self.0)
    }
}

impl FromStr for TopicName {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let is_good = text.len() <= MAX_NAME_BYTES
            && text.bytes().all(is_plain)
            && text.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        is_good.then(|| Self(text.to_owned())).ok_or_else(|| TopicError(text.to_owned()))
    }
}

/// Says which text is no topic's name and what one looks like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TopicError(String);

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no topic's name: expected 1 to {MAX_NAME_BYTES} bytes of A-Z a-z 0-9 . _ - /, \
             without an empty, `.` or `..` segment",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for TopicError {}

const MAX_NAME_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_in_a_path_as_it_is() {
        let longest = "x".repeat(128);
        for name in ["a", "backups", "house/attic/temp_1", "...", ".a/b..", "A-Z.09", &longest] {
            assert_eq!(name.parse::<TopicName>().unwrap().path(), format!("/topics/{name}"));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_would_be_right() {
        let too_long = "x".repeat(129);
        for name in
            ["", "/a", "a/", "a//b", ".", "a/../b", "a/.", "a b", "ä", "a?b", "a%2f", &too_long]
        {
            let error = name.parse::<TopicName>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{name}` is no topic's name: expected")),
                "{error}"
            );
        }
        let error = "a\x1b[2J".parse::<TopicName>().unwrap_err().to_string();
        assert!(!error.contains('\x1b'), "{error}");
    }
}
