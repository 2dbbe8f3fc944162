//! The rate limit for TLS handshakes.

use std::time::{Duration, Instant};

use crate::net::Peer;
use crate::rate::Rate;

use super::prefix_rates::PrefixRates;

/// The limit on the rate of TLS handshakes of each remote address. Clients on this host have no limit: a
/// process on this host needs no handshakes to take processor time, and a proxy on this host that forwards
/// connections makes them for many clients.
pub(crate) struct HandshakeRate(PrefixRates);

impl HandshakeRate {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(PrefixRates::new(rate))
    }

    /// Reserves the next handshake of `client`. Returns the time until it may begin. Returns `None` if this time
    /// is longer than `longest`, or if too many addresses have handshakes; then nothing is reserved.
    pub(crate) fn reserve(
        &self,
        client: Peer,
        longest: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let Some(address) = client.limited_prefix() else { return Some(Duration::ZERO) };
        self.0.reserve(address, longest, now).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::num::NonZeroU32;

    use super::*;
    use crate::access::prefix_rates::MAX_PREFIXES;

    fn peer(number: u32) -> Peer {
        Peer::Ip(SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0000 + number).into(), 1))
    }

    #[test]
    fn handshakes_of_one_address_wait_for_one_another_and_those_of_this_host_do_not() {
        let now = Instant::now();
        let limit = HandshakeRate::new(Rate::new(NonZeroU32::MIN, now));
        let second = Duration::from_secs(1);
        let reserve = |client| limit.reserve(client, 2 * second, now);
        assert_eq!(reserve(peer(1)), Some(Duration::ZERO));
        assert_eq!(reserve(peer(1)), Some(second));
        assert_eq!(reserve(peer(1)), Some(2 * second));
        assert_eq!(reserve(peer(1)), None);
        assert_eq!(limit.reserve(peer(1), 2 * second, now + second), Some(2 * second));
        assert_eq!(reserve(peer(2)), Some(Duration::ZERO));
        let loopback = Peer::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        for _ in 0..2 {
            assert_eq!(reserve(loopback), Some(Duration::ZERO));
            assert_eq!(reserve(Peer::Unix), Some(Duration::ZERO));
        }
    }

    #[test]
    fn a_full_table_drops_the_addresses_without_recent_handshakes() {
        let now = Instant::now();
        let limit = HandshakeRate::new(Rate::new(NonZeroU32::MIN, now));
        let second = Duration::from_secs(1);
        for number in 0..2 * MAX_PREFIXES as u32 {
            limit.reserve(peer(number), second, now);
        }
        assert_eq!(limit.0.len(), MAX_PREFIXES);
        assert_eq!(limit.reserve(peer(1 << 20), second, now), None);
        assert_eq!(limit.reserve(peer(1), second, now), Some(second), "it is in the table");
        assert_eq!(limit.reserve(peer(1 << 20), second, now + 2 * second), Some(Duration::ZERO));
        assert_eq!(limit.0.len(), 1);
    }
}
