//! The limit on connections per address.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use crate::net::{Peer, Reach};

/// The addresses of all connected clients on other hosts. Each address has at most `limit` permits.
pub(crate) struct Addresses {
    /// Sorted by address.
    entries: RefCell<Vec<Rc<Entry>>>,
    limit: usize,
}

/// An address with at least one permit.
struct Entry {
    address: IpAddr,
    addresses: Rc<Addresses>,
}

/// The permission for one connection of an address. Dropping it makes room for another connection.
pub(crate) struct AddressPermit(Rc<Entry>);

/// A connection's place among the connections of its client's address. The client of a connection
/// can change, because a proxy may name another client with each request.
pub(crate) struct AddressPlace {
    addresses: Rc<Addresses>,
    client: Cell<Peer>,
    /// `None` for a client that is on this host or exempt.
    permit: RefCell<Option<AddressPermit>>,
}

impl Addresses {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: RefCell::default(), limit }
    }

    /// Issues one more permit for `address`. Returns `None` if the address has `limit` permits.
    fn permit(self: &Rc<Self>, address: IpAddr) -> Option<AddressPermit> {
        let mut entries = self.entries.borrow_mut();
        let index = entries.binary_search_by_key(&address, |entry| entry.address);
        let permits = index.map_or(0, |index| permit_count(&entries[index]));
        if permits >= self.limit {
            return None;
        }
        let index = index.unwrap_or_else(|index| {
            entries.insert(index, Rc::new(Entry { address, addresses: self.clone() }));
            index
        });
        Some(AddressPermit(entries[index].clone()))
    }
}

/// Returns the number of permits of an entry: all references to it but the one in the list.
fn permit_count(entry: &Rc<Entry>) -> usize {
    Rc::strong_count(entry) - 1
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        if permit_count(&self.0) == 1 {
            let mut entries = self.0.addresses.entries.borrow_mut();
            let index = entries.binary_search_by_key(&self.0.address, |entry| entry.address);
            let last = index.map(|index| entries.remove(index));
            if entries.is_empty() {
                // Frees the memory, which may have grown for many addresses.
                *entries = Vec::new();
            }
            drop(entries);
            drop(last);
        }
    }
}

impl AddressPlace {
    /// Takes a place for `client`. Returns `None` if the client's address is at its limit. A client
    /// on this host is not counted, nor is one that `is_exempt`, such as a trusted proxy.
    pub(crate) fn take(addresses: &Rc<Addresses>, client: Peer, is_exempt: bool) -> Option<Self> {
        let (addresses, permit) = (addresses.clone(), RefCell::new(None));
        let address_place = Self { addresses, client: Cell::new(client), permit };
        address_place.assign_to(client, is_exempt).then_some(address_place)
    }

    /// Gives the place to `client`. Returns false and changes nothing if the client's address is at
    /// its limit.
    pub(crate) fn reassign(&self, client: Peer, is_exempt: bool) -> bool {
        self.client() == client || self.assign_to(client, is_exempt)
    }

    /// Returns the client that has the place.
    pub(crate) fn client(&self) -> Peer {
        self.client.get()
    }

    /// Returns the reach of the client, which came through a listener with the reach `listener`. A
    /// client on another host has the reach of the network, even if a proxy on this host has
    /// forwarded its requests to a local listener.
    pub(crate) fn reach(&self, listener: Reach) -> Reach {
        if self.client().limited_address().is_some() { Reach::Network } else { listener }
    }

    /// Converts the place into its permit. The client of the connection can't change any more.
    pub(crate) fn into_permit(self) -> Option<AddressPermit> {
        self.permit.into_inner()
    }

    fn assign_to(&self, client: Peer, is_exempt: bool) -> bool {
        let address = client.limited_address().filter(|_| !is_exempt);
        let permit = address.and_then(|address| self.addresses.permit(address));
        let has_room = permit.is_some() || address.is_none();
        if has_room {
            self.client.set(client);
            let previous = self.permit.replace(permit);
            drop(previous);
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
    fn an_address_has_no_more_places_than_the_limit() {
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
    fn the_addresses_of_an_ipv6_network_share_one_limit() {
        let addresses = Rc::new(Addresses::new(1));
        let address_place = take(&addresses, "[2001:db8::1]:1").unwrap();
        assert!(take(&addresses, "[2001:db8::2]:1").is_none());
        let other = take(&addresses, "[2001:db8:0:1::1]:1").unwrap();
        drop((address_place, other));
        assert!(addresses.entries.borrow().is_empty());
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
    fn a_place_counts_for_the_client_that_has_it() {
        let addresses = Rc::new(Addresses::new(1));
        let proxy = peer("192.0.2.9:1");
        let address_place = AddressPlace::take(&addresses, proxy, true).unwrap();
        assert!(address_place.reassign(peer("198.51.100.1:0"), false));
        assert!(
            address_place.reassign(peer("198.51.100.1:0"), false),
            "the client has the place already"
        );
        let other = AddressPlace::take(&addresses, proxy, true).unwrap();
        assert!(!other.reassign(peer("198.51.100.1:0"), false));
        assert_eq!(other.client(), proxy);
        assert!(address_place.reassign(proxy, true));
        assert!(other.reassign(peer("198.51.100.1:0"), false));
        drop((address_place, other));
        assert!(addresses.entries.borrow().is_empty());
        assert_eq!(Rc::strong_count(&addresses), 1);
    }
}
