//! The rate limit for messages that are published over HTTP.

use std::time::{Duration, Instant};

use crate::net::Peer;
use crate::rate::{Rate, RateState};

use super::prefix_rates::PrefixRates;

/// The limit on the rate of published messages: per address for clients on other hosts, per
/// connection for clients on this host.
pub(crate) struct PublishRate(PrefixRates);

impl PublishRate {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(PrefixRates::new(rate))
    }

    /// Admits one more message from `client`. `own` is the state of the client's connection. It is
    /// used instead of the state of the address if the client is on this host.
    ///
    /// # Errors
    /// The time to wait until a message is admitted.
    pub(crate) fn admit(
        &self,
        client: Peer,
        own: &mut RateState,
        now: Instant,
    ) -> Result<(), Duration> {
        match client.limited_prefix() {
            Some(address) => self.0.reserve(address, Duration::ZERO, now).map(drop),
            None => self.0.rate().admit(own, now),
        }
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
    fn an_address_shares_one_limit_and_a_connection_from_this_host_has_its_own() {
        let now = Instant::now();
        let limit = PublishRate::new(Rate::new(NonZeroU32::MIN, now));
        let (mut one, mut other) = (RateState::default(), RateState::default());
        assert!(limit.admit(peer(1), &mut one, now).is_ok());
        assert!(limit.admit(peer(1), &mut other, now).is_err());
        assert!(limit.admit(peer(2), &mut other, now).is_ok());
        assert!(limit.admit(Peer::Unix, &mut one, now).is_ok());
        assert!(limit.admit(Peer::Unix, &mut one, now).is_err());
        assert!(limit.admit(Peer::Unix, &mut other, now).is_ok());
    }

    #[cfg(feature = "full")]
    #[test]
    fn shorter_prefixes_of_ipv6_have_two_and_four_times_the_rate() {
        let now = Instant::now();
        let limit = PublishRate::new(Rate::new(NonZeroU32::new(5).unwrap(), now));
        let mut own = RateState::default();
        let mut admitted = |address: &str, now| {
            let peer = Peer::Ip(address.parse().unwrap());
            (0..100).filter(|_| limit.admit(peer, &mut own, now).is_ok()).count()
        };
        assert_eq!(admitted("[2001:db8:0:100::1]:1", now), 5);
        assert_eq!(admitted("[2001:db8:0:100::2]:1", now), 0, "the same /64");
        assert_eq!(admitted("[2001:db8:0:101::1]:1", now), 5);
        assert_eq!(admitted("[2001:db8:0:102::1]:1", now), 0, "the same /56");
        assert_eq!(admitted("[2001:db8:0:200::1]:1", now), 5);
        assert_eq!(admitted("[2001:db8:0:300::1]:1", now), 5);
        assert_eq!(admitted("[2001:db8:0:400::1]:1", now), 0, "the same /48");
        assert_eq!(admitted("[2001:db8:1::1]:1", now), 5, "another /48");
        // Refused messages did not count.
        assert_eq!(admitted("[2001:db8:0:400::1]:1", now + Duration::from_secs(1)), 5);
    }

    #[cfg(feature = "full")]
    #[test]
    fn the_prefixes_of_refused_messages_take_no_memory() {
        let now = Instant::now();
        let limit = PublishRate::new(Rate::new(NonZeroU32::MIN, now));
        let mut own = RateState::default();
        let admitted = (0..1000_u16).filter(|network| {
            let address = format!("[2001:db8:0:{network:x}::1]:1");
            limit.admit(Peer::Ip(address.parse().unwrap()), &mut own, now).is_ok()
        });
        assert_eq!(admitted.count(), 4);
        assert!(limit.0.len() <= 4 * 3);
    }

    #[test]
    fn a_full_table_drops_the_addresses_that_did_not_publish_lately() {
        let now = Instant::now();
        let limit = PublishRate::new(Rate::new(NonZeroU32::MIN, now));
        let mut own = RateState::default();
        for number in 0..MAX_PREFIXES as u32 {
            assert!(limit.admit(peer(number), &mut own, now).is_ok());
        }
        assert!(limit.admit(peer(1 << 20), &mut own, now).is_err());
        let later = now + Duration::from_secs(1);
        assert!(limit.admit(peer(1 << 20), &mut own, later).is_ok());
        assert_eq!(limit.0.len(), 1);
    }
}
