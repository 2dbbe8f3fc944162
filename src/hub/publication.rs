//! A published message: one value that all subscribers share, with its encodings.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::SystemTime;

use crate::frame::Frame;
use crate::http::chunk;

use super::event;
use super::ids::EventId;
use super::topic_name::TopicName;

/// A message that the hub has not given an id yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// The message as a WebSocket frame.
    pub(crate) frame: Frame,
    /// The media type of the payload, if the publisher sent one that topics keep.
    pub(crate) media_type: Option<&'static str>,
    /// The time of publication.
    pub(crate) published: SystemTime,
    /// The type of the server-sent event. Default: `None`, which means no type for a text, `binary` for
    /// binary data.
    pub(crate) event_type: Option<&'static str>,
}

impl Draft {
    /// Creates a draft that is published now, without a media type or an event type.
    pub(crate) fn new(frame: Frame) -> Self {
        Self { frame, media_type: None, published: SystemTime::now(), event_type: None }
    }

    /// Creates the notice that the messages of `topic` were deleted.
    pub(super) fn cleared(topic: &TopicName) -> Self {
        let frame = Frame::data(true, topic.as_str().as_bytes());
        Self { event_type: Some(CLEARED), ..Self::new(frame) }
    }
}

/// One published message. Its payload and each of its encodings exist only once, even if they are sent to
/// many clients. The payload is a part of the WebSocket frame. All other encodings are made on first use.
pub(crate) struct Publication {
    /// `None` for the server's own messages, which take no numbers.
    id: Option<EventId>,
    draft: Draft,
    event: OnceCell<Rc<[u8]>>,
    /// The memory of all messages of the hub, including this one.
    held: HeldBytes,
}

impl Publication {
    /// Creates the shared value of a message. The memory of the message is counted in `held` until the value
    /// is dropped.
    pub(super) fn new(id: Option<EventId>, draft: Draft, held: HeldBytes) -> Rc<Self> {
        let publication = Self { id, draft, event: OnceCell::new(), held };
        publication.held.add(publication.held_bytes());
        Rc::new(publication)
    }

    /// Returns the id; `None` for the server's own messages.
    pub(crate) fn id(&self) -> Option<EventId> {
        self.id
    }

    /// Returns the number of the id; 0 without an id.
    pub(super) fn number(&self) -> u64 {
        self.id.map_or(0, |id| id.number)
    }

    /// Returns true if this is no message, but the notice that the messages of the topic were deleted.
    pub(super) fn is_cleared(&self) -> bool {
        self.draft.event_type == Some(CLEARED)
    }

    /// Returns the media type of the payload, if the publisher sent one that topics keep.
    pub(crate) fn media_type(&self) -> Option<&'static str> {
        self.draft.media_type
    }

    /// Returns the time of publication.
    pub(crate) fn published(&self) -> SystemTime {
        self.draft.published
    }

    /// Returns the message as a WebSocket frame.
    pub(crate) fn frame(&self) -> &Frame {
        &self.draft.frame
    }

    /// Returns the length of the payload in bytes.
    pub(super) fn payload_bytes(&self) -> usize {
        self.draft.frame.payload().len()
    }

    /// Returns the message as a server-sent event in a [chunk]. The chunk belongs to the shared bytes, so that
    /// all streams send the same.
    pub(crate) fn event(&self) -> &Rc<[u8]> {
        self.event.get_or_init(|| {
            let event = event::encode(self.id, self.draft.event_type, &self.draft.frame);
            let event = chunk::encode(event);
            self.held.add(event.len());
            event
        })
    }

    /// Returns the memory that the message takes now, in bytes.
    fn held_bytes(&self) -> usize {
        RECORD_BYTES + self.draft.frame.len() + self.event.get().map_or(0, |event| event.len())
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.held.subtract(self.held_bytes());
    }
}

/// The memory that all messages of a hub take, in bytes: their encodings, which contain the payloads, and
/// their records. Clones share the count.
#[derive(Clone, Default)]
pub(super) struct HeldBytes(Rc<Cell<usize>>);

impl HeldBytes {
    /// Returns the memory in bytes.
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

/// The type of the event that tells subscribers that the messages of a topic were deleted.
const CLEARED: &str = "cleared";
/// The memory of a message beside its encodings: the shared value with its two reference counts, the pointer to
/// it in a log, and the head of the shared frame, which has two reference counts, too.
pub(super) const RECORD_BYTES: usize =
    size_of::<Publication>() + size_of::<Vec<u8>>() + 5 * size_of::<usize>();

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
