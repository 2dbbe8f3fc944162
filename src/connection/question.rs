//! Reads the body of a request that is a question, and gets the answer.

use crate::counters::Rejection;
use crate::http::Response;
use crate::http::body::Framing;
use crate::rate::RateState;
use crate::resource::{Question, Requester};

use super::answer::{EVICTED, write_all};
use super::context::Context;
use super::reader::{NoBody, Reader};
use super::request::Request;

/// Reads the request's body if the question takes one, and returns the response to the question, and the end of
/// the request in the reader's buffer. Returns `None` if the client closes the connection before that, or if
/// the server has ended.
pub(super) async fn ask(
    reader: &mut Reader,
    head_end: usize,
    question: Box<dyn Question>,
    request: &mut Request,
    rate_state: &mut RateState,
    context: &Context,
) -> Option<(Response, usize)> {
    let limit = question.body_limit();
    // A longer body is not read. The connection is closed after the response.
    let body = if request.body.exceeds(limit) { Framing::None } else { request.body };
    let received = (reader.bytes().len() - head_end) as u64;
    if question.expects_continue() && received < body.least_bytes() {
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        if !write_all(reader, interim, &context.config).await {
            reader.log_entry().end("lost");
            return None;
        }
    }
    let timer = reader.transport().timer();
    let deadline = timer.sleep(context.config.timeouts.message);
    let reading = context.stop.unless_requested(reader.body(head_end, body, limit));
    let refusal = match timer.until(deadline, reading).await {
        Some(Some(Ok(end))) => {
            let requester = Requester { peer: request.peer, rate_state, now: timer.now() };
            let answering = question.answer(&reader.bytes()[head_end..end], requester);
            return Some((answering.await.ok()?, end));
        }
        Some(Some(Err(NoBody::Refused(error)))) => error.response(),
        Some(Some(Err(NoBody::Evicted))) => {
            context.count_rejection(Rejection::Memory);
            Response::text(503, EVICTED)
        }
        Some(Some(Err(NoBody::Lost))) => {
            reader.log_entry().end("lost");
            return None;
        }
        Some(None) => Response::text(503, "the server is stopping\n"),
        None => Response::text(408, "the message did not arrive in time\n"),
    };
    request.close = true;
    Some((refusal, head_end))
}
