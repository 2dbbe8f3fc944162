//! The session of one WebSocket client, as an endpoint uses it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures_lite::future;
use pin_project_lite::pin_project;

use crate::access::AddressPermit;
use crate::config::SlowConsumer;
use crate::frame::{CloseReason, Frame, Message, NO_CLOSE};
use crate::hub::{Client, ClientId, CorrelationId, Delivery, HubHandle, Membership};
use crate::net::{Peer, Timer, Transport, is_eviction};

use super::end::{Ending, SessionEnd};
use super::outlet::{Outlet, TurnShare};
use super::shared::SessionShared;
use super::socket::Socket;

/// The session of one WebSocket client, from the handshake to the end of the connection.
///
/// While [`next`](Self::next) waits for a message from the client, it also sends the hub's messages to the
/// client, answers Pings, and ends the session when the hub evicts the client. So an endpoint should wait
/// in `next` whenever it has nothing else to do.
pub struct Session {
    state: Rc<State>,
}

struct State {
    outlet: Outlet,
    _permit: Option<AddressPermit>,
    socket: Socket,
}

impl Session {
    /// Begins a session on an upgraded connection. `early` holds the bytes that were received together
    /// with the handshake.
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

    /// Serves this session with `serve`, and logs the end. Whenever `serve` waits for anything, the replies
    /// that the outlet keeps are sent.
    pub(crate) fn served_by<S>(self, serve: impl FnOnce(Self) -> S) -> impl Future<Output = ()>
    where
        S: Future<Output = SessionEnd>,
    {
        let state = self.state.clone();
        Served { serving: serve(self), state }
    }

    /// Waits for the client's next message. Returns `None` once the session has ended.
    ///
    /// # Cancel safety
    /// No message is lost if the future is dropped. But if the session is ending, the server's Close may
    /// remain unsent, and the server does not wait for the client's Close.
    // Not an `async fn`: its future would reserve memory for a message and the ending at the same time.
    #[allow(clippy::should_implement_trait, reason = "the result is a future")]
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

    /// Sends a message. Returns false if the session is over.
    ///
    /// Waits while an earlier message is blocked because the client does not read. The deadline is
    /// [`Timeouts::write`](crate::config::Timeouts::write).
    ///
    /// # Cancel safety
    /// If the future is dropped, the message is not sent, and the session can still be used.
    // Not an `async fn`: its future would reserve memory for the message twice.
    pub fn send<M: Into<Message>>(
        &mut self,
        message: M,
    ) -> impl Future<Output = bool> + use<'_, M> {
        let (state, message) = (&*self.state, message.into());
        poll_fn(move |cx| state.poll_send(cx, &message))
    }

    /// Ends the session for `reason`, and returns the outcome. Waits for the client's Close for at most
    /// [`Timeouts::close_handshake`](crate::config::Timeouts::close_handshake).
    ///
    /// If the session has ended already, or the hub has evicted the client, that outcome is returned, and
    /// `reason` is not used.
    ///
    /// # Cancel safety
    /// If the future is dropped, the Close may remain unsent. The connection is closed.
    // Boxed: an endpoint's future reserves memory for the largest future that it ever awaits.
    pub fn close(self, reason: CloseReason) -> impl Future<Output = SessionEnd> {
        Box::pin(async move {
            if self.end().is_none() {
                let eviction = Ending::of_eviction(self.state.client());
                self.state.finish(eviction.unwrap_or(Ending::Evicted(reason))).await;
            }
            self.end().unwrap_or(SessionEnd::TransportLost)
        })
    }

    /// Returns the client's id in the hub.
    pub fn id(&self) -> ClientId {
        self.state.client().id()
    }

    /// Returns the id that the connections of one client have in common: the id that the client sent, or a
    /// random id that the server generated. The id authenticates nobody, because a client may send any id.
    pub fn correlation(&self) -> &CorrelationId {
        &self.state.client().correlation
    }

    /// Returns the client's address on the network.
    pub fn peer(&self) -> Peer {
        self.state.client().peer()
    }

    /// Returns a handle for sending commands to the hub.
    pub fn hub(&self) -> &HubHandle {
        &self.state.outlet.shared().hub
    }

    /// Returns the server's timer.
    pub fn timer(&self) -> Timer {
        self.state.outlet.transport().timer()
    }

    fn end(&self) -> Option<SessionEnd> {
        self.state.end()
    }
}

pin_project! {
    /// A session together with the future that serves it.
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
            this.state.release_if_evicted(cx);
            this.state.outlet.push(cx);
            return Poll::Pending;
        };
        end.record(this.state.client(), this.state.outlet.transport().timer().now());
        Poll::Ready(())
    }
}

