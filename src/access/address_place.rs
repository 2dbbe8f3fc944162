//! How many connections each address has, and a connection's place among them.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use crate::net::{Peer, Reach};

/// Who has a share of each address's connections that is not this host: at most `limit` each.
pub(crate) struct Addresses {
    /// In the order of the addresses.
    shared: RefCell<Vec<Rc<Shared>>>,
    limit: usize,
}

/// An address, as long as somebody has a share of it.
struct Shared {
    address: IpAddr,
    addresses: Rc<Addresses>,
}

/// One of the connections that an address may have. Dropping it makes room for another.
pub(crate) struct AddressPermit(Rc<Shared>);

/// A connection's place among those of its client's address, which is known for certain only when a proxy
/// has said whose it is.
pub(crate) struct AddressPlace {
    addresses: Rc<Addresses>,
    client: Cell<Peer>,
    /// None of this host and of who is exempt.
    permit: RefCell<Option<AddressPermit>>,
}

impl Addresses {
    pub(crate) fn new(limit: usize) -> Self {
        Self { shared: RefCell::default(), limit }
    }

    /// One share more of `address`, if there is one to have.
    fn share(self: &Rc<Self>, address: IpAddr) -> Option<AddressPermit> {
        let mut shared = self.shared.borrow_mut();
        let place = shared.binary_search_by_key(&address, |shared| shared.address);
        let taken = place.map_or(0, |place| shares(&shared[place]));
        if taken >= self.limit {
            return None;
        }
        let place = place.unwrap_or_else(|place| {
            shared.insert(place, Rc::new(Shared { address, addresses: self.clone() }));
            place
        });
        Some(AddressPermit(shared[place].clone()))
    }
}

/// How many have a share of it, beside the list of all.
fn shares(shared: &Rc<Shared>) -> usize {
    Rc::strong_count(shared) - 1
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        if shares(&self.0) == 1 {
            let mut shared = self.0.addresses.shared.borrow_mut();
            let place = shared.binary_search_by_key(&self.0.address, |shared| shared.address);
            let last = place.map(|place| shared.remove(place));
            if shared.is_empty() {
                // Gives the memory of a crowd back.
                *shared = Vec::new();
            }
            drop(shared);
            drop(last);
        }
    }
}

impl AddressPlace {
    /// A address_place for `client`; `None` if its address has too many. A trusted proxy `is_exempt`, as is this
    /// host.
    pub(crate) fn take(addresses: &Rc<Addresses>, client: Peer, is_exempt: bool) -> Option<Self> {
        let (addresses, permit) = (addresses.clone(), RefCell::new(None));
        let address_place = Self { addresses, client: Cell::new(client), permit };
        address_place.count(client, is_exempt).then_some(address_place)
    }

    /// Gives the address_place to `client`; says whether its address had room, and changes nothing if not.
    pub(crate) fn give_to(&self, client: Peer, is_exempt: bool) -> bool {
        self.client() == client || self.count(client, is_exempt)
    }

    /// Who sits here.
    pub(crate) fn client(&self) -> Peer {
        self.client.get()
    }

    /// From where its client has come to a listener of this `reach`: a proxy on this host may have brought it
    /// from afar, whichever way it says so.
    pub(crate) fn reach(&self, listener: Reach) -> Reach {
        if self.client().limited_address().is_some() { Reach::Network } else { listener }
    }

    /// What its client holds from now on, who stays the same.
    pub(crate) fn into_permit(self) -> Option<AddressPermit> {
        self.permit.into_inner()
    }

    fn count(&self, client: Peer, is_exempt: bool) -> bool {
        let address = client.limited_address().filter(|_| !is_exempt);
        let permit = address.and_then(|address| self.addresses.share(address));
        let has_room = permit.is_some() || address.is_none();
        if has_room {
            self.client.set(client);
            let left = self.permit.replace(permit);
            drop(left);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    fn take(addresses: &Rc<Addresses>, client: &str) -> Option<AddressPlace> {
        AddressPlace::take(addresses, peer(client), false)
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
    fn an_ipv6_host_has_no_more_seats_for_all_of_its_addresses() {
        let addresses = Rc::new(Addresses::new(1));
        let address_place = take(&addresses, "[2001:db8::1]:1").unwrap();
        assert!(take(&addresses, "[2001:db8::2]:1").is_none());
        let other = take(&addresses, "[2001:db8:0:1::1]:1").unwrap();
        drop((address_place, other));
        assert!(addresses.shared.borrow().is_empty());
    }

    #[test]
    fn this_host_and_a_trusted_proxy_are_exempt() {
        let addresses = Rc::new(Addresses::new(0));
        assert!(take(&addresses, "127.0.0.1:1").is_some());
        assert!(take(&addresses, "192.0.2.1:1").is_none());
        assert!(AddressPlace::take(&addresses, peer("192.0.2.1:1"), true).is_some());
        assert!(AddressPlace::take(&addresses, Peer::Unix, false).is_some());
    }

    #[test]
    fn a_seat_that_is_given_away_counts_for_who_has_it() {
        let addresses = Rc::new(Addresses::new(1));
        let proxy = peer("192.0.2.9:1");
        let address_place = AddressPlace::take(&addresses, proxy, true).unwrap();
        assert!(address_place.give_to(peer("198.51.100.1:0"), false));
        assert!(
            address_place.give_to(peer("198.51.100.1:0"), false),
            "it is its own address_place already"
        );
        let other = AddressPlace::take(&addresses, proxy, true).unwrap();
        assert!(!other.give_to(peer("198.51.100.1:0"), false));
        assert_eq!(other.client(), proxy);
        assert!(address_place.give_to(proxy, true));
        assert!(other.give_to(peer("198.51.100.1:0"), false));
        drop((address_place, other));
        assert!(addresses.shared.borrow().is_empty());
        assert_eq!(Rc::strong_count(&addresses), 1);
    }
}
