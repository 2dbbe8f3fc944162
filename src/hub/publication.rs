//! A published message: one value that all subscribers share, with its encodings.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::SystemTime;

use crate::frame::Frame;

use super::event;
use super::ids::EventId;

/// A message to publish, before the hub has given it an id.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) frame: Frame,
    /// The media type of the payload, if the publisher named one that is kept.
    pub(crate) media_type: Option<&'static str>,
    pub(crate) published: SystemTime,
    /// The type of the server-sent event. Default `None`: the type of a text or binary message.
    pub(crate) event_type: Option<&'static str>,
}

impl Draft {
    /// A message published now, without a media type.
    pub(crate) fn new(frame: Frame) -> Self {
        Self { frame, media_type: None, published: SystemTime::now(), event_type: None }
    }
}

/// One published message. Its payload and each of its encodings exist once, however many clients are
/// sent them. The payload is a part of the WebSocket frame; every other encoding is made when it is
/// first asked for.
pub(crate) struct Publication {
    /// `None` for the server's own messages, which take no numbers.
    id: Option<EventId>,
    draft: Draft,
    event: OnceCell<Rc<[u8]>>,
    held: HeldBytes,
}

impl Publication {
    /// Makes the shared value of a message, whose memory is counted in `held` until it is dropped.
    pub(super) fn new(id: Option<EventId>, draft: Draft, held: HeldBytes) -> Rc<Self> {
        let publication = Self { id, draft, event: OnceCell::new(), held };
        publication.held.add(publication.held_bytes());
        Rc::new(publication)
    }

    /// The id, unless it is one of the server's own messages.
    pub(crate) fn id(&self) -> Option<EventId> {
        self.id
    }

    /// The number of the id; 0 without one.
    pub(super) fn number(&self) -> u64 {
        self.id.map_or(0, |id| id.number)
    }

    /// The media type of the payload, if the publisher named one that is kept.
    pub(crate) fn media_type(&self) -> Option<&'static str> {
        self.draft.media_type
    }

    /// When the message was published.
    pub(crate) fn published(&self) -> SystemTime {
        self.draft.published
    }

    /// The message as a WebSocket frame.
    pub(crate) fn frame(&self) -> &Frame {
        &self.draft.frame
    }

    /// The length of the payload in bytes.
    pub(super) fn payload_bytes(&self) -> usize {
        self.draft.frame.payload().len()
    }

    /// The message as a server-sent event.
    pub(crate) fn event(&self) -> &Rc<[u8]> {
        self.event.get_or_init(|| {
            let event = event::encode(self.id, self.draft.event_type, &self.draft.frame);
            self.held.add(event.len());
            event
        })
    }

    /// The memory that the message takes, in bytes.
    fn held_bytes(&self) -> usize {
        RECORD_BYTES + self.draft.frame.len() + self.event.get().map_or(0, |event| event.len())
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.held.subtract(self.held_bytes());
    }
}

/// The memory that all messages of a hub take, in bytes: payloads, encodings and records. Clones share
/// the count.
#[derive(Clone, Default)]
pub(super) struct HeldBytes(Rc<Cell<usize>>);

impl HeldBytes {
    pub(super) fn get(&self) -> usize {
        self.0.get()
    }

    fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    fn subtract(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

/// The memory of a message beside its encodings: the shared value with its two reference counts, and the
/// pointer to it in a log.
pub(super) const RECORD_BYTES: usize = size_of::<Publication>() + 3 * size_of::<usize>();

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(held: &HeldBytes) -> Rc<Publication> {
        Publication::new(None, Draft::new(Frame::data(true, b"21.5")), held.clone())
    }

    #[test]
    fn an_event_is_encoded_once() {
        let publication = publication(&HeldBytes::default());
        assert!(Rc::ptr_eq(publication.event(), publication.event()));
    }

    #[test]
    fn the_memory_of_a_message_and_its_encodings_is_counted_until_the_message_is_dropped() {
        let held = HeldBytes::default();
        let one = publication(&held);
        let frame = RECORD_BYTES + "xx21.5".len();
        assert_eq!(held.get(), frame);
        let other = publication(&held);
        let event = other.event().clone();
        assert_eq!(held.get(), 2 * frame + event.len());
        drop(one);
        assert_eq!(held.get(), frame + event.len());
        drop(other);
        assert_eq!(held.get(), 0);
    }
}
