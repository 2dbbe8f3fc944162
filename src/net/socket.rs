//! Non-blocking stream sockets.

use std::cell::RefMut;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::failed::failed;
use super::pending::SMALL_BYTES;
use super::reactor::{Direction, Reactor, Registration};

/// A connected stream socket, TCP or Unix, that waits on the [`Reactor`].
pub(super) struct Socket {
    source: Registration<OwnedFd>,
}

impl Socket {
    /// Takes over a connected, non-blocking stream socket.
    pub(super) fn new(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { source: reactor.register(fd)? })
    }

    /// Connects to a TCP address. Dropping the future cancels the attempt.
    pub(super) async fn connect_tcp(
        reactor: &Rc<Reactor>,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = open_stream(family)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        Self::finish_connect(reactor, rustix::net::connect(&fd, &address), fd).await
    }

    /// Connects to a Unix socket. Dropping the future cancels the attempt.
    pub(super) async fn connect_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        let fd = open_stream(AddressFamily::UNIX)?;
        let address = SocketAddrUnix::new(path)?;
        Self::finish_connect(reactor, rustix::net::connect(&fd, &address), fd).await
    }

    async fn finish_connect(
        reactor: &Rc<Reactor>,
        started: Result<(), Errno>,
        fd: OwnedFd,
    ) -> io::Result<Self> {
        if let Err(error) = started
            && error != Errno::INPROGRESS
        {
            return Err(error.into());
        }
        let socket = Self::new(reactor, fd)?;
        socket.source.note_blocked(Direction::Write);
        poll_fn(|cx| socket.source.poll_ready(Direction::Write, cx)).await;
        sockopt::socket_error(socket.source.fd())??;
        Ok(socket)
    }

    /// Completes once a read may succeed and a step of a TLS handshake may be done with its bytes. Does not read.
    pub(super) fn poll_handshake_step(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.source.poll_ready(Direction::Read, cx));
        self.source.poll_handshake_step(cx)
    }

    /// Reads into `buffer`. Returns the number of bytes; 0 is the end of the stream.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let room = buffer.len();
        self.poll_io(Direction::Read, room, cx, || {
            rustix::net::recv(self.source.fd(), &mut *buffer, RecvFlags::empty())
                .map(|(count, _)| count)
        })
    }

    /// Reads into the spare capacity of `buffer` and appends the bytes. Returns their number; 0 is the
    /// end of the stream.
    pub(super) fn poll_recv_more(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if self.reactor().pending().is_full() {
            return self.poll_recv_little(cx, buffer);
        }
        let room = buffer.capacity() - buffer.len();
        self.poll_io(Direction::Read, room, cx, || {
            let space = rustix::buffer::spare_capacity(buffer);
            rustix::net::recv(self.source.fd(), space, RecvFlags::empty()).map(|(count, _)| count)
        })
    }

    /// Reads a small piece and appends it, because the budget for unfinished input is used up.
    #[inline(never)] // Cold path: it takes 4 KiB of stack.
    fn poll_recv_little(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut piece = [0; SMALL_BYTES];
        let room = (buffer.capacity() - buffer.len()).min(SMALL_BYTES);
        let count = ready!(self.poll_recv(cx, &mut piece[..room]))?;
        buffer.extend_from_slice(&piece[..count]);
        Poll::Ready(Ok(count))
    }

    /// Returns the reactor's shared receive buffer, emptied. See [`Reactor::receive_buffer`].
    pub(super) fn receive_buffer(&self) -> RefMut<'_, Vec<u8>> {
        self.source.reactor().receive_buffer()
    }

    /// Writes some bytes of `slices`, in one system call. Returns the number of bytes written.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        self.poll_io(Direction::Write, total, cx, || match slices {
            [slice] => rustix::net::send(self.source.fd(), slice, SendFlags::NOSIGNAL),
            slices => rustix::io::writev(self.source.fd(), slices),
        })
    }

    /// Makes the next write try, even if the kernel has not reported that it can succeed.
    pub(super) fn assume_writable(&self) {
        self.source.assume_writable();
    }

    /// Makes [`poll_turn`](Self::poll_turn) wait for a later turn.
    pub(super) fn defer(&self) {
        self.source.defer();
    }

    /// Completes unless this socket was [deferred](Self::defer) to a later turn that has not begun.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_turn(cx)
    }

    /// Shuts down the write half, so that the peer reads the end of the stream.
    pub(super) fn shut_down(&self) {
        // Fails only if the connection is closed already.
        let _ = rustix::net::shutdown(self.source.fd(), Shutdown::Write);
    }

    /// Returns the reactor of this socket.
    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        self.source.reactor()
    }

    /// Runs the system call `attempt` once the socket is ready, and updates the readiness and the
    /// meter from its result. `wanted` is the number of bytes that `attempt` can transfer at most.
    fn poll_io(
        &self,
        direction: Direction,
        wanted: usize,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(direction, cx));
            match attempt() {
                Err(Errno::WOULDBLOCK) => self.source.note_blocked(direction),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(count) => {
                    let meter = self.source.reactor().meter();
                    match direction {
                        Direction::Read => meter.received_bytes.add(count as u64),
                        Direction::Write => meter.sent_bytes.add(count as u64),
                    }
                    if count < wanted {
                        self.source.note_partial(direction);
                    }
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }
}

/// Opens a non-blocking stream socket that child processes do not inherit.
pub(super) fn open_stream(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(failed("socket"))
}
