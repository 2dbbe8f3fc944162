//! Sends whole frames or events to one client, and buffers little more than one frame or event.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::Bytes;

use crate::features::Feature;
use crate::frame::{CloseReason, Frame, Message};
use crate::hub::{Client, Membership};
use crate::net::{BYTES_PER_TURN, Held, Transport};

use super::shared::SessionShared;

/// The sending side of a client's connection, which sends whole frames or events. If the kernel accepts only
/// a part of one, the rest is kept, and the time is noted in the client's record. Replies to messages that
/// were received together may be kept, too, so that they are sent together. Dropping the outlet removes the
/// client from the hub.
pub(crate) struct Outlet {
    transport: Transport,
    client: Rc<Client>,
    shared: Rc<SessionShared>,
    unsent: Cell<Option<Box<Unsent>>>,
}

/// Bytes that the kernel has not accepted yet.
struct Unsent {
    unit: Unit,
    sent: usize,
    /// True if the bytes wait for the client to read; false if they wait for more replies to be sent with
    /// them.
    is_blocked: bool,
    held: Held,
}

/// The deliveries and the bytes that a client was sent in this turn of the reactor.
#[derive(Default)]
pub(crate) struct TurnShare {
    deliveries: usize,
    bytes: usize,
}

enum Unit {
    /// A frame for several clients. The outlets that have not sent all of it share it.
    Frame(Frame),
    /// The same for an event.
    Event(Rc<[u8]>),
    /// The payload of a large message, after the header has been sent.
    Payload(Bytes),
    Own(Vec<u8>),
}

impl Outlet {
    /// Creates an outlet with nothing unsent.
    pub(crate) fn new(
        transport: Transport,
        membership: Membership,
        shared: Rc<SessionShared>,
    ) -> Self {
        Self { transport, client: membership.into_client(), shared, unsent: Cell::new(None) }
    }

    /// Returns the connection.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Returns the hub's record of the client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the state that all sessions share.
    pub(crate) fn shared(&self) -> &SessionShared {
        &self.shared
    }

    /// Evicts the client if `held` was chosen to be given up, because the memory for unfinished input and output is
    /// used up. Otherwise, that choice wakes the task of `cx`.
    ///
    /// # Errors
    /// [`is_eviction`](crate::net::is_eviction).
    pub(super) fn check_held(&self, held: &Held, cx: &mut Context<'_>) -> io::Result<()> {
        held.check(cx).inspect_err(|_| self.client.abort(CloseReason::OVERLOADED))
    }

