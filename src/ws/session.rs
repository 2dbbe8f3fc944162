//! A connection after the upgrade, as an endpoint sees it.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{self, Error};
use futures_lite::{StreamExt, future};

use crate::config::{Config, SlowConsumer};
use crate::hub::{
    Client, ClientId, CorrelationId, Delivery, Eviction, HubHandle, Membership, Subscription,
};
use crate::net::{Peer, Timer, Transport};

use super::frame::{CloseCode, CloseReason, Frame, Message};
use super::gate::Gate;
use super::outlet::Outlet;
use super::socket::Socket;

/// One WebSocket client, from its handshake to its end.
///
/// While [`next`](Self::next) waits for the client's message it also sends what the hub has for it,
/// answers pings, and notices when the session must end: an endpoint should be waiting there whenever
/// it has nothing else to do.
pub struct Session {
    // Boxed: a session is moved into futures, which keep room for each of its places.
    state: Box<State>,
}

struct State {
    socket: Socket,
    subscription: Subscription,
    hub: HubHandle,
    config: Rc<Config>,
    peer: Peer,
    messages_this_turn: u32,
    end: Option<SessionEnd>,
    _membership: Membership,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client sent a Close with this code; 1005 stands for none. It was answered in kind
    /// (RFC 6455 §5.5.1).
    ClosedByPeer(CloseCode),
    /// We sent a Close: the endpoint was done, the client broke a rule or limit, or the server stops.
    Evicted(CloseReason),
    /// The connection broke without a Close.
    TransportLost,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByPeer(code) => write!(f, "closed by the peer with {}", u16::from(*code)),
            Self::Evicted(reason) => write!(f, "closed by us with {reason}"),
            Self::TransportLost => f.write_str("lost"),
        }
    }
}

/// What ends a session, and what it takes to end it well.
enum Ending {
    ClosedByPeer(CloseCode),
    /// We wish to end it, and the client may answer.
    Evicted(CloseReason),
    /// The client broke a rule: it is told, and not listened to any more.
    Refused(CloseReason),
    /// The client broke a limit or is dead: nobody waits for it.
    GivenUp(CloseReason),
    Lost,
}

/// What the wait for a message may end with.
enum Event {
    Message(Message),
    Over(Ending),
}

impl Session {
    /// Begins a session on an upgraded connection, whose peer may have sent `early` bytes already.
    pub(crate) fn begin(
        transport: Transport,
        early: Vec<u8>,
        peer: Peer,
        (subscription, membership): (Subscription, Membership),
        hub: HubHandle,
        config: Rc<Config>,
    ) -> Self {
        let outlet = Outlet::new(transport, subscription.client.clone(), config.clone());
        let socket = Socket::new(Gate::new(outlet, early));
        let state = State {
            socket,
            subscription,
            hub,
            config,
            peer,
            messages_this_turn: 0,
            end: None,
            _membership: membership,
        };
        Self { state: Box::new(state) }
    }

    /// The client's next message; `None` once the session has ended.
    ///
    /// # Cancel safety
    /// No message is lost: one is taken only when it is returned. But this also ends a session that
    /// must end; dropped meanwhile, it waits no longer for the client's answer to our Close.
    pub async fn next(&mut self) -> Option<Message> {
        if self.state.end.is_some() {
            return None;
        }
        match poll_fn(|cx| self.state.poll_event(cx)).await {
            Event::Message(message) => Some(message),
            Event::Over(ending) => {
                Box::pin(self.state.finish(ending)).await;
                None
            }
        }
    }

    /// Sends a message; says false if the session is over. Waits while the message before it is with
    /// a client that does not read, at most [`Timeouts::write`](crate::config::Timeouts::write).
    ///
    /// # Cancel safety
    /// Dropped early, the message is not sent; the session stays whole.
    pub async fn send(&mut self, message: impl Into<Message>) -> bool {
        let message = message.into();
        let header = message.header();
        let state = &mut *self.state;
        if state.end.is_some() {
            return false;
        }
        let sent = poll_fn(|cx| {
            let client = &state.subscription.client;
            client.bell.listen(cx);
            if client.eviction().is_some() {
                // The next wait for a message finds it too, and does what it takes.
                return Poll::Ready(Ok(false));
            }
            let outlet = state.outlet();
            ready!(outlet.poll_drained(cx))?;
            outlet.send(cx, &header, message.payload())?;
            Poll::Ready(std::io::Result::Ok(true))
        })
        .await;
        sent.unwrap_or_else(|_| {
            state.end = Some(SessionEnd::TransportLost);
            false
        })
    }

