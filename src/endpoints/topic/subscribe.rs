//! Plans and serves subscriptions to topics, by WebSocket or as an event stream.

use std::pin::Pin;
use std::rc::Rc;

use crate::access::{Action, Gatekeeper, Refused};
use crate::counters::Source;
use crate::frame::{CloseCode, CloseReason, Frame, Message};
use crate::http::RequestHead;
use crate::http::percent::percent_decode;
use crate::hub::{
    Draft, EventId, Filter, HubGone, HubHandle, Published, Start, Subscription, TooManyTopics,
    TopicName,
};
use crate::resource::{Plan, Stage};
use crate::ws::handshake;
use crate::ws::{Session, SessionShared};

use super::super::websocket::WebSocketUpgrade;
use super::error::TopicError;
use super::publish::may_publish;

/// The directions of messages between a WebSocket client and the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    subscribes: bool,
    publishes: bool,
}

/// Plans a WebSocket session with topics. A client of more than one topic only receives.
pub(super) fn websocket(
    head: &RequestHead<'_>,
    filters: Vec<Filter>,
    gatekeeper: &Gatekeeper<'_>,
    shared: &Rc<SessionShared>,
) -> Result<Plan, Refused> {
    let accept = handshake::accept(head).map_err(TopicError::Handshake)?;
    let (mode, start) = (mode(head)?, start(head)?);
    let subscription = Subscription { filters, start };
    let topic = subscription.topic().cloned();
    let may_publish = |topic: &TopicName| may_publish(topic, gatekeeper);
    if mode.subscribes {
        may_subscribe(&subscription.filters, gatekeeper)?;
    } else {
        may_publish(topic.as_ref().ok_or(TopicError::PublishToMany)?)?;
    }
    let is_path_of_topic = mode.subscribes && topic.is_some();
    let publishes_to = topic.filter(|topic| mode.publishes && may_publish(topic).is_ok());
    Ok(Plan::Upgrade(Box::new(WebSocketUpgrade {
        accept,
        path: (!is_path_of_topic).then(|| Rc::new(head.encoded_path().to_owned())),
        subscription: mode.subscribes.then_some(subscription),
        shared: shared.clone(),
        begin: Box::new(move |session| serve(session, publishes_to)),
    })))
}

/// Checks that the sender of a request may subscribe to all topics that the filters match. If one of several
/// topics is not allowed, the refusal names it.
pub(super) fn may_subscribe(
    filters: &[Filter],
    gatekeeper: &Gatekeeper<'_>,
) -> Result<(), Refused> {
    filters.iter().try_for_each(|filter| {
        let may = gatekeeper.may(Action::Subscribe(filter.as_str()));
        may.map_err(|refused| match filters {
            [Filter::Topic(_)] => refused,
            _ => refused.naming(filter.as_str()),
        })
    })
}

/// Returns the stage that publishes the messages of a client to a topic, if the client may publish. The session
/// sends the client the messages of its topics at the same time.
pub(crate) fn serve(session: Session, publishes_to: Option<TopicName>) -> Stage {
    // A closure with an `async` block, because an `async fn` would reserve space for the session twice.
    let publish_all = move |mut session: Session| async move {
        let reason = loop {
            let Some(message) = session.next().await else { break CloseReason::NORMAL };
            let Some(topic) = &publishes_to else { break NO_PUBLISHING };
            match publish(session.hub(), topic, message).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => break TOO_MANY_TOPICS,
                Err(HubGone) => break CloseReason::STOPPING,
            }
        };
        session.close(reason).await
    };
    Stage::last(session.served_by(publish_all))
}

/// Publishes a message of a client. Boxed, so that a client that only subscribes needs no memory for it.
fn publish<'h>(
    hub: &'h HubHandle,
    topic: &'h TopicName,
    message: Message,
) -> Pin<Box<impl Future<Output = Result<Result<Published, TooManyTopics>, HubGone>> + use<'h>>> {
    Box::pin(async move {
        let is_text = message.as_text().is_some();
        let frame = Frame::data_in_turns(is_text, message.payload()).await;
        drop(message);
        hub.publish_draft(topic, Draft::new(frame), Source::WebSocket).await
    })
}

