//! A connection after the upgrade, as an endpoint sees it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures_lite::future;
use pin_project_lite::pin_project;

use crate::access::AddressPermit;
use crate::config::SlowConsumer;
use crate::frame::{CloseCode, CloseReason, Frame, Message};
use crate::hub::{Client, ClientId, CorrelationId, Delivery, HubHandle, Membership};
use crate::net::{Peer, Timer, Transport};

use super::end::{Ending, SessionEnd};
use super::outlet::Outlet;
use super::shared::SessionShared;
use super::socket::Socket;

/// One WebSocket client, from its handshake to its end.
///
/// While [`next`](Self::next) waits for the client's message it also sends what the hub has for it,
/// answers pings, and notices when the session must end: an endpoint should be waiting there whenever
/// it has nothing else to do.
pub struct Session {
    state: Rc<State>,
}

struct State {
    outlet: Outlet,
    _permit: Option<AddressPermit>,
    socket: Socket,
}

impl Session {
    /// Begins a session on an upgraded connection, whose peer may have sent `early` bytes already.
    pub(crate) fn begin(
        transport: Transport,
        early: Vec<u8>,
        permit: Option<AddressPermit>,
        membership: Membership,
        shared: Rc<SessionShared>,
    ) -> Self {
        let outlet = Outlet::new(transport, membership, shared);
        let socket = Socket::new(early);
        Self { state: Rc::new(State { outlet, _permit: permit, socket }) }
    }

    /// Has `serve` serve this session, logs how it ends, and whenever it waits for anything sends what it
    /// has said.
    pub(crate) fn served_by<S>(self, serve: impl FnOnce(Self) -> S) -> impl Future<Output = ()>
    where
        S: Future<Output = SessionEnd>,
    {
        let state = self.state.clone();
        Served { serving: serve(self), state }
    }

    /// The client's next message; `None` once the session has ended.
    ///
    /// # Cancel safety
    /// No message is lost: one is taken only when it is returned. But this also ends a session that
    /// must end; dropped meanwhile, it may leave our Close unsent, and waits no longer for its answer.
    // No `async fn`, whose future would have room for the message beside the end.
    #[allow(clippy::should_implement_trait, reason = "it is awaited")]
    pub fn next(&mut self) -> impl Future<Output = Option<Message>> + use<'_> {
        let state = &*self.state;
        let mut finishing: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
        poll_fn(move |cx| {
            if finishing.is_none() && state.end().is_none() {
                match ready!(state.poll_message(cx)) {
                    Ok(message) => {
                        state.client().count_received();
                        return Poll::Ready(Some(message));
                    }
                    Err(ending) => finishing = Some(Box::pin(state.finish(ending))),
                }
            }
            if let Some(finishing) = &mut finishing {
                ready!(finishing.as_mut().poll(cx));
            }
            Poll::Ready(None)
        })
    }

    /// Sends a message; says false if the session is over. Waits while the message before it is with
    /// a client that does not read, at most [`Timeouts::write`](crate::config::Timeouts::write).
    ///
    /// # Cancel safety
    /// Dropped early, the message is not sent; the session stays whole.
    // No `async fn`, whose future would have room for the message twice.
    pub fn send<M: Into<Message>>(
        &mut self,
        message: M,
    ) -> impl Future<Output = bool> + use<'_, M> {
        let (state, message) = (&*self.state, message.into());
        poll_fn(move |cx| state.poll_send(cx, &message))
    }

    /// Ends the session for `reason` and waits for the client's answer, at most
    /// [`Timeouts::close_handshake`](crate::config::Timeouts::close_handshake). A session that has
    /// ended already says how.
    // Boxed, for the future of an endpoint has room for the largest it ever awaits.
    pub fn close(self, reason: CloseReason) -> impl Future<Output = SessionEnd> {
        Box::pin(async move {
            if self.end().is_none() {
                let eviction = Ending::of_eviction(self.state.client());
                self.state.finish(eviction.unwrap_or(Ending::Evicted(reason))).await;
            }
            self.end().unwrap_or(SessionEnd::TransportLost)
        })
    }

    /// The client's id with the hub.
    pub fn id(&self) -> ClientId {
        self.state.client().id()
    }

    /// What ties the client's connections together: the id it came with, or one made for it.
    pub fn correlation(&self) -> &CorrelationId {
        &self.state.client().correlation
    }

    /// Who the client is on the network.
    pub fn peer(&self) -> Peer {
        self.state.client().peer()
    }

    /// The hub the client is in.
    pub fn hub(&self) -> &HubHandle {
        &self.state.outlet.shared().hub
    }

    /// The server's timer.
    pub fn timer(&self) -> Timer {
        self.state.outlet.transport().timer()
    }

    fn end(&self) -> Option<SessionEnd> {
        self.state.end()
    }
}

pin_project! {
    /// A session and what serves it.
    struct Served<S> {
        #[pin]
        serving: S,
        state: Rc<State>,
    }
}

impl<S: Future<Output = SessionEnd>> Future for Served<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let Poll::Ready(end) = this.serving.poll(cx) else {
            this.state.outlet.push(cx);
            return Poll::Pending;
        };
        end.record(this.state.client(), this.state.outlet.transport().timer().now());
        Poll::Ready(())
    }
}

