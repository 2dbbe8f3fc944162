//! Receives a client's messages.
//!
//! Nearly every message arrives in one frame and in one piece, and is decoded directly. For any other
//! input, a gate and a stream of tungstenite, the protocol library, are created. The stream reads from a
//! pipe that supplies one admitted frame at a time. Both are freed as soon as no message is unfinished, so
//! an idle client has no buffer.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Error};
use futures_lite::{AsyncRead, AsyncWrite, Stream};

use crate::features::Feature;
use crate::frame::{CloseCode, CloseReason, Frame, MAX_CONTROL_BYTES, Message};
use crate::net::{Held, Sleep, Timer};
use crate::rate::{Rate, RateState};

use super::end::{Ending, SessionEnd};
use super::gate::{Gate, MAX_HEADER_BYTES, PROTOCOL_ERROR};
use super::outlet::Outlet;

/// The receiving side of one client's connection.
pub(super) struct Socket {
    // Boxed, since an idle client has none.
    input: Cell<Option<Box<InputState>>>,
    control_rate_state: Cell<RateState>,
    message_rate_state: Cell<RateState>,
    /// The number of bytes that may still be read before other tasks run.
    read_budget: Cell<u32>,
    /// True once the server has sent its Close. No frame may follow a Close (RFC 6455 §5.5.1).
    is_closing: Cell<bool>,
}

/// The part of the state that an idle client does not have.
#[derive(Default)]
struct InputState {
    /// Empty while there is a decoder, because the decoder then has the backlog.
    backlog: Backlog,
    decoder: Option<Decoder>,
    /// Runs until the client's message rate allows the next message.
    pause: Option<Sleep>,
    /// The way in which the session ended, once it has.
    end: Option<SessionEnd>,
    held: Held,
}

/// Received bytes. Those before `consumed` have been decoded; those before `admitted` have passed the
/// gate.
#[derive(Default)]
struct Backlog {
    bytes: Vec<u8>,
    consumed: usize,
    admitted: usize,
}

/// A decoder for input that `whole_message` does not decode: fragments, control frames, and frames that
/// arrive in pieces.
struct Decoder {
    stream: WebSocketStream<Pipe>,
    gate: Gate,
}

/// The result of decoding one frame, or the received part of it.
struct Decoded {
    /// The message that the frame completes, or the ending of the session.
    result: Result<Option<Message>, Ending>,
    /// The frames that answer a Ping or a Close.
    answers: Vec<u8>,
    /// The number of decoded bytes.
    count: usize,
}

impl Socket {
    /// Creates a socket. `early` holds the bytes that were received together with the handshake.
    pub(super) fn new(early: Vec<u8>) -> Self {
        let input = (!early.is_empty()).then(|| {
            let backlog = Backlog { bytes: early, ..Backlog::default() };
            Box::new(InputState { backlog, ..InputState::default() })
        });
        Self {
            input: Cell::new(input),
            control_rate_state: Cell::default(),
            message_rate_state: Cell::default(),
            read_budget: Cell::new(READ_BUDGET_BYTES),
            is_closing: Cell::new(false),
        }
    }

    /// Returns true if some received bytes have not been decoded yet.
    pub(super) fn has_more(&self) -> bool {
        self.with_input(|input| input.is_some_and(|input| !input.backlog().is_empty()))
    }

    /// Returns the way in which the session ended, once it has.
    pub(super) fn end(&self) -> Option<SessionEnd> {
        self.with_input(|input| input?.end)
    }

    /// Notes the way in which the session ended.
    pub(super) fn set_end(&self, end: SessionEnd) {
        self.change_input(|input| input.get_or_insert_default().end = Some(end));
    }

    /// Frees the received bytes. Returns true if they end within a message.
    pub(super) fn discard_input(&self) -> bool {
        self.change_input(|input| {
            let Some(input) = input else { return false };
            input.backlog = Backlog::default();
            input.held.clear();
            input.decoder.take().is_some()
        })
    }

