//! Names of topics.

use std::fmt;
use std::rc::Rc;

use crate::escaped::Escaped;
use crate::http::percent::{percent_decode, percent_encode};

/// The name of a topic: 1 to 256 bytes of UTF-8 without control characters, `+` and `#`, in which no segment
/// between slashes is empty, `.` or `..`.
///
/// Two names are equal if their bytes are: Unicode is not normalized. Clients can subscribe to a topic whose name
/// begins with `$`, but only the program of the server can publish to it.
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

    /// Returns true for a name that begins with `$`: clients may not publish to it. MQTT reserves such names
    /// for the server, too (MQTT 5.0 §4.7.2).
    pub(crate) fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// Parses a name.
    ///
    /// ```
    /// use falconet::TopicName;
    ///
    /// for name in ["garden/temperature", "zigbee2mqtt/Living Room", "home/küche", "50%, or less?"] {
    ///     assert_eq!(TopicName::new(name)?.as_str(), name);
    /// }
    /// for name in ["", "/garden", "garden//gate", "garden/..", "garden/+", "garden/#", "two\nlines"] {
    ///     assert!(TopicName::new(name).is_err(), "{name:?}");
    /// }
    /// # Ok::<(), falconet::TopicNameError>(())
    /// ```
    ///
    /// # Errors
    /// [`TopicNameError`], if `name` breaks one of the rules above.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        let is_refused = |character: char| character.is_control() || matches!(character, '+' | '#');
        let has_valid_segments = !name.split('/').any(|segment| matches!(segment, "" | "." | ".."));
        if has_valid_segments && name.len() <= MAX_NAME_BYTES && !name.contains(is_refused) {
            Ok(Self(name.into()))
        } else {
            Err(TopicNameError { name: name.to_owned() })
        }
    }

    /// Parses a name in its [encoded](Self::encoded) form, in which a comma is reserved for lists of names.
    /// Returns `None` if `encoded` is not the encoded form of a name.
    pub(crate) fn decode(encoded: &str) -> Option<Self> {
        let decoded = percent_decode(encoded).filter(|_| !encoded.contains(','))?;
        Self::new(&String::from_utf8(decoded).ok()?).ok()
    }

    /// Returns the name in the percent-encoded form that it has in URLs and between spaces.
    pub(crate) fn encoded(&self) -> String {
        percent_encode(&self.0)
    }

    /// Returns the path of the topic's URL.
    ///
    /// ```
    /// # use falconet::TopicName;
    /// let topic = TopicName::new("home/Living Room")?;
    /// assert_eq!(topic.path(), "/topics/home/Living%20Room");
    /// # Ok::<(), falconet::TopicNameError>(())
    /// ```
    pub fn path(&self) -> String {
        format!("{TOPICS_PATH}{}", self.encoded())
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
            "`{}` is not a topic name: expected 1 to {MAX_NAME_BYTES} bytes of UTF-8 without control characters, \
             `+` and `#`, with no segment between slashes empty, `.` or `..`",
            Escaped(&self.name)
        )
    }
}

impl std::error::Error for TopicNameError {}

/// The path below which the topics are.
pub(crate) const TOPICS_PATH: &str = "/topics/";
const BROADCAST: &str = "broadcast";
const STATS: &str = "\0stats";
/// The first character of the names of the server's own topics. No other name contains it, and it sorts
/// before all characters that other names can contain.
const INTERNAL: char = '\0';
const MAX_NAME_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsed_name_is_never_that_of_an_internal_topic() {
        let stats = TopicName::stats();
        assert!(stats.is_internal());
        assert!(TopicName::new(stats.as_str()).is_err());
        for name in [" ", "!", "$stats", "-", "stats", "\u{a0}", "\u{10ffff}"] {
            let topic = TopicName::new(name).unwrap();
            assert!(!topic.is_internal() && topic > stats, "{topic}");
        }
    }

    #[test]
    fn a_name_is_any_text_but_control_characters_wildcards_and_dot_segments() {
        for name in [
            "a",
            "garden/temperature",
            "A-z_0.9",
            "...",
            "a/.b",
            "zigbee2mqtt/Living Room",
            "home/küche",
            "home/ku\u{308}che",
            "🦅/☂",
            "$SYS/load",
            " ",
            "a%2Fb",
            "%",
            "a,b;c?d&e=f:g@h!i*j~k",
            r#"a"b\c'd<e>"#,
            "\u{feff}\u{202e}\u{2028}\u{fffd}",
            &"x".repeat(256),
            &"🦅".repeat(64),
        ] {
            assert_eq!(TopicName::new(name).expect(name).as_str(), name);
        }
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "a/..",
            "../a",
            "a/./b",
            "a+b",
            "+",
            "a/#",
            "a\0",
            "a\nb",
            "\x7f",
            "a\u{85}",
            "\u{9b}",
            &"x".repeat(257),
            &("🦅".repeat(64) + "x"),
        ] {
            let error = TopicName::new(name).expect_err(name).to_string();
            assert!(error.contains("is not a topic name: expected 1 to 256 bytes"), "{error}");
        }
        let error = TopicName::new("a\x1b[2J").unwrap_err().to_string();
        assert!(error.starts_with(r"`a\u{1b}[2J` is not"), "{error}");
    }

    #[test]
    fn equal_looking_names_are_different_topics() {
        let (composed, combined) = ("k\u{fc}che", "ku\u{308}che");
        assert_ne!(TopicName::new(composed).unwrap(), TopicName::new(combined).unwrap());
    }

    #[test]
    fn an_encoded_name_is_ascii_without_separators_but_slashes() {
        for (name, encoded) in [
            ("garden/temperature", "garden/temperature"),
            ("A-z_0.9~", "A-z_0.9~"),
            ("Living Room", "Living%20Room"),
            ("küche", "k%C3%BCche"),
            ("50%,?&", "50%25%2C%3F%26"),
            ("$SYS", "%24SYS"),
        ] {
            let topic = TopicName::new(name).unwrap();
            assert_eq!(topic.encoded(), encoded);
            assert_eq!(topic.path(), format!("/topics/{encoded}"));
        }
    }

    #[test]
    fn a_comma_and_a_percent_sign_are_parts_of_a_name_only_if_they_are_encoded() {
        for (encoded, name) in [
            ("a%2Cb", Some("a,b")),
            ("%61%2fb", Some("a/b")),
            ("100%25", Some("100%")),
            ("a%252Cb", Some("a%2Cb")),
            ("k\u{fc}che", Some("k\u{fc}che")),
            ("a,b", None),
            ("100%", None),
            ("a%2", None),
            ("a%zz", None),
            ("%FF", None),
            ("a%00", None),
            ("a%0A", None),
            ("a%2F..%2Fb", None),
            ("a%2B", None),
            ("%23", None),
            ("a+b", None),
        ] {
            let decoded = TopicName::decode(encoded);
            assert_eq!(decoded.as_ref().map(TopicName::as_str), name, "{encoded}");
        }
    }
}
