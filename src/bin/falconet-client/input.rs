//! Messages read from stdin, which is a terminal, a pipe or a file.

use std::io::{self, Stdin};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::Message;
use falconet::net::{Reactor, Sleep, Timer, Watched};

use crate::message::{self, MAX_MESSAGE_BYTES};

/// Stdin, read as keys, as lines, or not at all.
pub(crate) struct Input {
    /// Stdin, or `None` if stdin is always ready, as files are.
    watched: Option<Watched<Stdin>>,
    chunk: Vec<u8>,
    decoder: Decoder,
    timer: Timer,
    lone_escape: Option<Sleep>,
    has_ended: bool,
}

enum Decoder {
    Keys(Keys),
    Lines(Lines),
    Nothing,
}

/// An event of stdin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InputEvent {
    /// A line, a keystroke, or a pasted text.
    Message(Message),
    /// The ESC key.
    Escape,
    /// A key that produces no character, such as an arrow.
    Other,
    /// The end of stdin.
    End,
    /// A failure, described by this text, after which nothing more is read.
    Failed(String),
}

impl Input {
    /// Creates an input that reads stdin, a terminal in raw mode, as keys.
    pub(crate) fn keys(reactor: &Rc<Reactor>) -> Self {
        Self::read(reactor, Decoder::Keys(Keys::default()))
    }

    /// Creates an input that reads stdin as lines.
    pub(crate) fn lines(reactor: &Rc<Reactor>) -> Self {
        Self::read(reactor, Decoder::Lines(Lines::default()))
    }

    /// Creates an input that never reads stdin: no event occurs, not even the end.
    pub(crate) fn none(reactor: &Rc<Reactor>) -> Self {
        Self {
            watched: None,
            chunk: Vec::new(),
            decoder: Decoder::Nothing,
            timer: Timer::new(reactor),
            lone_escape: None,
            has_ended: false,
        }
    }

    fn read(reactor: &Rc<Reactor>, decoder: Decoder) -> Self {
        Self {
            watched: Watched::new(reactor, io::stdin()).ok(),
            chunk: vec![0; CHUNK_BYTES],
            decoder,
            ..Self::none(reactor)
        }
    }

    /// Returns true if the input comes from a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.decoder, Decoder::Keys(_))
    }

    /// Returns the next event; after the end, the end again.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<InputEvent> {
        loop {
            let next = match &mut self.decoder {
                Decoder::Keys(keys) => keys.next(),
                Decoder::Lines(lines) => lines.next(self.has_ended),
                Decoder::Nothing => return Poll::Pending,
            };
            if let Some(event) = next {
                self.has_ended |= matches!(event, InputEvent::Failed(_));
                return Poll::Ready(event);
            }
            if self.has_ended {
                return Poll::Ready(InputEvent::End);
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => self.has_ended = true,
                Poll::Ready(Ok(count)) => {
                    self.lone_escape = None;
                    match &mut self.decoder {
                        Decoder::Keys(keys) => keys.feed(&self.chunk[..count]),
                        Decoder::Lines(lines) => lines.feed(&self.chunk[..count]),
                        Decoder::Nothing => {}
                    }
                }
                // The terminal has been closed.
                Poll::Ready(Err(error)) if self.is_terminal() => {
                    let _ = error;
                    self.has_ended = true;
                }
                Poll::Ready(Err(error)) => {
                    self.has_ended = true;
                    return Poll::Ready(InputEvent::Failed(format!("can't read stdin: {error}")));
                }
                Poll::Pending => return self.poll_lone_escape(cx),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(watched) = &self.watched {
                ready!(watched.poll_readable(cx))?;
            }
            match rustix::io::read(io::stdin(), &mut self.chunk[..]) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                result => return Poll::Ready(result.map_err(io::Error::from)),
            }
        }
    }

    /// Returns the ESC key if nothing has followed an ESC byte in time.
    fn poll_lone_escape(&mut self, cx: &mut Context<'_>) -> Poll<InputEvent> {
        let Decoder::Keys(keys) = &mut self.decoder else { return Poll::Pending };
        if !keys.is_mid_sequence() {
            return Poll::Pending;
        }
        let timer = &self.timer;
        let sleep = self.lone_escape.get_or_insert_with(|| timer.sleep(Some(ESCAPE_TIMEOUT)));
        ready!(Pin::new(sleep).poll(cx));
        self.lone_escape = None;
        Poll::Ready(keys.end_sequence())
    }
}

/// The lines of an input that arrives in pieces; each line is a message.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next line. The last line may lack its newline.
    fn next(&mut self, has_ended: bool) -> Option<InputEvent> {
        let newline = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        self.scanned = newline.map_or(self.buffer.len(), |at| self.scanned + at);
        let line = &self.buffer[self.start..self.scanned];
        if line.len() > MAX_MESSAGE_BYTES {
            *self = Self::default();
            return Some(InputEvent::Failed("a line is longer than 16 MiB".to_owned()));
        }
        if newline.is_none() && (!has_ended || line.is_empty()) {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let message = message::from_bytes(line);
        self.scanned += usize::from(newline.is_some());
        self.start = self.scanned;
        Some(InputEvent::Message(message))
    }
}

/// The keys and characters in the bytes of a terminal.
#[derive(Default)]
struct Keys {
    pending: Vec<u8>,
}

