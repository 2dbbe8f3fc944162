//! The rate limit for messages that are published over HTTP.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::Peer;
use crate::rate::{Rate, RateState};

/// The limit on the rate of published messages: per address for clients on other hosts, per
/// connection for clients on this host.
pub(crate) struct PublishRate {
    rate: Rate,
    states: RefCell<HashMap<IpAddr, RateState>>,
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
        let Some(address) = client.limited_address() else { return self.rate.admit(own, now) };
        let mut states = self.states.borrow_mut();
        if states.len() >= MAX_ADDRESSES && !states.contains_key(&address) {
            states.retain(|_, state| !self.rate.is_idle(*state, now));
            if states.len() >= MAX_ADDRESSES {
                // So many active addresses are probably an attack, and this address is part of it.
                return Err(Duration::from_secs(1));
            }
        }
        self.rate.admit(states.entry(address).or_default(), now)
    }
}

/// The maximum number of addresses that may publish within one second. Further addresses must wait.
const MAX_ADDRESSES: usize = 4096;

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

    #[test]
    fn a_full_table_drops_the_addresses_that_did_not_publish_lately() {
        let now = Instant::now();
        let limit = PublishRate::new(Rate::new(NonZeroU32::MIN, now));
        let mut own = RateState::default();
        for number in 0..MAX_ADDRESSES as u32 {
            assert!(limit.admit(peer(number), &mut own, now).is_ok());
        }
        assert!(limit.admit(peer(1 << 20), &mut own, now).is_err());
        let later = now + Duration::from_secs(1);
        assert!(limit.admit(peer(1 << 20), &mut own, later).is_ok());
        assert_eq!(limit.states.borrow().len(), 1);
    }
}
