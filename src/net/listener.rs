//! Bound sockets that accept connections.

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

use futures_lite::future::yield_now;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrAny, SocketAddrUnix, SocketFlags, sockopt};

use super::address::{ListenUrl, Peer, Reach};
use super::failed::{errno_of, failed};
use super::reactor::{Direction, Reactor, Registration, Timer};
use super::socket::open_stream;
use super::tls::Acceptor;
use super::transport::Transport;
use crate::features::Feature;
use crate::systemd;

/// A bound socket that listens for connections.
///
/// Dropping it closes the socket. It also removes the file of a Unix socket, unless another socket has
/// replaced the file.
pub struct Listener {
    file: Option<SocketFile>,
    source: Registration<OwnedFd>,
    /// A descriptor that [`reject_one`](Self::reject_one) closes to have a free one for `accept`.
    spare: RefCell<Option<OwnedFd>>,
    reach: Reach,
    /// True if systemd passed the socket. Systemd keeps listening on it, so it must not be shut down.
    is_shared: bool,
    tls: Option<Rc<Acceptor>>,
}

impl Listener {
    /// Binds all addresses of `url`: two for `localhost`, one for most other hosts.
    ///
    /// Returns the listeners of each URL with that URL, which has the bound port instead of 0. The
    /// result has one URL, except for [`ListenUrl::Systemd`]: each socket that systemd passes is bound
    /// already and has its own URL.
    ///
    /// The file of a Unix socket on which no process listens is removed first. If `tls` is given, connections
    /// to a TCP port use TLS. An address that this host does not have yet is bound all the same, with a
    /// warning (`IP_FREEBIND`, ip(7)). The wildcard `[::]` includes IPv4, unless one of `others`, the
    /// URLs that the server listens on, is `0.0.0.0` with the same port.
    ///
    /// # Errors
    /// [`BindError`], if an address can't be bound. A loopback address that this host does not have, such
    /// as `::1` without IPv6, is skipped if another one can be bound.
    pub fn bind(
        reactor: &Rc<Reactor>,
        url: &ListenUrl,
        tls: Option<&Rc<Acceptor>>,
        others: &[&ListenUrl],
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
                    bound.push(Self::adopt(reactor, socket).map_err(bind_error)?);
                }
                return Ok(bound);
            }
            ListenUrl::Http { .. } | ListenUrl::Https { .. } => {}
        }
        let addresses = url.resolve().map_err(bind_error)?;
        let port = addresses.first().map_or(0, SocketAddr::port);
        let is_ipv6_only = others.iter().any(|other| other.is_ipv4_wildcard(port));
        let mut attempts_left = FREE_PORT_ATTEMPTS;
        loop {
            attempts_left -= 1;
            match Self::bind_all(reactor, &addresses, is_ipv6_only) {
                Ok((mut listeners, port)) => {
                    for listener in &mut listeners {
                        listener.tls = tls.cloned();
                    }
                    return Ok(vec![(listeners, url.with_port(port))]);
                }
                // The port that the kernel chose for the first address is in use on the second one.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && addresses.len() > 1
                        && addresses[0].port() == 0
                        && attempts_left > 0 => {}
                Err(error) => return Err(bind_error(error)),
            }
        }
    }

    /// Binds all addresses to the same port. Returns that port.
    fn bind_all(
        reactor: &Rc<Reactor>,
        addresses: &[SocketAddr],
        is_ipv6_only: bool,
    ) -> io::Result<(Vec<Self>, u16)> {
        let mut listeners = Vec::with_capacity(addresses.len());
        let mut port = None;
        let mut skipped = None;
        for address in addresses {
            let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
            match Self::bind_tcp(reactor, address, is_ipv6_only) {
                Ok((listener, bound)) => {
                    port = Some(bound);
                    listeners.push(listener);
                }
                Err(error) if is_unavailable(&error) => skipped = Some(error),
                Err(error) => return Err(error),
            }
        }
        let port = port.ok_or_else(|| {
            skipped.unwrap_or_else(|| io::Error::other("the host has no address"))
        })?;
        Ok((listeners, port))
    }

    fn bind_tcp(
        reactor: &Rc<Reactor>,
        address: SocketAddr,
        is_ipv6_only: bool,
    ) -> io::Result<(Self, u16)> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = open_stream(family)?;
        sockopt::set_socket_reuseaddr(&fd, true).map_err(failed("setsockopt"))?;
        set_tcp_options(&fd)?;
        set_buffers(&fd)?;
        if is_ipv6_only && address.is_ipv6() && address.ip().is_unspecified() {
            sockopt::set_ipv6_v6only(&fd, true).map_err(failed("setsockopt"))?;
        }
        bind_early(&fd, address)?;
        rustix::net::listen(&fd, BACKLOG_CONNECTIONS).map_err(failed("listen"))?;
        let bound = rustix::net::getsockname(&fd).map_err(failed("getsockname"))?;
        let bound = SocketAddr::try_from(bound)?;
        Ok((Self::new(reactor, fd, None, Reach::of(bound))?, bound.port()))
    }

    fn bind_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let fd = open_stream(AddressFamily::UNIX)?;
        set_buffers(&fd)?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(path)?).map_err(failed("bind"))?;
        let file = SocketFile { path: path.to_owned(), inode: inode_of(path)? };
        rustix::net::listen(&fd, BACKLOG_CONNECTIONS).map_err(failed("listen"))?;
        Self::new(reactor, fd, Some(file), Reach::Unix)
    }

    /// Creates a listener from a listening socket that systemd passed. The listener does not remove the file
    /// of a Unix socket, because the file belongs to systemd.
    fn adopt(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<(Vec<Self>, ListenUrl)> {
        rustix::io::ioctl_fionbio(&fd, true).map_err(failed("ioctl"))?;
        set_buffers(&fd)?;
        let address = rustix::net::getsockname(&fd).map_err(failed("getsockname"))?;
        let (reach, url) = match SocketAddr::try_from(address.clone()) {
            Ok(address) => {
                set_tcp_options(&fd)?;
                let (host, port) = (address.ip().to_string(), address.port());
                (Reach::of(address), ListenUrl::Http { host, port })
            }
            Err(_) => (Reach::Unix, ListenUrl::Unix(path_of(&SocketAddrUnix::try_from(address)?))),
        };
        let mut listener = Self::new(reactor, fd, None, reach)?;
        listener.is_shared = true;
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
        Ok(Self { file, source, spare, reach, is_shared: false, tls: None })
    }

    /// Returns the hosts that can reach this listener.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Waits for the next connection and accepts it.
    ///
    /// Errors of single connections are skipped. After any other error, the next attempt is made after a
    /// delay, and a warning is logged. While descriptors or memory are used up, each attempt closes one of
    /// the waiting connections.
    ///
    /// # Cancel safety
    /// No connection is lost: a connection is accepted only when it is returned.
    pub async fn accept(&self) -> (Transport, Peer) {
        let mut backoff = SHORTEST_BACKOFF;
        loop {
            poll_fn(|cx| self.source.poll_ready(Direction::Read, cx)).await;
            match self.try_accept() {
                Ok(accepted) => return accepted,
                Err(Errno::WOULDBLOCK) => self.source.note_blocked(Direction::Read),
                Err(error) if is_of_connection(error) => {
                    log::debug!("can't accept a connection: {error}");
                    yield_now().await;
                }
                Err(error) => {
                    if let Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM = error {
                        self.reject_one();
                        self.source.reactor().meter().descriptor_shortages.add(1);
                        log::warn!("out of file descriptors or memory: closing new connections");
                    } else if backoff == SHORTEST_BACKOFF {
                        log::warn!("can't accept connections, trying again: {error}");
                    }
                    Timer::new(self.source.reactor()).sleep(Some(backoff)).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    fn try_accept(&self) -> Result<(Transport, Peer), Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (fd, address) = rustix::net::acceptfrom_with(self.source.fd(), flags)?;
        let peer = peer_of(address);
        let transport = Transport::new(self.source.reactor(), fd).and_then(|mut transport| {
            if let Some(tls) = &self.tls {
                transport.expect_tls(tls, peer)?;
            }
            Ok(transport)
        });
        let transport = transport.map_err(|error| errno_of(&error).unwrap_or(Errno::NOMEM))?;
        Ok((transport, peer))
    }

    /// Accepts one waiting connection and closes it, so that the peer does not wait for a response. The
    /// spare descriptor is closed meanwhile, because `accept` needs a free one.
    fn reject_one(&self) {
        let mut spare = self.spare.borrow_mut();
        if spare.take().is_some() {
            drop(rustix::net::accept_with(self.source.fd(), SocketFlags::CLOEXEC));
        }
        *spare = open_spare().ok();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The file is removed first, while the socket is open and listens: another server can't regard
        // the file as stale meanwhile, and no new file can get its inode number.
        self.file = None;
        let fd = self.source.fd();
        self.source.reactor().deregister(fd);
        if !self.is_shared {
            // Closing the descriptor is not enough: the signal thread has its own copy, which keeps the
            // socket open.
            let _ = rustix::net::shutdown(fd, Shutdown::Both);
            // A Unix socket that is shut down keeps the connections that wait to be accepted. They are
            // accepted and closed.
            self.spare.take();
            while rustix::net::accept_with(fd, SocketFlags::CLOEXEC).is_ok() {}
        }
    }
}

/// The file of a bound Unix socket. Dropping it removes the file.
struct SocketFile {
    path: PathBuf,
    /// The result of [`inode_of`] after binding.
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have removed the file, or a new server may have replaced it with the file
        // of its own socket.
        if inode_of(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The error when a listen URL can't be bound.
#[derive(Debug)]
pub struct BindError {
    url: ListenUrl,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "can't listen on {}: the address is in use, by another program or another URL",
                    self.url
                )
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

/// Returns true for an error of `accept` that concerns only one connection: its peer closed it before it was
/// accepted, or its network failed (accept(2)).
fn is_of_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
    )
}

/// Returns true if this host does not have the address. For example, a host without IPv6 does not have
/// `::1`.
fn is_unavailable(error: &io::Error) -> bool {
    let unavailable = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT];
    errno_of(error).is_some_and(|error| unavailable.contains(&error))
}

/// Binds a socket to an address, even if this host does not have the address yet: a network interface may get
/// it later, for example by DHCP.
fn bind_early(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match rustix::net::bind(fd, &address) {
        // A host without IPv6 never gets `::1`.
        Err(Errno::ADDRNOTAVAIL) if !address.ip().is_loopback() => {
            let freed = match address {
                SocketAddr::V4(_) => sockopt::set_ip_freebind(fd, true),
                SocketAddr::V6(_) => sockopt::set_ipv6_freebind(fd, true),
            };
            freed.map_err(failed("setsockopt"))?;
            rustix::net::bind(fd, &address).map_err(failed("bind"))?;
            log::warn!(
                "this host does not have the address {} yet: clients can connect once it does",
                address.ip()
            );
            Ok(())
        }
        bound => bound.map_err(failed("bind")),
    }
}

/// Sets the TCP options of a listening socket. Accepted sockets inherit them.
fn set_tcp_options(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)
        .and_then(|()| sockopt::set_tcp_user_timeout(fd, USER_TIMEOUT.as_millis() as u32))
        .map_err(failed("setsockopt"))
}

/// Returns the path of a Unix socket. An abstract name is prefixed with `@`, as in ss(8).
fn path_of(address: &SocketAddrUnix) -> PathBuf {
    let (prefix, name) = match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => (&b""[..], path),
        (None, name) => (&b"@"[..], name.unwrap_or_default()),
    };
    OsString::from_vec([prefix, name].concat()).into()
}

