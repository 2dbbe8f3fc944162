//! Checks a client's frames before the protocol library reads them.
//!
//! A `read` of tungstenite accepts any number of fragments in a loop. It checks a frame only once the whole
//! frame has arrived, and a text only once all fragments have. The gate checks frames while they arrive, in
//! pieces of any size. It admits one frame at a time, and refuses a violation of the protocol or of a limit
//! at the first byte that proves the violation. The gate does no I/O and reads no clock.

use crate::frame::{
    BINARY, CLOSE, CONTINUATION, CloseCode, CloseReason, FINAL, MASKED, MAX_CONTROL_BYTES, PING,
    PONG, TEXT,
};

use super::decode::apply_mask;

/// The check of the frames of one client (RFC 6455 §5.2).
pub(super) struct Gate {
    header: [u8; MAX_HEADER_BYTES],
    header_bytes: usize,
    payload_left: u64,
    /// The number of payload bytes that were admitted last.
    piece_bytes: usize,
    /// True if a message has begun and its last frame has not ended.
    is_message_open: bool,
    /// The check of the current message, if that is a text.
    text: Option<Utf8Check>,
    /// The bytes of the current message so far, with the frame headers.
    message_bytes: usize,
    /// The limit for `message_bytes`.
    max_message_bytes: usize,
    /// The payload bytes of the current message so far, according to the frame headers.
    payload_bytes: u64,
    /// The limit for `payload_bytes`.
    max_payload_bytes: u64,
    /// The first two bytes of the payload of a Close.
    close_code: [u8; 2],
}

