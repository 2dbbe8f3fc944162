//! A server whose hub a test drives over a WebSocket.

use falconet::{
    CloseCode, CloseReason, Config, CorrelationId, Echo, EventId, PublishError, Session,
    SessionEnd, TopicName,
};

use super::process::Embedded;
use super::websocket::{Client, TEXT};

/// Carries out commands on the hub, each a text message, and replies with the result of each.
async fn operate(mut session: Session) -> SessionEnd {
    while let Some(message) = session.next().await {
        let words: Vec<&str> = message.as_text().unwrap().split(' ').collect();
        let hub = session.hub();
        let answer = match words[..] {
            ["send", id, text] => {
                hub.send_to_all(&CorrelationId::new(id).unwrap(), text).await.unwrap().to_string()
            }
            ["evict", id] => {
                let id = CorrelationId::new(id).unwrap();
                hub.evict_all(&id, GO_AWAY).await.unwrap().to_string()
            }
            ["publish", topic, text] => {
                match hub.publish(&TopicName::new(topic).unwrap(), text).await {
                    Ok(published) => format!("{} {}", published.id.number(), published.subscribers),
                    Err(PublishError::TooManyTopics(error)) => error.to_string(),
                    Err(PublishError::HubGone) => unreachable!("the hub serves this session"),
                }
            }
            ["topics"] => {
                let topics = hub.topics().await.unwrap().into_iter();
                let number = |last: Option<EventId>| last.map_or(0, |id| id.number());
                let topic =
                    topics.map(|t| format!("{}:{}:{}", t.name, t.subscribers, number(t.last)));
                topic.collect::<Vec<_>>().join(" ")
            }
            ["clear", topic] => {
                hub.clear(&TopicName::new(topic).unwrap()).await.unwrap();
                "cleared".to_owned()
            }
            _ => panic!("no such command: {words:?}"),
        };
        session.send(answer).await;
    }
    session.close(CloseReason::NORMAL).await
}

/// The reason that evicted clients are sent.
const GO_AWAY: CloseReason = CloseReason::new(CloseCode::Policy, "go away");

/// Sends a command to the operator and returns the reply.
pub fn command_operator(operator: &mut Client, command: &str) -> String {
    operator.send(true, TEXT, command);
    operator.read().text().to_owned()
}

/// Starts a server with at most three topics, and connects to its operator.
pub fn start_operated() -> (Embedded, Client) {
    let server = Embedded::start(|server| {
        let mut config = Config::default();
        config.topics.count = 3;
        server.config(config).topics().endpoint("/", Echo).endpoint("/operator", operate)
    });
    let operator = Client::connect_to(server.address, "/operator");
    (server, operator)
}
