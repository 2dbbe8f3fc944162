//! The byte stream of one connection, plain or TLS.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::reactor::{Reactor, Timer};
use super::socket::Socket;
use super::tls::{Acceptor, Connector, Session};

/// A connected stream socket, TCP or Unix, that waits on the [`Reactor`]; with TLS over it, if it came
/// by an `https://` listener or was [secured](Self::secure).
pub struct Transport {
    socket: Socket,
    // Boxed: a plain connection pays a pointer for it.
    tls: Option<Box<RefCell<Session>>>,
}

impl Transport {
    /// Takes over a connected, non-blocking stream socket.
    ///
    /// # Errors
    /// What the kernel says when it will not watch the socket.
    pub fn new(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(reactor, fd)?, tls: None })
    }

    /// Connects to a TCP address.
    ///
    /// # Errors
    /// What the connection attempt fails with.
    ///
    /// # Cancel safety
    /// Dropped early, the attempt is given up.
    pub async fn connect_tcp(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Socket::connect_tcp(reactor, address).await?, tls: None })
    }

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// What the connection attempt fails with.
    ///
    /// # Cancel safety
    /// Dropped early, the attempt is given up.
    pub async fn connect_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        Ok(Self { socket: Socket::connect_unix(reactor, path).await?, tls: None })
    }

    /// Speaks TLS with the server `host` from here on, once it has shown a certificate that
    /// `connector` trusts.
    ///
    /// # Errors
    /// Of the kind [`InvalidData`](io::ErrorKind::InvalidData) if the server can't be trusted or does
    /// not speak TLS; else what the socket fails with.
    ///
    /// # Cancel safety
    /// Dropped early, the connection is given up.
    pub async fn secure(mut self, connector: &Connector, host: &str) -> io::Result<Self> {
        let mut session = connector.session(host)?;
        poll_fn(|cx| session.poll_open(&self.socket, cx)).await?;
        self.tls = Some(Box::new(RefCell::new(session)));
        Ok(self)
    }

    /// Expects the peer to begin with a TLS handshake, which is done while reading.
    pub(super) fn expect_tls(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        let session = acceptor.session(self.socket.reactor().now())?;
        self.tls = Some(Box::new(RefCell::new(session)));
        Ok(())
    }

    /// Whether what is sent and received is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether a TLS handshake is not yet done.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.borrow().is_handshaking())
    }

    /// Whether the peer began in plain HTTP where TLS is spoken. What is sent to it goes out plain,
    /// so that it can be told.
    pub fn met_plain_http(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.borrow().met_plain_http())
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    ///
    /// # Errors
    /// What the socket fails with, or TLS; it is over then.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(session) = &self.tls else { return self.socket.poll_recv(cx, buffer) };
        let mut session = session.borrow_mut();
        let plaintext = ready!(session.poll_plaintext(&self.socket, cx))?;
        let count = plaintext.len().min(buffer.len());
        buffer[..count].copy_from_slice(&plaintext[..count]);
        session.forget_plaintext(count);
        Poll::Ready(Ok(count))
    }

    /// Reads into `buffer` what comes beneath TLS, and before its handshake; 0 is the end of the stream.
    ///
    /// # Errors
    /// What the socket fails with.
    pub fn poll_recv_beneath(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, buffer)
    }

    /// Reads into a buffer shared by all transports, and has `take` take out what came; nothing is the
    /// end of the stream.
    ///
    /// # Errors
    /// What the socket fails with, or TLS; it is over then.
    pub fn poll_recv_with<R>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        if let Some(session) = &self.tls {
            return session.borrow_mut().poll_recv_with(&self.socket, cx, take);
        }
        let mut received = self.socket.received();
        ready!(self.socket.poll_recv_more(cx, &mut received))?;
        Poll::Ready(Ok(take(&received)))
    }

    /// Writes some bytes of `slices`, in one system call. What is not reported as written must be the
    /// first that is offered again: TLS may have encrypted it already.
    ///
    /// # Errors
    /// What the socket fails with, or TLS; it is over then.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &self.tls {
            Some(session) => session.borrow_mut().poll_send(&self.socket, cx, slices),
            None => self.socket.poll_send(cx, slices),
        }
    }

    /// Tells the peer that nothing more will come.
    pub fn shut_down(&self) {
        if let Some(session) = &self.tls {
            session.borrow_mut().say_goodbye(&self.socket);
        }
        self.socket.shut_down();
    }

    /// Tells the peer that nothing more will come, and reads and forgets what it still sends, for
    /// `linger` and 64 KiB at most: a socket closed with unread input resets the connection, and the
    /// peer may lose what it was sent last.
    ///
    /// # Cancel safety
    /// Dropped early, it lingers no longer.
    pub async fn see_off(&self, linger: Duration) {
        self.shut_down();
        let mut left = LINGER_BYTES;
        let reading = poll_fn(|cx| {
            while left > 0 {
                // As it comes: nobody wants to know what it means.
                let mut received = self.socket.received();
                match ready!(self.socket.poll_recv_more(cx, &mut received)) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => left = left.saturating_sub(count),
                }
            }
            Poll::Ready(())
        });
        let timer = self.timer();
        timer.until(timer.sleep(Some(linger)), reading).await;
    }

    /// The deadlines of the reactor this waits on.
    pub fn timer(&self) -> Timer {
        Timer::new(self.socket.reactor())
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        // A peer that TLS has not told so takes the end for an attack (RFC 8446 §6.1).
        if let Some(session) = &self.tls {
            session.borrow_mut().say_goodbye(&self.socket);
        }
    }
}

/// How much of what the peer still sends is read after our last words.
const LINGER_BYTES: usize = 64 * 1024;
