//! `cargo bench --bench footprint`: size and memory of falconet, beside the figures of the article.
//!
//! Builds the release binary and reads the figures of one server from `/proc`: after the start,
//! without clients, and with idle clients. Enforced: file size, memory, threads, wake-ups, and that
//! no client is disconnected. Times are printed, never enforced.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{fs, thread};

use support::publisher::Publisher;
use support::report::{Budgets, Table, finish, percentile, thousands};
use support::server::{Program, Server};
use support::subscribers::Subscribers;
use support::tls::TlsDirectory;
use support::{clients, tls};

mod support {
    pub(crate) mod clients;
    pub(crate) mod process;
    pub(crate) mod publisher;
    pub(crate) mod readiness;
    pub(crate) mod report;
    pub(crate) mod server;
    pub(crate) mod subscribers;
    pub(crate) mod tls;
}

fn main() -> ExitCode {
    finish("footprint", measure())
}

fn measure() -> io::Result<Budgets> {
    let falconet = Program::falconet(&QUIET_OPTIONS)?;
    let counts = clients::affordable(&IDLE_CLIENTS)?;
    let mut report = Report::new(compare_builds(&falconet)?);
    report.rows_at_start(&falconet)?;
    let server = falconet.start()?;
    report.rows_without_clients(&server)?;
    report.rows_with_clients(&server, &counts)?;
    drop(server);
    let most = counts[counts.len() - 1];
    report.row_of_idle(&falconet, "client", most, "/")?;
    report.rows_with_subscribers(&falconet, most)?;
    report.row_of_idle(&falconet, "subscriber", most, "/topics/quiet")?;
    report.rows_after_disconnect(&falconet)?;
    report.rows_with_tls(&falconet, counts[0])?;

    println!(
        "falconet: this run. Resident: all mapped pages, those of libc too. Of the program's file:"
    );
    println!(
        "code and constants, which the kernel can drop. Private: pages that the process has written."
    );
    Ok(report.budgets)
}

/// Prints the figures of falconet's builds beside those of the article's samples. The builds are the
/// one of `cargo build`, and the static ones that `.ci/release` has built, if any.
fn compare_builds(default: &Program) -> io::Result<Budgets> {
    let mut budgets = Budgets::default();
    let mut builds = Vec::new();
    for build in BUILDS {
        let measured = build.program(default).map(|program| Measured::of(&program)).transpose()?;
        if let Some(measured) = &measured {
            let ([bytes, resident_kib], name) = (&build.limits, build.name());
            budgets.at_most(format!("bytes of {name}"), measured.bytes, *bytes);
            let resident = measured.start.memory.resident_kib;
            budgets.at_most(format!("resident KiB at start of {name}"), resident, *resident_kib);
        }
        builds.push(measured);
    }
    let table = Table::new(&BUILD_COLUMNS);
    let row = |what: &str, part: fn(&Measured) -> Option<String>, article: [&str; 2]| {
        let cell = |build: &Option<Measured>| {
            build.as_ref().map_or("not built".to_owned(), |build| part(build).unwrap_or("–".into()))
        };
        let cells = builds.iter().map(cell);
        table.row([what.to_owned()].into_iter().chain(cells).chain(article.map(str::to_owned)));
    };
    table.row(["files that need .NET installed", "–", "–", "–", "–", "190 KB", "295 KB"]);
    row("files, self-contained, bytes", |of| Some(thousands(of.bytes)), ["59 MB", "75 MB"]);
    row("from exec to listening, ms", |of| Some(format!("{:.1}", of.start.milliseconds)), ["", ""]);
    let resident = |of: &Measured| Some(thousands(of.start.memory.resident_kib));
    row("memory at start, resident KiB", resident, ["about 5 MB", "about 11 MB"]);
    row("  private, KiB", |of| Some(thousands(of.start.memory.private_kib)), ["", ""]);
    row("  per idle client, bytes", |of| Some(thousands(of.per_client)), ["", ""]);
    row("  per idle client over TLS, bytes", |of| of.per_tls_client.map(thousands), ["", ""]);
    println!("HttpListener, Kestrel: the article's figures for its samples (.NET Core 3.0, 2019).");
    println!("min: `.ci/release --min --no-default-features`. plain: `--no-default-features`. The");
    println!("others have all default features. Static: linked with musl, needs no other file.\n");
    Ok(budgets)
}

