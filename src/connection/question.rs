//! Reads the body of a request that is a question, and gets the answer.

use crate::http::Response;
use crate::rate::RateState;
use crate::resource::{Question, Requester};

use super::answer::write_all;
use super::context::Context;
use super::reader::Reader;
use super::request::Request;

/// Reads the request's body if the question takes one, and returns the response to the question. Returns
/// `None` if the client closes the connection before that, or if the server has ended.
pub(super) async fn ask(
    reader: &mut Reader,
    head_end: usize,
    question: Box<dyn Question>,
    request: &mut Request,
    rate_state: &mut RateState,
    context: &Context,
) -> Option<Response> {
    // A longer body is not read. The connection is closed after the response.
    let fits = request.body_bytes <= question.body_limit();
    let body_bytes = if fits { request.body_bytes as usize } else { 0 };
    let body = head_end..head_end + body_bytes;
    if question.expects_continue() && reader.bytes().len() < body.end {
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        if !write_all(reader, interim, &context.config).await {
            reader.log_entry().end("lost");
            return None;
        }
    }
    let timer = reader.transport().timer();
    let deadline = timer.sleep(context.config.timeouts.message);
    let reading = context.stop.unless_requested(reader.at_least(body.end));
    let refusal = match timer.until(deadline, reading).await {
        Some(Some(None)) => {
            reader.log_entry().end("lost");
            return None;
        }
        Some(Some(Some(()))) => {
            let requester = Requester { peer: request.peer, rate_state, now: timer.now() };
            return question.answer(&reader.bytes()[body], requester).await.ok();
        }
        Some(None) => Response::text(503, "the server is stopping\n"),
        None => Response::text(408, "the message did not arrive in time\n"),
    };
    request.close = true;
    Some(refusal)
}
