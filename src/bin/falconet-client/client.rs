//! The conversation: connect, talk, say how it ended, and go on or not.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use falconet::net::{Reactor, Timer};
use futures_lite::future;

use crate::backoff::Backoff;
use crate::connection::{Connection, End, Happening};
use crate::handshake;
use crate::input::{Input, Typed};
use crate::interrupts::Interrupts;
use crate::options::Options;
use crate::response::Refusal;
use crate::screen::Screen;

/// A client of one server.
pub(crate) struct Client {
    options: Options,
    reactor: Rc<Reactor>,
    timer: Timer,
    input: Input,
    screen: Screen,
    interrupts: Interrupts,
    backoff: Backoff,
    /// Whether this attempt follows a connection that was lost, or another attempt.
    is_reconnecting: bool,
    /// Whether we closed the last connection.
    has_closed: bool,
    /// Whether nothing is to follow the connection.
    is_leaving: bool,
    /// Whether stdin or stdout failed.
    has_failed: bool,
    is_input_first: bool,
}

/// How an attempt to talk to the server ended.
enum Ending {
    Interrupted,
    Refused(Refusal),
    Over(End),
}

/// What may happen during a conversation.
enum Event {
    Interrupted,
    Typed(Typed),
    OutputFailed(io::Error),
    Connection(Happening),
}

/// What to do when a connection has ended.
enum Next {
    Exit,
    /// Ask the person at the keyboard.
    Ask,
    /// Try again by itself.
    Retry,
}

