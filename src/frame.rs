//! Messages, encoded server frames, and the reasons for which a session is closed.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use async_tungstenite::tungstenite::{Bytes, Utf8Bytes};
use futures_lite::future::yield_now;

/// A whole data message. A fragmented message is joined before an endpoint receives it.
///
/// A received payload may share its buffer with other received bytes. The whole buffer stays in memory
/// as long as the payload is kept, so copy a payload that you keep for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(Utf8Bytes),
    /// Any bytes.
    Binary(Bytes),
}

impl Message {
    /// Returns the payload as bytes.
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Returns the payload as bytes that share its memory.
    pub(crate) fn shared_payload(&self) -> Bytes {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Binary(bytes) => bytes.clone(),
        }
    }

    /// Returns the text; `None` for a binary message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Returns the header of the single frame in which the message is sent.
    pub(crate) fn header(&self) -> FrameHeader {
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

/// An encoded server frame. Only clients mask their frames, so the bytes are the same for every client.
/// A clone shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    // Not an `Rc<[u8]>`, into which the encoded bytes would be copied once more.
    bytes: Rc<Vec<u8>>,
}

impl Frame {
    /// Encodes a whole message in one frame.
    pub(crate) fn message(message: &Message) -> Self {
        Self::encode(message.header(), message.payload())
    }

    /// Encodes a text message or a binary message. The payload of a text message must be UTF-8.
    pub(crate) fn data(is_text: bool, payload: &[u8]) -> Self {
        let opcode = if is_text { TEXT } else { BINARY };
        Self::encode(FrameHeader::new(opcode, payload.len()), payload)
    }

    /// Encodes a text message or a binary message as [`data`](Self::data) does. While a large payload is
    /// copied, other tasks run.
    pub(crate) async fn data_in_turns(is_text: bool, payload: &[u8]) -> Self {
        let header = FrameHeader::new(if is_text { TEXT } else { BINARY }, payload.len());
        let mut bytes = Vec::with_capacity(header.len() + payload.len());
        bytes.extend_from_slice(&header);
        let (pieces, rest) = payload.as_chunks::<PIECE_BYTES>();
        for piece in pieces {
            bytes.extend_from_slice(piece);
            yield_now().await;
        }
        bytes.extend_from_slice(rest);
        Self::of(bytes)
    }

    /// Encodes a Ping without a payload.
    pub(crate) fn ping() -> Self {
        Self::encode(FrameHeader::new(PING, 0), &[])
    }

    /// Encodes a Close frame (RFC 6455 §5.5.1).
    pub(crate) fn close(reason: &CloseReason) -> Self {
        let code = u16::from(reason.code).to_be_bytes();
        let payload = [&code, reason.sent_text().as_bytes()].concat();
        Self::encode(FrameHeader::new(CLOSE, payload.len()), &payload)
    }

    /// Returns the payload.
    pub(crate) fn payload(&self) -> &[u8] {
        let start = match self.get(1) {
            Some(126) => 4,
            Some(127) => 10,
            _ => 2,
        };
        &self[start..]
    }

    /// Returns the number of clones, this one included, that share the encoded bytes.
    pub(crate) fn holders(&self) -> usize {
        Rc::strong_count(&self.bytes)
    }

    /// Returns true if the frame is a text message.
    pub(crate) fn is_text(&self) -> bool {
        self.first() == Some(&(FINAL | TEXT))
    }

    /// Returns true if the frame is a Ping.
    pub(crate) fn is_ping(&self) -> bool {
        self.first() == Some(&(FINAL | PING))
    }

    fn encode(header: FrameHeader, payload: &[u8]) -> Self {
        Self::of([&*header, payload].concat())
    }

    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes: Rc::new(bytes) }
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
        write!(f, "Frame({} bytes)", self.len())
    }
}

/// The header of an unmasked, final frame (RFC 6455 §5.2): 2, 4 or 10 bytes.
pub(crate) struct FrameHeader {
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

/// A status code that a Close frame may carry (RFC 6455 §7.4, and the registry at IANA). A code that must not
/// be sent, such as 1005, 1006 or 2999, has no value of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    Normal,
    /// 1001: the server stops, or the browser has left the page.
    Away,
    /// 1002: the peer violated the protocol.
    Protocol,
    /// 1003: messages of this kind are not accepted.
    Unsupported,
    /// 1007: the data does not match the kind of the message, such as a text that is not UTF-8.
    Invalid,
    /// 1008: the peer violated a policy.
    Policy,
    /// 1009: the message is too big.
    Size,
    /// 1010: the client requires an extension that the server did not accept. A server does not send this
    /// code.
    Extension,
    /// 1011: the server failed unexpectedly.
    Error,
    /// 1012: the server restarts.
    Restart,
    /// 1013: the server is overloaded; try again later.
    Again,
    /// 1014: the server is a gateway and got an invalid answer from another server.
    BadGateway,
    /// 3000 to 4999: a code of an application, created by [`CloseCode::new`].
    Application(ApplicationCode),
}

/// A close code from 3000 to 3999, which applications can register at IANA, or from 4000 to 4999, which they
/// can use as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationCode(u16);

