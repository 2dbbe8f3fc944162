//! falconet-client in its own process, and a fake server whose responses a test decides.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::tcgetattr;
use tungstenite::Message;
use tungstenite::protocol::WebSocket;

use super::terminal::open_terminal;
use super::wait::{TIMEOUT, wait_until};
use super::wire::read_response_head;

/// A running client with pipes for its stdin, stdout and stderr, killed on drop.
pub struct PipedClient {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: Receiver<String>,
    pub stderr: Receiver<String>,
}

impl PipedClient {
    pub fn start(arguments: &[&str]) -> Self {
        Self::spawn(client_command(arguments))
    }

    /// Spawns `command`, which runs the client.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let stdout = read_pieces(child.stdout.take().unwrap(), true);
        let stderr = read_pieces(child.stderr.take().unwrap(), true);
        Self { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// Writes to stdin.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdin.as_mut().expect("stdin is open").write_all(bytes.as_ref()).unwrap();
    }

    /// Returns the next line on stdout, with its end.
    pub fn line(&self) -> String {
        self.stdout.recv_timeout(TIMEOUT).expect("a line on stdout")
    }

    /// Waits for a line on stderr that contains `part`, and returns it.
    pub fn wait_for_stderr(&self, part: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .stderr
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no line on stderr has {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Closes stdin, and returns the exit code and what is left on stdout and stderr.
    pub fn finish(mut self) -> (i32, String, String) {
        drop(self.stdin.take());
        let stdout = read_rest(&self.stdout);
        let stderr = read_rest(&self.stderr);
        (exit_code(&mut self.child), stdout, stderr)
    }

    pub fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }
}

impl Drop for PipedClient {
    fn drop(&mut self) {
        // The process has ended, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running client on a pseudo-terminal of its own, killed on drop.
pub struct TerminalClient {
    pub child: Child,
    keyboard: File,
    pub tty: OwnedFd,
    /// The mode of the terminal before the client started.
    pub initial_mode: String,
    screen: Receiver<String>,
    seen: String,
}

impl TerminalClient {
    pub fn start(arguments: &[&str]) -> Self {
        let (keyboard, tty) = open_terminal();
        let initial_mode = terminal_mode(&tty);
        let same = || Stdio::from(tty.try_clone().unwrap());
        let child = client_command(arguments)
            .stdin(same())
            .stdout(same())
            .stderr(same())
            .spawn()
            .expect("the client starts");
        let screen = read_pieces(keyboard.try_clone().unwrap(), false);
        Self { child, keyboard, tty, initial_mode, screen, seen: String::new() }
    }

    /// Sends the bytes of keys.
    pub fn press(&mut self, keys: impl AsRef<[u8]>) {
        self.keyboard.write_all(keys.as_ref()).unwrap();
    }

    /// Waits until the screen shows `part`. Returns, and removes, the output up to the end of `part`.
    pub fn wait_for(&mut self, part: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(at) = self.seen.find(part) {
                return self.seen.drain(..at + part.len()).collect();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(piece) => self.seen += &piece,
                Err(_) => panic!("no {part:?} in {:?}", self.seen),
            }
        }
    }

    /// Waits until the client has ended, checks that it has restored the mode of the terminal, and returns
    /// its exit code.
    pub fn exit_code(&mut self) -> i32 {
        let code = exit_code(&mut self.child);
        assert_eq!(
            terminal_mode(&self.tty),
            self.initial_mode,
            "the mode of the terminal is not restored"
        );
        code
    }
}

impl Drop for TerminalClient {
    fn drop(&mut self) {
        // The process has ended, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command for falconet-client, with an empty environment.
pub fn client_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_falconet-client"));
    command.env_clear().args(arguments);
    command
}

/// Returns the complete mode of a terminal.
pub fn terminal_mode(tty: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(tty).unwrap())
}

/// Reads `source` on another thread, line by line or in the pieces in which its bytes arrive.
fn read_pieces(source: impl Read + Send + 'static, by_lines: bool) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        loop {
            let mut piece = Vec::new();
            let read = match by_lines {
                true => source.read_until(b'\n', &mut piece),
                false => source.fill_buf().map(|bytes| {
                    piece.extend_from_slice(bytes);
                    bytes.len()
                }),
            };
            if !by_lines {
                source.consume(piece.len());
            }
            // A piece may end within a character, but no test checks such a character.
            let piece = String::from_utf8_lossy(&piece).into_owned();
            if !matches!(read, Ok(1..)) || sender.send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads to the end of a stream.
fn read_rest(stream: &Receiver<String>) -> String {
    let deadline = Instant::now() + TIMEOUT;
    let mut all = String::new();
    loop {
        match stream.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(piece) => all += &piece,
            Err(RecvTimeoutError::Disconnected) => return all,
            Err(RecvTimeoutError::Timeout) => panic!("no end after {all:?}"),
        }
    }
}

/// Waits until a client has ended, and returns its exit code.
pub fn exit_code(child: &mut Child) -> i32 {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("the client was not ended by a signal");
        }
        assert!(Instant::now() < deadline, "the client is still running");
        // waitpid(2) has no timeout, so this polls.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal.
pub fn send_signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("a child has a pid");
    kill_process(pid, signal).expect("this process may signal its child");
}

/// A listener that accepts one connection at a time when a test asks for it.
pub struct FakeServer {
    pub listener: TcpListener,
}

impl FakeServer {
    pub fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Returns a WebSocket URL of this server.
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address())
    }

    /// Accepts a connection and reads nothing from it.
    pub fn accept_raw(&self) -> TcpStream {
        self.listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        wait_until("a client connects", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Accepts a connection and completes its opening handshake.
    pub fn accept(&self) -> WebSocket<TcpStream> {
        tungstenite::accept(self.accept_raw()).expect("a handshake")
    }

    /// Accepts a connection, reads the head of its request, and sends `response`.
    pub fn answer(&self, response: &str) {
        let mut stream = self.accept_raw();
        read_response_head(&mut stream);
        stream.write_all(response.as_bytes()).unwrap();
    }
}

/// Reads to the end of the stream, and answers the client's Close. Returns the code of that Close.
pub fn read_to_close(socket: &mut WebSocket<TcpStream>) -> Option<u16> {
    let mut code = None;
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("the stream does not end")
            }
            Err(_) => return code,
        }
    }
}

/// Returns a path for a Unix socket. No two tests may use the same `name`.
pub fn socket_path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("falconet-{name}-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}
