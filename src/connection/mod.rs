//! One accepted connection: reads HTTP requests, and has each one planned by a resource and answered, until
//! a request upgrades the connection.
//!
//! This module runs the plans of the resources, and keeps the deadlines of HTTP connections. It depends on no
//! particular resource.

mod access_log;
mod answer;
mod context;
mod handshake;
mod plan;
mod proxy;
mod question;
mod reader;
mod request;
mod turn_away;
mod upgrade;

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;

use futures_lite::future::{poll_once, yield_now};

use crate::access::{AddressPlace, Refused};
use crate::counters::{Refusal, Rejection};
use crate::features::Feature;
use crate::http::head;
use crate::http::{HeadError, Response};
use crate::net::{Peer, Reach, Transport, is_eviction};
use crate::rate::RateState;
use crate::resource::{Plan, Stage};

use answer::{EVICTED, answer, last_envelope, refuse, refuse_head};
pub(crate) use context::Context;
use handshake::admit_handshake;
use plan::{leaves_body_unread, plan};
use proxy::read_proxy_header;
use question::ask;
use reader::{NoHead, Reader};
pub(crate) use request::IdGenerator;
use request::Request;
use turn_away::answer_unavailable;
pub(crate) use turn_away::turn_away;
use upgrade::upgrade;

/// Returns the first stage of a connection: its HTTP requests.
pub(crate) fn serve(
    transport: Transport,
    address_place: AddressPlace,
    reach: Reach,
    context: Rc<Context>,
) -> Stage {
    Stage::new(serve_requests(transport, address_place, reach, context))
}

/// Answers requests, until one of them upgrades the connection or the connection ends. Returns the next
/// stage of an upgraded connection.
async fn serve_requests(
    transport: Transport,
    address_place: AddressPlace,
    reach: Reach,
    context: Rc<Context>,
) -> Option<Stage> {
    let mut reader = Reader::new(transport, address_place.client());
    // Futures that few connections await are boxed, because a connection reserves space for the largest
    // future that it ever awaits.
    if Feature::Full.is_built_in()
        && context.access.proxies.uses_proxy_protocol(address_place.client())
    {
        // `dyn`, so that a build without proxies has no code to read the header.
        let reading: Pin<Box<dyn Future<Output = _> + '_>> =
            Box::pin(read_proxy_header(&mut reader, &address_place, &context));
        reading.await?;
    }
    let (peer, mut rate_state) = (address_place.client(), RateState::default());
    let limits = &context.config.limits;
    for count in 1..=limits.requests {
        let head = read_head(&mut reader, count == 1, peer, &context).await?;
        let mut refused = None;
        // Not `match`, which would reserve space for the plan while a head is refused.
        let Ok((mut request, plan)) =
            plan_request(&reader, head.clone(), peer, reach, &address_place, &context)
                .map_err(|error| refused = Some(error))
        else {
            Box::pin(refuse_head(&mut reader, &refused?, peer, &context)).await;
            return None;
        };
        reader.set_peer(request.peer);
        request.close |= count == limits.requests || context.config.timeouts.keep_alive.is_none();
        request.close |= leaves_body_unread(&plan, &request);
        // The end of the request in the reader's buffer.
        let (planned_answer, end) = match plan {
            Plan::Answer(answer) => (answer, head.end),
            Plan::Ask(question) => {
                // A build without topics has no resource that asks, and needs no code to read a body.
                if !Feature::Full.is_built_in() {
                    return None;
                }
                let asking: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(ask(
                    &mut reader,
                    head.end,
                    question,
                    &mut request,
                    &mut rate_state,
                    &context,
                ));
                let (response, end) = asking.await?;
                (response.into(), end)
            }
            Plan::Upgrade(planned) => {
                let upgrading =
                    upgrade(planned, reader, head.end, request, address_place, &context);
                return upgrading.await;
            }
        };
        if !answer(&mut reader, planned_answer, request, &context).await {
            return None;
        }
        // A connection with an unread body is closed by now.
        reader.consume(end);
        // The next request from a proxy may be for another client. Until then, the proxy has the place; it is
        // exempt from the limit of its address.
        let _ = address_place.reassign(peer, true);
        reader.set_peer(peer);
        // Other tasks run between two requests of a peer that has sent many at once.
        yield_now().await;
    }
    None
}

