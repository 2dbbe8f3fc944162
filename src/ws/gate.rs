//! What stands between a client and the protocol library.
//!
//! tungstenite's `read` loops over fragments and swallows as many as come; it judges a frame only when it
//! has all of it, and a text when it has all fragments. The gate follows the frames as they come, whatever
//! pieces they come in, admits one at a time, and refuses what is wrong or too much as soon as that is
//! certain. It reads nothing and knows no clock, so it is the same over every transport.

use crate::frame::{
    BINARY, CLOSE, CONTINUATION, CloseCode, CloseReason, FINAL, MASKED, MAX_CONTROL_BYTES, PING,
    PONG, TEXT,
};

use super::decode::apply_mask;

/// Follows the frames of one client (RFC 6455 §5.2).
pub(super) struct Gate {
    header: [u8; MAX_HEADER_BYTES],
    header_bytes: usize,
    payload_left: u64,
    /// How much of the payload has come, which says where in the mask it stands.
    payload_passed: usize,
    /// Whether a fragment has come whose message is not complete.
    message_open: bool,
    /// The text that is under way, if one is.
    text: Option<TextCheck>,
    /// Bytes since the message began, and how many of them there may be.
    spent: usize,
    allowance: usize,
    /// Payload since the message began, as far as frame headers have announced it.
    announced: u64,
    message_limit: u64,
}

