//! The service that samples the state of the server for the dashboard.

use std::rc::Rc;
use std::time::Duration;

use futures_lite::{FutureExt, future};

use crate::counters::Source;
use crate::frame::Frame;
use crate::hub::{Draft, HubGone, HubHandle, PublishError, TopicName};
use crate::services::{Service, Stop};

use super::history::SAMPLE_EVERY;
use super::state::AdminState;

/// A service that publishes samples to an internal topic, which the dashboards subscribe to, and adds them to
/// the history for dashboards that are opened later. It does not wake up while no client is connected.
pub(crate) struct Stats {
    state: Rc<AdminState>,
    /// The stop of the administrator's part. It follows the drain of the public connections, so that the
    /// dashboard can show the drain.
    stop: Stop,
}

impl Stats {
    /// Creates the service. It runs until `stop`, instead of the stop that all services get.
    pub(crate) fn new(state: Rc<AdminState>, stop: Stop) -> Self {
        Self { state, stop }
    }

    async fn sample(&self) -> Result<(), PublishError> {
        let (hub, topic) = (&self.state.hub, TopicName::stats());
        loop {
            hub.until_any_client().await?;
            // Discards the longest turn while no client was connected: it delayed no client.
            self.state.meter().turns.take_longest();
            let mut is_watched = self.publish(&topic).await?;
            while pause(hub, &topic, &self.stop, is_watched).await? {
                is_watched = self.publish(&topic).await?;
            }
            // The last sample shows that no client is connected.
            self.publish(&topic).await?;
        }
    }

    /// Publishes a sample. Returns true if a dashboard is open.
    async fn publish(&self, topic: &TopicName) -> Result<bool, PublishError> {
        let hub = &self.state.hub;
        let json = self.state.sample(&hub.stats().await?);
        let frame = Frame::data(true, json.as_bytes());
        let draft = Draft { event_type: Some("stats"), ..Draft::new(frame) };
        let published = hub.publish_draft(topic, draft, Source::Admin).await??;
        Ok(published.subscribers > 0)
    }
}

impl Service for Stats {
    async fn run(self: Box<Self>, _: HubHandle, _: Stop) {
        let _ = self.stop.unless_requested(self.sample()).await;
    }
}

/// Waits until the next sample is due, which is sooner if a dashboard is open or has just been opened.
/// Returns false once no client is connected.
async fn pause(
    hub: &HubHandle,
    topic: &TopicName,
    stop: &Stop,
    is_watched: bool,
) -> Result<bool, HubGone> {
    let due = async {
        stop.timer().sleep(Some(if is_watched { WATCHED_EVERY } else { SAMPLE_EVERY })).await;
        Ok(true)
    };
    let watched = async {
        match is_watched {
            true => future::pending().await,
            false => hub.until_subscribed(topic).await.map(|()| true),
        }
    };
    let is_empty = async { hub.until_no_client().await.map(|()| false) };
    due.or(watched).or(is_empty).await
}

/// The time between two samples while a dashboard is open.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
