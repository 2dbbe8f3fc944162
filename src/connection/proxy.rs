//! Reads the header of the PROXY protocol, which a trusted proxy sends at the beginning of a connection.

use crate::access::AddressPlace;
use crate::counters::Rejection;
use crate::net::Peer;

use super::context::Context;
use super::reader::{NoHeader, Reader};

/// Reads the header, and gives the connection's place to the client that the header names. Returns `None`
/// if the connection must be closed: the header is invalid, late or missing, the client's address has too
/// many connections, or the server stops.
pub(super) async fn read_proxy_header(
    reader: &mut Reader,
    address_place: &AddressPlace,
    context: &Context,
) -> Option<()> {
    let (proxy, timer) = (address_place.client(), reader.transport().timer());
    let deadline = timer.sleep(context.config.timeouts.head);
    let reading = context.stop.unless_requested(reader.proxy_header());
    let refusal = match timer.until(deadline, reading).await {
        Some(Some(Ok(client))) => {
            let client = client.map_or(proxy, Peer::Ip);
            if address_place.reassign(client, context.access.proxies.trust(client)) {
                return Some(());
            }
            context.count_rejection(Rejection::Address);
            log::warn!(target: "falconet::limit", address = client.to_string(); "too many connections: dropped");
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
