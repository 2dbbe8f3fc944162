//! Percent-encoding (RFC 3986 §2.1).

use std::borrow::Cow;
use std::fmt::Write;

/// Encodes a text for the path of a URL: all bytes but `A–Z a–z 0–9 - . _ ~` (RFC 3986 §2.3) and `/` become
/// percent escapes.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String can't fail.
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// Decodes percent escapes: `%41` becomes `A`. Returns `None` if a percent sign is not followed by two
/// hexadecimal digits.
pub(crate) fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut encoded = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = encoded.next() {
        decoded.push(match byte {
            b'%' => (digit(encoded.next())? * 16 + digit(encoded.next())?) as u8,
            byte => byte,
        });
    }
    Some(decoded)
}

/// Decodes the path of a URL. Returns the path as it is if it has no escapes or can't be decoded, see
/// [`RequestHead::path`](super::RequestHead::path).
pub(super) fn decode_path(path: &str) -> Cow<'_, str> {
    let is_safe = |decoded: &String| {
        !decoded.contains(char::is_control) && !decoded.split('/').any(|s| matches!(s, "." | ".."))
    };
    let decoded = path.contains('%').then(|| percent_decode(path)).flatten();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).filter(is_safe);
    decoded.map_or(Cow::Borrowed(path), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        for (path, decoded) in [
            ("/topics/%78", "/topics/x"),
            ("/topics/garden%2Ftemperature", "/topics/garden/temperature"),
            ("/%2541", "/%41"),
            ("/%c3%a9%E2%98%82", "/é☂"),
            ("/%3F%23", "/?#"),
            ("/x%2e%2ey/%2ea/...", "/x..y/.a/..."),
            ("/a+b", "/a+b"),
        ] {
            assert_eq!(decode_path(path), decoded);
        }
    }

    #[test]
    fn a_path_that_cannot_be_decoded_safely_stays_encoded() {
        for path in [
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/%2%65",
            "/%ff",
            "/%c0%ae",
            "/%ed%a0%80",
            "/%00",
            "/a%0a",
            "/%7f",
            "/%c2%80",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e/a",
            "/a/%2e.",
            "/a%2f..%2Fb",
            "/a%2f.",
        ] {
            assert_eq!(decode_path(path), path);
        }
    }
}
