//! Subscribing to a topic over server-sent events.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::Message;
use base64ct::{Base64, Encoding};
use falconet::cli::show_time;
use falconet::net::{Reactor, Timer, Transport};

use crate::backoff::Backoff;
use crate::http::HttpConnection;
use crate::interrupts::Interrupts;
use crate::options::Options;
use crate::response::Refusal;
use crate::screen::Screen;
use crate::sse::{Event, Parser};

/// A subscriber of one topic, who goes on after the last event seen when a connection is lost.
pub(crate) struct Follower {
    options: Options,
    reactor: Rc<Reactor>,
    timer: Timer,
    screen: Screen,
    interrupts: Interrupts,
    backoff: Backoff,
    /// The id of the last event seen; empty before there is one.
    last_id: String,
    is_reconnecting: bool,
}

/// How an attempt to follow the topic ended.
enum Ending {
    /// Asked to leave before there was a connection.
    Interrupted,
    /// Asked to leave.
    Left,
    Refused(Refusal),
    Lost(String),
    OutputFailed(io::Error),
}

impl Follower {
    /// A subscriber that `interrupts` ask to leave.
    pub(crate) fn new(options: Options, reactor: Rc<Reactor>, interrupts: Interrupts) -> Self {
        Self {
            options,
            timer: Timer::new(&reactor),
            screen: Screen::new(&reactor, false),
            reactor,
            interrupts,
            backoff: Backoff::default(),
            last_id: String::new(),
            is_reconnecting: false,
        }
    }

    /// Prints messages until it is over. Says whether it ended as wished.
    pub(crate) async fn run(mut self) -> bool {
        loop {
            let ending = self.attempt().await;
            if let Some(news) = ending.news() {
                self.screen.say(&news);
            }
            let goes_on = self.options.reconnect && ending.may_pass() && self.wait().await;
            if !goes_on {
                return ending.is_as_wished();
            }
        }
    }

    /// Connects and follows.
    async fn attempt(&mut self) -> Ending {
        let opening = EventStream::open(&self.options, &self.last_id, &self.reactor);
        let mut stream = match self.interrupts.unless(opening).await {
            None => return Ending::Interrupted,
            Some(Err(refusal)) => return Ending::Refused(refusal),
            Some(Ok(stream)) => stream,
        };
        if std::mem::take(&mut self.is_reconnecting) {
            self.screen.say(&format!("reconnected to {}", self.options.server.url));
        }
        if let Some(target) = self.options.next_target.take() {
            self.options.server.url.target = target;
        }
        let opened = self.timer.now();
        let ending = self.follow(&mut stream).await;
        self.last_id = stream.parser.last_id();
        self.backoff.note_connection(self.timer.now() - opened);
        ending
    }

    async fn follow(&mut self, stream: &mut EventStream) -> Ending {
        loop {
            let next = self.interrupts.unless(stream.next()).await;
            let shown = match next {
                None => return Ending::Left,
                Some(Ok(event)) => self.show(event),
                Some(Err(why)) => Err(why),
            };
            if let Err(why) = shown {
                return Ending::Lost(why);
            }
            match self.interrupts.unless(self.screen.written()).await {
                None => return Ending::Left,
                Some(Err(error)) => return Ending::OutputFailed(error),
                Some(Ok(())) => {}
            }
        }
    }

