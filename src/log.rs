//! The logger, which writes lines to stderr and never blocks the server.
//!
//! A line is one write, made only if stderr is writable; lines that can't be written are counted. Bytes from
//! peers are escaped. At most ten lines per second are written for one target and level.

use std::fmt::Write;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::kv::{self, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::counters::ProcessErrors;
use crate::escaped::Escaped;
use crate::services::LocalClock;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, message and fields, for reading on a terminal.
    #[default]
    Text,
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// Installs the logger of the process: it writes the log lines of falconet, and every panic, to stderr.
///
/// Lines of other crates are not written, because some log every frame. The values of fields must be
/// strings or integers. Under systemd (if `JOURNAL_STREAM` is set), lines in the format
/// [`LogFormat::Text`] begin with a priority (sd-daemon(3)) instead of the time, which the journal adds.
///
/// Returns the counters of panics and of lines that were suppressed or could not be written.
///
/// # Panics
/// If the process already has a logger.
pub fn install(level: LevelFilter, format: LogFormat) -> ProcessErrors {
    let process_errors = ProcessErrors::default();
    let logger = StderrLogger {
        format,
        journal: std::env::var_os("JOURNAL_STREAM").is_some(),
        clock: LocalClock::new(),
        state: Mutex::default(),
        process_errors: process_errors.clone(),
    };
    log::set_boxed_logger(Box::new(logger)).expect("install is called once, first in main");
    log::set_max_level(level);
    // A build that aborts on a panic keeps the standard hook.
    if cfg!(panic = "unwind") {
        let panics = process_errors.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let count = panics.panicked();
            log::error!(target: "falconet::panic", count; "{panic}");
        }));
    }
    process_errors
}

struct StderrLogger {
    format: LogFormat,
    journal: bool,
    clock: LocalClock,
    state: Mutex<State>,
    process_errors: ProcessErrors,
}

#[derive(Default)]
struct State {
    /// One class for each target and level logged so far: a few dozen at most.
    classes: Vec<Class>,
    /// Lines that could not be written since the last line that was written.
    lines_lost: u64,
}

/// The rate limit of all lines with the same target and level.
struct Class {
    target: String,
    level: Level,
    /// The start of the current second.
    second: Instant,
    /// Lines written in the current second.
    lines: u32,
    /// Lines suppressed since the last line that was written.
    suppressed: u64,
}

impl Log for StderrLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("falconet")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // The lock is released before values are formatted, because formatting may log or panic.
        let mut state = self.state();
        let Some(suppressed) = state.admit(record, Instant::now()) else {
            self.process_errors.dropped_line();
            return;
        };
        let lines_lost = std::mem::take(&mut state.lines_lost);
        drop(state);
        let line = self.line(record.level(), &Fields::of(record, suppressed, lines_lost));
        if !write_line(rustix::stdio::stderr(), line.as_bytes()) {
            self.process_errors.dropped_line();
            self.state().lines_lost += 1 + lines_lost;
        }
    }

    fn flush(&self) {}
}

impl StderrLogger {
    fn state(&self) -> MutexGuard<'_, State> {
        // The counts are valid even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Admits a line and returns the number of lines of its class suppressed before it. If the line exceeds
    /// the rate, counts it as suppressed and returns `None`.
    fn admit(&mut self, record: &Record<'_>, now: Instant) -> Option<u64> {
        let (target, level) = (record.target(), record.level());
        let is_same = |class: &Class| class.level == level && class.target == target;
        let index = self.classes.iter().position(is_same).unwrap_or_else(|| {
            let target = target.to_owned();
            self.classes.push(Class { target, level, second: now, lines: 0, suppressed: 0 });
            self.classes.len() - 1
        });
        let class = &mut self.classes[index];
        if now.saturating_duration_since(class.second) >= Duration::from_secs(1) {
            (class.second, class.lines) = (now, 0);
        }
        if class.lines == LINES_PER_SECOND {
            class.suppressed += 1;
            return None;
        }
        class.lines += 1;
        Some(std::mem::take(&mut class.suppressed))
    }
}

/// The message and fields of a line, as unescaped text.
struct Fields {
    message: String,
    pairs: Vec<(String, String)>,
}

impl Fields {
    fn of(record: &Record<'_>, suppressed: u64, lines_lost: u64) -> Self {
        let mut pairs = Pairs(Vec::new());
        // Collecting into a Vec can't fail.
        let _ = record.key_values().visit(&mut pairs);
        for (key, count) in [("suppressed", suppressed), ("lines_lost", lines_lost)] {
            if count > 0 {
                pairs.0.push((key.to_owned(), count.to_string()));
            }
        }
        Self { message: shorten(record.args().to_string()), pairs: pairs.0 }
    }
}

struct Pairs(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        // `value.to_string()` would add the formatting of floating-point numbers to the binary.
        let text = value.to_borrowed_str().map(str::to_owned);
        let text = text.or_else(|| value.to_u64().map(|number| number.to_string()));
        self.0.push((key.to_string(), shorten(text.unwrap_or_else(|| "?".to_owned()))));
        Ok(())
    }
}