    /// Ends the session for `reason` and waits for the client's answer, at most
    /// [`Timeouts::close_handshake`](crate::config::Timeouts::close_handshake). A session that has
    /// ended already says how.
    pub async fn close(mut self, reason: CloseReason) -> SessionEnd {
        if self.state.end.is_none() {
            let ending = match self.state.client().eviction() {
                Some(eviction) => eviction.into(),
                None => Ending::Evicted(reason),
            };
            Box::pin(self.state.finish(ending)).await;
        }
        self.state.end.unwrap_or(SessionEnd::TransportLost)
    }

    /// The client's id with the hub.
    pub fn id(&self) -> ClientId {
        self.state.client().id
    }

    /// What ties the client's connections together: the id it came with, or one made for it.
    pub fn correlation(&self) -> &CorrelationId {
        &self.state.client().correlation
    }

    /// Who the client is on the network.
    pub fn peer(&self) -> Peer {
        self.state.peer
    }

    /// The hub the client is in.
    pub fn hub(&self) -> &HubHandle {
        &self.state.hub
    }

    /// The server's timer.
    pub fn timer(&self) -> Timer {
        self.state.timer()
    }
}

impl State {
    fn client(&self) -> &Client {
        &self.subscription.client
    }

    fn timer(&self) -> Timer {
        self.gate().transport().timer()
    }

    fn gate(&self) -> &Gate {
        self.socket.gate()
    }

    fn outlet(&mut self) -> &mut Outlet {
        self.socket.gate_mut().outlet()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.client().bell.listen(cx);
        if let Some(eviction) = self.client().eviction() {
            return Poll::Ready(Event::Over(eviction.into()));
        }
        // Nothing is read while the client does not take what it is sent.
        if ready!(self.outlet().poll_drained(cx)).is_err() {
            return Poll::Ready(Event::Over(Ending::Lost));
        }
        // Heard before it is told more: who reads slower than is broadcast always has more to take.
        let has_more = self.messages_this_turn >= MESSAGES_PER_TURN;
        if has_more {
            cx.waker().wake_by_ref();
        } else if let Poll::Ready(event) = self.poll_message(cx) {
            return Poll::Ready(event);
        }
        self.messages_this_turn = 0;
        match ready!(self.poll_deliver(cx)) {
            Ok(()) => {
                if !has_more {
                    self.socket.rest(cx);
                }
                Poll::Pending
            }
            Err(ending) => Poll::Ready(Event::Over(ending)),
        }
    }

