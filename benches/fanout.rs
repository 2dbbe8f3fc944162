//! `cargo bench --bench fanout`: what it costs falconet to send one message to everyone, beside a
//! minimal tokio-tungstenite server in the same run, and to take one from a publisher.
//!
//! This process holds the clients; each server is a process of its own, started anew for every
//! round, and the two take turns. Enforced: every client gets every broadcast once, and the same
//! bytes, and the system calls that one publish takes for each subscriber. Times are printed, never
//! enforced.
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

use rig::audience::Audience;
use rig::publisher::Publisher;
use rig::report::{Budgets, Table, conclude, percentile, thousands};
use rig::server::{Program, Server};
use rig::strace::Strace;
use rig::{clients, peer, unprotected};

mod rig {
    pub(crate) mod audience;
    pub(crate) mod clients;
    pub(crate) mod peer;
    pub(crate) mod process;
    pub(crate) mod publisher;
    pub(crate) mod readiness;
    pub(crate) mod report;
    pub(crate) mod server;
    pub(crate) mod strace;
    pub(crate) mod unprotected;
}

fn main() -> ExitCode {
    if peer::is_requested() {
        return peer::run(broadcast_to_everyone());
    }
    conclude("fanout", measure())
}

/// The peer: one message, made once, goes to every client at each tick.
async fn broadcast_to_everyone() -> io::Result<()> {
    let (publisher, _) = broadcast::channel(BACKLOG_MESSAGES);
    let updates = publisher.clone();
    tokio::spawn(async move {
        let message = Message::text("Server time: 10/14/2019 5:50:04 PM +02:00");
        let mut ticks = time::interval(EVERY);
        loop {
            ticks.tick().await;
            // Fails while there is nobody to send to.
            publisher.send(message.clone()).ok();
        }
    });
    peer::serve(move |socket| forward(socket, updates.subscribe())).await
}

