//! Bound sockets and the peers they bring.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrAny, SocketAddrUnix, SocketFlags, sockopt};

use super::address::{ListenUrl, Peer, Reach};
use super::reactor::{Direction, Reactor, Registration, Timer};
use super::socket::open_stream;
use super::tls::Acceptor;
use super::transport::Transport;
use crate::features::Feature;
use crate::systemd;

/// A bound socket. Dropping it closes it, and removes a Unix socket's file if it is still its own.
pub struct Listener {
    file: Option<SocketFile>,
    source: Registration<OwnedFd>,
    spare: RefCell<Option<OwnedFd>>,
    reach: Reach,
    /// Whether somebody else has it, too, and goes on listening. It is theirs to shut down.
    is_lent: bool,
    tls: Option<Rc<Acceptor>>,
}

impl Listener {
    /// Binds every address `url` stands for: two for `localhost`, one for most others. Returns them
    /// with the URL as bound, whose port is never 0. A stale Unix socket file is removed first. With
    /// `tls`, peers are expected to speak it. What systemd passes is bound already, and each socket has a
    /// URL of its own.
    ///
    /// # Errors
    /// [`BindError`], when any of them can't be bound; but a loopback address this host does not have
    /// is left out while another is there.
    pub fn bind(
        reactor: &Rc<Reactor>,
        url: &ListenUrl,
        tls: Option<&Rc<Acceptor>>,
    ) -> Result<Vec<(Vec<Self>, ListenUrl)>, BindError> {
        let bind_error = |source| BindError { url: url.clone(), source };
        match url {
            ListenUrl::Unix(path) => {
                let listener = Self::bind_unix(reactor, path).map_err(bind_error)?;
                return Ok(vec![(vec![listener], url.clone())]);
            }
            ListenUrl::Systemd => {
                let mut bound = Vec::new();
                if let Err(lacking) = Feature::Full.require() {
                    return Err(bind_error(io::Error::other(lacking)));
                }
                for socket in systemd::take_listeners().map_err(bind_error)? {
                    bound.push(Self::take_over(reactor, socket).map_err(bind_error)?);
                }
                return Ok(bound);
            }
            ListenUrl::Http { .. } | ListenUrl::Https { .. } => {}
        }
        let addresses = url.resolve().map_err(bind_error)?;
        let mut attempts_left = FREE_PORT_ATTEMPTS;
        loop {
            attempts_left -= 1;
            match Self::bind_all(reactor, &addresses) {
                Ok((mut listeners, port)) => {
                    for listener in &mut listeners {
                        listener.tls = tls.cloned();
                    }
                    return Ok(vec![(listeners, url.with_port(port))]);
                }
                // The port the kernel chose for the first address was taken on the second.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && addresses.len() > 1
                        && addresses[0].port() == 0
                        && attempts_left > 0 => {}
                Err(error) => return Err(bind_error(error)),
            }
        }
    }

    /// Binds all addresses to one port.
    fn bind_all(reactor: &Rc<Reactor>, addresses: &[SocketAddr]) -> io::Result<(Vec<Self>, u16)> {
        let mut listeners = Vec::with_capacity(addresses.len());
        let mut port = None;
        let mut missing = None;
        for address in addresses {
            let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
            match Self::bind_tcp(reactor, address) {
                Ok((listener, bound)) => {
                    port = Some(bound);
                    listeners.push(listener);
                }
                Err(error) if is_missing(&error) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        let port = port.ok_or_else(|| {
            missing.unwrap_or_else(|| io::Error::other("the name has no address"))
        })?;
        Ok((listeners, port))
    }

    fn bind_tcp(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<(Self, u16)> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = open_stream(family)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        set_tcp_options(&fd)?;
        set_buffers(&fd)?;
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, BACKLOG_CONNECTIONS)?;
        let bound = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
        Ok((Self::new(reactor, fd, None, Reach::of(bound))?, bound.port()))
    }

    fn bind_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let fd = open_stream(AddressFamily::UNIX)?;
        set_buffers(&fd)?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
        let file = SocketFile { path: path.to_owned(), inode: inode_of(path)? };
        rustix::net::listen(&fd, BACKLOG_CONNECTIONS)?;
        Self::new(reactor, fd, Some(file), Reach::Unix)
    }

    /// Takes over a socket that somebody else has bound and listens on, and whose file is theirs to remove.
    fn take_over(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<(Vec<Self>, ListenUrl)> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        set_buffers(&fd)?;
        let address = rustix::net::getsockname(&fd)?;
        let (reach, url) = match SocketAddr::try_from(address.clone()) {
            Ok(address) => {
                set_tcp_options(&fd)?;
                let (host, port) = (address.ip().to_string(), address.port());
                (Reach::of(address), ListenUrl::Http { host, port })
            }
            Err(_) => (Reach::Unix, ListenUrl::Unix(path_of(&SocketAddrUnix::try_from(address)?))),
        };
        let mut listener = Self::new(reactor, fd, None, reach)?;
        listener.is_lent = true;
        Ok((vec![listener], url))
    }

