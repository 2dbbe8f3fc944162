//! A service that publishes the standard input, line by line, to a topic.

use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use futures_lite::future;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::counters::Source;
use crate::frame::Frame;
use crate::hub::{Draft, HubHandle, TopicName};
use crate::net::{Reactor, Watched};

use super::service::Service;
use super::stop::Stop;

/// A service that publishes each line of the standard input as a message, as in
/// `producer | falconet --stdin NAME`.
///
/// A line of valid UTF-8 is a text message, any other line a binary message. With the separator LF,
/// a line may also end with CR LF. The bytes after the last separator are a line, too. If the
/// producer is faster than the hub, the pipe fills up and the producer waits.
///
/// When the service ends, it replaces the standard input by an empty one, so that a producer that goes on
/// writing gets an error.
pub struct Stdin {
    topic: TopicName,
    separator: u8,
    max_line: usize,
    stops_at_end: bool,
    /// A writer of a named pipe, which has no end while this is open.
    _writer: Option<OwnedFd>,
}

impl Stdin {
    /// Creates a service that publishes to `topic`. Lines end with `separator`. Lines of more than
    /// `max_line` bytes are dropped with a warning. At the end of the input or after a read error,
    /// the server stops if `stops_at_end` is true, and continues otherwise.
    ///
    /// If the standard input is a named pipe, its writers may come and go: it has no end, unless
    /// `stops_at_end` is true. For this, the service opens the pipe for writing; if that fails, a warning is
    /// logged. Must be called before the process drops privileges, because it may not be able to open the
    /// pipe later.
    pub fn new(topic: TopicName, separator: u8, max_line: usize, stops_at_end: bool) -> Self {
        let writer = if stops_at_end { Ok(None) } else { open_named_pipe() };
        let writer = writer.unwrap_or_else(|error| {
            log::warn!(
                target: "falconet::stdin",
                "the standard input ends with its first writer: can't open {STDIN_FILE} for writing: {error}"
            );
            None
        });
        Self { topic, separator, max_line, stops_at_end, _writer: writer }
    }

    async fn publish_all(&self, hub: &HubHandle, stop: &Stop) -> io::Result<()> {
        let input = Input::new(stop.timer().reactor())?;
        let mut lines = Lines::new(self.separator, self.max_line);
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let count = input.read(&mut chunk).await?;
            let mut rest = &chunk[..count];
            while let Some(line) = lines.next(&mut rest) {
                self.publish(line, hub).await;
            }
            if count == 0 {
                if let Some(line) = lines.last() {
                    self.publish(line, hub).await;
                }
                return Ok(());
            }
        }
    }

    async fn publish(&self, line: Line, hub: &HubHandle) {
        match line {
            Line::Whole(line) => {
                let frame = Frame::data(str::from_utf8(&line).is_ok(), &line);
                // If there is no room for the topic, the hub has logged the error.
                let _ = hub.publish_draft(&self.topic, Draft::new(frame), Source::Stdin).await;
            }
            Line::TooLong => {
                let limit = self.max_line;
                log::warn!(target: "falconet::stdin", "dropped a line of more than {limit} bytes");
            }
        }
    }
}

impl Service for Stdin {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        let ended = stop.unless_requested(self.publish_all(&hub, &stop)).await;
        close_stdin();
        match ended {
            Some(Ok(())) => log::info!(target: "falconet::stdin", "end of the standard input"),
            Some(Err(error)) => {
                log::error!(target: "falconet::stdin", "can't read the standard input: {error}");
            }
            None => return,
        }
        if self.stops_at_end {
            stop.request();
        }
    }
}

/// Opens the standard input for writing if it is a named pipe.
fn open_named_pipe() -> io::Result<Option<OwnedFd>> {
    let stdin = rustix::stdio::stdin();
    let mode = rustix::fs::fstat(stdin)?.st_mode;
    // A pipe without a name, as of `producer | falconet`, is in a file system of its own. It ends with its
    // producer.
    if FileType::from_raw_mode(mode) != FileType::Fifo
        || rustix::fs::fstatfs(stdin)?.f_type as u32 == PIPEFS_MAGIC
    {
        return Ok(None);
    }
    // Without NONBLOCK, this would wait for a reader if the standard input can't be read.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Some(rustix::fs::open(STDIN_FILE, flags, Mode::empty())?))
}

/// Replaces the standard input by a pipe that has ended. If that is not possible, the input stays open.
fn close_stdin() {
    // Not /dev/null, which may not exist.
    if let Ok((reader, _)) = rustix::pipe::pipe() {
        let _ = rustix::stdio::dup2_stdin(reader);
    }
}

