//! Subscribing to a topic by server-sent events.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::Message;
use base64ct::{Base64, Encoding};
use falconet::cli::show_time;
use falconet::net::{Reactor, Timer, Transport};

use crate::backoff::Backoff;
use crate::chunks::Chunks;
use crate::http::HttpConnection;
use crate::interrupts::Interrupts;
use crate::options::Options;
use crate::response::{MAX_RETRY_AFTER, Refusal};
use crate::screen::Screen;
use crate::sse::{Event, Parser};

/// A subscriber of one topic. After a lost connection it resumes after the last event received.
pub(crate) struct Follower {
    options: Options,
    reactor: Rc<Reactor>,
    timer: Timer,
    screen: Screen,
    interrupts: Interrupts,
    backoff: Backoff,
    /// The id of the last event received; empty before the first event.
    last_id: String,
    /// The reconnection time of the last stream that has set one; zero before that.
    retry: Duration,
    /// True if the attempt follows a lost connection or a failed attempt.
    is_reconnecting: bool,
}

/// The end of an attempt to connect and receive events.
enum Ending {
    /// Interrupted before the connection was open.
    Interrupted,
    /// Interrupted while the connection was open.
    Closed,
    Refused(Refusal),
    Lost(String),
    OutputFailed(io::Error),
}

impl Follower {
    /// Creates a subscriber. `interrupts` make it close the connection and exit.
    pub(crate) fn new(options: Options, reactor: Rc<Reactor>, interrupts: Interrupts) -> Self {
        Self {
            timer: Timer::new(&reactor),
            screen: Screen::new(&reactor, false),
            reactor,
            interrupts,
            backoff: Backoff::new(options.retries),
            options,
            last_id: String::new(),
            retry: Duration::ZERO,
            is_reconnecting: false,
        }
    }

    /// Connects, and reconnects, and prints messages until the program should exit. Returns true on success.
    pub(crate) async fn run(mut self) -> bool {
        loop {
            let ending = self.attempt().await;
            let retry_after = ending.retry_after();
            let delay =
                retry_after.and_then(|minimum| self.backoff.next_delay(minimum.max(self.retry)));
            // Of the failures in a row, only the first and the last are reported.
            let is_repeated = self.is_reconnecting && delay.is_some();
            if let Some(text) = ending.report().filter(|_| !is_repeated) {
                self.screen.print_status(&text);
            }
            let continues = match delay {
                Some(delay) => self.wait(delay).await,
                None => false,
            };
            if !continues {
                return ending.is_success();
            }
        }
    }

    /// Connects once and receives events until the connection ends.
    async fn attempt(&mut self) -> Ending {
        let opening = EventStream::open(&self.options, &self.last_id, &self.reactor);
        let mut stream = match self.interrupts.unless_interrupted(opening).await {
            None => return Ending::Interrupted,
            Some(Err(refusal)) => return Ending::Refused(refusal),
            Some(Ok(stream)) => stream,
        };
        if std::mem::take(&mut self.is_reconnecting) {
            self.screen.print_status(&format!("reconnected to {}", self.options.server.url));
        }
        if let Some(target) = self.options.next_target.take() {
            self.options.server.url.target = target;
        }
        let opened = self.timer.now();
        let ending = self.follow(&mut stream).await;
        self.last_id = stream.parser.last_id();
        self.retry = stream.parser.retry().map_or(self.retry, |retry| retry.min(MAX_RETRY_AFTER));
        self.backoff.note_connection(self.timer.now() - opened);
        ending
    }

    async fn follow(&mut self, stream: &mut EventStream) -> Ending {
        loop {
            let next = self.interrupts.unless_interrupted(stream.next()).await;
            let shown = match next {
                None => return Ending::Closed,
                Some(Ok(event)) => self.show(event),
                Some(Err(reason)) => Err(reason),
            };
            if let Err(reason) = shown {
                return Ending::Lost(reason);
            }
            match self.interrupts.unless_interrupted(self.screen.written()).await {
                None => return Ending::Closed,
                Some(Err(error)) => return Ending::OutputFailed(error),
                Some(Ok(())) => {}
            }
        }
    }

