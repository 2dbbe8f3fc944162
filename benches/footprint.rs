//! `cargo bench --bench footprint`: how little falconet takes, beside the figures of the article.
//!
//! It builds the release binary and watches one server through `/proc`: at its start, with nobody
//! connected, and with clients that say nothing. Enforced: size, memory, threads, wake-ups with
//! nobody connected, and that no client is lost. Times are printed, never enforced.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rig::audience::Audience;
use rig::publisher::Publisher;
use rig::report::{Budgets, Table, conclude, percentile, thousands};
use rig::secure::State;
use rig::server::{Program, Server};
use rig::{clients, secure};

mod rig {
    pub(crate) mod audience;
    pub(crate) mod clients;
    pub(crate) mod process;
    pub(crate) mod publisher;
    pub(crate) mod readiness;
    pub(crate) mod report;
    pub(crate) mod secure;
    pub(crate) mod server;
}

fn main() -> ExitCode {
    conclude("footprint", measure())
}

fn measure() -> io::Result<Budgets> {
    // Without broadcasts and with pings later than this bench ends, so that a client that says nothing
    // is idle.
    let falconet = Program::falconet(&QUIET)?;
    let counts = clients::affordable(&IDLE_CLIENTS)?;
    let mut sheet = Sheet::new(compare_builds(&falconet)?);
    sheet.rows_at_start(&falconet)?;
    let server = falconet.start()?;
    sheet.rows_without_clients(&server)?;
    sheet.rows_with_clients(&server, &counts)?;
    drop(server);
    let most = counts[counts.len() - 1];
    sheet.row_of_idle(&falconet, "client", most, "/")?;
    sheet.rows_with_subscribers(&falconet, most)?;
    sheet.row_of_idle(&falconet, "subscriber", most, "/topics/quiet")?;
    sheet.rows_of_crowds(&falconet)?;
    sheet.rows_with_tls(&falconet, counts[0])?;

    println!(
        "falconet: this run. Resident: every page mapped, libc's too. Of the program's file: its"
    );
    println!(
        "code and constants, which the kernel can drop. Private: what the process has written."
    );
    Ok(sheet.budgets)
}

/// Prints what the builds of falconet take beside what the article's samples do: the one that `cargo build`
/// makes, and the static ones where `.ci/release` has made them.
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
    println!("HttpListener, Kestrel: what the article says of its samples (.NET Core 3.0, 2019).");
    println!("min: `.ci/release --min --no-default-features`. plain: `--no-default-features`. The");
    println!("others have all default features. Static: of musl, with no other file.\n");
    Ok(budgets)
}

/// A build to be compared.
struct Build {
    /// Where `.ci/release` puts it; none is the one that `cargo build` makes.
    folder: Option<&'static str>,
    /// The most bytes its file may have, and KiB it may take at the start.
    limits: [usize; 2],
}

impl Build {
    fn name(&self) -> &'static str {
        self.folder.unwrap_or("the default build")
    }

    /// Its program, with the options of the default one, if it was built.
    fn program(&self, default: &Program) -> Option<Program> {
        let dist = default.path.ancestors().nth(2)?.join("dist");
        let path = self.folder.map(|folder| dist.join(folder).join("falconet"));
        let path = path.unwrap_or_else(|| default.path.clone());
        let program = Program { name: "falconet", path, options: default.options.clone() };
        program.path.exists().then_some(program)
    }
}

/// What one build takes.
struct Measured {
    bytes: usize,
    start: Start,
    per_client: usize,
    /// None if it speaks no TLS.
    per_tls_client: Option<usize>,
}

