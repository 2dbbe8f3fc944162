//! What is shown: messages on stdout, news of the connection on stderr.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::{self, IsTerminal, Stdout, Write as _};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use async_tungstenite::tungstenite::protocol::Message;
use falconet::net::{Reactor, Watched};

/// Stdout, which may be slow or gone, and stderr.
pub(crate) struct Screen {
    page: Page,
    /// Stdout, unless it is always ready.
    watched: Option<Watched<Stdout>>,
    unwritten: Vec<u8>,
    written: usize,
    is_gone: bool,
}

impl Screen {
    /// Shows one-character messages inline if `is_inline` and stdout is a terminal.
    pub(crate) fn new(reactor: &Rc<Reactor>, is_inline: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            page: Page { is_terminal, is_inline: is_inline && is_terminal, is_mid_line: false },
            watched: Watched::new(reactor, io::stdout()).ok(),
            unwritten: Vec::new(),
            written: 0,
            is_gone: false,
        }
    }

    /// Takes a message to be written. Show the next one when this one is: see
    /// [`poll_written`](Self::poll_written).
    pub(crate) fn show(&mut self, message: &Message) {
        if !self.is_gone {
            self.page.lay_out(message, &mut self.unwritten);
        }
    }

    /// Is ready when all that was shown is written; an error is met once, and then nobody reads.
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
                    self.is_gone = true;
                    self.forget_written();
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
        self.forget_written();
        Poll::Ready(Ok(()))
    }

    /// Waits until all that was shown is written.
    pub(crate) async fn written(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_written(cx)).await
    }

    /// Says something about the connection on stderr, whose loss is no loss.
    pub(crate) fn say(&mut self, text: &str) {
        let line_end = if std::mem::take(&mut self.page.is_mid_line) { "\n" } else { "" };
        let _ = io::stderr().write_all(format!("{line_end}{text}\n").as_bytes());
    }

    fn forget_written(&mut self) {
        self.unwritten.clear();
        self.unwritten.shrink_to(KEPT_BYTES);
        self.written = 0;
    }
}

/// How messages are laid out.
struct Page {
    is_terminal: bool,
    is_inline: bool,
    is_mid_line: bool,
}

impl Page {
    /// Elsewhere than on a terminal a message is its bytes and a newline.
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

    /// One character, or none, goes where the cursor is.
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

/// The text without anything that would steer a terminal: control characters, and those that change
/// the direction of the text around them, are written as in a Rust string.
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
        // Writing to a string can't fail.
        let _ = write!(out, " {byte:02x}");
    }
    out
}

/// A pipe that can be written takes this much without blocking (`PIPE_BUF`).
const WRITE_BYTES: usize = 4096;
const KEPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(page: &mut Page, message: impl Into<Message>) -> String {
        let mut out = Vec::new();
        page.lay_out(&message.into(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn c32_one_character_goes_inline_and_more_on_its_own_line() {
        let mut page = Page { is_terminal: true, is_inline: true, is_mid_line: false };
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
            assert_eq!(laid_out(&mut page, message), shown);
        }
        assert_eq!(laid_out(&mut page, vec![0_u8, 0x1b, 0xff]), "\nbinary, 3 bytes: 00 1b ff\n");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let mut page = Page { is_terminal: true, is_inline: false, is_mid_line: false };
        for (message, shown) in [
            ("\x1b]0;evil\x07", "\\u{1b}]0;evil\\u{7}\n"),
            ("a\nb\tc\r", "a\\nb\\tc\\r\n"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}\n"),
            ("\u{202e}live", "\\u{202e}live\n"),
            ("käse \u{1f9c0} 'quoted' \\", "käse \u{1f9c0} 'quoted' \\\n"),
            ("x", "x\n"),
        ] {
            assert_eq!(laid_out(&mut page, message), shown);
        }
    }

    #[test]
    fn elsewhere_a_message_is_its_bytes_and_a_newline() {
        let mut page = Page { is_terminal: false, is_inline: false, is_mid_line: false };
        assert_eq!(laid_out(&mut page, "\x1b[1m\t"), "\x1b[1m\t\n");
        assert_eq!(laid_out(&mut page, b"\0\x01".to_vec()), "\0\x01\n");
    }
}
