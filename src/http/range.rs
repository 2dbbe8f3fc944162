//! Requests for a part of a content (RFC 9110 §14).

/// The bytes of a content that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All bytes. A Range header that this server does not understand is ignored (RFC 9110 §14.2), as is one
    /// with several ranges.
    All,
    /// The bytes from `first` to `last`, which are within the content.
    Part { first: u64, last: u64 },
    /// A range behind the end of the content, or of no bytes.
    Unsatisfiable,
}

impl Selection {
    /// Parses the value of a Range header for a content of `length` bytes: `bytes=FIRST-LAST`,
    /// `bytes=FIRST-` or `bytes=-COUNT`.
    pub(crate) fn parse(range: &[u8], length: u64) -> Self {
        let Some((first, last)) = str::from_utf8(range).ok().and_then(one_range) else {
            return Self::All;
        };
        let end = length.saturating_sub(1);
        let (first, last) = match (first, last) {
            // The part would be empty, and Content-Range cannot express that.
            (None, Some(1..)) if length == 0 => return Self::All,
            (None, Some(0)) => return Self::Unsatisfiable,
            (None, Some(count)) => (length.saturating_sub(count), end),
            (Some(first), Some(last)) if last < first => return Self::All,
            (Some(first), _) if first >= length => return Self::Unsatisfiable,
            (Some(first), last) => (first, last.unwrap_or(end).min(end)),
            (None, None) => return Self::All,
        };
        Self::Part { first, last }
    }
}

/// Splits `bytes=FIRST-LAST`, in which either number may be missing.
fn one_range(range: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    let is_bytes = unit.eq_ignore_ascii_case("bytes");
    is_bytes.then_some((position(first)?, position(last)?))
}

/// Parses a decimal number, or an empty text as `None`. A number of 2^64 or more is behind the end of any
/// content, as `u64::MAX` is.
fn position(digits: &str) -> Option<Option<u64>> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX));
    is_number.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_clamped_to_the_content() {
        for (range, length, first, last) in [
            ("bytes=0-0", 10, 0, 0),
            ("bytes=0-1", 10, 0, 1),
            ("bytes=3-9", 10, 3, 9),
            ("bytes=3-10", 10, 3, 9),
            ("bytes=9-", 10, 9, 9),
            ("bytes=0-", 1, 0, 0),
            ("bytes=-1", 10, 9, 9),
            ("bytes=-10", 10, 0, 9),
            ("bytes=-11", 10, 0, 9),
            ("Bytes=007-8", 10, 7, 8),
            ("bytes=1-99999999999999999999", 10, 1, 9),
            ("bytes=-99999999999999999999", 10, 0, 9),
            ("bytes=0-18446744073709551615", u64::MAX, 0, u64::MAX - 1),
        ] {
            let selected = Selection::parse(range.as_bytes(), length);
            assert_eq!(selected, Selection::Part { first, last }, "{range} of {length}");
        }
    }

    #[test]
    fn a_range_without_a_byte_of_the_content_is_unsatisfiable() {
        for (range, length) in [
            ("bytes=10-", 10),
            ("bytes=10-11", 10),
            ("bytes=0-", 0),
            ("bytes=0-0", 0),
            ("bytes=-0", 10),
            ("bytes=-0", 0),
            ("bytes=99999999999999999999-", 10),
            ("bytes=18446744073709551615-", u64::MAX),
        ] {
            let selected = Selection::parse(range.as_bytes(), length);
            assert_eq!(selected, Selection::Unsatisfiable, "{range} of {length}");
        }
    }

    #[test]
    fn anything_but_one_valid_range_of_bytes_selects_all() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5",
            "bytes=2-1",
            "bytes=0-0,2-3",
            "bytes=0-0,",
            "bytes=0-0-0",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=0x1-2",
            "bytes=a-b",
            "bytes= 0-1",
            "bytes=0 -1",
            "bytes=0-1 ",
            "bytes =0-1",
            "bytes:0-1",
            "items=0-1",
            "0-1",
            "bytes=٠-١",
        ] {
            assert_eq!(Selection::parse(range.as_bytes(), 10), Selection::All, "{range}");
        }
        assert_eq!(Selection::parse(b"bytes=0-\xff", 10), Selection::All);
        assert_eq!(Selection::parse(b"bytes=-5", 0), Selection::All);
    }
}
