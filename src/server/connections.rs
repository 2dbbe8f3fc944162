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

use crate::access::{AddressPlace, Addresses};
use crate::config::Limits;
use crate::counters::{Counters, Rejection};
use crate::hub::Bell;
use crate::net::Peer;
use crate::resource::Stage;

/// The tasks of all connections, and the limits on their number.
pub(super) struct Connections {
    pub(super) tasks: RefCell<Slab<Task<()>>>,
    addresses: Rc<Addresses>,
    limit: usize,
    counters: Rc<Counters>,
    /// Rings when a connection ends and no public connection is open any more.
    none_left: Bell,
}

impl Connections {
    /// Creates an empty set. The number of public connections is limited by the configuration and by the
    /// process's limit of open files, less `reserved` descriptors for the administrator's connections.
    pub(super) fn new(limits: &Limits, reserved: usize, counters: Rc<Counters>) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let possible = files.saturating_sub(FILES_FOR_OTHERS + reserved).max(1);
        if possible < limits.connections {
            log::info!("at most {possible} connections: the limit on open files is {files}");
        }
        let limit = limits.connections.min(possible);
        let per_address =
            limits.per_address.map_or((limit / ADDRESS_SHARE).max(1), NonZeroUsize::get);
        Self {
            tasks: RefCell::default(),
            addresses: Rc::new(Addresses::new(per_address)),
            limit,
            counters,
            none_left: Bell::default(),
        }
    }

    /// Returns the number of all open connections.
    pub(super) fn count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Returns the number of open connections, without the administrator's.
    fn public_count(&self) -> usize {
        self.counters.connections.now() - self.counters.admin_connections.now()
    }

    /// Admits one more connection of `peer`, if the limits allow it. A public connection that is not
    /// admitted is counted as rejected. A peer that `is_exempt` has no limit per address. The
    /// administrator's connections have a limit of their own, because they are needed most when no other
    /// connection is admitted.
    pub(super) fn admit(
        self: &Rc<Self>,
        peer: Peer,
        is_exempt: bool,
        is_admin: bool,
    ) -> Option<(Slot, AddressPlace)> {
        if is_admin {
            let has_room = self.counters.admin_connections.now() < ADMIN_CONNECTIONS;
            let address_place =
                AddressPlace::take(&self.addresses, peer, true).filter(|_| has_room)?;
            return Some((Slot::take(self, true), address_place));
        }
        if self.public_count() >= self.limit {
            self.counters.reject(Rejection::Connections);
            return None;
        }
        let Some(address_place) = AddressPlace::take(&self.addresses, peer, is_exempt) else {
            self.counters.reject(Rejection::Address);
            return None;
        };
        self.counters.accepted.add(1);
        Some((Slot::take(self, false), address_place))
    }

    /// Waits until no public connection is open.
    pub(super) async fn until_none_is_public(&self) {
        while self.public_count() > 0 {
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

/// A connection's slot in the slab of tasks. Dropping it frees the slot.
pub(super) struct Slot {
    connections: Rc<Connections>,
    is_admin: bool,
    key: u32,
}

impl Slot {
    /// Creates a slot without a task, and counts its connection.
    fn take(connections: &Rc<Connections>, is_admin: bool) -> Self {
        connections.counters.connections.increment();
        if is_admin {
            connections.counters.admin_connections.increment();
        }
        Self { connections: connections.clone(), is_admin, key: u32::MAX }
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
        let counters = &self.connections.counters;
        counters.connections.decrement();
        if self.is_admin {
            counters.admin_connections.decrement();
        }
        let mut tasks = self.connections.tasks.borrow_mut();
        let task = tasks.try_remove(self.key as usize);
        if tasks.is_empty() {
            // Frees the memory that many connections may have needed.
            *tasks = Slab::new();
        }
        if self.connections.public_count() == 0 {
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
/// The number of descriptors reserved for everything that is not a connection.
const FILES_FOR_OTHERS: usize = 32;
