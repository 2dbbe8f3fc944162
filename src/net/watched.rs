//! Readiness of descriptors that are shared with other processes and must stay blocking.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::reactor::{Direction, Reactor, Registration};

/// A descriptor that waits on the [`Reactor`] and is *not* made non-blocking. A terminal or a pipe is
/// shared with other processes, and `O_NONBLOCK` would apply to them, too.
///
/// Ready means that one `read`, or one `write` of at most 4096 bytes, does not block: a pipe is
/// writable when a page of its buffer is free. Each check calls poll(2), because edge-triggered epoll
/// reports no new event after a read that leaves data behind.
pub struct Watched<F: AsFd> {
    source: Registration<F>,
}

impl<F: AsFd> Watched<F> {
    /// Registers `fd` with `reactor`.
    ///
    /// # Errors
    /// The error of epoll_ctl(2). Its kind is `PermissionDenied` for a regular file or `/dev/null`, which are
    /// always ready.
    pub fn new(reactor: &Rc<Reactor>, fd: F) -> io::Result<Self> {
        Ok(Self { source: reactor.register(fd)? })
    }

    /// Completes once a read would not block.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_for(Direction::Read, PollFlags::IN, cx)
    }

    /// Completes once a write of at most 4096 bytes would not block.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_for(Direction::Write, PollFlags::OUT, cx)
    }

    fn poll_for(
        &self,
        direction: Direction,
        wanted: PollFlags,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.source.poll_ready(direction, cx));
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut [PollFd::new(self.source.fd(), wanted)], Some(&at_once)) {
                Ok(0) => self.source.note_blocked(direction),
                // Ready, closed by the other end, or failed: the caller's read or write returns the result.
                Ok(_) => return Poll::Ready(Ok(())),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl<F: AsFd> Drop for Watched<F> {
    fn drop(&mut self) {
        // Closing the descriptor would not remove it from epoll, because other processes hold the
        // same open file.
        self.source.reactor().deregister(self.source.fd());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::time::Duration;

    use smol::LocalExecutor;

    use super::super::reactor::Timer;
    use super::*;

    #[test]
    fn a_pipe_is_readable_until_it_is_drained() {
        let reactor = Reactor::new().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let watched = Watched::new(&reactor, reader.try_clone().unwrap()).unwrap();
        let timer = Timer::new(&reactor);
        let executor = LocalExecutor::new().leak();
        let main = executor.spawn(async move {
            let mut reader = reader;
            let is_readable = async || {
                let soon = timer.sleep(Some(Duration::from_millis(30)));
                timer.until(soon, poll_fn(|cx| watched.poll_readable(cx))).await.is_some()
            };
            assert!(!is_readable().await);
            writer.write_all(b"ab").unwrap();
            for _ in 0..2 {
                assert!(is_readable().await);
                reader.read_exact(&mut [0]).unwrap();
            }
            assert!(!is_readable().await);
            drop(writer);
            assert!(is_readable().await, "the end of the stream can be read");
        });
        reactor.run(executor, main).unwrap();
    }

    #[test]
    fn a_full_pipe_is_not_writable_and_the_descriptor_can_be_watched_again() {
        let reactor = Reactor::new().unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[0; 65536]).unwrap();
        let timer = Timer::new(&reactor);
        let executor = LocalExecutor::new().leak();
        let again = reactor.clone();
        let main = executor.spawn(async move {
            for full in [true, false] {
                let watched = Watched::new(&again, &writer).unwrap();
                let soon = timer.sleep(Some(Duration::from_millis(30)));
                let writable = poll_fn(|cx| watched.poll_writable(cx));
                assert_eq!(timer.until(soon, writable).await.is_none(), full);
                reader.read_exact(&mut [0; 4096]).unwrap();
            }
        });
        reactor.run(executor, main).unwrap();
    }

    #[test]
    fn a_regular_file_is_refused() {
        let reactor = Reactor::new().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = Watched::new(&reactor, file).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
