//! `cargo bench --bench footprint`: how little falconet takes, beside the figures of the article.
//!
//! It builds the release binary and watches one server through `/proc`: at its start, with nobody
//! connected, and with clients that say nothing. Enforced: size, memory, threads, wake-ups with
//! nobody connected, and that no client is lost. Times are printed, never enforced.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
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
    let mut sheet = Sheet::new();

    let binary_bytes = fs::metadata(&falconet.path)?.len() as usize;
    sheet.row("files that need .NET installed", "–", ["190 KB", "295 KB"]);
    sheet.limited_row(
        "files, self-contained, bytes",
        binary_bytes,
        BINARY_BYTES,
        ["59 MB", "75 MB"],
    );
    sheet.rows_at_start(&falconet)?;
    let server = falconet.start()?;
    sheet.rows_without_clients(&server)?;
    sheet.rows_with_clients(&server, &counts)?;
    drop(server);
    sheet.rows_with_subscribers(&falconet, counts[counts.len() - 1])?;
    sheet.rows_of_crowds(&falconet)?;
    sheet.rows_with_tls(&falconet, counts[0])?;

    println!(
        "falconet: this run. Resident: every page mapped, libc's too. Of the program's file: its"
    );
    println!(
        "code and constants, which the kernel can drop. Private: what the process has written."
    );
    println!("HttpListener, Kestrel: what the article says of its samples (.NET Core 3.0, 2019).");
    Ok(sheet.budgets)
}

/// The table of this bench, and the budgets in it.
struct Sheet {
    table: Table,
    budgets: Budgets,
}

impl Sheet {
    fn new() -> Self {
        let columns = [
            ("footprint", 44),
            ("falconet", 10),
            ("limit", 10),
            ("HttpListener", 12),
            ("Kestrel", 12),
        ];
        Self { table: Table::new(&columns), budgets: Budgets::default() }
    }

    /// Prints what is only to be known. `article`: HttpListener's figure and Kestrel's.
    fn row(&self, what: &str, measured: impl ToString, article: [&str; 2]) {
        self.table.row([what, &measured.to_string(), "", article[0], article[1]]);
    }

    /// Prints what may be `limit` at most, and holds the bench to it.
    fn limited_row(&mut self, what: &str, measured: usize, limit: usize, article: [&str; 2]) {
        self.budgets.at_most(what, measured, limit);
        let (measured, limit) = (thousands(measured), thousands(limit));
        self.table.row([what, &measured, &limit, article[0], article[1]]);
    }

    /// Starts the server a few times. Where the kernel puts the program decides which pages around
    /// those it needs are mapped with them, so the memory of one start is a draw; the median is none.
    fn rows_at_start(&mut self, program: &Program) -> io::Result<()> {
        let mut times = [0.0; STARTS];
        let mut memories = Vec::new();
        for time in &mut times {
            let begun = Instant::now();
            let server = program.start()?;
            *time = begun.elapsed().as_secs_f64() * 1e3;
            thread::sleep(START_SETTLING);
            memories.push(Memory::of(&server)?);
        }
        let mut median = |part: fn(&Memory) -> usize| {
            memories.sort_by_key(part);
            part(&memories[STARTS / 2])
        };
        let resident = median(|memory| memory.resident_kib);
        let article = ["about 5 MB", "about 11 MB"];
        self.row(
            "from exec to listening, ms",
            format!("{:.1}", percentile(&mut times, 50)),
            UNKNOWN,
        );
        self.limited_row("memory at start, resident KiB", resident, RESIDENT_LIMIT_KIB, article);
        self.row("  of the program's file, KiB", median(|memory| memory.file_kib), UNKNOWN);
        let private = median(|memory| memory.private_kib);
        self.limited_row("  private, KiB", private, PRIVATE_LIMIT_KIB, UNKNOWN);
        Ok(())
    }

