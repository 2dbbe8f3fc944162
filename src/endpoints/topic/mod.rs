//! Topics: clients publish to the URL of a topic by HTTP or WebSocket, and subscribe to it by WebSocket or as
//! an event stream.

mod error;
mod once;
mod publish;
mod read;
pub(super) mod subscribe;

use std::rc::Rc;

use crate::access::{Action, Gatekeeper, Refused};
use crate::counters::Source;
use crate::http::accept::asks_for_events;
use crate::http::response::METHODS;
use crate::http::{RequestHead, Response};
use crate::hub::{Filter, Subscription, TOPICS_PATH, TopicName};
use crate::resource::{Plan, Resource};
use crate::ws::SessionShared;

use super::events::EventUpgrade;

use error::TopicError;
use once::Once;
pub(crate) use once::PublishOnce;
use publish::may_publish;
pub(crate) use publish::{Content, Publish, PublishLimit};
use read::{Clear, Newest, filters_of};
pub(crate) use read::{List, Read};

/// The topics, at the paths below `/topics/`. Filters in a path stand for several topics, and `/topics/` for all.
pub(crate) struct Topics {
    pub(crate) shared: Rc<SessionShared>,
    /// The limit on messages published over HTTP; `None` if there is none.
    pub(crate) publish_limit: Option<Rc<PublishLimit>>,
    /// The messages with an idempotency key; `None` if keys are ignored.
    pub(crate) publish_once: Option<Rc<PublishOnce>>,
}

impl Resource for Topics {
    fn plan(
        &self,
        head: &RequestHead<'_>,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Option<Plan>, Refused> {
        if !head.path().starts_with(TOPICS_PATH) {
            return Ok(None);
        }
        let filters = filters_of(head)?;
        let plan = match &filters[..] {
            _ if subscribes(head) => self.plan_subscription(head, filters, gatekeeper),
            [Filter::Topic(topic)] => self.plan_topic(head, topic.clone(), gatekeeper),
            _ => self.plan_filters(head, filters, gatekeeper),
        };
        plan.map(Some)
    }
}

impl Topics {
    /// Plans a WebSocket session or an event stream.
    fn plan_subscription(
        &self,
        head: &RequestHead<'_>,
        filters: Vec<Filter>,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Plan, Refused> {
        if head.wants_websocket() {
            return subscribe::websocket(head, filters, gatekeeper, &self.shared);
        }
        let subscription = Subscription { filters, start: subscribe::start(head)? };
        subscribe::may_subscribe(&subscription.filters, gatekeeper)?;
        let upgrade = EventUpgrade::of_topics(head, subscription, self.shared.clone());
        Ok(Plan::Upgrade(Box::new(upgrade)))
    }

    /// Plans a request for the newest messages of several topics.
    fn plan_filters(
        &self,
        head: &RequestHead<'_>,
        filters: Vec<Filter>,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Plan, Refused> {
        match head.method() {
            "GET" | "HEAD" => {
                subscribe::may_subscribe(&filters, gatekeeper)?;
                Ok(Plan::Ask(Box::new(Newest::of(head, filters, &self.shared))))
            }
            method => {
                gatekeeper.may(Action::Read(head.path()))?;
                let response = match method {
                    // Such a method is allowed for one topic, and the path may be one whose comma is not encoded.
                    "POST" | "PUT" | "DELETE" => {
                        let error = TopicError::Several(head.encoded_path().to_owned());
                        Response::text(405, format!("{error}\n"))
                            .with_header("Allow", "GET, HEAD, OPTIONS")
                    }
                    _ => Response::other_method(method, "GET, HEAD"),
                };
                Err(response.into())
            }
        }
    }

    /// Plans a request to one topic that does not subscribe.
    fn plan_topic(
        &self,
        head: &RequestHead<'_>,
        topic: TopicName,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Plan, Refused> {
        match head.method() {
            "GET" | "HEAD" => {
                gatekeeper.may(Action::Subscribe(topic.as_str()))?;
                Ok(Plan::Ask(Box::new(Read::of(head, topic, &self.shared))))
            }
            "POST" | "PUT" => {
                let publish =
                    Publish::of(head, topic, Source::Http, &self.shared, &self.publish_limit)?;
                may_publish(publish.topic(), gatekeeper)?;
                let once = match &self.publish_once {
                    Some(table) => Once::of(head, publish.topic(), gatekeeper, table)?,
                    None => None,
                };
                Ok(Plan::Ask(Box::new(publish.once(once))))
            }
            "DELETE" => {
                may_publish(&topic, gatekeeper)?;
                Ok(Plan::Ask(Box::new(Clear { topic, shared: self.shared.clone() })))
            }
            method => {
                gatekeeper.may(Action::Read(head.path()))?;
                Err(Response::other_method(method, METHODS).into())
            }
        }
    }
}

/// Returns true if a request asks for a WebSocket session or an event stream.
pub(crate) fn subscribes(head: &RequestHead<'_>) -> bool {
    head.wants_websocket() || asks_for_events(head)
}