/// A build to compare.
struct Build {
    /// Folder in which `.ci/release` puts the build; `None` for the build of `cargo build`.
    folder: Option<&'static str>,
    /// Limits: file size in bytes, and resident memory at start in KiB.
    limits: [usize; 2],
}

impl Build {
    fn name(&self) -> &'static str {
        self.folder.unwrap_or("the default build")
    }

    /// Returns the program of this build with the options of `default`; `None` if it was not built.
    fn program(&self, default: &Program) -> Option<Program> {
        let dist = default.path.ancestors().nth(2)?.join("dist");
        let path = self.folder.map(|folder| dist.join(folder).join("falconet"));
        let path = path.unwrap_or_else(|| default.path.clone());
        let program = Program { name: "falconet", path, options: default.options.clone() };
        program.path.exists().then_some(program)
    }
}

/// The figures of one build.
struct Measured {
    /// File size.
    bytes: usize,
    start: Start,
    /// Private bytes per idle client.
    per_client: usize,
    /// Private bytes per idle client over TLS; `None` for a build without TLS.
    per_tls_client: Option<usize>,
}

impl Measured {
    fn of(program: &Program) -> io::Result<Self> {
        let bytes = fs::metadata(&program.path)?.len() as usize;
        let start = Start::of(program, STARTS_COMPARED)?;
        let count = clients::affordable(&[CLIENTS_COMPARED])?[0];
        let server = program.start()?;
        thread::sleep(SETTLING);
        let before = Memory::of(&server)?;
        let idle = clients::connect(&server, count, "/")?;
        thread::sleep(SETTLING);
        let per_client = before.bytes_per_client(&server, count)?;
        drop((idle, server));
        let help = Command::new(&program.path).arg("--help").output()?.stdout;
        let has_tls = String::from_utf8_lossy(&help).contains("--tls-self-signed");
        let measure_tls = || {
            let directory = TlsDirectory::new();
            let server = directory.program(program).start()?;
            thread::sleep(SETTLING);
            let before = Memory::of(&server)?;
            let idle = tls::connect(&server, &directory, TLS_CLIENTS_COMPARED, "/")?;
            thread::sleep(SETTLING);
            let bytes = before.bytes_per_client(&server, idle.len());
            drop(idle);
            bytes
        };
        let per_tls_client = has_tls.then(measure_tls).transpose()?;
        Ok(Self { bytes, start, per_client, per_tls_client })
    }
}

/// Time to start and memory after the start: the medians of several starts.
struct Start {
    milliseconds: f64,
    memory: Memory,
}

impl Start {
    /// Starts the server `count` times.
    ///
    /// The memory differs from start to start: the kernel maps pages around each page that is used,
    /// and which pages these are depends on the address at which it has loaded the program.
    fn of(program: &Program, count: usize) -> io::Result<Self> {
        let mut times = Vec::new();
        let mut memories = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            let server = program.start()?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            thread::sleep(START_SETTLING);
            memories.push(Memory::of(&server)?);
        }
        let mut median = |part: fn(&Memory) -> usize| {
            memories.sort_by_key(part);
            part(&memories[count / 2])
        };
        let memory = Memory {
            resident_kib: median(|memory| memory.resident_kib),
            private_kib: median(|memory| memory.private_kib),
            file_kib: median(|memory| memory.file_kib),
        };
        Ok(Self { milliseconds: percentile(&mut times, 50), memory })
    }
}

/// The table of this bench and its budgets.
struct Report {
    table: Table,
    budgets: Budgets,
}

impl Report {
    fn new(budgets: Budgets) -> Self {
        let columns = [("footprint", 44), ("falconet", 10), ("limit", 10)];
        Self { table: Table::new(&columns), budgets }
    }

    /// Prints a figure without a limit.
    fn row(&self, what: &str, measured: impl ToString) {
        self.table.row([what, &measured.to_string(), ""]);
    }

    /// Prints a figure with its limit. The bench fails if the figure is greater.
    fn limited_row(&mut self, what: &str, measured: usize, limit: usize) {
        self.budgets.at_most(what, measured, limit);
        self.table.row([what, &thousands(measured), &thousands(limit)]);
    }

    fn rows_at_start(&mut self, program: &Program) -> io::Result<()> {
        let start = Start::of(program, STARTS)?;
        self.row("from exec to listening, ms", format!("{:.1}", start.milliseconds));
        let Memory { resident_kib, private_kib, file_kib } = start.memory;
        self.limited_row("memory at start, resident KiB", resident_kib, RESIDENT_LIMIT_KIB);
        self.row("  of the program's file, KiB", file_kib);
        self.limited_row("  private, KiB", private_kib, PRIVATE_LIMIT_KIB);
        Ok(())
    }

