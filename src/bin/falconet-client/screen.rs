//! Output: messages on stdout, the state of the connection on stderr.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::{self, IsTerminal, Stdout, Write as _};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::protocol::Message;
use falconet::net::{Reactor, Watched};

/// Stdout, which may be slow or closed, and stderr.
pub(crate) struct Screen {
    layout: Layout,
    /// Stdout, or `None` if stdout is always ready.
    watched: Option<Watched<Stdout>>,
    unwritten: Vec<u8>,
    written: usize,
    has_failed: bool,
}

impl Screen {
    /// Prints messages of one character at the cursor if `is_inline` is true and stdout is a terminal.
    pub(crate) fn new(reactor: &Rc<Reactor>, is_inline: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            layout: Layout { is_terminal, is_inline: is_inline && is_terminal, is_mid_line: false },
            watched: Watched::new(reactor, io::stdout()).ok(),
            unwritten: Vec::new(),
            written: 0,
            has_failed: false,
        }
    }

    /// Queues a message for writing. The queue is unbounded: show the next message only after
    /// [`poll_written`](Self::poll_written) is ready.
    pub(crate) fn show(&mut self, message: &Message) {
        if !self.has_failed {
            self.layout.lay_out(message, &mut self.unwritten);
        }
    }

    /// Writes the queued messages and is ready when they are written.
    ///
    /// # Errors
    /// The error of stdout, once. Later messages are discarded.
    pub(crate) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.unwritten.len() {
            if let Some(watched) = &self.watched {
                ready!(watched.poll_writable(cx))?;
            }
            let rest = &self.unwritten[self.written..];
            match rustix::io::write(io::stdout(), &rest[..rest.len().min(WRITE_BYTES)]) {
                Ok(count) => self.written += count,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => {
                    self.has_failed = true;
                    self.clear_written();
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
        self.clear_written();
        Poll::Ready(Ok(()))
    }

    /// Waits until the queued messages are written.
    ///
    /// # Errors
    /// As for [`poll_written`](Self::poll_written).
    pub(crate) async fn written(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_written(cx)).await
    }

    /// Prints a line about the connection on stderr. Errors of stderr are ignored.
    pub(crate) fn print_status(&mut self, text: &str) {
        let line_end = if std::mem::take(&mut self.layout.is_mid_line) { "\n" } else { "" };
        let _ = io::stderr().write_all(format!("{line_end}{text}\n").as_bytes());
    }

    fn clear_written(&mut self) {
        self.unwritten.clear();
        self.unwritten.shrink_to(KEPT_BYTES);
        self.written = 0;
    }
}

/// The layout of messages on stdout.
struct Layout {
    is_terminal: bool,
    is_inline: bool,
    is_mid_line: bool,
}

impl Layout {
    /// Appends a message to `out`. If stdout is not a terminal, that is its bytes and a newline.
    fn lay_out(&mut self, message: &Message, out: &mut Vec<u8>) {
        if !self.is_terminal {
            match message {
                Message::Text(text) => out.extend_from_slice(text.as_bytes()),
                Message::Binary(bytes) => out.extend_from_slice(bytes),
                _ => return,
            }
            return out.push(b'\n');
        }
        let line = match message {
            Message::Text(text) if self.is_inline && text.chars().nth(1).is_none() => {
                return self.lay_out_inline(text, out);
            }
            Message::Text(text) => escaped(text),
            Message::Binary(bytes) => hex(bytes),
            _ => return,
        };
        if std::mem::take(&mut self.is_mid_line) {
            out.push(b'\n');
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }

    /// Appends a text of at most one character, to be printed at the cursor.
    fn lay_out_inline(&mut self, text: &str, out: &mut Vec<u8>) {
        self.is_mid_line = match text {
            "" => self.is_mid_line,
            "\n" => {
                out.push(b'\n');
                false
            }
            text => {
                out.extend_from_slice(escaped(text).as_bytes());
                true
            }
        };
    }
}

/// Escapes all characters that could control a terminal, as in a Rust string: control characters, and
/// characters that change the direction of the text around them.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                out.extend(character.escape_unicode());
            }
            control if control.is_control() => out.extend(control.escape_default()),
            other => out.push(other),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut out = format!("binary, {} bytes:", bytes.len());
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(out, " {byte:02x}");
    }
    out
}

/// The number of bytes that a writable pipe takes without blocking (`PIPE_BUF`).
const WRITE_BYTES: usize = 4096;
const KEPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(layout: &mut Layout, message: impl Into<Message>) -> String {
        let mut out = Vec::new();
        layout.lay_out(&message.into(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_character_is_printed_at_the_cursor_and_a_longer_text_on_its_own_line() {
        let mut layout = Layout { is_terminal: true, is_inline: true, is_mid_line: false };
        for (message, shown) in [
            ("a", "a"),
            ("ö", "ö"),
            ("", ""),
            ("Server time", "\nServer time\n"),
            ("b", "b"),
            ("\n", "\n"),
            ("two", "two\n"),
            ("\x1b", "\\u{1b}"),
            ("\r", "\\r"),
        ] {
            assert_eq!(laid_out(&mut layout, message), shown);
        }
        assert_eq!(laid_out(&mut layout, vec![0_u8, 0x1b, 0xff]), "\nbinary, 3 bytes: 00 1b ff\n");
    }

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        let mut layout = Layout { is_terminal: true, is_inline: false, is_mid_line: false };
        for (message, shown) in [
            ("\x1b]0;evil\x07", "\\u{1b}]0;evil\\u{7}\n"),
            ("a\nb\tc\r", "a\\nb\\tc\\r\n"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}\n"),
            ("\u{202e}live", "\\u{202e}live\n"),
            ("käse \u{1f9c0} 'quoted' \\", "käse \u{1f9c0} 'quoted' \\\n"),
            ("x", "x\n"),
        ] {
            assert_eq!(laid_out(&mut layout, message), shown);
        }
    }

    #[test]
    fn without_a_terminal_a_message_is_its_bytes_and_a_newline() {
        let mut layout = Layout { is_terminal: false, is_inline: false, is_mid_line: false };
        assert_eq!(laid_out(&mut layout, "\x1b[1m\t"), "\x1b[1m\t\n");
        assert_eq!(laid_out(&mut layout, b"\0\x01".to_vec()), "\0\x01\n");
    }
}
