//! Peers that read slowly: those that keep reading are served to the end, the others are dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::measure::serial;
use crate::support::folder::Folder;
use crate::support::*;

/// The messages and the file take about three times as long as the write timeout.
#[test]
fn a_steady_reader_outlasts_the_write_timeout_on_every_transport() {
    let _guard = serial();
    let flags = ["--write-timeout", "1s"];
    let server = SlowServer::start("steady", &flags);
    let begin = Instant::now();
    for (what, received) in server.read_all(64 * 1024) {
        assert!(received > SIZE, "{what}: cut after {received} bytes");
    }
    assert!(begin.elapsed() > Duration::from_millis(2500), "too fast: {:?}", begin.elapsed());
}

#[test]
fn a_reader_below_the_minimum_rate_is_cut_on_every_transport() {
    let _guard = serial();
    let flags = ["--write-timeout", "500ms", "--min-rate", "4m"];
    let server = SlowServer::start("below", &flags);
    for (what, received) in server.read_all(32 * 1024) {
        assert!(received < SIZE, "{what}: all of its {received} bytes were sent");
    }
}

/// A server with a file and a message of [`SIZE`] bytes.
struct SlowServer {
    _files: Folder,
    plain: Falconet,
    #[cfg(feature = "tls")]
    tls: crate::support::tls::TlsServer,
}

impl SlowServer {
    fn start(name: &str, flags: &[&str]) -> Self {
        let files = Folder::new(&format!("slow-{name}"));
        std::fs::create_dir_all(&files.path).unwrap();
        std::fs::write(files.file("file"), vec![b'x'; SIZE]).unwrap();
        let limits = ["--max-message", "16m", "--retain-bytes", "16m", "--log-total", "64m"];
        let directory = ["--static", files.path.to_str().unwrap()];
        let flags = [NO_BROADCAST, &limits, &directory, flags].concat();
        let plain = Falconet::start(&flags);
        publish(connect(plain.address()));
        #[cfg(feature = "tls")]
        let tls = crate::support::tls::TlsServer::start(&format!("slow-tls-{name}"), &flags);
        #[cfg(feature = "tls")]
        publish(tls.connect());
        Self {
            _files: files,
            plain,
            #[cfg(feature = "tls")]
            tls,
        }
    }

    /// Reads everything of every kind at the same time, at most `piece` bytes every [`PAUSE`]. Returns the
    /// number of bytes received of each kind.
    fn read_all(&self, piece: usize) -> Vec<(String, usize)> {
        std::thread::scope(|scope| {
            let mut readers = Vec::new();
            for kind in KINDS {
                let stream = connect(self.plain.address());
                let plain = scope.spawn(move || read_slowly(stream, kind, piece));
                readers.push((format!("{kind:?}"), plain));
                #[cfg(feature = "tls")]
                {
                    let stream = self.tls.connect();
                    let tls = scope.spawn(move || read_slowly(stream, kind, piece));
                    readers.push((format!("{kind:?} over TLS"), tls));
                }
            }
            readers.into_iter().map(|(what, reader)| (what, reader.join().unwrap())).collect()
        })
    }
}

/// The kind of response that a reader requests.
#[derive(Clone, Copy, Debug)]
enum Kind {
    File,
    Answer,
    Events,
    Subscription,
    Echo,
}

const KINDS: [Kind; 5] = [Kind::File, Kind::Answer, Kind::Events, Kind::Subscription, Kind::Echo];

/// The connection of a reader.
trait Connection: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

#[cfg(feature = "tls")]
impl Connection for crate::support::tls::TlsStream {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// Publishes the message.
fn publish(mut stream: impl Connection) {
    stream.write_all(&post("/topics/large", vec![b'x'; SIZE])).unwrap();
    assert_eq!(status_of(&read_response_head(&mut stream)), 202);
}

/// Asks for one kind and reads it slowly. Returns the number of bytes received, the head included.
fn read_slowly(mut stream: impl Connection, kind: Kind, piece: usize) -> usize {
    // The kernel must not receive everything at once.
    sockopt::set_socket_recv_buffer_size(stream.socket(), 64 * 1024).unwrap();
    let request = match kind {
        Kind::File => request("GET", "/file", "Connection: close\r\n", ""),
        Kind::Answer => request("GET", "/topics/large", "Connection: close\r\n", ""),
        Kind::Events => request("GET", "/topics/large?last=1", SSE, ""),
        Kind::Subscription => handshake("/topics/large?last=1").into_bytes(),
        Kind::Echo => handshake("/").into_bytes(),
    };
    stream.write_all(&request).unwrap();
    let head = read_response_head(&mut stream);
    assert!(matches!(status_of(&head), 101 | 200), "{kind:?}: {head}");
    if let Kind::Echo = kind {
        stream.write_all(&masked(true, BINARY, &[b'x'; SIZE])).unwrap();
    }
    let (mut received, mut buffer) = (head.len(), vec![0; piece]);
    while received <= SIZE {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received += count,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "{kind:?}: nothing arrives");
                break;
            }
        }
        std::thread::sleep(PAUSE);
    }
    received
}

const SIZE: usize = 4 << 20;
/// The pause of a reader between two reads.
const PAUSE: Duration = Duration::from_millis(50);
