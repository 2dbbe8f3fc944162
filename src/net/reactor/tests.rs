use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use futures_lite::future;
use rustix::net::sockopt;
use smol::LocalExecutor;

use super::*;
use crate::config::{Certificate, Tls};
use crate::net::{Acceptor, Connector, Peer, Transport, Trust};

/// Runs a task on a new reactor, for at most 5 seconds.
fn run<T: 'static>(task: impl AsyncFnOnce(Rc<Reactor>) -> T + 'static) -> T {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new().leak();
    let main = executor.spawn({
        let reactor = reactor.clone();
        async move {
            let timer = Timer::new(&reactor);
            let (begun, limit) = (Instant::now(), Duration::from_secs(5));
            let ended = timer.until(timer.sleep(Some(limit)), task(reactor)).await;
            // The deadline polls the task once more, so even a task that was never woken may complete.
            assert!(begun.elapsed() < limit, "the test hung");
            ended.expect("the task ends before the deadline")
        }
    });
    reactor.run(executor, main).unwrap()
}

/// Returns a transport and its peer, which is blocking.
fn pair(reactor: &Rc<Reactor>) -> (Transport, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Transport::new(reactor, ours.into()).unwrap(), theirs)
}

async fn recv(transport: &Transport, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| transport.poll_recv(cx, buffer)).await
}

async fn send(transport: &Transport, bytes: &[u8]) -> io::Result<usize> {
    poll_fn(|cx| transport.poll_send(cx, &[io::IoSlice::new(bytes)])).await
}

/// Writes until the socket's buffer is full. Returns the number of bytes written.
async fn fill(transport: &Transport) -> usize {
    let mut total = 0;
    while let Some(sent) = future::poll_once(send(transport, &[7; 1000])).await {
        total += sent.unwrap();
    }
    total
}

#[test]
fn reads_continue_after_partial_reads() {
    run(async |reactor| {
        let (transport, mut peer) = pair(&reactor);
        let mut buffer = [0; 10];
        for text in [&b"one"[..], b"two", b"three"] {
            peer.write_all(text).unwrap();
            let count = recv(&transport, &mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], text);
        }
    });
}

#[test]
fn no_system_call_is_made_after_a_partial_read() {
    run(async |reactor| {
        let (transport, mut peer) = pair(&reactor);
        peer.write_all(b"abc").unwrap();
        assert_eq!(recv(&transport, &mut [0; 10]).await.unwrap(), 3);
        // A system call would read this byte now; its event has not been fetched yet.
        peer.write_all(b"d").unwrap();
        assert!(future::poll_once(recv(&transport, &mut [0; 10])).await.is_none());
        assert_eq!(recv(&transport, &mut [0; 10]).await.unwrap(), 1);
    });
}

#[test]
fn a_read_that_would_block_waits_for_the_next_event() {
    run(async |reactor| {
        let (transport, mut peer) = pair(&reactor);
        peer.write_all(b"ab").unwrap();
        // Full reads leave the source readable; the third read gets EAGAIN.
        assert_eq!(recv(&transport, &mut [0; 1]).await.unwrap(), 1);
        assert_eq!(recv(&transport, &mut [0; 1]).await.unwrap(), 1);
        let mut buffer = [0; 1];
        let (read, ()) = future::zip(recv(&transport, &mut buffer), async {
            peer.write_all(b"c").unwrap();
        })
        .await;
        assert_eq!(read.unwrap(), 1);
    });
}

#[test]
fn a_partial_write_continues_once_the_peer_reads() {
    run(async |reactor| {
        let (transport, mut peer) = pair(&reactor);
        sockopt::set_socket_send_buffer_size(&peer, 4096).unwrap();
        let message: Vec<u8> = (0..500_000).map(|index| (index % 251) as u8).collect();
        let expected = message.clone();
        let reader = std::thread::spawn(move || {
            let mut received = vec![0; expected.len()];
            peer.read_exact(&mut received).unwrap();
            assert!(received == expected);
        });
        let mut left = &message[..];
        let mut sends = 0;
        while !left.is_empty() {
            let sent = send(&transport, left).await.unwrap();
            left = &left[sent..];
            sends += 1;
        }
        assert!(sends > 1, "the message fitted into the socket's buffer");
        reader.join().unwrap();
    });
}

