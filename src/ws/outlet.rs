//! The way out to one client: whole units, of which hardly more than one is kept for it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::hub::{Client, Membership};
use crate::net::Transport;

/// Sends whole frames or events on a client's connection. What the kernel does not take of one is kept,
/// and the client's record says since when. Replies to messages that came together may be kept, too, to
/// be sent together.
pub(crate) struct Outlet {
    transport: Transport,
    membership: Membership,
    unsent: Cell<Option<Box<Unsent>>>,
}

/// What is not yet with the kernel.
struct Unsent {
    unit: Unit,
    sent: usize,
    /// Whether it waits for the client to read; else, for more replies to go with it.
    is_blocked: bool,
}

enum Unit {
    /// One that others are sent, too: who waits for the same shares it.
    Shared(Rc<[u8]>),
    Own(Vec<u8>),
}

impl Outlet {
    /// An outlet with nothing unsent.
    pub(crate) fn new(transport: Transport, membership: Membership) -> Self {
        Self { transport, membership, unsent: Cell::new(None) }
    }

    /// The socket beneath.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// What the client has of the hub.
    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The record of who is sent to.
    pub(crate) fn client(&self) -> &Client {
        self.membership.client()
    }

    /// Is ready once everything accepted so far is with the kernel.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unsent.take() {
            None => Poll::Ready(Ok(())),
            Some(unsent) => self.poll_unsent(unsent, cx),
        }
    }

    /// Waits until everything accepted so far is with the kernel.
    ///
    /// # Cancel safety
    /// Nothing is lost: the rest is kept.
    pub(crate) async fn drained(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_drained(cx)).await
    }

    /// Is ready unless the client does not read what it was sent.
    pub(crate) fn poll_unblocked(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unsent = self.unsent.take();
        let is_blocked = unsent.as_ref().is_some_and(|unsent| unsent.is_blocked);
        self.unsent.set(unsent);
        if is_blocked { self.poll_drained(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Accepts one whole frame, given in two parts; what the kernel does not take is kept, and goes
    /// first. Must be unblocked before, so that no more than a frame and what is corked is ever kept.
    pub(crate) fn send(&self, cx: &mut Context<'_>, head: &[u8], tail: &[u8]) -> io::Result<()> {
        if let Some(unsent) = self.unsent.take() {
            self.unsent.set(Some(unsent));
            self.cork(head, tail);
            return self.try_drain(cx);
        }
        let mut small = [0; SMALL_FRAME_BYTES];
        let slices = [IoSlice::new(head), IoSlice::new(tail)];
        let whole = [IoSlice::new(join(&mut small, head, tail))];
        // One slice is cheaper for the kernel than two, and a few bytes are quickly copied.
        let slices = if whole[0].is_empty() { &slices[..] } else { &whole[..] };
        let sent = self.try_send(cx, slices)?;
        if sent < head.len() + tail.len() {
            let rest = [&head[sent.min(head.len())..], &tail[sent.saturating_sub(head.len())..]];
            self.keep(Unit::Own(rest.concat()), 0);
        }
        Ok(())
    }

    /// Accepts one whole frame, given in two parts, to be sent with what is accepted next. Says false if
    /// enough is kept so already. Must be unblocked before.
    pub(crate) fn cork(&self, head: &[u8], tail: &[u8]) -> bool {
        let mut unsent = self.unsent.take().unwrap_or_else(|| {
            Box::new(Unsent { unit: Unit::Own(Vec::new()), sent: 0, is_blocked: false })
        });
        let has_room = match &mut unsent.unit {
            Unit::Own(bytes) => {
                bytes.extend_from_slice(head);
                bytes.extend_from_slice(tail);
                bytes.len() < CORKED_BYTES
            }
            Unit::Shared(_) => unreachable!("only what is blocked is shared"),
        };
        self.unsent.set(Some(unsent));
        has_room
    }

    /// Accepts one that others are sent, too: what is kept of it is no copy. Must be drained before.
    pub(crate) fn send_shared(&self, cx: &mut Context<'_>, unit: &Rc<[u8]>) -> io::Result<()> {
        let sent = self.try_send(cx, &[IoSlice::new(unit)])?;
        if sent < unit.len() {
            self.keep(Unit::Shared(unit.clone()), sent);
        }
        Ok(())
    }

    /// Sends what it can of what is unsent, while the session does nothing for it.
    pub(crate) fn push(&self, cx: &mut Context<'_>) {
        let Some(unsent) = self.unsent.take() else { return };
        let was_blocked = unsent.is_blocked;
        // If it fails, the session's next call finds it.
        if self.poll_drain(unsent, cx).is_ready() && was_blocked {
            // Whoever waits for that may do so by another waker than this one.
            self.client().bell.ring();
        }
    }

    /// Sends what is corked.
    pub(crate) fn try_drain(&self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_drained(cx) {
            Poll::Ready(drained) => drained,
            Poll::Pending => Ok(()),
        }
    }

    #[inline(never)] // Mostly there is nothing, and that is told by a glance.
    fn poll_unsent(&self, unsent: Box<Unsent>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let drained = self.poll_drain(unsent, cx);
        if drained.is_pending() {
            // `push` may take over the waiting for the socket, and rings then.
            self.client().bell.listen(cx);
        }
        drained
    }

    fn poll_drain(&self, mut unsent: Box<Unsent>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while unsent.sent < unsent.unit.len() {
            let bytes = IoSlice::new(&unsent.unit[unsent.sent..]);
            let Poll::Ready(sent) = self.transport.poll_send(cx, &[bytes]) else {
                if !std::mem::replace(&mut unsent.is_blocked, true) {
                    self.client().write_blocked(self.transport.timer().now());
                }
                self.unsent.set(Some(unsent));
                return Poll::Pending;
            };
            unsent.sent += sent?;
        }
        if unsent.is_blocked {
            self.client().write_unblocked(self.transport.timer().now());
        }
        Poll::Ready(Ok(()))
    }

    fn try_send(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.transport.poll_send(cx, slices) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(0),
        }
    }

    fn keep(&self, unit: Unit, sent: usize) {
        self.unsent.set(Some(Box::new(Unsent { unit, sent, is_blocked: true })));
        self.client().write_blocked(self.transport.timer().now());
    }
}

impl Deref for Unit {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// Joins two slices in `space`, or in neither of them nothing, if they are too long for it.
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

/// Frames up to this size are sent from one piece.
const SMALL_FRAME_BYTES: usize = 256;
/// With this much waiting to be sent together, it is sent.
const CORKED_BYTES: usize = 16 * 1024;
