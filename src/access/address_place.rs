//! The limits on the number of connections: in total, per address, and from this host.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use crate::counters::{Counters, Refusal};
use crate::features::Feature;
use crate::net::{Peer, Reach};

/// The addresses of all connected clients. Each address on another host has at most `limit` permits. All
/// addresses of this host are one, which has no limit.
pub(crate) struct Addresses {
    /// Sorted by address.
    entries: RefCell<Vec<Rc<Entry>>>,
    limit: usize,
    places: Places,
}

/// The limits on the number of public connections.
pub(crate) struct Places {
    /// The largest number of connections, without those that are `local`.
    pub(crate) limit: usize,
    /// The number of connections from this host that are not counted against `limit`.
    pub(crate) local: usize,
    pub(crate) counters: Rc<Counters>,
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
    /// `None` for a client that is exempt.
    permit: Cell<Option<AddressPermit>>,
    /// True if this host gets no permit for the connection: the peer is on another host, a proxy on this host
    /// has used the connection for others, or the connection is the administrator's.
    is_remote: Cell<bool>,
    /// True if the connection began with a header of the PROXY protocol.
    has_proxy_header: Cell<bool>,
    /// True if that header names a client without an IP address, which may be on another host.
    is_unknown: Cell<bool>,
}

impl Addresses {
    pub(crate) fn new(limit: usize, places: Places) -> Self {
        Self { entries: RefCell::default(), limit, places }
    }

    /// Returns true if the limits would allow `more` connections than are open now, while this host has
    /// `fewer` permits than now.
    pub(crate) fn have_room(&self, more: usize, fewer: usize) -> bool {
        let Places { limit, local, counters } = &self.places;
        let count = counters.public_connections() + more;
        let uncounted = match Feature::Full.is_built_in() {
            true => self.permits(THIS_HOST).saturating_sub(fewer).min(*local),
            false => 0,
        };
        count.saturating_sub(uncounted) <= *limit
    }

    /// Returns the number of permits of an address.
    fn permits(&self, address: IpAddr) -> usize {
        let entries = self.entries.borrow();
        let index = entries.binary_search_by_key(&address, |entry| entry.address);
        index.map_or(0, |index| permit_count(&entries[index]))
    }

    /// Issues one more permit for `address`. Returns `None` if the address has `limit` permits.
    fn permit(self: &Rc<Self>, address: IpAddr) -> Option<AddressPermit> {
        if address != THIS_HOST && self.permits(address) >= self.limit {
            return None;
        }
        let mut entries = self.entries.borrow_mut();
        let index = entries.binary_search_by_key(&address, |entry| entry.address);
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
    /// on this host has no limit, nor has one that `is_exempt`, such as a trusted proxy.
    pub(crate) fn take(addresses: &Rc<Addresses>, client: Peer, is_exempt: bool) -> Option<Self> {
        let address_place = Self::without_permit(addresses, client, false);
        address_place.assign_to(client, is_exempt).is_ok().then_some(address_place)
    }

    /// Takes a place for a connection of the administrator, which these limits do not apply to.
    pub(crate) fn of_admin(addresses: &Rc<Addresses>, client: Peer) -> Self {
        Self::without_permit(addresses, client, true)
    }

    fn without_permit(addresses: &Rc<Addresses>, client: Peer, is_remote: bool) -> Self {
        Self {
            addresses: addresses.clone(),
            client: Cell::new(client),
            permit: Cell::new(None),
            is_remote: Cell::new(is_remote),
            has_proxy_header: Cell::new(false),
            is_unknown: Cell::new(false),
        }
    }

    /// Notes that the connection began with a header of the PROXY protocol. `is_unknown` is true if the
    /// header names a client without an IP address.
    pub(crate) fn note_proxy_header(&self, is_unknown: bool) {
        self.has_proxy_header.set(true);
        self.is_unknown.set(is_unknown);
    }

    /// Returns true if the connection began with a header of the PROXY protocol. Then a client behind the
    /// proxy may have written the header X-Forwarded-For of a request.
    pub(crate) fn has_proxy_header(&self) -> bool {
        self.has_proxy_header.get()
    }

    /// Gives the place to `client`.
    ///
    /// # Errors
    /// The client is still the previous one. [`Refusal::Address`], if the client's address is at its limit;
    /// [`Refusal::Connections`], if the client is on another host and [`leave_host`](Self::leave_host)
    /// fails.
    pub(crate) fn reassign(&self, client: Peer, is_exempt: bool) -> Result<(), Refusal> {
        if self.client() == client { Ok(()) } else { self.assign_to(client, is_exempt) }
    }

    /// Counts the connection against the limit of all connections from now on, even if it is from this host,
    /// because a proxy uses it for others.
    ///
    /// # Errors
    /// [`Refusal::Connections`], if there is no room. Nothing has changed then.
    pub(crate) fn leave_host(&self) -> Result<(), Refusal> {
        let permit = self.permit.take();
        let is_local = permit.as_ref().is_some_and(|permit| permit.0.address == THIS_HOST);
        let has_room = !is_local || self.addresses.have_room(0, 1);
        if !(is_local && has_room) {
            self.permit.set(permit);
        }
        if !has_room {
            return Err(Refusal::Connections);
        }
        self.is_remote.set(true);
        Ok(())
    }

    /// Returns the client that has the place.
    pub(crate) fn client(&self) -> Peer {
        self.client.get()
    }

    /// Returns the reach of the client, which came through a listener with the reach `listener`. A
    /// client on another host has the reach of the network, even if a proxy on this host has
    /// forwarded its requests to a local listener. So has a client that its proxy does not reveal.
    pub(crate) fn reach(&self, listener: Reach) -> Reach {
        match self.client().limited_address().is_some() || self.is_unknown.get() {
            true => Reach::Network,
            false => listener,
        }
    }

    /// Converts the place into its permit. The client of the connection can't change any more.
    pub(crate) fn into_permit(self) -> Option<AddressPermit> {
        self.permit.into_inner()
    }

    fn assign_to(&self, client: Peer, is_exempt: bool) -> Result<(), Refusal> {
        let address = client.limited_address();
        if address.is_some() && Feature::Full.is_built_in() {
            self.leave_host()?;
        }
        let permit = match address {
            Some(address) if !is_exempt => {
                Some(self.addresses.permit(address).ok_or(Refusal::Address)?)
            }
            None if Feature::Full.is_built_in() && !self.is_remote.get() => {
                self.addresses.permit(THIS_HOST)
            }
            _ => None,
        };
        self.client.set(client);
        drop(self.permit.replace(permit));
        Ok(())
    }
}

/// Logs that [`AddressPlace`] has no room for `client`.
pub(crate) fn warn_no_room(client: Peer, refusal: Refusal) {
    let from = if refusal == Refusal::Address { " from one address" } else { "" };
    log::warn!(
        target: "falconet::limit",
        address = client.to_string();
        "too many connections{from}: refused"
    );
}

/// Stands for all addresses of this host, and for its Unix sockets.
const THIS_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    /// Returns addresses with `limit` permits each, on a server with one place and two more for this host.
    fn addresses(limit: usize) -> Rc<Addresses> {
        let places = Places { limit: 1, local: 2, counters: Rc::default() };
        Rc::new(Addresses::new(limit, places))
    }

