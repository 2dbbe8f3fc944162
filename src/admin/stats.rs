//! What the dashboard draws: an event a second, while somebody looks, and how things were before.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use futures_lite::{FutureExt, future};

use crate::counters::Source;
use crate::hub::{HubGone, HubHandle, HubStats, PublishError, TopicName};
use crate::services::{Service, Stop};
use crate::ws::frame::Frame;

use super::{AdminState, Seconds, process};

/// Publishes the state of things to a topic of its own, and remembers it for who looks later. While nobody
/// is connected it does not even wake up.
pub(crate) struct Stats {
    admin_state: Rc<AdminState>,
    /// The administrator's, who watches the others go.
    stop: Stop,
}

impl Stats {
    /// Stats that end with `stop`.
    pub(crate) fn new(admin_state: Rc<AdminState>, stop: Stop) -> Self {
        Self { admin_state, stop }
    }

    async fn keep(&self) -> Result<(), PublishError> {
        let (hub, topic) = (&self.admin_state.hub, TopicName::stats());
        loop {
            hub.until_any_client(true).await?;
            // What was while nobody was there nobody has noticed.
            self.admin_state.meter().turns.take_worst();
            let mut is_heard = self.publish(&topic).await?;
            while pause(hub, &topic, &self.stop, is_heard).await? {
                is_heard = self.publish(&topic).await?;
            }
            // That nobody is there is the last to be remembered.
            self.publish(&topic).await?;
        }
    }

    /// Says whether anybody has heard it.
    async fn publish(&self, topic: &TopicName) -> Result<bool, PublishError> {
        let (admin_state, hub) = (&*self.admin_state, &self.admin_state.hub);
        let sample = admin_state.sample(&hub.stats().await?);
        let mut line = String::new();
        sample.write(&mut line, admin_state.now());
        admin_state.history.note(sample);
        let frame = Frame::data(true, line.as_bytes());
        let published = hub.publish_frame(topic, frame, None, Source::Admin).await?;
        if published.subscribers == 0 {
            hub.clear(topic).await?;
        }
        Ok(published.subscribers > 0)
    }
}

impl AdminState {
    fn now(&self) -> Instant {
        self.stop.timer().now()
    }

    /// The event that a stream of events begins with: how things were. Empty if nobody knows.
    pub(crate) fn past(&self) -> String {
        let mut event = String::new();
        for sample in &*self.history.0.borrow() {
            event.push_str(if event.is_empty() { "event: history\ndata: [" } else { "," });
            sample.write(&mut event, self.now());
        }
        if !event.is_empty() {
            event.push_str("]\n\n");
        }
        event
    }

    fn sample(&self, stats: &HubStats) -> Sample {
        let (counters, meter) = (&self.counters, self.meter());
        Sample {
            at: self.now(),
            stats: *stats,
            http: super::api::http_connections(counters, stats),
            accepted: counters.accepted.total(),
            received: counters.messages_received.total(),
            sent: counters.messages_sent.total(),
            lagged: counters.messages_lagged.total(),
            published: counters.published().map(|(_, count)| count).sum(),
            resident_bytes: process::resident_bytes(),
            worst_turn: meter.turns.take_worst(),
            is_draining: self.stop.is_requested(),
        }
    }
}

/// How things were at one time.
#[derive(Debug)]
struct Sample {
    at: Instant,
    stats: HubStats,
    http: usize,
    accepted: u64,
    received: u64,
    sent: u64,
    lagged: u64,
    published: u64,
    resident_bytes: u64,
    /// The longest since the sample before.
    worst_turn: Duration,
    is_draining: bool,
}

