//! What stands at which path, and what a request may do there.

use std::fs::File;
use std::rc::Rc;

use crate::features::Feature;

use super::asset::Asset;
use super::date::http_date;
use super::files::{FileError, Files, FoundFile};
use super::head::RequestHead;
use super::response::Response;

/// The table of paths. `E` is what serves WebSocket sessions.
#[derive(Debug)]
pub(crate) struct Routes<E> {
    places: Vec<Place<E>>,
    has_topics: bool,
    files: Option<Files>,
}

/// What stands at one path: a page, an endpoint, or both.
#[derive(Debug)]
struct Place<E> {
    path: Rc<String>,
    asset: Option<Asset>,
    endpoint: Option<E>,
}

/// What a request leads to.
#[derive(Debug)]
pub(crate) enum Destination<'r, E> {
    /// An embedded file.
    Asset(Response),
    /// A file of the directory that is served, if it is to be sent.
    File(Response, Option<File>),
    /// A WebSocket endpoint, at a path.
    Endpoint(&'r Rc<String>, &'r E),
}

impl<E> Default for Routes<E> {
    fn default() -> Self {
        Self { places: Vec::new(), has_topics: false, files: None }
    }
}

impl<E> Routes<E> {
    pub(crate) fn add_asset(&mut self, path: String, asset: Asset) {
        self.place(path).asset = Some(asset);
    }

    pub(crate) fn add_endpoint(&mut self, path: String, endpoint: E) {
        self.place(path).endpoint = Some(endpoint);
    }

    /// Puts the files of a directory at their paths below `/`, before all else but topics.
    pub(crate) fn add_files(&mut self, files: Files) {
        self.files = Some(files);
    }

    /// Lets topics stand at every path below `/topics/`.
    pub(crate) fn add_topics(&mut self) {
        self.has_topics = true;
    }

    /// The part of a path behind `/topics/`, if topics stand there.
    pub(crate) fn topic<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(TOPICS).filter(|_| self.has_topics)
    }

    /// Finds what a request asks for that is no topic.
    ///
    /// # Errors
    /// [`RouteError`], whose response says what would be right.
    pub(crate) fn find(&self, head: &RequestHead<'_>) -> Result<Destination<'_, E>, RouteError> {
        if Feature::Full.is_built_in()
            && let Some(files) = self.files.as_ref().filter(|_| !head.wants_websocket())
            && let Some(found) = find_file(files, head)?
        {
            return Ok(found);
        }
        let place = self.places.iter().find(|place| *place.path == head.path());
        let place = place.ok_or(RouteError::NotFound)?;
        let readable = place.asset.is_some();
        if head.method() != "GET" && !(head.method() == "HEAD" && readable) {
            return Err(RouteError::MethodNotAllowed { head_too: readable });
        }
        match (&place.endpoint, &place.asset) {
            (Some(endpoint), _) if head.wants_websocket() => {
                Ok(Destination::Endpoint(&place.path, endpoint))
            }
            (_, Some(asset)) if accepts(head, asset.content_type) => {
                Ok(Destination::Asset(asset.response()))
            }
            (_, Some(_)) => Err(RouteError::NotFound),
            (_, None) => Err(RouteError::UpgradeRequired),
        }
    }

    fn place(&mut self, path: String) -> &mut Place<E> {
        let index = self.places.iter().position(|place| *place.path == path).unwrap_or_else(|| {
            self.places.push(Place { path: Rc::new(path), asset: None, endpoint: None });
            self.places.len() - 1
        });
        &mut self.places[index]
    }
}

/// The file that a request asks for, if there is one.
fn find_file<'r, E>(
    files: &Files,
    head: &RequestHead<'_>,
) -> Result<Option<Destination<'r, E>>, RouteError> {
    let path = head.path();
    let reads = matches!(head.method(), "GET" | "HEAD");
    match files.find(path) {
        Ok(_) | Err(FileError::IsDirectory) if !reads => {
            Err(RouteError::MethodNotAllowed { head_too: true })
        }
        Ok(found) => Ok(Some(send_file(found, head))),
        Err(FileError::IsDirectory) => {
            let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
            let response = Response::text(308, "it is a directory\n")
                .with_header("Location", format!("{path}/{query}"));
            Ok(Some(Destination::File(response, None)))
        }
        Err(error @ FileError::Failed(_)) => {
            log::warn!(target: "falconet::files", path; "{error}");
            Err(RouteError::Broken)
        }
        Err(error) => {
            log::debug!(target: "falconet::files", path; "{error}");
            Ok(None)
        }
    }
}

