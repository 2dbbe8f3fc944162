//! A priority queue of deadlines and the wakers to call when they pass.

use std::task::Waker;
use std::time::Instant;

use slab::Slab;

/// A set of deadlines, ordered by time.
///
/// It is an indexed binary heap: each waiter knows its index in the heap, so adding a deadline and
/// removing any deadline both take O(log n) steps. Nearly all deadlines are removed before they pass.
#[derive(Default)]
pub(super) struct Deadlines {
    /// Each deadline, with the key of its waiter. The deadline at `index` is no later than those at
    /// `2 * index + 1` and `2 * index + 2`.
    heap: Vec<(Instant, usize)>,
    waiters: Slab<Waiter>,
}

struct Waiter {
    waker: Waker,
    /// The index of the deadline in the heap, or `None` once the deadline has passed.
    index: Option<usize>,
}

impl Deadlines {
    /// Returns the earliest deadline.
    pub(super) fn first(&self) -> Option<Instant> {
        Some(self.heap.first()?.0)
    }

    /// Adds a deadline. Returns its key, which stays in use until it is passed to
    /// [`remove`](Self::remove).
    pub(super) fn insert(&mut self, deadline: Instant, waker: Waker) -> usize {
        let index = self.heap.len();
        let key = self.waiters.insert(Waiter { waker, index: Some(index) });
        self.heap.push((deadline, key));
        self.sift(index);
        key
    }

    /// Removes the earliest deadline from the heap if it is no later than `now`, and returns its
    /// waker. The key of the deadline stays in use.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Waker> {
        let (deadline, key) = *self.heap.first()?;
        if deadline > now {
            return None;
        }
        self.remove_at(0);
        let waiter = &mut self.waiters[key];
        waiter.index = None;
        Some(waiter.waker.clone())
    }

    /// Replaces the waker of a deadline. Returns the previous waker.
    pub(super) fn replace(&mut self, key: usize, waker: Waker) -> Waker {
        std::mem::replace(&mut self.waiters[key].waker, waker)
    }

    /// Frees a key, and removes its deadline if the deadline has not passed. Returns the waker.
    pub(super) fn remove(&mut self, key: usize) -> Waker {
        let Waiter { waker, index } = self.waiters.remove(key);
        if let Some(index) = index {
            self.remove_at(index);
        }
        if self.waiters.len() <= FEW_DEADLINES && self.waiters.capacity() > 2 * FEW_DEADLINES {
            // Frees the memory that many deadlines needed before. It is not freed after every deadline:
            // growing again between the allocations of a new client would leave a hole beside each client.
            self.heap.shrink_to(FEW_DEADLINES);
            self.waiters.shrink_to_fit();
        }
        waker
    }

    /// Removes the entry at `index` from the heap.
    fn remove_at(&mut self, index: usize) {
        self.heap.swap_remove(index);
        if index < self.heap.len() {
            self.sift(index);
        }
    }

    /// Moves the entry at `index` up or down until the heap is in order. All other entries must be in
    /// order already.
    fn sift(&mut self, mut index: usize) {
        loop {
            let parent = index.saturating_sub(1) / 2;
            let children = 2 * index + 1..(2 * index + 3).min(self.heap.len());
            let child = children.min_by_key(|child| self.heap[*child].0).unwrap_or(index);
            let next = match self.heap[index].0 {
                deadline if deadline < self.heap[parent].0 => parent,
                deadline if deadline > self.heap[child].0 => child,
                _ => break,
            };
            self.heap.swap(index, next);
            self.store_index(index);
            index = next;
        }
        self.store_index(index);
    }

    /// Stores `index` in the waiter of the entry at `index`.
    fn store_index(&mut self, index: usize) {
        self.waiters[self.heap[index].1].index = Some(index);
    }
}

/// The number of deadlines up to which removing one also frees unused memory. The memory for twice as many
/// is kept.
const FEW_DEADLINES: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_memory_of_many_deadlines_is_freed_and_that_of_one_is_kept() {
        let mut deadlines = Deadlines::default();
        let insert =
            |deadlines: &mut Deadlines| deadlines.insert(Instant::now(), Waker::noop().clone());
        let first = insert(&mut deadlines);
        let few = deadlines.waiters.capacity();
        deadlines.remove(first);
        assert_eq!(deadlines.waiters.capacity(), few, "the next deadline needs the same memory");
        let keys: Vec<_> = (0..1_000).map(|_| insert(&mut deadlines)).collect();
        for key in keys {
            deadlines.remove(key);
        }
        let (waiters, heap) = (deadlines.waiters.capacity(), deadlines.heap.capacity());
        assert!(waiters <= 2 * FEW_DEADLINES && heap <= 2 * FEW_DEADLINES, "{waiters} {heap}");
    }

    #[test]
    fn deadlines_expire_in_order_after_any_removals() {
        let (start, mut random) = (Instant::now(), fastrand::Rng::with_seed(7));
        for _ in 0..200 {
            let (mut deadlines, mut model) = (Deadlines::default(), Vec::new());
            for _ in 0..random.usize(1..100) {
                let deadline = start + Duration::from_secs(random.u64(0..50));
                model.push((deadline, deadlines.insert(deadline, Waker::noop().clone())));
                if random.u8(0..3) == 0 {
                    let (_, key) = model.swap_remove(random.usize(0..model.len()));
                    deadlines.remove(key);
                }
            }
            model.sort();
            for (deadline, _) in &model {
                assert_eq!(deadlines.first(), Some(*deadline));
                assert!(deadlines.expire(*deadline - Duration::from_nanos(1)).is_none());
                assert!(deadlines.expire(*deadline).is_some());
            }
            assert_eq!(deadlines.first(), None);
            for (_, key) in model {
                deadlines.remove(key);
            }
            assert!(deadlines.waiters.is_empty());
        }
    }
}
