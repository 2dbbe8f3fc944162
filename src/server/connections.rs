//! The connections of a server, and their limits.

use std::cell::RefCell;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use async_executor::StaticLocalExecutor;
use rustix::process::{Resource, getrlimit};
use slab::Slab;
use smol::Task;

use crate::access::{AddressPlace, Addresses, Places};
use crate::admin::open_files;
use crate::config::Limits;
use crate::counters::{Counters, Gauge, Rejection};
use crate::features::Feature;
use crate::hub::Bell;
use crate::net::Peer;
use crate::resource::Stage;

/// The tasks of all connections, and the limits on their number.
pub(super) struct Connections {
    pub(super) tasks: RefCell<Slab<Task<()>>>,
    addresses: Rc<Addresses>,
    /// The addresses of the administrator's connections. `None` in a build without an administrator.
    admin_addresses: Option<Rc<Addresses>>,
    counters: Rc<Counters>,
    /// The connections above the limits that are being turned away. The metrics do not include them.
    turned_away: Gauge,
    /// Rings when a connection ends and no public connection is open any more.
    none_left: Bell,
}

impl Connections {
    /// Creates an empty set, after the listeners have been bound. The number of public connections is limited
    /// by the configuration and by the process's limit of open files, less `reserved` descriptors for the
    /// administrator's connections.
    pub(super) fn new(limits: &Limits, reserved: usize, counters: Rc<Counters>) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let others = match Feature::Full.is_built_in() {
            // Many listeners, or descriptors that the process inherited, need more.
            true => FILES_FOR_OTHERS.max(open_files() as usize + SHORT_LIVED_FILES),
            false => FILES_FOR_OTHERS,
        };
        let possible = files.saturating_sub(others + reserved).max(1);
        let local = match Feature::Full.is_built_in() {
            true => LOCAL_CONNECTIONS.min(possible / LOCAL_SHARE),
            false => 0,
        };
        let limit = limits.connections.min(possible - local);
        if limit < limits.connections {
            log::info!(
                "at most {limit} connections, and {local} more from this host: the limit on open files is {files}"
            );
        }
        let per_address =
            limits.per_address.map_or((limit / ADDRESS_SHARE).max(1), NonZeroUsize::get);
        let places = |limit, local, descriptors| {
            let (files, counters) = (Rc::default(), counters.clone());
            Places { limit, local, descriptors, files, counters }
        };
        let admin_addresses = Feature::Full.is_built_in().then(|| {
            let places = places(ADMIN_CONNECTIONS, 0, ADMIN_CONNECTIONS);
            Rc::new(Addresses::new(ADMIN_PER_ADDRESS, ADMIN_PER_ADDRESS, places))
        });
        let places = places(limit, local, possible - local);
        Self {
            tasks: RefCell::default(),
            addresses: Rc::new(Addresses::new(per_address, usize::MAX, places)),
            admin_addresses,
            counters,
            turned_away: Gauge::default(),
            none_left: Bell::default(),
        }
    }

    /// Returns the number of all open connections.
    pub(super) fn count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Admits one more connection of `peer`, if the limits allow it. A public connection that is not
    /// admitted is counted as rejected. A peer that `is_exempt` has no limit per address. The
    /// administrator's connections have limits of their own, because they are needed most when no other
    /// connection is admitted.
    pub(super) fn admit(
        self: &Rc<Self>,
        peer: Peer,
        is_exempt: bool,
        is_admin: bool,
    ) -> Option<(Slot, AddressPlace)> {
        if Feature::Full.is_built_in()
            && is_admin
            && let Some(addresses) = &self.admin_addresses
        {
            let has_room = self.counters.admin_connections.now() < ADMIN_CONNECTIONS;
            let address_place = AddressPlace::of_admin(addresses, peer)?;
            return has_room.then(|| (Slot::take(self, Kind::Admin), address_place));
        }
        let Some(address_place) = AddressPlace::take(&self.addresses, peer, is_exempt) else {
            self.counters.reject(Rejection::Address);
            return None;
        };
        if !self.addresses.have_room(1, 0) {
            self.counters.reject(Rejection::Connections);
            return None;
        }
        self.counters.accepted.add(1);
        Some((Slot::take(self, Kind::Public), address_place))
    }

    /// Returns a slot for a connection that was not admitted, in which it is turned away. Returns `None` if
    /// [`TURNED_AWAY`] connections are being turned away already.
    pub(super) fn turn_away(self: &Rc<Self>) -> Option<Slot> {
        (self.turned_away.now() < TURNED_AWAY).then(|| Slot::take(self, Kind::TurnedAway))
    }

    /// Returns the counts that include a connection.
    fn gauges(&self, kind: Kind) -> impl Iterator<Item = &Gauge> {
        let Counters { connections, admin_connections, .. } = &*self.counters;
        let (gauge, other) = match kind {
            Kind::Public => (connections, None),
            Kind::Admin => (connections, Some(admin_connections)),
            Kind::TurnedAway => (&self.turned_away, None),
        };
        std::iter::once(gauge).chain(other)
    }

    /// Waits until no public connection is open.
    pub(super) async fn until_none_is_public(&self) {
        while self.counters.public_connections() > 0 {
            self.none_left.ringing().await;
        }
    }

    /// Waits until no connection is open.
    pub(super) async fn until_none(&self) {
        while self.count() > 0 {
            self.none_left.ringing().await;
        }
    }
}