impl StderrLogger {
    fn line(&self, level: Level, fields: &Fields) -> String {
        let mut line = String::with_capacity(128);
        let time = self.clock.now();
        let level_name = level.as_str().to_ascii_lowercase();
        // Writing to a String can't fail.
        let _ = match self.format {
            LogFormat::Text if self.journal => write!(line, "<{}>", priority(level)),
            LogFormat::Text => write!(line, "{time:.3} {level_name:5} "),
            LogFormat::Logfmt => write!(line, "time={time:.3} level={level_name} message="),
            LogFormat::Json => {
                write!(line, r#"{{"time":"{time:.3}","level":"{level_name}","message":"#)
            }
        };
        match self.format {
            LogFormat::Text => push_escaped(&mut line, &fields.message),
            LogFormat::Logfmt => push_quoted(&mut line, &fields.message),
            LogFormat::Json => push_json(&mut line, &fields.message),
        }
        for (key, value) in &fields.pairs {
            if self.format == LogFormat::Json {
                let _ = write!(line, r#","{key}":"#);
                push_json(&mut line, value);
            } else {
                let _ = write!(line, " {key}=");
                push_quoted(&mut line, value);
            }
        }
        line.push_str(if self.format == LogFormat::Json { "}\n" } else { "\n" });
        line
    }
}

/// Returns the priority of a level (syslog(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Cuts a text that is longer than [`MAX_VALUE_BYTES`].
fn shorten(mut text: String) -> String {
    if text.len() > MAX_VALUE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_VALUE_BYTES));
        text.push_str("...");
    }
    text
}

fn push_escaped(line: &mut String, text: &str) {
    let _ = write!(line, "{}", Escaped(text));
}

/// Appends `text`, in quotes if it is not a single unambiguous word.
fn push_quoted(line: &mut String, text: &str) {
    if !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"=\\".contains(&byte))
    {
        line.push_str(text);
        return;
    }
    line.push('"');
    for part in text.split_inclusive('"') {
        push_escaped(line, part.strip_suffix('"').unwrap_or(part));
        line.push_str(if part.ends_with('"') { "\\\"" } else { "" });
    }
    line.push('"');
}

fn push_json(line: &mut String, text: &str) {
    line.push('"');
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ (b'"' | b'\\')) => line.extend(['\\', char::from(byte)]),
            Ok(byte @ b' '..=b'~') => line.push(char::from(byte)),
            // RFC 8259 §7.
            _ => drop(write!(line, "\\u{unit:04x}")),
        }
    }
    line.push('"');
}

/// Writes a line if stderr is writable without blocking. Returns true if the line was written.
fn write_line(stderr: BorrowedFd<'_>, line: &[u8]) -> bool {
    let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
    let ready = poll(&mut writable, Some(&Timespec::default())).is_ok_and(|count| count == 1)
        && writable[0].revents().contains(PollFlags::OUT);
    // A pipe that is reported as writable has room for a page, and writes of up to that size are atomic
    // (pipe(7)).
    ready && rustix::io::write(stderr, &line[..line.len().min(MAX_LINE_BYTES)]).is_ok()
}

/// The maximum number of lines written per second for one target and level. Further lines are counted.
const LINES_PER_SECOND: u32 = 10;
const MAX_VALUE_BYTES: usize = 256;
const MAX_LINE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, message: &str, pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let fields = Fields { message: shorten(message.into()), pairs };
        let clock = LocalClock::new();
        let (state, process_errors) = (Mutex::default(), ProcessErrors::default());
        let logger = StderrLogger { format, journal: true, clock, state, process_errors };
        logger.line(Level::Warn, &fields)
    }

    #[test]
    fn untrusted_bytes_are_escaped_in_every_format() {
        let evil = "a\"b\\c\n\x1b[31m\u{e9}\u{1f600}";
        let text = line(LogFormat::Text, evil, &[("path", evil)]);
        assert_eq!(
            text,
            "<4>a\"b\\\\c\\n\\u{1b}[31m\\u{e9}\\u{1f600} \
             path=\"a\\\"b\\\\c\\n\\u{1b}[31m\\u{e9}\\u{1f600}\"\n"
        );
        let json = line(LogFormat::Json, evil, &[]);
        assert!(json.ends_with(
            r#""message":"a\"b\\c\u000a\u001b[31m\u00e9\ud83d\ude00"}
"#
        ));
        assert!(
            line(LogFormat::Logfmt, "two words", &[("k", "")])
                .ends_with("message=\"two words\" k=\"\"\n")
        );
    }

    #[test]
    fn long_values_are_truncated() {
        let text = line(LogFormat::Text, &"x".repeat(1000), &[]);
        assert_eq!(text.len(), "<4>".len() + MAX_VALUE_BYTES + "...\n".len());
    }

    #[test]
    fn at_most_ten_lines_per_second_are_admitted_for_a_target_and_level() {
        let mut state = State::default();
        let start = Instant::now();
        let noise = Record::builder().target("noise").level(Level::Info).build();
        let other = Record::builder().target("other").level(Level::Info).build();
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(state.admit(&noise, start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(state.admit(&noise, start), None);
        }
        assert_eq!(state.admit(&other, start), Some(0));
        assert_eq!(state.admit(&noise, start + Duration::from_secs(1)), Some(7));
    }
}