impl Gate {
    /// A gate before the first byte of a frame, for messages of at most `message_bytes`.
    pub(super) fn new(message_bytes: usize) -> Self {
        Self {
            header: [0; MAX_HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            payload_passed: 0,
            message_open: false,
            text: None,
            spent: 0,
            allowance: message_bytes.saturating_add(HEADERS_PER_MESSAGE * MAX_HEADER_BYTES),
            announced: 0,
            message_limit: message_bytes as u64,
        }
    }

    /// Follows `bytes`, which may not be empty, to the end of the frame at hand at most; says how many
    /// bytes that takes. Of a control frame `may_control` says whether it may come now.
    ///
    /// # Errors
    /// Why the client must be refused. Nothing more may pass.
    pub(super) fn admit(
        &mut self,
        bytes: &[u8],
        may_control: impl FnOnce() -> bool,
    ) -> Result<usize, CloseReason> {
        let mut passed = 0;
        if self.payload_left == 0 {
            while self.header_bytes < self.header_length() {
                let Some(byte) = bytes.get(passed) else { return Ok(passed) };
                self.header[self.header_bytes] = *byte;
                self.header_bytes += 1;
                passed += 1;
                self.check_header()?;
            }
            self.begin_payload(may_control)?;
        }
        let room = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
        let payload = &bytes[passed..];
        let payload = &payload[..payload.len().min(room)];
        self.follow_payload(payload)?;
        if self.payload_left == 0 {
            self.end_frame()?;
        }
        Ok(passed + payload.len())
    }

    /// Whether the next byte begins a message.
    pub(super) fn is_at_rest(&self) -> bool {
        self.header_bytes == 0 && !self.message_open
    }

    /// How much of the frame at hand is still to come, as far as its header has.
    pub(super) fn payload_left(&self) -> u64 {
        self.payload_left
    }

    /// Judges a header as far as it has come.
    fn check_header(&self) -> Result<(), CloseReason> {
        match self.header_bytes {
            1 => self.check_kind(),
            2 => self.check_mask(),
            count if count + MASK_BYTES == self.header_length() => self.check_length(),
            _ => Ok(()),
        }
    }

    fn check_kind(&self) -> Result<(), CloseReason> {
        let is_right = match self.opcode() {
            CONTINUATION => self.message_open,
            TEXT | BINARY => !self.message_open,
            CLOSE | PING | PONG => self.is_last(),
            _ => false,
        };
        // No extension is ever agreed on that would give the reserved bits a meaning.
        if is_right && self.header[0] & RESERVED_BITS == 0 { Ok(()) } else { Err(PROTOCOL_ERROR) }
    }

    fn check_mask(&self) -> Result<(), CloseReason> {
        let is_right = self.header[1] & MASKED != 0
            && (!self.is_control() || self.short_length() <= MAX_CONTROL_BYTES);
        if !is_right {
            return Err(PROTOCOL_ERROR);
        }
        if self.header_length() == 2 + MASK_BYTES { self.check_length() } else { Ok(()) }
    }

    fn check_length(&self) -> Result<(), CloseReason> {
        let length = self.length();
        // Known before the payload has come, and not to be taken for a flood of fragments.
        if !self.is_control() && self.announced.saturating_add(length) > self.message_limit {
            return Err(TOO_BIG);
        }
        let is_shortest = match self.short_length() {
            126 => length > 125,
            127 => length > 0xffff,
            _ => true,
        };
        if is_shortest { Ok(()) } else { Err(PROTOCOL_ERROR) }
    }

    fn begin_payload(&mut self, may_control: impl FnOnce() -> bool) -> Result<(), CloseReason> {
        self.payload_left = self.length();
        self.payload_passed = 0;
        if self.is_control() {
            return if may_control() { Ok(()) } else { Err(TOO_MANY_CONTROL_FRAMES) };
        }
        if self.opcode() == TEXT {
            self.text = Some(TextCheck::default());
        }
        self.message_open = true;
        self.announced += self.payload_left;
        self.spent += self.header_length() + self.payload_left as usize;
        if self.spent > self.allowance { Err(TOO_MANY_FRAGMENTS) } else { Ok(()) }
    }

    fn follow_payload(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        if !self.is_control()
            && let Some(text) = &mut self.text
        {
            let mask_at = self.header_bytes - MASK_BYTES;
            let mut mask = [0; MASK_BYTES];
            mask.copy_from_slice(&self.header[mask_at..self.header_bytes]);
            mask.rotate_left(self.payload_passed % MASK_BYTES);
            if !text.follow(payload, mask) {
                return Err(NOT_UTF8);
            }
        }
        self.payload_passed += payload.len();
        self.payload_left -= payload.len() as u64;
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), CloseReason> {
        self.header_bytes = 0;
        if self.is_control() || !self.is_last() {
            return Ok(());
        }
        self.message_open = false;
        (self.spent, self.announced) = (0, 0);
        match self.text.take().is_none_or(|text| text.is_complete()) {
            true => Ok(()),
            false => Err(NOT_UTF8),
        }
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    fn is_last(&self) -> bool {
        self.header[0] & FINAL != 0
    }

    fn is_control(&self) -> bool {
        self.opcode() >= CLOSE
    }

    fn short_length(&self) -> usize {
        usize::from(self.header[1] & !MASKED)
    }

    /// How long the header at hand is, as far as its bytes tell.
    fn header_length(&self) -> usize {
        if self.header_bytes < 2 {
            return 2;
        }
        MASK_BYTES
            + match self.short_length() {
                126 => 4,
                127 => 10,
                _ => 2,
            }
    }

    /// How long the payload is, once the header says so.
    fn length(&self) -> u64 {
        let bytes = |range: std::ops::Range<usize>| {
            self.header[range].iter().fold(0, |length, byte| (length << 8) | u64::from(*byte))
        };
        match self.short_length() {
            126 => bytes(2..4),
            127 => bytes(2..10),
            length => length as u64,
        }
    }
}

/// Follows a text and says, as early as it is certain, that it is not UTF-8.
#[derive(Default)]
struct TextCheck {
    /// A character of which not all bytes have come.
    begun: [u8; 3],
    begun_bytes: usize,
}

impl TextCheck {
    /// Whether what has come may still become UTF-8, with these masked bytes after it.
    fn follow(&mut self, masked: &[u8], mask: [u8; MASK_BYTES]) -> bool {
        masked.chunks(CHECKED_BYTES).all(|masked| {
            let mut room = [0; CHECKED_BYTES + 3];
            room[..self.begun_bytes].copy_from_slice(&self.begun[..self.begun_bytes]);
            let bytes = &mut room[..self.begun_bytes + masked.len()];
            bytes[self.begun_bytes..].copy_from_slice(masked);
            apply_mask(&mut bytes[self.begun_bytes..], mask);
            let whole = match str::from_utf8(bytes) {
                Ok(_) => bytes.len(),
                // More bytes may make a character of what is left.
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return false,
            };
            self.begun_bytes = bytes.len() - whole;
            self.begun[..self.begun_bytes].copy_from_slice(&bytes[whole..]);
            true
        })
    }

    fn is_complete(&self) -> bool {
        self.begun_bytes == 0
    }
}

const MAX_HEADER_BYTES: usize = 14;
const MASK_BYTES: usize = 4;
const RESERVED_BITS: u8 = 0x70;
/// How many frame headers a message may have beside its payload.
const HEADERS_PER_MESSAGE: usize = 1024;
/// How much of a text is looked at in one go; a multiple of the mask's length.
const CHECKED_BYTES: usize = 512;
const PROTOCOL_ERROR: CloseReason = CloseReason::new(CloseCode::Protocol, "protocol error");
const NOT_UTF8: CloseReason = CloseReason::new(CloseCode::Invalid, "text is not UTF-8");
const TOO_BIG: CloseReason = CloseReason::new(CloseCode::Size, "message too big");
const TOO_MANY_FRAGMENTS: CloseReason = CloseReason::new(CloseCode::Policy, "too many fragments");
const TOO_MANY_CONTROL_FRAMES: CloseReason =
    CloseReason::new(CloseCode::Policy, "too many control frames");

#[cfg(test)]
mod tests;
