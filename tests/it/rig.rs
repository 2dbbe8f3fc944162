//! What the tests stand on: the program in a process of its own, clients that speak frame by frame,
//! and canaries that must lose nothing. Every wait has a deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use falconet::{Origins, Server, ServerBuilder, Stopper};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process};

/// How long anything may take that should take no time.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The tests call the server `a`, which it must know: it is on loopback.
pub const HERE: &str = "http://a";

/// A steady trickle rather than a flood of its own.
pub const CANARY_PAUSE: Duration = Duration::from_millis(1);

/// The program, running.
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

    /// The program's command line, with an environment that says nothing.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_falconet"));
        command.env_clear();
        command
    }

    /// Starts `command` and waits until it listens.
    pub fn start_with(command: &mut Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// The same, with something for it to read.
    pub fn start_reading(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        let mut child = command
            .env("FALCONET_ORIGIN", HERE)
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

    /// Starts the program on a free port of 127.0.0.1 with more `flags` and with `stderr`, which nobody
    /// reads for us: where it listens is found in /proc.
    pub fn start_unheard(flags: &[&str], stderr: Stdio) -> Self {
        let child = Self::command()
            .env("FALCONET_ORIGIN", HERE)
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

    /// The first TCP address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a log line has `part` in it, and returns the line. Lines before it are kept for
    /// [`Self::log_so_far`], but not found again by this.
    pub fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
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

    /// Every log line so far.
    pub fn log_so_far(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap();
        seen.extend(self.log.try_iter());
        seen.clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child has a pid");
        kill_process(pid, signal).expect("the child is ours");
    }

    /// Waits for the process to end, at most `limit`.
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}");
            // waitpid has no deadline; this is the wait.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Resident memory that is this process's own and of no file, in KiB: pages of the program's file
    /// are its own, too, but only while no other test runs the program.
    pub fn private_kib(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    /// How many descriptors the process has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// How long the process has been running on a processor.
    pub fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let nanoseconds = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// The descriptor the process would get next: the lowest it has not.
    pub fn next_file(&self) -> u64 {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
        let open: Vec<u64> =
            files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
        (0..).find(|file| !open.contains(file)).unwrap()
    }

    /// How often any of its threads has left a processor, of itself or not: one that sleeps does not.
    pub fn context_switches(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let switches = tasks.flatten().map(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap();
            let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
            counts.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
        });
        switches.map(|count: u64| count).sum()
    }
}

impl Drop for Falconet {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server in a thread of this process.
pub struct Embedded {
    pub address: SocketAddr,
    stopper: Stopper,
    pub thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Embedded {
    /// Runs what `compose` makes, on a free port.
    pub fn start(compose: impl FnOnce(ServerBuilder) -> ServerBuilder + Send + 'static) -> Self {
        Self::start_on("http://127.0.0.1:0", compose)
    }

    /// Runs what `compose` makes, where `url` says.
    pub fn start_on(
        url: &'static str,
        compose: impl FnOnce(ServerBuilder) -> ServerBuilder + Send + 'static,
    ) -> Self {
        let (started, starting) = channel();
        let thread = std::thread::spawn(move || {
            let url = url.parse().unwrap();
            let mut origins = Origins::default();
            origins.add(HERE).unwrap();
            let server = compose(Server::builder().origins(origins)).bind([&url]).unwrap();
            started.send((server.urls()[0].to_string(), server.stopper())).unwrap();
            server.run()
        });
        let (url, stopper) = starting.recv_timeout(PATIENCE).unwrap();
        let address = url.split("://").nth(1).unwrap().parse().unwrap();
        Self { address, stopper, thread: Some(thread) }
    }

    /// Stops the server and waits for its end.
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

/// The port of the TCP socket over IPv4 that a process listens on (proc_pid_net(5)).
fn listening_port(pid: u32) -> Option<u16> {
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

/// Waits until `condition` holds, at most [`PATIENCE`]; for what sends no event.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// A request head that asks for a WebSocket at `path`.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Opens a TCP connection whose reads and writes have a deadline.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends `request` and nothing more, and returns all that is answered, to the end of the stream.
pub fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut stream = connect(address);
    // The server may refuse before it has read all.
    let _ = stream.write_all(request.as_ref());
    // A kept connection ends when there is no other request to come.
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("answers are UTF-8")
}

/// Returns once the server has read what was sent before: its one thread answers in turn. Twice,
/// since a new connection must be accepted first.
pub fn read_by_now(barrier: &mut Client) {
    barrier.echo("1");
    barrier.echo("2");
}

/// The status code of a response.
pub fn status_of(response: &str) -> u16 {
    let code = response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    code.unwrap_or_else(|| panic!("no response: {response:?}"))
}

/// The value of the header `name` in a response.
pub fn header_of<'r>(response: &'r str, name: &str) -> Option<&'r str> {
    let head = response.split("\r\n\r\n").next().unwrap_or_default();
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// What follows the head of a response.
pub fn body_of(response: &str) -> &str {
    response.split_once("\r\n\r\n").expect("a head ends with an empty line").1
}

/// A request with `lines`, each with its end, between Host and the end of the head. It says how long
/// the body is if there is one, or could be.
pub fn request(method: &str, path: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = match method {
        "POST" | "PUT" => format!("Content-Length: {}\r\n", body.len()),
        _ if !body.is_empty() => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}{length}\r\n");
    [head.as_bytes(), body].concat()
}

/// A request to read what is at `path`.
pub fn get(path: &str) -> Vec<u8> {
    request("GET", path, "", "")
}

/// A request to publish `body` at `path`.
pub fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST", path, "", body)
}

/// Makes one request on a connection of its own.
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    Http::connect(address).ask(request)
}

/// One response.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        status_of(&self.head)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Whether it says that the connection ends.
    pub fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

/// An HTTP client that keeps its connection, and trusts lengths.
pub struct Http {
    reader: BufReader<TcpStream>,
}

impl Http {
    pub fn connect(address: SocketAddr) -> Self {
        // One byte: what follows an answer may be for somebody else to read.
        Self { reader: BufReader::with_capacity(1, connect(address)) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(&request);
        self.read(!request.as_ref().starts_with(b"HEAD "))
    }

    /// Reads one response. There is none to HEAD that has a body.
    pub fn read(&mut self, has_body: bool) -> Answer {
        self.try_read(has_body).expect("an answer")
    }

    /// Reads one response, or says how the stream ended before its first byte.
    pub fn try_read(&mut self, has_body: bool) -> io::Result<Answer> {
        let is_over = loop {
            match self.reader.fill_buf() {
                // A read with a timeout is not taken up again when the process was stopped (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?.is_empty(),
            }
        };
        if is_over {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let head = read_response_head(&mut self.reader);
        let status = status_of(&head);
        let bodiless = !has_body || status < 200 || matches!(status, 204 | 304);
        let length = header_of(&head, "Content-Length").map(|length| length.parse().unwrap());
        assert!(!matches!(status, 100..200 | 204) || length.is_none(), "{head}");
        let mut body = vec![0; length.filter(|_| !bodiless).unwrap_or(0)];
        assert!(bodiless || length.is_some(), "{head}");
        self.reader.read_exact(&mut body)?;
        Ok(Answer { head, body })
    }

    /// Sees the stream end without another byte.
    pub fn assert_ended(&mut self) {
        match self.reader.fill_buf() {
            Ok([]) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("no end: {:?}", other.map(String::from_utf8_lossy)),
        }
    }

    /// The client that it is after an upgrade.
    pub fn into_client(self) -> Client {
        assert_eq!(self.reader.buffer(), b"", "whole answers were read");
        Client { stream: self.reader.into_inner() }
    }
}

/// One server-sent event, or a comment.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub id: Option<u64>,
    /// The type: `message` if the event says none, `comment` for a comment.
    pub kind: String,
    pub data: String,
}

impl Event {
    /// Reads an event or a comment from its lines, without the empty one at its end.
    pub fn parse(lines: &str) -> Self {
        let mut event = Self { id: None, kind: "message".to_owned(), data: String::new() };
        for line in lines.split('\n') {
            match line.split_once(": ").unwrap_or((line, "")) {
                (":", _) => event.kind = "comment".to_owned(),
                ("id", id) => event.id = Some(id.parse().unwrap()),
                ("event", kind) => event.kind = kind.to_owned(),
                ("data", data) => event.data = event.data + data + "\n",
                _ => panic!("no field: {line:?}"),
            }
        }
        event.data.pop();
        event
    }
}

/// A client that listens to server-sent events.
pub struct Events {
    pub head: String,
    reader: BufReader<TcpStream>,
}

impl Events {
    /// Listens at `path`, with more header `lines`.
    pub fn connect(address: SocketAddr, path: &str, lines: &str) -> Self {
        let lines = format!("Accept: text/event-stream\r\n{lines}");
        Self::over(Http::connect(address), &request("GET", path, &lines, ""))
    }

    /// Listens on a connection that is there.
    pub fn over(mut http: Http, request: &[u8]) -> Self {
        http.send(request);
        let mut stream = http.into_client().stream;
        let head = read_response_head(&mut stream);
        assert_eq!(status_of(&head), 200, "{head}");
        assert_eq!(header_of(&head, "Content-Type"), Some("text/event-stream"), "{head}");
        Self { head, reader: BufReader::new(stream) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Reads one event.
    pub fn read(&mut self) -> Event {
        self.try_read().expect("an event")
    }

    /// Reads one event; `None` at the end of the stream, between two events.
    pub fn try_read(&mut self) -> Option<Event> {
        let mut lines = String::new();
        while !lines.ends_with("\n\n") {
            match self.reader.read_line(&mut lines) {
                Ok(0) if lines.is_empty() => return None,
                Err(error)
                    if lines.is_empty() && error.kind() == io::ErrorKind::ConnectionReset =>
                {
                    return None;
                }
                Ok(1..) => {}
                other => panic!("{other:?} after {lines:?}"),
            }
        }
        Some(Event::parse(lines.trim_end_matches('\n')))
    }

    /// The connection, of which whole events were read.
    pub fn into_stream(self) -> TcpStream {
        assert_eq!(self.reader.buffer(), b"", "whole events were read");
        self.reader.into_inner()
    }
}

/// Reads from a stream up to and with the empty line of a response head.
pub fn read_response_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            // A read with a timeout is not taken up again when the process was stopped (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).expect("heads are ASCII")
}

/// One frame as received.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Received {
    /// The text of a text frame.
    pub fn text(&self) -> &str {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).expect("text frames are UTF-8")
    }

    /// The code of a Close frame; 1005 for none.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        match self.payload[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        }
    }
}