impl Sample {
    /// Writes it as JSON, with the time of day that it was taken at if it is `now`.
    fn write(&self, json: &mut String, now: Instant) {
        let HubStats { websocket, events, topics, .. } = self.stats;
        let Self { http, accepted, received, sent, lagged, published, .. } = self;
        let Self { resident_bytes, is_draining, .. } = self;
        let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = Seconds(today.saturating_sub(now.saturating_duration_since(self.at)));
        let worst_us = self.worst_turn.as_micros();
        let (lag_ms, lag_us) = (worst_us / 1000, worst_us % 1000);
        // Writing to a string can't fail.
        let _ = write!(
            json,
            r#"{{"time":{time},"connections":{{"websocket":{websocket},"events":{events},"http":{http}}},"accepted":{accepted},"received":{received},"sent":{sent},"lagged":{lagged},"published":{published},"resident_bytes":{resident_bytes},"loop_lag_ms":{lag_ms}.{lag_us:03},"topics":{topics},"draining":{is_draining}}}"#,
        );
    }
}

/// How things were in the last ten minutes: the newest sample, and before it one every five seconds in
/// which anybody was connected, no more than 122 in all. It is empty until the first.
#[derive(Debug, Default)]
pub(crate) struct History(RefCell<VecDeque<Sample>>);

impl History {
    fn note(&self, mut sample: Sample) {
        let mut samples = self.0.borrow_mut();
        if let [.., before, last] = &*samples.make_contiguous()
            && last.at.saturating_duration_since(before.at) < REMEMBER_EVERY
        {
            sample.worst_turn = sample.worst_turn.max(last.worst_turn);
            samples.pop_back();
        }
        let is_old = |old: &Sample| sample.at.saturating_duration_since(old.at) > REMEMBERED;
        while samples.front().is_some_and(is_old) {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

impl Service for Stats {
    async fn run(self: Box<Self>, _: HubHandle, _: Stop) {
        let _ = self.stop.unless_requested(self.keep()).await;
    }
}

/// Waits until the next sample is due, sooner while somebody looks; says false if nobody is connected any
/// more.
async fn pause(
    hub: &HubHandle,
    topic: &TopicName,
    stop: &Stop,
    is_heard: bool,
) -> Result<bool, HubGone> {
    let due = async {
        stop.timer().sleep(Some(if is_heard { EVERY } else { REMEMBER_EVERY })).await;
        Ok(true)
    };
    let looked_at = async {
        match is_heard {
            true => future::pending().await,
            false => hub.until_subscribed(topic).await.map(|()| true),
        }
    };
    let deserted = async { hub.until_any_client(false).await.map(|()| false) };
    due.or(looked_at).or(deserted).await
}

const EVERY: Duration = Duration::from_secs(1);
/// The dashboard takes what is further apart for a pause.
const REMEMBER_EVERY: Duration = Duration::from_secs(5);
const REMEMBERED: Duration = Duration::from_secs(600);

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
    fn ten_minutes_are_remembered_every_five_seconds_and_the_newest_sample() {
        let (history, start) = (History::default(), Instant::now());
        let seconds = |history: &History| {
            let samples = history.0.borrow();
            samples.iter().map(|s| (s.at - start).as_secs()).collect::<Vec<_>>()
        };
        for second in 0..=13 {
            history.note(sample(start + Duration::from_secs(second), second, 0));
        }
        assert_eq!(seconds(&history), [0, 5, 10, 13]);
        for second in 14..=1000 {
            history.note(sample(start + Duration::from_secs(second), second, 0));
        }
        let expected = (400..=1000).step_by(5).collect::<Vec<_>>();
        assert_eq!(seconds(&history), expected);
        history.note(sample(start + Duration::from_secs(5000), 0, 0));
        assert_eq!(seconds(&history), [5000]);
    }

    #[test]
    fn the_longest_turn_is_remembered_of_what_is_left_out() {
        let (history, start) = (History::default(), Instant::now());
        for (second, worst) in [(0, 1), (1, 2), (2, 50), (3, 3), (4, 4), (5, 5), (6, 6)] {
            history.note(sample(start + Duration::from_secs(second), 0, worst));
        }
        let samples = history.0.borrow();
        let worst: Vec<_> = samples.iter().map(|s| s.worst_turn.as_millis()).collect();
        assert_eq!(worst, [1, 50, 6]);
    }
}
