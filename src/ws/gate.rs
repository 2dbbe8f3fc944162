//! What stands between the socket and the protocol library.
//!
//! tungstenite's `read` loops over fragments and swallows as many as come; its `write` buffers what a
//! peer does not read. The gate meters the first: it follows the frames that pass, and bounds what may
//! come between two whole messages and in one turn. The second it leaves to the [`Outlet`], which keeps
//! frames whole, so that one of ours can always follow one of the library's. A message that comes whole
//! while nothing is under way needs neither library nor meter.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_lite::{AsyncRead, AsyncWrite};

use crate::net::Transport;

use super::frame::{CloseCode, CloseReason, Message, whole_message};
use super::outlet::Outlet;

/// The byte stream tungstenite reads and writes.
pub(super) struct Gate {
    outlet: Outlet,
    meter: Meter,
    violation: Option<CloseReason>,
    turn_bytes_left: usize,
    /// What was read and is not yet handed on, from `ahead_taken` on.
    ahead: Vec<u8>,
    ahead_taken: usize,
}

impl Gate {
    /// A gate to a peer that may have sent `early` bytes already.
    pub(super) fn new(outlet: Outlet, early: Vec<u8>) -> Self {
        let now = outlet.transport().timer().now();
        let meter = Meter::new(outlet.config().limits.message_bytes, now);
        Self {
            outlet,
            meter,
            violation: None,
            turn_bytes_left: TURN_BYTES,
            ahead: early,
            ahead_taken: 0,
        }
    }

    /// Takes a message that came whole, in one frame and one piece, at rest: it needs no library. `None`
    /// is anything else, which the library reads next.
    pub(super) fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Message>>> {
        ready!(self.poll_turn(cx));
        let limit = self.message_bytes();
        let (message, bytes) = if self.ahead.is_empty() {
            let ahead = &mut self.ahead;
            let received = self.outlet.transport().poll_recv_with(cx, |received| {
                let (message, bytes) = whole_message(received, limit).unzip();
                ahead.extend_from_slice(&received[bytes.unwrap_or(0)..]);
                (message, bytes)
            });
            match received {
                Poll::Ready(received) => received?,
                Poll::Pending => {
                    self.turn_bytes_left = TURN_BYTES;
                    return Poll::Pending;
                }
            }
        } else {
            let (message, bytes) = whole_message(&self.ahead[self.ahead_taken..], limit).unzip();
            self.forget_ahead(bytes.unwrap_or(0));
            (message, bytes)
        };
        if let Some(bytes) = bytes {
            // The meter would be where it is: between two messages.
            self.outlet.client().seen(self.transport().timer().now());
            self.turn_bytes_left = self.turn_bytes_left.saturating_sub(bytes + FRAME_COST_BYTES);
        }
        Poll::Ready(Ok(message))
    }

    /// Is ready unless the peer has had its turn; then other tasks run first.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.turn_bytes_left == 0 && self.meter.payload_left == 0 {
            self.turn_bytes_left = TURN_BYTES;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// What the peer did that a limit of ours forbids.
    pub(super) fn violation(&self) -> Option<CloseReason> {
        self.violation
    }

    /// How large a message may be.
    pub(super) fn message_bytes(&self) -> usize {
        self.outlet.config().limits.message_bytes
    }

    /// Whether what was handed on ends with a whole message.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.meter.is_mid_message()
    }

    /// The way out, for frames of ours.
    pub(super) fn outlet(&mut self) -> &mut Outlet {
        &mut self.outlet
    }

    /// The socket beneath.
    pub(super) fn transport(&self) -> &Transport {
        self.outlet.transport()
    }

    /// Reads all that is there in one call, hands on what `buffer` has room for, and keeps the rest:
    /// the library would take a large frame in pieces as small as its buffer.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let ahead = &mut self.ahead;
        self.outlet.transport().poll_recv_with(cx, |received| {
            let count = received.len().min(buffer.len());
            buffer[..count].copy_from_slice(&received[..count]);
            ahead.extend_from_slice(&received[count..]);
            count
        })
    }

    fn take_ahead(&mut self, buffer: &mut [u8]) -> usize {
        let left = &self.ahead[self.ahead_taken..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.forget_ahead(count);
        count
    }

    fn forget_ahead(&mut self, count: usize) {
        self.ahead_taken += count;
        if self.ahead_taken == self.ahead.len() {
            (self.ahead, self.ahead_taken) = (Vec::new(), 0);
        }
    }

    /// Meters bytes on their way to the library.
    fn admit(&mut self, bytes: &[u8]) {
        let now = self.transport().timer().now();
        self.outlet.client().seen(now);
        let completed = match self.meter.feed(bytes, now) {
            Ok(completed) => completed,
            Err(violation) => {
                // Raised by the next read: what came before it is still good.
                self.violation = Some(violation);
                return;
            }
        };
        let started = match self.outlet.client().message_started() {
            _ if !self.meter.is_mid_message() => None,
            Some(started) if !completed => Some(started),
            _ => Some(now),
        };
        self.outlet.client().set_message_started(started, &self.outlet.config().timeouts);
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(violation) = self.violation {
            return Poll::Ready(Err(io::Error::other(violation.text)));
        }
        ready!(self.poll_turn(cx));
        let count = if !self.ahead.is_empty() {
            self.take_ahead(buffer)
        } else if let Poll::Ready(count) = self.poll_receive(cx, buffer)? {
            count
        } else {
            self.turn_bytes_left = TURN_BYTES;
            return Poll::Pending;
        };
        self.admit(&buffer[..count]);
        let cost = count + std::mem::take(&mut self.meter.frames) * FRAME_COST_BYTES;
        self.turn_bytes_left = self.turn_bytes_left.saturating_sub(cost);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Gate {
    /// Takes all or nothing: tungstenite hands over whole frames, and they stay whole.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.outlet.poll_drained(cx))?;
        self.outlet.send(cx, bytes, &[])?;
        Poll::Ready(Ok(bytes.len()))
    }

    /// What is accepted is as good as sent: [`Outlet::poll_drained`] sees to it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().shut_down();
        Poll::Ready(Ok(()))
    }
}