impl CloseCode {
    /// Returns the close code with this number: 1000 to 1003, 1007 to 1014, or 3000 to 4999. Returns `None`
    /// for any other number, which no Close frame may carry.
    ///
    /// ```
    /// use falconet::{CloseCode, CloseReason};
    ///
    /// const MOVED: CloseReason =
    ///     CloseReason::new(CloseCode::new(4001).expect("an application's code"), "moved");
    /// assert_eq!(CloseCode::new(1005), None);
    /// ```
    pub const fn new(code: u16) -> Option<Self> {
        Some(match code {
            1000 => Self::Normal,
            1001 => Self::Away,
            1002 => Self::Protocol,
            1003 => Self::Unsupported,
            1007 => Self::Invalid,
            1008 => Self::Policy,
            1009 => Self::Size,
            1010 => Self::Extension,
            1011 => Self::Error,
            1012 => Self::Restart,
            1013 => Self::Again,
            1014 => Self::BadGateway,
            3000..=4999 => Self::Application(ApplicationCode(code)),
            _ => return None,
        })
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        match code {
            CloseCode::Normal => 1000,
            CloseCode::Away => 1001,
            CloseCode::Protocol => 1002,
            CloseCode::Unsupported => 1003,
            CloseCode::Invalid => 1007,
            CloseCode::Policy => 1008,
            CloseCode::Size => 1009,
            CloseCode::Extension => 1010,
            CloseCode::Error => 1011,
            CloseCode::Restart => 1012,
            CloseCode::Again => 1013,
            CloseCode::BadGateway => 1014,
            CloseCode::Application(ApplicationCode(code)) => code,
        }
    }
}

/// The reason for which a session is closed, as sent in the Close frame (RFC 6455 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The status code.
    pub code: CloseCode,
    /// A short text for a human reader. At most its first 123 bytes are sent.
    pub text: &'static str,
}

impl CloseReason {
    /// Creates a reason with a status code and a text.
    pub const fn new(code: CloseCode, text: &'static str) -> Self {
        Self { code, text }
    }

    /// 1000: the purpose of the session is fulfilled.
    pub const NORMAL: Self = Self::new(CloseCode::Normal, "");
    /// 1008: the client reads more slowly than messages are published, and has missed messages.
    pub const SLOW_CONSUMER: Self = Self::new(CloseCode::Policy, "slow consumer");
    /// 1013: the memory for unfinished messages is used up, and the client holds more of it than others.
    pub const OVERLOADED: Self = Self::new(CloseCode::Again, "server overloaded");
    /// 1001: the server is stopping.
    pub const STOPPING: Self = Self::new(CloseCode::Away, "server stopping");

    /// Returns the text, cut at a character boundary so that it fits into a control frame after the code.
    pub(crate) fn sent_text(&self) -> &'static str {
        &self.text[..self.text.floor_char_boundary(MAX_CONTROL_BYTES - 2)]
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", u16::from(self.code))?;
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

/// The FIN bit of the first byte: set on the last frame of a message (RFC 6455 §5.2).
pub(crate) const FINAL: u8 = 0x80;
/// The MASK bit of the second byte: set on every frame that a client sends.
pub(crate) const MASKED: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;
/// Stands for a Close without a code in the log and the metrics (RFC 6455 §7.1.5).
pub(crate) const NO_CODE: u16 = 1005;
/// Stands for the end of a connection without a Close in the log and the metrics (RFC 6455 §7.1.5).
pub(crate) const NO_CLOSE: u16 = 1006;
/// The longest payload of a control frame (RFC 6455 §5.5).
pub(crate) const MAX_CONTROL_BYTES: usize = 125;

/// The number of bytes that are copied before other tasks run. Up to 64 tasks run in a turn of the reactor.
const PIECE_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn a_length_is_encoded_in_the_shortest_form() {
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

    #[test]
    fn a_frame_that_is_encoded_in_turns_is_the_same() {
        for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 600_000] {
            let payload: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            for is_text in [false, true] {
                let frame = block_on(Frame::data_in_turns(is_text, &payload));
                assert!(frame == Frame::data(is_text, &payload), "{size}");
                assert!(frame.payload() == payload && frame.is_text() == is_text, "{size}");
            }
        }
    }

    #[test]
    fn other_tasks_run_while_a_large_frame_is_encoded() {
        let payload = vec![b'x'; 10 * PIECE_BYTES];
        let mut encoding = pin!(Frame::data_in_turns(true, &payload));
        let mut cx = Context::from_waker(Waker::noop());
        let polls = (0..100).take_while(|_| encoding.as_mut().poll(&mut cx).is_pending()).count();
        assert_eq!(polls, 10);
    }

    #[test]
    fn only_a_code_that_a_close_may_carry_can_be_built() {
        for code in 0..=u16::MAX {
            let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(CloseCode::new(code).map(u16::from), may_be_sent.then_some(code));
        }
    }

    #[test]
    fn a_long_close_text_is_cut_at_a_character_boundary() {
        let reason = CloseReason::new(
            CloseCode::Policy,
            "ääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääää",
        );
        let frame = Frame::close(&reason);
        assert_eq!(frame[..4], [0x88, 124, 0x03, 0xf0]);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
