//! How many connections each address has, and a connection's place among them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::rc::Rc;

use crate::net::Peer;

/// How many connections each address has that is not this host: at most `limit`.
pub(crate) struct Addresses {
    counts: RefCell<HashMap<IpAddr, usize>>,
    limit: usize,
}

/// A connection's place among those of its client's address. Dropping it frees the place.
pub(crate) struct Seat {
    addresses: Rc<Addresses>,
    client: Cell<Sitting>,
}

/// A [`Peer`] in 24 bytes, for there is one for each connection, and whether it counts.
#[derive(Clone, Copy)]
struct Sitting {
    ip: Ipv6Addr,
    scope_id: u32,
    port: u16,
    kind: Kind,
    is_counted: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    V4,
    V6,
    Unix,
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
    /// A seat for `client`; `None` if its address has too many. A trusted proxy `is_exempt`, as is this
    /// host.
    pub(crate) fn take(addresses: &Rc<Addresses>, client: Peer, is_exempt: bool) -> Option<Self> {
        // Exempt until it is given to the client, who may not be.
        let sitting = Cell::new(Sitting::new(client, false));
        let seat = Self { addresses: addresses.clone(), client: sitting };
        seat.count(client, is_exempt).then_some(seat)
    }

    /// Gives the seat to `client`; says whether its address had room, and changes nothing if not.
    pub(crate) fn give_to(&self, client: Peer, is_exempt: bool) -> bool {
        self.client() == client || self.count(client, is_exempt)
    }

    /// Who sits here.
    pub(crate) fn client(&self) -> Peer {
        self.client.get().peer()
    }

    fn count(&self, client: Peer, is_exempt: bool) -> bool {
        let address = client.limited_address().filter(|_| !is_exempt);
        if address.is_some_and(|address| !self.addresses.add(address)) {
            return false;
        }
        self.leave();
        self.client.set(Sitting::new(client, address.is_some()));
        true
    }

    fn leave(&self) {
        let sitting = self.client.get();
        if sitting.is_counted
            && let Some(address) = sitting.peer().limited_address()
        {
            self.addresses.remove(address);
        }
    }
}

#[cfg(test)]
impl Seat {
    /// A seat of somebody on this host.
    pub(crate) fn local() -> Self {
        Self::take(&Rc::new(Addresses::new(1)), Peer::Unix, false).unwrap()
    }
}

impl Sitting {
    fn new(client: Peer, is_counted: bool) -> Self {
        let (ip, scope_id, port, kind) = match client {
            Peer::Ip(SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), 0, v4.port(), Kind::V4),
            Peer::Ip(SocketAddr::V6(v6)) => (*v6.ip(), v6.scope_id(), v6.port(), Kind::V6),
            Peer::Unix => (Ipv6Addr::UNSPECIFIED, 0, 0, Kind::Unix),
        };
        Self { ip, scope_id, port, kind, is_counted }
    }

    fn peer(self) -> Peer {
        let Self { ip, scope_id, port, .. } = self;
        match self.kind {
            Kind::V4 => Peer::Ip(SocketAddr::new(ip.to_canonical(), port)),
            Kind::V6 => Peer::Ip(SocketAddrV6::new(ip, port, 0, scope_id).into()),
            Kind::Unix => Peer::Unix,
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
        Seat::take(addresses, peer(client), false)
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
        assert!(Seat::take(&addresses, peer("192.0.2.1:1"), true).is_some());
        assert!(Seat::take(&addresses, Peer::Unix, false).is_some());
    }

    #[test]
    fn a_seat_that_is_given_away_counts_for_who_has_it() {
        let addresses = Rc::new(Addresses::new(1));
        let proxy = peer("192.0.2.9:1");
        let seat = Seat::take(&addresses, proxy, true).unwrap();
        assert!(seat.give_to(peer("198.51.100.1:0"), false));
        assert!(seat.give_to(peer("198.51.100.1:0"), false), "it is its own seat already");
        let other = Seat::take(&addresses, proxy, true).unwrap();
        assert!(!other.give_to(peer("198.51.100.1:0"), false));
        assert_eq!(other.client(), proxy);
        assert!(seat.give_to(proxy, true));
        assert!(other.give_to(peer("198.51.100.1:0"), false));
        drop((seat, other));
        assert!(addresses.counts.borrow().is_empty());
    }

    #[test]
    fn who_sits_somewhere_is_known_whole() {
        let addresses = Rc::new(Addresses::new(9));
        for client in
            ["192.0.2.1:1", "[2001:db8::1]:65535", "[fe80::1%3]:80", "[::ffff:192.0.2.1]:1"]
        {
            let seat = take(&addresses, client).unwrap();
            assert_eq!(seat.client(), peer(client));
        }
        assert_eq!(Seat::take(&addresses, Peer::Unix, false).unwrap().client(), Peer::Unix);
        assert!(size_of::<Seat>() <= 32);
    }
}
