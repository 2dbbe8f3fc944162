//! Reads the header of the PROXY protocol, which a trusted proxy sends at the beginning of a connection.

use crate::access::proxy_protocol::ProxiedClient;
use crate::access::{AddressPlace, warn_no_room};
use crate::counters::{Refusal, Rejection};

use super::context::Context;
use super::reader::{NoHeader, Reader};
use super::turn_away::{TOO_MANY, answer_unavailable};

/// Reads the header, and gives the connection's place to the client that the header names. Returns `None`
/// if the connection must be closed: the header is invalid, late or missing, there is no room for the client,
/// or the server stops.
pub(super) async fn read_proxy_header(
    reader: &mut Reader,
    address_place: &AddressPlace,
    context: &Context,
) -> Option<()> {
    let (proxy, timer) = (address_place.client(), reader.transport().timer());
    let deadline = timer.sleep(context.config.timeouts.head);
    let reading = context.stop.unless_requested(reader.proxy_header());
    let refusal = match timer.until(deadline, reading).await {
        Some(Some(Ok(named))) => {
            let client = named.peer(proxy);
            reader.set_peer(client);
            let is_unknown = named == ProxiedClient::Unknown;
            address_place.note_proxy_header(is_unknown);
            let placed = match is_unknown {
                true => address_place.leave_host(),
                false => address_place.reassign(client, context.access.proxies.trust(client)),
            };
            let Err(refusal) = placed else { return Some(()) };
            context.count_rejection(match refusal {
                Refusal::Connections => Rejection::Connections,
                _ => Rejection::Address,
            });
            warn_no_room(client, refusal);
            answer_unavailable(reader, client, TOO_MANY, context).await;
            return None;
        }
        Some(Some(Err(NoHeader::Invalid(error)))) => {
            context.count_rejection(Rejection::Proxy);
            error.to_string()
        }
        Some(Some(Err(NoHeader::Lost))) => {
            "the proxy closed the connection without a header".to_owned()
        }
        Some(None) => "the server is stopping".to_owned(),
        None => {
            context.count_rejection(Rejection::Proxy);
            "no header of the PROXY protocol in time".to_owned()
        }
    };
    log::info!(target: "falconet::access", address = proxy.to_string(); "dropped: {refusal}");
    None
}