/// Follows the frames in a stream of bytes, whatever pieces it comes in (RFC 6455 §5.2), and says
/// when there is too much of what tungstenite takes without end.
struct Meter {
    header: [u8; MAX_HEADER_BYTES],
    header_bytes: usize,
    payload_left: u64,
    /// Whether the frame at hand is a control frame, and whether it is a message's last.
    control: bool,
    last: bool,
    /// Whether a fragment has come whose message is not complete.
    message_open: bool,
    /// Bytes since the last whole message.
    spent: usize,
    allowance: usize,
    /// Payload since the last whole message, as far as frame headers have announced it.
    announced: u64,
    message_limit: u64,
    control_frames_left: f32,
    control_refilled: Instant,
    /// Frames begun since somebody last looked.
    frames: usize,
}

impl Meter {
    fn new(message_bytes: usize, now: Instant) -> Self {
        Self {
            header: [0; MAX_HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            control: false,
            last: false,
            message_open: false,
            spent: 0,
            allowance: message_bytes.saturating_add(HEADERS_PER_MESSAGE * MAX_HEADER_BYTES),
            announced: 0,
            message_limit: message_bytes as u64,
            control_frames_left: CONTROL_BURST_FRAMES,
            control_refilled: now,
            frames: 0,
        }
    }

    /// Follows `bytes`; says whether a message became whole in them.
    fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<bool, CloseReason> {
        let mut completed = false;
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let count = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= count;
                self.spend(count as usize)?;
                bytes = &bytes[count as usize..];
            } else {
                let missing = self.header_length() - self.header_bytes;
                let (header, rest) = bytes.split_at(missing.min(bytes.len()));
                self.header[self.header_bytes..][..header.len()].copy_from_slice(header);
                self.header_bytes += header.len();
                bytes = rest;
                if self.header_bytes < self.header_length() {
                    continue;
                }
                self.begin_frame(now)?;
            }
            if self.payload_left == 0 && !self.control {
                self.message_open = !self.last;
                completed |= self.last;
                if self.last {
                    (self.spent, self.announced) = (0, 0);
                }
            }
        }
        Ok(completed)
    }

    /// Whether the next byte belongs to a frame or message already begun.
    fn is_mid_message(&self) -> bool {
        self.header_bytes > 0 || self.payload_left > 0 || self.message_open
    }

    /// How long the header at hand is, as far as its bytes tell.
    fn header_length(&self) -> usize {
        if self.header_bytes < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.header[1] & 0x80 == 0 { length } else { length + 4 }
    }

    fn begin_frame(&mut self, now: Instant) -> Result<(), CloseReason> {
        self.frames += 1;
        let header = &self.header;
        self.payload_left = match header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => header[2..10].iter().fold(0, |length, byte| (length << 8) | u64::from(*byte)),
            length => u64::from(length),
        };
        self.last = header[0] & 0x80 != 0;
        self.control = header[0] & 0x08 != 0;
        let length = std::mem::take(&mut self.header_bytes);
        if self.control {
            return self.count_control(now);
        }
        // Known before the payload has come, and not to be taken for a flood of fragments.
        self.announced = self.announced.saturating_add(self.payload_left);
        if self.announced > self.message_limit { Err(TOO_BIG) } else { self.spend(length) }
    }

    /// Control frames may stand between the fragments of a message and do not use up its allowance.
    fn spend(&mut self, count: usize) -> Result<(), CloseReason> {
        if !self.control {
            self.spent += count;
        }
        if self.spent > self.allowance { Err(TOO_MANY_FRAGMENTS) } else { Ok(()) }
    }

    fn count_control(&mut self, now: Instant) -> Result<(), CloseReason> {
        let passed = now.saturating_duration_since(self.control_refilled).as_secs_f32();
        self.control_refilled = now;
        let left = self.control_frames_left + passed * CONTROL_FRAMES_PER_SECOND;
        self.control_frames_left = left.min(CONTROL_BURST_FRAMES) - 1.0;
        if self.control_frames_left < 0.0 { Err(TOO_MANY_CONTROL_FRAMES) } else { Ok(()) }
    }
}

