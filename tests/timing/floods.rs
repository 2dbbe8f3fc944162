//! Peers that flood the server, and slow peers. Neither may slow down other clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::Signal;

use crate::measure::*;
use crate::support::*;

#[test]
fn slow_heads_are_dropped_in_time_and_delay_no_other_client() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
    let address = falconet.address();
    let count = connection_budget(300);
    let slow = std::thread::spawn(move || trickle_heads(address, count));

    let mut handshakes = Vec::new();
    while !slow.is_finished() {
        let start = Instant::now();
        drop(Client::connect(address));
        handshakes.push(start.elapsed());
        // The pause between two handshakes.
        std::thread::sleep(Duration::from_millis(10));
    }
    handshakes.sort_unstable();
    let (median, p95) = (handshakes[handshakes.len() / 2], handshakes[handshakes.len() * 95 / 100]);
    println!("{} handshakes: median {median:?}, p95 {p95:?}", handshakes.len());
    assert!(median < Duration::from_millis(50), "{median:?}");
    assert!(p95 < Duration::from_millis(250), "{p95:?}");

    let dropped_after = slow.join().unwrap();
    let (first, last) = (dropped_after[0], dropped_after[count - 1]);
    println!("{count} slow heads dropped after {first:?} to {last:?}");
    let head_timeout = Duration::from_secs(5);
    assert!(first > head_timeout - Duration::from_millis(50), "{first:?}");
    assert!(last < head_timeout + Duration::from_millis(1500), "{last:?}");
    assert_prompt(canaries);
}

/// Connects `count` peers that send one byte of their head each second. Returns the times after which the
/// server dropped them, shortest first.
fn trickle_heads(address: SocketAddr, count: usize) -> Vec<Duration> {
    let head = handshake("/");
    let mut peers: Vec<(TcpStream, Instant)> =
        (0..count).map(|_| (connect(address), Instant::now())).collect();
    let mut dropped_after = Vec::new();
    for byte in head.as_bytes()[..20].chunks(1) {
        // Wait for a second, or until the server has dropped every peer.
        let next = Instant::now() + Duration::from_secs(1);
        for (stream, _) in &mut peers {
            // The server may just have dropped this peer.
            let _ = stream.write(byte);
        }
        while !peers.is_empty() && Instant::now() < next {
            let ended = wait_for_ends(peers.iter().map(|(stream, _)| stream), next);
            let mut ended = ended.into_iter();
            peers.retain(|(stream, connected)| {
                let ended = ended.next() == Some(true);
                if ended {
                    dropped_after.push(connected.elapsed());
                    // The stream has ended without an answer.
                    assert!(!matches!((&*stream).read(&mut [0]), Ok(1..)));
                }
                !ended
            });
        }
    }
    assert_eq!(peers.len(), 0, "the server drops every peer");
    dropped_after.sort_unstable();
    dropped_after
}

/// Waits until some streams are readable or have ended, at most until `deadline`. Returns true for each of
/// those.
fn wait_for_ends<'s>(streams: impl Iterator<Item = &'s TcpStream>, deadline: Instant) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> =
        streams.map(|stream| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)).collect();
    let left = deadline.saturating_duration_since(Instant::now());
    poll(&mut fds, Some(&Timespec::try_from(left).unwrap())).unwrap();
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

