//! Servers that publish the lines of their standard input.

use std::io::{PipeWriter, Write, pipe};
use std::process::Stdio;
use std::thread::JoinHandle;

use super::process::Falconet;

/// The flags of the servers in these tests, which publish their lines to the topic `lines`.
pub const STDIN_FLAGS: [&str; 6] =
    ["--listen", "http://127.0.0.1:0", "--broadcast-every", "0", "--stdin", "lines"];
/// The path of the topic of the lines.
pub const LINES: &str = "/topics/lines";
/// The message that the server logs at the end of its input.
pub const END: &str = "end of the standard input";

/// Starts a server with `stdin` for its standard input and more `flags`.
pub fn start(stdin: impl Into<Stdio>, flags: &[&str]) -> Falconet {
    Falconet::start_with_stdin(Falconet::command().args(STDIN_FLAGS).args(flags), stdin)
}

/// Starts a server that reads from a pipe.
pub fn start_piped(flags: &[&str]) -> (Falconet, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    (start(reader, flags), writer)
}

/// Writes `bytes` and closes the pipe, on another thread: a pipe takes only 64 KiB at once.
pub fn feed(mut writer: PipeWriter, bytes: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || writer.write_all(&bytes).expect("the server reads to the end"))
}

/// Returns how many threads the server has.
pub fn thread_count(falconet: &Falconet) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", falconet.pid())).unwrap().count()
}
