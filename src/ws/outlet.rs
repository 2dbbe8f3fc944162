//! The way out to one client: whole units, of which at most one is kept for it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::config::Config;
use crate::hub::Client;
use crate::net::Transport;

/// Sends whole frames or events on a client's connection. What the kernel does not take of one is kept,
/// and the client's record says since when.
pub(crate) struct Outlet {
    transport: Transport,
    client: Rc<Client>,
    config: Rc<Config>,
    unsent: Option<Rest>,
}

/// What the kernel has not taken of one unit; who wait for the same share it.
struct Rest {
    unit: Rc<[u8]>,
    sent: usize,
}

impl Outlet {
    /// An outlet with nothing unsent.
    pub(crate) fn new(transport: Transport, client: Rc<Client>, config: Rc<Config>) -> Self {
        Self { transport, client, config, unsent: None }
    }

    /// The socket beneath.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The record of who is sent to.
    pub(crate) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// The server's settings.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Is ready once everything accepted so far is with the kernel.
    pub(crate) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(rest) = &mut self.unsent else { return Poll::Ready(Ok(())) };
        while rest.sent < rest.unit.len() {
            let bytes = IoSlice::new(&rest.unit[rest.sent..]);
            rest.sent += ready!(self.transport.poll_send(cx, &[bytes]))?;
        }
        self.unsent = None;
        let now = self.transport.timer().now();
        self.client.write_unblocked(now, &self.config.timeouts);
        Poll::Ready(Ok(()))
    }

    /// Waits until everything accepted so far is with the kernel.
    ///
    /// # Cancel safety
    /// Nothing is lost: the rest is kept.
    pub(crate) async fn drained(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_drained(cx)).await
    }

    /// Accepts one whole frame, given in two parts; what the kernel does not take is kept, and goes
    /// first. Must be drained before, so that no more than a frame is ever kept.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        tail: &[u8],
    ) -> io::Result<()> {
        let mut small = [0; SMALL_FRAME_BYTES];
        let slices = [IoSlice::new(head), IoSlice::new(tail)];
        let whole = [IoSlice::new(join(&mut small, head, tail))];
        // One slice is cheaper for the kernel than two, and a few bytes are quickly copied.
        let slices = if whole[0].is_empty() { &slices[..] } else { &whole[..] };
        let sent = self.try_send(cx, slices)?;
        if sent < head.len() + tail.len() {
            let rest = [&head[sent.min(head.len())..], &tail[sent.saturating_sub(head.len())..]];
            self.keep(rest.concat().into(), 0);
        }
        Ok(())
    }

    /// The same for one that others are sent, too: what is kept of it is no copy.
    pub(crate) fn send_shared(&mut self, cx: &mut Context<'_>, unit: &Rc<[u8]>) -> io::Result<()> {
        let sent = self.try_send(cx, &[IoSlice::new(unit)])?;
        if sent < unit.len() {
            self.keep(unit.clone(), sent);
        }
        Ok(())
    }

    fn try_send(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.transport.poll_send(cx, slices) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(0),
        }
    }

    fn keep(&mut self, unit: Rc<[u8]>, sent: usize) {
        self.unsent = Some(Rest { unit, sent });
        let now = self.transport.timer().now();
        self.client.write_blocked(now, &self.config.timeouts);
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
