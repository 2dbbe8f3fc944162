use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;

use super::*;

/// As by another thread's descriptor of it.
#[test]
fn a_dropped_listener_is_closed_though_a_descriptor_of_it_is_left() {
    let reactor = Reactor::new().unwrap();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, port) = Listener::bind_tcp(&reactor, local).unwrap();
    let left = listener.source.fd().try_clone().unwrap();
    let waiting = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(listener);
    assert_has_ended(waiting);
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
    drop(left);
}

#[test]
fn a_dropped_unix_listener_leaves_nobody_waiting() {
    let path = std::env::temp_dir().join(format!("falconet-dropped-{}", std::process::id()));
    let reactor = Reactor::new().unwrap();
    let listener = Listener::bind_unix(&reactor, &path).unwrap();
    let left = listener.source.fd().try_clone().unwrap();
    let waiting = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
    drop(listener);
    for waiting in waiting {
        waiting.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_has_ended(waiting);
    }
    assert!(!path.exists());
    drop(left);
}

fn assert_has_ended(mut stream: impl Read) {
    match stream.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