/// Encodes a masked frame, as clients send them.
pub fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if fin { 0x80 } else { 0 } | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A WebSocket client that sends and reads frame by frame, right or wrong.
pub struct Client<S = TcpStream> {
    pub stream: S,
}

impl Client {
    /// Connects to `/`.
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_to(address, "/")
    }

    /// Connects to `path`.
    pub fn connect_to(address: SocketAddr, path: &str) -> Self {
        Self::connect_saying(address, path, "").0
    }

    /// Connects to `path` with more header `lines`; returns the head of the answer too.
    pub fn connect_saying(address: SocketAddr, path: &str, lines: &str) -> (Self, String) {
        let mut stream = connect(address);
        let head = handshake(path).replacen("\r\n\r\n", &format!("\r\n{lines}\r\n"), 1);
        stream.write_all(head.as_bytes()).unwrap();
        let head = read_response_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (Self { stream }, head)
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends one masked frame.
    pub fn send(&mut self, fin: bool, opcode: u8, payload: impl AsRef<[u8]>) {
        self.stream.write_all(&masked(fin, opcode, payload.as_ref())).unwrap();
    }

    /// Sends bytes as they are; says whether the server still took them.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads one frame.
    pub fn read(&mut self) -> Received {
        self.try_read().expect("a frame")
    }

    /// Reads one frame, or says how the stream ended.
    pub fn try_read(&mut self) -> io::Result<Received> {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header)?;
        assert_eq!(header[1] & 0x80, 0, "servers do not mask");
        let length = match header[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                u16::from_be_bytes(length).into()
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            length => length.into(),
        };
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Received { fin: header[0] & 0x80 != 0, opcode: header[0] & 0x0f, payload })
    }

    /// Sends a text message and checks that it comes back; skips broadcasts, answers pings.
    pub fn echo(&mut self, text: &str) {
        self.send(true, TEXT, text);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing but broadcasts");
            let frame = self.read();
            if frame.opcode == TEXT && frame.payload.starts_with(b"Server time: ") {
                continue;
            }
            if frame.opcode == PING {
                self.send(true, PONG, frame.payload);
                continue;
            }
            assert_eq!(frame.text(), text);
            return;
        }
    }

    /// Reads to the end of the stream; returns the code of the Close frame before it, if one came.
    pub fn read_to_close(&mut self) -> Option<u16> {
        let mut code = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the stream does not end");
            match self.try_read() {
                Ok(frame) if frame.opcode == CLOSE => code = Some(frame.close_code()),
                Ok(_) => {}
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the stream does not end");
                    return code;
                }
            }
        }
    }
}

