//! How many connections each address has, and a connection's place among them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::net::{Peer, Reach};

/// How many connections each address has that is not this host: at most `limit`.
pub(crate) struct Addresses {
    counts: RefCell<HashMap<IpAddr, usize>>,
    limit: usize,
}

/// What a connection is known by: its client, who counts against the limit of its address, and the
/// listener it came to. Dropping it frees the place.
pub(crate) struct Seat {
    addresses: Rc<Addresses>,
    client: Cell<Peer>,
    is_counted: Cell<bool>,
    reach: Reach,
}

impl Addresses {
    pub(crate) fn new(limit: usize) -> Self {
        Self { counts: RefCell::default(), limit }
    }

    fn add(&self, address: IpAddr) -> bool {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(address).or_default();
        let has_room = *count < self.limit;
        if has_room {
            *count += 1;
        }
        has_room
    }

    fn remove(&self, address: IpAddr) {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

impl Seat {
    /// A seat for `client`, who came to a listener of this `reach`; `None` if its address has too many.
    /// A trusted proxy `is_exempt`, as is this host.
    pub(crate) fn take(
        addresses: &Rc<Addresses>,
        client: Peer,
        is_exempt: bool,
        reach: Reach,
    ) -> Option<Self> {
        // Exempt until it is given to the client, who may not be.
        let (is_counted, client_so_far) = (Cell::new(false), Cell::new(client));
        let seat = Self { addresses: addresses.clone(), client: client_so_far, is_counted, reach };
        seat.count(client, is_exempt).then_some(seat)
    }

    /// Gives the seat to `client`; says whether its address had room, and changes nothing if not.
    pub(crate) fn give_to(&self, client: Peer, is_exempt: bool) -> bool {
        self.client.get() == client || self.count(client, is_exempt)
    }

    /// Who sits here.
    pub(crate) fn client(&self) -> Peer {
        self.client.get()
    }

    /// From where the listener can be reached.
    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    fn count(&self, client: Peer, is_exempt: bool) -> bool {
        let address = client.limited_address().filter(|_| !is_exempt);
        if address.is_some_and(|address| !self.addresses.add(address)) {
            return false;
        }
        self.leave();
        self.client.set(client);
        self.is_counted.set(address.is_some());
        true
    }

    fn leave(&self) {
        if self.is_counted.take()
            && let Some(address) = self.client.get().limited_address()
        {
            self.addresses.remove(address);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    fn take(addresses: &Rc<Addresses>, client: &str) -> Option<Seat> {
        Seat::take(addresses, peer(client), false, Reach::Network)
    }

    #[test]
    fn an_address_has_as_many_seats_as_the_limit_says() {
        let addresses = Rc::new(Addresses::new(2));
        let first = take(&addresses, "192.0.2.1:1").unwrap();
        let _second = take(&addresses, "192.0.2.1:2").unwrap();
        assert!(take(&addresses, "192.0.2.1:3").is_none());
        assert!(take(&addresses, "[::ffff:192.0.2.1]:3").is_none(), "it is the same address");
        assert!(take(&addresses, "192.0.2.2:3").is_some());
        drop(first);
        assert!(take(&addresses, "192.0.2.1:4").is_some());
    }

    #[test]
    fn this_host_and_a_trusted_proxy_are_exempt() {
        let addresses = Rc::new(Addresses::new(0));
        assert!(take(&addresses, "127.0.0.1:1").is_some());
        assert!(take(&addresses, "192.0.2.1:1").is_none());
        assert!(Seat::take(&addresses, peer("192.0.2.1:1"), true, Reach::Network).is_some());
        assert!(Seat::take(&addresses, Peer::Unix, false, Reach::Unix).is_some());
    }

    #[test]
    fn a_seat_that_is_given_away_counts_for_who_has_it() {
        let addresses = Rc::new(Addresses::new(1));
        let proxy = peer("192.0.2.9:1");
        let seat = Seat::take(&addresses, proxy, true, Reach::Network).unwrap();
        assert!(seat.give_to(peer("198.51.100.1:0"), false));
        assert!(seat.give_to(peer("198.51.100.1:0"), false), "it is its own seat already");
        let other = Seat::take(&addresses, proxy, true, Reach::Network).unwrap();
        assert!(!other.give_to(peer("198.51.100.1:0"), false));
        assert_eq!(other.client(), proxy);
        assert!(seat.give_to(proxy, true));
        assert!(other.give_to(peer("198.51.100.1:0"), false));
        drop((seat, other));
        assert!(addresses.counts.borrow().is_empty());
    }
}
