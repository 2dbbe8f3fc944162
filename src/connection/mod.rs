//! One accepted connection: reads HTTP requests, and has each one planned by a resource and answered, until
//! a request upgrades the connection.
//!
//! This module runs the plans of the resources, and keeps the deadlines of HTTP connections. It depends on no
//! particular resource.

mod access_log;
mod answer;
mod context;
mod plan;
mod proxy;
mod question;
mod reader;
mod request;
mod upgrade;

use std::io;
use std::ops::Range;
use std::rc::Rc;

use futures_lite::future::yield_now;

use crate::access::{AddressPlace, Gatekeeper, Refused};
use crate::counters::Rejection;
use crate::features::Feature;
use crate::http::Response;
use crate::http::head;
use crate::net::{Peer, Reach, Transport};
use crate::rate::RateState;
use crate::resource::{Plan, Stage};

use answer::{answer, refuse, refuse_head};
pub(crate) use context::Context;
use plan::{leaves_body_unread, plan};
use proxy::read_proxy_header;
use question::ask;
use reader::{NoHead, Reader};
pub(crate) use request::IdGenerator;
use request::Request;
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
    let mut reader = Reader::new(transport);
    // Futures that few connections await are boxed, because a connection reserves space for the largest
    // future that it ever awaits.
    if Feature::Full.is_built_in()
        && context.access.proxies.uses_proxy_protocol(address_place.client())
    {
        Box::pin(read_proxy_header(&mut reader, &address_place, &context)).await?;
    }
    let (peer, mut rate_state) = (address_place.client(), RateState::default());
    let limits = &context.config.limits;
    let is_tls = reader.transport().is_tls();
    for count in 1..=limits.requests {
        let head = read_head(&mut reader, count == 1, peer, &context).await?;
        let (mut request, planned) = match head::parse(&reader.bytes()[head.clone()], limits) {
            Ok(head) => {
                let admitted = context.access.admit(&head, peer, reach, is_tls, &address_place);
                let reach = address_place.reach(reach);
                let gatekeeper = Gatekeeper::new(&context.access, &head, reach);
                let planned = admitted.and_then(|()| plan(&head, &gatekeeper, &context));
                (Request::of(&head, address_place.client(), &context.ids), planned)
            }
            Err(error) => {
                Box::pin(refuse_head(&mut reader, &error, peer, &context)).await;
                return None;
            }
        };
        if context.is_admin() && request.is_read() {
            // A monitoring system repeats these requests every few seconds.
            request.level = log::Level::Debug;
        }
        request.close |= count == limits.requests || context.config.timeouts.keep_alive.is_none();
        let plan = planned.unwrap_or_else(|Refused { reason, response }| {
            if let Some(reason) = reason {
                context.count_refusal(reason);
            }
            Plan::Answer(response.into())
        });
        request.close |= leaves_body_unread(&plan, &request);
        let body_bytes = request.body_bytes;
        let planned_answer = match plan {
            Plan::Answer(answer) => answer,
            Plan::Ask(question) => {
                let asking =
                    ask(&mut reader, head.end, question, &mut request, &mut rate_state, &context);
                Box::pin(asking).await?.into()
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
        // A connection with an unread body is closed by now, so this body fits into memory.
        reader.consume(head.end + body_bytes as usize);
        // The next request from a proxy may be for another client. Until then, the proxy has the place; it is
        // exempt from the limit of its address.
        address_place.reassign(peer, true);
        // Other tasks run between two requests of a peer that has sent many at once.
        yield_now().await;
    }
    None
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
            Some(Some(Some(()))) => None,
            Some(Some(None)) => Some("closed by the peer"),
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
            "refused"
        }
        Some(Some(Err(NoHead::Lost(_)))) => {
            log::debug!(target: "falconet::request", address = peer.to_string(); "closed by the peer without a request");
            "closed by the peer"
        }
        Some(None) => {
            let response = Response::text(503, "the server is stopping\n");
            Box::pin(refuse(reader, &response, context)).await;
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

/// The end in the access log of a connection that was closed because the server stops.
const STOPPING: &str = "the server is stopping";
