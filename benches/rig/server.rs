//! The servers under measurement, each in a process of its own, and what `/proc` says of them.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use super::process::Process;

/// A server program and how to start it.
pub(crate) struct Program {
    /// What the tables call it.
    pub(crate) name: &'static str,
    /// The executable.
    pub(crate) path: PathBuf,
    /// Its command line.
    pub(crate) options: Vec<String>,
}

impl Program {
    /// falconet, as `cargo build --release` makes it, with `options` after `--listen`.
    ///
    /// The binary that `cargo bench` itself builds has the bench profile and the features that the
    /// dev-dependencies switch on, so it is not the one that ships. `FALCONET_BIN` names another
    /// binary to measure.
    ///
    /// # Errors
    ///
    /// If the release build fails.
    pub(crate) fn falconet(options: &[&str]) -> io::Result<Self> {
        let path = match env::var_os("FALCONET_BIN") {
            Some(path) => path.into(),
            None => build_release()?,
        };
        let listen = ["--listen", "http://127.0.0.1:0"];
        let options = listen.iter().chain(options).map(ToString::to_string).collect();
        Ok(Self { name: "falconet", path, options })
    }

    /// Starts the program and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it cannot be started or does not say within 10 s where it listens.
    pub(crate) fn start(&self) -> io::Result<Server> {
        let mut command = Command::new(&self.path);
        command.args(&self.options);
        // falconet reads settings from the environment too; the bench's are on the command line.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("FALCONET_") {
                command.env_remove(name);
            }
        }
        let process = Process::start(&mut command)?;
        let line = process.line_with(LISTENING)?;
        let address = address_in(&line)
            .ok_or_else(|| Error::other(format!("{}: no address in {line:?}", self.name)))?;
        Ok(Server { name: self.name, process, address })
    }
}

/// A running server; it is killed when this value is dropped.
pub(crate) struct Server {
    /// What the tables call it.
    pub(crate) name: &'static str,
    process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The processor time its threads have used since they started, to the nanosecond.
    ///
    /// # Errors
    ///
    /// If the server has ended, or the kernel keeps no `schedstat`.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        let mut total = Duration::ZERO;
        for schedstat in self.per_thread("schedstat")? {
            let nanoseconds = schedstat.split_whitespace().next().unwrap_or_default();
            total += Duration::from_nanos(nanoseconds.parse().map_err(Error::other)?);
        }
        Ok(total)
    }

    /// The text of `/proc/PID/task/*/FILE`, one item per thread.
    ///
    /// # Errors
    ///
    /// If the server has ended, or the kernel has no such file.
    pub(crate) fn per_thread(&self, file: &str) -> io::Result<Vec<String>> {
        let tasks = format!("/proc/{}/task", self.id());
        let read = |task: io::Result<fs::DirEntry>| fs::read_to_string(task?.path().join(file));
        fs::read_dir(&tasks)
            .and_then(|tasks| tasks.map(read).collect())
            .map_err(|error| Error::new(error.kind(), format!("{tasks}/*/{file}: {error}")))
    }
}

/// Builds the release binary where `cargo bench` puts its own, and returns its path.
fn build_release() -> io::Result<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_falconet"))
        .ancestors()
        .nth(2)
        .expect("cargo puts binaries at TARGET/PROFILE/NAME");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--release", "--bin", "falconet", "--target-dir"])
        .arg(target)
        .status()?;
    if !status.success() {
        return Err(Error::other(format!("cargo build --release: {status}")));
    }
    Ok(target.join("release/falconet"))
}

/// The address in a line like `… listening on http://127.0.0.1:40123/ (open it in a browser …)`.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once(LISTENING)?;
    address.split("://").nth(1)?.split('/').next()?.parse().ok()
}

/// What a server writes to standard error just before its address.
const LISTENING: &str = "listening on http";