#[test]
fn a_head_in_small_pieces_costs_no_quadratic_work() {
    let _guard = serial();
    let falconet = Falconet::start(&["--max-head", "256k", "--head-timeout", "0"]);
    let canaries = start_canaries(Duration::from_millis(100), &falconet);
    // The server answers this client after it has read the pieces, so it never reads two pieces at once.
    let mut pace = Client::connect(falconet.address());
    let mut peers: Vec<TcpStream> = (0..8).map(|_| connect(falconet.address())).collect();
    for peer in &mut peers {
        peer.write_all(b"GET / HTTP/1.1\r\nFiller: ").unwrap();
    }
    let mut quarters = Vec::new();
    for _ in 0..4 {
        let before = falconet.cpu_time();
        for _ in 0..PIECES_PER_QUARTER {
            for peer in &mut peers {
                peer.write_all(&[b'x'; HEAD_PIECE_BYTES]).unwrap();
            }
            pace.echo("after the pieces");
        }
        quarters.push(falconet.cpu_time() - before);
    }
    println!("processor time for each quarter of 8 heads of 250 KiB: {quarters:?}");
    // Parsing the whole head again for each piece would cost the later quarters three, five and seven times
    // as much as the first. The minimum tolerates one slow quarter on a busy machine.
    assert!(quarters[1..].iter().min() < Some(&(quarters[0] * 2)), "{quarters:?}");
    canaries.finish();
}

/// Four quarters of such pieces are a little less than the limit of 256 KiB for a head.
const HEAD_PIECE_BYTES: usize = 256;
const PIECES_PER_QUARTER: usize = 250;

#[test]
fn announced_lengths_above_the_limit_are_refused_at_once_and_cost_no_memory() {
    let _guard = serial();
    let falconet = Falconet::start(&[]);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
    Client::connect(falconet.address()).echo("warm");
    let before = falconet.private_kib();
    let mut times = Vec::new();
    let mut open = Vec::new();
    for length in [65_537_u64, 1 << 31, 1 << 63, u64::MAX] {
        for opcode in [TEXT, BINARY] {
            let mut client = Client::connect(falconet.address());
            let mut header = vec![0x80 | opcode, 0x80 | 127];
            header.extend(length.to_be_bytes());
            header.extend([1, 2, 3, 4]);
            let start = Instant::now();
            client.send_raw(&header);
            assert_eq!(client.read().close_code(), 1009, "{length}");
            times.push(start.elapsed());
            open.push(client);
        }
    }
    let after = falconet.private_kib();
    times.sort_unstable();
    println!("1009 after {times:?}; {before} KiB before, {after} KiB after");
    assert!(times[times.len() / 2] < Duration::from_millis(100), "{times:?}");
    assert!(after < before + 1024, "{before} KiB before, {after} KiB after");
    for client in &mut open {
        client.assert_ended();
    }
    assert_prompt(canaries);
}

#[test]
fn a_fragment_flood_is_ended_and_delays_no_other_client() {
    let _guard = serial();
    for flooders in [1, 4] {
        let bytes = masked(false, CONTINUATION, b"").repeat(10_000);
        let start = masked(false, TEXT, b"");
        let flood = Flood { start, bytes, flooders, reads: true, ends: true };
        flood.run("fragments");
    }
}

#[test]
fn a_ping_flood_is_ended_and_delays_no_other_client() {
    let _guard = serial();
    for flooders in [1, 4] {
        let bytes = masked(true, PING, &[b'p'; 125]).repeat(1000);
        let flood = Flood { start: Vec::new(), bytes, flooders, reads: true, ends: true };
        flood.run("pings");
    }
}

#[test]
fn a_ping_flood_of_a_peer_that_never_reads_is_ended_and_costs_no_memory() {
    let _guard = serial();
    for flooders in [1, 4] {
        let bytes = masked(true, PING, &[b'p'; 125]).repeat(1000);
        let flood = Flood { start: Vec::new(), bytes, flooders, reads: false, ends: true };
        flood.run("pings, pongs unread");
    }
}

#[test]
fn a_flood_of_tiny_messages_delays_no_other_client() {
    let _guard = serial();
    for flooders in [1, 4] {
        let bytes = masked(true, BINARY, b"t").repeat(10_000);
        let flood = Flood { start: Vec::new(), bytes, flooders, reads: true, ends: false };
        flood.run("tiny messages");
    }
}

#[test]
fn a_flood_of_tiny_messages_whose_echo_is_unread_delays_no_other_client() {
    let _guard = serial();
    for flooders in [1, 4] {
        let bytes = masked(true, BINARY, b"t").repeat(10_000);
        let flood = Flood { start: Vec::new(), bytes, flooders, reads: false, ends: false };
        flood.run("tiny messages, echo unread");
    }
}

