//! A WebSocket connection, from the end of its handshake to its close.

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

/// A WebSocket connection that pings the server and detects when it is lost.
pub(crate) struct Connection {
    socket: WebSocketStream<Wire>,
    timer: Timer,
    ping_every: Option<Duration>,
    idle_timeout: Option<Duration>,
    opened: Instant,
    pinged: Instant,
    /// The time from which the server's answer to the client's Close is awaited.
    closing: Option<Instant>,
    /// The timer of the next deadline, and its time.
    alarm: falconet::net::Sleep,
    alarm_at: Instant,
}

/// An event of a connection.
pub(crate) enum ConnectionEvent {
    /// A message was received.
    Received(Message),
    /// A control frame was received and has been answered if necessary.
    Control,
    /// The connection has ended.
    Ended(End),
}

/// The end of a connection.
#[derive(Debug)]
pub(crate) enum End {
    /// The server answered the client's Close.
    Answered,
    /// The server sent a Close with this code and reason; 1005 stands for a Close without a code.
    ClosedByServer(CloseCode, String),
    /// The connection was lost for this reason. If there is a code, a Close with this code can still be sent.
    Lost(String, Option<CloseCode>),
}

impl Connection {
    /// Creates a connection on an upgraded transport that has already received the bytes `early`.
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

    /// Returns the time since the connection was opened.
    pub(crate) fn age(&self) -> Duration {
        self.timer.now() - self.opened
    }