/// Reads the parameter `mode` of the query.
fn mode(head: &RequestHead<'_>) -> Result<Mode, TopicError> {
    match head.query_value("mode") {
        None => Ok(Mode { subscribes: true, publishes: true }),
        Some("in") => Ok(Mode { subscribes: false, publishes: true }),
        Some("out") => Ok(Mode { subscribes: true, publishes: false }),
        Some(mode) => Err(TopicError::Mode(mode.to_owned())),
    }
}

/// Returns the start of a subscription: after the message id that the client names, or else at the newest retained
/// messages, one by default.
///
/// # Errors
/// [`TopicError::Last`].
pub(super) fn start(head: &RequestHead<'_>) -> Result<Start, TopicError> {
    let mut ids = head.values("last-event-id").filter(|id| !id.is_empty());
    let queried = ["since", "lastEventId"].map(|name| head.query_value(name));
    let queried = queried.into_iter().flatten().find(|id| !id.is_empty());
    Ok(match (ids.next(), ids.next(), queried) {
        (Some(id), None, _) => Start::After(parse_id(id)),
        // Of two ids, none says what the client has received.
        (Some(_), Some(_), _) => Start::After(None),
        (None, _, Some(id)) => Start::After(percent_decode(id).and_then(|id| parse_id(&id))),
        (None, _, None) => match head.query_value("last") {
            Some(last) => {
                last.parse().map(Start::Last).map_err(|_| TopicError::Last(last.to_owned()))?
            }
            None => Start::Last(1),
        },
    })
}

fn parse_id(id: &[u8]) -> Option<EventId> {
    EventId::parse(str::from_utf8(id).ok()?)
}

const NO_PUBLISHING: CloseReason = CloseReason::new(CloseCode::Policy, "publishing is not allowed");
const TOO_MANY_TOPICS: CloseReason = CloseReason::new(CloseCode::Again, "too many topics");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::head;

    #[test]
    fn a_subscription_resumes_after_any_id_and_never_fails_because_of_it() {
        let after = |text| Start::After(EventId::parse(text));
        let (header, two) = ("Last-Event-ID: k3f9x2ab:7\r\n", "Last-Event-ID: k3f9x2ab:8\r\n");
        for (query, lines, expected) in [
            ("", "", Start::Last(1)),
            ("?last=0", "", Start::Last(0)),
            ("?last=2", "Last-Event-ID: \r\n", Start::Last(2)),
            ("?last=2", header, after("k3f9x2ab:7")),
            ("?last=2", "Last-Event-ID: 7\r\n", Start::After(None)),
            ("?last=2", "Last-Event-ID: \u{e9}\r\n", Start::After(None)),
            ("?last=2", &[header, two].concat(), Start::After(None)),
            ("?since=k3f9x2ab:9", header, after("k3f9x2ab:7")),
            ("?last=2&since=k3f9x2ab:9", "", after("k3f9x2ab:9")),
            ("?lastEventId=k3f9x2ab%3A9&last=2", "", after("k3f9x2ab:9")),
            ("?since=9", "", Start::After(None)),
            ("?since=%", "", Start::After(None)),
            ("?since=%ff", "", Start::After(None)),
            ("?since=&last=2", "", Start::Last(2)),
        ] {
            let bytes = format!("GET /topics/t{query} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let head = head::parse(bytes.as_bytes(), &Limits::default()).expect(lines);
            assert_eq!(start(&head), Ok(expected), "{query} {lines:?}");
        }
        let head = head::parse(b"GET /topics/t?last=x HTTP/1.0\r\n\r\n", &Limits::default());
        assert_eq!(start(&head.unwrap()), Err(TopicError::Last("x".to_owned())));
    }
}
