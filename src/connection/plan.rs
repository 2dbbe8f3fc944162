//! Finds the resource of a request.

use crate::access::{Action, Gatekeeper, Refused};
use crate::endpoints::not_found;
use crate::http::RequestHead;
use crate::resource::Plan;

use super::context::Context;
use super::request::Request;

/// Asks the resources in turn for the outcome of a request.
///
/// # Errors
/// [`Refused`]. A path where nothing stands is refused like a page that the sender may not read, so that
/// it can't be told from one.
pub(super) fn plan(
    head: &RequestHead<'_>,
    gatekeeper: &Gatekeeper<'_>,
    context: &Context,
) -> Result<Plan, Refused> {
    for resource in &context.resources {
        if let Some(plan) = resource.plan(head, gatekeeper)? {
            return Ok(plan);
        }
    }
    gatekeeper.may(match head.wants_websocket() {
        true => Action::Connect(head.path()),
        false => Action::Read(head.path()),
    })?;
    Err(not_found().into())
}

/// Returns true if a body of the request stays unread. It must not be taken for the next request; nor must
/// bytes that may be a body.
pub(super) fn leaves_a_body(plan: &Plan, request: &Request) -> bool {
    match plan {
        Plan::Answer(answer) => request.body_bytes > 0 || answer.response.status() == 411,
        Plan::Ask(question) => request.body_bytes > 0 && !question.takes_body(),
        Plan::Upgrade(_) => false,
    }
}
