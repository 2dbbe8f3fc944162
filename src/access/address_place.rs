//! The limits on the number of connections: in total, per address, and from this host.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::counters::{Counters, Gauge, Refusal};
use crate::features::Feature;
use crate::net::{AddressPrefix, Peer, Reach};

/// The addresses of all connected clients. Each prefix of an address on another host has at most `limit`
/// permits for each of its [shares](AddressPrefix::shares), but no more than `most`. All addresses of this host
/// are one, which has no limit.
pub(crate) struct Addresses {
    /// Sorted by prefix.
    entries: RefCell<Vec<Rc<Entry>>>,
    limit: usize,
    most: usize,
    places: Places,
}

/// The limits on the number of public connections, and of the files that are sent over them.
pub(crate) struct Places {
    /// The largest number of connections, without those that are `local`.
    pub(crate) limit: usize,
    /// The number of connections from this host that are not counted against `limit` and `descriptors`.
    pub(crate) local: usize,
    /// The largest number of connections and open files together.
    pub(crate) descriptors: usize,
    /// The number of files that are open to be sent.
    pub(crate) files: Rc<Gauge>,
    pub(crate) counters: Rc<Counters>,
}

/// A prefix of the addresses of connected clients.
struct Entry {
    prefix: AddressPrefix,
    permits: Cell<usize>,
    addresses: Rc<Addresses>,
}

/// The permission for one connection of an address. Dropping it makes room for another connection.
pub(crate) struct AddressPermit(Rc<Entry>);

/// The permission to hold the descriptor of a file while the file is sent. Dropping it makes room for another
/// file or connection.
pub(crate) struct FilePermit(Rc<Gauge>);

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
    /// Creates the list for a server without connections. Each address may have `limit` permits, and all
    /// addresses with the same prefix `most`.
    pub(crate) fn new(limit: usize, most: usize, places: Places) -> Self {
        Self { entries: RefCell::default(), limit, most, places }
    }

    /// Returns true if the limits would allow `more` connections than are open now, while this host has
    /// `fewer` permits than now.
    pub(crate) fn have_room(&self, more: usize, fewer: usize) -> bool {
        let files = if Feature::Full.is_built_in() { self.places.files.now() } else { 0 };
        let count = self.counted(more, fewer);
        count <= self.places.limit && count + files <= self.places.descriptors
    }

    /// Permits one more file to be open. Returns `None` if the files would have more than their share of the
    /// descriptors, or leave none for connections from this host.
    pub(crate) fn permit_file(&self) -> Option<FilePermit> {
        let Places { descriptors, files, .. } = &self.places;
        let count = files.now() + 1;
        let has_room =
            count <= descriptors / FILES_SHARE && self.counted(0, 0) + count <= *descriptors;
        has_room.then(|| {
            files.increment();
            FilePermit(files.clone())
        })
    }

    /// Returns the number of connections that are counted against the limits, if there were `more` connections
    /// than now and `fewer` permits of this host.
    fn counted(&self, more: usize, fewer: usize) -> usize {
        let count = self.places.counters.public_connections() + more;
        let uncounted = match Feature::Full.is_built_in() {
            true => {
                let permits = self.permits(AddressPrefix::THIS_HOST);
                permits.saturating_sub(fewer).min(self.places.local)
            }
            false => 0,
        };
        count.saturating_sub(uncounted)
    }

    /// Returns the number of permits of all addresses with a prefix.
    fn permits(&self, prefix: AddressPrefix) -> usize {
        self.find(prefix).map_or(0, |index| self.entries.borrow()[index].permits.get())
    }

    /// Returns the index of the entry of a prefix.
    ///
    /// # Errors
    /// If there is no entry, the index at which to insert it.
    fn find(&self, prefix: AddressPrefix) -> Result<usize, usize> {
        self.entries.borrow().binary_search_by_key(&prefix, |entry| entry.prefix)
    }

    /// Issues one more permit for an address with the longest prefix `longest`. Returns `None` if one of its
    /// prefixes is at its limit.
    fn permit(self: &Rc<Self>, longest: AddressPrefix) -> Option<AddressPermit> {
        let is_full = |prefix: AddressPrefix| {
            let limit = self.limit.saturating_mul(prefix.shares().into()).min(self.most);
            self.permits(prefix) >= limit
        };
        if longest != AddressPrefix::THIS_HOST && longest.with_shorter().any(is_full) {
            return None;
        }
        for prefix in longest.with_shorter() {
            let permits = &self.entry(prefix).permits;
            permits.set(permits.get() + 1);
        }
        Some(AddressPermit(self.entry(longest)))
    }

    /// Returns the entry of a prefix, and creates it first if there is none.
    fn entry(self: &Rc<Self>, prefix: AddressPrefix) -> Rc<Entry> {
        match self.find(prefix) {
            Ok(index) => self.entries.borrow()[index].clone(),
            Err(index) => {
                let entry = Entry { prefix, permits: Cell::new(0), addresses: self.clone() };
                let entry = Rc::new(entry);
                self.entries.borrow_mut().insert(index, entry.clone());
                entry
            }
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let addresses = &self.0.addresses;
        for prefix in self.0.prefix.with_shorter() {
            let Ok(index) = addresses.find(prefix) else { continue };
            let mut entries = addresses.entries.borrow_mut();
            let permits = entries[index].permits.get() - 1;
            entries[index].permits.set(permits);
            if permits == 0 {
                // The permit itself keeps its entry, and so `addresses`.
                entries.remove(index);
            }
            if entries.is_empty() {
                // Frees the memory, which may have grown for many addresses.
                *entries = Vec::new();
            }
        }
    }
}

