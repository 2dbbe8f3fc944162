//! A published message: one value that all subscribers share, with its encodings.

use std::cell::{Cell, OnceCell};
use std::fmt::Write;
use std::rc::Rc;
use std::time::SystemTime;

use crate::escaped::JsonString;
use crate::frame::Frame;
use crate::http::chunk;
use crate::http::json::is_json;
use crate::http::response::JSON;

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
    topic: TopicName,
    draft: Draft,
    event: OnceCell<Rc<[u8]>>,
    json_event: OnceCell<Rc<[u8]>>,
    /// True once the message was deleted: nobody is sent it any more.
    is_withdrawn: Cell<bool>,
    /// The memory of all messages of the hub, including this one.
    held: HeldBytes,
}

impl Publication {
    /// Creates the shared value of a message of a topic. The memory of the message is counted in `held` until
    /// the value is dropped.
    pub(super) fn new(
        id: Option<EventId>,
        topic: &TopicName,
        draft: Draft,
        held: HeldBytes,
    ) -> Rc<Self> {
        let publication = Self {
            id,
            topic: topic.clone(),
            draft,
            event: OnceCell::new(),
            json_event: OnceCell::new(),
            is_withdrawn: Cell::new(false),
            held,
        };
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

    /// Returns the topic.
    pub(super) fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Withdraws the message, because the messages of its topic were deleted.
    pub(super) fn withdraw(&self) {
        self.is_withdrawn.set(true);
    }

    /// Returns true if the message was withdrawn.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.get()
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
            self.held_chunk(event::encode(self.id, self.draft.event_type, &self.draft.frame))
        })
    }

    /// Returns the message as a server-sent event whose data is [JSON](Self::json), for streams of more than one
    /// topic. Otherwise it is as [`event`](Self::event).
    pub(crate) fn json_event(&self) -> &Rc<[u8]> {
        self.json_event.get_or_init(|| {
            self.held_chunk(event::encode_line(self.id, self.draft.event_type, &self.json()))
        })
    }

    /// Encodes the message with its topic, its id and its time as a JSON object, in one line.
    pub(crate) fn json(&self) -> String {
        let Draft { frame, media_type, published, .. } = &self.draft;
        let mut json = String::with_capacity(JSON_FIELDS_BYTES + frame.len());
        // Writing to a string never fails.
        let _ = write!(json, "{{\"topic\":{}", JsonString(self.topic.as_str()));
        if let Some(id) = self.id {
            let _ = write!(json, ",\"id\":\"{id}\"");
        }
        if self.is_cleared() {
            return json + ",\"cleared\":true}";
        }
        let time = published.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let _ = write!(json, ",\"time\":{}", time.as_millis());
        if let Some(media_type) = media_type.filter(|media_type| *media_type != JSON) {
            let _ = write!(json, ",\"type\":\"{media_type}\"");
        }
        match frame.is_text().then(|| str::from_utf8(frame.payload())) {
            Some(Ok(text)) if *media_type == Some(JSON) && is_json(text) => {
                json.push_str(",\"json\":");
                // In a JSON text, line ends are white space between its tokens.
                json.extend(
                    text.chars().map(|one| if matches!(one, '\r' | '\n') { ' ' } else { one }),
                );
            }
            Some(Ok(text)) => _ = write!(json, ",\"data\":{}", JsonString(text)),
            _ => {
                json.push_str(",\"base64\":\"");
                event::encode_base64(&mut json, frame.payload());
                json.push('"');
            }
        }
        json + "}"
    }

    /// Encodes an event as a chunk, whose memory is counted.
    fn held_chunk(&self, event: String) -> Rc<[u8]> {
        let chunk = chunk::encode(event);
        self.held.add(chunk.len());
        chunk
    }

    /// Returns the memory that the message takes now, in bytes.
    fn held_bytes(&self) -> usize {
        let events = [&self.event, &self.json_event].into_iter().filter_map(OnceCell::get);
        RECORD_BYTES + self.draft.frame.len() + events.map(|event| event.len()).sum::<usize>()
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
/// The space for the fields of a message in JSON, in bytes, beside its payload.
const JSON_FIELDS_BYTES: usize = 128;
/// The memory of a message beside its encodings: the shared value with its two reference counts, the pointer to
/// it in a log, and the head of the shared frame, which has two reference counts, too.
pub(super) const RECORD_BYTES: usize =
    size_of::<Publication>() + size_of::<Vec<u8>>() + 5 * size_of::<usize>();

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn publication(held: &HeldBytes) -> Rc<Publication> {
        publish(EventId::parse("k3f9x2ab:7"), Draft::new(Frame::data(true, b"21.5")), held)
    }

    fn publish(id: Option<EventId>, draft: Draft, held: &HeldBytes) -> Rc<Publication> {
        Publication::new(id, &TopicName::new("a/t").unwrap(), draft, held.clone())
    }

    #[test]
    fn a_message_in_json_has_its_topic_its_id_and_its_time() {
        let id = EventId::parse("k3f9x2ab:7");
        for (is_text, payload, media_type, expected) in [
            (true, &b"21.5"[..], None, r#""data":"21.5""#),
            (true, b"a \"b\"\\\n", None, r#""data":"a \"b\"\\\u000a""#),
            (true, b"1,2", Some("text/csv"), r#""type":"text/csv","data":"1,2""#),
            (true, b" {\"a\":\r\n1}\n", Some(JSON), "\"json\": {\"a\":  1} "),
            (true, b"{", Some(JSON), r#""data":"{""#),
            (false, &[0, 255], None, r#""base64":"AP8=""#),
            (false, &[0, 255], Some("image/png"), r#""type":"image/png","base64":"AP8=""#),
        ] {
            let published = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_417_600_123);
            let draft =
                Draft { media_type, published, ..Draft::new(Frame::data(is_text, payload)) };
            let publication = publish(id, draft, &HeldBytes::default());
            let fields = r#""topic":"a/t","id":"k3f9x2ab:7","time":1764417600123"#;
            assert_eq!(publication.json(), format!("{{{fields},{expected}}}"));
            let event = format!("id: k3f9x2ab:7\ndata: {}\n\n", publication.json());
            assert_eq!(chunk::data_of(publication.json_event()), event.as_bytes());
        }
        let cleared =
            publish(id, Draft::cleared(&TopicName::new("a/t").unwrap()), &HeldBytes::default());
        let event = "id: k3f9x2ab:7\nevent: cleared\n\
                     data: {\"topic\":\"a/t\",\"id\":\"k3f9x2ab:7\",\"cleared\":true}\n\n";
        assert_eq!(chunk::data_of(cleared.json_event()), event.as_bytes());
    }

    #[test]
    fn an_event_is_encoded_once() {
        let publication = publication(&HeldBytes::default());
        assert!(Rc::ptr_eq(publication.event(), publication.event()));
        assert!(Rc::ptr_eq(publication.json_event(), publication.json_event()));
    }

    #[test]
    fn the_memory_of_a_message_and_its_encodings_is_counted_until_the_message_is_dropped() {
        let held = HeldBytes::default();
        let one = publication(&held);
        let frame = RECORD_BYTES + "xx21.5".len();
        assert_eq!(held.get(), frame);
        let other = publication(&held);
        let events = other.event().len() + other.json_event().len();
        assert_eq!(held.get(), 2 * frame + events);
        drop(one);
        assert_eq!(held.get(), frame + events);
        drop(other);
        assert_eq!(held.get(), 0);
    }
}
