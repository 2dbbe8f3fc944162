//! Publishes a message that has an idempotency key only once (draft-ietf-httpapi-idempotency-key-header).

use std::cell::RefCell;
use std::hash::Hasher;
use std::rc::Rc;
use std::time::Instant;

use async_channel::{Receiver, Sender};
use futures_lite::future::yield_now;

use crate::access::{Gatekeeper, PublishKey, PublishKeys};
use crate::http::{RequestHead, Response};
use crate::hub::{HubGone, Published, TopicName};

use super::error::{MAX_KEY_BYTES, TopicError};

/// The messages with a key that were accepted lately, and those that are being published.
pub(crate) struct PublishOnce {
    keys: RefCell<PublishKeys>,
    /// The keys of the messages that are being published, at most one per connection. The channel of a key is
    /// closed when the hub has answered.
    under_way: RefCell<Vec<(PublishKey, Receiver<()>)>>,
}

/// The key of one request.
pub(super) struct Once {
    table: Rc<PublishOnce>,
    key: PublishKey,
}

/// The result of publishing a message, or the response that refuses the message.
pub(super) type Publishing = Result<Result<Published, Response>, HubGone>;

impl PublishOnce {
    /// Creates a table that remembers up to `per_publisher` keys of each publisher.
    pub(crate) fn new(per_publisher: usize) -> Self {
        let keys = RefCell::new(PublishKeys::new(per_publisher));
        Self { keys, under_way: RefCell::default() }
    }

    /// Returns the channel that is closed when the publish with a key ends, if there is one.
    fn under_way(&self, key: PublishKey) -> Option<Receiver<()>> {
        let under_way = self.under_way.borrow();
        under_way.iter().find(|(other, _)| *other == key).map(|(_, end)| end.clone())
    }
}

impl Once {
    /// Reads the key of a request that publishes to `topic`. `gatekeeper` has admitted the publish.
    ///
    /// # Errors
    /// [`TopicError`], if the key is invalid.
    pub(super) fn of(
        head: &RequestHead<'_>,
        topic: &TopicName,
        gatekeeper: &Gatekeeper<'_>,
        table: &Rc<PublishOnce>,
    ) -> Result<Option<Self>, TopicError> {
        let Some(key) = read_key(head)? else { return Ok(None) };
        let key = table.keys.borrow().key(gatekeeper.publisher(), topic, key);
        Ok(Some(Self { table: table.clone(), key }))
    }

    /// Awaits `publishing`, which publishes `body`, unless a message with the same key was accepted. Then the
    /// result is that of the accepted message. While another request publishes a message with this key, waits for
    /// the end of that one.
    pub(super) async fn publish(
        &self,
        body: &[u8],
        now: Instant,
        publishing: impl Future<Output = Publishing>,
    ) -> Publishing {
        let content = self.hash(body).await;
        // After a refused message, one of the requests that wait is the next to publish.
        while let Some(end) = self.table.under_way(self.key) {
            // The error says that the channel is closed.
            let _ = end.recv().await;
        }
        let accepted = self.table.keys.borrow().find(self.key, now);
        match accepted {
            Some(accepted) if accepted.content == content => Ok(Ok(accepted.published)),
            Some(_) => Ok(Err(TopicError::UsedKey.response())),
            None => {
                let _under_way = UnderWay::begin(self);
                let published = publishing.await?;
                if let Ok(published) = &published {
                    let mut keys = self.table.keys.borrow_mut();
                    keys.remember(self.key, content, *published, now);
                }
                Ok(published)
            }
        }
    }

    /// Returns the hash of a message. Other tasks run between two pieces of a large one.
    async fn hash(&self, body: &[u8]) -> u64 {
        let mut hasher = self.table.keys.borrow().hasher();
        for (index, piece) in body.chunks(HASHED_BYTES).enumerate() {
            if index > 0 {
                yield_now().await;
            }
            hasher.write(piece);
        }
        hasher.finish()
    }
}

/// Makes other requests with the same key wait, until it is dropped.
struct UnderWay<'o> {
    once: &'o Once,
    /// Closes the channel when it is dropped.
    _end: Sender<()>,
}

impl<'o> UnderWay<'o> {
    fn begin(once: &'o Once) -> Self {
        let (end, ended) = async_channel::bounded(1);
        once.table.under_way.borrow_mut().push((once.key, ended));
        Self { once, _end: end }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = self.once.table.under_way.borrow_mut();
        under_way.retain(|(key, _)| *key != self.once.key);
        if under_way.is_empty() {
            // Frees the memory, which may have grown for many requests.
            *under_way = Vec::new();
        }
    }
}

/// Returns the key that a request sends, if any.
fn read_key<'h>(head: &RequestHead<'h>) -> Result<Option<&'h [u8]>, TopicError> {
    let mut keys = head.values("idempotency-key");
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(TopicError::RepeatedKey),
        (Some(key), None) => {
            let is_valid =
                (1..=MAX_KEY_BYTES).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
            is_valid.then_some(Some(key)).ok_or(TopicError::InvalidKey)
        }
    }
}

/// The number of bytes of a message that are hashed before other tasks run.
const HASHED_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::head;

    #[test]
    fn a_key_is_up_to_64_visible_characters() {
        let longest = "k".repeat(64);
        for (lines, expected) in [
            (String::new(), Ok(None)),
            ("Idempotency-Key: a\r\n".into(), Ok(Some("a"))),
            ("idempotency-key:  !~\"a,b;c\" \r\n".into(), Ok(Some("!~\"a,b;c\""))),
            (format!("Idempotency-Key: {longest}\r\n"), Ok(Some(&*longest))),
            (format!("Idempotency-Key: {longest}k\r\n"), Err(TopicError::InvalidKey)),
            ("Idempotency-Key:\r\n".into(), Err(TopicError::InvalidKey)),
            ("Idempotency-Key: a b\r\n".into(), Err(TopicError::InvalidKey)),
            ("Idempotency-Key: a\tb\r\n".into(), Err(TopicError::InvalidKey)),
            ("Idempotency-Key: \u{e9}\r\n".into(), Err(TopicError::InvalidKey)),
            ("Idempotency-Key: a\r\nIdempotency-Key: a\r\n".into(), Err(TopicError::RepeatedKey)),
        ] {
            let bytes = format!("POST /topics/t HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let head = head::parse(bytes.as_bytes(), &Limits::default()).expect(&lines);
            assert_eq!(read_key(&head), expected.map(|key| key.map(str::as_bytes)), "{lines:?}");
        }
    }
}
