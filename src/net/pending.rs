//! The budget for the memory of everything that is unfinished: input that is not yet a whole message, output
//! that peers have not taken, and TLS handshakes.
//!
//! At the limit, connections that hold more than [`SMALL_BYTES`] are not read, and the others are read in small
//! pieces. If this lasts [`PATIENCE`], the largest holders of the address that holds most are evicted, until half
//! of the budget is free, so that one host cannot keep the others waiting.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::features::Feature;

use super::address_prefix::AddressPrefix;

/// The budget of one reactor, and all that is held of it.
pub(crate) struct Pending {
    limit: Cell<usize>,
    total: Cell<usize>,
    /// The time of the next eviction; `None` while the budget is not used up.
    eviction_at: Cell<Option<Instant>>,
    last_eviction: Cell<Option<Instant>>,
    holders: RefCell<Slab<Holder>>,
}

/// A part of a connection that holds memory: its input, its output or its TLS session.
struct Holder {
    /// The shortest prefix of the client's address; `None` on this host.
    address: Option<AddressPrefix>,
    bytes: usize,
    is_evicted: bool,
    /// Wakes the task that waits until it may read more, or that must learn of the eviction.
    waker: Option<Waker>,
}

/// The memory that a part of one connection holds. Dropping it gives the memory back to the budget.
#[derive(Default)]
pub(crate) struct Held(Cell<Option<Entry>>);

/// The key of a [`Holder`].
struct Entry {
    pending: Rc<Pending>,
    key: usize,
}

