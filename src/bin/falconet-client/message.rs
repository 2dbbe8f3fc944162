//! Messages made from bytes, and the limit on their size.

use async_tungstenite::tungstenite::protocol::Message;

/// Returns a text message of `bytes`, or a binary message if they are not UTF-8.
pub(crate) fn from_bytes(bytes: &[u8]) -> Message {
    match std::str::from_utf8(bytes) {
        Ok(text) => Message::text(text),
        Err(_) => Message::binary(bytes.to_vec()),
    }
}

/// The largest message sent or received, in bytes of payload: 16 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;
