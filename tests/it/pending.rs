//! The budget for everything that is unfinished (`--max-pending`): the memory stays within it, those that hold
//! most of it are closed, and everybody else is served.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use falconet::{CloseReason, Config, Echo, Endpoint, Session, SessionEnd};
use rustix::net::sockopt;

use crate::support::admin::{self, Metrics};
#[cfg(feature = "tls")]
use crate::support::tls::TlsServer;
use crate::support::*;

#[test]
fn unfinished_messages_take_no_more_than_the_budget() {
    assert_bounded(
        |address| Client::connect(address).stream,
        &masked(true, BINARY, &[b'x'; MESSAGE_BYTES])[..MESSAGE_BYTES],
        TRY_AGAIN_LATER,
    );
}

#[test]
fn unfinished_fragments_take_no_more_than_the_budget() {
    let first = masked(false, BINARY, &[b'x'; 1000]);
    let bytes = [first, masked(false, CONTINUATION, &[b'x'; 1000]).repeat(60)].concat();
    assert_bounded(|address| Client::connect(address).stream, &bytes, TRY_AGAIN_LATER);
}

#[test]
fn unfinished_request_bodies_take_no_more_than_the_budget() {
    let body = vec![b'x'; MESSAGE_BYTES];
    let post = request("POST", "/topics/t", "", &body);
    assert_bounded(connect, &post[..post.len() - 1], b"HTTP/1.1 503 ");
}

#[test]
fn unfinished_heads_take_no_more_than_the_budget() {
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(16_000));
    assert_bounded(connect, head.as_bytes(), b"HTTP/1.1 503 ");
}

#[cfg(feature = "tls")]
#[test]
fn half_a_tls_handshake_takes_no_more_than_the_budget() {
    let budget = format!("{BUDGET_KIB}k");
    let flags = ["--max-pending", &budget, "--log-level", "debug"];
    let server = TlsServer::start("pending-tls", &flags);
    let mut other = server.client("/");
    other.echo("before");
    // A handshake message of 60,000 bytes, in records of the largest size (RFC 8446 §5.1).
    let message = [&[1, 0, 0xea, 0x60, 3, 3][..], &[0; 23_000]].concat();
    let records: Vec<u8> = message
        .chunks(16 * 1024)
        .flat_map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat())
        .collect();
    let files = server.falconet.open_files();
    let attackers: Vec<TcpStream> = (0..ATTACKERS).map(|_| connect(server.address())).collect();
    wait_until("all are accepted", || server.falconet.open_files() == files + ATTACKERS);
    let before = server.falconet.private_kib();
    for mut attacker in &attackers {
        attacker.write_all(&records).unwrap();
    }
    other.echo("meanwhile");
    let grown = server.falconet.private_kib().saturating_sub(before);
    assert_within_budget(grown, records.len() / 2);
    server.falconet.wait_for_line("refused: too much unfinished input");
    other.echo("after");
}

#[test]
fn echoes_that_are_not_read_take_no_more_than_the_budget() {
    let budget = format!("{BUDGET_KIB}k");
    let falconet = Falconet::start(&["--max-pending", &budget]);
    let mut other = Client::connect(falconet.address());
    other.echo("before");
    let before = falconet.private_kib();
    let message = masked(true, BINARY, &[b'x'; 60_000]);
    let mut writers: Vec<(TcpStream, usize)> = (0..ATTACKERS)
        .map(|_| {
            let stream = Client::connect(falconet.address()).stream;
            // Small kernel buffers block soon.
            sockopt::set_socket_recv_buffer_size(&stream, 64 * 1024).unwrap();
            sockopt::set_socket_send_buffer_size(&stream, 16 * 1024).unwrap();
            stream.set_nonblocking(true).unwrap();
            (stream, 0)
        })
        .collect();
    let mut most = 0;
    wait_until("a client that does not read is closed", || {
        for (stream, sent) in &mut writers {
            // Writing fails if the server does not read, or has closed the connection.
            *sent += stream.write(&message[*sent % message.len()..]).unwrap_or(0);
        }
        most = most.max(falconet.private_kib());
        falconet.log_so_far().iter().any(|line| line.contains("closed by us with 1013"))
    });
    let grown = most.saturating_sub(before);
    // A message that is received, and another one that is to be sent.
    assert_within_budget(grown, 2 * message.len() / 3);
    other.echo("after");
}

#[test]
fn an_event_stream_that_is_given_up_is_logged_as_closed_for_its_memory() {
    let budget = format!("{BUDGET_KIB}k");
    let falconet = Falconet::start(&["--max-pending", &budget]);
    let readers: Vec<Events> = (0..30)
        .map(|topic| Events::connect(falconet.address(), &format!("/topics/{topic}"), ""))
        .collect();
    let mut publisher = Http::connect(falconet.address());
    wait_until("an event stream that is not read is closed", || {
        for topic in 0..readers.len() {
            let answer = publisher.fetch(post(&format!("/topics/{topic}"), [b'x'; 60_000]));
            assert_eq!(answer.status(), 202, "{}", answer.text());
        }
        falconet
            .log_so_far()
            .iter()
            .any(|line| line.contains("kind=events") && line.contains("closed by us with 1013"))
    });
}

