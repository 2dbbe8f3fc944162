//! `cargo bench --bench fanout`: the cost of a message to all clients, compared with a minimal
//! tokio-tungstenite server in the same run, the cost of a publish, and the delay of other clients during a
//! replay.
//!
//! This process runs the clients. Each server runs in its own process, which is started anew for each
//! round; rounds of the two servers alternate. Enforced: every client receives every broadcast once
//! and with the same bytes, the limit on system calls per subscriber of a publish, and the limit on the
//! delay of a client while a long history is replayed. All other times are printed, never enforced.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::broadcast::{self, Receiver};
use tokio::time;
use tokio_tungstenite::tungstenite::Message;

use support::publisher::Publisher;
use support::replay::{Replay, event_streams, fill, websockets};
use support::report::{Budgets, Table, finish, percentile, thousands};
use support::server::{Program, Server};
use support::strace::Strace;
use support::subscribers::Subscribers;
use support::tls::TlsDirectory;
use support::{clients, reference, unprotected};

mod support {
    pub(crate) mod clients;
    pub(crate) mod process;
    pub(crate) mod publisher;
    pub(crate) mod readiness;
    pub(crate) mod reference;
    pub(crate) mod replay;
    pub(crate) mod report;
    pub(crate) mod server;
    pub(crate) mod strace;
    pub(crate) mod subscribers;
    pub(crate) mod tls;
    pub(crate) mod unprotected;
}

fn main() -> ExitCode {
    if reference::is_requested() {
        return reference::run(broadcast_to_all());
    }
    finish("fanout", measure())
}

/// The reference server: creates one message, and sends it to all clients at each tick.
async fn broadcast_to_all() -> io::Result<()> {
    let (publisher, _) = broadcast::channel(BACKLOG_MESSAGES);
    let updates = publisher.clone();
    tokio::spawn(async move {
        let message = Message::text("Server time: 10/14/2019 5:50:04 PM +02:00");
        let mut ticks = time::interval(EVERY);
        loop {
            ticks.tick().await;
            // Fails while no client is connected.
            publisher.send(message.clone()).ok();
        }
    });
    reference::serve(move |socket| forward(socket, updates.subscribe())).await
}

