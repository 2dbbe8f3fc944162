//! The files of a directory, as a resource.

mod directory;

use std::fs::File;
use std::io::{Seek, SeekFrom};

use crate::access::{Gatekeeper, Refused};
use crate::http::date::http_date;
use crate::http::entity_tag::{is_listed, is_weak};
use crate::http::range::Selection;
use crate::http::{RequestHead, Response};
use crate::resource::{Answer, BodyFile, Plan, Resource};

pub(crate) use directory::Files;
use directory::{FileError, FoundFile};

/// The files of a directory, at their paths below `/`.
pub(crate) struct StaticFiles(pub(crate) Files);

impl Resource for StaticFiles {
    fn plan(
        &self,
        head: &RequestHead<'_>,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Option<Plan>, Refused> {
        if head.wants_websocket() {
            return Ok(None);
        }
        gatekeeper.may_load(head.path())?;
        // An encoded slash does not separate directories, so that each file has only one path.
        let path = head.encoded_path();
        let reads = matches!(head.method(), "GET" | "HEAD");
        let found = self.0.find(path);
        if !reads && matches!(found, Ok(_) | Err(FileError::IsDirectory)) {
            return Err(Response::other_method(head.method(), "GET, HEAD").into());
        }
        match found.and_then(|found| send(found, head)) {
            Ok((response, file)) => {
                // The file is open already, because only its properties show whether the response needs it.
                // Until here, only one file is open at a time.
                let permitted =
                    |file| gatekeeper.permit_file().map(|permit| BodyFile { file, permit });
                let file = file.map(permitted).transpose()?;
                Ok(Some(Plan::Answer(Answer { response, file })))
            }
            Err(FileError::IsDirectory) => {
                let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
                // Relative, because a proxy may serve the files below another path.
                let name = path.rsplit('/').next().unwrap_or_default();
                let response = Response::text(308, "this is a directory\n")
                    .with_header("Location", format!("./{name}/{query}"));
                Ok(Some(Plan::Answer(response.into())))
            }
            Err(error @ FileError::Failed(_)) => {
                log::warn!(target: "falconet::files", path; "{error}");
                Err(Response::text(500, "the file cannot be read now\n").into())
            }
            Err(error) => {
                log::debug!(target: "falconet::files", path; "{error}");
                Ok(None)
            }
        }
    }
}

/// Returns the response with a file or a part of it, and the file at the start of the part; or the response
/// without the file if the client has this version of the file, asks for a part that does not exist, or asks for
/// the head only.
fn send(found: FoundFile, head: &RequestHead<'_>) -> Result<(Response, Option<File>), FileError> {
    let FoundFile { mut file, length, modified, content_type, tag } = found;
    let modified = http_date(modified);
    let selection = match is_known(head, &tag, &modified) {
        true => None,
        false => Some(selection(head, length, &tag, &modified)),
    };
    let response = match selection {
        None => Response::without_body(304),
        Some(Selection::All) => Response::streamed(200, content_type, length),
        Some(Selection::Part { first, last }) => {
            file.seek(SeekFrom::Start(first)).map_err(|error| FileError::from(&error))?;
            Response::streamed(206, content_type, last - first + 1)
                .with_header("Content-Range", format!("bytes {first}-{last}/{length}"))
        }
        Some(Selection::Unsatisfiable) => {
            let response = Response::text(416, "the file does not have this range\n")
                .with_header("Content-Range", format!("bytes */{length}"));
            return Ok((response, None));
        }
    };
    let has_body = head.method() != "HEAD" && response.streamed_bytes().is_some();
    let file = has_body.then_some(file);
    let response = response
        .with_header("Accept-Ranges", "bytes")
        .with_header("ETag", tag)
        .with_header("Last-Modified", modified)
        .with_header("Cache-Control", "no-cache");
    Ok((response, file))
}

/// Returns true if the client has the version of a file with this entity tag and time (RFC 9110 §13.2.2).
fn is_known(head: &RequestHead<'_>, tag: &str, modified: &str) -> bool {
    let mut tags = head.values("if-none-match").map(String::from_utf8_lossy).peekable();
    if tags.peek().is_some() {
        return tags.any(|list| is_listed(tag, &list));
    }
    // Compared as a text, not as a time, because a file that was restored to an older version has changed
    // as well.
    head.single("if-modified-since") == Some(modified.as_bytes())
}

/// Returns the bytes that the client asks for: a part only with GET, and only of the version in If-Range, if
/// the request has that header. While the tag is weak, no If-Range matches (RFC 9110 §13.1.5).
fn selection(head: &RequestHead<'_>, length: u64, tag: &str, modified: &str) -> Selection {
    let is_current =
        |version| !is_weak(tag) && (version == tag.as_bytes() || version == modified.as_bytes());
    match head.single("range") {
        Some(range) if head.method() == "GET" && head.values("if-range").all(is_current) => {
            Selection::parse(range, length)
        }
        _ => Selection::All,
    }
}