    /// Sends nothing to the client from now on: no Pong, and no answer to its Close.
    pub(super) fn stop_answering(&self) {
        self.is_closing.set(true);
    }

    /// Returns the client's next message. Answers Pings and a Close. Reads nothing while a write is blocked
    /// because the client does not read.
    pub(super) fn poll_next(
        &self,
        cx: &mut Context<'_>,
        outlet: &Outlet,
    ) -> Poll<Result<Message, Ending>> {
        loop {
            // First, because the session may wait for something else below.
            self.check_held(cx, outlet)?;
            ready!(outlet.poll_unblocked(cx))?;
            ready!(self.poll_read_budget(cx));
            ready!(self.poll_message_rate(cx, outlet));
            let message = if self.has_more() {
                self.change_input(|input| self.decode_backlog(input, cx, outlet))?
            } else {
                // Corked replies must be sent before the session waits for input.
                ready!(outlet.poll_drained(cx))?;
                ready!(self.poll_allowance(cx, outlet))?;
                let Poll::Ready(received) = self.poll_receive(cx, outlet) else {
                    self.read_budget.set(READ_BUDGET_BYTES);
                    return Poll::Pending;
                };
                received?
            };
            self.hold(outlet);
            let Some(message) = message else { continue };
            if let Some(rate) = &outlet.shared().message_rate {
                // Counts the message. `poll_message_rate` has made sure that the rate allows it.
                let _ =
                    admit_event(rate, &self.message_rate_state, outlet.transport().timer().now());
            }
            return Poll::Ready(Ok(message));
        }
    }

    /// Evicts the client if its input was chosen to be given up, as [`Outlet::check_held`] does.
    ///
    /// # Errors
    /// [`is_eviction`](crate::net::is_eviction).
    pub(super) fn check_held(&self, cx: &mut Context<'_>, outlet: &Outlet) -> io::Result<()> {
        self.with_input(|input| match input {
            Some(input) => outlet.check_held(&input.held, cx),
            None => Ok(()),
        })
    }

    /// Waits until the server's budget for unfinished messages allows to read more. Until then, the deadline of
    /// an unfinished message does not run.
    fn poll_allowance(&self, cx: &mut Context<'_>, outlet: &Outlet) -> Poll<io::Result<()>> {
        let allowance = self.with_input(|input| match input {
            Some(input) => input.held.poll_more(cx),
            None => Poll::Ready(Ok(())),
        });
        if allowance.is_pending() {
            outlet.client().message_ended();
        }
        allowance
    }

    /// Waits until the client's message rate allows the next message.
    fn poll_message_rate(&self, cx: &mut Context<'_>, outlet: &Outlet) -> Poll<()> {
        match &outlet.shared().message_rate {
            Some(rate) if !self.is_closing.get() => {
                self.poll_pause(cx, &outlet.transport().timer(), rate)
            }
            _ => Poll::Ready(()),
        }
    }

    #[inline(never)] // Cold path: most servers do not limit the message rate.
    fn poll_pause(&self, cx: &mut Context<'_>, timer: &Timer, rate: &Rate) -> Poll<()> {
        while let Err(wait) = rate.admit(&mut self.message_rate_state.get(), timer.now()) {
            let passed = self.change_input(|input| {
                let input = input.get_or_insert_default();
                let pause = input.pause.get_or_insert_with(|| timer.sleep(Some(wait)));
                ready!(pin!(&mut *pause).poll(cx));
                input.pause = None;
                Poll::Ready(())
            });
            ready!(passed);
        }
        Poll::Ready(())
    }

