//! Publishing to a topic over HTTP.

use std::future::poll_fn;
use std::rc::Rc;

use async_tungstenite::tungstenite::protocol::Message;
use falconet::net::Reactor;

use crate::http::{HttpConnection, RequestError};
use crate::input::{Input, InputEvent};
use crate::options::{Publication, Server};
use crate::response::{Refusal, Response};

/// Publishes the message, or each line of stdin up to the first that is not accepted.
///
/// # Errors
/// The reason why the server did not accept a message, or why stdin can't be read.
pub(crate) async fn publish(publication: Publication, reactor: Rc<Reactor>) -> Result<(), String> {
    let Publication { server, message } = publication;
    let mut publisher = Publisher { server, reactor, kept: None };
    match message {
        Some(message) => publisher.publish(&message).await.map_err(|refusal| refusal.to_string()),
        None => publisher.publish_lines().await,
    }
}

/// A publisher of successive messages, over one connection as long as the server keeps the connection open.
struct Publisher {
    server: Server,
    reactor: Rc<Reactor>,
    /// The connection of the last request, if another may follow.
    kept: Option<HttpConnection>,
}

impl Publisher {
    async fn publish_lines(&mut self) -> Result<(), String> {
        let mut input = Input::lines(&self.reactor);
        let mut lines = 0_u64;
        loop {
            match poll_fn(|cx| input.poll_next(cx)).await {
                InputEvent::Message(message) => {
                    lines += 1;
                    let published = self.publish(&message).await;
                    published.map_err(|refusal| format!("line {lines}: {refusal}"))?;
                }
                InputEvent::Failed(reason) => return Err(reason),
                InputEvent::End => return Ok(()),
                // These events are keys, which lines never contain.
                InputEvent::Escape | InputEvent::Other => {}
            }
        }
    }

    /// Publishes `message`. A message that may have been accepted is not sent again; its loss is reported.
    ///
    /// There is one exception. If a kept connection ends without a byte of a response, the server most likely
    /// closed the idle connection while the request was in transit. Then the message is sent once more, over
    /// a new connection. A server that accepted the message but failed before it responded gets the message
    /// twice.
    async fn publish(&mut self, message: &Message) -> Result<(), Refusal> {
        if let Some(mut kept) = self.kept.take()
            && kept.is_ready().await
        {
            match self.post(&mut kept, message).await {
                Err(RequestError::Unanswered(_)) => {}
                answered => return self.finish_request(kept, answered?).await,
            }
        }
        let mut connection = HttpConnection::open(&self.server, &self.reactor).await?;
        let response = self.post(&mut connection, message).await?;
        self.finish_request(connection, response).await
    }

    async fn post(
        &self,
        connection: &mut HttpConnection,
        message: &Message,
    ) -> Result<Response, RequestError> {
        let kind = match message {
            Message::Text(_) => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        };
        let body = message.clone().into_data();
        let length = body.len().to_string();
        let fields = [("Content-Type", kind), ("Content-Length", &length)];
        connection.request("POST", &self.server, &fields, &body).await
    }

    /// Checks the response, and keeps the connection if another request may follow.
    async fn finish_request(
        &mut self,
        mut connection: HttpConnection,
        response: Response,
    ) -> Result<(), Refusal> {
        let body = connection.body(&response).await;
        if response.code != ACCEPTED {
            return Err(Refusal::from_response(&response, &body, self.server.token.as_ref()));
        }
        self.kept = Some(connection).filter(|_| response.may_be_followed(&body));
        Ok(())
    }
}

const ACCEPTED: u16 = 202;