impl Client {
    /// A client that sends its `input`, and that `interrupts` ask to leave.
    pub(crate) fn new(
        options: Options,
        reactor: Rc<Reactor>,
        input: Input,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            options,
            timer: Timer::new(&reactor),
            screen: Screen::new(&reactor, input.is_terminal()),
            input,
            reactor,
            interrupts,
            backoff: Backoff::default(),
            is_reconnecting: false,
            has_closed: false,
            is_leaving: false,
            has_failed: false,
            is_input_first: false,
        }
    }

    /// Talks to the server until it is over. Says whether it ended as wished.
    pub(crate) async fn run(mut self) -> bool {
        loop {
            let ending = self.attempt().await;
            self.report(&ending);
            let goes_on = match self.next(&ending) {
                Next::Exit => false,
                Next::Ask => self.ask().await,
                Next::Retry => self.wait().await,
            };
            if !goes_on {
                return !self.has_failed && ending.is_as_wished();
            }
        }
    }

    /// Connects and talks.
    async fn attempt(&mut self) -> Ending {
        let opening = handshake::open(&self.options.server, &self.reactor);
        let (transport, early) = match self.interrupts.unless(opening).await {
            None => return Ending::Interrupted,
            Some(Err(refusal)) => return Ending::Refused(refusal),
            Some(Ok(opened)) => opened,
        };
        self.greet();
        if let Some(target) = self.options.next_target.take() {
            self.options.server.url.target = target;
        }
        let mut connection = Connection::begin(transport, early, &self.options).await;
        let end = self.converse(&mut connection).await;
        self.has_closed = connection.is_closing();
        connection.finish(&end).await;
        self.backoff.note_connection(connection.age());
        self.write_out().await;
        Ending::Over(end)
    }

    fn greet(&mut self) {
        let url = &self.options.server.url;
        match (self.input.is_terminal(), std::mem::take(&mut self.is_reconnecting)) {
            (true, _) => self.screen.say(&format!("connected to {url}; ESC closes")),
            (false, true) => self.screen.say(&format!("reconnected to {url}")),
            (false, false) => {}
        }
    }

    async fn converse(&mut self, connection: &mut Connection) -> End {
        let mut events = 0_u32;
        loop {
            match poll_fn(|cx| self.poll_event(connection, cx)).await {
                Event::Interrupted => self.leave(connection).await,
                Event::OutputFailed(error) => {
                    self.note_output_failure(&error);
                    self.leave(connection).await;
                }
                Event::Typed(typed) => self.take(typed, connection).await,
                Event::Connection(Happening::Received(message)) => self.screen.show(&message),
                Event::Connection(Happening::Control) => {}
                Event::Connection(Happening::Over(end)) => return end,
            }
            events = (events + 1) % EVENTS_PER_TURN;
            if events == 0 {
                future::yield_now().await;
            }
        }
    }

    async fn leave(&mut self, connection: &mut Connection) {
        self.is_leaving = true;
        connection.close().await;
    }

    async fn take(&mut self, typed: Typed, connection: &mut Connection) {
        match typed {
            Typed::Message(_) if connection.unsent_bytes() > MAX_TYPED_BYTES => {
                self.screen.say("not sent: the server does not read");
            }
            Typed::Message(message) => connection.send(message).await,
            Typed::Escape => connection.close().await,
            Typed::Other => {}
            Typed::End => self.leave(connection).await,
            Typed::Failed(why) => {
                self.screen.say(&why);
                self.has_failed = true;
                self.leave(connection).await;
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
        // A line waits until the one before it is sent; a person's ESC must not.
        let may_type = !connection.is_closing() && (is_drained || self.input.is_terminal());
        // By turns, so that neither a flood of input nor one of messages shuts out the other.
        self.is_input_first = !self.is_input_first;
        let mut typed = Poll::Pending;
        if may_type && self.is_input_first {
            typed = self.input.poll_next(cx);
        }
        if typed.is_pending()
            && let Poll::Ready(happening) = connection.poll_next(cx, is_written)
        {
            return Poll::Ready(Event::Connection(happening));
        }
        if may_type && !self.is_input_first {
            typed = self.input.poll_next(cx);
        }
        typed.map(Event::Typed)
    }

    /// Writes what is left to write, unless interrupted.
    async fn write_out(&mut self) {
        let interrupted = async {
            self.interrupts.next().await;
            None
        };
        let written = async { Some(self.screen.written().await) };
        match future::or(written, interrupted).await {
            Some(Ok(())) => {}
            Some(Err(error)) => self.note_output_failure(&error),
            None => self.is_leaving = true,
        }
    }

    /// Nobody reading on, as after `| head -1`, is no failure.
    fn note_output_failure(&mut self, error: &io::Error) {
        self.is_leaving = true;
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.screen.say(&format!("can't write to stdout: {error}"));
            self.has_failed = true;
        }
    }

    /// Says why it ended, unless that goes without saying.
    fn report(&mut self, ending: &Ending) {
        match ending {
            Ending::Interrupted => {}
            Ending::Over(End::Answered) if !self.input.is_terminal() => {}
            Ending::Over(end) => self.screen.say(&end.to_string()),
            Ending::Refused(refusal) => self.screen.say(&refusal.to_string()),
        }
    }

    fn next(&self, ending: &Ending) -> Next {
        let is_terminal = self.input.is_terminal();
        let may_pass = match ending {
            Ending::Interrupted => return Next::Exit,
            _ if self.is_leaving => return Next::Exit,
            Ending::Refused(refusal) => {
                !refusal.is_lasting && (!is_terminal || self.is_reconnecting)
            }
            Ending::Over(_) if self.has_closed => false,
            Ending::Over(End::Lost(..)) => true,
            Ending::Over(end) => !end.is_as_wished() && !is_terminal,
        };
        match is_terminal {
            _ if may_pass && self.options.reconnect => Next::Retry,
            true => Next::Ask,
            false => Next::Exit,
        }
    }

    /// Asks whether to reconnect; R says yes, any other key no.
    async fn ask(&mut self) -> bool {
        self.screen.say("R reconnects, any other key exits");
        self.backoff.reset();
        self.is_reconnecting = false;
        let interrupted = async {
            self.interrupts.next().await;
            Typed::End
        };
        is_yes(&future::or(interrupted, poll_fn(|cx| self.input.poll_next(cx))).await)
    }

    /// Waits before the next attempt; says false when that is not to come. In a terminal R makes it
    /// come now, any other key not at all.
    async fn wait(&mut self) -> bool {
        self.is_reconnecting = true;
        let delay = self.backoff.next_delay();
        let keys = if self.input.is_terminal() { "; R does now, any other key exits" } else { "" };
        self.screen.say(&format!("reconnecting in {:.1} s{keys}", delay.as_secs_f64()));
        let slept = async {
            self.timer.sleep(Some(delay)).await;
            true
        };
        // In a pipe the lines wait in it.
        let reads_keys = self.input.is_terminal();
        let typed = async {
            match reads_keys {
                true => is_yes(&poll_fn(|cx| self.input.poll_next(cx)).await),
                false => future::pending().await,
            }
        };
        self.interrupts.unless(future::or(typed, slept)).await.unwrap_or(false)
    }
}

impl Ending {
    fn is_as_wished(&self) -> bool {
        matches!(self, Self::Over(end) if end.is_as_wished())
    }
}

fn is_yes(typed: &Typed) -> bool {
    matches!(typed, Typed::Message(message) if matches!(message.to_text(), Ok("r" | "R")))
}

/// How many events may be dealt with before the sockets are looked at again.
const EVENTS_PER_TURN: u32 = 16;
/// How much of what a person types may wait for a server that does not read; more is not sent.
const MAX_TYPED_BYTES: usize = 64 * 1024;