impl Measured {
    fn of(program: &Program) -> io::Result<Self> {
        let bytes = fs::metadata(&program.path)?.len() as usize;
        let start = Start::of(program, STARTS_COMPARED)?;
        let count = clients::affordable(&[CLIENTS_COMPARED])?[0];
        let server = program.start()?;
        thread::sleep(SETTLING);
        let alone = Memory::of(&server)?;
        let idle = clients::connect(&server, count, "/")?;
        thread::sleep(SETTLING);
        let per_client = alone.bytes_per_client(&server, count)?;
        drop((idle, server));
        let help = Command::new(&program.path).arg("--help").output()?.stdout;
        let speaks_tls = String::from_utf8_lossy(&help).contains("--tls-self-signed");
        let tls = || {
            let state = State::new();
            let server = state.program(program).start()?;
            thread::sleep(SETTLING);
            let alone = Memory::of(&server)?;
            let idle = secure::connect(&server, &state, TLS_CLIENTS_COMPARED, "/")?;
            thread::sleep(SETTLING);
            let bytes = alone.bytes_per_client(&server, idle.len());
            drop(idle);
            bytes
        };
        let per_tls_client = speaks_tls.then(tls).transpose()?;
        Ok(Self { bytes, start, per_client, per_tls_client })
    }
}

/// How a program starts: the medians of a few times.
struct Start {
    milliseconds: f64,
    memory: Memory,
}

impl Start {
    /// Starts the server a few times. Where the kernel puts the program decides which pages around
    /// those it needs are mapped with them, so the memory of one start is a draw; the median is none.
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

/// The table of this bench, and the budgets in it.
struct Sheet {
    table: Table,
    budgets: Budgets,
}

impl Sheet {
    fn new(budgets: Budgets) -> Self {
        let columns = [("footprint", 44), ("falconet", 10), ("limit", 10)];
        Self { table: Table::new(&columns), budgets }
    }

    /// Prints what is only to be known.
    fn row(&self, what: &str, measured: impl ToString) {
        self.table.row([what, &measured.to_string(), ""]);
    }

    /// Prints what may be `limit` at most, and holds the bench to it.
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
        self.limited_row("wake-ups in 30 s, nobody connected", wakeups, 0);
        Ok(())
    }

