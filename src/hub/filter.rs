//! Topic filters: the topics of a subscription, by the rules of MQTT (MQTT 5.0, section 4.7).

use std::fmt;
use std::rc::Rc;

use crate::escaped::Escaped;
use crate::http::percent::{percent_decode, percent_encode};

use super::topic_name::{TOPICS_PATH, TopicName, TopicNameError};

/// The topics that a client subscribes to: one topic, or all topics that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Topic(TopicName),
    Pattern(Pattern),
}

/// A filter with a wildcard. `+` matches one level of a name, and `#`, which is always the last level, matches
/// the level above it and everything below that. No pattern matches one of the server's own topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern(Rc<str>);

impl Filter {
    /// Parses the filters of a URL, which are percent-encoded and separated by commas: `%2C` is a comma of a name. No
    /// text at all is the filter `#`. `%2B` is `+` and `%23` is `#`, because no name contains these characters.
    ///
    /// # Errors
    /// [`FilterError`], if one of them is not a filter or if there are more than [`MAX_FILTERS`].
    pub(crate) fn parse_list(encoded: &str) -> Result<Vec<Self>, FilterError> {
        if encoded.is_empty() {
            return Ok(vec![Self::Pattern(Pattern(EVERYTHING.into()))]);
        }
        let count = encoded.split(',').count();
        if count > MAX_FILTERS {
            return Err(FilterError::TooMany { count });
        }
        let mut filters = Vec::with_capacity(count);
        for filter in encoded.split(',').map(Self::decode) {
            let filter = filter?;
            if !filters.contains(&filter) {
                filters.push(filter);
            }
        }
        Ok(filters)
    }

    /// Parses one filter in its percent-encoded form.
    fn decode(encoded: &str) -> Result<Self, FilterError> {
        let decoded = percent_decode(encoded).and_then(|bytes| String::from_utf8(bytes).ok());
        Self::parse(&decoded.ok_or_else(|| FilterError::Encoding(encoded.to_owned()))?)
    }

    /// Parses one filter. A `/` at the end is the same as `/#`.
    fn parse(text: &str) -> Result<Self, FilterError> {
        let whole = match text.ends_with('/') {
            true => [text, EVERYTHING].concat(),
            false => text.to_owned(),
        };
        if !whole.contains(['+', '#']) {
            return TopicName::new(&whole).map(Self::Topic).map_err(FilterError::Name);
        }
        // With a letter in place of each wildcard, a filter is the name of a topic.
        let last = whole.split('/').count() - 1;
        let named = whole.split('/').enumerate().map(|(index, level)| match level {
            "+" => "x",
            "#" if index == last => "x",
            level => level,
        });
        match TopicName::new(&named.collect::<Vec<_>>().join("/")) {
            Ok(_) => Ok(Self::Pattern(Pattern(whole.into()))),
            Err(_) => Err(FilterError::Pattern(text.to_owned())),
        }
    }

    /// Returns true if the filter matches a topic.
    pub(super) fn matches(&self, topic: &TopicName) -> bool {
        match self {
            Self::Topic(name) => name == topic,
            Self::Pattern(pattern) => pattern.matches(topic),
        }
    }

    /// Returns the path of the filter's URL.
    pub(super) fn path(&self) -> String {
        // In a URL, `#` begins the fragment.
        [TOPICS_PATH, &self.encoded().replace('#', "%23")].concat()
    }

    /// Returns the filter in the percent-encoded form that it has in lists. Only its wildcards are not encoded.
    pub(crate) fn encoded(&self) -> String {
        match self {
            Self::Topic(name) => name.encoded(),
            Self::Pattern(pattern) => {
                percent_encode(&pattern.0).replace("%2B", "+").replace("%23", "#")
            }
        }
    }

    /// Returns the filter as text.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Topic(name) => name.as_str(),
            Self::Pattern(pattern) => &pattern.0,
        }
    }
}

impl From<TopicName> for Filter {
    fn from(name: TopicName) -> Self {
        Self::Topic(name)
    }
}

