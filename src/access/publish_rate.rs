//! The rate limit for messages that are published over HTTP.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::net::{AddressPrefix, Peer};
use crate::rate::{Rate, RateState};

/// The limit on the rate of published messages: per address for clients on other hosts, per
/// connection for clients on this host. Each prefix of an address has as many times the rate as it has
/// [shares](AddressPrefix::shares).
pub(crate) struct PublishRate {
    rate: Rate,
    states: RefCell<HashMap<AddressPrefix, RateState>>,
}

impl PublishRate {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, states: RefCell::default() }
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
        let Some(longest) = client.limited_prefix() else { return self.rate.admit(own, now) };
        let mut states = self.states.borrow_mut();
        let is_known = longest.with_shorter().all(|prefix| states.contains_key(&prefix));
        if states.len() >= MAX_PREFIXES && !is_known {
            states.retain(|_, state| !self.rate.is_idle(*state, now));
            if states.len() >= MAX_PREFIXES {
                // So many active addresses are probably an attack, and this address is part of it.
                return Err(Duration::from_secs(1));
            }
        }
        let admit = |prefix: AddressPrefix, state: &mut RateState| {
            self.rate.times(prefix.shares()).admit(state, now)
        };
        // A message that one prefix does not admit must not count for the others.
        for prefix in longest.with_shorter() {
            admit(prefix, &mut states.get(&prefix).copied().unwrap_or_default())?;
        }
        longest
            .with_shorter()
            .try_for_each(|prefix| admit(prefix, states.entry(prefix).or_default()))
    }
}

/// The maximum number of prefixes of addresses that may publish within one second, and two more. Further
/// addresses must wait.
const MAX_PREFIXES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::num::NonZeroU32;

    use super::*;

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
        assert!(limit.states.borrow().len() <= 4 * 3);
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
        assert_eq!(limit.states.borrow().len(), 1);
    }
}