/// The uploads are as fast as the server reads, one after another on each connection.
#[cfg(feature = "full")]
#[test]
fn large_uploads_delay_no_other_client() {
    let _guard = serial();
    let limits = ["--max-message", "32m", "--log-total", "128m", "--retain", "0"];
    let text = "ä".repeat(16 << 20);
    let length = text.len();
    let chunk = format!("{length:x}\r\n{text}\r\n0\r\n\r\n");
    let head = "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (what, upload) in [
        ("bodies", post("/topics/a", &text)),
        ("chunked bodies", (head.to_owned() + &chunk).into_bytes()),
        ("texts", masked(true, TEXT, text.as_bytes())),
        ("binary messages", masked(true, BINARY, text.as_bytes())),
    ] {
        let falconet = Falconet::start(&[NO_BROADCAST, &limits].concat());
        let address = falconet.address();
        let canaries = start_canaries(CANARY_PAUSE, &falconet);
        let (mut uploads, until) = (0, Instant::now() + FLOOD);
        if what.ends_with("bodies") {
            let mut http = Http::connect(address);
            while Instant::now() < until {
                assert_eq!(http.fetch(&upload).status(), 202);
                uploads += 1;
            }
        } else {
            let mut client = Client::connect_to(address, "/topics/a?mode=in");
            while Instant::now() < until {
                assert!(client.send_raw(&upload));
                uploads += 1;
            }
        }
        let times = canaries.finish();
        let longest = times[times.len() - 1];
        println!("{uploads} {what}: canaries' p99 {:?}, at most {longest:?}", p99(&times));
        assert!(p99(&times) < Duration::from_millis(20), "{what}: {:?}", p99(&times));
    }
}

#[test]
fn peers_that_send_for_ever_after_a_refusal_are_cut_off_and_delay_no_other_client() {
    let _guard = serial();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let canaries = start_canaries(CANARY_PAUSE, &falconet);
    Client::connect(falconet.address()).echo("warm");
    let before = falconet.private_kib();
    let address = falconet.address();
    let mut most = before;
    let times = std::thread::scope(|scope| {
        let peers: Vec<_> = (0..8).map(|_| scope.spawn(|| send_for_ever(address))).collect();
        while peers.iter().any(|peer| !peer.is_finished()) {
            most = most.max(falconet.private_kib());
            std::thread::sleep(Duration::from_millis(20));
        }
        peers.into_iter().map(|peer| peer.join().unwrap()).collect::<Vec<_>>()
    });
    println!("cut off after {times:?}, {before} KiB before, {most} KiB at most");
    for time in times {
        assert!(time > LINGER && time < LINGER + Duration::from_secs(1), "{time:?}");
    }
    assert!(most < before + FLOOD_KIB, "{before} KiB before, {most} KiB at most");
    assert_prompt(canaries);
}

/// Sends an endless body. Returns the time after which that failed.
fn send_for_ever(address: SocketAddr) -> Duration {
    let mut stream = connect(address);
    let begin = Instant::now();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n")
        .unwrap();
    while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    begin.elapsed()
}

#[test]
fn a_peer_that_is_silent_after_a_refusal_is_cut_off_within_two_seconds_or_at_a_stop() {
    let _guard = serial();
    let mut falconet = Falconet::start(&["--broadcast-every", "0"]);
    let files = falconet.open_files();
    let refuse = || {
        let mut stream = connect(falconet.address());
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n").unwrap();
        assert_eq!(status_of(&read_response_head(&mut stream)), 405);
        (stream, Instant::now())
    };
    let (_silent, begin) = refuse();
    wait_until("the connection is closed", || falconet.open_files() == files);
    let silence = begin.elapsed();
    println!("cut off after {silence:?}");
    assert!(silence > Duration::from_millis(1900) && silence < Duration::from_millis(2500));

    let (_silent, begin) = refuse();
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    let stop = begin.elapsed();
    println!("stopped after {stop:?}");
    assert!(stop < Duration::from_millis(1200), "{stop:?}");
}