impl Pending {
    /// Creates a budget without a limit.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            limit: Cell::new(usize::MAX),
            total: Cell::new(0),
            eviction_at: Cell::new(None),
            last_eviction: Cell::new(None),
            holders: RefCell::default(),
        })
    }

    /// Sets the limit, in bytes; at least [`LEAST_BYTES`].
    pub(crate) fn set_limit(&self, bytes: usize) {
        self.limit.set(bytes.max(LEAST_BYTES));
    }

    /// Returns the number of bytes that are held.
    pub(crate) fn total(&self) -> usize {
        self.total.get()
    }

    /// Returns true from the time at which the limit is reached until an eighth of the budget is free again.
    pub(super) fn is_full(&self) -> bool {
        self.eviction_at().is_some()
    }

    /// Returns the time of the next eviction, if there may be one.
    pub(super) fn eviction_at(&self) -> Option<Instant> {
        // The smallest build has no room for the budget.
        if Feature::Full.is_built_in() { self.eviction_at.get() } else { None }
    }

    /// Changes the total, and notes whether the budget is used up.
    fn add(&self, more: usize, fewer: usize) {
        let total = self.total.get() + more - fewer;
        self.total.set(total);
        if self.is_full() {
            if total < self.resume_at() {
                self.eviction_at.set(None);
                self.wake_all();
            }
            // Output is not held back, so it can exceed the limit by far.
            if more > 0 && total / 2 >= self.limit.get() {
                self.eviction_at.set(Some(Instant::now()));
            }
        } else if total >= self.limit.get() {
            let now = Instant::now();
            let is_relapse = self.last_eviction.get().is_some_and(|last| now < last + RELAPSE);
            self.eviction_at.set(Some(now + if is_relapse { SHORT_PATIENCE } else { PATIENCE }));
        }
    }

    /// Returns the total below which connections are read again. It lies below the limit, so that a few bytes
    /// that come and go do not wake all waiting tasks each time.
    fn resume_at(&self) -> usize {
        self.limit.get() - self.limit.get() / 8
    }

    fn wake_all(&self) {
        let mut holders = self.holders.borrow_mut();
        let wakers: Vec<Waker> =
            holders.iter_mut().filter_map(|(_, holder)| holder.waker.take()).collect();
        drop(holders);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Evicts the largest holders of the address that holds most, until half of the budget is free, if the time
    /// for this has come. At most [`EVICTIONS_PER_TURN`] are evicted at once.
    pub(super) fn evict(&self, now: Instant) {
        if self.eviction_at().is_none_or(|at| at > now) {
            return;
        }
        let mut holders = self.holders.borrow_mut();
        let mut found: Vec<_> = holders
            .iter()
            .filter(|(_, holder)| !holder.is_evicted)
            .map(|(key, holder)| (holder.address, holder.bytes, key))
            .collect();
        // The largest holder of each address is the last one of its address.
        found.sort_unstable();
        let mut addresses: Vec<(usize, Vec<_>)> = found
            .chunk_by(|one, other| one.0 == other.0)
            .map(|holders| (holders.iter().map(|holder| holder.1).sum(), holders.to_vec()))
            .collect();
        let mut left: usize = addresses.iter().map(|(bytes, _)| *bytes).sum();
        let (target, mut evicted) = (self.limit.get() / 2, Vec::new());
        for _ in 0..EVICTIONS_PER_TURN {
            let most = addresses.iter_mut().max_by_key(|(bytes, _)| *bytes);
            let Some((sum, of_address)) = most.filter(|_| left >= target) else { break };
            let Some((_, bytes, key)) = of_address.pop() else { break };
            *sum -= bytes;
            left -= bytes;
            holders[key].is_evicted = true;
            evicted.push(holders[key].waker.take());
        }
        let is_done = left < target || evicted.is_empty();
        self.eviction_at.set(Some(now + if is_done { SHORT_PATIENCE } else { Duration::ZERO }));
        self.last_eviction.set(Some(now));
        drop(holders);
        evicted.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Held {
    /// Sets the number of bytes that are held. `address` returns the client's address, `None` for a client on
    /// this host.
    pub(crate) fn set(
        &self,
        pending: &Rc<Pending>,
        bytes: usize,
        address: impl FnOnce() -> Option<AddressPrefix>,
    ) {
        if !Feature::Full.is_built_in() {
            return;
        }
        let entry = match self.0.take() {
            None if bytes == 0 => return,
            None => {
                let address = address().map(AddressPrefix::shortest);
                let holder = Holder { address, bytes: 0, is_evicted: false, waker: None };
                let key = pending.holders.borrow_mut().insert(holder);
                Entry { pending: pending.clone(), key }
            }
            Some(entry) => entry,
        };
        let is_evicted = entry.resize(bytes);
        self.0.set((bytes > 0 || is_evicted).then_some(entry));
    }

    /// Gives all memory back to the budget. The next holder may have another address.
    pub(crate) fn clear(&self) {
        drop(self.0.take());
    }

    /// Waits until more may be read.
    ///
    /// # Errors
    /// [`is_eviction`], if this holder was evicted.
    pub(crate) fn poll_more(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_waiting =
            |pending: &Pending, holder: &Holder| pending.is_full() && holder.bytes > SMALL_BYTES;
        match self.listen_if(cx, is_waiting) {
            Ok(true) => Poll::Pending,
            Ok(false) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Returns an error if this holder was evicted. Otherwise, an eviction wakes the task of `cx`.
    ///
    /// # Errors
    /// [`is_eviction`].
    pub(crate) fn check(&self, cx: &mut Context<'_>) -> io::Result<()> {
        self.listen_if(cx, |_, _| true).map(|_| ())
    }

    /// Registers the task of `cx` with the holder, if there is one for which `condition` is true. Returns true
    /// if it did.
    fn listen_if(
        &self,
        cx: &mut Context<'_>,
        condition: impl FnOnce(&Pending, &Holder) -> bool,
    ) -> io::Result<bool> {
        let Some(entry) = self.0.take().filter(|_| Feature::Full.is_built_in()) else {
            return Ok(false);
        };
        let mut holders = entry.pending.holders.borrow_mut();
        let holder = &mut holders[entry.key];
        let (mut previous, is_evicted) = (None, holder.is_evicted);
        let listens = !is_evicted && condition(&entry.pending, holder);
        if listens && holder.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            previous = holder.waker.replace(cx.waker().clone());
        }
        drop(holders);
        self.0.set(Some(entry));
        // Dropping a waker may drop a task that holds memory.
        drop(previous);
        if is_evicted { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(listens) }
    }
}

/// Returns true if an error says that a holder was evicted. No system call for sockets has this error.
pub(crate) fn is_eviction(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded && error.raw_os_error().is_none()
}

impl Entry {
    /// Sets the number of bytes. Returns true if the holder was evicted.
    fn resize(&self, bytes: usize) -> bool {
        let mut holders = self.pending.holders.borrow_mut();
        let holder = &mut holders[self.key];
        let (previous, is_evicted) =
            (std::mem::replace(&mut holder.bytes, bytes), holder.is_evicted);
        drop(holders);
        self.pending.add(bytes, previous);
        is_evicted
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.resize(0);
        let mut holders = self.pending.holders.borrow_mut();
        let holder = holders.remove(self.key);
        if holders.is_empty() && holders.capacity() > FEW_HOLDERS {
            // Frees the memory that many holders needed.
            *holders = Slab::new();
        }
        drop(holders);
        // Dropping a waker may drop a task that holds memory.
        drop(holder);
    }
}

/// The number of bytes up to which a connection is read even if the budget is used up, and the size of the
/// pieces in which it is read then.
pub(super) const SMALL_BYTES: usize = 4096;
/// The smallest limit.
const LEAST_BYTES: usize = 64 * 1024;
/// The number of holders whose memory is kept for later ones.
const FEW_HOLDERS: usize = 16;
/// The time for which the budget must be used up before a holder is evicted.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same time if the last eviction was less than [`RELAPSE`] ago: the remaining holders may belong to the same attack.
const SHORT_PATIENCE: Duration = Duration::from_millis(100);
const RELAPSE: Duration = Duration::from_secs(10);
/// The number of holders that are evicted before other tasks run.
const EVICTIONS_PER_TURN: usize = 64;

#[cfg(test)]
#[cfg(feature = "full")]
mod tests {
    use super::*;

    /// Returns a budget of 100,000 bytes and the holders of `held` bytes each at these addresses.
    fn budget(held: &[(Option<&str>, usize)]) -> (Rc<Pending>, Vec<Held>) {
        let pending = Pending::new();
        pending.set_limit(100_000);
        let held = held.iter().map(|(address, bytes)| {
            let held = Held::default();
            held.set(&pending, *bytes, || {
                address.map(|address| AddressPrefix::of(address.parse().unwrap()))
            });
            held
        });
        let held = held.collect();
        (pending, held)
    }

    fn more(held: &Held) -> Poll<Result<(), io::ErrorKind>> {
        let polled = held.poll_more(&mut Context::from_waker(Waker::noop()));
        polled.map(|result| result.map_err(|error| error.kind()))
    }

    #[test]
    fn at_the_limit_only_small_holders_may_read_until_an_eighth_is_free() {
        let (pending, held) = budget(&[(None, 90_000), (None, 5_000), (None, SMALL_BYTES)]);
        assert!(held.iter().all(|held| more(held) == Poll::Ready(Ok(()))));
        let last = Held::default();
        last.set(&pending, 2_000, || None);
        assert_eq!(more(&held[0]), Poll::Pending);
        assert_eq!(more(&held[1]), Poll::Pending);
        assert_eq!(more(&held[2]), Poll::Ready(Ok(())));
        assert_eq!(more(&Held::default()), Poll::Ready(Ok(())));
        held[0].set(&pending, 80_000, || None);
        assert_eq!(more(&held[1]), Poll::Pending, "less than an eighth is free");
        held[0].set(&pending, 70_000, || None);
        assert_eq!(more(&held[1]), Poll::Ready(Ok(())));
        drop((held, last));
        assert_eq!(pending.total(), 0);
        assert!(pending.holders.borrow().is_empty());
    }

    #[test]
    fn after_a_second_the_largest_holders_of_the_largest_address_are_evicted() {
        let (one, other) = (Some("192.0.2.1"), Some("192.0.2.2"));
        let (pending, held) =
            budget(&[(one, 5_000), (one, 30_000), (other, 40_000), (one, 20_000), (None, 8_000)]);
        let full_at = pending.eviction_at().unwrap();
        pending.evict(full_at - Duration::from_millis(1));
        assert!(held.iter().all(|held| more(held) == Poll::Pending));
        pending.evict(full_at);
        let evicted = Poll::Ready(Err(io::ErrorKind::QuotaExceeded));
        let states: Vec<_> = held.iter().map(more).collect();
        // First the largest of 55,000 bytes of one address; then 40,000 bytes of the other are more than the rest.
        assert_eq!((&states[1], &states[2]), (&evicted, &evicted));
        assert_eq!(states.iter().filter(|state| **state == evicted).count(), 2);
        // It stays evicted, even without memory, until it is dropped.
        held[1].set(&pending, 0, || None);
        assert_eq!(more(&held[1]), evicted);
        assert_eq!(more(&held[0]), Poll::Ready(Ok(())));
    }

    #[test]
    fn an_eviction_and_free_memory_wake_the_waiting_tasks() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::task::Wake;

        struct Wakes(AtomicUsize);
        impl Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (pending, held) = budget(&[(None, 60_000), (None, 50_000), (None, 10_000)]);
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(wakes.clone());
        let cx = &mut Context::from_waker(&waker);
        assert!(held[0].check(cx).is_ok());
        assert!(held[2].poll_more(cx).is_pending());
        pending.evict(pending.eviction_at().unwrap());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(held[0].check(cx).is_err());
        held[0].set(&pending, 0, || None);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    }
}
