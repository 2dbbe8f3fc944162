//! Finds the resource that a request is for.

use crate::access::{Action, Gatekeeper, Refused};
use crate::http::{RequestHead, Response};
use crate::resource::Plan;

use super::context::Context;
use super::request::Request;

/// Asks the resources one after another to plan a request, until one does. Requests about the whole server
/// are for none of them.
///
/// # Errors
/// [`Refused`], if a resource refuses the request or no resource has the path. A sender that may not read
/// the path gets the same response in both cases, so the response does not reveal which paths exist.
pub(super) fn plan(
    head: &RequestHead<'_>,
    gatekeeper: &Gatekeeper<'_>,
    context: &Context,
) -> Result<Plan, Refused> {
    if let Some(response) = context.access.answer_options(head) {
        return Ok(Plan::Answer(response.into()));
    }
    for resource in &context.resources {
        if let Some(plan) = resource.plan(head, gatekeeper)? {
            return Ok(plan);
        }
    }
    gatekeeper.may(match head.wants_websocket() {
        true => Action::Connect(head.path()),
        false => Action::Read(head.path()),
    })?;
    Err(Response::not_found().into())
}

/// Returns true if bytes after the head are, or may be, a body that is not read. The connection must be
/// closed after the response, or those bytes would be parsed as the next request.
pub(super) fn leaves_body_unread(plan: &Plan, request: &Request) -> bool {
    match plan {
        Plan::Answer(answer) if answer.response.status() == 411 => true,
        Plan::Answer(_) | Plan::Upgrade(_) => request.body.exceeds(0),
        Plan::Ask(question) => request.body.exceeds(question.body_limit()),
    }
}
