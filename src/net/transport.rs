//! The byte stream of one connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::reactor::{Direction, Reactor, Registration, Timer};

/// A connected stream socket, TCP or Unix, that waits on the [`Reactor`].
pub struct Transport {
    source: Registration,
    fd: OwnedFd,
}

impl Transport {
    /// Takes over a connected, non-blocking stream socket.
    ///
    /// # Errors
    /// What the kernel says when it will not watch the socket.
    pub fn new(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { source: reactor.register(fd.as_fd())?, fd })
    }

    /// Connects to a TCP address.
    ///
    /// # Errors
    /// What the connection attempt fails with.
    ///
    /// # Cancel safety
    /// Dropped early, the attempt is given up.
    pub async fn connect_tcp(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = open_stream(family)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        Self::finish_connect(reactor, rustix::net::connect(&fd, &address), fd).await
    }

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// What the connection attempt fails with.
    ///
    /// # Cancel safety
    /// Dropped early, the attempt is given up.
    pub async fn connect_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
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
        let transport = Self::new(reactor, fd)?;
        transport.source.blocked(Direction::Write);
        poll_fn(|cx| transport.source.poll_ready(Direction::Write, cx)).await;
        sockopt::socket_error(&transport.fd)??;
        Ok(transport)
    }

    /// Is ready when reading is worth a try.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_ready(Direction::Read, cx)
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    ///
    /// # Errors
    /// What the socket fails with; it is over then.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let room = buffer.len();
        self.poll_io(Direction::Read, room, cx, || {
            rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count)
        })
    }

    /// Reads into a buffer shared by all transports, and has `take` take out what came; nothing is the
    /// end of the stream.
    ///
    /// # Errors
    /// What the socket fails with; it is over then.
    pub fn poll_recv_with<R>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        let mut received = self.source.reactor().received();
        ready!(self.poll_recv_more(cx, &mut received))?;
        Poll::Ready(Ok(take(&received)))
    }

    /// Reads into what `buffer` has room for beyond its length; 0 is the end of the stream.
    ///
    /// # Errors
    /// What the socket fails with; it is over then.
    pub fn poll_recv_more(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let room = buffer.capacity() - buffer.len();
        self.poll_io(Direction::Read, room, cx, || {
            let space = rustix::buffer::spare_capacity(buffer);
            rustix::net::recv(&self.fd, space, RecvFlags::empty()).map(|(count, _)| count)
        })
    }

    /// Writes some bytes of `slices`, in one system call.
    ///
    /// # Errors
    /// What the socket fails with; it is over then.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        self.poll_io(Direction::Write, total, cx, || match slices {
            [slice] => rustix::net::send(&self.fd, slice, SendFlags::NOSIGNAL),
            slices => rustix::io::writev(&self.fd, slices),
        })
    }

    /// Tells the peer that nothing more will come.
    pub fn shut_down(&self) {
        // It can fail only when the connection is over already.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
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
                match ready!(self.poll_recv_with(cx, <[u8]>::len)) {
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
        Timer::new(self.source.reactor())
    }

    /// Tries `attempt` when the socket is ready, and keeps the readiness true to what it met.
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
                Err(Errno::WOULDBLOCK) => self.source.blocked(direction),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(count) => {
                    let meter = self.source.reactor().meter();
                    match direction {
                        Direction::Read => meter.received_bytes.add(count as u64),
                        Direction::Write => meter.sent_bytes.add(count as u64),
                    }
                    if count < wanted {
                        self.source.fell_short(direction);
                    }
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }
}

/// Opens a non-blocking stream socket that no child process inherits.
pub(super) fn open_stream(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// How much of what the peer still sends is read after our last words.
const LINGER_BYTES: usize = 64 * 1024;