    /// Shows an event of a kind that is known.
    fn show(&mut self, event: Event) -> Result<(), String> {
        match event.name.as_str() {
            "" | "message" => self.screen.show(&Message::text(event.data)),
            "binary" => {
                let bytes = Base64::decode_vec(&event.data)
                    .map_err(|_| broken("a binary event is not base64"))?;
                self.screen.show(&Message::binary(bytes));
            }
            "lagged" => {
                let lost: u64 =
                    event.data.parse().map_err(|_| broken("it does not say how many were lost"))?;
                self.screen.say(&format!("falconet-client: lost {lost} messages"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits before the next attempt; says false when that is not to come.
    async fn wait(&mut self) -> bool {
        self.is_reconnecting = true;
        let delay = self.backoff.next_delay();
        self.screen.say(&format!("reconnecting in {:.1} s", delay.as_secs_f64()));
        self.interrupts.unless(self.timer.sleep(Some(delay))).await.is_some()
    }
}

impl Ending {
    /// What is to be said of it, unless that goes without saying.
    fn news(&self) -> Option<String> {
        match self {
            Self::Interrupted | Self::Left => None,
            Self::Refused(refusal) => Some(refusal.to_string()),
            Self::Lost(why) => Some(format!("lost: {why}")),
            Self::OutputFailed(_) if self.is_as_wished() => None,
            Self::OutputFailed(error) => Some(format!("can't write to stdout: {error}")),
        }
    }

    fn is_as_wished(&self) -> bool {
        match self {
            Self::Left => true,
            // Nobody reading on, as after `| head -1`, is no failure.
            Self::OutputFailed(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Interrupted | Self::Refused(_) | Self::Lost(_) => false,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Refused(refusal) => !refusal.is_lasting,
            Self::Interrupted | Self::Left | Self::OutputFailed(_) => false,
        }
    }
}

/// One response of events without end.
struct EventStream {
    transport: Transport,
    parser: Parser,
    received: Vec<u8>,
    parsed: usize,
    idle_timeout: Option<Duration>,
}

impl EventStream {
    /// Connects to the server and asks for the events after the one with `last_id`, if not empty.
    async fn open(
        Options { server, idle_timeout, .. }: &Options,
        last_id: &str,
        reactor: &Rc<Reactor>,
    ) -> Result<Self, Refusal> {
        let fields = [("Accept", EVENT_STREAM), ("Last-Event-ID", last_id)];
        let fields = if last_id.is_empty() { &fields[..1] } else { &fields };
        let mut connection = HttpConnection::open(server, reactor).await?;
        let response = connection.request("GET", server, fields, b"").await?;
        if response.code != 200 {
            let body = connection.body(&response).await;
            return Err(Refusal::declined(&response, &body, server.token.as_ref()));
        }
        let kind = response.single("content-type").and_then(|kind| kind.split(';').next());
        if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(EVENT_STREAM)) {
            return Err(Refusal::lasting(format!("the response is not {EVENT_STREAM}")));
        }
        if response.has("transfer-encoding") {
            return Err(Refusal::lasting("the response has a Transfer-Encoding"));
        }
        // Where it begins, so that also who has seen no event yet comes back to that.
        let begin = response.single("x-sequence").filter(|_| last_id.is_empty());
        let parser = Parser::after(begin.unwrap_or(last_id));
        let (transport, received) = connection.into_parts();
        Ok(Self { transport, parser, received, parsed: 0, idle_timeout: *idle_timeout })
    }

    /// The next event, or how the connection was lost.
    ///
    /// # Cancel safety
    /// Dropped early, it loses nothing.
    async fn next(&mut self) -> Result<Event, String> {
        loop {
            let mut rest = &self.received[self.parsed..];
            let event = self.parser.next(&mut rest);
            self.parsed = self.received.len() - rest.len();
            match event {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => self.receive().await?,
                Err(too_long) => return Err(broken(&too_long.to_string())),
            }
        }
    }

    async fn receive(&mut self) -> Result<(), String> {
        let Self { transport, received, .. } = self;
        received.clear();
        self.parsed = 0;
        let receiving =
            poll_fn(|cx| transport.poll_recv_with(cx, |bytes| received.extend_from_slice(bytes)));
        let timer = transport.timer();
        match timer.until(timer.sleep(self.idle_timeout), receiving).await {
            None => {
                let limit = self.idle_timeout.unwrap_or_default();
                Err(format!("nothing heard from the server for {}", show_time(Some(limit))))
            }
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(())) if self.received.is_empty() => Err("the server hung up".to_owned()),
            Some(Ok(())) => Ok(()),
        }
    }
}

fn broken(rule: &str) -> String {
    format!("the server broke the rules: {rule}")
}

const EVENT_STREAM: &str = "text/event-stream";