/// Sends a file, unless the client has it as it is.
fn send_file<'r, E>(found: FoundFile, head: &RequestHead<'_>) -> Destination<'r, E> {
    let modified = http_date(found.modified);
    // Our own word, not a time to compare: a file put back to an older version has changed, too.
    let is_known = head.single("if-modified-since") == Some(modified.as_bytes());
    let (response, file) = match is_known {
        true => (Response::without_body(304), None),
        false => (Response::streamed(found.content_type, found.length), Some(found.file)),
    };
    let response =
        response.with_header("Last-Modified", modified).with_header("Cache-Control", "no-cache");
    Destination::File(response, file)
}

/// Why a request leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteError {
    /// Nothing stands at the path, or nothing the client accepts (article: 404).
    NotFound,
    /// The path is not for this method.
    MethodNotAllowed { head_too: bool },
    /// Only a WebSocket endpoint stands there (RFC 9110 §15.5.22).
    UpgradeRequired,
    /// A file is there, and the trouble with it is ours.
    Broken,
}

impl RouteError {
    pub(crate) fn response(self) -> Response {
        match self {
            Self::NotFound => Response::text(404, "nothing here that you accept\n"),
            Self::MethodNotAllowed { head_too } => {
                let allow = if head_too { "GET, HEAD" } else { "GET" };
                Response::text(405, "method not allowed here\n").with_header("Allow", allow)
            }
            Self::UpgradeRequired => Response::text(426, "this is a WebSocket endpoint\n")
                .with_header("Upgrade", "websocket")
                .with_header("Connection", "Upgrade"),
            Self::Broken => Response::text(500, "the file can't be read now\n"),
        }
    }
}

/// Whether the Accept headers let `content_type` through: the most specific range that matches
/// decides, and q=0 refuses (RFC 9110 §12.5.1). No Accept header accepts all.
fn accepts(head: &RequestHead<'_>, content_type: &str) -> bool {
    let (specificity, welcome) = preference(head, content_type);
    let said_nothing = || head.values("accept").flatten().all(|byte| b", \t".contains(byte));
    welcome || (specificity == 0 && said_nothing())
}

/// Whether the Accept headers name `media_type` itself, and do not refuse it.
pub(crate) fn asks_for(head: &RequestHead<'_>, media_type: &str) -> bool {
    preference(head, media_type) == (EXACT, true)
}

/// How specific the range is that decides on `content_type`, 0 for none, and whether it is welcome.
fn preference(head: &RequestHead<'_>, content_type: &str) -> (u8, bool) {
    let media_type = content_type.split(';').next().unwrap_or_default().trim_ascii();
    let main_type = media_type.split('/').next().unwrap_or_default();
    let mut best = (0, false);
    for range in head.values("accept").flat_map(|value| value.split(|byte| *byte == b',')) {
        let range = String::from_utf8_lossy(range);
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let specificity = match name.split_once('/') {
            Some(("*", "*")) => 1,
            Some((main, "*")) if main.eq_ignore_ascii_case(main_type) => 2,
            Some(_) if name.eq_ignore_ascii_case(media_type) => EXACT,
            _ => continue,
        };
        let welcome = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(key, _)| key.trim_ascii().eq_ignore_ascii_case("q"))
            .is_none_or(|(_, quality)| is_positive(quality.trim_ascii()));
        // Of equally specific ranges the friendlier one counts.
        best = best.max((specificity, welcome));
    }
    best
}

/// Whether a quality value such as `0.5` is above 0 (RFC 9110 §12.4.2).
fn is_positive(quality: &str) -> bool {
    quality.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && quality.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
}

/// Where topics stand.
pub(crate) const TOPICS: &str = "/topics/";
/// The specificity of a range that is a media type.
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
