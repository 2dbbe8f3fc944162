//! `cargo bench --bench fanout`: what it costs falconet to send one message to everyone, beside a
//! minimal tokio-tungstenite server in the same run.
//!
//! This process holds the clients; each server is a process of its own, started anew for every
//! round, and the two take turns. Enforced: every client gets every broadcast once, and the same
//! bytes. Times are printed, never enforced.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::broadcast::{self, Receiver};
use tokio::time;
use tokio_tungstenite::tungstenite::Message;

use rig::audience::Audience;
use rig::report::{Budgets, Table, conclude, percentile, thousands};
use rig::server::Program;
use rig::{clients, peer};

mod rig {
    pub(crate) mod audience;
    pub(crate) mod clients;
    pub(crate) mod peer;
    pub(crate) mod process;
    pub(crate) mod readiness;
    pub(crate) mod report;
    pub(crate) mod server;
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
    println!("{ROUNDS} rounds; spread: from the first client that has it to the last");
    let counts = clients::affordable(&CLIENTS)?;
    let table = Table::new(&[
        ("clients", 11),
        ("server", 17),
        ("median spread ms", 16),
        ("max spread ms", 13),
        ("CPU µs per delivery", 19),
        ("CPU ratio (min–max)", 19),
        ("delivered", 17),
    ]);
    for clients in counts {
        compare(clients, &falconet, &peer, &table, &mut budgets)?;
    }
    println!("CPU ratio: falconet's over tokio-tungstenite's");
    Ok(budgets)
}

/// Measures both servers in alternate rounds and prints a row for each.
fn compare(
    clients: usize,
    falconet: &Program,
    peer: &Program,
    table: &Table,
    budgets: &mut Budgets,
) -> io::Result<()> {
    let (mut ours, mut theirs) = (Outcome::default(), Outcome::default());
    for _ in 0..ROUNDS {
        round(clients, falconet, &mut ours)?;
        round(clients, peer, &mut theirs)?;
    }
    let ratio = peer::ratio(&ours.cpu_per_delivery, &theirs.cpu_per_delivery);
    let due = clients * BROADCASTS * ROUNDS;
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
    let mut audience = Audience::connect(&server, clients)?;
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

/// How many clients listen.
const CLIENTS: [usize; 2] = [1000, 5000];

/// How often a server broadcasts.
const EVERY: Duration = Duration::from_millis(500);

/// How long nothing must arrive for a broadcast to be over. Well within the pause between two.
const SILENCE: Duration = Duration::from_millis(100);

/// Broadcasts counted in a round.
const BROADCASTS: usize = 2;

/// Rounds for each server. Odd, so that the median is a round.
const ROUNDS: usize = 9;

/// How many messages the peer keeps for a client that is slow to take them.
const BACKLOG_MESSAGES: usize = 16;
