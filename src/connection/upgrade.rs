//! Upgrades a connection to a WebSocket session or an event stream.

use crate::access::AddressPlace;
use crate::http::Response;
use crate::hub::NewClient;
use crate::resource::{Joining, Stage, Upgrade, Upgraded, Welcome};
use crate::ws::SessionEnd;

use super::answer::{answer, write_all};
use super::context::Context;
use super::reader::Reader;
use super::request::Request;

/// Adds the client to the hub, sends the response that accepts the upgrade, and returns the next stage of
/// the connection. The head of the request ends at `head_end`. Returns `None` if the connection ends
/// instead: the client cannot subscribe, the response cannot be sent, or the server has ended.
pub(super) async fn upgrade(
    upgrade: Box<dyn Upgrade>,
    mut reader: Reader,
    head_end: usize,
    mut request: Request,
    address_place: AddressPlace,
    context: &Context,
) -> Option<Stage> {
    let correlation = request.correlation.clone();
    let correlation = correlation.unwrap_or_else(|| context.ids.generate());
    let Joining { kind, path, subscription } = upgrade.joining();
    let new_client = NewClient { correlation, peer: request.peer, kind, path };
    let now = reader.transport().timer().now();
    // The client joins before the response is sent, so that it misses no message published after that.
    let membership = match context.hub.join(new_client, subscription, now).await.ok()? {
        Ok(membership) => membership,
        Err(error) => {
            let response = Response::text(503, format!("{error}\n"));
            request.close = true;
            Box::pin(answer(&mut reader, response.into(), request, context)).await;
            return None;
        }
    };
    // The client's record now has the line about the end of the connection.
    reader.log_entry().discard();
    let client = membership.client();
    let response = upgrade.response(&Welcome {
        correlation: &client.correlation,
        request_id: &request.id,
        before: membership.before(),
        envelope: &request.envelope(),
    });
    if !write_all(&reader, &response, &context.config).await {
        SessionEnd::TransportLost.record(client, reader.transport().timer().now());
        return None;
    }
    context.count_answer(upgrade.status());
    log::info!(
        target: "falconet::client",
        client = client.id().to_string(), address = request.peer.to_string(),
        path = &*request.path, correlation = client.correlation.to_string(),
        request = &*request.id;
        "new connection"
    );
    let (transport, early) = reader.into_parts(head_end);
    let permit = address_place.into_permit();
    Some(upgrade.begin(Upgraded { transport, early, membership, permit }))
}
