//! Decodes messages that arrive in one piece, and unmasks payloads (RFC 6455 §5.3).

use async_tungstenite::tungstenite::Bytes;
use bytes::BytesMut;

use crate::frame::{BINARY, FINAL, MASKED, Message, TEXT};

/// Decodes the message at the start of `bytes`, and returns it with the length of its frame.
///
/// Returns `None` unless `bytes` starts with a complete, valid message of at most `limit` bytes in a single
/// masked frame without a 64-bit length. For anything else, valid or not, the caller uses the gate and the
/// protocol library.
pub(super) fn whole_message(
    bytes: &[u8],
    limit: usize,
    buffer: &mut PayloadBuffer,
) -> Option<(Message, usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (length, rest) = match second.checked_sub(MASKED)? {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u16::from_be_bytes(*length).into(), rest)
        }
        127 => return None,
        length => (usize::from(length), rest),
    };
    let is_shortest = (length < 126) == (*second < MASKED + 126);
    let (mask, rest) = rest.split_first_chunk()?;
    let payload = rest.get(..length).filter(|_| is_shortest && length <= limit)?;
    let message = match first ^ FINAL {
        TEXT => Message::Text(buffer.unmask(payload, *mask).try_into().ok()?),
        BINARY => Message::Binary(buffer.unmask(payload, *mask)),
        _ => return None,
    };
    Some((message, bytes.len() - rest.len() + length))
}

/// The buffer into which all small payloads are unmasked. Its memory is used again once all payloads in it
/// have been dropped, so a message that no endpoint keeps needs no allocation.
pub(super) struct PayloadBuffer {
    bytes: BytesMut,
}

impl PayloadBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::with_capacity(PAYLOAD_BUFFER_BYTES) }
    }

    fn unmask(&mut self, payload: &[u8], mask: [u8; 4]) -> Bytes {
        if payload.len() > PAYLOAD_BUFFER_BYTES {
            let mut bytes = payload.to_vec();
            apply_mask(&mut bytes, mask);
            return bytes.into();
        }
        self.bytes.extend_from_slice(payload);
        apply_mask(&mut self.bytes, mask);
        self.bytes.split().freeze()
    }
}

/// Masks or unmasks `bytes`, eight at a time: when the compiler optimizes for size, it does not vectorize
/// a loop over single bytes.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The size of the payload buffer. Larger payloads are unmasked into memory of their own.
const PAYLOAD_BUFFER_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;

    /// Encodes a client's frame, whose first byte is `first`.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Message::from(payload.to_vec()).header().to_vec();
        bytes[0] = first;
        bytes[1] |= MASKED;
        let mask = [1, 20, 100, 255];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[test]
    fn a_whole_message_is_decoded_and_the_bytes_after_it_are_left() {
        for length in [0, 1, 7, 8, 9, 125, 126, 1000, 65535] {
            let payload = vec![b'x'; length];
            for (first, message) in [
                (0x82, Message::from(payload.clone())),
                (0x81, Message::from(String::from_utf8(payload).unwrap())),
            ] {
                let frame = masked(first, message.payload());
                let bytes = [&frame[..], b"the next frame"].concat();
                assert_eq!(
                    whole_message(&bytes, 65536, &mut PayloadBuffer::new()),
                    Some((message, frame.len()))
                );
                for cut in [1, 2, 5, frame.len() - 1] {
                    assert_eq!(
                        whole_message(&frame[..cut], 65536, &mut PayloadBuffer::new()),
                        None,
                        "{length} cut at {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn anything_but_a_whole_and_valid_message_is_left() {
        let text = |first, payload: &[u8]| masked(first, payload);
        let unmasked = Frame::message(&"a".into()).to_vec();
        let not_shortest = [&[0x82, MASKED | 126, 0, 3, 0, 0, 0, 0][..], b"abc"].concat();
        let long = [&[0x82, MASKED | 127, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0][..], b"abc"].concat();
        for bytes in [
            vec![],
            text(0x01, b"a fragment"),
            text(0x80, b"the last fragment"),
            text(0xc1, b"a reserved bit"),
            text(0x83, b"a reserved opcode"),
            text(0x88, &1000_u16.to_be_bytes()),
            text(0x89, b"a ping"),
            text(0x8a, b"a pong"),
            text(0x81, b"not UTF-8: \xff"),
            text(0x82, b"longer than the limit"),
            unmasked,
            not_shortest,
            long,
        ] {
            assert_eq!(whole_message(&bytes, 20, &mut PayloadBuffer::new()), None, "{bytes:x?}");
        }
    }
}