/// A flood of the same bytes again and again, from one or more clients at once. A client that the server drops
/// connects again, so that the flood continues.
struct Flood {
    start: Vec<u8>,
    bytes: Vec<u8>,
    flooders: usize,
    /// True if the flooders read.
    reads: bool,
    /// True if the server must drop the flooders, false if it must keep them.
    ends: bool,
}

impl Flood {
    fn run(&self, what: &str) {
        let falconet = Falconet::start(&["--broadcast-every", "0"]);
        let address = falconet.address();
        let canaries = start_canaries(CANARY_PAUSE, &falconet);
        Client::connect(address).echo("warm");
        let before = falconet.private_kib();

        let until = Instant::now() + FLOOD;
        let (mut ended, mut taken, mut most) = (0, 0, before);
        std::thread::scope(|scope| {
            let floods: Vec<_> =
                (0..self.flooders).map(|_| scope.spawn(|| self.flood(address, until))).collect();
            while floods.iter().any(|flood| !flood.is_finished()) {
                most = most.max(falconet.private_kib());
                std::thread::sleep(Duration::from_millis(20));
            }
            for flood in floods {
                let (times, bytes) = flood.join().unwrap();
                assert_eq!(times > 0, self.ends, "dropped {times} times");
                (ended, taken) = (ended + times, taken + bytes);
            }
        });
        let times = canaries.finish();
        println!(
            "{} flooding with {what}: {taken} bytes taken, dropped {ended} times, canaries' p99 \
             {:?} of {}, {before} KiB before, {most} KiB at most",
            self.flooders,
            p99(&times),
            times.len(),
        );
        assert!(p99(&times) < Duration::from_millis(20), "{:?}", p99(&times));
        assert!(times.len() > 100, "only {} messages of the canaries", times.len());
        assert!(most < before + FLOOD_KIB, "{before} KiB before, {most} KiB at most");
        assert!(!falconet.log_so_far().iter().any(|line| line.contains("panic")));
    }

    /// Floods until `until`. Returns how often the server dropped this flooder, and how many bytes it took.
    fn flood(&self, address: SocketAddr, until: Instant) -> (usize, usize) {
        let (mut ended, mut taken) = (0, 0);
        while Instant::now() < until {
            let mut client = Client::connect(address);
            // A larger send buffer would put load on this machine, but not on the server.
            sockopt::set_socket_send_buffer_size(&client.stream, 64 * 1024).unwrap();
            // A blocked write must return in time to notice the end of the flood.
            client.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let reader = self.reads.then(|| discard(&client.stream));
            let mut alive = client.send_raw(&self.start);
            while alive && Instant::now() < until {
                // After a partial write the flood continues in the middle of a frame.
                let mut unsent = &self.bytes[..];
                while alive && !unsent.is_empty() && Instant::now() < until {
                    match client.stream.write(unsent) {
                        Ok(count) => {
                            (taken, unsent) = (taken + count, &unsent[count..]);
                            alive = !has_ended(&client.stream);
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => alive = false,
                    }
                }
            }
            ended += usize::from(!alive);
            let _ = client.stream.shutdown(Shutdown::Both);
            reader.map(JoinHandle::join);
        }
        (ended, taken)
    }
}

/// Returns true if the server sends nothing more on this stream.
fn has_ended(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
}

/// Discards everything that arrives, on a thread that ends with the stream.
fn discard(stream: &TcpStream) -> JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    })
}

/// The duration of a flood, long enough for a few hundred messages of the canaries.
const FLOOD: Duration = Duration::from_millis(1500);
/// The longest time for which the server discards what a peer sends after a refusal.
const LINGER: Duration = Duration::from_secs(5);
/// The memory that the server may use for four flooders, in KiB.
const FLOOD_KIB: u64 = 512;
