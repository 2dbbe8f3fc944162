//! The client of a WebSocket: connects, exchanges messages, reports the end, and reconnects if required.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use falconet::net::{Reactor, Timer};
use futures_lite::future;

use crate::backoff::Backoff;
use crate::connection::{Connection, ConnectionEvent, End};
use crate::handshake;
use crate::input::{Input, InputEvent};
use crate::interrupts::Interrupts;
use crate::options::Options;
use crate::response::Refusal;
use crate::screen::Screen;

/// A WebSocket client of one server.
pub(crate) struct Client {
    options: Options,
    reactor: Rc<Reactor>,
    timer: Timer,
    input: Input,
    screen: Screen,
    interrupts: Interrupts,
    backoff: Backoff,
    /// True if the attempt follows a lost connection or a failed attempt.
    is_reconnecting: bool,
    /// True if the client closed the last connection.
    has_closed: bool,
    /// True if the program exits after this connection.
    is_exiting: bool,
    /// True if stdin or stdout failed.
    has_failed: bool,
    /// True if the input was polled before the connection in the last poll.
    is_input_first: bool,
}

/// The end of an attempt to connect and exchange messages.
enum Ending {
    Interrupted,
    Refused(Refusal),
    Ended(End),
}

/// An event during a connection.
enum Event {
    Interrupted,
    Input(InputEvent),
    OutputFailed(io::Error),
    Connection(ConnectionEvent),
}

/// The action after a connection has ended.
enum Next {
    Exit,
    /// Ask the user whether to reconnect.
    Ask,
    /// Reconnect after a delay.
    Retry(Duration),
}