    /// Yields to other tasks once the client has used up its read budget, also within a frame, which may be
    /// large.
    fn poll_read_budget(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.read_budget.get() > 0 {
            return Poll::Ready(());
        }
        self.read_budget.set(READ_BUDGET_BYTES);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once from the connection. If the received bytes start with a whole message, returns it.
    /// Appends the other bytes to the backlog.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        outlet: &Outlet,
    ) -> Poll<Result<Option<Message>, Ending>> {
        let received = outlet.transport().poll_recv_with(cx, |received| {
            let mut taken = None;
            if self.with_input(|input| input.is_none_or(|input| input.decoder.is_none())) {
                taken = outlet.shared().whole_message(received);
            }
            let (message, count) = taken.unzip();
            let rest = &received[count.unwrap_or(0)..];
            if !rest.is_empty() {
                self.change_input(|input| {
                    input.get_or_insert_default().backlog_mut().bytes.extend_from_slice(rest);
                });
            }
            (message, count.unwrap_or(0), !received.is_empty())
        });
        let (message, count, is_open) = ready!(received)?;
        if !is_open {
            return Poll::Ready(Err(Ending::Lost));
        }
        outlet.client().seen(outlet.transport().timer().now());
        if message.is_some() {
            self.spend(count);
        }
        Poll::Ready(Ok(message))
    }

    /// Decodes one frame of the backlog, or the received part of it. Returns a message if that completes
    /// one.
    #[inline(never)] // It takes 1.5 KB of stack, which a message that arrives in one piece does not need.
    fn decode_backlog(
        &self,
        input: &mut Option<Box<InputState>>,
        cx: &mut Context<'_>,
        outlet: &Outlet,
    ) -> Result<Option<Message>, Ending> {
        let now = outlet.transport().timer().now();
        outlet.client().seen(now);
        let Some(input) = input else { return Ok(None) };
        let shared = outlet.shared();
        let Decoded { result, answers, count } = input.decode(
            shared.config.limits.message_bytes,
            |bytes| shared.whole_message(bytes),
            || admit_event(&shared.control_rate, &self.control_rate_state, now).is_ok(),
        )?;
        let answered = match answers.is_empty() || self.is_closing.get() {
            true => Ok(()),
            false => outlet.send(cx, &answers, &[]),
        };
        match input.decoder {
            Some(_) => outlet.client().message_began(now),
            None => outlet.client().message_ended(),
        }
        self.spend(count);
        answered?;
        result
    }

    /// Counts the received bytes against the server's budget for unfinished messages.
    fn hold(&self, outlet: &Outlet) {
        self.with_input(|input| {
            let Some(input) = input else { return };
            let address = || outlet.client().peer().limited_prefix();
            input.held.set(outlet.transport().pending(), input.bytes(), address);
        });
    }

    /// Passes the input state to `read`.
    fn with_input<R>(&self, read: impl FnOnce(Option<&InputState>) -> R) -> R {
        let input = self.input.take();
        let result = read(input.as_deref());
        self.input.set(input);
        result
    }

    /// Passes the input state to `change`, and frees the state if it is idle afterwards.
    fn change_input<R>(&self, change: impl FnOnce(&mut Option<Box<InputState>>) -> R) -> R {
        let mut input = self.input.take();
        let result = change(&mut input);
        self.input.set(input.filter(|input| !input.is_idle()));
        result
    }

    /// Subtracts the bytes of a frame, or of the received part of it, from the read budget.
    fn spend(&self, bytes: usize) {
        let bytes = u32::try_from(bytes.max(FRAME_COST_BYTES)).unwrap_or(u32::MAX);
        self.read_budget.set(self.read_budget.get().saturating_sub(bytes));
    }
}

/// Counts one event if `rate` allows it; otherwise returns the time until it does.
fn admit_event(rate: &Rate, state: &Cell<RateState>, now: Instant) -> Result<(), Duration> {
    let mut after = state.get();
    let admitted = rate.admit(&mut after, now);
    state.set(after);
    admitted
}