impl Pattern {
    /// Returns true if the pattern matches a topic. It matches none of the server's own topics.
    pub(super) fn matches(&self, topic: &TopicName) -> bool {
        !topic.is_internal() && !topic.is_broadcast() && matches(&self.0, topic.as_str())
    }
}

/// Returns true if a pattern matches a name. A wildcard at the beginning does not match a name that begins with
/// `$`.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = name.split('/');
    for expected in pattern.split('/') {
        match (expected, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (expected, Some(level)) if expected == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The error that a text is not a list of topic filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilterError {
    /// A filter, or the path with it, can't be decoded.
    Encoding(String),
    /// A filter without a wildcard is not the name of a topic.
    Name(TopicNameError),
    /// A filter with a wildcard breaks the rules.
    Pattern(String),
    /// There are more filters than a connection may have.
    TooMany { count: usize },
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(path) => write!(
                f,
                "`{}` can't be decoded: expected UTF-8 without control characters and without segments `.` \
                 and `..`, with `%25` for a percent sign",
                Escaped(path)
            ),
            Self::Name(error) => error.fmt(f),
            Self::Pattern(filter) => write!(
                f,
                "`{}` is not a topic filter: expected the name of a topic, in which `+` may stand for \
                 one whole segment, and `#` for the last ones",
                Escaped(filter)
            ),
            Self::TooMany { count } => write!(f, "{count} topic filters, limit {MAX_FILTERS}"),
        }
    }
}

impl std::error::Error for FilterError {}

