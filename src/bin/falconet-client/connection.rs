//! One connection, from its handshake to its end.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error};
use falconet::cli::show_time;
use falconet::net::{Timer, Transport};
use futures_lite::{AsyncRead, AsyncWrite, Stream, StreamExt};

use crate::message::MAX_MESSAGE_BYTES;
use crate::options::Options;
use crate::screen::escaped;

/// A WebSocket connection that phones home and knows when it is lost.
pub(crate) struct Connection {
    socket: WebSocketStream<Wire>,
    timer: Timer,
    ping_every: Option<Duration>,
    idle_timeout: Option<Duration>,
    opened: Instant,
    pinged: Instant,
    closing: Option<Instant>,
    alarm: falconet::net::Sleep,
    alarm_at: Instant,
}

/// What comes of a connection.
pub(crate) enum Happening {
    /// A message has come.
    Received(Message),
    /// A control frame has come, which needs no more than it got.
    Control,
    /// The connection is over.
    Over(End),
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The server answered our Close.
    Answered,
    /// The server sent a Close; 1005 stands for one without code.
    ClosedByServer(CloseCode, String),
    /// The connection broke; the server may still be told why.
    Lost(String, Option<CloseCode>),
}

impl Connection {
    /// Begins on an upgraded connection, on which `early` bytes have come already.
    pub(crate) async fn begin(transport: Transport, early: Vec<u8>, options: &Options) -> Self {
        let timer = transport.timer();
        let now = timer.now();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let wire = Wire::new(transport, now);
        let socket =
            WebSocketStream::from_partially_read(wire, early, Role::Client, Some(config)).await;
        let alarm_at = now + LONGEST_SLEEP;
        Self {
            socket,
            ping_every: options.ping_every,
            idle_timeout: options.idle_timeout,
            opened: now,
            pinged: now,
            closing: None,
            alarm: timer.sleep_until(alarm_at),
            alarm_at,
            timer,
        }
    }

    /// How long it has lasted.
    pub(crate) fn age(&self) -> Duration {
        self.timer.now() - self.opened
    }

    /// Whether our Close is on its way.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// How many bytes the kernel has not taken yet.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.socket.get_ref().unsent_bytes()
    }

    /// Sends a message. It is taken at once, whatever the server does: send the next one when there
    /// are few [`unsent_bytes`](Self::unsent_bytes).
    pub(crate) async fn send(&mut self, message: Message) {
        // An error is met again by the next poll, which says so.
        let _ = self.socket.send(message).await;
    }

    /// Sends a Close with 1000, once. The server's answer is waited for as long as the write of what
    /// is before it goes on, and 10 s from then.
    pub(crate) async fn close(&mut self) {
        if self.closing.is_none() {
            self.closing = Some(self.timer.now());
            self.send_close(CloseCode::Normal).await;
        }
    }

    /// Hands what is unsent to the kernel, as far as it takes it.
    pub(crate) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.get_mut().poll_drained(cx)
    }

    /// Says what comes next. With `is_reading` false nothing is read, and the server is not blamed
    /// for its silence.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>, is_reading: bool) -> Poll<Happening> {
        if is_reading {
            if let Poll::Ready(received) = Pin::new(&mut self.socket).poll_next(cx) {
                return Poll::Ready(self.name(received));
            }
        } else {
            let now = self.timer.now();
            self.socket.get_mut().heard = now;
            self.closing = self.closing.map(|_| now);
        }
        self.poll_deadlines(cx).map(Happening::Over)
    }

    /// Does what it takes to end well, within a second.
    pub(crate) async fn finish(&mut self, end: &End) {
        if let End::Lost(_, Some(code)) = end {
            self.send_close(*code).await;
        }
        let timer = self.timer.clone();
        let deadline = timer.sleep(Some(FINISH_TIMEOUT));
        match end {
            End::Answered | End::Lost(_, None) => {}
            End::ClosedByServer(..) => {
                // tungstenite has the answer ready; its next read writes it, and sees the end.
                let reading = async { while let Some(Ok(_)) = self.socket.next().await {} };
                timer.until(deadline, reading).await;
            }
            End::Lost(_, Some(_)) => {
                let wire = self.socket.get_mut();
                let drained = std::future::poll_fn(|cx| wire.poll_drained(cx));
                timer.until(deadline, drained).await;
            }
        }
        self.socket.get_ref().transport.shut_down();
    }

    async fn send_close(&mut self, code: CloseCode) {
        // An error is met again by the next poll, which says so.
        let _ = self.socket.close(Some(CloseFrame { code, reason: "".into() })).await;
    }

    /// Names what the protocol library has received.
    fn name(&self, received: Option<Result<Message, Error>>) -> Happening {
        use async_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        let lost = |why: String, code| Happening::Over(End::Lost(why, code));
        match received {
            Some(Ok(Message::Close(frame))) => Happening::Over(match frame {
                // With another code it is no answer: the server ended it before it had read all.
                Some(CloseFrame { code: CloseCode::Normal, .. }) | None if self.is_closing() => {
                    End::Answered
                }
                Some(frame) => End::ClosedByServer(frame.code, frame.reason.as_str().to_owned()),
                None => End::ClosedByServer(CloseCode::Status, String::new()),
            }),
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                Happening::Received(message)
            }
            Some(Ok(_)) => Happening::Control,
            None | Some(Err(Error::Protocol(ResetWithoutClosingHandshake))) => {
                lost("the server hung up without a Close".to_owned(), None)
            }
            Some(Err(Error::Io(error))) => lost(escaped(&error.to_string()), None),
            Some(Err(error)) => {
                let code = match error {
                    Error::Capacity(_) => CloseCode::Size,
                    Error::Utf8(_) => CloseCode::Invalid,
                    _ => CloseCode::Protocol,
                };
                lost(
                    format!("the server broke the rules: {}", escaped(&error.to_string())),
                    Some(code),
                )
            }
        }
    }

    /// Is ready when a deadline has passed that ends the connection; pings when that is due.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let now = self.timer.now();
            let wire = self.socket.get_ref();
            let mut first = now + LONGEST_SLEEP;
            let mut is_due = |since: Instant, limit: Duration| {
                first = first.min(since + limit);
                since + limit <= now
            };
            let lost = |why: String| Poll::Ready(End::Lost(why, None));
            if let Some(closing) = self.closing
                && is_due(closing.max(wire.progressed), CLOSE_TIMEOUT)
            {
                return lost("the server did not answer our Close within 10 s".to_owned());
            }
            if let Some(limit) = self.idle_timeout {
                if is_due(wire.heard, limit) {
                    return lost(format!(
                        "nothing heard from the server for {}",
                        show_time(Some(limit))
                    ));
                }
                if wire.unsent_bytes() > 0 && is_due(wire.progressed, limit) {
                    return lost(format!("the server took nothing for {}", show_time(Some(limit))));
                }
            }
            if let Some(every) = self.ping_every
                && self.closing.is_none()
                && is_due(self.pinged, every)
            {
                self.pinged = now;
                self.ping(cx);
                continue;
            }
            if self.alarm_at > first {
                self.alarm_at = first;
                self.alarm = self.timer.sleep_until(first);
            }
            ready!(Pin::new(&mut self.alarm).poll(cx));
            self.alarm_at = now + LONGEST_SLEEP;
            self.alarm = self.timer.sleep_until(self.alarm_at);
        }
    }

    /// Phones home, unless what is unsent does so.
    fn ping(&mut self, cx: &mut Context<'_>) {
        if self.unsent_bytes() == 0 {
            let mut ping = std::pin::pin!(self.socket.send(Message::Ping(Bytes::new())));
            // The wire takes it at once; an error is met again by the next poll.
            let _ = ping.as_mut().poll(cx);
        }
    }
}