async fn forward(mut socket: reference::Socket, mut updates: Receiver<Message>) {
    while let Some(message) = next_update(&mut socket, &mut updates).await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Waits for an update. Meanwhile reads from the client, as a server must to answer pings and to
/// notice a disconnect. Returns `None` when the client has disconnected.
async fn next_update(
    socket: &mut reference::Socket,
    updates: &mut Receiver<Message>,
) -> Option<Message> {
    loop {
        match select(pin!(updates.recv()), socket.next()).await {
            Either::Left((update, _)) => return update.ok(),
            Either::Right((Some(Ok(_)), _)) => {}
            Either::Right(_) => return None,
        }
    }
}

fn measure() -> io::Result<Budgets> {
    let every = format!("{}ms", EVERY.as_millis());
    let falconet = Program::falconet(&["--broadcast-every", &every])?;
    let reference = reference::program()?;
    let mut budgets = Budgets::default();

    println!(
        "fanout: a short text message to all clients every {EVERY:?}; {BROADCASTS} messages a"
    );
    println!(
        "round, at most {} rounds; spread: from the first client that has a message to the last",
        CLIENTS[0].1
    );
    let table = Table::new(&[
        ("clients", 11),
        ("server", 17),
        ("median spread ms", 16),
        ("max spread ms", 13),
        ("CPU µs per delivery", 19),
        ("CPU ratio (min–max)", 19),
        ("delivered", 17),
    ]);
    let wanted = CLIENTS.map(|(clients, _)| clients);
    for (clients, (_, rounds)) in clients::affordable(&wanted)?.into_iter().zip(CLIENTS) {
        compare(clients, rounds, &falconet, &reference, &table, &mut budgets)?;
    }
    println!("CPU ratio: falconet's over tokio-tungstenite's");
    let unprotected = unprotected::program(&["--broadcast-every", &every])?;
    let (clients, rounds) = CLIENTS[0];
    compare(clients, rounds, &falconet, &unprotected, &table, &mut budgets)?;
    println!("CPU ratio: with all protections, over that without those that can be switched off");
    publish(&mut budgets)?;
    replay(&mut budgets)?;
    Ok(budgets)
}

/// Measures the delay of an echo while a long history is replayed, several times.
fn replay(budgets: &mut Budgets) -> io::Result<()> {
    println!(
        "\nreplay: {} retained messages to {READERS} readers, while another client echoes",
        thousands(RETAINED)
    );
    let table = Table::new(&[
        ("readers", 16),
        ("replay s", 8),
        ("echoes", 7),
        ("p50 ms", 7),
        ("p99 ms", 7),
        ("max ms", 7),
    ]);
    let retained = RETAINED.to_string();
    let limits = ["--retain-bytes", "64m", "--log-total", "256m", "--broadcast-every", "0"];
    let plain = Program::falconet(&[&["--retain", &retained], &limits[..]].concat())?;
    let directory = TlsDirectory::new();
    let with_tls = directory.program(&plain);
    for (readers, program, directory) in [
        ("WebSocket", &plain, None),
        ("event streams", &plain, None),
        ("WebSocket, TLS", &with_tls, Some(&directory)),
    ] {
        let server = program.start()?;
        let connect = |count, path: &str| websockets(&server, directory, count, path);
        for publisher in &mut connect(1, &format!("{TOPIC_PATH}?mode=in"))? {
            fill(publisher, TEXT, RETAINED)?;
        }
        let path = format!("{TOPIC_PATH}?last={RETAINED}");
        for canary in &mut connect(1, "/")? {
            // The last byte of a message is in no header of a frame or event.
            let mark = TEXT.as_bytes()[TEXT.len() - 1];
            let mut replays = Vec::new();
            for _ in 0..REPLAYS {
                let mut replay = Replay::measure(canary, mark, RETAINED, || match readers {
                    "event streams" => event_streams(&server, READERS, &path),
                    _ => connect(READERS, &path),
                })?;
                replays.push((percentile(&mut replay.delays, 99), replay));
            }
            // The one with the median, because a pause of the machine is not the server's.
            replays.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (p99, mut replay) = replays.swap_remove(REPLAYS / 2);
            table.row([
                readers.to_owned(),
                format!("{:.2}", replay.duration.as_secs_f64()),
                thousands(replay.delays.len()),
                format!("{:.2}", percentile(&mut replay.delays, 50)),
                format!("{p99:.2}"),
                format!("{:.2}", percentile(&mut replay.delays, 100)),
            ]);
            let what = format!("p99 in ms of an echo during a replay to {readers}");
            budgets.at_most(what, p99, ECHO_MS);
        }
    }
    Ok(())
}

/// Measures the cost of accepting messages from one publisher, and of delivering them.
fn publish(budgets: &mut Budgets) -> io::Result<()> {
    let bytes = TEXT.len();
    println!("\npublish: {bytes} bytes to a topic by HTTP, over one kept connection");
    let falconet = Program::falconet(&["--broadcast-every", "0"])?;
    let table = Table::new(&[
        ("publishes/s", 11),
        ("p50 µs", 8),
        ("p99 µs", 8),
        ("CPU µs per publish", 18),
        ("system calls", 13),
    ]);
    let server = falconet.start()?;
    let (mut times, cpu) = publish_for(PUBLISHING, &server)?;
    let calls = count_calls(server, |server| Ok(publish_for(PUBLISHING, server)?.0.len()))?;
    table.row([
        thousands((times.len() as f64 / PUBLISHING.as_secs_f64()) as usize),
        format!("{:.0}", percentile(&mut times, 50)),
        format!("{:.0}", percentile(&mut times, 99)),
        format!("{:.1}", cpu.as_secs_f64() * 1e6 / times.len() as f64),
        calls.map_or("–".to_owned(), |calls| format!("{calls:.2}")),
    ]);

    let subscriber_count = clients::affordable(&[SUBSCRIBERS])?[0];
    let server = falconet.start()?;
    let mut subscribers = Subscribers::connect(&server, subscriber_count, TOPIC_PATH)?;
    let calls = count_calls(server, |server| {
        let mut publisher = Publisher::new(server, TOPIC, TEXT);
        let mut delivered = 0;
        for _ in 0..BROADCASTS {
            publisher.publish()?;
            delivered += subscribers.next_broadcast(TIMEOUT)?.delivered;
        }
        Ok(delivered)
    })?;
    if let Some(calls) = calls {
        let (what, limit) = ("system calls per subscriber", CALLS_PER_SUBSCRIBER);
        println!("publish to {} idle subscribers:", thousands(subscriber_count));
        println!("{calls:.3} {what}, limit {limit:.2}");
        budgets.at_most(what, calls, limit);
    }
    Ok(())
}

/// Publishes one message after another for `time`. Returns the latency of each in microseconds, and
/// the server's processor time.
fn publish_for(time: Duration, server: &Server) -> io::Result<(Vec<f64>, Duration)> {
    let mut publisher = Publisher::new(server, TOPIC, TEXT);
    let mut times = Vec::new();
    let (start, cpu_before) = (Instant::now(), server.cpu_time()?);
    while start.elapsed() < time {
        let before = Instant::now();
        publisher.publish()?;
        times.push(before.elapsed().as_secs_f64() * 1e6);
    }
    Ok((times, server.cpu_time()? - cpu_before))
}

/// Runs `work`, ends the server, and returns the server's system calls divided by the count that
/// `work` has returned. If `strace` cannot be attached, prints the reason and returns `None`.
fn count_calls(
    server: Server,
    work: impl FnOnce(&Server) -> io::Result<usize>,
) -> io::Result<Option<f64>> {
    let Some(strace) = Strace::attach(&server) else { return Ok(None) };
    let count = work(&server)?;
    Ok(Some(strace.total(server)? / count as f64))
}

/// Measures two programs in alternating rounds and prints a row for each.
fn compare(
    clients: usize,
    rounds: usize,
    measured: &Program,
    reference: &Program,
    table: &Table,
    budgets: &mut Budgets,
) -> io::Result<()> {
    let (mut ours, mut theirs) = (Outcome::default(), Outcome::default());
    for _ in 0..rounds {
        round(clients, measured, &mut ours)?;
        round(clients, reference, &mut theirs)?;
    }
    let ratio = reference::ratio(&ours.cpu_per_delivery, &theirs.cpu_per_delivery);
    let due = clients * BROADCASTS * rounds;
    for (program, mut outcome, ratio) in [(measured, ours, &*ratio), (reference, theirs, "")] {
        let undelivered = format!("{} to {clients} clients: not delivered", program.name);
        budgets.at_most(undelivered, due - outcome.delivered, 0);
        table.row([
            thousands(clients),
            program.name.to_owned(),
            format!("{:.1}", percentile(&mut outcome.spreads, 50)),
            format!("{:.1}", percentile(&mut outcome.spreads, 100)),
            format!("{:.2}", percentile(&mut outcome.cpu_per_delivery, 50)),
            ratio.to_owned(),
            format!("{} of {}", thousands(outcome.delivered), thousands(due)),
        ]);
    }
    Ok(())
}

/// Runs one round against a new server process and adds its figures to `outcome`.
fn round(clients: usize, program: &Program, outcome: &mut Outcome) -> io::Result<()> {
    let server = program.start()?;
    let mut subscribers = Subscribers::connect(&server, clients, "/")?;
    subscribers.discard_until_quiet(SILENCE)?;
    let cpu_before = server.cpu_time()?;
    let mut delivered = 0;
    for _ in 0..BROADCASTS {
        let delivery = subscribers.next_broadcast(2 * EVERY)?;
        outcome.spreads.push(delivery.spread.as_secs_f64() * 1e3);
        delivered += delivery.delivered;
    }
    subscribers.discard_until_quiet(SILENCE)?;
    let cpu = server.cpu_time()? - cpu_before;
    outcome.cpu_per_delivery.push(cpu.as_secs_f64() * 1e6 / delivered as f64);
    outcome.delivered += delivered;
    Ok(())
}

/// The results of all rounds of one server.
#[derive(Default)]
struct Outcome {
    /// Milliseconds from the first client that has a broadcast to the last, one entry per broadcast.
    spreads: Vec<f64>,
    /// Microseconds of the server's processor time per delivery, one entry per round.
    cpu_per_delivery: Vec<f64>,
    /// Deliveries in all rounds: one per client and broadcast.
    delivered: usize,
}

/// Numbers of clients, and the rounds per server with each. The numbers of rounds are odd, so that
/// the median is the value of one round.
const CLIENTS: [(usize, usize); 3] = [(1000, 9), (5000, 9), (10_000, 3)];

/// Interval between two broadcasts of a server.
const EVERY: Duration = Duration::from_millis(500);

/// Time without data after which a broadcast is complete. Much shorter than [`EVERY`].
const SILENCE: Duration = Duration::from_millis(100);

/// Broadcasts per round.
const BROADCASTS: usize = 2;

/// Messages that the reference server keeps for a slow client.
const BACKLOG_MESSAGES: usize = 16;

/// The topic to publish to.
const TOPIC: &str = "bench";
const TOPIC_PATH: &str = "/topics/bench";

/// The published message: a sensor reading.
const TEXT: &str = r#"{"temperature":21.5,"at":1200}"#;

/// Duration of a measurement with one publisher.
const PUBLISHING: Duration = Duration::from_secs(2);

/// Idle subscribers while the system calls of a publish are counted.
const SUBSCRIBERS: usize = 5000;

/// Most system calls per subscriber and message, those for the publisher included.
const CALLS_PER_SUBSCRIBER: f64 = 1.3;

/// The number of replays to each kind of readers.
const REPLAYS: usize = 3;
/// Messages of a history, and the clients that read it at the same time.
const RETAINED: usize = 100_000;
const READERS: usize = 3;

/// Longest time in milliseconds for 99 of 100 echoes while the history is read.
const ECHO_MS: f64 = 10.0;

/// Longest time to deliver a message to all subscribers under strace.
const TIMEOUT: Duration = Duration::from_secs(10);