    /// Returns true if [`close`](Self::close) has been called.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns the number of bytes that the kernel has not accepted yet.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.socket.get_ref().unsent_bytes()
    }

    /// Sends a message. The message is buffered without waiting for the server, so the caller must send the
    /// next one only when there are few [`unsent_bytes`](Self::unsent_bytes).
    pub(crate) async fn send(&mut self, message: Message) {
        // The next poll returns the error again and reports it.
        let _ = self.socket.send(message).await;
    }

    /// Sends a Close with 1000, once. The server has 10 s to answer, counted from the last progress in
    /// sending the bytes before the Close.
    pub(crate) async fn close(&mut self) {
        if self.closing.is_none() {
            self.closing = Some(self.timer.now());
            self.send_close(CloseCode::Normal).await;
        }
    }

    /// Writes unsent bytes to the kernel. Completes when none are left.
    pub(crate) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.get_mut().poll_drained(cx)
    }

    /// Returns the next event. If `is_reading` is false, nothing is read, and the deadlines that wait
    /// for the server to send something do not run.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        is_reading: bool,
    ) -> Poll<ConnectionEvent> {
        if is_reading {
            if let Poll::Ready(received) = Pin::new(&mut self.socket).poll_next(cx) {
                return Poll::Ready(self.event_of(received));
            }
        } else {
            let now = self.timer.now();
            self.socket.get_mut().received_at = now;
            self.closing = self.closing.map(|_| now);
        }
        self.poll_deadlines(cx).map(ConnectionEvent::Ended)
    }

    /// Completes the closing handshake if the end requires it, for at most one second, and shuts the
    /// transport down.
    pub(crate) async fn finish(&mut self, end: &End) {
        if let End::Lost(_, Some(code)) = end {
            self.send_close(*code).await;
        }
        let timer = self.timer.clone();
        let deadline = timer.sleep(Some(FINISH_TIMEOUT));
        match end {
            End::Answered | End::Lost(_, None) => {}
            End::ClosedByServer(..) => {
                // tungstenite has queued the answer. Its next read writes the answer and then reaches the
                // end of the stream.
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
        // The next poll returns the error again and reports it.
        let _ = self.socket.close(Some(CloseFrame { code, reason: "".into() })).await;
    }

    /// Converts an item of the WebSocket library into an event.
    fn event_of(&self, received: Option<Result<Message, Error>>) -> ConnectionEvent {
        use async_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        let lost = |reason: String, code| ConnectionEvent::Ended(End::Lost(reason, code));
        match received {
            Some(Ok(Message::Close(frame))) => ConnectionEvent::Ended(match frame {
                // A Close with another code is not an answer: the server closed before it had read
                // all messages.
                Some(CloseFrame { code: CloseCode::Normal, .. }) | None if self.is_closing() => {
                    End::Answered
                }
                Some(frame) => End::ClosedByServer(frame.code, frame.reason.as_str().to_owned()),
                None => End::ClosedByServer(CloseCode::Status, String::new()),
            }),
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                ConnectionEvent::Received(message)
            }
            Some(Ok(_)) => ConnectionEvent::Control,
            None | Some(Err(Error::Protocol(ResetWithoutClosingHandshake))) => {
                lost("the server closed the connection without a Close frame".to_owned(), None)
            }
            Some(Err(Error::Io(error))) => lost(escaped(&error.to_string()), None),
            Some(Err(error)) => {
                let code = match error {
                    Error::Capacity(_) => CloseCode::Size,
                    Error::Utf8(_) => CloseCode::Invalid,
                    _ => CloseCode::Protocol,
                };
                lost(
                    format!("the server violated the protocol: {}", escaped(&error.to_string())),
                    Some(code),
                )
            }
        }
    }

    /// Sends a Ping when one is due. Completes when a deadline that ends the connection has passed.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let now = self.timer.now();
            let wire = self.socket.get_ref();
            let mut first = now + LONGEST_SLEEP;
            let mut is_due = |since: Instant, limit: Duration| {
                first = first.min(since + limit);
                since + limit <= now
            };
            let lost = |reason: String| Poll::Ready(End::Lost(reason, None));
            if let Some(closing) = self.closing
                && is_due(closing.max(wire.progressed_at), CLOSE_TIMEOUT)
            {
                return lost("the server did not answer our Close within 10 s".to_owned());
            }
            if let Some(limit) = self.idle_timeout {
                if is_due(wire.received_at, limit) {
                    return lost(format!(
                        "nothing received from the server for {}",
                        show_time(Some(limit))
                    ));
                }
                if wire.unsent_bytes() > 0 && is_due(wire.progressed_at, limit) {
                    return lost(format!(
                        "the server accepted no data for {}",
                        show_time(Some(limit))
                    ));
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

    /// Sends a Ping, unless unsent bytes show the server that the client is alive.
    fn ping(&mut self, cx: &mut Context<'_>) {
        if self.unsent_bytes() == 0 {
            let mut ping = std::pin::pin!(self.socket.send(Message::Ping(Bytes::new())));
            // The Ping is buffered at once. The next poll returns an error again.
            let _ = ping.as_mut().poll(cx);
        }
    }
}

impl End {
    /// Returns true if either side closed the connection normally.
    pub(crate) fn is_success(&self) -> bool {
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
            Self::Lost(reason, _) => write!(f, "lost: {reason}"),
        }
    }
}

/// The stream between the transport and the WebSocket library. It buffers every frame at once, so that a
/// blocked write never prevents reading, and records the times of progress.
struct Wire {
    transport: Transport,
    unsent: Vec<u8>,
    sent: usize,
    /// True if a write has failed.
    broken: bool,
    /// The time of the last read that returned bytes.
    received_at: Instant,
    /// The last time at which the kernel accepted bytes, or bytes were added to the empty buffer.
    progressed_at: Instant,
    /// Bytes that may be read before the task yields.
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
            received_at: now,
            progressed_at: now,
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
                // The server may have sent a Close with a reason before the error, which must still be read.
                // The next read after the Close reaches the end of the stream.
                Err(_) => self.broken = true,
            }
            self.progressed_at = self.transport.timer().now();
        }
        self.unsent.clear();
        self.unsent.shrink_to(READ_BUFFER_BYTES);
        self.sent = 0;
        Poll::Ready(())
    }
}

impl AsyncRead for Wire {
    /// Reads bytes. Yields after [`TURN_BYTES`], because the WebSocket library reads all fragments of a
    /// message in one poll.
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
        self.received_at = self.transport.timer().now();
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
            // Only Pongs exceed the limit: see `Connection::send`.
            return Poll::Ready(Err(io::Error::other("the server sends Pings but does not read")));
        }
        if self.unsent_bytes() == 0 {
            self.progressed_at = self.transport.timer().now();
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

/// The limit on unsent bytes: one message, the keystrokes after it, a frame header and some Pongs.
const MAX_UNSENT_BYTES: usize = MAX_MESSAGE_BYTES + (1 << 20);
/// Longest time for the server to answer the client's Close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for sending the last frames.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval at which deadlines are checked if none is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes read in one turn before input, deadlines and signals are polled again.
const TURN_BYTES: usize = 256 * 1024;
