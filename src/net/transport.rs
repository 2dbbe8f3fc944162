//! The byte stream of one connection, plain or TLS.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::future::yield_now;

use super::address::Peer;
use super::address_prefix::AddressPrefix;
use super::pending::{Held, Pending};
use super::reactor::{Reactor, Sleep, Timer};
use super::socket::Socket;
use super::tls::{Acceptor, Connector, Session};

/// A connected stream socket, TCP or Unix, that waits on the [`Reactor`]. It uses TLS if an `https://`
/// listener accepted it or if it was [secured](Self::secure).
pub struct Transport {
    socket: Socket,
    // Boxed, so that a plain connection holds only a pointer.
    tls: Option<Box<Tls>>,
}

/// The TLS session of a connection, and the memory that its unfinished records and handshake messages take.
struct Tls {
    session: RefCell<Session>,
    /// The address of the client; `None` on this host.
    address: Cell<Option<AddressPrefix>>,
    held: Held,
}

impl Transport {
    /// Takes over a connected, non-blocking stream socket.
    ///
    /// # Errors
    /// The error of epoll_ctl(2), if the socket can't be registered with the reactor.
    pub fn new(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(reactor, fd)?, tls: None })
    }

    /// Connects to a TCP address.
    ///
    /// # Errors
    /// The error of the connection attempt.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the attempt.
    pub async fn connect_tcp(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Socket::connect_tcp(reactor, address).await?, tls: None })
    }

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// The error of the connection attempt.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the attempt.
    pub async fn connect_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        Ok(Self { socket: Socket::connect_unix(reactor, path).await?, tls: None })
    }

    /// Does a TLS handshake as a client of the server `host`, whose certificate `connector` must trust.
    /// All later data is encrypted.
    ///
    /// # Errors
    /// An error of the kind [`InvalidData`](io::ErrorKind::InvalidData) if the server's certificate is
    /// not trusted or the server does not speak TLS; otherwise the error of the socket.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn secure(mut self, connector: &Connector, host: &str) -> io::Result<Self> {
        let mut session = connector.session(host)?;
        poll_fn(|cx| session.poll_handshake(&self.socket, cx)).await?;
        self.tls = Some(Box::new(Tls::new(session, None)));
        Ok(self)
    }

    /// Makes this the server side of a TLS connection with `peer`. The handshake is done by the first reads.
    pub(super) fn expect_tls(&mut self, acceptor: &Acceptor, peer: Peer) -> io::Result<()> {
        let session = acceptor.session(self.socket.reactor().now())?;
        self.tls = Some(Box::new(Tls::new(session, peer.limited_prefix())));
        Ok(())
    }

    /// Lets the TLS handshake wait for `begin`, while nothing is read. Has no effect without TLS.
    pub fn postpone_handshake(&self, begin: Sleep) {
        if let Some(tls) = &self.tls {
            tls.session.borrow_mut().postpone(begin);
        }
    }

    /// Counts the memory of the TLS session, from now on, for `client`, which the peer has named.
    pub(crate) fn set_client(&self, client: Peer) {
        if let Some(tls) = &self.tls {
            tls.address.set(client.limited_prefix());
            tls.held.clear();
        }
    }

    /// Returns true if this connection uses TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns true if this connection uses TLS and the handshake is not yet done.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.session.borrow().is_handshaking())
    }

    /// Returns true if the peer sent plain HTTP instead of a TLS handshake. All later data to the peer
    /// is sent unencrypted, so that it can receive an error response.
    pub fn received_plain_http(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.session.borrow().received_plain_http())
    }

    /// Reads into `buffer`. Returns the number of bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// The error of the socket or of TLS. The connection can't be used after an error.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(tls) = &self.tls else { return self.socket.poll_recv(cx, buffer) };
        tls.poll(self.pending(), cx, |session, cx| {
            ready!(self.poll_handshake(session, cx))?;
            let plaintext = ready!(session.poll_plaintext(&self.socket, cx))?;
            let count = plaintext.len().min(buffer.len());
            buffer[..count].copy_from_slice(&plaintext[..count]);
            session.consume_plaintext(count);
            Poll::Ready(Ok(count))
        })
    }

    /// Reads raw bytes from the socket into `buffer`, bypassing TLS. Returns their number; 0 is the end of
    /// the stream. Must be used only before the TLS handshake, for a header that precedes it.
    ///
    /// # Errors
    /// The error of the socket.
    pub fn poll_recv_raw(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, buffer)
    }

    /// Reads into a buffer that all transports share, and passes the received bytes to `take`. No bytes
    /// means the end of the stream.
    ///
    /// # Errors
    /// The error of the socket or of TLS. The connection can't be used after an error.
    pub fn poll_recv_with<R>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        if let Some(tls) = &self.tls {
            let receive = |session: &mut Session, cx: &mut Context<'_>| {
                ready!(self.poll_handshake(session, cx))?;
                session.poll_recv_with(&self.socket, cx, take)
            };
            return tls.poll(self.pending(), cx, receive);
        }
        let mut received = self.socket.receive_buffer();
        ready!(self.socket.poll_recv_more(cx, &mut received))?;
        Poll::Ready(Ok(take(&received)))
    }

    /// Writes some bytes of `slices`; without TLS, in one system call. Returns the number of bytes
    /// written. The next call must begin with the bytes that were not written: TLS may have encrypted
    /// them already.
    ///
    /// # Errors
    /// The error of the socket or of TLS. The connection can't be used after an error.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.tls {
            Some(tls) => tls.poll(self.pending(), cx, |session, cx| {
                session.poll_send(&self.socket, cx, slices)
            }),
            None => self.socket.poll_send(cx, slices),
        }
    }

    /// Makes the next write try, even if the kernel has not reported that it can succeed.
    pub(crate) fn assume_writable(&self) {
        self.socket.assume_writable();
    }

    /// Notes that the task of this connection has done as much as it may do in one turn of the reactor:
    /// [`poll_turn`](Self::poll_turn) waits for a later turn, so that other tasks and new events come first.
    pub(crate) fn defer(&self) {
        self.socket.defer();
    }

    /// Completes unless this connection was [deferred](Self::defer) to a later turn that has not begun.
    pub(crate) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_turn(cx)
    }

    /// Shuts down the sending side, so that the peer reads the end of the stream. With TLS, a
    /// `close_notify` alert is sent first.
    pub fn shut_down(&self) {
        if let Some(tls) = &self.tls {
            tls.session.borrow_mut().close(&self.socket);
        }
        self.socket.shut_down();
    }

    /// Shuts down the sending side, and then reads and discards input until the peer closes the
    /// connection, has been silent for 2 s, or `linger` has passed; if the server stops, for about half a
    /// second. Without this, closing a socket with unread input resets the connection, and the peer may
    /// lose the last bytes sent to it. While 64 connections linger, further ones do not.
    ///
    /// # Cancel safety
    /// Dropping the future ends the lingering. The sending side stays shut down.
    pub async fn close_gracefully(&self, linger: Duration) {
        self.shut_down();
        let Some(_lingering) = self.socket.reactor().linger() else { return };
        let timer = self.timer();
        let begin = timer.now();
        let mut heard = begin;
        loop {
            let now = timer.now();
            let is_stopping = self.socket.reactor().is_stopping();
            let limit = if is_stopping { linger.min(LINGER_STEP) } else { linger };
            let left = limit.saturating_sub(now - begin).min(SILENCE.saturating_sub(now - heard));
            if left.is_zero() {
                return;
            }
            let step = timer.sleep(Some(left.min(LINGER_STEP)));
            match timer.until(step, poll_fn(|cx| self.poll_discard(cx))).await {
                None => {}
                Some(Ok(1..)) => {
                    heard = timer.now();
                    // A peer that sends fast must not take the thread.
                    yield_now().await;
                }
                Some(_) => return,
            }
        }
    }

    /// Completes once the handshake is done. On the client's side, [`secure`](Self::secure) has done it.
    fn poll_handshake(&self, session: &mut Session, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while session.is_handshaking() {
            // The peer may be waiting for the records of the step before.
            if let Poll::Ready(flushed) = session.poll_flushed(&self.socket, cx) {
                flushed?;
            }
            // While the step waits, its bytes stay in the socket and need no memory here.
            ready!(session.poll_begin(cx));
            ready!(self.socket.poll_handshake_step(cx));
            ready!(session.poll_read(&self.socket, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and discards the bytes. Returns their number; 0 is the end of the stream.
    fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Raw bytes: the input is discarded, so it need not be decrypted.
        self.socket.poll_recv_more(cx, &mut self.socket.receive_buffer())
    }

    /// Returns the budget for the memory of everything that is unfinished on the connections of this
    /// connection's reactor.
    pub(crate) fn pending(&self) -> &Rc<Pending> {
        self.socket.reactor().pending()
    }

    /// Returns a timer on this connection's reactor.
    pub fn timer(&self) -> Timer {
        Timer::new(self.socket.reactor())
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        // Without a `close_notify` alert, the peer must assume an attack that truncates the stream
        // (RFC 8446 §6.1).
        if let Some(tls) = &self.tls {
            tls.session.borrow_mut().close(&self.socket);
        }
    }
}

impl Tls {
    fn new(session: Session, address: Option<AddressPrefix>) -> Self {
        Self { session: RefCell::new(session), address: Cell::new(address), held: Held::default() }
    }

    /// Calls `poll`, and then counts the session's buffers against the budget `pending`.
    fn poll<R>(
        &self,
        pending: &Rc<Pending>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Session, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let mut session = self.session.borrow_mut();
        let was_full = pending.is_full();
        let polled = poll(&mut session, cx);
        self.held.set(pending, session.buffered_bytes(), || self.address.get());
        if polled.is_pending() {
            self.held.check(cx)?;
            if was_full && !pending.is_full() {
                // The session may have waited for this, and the wake-up came before `check`.
                cx.waker().wake_by_ref();
            }
        }
        polled
    }
}

/// The number of bytes that may be sent to one peer in one turn of the reactor.
pub(crate) const BYTES_PER_TURN: usize = 256 * 1024;
/// The time without input after which a peer of a lingering connection is regarded as done.
const SILENCE: Duration = Duration::from_secs(2);
/// The time between two checks whether the server stops, and the longest time to linger if it does.
const LINGER_STEP: Duration = Duration::from_millis(500);