    fn rows_without_clients(&mut self, server: &Server) -> io::Result<()> {
        thread::sleep(SETTLING);
        let threads = server.per_thread("status")?.len();
        self.limited_row("threads", threads, 2);
        let (wakeups, _) = idle(server)?;
        self.limited_row("wake-ups in 30 s, no client connected", wakeups, 0);
        Ok(())
    }

    /// Measures idle clients: after connecting as many as each of `counts`, and after each client
    /// has received a large echo.
    fn rows_with_clients(&mut self, server: &Server, counts: &[usize]) -> io::Result<()> {
        let before = Memory::of(server)?;
        let mut clients = Vec::new();
        let mut idle_bytes = 0;
        for &count in counts {
            clients.extend(clients::connect(server, count - clients.len(), "/")?);
            thread::sleep(SETTLING);
            idle_bytes = before.bytes_per_client(server, count)?;
            let what = format!("memory per client of {}, private bytes", thousands(count));
            self.row(&what, idle_bytes);
        }
        let connected = thousands(clients.len());
        let (wakeups, cpu_time) = idle(server)?;
        self.limited_row(&format!("wake-ups in 30 s, {connected} idle"), wakeups, 2);
        let cpu_ms = format!("{:.2}", cpu_time.as_secs_f64() * 1e3);
        self.row(&format!("CPU time in 30 s, {connected} idle, ms"), cpu_ms);
        for client in &mut clients {
            echo(client, LARGE_MESSAGE_BYTES)?;
        }
        thread::sleep(QUIET_TIME);
        let bytes = before.bytes_per_client(server, clients.len())?;
        self.limited_row("  after an echo of 60 KB each", bytes, idle_bytes * 11 / 10);
        let lost = clients.iter().filter(|client| is_lost(client)).count();
        self.limited_row("clients lost", lost, 0);
        Ok(())
    }

    /// Measures the memory per idle client: the median of several servers.
    ///
    /// With glibc the result varies by some 40 bytes per client. It depends on where the allocator
    /// places short-lived blocks among those that stay.
    fn row_of_idle(
        &mut self,
        program: &Program,
        kind: &str,
        count: usize,
        path: &str,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..IDLE_SERVERS {
            let server = program.start()?;
            thread::sleep(SETTLING);
            let before = Memory::of(&server)?;
            let _clients = clients::connect(&server, count, path)?;
            thread::sleep(SETTLING);
            bytes.push(before.bytes_per_client(&server, count)? as f64);
        }
        let what = format!("  median of {IDLE_SERVERS} servers per idle {kind}");
        self.limited_row(&what, percentile(&mut bytes, 50) as usize, CLIENT_LIMIT_BYTES);
        Ok(())
    }

    /// Measures idle subscribers of a topic: before and after they have received many messages.
    fn rows_with_subscribers(&mut self, program: &Program, count: usize) -> io::Result<()> {
        let server = program.start()?;
        let mut publisher = Publisher::new(&server, "quiet", "a message of some length");
        publisher.publish()?;
        thread::sleep(SETTLING);
        let before = Memory::of(&server)?;
        let mut subscribers = Subscribers::connect(&server, count, "/topics/quiet")?;
        subscribers.discard_until_quiet(SETTLING)?;
        let idle_bytes = before.bytes_per_client(&server, count)?;
        let what = format!("memory per subscriber of {}, private bytes", thousands(count));
        self.row(&what, idle_bytes);
        let mut undelivered = 0;
        for _ in 0..MESSAGES {
            publisher.publish()?;
            undelivered += count - subscribers.next_broadcast(TIMEOUT)?.delivered;
        }
        self.limited_row("messages not delivered", undelivered, 0);
        thread::sleep(QUIET_TIME);
        let bytes = before.bytes_per_client(&server, count)?;
        let what = format!("  after {MESSAGES} messages");
        self.limited_row(&what, bytes, idle_bytes * 11 / 10);
        Ok(())
    }