impl Keys {
    fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Returns the characters up to the next ESC byte; or, if an ESC byte comes first, the key that begins
    /// with it.
    fn next(&mut self) -> Option<InputEvent> {
        if self.pending.first() == Some(&ESCAPE) {
            let (length, event) = escape_sequence(&self.pending)?;
            self.pending.drain(..length);
            return Some(event);
        }
        let until_escape = self.pending.iter().position(|byte| *byte == ESCAPE);
        let mut characters = &self.pending[..until_escape.unwrap_or(self.pending.len())];
        if until_escape.is_none() {
            // The rest of a character may come with the next read.
            characters = &characters[..characters.len() - incomplete_bytes(characters)];
        }
        if characters.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(characters).into_owned();
        self.pending.drain(..characters.len());
        Some(InputEvent::Message(Message::text(text)))
    }

    /// Returns true if an ESC byte waits for the rest of its sequence.
    fn is_mid_sequence(&self) -> bool {
        self.pending.first() == Some(&ESCAPE)
    }

    /// Ends a sequence that nothing has followed. A single ESC byte is the ESC key; an incomplete sequence
    /// is another key.
    fn end_sequence(&mut self) -> InputEvent {
        match std::mem::take(&mut self.pending).len() {
            1 => InputEvent::Escape,
            _ => InputEvent::Other,
        }
    }
}

/// Returns the length and the event of the key that begins with ESC, or `None` if the sequence is incomplete.
///
/// A sequence is ESC [ with parameters and a final byte (ECMA-48 §5.4), ESC O with one byte, or ESC with one
/// character for Alt. An ESC that another ESC follows is the ESC key.
fn escape_sequence(bytes: &[u8]) -> Option<(usize, InputEvent)> {
    let length = match bytes.get(1)? {
        &ESCAPE => return Some((1, InputEvent::Escape)),
        b'[' => {
            let parameters = bytes[2..].iter().take_while(|byte| matches!(byte, 0x20..=0x3f));
            3 + parameters.count()
        }
        b'O' => 3,
        0x80.. => bytes.len() - incomplete_bytes(&bytes[1..]),
        _ => 2,
    };
    (length > 1 && length <= bytes.len()).then_some((length, InputEvent::Other))
}

/// Returns the number of bytes at the end that begin an incomplete character.
fn incomplete_bytes(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let cut = last.map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => cut.len(),
        _ => 0,
    }
}

const ESCAPE: u8 = 0x1b;
/// Longest time between an ESC byte and the rest of its sequence. No user types keys faster than this.
const ESCAPE_TIMEOUT: Duration = Duration::from_millis(50);
const CHUNK_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(chunks: &[&[u8]]) -> Vec<InputEvent> {
        let mut keys = Keys::default();
        let mut events = Vec::new();
        for chunk in chunks {
            keys.feed(chunk);
            while let Some(next) = keys.next() {
                events.push(next);
            }
        }
        if keys.is_mid_sequence() {
            events.push(keys.end_sequence());
        }
        events
    }

    fn text(text: &str) -> InputEvent {
        InputEvent::Message(Message::text(text))
    }

    #[test]
    fn a_keystroke_is_a_whole_character() {
        assert_eq!(keys(&[b"a", b"b"]), [text("a"), text("b")]);
        assert_eq!(keys(&["ö".as_bytes(), "🦅".as_bytes()]), [text("ö"), text("🦅")]);
        let eagle = "🦅".as_bytes();
        let pieces: Vec<&[u8]> = eagle.chunks(1).collect();
        assert_eq!(keys(&pieces), [text("🦅")]);
        assert_eq!(keys(&[b"x\xf0\x9f", b"\xa6\x85y"]), [text("x"), text("🦅y")]);
        assert_eq!(keys(&[b"pasted at once"]), [text("pasted at once")]);
        assert_eq!(keys(&[b"\xff\xfea"]), [text("\u{fffd}\u{fffd}a")]);
    }

    #[test]
    fn an_escape_sequence_is_not_the_esc_key() {
        assert_eq!(keys(&[b"\x1b"]), [InputEvent::Escape]);
        assert_eq!(keys(&[b"a\x1b"]), [text("a"), InputEvent::Escape]);
        assert_eq!(keys(&[b"\x1b\x1b"]), [InputEvent::Escape, InputEvent::Escape]);
        for sequence in
            [&b"\x1b[A"[..], b"\x1bOP", b"\x1b[15~", b"\x1b[1;5C", b"\x1bx", b"\x1b\xc3\xb6"]
        {
            assert_eq!(keys(&[sequence, b"z"]), [InputEvent::Other, text("z")], "{sequence:?}");
            let pieces: Vec<&[u8]> = sequence.chunks(1).collect();
            assert_eq!(keys(&pieces), [InputEvent::Other], "{sequence:?} in pieces");
        }
        assert_eq!(keys(&[b"\x1b["]), [InputEvent::Other]);
    }

    #[test]
    fn lines_become_messages_however_the_input_is_split() {
        let input = b"one\r\n\ntwo \xc3\xb6\n\xff\xfe\r\nlast";
        let binary = InputEvent::Message(Message::binary(b"\xff\xfe".to_vec()));
        let expected = [text("one"), text(""), text("two ö"), binary, text("last")];
        for size in 1..input.len() {
            let mut lines = Lines::default();
            let mut events = Vec::new();
            for chunk in input.chunks(size) {
                lines.feed(chunk);
                events.extend(std::iter::from_fn(|| lines.next(false)));
            }
            events.extend(std::iter::from_fn(|| lines.next(true)));
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_error() {
        let mut lines = Lines::default();
        lines.feed(&vec![b'x'; MAX_MESSAGE_BYTES]);
        assert_eq!(lines.next(false), None);
        lines.feed(b"\n");
        assert!(matches!(lines.next(false), Some(InputEvent::Message(_))));
        lines.feed(&vec![b'x'; MAX_MESSAGE_BYTES + 1]);
        assert!(matches!(lines.next(false), Some(InputEvent::Failed(_))));
        assert_eq!(lines.next(true), None);
    }
}