impl InputState {
    /// Decodes one frame of the backlog, or the received part of it. `whole_message` decodes a message of at most
    /// `message_bytes` that is whole and in one frame. `allows_control` returns true if the rate limit allows a
    /// control frame.
    ///
    /// # Errors
    /// The ending of the session, if the gate refuses the frame.
    fn decode(
        &mut self,
        message_bytes: usize,
        whole_message: impl FnOnce(&[u8]) -> Option<(Message, usize)>,
        allows_control: impl FnOnce() -> bool,
    ) -> Result<Decoded, Ending> {
        if self.decoder.is_none()
            && let Some((message, count)) = whole_message(self.backlog.unread())
        {
            self.backlog.consume(count);
            return Ok(Decoded { result: Ok(Some(message)), answers: Vec::new(), count });
        }
        let backlog = &mut self.backlog;
        let decoder = self
            .decoder
            .get_or_insert_with(|| Decoder::new(std::mem::take(backlog), message_bytes));
        let count = decoder.admit(allows_control)?;
        let (result, answers) = decoder.decode();
        if decoder.gate.is_between_messages() {
            self.backlog = std::mem::take(decoder.backlog_mut());
            self.decoder = None;
        }
        Ok(Decoded { result, answers, count })
    }

    fn is_idle(&self) -> bool {
        self.decoder.is_none()
            && self.backlog.is_empty()
            && self.pause.is_none()
            && self.end.is_none()
    }

    /// Returns the memory that the received bytes take.
    fn bytes(&self) -> usize {
        let decoder = self.decoder.as_ref();
        let decoding = decoder.map_or(0, |decoder| DECODER_BYTES + decoder.gate.arrived_bytes());
        self.backlog().bytes.capacity() + decoding
    }

    fn backlog(&self) -> &Backlog {
        match &self.decoder {
            Some(decoder) => &decoder.stream.get_ref().backlog,
            None => &self.backlog,
        }
    }

    fn backlog_mut(&mut self) -> &mut Backlog {
        match &mut self.decoder {
            Some(decoder) => decoder.backlog_mut(),
            None => &mut self.backlog,
        }
    }
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.unread().is_empty()
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    /// Marks the next `count` bytes as decoded, and frees the memory if no bytes remain.
    fn consume(&mut self, count: usize) {
        self.consumed += count;
        self.admitted = self.admitted.max(self.consumed);
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl Decoder {
    /// Creates a decoder for messages of at most `message_bytes`. `backlog` starts with a frame.
    fn new(backlog: Backlog, message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(
                backlog.unread().len().clamp(READ_BUFFER_BYTES, LARGEST_READ_BUFFER_BYTES),
            )
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER_BYTES)
            .max_message_size(Some(message_bytes))
            // A control frame may be larger than the largest message.
            .max_frame_size(Some(message_bytes.max(MAX_CONTROL_BYTES)));
        let (header, header_read) = ([0; MAX_HEADER_BYTES], MAX_HEADER_BYTES);
        let pipe = Pipe { backlog, header, header_read, outgoing: Vec::new() };
        let creating = WebSocketStream::from_raw_socket(pipe, Role::Server, Some(config));
        match pin!(creating).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(stream) => Self { stream, gate: Gate::new(message_bytes) },
            Poll::Pending => unreachable!("`from_raw_socket` awaits nothing"),
        }
    }

    fn backlog_mut(&mut self) -> &mut Backlog {
        &mut self.stream.get_mut().backlog
    }

    /// Admits the next frame, or the received part of it, and returns the number of admitted bytes.
    fn admit(&mut self, allows_control: impl FnOnce() -> bool) -> Result<usize, Ending> {
        let pipe = self.stream.get_mut();
        let begins = self.gate.is_between_frames();
        let unread = pipe.backlog.unread();
        let count = self.gate.admit(unread, allows_control).map_err(Ending::Refused)?;
        let ends = self.gate.is_between_frames();
        let mut admitted = count;
        let is_whole = begins && ends;
        if Feature::Full.is_built_in() && !is_whole && !self.gate.is_control() {
            // The library would unmask and check a frame when the whole frame has arrived. That takes long if
            // the frame is large, so the library is given its parts as fragments.
            admitted = self.gate.piece_bytes();
            pipe.backlog.consume(count - admitted);
            if admitted > 0 || ends {
                (pipe.header, pipe.header_read) = (self.gate.piece_header(), 0);
            }
        }
        pipe.backlog.admitted = pipe.backlog.consumed + admitted;
        Ok(count)
    }

