//! The limit on the rate of TLS handshakes.

use std::time::Duration;

use crate::counters::Rejection;
use crate::features::Feature;
use crate::net::Peer;

use super::context::Context;
use super::reader::Reader;

/// Reserves the TLS handshake of a new connection of `peer`, and lets the handshake wait until it may begin. Returns
/// `None` if the connection must be closed, because `peer` has begun so many handshakes that this one would be late.
///
/// Clients behind one address that reconnect at the same time are thus admitted one after the other.
pub(super) fn admit_handshake(reader: &mut Reader, peer: Peer, context: &Context) -> Option<()> {
    // The rest of the deadline is for the handshake itself.
    let longest = context.config.timeouts.tls_head.map_or(Duration::MAX, |limit| limit / 4 * 3);
    let Some(wait) = reserve_handshake(reader, peer, longest, context) else {
        context.count_rejection(Rejection::Address);
        log::warn!(
            target: "falconet::limit",
            address = peer.to_string();
            "too many TLS handshakes from one address: dropped"
        );
        reader.log_entry().end("refused");
        return None;
    };
    if !wait.is_zero() {
        let transport = reader.transport();
        transport.postpone_handshake(transport.timer().sleep(Some(wait)));
    }
    Some(())
}

/// Reserves the next TLS handshake of `peer`. Returns the time until it may begin, or `None` if this time is
/// longer than `longest`; then nothing is reserved.
pub(super) fn reserve_handshake(
    reader: &Reader,
    peer: Peer,
    longest: Duration,
    context: &Context,
) -> Option<Duration> {
    let is_exempt = Feature::Full.is_built_in() && context.access.proxies.trust(peer);
    match &context.handshake_rate {
        Some(rate) if !is_exempt => rate.reserve(peer, longest, reader.transport().timer().now()),
        _ => Some(Duration::ZERO),
    }
}
