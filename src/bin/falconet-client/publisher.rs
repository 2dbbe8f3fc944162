//! Publishing to a topic over HTTP.

use std::future::poll_fn;
use std::rc::Rc;

use async_tungstenite::tungstenite::protocol::Message;
use falconet::net::Reactor;

use crate::http::{HttpConnection, RequestError};
use crate::input::{Input, Typed};
use crate::options::{Publication, Server};
use crate::response::{Refusal, Response};

/// Publishes the message, or each line of stdin up to the first that is not accepted.
///
/// # Errors
/// Why the server did not accept one, or why there is no more of stdin.
pub(crate) async fn publish(publication: Publication, reactor: Rc<Reactor>) -> Result<(), String> {
    let Publication { server, message } = publication;
    let mut publisher = Publisher { server, reactor, kept: None };
    match message {
        Some(message) => publisher.publish(&message).await.map_err(|refusal| refusal.to_string()),
        None => publisher.publish_lines().await,
    }
}

/// Publishes one message after the other, over one connection as long as the server keeps it.
struct Publisher {
    server: Server,
    reactor: Rc<Reactor>,
    kept: Option<HttpConnection>,
}

impl Publisher {
    async fn publish_lines(&mut self) -> Result<(), String> {
        let mut input = Input::lines(&self.reactor);
        let mut lines = 0_u64;
        loop {
            match poll_fn(|cx| input.poll_next(cx)).await {
                Typed::Message(message) => {
                    lines += 1;
                    let published = self.publish(&message).await;
                    published.map_err(|refusal| format!("line {lines}: {refusal}"))?;
                }
                Typed::Failed(why) => return Err(why),
                Typed::End => return Ok(()),
                // No line is such a key.
                Typed::Escape | Typed::Other => {}
            }
        }
    }

    /// Publishes `message`, at most once rather than at least once: what may have been accepted is not
    /// sent again, but reported. One case is taken for "was not accepted": a kept connection that ends
    /// without a byte of a response was most likely closed for having been idle while the request was
    /// on its way. Then the message is sent again, once, over a new connection. A server that accepted
    /// it and died before it said so gets it twice.
    async fn publish(&mut self, message: &Message) -> Result<(), Refusal> {
        if let Some(mut kept) = self.kept.take()
            && kept.is_ready().await
        {
            match self.post(&mut kept, message).await {
                Err(RequestError::Unanswered(_)) => {}
                answered => return self.settle(kept, answered?).await,
            }
        }
        let mut connection = HttpConnection::open(&self.server, &self.reactor).await?;
        let response = self.post(&mut connection, message).await?;
        self.settle(connection, response).await
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

    /// Says what the server said, and keeps the connection if another request may follow.
    async fn settle(
        &mut self,
        mut connection: HttpConnection,
        response: Response,
    ) -> Result<(), Refusal> {
        let body = connection.body(&response).await;
        if response.code != ACCEPTED {
            return Err(Refusal::declined(&response, &body, self.server.token.as_ref()));
        }
        self.kept = Some(connection).filter(|_| response.may_be_followed(&body));
        Ok(())
    }
}

const ACCEPTED: u16 = 202;
