//! `cargo bench --bench echo`: what an echoed message costs falconet, beside a minimal
//! tokio-tungstenite server in the same run.
//!
//! This process is the load; each server is a process of its own, started anew for every round, and
//! the two take turns. Enforced: every echo right, no connection lost, and the system calls per
//! message where `strace` is there to count them. Times are printed, never enforced.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};

use rig::load::Load;
use rig::report::{Budgets, Table, conclude, percentile, thousands};
use rig::secure::State;
use rig::server::{Program, Server};
use rig::strace::Strace;
use rig::{clients, peer, unprotected};

mod rig {
    pub(crate) mod clients;
    pub(crate) mod load;
    pub(crate) mod peer;
    pub(crate) mod process;
    pub(crate) mod readiness;
    pub(crate) mod report;
    pub(crate) mod secure;
    pub(crate) mod server;
    pub(crate) mod strace;
    pub(crate) mod unprotected;
}

fn main() -> ExitCode {
    if peer::is_requested() {
        return peer::run(peer::serve(echo));
    }
    conclude("echo", measure())
}

/// The whole of the peer: it sends back what comes.
async fn echo(mut socket: peer::Socket) {
    while let Some(Ok(message)) = socket.next().await {
        let is_data = message.is_text() || message.is_binary();
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn measure() -> io::Result<Budgets> {
    let falconet = Program::falconet(&["--broadcast-every", "0"])?;
    let peer = peer::program()?;
    let mut budgets = Budgets::default();
    compare_costs(&falconet, &peer, &mut budgets)?;
    compare_tls(&falconet, &mut budgets)?;
    compare_protection(&falconet, &mut budgets)?;
    count_system_calls(&falconet, &peer, &mut budgets)?;
    Ok(budgets)
}

fn compare_costs(falconet: &Program, peer: &Program, budgets: &mut Budgets) -> io::Result<()> {
    println!("echo: text messages, one under way on each connection; {ROUNDS} rounds of {ROUND:?}");
    let connections = clients::affordable(&CONNECTIONS)?;
    let small = connections.into_iter().map(|connections| Case { connections, ..SMALL_MESSAGES });
    let table = table();
    for case in small.chain([LARGE_MESSAGES]) {
        case.compare(falconet, peer, &table, budgets)?;
    }
    println!("CPU ratio: falconet's over tokio-tungstenite's; target at most 0.95, not enforced\n");
    Ok(())
}

fn table() -> Table {
    Table::new(&[
        ("connections", 11),
        ("bytes", 6),
        ("server", 17),
        ("messages/s", 10),
        ("p50 µs", 8),
        ("p99 µs", 8),
        ("CPU s per million", 17),
        ("CPU ratio (min–max)", 19),
        ("failed", 6),
    ])
}

/// What TLS adds: the same program with it and without.
fn compare_tls(plain: &Program, budgets: &mut Budgets) -> io::Result<()> {
    println!("echo: over TLS 1.3 and plain, the same server; {ROUNDS} rounds of {ROUND:?}");
    let state = State::new();
    let secure = state.program(plain);
    let table = table();
    for case in [Case { connections: 64, ..SMALL_MESSAGES }, LARGE_MESSAGES] {
        let case = Case { state: Some(&state), ..case };
        case.compare(&secure, plain, &table, budgets)?;
    }
    println!("CPU ratio: with TLS over plain\n");
    Ok(())
}

/// What the deadlines and limits cost: the same program with them and without.
fn compare_protection(falconet: &Program, budgets: &mut Budgets) -> io::Result<()> {
    println!("echo: with all protections, and without those that can be switched off");
    let unprotected = unprotected::program(&["--broadcast-every", "0"])?;
    let case = Case { connections: 64, ..SMALL_MESSAGES };
    case.compare(falconet, &unprotected, &table(), budgets)?;
    println!("CPU ratio: with protections over without\n");
    Ok(())
}

fn count_system_calls(falconet: &Program, peer: &Program, budgets: &mut Budgets) -> io::Result<()> {
    println!("echo: system calls per message, counted by strace");
    let columns =
        [("connections", 11), ("at once", 7), (falconet.name, 10), ("limit", 10), (peer.name, 17)];
    let table = Table::new(&columns);
    for (connections, at_once, limit) in SYSTEM_CALL_LIMITS {
        let case = Case { connections, at_once, ..SMALL_MESSAGES };
        let Some(ours) = case.system_calls(falconet)? else { break };
        let Some(theirs) = case.system_calls(peer)? else { break };
        let what = format!("system calls per echo at {connections}, {at_once} at once");
        budgets.at_most(what, ours, limit);
        let [ours, limit, theirs] = [ours, limit, theirs].map(|calls| format!("{calls:.2}"));
        table.row([&connections.to_string(), &at_once.to_string(), &ours, &limit, &theirs]);
    }
    Ok(())
}

/// How many connections, with messages of what size and how many of them.
struct Case<'s> {
    connections: usize,
    payload_bytes: u16,
    /// How many messages a client sends in one go.
    at_once: usize,
    /// Where the certificate of a server is that speaks TLS.
    state: Option<&'s State>,
}

impl Case<'_> {
    /// Measures both servers in alternate rounds and prints a row for each.
    fn compare(
        &self,
        falconet: &Program,
        peer: &Program,
        table: &Table,
        budgets: &mut Budgets,
    ) -> io::Result<()> {
        let (mut ours, mut theirs) = (Outcome::default(), Outcome::default());
        for _ in 0..ROUNDS {
            self.round(falconet, &mut ours)?;
            self.round(peer, &mut theirs)?;
        }
        let ratio = peer::ratio(&ours.cpu_per_million, &theirs.cpu_per_million);
        for (program, outcome, ratio) in [(falconet, ours, &*ratio), (peer, theirs, "")] {
            if let Some(first) = outcome.failures.first() {
                println!("{}: the first failure: {first}", program.name);
            }
            let what = format!("{} at {}: failed connections", program.name, self.connections);
            budgets.at_most(what, outcome.failures.len(), 0);
            table.row(self.cells(program, outcome, ratio));
        }
        Ok(())
    }

    /// Adds to `outcome` one round against a fresh server.
    fn round(&self, program: &Program, outcome: &mut Outcome) -> io::Result<()> {
        let (server, mut load) = self.warmed_up(program)?;
        let cpu_before = server.cpu_time()?;
        let counters = load.drive(ROUND)?;
        let cpu = server.cpu_time()? - cpu_before;
        let echoes = counters.latencies.len() as f64;
        outcome.rates.push(echoes / counters.elapsed.as_secs_f64());
        outcome.cpu_per_million.push(cpu.as_secs_f64() * 1e6 / echoes);
        outcome.latencies.extend(counters.latencies);
        outcome.failures.extend(counters.failures);
        Ok(())
    }

    /// A fresh server, and clients that have already exchanged messages with it.
    fn warmed_up(&self, program: &Program) -> io::Result<(Server, Load)> {
        let server = program.start()?;
        let (count, bytes) = (self.connections, self.payload_bytes);
        let mut load = match self.state.filter(|_| speaks_tls(program)) {
            Some(state) => Load::connect_secure(&server, state, count, bytes)?,
            None => Load::connect(&server, count, bytes, self.at_once)?,
        };
        match load.drive(WARM_UP)?.failures.first() {
            Some(failure) => Err(io::Error::other(format!("{}: {failure}", program.name))),
            None => Ok((server, load)),
        }
    }

    /// Counts the system calls per echoed message, in all threads of a server that is warmed up.
    /// `None`, and a line that says why, if `strace` cannot.
    fn system_calls(&self, program: &Program) -> io::Result<Option<f64>> {
        let (server, mut load) = self.warmed_up(program)?;
        let Some(strace) = Strace::attach(&server) else { return Ok(None) };
        let echoes = load.drive(COUNTING)?.latencies.len() * self.at_once;
        Ok(Some(strace.total(server)? / echoes as f64))
    }

    /// The row of the table for one server.
    fn cells(&self, program: &Program, mut outcome: Outcome, ratio: &str) -> [String; 9] {
        [
            thousands(self.connections),
            thousands(self.payload_bytes.into()),
            program.name.to_owned(),
            thousands(percentile(&mut outcome.rates, 50) as usize),
            format!("{:.0}", percentile(&mut outcome.latencies, 50)),
            format!("{:.0}", percentile(&mut outcome.latencies, 99)),
            format!("{:.2}", percentile(&mut outcome.cpu_per_million, 50)),
            ratio.to_owned(),
            outcome.failures.len().to_string(),
        ]
    }
}