impl Drop for FilePermit {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

impl AddressPlace {
    /// Takes a place for `client`. Returns `None` if the client's address is at its limit. A client
    /// on this host has no limit, nor has one that `is_exempt`, such as a trusted proxy.
    pub(crate) fn take(addresses: &Rc<Addresses>, client: Peer, is_exempt: bool) -> Option<Self> {
        let address_place = Self::without_permit(addresses, client, false);
        address_place.assign_to(client, is_exempt).is_ok().then_some(address_place)
    }

    /// Takes a place for a connection to the administrator's listener. Returns `None` if the client's address
    /// is at its limit. Each address of this host has a limit, too. A Unix socket has none, because the
    /// permissions of its file decide who can connect.
    pub(crate) fn of_admin(addresses: &Rc<Addresses>, client: Peer) -> Option<Self> {
        let address_place = Self::without_permit(addresses, client, true);
        if let Peer::Ip(address) = client {
            let permit = addresses.permit(AddressPrefix::of(address.ip()))?;
            address_place.permit.set(Some(permit));
        }
        Some(address_place)
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
        let is_local =
            permit.as_ref().is_some_and(|permit| permit.0.prefix == AddressPrefix::THIS_HOST);
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

    /// Permits one more file to be open, as [`Addresses::permit_file`] does.
    pub(crate) fn permit_file(&self) -> Option<FilePermit> {
        self.addresses.permit_file()
    }

    /// Returns the client that has the place.
    pub(crate) fn client(&self) -> Peer {
        self.client.get()
    }

    /// Returns the reach of the client, which came through a listener with the reach `listener`. A
    /// client on another host has the reach of the network, even if a proxy on this host has
    /// forwarded its requests to a local listener. So has a client that its proxy does not reveal.
    pub(crate) fn reach(&self, listener: Reach) -> Reach {
        match self.client().limited_prefix().is_some() || self.is_unknown.get() {
            true => Reach::Network,
            false => listener,
        }
    }

    /// Converts the place into its permit. The client of the connection can't change any more.
    pub(crate) fn into_permit(self) -> Option<AddressPermit> {
        self.permit.into_inner()
    }

    fn assign_to(&self, client: Peer, is_exempt: bool) -> Result<(), Refusal> {
        let prefix = client.limited_prefix();
        if prefix.is_some() && Feature::Full.is_built_in() {
            self.leave_host()?;
        }
        let permit = match prefix {
            Some(prefix) if !is_exempt => {
                Some(self.addresses.permit(prefix).ok_or(Refusal::Address)?)
            }
            None if Feature::Full.is_built_in() && !self.is_remote.get() => {
                self.addresses.permit(AddressPrefix::THIS_HOST)
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

/// The files that are sent may take one of this many equal parts of the descriptors, so that slow downloads
/// leave most of them to connections.
const FILES_SHARE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    /// Returns addresses with `limit` permits each, on a server with one place and two more for this host.
    fn addresses(limit: usize) -> Rc<Addresses> {
        Rc::new(new_addresses(limit))
    }

    fn new_addresses(limit: usize) -> Addresses {
        let places = Places {
            limit: 1,
            local: 2,
            descriptors: usize::MAX,
            files: Rc::default(),
            counters: Rc::default(),
        };
        Addresses::new(limit, usize::MAX, places)
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

    #[cfg(feature = "full")]
    #[test]
    fn ipv6_networks_of_64_56_and_48_bits_have_one_two_and_four_times_the_limit() {
        let addresses = addresses(2);
        let take = |network: u16, host: u16| {
            take(&addresses, &format!("[2001:db8:0:{network:x}::{host:x}]:1"))
        };
        let mut held: Vec<_> = (1..4).filter_map(|host| take(0x100, host)).collect();
        assert_eq!(held.len(), 2, "the /64 is full");
        held.extend((1..4).filter_map(|host| take(0x1ff, host)));
        assert_eq!(held.len(), 4);
        assert!(take(0x123, 1).is_none(), "the /56 is full");
        held.extend((0x200..0xffff).step_by(0x40).filter_map(|network| take(network, 1)));
        assert_eq!(held.len(), 8, "the /48 is full");
        assert!(
            AddressPlace::take(&addresses, peer("[2001:db8:1::1]:1"), false).is_some(),
            "another /48"
        );
        held.remove(0);
        assert!(take(0x124, 1).is_some(), "the /56 and the /48 have room again");
        drop(held);
        assert!(addresses.entries.borrow().is_empty());
        assert_eq!(Rc::strong_count(&addresses), 1);
    }

    #[cfg(feature = "full")]
    #[test]
    fn no_prefix_has_more_than_the_most_permits() {
        let addresses = Rc::new(Addresses { most: 3, ..new_addresses(2) });
        let networks = 0..0xffff;
        let held = networks
            .step_by(0x80)
            .filter_map(|network: u16| take(&addresses, &format!("[2001:db8:0:{network:x}::1]:1")));
        assert_eq!(held.collect::<Vec<_>>().len(), 3);
    }

    #[test]
    fn an_administrator_has_a_limit_per_address_even_on_this_host() {
        let addresses = addresses(1);
        let of_admin = |client| AddressPlace::of_admin(&addresses, client);
        let first = of_admin(peer("127.0.0.1:1")).unwrap();
        assert!(of_admin(peer("127.0.0.1:2")).is_none());
        assert_eq!(first.leave_host(), Ok(()), "a request through a proxy changes nothing");
        assert!(of_admin(peer("127.0.0.1:2")).is_none());
        let _other = of_admin(peer("127.0.0.2:1")).unwrap();
        let _unix = [(); 9].map(|()| of_admin(Peer::Unix).unwrap());
        drop(first);
        assert!(of_admin(peer("127.0.0.1:2")).is_some());
    }

    #[cfg(feature = "full")]
    #[test]
    fn an_open_file_takes_the_place_of_a_connection() {
        let mut addresses = new_addresses(9);
        (addresses.places.limit, addresses.places.descriptors) = (usize::MAX, 8);
        let addresses = Rc::new(addresses);
        let connections = &addresses.places.counters.connections;
        let files: Vec<_> = (0..9).map_while(|_| addresses.permit_file()).collect();
        assert_eq!(files.len(), 2, "a fourth of 8");
        (0..6).for_each(|_| connections.increment());
        assert!(addresses.have_room(0, 0) && !addresses.have_room(1, 0));
        drop(files);
        assert!(addresses.have_room(2, 0) && !addresses.have_room(3, 0));
        (0..2).for_each(|_| connections.increment());
        assert!(addresses.permit_file().is_none(), "the connections have all descriptors");
        // Two connections of this host are not counted.
        let _local = [(); 2].map(|()| take(&addresses, "127.0.0.1:1").unwrap());
        assert!(addresses.permit_file().is_some());
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
        assert_eq!(addresses.permits(AddressPrefix::THIS_HOST), 2);
        // A proxy on another host can't take a place of this host by naming a client there.
        let other = AddressPlace::take(&addresses, peer("192.0.2.9:1"), true).unwrap();
        assert_eq!(other.reassign(peer("127.0.0.1:0"), true), Ok(()));
        assert_eq!(addresses.permits(AddressPrefix::THIS_HOST), 2);
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