    /// Measures the memory that remains after many clients have connected, received an echo and
    /// disconnected, three times.
    ///
    /// musl's allocator returns nearly all of it to the kernel. glibc's keeps every block below the
    /// highest one still in use. The limits ensure that no more than that remains.
    fn rows_after_disconnect(&mut self, default: &Program) -> io::Result<()> {
        let count = clients::affordable(&[DISCONNECTED_CLIENTS])?[0];
        for build in BUILDS.iter().filter(|build| matches!(build.folder, None | Some(STATIC))) {
            let Some(program) = build.program(default) else { continue };
            let server = program.start()?;
            thread::sleep(SETTLING);
            let start_kib = Memory::of(&server)?.private_kib;
            println!("{}:", build.name());
            self.row(&format!("  private KiB before {} connect", thousands(count)), start_kib);
            let limit = start_kib + REMAINING_LIMITS_KIB[usize::from(build.folder.is_some())];
            for round in 1..=3 {
                let mut clients = clients::connect(&server, count, "/")?;
                for client in &mut clients {
                    echo(client, LARGE_MESSAGE_BYTES)?;
                }
                drop(clients);
                thread::sleep(SETTLING);
                let private_kib = Memory::of(&server)?.private_kib;
                let what = format!("  after they have disconnected, round {round}");
                self.limited_row(&what, private_kib, limit);
            }
        }
        Ok(())
    }

    /// Measures the same program with TLS: at start, and with `count` idle clients.
    fn rows_with_tls(&mut self, plain: &Program, count: usize) -> io::Result<()> {
        let directory = TlsDirectory::new();
        let server = directory.program(plain).start()?;
        thread::sleep(SETTLING);
        let before = Memory::of(&server)?;
        self.row("over TLS 1.3: memory at start, private KiB", before.private_kib);
        let clients = tls::connect(&server, &directory, count, "/")?;
        thread::sleep(SETTLING);
        let per_client = before.bytes_per_client(&server, count)?;
        let what = format!("  per client of {}, private bytes", thousands(count));
        self.limited_row(&what, per_client, TLS_CLIENT_BYTES);
        let lost = clients.iter().filter(|client| is_lost(&client.sock)).count();
        self.limited_row("  clients lost", lost, 0);
        Ok(())
    }
}

/// The memory of a process, in KiB.
struct Memory {
    /// All resident pages (RSS), shared ones included.
    resident_kib: usize,
    /// Anonymous pages: those that the process has written.
    private_kib: usize,
    /// Unmodified file pages that no other process maps: those of the program's file.
    file_kib: usize,
}

impl Memory {
    fn of(server: &Server) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", server.id()))?;
        let unshared = field(&rollup, "Private_Clean:")? + field(&rollup, "Private_Dirty:")?;
        let private_kib = field(&rollup, "Anonymous:")?;
        let file_kib = unshared.saturating_sub(private_kib);
        Ok(Self { resident_kib: field(&rollup, "Rss:")?, private_kib, file_kib })
    }

    /// Returns the growth of the server's private memory since this measurement, in bytes per
    /// client.
    fn bytes_per_client(&self, server: &Server, count: usize) -> io::Result<usize> {
        let private_kib = Self::of(server)?.private_kib;
        Ok(private_kib.saturating_sub(self.private_kib) * 1024 / count)
    }
}

/// Returns the number after `name` in a `/proc` file that has a name and a value on each line.
fn field(text: &str, name: &str) -> io::Result<usize> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::other(format!("no {name} in /proc")))
}

/// Waits 30 s. Returns how often a thread of the server woke up and slept again in this time, and
/// the server's processor time.
fn idle(server: &Server) -> io::Result<(usize, Duration)> {
    let (sleeps, cpu_time) = (sleeps(server)?, server.cpu_time()?);
    thread::sleep(IDLE);
    Ok((self::sleeps(server)? - sleeps, server.cpu_time()? - cpu_time))
}

/// Returns the voluntary context switches of all threads of the server since their start.
fn sleeps(server: &Server) -> io::Result<usize> {
    let statuses = server.per_thread("status")?;
    statuses.iter().map(|status| field(status, "voluntary_ctxt_switches:")).sum()
}

/// Sends a binary message of `payload_bytes` zeros, at most 65,535, and reads its echo.
fn echo(client: &mut TcpStream, payload_bytes: usize) -> io::Result<()> {
    let [high, low] = u16::try_from(payload_bytes).map_err(Error::other)?.to_be_bytes();
    // A masking key of zeros leaves the payload unchanged.
    let mut message = vec![0x82, 0x80 | 126, high, low, 0, 0, 0, 0];
    message.resize(message.len() + payload_bytes, 0);
    let mut echo = vec![1; 4 + payload_bytes];
    client.set_nonblocking(false)?;
    client.write_all(&message)?;
    client.read_exact(&mut echo)?;
    client.set_nonblocking(true)?;
    let is_right = echo.starts_with(&[0x82, 126, high, low]) && echo[4..].iter().all(|b| *b == 0);
    if is_right { Ok(()) } else { Err(Error::other("the echo differs")) }
}

