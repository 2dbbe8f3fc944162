//! The states of a rate limit by address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::net::AddressPrefix;
use crate::rate::{Rate, RateState};

/// A rate limit for the events of each remote address. Each prefix of an address has as many times the rate as it
/// has [shares](AddressPrefix::shares).
pub(super) struct PrefixRates {
    rate: Rate,
    states: RefCell<HashMap<AddressPrefix, RateState>>,
}

impl PrefixRates {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, states: RefCell::default() }
    }

    /// Returns the rate of a prefix with one share.
    pub(super) fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Reserves the next event of `address` for the time at which all its prefixes allow the event. Returns the
    /// time until then.
    ///
    /// # Errors
    /// The time to wait, if it is longer than `longest`, or if too many addresses have events. Then nothing is
    /// reserved.
    pub(super) fn reserve(
        &self,
        address: AddressPrefix,
        longest: Duration,
        now: Instant,
    ) -> Result<Duration, Duration> {
        let mut states = self.states.borrow_mut();
        let is_full = states.len() == states.capacity() || states.len() >= MAX_PREFIXES;
        if is_full && !address.with_shorter().all(|prefix| states.contains_key(&prefix)) {
            // Even a table that may grow is cleared first, because most addresses come once.
            states.retain(|_, state| !self.rate.is_idle(*state, now));
            if states.len() >= MAX_PREFIXES {
                // So many active addresses are probably an attack, and this address is part of it.
                return Err(CROWDED_WAIT);
            }
        }
        // An event that would wait too long for one prefix must not count for the others.
        let mut wait = Duration::ZERO;
        for prefix in address.with_shorter() {
            let mut state = states.get(&prefix).copied().unwrap_or_default();
            if let Err(for_prefix) = self.rate.times(prefix.shares()).admit(&mut state, now) {
                if for_prefix > longest {
                    return Err(for_prefix);
                }
                wait = wait.max(for_prefix);
            }
        }
        for prefix in address.with_shorter() {
            let state = states.entry(prefix).or_default();
            self.rate.times(prefix.shares()).reserve(state, now, longest);
        }
        Ok(wait)
    }

    /// Returns the number of prefixes in the table.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.states.borrow().len()
    }
}

/// The maximum number of prefixes with recent or reserved events. The last address may add two more. Further
/// addresses must wait.
pub(super) const MAX_PREFIXES: usize = 4096;
/// The time to wait if too many prefixes have events.
const CROWDED_WAIT: Duration = Duration::from_secs(1);