/// A message that waits because of the rate limit does not keep the client from being closed.
#[test]
fn messages_that_wait_for_the_rate_limit_are_given_up() {
    let budget = format!("{BUDGET_KIB}k");
    let falconet = Falconet::start(&["--max-pending", &budget, "--max-message-rate", "1"]);
    let messages = masked(true, TEXT, b"x").repeat(4_000);
    let flooders: Vec<Client> = (0..40).map(|_| Client::connect(falconet.address())).collect();
    for flooder in &flooders {
        (&flooder.stream).write_all(&messages).unwrap();
    }
    falconet.wait_for_line("closed by us with 1013");
    Client::connect(falconet.address()).echo("after");
}

/// An endpoint that takes a message and waits for a signal before it replies.
struct Gated(async_channel::Receiver<()>);

impl Endpoint for Gated {
    async fn serve(&self, mut session: Session) -> SessionEnd {
        while let Some(message) = session.next().await {
            // An error means that the gate is open.
            let _ = self.0.recv().await;
            session.send(message).await;
        }
        session.close(CloseReason::NORMAL).await
    }
}

#[test]
fn input_is_given_up_while_the_endpoint_waits_for_something_else() {
    let (gate, gated) = async_channel::bounded::<()>(1);
    let server = Embedded::start(|server| {
        let mut config = Config::default();
        config.limits.pending_bytes = Some(BUDGET_KIB as usize * 1024);
        server.config(config).endpoint("/", Echo).endpoint("/gated", Gated(gated))
    });
    let mut other = Client::connect(server.address);
    // Together they hold more than twice the budget.
    let input = [masked(true, TEXT, b"x"), masked(true, TEXT, &[b'x'; 30_000])].concat();
    let mut holders: Vec<Client> =
        (0..40).map(|_| Client::connect_to(server.address, "/gated")).collect();
    for holder in &mut holders {
        holder.stream.write_all(&input[..input.len() - 1]).unwrap();
    }
    other.echo("meanwhile");
    // Until the memory is free again, this client is not read to the end of its message.
    other.echo(&"y".repeat(20_000));
    drop(gate);
    let answers = holders.iter_mut().map(Client::read);
    let closed = answers.filter(|answer| answer.opcode == CLOSE);
    let codes: Vec<_> = closed.map(|close| close.payload[..2].to_owned()).collect();
    assert!(codes.contains(&TRY_AGAIN_LATER[2..].to_owned()), "{codes:?}");
    server.stop().unwrap().unwrap();
}

/// Starts a server with a small budget, sends `bytes` on many connections, and checks that the memory stays
/// bounded, that a message of another client arrives, that one of the connections gets an answer that begins with
/// `answer`, and that nothing of them is counted in the end.
fn assert_bounded(open: impl Fn(SocketAddr) -> TcpStream, bytes: &[u8], answer: &[u8]) {
    let (falconet, admin) = admin::start(&["--max-pending", &format!("{BUDGET_KIB}k")]);
    let mut other = Client::connect(falconet.address());
    other.echo("before");
    let files = falconet.open_files();
    let attackers: Vec<TcpStream> = (0..ATTACKERS).map(|_| open(falconet.address())).collect();
    wait_until("all are accepted", || falconet.open_files() == files + ATTACKERS);
    let before = falconet.private_kib();
    for mut attacker in &attackers {
        attacker.write_all(bytes).unwrap();
        attacker.set_nonblocking(true).unwrap();
    }
    other.echo("meanwhile");
    let grown = falconet.private_kib().saturating_sub(before);
    assert_within_budget(grown, (bytes.len() / 2).min(16 * 1024));
    let mut begin = vec![0; answer.len()];
    wait_until("a connection is answered", || {
        attackers.iter().any(|attacker| {
            attacker.peek(&mut begin).is_ok_and(|count| count == answer.len()) && begin == answer
        })
    });
    other.echo("still here");
    drop(attackers);
    wait_until("only the request for the metrics is counted", || {
        Metrics::read(admin).total("falconet_pending_bytes") < 1024.0
    });
    other.echo("after");
}

/// Checks that the server's memory has grown by no more than the budget, and `bytes` for each attacker: at the
/// limit, each one holds two pieces of 4 KiB, and its state.
fn assert_within_budget(grown_kib: u64, bytes: usize) {
    let allowed = BUDGET_KIB + (ATTACKERS * bytes / 1024) as u64;
    assert!(grown_kib <= allowed, "{grown_kib} KiB more, at most {allowed} expected");
}

/// The begin of a Close with the code 1013 and the text `server overloaded`.
const TRY_AGAIN_LATER: &[u8] = &[0x88, 19, 0x03, 0xf5];
/// The budget, in KiB.
const BUDGET_KIB: u64 = 512;
const ATTACKERS: usize = 150;
/// The largest message of the default configuration.
const MESSAGE_BYTES: usize = 64 * 1024;
