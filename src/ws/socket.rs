//! A client's messages, out of the bytes that come.
//!
//! A message that came whole, in one frame and one piece, is taken as it is, and that is nearly all of
//! them. For what is anything else the gate is set up and the protocol library's stream made anew, over
//! a pipe that brings it one admitted frame after another; both are gone again when nothing is under
//! way. So a client that says nothing holds no buffer.

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

use crate::frame::{CloseCode, CloseReason, MAX_CONTROL_BYTES, Message};
use crate::net::{Sleep, Timer};
use crate::rate::{Pace, Rate};

use super::decode::whole_message;
use super::end::{Ending, SessionEnd};
use super::gate::Gate;
use super::outlet::Outlet;

/// The way in from one client.
pub(super) struct Socket {
    // Boxed, for a client that is at rest has none.
    underway: Cell<Option<Box<Underway>>>,
    controls: Cell<Pace>,
    messages: Cell<Pace>,
    turn_bytes_left: Cell<u32>,
    /// Whether our Close has been sent, after which we say nothing more.
    is_closing: Cell<bool>,
}

/// What has come and is not yet taken, and who looks at it; or how all ended.
#[derive(Default)]
struct Underway {
    ahead: Ahead,
    library: Option<Library>,
    /// Until when nothing is taken.
    pause: Option<Sleep>,
    end: Option<SessionEnd>,
}

/// Bytes in the order they came. Those before `admitted` have passed the gate.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    taken: usize,
    admitted: usize,
}

/// What takes messages that are anything but whole, and has the bytes ahead as long as it is there.
struct Library {
    stream: WebSocketStream<Pipe>,
    gate: Gate,
    /// Whether the client's record knows that a message is unfinished.
    is_timed: bool,
}

impl Socket {
    /// A socket whose peer may have sent `early` bytes already.
    pub(super) fn new(early: Vec<u8>) -> Self {
        let underway = (!early.is_empty()).then(|| {
            let ahead = Ahead { bytes: early, ..Ahead::default() };
            Box::new(Underway { ahead, ..Underway::default() })
        });
        Self {
            underway: Cell::new(underway),
            controls: Cell::default(),
            messages: Cell::default(),
            turn_bytes_left: Cell::new(TURN_BYTES),
            is_closing: Cell::new(false),
        }
    }

    /// Whether something has come that is not yet taken.
    pub(super) fn has_more(&self) -> bool {
        self.look(|underway| underway.is_some_and(|underway| !underway.ahead().is_empty()))
    }

    /// How the session ended, if it has.
    pub(super) fn end(&self) -> Option<SessionEnd> {
        self.look(|underway| underway?.end)
    }

    /// Notes how the session ended.
    pub(super) fn set_end(&self, end: SessionEnd) {
        self.change(|underway| underway.get_or_insert_default().end = Some(end));
    }

    /// Says nothing more from now on: no Pong, and no answer to a Close.
    pub(super) fn fall_silent(&self) {
        self.is_closing.set(true);
    }

    /// The client's next message. Its pings are answered meanwhile. Nothing is read while the client does
    /// not take what it is sent.
    pub(super) fn poll_next(
        &self,
        cx: &mut Context<'_>,
        outlet: &Outlet,
    ) -> Poll<Result<Message, Ending>> {
        loop {
            ready!(outlet.poll_unblocked(cx))?;
            ready!(self.poll_turn(cx));
            ready!(self.poll_pace(cx, outlet));
            let message = if self.has_more() {
                self.change(|underway| self.take_ahead(underway, cx, outlet))?
            } else {
                // What was said in answer goes before we wait.
                ready!(outlet.poll_drained(cx))?;
                let Poll::Ready(received) = self.poll_receive(cx, outlet) else {
                    self.turn_bytes_left.set(TURN_BYTES);
                    return Poll::Pending;
                };
                received?
            };
            let Some(message) = message else { continue };
            if let Some(rate) = &outlet.shared().messages {
                // It was asked for before.
                let _ = keep_pace(rate, &self.messages, outlet.transport().timer().now());
            }
            return Poll::Ready(Ok(message));
        }
    }

    /// Is ready unless the client is faster than it may be; then it is heard later.
    fn poll_pace(&self, cx: &mut Context<'_>, outlet: &Outlet) -> Poll<()> {
        match &outlet.shared().messages {
            Some(rate) if !self.is_closing.get() => {
                self.poll_rate(cx, &outlet.transport().timer(), rate)
            }
            _ => Poll::Ready(()),
        }
    }

    #[inline(never)] // Most servers have no such rate.
    fn poll_rate(&self, cx: &mut Context<'_>, timer: &Timer, rate: &Rate) -> Poll<()> {
        while let Err(wait) = rate.admit(&mut self.messages.get(), timer.now()) {
            let passed = self.change(|underway| {
                let underway = underway.get_or_insert_default();
                let pause = underway.pause.get_or_insert_with(|| timer.sleep(Some(wait)));
                ready!(pin!(&mut *pause).poll(cx));
                underway.pause = None;
                Poll::Ready(())
            });
            ready!(passed);
        }
        Poll::Ready(())
    }

