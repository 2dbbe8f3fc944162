//! Publishing to a topic over HTTP.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::protocol::Message;
use falconet::net::{Reactor, Timer};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::backoff::Backoff;
use crate::http::{HttpConnection, RequestError};
use crate::input::{Input, InputEvent};
use crate::options::{Publication, Server};
use crate::response::{Refusal, Response};

/// Publishes the message, or each line of stdin up to the first that is not accepted. A message is sent again
/// after a failure that may be temporary: without a limit of retries, a line until it is accepted, and a single
/// message for [`PATIENCE`].
///
/// # Errors
/// The reason why the server did not accept a message, or why stdin can't be read.
pub(crate) async fn publish(publication: Publication, reactor: Rc<Reactor>) -> Result<(), String> {
    let Publication { server, message, retries } = publication;
    let timer = Timer::new(&reactor);
    let is_impatient = message.is_some() && retries.is_none();
    let deadline = is_impatient.then(|| timer.now() + PATIENCE);
    let backoff = Backoff::new(retries);
    let mut publisher = Publisher { server, reactor, timer, kept: None, backoff, deadline };
    match message {
        Some(message) => publisher.deliver(&message, &"").await,
        None => publisher.deliver_lines().await,
    }
}

/// A publisher of successive messages, over one connection as long as the server keeps the connection open.
struct Publisher {
    server: Server,
    reactor: Rc<Reactor>,
    timer: Timer,
    /// The connection of the last request, if another may follow.
    kept: Option<HttpConnection>,
    backoff: Backoff,
    /// The time after which no message is sent again.
    deadline: Option<Instant>,
}

impl Publisher {
    async fn deliver_lines(&mut self) -> Result<(), String> {
        let mut input = Input::lines(&self.reactor);
        let mut lines = 0_u64;
        loop {
            match poll_fn(|cx| input.poll_next(cx)).await {
                InputEvent::Message(message) => {
                    lines += 1;
                    self.deliver(&message, &format_args!("line {lines}: ")).await?;
                }
                InputEvent::Failed(reason) => return Err(reason),
                InputEvent::End => return Ok(()),
                // These events are keys, which lines never contain.
                InputEvent::Escape | InputEvent::Other => {}
            }
        }
    }

    /// Publishes `message`, and sends it again after a failure that may be temporary. `name` begins each line
    /// about the message: one about the first failure of several in a row, and one about the success after it.
    ///
    /// A message whose response was not received is sent again, too, with the same key. A server that accepted
    /// the message and remembers its key does not publish the message again.
    async fn deliver(&mut self, message: &Message, name: &dyn fmt::Display) -> Result<(), String> {
        let key = random_key();
        while let Err(refusal) = self.publish(message, key.as_deref()).await {
            let is_first = self.backoff.retries() == 0;
            let Some(delay) = self.next_delay(&refusal) else {
                return Err(match self.backoff.retries() {
                    0 => format!("{name}{refusal}"),
                    retries => format!("{name}{refusal}; gave up (retries: {retries})"),
                });
            };
            if is_first {
                print_status(format_args!("{name}{refusal}; retrying"));
            }
            self.timer.sleep(Some(delay)).await;
        }
        let retries = self.backoff.retries();
        if retries > 0 {
            print_status(format_args!("{name}accepted (retries: {retries})"));
            self.backoff.reset();
        }
        Ok(())
    }

    /// Returns the delay before the message is sent again, or `None` if it is not sent again. The last delay
    /// ends at the deadline.
    fn next_delay(&mut self, refusal: &Refusal) -> Option<Duration> {
        if refusal.is_permanent {
            return None;
        }
        let left =
            self.deadline.map(|deadline| deadline.saturating_duration_since(self.timer.now()));
        if left.is_some_and(|left| left.is_zero() || left < refusal.retry_after) {
            return None;
        }
        let delay = self.backoff.next_delay(refusal.retry_after)?;
        Some(left.map_or(delay, |left| delay.min(left)))
    }

    /// Publishes `message` by one request. If a kept connection ends without a byte of a response, the server
    /// most likely closed the idle connection while the request was in transit. Then the message is sent once
    /// more, over a new connection.
    async fn publish(&mut self, message: &Message, key: Option<&str>) -> Result<(), Refusal> {
        if let Some(mut kept) = self.kept.take()
            && kept.is_ready().await
        {
            match self.post(&mut kept, message, key).await {
                Err(RequestError::Unanswered(_)) => {}
                answered => return self.finish_request(kept, answered?).await,
            }
        }
        let mut connection = HttpConnection::open(&self.server, &self.reactor).await?;
        let response = self.post(&mut connection, message, key).await?;
        self.finish_request(connection, response).await
    }

    async fn post(
        &self,
        connection: &mut HttpConnection,
        message: &Message,
        key: Option<&str>,
    ) -> Result<Response, RequestError> {
        let kind = match message {
            Message::Text(_) => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        };
        let body = message.clone().into_data();
        let length = body.len().to_string();
        let mut fields = vec![("Content-Type", kind), ("Content-Length", &*length)];
        fields.extend(key.map(|key| ("Idempotency-Key", key)));
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

/// Returns a new key for one message. Returns `None` if the kernel has no random numbers, because two messages
/// must not have the same key.
fn random_key() -> Option<String> {
    let mut random = [0; 16];
    let count = getrandom(&mut random, GetRandomFlags::empty()).ok()?;
    (count == random.len()).then(|| format!("{:032x}", u128::from_ne_bytes(random)))
}

/// Prints a line on stderr. Errors of stderr are ignored.
fn print_status(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "falconet-client: {text}");
}

const ACCEPTED: u16 = 202;
/// The time for which a single message is sent again, as long as no number of retries is set.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Command, parse};

    /// Returns a publisher of a single message until `left` has passed.
    fn publisher(left: Duration) -> Publisher {
        let reactor = Reactor::new().unwrap();
        let Ok(Command::Publish(Publication { server, .. })) =
            parse(["pub", "a", "b"].map(Into::into), None)
        else {
            panic!("the arguments are valid")
        };
        let timer = Timer::new(&reactor);
        let deadline = Some(timer.now() + left);
        let backoff = Backoff::new(None);
        Publisher { server, reactor, timer, kept: None, backoff, deadline }
    }

    #[test]
    fn each_message_has_another_key_of_32_digits() {
        let keys = [(); 2].map(|()| random_key().unwrap());
        assert!(keys.iter().all(|key| key.len() == 32), "{keys:?}");
        assert!(keys.concat().bytes().all(|byte| byte.is_ascii_hexdigit()), "{keys:?}");
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn the_last_delay_of_a_single_message_ends_at_its_deadline() {
        let refusal = Refusal::temporary("away");
        assert_eq!(publisher(Duration::ZERO).next_delay(&refusal), None);
        let mut publisher = publisher(Duration::from_millis(1));
        for _ in 0..10 {
            assert!(publisher.next_delay(&refusal).unwrap() <= Duration::from_millis(1));
        }
        assert_eq!(publisher.next_delay(&Refusal::permanent("no")), None);
    }

    #[test]
    fn a_single_message_does_not_wait_for_a_time_after_its_deadline() {
        let mut refusal = Refusal::temporary("busy");
        refusal.retry_after = Duration::from_secs(8);
        assert_eq!(publisher(Duration::from_secs(7)).next_delay(&refusal), None);
        let delay = publisher(Duration::from_secs(9)).next_delay(&refusal);
        assert_eq!(delay, Some(refusal.retry_after));
    }
}