    /// Sends what the hub has for this client, as fast as the client reads.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        loop {
            if ready!(self.outlet().poll_drained(cx)).is_err() {
                return Poll::Ready(Err(Ending::Lost));
            }
            if !self.client().bell.is_rung() {
                return Poll::Ready(Ok(()));
            }
            match self.subscription.next() {
                Some(Delivery::Mail(frame) | Delivery::Published(_, frame)) => {
                    if self.outlet().send_shared(cx, frame.shared()).is_err() {
                        return Poll::Ready(Err(Ending::Lost));
                    }
                }
                Some(Delivery::Lagged(messages)) => {
                    let (client, correlation) = (self.client().id, &self.client().correlation);
                    log::debug!(
                        target: "falconet::client", client:%, correlation:%, messages;
                        "reads too slowly: messages lost"
                    );
                    if self.config.topics.slow_consumer == SlowConsumer::Close {
                        return Poll::Ready(Err(Ending::Refused(CloseReason::SLOW_CONSUMER)));
                    }
                }
                None => self.client().bell.hush(),
            }
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let message = match ready!(self.socket.poll_next(cx)) {
                Some(Ok(tungstenite::Message::Text(text))) => Message::Text(text),
                Some(Ok(tungstenite::Message::Binary(bytes))) => Message::Binary(bytes),
                Some(Ok(tungstenite::Message::Close(frame))) => {
                    let code = frame.map_or(CloseCode::Status, |frame| frame.code);
                    return Poll::Ready(Event::Over(Ending::ClosedByPeer(code)));
                }
                // Pings are answered by the next read; the gate counts them.
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Poll::Ready(Event::Over(self.ending(&error))),
                None => return Poll::Ready(Event::Over(Ending::Lost)),
            };
            self.messages_this_turn += 1;
            return Poll::Ready(Event::Message(message));
        }
    }

    /// What an error of the protocol library means (RFC 6455 §7.4.1).
    fn ending(&self, error: &Error) -> Ending {
        use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        let refused = |code, text| Ending::Refused(CloseReason::new(code, text));
        match (error, self.gate().violation()) {
            // Too big a message is a mistake, too many frames are a flood.
            (_, Some(violation)) if violation.code == CloseCode::Size => Ending::Refused(violation),
            (_, Some(violation)) => Ending::GivenUp(violation),
            // The end of the stream without a Close is an ordinary disconnect.
            (Error::Protocol(ResetWithoutClosingHandshake), _) => Ending::Lost,
            (Error::Protocol(_), _) => refused(CloseCode::Protocol, "protocol error"),
            (Error::Utf8(_), _) => refused(CloseCode::Invalid, "text is not UTF-8"),
            (Error::Capacity(_), _) => refused(CloseCode::Size, "message too big"),
            _ => Ending::Lost,
        }
    }

    /// Does what it takes to end well, within its deadlines.
    async fn finish(&mut self, ending: Ending) {
        // First, so that a finish dropped early has still ended the session.
        self.end = Some(ending.as_end());
        let timer = self.timer();
        let deadline = timer.sleep(Some(self.config.timeouts.close_handshake));
        match ending {
            Ending::Lost => return,
            Ending::ClosedByPeer(_) => {
                timer.until(deadline, self.answer_close()).await;
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
            Ending::GivenUp(_) => self.gate().transport().shut_down(),
            _ => self.gate().transport().see_off(self.config.timeouts.linger).await,
        }
    }

    /// tungstenite has the answer ready; its next read writes it.
    async fn answer_close(&mut self) {
        let _ = self.socket.stream().next().await;
        let _ = self.outlet().drained().await;
    }

    /// Sends what was published before, then a Close, and reads on until the client's own has come.
    async fn close_and_wait(&mut self, reason: CloseReason) {
        // The eviction rang too, so what there is gets looked for.
        let _ = poll_fn(|cx| self.poll_deliver(cx)).await;
        let frame = CloseFrame { code: reason.code, reason: reason.sent_text().into() };
        if self.outlet().drained().await.is_ok()
            && self.socket.stream().close(Some(frame)).await.is_ok()
            && self.outlet().drained().await.is_ok()
        {
            while let Some(Ok(_)) = self.socket.stream().next().await {}
        }
    }

    async fn send_close(&mut self, reason: CloseReason) {
        let outlet = self.outlet();
        let frame = Frame::close(&reason);
        let sent = poll_fn(|cx| {
            ready!(outlet.poll_drained(cx))?;
            Poll::Ready(outlet.send(cx, &frame, &[]))
        });
        if sent.await.is_ok() {
            let _ = outlet.drained().await;
        }
    }
}

impl Ending {
    fn as_end(&self) -> SessionEnd {
        match *self {
            Self::ClosedByPeer(code) => SessionEnd::ClosedByPeer(code),
            Self::Evicted(reason) | Self::Refused(reason) | Self::GivenUp(reason) => {
                SessionEnd::Evicted(reason)
            }
            Self::Lost => SessionEnd::TransportLost,
        }
    }
}

impl From<Eviction> for Ending {
    fn from(eviction: Eviction) -> Self {
        match eviction.answering {
            true => Self::Evicted(eviction.reason),
            false => Self::GivenUp(eviction.reason),
        }
    }
}

/// How many messages may be taken before other tasks run.
const MESSAGES_PER_TURN: u32 = 16;