impl End {
    /// Whether it ended as somebody wished.
    pub(crate) fn is_as_wished(&self) -> bool {
        matches!(self, Self::Answered | Self::ClosedByServer(CloseCode::Normal, _))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("closed"),
            Self::ClosedByServer(code, text) => {
                let space = if text.is_empty() { "" } else { " " };
                write!(f, "closed by the server: {}{space}{}", u16::from(*code), escaped(text))
            }
            Self::Lost(why, _) => write!(f, "lost: {why}"),
        }
    }
}

/// What stands between the socket and the protocol library: it takes every frame at once, so that a
/// send never waits in the way of reading, and notes when something moved.
struct Wire {
    transport: Transport,
    unsent: Vec<u8>,
    sent: usize,
    broken: bool,
    heard: Instant,
    progressed: Instant,
    turn_bytes_left: usize,
}

impl Wire {
    fn new(transport: Transport, now: Instant) -> Self {
        let turn_bytes_left = TURN_BYTES;
        Self {
            transport,
            unsent: Vec::new(),
            sent: 0,
            broken: false,
            heard: now,
            progressed: now,
            turn_bytes_left,
        }
    }

    fn unsent_bytes(&self) -> usize {
        self.unsent.len() - self.sent
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.unsent_bytes() > 0 && !self.broken {
            let rest = IoSlice::new(&self.unsent[self.sent..]);
            match ready!(self.transport.poll_send(cx, &[rest])) {
                Ok(count) => self.sent += count,
                // What the server said before is still to be read, perhaps a Close with its reason;
                // the read after that meets the end.
                Err(_) => self.broken = true,
            }
            self.progressed = self.transport.timer().now();
        }
        self.unsent.clear();
        self.unsent.shrink_to(READ_BUFFER_BYTES);
        self.sent = 0;
        Poll::Ready(())
    }
}

impl AsyncRead for Wire {
    /// Yields now and then: the protocol library reads on within itself, over fragments without end.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.turn_bytes_left == 0 {
            self.turn_bytes_left = TURN_BYTES;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = ready!(self.transport.poll_recv(cx, buffer))?;
        self.turn_bytes_left = self.turn_bytes_left.saturating_sub(count);
        self.heard = self.transport.timer().now();
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unsent_bytes() + bytes.len() > MAX_UNSENT_BYTES {
            // Only pongs get here: see `Connection::send`.
            return Poll::Ready(Err(io::Error::other("the server pings but does not read")));
        }
        if self.unsent_bytes() == 0 {
            self.progressed = self.transport.timer().now();
        }
        self.unsent.extend_from_slice(bytes);
        let _ = self.poll_drained(cx);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.shut_down();
        Poll::Ready(Ok(()))
    }
}

/// One message, the keystrokes after it, its frame header and some pongs.
const MAX_UNSENT_BYTES: usize = MAX_MESSAGE_BYTES + (1 << 20);
/// How long the server may take to answer our Close (article).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a last word may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// Without a deadline to wait for, the deadlines are looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// How much may be read before the keyboard, the clock and signals are looked at again.
const TURN_BYTES: usize = 256 * 1024;