    /// Is ready unless the client has had its turn; then other tasks run first.
    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.turn_bytes_left.get() > 0
            || self.look(|underway| underway.is_some_and(|underway| underway.is_mid_frame()))
        {
            return Poll::Ready(());
        }
        self.turn_bytes_left.set(TURN_BYTES);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads all that is there, in one call; takes a whole message that comes first in it, and keeps the
    /// rest.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        outlet: &Outlet,
    ) -> Poll<Result<Option<Message>, Ending>> {
        let limit = outlet.shared().config.limits.message_bytes;
        let received = outlet.transport().poll_recv_with(cx, |received| {
            let mut taken = None;
            if self.look(|underway| underway.is_none_or(|underway| underway.library.is_none())) {
                taken = whole_message(received, limit, &mut outlet.shared().payloads.borrow_mut());
            }
            let (message, count) = taken.unzip();
            let rest = &received[count.unwrap_or(0)..];
            if !rest.is_empty() {
                self.change(|underway| {
                    underway.get_or_insert_default().ahead_mut().bytes.extend_from_slice(rest);
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
            self.spend(count.max(MESSAGE_COST_BYTES));
        }
        Poll::Ready(Ok(message))
    }

    /// Deals with one frame that has come, or the part of it that has.
    #[inline(never)] // A whole message that comes alone has no use for its 1.5 KB of stack.
    fn take_ahead(
        &self,
        underway: &mut Option<Box<Underway>>,
        cx: &mut Context<'_>,
        outlet: &Outlet,
    ) -> Result<Option<Message>, Ending> {
        let limit = outlet.shared().config.limits.message_bytes;
        let now = outlet.transport().timer().now();
        outlet.client().seen(now);
        let Some(underway) = underway else { return Ok(None) };
        if underway.library.is_none() {
            let left = underway.ahead.left();
            let taken = whole_message(left, limit, &mut outlet.shared().payloads.borrow_mut());
            if let Some((message, count)) = taken {
                underway.ahead.take(count);
                self.spend(count.max(MESSAGE_COST_BYTES));
                return Ok(Some(message));
            }
            underway.library = Some(Library::new(std::mem::take(&mut underway.ahead), limit));
        }
        let Some(library) = &mut underway.library else { return Ok(None) };
        let count =
            library.admit(|| keep_pace(&outlet.shared().controls, &self.controls, now).is_ok())?;
        let polled = library.poll(outlet, cx, self.is_closing.get());
        match library.gate.is_at_rest() {
            false if !library.is_timed => {
                library.is_timed = true;
                outlet.client().message_began(now);
            }
            false => {}
            true => {
                if library.is_timed {
                    outlet.client().message_ended();
                }
                underway.ahead = std::mem::take(library.ahead_mut());
                underway.library = None;
            }
        }
        self.spend(count + FRAME_COST_BYTES);
        polled
    }

    /// Looks at what is under way.
    fn look<R>(&self, look: impl FnOnce(Option<&Underway>) -> R) -> R {
        let underway = self.underway.take();
        let seen = look(underway.as_deref());
        self.underway.set(underway);
        seen
    }

    /// Changes what is under way, and gives it up if it holds nothing then.
    fn change<R>(&self, change: impl FnOnce(&mut Option<Box<Underway>>) -> R) -> R {
        let mut underway = self.underway.take();
        let result = change(&mut underway);
        self.underway.set(underway.filter(|underway| !underway.is_at_rest()));
        result
    }

    /// Counts against the turn.
    fn spend(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.turn_bytes_left.set(self.turn_bytes_left.get().saturating_sub(bytes));
    }
}

/// Lets it happen once more, or says after how long it may.
fn keep_pace(rate: &Rate, pace: &Cell<Pace>, now: Instant) -> Result<(), Duration> {
    let mut after = pace.get();
    let admitted = rate.admit(&mut after, now);
    pace.set(after);
    admitted
}

impl Underway {
    fn is_at_rest(&self) -> bool {
        self.library.is_none()
            && self.ahead.is_empty()
            && self.pause.is_none()
            && self.end.is_none()
    }

    fn is_mid_frame(&self) -> bool {
        self.library.as_ref().is_some_and(|library| library.gate.payload_left() > 0)
    }

    fn ahead(&self) -> &Ahead {
        match &self.library {
            Some(library) => &library.stream.get_ref().ahead,
            None => &self.ahead,
        }
    }

    fn ahead_mut(&mut self) -> &mut Ahead {
        match &mut self.library {
            Some(library) => library.ahead_mut(),
            None => &mut self.ahead,
        }
    }
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.left().is_empty()
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes so many bytes off.
    fn take(&mut self, count: usize) {
        self.taken += count;
        self.admitted = self.admitted.max(self.taken);
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl Library {
    /// A stream that begins with the frame at the beginning of `ahead`, for messages of at most
    /// `message_bytes`.
    fn new(ahead: Ahead, message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(
                ahead.left().len().clamp(READ_BUFFER_BYTES, LARGEST_READ_BUFFER_BYTES),
            )
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER_BYTES)
            .max_message_size(Some(message_bytes))
            // Control frames have a limit of their own, and the gate one for each message's frames.
            .max_frame_size(Some(message_bytes.max(MAX_CONTROL_BYTES)));
        let pipe = Pipe { ahead, outgoing: Vec::new() };
        let making = WebSocketStream::from_raw_socket(pipe, Role::Server, Some(config));
        match pin!(making).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(stream) => Self { stream, gate: Gate::new(message_bytes), is_timed: false },
            Poll::Pending => unreachable!("it awaits nothing"),
        }
    }

    fn ahead_mut(&mut self) -> &mut Ahead {
        &mut self.stream.get_mut().ahead
    }

    /// Lets one frame in, or the part of it that has come; says how many bytes.
    fn admit(&mut self, may_control: impl FnOnce() -> bool) -> Result<usize, Ending> {
        let ahead = &mut self.stream.get_mut().ahead;
        let count = self.gate.admit(ahead.left(), may_control).map_err(Ending::of_violation)?;
        ahead.admitted = ahead.taken + count;
        Ok(count)
    }

    /// Has the stream take what was let in, and sends what it answers.
    fn poll(
        &mut self,
        outlet: &Outlet,
        cx: &mut Context<'_>,
        is_silent: bool,
    ) -> Result<Option<Message>, Ending> {
        let (mut message, mut closed) = (None, None);
        // The pipe needs no waker: who fills it looks here next.
        let noop = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(next) = Pin::new(&mut self.stream).poll_next(noop) {
            match next {
                Some(Ok(tungstenite::Message::Text(text))) => message = Some(Message::Text(text)),
                Some(Ok(tungstenite::Message::Binary(bytes))) => {
                    message = Some(Message::Binary(bytes));
                }
                Some(Ok(tungstenite::Message::Close(frame))) => {
                    closed = Some(frame.map_or(CloseCode::Status, |frame| frame.code));
                }
                Some(Ok(_)) => {}
                // The end of the stream comes after its Close.
                Some(Err(Error::ConnectionClosed)) | None => break,
                Some(Err(error)) => return Err(judge(&error)),
            }
        }
        let outgoing = std::mem::take(&mut self.stream.get_mut().outgoing);
        if !outgoing.is_empty() && !is_silent {
            outlet.send(cx, &outgoing, &[])?;
        }
        match closed {
            Some(code) => Err(Ending::ClosedByPeer(code)),
            None => Ok(message),
        }
    }
}

/// What an error of the protocol library means (RFC 6455 §7.4.1).
fn judge(error: &Error) -> Ending {
    let violation = |code, text| Ending::of_violation(CloseReason::new(code, text));
    match error {
        Error::Protocol(_) => violation(CloseCode::Protocol, "protocol error"),
        Error::Utf8(_) => violation(CloseCode::Invalid, "text is not UTF-8"),
        Error::Capacity(_) => violation(CloseCode::Size, "message too big"),
        _ => Ending::Lost,
    }
}

/// What the library takes for its connection.
struct Pipe {
    ahead: Ahead,
    outgoing: Vec<u8>,
}

impl AsyncRead for Pipe {
    /// Hands over what was admitted.
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let ahead = &mut self.ahead;
        let admitted = &ahead.bytes[ahead.taken..ahead.admitted];
        let count = admitted.len().min(buffer.len());
        if count == 0 {
            return Poll::Pending;
        }
        buffer[..count].copy_from_slice(&admitted[..count]);
        ahead.take(count);
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

/// How much a client may say before other tasks run, and then the rest of the frame at hand.
const TURN_BYTES: u32 = 4096;
/// What a message counts for in a turn at least: so sixteen messages are a turn, too.
const MESSAGE_COST_BYTES: usize = 256;
/// What a frame that is no message counts for beside its bytes.
const FRAME_COST_BYTES: usize = 64;
/// How large the library's read buffer is at first; a larger frame makes it grow. It is filled with zeros
/// for each frame, so a small one behind which much has come must not find a large one.
const READ_BUFFER_BYTES: usize = 256;
const LARGEST_READ_BUFFER_BYTES: usize = 4096;
/// The library writes only pongs and Closes, of 127 bytes at most.
const CONTROL_BUFFER_BYTES: usize = 1024;