/// Limits the socket buffers; accepted sockets inherit the limits. By default, the kernel may buffer
/// 4 MB for each peer that does not read.
fn set_buffers(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER_BYTES)
        .and_then(|()| sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER_BYTES))
        .map_err(failed("setsockopt"))
}

/// Removes the file at `path` if it is a Unix socket on which no process listens.
///
/// # Errors
/// `AddrInUse`, if a process listens on the socket; or another error, if the file is not a socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::other("the file exists and is not a socket"));
        }
        Ok(_) => {}
    }
    // Non-blocking, because connecting blocks while the backlog of a running server is full.
    match rustix::net::connect(open_stream(AddressFamily::UNIX)?, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Err(io::ErrorKind::AddrInUse.into()),
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        Err(error) => Err(error.into()),
    }
}

/// Returns the device and inode numbers of a file, which differ if another file replaces it.
fn inode_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Opens a descriptor that needs no file, because `/dev/null` may not exist, or not be in the sandbox.
fn open_spare() -> io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).map_err(failed("eventfd"))
}

/// The maximum number of connections that wait to be accepted. std's value of 128 is too small for bursts.
const BACKLOG_CONNECTIONS: i32 = 1024;
/// The time after which the kernel closes a connection whose peer does not acknowledge sent data. This
/// is a second safeguard: the sweep normally closes unresponsive connections.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
const SEND_BUFFER_BYTES: usize = 128 * 1024;
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// The first delay after `accept` failed. The delay doubles with each failure.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// The number of attempts to find a free port that all addresses of a host can share.
const FREE_PORT_ATTEMPTS: u32 = 16;

#[cfg(test)]
mod tests;