    fn take(addresses: &Rc<Addresses>, client: &str) -> Option<AddressPlace> {
        AddressPlace::take(addresses, peer(client), false)
    }

    #[test]
    fn an_address_has_no_more_places_than_the_limit() {
        let addresses = addresses(2);
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
        let addresses = addresses(1);
        let address_place = take(&addresses, "[2001:db8::1]:1").unwrap();
        assert!(take(&addresses, "[2001:db8::2]:1").is_none());
        let other = take(&addresses, "[2001:db8:0:1::1]:1").unwrap();
        drop((address_place, other));
        assert!(addresses.entries.borrow().is_empty());
    }

    #[test]
    fn this_host_and_a_trusted_proxy_are_exempt() {
        let addresses = addresses(0);
        assert!(take(&addresses, "127.0.0.1:1").is_some());
        assert!(take(&addresses, "192.0.2.1:1").is_none());
        assert!(AddressPlace::take(&addresses, peer("192.0.2.1:1"), true).is_some());
        assert!(AddressPlace::take(&addresses, Peer::Unix, false).is_some());
    }

    #[cfg(feature = "full")]
    #[test]
    fn two_connections_of_this_host_are_not_counted_until_they_have_a_client_on_another_host() {
        let addresses = addresses(9);
        let proxy = take(&addresses, "127.0.0.1:1").unwrap();
        let _script = AddressPlace::take(&addresses, Peer::Unix, false).unwrap();
        let third = take(&addresses, "[::1]:1").unwrap();
        (0..3).for_each(|_| addresses.places.counters.connections.increment());
        assert!(addresses.have_room(0, 0));
        assert!(!addresses.have_room(1, 0));
        assert_eq!(proxy.reassign(peer("192.0.2.1:0"), false), Ok(()), "only two are not counted");
        assert_eq!(third.reassign(peer("192.0.2.1:0"), false), Err(Refusal::Connections));
        // The proxy's own requests do not get the place back.
        assert_eq!(proxy.reassign(peer("127.0.0.1:1"), true), Ok(()));
        assert_eq!(addresses.permits(THIS_HOST), 2);
        // A proxy on another host can't take a place of this host by naming a client there.
        let other = AddressPlace::take(&addresses, peer("192.0.2.9:1"), true).unwrap();
        assert_eq!(other.reassign(peer("127.0.0.1:0"), true), Ok(()));
        assert_eq!(addresses.permits(THIS_HOST), 2);
    }

    #[test]
    fn a_place_counts_for_the_client_that_has_it() {
        let addresses = addresses(1);
        let proxy = peer("192.0.2.9:1");
        let address_place = AddressPlace::take(&addresses, proxy, true).unwrap();
        assert!(address_place.reassign(peer("198.51.100.1:0"), false).is_ok());
        assert!(
            address_place.reassign(peer("198.51.100.1:0"), false).is_ok(),
            "the client has the place already"
        );
        let other = AddressPlace::take(&addresses, proxy, true).unwrap();
        assert_eq!(other.reassign(peer("198.51.100.1:0"), false), Err(Refusal::Address));
        assert_eq!(other.client(), proxy);
        assert!(address_place.reassign(proxy, true).is_ok());
        assert!(other.reassign(peer("198.51.100.1:0"), false).is_ok());
        drop((address_place, other));
        assert!(addresses.entries.borrow().is_empty());
        assert_eq!(Rc::strong_count(&addresses), 1);
    }
}