/// The number of filters that a connection may have.
const MAX_FILTERS: usize = 64;
/// The pattern that matches all topics.
const EVERYTHING: &str = "#";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str) -> Vec<String> {
        let filters = Filter::parse_list(list).expect(list);
        filters.iter().map(|filter| filter.as_str().to_owned()).collect()
    }

    #[test]
    fn a_list_of_names_and_patterns_is_parsed() {
        for (list, expected) in [
            ("", &["#"][..]),
            ("#", &["#"]),
            ("+", &["+"]),
            ("garden", &["garden"]),
            ("garden/", &["garden/#"]),
            ("garden/#", &["garden/#"]),
            ("a,b/c", &["a", "b/c"]),
            ("a,b/,+/t,a", &["a", "b/#", "+/t"]),
            ("+/+/#", &["+/+/#"]),
            ("a/+/", &["a/+/#"]),
            ("a%2Cb,c", &["a,b", "c"]),
            ("a%2Cb/", &["a,b/#"]),
            ("a%2f+%2Ft,a%2F", &["a/+/t", "a/#"]),
            ("%2B/t,+/t", &["+/t"]),
            ("a/%23,a/#", &["a/#"]),
            ("Living%20Room/+,k%C3%BCche,k\u{fc}che", &["Living Room/+", "k\u{fc}che"]),
            ("%252B,a%2523,%252C", &["%2B", "a%23", "%2C"]),
            ("$SYS/%23", &["$SYS/#"]),
        ] {
            assert_eq!(parsed(list), expected, "{list}");
        }
        assert_eq!(parsed(&["a"; 64].join(",")), ["a"]);
    }

    #[test]
    fn an_error_names_the_filter_and_says_what_is_expected() {
        let long = ["x"; 128].join("/") + "/";
        for filter in
            ["a+", "+a/b", "a/#/b", "#/a", "a#", "a//+", "/", "//", "./", "../#", "ä+", &long]
        {
            let error = Filter::parse_list(filter).unwrap_err().to_string();
            let expected = format!("`{}` is not a topic filter: expected", Escaped(filter));
            assert!(error.starts_with(&expected), "{error}");
            let error = Filter::parse_list(&["ok", filter].join(",")).unwrap_err().to_string();
            assert!(error.starts_with(&expected), "{error}");
        }
        for list in [",", "a,", ",a", "a,,b", "a,a%2F..", "a%00"] {
            let error = Filter::parse_list(list).unwrap_err().to_string();
            assert!(error.contains("is not a topic name: expected"), "{error}");
        }
        for list in ["50%", "a,50%", "a%zz", "%ff", "%c3,%bc"] {
            let error = Filter::parse_list(list).unwrap_err().to_string();
            assert!(error.contains("` can't be decoded: expected UTF-8"), "{error}");
        }
        // An encoded wildcard is a wildcard, and not a character of a name.
        for filter in ["a%2B", "%23a", "%23/a"] {
            let error = Filter::parse_list(filter).unwrap_err().to_string();
            assert!(error.contains("is not a topic filter: expected"), "{error}");
        }
        let error = Filter::parse_list(&["a"; 65].join(",")).unwrap_err();
        assert_eq!(error.to_string(), "65 topic filters, limit 64");
    }

    #[test]
    fn the_path_of_a_filter_names_the_filter() {
        for (filter, path) in [
            ("a%2Cb", "/topics/a%2Cb"),
            ("Living%20Room/", "/topics/Living%20Room/%23"),
            ("%2B/%252B%2523/+", "/topics/+/%252B%2523/+"),
            ("", "/topics/%23"),
        ] {
            let filters = Filter::parse_list(filter).expect(filter);
            assert_eq!(filters[0].path(), path);
            let list = path.strip_prefix(TOPICS_PATH).expect(path);
            assert_eq!(Filter::parse_list(list), Ok(filters));
        }
    }

    #[test]
    fn a_pattern_matches_by_the_rules_of_mqtt() {
        for (pattern, matched, others) in [
            ("#", &["a", "a/b", "a/b/c"][..], &["$a", "$a/b"][..]),
            ("+", &["a"], &["a/b", "$a"]),
            ("a/#", &["a", "a/b", "a/b/c"], &["ab", "b", "b/a"]),
            ("a/+", &["a/b", "a/$b"], &["a", "a/b/c", "b/a"]),
            ("+/b", &["a/b"], &["b", "a/b/c", "$a/b"]),
            ("+/+/#", &["a/b", "a/b/c/d"], &["a", "$a/b"]),
            ("a/+/c", &["a/b/c"], &["a/c", "a/b/b/c", "a/b/c/d"]),
            ("$a/#", &["$a", "$a/b"], &["a", "$ab"]),
        ] {
            for name in matched {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in others {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn no_pattern_matches_a_topic_of_the_server() {
        for filter in ["#", "+", "broadcast/#", "+/#"] {
            let filter = &Filter::parse_list(filter).unwrap()[0];
            assert!(
                !filter.matches(&TopicName::broadcast()) && !filter.matches(&TopicName::stats())
            );
        }
        assert!(Filter::from(TopicName::broadcast()).matches(&TopicName::broadcast()));
    }

    /// Follows the rules literally, level by level.
    fn matches_naively(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            (["#"], _) => true,
            (["+", pattern @ ..], [_, name @ ..]) => matches_naively(pattern, name),
            ([one, pattern @ ..], [other, name @ ..]) => {
                one == other && matches_naively(pattern, name)
            }
            ([], []) => true,
            _ => false,
        }
    }

    #[test]
    fn random_patterns_match_what_the_naive_matcher_matches() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut matched, mut cases) = (0, 0);
        for _ in 0..20_000 {
            let mut levels = |choices: &[&'static str]| -> Vec<&'static str> {
                (0..random.usize(1..5)).map(|_| random.choice(choices).copied().unwrap()).collect()
            };
            let name = levels(&["a", "b", "ab"]);
            let mut pattern = levels(&["a", "b", "ab", "+", "+"]);
            if random.bool() {
                pattern.push("#");
            }
            let Ok(filters) = Filter::parse_list(&pattern.join("/")) else {
                panic!("{pattern:?}");
            };
            let topic = TopicName::new(&name.join("/")).unwrap();
            let expected = matches_naively(&pattern, &name);
            assert_eq!(filters[0].matches(&topic), expected, "{pattern:?} {name:?}");
            (matched, cases) = (matched + usize::from(expected), cases + 1);
        }
        assert!(matched > cases / 20, "{matched} of {cases}");
    }
}