async fn forward(mut socket: peer::Socket, mut updates: Receiver<Message>) {
    while let Some(message) = next_update(&mut socket, &mut updates).await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Waits for an update and reads from the client meanwhile, as every server must that answers pings
/// and notices who leaves. `None` once the client has left.
async fn next_update(
    socket: &mut peer::Socket,
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
    let peer = peer::program()?;
    let mut budgets = Budgets::default();

    println!("fanout: a short text message to everyone every {EVERY:?}, {BROADCASTS} in a round,");
    println!(
        "{} rounds or fewer; spread: from the first client that has it to the last",
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
        compare(clients, rounds, &falconet, &peer, &table, &mut budgets)?;
    }
    println!("CPU ratio: falconet's over tokio-tungstenite's");
    let unprotected = unprotected::program(&["--broadcast-every", &every])?;
    let (clients, rounds) = CLIENTS[0];
    compare(clients, rounds, &falconet, &unprotected, &table, &mut budgets)?;
    println!("CPU ratio: with all protections over without those that can be switched off");
    publish(&mut budgets)?;
    Ok(budgets)
}

/// Measures what it takes falconet to take messages from one publisher, and to pass one on.
fn publish(budgets: &mut Budgets) -> io::Result<()> {
    let bytes = TEXT.len();
    println!("\npublish: {bytes} bytes to a topic by HTTP, over one connection that is kept");
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

    let subscribers = clients::affordable(&[SUBSCRIBERS])?[0];
    let server = falconet.start()?;
    let mut audience = Audience::connect(&server, subscribers, TOPIC_PATH)?;
    let calls = count_calls(server, |server| {
        let mut publisher = Publisher::new(server, TOPIC, TEXT);
        let mut delivered = 0;
        for _ in 0..BROADCASTS {
            publisher.publish()?;
            delivered += audience.next_broadcast(PATIENCE)?.delivered;
        }
        Ok(delivered)
    })?;
    if let Some(calls) = calls {
        let (what, limit) = ("system calls per subscriber", CALLS_PER_SUBSCRIBER);
        println!("publish to {} idle subscribers:", thousands(subscribers));
        println!("{calls:.3} {what}, limit {limit:.2}");
        budgets.at_most(what, calls, limit);
    }
    Ok(())
}

/// Publishes one message after another; returns how many microseconds each took, and the server's
/// processor time.
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

/// Ends the server and returns how many system calls it made for each of what `work` has counted.
/// `None`, and a line that says why, if that can't be known.
fn count_calls(
    server: Server,
    work: impl FnOnce(&Server) -> io::Result<usize>,
) -> io::Result<Option<f64>> {
    let Some(strace) = Strace::attach(&server) else { return Ok(None) };
    let count = work(&server)?;
    Ok(Some(strace.total(server)? / count as f64))
}

/// Measures both servers in alternate rounds and prints a row for each.
fn compare(
    clients: usize,
    rounds: usize,
    falconet: &Program,
    peer: &Program,
    table: &Table,
    budgets: &mut Budgets,
) -> io::Result<()> {
    let (mut ours, mut theirs) = (Outcome::default(), Outcome::default());
    for _ in 0..rounds {
        round(clients, falconet, &mut ours)?;
        round(clients, peer, &mut theirs)?;
    }
    let ratio = peer::ratio(&ours.cpu_per_delivery, &theirs.cpu_per_delivery);
    let due = clients * BROADCASTS * rounds;
    for (program, mut outcome, ratio) in [(falconet, ours, &*ratio), (peer, theirs, "")] {
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

/// Adds to `outcome` one round against a fresh server.
fn round(clients: usize, program: &Program, outcome: &mut Outcome) -> io::Result<()> {
    let server = program.start()?;
    let mut audience = Audience::connect(&server, clients, "/")?;
    audience.settle(SILENCE)?;
    let cpu_before = server.cpu_time()?;
    let mut delivered = 0;
    for _ in 0..BROADCASTS {
        let arrival = audience.next_broadcast(2 * EVERY)?;
        outcome.spreads.push(arrival.spread.as_secs_f64() * 1e3);
        delivered += arrival.delivered;
    }
    audience.settle(SILENCE)?;
    let cpu = server.cpu_time()? - cpu_before;
    outcome.cpu_per_delivery.push(cpu.as_secs_f64() * 1e6 / delivered as f64);
    outcome.delivered += delivered;
    Ok(())
}

/// What the rounds of one server saw.
#[derive(Default)]
struct Outcome {
    /// Milliseconds from the first client that had a broadcast to the last, of every broadcast.
    spreads: Vec<f64>,
    /// Microseconds of the server's processor time per client and broadcast, round by round.
    cpu_per_delivery: Vec<f64>,
    /// How often a client got a broadcast.
    delivered: usize,
}

/// How many clients listen, and in how many rounds for each server. Odd, so that the median is a round.
const CLIENTS: [(usize, usize); 3] = [(1000, 9), (5000, 9), (10_000, 3)];

/// How often a server broadcasts.
const EVERY: Duration = Duration::from_millis(500);

/// How long nothing must arrive for a broadcast to be over. Well within the pause between two.
const SILENCE: Duration = Duration::from_millis(100);

/// Broadcasts counted in a round.
const BROADCASTS: usize = 2;

/// How many messages the peer keeps for a client that is slow to take them.
const BACKLOG_MESSAGES: usize = 16;

/// Where messages are published to.
const TOPIC: &str = "bench";
const TOPIC_PATH: &str = "/topics/bench";

/// What is published: a reading of a sensor.
const TEXT: &str = r#"{"temperature":21.5,"at":1200}"#;

/// How long a publisher publishes.
const PUBLISHING: Duration = Duration::from_secs(2);

/// How many subscribers are silent while their system calls are counted, and how many there may be for
/// each of them and each message, the publisher's own included.
const SUBSCRIBERS: usize = 5000;
const CALLS_PER_SUBSCRIBER: f64 = 1.3;

/// How long a message may take to everybody while strace looks on.
const PATIENCE: Duration = Duration::from_secs(10);
