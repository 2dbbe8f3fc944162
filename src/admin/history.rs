//! The past samples, from which the dashboard draws its charts.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use crate::hub::HubStats;

use super::seconds::Seconds;

/// The counts of the server at one time.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) stats: HubStats,
    pub(super) http: usize,
    pub(super) accepted: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) lagged: u64,
    pub(super) published: u64,
    pub(super) resident_bytes: u64,
    /// The longest turn of the event loop since the previous sample.
    pub(super) worst_turn: Duration,
    pub(super) is_draining: bool,
}

impl Sample {
    /// Appends the sample as JSON, with the time of day at which it was taken. `now` is the current time.
    pub(super) fn write(&self, json: &mut String, now: Instant) {
        let HubStats { websocket, events, topics, .. } = self.stats;
        let Self { http, accepted, received, sent, lagged, published, .. } = self;
        let Self { resident_bytes, is_draining, .. } = self;
        let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = Seconds(today.saturating_sub(now.saturating_duration_since(self.at)));
        let worst_us = self.worst_turn.as_micros();
        let (lag_ms, lag_us) = (worst_us / 1000, worst_us % 1000);
        // Writing to a string never fails.
        let _ = write!(
            json,
            r#"{{"time":{time},"connections":{{"websocket":{websocket},"events":{events},"http":{http}}},"accepted":{accepted},"received":{received},"sent":{sent},"lagged":{lagged},"published":{published},"resident_bytes":{resident_bytes},"loop_lag_ms":{lag_ms}.{lag_us:03},"topics":{topics},"draining":{is_draining}}}"#,
        );
    }
}

/// The samples of the last ten minutes: the newest one, and before it one for every five seconds in which
/// a client was connected; at most 122 in all.
#[derive(Debug, Default)]
pub(super) struct History(RefCell<VecDeque<Sample>>);

impl History {
    /// Adds a sample. It replaces the newest sample, unless that is at least five seconds later than the
    /// sample before it.
    pub(super) fn add(&self, mut sample: Sample) {
        let mut samples = self.0.borrow_mut();
        if let [.., before, last] = &*samples.make_contiguous()
            && last.at.saturating_duration_since(before.at) < SAMPLE_EVERY
        {
            sample.worst_turn = sample.worst_turn.max(last.worst_turn);
            samples.pop_back();
        }
        let is_old = |old: &Sample| sample.at.saturating_duration_since(old.at) > KEPT;
        while samples.front().is_some_and(is_old) {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Returns all samples as one server-sent event, or an empty string if there are none. `now` is the
    /// current time.
    pub(super) fn event(&self, now: Instant) -> String {
        let mut event = String::new();
        for sample in &*self.0.borrow() {
            event.push_str(if event.is_empty() { "event: history\ndata: [" } else { "," });
            sample.write(&mut event, now);
        }
        if !event.is_empty() {
            event.push_str("]\n\n");
        }
        event
    }
}

/// The time between two samples in the history. The dashboard interrupts a chart between samples that are
/// more than 10 s apart (`GAP_MS` in `chart.js`).
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// The time for which samples are kept.
const KEPT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, sent: u64, worst_ms: u64) -> Sample {
        Sample {
            at,
            stats: HubStats::default(),
            http: 0,
            accepted: 0,
            received: 0,
            sent,
            lagged: 0,
            published: 0,
            resident_bytes: 0,
            worst_turn: Duration::from_millis(worst_ms),
            is_draining: false,
        }
    }

    #[test]
    fn the_history_has_a_sample_for_every_five_seconds_of_ten_minutes_and_the_newest_one() {
        let (history, start) = (History::default(), Instant::now());
        let seconds = |history: &History| {
            let samples = history.0.borrow();
            samples.iter().map(|s| (s.at - start).as_secs()).collect::<Vec<_>>()
        };
        for second in 0..=13 {
            history.add(sample(start + Duration::from_secs(second), second, 0));
        }
        assert_eq!(seconds(&history), [0, 5, 10, 13]);
        for second in 14..=1000 {
            history.add(sample(start + Duration::from_secs(second), second, 0));
        }
        let expected = (400..=1000).step_by(5).collect::<Vec<_>>();
        assert_eq!(seconds(&history), expected);
        history.add(sample(start + Duration::from_secs(5000), 0, 0));
        assert_eq!(seconds(&history), [5000]);
    }

    #[test]
    fn a_sample_keeps_the_longest_turn_of_the_samples_that_it_replaces() {
        let (history, start) = (History::default(), Instant::now());
        for (second, worst) in [(0, 1), (1, 2), (2, 50), (3, 3), (4, 4), (5, 5), (6, 6)] {
            history.add(sample(start + Duration::from_secs(second), 0, worst));
        }
        let samples = history.0.borrow();
        let worst: Vec<_> = samples.iter().map(|s| s.worst_turn.as_millis()).collect();
        assert_eq!(worst, [1, 50, 6]);
    }
}
