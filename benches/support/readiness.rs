//! Waits until any of many sockets is ready.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// An edge-triggered epoll on a list of sockets. A socket is reported once when it becomes readable
/// or writable, and again only when more bytes arrive or more buffer space is free.
pub(crate) struct Readiness {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Readiness {
    /// Registers `sockets`. Each is identified by its index in the list.
    ///
    /// # Errors
    ///
    /// If the process is out of file descriptors, or the kernel out of memory.
    pub(crate) fn of<'a>(sockets: impl IntoIterator<Item = &'a TcpStream>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, socket) in sockets.into_iter().enumerate() {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, socket, epoll::EventData::new_u64(index as u64), flags)?;
        }
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Waits until a socket is ready or `deadline` has passed. Returns the indices of the ready
    /// sockets.
    ///
    /// # Errors
    ///
    /// If epoll fails. A wait interrupted by a signal ends early, without an error.
    pub(crate) fn wait(&mut self, deadline: Instant) -> io::Result<impl Iterator<Item = usize>> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| event.data.u64() as usize))
    }
}

/// Most sockets that one wait can report.
const EVENTS: usize = 1024;