    /// Decodes the admitted bytes, which are at most one frame. Returns the message that the frame completes, or the
    /// ending of the session, and the frames that answer a Ping or a Close.
    fn decode(&mut self) -> (Result<Option<Message>, Ending>, Vec<u8>) {
        let mut result = Ok(None);
        // The pipe needs no waker: each admission is followed by a call of this function.
        let noop = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(next) = Pin::new(&mut self.stream).poll_next(noop) {
            match next {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    result = Ok(Some(Message::Text(text)));
                }
                Some(Ok(tungstenite::Message::Binary(bytes))) => {
                    result = Ok(Some(Message::Binary(bytes)));
                }
                Some(Ok(tungstenite::Message::Close(None))) => {
                    result = Err(Ending::ClosedByPeer(None));
                }
                Some(Ok(tungstenite::Message::Close(Some(_)))) => match self.gate.close_code() {
                    None => return (Err(Ending::Refused(PROTOCOL_ERROR)), Vec::new()),
                    code => result = Err(Ending::ClosedByPeer(code)),
                },
                Some(Ok(_)) => {}
                // The stream ends after a Close.
                Some(Err(Error::ConnectionClosed)) | None => break,
                Some(Err(error)) => return (Err(ending_for(&error)), Vec::new()),
            }
        }
        let mut answers = std::mem::take(&mut self.stream.get_mut().outgoing);
        if matches!(result, Err(Ending::ClosedByPeer(Some(CloseCode::BadGateway)))) {
            // The library does not know this code, and would answer 1002.
            answers = Frame::close(&CloseReason::new(CloseCode::BadGateway, "")).to_vec();
        }
        (result, answers)
    }
}

/// Returns the ending for an error of the protocol library (RFC 6455 §7.4.1).
fn ending_for(error: &Error) -> Ending {
    let violation = |code, text| Ending::Refused(CloseReason::new(code, text));
    match error {
        Error::Protocol(_) => Ending::Refused(PROTOCOL_ERROR),
        Error::Utf8(_) => violation(CloseCode::Invalid, "text is not UTF-8"),
        Error::Capacity(_) => violation(CloseCode::Size, "message too big"),
        _ => Ending::Lost,
    }
}

/// The protocol library's connection: it reads the admitted bytes of the backlog, after a header if they are a
/// part of a frame, and writes to a buffer.
struct Pipe {
    backlog: Backlog,
    /// A header to read before the admitted bytes. The bytes before `header_read` have been read.
    header: [u8; MAX_HEADER_BYTES],
    header_read: usize,
    outgoing: Vec<u8>,
}

impl AsyncRead for Pipe {
    /// Reads admitted bytes.
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let header = &self.header[self.header_read..];
        if Feature::Full.is_built_in() && !header.is_empty() {
            let count = header.len().min(buffer.len());
            buffer[..count].copy_from_slice(&header[..count]);
            self.header_read += count;
            return Poll::Ready(Ok(count));
        }
        let backlog = &mut self.backlog;
        let admitted = &backlog.bytes[backlog.consumed..backlog.admitted];
        let count = admitted.len().min(buffer.len());
        if count == 0 {
            return Poll::Pending;
        }
        buffer[..count].copy_from_slice(&admitted[..count]);
        backlog.consume(count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The number of bytes that a client may send before other tasks run. More are read only if they arrive in one
/// read.
const READ_BUDGET_BYTES: u32 = 4096;
/// The minimum that each frame counts against the budget, so that at most sixteen frames are read at once.
const FRAME_COST_BYTES: usize = 256;
/// The bounds of the initial size of the protocol library's read buffer, which grows for a larger frame.
/// The library fills the buffer with zeros before each read, so a large buffer for the whole backlog would
/// make each small frame expensive.
const READ_BUFFER_BYTES: usize = 256;
const LARGEST_READ_BUFFER_BYTES: usize = 4096;
/// The memory of a decoder without received bytes, about.
const DECODER_BYTES: usize = 1024;
/// The protocol library writes only Pongs and Closes, whose frames have at most 127 bytes.
const CONTROL_BUFFER_BYTES: usize = 1024;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
