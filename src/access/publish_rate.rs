//! How fast messages may be published over HTTP.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::Peer;
use crate::rate::{Pace, Rate};

/// Limits the messages of each address; those of this host, of each connection.
pub(crate) struct PublishRate {
    rate: Rate,
    paces: RefCell<HashMap<IpAddr, Pace>>,
}

impl PublishRate {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, paces: RefCell::default() }
    }

    /// Lets `client` publish one message more, or says after how long it may. `own` is the pace of its
    /// connection.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn admit(&self, client: Peer, own: &mut Pace, now: Instant) -> Result<(), Duration> {
        let Some(address) = client.limited_address() else { return self.rate.admit(own, now) };
        let mut paces = self.paces.borrow_mut();
        if paces.len() >= MAX_ADDRESSES && !paces.contains_key(&address) {
            paces.retain(|_, pace| !self.rate.is_rested(*pace, now));
            if paces.len() >= MAX_ADDRESSES {
                // So many in one second are a flood, and this is one of it.
                return Err(Duration::from_secs(1));
            }
        }
        self.rate.admit(paces.entry(address).or_default(), now)
    }
}

/// How many addresses are remembered that published within the last second.
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
    fn an_address_has_one_pace_and_this_host_one_for_each_connection() {
        let now = Instant::now();
        let limit = PublishRate::new(Rate::new(NonZeroU32::MIN, now));
        let (mut one, mut other) = (Pace::default(), Pace::default());
        assert!(limit.admit(peer(1), &mut one, now).is_ok());
        assert!(limit.admit(peer(1), &mut other, now).is_err());
        assert!(limit.admit(peer(2), &mut other, now).is_ok());
        assert!(limit.admit(Peer::Unix, &mut one, now).is_ok());
        assert!(limit.admit(Peer::Unix, &mut one, now).is_err());
        assert!(limit.admit(Peer::Unix, &mut other, now).is_ok());
    }

    #[test]
    fn who_rests_is_forgotten_when_there_are_many() {
        let now = Instant::now();
        let limit = PublishRate::new(Rate::new(NonZeroU32::MIN, now));
        let mut own = Pace::default();
        for number in 0..MAX_ADDRESSES as u32 {
            assert!(limit.admit(peer(number), &mut own, now).is_ok());
        }
        assert!(limit.admit(peer(1 << 20), &mut own, now).is_err());
        let later = now + Duration::from_secs(1);
        assert!(limit.admit(peer(1 << 20), &mut own, later).is_ok());
        assert_eq!(limit.paces.borrow().len(), 1);
    }
}