/// Parses the head of a request, and plans the request. Not `async`, because a connection would reserve space
/// for the parsed head.
///
/// # Errors
/// [`HeadError`], if the head is malformed or breaks a rule.
fn plan_request(
    reader: &Reader,
    head: Range<usize>,
    peer: Peer,
    reach: Reach,
    address_place: &AddressPlace,
    context: &Context,
) -> Result<(Request, Plan), HeadError> {
    let is_tls = reader.transport().is_tls();
    let head = head::parse(&reader.bytes()[head], &context.config.limits)?;
    head.check_scheme(is_tls)?;
    let admitted = context.access.admit(&head, peer, reach, is_tls, address_place);
    let planned = admitted.and_then(|gatekeeper| plan(&head, &gatekeeper, context));
    let mut request = Request::of(&head, address_place.client(), &context.ids, &context.access);
    // Only a sender with the right to it keeps one of the administrator's few places. `*` is for everybody.
    request.close |= Feature::Full.is_built_in() && context.is_admin() && head.path() == "*";
    let plan = planned.unwrap_or_else(|Refused { reason, response }| {
        if let Some(reason) = reason {
            context.count_refusal(reason);
            request.close |= context.is_admin();
        }
        // A proxy must not keep a place of this host.
        request.close |= reason == Some(Refusal::Connections);
        Plan::Answer(response.into())
    });
    Ok((request, plan))
}

/// Waits for a request head and returns its range in [`Reader::bytes`]. Returns `None` if the connection
/// ends instead: no head arrived within the deadline, the head is invalid, the peer closed the connection,
/// or the server stops.
async fn read_head(
    reader: &mut Reader,
    is_first: bool,
    peer: Peer,
    context: &Context,
) -> Option<Range<usize>> {
    let timeouts = &context.config.timeouts;
    let timer = reader.transport().timer();
    if !is_first {
        let deadline = timer.sleep(timeouts.keep_alive);
        let more = context.stop.unless_requested(reader.at_least(1));
        let end = match timer.until(deadline, more).await {
            Some(Some(Ok(()))) => None,
            Some(Some(Err(error))) if is_eviction(&error) => {
                context.count_rejection(Rejection::Memory);
                Some("evicted")
            }
            Some(Some(Err(_))) => Some("closed by the peer"),
            Some(None) => Some(STOPPING),
            None => Some("idle"),
        };
        if let Some(end) = end {
            reader.log_entry().end(end);
            return None;
        }
    }
    let begins_with_handshake = is_first && reader.transport().is_tls();
    let deadline =
        timer.sleep(if begins_with_handshake { timeouts.tls_head } else { timeouts.head });
    if Feature::Tls.is_built_in() && begins_with_handshake {
        admit_handshake(reader, peer, context)?;
    }
    let reading = context.stop.unless_requested(reader.head(&context.config.limits));
    let end = match timer.until(deadline, reading).await {
        Some(Some(Ok(head))) => return Some(head),
        Some(Some(Err(NoHead::Refused(error)))) => {
            Box::pin(refuse_head(reader, &error, peer, context)).await;
            return None;
        }
        Some(Some(Err(NoHead::Lost(error)))) if error.kind() == io::ErrorKind::InvalidData => {
            context.count_rejection(Rejection::Tls);
            log::info!(target: "falconet::request", address = peer.to_string(); "refused: TLS: {error}");
            // The peer has been sent an alert.
            reader.close(timeouts.linger).await;
            "refused"
        }
        Some(Some(Err(NoHead::Evicted))) => {
            context.count_rejection(Rejection::Memory);
            log::info!(target: "falconet::limit", address = peer.to_string(); "refused: {}", EVICTED.trim_ascii_end());
            let (response, envelope) =
                (Response::text(503, EVICTED), last_envelope(reader, context));
            Box::pin(refuse(reader, &response, &envelope, context)).await;
            "refused"
        }
        Some(Some(Err(NoHead::Lost(_)))) => {
            log::debug!(target: "falconet::request", address = peer.to_string(); "closed by the peer without a request");
            "closed by the peer"
        }
        Some(None) => {
            Box::pin(stop_reading(reader, peer, context)).await;
            STOPPING
        }
        None => {
            let is_handshaking = reader.transport().is_handshaking();
            let reason = if is_handshaking { Rejection::Tls } else { Rejection::Timeout };
            context.count_rejection(reason);
            log::info!(target: "falconet::request", address = peer.to_string(); "dropped: no request in time");
            "timed out"
        }
    };
    reader.log_entry().end(end);
    None
}

/// Answers a request that had begun to arrive when the server began to stop. Without any byte of a request, a
/// client gets no answer: EventSource then reconnects, which it would not do after an error.
async fn stop_reading(reader: &mut Reader, peer: Peer, context: &Context) {
    // The bytes may have arrived, but not been read.
    let _ = poll_once(reader.at_least(1)).await;
    if reader.bytes().is_empty() {
        return;
    }
    let reason = "the server is stopping\n";
    let (response, envelope) = (Response::text(503, reason), last_envelope(reader, context));
    // Boxed, so that a build without event streams has no code to read the rest of the head.
    let answering: Pin<Box<dyn Future<Output = ()> + '_>> = match Feature::Full.is_built_in() {
        true => Box::pin(answer_unavailable(reader, peer, reason, context)),
        false => Box::pin(refuse(reader, &response, &envelope, context)),
    };
    answering.await;
}

/// The end in the access log of a connection that was closed because the server stops.
const STOPPING: &str = "the server is stopping";
