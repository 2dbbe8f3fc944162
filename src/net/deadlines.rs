//! Who is to be woken when.

use std::task::Waker;
use std::time::Instant;

use slab::Slab;

/// Deadlines, the next one first: a binary heap whose entries know their places, so that adding one and
/// taking one out, which nearly all are before they pass, takes as many steps as the heap is deep.
#[derive(Default)]
pub(super) struct Deadlines {
    /// Each is no later than those at `2 * place + 1` and `2 * place + 2`. Beside it, who waits for it.
    heap: Vec<(Instant, usize)>,
    waiting: Slab<Waiting>,
}

struct Waiting {
    waker: Waker,
    /// None once the deadline has passed.
    place: Option<usize>,
}

impl Deadlines {
    /// The next one.
    pub(super) fn first(&self) -> Option<Instant> {
        Some(self.heap.first()?.0)
    }

    /// Adds one; returns the key to [`remove`](Self::remove) it by.
    pub(super) fn insert(&mut self, deadline: Instant, waker: Waker) -> usize {
        let place = self.heap.len();
        let key = self.waiting.insert(Waiting { waker, place: Some(place) });
        self.heap.push((deadline, key));
        self.settle(place);
        key
    }

    /// Takes the next one if it is no later than `now`; returns whom to wake. Its key stays taken.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Waker> {
        let (deadline, key) = *self.heap.first()?;
        if deadline > now {
            return None;
        }
        self.take(0);
        let waiting = &mut self.waiting[key];
        waiting.place = None;
        Some(waiting.waker.clone())
    }

    /// Has another waker woken; returns the one before.
    pub(super) fn replace(&mut self, key: usize, waker: Waker) -> Waker {
        std::mem::replace(&mut self.waiting[key].waker, waker)
    }

    /// Frees a key, and takes its deadline out if it has not passed.
    pub(super) fn remove(&mut self, key: usize) -> Waker {
        let Waiting { waker, place } = self.waiting.remove(key);
        if let Some(place) = place {
            self.take(place);
        }
        if self.waiting.len() <= FEW {
            // Gives the memory of a crowd back.
            self.heap.shrink_to(FEW);
            self.waiting.shrink_to_fit();
        }
        waker
    }

    /// Takes out what is at `place`.
    fn take(&mut self, place: usize) {
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
        }
    }

    /// Moves what is at `place` to where it belongs, if all others are where they do.
    fn settle(&mut self, mut place: usize) {
        loop {
            let above = place.saturating_sub(1) / 2;
            let below = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let below = below.min_by_key(|below| self.heap[*below].0).unwrap_or(place);
            let next = match self.heap[place].0 {
                deadline if deadline < self.heap[above].0 => above,
                deadline if deadline > self.heap[below].0 => below,
                _ => break,
            };
            self.heap.swap(place, next);
            self.note(place);
            place = next;
        }
        self.note(place);
    }

    /// Tells what is at `place` so.
    fn note(&mut self, place: usize) {
        self.waiting[self.heap[place].1].place = Some(place);
    }
}

/// With no more than this it takes no time to look for memory to give back.
const FEW: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn they_pass_in_order_whatever_is_taken_out() {
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
            assert!(deadlines.waiting.is_empty());
        }
    }
}