/// The kinds of connections that are counted separately.
#[derive(Clone, Copy)]
enum Kind {
    Public,
    Admin,
    /// Above the limits.
    TurnedAway,
}

/// A connection's slot in the slab of tasks. Dropping it frees the slot.
pub(super) struct Slot {
    connections: Rc<Connections>,
    kind: Kind,
    key: u32,
}

impl Slot {
    /// Creates a slot without a task, and counts its connection.
    fn take(connections: &Rc<Connections>, kind: Kind) -> Self {
        connections.gauges(kind).for_each(Gauge::increment);
        Self { connections: connections.clone(), kind, key: u32::MAX }
    }

    /// Starts the task of the connection, which owns the slot.
    pub(super) fn start(mut self, stage: Stage, executor: &'static StaticLocalExecutor) {
        let connections = self.connections.clone();
        let mut tasks = connections.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        self.key = entry.key() as u32;
        entry.insert(executor.spawn(Slotted { stage, _slot: self }));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.gauges(self.kind).for_each(Gauge::decrement);
        let mut tasks = self.connections.tasks.borrow_mut();
        let task = tasks.try_remove(self.key as usize);
        if tasks.is_empty() {
            // Frees the memory that many connections may have needed.
            *tasks = Slab::new();
        }
        if self.connections.counters.public_connections() == 0 {
            self.connections.none_left.ring();
        }
        drop(tasks);
        drop(task);
    }
}

/// A connection and its slot, which is freed however the task ends: by return, panic or cancellation.
struct Slotted {
    stage: Stage,
    _slot: Slot,
}

impl Future for Slotted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.stage).poll(cx)
    }
}

/// A remote address may hold one of this many equal parts of all connections.
const ADDRESS_SHARE: usize = 8;
/// The largest number of connections to the administrator's listener.
pub(super) const ADMIN_CONNECTIONS: usize = 16;
/// The largest number of connections to the administrator's listener from one address, so that one host can't
/// keep all others out.
const ADMIN_PER_ADDRESS: usize = ADMIN_CONNECTIONS / 2;
/// The largest number of connections whose request is read to turn them away. More get an answer at once.
const TURNED_AWAY: usize = 8;
/// The largest number of connections from this host that are not counted against the limit of all.
const LOCAL_CONNECTIONS: usize = 16;
/// If descriptors are few, connections from this host get one of this many equal parts of them.
const LOCAL_SHARE: usize = 8;
/// The number of descriptors reserved for everything that is neither an admitted connection nor a file that is
/// sent over one.
const FILES_FOR_OTHERS: usize = 32;
/// The number of these that are not open when the server starts: connections that are turned away, and files
/// that are read at once.
const SHORT_LIVED_FILES: usize = TURNED_AWAY + 8;