/// A healthy client that says nothing of itself but answers pings, in a thread of its own.
pub struct Quiet {
    stream: TcpStream,
    pongs: Arc<AtomicUsize>,
    thread: JoinHandle<Option<u16>>,
}

impl Quiet {
    pub fn start(mut client: Client) -> Self {
        let stream = client.stream.try_clone().unwrap();
        let pongs = Arc::new(AtomicUsize::new(0));
        let count = pongs.clone();
        let thread = std::thread::spawn(move || {
            loop {
                match client.try_read() {
                    Ok(ping) if ping.opcode == PING => {
                        client.send(true, PONG, ping.payload);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(close) if close.opcode == CLOSE => return Some(close.close_code()),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        });
        Self { stream, pongs, thread }
    }

    /// How many pings it has answered.
    pub fn pongs(&self) -> usize {
        self.pongs.load(Ordering::Relaxed)
    }

    /// Leaves with a Close and says what came back; `None` if it was lost before.
    pub fn finish(self) -> Option<u16> {
        let _ = (&self.stream).write_all(&masked(true, CLOSE, &1000_u16.to_be_bytes()));
        self.thread.join().expect("no client panics")
    }

    /// Leaves without a word.
    pub fn vanish(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.join();
    }
}

/// Two healthy clients that echo all the time, each in a thread of its own.
pub struct Canaries {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Duration>>>,
}

impl Canaries {
    /// Canaries of a server anywhere, with a millisecond between their messages.
    pub fn start(address: SocketAddr) -> Self {
        Self::sing(address, CANARY_PAUSE, || Duration::ZERO)
    }

    /// Canaries with `pause` between their messages, whose times are those the server answers for: less
    /// what it and the canary stood in the queue for a processor that was with others. A flooder on
    /// this machine takes processors as one elsewhere would not.
    pub fn start_every(pause: Duration, falconet: &Falconet) -> Self {
        let pid = falconet.pid();
        let queued = move || {
            let paths =
                [format!("/proc/{pid}/schedstat"), "/proc/thread-self/schedstat".to_owned()];
            let nanoseconds = paths.into_iter().filter_map(|path| {
                let text = std::fs::read_to_string(path).ok()?;
                text.split_whitespace().nth(1)?.parse::<u64>().ok()
            });
            Duration::from_nanos(nanoseconds.sum())
        };
        Self::sing(falconet.address(), pause, queued)
    }

    fn sing(
        address: SocketAddr,
        pause: Duration,
        queued: impl Fn() -> Duration + Send + Copy + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..2)
            .map(|canary| {
                let stop = stop.clone();
                let mut client = Client::connect(address);
                std::thread::spawn(move || {
                    let mut times = Vec::new();
                    // At least once, however late it comes to run.
                    while times.is_empty() || !stop.load(Ordering::Relaxed) {
                        let (sent, queued_before) = (Instant::now(), queued());
                        client.echo(&format!("canary {canary} message {}", times.len()));
                        let elapsed = sent.elapsed();
                        times.push(elapsed.saturating_sub(queued() - queued_before));
                        std::thread::sleep(pause);
                    }
                    client.send(true, CLOSE, 1000_u16.to_be_bytes());
                    assert_eq!(client.read_to_close(), Some(1000));
                    times
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// Stops them and returns their round-trip times, shortest first. Fails if one lost anything.
    pub fn finish(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.threads.into_iter().map(|thread| thread.join().expect("canary is well"));
        let mut times: Vec<Duration> = times.flatten().collect();
        times.sort_unstable();
        times
    }
}

impl Canaries {
    /// Stops them. Fails if one lost anything or they were held up.
    pub fn assert_well(self) {
        let times = self.finish();
        println!("canaries: p99 {:?} of {}", p99(&times), times.len());
        assert!(p99(&times) < Duration::from_millis(50), "{:?}", p99(&times));
    }
}

/// The time that 99 of 100 stay below.
pub fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

/// How many of the `wanted` sockets a test may have at both ends: all, on most machines. Raises the
/// limit of open files as far as it goes.
pub fn affordable(wanted: usize) -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("a limit may rise to its maximum");
    let most = limit.maximum.map_or(usize::MAX, |maximum| maximum as usize / 8);
    if most < wanted {
        eprintln!("only {most} connections instead of {wanted}: the limit of open files is low");
    }
    wanted.min(most)
}

/// The turn of a test that measures times or keeps the machine busy: one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
