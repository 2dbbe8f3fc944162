//! Servers: the program in a process of its own, and the library in a thread of this one.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use falconet::{Origins, Server, ServerBuilder, Stopper};
use rustix::process::{Pid, Signal, kill_process};

use super::wait::{TIMEOUT, wait_until};
use super::websocket::Client;

/// The origin that every server of the tests allows, because many of their requests have `Host: a`.
pub const TEST_ORIGIN: &str = "http://a";

/// Flags that keep the server from publishing the time, so that clients receive only what a test sends.
pub const NO_BROADCAST: &[&str] = &["--broadcast-every", "0"];

/// The number of connections from this host that a server admits beside its limit.
pub const LOCAL_PLACES: usize = if cfg!(feature = "full") { 16 } else { 0 };

/// Connects as many clients as a server with `--max-connections 1` admits from this host.
pub fn fill(address: SocketAddr) -> Vec<Client> {
    (0..1 + LOCAL_PLACES).map(|_| Client::connect(address)).collect()
}

/// A running server process, killed on drop.
pub struct Falconet {
    child: Child,
    log: Receiver<String>,
    seen: Mutex<Vec<String>>,
    addresses: Vec<SocketAddr>,
}

impl Falconet {
    /// Starts the program on a free port of 127.0.0.1 with more `flags`, and waits until it listens.
    pub fn start(flags: &[&str]) -> Self {
        let listen = ["--listen", "http://127.0.0.1:0"];
        Self::start_with(Self::command().args(listen).args(flags))
    }

    /// Returns a command for the program, with an empty environment.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_falconet"));
        command.env_clear();
        command
    }

    /// Starts `command` and waits until it listens.
    pub fn start_with(command: &mut Command) -> Self {
        Self::start_with_stdin(command, Stdio::null())
    }

    /// Starts `command` with `stdin` for its standard input, and waits until it listens.
    pub fn start_with_stdin(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        let mut child = command
            .env("FALCONET_ORIGIN", TEST_ORIGIN)
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (lines, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let mut falconet = Self { child, log, seen: Mutex::default(), addresses: Vec::new() };
        let line = falconet.wait_for_line("listening on ");
        if let Some(rest) = line.split("://").nth(1) {
            let authority = rest.split('/').next().unwrap_or_default();
            falconet.addresses =
                authority.replace("localhost", "127.0.0.1").parse().into_iter().collect();
        }
        falconet
    }

    /// Starts the program on a free port of 127.0.0.1 with more `flags`, and with `stderr`, which this
    /// process does not read: the port is found in /proc.
    pub fn start_with_stderr(flags: &[&str], stderr: Stdio) -> Self {
        let child = Self::command()
            .env("FALCONET_ORIGIN", TEST_ORIGIN)
            .args(["--listen", "http://127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        let mut falconet =
            Self { child, log: channel().1, seen: Mutex::default(), addresses: Vec::new() };
        wait_until("the program listens", || {
            falconet.addresses.extend(
                listening_port(falconet.child.id())
                    .map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
            );
            !falconet.addresses.is_empty()
        });
        falconet
    }

    /// Returns the first TCP address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line that contains `part`, and returns it. Earlier lines are kept for
    /// [`Self::log_so_far`], but another call does not find them.
    pub fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.lock().unwrap().push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no log line has {part:?}; there were {:#?}", self.seen.lock().unwrap())
                }
            }
        }
    }

    /// Returns every log line so far.
    pub fn log_so_far(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap();
        seen.extend(self.log.try_iter());
        seen.clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child has a pid");
        kill_process(pid, signal).expect("this process may signal its child");
    }

    /// Waits for the process to end, at most `limit`.
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}");
            // waitpid(2) has no timeout, so this polls.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the resident memory that is anonymous, in KiB. Pages of the program's file do not count,
    /// because other tests that run the program share them.
    pub fn private_kib(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    /// Returns how many descriptors the process has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Returns the processor time that all threads have used.
    pub fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let nanoseconds = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }
}

impl Drop for Falconet {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the port of the TCP socket over IPv4 that a process listens on (proc_pid_net(5)).
pub fn listening_port(pid: u32) -> Option<u16> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let links: Vec<String> = files
        .filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.to_str()?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..] else { return None };
        links.contains(&format!("socket:[{inode}]")).then_some(())?;
        u16::from_str_radix(local.split_once(':')?.1, 16).ok()
    })
}

/// A server in a thread of this process, stopped on drop.
pub struct Embedded {
    pub address: SocketAddr,
    stopper: Stopper,
    pub thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Embedded {
    /// Runs the server that `compose` builds, on a free port.
    pub fn start(compose: impl FnOnce(ServerBuilder) -> ServerBuilder + Send + 'static) -> Self {
        Self::start_on("http://127.0.0.1:0", compose)
    }

    /// Runs the server that `compose` builds, at `url`.
    pub fn start_on(
        url: &'static str,
        compose: impl FnOnce(ServerBuilder) -> ServerBuilder + Send + 'static,
    ) -> Self {
        let (started, starting) = channel();
        let thread = std::thread::spawn(move || {
            let url = url.parse().unwrap();
            let mut origins = Origins::default();
            origins.add(TEST_ORIGIN).unwrap();
            let server = compose(Server::builder().origins(origins)).bind([&url]).unwrap();
            started.send((server.urls()[0].to_string(), server.stopper())).unwrap();
            server.run()
        });
        let (url, stopper) = starting.recv_timeout(TIMEOUT).unwrap();
        let address = url.split("://").nth(1).unwrap().parse().unwrap();
        Self { address, stopper, thread: Some(thread) }
    }

    /// Stops the server and waits until it has ended.
    pub fn stop(mut self) -> std::thread::Result<std::io::Result<()>> {
        self.stopper.stop();
        let thread = self.thread.take().unwrap();
        wait_until("the server has ended", || thread.is_finished());
        thread.join()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}