    /// Waits until the kernel has accepted everything sent so far, as [`drained`](Self::drained) does.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unsent.take() {
            None => Poll::Ready(Ok(())),
            Some(unsent) => self.poll_unsent(unsent, cx),
        }
    }

    /// Waits until the kernel has accepted everything sent so far.
    ///
    /// # Cancel safety
    /// Nothing is lost: the rest is kept.
    pub(crate) async fn drained(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_drained(cx)).await
    }

    /// Waits while a write is blocked because the client does not read.
    pub(crate) fn poll_unblocked(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unsent = self.unsent.take();
        let is_blocked = unsent.as_ref().is_some_and(|unsent| unsent.is_blocked);
        self.unsent.set(unsent);
        if is_blocked { self.poll_drained(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Sends one whole frame, given in two parts. The bytes that the kernel does not accept are kept, and are
    /// sent before the next frame. Must be called only when [unblocked](Self::poll_unblocked), so that never
    /// more than one frame and the corked replies are kept.
    pub(crate) fn send(&self, cx: &mut Context<'_>, head: &[u8], tail: &[u8]) -> io::Result<()> {
        let sent = self.send_parts(cx, head, tail)?;
        if sent < head.len() + tail.len() {
            let rest = [&head[sent.min(head.len())..], &tail[sent.saturating_sub(head.len())..]];
            self.keep(Unit::Own(rest.concat()), 0);
        }
        Ok(())
    }

    /// Sends a message as [`send`](Self::send) does. If the rest of a large message must be kept, it is not
    /// copied.
    pub(crate) fn send_message(&self, cx: &mut Context<'_>, message: &Message) -> io::Result<()> {
        let (header, payload) = (message.header(), message.payload());
        if !Feature::Full.is_built_in() || payload.len() < LARGE_PAYLOAD_BYTES {
            return self.send(cx, &header, payload);
        }
        let sent = self.send_parts(cx, &header, payload)?;
        if sent < header.len() {
            self.keep(Unit::Own([&header[sent..], payload].concat()), 0);
        } else if sent < header.len() + payload.len() {
            self.keep(Unit::Payload(message.shared_payload()), sent - header.len());
        }
        Ok(())
    }

    /// Sends one whole frame, given in two parts. Returns the number of bytes that were accepted or are kept.
    fn send_parts(&self, cx: &mut Context<'_>, head: &[u8], tail: &[u8]) -> io::Result<usize> {
        if let Some(unsent) = self.unsent.take() {
            self.unsent.set(Some(unsent));
            self.cork(head, tail);
            return self.try_drain(cx).map(|()| head.len() + tail.len());
        }
        let mut small = [0; SMALL_FRAME_BYTES];
        let slices = [IoSlice::new(head), IoSlice::new(tail)];
        let whole = [IoSlice::new(join(&mut small, head, tail))];
        // Copying a few bytes costs less than passing two slices to the kernel.
        let slices = if whole[0].is_empty() { &slices[..] } else { &whole[..] };
        self.try_send(cx, slices)
    }

    /// Keeps one whole frame, given in two parts, to be sent together with the next one. Returns false if so
    /// much is kept that it should be sent now. Must be called only when [unblocked](Self::poll_unblocked).
    pub(crate) fn cork(&self, head: &[u8], tail: &[u8]) -> bool {
        let mut unsent = self
            .unsent
            .take()
            .unwrap_or_else(|| Box::new(Unsent::new(Unit::Own(Vec::new()), 0, false)));
        let has_room = match &mut unsent.unit {
            Unit::Own(bytes) => {
                bytes.extend_from_slice(head);
                bytes.extend_from_slice(tail);
                bytes.len() < CORKED_BYTES
            }
            Unit::Frame(_) | Unit::Event(_) | Unit::Payload(_) => {
                unreachable!("a shared unit is kept only while blocked")
            }
        };
        self.unsent.set(Some(unsent));
        has_room
    }

    /// Sends a frame that is also sent to other clients. If the rest must be kept, it is shared, not copied.
    /// Must be called only when [drained](Self::poll_drained).
    pub(crate) fn send_frame(&self, cx: &mut Context<'_>, frame: &Frame) -> io::Result<()> {
        let sent = self.try_send(cx, &[IoSlice::new(frame)])?;
        if sent < frame.len() {
            self.keep(Unit::Frame(frame.clone()), sent);
        }
        Ok(())
    }

    /// Sends an event as [`send_frame`](Self::send_frame) sends a frame.
    pub(crate) fn send_event(&self, cx: &mut Context<'_>, event: &Rc<[u8]>) -> io::Result<()> {
        let sent = self.try_send(cx, &[IoSlice::new(event)])?;
        if sent < event.len() {
            self.keep(Unit::Event(event.clone()), sent);
        }
        Ok(())
    }

    /// Sends as many of the kept bytes as the kernel accepts, while the endpoint waits for something else.
    pub(crate) fn push(&self, cx: &mut Context<'_>) {
        let Some(unsent) = self.unsent.take() else { return };
        let was_blocked = unsent.is_blocked;
        // An error is ignored here: the session's next call returns it.
        if self.poll_drain(unsent, cx).is_ready() && was_blocked {
            // The session may wait with another waker than this one. The bell wakes it.
            self.client().bell.ring();
        }
    }

    /// Sends as many of the kept bytes as the kernel accepts.
    pub(crate) fn try_drain(&self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_drained(cx) {
            Poll::Ready(drained) => drained,
            Poll::Pending => Ok(()),
        }
    }

    #[inline(never)] // Cold path: usually nothing is kept.
    fn poll_unsent(&self, unsent: Box<Unsent>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let drained = self.poll_drain(unsent, cx);
        if drained.is_pending() {
            // A later `push` registers its own waker with the socket, and rings the bell when it is done.
            self.client().bell.listen(cx);
        }
        drained
    }

    /// Sends the kept bytes. While that is blocked, they are kept, and the client's progress is recorded.
    fn poll_drain(&self, mut unsent: Box<Unsent>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Err(error) = self.check_held(&unsent.held, cx) {
            // Frees the memory. The next call fails, too: nothing can follow a part of a frame.
            unsent.unit = Unit::Own(Vec::new());
            self.hold(&unsent);
            self.unsent.set(Some(unsent));
            return Poll::Ready(Err(error));
        }
        let (now, mut share) = (self.transport.timer().now(), TurnShare::default());
        // Without topics and files, a build serves no peer that reads for long.
        let renews = Feature::Full.is_built_in();
        if renews && unsent.is_blocked && self.client().is_write_probed() {
            self.transport.assume_writable();
        }
        while unsent.sent < unsent.unit.len() {
            let bytes = &unsent.unit[unsent.sent..];
            let sent = match self.poll_piece(cx, bytes, &mut share) {
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(error)) => {
                    self.unsent.set(Some(unsent));
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    if !std::mem::replace(&mut unsent.is_blocked, true) {
                        self.client().write_blocked(now);
                    }
                    self.hold(&unsent);
                    let kept = self.check_held(&unsent.held, cx);
                    self.unsent.set(Some(unsent));
                    return kept.map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending);
                }
            };
            unsent.sent += sent;
            if renews && unsent.is_blocked {
                self.client().write_progressed(sent, now);
            }
        }
        if unsent.is_blocked {
            self.client().write_unblocked(now);
        }
        Poll::Ready(Ok(()))
    }

    /// Counts the kept bytes against the server's budget for unfinished output.
    fn hold(&self, unsent: &Unsent) {
        let bytes = match &unsent.unit {
            // The topic's log and all outlets that have not sent it share the memory.
            Unit::Frame(frame) => frame.len() / frame.holders(),
            Unit::Event(event) => event.len() / Rc::strong_count(event),
            Unit::Payload(bytes) => bytes.len(),
            Unit::Own(bytes) => bytes.capacity(),
        };
        let address = || self.client().peer().limited_prefix();
        unsent.held.set(self.transport.pending(), bytes, address);
    }

    /// Sends some of `bytes`. A client that reads as fast as it is sent to must not take the thread, so the
    /// number of bytes in one turn is limited.
    fn poll_piece(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        share: &mut TurnShare,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_share(cx, share));
        let piece = &bytes[..bytes.len().min(BYTES_PER_TURN)];
        let sent = ready!(self.transport.poll_send(cx, &[IoSlice::new(piece)]))?;
        share.bytes += sent;
        Poll::Ready(Ok(sent))
    }

    /// Waits for a later turn once the client has been sent its share of this one.
    pub(crate) fn poll_share(&self, cx: &mut Context<'_>, share: &TurnShare) -> Poll<()> {
        if !Feature::Full.is_built_in() {
            // A build without topics has no replay.
            return Poll::Ready(());
        }
        if share.deliveries >= DELIVERIES_PER_TURN || share.bytes >= BYTES_PER_TURN {
            self.transport.defer();
        }
        self.transport.poll_turn(cx)
    }

    fn try_send(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.transport.poll_send(cx, slices) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(0),
        }
    }

    fn keep(&self, unit: Unit, sent: usize) {
        let unsent = Box::new(Unsent::new(unit, sent, true));
        self.hold(&unsent);
        self.unsent.set(Some(unsent));
        self.client().write_blocked(self.transport.timer().now());
    }
}