/// The standard input.
struct Input {
    /// Waits until there is something to read. `None` for a regular file, which epoll refuses and which can
    /// always be read.
    watched: Option<Watched<BorrowedFd<'static>>>,
}

impl Input {
    fn new(reactor: &Rc<Reactor>) -> io::Result<Self> {
        match Watched::new(reactor, rustix::stdio::stdin()) {
            Ok(watched) => Ok(Self { watched: Some(watched) }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(Self { watched: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for bytes and reads them into `chunk`. Returns their number, 0 at the end of the
    /// input.
    async fn read(&self, chunk: &mut [u8]) -> io::Result<usize> {
        loop {
            match &self.watched {
                Some(watched) => poll_fn(|cx| watched.poll_readable(cx)).await?,
                None => future::yield_now().await,
            }
            match rustix::io::read(rustix::stdio::stdin(), &mut *chunk) {
                // EAGAIN: another process that shares the input has read the bytes.
                Err(Errno::AGAIN | Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }
}

/// The lines of an input that arrives in pieces of any size.
struct Lines {
    separator: u8,
    max_line: usize,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    is_too_long: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    TooLong,
}

impl Lines {
    fn new(separator: u8, max_line: usize) -> Self {
        Self { separator, max_line, partial: Vec::new(), is_too_long: false }
    }

    /// Takes the next line that ends in `chunk`, and removes its bytes from `chunk`. If no line
    /// ends there, stores the bytes as the beginning of a line and returns `None`.
    fn next(&mut self, chunk: &mut &[u8]) -> Option<Line> {
        let end = chunk.iter().position(|byte| *byte == self.separator);
        let (piece, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
        *chunk = rest.get(1..).unwrap_or_default();
        // One byte more than the limit may be the CR of a CR LF.
        self.is_too_long |= self.partial.len() + piece.len() > self.max_line + 1;
        if self.is_too_long {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(piece);
        }
        end.map(|_| self.finish())
    }

    /// Takes the last line of the input, if it has no separator at its end.
    fn last(&mut self) -> Option<Line> {
        (self.is_too_long || !self.partial.is_empty()).then(|| self.finish())
    }

    fn finish(&mut self) -> Line {
        let mut line = std::mem::take(&mut self.partial);
        if self.separator == b'\n' && line.last() == Some(&b'\r') {
            line.pop();
        }
        let is_too_long = std::mem::take(&mut self.is_too_long) || line.len() > self.max_line;
        if is_too_long { Line::TooLong } else { Line::Whole(line) }
    }
}

/// The file by which this process can open its standard input once more (proc_pid_fd(5)).
const STDIN_FILE: &str = "/proc/self/fd/0";
/// The type of the file system of pipes without a name (statfs(2)).
const PIPEFS_MAGIC: u32 = 0x5049_5045;
/// The maximum number of bytes per read.
const CHUNK_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 5;

    /// Returns the lines of `input`, which is passed in pieces of `size` bytes.
    fn lines(separator: u8, input: &[u8], size: usize) -> Vec<Line> {
        let mut lines = Lines::new(separator, LIMIT);
        let mut found = Vec::new();
        for mut chunk in input.chunks(size) {
            found.extend(std::iter::from_fn(|| lines.next(&mut chunk)));
        }
        found.extend(lines.last());
        found
    }

    #[test]
    fn the_size_of_the_pieces_does_not_change_the_lines() {
        let whole = |text: &str| Line::Whole(text.into());
        for (separator, input, expected) in [
            (b'\n', "", vec![]),
            (b'\n', "a\nbc\n", vec![whole("a"), whole("bc")]),
            (b'\n', "a\r\n\nb\r", vec![whole("a"), whole(""), whole("b")]),
            (b'\n', "a\rb\n", vec![whole("a\rb")]),
            (b'\n', "12345\r\n123456\n1", vec![whole("12345"), Line::TooLong, whole("1")]),
            (b'\n', "1234567890\n\nx", vec![Line::TooLong, whole(""), whole("x")]),
            (b'\n', "a\n1234567890", vec![whole("a"), Line::TooLong]),
            (0, "a\nb\r\0\0c", vec![whole("a\nb\r"), whole(""), whole("c")]),
        ] {
            for size in 1..=input.len().max(1) {
                assert_eq!(
                    lines(separator, input.as_bytes(), size),
                    expected,
                    "{input:?} in pieces of {size}"
                );
            }
        }
    }
}