    fn rows_without_clients(&mut self, server: &Server) -> io::Result<()> {
        thread::sleep(SETTLING);
        let threads = server.per_thread("status")?.len();
        self.limited_row("threads", threads, 2, UNKNOWN);
        let (wakeups, _) = idle(server)?;
        self.limited_row("wake-ups in 30 s, nobody connected", wakeups, 0, UNKNOWN);
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
            if count < counts[counts.len() - 1] {
                // So few share the pages that hold them badly.
                self.row(&what, idle_bytes, UNKNOWN);
            } else {
                self.limited_row(&what, idle_bytes, CLIENT_LIMIT_BYTES, UNKNOWN);
            }
        }
        let connected = thousands(clients.len());
        let (wakeups, cpu_time) = idle(server)?;
        self.limited_row(&format!("wake-ups in 30 s, {connected} idle"), wakeups, 2, UNKNOWN);
        let cpu_ms = format!("{:.2}", cpu_time.as_secs_f64() * 1e3);
        self.row(&format!("CPU time in 30 s, {connected} idle, ms"), cpu_ms, UNKNOWN);
        for client in &mut clients {
            echo(client, LARGE_MESSAGE_BYTES)?;
        }
        thread::sleep(QUIET_TIME);
        let bytes = alone.bytes_per_client(server, clients.len())?;
        self.limited_row("  after an echo of 60 KB each", bytes, idle_bytes * 11 / 10, UNKNOWN);
        let lost = clients.iter().filter(|client| is_lost(client)).count();
        self.limited_row("clients lost", lost, 0, UNKNOWN);
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
        self.limited_row(&what, idle_bytes, CLIENT_LIMIT_BYTES, UNKNOWN);
        let mut undelivered = 0;
        for _ in 0..MESSAGES {
            publisher.publish()?;
            undelivered += count - audience.next_broadcast(PATIENCE)?.delivered;
        }
        self.limited_row("messages not delivered", undelivered, 0, UNKNOWN);
        thread::sleep(QUIET_TIME);
        let bytes = alone.bytes_per_client(&server, count)?;
        let what = format!("  after {MESSAGES} messages");
        self.limited_row(&what, bytes, idle_bytes * 11 / 10, UNKNOWN);
        Ok(())
    }

    /// Has a crowd come, talk and leave, again and again. The C library's allocator keeps for the next
    /// crowd what lies below the last small thing that is still in use; more than that must not stay.
    fn rows_of_crowds(&mut self, program: &Program) -> io::Result<()> {
        let count = clients::affordable(&[CROWD_CLIENTS])?[0];
        let server = program.start()?;
        thread::sleep(SETTLING);
        let crowd = thousands(count);
        let what = format!("private KiB before {crowd} have come");
        self.row(&what, Memory::of(&server)?.private_kib, UNKNOWN);
        let mut most = usize::MAX;
        for round in 1..=3 {
            let mut clients = clients::connect(&server, count, "/")?;
            for client in &mut clients {
                echo(client, LARGE_MESSAGE_BYTES)?;
            }
            drop(clients);
            thread::sleep(SETTLING);
            let private_kib = Memory::of(&server)?.private_kib;
            if most == usize::MAX {
                most = private_kib * 11 / 10;
            }
            let what = format!("  after they have left, round {round}");
            self.limited_row(&what, private_kib, most, UNKNOWN);
        }
        Ok(())
    }

    /// The same program where it speaks TLS, with `count` idle clients.
    fn rows_with_tls(&mut self, plain: &Program, count: usize) -> io::Result<()> {
        let state = State::new();
        let server = state.program(plain).start()?;
        thread::sleep(SETTLING);
        let alone = Memory::of(&server)?;
        self.row("over TLS 1.3: memory at start, private KiB", alone.private_kib, UNKNOWN);
        let clients = secure::connect(&server, &state, count, "/")?;
        thread::sleep(SETTLING);
        let per_client = alone.bytes_per_client(&server, count)?;
        let what = format!("  per client of {}, private bytes", thousands(count));
        self.limited_row(&what, per_client, TLS_CLIENT_BYTES, UNKNOWN);
        let lost = clients.iter().filter(|client| is_lost(&client.sock)).count();
        self.limited_row("  clients lost", lost, 0, UNKNOWN);
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

/// What the article does not say.
const UNKNOWN: [&str; 2] = ["", ""];

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

/// How many come and go.
const CROWD_CLIENTS: usize = 5000;

/// How large a message is after which a client has no more memory than before.
const LARGE_MESSAGE_BYTES: usize = 60_000;

/// How many messages subscribers hear, after which they have no more memory than before; and how long
/// each may take.
const MESSAGES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the server is started to measure that. Odd, so that the median is a start.
const STARTS: usize = 199;

/// Half for what has no TLS, and as much again for rustls and ring.
const BINARY_BYTES: usize = 2_000_000;

/// Keys and states of rustls; no buffer, of which one would be 4 KiB at least.
const TLS_CLIENT_BYTES: usize = 6144;

/// 2.4 MB for the article's server, 0.15 MB for the code of topics and files, 0.5 MB of rustls and ring,
/// whose pages come in with their neighbours, and 0.15 MB for access and operations; 0.7 MB; of 1,024 KiB
/// each.
const RESIDENT_LIMIT_KIB: usize = 3277;
const PRIVATE_LIMIT_KIB: usize = 716;

/// How long the server is left alone.
const IDLE: Duration = Duration::from_secs(30);

/// How long after its start a server is measured that nobody has connected to.
const START_SETTLING: Duration = Duration::from_millis(20);

/// How long after a change the server is measured.
const SETTLING: Duration = Duration::from_millis(500);

/// How long clients have been quiet after they were busy, when the server is measured.
const QUIET_TIME: Duration = Duration::from_secs(5);
