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

/// Publishes samples to a topic of its own, and keeps them for administrators that come later. It does not
/// wake up while no client is connected.
pub(crate) struct Stats {
    state: Rc<AdminState>,
    /// The stop of the administrator's listener, which shows the drain of the others.
    stop: Stop,
}

impl Stats {
    /// Stats that end with `stop`.
    pub(crate) fn new(state: Rc<AdminState>, stop: Stop) -> Self {
        Self { state, stop }
    }

    async fn sample(&self) -> Result<(), PublishError> {
        let (hub, topic) = (&self.state.hub, TopicName::stats());
        loop {
            hub.until_any_client().await?;
            // A turn in which no client was connected delayed no client.
            self.state.meter().turns.take_worst();
            let mut is_watched = self.publish(&topic).await?;
            while pause(hub, &topic, &self.stop, is_watched).await? {
                is_watched = self.publish(&topic).await?;
            }
            // The last sample shows that no client is connected.
            self.publish(&topic).await?;
        }
    }

    /// Publishes a sample. Returns true if an administrator watches.
    async fn publish(&self, topic: &TopicName) -> Result<bool, PublishError> {
        let hub = &self.state.hub;
        let json = self.state.sample(&hub.stats().await?);
        let frame = Frame::data(true, json.as_bytes());
        let draft = Draft { event_type: Some("stats"), ..Draft::new(frame) };
        let published = hub.publish_draft(topic, draft, Source::Admin).await?;
        if published.subscribers == 0 {
            hub.clear(topic).await?;
        }
        Ok(published.subscribers > 0)
    }
}

impl Service for Stats {
    async fn run(self: Box<Self>, _: HubHandle, _: Stop) {
        let _ = self.stop.unless_requested(self.sample()).await;
    }
}

/// Waits until the next sample is due, which is sooner while an administrator watches. Returns false if no
/// client is connected any more.
async fn pause(
    hub: &HubHandle,
    topic: &TopicName,
    stop: &Stop,
    is_watched: bool,
) -> Result<bool, HubGone> {
    let due = async {
        stop.timer().sleep(Some(if is_watched { EVERY } else { SAMPLE_EVERY })).await;
        Ok(true)
    };
    let watched = async {
        match is_watched {
            true => future::pending().await,
            false => hub.until_subscribed(topic).await.map(|()| true),
        }
    };
    let left_alone = async { hub.until_no_client().await.map(|()| false) };
    due.or(watched).or(left_alone).await
}

/// The time between two samples while an administrator watches.
const EVERY: Duration = Duration::from_secs(1);
