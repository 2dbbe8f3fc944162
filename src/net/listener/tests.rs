use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;

use smol::LocalExecutor;

use super::*;

/// The copy of the descriptor stands for that of the signal thread.
#[test]
fn dropping_a_listener_closes_it_although_a_copy_of_its_descriptor_is_open() {
    let reactor = Reactor::new().unwrap();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, port) = Listener::bind_tcp(&reactor, local, false).unwrap();
    let copy = listener.source.fd().try_clone().unwrap();
    let waiting = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    waiting.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    drop(listener);
    assert_is_closed(waiting);
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
    drop(copy);
}

#[test]
fn dropping_a_unix_listener_closes_waiting_connections() {
    let path = std::env::temp_dir().join(format!("falconet-dropped-{}", std::process::id()));
    let reactor = Reactor::new().unwrap();
    let listener = Listener::bind_unix(&reactor, &path).unwrap();
    let copy = listener.source.fd().try_clone().unwrap();
    let waiting = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
    drop(listener);
    for waiting in waiting {
        waiting.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        assert_is_closed(waiting);
    }
    assert!(!path.exists());
    drop(copy);
}

#[test]
fn an_unexpected_error_of_accept_lets_other_tasks_run() {
    let reactor = Reactor::new().unwrap();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, _) = Listener::bind_tcp(&reactor, local, false).unwrap();
    // `accept` fails with EINVAL from now on.
    rustix::net::shutdown(listener.source.fd(), Shutdown::Both).unwrap();
    let executor = LocalExecutor::new().leak();
    let timer = Timer::new(&reactor);
    let main = executor.spawn(async move {
        let limit = timer.sleep(Some(Duration::from_millis(100)));
        timer.until(limit, listener.accept()).await.is_none()
    });
    assert!(reactor.run(executor, main).unwrap(), "nothing is accepted");
}

/// Asserts that the next read finds the end of the stream or a reset connection.
fn assert_is_closed(mut stream: impl Read) {
    match stream.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

const READ_TIMEOUT: Duration = Duration::from_secs(5);
