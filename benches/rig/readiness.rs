//! Which of many sockets has something to do.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// An epoll over a list of sockets. It is edge-triggered: a socket is named once when bytes or room
/// arrive, and again only when more of them do.
pub(crate) struct Readiness {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Readiness {
    /// Watches `sockets`, each under its place in the list.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; the caller is out of files or memory.
    pub(crate) fn of<'a>(sockets: impl IntoIterator<Item = &'a TcpStream>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, socket) in sockets.into_iter().enumerate() {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, socket, epoll::EventData::new_u64(index as u64), flags)?;
        }
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Waits until a socket is ready or the time is `deadline`; yields the places of those ready.
    ///
    /// # Errors
    ///
    /// If epoll fails; an interrupted wait is merely a short one.
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

/// How many ready sockets one wait can name.
const EVENTS: usize = 1024;
