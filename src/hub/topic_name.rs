//! Names of topics.

use std::fmt;
use std::rc::Rc;

use crate::escaped::Escaped;

/// The name of a topic: 1 to 128 bytes of `A–Z a–z 0–9 . _ -` and `/`, in which no segment is empty, `.`
/// or `..`. The URL of the topic is `/topics/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Rc<str>);

impl TopicName {
    /// Returns the name `broadcast`, the topic that the clients of all endpoints subscribe to.
    pub fn broadcast() -> Self {
        Self(BROADCAST.into())
    }

    /// Returns the name of the topic of the administrator's events. [`TopicName::new`] refuses it, so no
    /// request can name the topic.
    pub(crate) fn stats() -> Self {
        Self(STATS.into())
    }

    /// Returns true for one of the server's own topics, which are not shown to clients.
    pub(super) fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL)
    }

    /// Returns true for `broadcast`, which always exists.
    pub(super) fn is_broadcast(&self) -> bool {
        *self.0 == *BROADCAST
    }

    /// Parses a name.
    ///
    /// # Errors
    /// [`TopicNameError`], if `name` breaks one of the rules above.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let has_valid_segments = !name.split('/').any(|segment| matches!(segment, "" | "." | ".."));
        if has_valid_segments && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_allowed) {
            Ok(Self(name.into()))
        } else {
            Err(TopicNameError { name: name.to_owned() })
        }
    }

    /// Returns the path of the topic's URL.
    pub fn path(&self) -> String {
        format!("{TOPICS_PATH}{}", self.0)
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error that a text is not the name of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNameError {
    name: String,
}

impl fmt::Display for TopicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a topic name: expected 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ - and /, with \
             no segment empty, `.` or `..`",
            Escaped(&self.name)
        )
    }
}

impl std::error::Error for TopicNameError {}

/// The path below which the topics are.
pub(crate) const TOPICS_PATH: &str = "/topics/";
const BROADCAST: &str = "broadcast";
const STATS: &str = "$stats";
/// The first character of the names of the server's own topics. No other name contains it, and it sorts
/// before all characters that other names can contain.
const INTERNAL: char = '$';
const MAX_NAME_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsed_name_is_never_that_of_an_internal_topic() {
        let stats = TopicName::stats();
        assert!(stats.is_internal());
        assert!(TopicName::new(stats.as_str()).is_err());
        for first in "-09AZ_az".chars() {
            let topic = TopicName::new(&first.to_string()).unwrap();
            assert!(!topic.is_internal(), "{topic}");
        }
    }

    #[test]
    fn a_name_is_safe_as_a_path() {
        for name in ["a", "garden/temperature", "A-z_0.9", "...", "a/.b", &"x".repeat(128)] {
            let topic = TopicName::new(name).unwrap();
            assert_eq!(topic.as_str(), name);
            assert_eq!(topic.path(), format!("/topics/{name}"));
        }
        let long = "x".repeat(129);
        for name in
            ["", "/", "a/", "/a", "a//b", ".", "a/..", "../a", "a b", "a%20", "ä", "a\0", &long]
        {
            let error = TopicName::new(name).unwrap_err().to_string();
            assert!(error.contains("is not a topic name: expected"), "{error}");
        }
        let error = TopicName::new("a\x1b[2J").unwrap_err().to_string();
        assert!(!error.contains('\x1b'), "{error}");
    }
}
