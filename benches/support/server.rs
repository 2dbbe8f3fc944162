//! The measured servers, each in its own process, and their figures in `/proc`.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use super::process::Process;

/// A server program and how to start it.
pub(crate) struct Program {
    /// Name in the tables.
    pub(crate) name: &'static str,
    /// Path of the executable.
    pub(crate) path: PathBuf,
    /// Arguments.
    pub(crate) options: Vec<String>,
}

impl Program {
    /// Returns falconet as built by `cargo build --release`, with `options` after `--listen`.
    ///
    /// The binary that `cargo bench` builds is not the released one: it has the bench profile, and
    /// the dev-dependencies enable more features. The environment variable `FALCONET_BIN` names
    /// another binary to measure.
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
    /// If the program cannot be started, or does not print its address within 10 s.
    pub(crate) fn start(&self) -> io::Result<Server> {
        let mut command = Command::new(&self.path);
        command.args(&self.options);
        // falconet reads settings from the environment too; they would change the measured options.
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

/// A running server. Dropping this value kills the process.
pub(crate) struct Server {
    /// Name in the tables.
    pub(crate) name: &'static str,
    process: Process,
    /// Address on which the server listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the processor time that all threads have used since their start, to the nanosecond.
    ///
    /// # Errors
    ///
    /// If the server has ended, or if the kernel has no `schedstat`.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        let mut total = Duration::ZERO;
        for schedstat in self.per_thread("schedstat")? {
            let nanoseconds = schedstat.split_whitespace().next().unwrap_or_default();
            total += Duration::from_nanos(nanoseconds.parse().map_err(Error::other)?);
        }
        Ok(total)
    }

    /// Returns the text of `/proc/PID/task/*/FILE`, one item per thread.
    ///
    /// # Errors
    ///
    /// If the server has ended, or if the kernel does not provide the file.
    pub(crate) fn per_thread(&self, file: &str) -> io::Result<Vec<String>> {
        let tasks = format!("/proc/{}/task", self.id());
        let read = |task: io::Result<fs::DirEntry>| fs::read_to_string(task?.path().join(file));
        fs::read_dir(&tasks)
            .and_then(|tasks| tasks.map(read).collect())
            .map_err(|error| Error::new(error.kind(), format!("{tasks}/*/{file}: {error}")))
    }
}

/// Builds the release binary in the target directory of `cargo bench`, and returns its path.
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

/// Parses the address in a line like `… listening on http://127.0.0.1:40123/ (open it in a
/// browser …)`.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once(LISTENING)?;
    address.split("://").nth(1)?.split('/').next()?.parse().ok()
}

/// The text before the address on a server's standard error.
const LISTENING: &str = "listening on http";
