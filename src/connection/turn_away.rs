//! Turns away a connection for which there is no room: reads one request head, so that a client that wants an
//! event stream is asked to reconnect, and answers it.

use std::rc::Rc;
use std::time::Duration;

use crate::features::Feature;
use crate::http::{HeadError, Response, head};
use crate::net::{Peer, Transport};
use crate::resource::Stage;

use super::answer::{last_envelope, reconnecting, refuse};
use super::context::Context;
use super::handshake::reserve_handshake;
use super::reader::{NoHead, Reader};
use super::request::Request;

/// Returns the only stage of a connection that was accepted above the limit on connections. The stage ends
/// when the server stops.
pub(crate) fn turn_away(transport: Transport, peer: Peer, context: Rc<Context>) -> Stage {
    Stage::last(async move {
        let mut reader = Reader::new(transport, peer);
        let turning_away = async {
            let mut client = peer;
            if context.access.proxies.uses_proxy_protocol(peer) {
                let timer = reader.transport().timer();
                let deadline = timer.sleep(Some(PATIENCE));
                let named = timer.until(deadline, reader.proxy_header()).await?.ok()?;
                client = named.peer(peer);
            }
            reader.set_peer(client);
            answer_unavailable(&mut reader, client, TOO_MANY, &context).await;
            Some(())
        };
        context.stop.unless_requested(turning_away).await;
    })
}

/// Waits for a request head, and answers it with status 503 and the line `reason`, or as [`reconnecting`] does.
/// Then closes the connection. Waits at most [`PATIENCE`] for the head, TLS handshake included. There is no answer
/// to bytes that are not HTTP, nor if the handshake would have to wait for others of the same address.
pub(super) async fn answer_unavailable(
    reader: &mut Reader,
    peer: Peer,
    reason: &'static str,
    context: &Context,
) {
    let begins_with_handshake = Feature::Tls.is_built_in() && reader.transport().is_handshaking();
    if begins_with_handshake && reserve_handshake(reader, peer, Duration::ZERO, context).is_none() {
        return;
    }
    let (timer, limits) = (reader.transport().timer(), &context.config.limits);
    let head = match timer.until(timer.sleep(Some(PATIENCE)), reader.head(limits)).await {
        Some(Ok(range)) => head::parse(&reader.bytes()[range], limits).map(Some),
        Some(Err(NoHead::Refused(error))) => Err(error),
        // The head is incomplete, so it may be one of HTTP.
        Some(Err(NoHead::Lost(_) | NoHead::Evicted)) | None => Ok(None),
    };
    if matches!(head, Err(HeadError::NotHttp(_))) {
        return;
    }
    let unavailable = Response::text(503, reason);
    let (response, envelope) = match head.ok().flatten() {
        Some(head) => {
            let mut request = Request::of(&head, peer, &context.ids, &context.access);
            request.close = true;
            (reconnecting(unavailable, &mut request), request.envelope())
        }
        None => (unavailable, last_envelope(reader, context)),
    };
    refuse(reader, &response, &envelope, context).await;
}

/// The text for a client above a limit on connections.
pub(super) const TOO_MANY: &str = "too many connections\n";
/// The time for a header of the PROXY protocol, and then for the head.
const PATIENCE: Duration = Duration::from_secs(1);