impl Drop for Session {
    /// Sends the kept replies and shuts the connection down. The endpoint may keep running after it has
    /// dropped the session, and would keep the connection open.
    fn drop(&mut self) {
        let outlet = &self.state.outlet;
        if std::thread::panicking() {
            let now = outlet.transport().timer().now();
            outlet.client().end(&"its endpoint panicked", NO_CLOSE, now);
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

    /// Frees the input if it was chosen to be given up. The endpoint may be waiting for anything.
    fn release_if_evicted(&self, cx: &mut Context<'_>) {
        if self.socket.check_held(cx, &self.outlet).is_err() {
            self.socket.discard_input();
        }
    }

    fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Ending>> {
        if let Some(ending) = Ending::of_eviction(self.client()) {
            return Poll::Ready(Err(ending));
        }
        // Input comes first: a client that reads more slowly than messages are published always has a
        // delivery waiting.
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
        // After an eviction, the next call of `next` or `close` ends the session.
        if self.end().is_some() || self.client().eviction().is_some() {
            return Poll::Ready(false);
        }
        let mut sent = self.socket.check_held(cx, &self.outlet);
        if sent.is_ok() {
            sent = ready!(self.outlet.poll_unblocked(cx));
        }
        if sent.is_ok() {
            sent = if !self.socket.has_more() {
                self.outlet.send_message(cx, message)
            } else if self.outlet.cork(&message.header(), message.payload()) {
                Ok(())
            } else {
                self.outlet.try_drain(cx)
            };
        }
        match sent {
            Ok(()) => self.client().count_sent(),
            // The client is evicted now.
            Err(error) if is_eviction(&error) => return Poll::Ready(false),
            Err(_) => self.socket.set_end(SessionEnd::TransportLost),
        }
        Poll::Ready(self.end().is_none())
    }

    /// Sends the hub's deliveries to the client, as fast as the client reads, but only a limited number in one
    /// turn. Completes once none are left.
    fn poll_deliver(&self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        let mut share = TurnShare::default();
        loop {
            ready!(self.outlet.poll_drained(cx))?;
            if !self.client().bell.is_rung() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.outlet.poll_share(cx, &share));
            let mut send = |frame: &Frame| {
                share.add(frame.len());
                self.outlet.send_frame(cx, frame)
            };
            let sent = match self.client().next_delivery() {
                Some(Delivery::Published(publication)) => {
                    self.client().count_sent();
                    send(publication.frame())
                }
                Some(Delivery::Mail(frame)) => {
                    if !frame.is_ping() {
                        self.client().count_sent();
                    }
                    send(&frame)
                }
                Some(Delivery::Lagged(messages)) => {
                    self.note_lagged(messages);
                    if self.outlet.shared().config.topics.slow_consumer == SlowConsumer::Close {
                        return Poll::Ready(Err(Ending::Refused(CloseReason::SLOW_CONSUMER)));
                    }
                    Ok(())
                }
                // No frame that announces a gap or a deletion is defined for WebSocket clients of a topic.
                Some(Delivery::Gap | Delivery::Cleared(_)) => Ok(()),
                None => {
                    self.client().bell.clear();
                    Ok(())
                }
            };
            sent?;
        }
    }

    #[inline(never)] // Cold path.
    fn note_lagged(&self, messages: Option<u64>) {
        self.client().count_lagged(messages);
        log::debug!(
            target: "falconet::client",
            client = self.client().id().to_string(),
            correlation = self.client().correlation.to_string(),
            messages = messages.map_or("unknown".to_owned(), |messages| messages.to_string());
            "reads too slowly: messages lost"
        );
    }

    /// Takes the steps that end the session, each within its deadline.
    async fn finish(&self, ending: Ending) {
        // Set first, so that the session has ended even if this future is dropped.
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
            Ending::Aborted(reason) => {
                // Polled only once: sent only if that is possible without waiting.
                let mut send_close = Box::pin(self.send_close(reason));
                future::poll_once(&mut send_close).await;
            }
        }
        let is_sent = matches!(future::poll_once(self.outlet.drained()).await, Some(Ok(())));
        // A client that was silent until its deadline sends nothing more, unless it is within a message.
        let was_silent =
            matches!(ending, Ending::Aborted(reason) if reason != CloseReason::OVERLOADED);
        let may_send = self.socket.discard_input() || !was_silent;
        if is_sent && may_send {
            transport.close_gracefully(timeouts.linger).await;
        } else {
            transport.shut_down();
        }
    }

    /// Sends the pending deliveries and a Close, and then reads until the client's Close.
    async fn close_and_wait(&self, reason: CloseReason) {
        // The eviction has rung the bell, so `poll_deliver` looks for deliveries.
        let _ = poll_fn(|cx| self.poll_deliver(cx)).await;
        if self.send_close(reason).await.is_ok() {
            self.socket.stop_answering();
            while poll_fn(|cx| self.socket.poll_next(cx, &self.outlet)).await.is_ok() {}
        }
    }

    async fn send_close(&self, reason: CloseReason) -> std::io::Result<()> {
        let frame = Frame::close(&reason);
        poll_fn(|cx| {
            ready!(self.outlet.poll_drained(cx))?;
            Poll::Ready(self.outlet.send_frame(cx, &frame))
        })
        .await?;
        self.outlet.drained().await
    }
}

#[cfg(test)]
mod tests;