    fn new(
        reactor: &Rc<Reactor>,
        fd: OwnedFd,
        file: Option<SocketFile>,
        reach: Reach,
    ) -> io::Result<Self> {
        let source = reactor.register(fd)?;
        let spare = RefCell::new(Some(open_spare()?));
        Ok(Self { file, source, spare, reach, is_lent: false, tls: None })
    }

    /// From where it can be reached.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Waits for the next peer. What goes wrong with one peer is not the listener's matter; when
    /// descriptors run out, peers are turned away without a spin, and the log says so.
    ///
    /// # Cancel safety
    /// Nothing is lost: a peer is taken only when it is returned.
    pub async fn accept(&self) -> (Transport, Peer) {
        let mut backoff = SHORTEST_BACKOFF;
        loop {
            poll_fn(|cx| self.source.poll_ready(Direction::Read, cx)).await;
            match self.try_accept() {
                Ok(accepted) => return accepted,
                Err(Errno::WOULDBLOCK) => self.source.blocked(Direction::Read),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.turn_one_away();
                    self.source.reactor().meter().files_lacked.add(1);
                    log::warn!("out of file descriptors: turning connections away");
                    Timer::new(self.source.reactor()).sleep(Some(backoff)).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
                // The peer left before it was accepted, or its network broke.
                Err(error) => log::debug!("accept failed: {error}"),
            }
        }
    }

    fn try_accept(&self) -> Result<(Transport, Peer), Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (fd, address) = rustix::net::acceptfrom_with(self.source.fd(), flags)?;
        let peer = peer_of(address);
        let transport = Transport::new(self.source.reactor(), fd).and_then(|mut transport| {
            if let Some(tls) = &self.tls {
                transport.expect_tls(tls)?;
            }
            Ok(transport)
        });
        let transport =
            transport.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
        Ok((transport, peer))
    }

    /// Gives up the spare descriptor for a moment, so that one waiting peer sees its connection
    /// closed instead of hanging.
    fn turn_one_away(&self) {
        let mut spare = self.spare.borrow_mut();
        if spare.take().is_some() {
            drop(rustix::net::accept_with(self.source.fd(), SocketFlags::CLOEXEC));
        }
        *spare = open_spare().ok();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // While it is listened at and open: nobody takes it for stale, and no other gets its inode.
        self.file = None;
        let fd = self.source.fd();
        self.source.reactor().forget(fd);
        if !self.is_lent {
            // Closing it is not enough: the thread that waits for signals has a descriptor of its own.
            let _ = rustix::net::shutdown(fd, Shutdown::Both);
            // A Unix socket keeps those who wait to be accepted.
            self.spare.take();
            while rustix::net::accept_with(fd, SocketFlags::CLOEXEC).is_ok() {}
        }
    }
}

/// The file a Unix socket is bound to; dropping it removes the file.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already, and a server that takes over have put its own there.
        if inode_of(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listen URL that can't be bound, and why.
#[derive(Debug)]
pub struct BindError {
    url: ListenUrl,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "can't listen on {}: the address is in use by another program", self.url)
            }
            _ => write!(f, "can't listen on {}: {}", self.url, self.source),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn peer_of(address: Option<SocketAddrAny>) -> Peer {
    match address.map(SocketAddr::try_from) {
        Some(Ok(address)) => Peer::Ip(address),
        _ => Peer::Unix,
    }
}

/// Whether this host lacks the address, as one without IPv6 lacks `::1`.
fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT];
    Errno::from_io_error(error).is_some_and(|error| missing.contains(&error))
}

/// What TCP peers get; accepted sockets inherit it.
fn set_tcp_options(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_tcp_user_timeout(fd, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}

/// Where a Unix socket is; an abstract name begins with an `@`, as ss(8) shows it.
fn path_of(address: &SocketAddrUnix) -> PathBuf {
    let (prefix, name) = match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => (&b""[..], path),
        (None, name) => (&b"@"[..], name.unwrap_or_default()),
    };
    OsString::from_vec([prefix, name].concat()).into()
}

/// The kernel's default lets it buffer 4 MB for each peer that does not read.
fn set_buffers(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER_BYTES)?;
    sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER_BYTES)?;
    Ok(())
}

/// Removes a socket file that nobody listens on; refuses a live one and anything that is no socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::other("the file exists and is no socket"));
        }
        Ok(_) => {}
    }
    // Non-blocking: a live server may have more peers waiting than it has room for.
    match rustix::net::connect(open_stream(AddressFamily::UNIX)?, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Err(io::ErrorKind::AddrInUse.into()),
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        Err(error) => Err(error.into()),
    }
}

/// What tells one file from another that came to stand in its place.
fn inode_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn open_spare() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// How many connections the kernel may finish before we accept them; std's 128 loses bursts.
const BACKLOG_CONNECTIONS: i32 = 1024;
/// Backstop for a pulled plug with data in flight; the sweep is the authority.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
const SEND_BUFFER_BYTES: usize = 128 * 1024;
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
const SHORTEST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// How often a free port is sought that two addresses can share.
const FREE_PORT_ATTEMPTS: u32 = 16;

#[cfg(test)]
mod tests;
