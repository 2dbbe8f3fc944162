//! Content negotiation by the Accept header (RFC 9110 §12.5.1).

use super::head::RequestHead;
use super::response::EVENT_STREAM;

/// Returns true if the client accepts `content_type`: the most specific range that matches decides, and
/// q=0 refuses. A request without an Accept header accepts everything.
pub(crate) fn accepts(head: &RequestHead<'_>, content_type: &str) -> bool {
    let (specificity, is_accepted) = preference(head, content_type);
    let names_none = || head.values("accept").flatten().all(|byte| b", \t".contains(byte));
    is_accepted || (specificity == 0 && names_none())
}

/// Returns true if the client names exactly `media_type`, not a range of types, and does not refuse it.
pub(crate) fn asks_for(head: &RequestHead<'_>, media_type: &str) -> bool {
    preference(head, media_type) == (EXACT, true)
}

/// Returns true if a request asks for an event stream, as EventSource does.
pub(crate) fn asks_for_events(head: &RequestHead<'_>) -> bool {
    head.method() == "GET" && asks_for(head, EVENT_STREAM)
}

/// Returns the specificity of the range that decides on `content_type`, or 0 if no range matches, and true if
/// the range accepts the type.
fn preference(head: &RequestHead<'_>, content_type: &str) -> (u8, bool) {
    let media_type = content_type.split(';').next().unwrap_or_default().trim_ascii();
    let main_type = media_type.split('/').next().unwrap_or_default();
    let mut best = (0, false);
    for range in head.items("accept") {
        let range = String::from_utf8_lossy(range);
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let specificity = match name.split_once('/') {
            Some(("*", "*")) => 1,
            Some((main, "*")) if main.eq_ignore_ascii_case(main_type) => 2,
            Some(_) if name.eq_ignore_ascii_case(media_type) => EXACT,
            _ => continue,
        };
        let is_accepted = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(key, _)| key.trim_ascii().eq_ignore_ascii_case("q"))
            .is_none_or(|(_, quality)| is_positive(quality.trim_ascii()));
        // Of two equally specific ranges, the one that accepts counts.
        best = best.max((specificity, is_accepted));
    }
    best
}

/// Returns true if a quality value such as `0.5` is above 0 (RFC 9110 §12.4.2).
fn is_positive(quality: &str) -> bool {
    quality.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && quality.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
}

/// The specificity of a range that names one media type.
const EXACT: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::head;

    fn accepts_html(accept: &str) -> bool {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}\r\n");
        accepts(
            &head::parse(bytes.as_bytes(), &Limits::default()).unwrap(),
            "text/html; charset=utf-8",
        )
    }

    #[test]
    fn the_most_specific_range_decides() {
        for (accept, expected) in [
            ("", true),
            ("Accept:\r\n", true),
            ("Accept: text/html\r\n", true),
            ("Accept: TEXT/HTML;level=1\r\n", true),
            ("Accept: text/*\r\n", true),
            ("Accept: */*\r\n", true),
            ("Accept: image/png, */*;q=0.1\r\n", true),
            ("Accept: image/png\r\nAccept: text/html;q=0.001\r\n", true),
            ("Accept: application/json\r\n", false),
            ("Accept: text/html;q=0\r\n", false),
            ("Accept: text/html; Q=0.000, */*\r\n", false),
            ("Accept: text/*;q=0, */*;q=1\r\n", false),
            ("Accept: text/*;q=0, text/html\r\n", true),
            ("Accept: image/*\r\n", false),
            ("Accept: text/html;q=many\r\n", false),
        ] {
            assert_eq!(accepts_html(accept), expected, "{accept:?}");
        }
    }
}