/// How much may be handed on before other tasks run, and then the rest of the frame at hand.
const TURN_BYTES: usize = 4096;
/// What a frame counts for in a turn beside its bytes: an empty one takes tungstenite as long as many
/// bytes do, and it takes all of a read in one go. So a buffer full of them ends the turn.
const FRAME_COST_BYTES: usize = 64;
const MAX_HEADER_BYTES: usize = 14;
/// How many frame headers a message may have beside its payload.
const HEADERS_PER_MESSAGE: usize = 1024;
const CONTROL_FRAMES_PER_SECOND: f32 = 10.0;
const CONTROL_BURST_FRAMES: f32 = 20.0;
const TOO_BIG: CloseReason = CloseReason::new(CloseCode::Size, "message too big");
const TOO_MANY_FRAGMENTS: CloseReason = CloseReason::new(CloseCode::Policy, "too many fragments");
const TOO_MANY_CONTROL_FRAMES: CloseReason =
    CloseReason::new(CloseCode::Policy, "too many control frames");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMIT: usize = 1000;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..=125 => bytes.push(0x80 | payload as u8),
            126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    const TEXT: u8 = 0x81;
    const OPEN_TEXT: u8 = 0x01;
    const OPEN_MORE: u8 = 0x00;
    const LAST: u8 = 0x80;
    const PING: u8 = 0x89;

    #[test]
    fn the_meter_follows_frames_in_whatever_pieces_they_come() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            // What came, and how many messages became whole by it.
            let mut stream = Vec::new();
            let mut ends = Vec::new();
            let mut open = false;
            for _ in 0..random.usize(1..12) {
                let size = *random.choice(&[0, 1, 125, 126, 127, 400]).unwrap();
                let first = match (random.u8(0..4), open) {
                    (0, _) => PING,
                    (1, false) => OPEN_TEXT,
                    (_, false) => TEXT,
                    (1, true) => OPEN_MORE,
                    (_, true) => LAST,
                };
                stream.extend(frame(first, if first == PING { size.min(125) } else { size }));
                if first != PING {
                    open = first == OPEN_TEXT || first == OPEN_MORE;
                    ends.extend((!open).then_some(stream.len()));
                }
            }
            let now = Instant::now();
            let mut meter = Meter::new(100_000, now);
            let mut fed = 0;
            while fed < stream.len() {
                let end = (fed + random.usize(1..200)).min(stream.len());
                let completed = meter.feed(&stream[fed..end], now).unwrap();
                assert_eq!(completed, ends.iter().any(|at| fed < *at && *at <= end));
                fed = end;
            }
            assert_eq!(meter.is_mid_message(), open);
        }
    }

    #[test]
    fn empty_fragments_use_up_the_allowance_of_a_message() {
        let now = Instant::now();
        let mut meter = Meter::new(LIMIT, now);
        meter.feed(&frame(OPEN_TEXT, 0), now).unwrap();
        let allowed = (LIMIT + HEADERS_PER_MESSAGE * MAX_HEADER_BYTES) / frame(OPEN_MORE, 0).len();
        for _ in 1..allowed {
            meter.feed(&frame(OPEN_MORE, 0), now).unwrap();
        }
        assert_eq!(meter.feed(&frame(OPEN_MORE, 0), now), Err(TOO_MANY_FRAGMENTS));
    }

    #[test]
    fn a_whole_message_renews_the_allowance() {
        let now = Instant::now();
        let mut meter = Meter::new(LIMIT, now);
        for _ in 0..1000 {
            meter.feed(&frame(OPEN_TEXT, LIMIT), now).unwrap();
            meter.feed(&frame(LAST, 0), now).unwrap();
        }
    }

    #[test]
    fn control_frames_may_burst_and_then_come_ten_a_second() {
        let start = Instant::now();
        let mut meter = Meter::new(LIMIT, start);
        for _ in 0..20 {
            meter.feed(&frame(PING, 5), start).unwrap();
        }
        assert_eq!(meter.feed(&frame(PING, 5), start), Err(TOO_MANY_CONTROL_FRAMES));
        let mut meter = Meter::new(LIMIT, start);
        for second in 0..100 {
            for _ in 0..10 {
                meter.feed(&frame(PING, 5), start + Duration::from_secs(second)).unwrap();
            }
        }
    }

    #[test]
    fn pings_of_a_day_use_up_nothing() {
        let start = Instant::now();
        let mut meter = Meter::new(LIMIT, start);
        for minute in 0..24 * 60 {
            let now = start + Duration::from_secs(60 * minute);
            assert_eq!(meter.feed(&frame(PING, 125), now), Ok(false));
            assert!(!meter.is_mid_message());
        }
    }
}
