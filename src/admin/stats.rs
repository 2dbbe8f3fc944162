//! What the dashboard draws: an event a second, while somebody looks.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures_lite::FutureExt;

use crate::hub::{HubGone, HubHandle, PublishError, Survey, TopicName};
use crate::services::{Service, Stop};
use crate::tally::Source;
use crate::ws::frame::Frame;

use super::{Desk, Seconds, process};

/// Publishes the state of things to a topic of its own. While nobody looks it does not even wake up.
pub(crate) struct Stats {
    desk: Rc<Desk>,
    /// The administrator's, who watches the others go.
    stop: Stop,
}

impl Stats {
    /// Stats that end with `stop`.
    pub(crate) fn new(desk: Rc<Desk>, stop: Stop) -> Self {
        Self { desk, stop }
    }

    async fn publish_while_heard(&self) -> Result<(), PublishError> {
        let (hub, topic) = (&self.desk.hub, TopicName::stats());
        loop {
            hub.until_subscribed(&topic).await?;
            // What was before nobody has asked for.
            self.desk.meter().turns.take_worst();
            self.publish(&topic).await?;
            while pause(hub, &topic, &self.stop).await? {
                self.publish(&topic).await?;
            }
            hub.clear(&topic).await?;
        }
    }

    async fn publish(&self, topic: &TopicName) -> Result<(), PublishError> {
        let survey = self.desk.hub.survey().await?;
        let frame = Frame::data(true, self.line(&survey).as_bytes());
        self.desk.hub.publish_frame(topic, frame, None, Source::Admin).await.map(drop)
    }

    fn line(&self, survey: &Survey) -> String {
        let Survey { websocket, events, topics, .. } = survey;
        let (tally, turns) = (&self.desk.tally, &self.desk.meter().turns);
        let worst_us = turns.take_worst().as_micros();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!(
            r#"{{"time":{},"connections":{{"websocket":{websocket},"events":{events},"http":{}}},"received":{},"sent":{},"lagged":{},"resident_bytes":{},"loop_lag_ms":{}.{:03},"topics":{topics},"draining":{}}}"#,
            Seconds(now),
            super::api::http_connections(tally, survey),
            tally.messages_received.total(),
            tally.messages_sent.total(),
            tally.messages_lagged.total(),
            process::resident_bytes(),
            worst_us / 1000,
            worst_us % 1000,
            self.desk.stop.is_requested(),
        )
    }
}

impl Service for Stats {
    async fn run(self: Box<Self>, _: HubHandle, _: Stop) {
        let _ = self.stop.unless_requested(self.publish_while_heard()).await;
    }
}

/// Waits until the next event is due; says false if nobody looks any more.
async fn pause(hub: &HubHandle, topic: &TopicName, stop: &Stop) -> Result<bool, HubGone> {
    let due = async {
        stop.timer().sleep(Some(EVERY)).await;
        Ok(true)
    };
    let vacant = async { hub.until_unsubscribed(topic).await.map(|()| false) };
    due.or(vacant).await
}

const EVERY: Duration = Duration::from_secs(1);