#[test]
fn the_end_of_the_stream_is_read_after_the_last_bytes() {
    run(async |reactor| {
        let (transport, mut peer) = pair(&reactor);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        assert_eq!(recv(&transport, &mut [0; 100]).await.unwrap(), 10);
        assert_eq!(recv(&transport, &mut [0; 100]).await.unwrap(), 0);
    });
}

#[test]
fn a_peer_that_shut_down_its_sending_side_can_still_receive() {
    run(async |reactor| {
        let (transport, mut peer) = pair(&reactor);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(recv(&transport, &mut [0; 9]).await.unwrap(), 0);
        assert_eq!(send(&transport, b"still here").await.unwrap(), 10);
        let mut read = [0; 10];
        peer.read_exact(&mut read).unwrap();
    });
}

/// A write of one piece of plaintext reports progress, as a write without TLS does.
#[test]
fn a_tls_write_reports_what_the_socket_has_taken() {
    if !Feature::Tls.is_built_in() {
        return;
    }
    run(async |reactor| {
        let (server, client) = tls_pair(&reactor).await;
        let message: Vec<u8> = (0..60_000).map(|index| (index % 251) as u8).collect();
        let (mut sent, mut reports) = (0, 0);
        let sending = async {
            while sent < message.len() {
                sent += send(&server, &message[sent..]).await.unwrap();
                assert!(sent <= message.len(), "{sent}");
                reports += 1;
            }
        };
        let (mut received, mut buffer) = (Vec::new(), [0; 1000]);
        let receiving = async {
            while received.len() < message.len() {
                let count = recv(&client, &mut buffer).await.unwrap();
                received.extend_from_slice(&buffer[..count]);
            }
        };
        future::zip(sending, receiving).await;
        assert!(received == message);
        assert!(reports > 3, "{reports}");
    });
}

/// Returns both ends of a connection with TLS, whose server's socket takes few bytes at once.
async fn tls_pair(reactor: &Rc<Reactor>) -> (Transport, Transport) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
    let [mut server, client] = [ours, theirs].map(|stream| {
        stream.set_nonblocking(true).unwrap();
        Transport::new(reactor, stream.into()).unwrap()
    });
    let certificate = Some(Certificate::SelfSigned { state_dir: None });
    let tls = Tls { certificate, ..Tls::default() };
    server.expect_tls(&Acceptor::new(&tls, &[]).unwrap(), Peer::Unix).unwrap();
    let securing = async {
        let connector = Connector::new(&Trust::Any);
        let client = client.secure(connector.as_ref().unwrap(), "localhost").await.unwrap();
        send(&client, b"x").await.unwrap();
        client
    };
    let mut byte = [0];
    let (client, read) = future::zip(securing, recv(&server, &mut byte)).await;
    assert_eq!(read.unwrap(), 1);
    (server, client)
}