    /// Connects ever more clients, up to each of `counts`, and leaves them idle: at once, and after each
    /// has had a large echo.
    fn rows_with_clients(&mut self, server: &Server, counts: &[usize]) -> io::Result<()> {
        let alone = Memory::of(server)?;
        let mut clients = Vec::new();
        let mut idle_bytes = 0;
        for &count in counts {
            clients.extend(clients::connect(server, count - clients.len(), "/")?);
            thread::sleep(SETTLING);
            idle_bytes = alone.bytes_per_client(server, count)?;
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
        let bytes = alone.bytes_per_client(server, clients.len())?;
        self.limited_row("  after an echo of 60 KB each", bytes, idle_bytes * 11 / 10);
        let lost = clients.iter().filter(|client| is_lost(client)).count();
        self.limited_row("clients lost", lost, 0);
        Ok(())
    }

    /// Connects idle clients to a server, and to another. Where glibc puts what is of a moment, among what
    /// stays, is a draw that some 40 bytes a client hang on; the median is none.
    fn row_of_idle(
        &mut self,
        program: &Program,
        who: &str,
        count: usize,
        path: &str,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..SERVERS_OF_IDLE {
            let server = program.start()?;
            thread::sleep(SETTLING);
            let alone = Memory::of(&server)?;
            let _clients = clients::connect(&server, count, path)?;
            thread::sleep(SETTLING);
            bytes.push(alone.bytes_per_client(&server, count)? as f64);
        }
        let what = format!("  median of {SERVERS_OF_IDLE} servers per idle {who}");
        self.limited_row(&what, percentile(&mut bytes, 50) as usize, CLIENT_LIMIT_BYTES);
        Ok(())
    }

    /// Connects subscribers to a topic and leaves them idle: at once, and after they have heard a lot.
    fn rows_with_subscribers(&mut self, program: &Program, count: usize) -> io::Result<()> {
        let server = program.start()?;
        let mut publisher = Publisher::new(&server, "quiet", "a message of some length");
        publisher.publish()?;
        thread::sleep(SETTLING);
        let alone = Memory::of(&server)?;
        let mut audience = Audience::connect(&server, count, "/topics/quiet")?;
        audience.settle(SETTLING)?;
        let idle_bytes = alone.bytes_per_client(&server, count)?;
        let what = format!("memory per subscriber of {}, private bytes", thousands(count));
        self.row(&what, idle_bytes);
        let mut undelivered = 0;
        for _ in 0..MESSAGES {
            publisher.publish()?;
            undelivered += count - audience.next_broadcast(PATIENCE)?.delivered;
        }
        self.limited_row("messages not delivered", undelivered, 0);
        thread::sleep(QUIET_TIME);
        let bytes = alone.bytes_per_client(&server, count)?;
        let what = format!("  after {MESSAGES} messages");
        self.limited_row(&what, bytes, idle_bytes * 11 / 10);
        Ok(())
    }

    /// Has a crowd come, talk and leave, again and again. musl's allocator gives back what the crowd took.
    /// That of glibc keeps for the next one what lies below the last small thing that is still in use;
    /// more than that must not stay.
    fn rows_of_crowds(&mut self, default: &Program) -> io::Result<()> {
        let count = clients::affordable(&[CROWD_CLIENTS])?[0];
        for build in BUILDS.iter().filter(|build| matches!(build.folder, None | Some(STATIC))) {
            let Some(program) = build.program(default) else { continue };
            let server = program.start()?;
            thread::sleep(SETTLING);
            let start_kib = Memory::of(&server)?.private_kib;
            println!("{}:", build.name());
            self.row(&format!("  private KiB before {} have come", thousands(count)), start_kib);
            let most = start_kib + CROWD_LEAVES_KIB[usize::from(build.folder.is_some())];
            for round in 1..=3 {
                let mut clients = clients::connect(&server, count, "/")?;
                for client in &mut clients {
                    echo(client, LARGE_MESSAGE_BYTES)?;
                }
                drop(clients);
                thread::sleep(SETTLING);
                let private_kib = Memory::of(&server)?.private_kib;
                let what = format!("  after they have left, round {round}");
                self.limited_row(&what, private_kib, most);
            }
        }
        Ok(())
    }

    /// The same program where it speaks TLS, with `count` idle clients.
    fn rows_with_tls(&mut self, plain: &Program, count: usize) -> io::Result<()> {
        let state = State::new();
        let server = state.program(plain).start()?;
        thread::sleep(SETTLING);
        let alone = Memory::of(&server)?;
        self.row("over TLS 1.3: memory at start, private KiB", alone.private_kib);
        let clients = secure::connect(&server, &state, count, "/")?;
        thread::sleep(SETTLING);
        let per_client = alone.bytes_per_client(&server, count)?;
        let what = format!("  per client of {}, private bytes", thousands(count));
        self.limited_row(&what, per_client, TLS_CLIENT_BYTES);
        let lost = clients.iter().filter(|client| is_lost(&client.sock)).count();
        self.limited_row("  clients lost", lost, 0);
        Ok(())
    }
}

/// What a process has in memory, in KiB.
struct Memory {
    /// All of its pages (RSS), shared ones too.
    resident_kib: usize,
    /// The pages it has written: no file holds them, and nobody shares them.
    private_kib: usize,
    /// The unchanged pages of files that no other process maps: those of the program itself.
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

    /// How many private bytes each of `count` clients has added to this.
    fn bytes_per_client(&self, server: &Server, count: usize) -> io::Result<usize> {
        let private_kib = Self::of(server)?.private_kib;
        Ok(private_kib.saturating_sub(self.private_kib) * 1024 / count)
    }
}

/// The number after `name` in a file of `/proc` that has a name and a value on each line.
fn field(text: &str, name: &str) -> io::Result<usize> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::other(format!("no {name} in /proc")))
}