/// Returns true if the server has closed or reset the connection.
fn is_lost(client: &TcpStream) -> bool {
    match client.peek(&mut [0]) {
        Ok(seen) => seen == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Options of a server that sends nothing to idle clients: no broadcasts, and pings only after the
/// end of this bench.
const QUIET_OPTIONS: [&str; 8] = [
    "--broadcast-every",
    "0",
    "--ping-every",
    "10m",
    "--idle-timeout",
    "25m",
    // The idle clients, and a publisher.
    "--max-connections",
    "10100",
];

/// Numbers of idle clients.
const IDLE_CLIENTS: [usize; 2] = [1000, 10_000];

/// Most private bytes per idle client or subscriber, as the median of [`IDLE_SERVERS`].
const CLIENT_LIMIT_BYTES: usize = 640;

/// The number of servers on which the memory per idle client is measured.
const IDLE_SERVERS: usize = 5;

/// Clients that connect and disconnect.
const DISCONNECTED_CLIENTS: usize = 5000;

/// Most private KiB that remain after clients have disconnected: with glibc, where 2,820 to 3,340
/// were measured (up to 200 of them vary at random), and with musl, where 132 to 140 were measured
/// (44 of them are the allocator's own records).
const REMAINING_LIMITS_KIB: [usize; 2] = [3600, 200];

/// Size of a message that must not leave a buffer behind.
const LARGE_MESSAGE_BYTES: usize = 60_000;

/// The number of messages to subscribers, which must not leave buffers behind.
const MESSAGES: usize = 100;

/// Longest time to deliver one of these messages to all subscribers.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Starts of the default build. An odd number, so that the median is the value of one start.
const STARTS: usize = 199;

/// The folder of the static build with all default features.
const STATIC: &str = "x86_64-unknown-linux-musl";

/// The builds to compare, in the order of the columns.
const BUILDS: &[Build] = &[
    Build {
        folder: Some("x86_64-unknown-linux-musl-min-no-default-features"),
        limits: [330_000, 400],
    },
    Build { folder: Some("x86_64-unknown-linux-musl-no-default-features"), limits: [610_000, 683] },
    Build { folder: None, limits: [2_250_000, RESIDENT_LIMIT_KIB] },
    Build { folder: Some(STATIC), limits: [2_000_000, 878] },
];
const BUILD_COLUMNS: [(&str, usize); 7] = [
    ("builds", 34),
    ("min static", 11),
    ("plain static", 12),
    ("default", 11),
    ("static", 11),
    ("HttpListener", 12),
    ("Kestrel", 12),
];
/// Starts of each build in the comparison.
const STARTS_COMPARED: usize = 49;

/// Idle clients of each build in the comparison.
const CLIENTS_COMPARED: usize = 2000;

/// Idle TLS clients of each build in the comparison.
const TLS_CLIENTS_COMPARED: usize = 300;

/// Most private bytes per idle TLS client: the keys and state of rustls. The limit leaves no room
/// for a buffer, which would be 4 KiB at least.
const TLS_CLIENT_BYTES: usize = 6144;

/// Most resident KiB of the default build at start: 3.3 MiB. They are 2.4 for the article's server,
/// 0.15 for topics and files, 0.5 for the pages of rustls and ring that the kernel maps around used
/// ones, 0.15 for access and operations, and 0.1 for systemd and the sandbox.
const RESIDENT_LIMIT_KIB: usize = 3379;

/// Most private KiB of the default build at start: 0.7 MiB.
const PRIVATE_LIMIT_KIB: usize = 716;

/// Duration of the measurement of wake-ups.
const IDLE: Duration = Duration::from_secs(30);

/// Time from the start of a server to its measurement, without clients.
const START_SETTLING: Duration = Duration::from_millis(20);

/// Time from a change to the next measurement.
const SETTLING: Duration = Duration::from_millis(500);

/// Time from the last message of clients to the next measurement.
const QUIET_TIME: Duration = Duration::from_secs(5);