fn speaks_tls(program: &Program) -> bool {
    program.options.iter().any(|option| option.starts_with("https://"))
}

/// What the rounds of one server saw.
#[derive(Default)]
struct Outcome {
    /// Messages echoed per second, round by round.
    rates: Vec<f64>,
    /// Seconds of the server's processor time per million messages, round by round.
    cpu_per_million: Vec<f64>,
    /// Microseconds from sending to having the whole echo, of every message of every round.
    latencies: Vec<f64>,
    failures: Vec<String>,
}

/// How many connections send small messages.
const CONNECTIONS: [usize; 3] = [1, 64, 1000];

/// A message of the length of a chat line.
const SMALL_MESSAGES: Case<'_> =
    Case { connections: 1, payload_bytes: 32, at_once: 1, state: None };

/// A message longer than any buffer of the peer.
const LARGE_MESSAGES: Case<'_> =
    Case { connections: 64, payload_bytes: 16 * 1024, at_once: 1, state: None };

/// Connections, messages at once, and how many system calls per echoed message falconet may make there.
const SYSTEM_CALL_LIMITS: [(usize, usize, f64); 3] = [(1, 1, 3.1), (64, 1, 2.2), (1, 16, 0.4)];

/// Rounds for each server. Odd, so that the median is a round.
const ROUNDS: usize = 21;

/// How long a round lasts. Many short rounds tell more than a few long ones: what else the machine
/// does comes in bursts, and the median passes over the rounds that meet one.
const ROUND: Duration = Duration::from_millis(200);

/// How long a server is driven before it is measured.
const WARM_UP: Duration = Duration::from_millis(100);

/// How long system calls are counted: thousands of messages, even under strace.
const COUNTING: Duration = Duration::from_secs(2);