/// Leaves the server alone for 30 s. Returns how often a thread of it went back to sleep meanwhile,
/// and the processor time this took.
fn idle(server: &Server) -> io::Result<(usize, Duration)> {
    let (sleeps, cpu_time) = (sleeps(server)?, server.cpu_time()?);
    thread::sleep(IDLE);
    Ok((self::sleeps(server)? - sleeps, server.cpu_time()? - cpu_time))
}

/// How often the threads of a server have gone to sleep of their own accord since they started.
fn sleeps(server: &Server) -> io::Result<usize> {
    let statuses = server.per_thread("status")?;
    statuses.iter().map(|status| field(status, "voluntary_ctxt_switches:")).sum()
}

/// Sends a binary message of `payload_bytes` zeros, at most 65,535, and reads its echo.
fn echo(client: &mut TcpStream, payload_bytes: usize) -> io::Result<()> {
    let [high, low] = u16::try_from(payload_bytes).map_err(Error::other)?.to_be_bytes();
    // With a mask of zeros the payload is sent as it is.
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

/// Whether the server has closed or reset this connection.
fn is_lost(client: &TcpStream) -> bool {
    match client.peek(&mut [0]) {
        Ok(seen) => seen == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// The server whose idle clients are idle.
const QUIET: [&str; 8] = [
    "--broadcast-every",
    "0",
    "--ping-every",
    "10m",
    "--idle-timeout",
    "25m",
    // Room for the clients measured, and a publisher.
    "--max-connections",
    "10100",
];

/// How many clients are connected, one after the other.
const IDLE_CLIENTS: [usize; 2] = [1000, 10_000];
const CLIENT_LIMIT_BYTES: usize = 640;

/// How many servers that is measured of.
const SERVERS_OF_IDLE: usize = 5;

/// How many come and go.
const CROWD_CLIENTS: usize = 5000;

/// What a crowd may leave behind: with glibc, whose allocator keeps it for the next one (2,820 to 3,340 were
/// measured, 200 of them a draw); and with musl, where 132 to 140 were, 44 of them the allocator's records.
const CROWD_LEAVES_KIB: [usize; 2] = [3600, 200];

/// How large a message is after which a client has no more memory than before.
const LARGE_MESSAGE_BYTES: usize = 60_000;

/// How many messages subscribers hear, after which they have no more memory than before; and how long
/// each may take.
const MESSAGES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the server is started to measure that. Odd, so that the median is a start.
const STARTS: usize = 199;

/// The static build with all default features.
const STATIC: &str = "x86_64-unknown-linux-musl";

/// The builds that are compared, in the order of the columns.
const BUILDS: &[Build] = &[
    Build {
        folder: Some("x86_64-unknown-linux-musl-min-no-default-features"),
        limits: [300_000, 400],
    },
    Build { folder: Some("x86_64-unknown-linux-musl-no-default-features"), limits: [600_000, 683] },
    Build { folder: None, limits: [2_080_000, RESIDENT_LIMIT_KIB] },
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
const STARTS_COMPARED: usize = 49;
const CLIENTS_COMPARED: usize = 2000;
const TLS_CLIENTS_COMPARED: usize = 300;

/// Keys and states of rustls; no buffer, of which one would be 4 KiB at least.
const TLS_CLIENT_BYTES: usize = 6144;

/// 2.4 MB for the article's server, 0.15 MB for the code of topics and files, 0.5 MB of rustls and ring,
/// whose pages come in with their neighbours, 0.15 MB for access and operations, and 0.1 MB for systemd and
/// the sandbox; 0.7 MB; of 1,024 KiB each.
const RESIDENT_LIMIT_KIB: usize = 3379;
const PRIVATE_LIMIT_KIB: usize = 716;

/// How long the server is left alone.
const IDLE: Duration = Duration::from_secs(30);

/// How long after its start a server is measured that nobody has connected to.
const START_SETTLING: Duration = Duration::from_millis(20);

/// How long after a change the server is measured.
const SETTLING: Duration = Duration::from_millis(500);

/// How long clients have been quiet after they were busy, when the server is measured.
const QUIET_TIME: Duration = Duration::from_secs(5);
