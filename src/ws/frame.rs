//! Messages, and frames encoded once for everybody.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

pub use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Bytes, Utf8Bytes};
use bytes::BytesMut;

/// A whole data message; fragments never show.
///
/// A received payload shares a buffer with what was received beside it, and keeping it keeps all of that:
/// copy what you keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(Utf8Bytes),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, if it is a text message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The header of the one frame this is sent in.
    pub(super) fn header(&self) -> FrameHeader {
        let opcode = match self {
            Self::Text(_) => TEXT,
            Self::Binary(_) => BINARY,
        };
        FrameHeader::new(opcode, self.payload().len())
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

/// Decodes a message of at most `limit` bytes that `bytes` begin with, and says how many bytes it took;
/// `None` if they begin with anything but a whole and faultless message in one masked frame of common
/// length: then it is for others to say what it is.
pub(super) fn whole_message(
    bytes: &[u8],
    limit: usize,
    payloads: &mut Payloads,
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
        TEXT => Message::Text(payloads.unmask(payload, *mask).try_into().ok()?),
        BINARY => Message::Binary(payloads.unmask(payload, *mask)),
        _ => return None,
    };
    Some((message, bytes.len() - rest.len() + length))
}

/// Where payloads are unmasked into: one room for all small ones, used again when they are forgotten. So
/// a message that nobody keeps allocates nothing.
pub(super) struct Payloads {
    room: BytesMut,
}

impl Payloads {
    pub(super) fn new() -> Self {
        Self { room: BytesMut::with_capacity(PAYLOADS_BYTES) }
    }

    fn unmask(&mut self, payload: &[u8], mask: [u8; 4]) -> Bytes {
        if payload.len() > PAYLOADS_BYTES {
            let mut bytes = payload.to_vec();
            apply_mask(&mut bytes, mask);
            return bytes.into();
        }
        self.room.extend_from_slice(payload);
        apply_mask(&mut self.room, mask);
        self.room.split().freeze()
    }
}

/// Masks or unmasks. Eight bytes at a time: the compiler makes no more of it where it is told to keep
/// code small.
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

/// A server's frame, encoded: the same bytes for every client, since only clients mask. Cloning it
/// copies nothing.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    bytes: Rc<[u8]>,
}

impl Frame {
    /// Encodes a whole message in one frame.
    pub(crate) fn message(message: &Message) -> Self {
        Self::encode(message.header(), message.payload())
    }

    /// Encodes a text message, whose payload must be UTF-8, or a binary one.
    pub(crate) fn data(is_text: bool, payload: &[u8]) -> Self {
        let opcode = if is_text { TEXT } else { BINARY };
        Self::encode(FrameHeader::new(opcode, payload.len()), payload)
    }

    /// Encodes a Ping without payload.
    pub(crate) fn ping() -> Self {
        Self::encode(FrameHeader::new(PING, 0), &[])
    }

    /// Encodes a Close.
    pub(crate) fn close(reason: &CloseReason) -> Self {
        let code = u16::from(reason.code).to_be_bytes();
        let payload = [&code, reason.sent_text().as_bytes()].concat();
        Self::encode(FrameHeader::new(CLOSE, payload.len()), &payload)
    }

    /// The payload of a message.
    pub(crate) fn payload(&self) -> &[u8] {
        let start = match self.bytes.get(1) {
            Some(126) => 4,
            Some(127) => 10,
            _ => 2,
        };
        &self.bytes[start..]
    }

    /// Whether it is a text message.
    pub(crate) fn is_text(&self) -> bool {
        self.bytes.first() == Some(&(FINAL | TEXT))
    }

    /// The encoded bytes, shared by all that are sent them.
    pub(crate) fn shared(&self) -> &Rc<[u8]> {
        &self.bytes
    }

    /// Whether it is a Ping.
    pub(crate) fn is_ping(&self) -> bool {
        self.bytes.first() == Some(&(FINAL | PING))
    }

    fn encode(header: FrameHeader, payload: &[u8]) -> Self {
        Self { bytes: [&*header, payload].concat().into() }
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.bytes.len())
    }
}

/// The header of an unmasked, final frame (RFC 6455 §5.2): 2, 4 or 10 bytes.
pub(super) struct FrameHeader {
    bytes: [u8; 10],
    length: usize,
}

impl FrameHeader {
    fn new(opcode: u8, payload_bytes: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = FINAL | opcode;
        let length = match payload_bytes {
            0..=125 => {
                bytes[1] = payload_bytes as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, length }
    }
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Why a session is closed: what the Close frame says (RFC 6455 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The status code.
    pub code: CloseCode,
    /// A few words for people; at most 123 bytes are sent.
    pub text: &'static str,
}

impl CloseReason {
    /// A reason of `code` and `text`.
    pub const fn new(code: CloseCode, text: &'static str) -> Self {
        Self { code, text }
    }

    /// 1000: all is said.
    pub const NORMAL: Self = Self::new(CloseCode::Normal, "");
    /// 1008: the client reads more slowly than is published, and messages for it were lost.
    pub const SLOW_CONSUMER: Self = Self::new(CloseCode::Policy, "slow consumer");
    /// 1001: the server stops.
    pub const STOPPING: Self = Self::new(CloseCode::Away, "server stopping");

    /// The text, cut to what a control frame has room for beside the code.
    pub(super) fn sent_text(&self) -> &'static str {
        &self.text[..self.text.floor_char_boundary(MAX_CONTROL_BYTES - 2)]
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u16::from(self.code))?;
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

/// The bit of a message's last frame.
pub(super) const FINAL: u8 = 0x80;
/// The bit beside the length, which all clients' frames have.
pub(super) const MASKED: u8 = 0x80;
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;
/// How large a payload may be to be unmasked into the room for all.
const PAYLOADS_BYTES: usize = 4096;
/// The longest payload of a control frame (RFC 6455 §5.5).
pub(super) const MAX_CONTROL_BYTES: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (payload, header) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65535, vec![0x82, 126, 0xff, 0xff]),
            (65536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = Frame::message(&vec![7; payload].into());
            assert_eq!(frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + payload);
        }
    }

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = FrameHeader::new(first & 0xf, payload.len()).to_vec();
        bytes[0] = first;
        bytes[1] |= MASKED;
        let mask = [1, 20, 100, 255];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[test]
    fn a_whole_message_is_taken_with_what_follows_left() {
        for length in [0, 1, 7, 8, 9, 125, 126, 1000, 65535] {
            let payload = vec![b'x'; length];
            for (first, message) in [
                (0x82, Message::from(payload.clone())),
                (0x81, Message::from(String::from_utf8(payload).unwrap())),
            ] {
                let frame = masked(first, message.payload());
                let bytes = [&frame[..], b"what follows"].concat();
                assert_eq!(
                    whole_message(&bytes, 65536, &mut Payloads::new()),
                    Some((message, frame.len()))
                );
                for cut in [1, 2, 5, frame.len() - 1] {
                    assert_eq!(
                        whole_message(&frame[..cut], 65536, &mut Payloads::new()),
                        None,
                        "{length} cut at {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn anything_but_a_whole_and_faultless_message_is_left() {
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
            assert_eq!(whole_message(&bytes, 20, &mut Payloads::new()), None, "{bytes:x?}");
        }
    }

    #[test]
    fn a_close_text_is_cut_at_a_character() {
        let reason = CloseReason::new(
            CloseCode::Policy,
            "ääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääää",
        );
        let frame = Frame::close(&reason);
        assert_eq!(frame[..4], [0x88, 124, 0x03, 0xf0]);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
