//! `cargo bench --bench echo`: the cost of an echoed message, compared with a minimal
//! tokio-tungstenite server in the same run.
//!
//! This process runs the clients. Each server runs in its own process, which is started anew for each
//! round; rounds of the two servers alternate. Enforced: every echo has the right bytes, no
//! connection fails, and the limits on system calls per message (if `strace` is installed). Times
//! are printed, never enforced.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};

use support::load::Load;
use support::report::{Budgets, Table, finish, percentile, thousands};
use support::server::{Program, Server};
use support::strace::Strace;
use support::tls::TlsDirectory;
use support::{clients, reference, unprotected};

mod support {
    pub(crate) mod clients;
    pub(crate) mod load;
    pub(crate) mod process;
    pub(crate) mod readiness;
    pub(crate) mod reference;
    pub(crate) mod report;
    pub(crate) mod server;
    pub(crate) mod strace;
    pub(crate) mod tls;
    pub(crate) mod unprotected;
}

fn main() -> ExitCode {
    if reference::is_requested() {
        return reference::run(reference::serve(echo));
    }
    finish("echo", measure())
}

/// The session of the reference server: sends every message back.
async fn echo(mut socket: reference::Socket) {
    while let Some(Ok(message)) = socket.next().await {
        let is_data = message.is_text() || message.is_binary();
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn measure() -> io::Result<Budgets> {
    let falconet = Program::falconet(&["--broadcast-every", "0"])?;
    let reference = reference::program()?;
    let mut budgets = Budgets::default();
    compare_costs(&falconet, &reference, &mut budgets)?;
    compare_tls(&falconet, &mut budgets)?;
    compare_protection(&falconet, &mut budgets)?;
    count_system_calls(&falconet, &reference, &mut budgets)?;
    Ok(budgets)
}

fn compare_costs(falconet: &Program, reference: &Program, budgets: &mut Budgets) -> io::Result<()> {
    println!("echo: text messages, one at a time per connection; {ROUNDS} rounds of {ROUND:?}");
    let connections = clients::affordable(&CONNECTIONS)?;
    let small = connections.into_iter().map(|connections| Case { connections, ..SMALL_MESSAGES });
    let table = table();
    for case in small.chain([LARGE_MESSAGES]) {
        case.compare(falconet, reference, &table, budgets)?;
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

/// Measures the cost of TLS: the same program with TLS and without.
fn compare_tls(plain: &Program, budgets: &mut Budgets) -> io::Result<()> {
    println!("echo: the same server with TLS 1.3 and without TLS; {ROUNDS} rounds of {ROUND:?}");
    let directory = TlsDirectory::new();
    let tls = directory.program(plain);
    let table = table();
    for case in [Case { connections: 64, ..SMALL_MESSAGES }, LARGE_MESSAGES] {
        let case = Case { tls_directory: Some(&directory), ..case };
        case.compare(&tls, plain, &table, budgets)?;
    }
    println!("CPU ratio: with TLS, over that without TLS\n");
    Ok(())
}

/// Measures the cost of deadlines and limits: the same program with them and without.
fn compare_protection(falconet: &Program, budgets: &mut Budgets) -> io::Result<()> {
    println!("echo: with all protections, and without those that can be switched off");
    let unprotected = unprotected::program(&["--broadcast-every", "0"])?;
    let case = Case { connections: 64, ..SMALL_MESSAGES };
    case.compare(falconet, &unprotected, &table(), budgets)?;
    println!("CPU ratio: with all protections, over that without\n");
    Ok(())
}

fn count_system_calls(
    falconet: &Program,
    reference: &Program,
    budgets: &mut Budgets,
) -> io::Result<()> {
    println!("echo: system calls per message, counted by strace");
    let table = Table::new(&[
        ("connections", 11),
        ("at once", 7),
        (falconet.name, 10),
        ("limit", 10),
        (reference.name, 17),
    ]);
    for (connections, at_once, limit) in SYSTEM_CALL_LIMITS {
        let case = Case { connections, at_once, ..SMALL_MESSAGES };
        let Some(ours) = case.system_calls(falconet)? else { break };
        let Some(theirs) = case.system_calls(reference)? else { break };
        let what = format!("system calls per echo at {connections}, {at_once} at once");
        budgets.at_most(what, ours, limit);
        let [ours, limit, theirs] = [ours, limit, theirs].map(|calls| format!("{calls:.2}"));
        table.row([&connections.to_string(), &at_once.to_string(), &ours, &limit, &theirs]);
    }
    Ok(())
}

/// The load of one row of a table.
struct Case<'d> {
    connections: usize,
    payload_bytes: u16,
    /// Messages that a client sends in one write.
    at_once: usize,
    /// Directory with the certificate, for a program that listens on `https://`.
    tls_directory: Option<&'d TlsDirectory>,
}

impl Case<'_> {
    /// Measures two programs in alternating rounds and prints a row for each.
    fn compare(
        &self,
        measured: &Program,
        reference: &Program,
        table: &Table,
        budgets: &mut Budgets,
    ) -> io::Result<()> {
        let (mut ours, mut theirs) = (Outcome::default(), Outcome::default());
        for _ in 0..ROUNDS {
            self.round(measured, &mut ours)?;
            self.round(reference, &mut theirs)?;
        }
        let ratio = reference::ratio(&ours.cpu_per_million, &theirs.cpu_per_million);
        for (program, outcome, ratio) in [(measured, ours, &*ratio), (reference, theirs, "")] {
            if let Some(first) = outcome.failures.first() {
                println!("{}: first failure: {first}", program.name);
            }
            let what = format!("{} at {}: failed connections", program.name, self.connections);
            budgets.at_most(what, outcome.failures.len(), 0);
            table.row(self.cells(program, outcome, ratio));
        }
        Ok(())
    }

    /// Runs one round against a new server process and adds its figures to `outcome`.
    fn round(&self, program: &Program, outcome: &mut Outcome) -> io::Result<()> {
        let (server, mut load) = self.warmed_up(program)?;
        let cpu_before = server.cpu_time()?;
        let counters = load.run(ROUND)?;
        let cpu = server.cpu_time()? - cpu_before;
        let echoes = counters.latencies.len() as f64;
        outcome.rates.push(echoes / counters.elapsed.as_secs_f64());
        outcome.cpu_per_million.push(cpu.as_secs_f64() * 1e6 / echoes);
        outcome.latencies.extend(counters.latencies);
        outcome.failures.extend(counters.failures);
        Ok(())
    }

    /// Starts a server, connects the clients and exchanges messages for [`WARM_UP`].
    fn warmed_up(&self, program: &Program) -> io::Result<(Server, Load)> {
        let server = program.start()?;
        let (count, bytes) = (self.connections, self.payload_bytes);
        let mut load = match self.tls_directory.filter(|_| uses_tls(program)) {
            Some(directory) => Load::connect_tls(&server, directory, count, bytes)?,
            None => Load::connect(&server, count, bytes, self.at_once)?,
        };
        match load.run(WARM_UP)?.failures.first() {
            Some(failure) => Err(io::Error::other(format!("{}: {failure}", program.name))),
            None => Ok((server, load)),
        }
    }

    /// Returns the system calls per echoed message, in all threads of a server after its warm-up.
    /// If `strace` cannot be attached, prints the reason and returns `None`.
    fn system_calls(&self, program: &Program) -> io::Result<Option<f64>> {
        let (server, mut load) = self.warmed_up(program)?;
        let Some(strace) = Strace::attach(&server) else { return Ok(None) };
        let echoes = load.run(COUNTING)?.latencies.len() * self.at_once;
        Ok(Some(strace.total(server)? / echoes as f64))
    }

    /// Returns the table row of one server.
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

fn uses_tls(program: &Program) -> bool {
    program.options.iter().any(|option| option.starts_with("https://"))
}

/// The results of all rounds of one server.
#[derive(Default)]
struct Outcome {
    /// Messages echoed per second, one entry per round.
    rates: Vec<f64>,
    /// Seconds of the server's processor time per million messages, one entry per round.
    cpu_per_million: Vec<f64>,
    /// Microseconds from sending a message to its complete echo, one entry per message.
    latencies: Vec<f64>,
    failures: Vec<String>,
}

/// Numbers of connections that send small messages.
const CONNECTIONS: [usize; 3] = [1, 64, 1000];

/// Messages as long as a line in a chat.
const SMALL_MESSAGES: Case<'_> =
    Case { connections: 1, payload_bytes: 32, at_once: 1, tls_directory: None };

/// Messages longer than the buffers of the reference server.
const LARGE_MESSAGES: Case<'_> =
    Case { connections: 64, payload_bytes: 16 * 1024, at_once: 1, tls_directory: None };

/// Connections, messages at once, and the most system calls per echoed message.
const SYSTEM_CALL_LIMITS: [(usize, usize, f64); 3] = [(1, 1, 3.1), (64, 1, 2.2), (1, 16, 0.4)];

/// Rounds per server. An odd number, so that the median is the value of one round.
const ROUNDS: usize = 21;

/// Duration of a round. Many short rounds are better than a few long ones: other load on the
/// machine comes in bursts, and the median ignores the rounds that a burst disturbs.
const ROUND: Duration = Duration::from_millis(200);

/// Duration of the load before a round.
const WARM_UP: Duration = Duration::from_millis(100);

/// Duration of the load while system calls are counted: thousands of messages, even under strace.
const COUNTING: Duration = Duration::from_secs(2);