#[test]
fn at_most_four_deferred_tasks_continue_in_a_turn() {
    if !Feature::Full.is_built_in() {
        return;
    }
    run(async |reactor| {
        let pairs: Vec<_> = (0..10).map(|_| pair(&reactor)).collect();
        let mut waiting: Vec<&Transport> = pairs.iter().map(|(transport, _)| transport).collect();
        for transport in &waiting {
            transport.defer();
            transport.defer();
        }
        let mut continued = Vec::new();
        poll_fn(|cx| {
            let before = waiting.len();
            waiting.retain(|transport| transport.poll_turn(cx).is_pending());
            continued.push(before - waiting.len());
            if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(continued, [0, 4, 4, 2]);
    });
}

#[test]
fn a_deferred_socket_that_is_closed_is_forgotten() {
    if !Feature::Full.is_built_in() {
        return;
    }
    run(async |reactor| {
        let (transport, _peer) = pair(&reactor);
        transport.defer();
        drop(transport);
        assert!(reactor.deferred.borrow().is_empty());
        // This socket has the same key.
        let (transport, _peer) = pair(&reactor);
        poll_fn(|cx| transport.poll_turn(cx)).await;
        transport.defer();
        poll_fn(|cx| transport.poll_turn(cx)).await;
    });
}

#[test]
fn at_most_64_connections_linger_at_once() {
    let reactor = Reactor::new().unwrap();
    let mut lingering: Vec<_> = (0..64).map(|_| reactor.linger().unwrap()).collect();
    assert!(reactor.linger().is_none());
    lingering.pop();
    assert!(reactor.linger().is_some());
}

#[test]
fn a_hang_up_wakes_a_blocked_writer() {
    run(async |reactor| {
        let (transport, peer) = pair(&reactor);
        fill(&transport).await;
        let hang_up = std::thread::spawn(move || drop(peer));
        assert_eq!(send(&transport, b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        hang_up.join().unwrap();
    });
}

#[test]
fn a_reset_wakes_reader_and_writer() {
    run(async |reactor| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let transport = Transport::connect_tcp(&reactor, address).await.unwrap();
        let (peer, _) = listener.accept().unwrap();
        fill(&transport).await;
        sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        let reset = std::thread::spawn(move || drop(peer));
        let (read, written) =
            future::zip(recv(&transport, &mut [0; 9]), send(&transport, b"x")).await;
        // The kernel reports the reset only once. The other call finds a closed connection.
        assert!(read.is_err() || read.unwrap() == 0);
        assert!(written.is_err());
        reset.join().unwrap();
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    run(async |reactor| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = Transport::connect_tcp(&reactor, address).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn an_event_of_a_dropped_source_does_not_reach_a_new_source_with_its_key() {
    run(async |reactor| {
        let (one, _other) = UnixStream::pair().unwrap();
        let fd = one.as_fd().try_clone_to_owned().unwrap();
        let first = reactor.register(fd).unwrap();
        let generation = reactor.sources.borrow()[first.key as usize].generation;
        let event = (u64::from(generation) << 32) | u64::from(first.key);
        let key = first.key;
        // A task may do this between two events of one batch.
        drop(first);
        let (next, _other) = UnixStream::pair().unwrap();
        let second = reactor.register(&next).unwrap();
        assert_eq!(second.key, key, "the slab reuses the key");
        reactor.dispatch(event, EventFlags::IN | EventFlags::HUP);
        let ready = future::poll_once(poll_fn(|cx| second.poll_ready(Direction::Read, cx))).await;
        assert_eq!(ready, None, "the stale event made the new source ready");
        assert!(!reactor.sources.borrow()[key as usize].hung_up);
    });
}

#[test]
fn deadlines_pass_in_order_and_equal_deadlines_all_pass() {
    let order = run(async |reactor| {
        let timer = Timer::new(&reactor);
        let start = Instant::now();
        let passed = RefCell::new(Vec::new());
        let sleep = async |name, milliseconds| {
            timer.sleep_until(start + Duration::from_millis(milliseconds)).await;
            passed.borrow_mut().push(name);
        };
        let late = future::zip(sleep("late", 30), sleep("later", 40));
        let equal = future::zip(sleep("equal", 20), sleep("equal", 20));
        future::zip(late, future::zip(equal, sleep("early", 10))).await;
        assert!(start.elapsed() >= Duration::from_millis(40));
        passed.into_inner()
    });
    assert_eq!(order, ["early", "equal", "equal", "late", "later"]);
}

#[test]
fn dropping_a_sleep_removes_its_deadline() {
    run(async |reactor| {
        assert_eq!(reactor.deadlines.borrow().first(), None);
        let timer = Timer::new(&reactor);
        let mut sleep = timer.sleep(Some(Duration::from_secs(5)));
        assert!(future::poll_once(&mut sleep).await.is_none());
        assert!(reactor.deadlines.borrow().first().is_some());
        drop(sleep);
        assert_eq!(reactor.deadlines.borrow().first(), None);
    });
}

#[test]
fn a_far_deadline_does_not_overflow() {
    run(async |reactor| {
        let timer = Timer::new(&reactor);
        for never in [None, Some(Duration::MAX), Some(Duration::from_secs(u32::MAX.into()))] {
            let mut sleep = timer.sleep(never);
            assert!(future::poll_once(&mut sleep).await.is_none());
            assert!(reactor.until_first_deadline(Instant::now()).unwrap() <= LONGEST_WAIT);
        }
    });
}

#[test]
fn a_waker_called_from_another_thread_ends_the_sleep() {
    run(async |_| {
        for _ in 0..100 {
            let (sender, receiver) = async_channel::bounded(1);
            let thread = std::thread::spawn(move || sender.try_send(7).unwrap());
            assert_eq!(receiver.recv().await, Ok(7));
            thread.join().unwrap();
        }
    });
}

#[test]
fn events_are_fetched_while_tasks_keep_waking_themselves() {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new().leak();
    let polls = Rc::new(Cell::new(0_usize));
    for _ in 0..1000 {
        let polls = polls.clone();
        let busy = executor.spawn(async move {
            loop {
                polls.set(polls.get() + 1);
                future::yield_now().await;
            }
        });
        busy.detach();
    }
    let (transport, mut peer) = pair(&reactor);
    let main = executor.spawn(async move {
        let mut waits = Vec::new();
        for _ in 0..20 {
            peer.write_all(b"x").unwrap();
            let before = polls.get();
            recv(&transport, &mut [0; 10]).await.unwrap();
            waits.push(polls.get() - before);
        }
        waits
    });
    let waits = reactor.run(executor, main).unwrap();
    // Up to 64 tasks run before the event is fetched, then the 1000 tasks queued before the reader.
    assert!(waits.iter().all(|wait| *wait <= 64 + 1000), "{waits:?}");
}

#[test]
fn the_memory_of_many_sockets_is_freed_while_one_stays() {
    run(async |reactor| {
        let (staying, _other_end) = pair(&reactor);
        let many: Vec<_> = (0..200).map(|_| pair(&reactor)).collect();
        let (transport, mut peer) = pair(&reactor);
        peer.write_all(b"some bytes").unwrap();
        poll_fn(|cx| transport.poll_recv_with(cx, |_| ())).await.unwrap();
        assert!(reactor.sources.borrow().capacity() > 200);
        assert!(reactor.receive_buffer.borrow().capacity() > 0);
        drop((many, transport));
        assert!(reactor.sources.borrow().capacity() <= FEW_SOURCES);
        assert_eq!(reactor.receive_buffer.borrow().capacity(), 0);
        drop(staying);
    });
}

#[cfg(feature = "tls")]
/// Polls a step of a handshake on each source until all are admitted. Returns the indices of those that were
/// admitted in each turn. After the first turn, the source at `dropped` is dropped.
async fn steps_by_turn(
    reactor: Rc<Reactor>,
    count: usize,
    dropped: Option<usize>,
) -> Vec<Vec<usize>> {
    let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().unwrap()).collect();
    let (ours, _theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mut sources: Vec<_> = ours.into_iter().map(|fd| reactor.register(fd).ok()).collect();
    let mut turns: Vec<(Instant, Vec<usize>)> = Vec::new();
    poll_fn(|cx| {
        for (index, source) in sources.iter_mut().enumerate() {
            if source.take_if(|source| source.poll_handshake_step(cx).is_ready()).is_some() {
                match turns.last_mut() {
                    Some((turn, steps)) if *turn == reactor.now() => steps.push(index),
                    _ => turns.push((reactor.now(), vec![index])),
                }
            }
        }
        if let Some(dropped) = dropped {
            sources[dropped] = None;
        }
        if sources.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    turns.into_iter().map(|(_, steps)| steps).collect()
}

#[cfg(feature = "tls")]
#[test]
fn two_steps_of_handshakes_are_admitted_a_turn_and_the_others_wait_in_their_order() {
    let turns = run(async |reactor| steps_by_turn(reactor, 7, None).await);
    assert_eq!(turns, [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]]);
}

#[cfg(feature = "tls")]
#[test]
fn a_handshake_that_is_dropped_while_it_waits_takes_no_turn_of_another() {
    let turns = run(async |reactor| steps_by_turn(reactor, 7, Some(2)).await);
    assert_eq!(turns, [vec![0, 1], vec![3, 4], vec![5, 6]]);
}

#[test]
fn a_source_takes_24_bytes() {
    assert_eq!(size_of::<Source>(), 24);
}