impl Unsent {
    fn new(unit: Unit, sent: usize, is_blocked: bool) -> Self {
        Self { unit, sent, is_blocked, held: Held::default() }
    }
}

impl TurnShare {
    /// Counts a delivery with this number of bytes.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.deliveries += 1;
        self.bytes += bytes;
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.shared.hub.remove(&self.client);
    }
}

impl Deref for Unit {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Frame(frame) => frame,
            Self::Event(bytes) => bytes,
            Self::Payload(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// Returns the concatenation of two slices, copied into `space` if necessary. Returns an empty slice if they
/// do not fit.
fn join<'s>(space: &'s mut [u8], head: &'s [u8], tail: &[u8]) -> &'s [u8] {
    let length = head.len() + tail.len();
    if tail.is_empty() {
        return head;
    }
    let Some(joined) = space.get_mut(..length) else { return &[] };
    joined[..head.len()].copy_from_slice(head);
    joined[head.len()..].copy_from_slice(tail);
    joined
}

/// Payloads from this size are not copied. Smaller ones may share memory with those of other clients.
const LARGE_PAYLOAD_BYTES: usize = 64 * 1024;
/// Frames up to this size are copied into one piece before they are sent.
const SMALL_FRAME_BYTES: usize = 256;
/// The number of messages of the hub after which a client waits for a later turn.
const DELIVERIES_PER_TURN: usize = 64;
/// Corked replies are sent once they reach this size.
const CORKED_BYTES: usize = 16 * 1024;
