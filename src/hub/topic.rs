//! The name of a topic, and what the hub has of it.

use std::fmt;
use std::rc::Rc;

use super::log::Log;
use crate::escaped::Escaped;

/// The name of a topic: 1 to 128 bytes of `A–Z a–z 0–9 . _ -` and `/`, where no segment is empty, `.` or
/// `..`. Its URL is `/topics/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Rc<str>);

impl TopicName {
    /// The topic that clients of an endpoint hear: `broadcast`.
    pub fn broadcast() -> Self {
        Self(BROADCAST.into())
    }

    /// The topic of the administrator's events. Its name is none that a path can have.
    pub(crate) fn stats() -> Self {
        Self(STATS.into())
    }

    /// Whether it is the server's own, which nobody is told of.
    pub(super) fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL)
    }

    /// Whether it is the topic that always exists.
    pub(super) fn is_broadcast(&self) -> bool {
        *self.0 == *BROADCAST
    }

    /// Reads a name.
    ///
    /// # Errors
    /// [`TopicNameError`], if it is none.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let segments = !name.split('/').any(|segment| matches!(segment, "" | "." | ".."));
        if segments && name.len() <= MAX_NAME_BYTES && name.bytes().all(harmless) {
            Ok(Self(name.into()))
        } else {
            Err(TopicNameError { name: name.to_owned() })
        }
    }

    /// The path of its URL.
    pub fn path(&self) -> String {
        format!("/topics/{}", self.0)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no topic's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNameError {
    name: String,
}

impl fmt::Display for TopicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no topic's name: expected 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ - and /, with \
             no segment empty, `.` or `..`",
            Escaped(&self.name)
        )
    }
}

impl std::error::Error for TopicNameError {}

/// One topic: its log, and who is to be told of it.
pub(super) struct Topic {
    pub(super) log: Log,
    /// The subscribers' slots, in no order.
    pub(super) subscribers: Vec<u32>,
}

impl Topic {
    /// A topic without messages and subscribers.
    pub(super) fn new(name: TopicName) -> Self {
        Self { log: Log::new(name), subscribers: Vec::new() }
    }

    pub(super) fn name(&self) -> &TopicName {
        self.log.topic()
    }
}

/// A topic as others may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name.
    pub name: TopicName,
    /// How many clients are subscribed.
    pub subscribers: usize,
    /// The sequence number of the last message; 0 before the first.
    pub sequence: u64,
}

const BROADCAST: &str = "broadcast";
const STATS: &str = "$stats";
/// What the name of no other topic has. It comes before all that they may have.
const INTERNAL: char = '$';
const MAX_NAME_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_topics_are_out_of_reach() {
        let stats = TopicName::stats();
        assert!(stats.is_internal());
        assert!(TopicName::new(stats.as_str()).is_err());
        for first in "-09AZ_az".chars() {
            let topic = TopicName::new(&first.to_string()).unwrap();
            assert!(!topic.is_internal(), "{topic}");
        }
    }

    #[test]
    fn names_are_what_a_path_can_be_trusted_with() {
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
            assert!(error.contains("is no topic's name: expected"), "{error}");
        }
        let error = TopicName::new("a\x1b[2J").unwrap_err().to_string();
        assert!(!error.contains('\x1b'), "{error}");
    }
}
