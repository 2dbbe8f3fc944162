//! The files of a directory, as a resource.

mod directory;

use crate::access::{Action, Gatekeeper, Refused};
use crate::http::date::http_date;
use crate::http::{RequestHead, Response};
use crate::resource::{Answer, Plan, Resource};

pub(crate) use directory::Files;
use directory::{FileError, FoundFile, percent_decode};

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
        let path = head.path();
        // The decoded path, because `/%61` and `/a` are the same file.
        let decoded = percent_decode(path).and_then(|bytes| String::from_utf8(bytes).ok());
        gatekeeper.may(Action::Read(decoded.as_deref().unwrap_or(path)))?;
        let reads = matches!(head.method(), "GET" | "HEAD");
        match self.0.find(path) {
            Ok(_) | Err(FileError::IsDirectory) if !reads => {
                Err(Response::method_not_allowed("GET, HEAD").into())
            }
            Ok(found) => Ok(Some(Plan::Answer(send(found, head)))),
            Err(FileError::IsDirectory) => {
                let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
                let response = Response::text(308, "this is a directory\n")
                    .with_header("Location", format!("{path}/{query}"));
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

/// Returns the answer with a file, or with status 304 if the client has this version of the file.
fn send(found: FoundFile, head: &RequestHead<'_>) -> Answer {
    let modified = http_date(found.modified);
    // Compared as a text, not as a time, because a file that was restored to an older version has changed
    // as well.
    let is_known = head.single("if-modified-since") == Some(modified.as_bytes());
    let (response, file) = match is_known {
        true => (Response::without_body(304), None),
        false => (Response::streamed(found.content_type, found.length), Some(found.file)),
    };
    let response =
        response.with_header("Last-Modified", modified).with_header("Cache-Control", "no-cache");
    Answer { response, file }
}