    /// Shows an event. Events of unknown types are ignored.
    fn show(&mut self, event: Event) -> Result<(), String> {
        match event.name.as_str() {
            "" | "message" => self.screen.show(&Message::text(event.data)),
            "binary" => {
                let bytes = Base64::decode_vec(&event.data)
                    .map_err(|_| violation("a binary event is not base64"))?;
                self.screen.show(&Message::binary(bytes));
            }
            "lagged" => {
                let lost = match &*event.data {
                    "unknown" => "an unknown number of".to_owned(),
                    count => count
                        .parse::<u64>()
                        .map_err(|_| violation("a lagged event has no valid count"))?
                        .to_string(),
                };
                self.screen.print_status(&format!("falconet-client: lost {lost} messages"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits before the next attempt. Returns false if interrupted.
    async fn wait(&mut self, delay: Duration) -> bool {
        if !std::mem::replace(&mut self.is_reconnecting, true) {
            self.screen.print_status(&format!("reconnecting in {:.1} s", delay.as_secs_f64()));
        }
        self.interrupts.unless_interrupted(self.timer.sleep(Some(delay))).await.is_some()
    }
}

impl Ending {
    /// Returns the text to print about this end; `None` if the end is normal.
    fn report(&self) -> Option<String> {
        match self {
            Self::Interrupted | Self::Closed => None,
            Self::Refused(refusal) => Some(refusal.to_string()),
            Self::Lost(reason) => Some(format!("lost: {reason}")),
            Self::OutputFailed(_) if self.is_success() => None,
            Self::OutputFailed(error) => Some(format!("can't write to stdout: {error}")),
        }
    }

    fn is_success(&self) -> bool {
        match self {
            Self::Closed => true,
            // A closed pipe, as after `| head -1`, is not a failure.
            Self::OutputFailed(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Interrupted | Self::Refused(_) | Self::Lost(_) => false,
        }
    }

    /// Returns the shortest delay before another attempt, or `None` if no attempt can succeed.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Lost(_) => Some(Duration::ZERO),
            Self::Refused(refusal) => (!refusal.is_permanent).then_some(refusal.retry_after),
            Self::Interrupted | Self::Closed | Self::OutputFailed(_) => None,
        }
    }
}

/// The response to a subscription: a stream of events without an end.
struct EventStream {
    transport: Transport,
    /// The decoder of a chunked stream. A stream without it ends with the connection.
    chunks: Option<Chunks>,
    parser: Parser,
    /// The last bytes of the stream that were received, decoded.
    received: Vec<u8>,
    /// The number of bytes in `received` that the parser has consumed.
    parsed: usize,
    idle_timeout: Option<Duration>,
}

impl EventStream {
    /// Connects to the server and requests the events after the one with `last_id`, or new events if
    /// `last_id` is empty.
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
            return Err(Refusal::from_response(&response, &body, server.token.as_ref()));
        }
        let kind = response.single("content-type").and_then(|kind| kind.split(';').next());
        if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(EVENT_STREAM)) {
            return Err(Refusal::permanent(format!("the response is not {EVENT_STREAM}")));
        }
        if response.body_bytes().is_some() {
            // A stream that has ended already. The server says the reason in a comment, because a status other
            // than 200 would end an EventSource for good.
            let body = connection.body(&response).await;
            let mut refusal = Refusal::from_ended_stream(&body, server.token.as_ref());
            refusal.retry_after = reconnection_time(&body);
            return Err(refusal);
        }
        let chunks = match response.single("transfer-encoding") {
            Some(coding) if coding.eq_ignore_ascii_case("chunked") => Some(Chunks::default()),
            None if !response.has("transfer-encoding") => None,
            _ => return Err(Refusal::permanent("the response has an unknown Transfer-Encoding")),
        };
        // The position at which the stream begins. Without this position, a subscriber that has received no
        // event yet would miss the events published during a reconnect.
        let begin = response.single("last-event-id").filter(|_| last_id.is_empty());
        let parser = Parser::after(begin.unwrap_or(last_id));
        let (transport, received) = connection.into_parts();
        let idle_timeout = *idle_timeout;
        let mut stream = Self { transport, chunks, parser, received, parsed: 0, idle_timeout };
        stream.decode().map_err(Refusal::permanent)?;
        Ok(stream)
    }

    /// Returns the next event.
    ///
    /// # Errors
    /// The reason why the connection was lost.
    ///
    /// # Cancel safety
    /// If the future is dropped early, no event is lost.
    async fn next(&mut self) -> Result<Event, String> {
        loop {
            let mut rest = &self.received[self.parsed..];
            let event = self.parser.next(&mut rest);
            self.parsed = self.received.len() - rest.len();
            match event {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => self.receive().await?,
                Err(too_long) => return Err(violation(&too_long.to_string())),
            }
        }
    }

    async fn receive(&mut self) -> Result<(), String> {
        if self.chunks.as_ref().is_some_and(Chunks::has_ended) {
            return Err("the server ended the stream".to_owned());
        }
        let Self { transport, received, .. } = self;
        received.clear();
        self.parsed = 0;
        let receiving =
            poll_fn(|cx| transport.poll_recv_with(cx, |bytes| received.extend_from_slice(bytes)));
        let timer = transport.timer();
        match timer.until(timer.sleep(self.idle_timeout), receiving).await {
            None => {
                let limit = self.idle_timeout.unwrap_or_default();
                Err(format!("nothing received from the server for {}", show_time(Some(limit))))
            }
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(())) if self.received.is_empty() => {
                Err("the server closed the connection".to_owned())
            }
            Some(Ok(())) => self.decode(),
        }
    }

    /// Decodes the bytes that were just received.
    fn decode(&mut self) -> Result<(), String> {
        match &mut self.chunks {
            Some(chunks) => chunks.decode(&mut self.received).map_err(violation),
            None => Ok(()),
        }
    }
}

/// Returns the reconnection time that an ended stream has set; zero if it has set none.
fn reconnection_time(stream: &[u8]) -> Duration {
    let (mut parser, mut rest) = (Parser::default(), stream);
    while let Ok(Some(_)) = parser.next(&mut rest) {}
    parser.retry().unwrap_or_default().min(MAX_RETRY_AFTER)
}

fn violation(rule: &str) -> String {
    format!("the server violated the protocol: {rule}")
}

const EVENT_STREAM: &str = "text/event-stream";
