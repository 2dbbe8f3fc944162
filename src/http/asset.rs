//! Files embedded in the program.

use super::response::Response;

/// A file embedded in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// The media type, as the Content-Type header says it.
    pub content_type: &'static str,
    /// The bytes.
    pub body: &'static [u8],
}

impl Asset {
    pub(super) fn response(&self) -> Response {
        Response::new(200, self.content_type, self.body)
            .with_header("Cache-Control", "no-cache")
            .with_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    }
}

/// A constant text, such as a file of a page, without what only its authors read: no indentation, no empty
/// lines, no comments that have lines of their own (`//` and `/** */`). For sources that have no text of
/// several lines.
///
/// ```
/// let lean = falconet::lean!("/** Adds. */\nlet add = (a, b) => {\n  // Or joins.\n  a + b\n};\n");
/// assert_eq!(lean, "let add = (a, b) => {\na + b\n};\n");
/// ```
#[macro_export]
macro_rules! lean {
    ($source:expr) => {{
        const SOURCE: &str = $source;
        const LENGTH: usize = $crate::lean_bytes::<0>(SOURCE.as_bytes()).1;
        const LEAN: [u8; LENGTH] = $crate::lean_bytes(SOURCE.as_bytes()).0;
        match str::from_utf8(&LEAN) {
            Ok(lean) => lean,
            Err(_) => unreachable!(),
        }
    }};
}

/// What [`lean!`] leaves of a source, and how long it is; where `N` is too small, the end is missing.
#[doc(hidden)]
pub const fn lean_bytes<const N: usize>(source: &[u8]) -> ([u8; N], usize) {
    let (mut lean, mut length) = ([0; N], 0);
    let (mut rest, mut in_comment) = (source, false);
    while let Some((line, next)) = split_line(rest) {
        rest = next;
        in_comment |= matches!(line, [b'/', b'*', b'*', ..]);
        if !in_comment && !matches!(line, [] | [b'/', b'/', ..]) {
            let mut at = 0;
            while at < line.len() {
                if length < N {
                    lean[length] = line[at];
                }
                (at, length) = (at + 1, length + 1);
            }
        }
        in_comment &= !matches!(line, [.., b'*', b'/', b'\n']);
    }
    (lean, length)
}

/// The first line, without its indentation, and what comes after it; `None` at the end.
const fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = 0;
    while end < text.len() && (end == 0 || text[end - 1] != b'\n') {
        end += 1;
    }
    let (line, rest) = text.split_at(end);
    if text.is_empty() { None } else { Some((line.trim_ascii_start(), rest)) }
}

/// Everything from here, nothing from elsewhere, no inline script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_its_authors_read_is_left_out() {
        let source = "\
            /** One line. */\n\
            const url = 'http://a'; // Stays.\n\
            \n\
            /**\n \
             * Several lines.\n\
             */\n\
            \x20 if (1 /* stays */) {\n\
            \t  // Goes.\n\
            * { color: 'ä' }\n\
            /* stays */\n\
            end";
        let lean = "\
            const url = 'http://a'; // Stays.\n\
            if (1 /* stays */) {\n\
            * { color: 'ä' }\n\
            /* stays */\n\
            end";
        for text in [source, lean] {
            let (bytes, length) = super::lean_bytes::<256>(text.as_bytes());
            assert_eq!(str::from_utf8(&bytes[..length]), Ok(lean));
        }
        assert_eq!(super::lean_bytes(b""), ([], 0));
    }
}