impl Client {
    /// Creates a client that sends its `input`. `interrupts` make it close the connection and exit.
    pub(crate) fn new(
        options: Options,
        reactor: Rc<Reactor>,
        input: Input,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            timer: Timer::new(&reactor),
            screen: Screen::new(&reactor, input.is_terminal()),
            input,
            reactor,
            interrupts,
            backoff: Backoff::new(options.retries),
            options,
            is_reconnecting: false,
            has_closed: false,
            is_exiting: false,
            has_failed: false,
            is_input_first: false,
        }
    }

    /// Connects, and reconnects, until the program should exit. Returns true on success.
    pub(crate) async fn run(mut self) -> bool {
        loop {
            let ending = self.attempt().await;
            let next = self.next(&ending);
            // Of the failures in a row, only the first and the last are reported.
            if self.reports_all() || !matches!(next, Next::Retry(_)) {
                self.report(&ending);
            }
            let continues = match next {
                Next::Exit => false,
                Next::Ask => self.ask().await,
                Next::Retry(delay) => self.wait(delay).await,
            };
            if !continues {
                return !self.has_failed && ending.is_success();
            }
        }
    }

    /// Connects once and exchanges messages until the connection ends.
    async fn attempt(&mut self) -> Ending {
        let opening = handshake::open(&self.options.server, &self.reactor);
        let (transport, early) = match self.interrupts.unless_interrupted(opening).await {
            None => return Ending::Interrupted,
            Some(Err(refusal)) => return Ending::Refused(refusal),
            Some(Ok(opened)) => opened,
        };
        self.report_connected();
        if let Some(target) = self.options.next_target.take() {
            self.options.server.url.target = target;
        }
        let mut connection = Connection::begin(transport, early, &self.options).await;
        let end = self.exchange(&mut connection).await;
        self.has_closed = connection.is_closing();
        connection.finish(&end).await;
        self.backoff.note_connection(connection.age());
        self.write_out().await;
        Ending::Ended(end)
    }

    fn report_connected(&mut self) {
        let url = &self.options.server.url;
        match (self.input.is_terminal(), std::mem::take(&mut self.is_reconnecting)) {
            (true, _) => self.screen.print_status(&format!("connected to {url}; ESC closes")),
            (false, true) => self.screen.print_status(&format!("reconnected to {url}")),
            (false, false) => {}
        }
    }

    async fn exchange(&mut self, connection: &mut Connection) -> End {
        let mut events = 0_u32;
        loop {
            match poll_fn(|cx| self.poll_event(connection, cx)).await {
                Event::Interrupted => self.close_and_exit(connection).await,
                Event::OutputFailed(error) => {
                    self.note_output_failure(&error);
                    self.close_and_exit(connection).await;
                }
                Event::Input(input) => self.apply_input(input, connection).await,
                Event::Connection(ConnectionEvent::Received(message)) => self.screen.show(&message),
                Event::Connection(ConnectionEvent::Control) => {}
                Event::Connection(ConnectionEvent::Ended(end)) => return end,
            }
            events = (events + 1) % EVENTS_PER_TURN;
            if events == 0 {
                future::yield_now().await;
            }
        }
    }

    async fn close_and_exit(&mut self, connection: &mut Connection) {
        self.is_exiting = true;
        connection.close().await;
    }

    async fn apply_input(&mut self, input: InputEvent, connection: &mut Connection) {
        match input {
            InputEvent::Message(_) if connection.unsent_bytes() > MAX_TYPED_BYTES => {
                self.screen.print_status("not sent: the server is not reading");
            }
            InputEvent::Message(message) => connection.send(message).await,
            InputEvent::Escape => connection.close().await,
            InputEvent::Other => {}
            InputEvent::End => self.close_and_exit(connection).await,
            InputEvent::Failed(reason) => {
                self.screen.print_status(&reason);
                self.has_failed = true;
                self.close_and_exit(connection).await;
            }
        }
    }

    fn poll_event(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<Event> {
        if self.interrupts.poll_next(cx).is_ready() {
            return Poll::Ready(Event::Interrupted);
        }
        let is_written = match self.screen.poll_written(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Event::OutputFailed(error)),
            written => written.is_ready(),
        };
        let is_drained = connection.poll_drained(cx).is_ready();
        // A line waits until the previous one is sent. Keys do not wait, because ESC must work at any time.
        let may_type = !connection.is_closing() && (is_drained || self.input.is_terminal());
        // Input and connection are polled first in turns, so that neither starves the other.
        self.is_input_first = !self.is_input_first;
        let mut input = Poll::Pending;
        if may_type && self.is_input_first {
            input = self.input.poll_next(cx);
        }
        if input.is_pending()
            && let Poll::Ready(event) = connection.poll_next(cx, is_written)
        {
            return Poll::Ready(Event::Connection(event));
        }
        if may_type && !self.is_input_first {
            input = self.input.poll_next(cx);
        }
        input.map(Event::Input)
    }

    /// Writes the queued messages, unless interrupted.
    async fn write_out(&mut self) {
        let interrupted = async {
            self.interrupts.next().await;
            None
        };
        let written = async { Some(self.screen.written().await) };
        match future::or(written, interrupted).await {
            Some(Ok(())) => {}
            Some(Err(error)) => self.note_output_failure(&error),
            None => self.is_exiting = true,
        }
    }

    /// Exits after an error of stdout. A closed pipe, as after `| head -1`, is not a failure.
    fn note_output_failure(&mut self, error: &io::Error) {
        self.is_exiting = true;
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.screen.print_status(&format!("can't write to stdout: {error}"));
            self.has_failed = true;
        }
    }

    /// Returns true if a failed attempt and the delay after it are reported: always in a terminal, and otherwise
    /// only if the attempt before did not fail.
    fn reports_all(&self) -> bool {
        self.input.is_terminal() || !self.is_reconnecting
    }

    /// Prints how an attempt ended, unless the end is normal and not in a terminal.
    fn report(&mut self, ending: &Ending) {
        match ending {
            Ending::Interrupted => {}
            Ending::Ended(End::Answered) if !self.input.is_terminal() => {}
            Ending::Ended(end) => self.screen.print_status(&end.to_string()),
            Ending::Refused(refusal) => self.screen.print_status(&refusal.to_string()),
        }
    }

    fn next(&mut self, ending: &Ending) -> Next {
        let is_terminal = self.input.is_terminal();
        let mut minimum = Duration::ZERO;
        let may_retry = match ending {
            Ending::Interrupted => return Next::Exit,
            _ if self.is_exiting => return Next::Exit,
            Ending::Refused(refusal) => {
                minimum = refusal.retry_after;
                !refusal.is_permanent && (!is_terminal || self.is_reconnecting)
            }
            Ending::Ended(_) if self.has_closed => false,
            Ending::Ended(End::Lost(..)) => true,
            Ending::Ended(end) => !end.is_success() && !is_terminal,
        };
        if may_retry && let Some(delay) = self.backoff.next_delay(minimum) {
            return Next::Retry(delay);
        }
        if is_terminal { Next::Ask } else { Next::Exit }
    }

    /// Asks whether to reconnect. Returns true for R and false for any other key.
    async fn ask(&mut self) -> bool {
        self.screen.print_status("R reconnects, any other key exits");
        self.backoff.reset();
        self.is_reconnecting = false;
        let interrupted = async {
            self.interrupts.next().await;
            InputEvent::End
        };
        is_reconnect_key(&future::or(interrupted, poll_fn(|cx| self.input.poll_next(cx))).await)
    }

    /// Waits before the next attempt. Returns false if interrupted. In a terminal, R ends the wait, and any
    /// other key returns false.
    async fn wait(&mut self, delay: Duration) -> bool {
        let keys =
            if self.input.is_terminal() { "; R reconnects now, any other key exits" } else { "" };
        if self.reports_all() {
            let delay = delay.as_secs_f64();
            self.screen.print_status(&format!("reconnecting in {delay:.1} s{keys}"));
        }
        self.is_reconnecting = true;
        let slept = async {
            self.timer.sleep(Some(delay)).await;
            true
        };
        // Lines of a pipe are not read before they can be sent.
        let reads_keys = self.input.is_terminal();
        let input = async {
            match reads_keys {
                true => is_reconnect_key(&poll_fn(|cx| self.input.poll_next(cx)).await),
                false => future::pending().await,
            }
        };
        self.interrupts.unless_interrupted(future::or(input, slept)).await.unwrap_or(false)
    }
}

impl Ending {
    fn is_success(&self) -> bool {
        matches!(self, Self::Ended(end) if end.is_success())
    }
}

fn is_reconnect_key(input: &InputEvent) -> bool {
    matches!(input, InputEvent::Message(message) if matches!(message.to_text(), Ok("r" | "R")))
}

/// The number of events after which the client yields, so that the reactor polls the sockets again.
const EVENTS_PER_TURN: u32 = 16;
/// The limit on unsent bytes above which keystrokes are dropped with a message.
const MAX_TYPED_BYTES: usize = 64 * 1024;