impl Drop for Session {
    /// Ends the connection for the client, after what was said: what serves the session may go on.
    fn drop(&mut self) {
        let outlet = &self.state.outlet;
        if std::thread::panicking() {
            let now = outlet.transport().timer().now();
            outlet.client().end(&"its endpoint panicked", CloseCode::Abnormal, now);
        }
        let _ = outlet.try_drain(&mut Context::from_waker(Waker::noop()));
        outlet.transport().shut_down();
    }
}

impl State {
    fn client(&self) -> &Client {
        self.outlet.client()
    }

    fn end(&self) -> Option<SessionEnd> {
        self.socket.end()
    }

    fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Ending>> {
        if let Some(ending) = Ending::of_eviction(self.client()) {
            return Poll::Ready(Err(ending));
        }
        // Heard before it is told more: who reads slower than is broadcast always has more to take.
        if let Poll::Ready(message) = self.socket.poll_next(cx, &self.outlet) {
            return Poll::Ready(message);
        }
        self.client().bell.listen(cx);
        match ready!(self.poll_deliver(cx)) {
            Ok(()) => Poll::Pending,
            Err(ending) => Poll::Ready(Err(ending)),
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, message: &Message) -> Poll<bool> {
        // What it takes to end for an eviction, the next wait for a message finds.
        if self.end().is_some() || self.client().eviction().is_some() {
            return Poll::Ready(false);
        }
        let mut sent = ready!(self.outlet.poll_unblocked(cx));
        if sent.is_ok() {
            let header = message.header();
            sent = if !self.socket.has_more() {
                self.outlet.send(cx, &header, message.payload())
            } else if self.outlet.cork(&header, message.payload()) {
                Ok(())
            } else {
                self.outlet.try_drain(cx)
            };
        }
        match sent {
            Ok(()) => self.client().count_sent(),
            Err(_) => self.socket.set_end(SessionEnd::TransportLost),
        }
        Poll::Ready(sent.is_ok())
    }

    /// Sends what the hub has for this client, as fast as the client reads.
    fn poll_deliver(&self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        loop {
            if ready!(self.outlet.poll_drained(cx)).is_err() {
                return Poll::Ready(Err(Ending::Lost));
            }
            if !self.client().bell.is_rung() {
                return Poll::Ready(Ok(()));
            }
            let sent = match self.client().next_delivery() {
                Some(Delivery::Published(publication)) => {
                    self.client().count_sent();
                    self.outlet.send_shared(cx, publication.frame().shared())
                }
                Some(Delivery::Mail(frame)) => {
                    if !frame.is_ping() {
                        self.client().count_sent();
                    }
                    self.outlet.send_shared(cx, frame.shared())
                }
                Some(Delivery::Lagged(messages)) => {
                    self.note_lagged(messages);
                    if self.outlet.shared().config.topics.slow_consumer == SlowConsumer::Close {
                        return Poll::Ready(Err(Ending::Refused(CloseReason::SLOW_CONSUMER)));
                    }
                    Ok(())
                }
                // A WebSocket client of a topic has no frame that could tell.
                Some(Delivery::Gap) => Ok(()),
                None => {
                    self.client().bell.hush();
                    Ok(())
                }
            };
            if sent.is_err() {
                return Poll::Ready(Err(Ending::Lost));
            }
        }
    }

    #[inline(never)] // Cold path.
    fn note_lagged(&self, messages: u64) {
        self.client().count_lagged(messages);
        log::debug!(
            target: "falconet::client",
            client = self.client().id().to_string(),
            correlation = self.client().correlation.to_string(), messages;
            "reads too slowly: messages lost"
        );
    }

    /// Does what it takes to end well, within its deadlines.
    async fn finish(&self, ending: Ending) {
        // First, so that a finish dropped early has still ended the session.
        self.socket.set_end(ending.session_end());
        let timeouts = &self.outlet.shared().config.timeouts;
        let transport = self.outlet.transport();
        let timer = transport.timer();
        let deadline = timer.sleep(Some(timeouts.close_handshake));
        match ending {
            Ending::Lost => return,
            Ending::ClosedByPeer(_) => {
                timer.until(deadline, self.outlet.drained()).await;
            }
            Ending::Evicted(reason) => {
                timer.until(deadline, self.close_and_wait(reason)).await;
            }
            Ending::Refused(reason) => {
                timer.until(deadline, self.send_close(reason)).await;
            }
            Ending::GivenUp(reason) => {
                // Once, if it can be written at once.
                let mut send_close = Box::pin(self.send_close(reason));
                future::poll_once(&mut send_close).await;
            }
        }
        match ending {
            Ending::GivenUp(_) => transport.shut_down(),
            _ => transport.see_off(timeouts.linger).await,
        }
    }

    /// Sends what was published before, then a Close, and reads on until the client's own has come.
    async fn close_and_wait(&self, reason: CloseReason) {
        // The eviction rang too, so what there is gets looked for.
        let _ = poll_fn(|cx| self.poll_deliver(cx)).await;
        if self.send_close(reason).await.is_ok() {
            self.socket.fall_silent();
            while poll_fn(|cx| self.socket.poll_next(cx, &self.outlet)).await.is_ok() {}
        }
    }

    async fn send_close(&self, reason: CloseReason) -> std::io::Result<()> {
        let frame = Frame::close(&reason);
        poll_fn(|cx| {
            ready!(self.outlet.poll_drained(cx))?;
            Poll::Ready(self.outlet.send_shared(cx, frame.shared()))
        })
        .await?;
        self.outlet.drained().await
    }
}

#[cfg(test)]
mod tests;