impl Gate {
    /// Creates a gate for messages with a payload of at most `payload_bytes`.
    pub(super) fn new(payload_bytes: usize) -> Self {
        Self {
            header: [0; MAX_HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            piece_bytes: 0,
            is_message_open: false,
            text: None,
            message_bytes: 0,
            max_message_bytes: payload_bytes.saturating_add(HEADERS_PER_MESSAGE * MAX_HEADER_BYTES),
            payload_bytes: 0,
            max_payload_bytes: payload_bytes as u64,
            close_code: [0; 2],
        }
    }

    /// Checks `bytes`, at most up to the end of the current frame, and returns the number of checked bytes.
    /// `bytes` must not be empty. `allows_control` is called for each control frame, and returns true if the
    /// rate limit allows that frame.
    ///
    /// # Errors
    /// The reason to close the session. The gate must not be used afterwards.
    pub(super) fn admit(
        &mut self,
        bytes: &[u8],
        allows_control: impl FnOnce() -> bool,
    ) -> Result<usize, CloseReason> {
        let mut passed = 0;
        self.piece_bytes = 0;
        if self.payload_left == 0 {
            while self.header_bytes < self.header_length() {
                let Some(byte) = bytes.get(passed) else { return Ok(passed) };
                self.header[self.header_bytes] = *byte;
                self.header_bytes += 1;
                passed += 1;
                self.check_header()?;
            }
            self.begin_payload(allows_control)?;
        }
        let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
        let payload = &bytes[passed..];
        let payload = &payload[..payload.len().min(left)];
        self.piece_bytes = payload.len();
        self.check_payload(payload)?;
        if self.payload_left == 0 {
            self.end_frame()?;
        }
        Ok(passed + payload.len())
    }

    /// Returns true if no frame and no message is unfinished.
    pub(super) fn is_between_messages(&self) -> bool {
        self.header_bytes == 0 && !self.is_message_open
    }

    /// Returns the number of payload bytes of the unfinished message that have arrived.
    pub(super) fn arrived_bytes(&self) -> usize {
        self.payload_bytes.saturating_sub(self.payload_left) as usize
    }

    /// Returns true if no frame is unfinished.
    pub(super) fn is_between_frames(&self) -> bool {
        self.header_bytes == 0
    }

    /// Returns true if the bytes that were admitted last belong to a control frame.
    pub(super) fn is_control(&self) -> bool {
        self.opcode() >= CLOSE
    }

    /// Returns the number of payload bytes that were admitted last.
    pub(super) fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Returns the header of a frame whose payload is what was admitted last. The frame of a message in which
    /// it stands is thus divided into fragments.
    pub(super) fn piece_header(&self) -> [u8; MAX_HEADER_BYTES] {
        let after = (self.length() - self.payload_left) as usize;
        let before = after - self.piece_bytes;
        let mut header = [0; MAX_HEADER_BYTES];
        header[0] = if before == 0 { self.opcode() } else { CONTINUATION };
        if self.is_between_frames() && self.is_last() {
            header[0] |= FINAL;
        }
        header[1] = MASKED | 127;
        header[2..10].copy_from_slice(&(self.piece_bytes as u64).to_be_bytes());
        header[10..].copy_from_slice(&self.mask_at(before));
        header
    }

    /// Returns the number of payload bytes that are missing from the current frame; 0 within a header.
    #[cfg(test)]
    pub(super) fn payload_left(&self) -> u64 {
        self.payload_left
    }

    /// Returns the code of the last Close, which has a payload of at least two bytes; `None` if no Close may
    /// carry that code.
    pub(super) fn close_code(&self) -> Option<CloseCode> {
        CloseCode::new(u16::from_be_bytes(self.close_code))
    }

    /// Checks the part of the header that has arrived.
    fn check_header(&self) -> Result<(), CloseReason> {
        match self.header_bytes {
            1 => self.check_opcode(),
            2 => self.check_mask(),
            count if count + MASK_BYTES == self.header_length() => self.check_length(),
            _ => Ok(()),
        }
    }

    fn check_opcode(&self) -> Result<(), CloseReason> {
        let is_valid = match self.opcode() {
            CONTINUATION => self.is_message_open,
            TEXT | BINARY => !self.is_message_open,
            CLOSE | PING | PONG => self.is_last(),
            _ => false,
        };
        // The server supports no extension, so the reserved bits must be 0.
        if is_valid && self.header[0] & RESERVED_BITS == 0 { Ok(()) } else { Err(PROTOCOL_ERROR) }
    }

    fn check_mask(&self) -> Result<(), CloseReason> {
        let is_valid = self.header[1] & MASKED != 0
            && (!self.is_control() || self.short_length() <= MAX_CONTROL_BYTES);
        if !is_valid {
            return Err(PROTOCOL_ERROR);
        }
        if self.header_length() == 2 + MASK_BYTES { self.check_length() } else { Ok(()) }
    }

    fn check_length(&self) -> Result<(), CloseReason> {
        let length = self.length();
        // Before the limit for fragments, so that a message that is too big gets the right close code.
        if !self.is_control() && self.payload_bytes.saturating_add(length) > self.max_payload_bytes
        {
            return Err(TOO_BIG);
        }
        let is_shortest = match self.short_length() {
            126 => length > 125,
            127 => length > 0xffff,
            _ => true,
        };
        if is_shortest { Ok(()) } else { Err(PROTOCOL_ERROR) }
    }

    fn begin_payload(&mut self, allows_control: impl FnOnce() -> bool) -> Result<(), CloseReason> {
        self.payload_left = self.length();
        if self.is_control() {
            return if allows_control() { Ok(()) } else { Err(TOO_MANY_CONTROL_FRAMES) };
        }
        if self.opcode() == TEXT {
            self.text = Some(Utf8Check::default());
        }
        self.is_message_open = true;
        self.payload_bytes += self.payload_left;
        self.message_bytes += self.header_length() + self.payload_left as usize;
        if self.message_bytes > self.max_message_bytes { Err(TOO_MANY_FRAGMENTS) } else { Ok(()) }
    }

    fn check_payload(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        let passed = (self.length() - self.payload_left) as usize;
        let mask = self.mask_at(passed);
        self.payload_left -= payload.len() as u64;
        if self.opcode() == CLOSE {
            let missing = self.close_code.iter_mut().skip(passed);
            for ((to, byte), mask) in missing.zip(payload).zip(mask) {
                *to = byte ^ mask;
            }
        } else if !self.is_control()
            && let Some(text) = &mut self.text
            && !text.check(payload, mask)
        {
            return Err(NOT_UTF8);
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), CloseReason> {
        self.header_bytes = 0;
        if self.is_control() || !self.is_last() {
            return Ok(());
        }
        self.is_message_open = false;
        (self.message_bytes, self.payload_bytes) = (0, 0);
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

    /// Returns the mask, beginning with its byte for the payload byte at `position`.
    fn mask_at(&self, position: usize) -> [u8; MASK_BYTES] {
        let begin = 2 + self.length_bytes();
        let mut mask = [0; MASK_BYTES];
        mask.copy_from_slice(&self.header[begin..begin + MASK_BYTES]);
        mask.rotate_left(position % MASK_BYTES);
        mask
    }

    fn short_length(&self) -> usize {
        usize::from(self.header[1] & !MASKED)
    }

    /// Returns the length of the header; 2 until the second byte, which determines the length, has arrived.
    fn header_length(&self) -> usize {
        if self.header_bytes < 2 { 2 } else { 2 + self.length_bytes() + MASK_BYTES }
    }

    /// Returns the number of bytes of the length after the first two bytes of the header.
    fn length_bytes(&self) -> usize {
        match self.short_length() {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    /// Returns the length of the payload. The part of the header before the mask must have arrived.
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

/// The check that a text is UTF-8, made while the bytes of the text arrive.
#[derive(Default)]
struct Utf8Check {
    /// The bytes of the last character, if that is incomplete.
    partial: [u8; 3],
    partial_bytes: usize,
}

impl Utf8Check {
    /// Checks the next bytes of the text. Returns false if the text is not UTF-8, whatever follows.
    fn check(&mut self, masked: &[u8], mask: [u8; MASK_BYTES]) -> bool {
        masked.chunks(CHECKED_BYTES).all(|masked| {
            let mut buffer = [0; CHECKED_BYTES + 3];
            buffer[..self.partial_bytes].copy_from_slice(&self.partial[..self.partial_bytes]);
            let bytes = &mut buffer[..self.partial_bytes + masked.len()];
            bytes[self.partial_bytes..].copy_from_slice(masked);
            apply_mask(&mut bytes[self.partial_bytes..], mask);
            let whole = match str::from_utf8(bytes) {
                Ok(_) => bytes.len(),
                // The text ends with an incomplete character.
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return false,
            };
            self.partial_bytes = bytes.len() - whole;
            self.partial[..self.partial_bytes].copy_from_slice(&bytes[whole..]);
            true
        })
    }

    fn is_complete(&self) -> bool {
        self.partial_bytes == 0
    }
}

pub(super) const MAX_HEADER_BYTES: usize = 14;
const MASK_BYTES: usize = 4;
const RESERVED_BITS: u8 = 0x70;
/// A message may have this many frame headers of the largest size in addition to its payload.
const HEADERS_PER_MESSAGE: usize = 1024;
/// The number of bytes of a text that are checked at a time: a multiple of the mask's length.
const CHECKED_BYTES: usize = 512;
pub(super) const PROTOCOL_ERROR: CloseReason =
    CloseReason::new(CloseCode::Protocol, "protocol error");
const NOT_UTF8: CloseReason = CloseReason::new(CloseCode::Invalid, "text is not UTF-8");
const TOO_BIG: CloseReason = CloseReason::new(CloseCode::Size, "message too big");
const TOO_MANY_FRAGMENTS: CloseReason = CloseReason::new(CloseCode::Policy, "too many fragments");
const TOO_MANY_CONTROL_FRAMES: CloseReason =
    CloseReason::new(CloseCode::Policy, "too many control frames");

#[cfg(test)]
mod tests;
