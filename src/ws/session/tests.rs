use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;
use std::time::Duration;

use fastrand::Rng;
use rustix::net::sockopt;
use smol::LocalExecutor;

use super::*;
use crate::config::Config;
use crate::frame::{BINARY, CLOSE, CONTINUATION, CloseCode, FINAL, MASKED, PING, PONG, TEXT};
use crate::hub::{self, NewClient, Start, Subscription, TopicName};
use crate::net::Reactor;
use crate::ws::decode::apply_mask;

/// The endpoint sends each message back before it waits for the next one. Then the client may rely on this:
///
/// 1. Echoes and Pongs arrive in the order in which the messages end and the Pings arrive: the echo of a
///    message before a Ping arrives before the Pong, and the Pong to a Ping between two fragments before
///    the echo of their message.
/// 2. Published messages arrive in their order and without gaps, and so does mail, which is sent to this
///    client alone. Mail arrives before the messages that were published after it. Neither has a defined
///    order relative to the echoes.
/// 3. Exactly one Close arrives, and nothing after it. These frames arrive before it:
///    - if the client closes the session or violates the protocol: all expected echoes and Pongs;
///    - if the hub evicts the client: everything that the hub accepted before;
///    - if the endpoint closes the session: the replies that were expected until then.
#[test]
fn a_client_receives_all_expected_frames_in_order_for_any_pieces_and_timing() {
    let mut blocked = 0;
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let script = Script::random(&mut rng);
        let outcome = Outcome::of(seed, &script, rng);
        outcome.check(seed, &script);
        blocked += usize::from(outcome.was_blocked);
    }
    assert!(blocked as u64 > ROUNDS / 10, "too few rounds had a blocked write: {blocked}");
}

#[test]
fn the_state_of_a_session_takes_little_memory() {
    assert!(size_of::<State>() <= STATE_BYTES, "{}", size_of::<State>());
}

/// The way in which a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// The client sends a Close with this code.
    Closed(u16),
    /// The client violates the protocol.
    Violation,
    /// The hub evicts the client.
    Evicted,
    /// The endpoint closes the session after this number of messages.
    Done(usize),
}

/// The input of a client, and the expected replies.
struct Script {
    bytes: Vec<u8>,
    /// The first bytes and payloads of the replies, in their order.
    replies: Vec<(u8, Vec<u8>)>,
    finish: Finish,
    /// The maximum size of the pieces in which `bytes` is sent.
    max_piece_bytes: usize,
}

impl Script {
    fn random(rng: &mut Rng) -> Self {
        let max_piece_bytes = [3, 100, 5_000, 100_000][rng.usize(..4)];
        let count = rng.usize(1..=30);
        let mut script = Self {
            bytes: Vec::new(),
            replies: Vec::new(),
            finish: Finish::Evicted,
            max_piece_bytes,
        };
        let mut pings = rng.usize(..16);
        for _ in 0..count {
            script.add_message(&mut pings, rng);
        }
        script.finish = match rng.u8(..4) {
            0 => {
                let code = rng.u16(3000..5000);
                script.add(FINAL | CLOSE, &code.to_be_bytes(), rng);
                // Messages after the Close are ignored.
                script.add(FINAL | TEXT, b"echo nothing", rng);
                Finish::Closed(code)
            }
            1 => {
                script.add(FINAL | 3, b"", rng);
                Finish::Violation
            }
            2 => Finish::Done(rng.usize(1..=count)),
            _ => Finish::Evicted,
        };
        script
    }

    fn add_message(&mut self, pings: &mut usize, rng: &mut Rng) {
        let max_size =
            if self.max_piece_bytes < 100 { 300 } else { [125, 300, 20_000][rng.usize(..3)] };
        let size = rng.usize(..=max_size);
        let (opcode, payload) = match rng.bool() {
            true => (TEXT, format!("echo {}", "ä".repeat(size / 2)).into_bytes()),
            false => (BINARY, vec![rng.u8(..); size]),
        };
        let (mut first, mut rest) = (opcode, &payload[..]);
        loop {
            if *pings > 0 && rng.u8(..3) == 0 {
                *pings -= 1;
                let ping = vec![rng.u8(..); [0, 3, 125][rng.usize(..3)]];
                self.add(FINAL | PING, &ping, rng);
                self.replies.push((FINAL | PONG, ping));
            }
            let is_last = rng.u8(..3) > 0;
            let size = if is_last { rest.len() } else { rng.usize(..=rest.len()) };
            let (part, after) = rest.split_at(size);
            self.add(first | if is_last { FINAL } else { 0 }, part, rng);
            (first, rest) = (CONTINUATION, after);
            if is_last {
                break;
            }
        }
        self.replies.push((FINAL | opcode, payload));
    }

    /// Adds a masked frame.
    fn add(&mut self, first: u8, payload: &[u8], rng: &mut Rng) {
        let mask = rng.u32(..).to_ne_bytes();
        self.bytes.push(first);
        match payload.len() {
            length @ 0..=125 => self.bytes.push(MASKED | length as u8),
            length => {
                self.bytes.push(MASKED | 126);
                self.bytes.extend((length as u16).to_be_bytes());
            }
        }
        self.bytes.extend(mask);
        let start = self.bytes.len();
        self.bytes.extend(payload);
        apply_mask(&mut self.bytes[start..], mask);
    }

    /// Returns the number of replies that are expected if the endpoint serves `messages` messages.
    fn replies_to(&self, messages: usize) -> usize {
        let replies = self.replies.iter().enumerate();
        let mut echoes = replies.filter(|(_, (first, _))| *first != FINAL | PONG);
        echoes.nth(messages - 1).unwrap().0 + 1
    }
}

/// The outcome of a script.
struct Outcome {
    /// The first bytes and payloads of the frames that the client received.
    received: Vec<(u8, Vec<u8>)>,
    /// Received bytes that are not a whole frame.
    rest: Vec<u8>,
    /// The published messages and the mail that the hub accepted, in their order.
    accepted: Vec<String>,
    end: Option<SessionEnd>,
    was_blocked: bool,
}

impl Outcome {
    /// Runs a script to its end.
    fn of(seed: u64, script: &Script, rng: Rng) -> Self {
        let reactor = Reactor::new().unwrap();
        let executor = LocalExecutor::new().leak();
        let config = Rc::new(Self::config());
        let (hub, hub_task) =
            hub::open(config.timeouts.clone(), config.topics.clone(), Rc::default());
        executor.spawn(hub_task.run()).detach();
        let topic = TopicName::new("t").unwrap();
        let (server_end, client_end) = UnixStream::pair().unwrap();
        let [server_end, client_end] = [server_end, client_end].map(|stream| {
            stream.set_nonblocking(true).unwrap();
            // The kernel uses its minimum size, so that it accepts only parts of large frames.
            sockopt::set_socket_send_buffer_size(&stream, 1).unwrap();
            Transport::new(&reactor, stream.into()).unwrap()
        });
        let timer = Timer::new(&reactor);
        let joined = executor.spawn({
            let (hub, topic, now) = (hub.clone(), topic.clone(), timer.now());
            async move {
                let subscription = Subscription::to(topic, Start::Live);
                let joining = hub.join(NewClient::local(1.into()), subscription, now);
                let membership = joining.await.unwrap().unwrap();
                (membership, hub.clients().await.unwrap().remove(0))
            }
        });
        let (membership, client) = reactor.run(executor, joined).unwrap();
        let shared = Rc::new(SessionShared::new(config, hub.clone()));
        let session = Session::begin(server_end, Vec::new(), None, membership, shared);
        let end = Rc::new(Cell::new(None));
        let serving = {
            let (end, finish) = (end.clone(), script.finish);
            session.served_by(async move |session| {
                let echo = echo(session, finish);
                let has_own_waker = seed.is_multiple_of(2);
                end.set(Some(if has_own_waker { OwnWaker::new(echo).await } else { echo.await }));
                end.get().unwrap()
            })
        };
        let serving = executor.spawn(serving);
        let mut driver = Driver::new(script, rng);
        let main = executor.spawn({
            let (bytes, limit) = (script.bytes.clone(), timer.sleep(Some(ROUND_TIMEOUT)));
            async move {
                let driving = async {
                    driver.drive(&bytes, &client_end, &hub, &topic, &client).await;
                    drop((client_end, client));
                    serving.await;
                };
                assert!(timer.until(limit, driving).await.is_some(), "seed {seed} hung");
                driver
            }
        });
        let driver = reactor.run(executor, main).unwrap();
        let Driver { received, rest, accepted, was_blocked, .. } = driver;
        Self { received, rest, accepted, end: end.get(), was_blocked }
    }

    /// Returns a configuration with which the client does not lag and has no deadline except that of a
    /// blocked write.
    fn config() -> Config {
        let mut config = Config::default();
        let timeouts = &mut config.timeouts;
        (timeouts.idle, timeouts.ping_every, timeouts.message) = (None, None, None);
        config.topics.log_messages = 1000;
        config.topics.log_bytes = 1 << 30;
        config
    }

    fn check(&self, seed: u64, script: &Script) {
        let context = format!("seed {seed}, {:?}", script.finish);
        assert_eq!(self.rest, [], "{context}: incomplete frame at the end");
        let (close, before) = self.received.split_last().unwrap();
        let expected_code = match script.finish {
            Finish::Closed(code) => code,
            Finish::Violation => 1002,
            Finish::Evicted => EVICTED.code.into(),
            Finish::Done(_) => 1000,
        };
        assert_eq!(close.0, FINAL | CLOSE, "{context}");
        assert_eq!(close.1[..2], expected_code.to_be_bytes(), "{context}");
        let is_delivery =
            |frame: &&(u8, Vec<u8>)| frame.0 == FINAL | TEXT && !frame.1.starts_with(b"echo ");
        let replies: Vec<_> = before.iter().filter(|frame| !is_delivery(frame)).collect();
        let expected = match script.finish {
            Finish::Closed(_) | Finish::Violation => script.replies.len(),
            Finish::Done(messages) => script.replies_to(messages),
            Finish::Evicted => replies.len(),
        };
        assert_eq!(replies.len(), expected, "{context}: wrong number of replies");
        let differs =
            replies.iter().zip(&script.replies).position(|(reply, expected)| *reply != expected);
        assert_eq!(differs, None, "{context}: a reply is not the expected one");
        self.check_deliveries(before.iter().filter(is_delivery), script, &context);
        let end = self.end.unwrap();
        match script.finish {
            Finish::Closed(code) => assert_eq!(end, SessionEnd::ClosedByPeer(CloseCode::new(code))),
            Finish::Evicted => assert_eq!(end, SessionEnd::Evicted(EVICTED)),
            Finish::Violation | Finish::Done(_) => {
                let SessionEnd::Evicted(reason) = end else { panic!("{context}: {end}") };
                assert_eq!(u16::from(reason.code), expected_code, "{context}");
            }
        }
    }

    /// Compares the deliveries that the client received with those that the hub accepted.
    fn check_deliveries<'r>(
        &self,
        received: impl Iterator<Item = &'r (u8, Vec<u8>)>,
        script: &Script,
        context: &str,
    ) {
        let received: Vec<&str> =
            received.map(|frame| str::from_utf8(&frame.1).expect("text is UTF-8")).collect();
        let of = |kind: &str, all: &[&str]| -> Vec<String> {
            all.iter().filter(|text| text.starts_with(kind)).map(|text| text.to_string()).collect()
        };
        let accepted: Vec<&str> = self.accepted.iter().map(String::as_str).collect();
        for kind in ["published ", "mail "] {
            let (received, accepted) = (of(kind, &received), of(kind, &accepted));
            assert!(accepted.starts_with(&received), "{context}: {kind} in another order");
            if script.finish == Finish::Evicted {
                assert_eq!(received.len(), accepted.len(), "{context}: {kind} lost");
            }
        }
        for (index, published) in received.iter().enumerate() {
            if published.starts_with("published ") {
                let accepted_at = accepted.iter().position(|text| text == published).unwrap();
                let before = of("mail ", &accepted[..accepted_at]).len();
                assert!(
                    of("mail ", &received[..index]).len() >= before,
                    "{context}: mail arrived too late"
                );
            }
        }
    }
}

/// Sends every message back, until the session ends or the number of messages in `finish` is reached.
async fn echo(mut session: Session, finish: Finish) -> SessionEnd {
    let mut left = if let Finish::Done(messages) = finish { messages } else { usize::MAX };
    while left > 0 {
        let Some(message) = session.next().await else { break };
        session.send(message).await;
        left -= 1;
    }
    session.close(CloseReason::NORMAL).await
}

/// A future that polls another one with a waker of its own, and only after that waker was woken, as a
/// combinator for several futures does.
struct OwnWaker<F> {
    future: Pin<Box<F>>,
    wakeup: Arc<Wakeup>,
}

struct Wakeup {
    is_woken: AtomicBool,
    task: Mutex<Waker>,
}

impl<F> OwnWaker<F> {
    fn new(future: F) -> Self {
        let wakeup =
            Wakeup { is_woken: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) };
        Self { future: Box::pin(future), wakeup: Arc::new(wakeup) }
    }
}

impl<F: Future> Future for OwnWaker<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.wakeup.task.lock().unwrap().clone_from(cx.waker());
        if !self.wakeup.is_woken.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        let waker = Waker::from(self.wakeup.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.task.lock().unwrap().wake_by_ref();
    }
}

/// The actions of the client, of a publisher, and of the administrator, which evicts the client.
struct Driver {
    rng: Rng,
    evicts: bool,
    max_piece_bytes: usize,
    received: Vec<(u8, Vec<u8>)>,
    rest: Vec<u8>,
    accepted: Vec<String>,
    was_blocked: bool,
}

impl Driver {
    fn new(script: &Script, rng: Rng) -> Self {
        Self {
            rng,
            evicts: script.finish == Finish::Evicted,
            max_piece_bytes: script.max_piece_bytes,
            received: Vec::new(),
            rest: Vec::new(),
            accepted: Vec::new(),
            was_blocked: false,
        }
    }

    /// Sends, receives and publishes in random order, until the server closes the connection.
    async fn drive(
        &mut self,
        bytes: &[u8],
        transport: &Transport,
        hub: &HubHandle,
        topic: &TopicName,
        client: &Client,
    ) {
        let mut bytes: VecDeque<u8> = bytes.iter().copied().collect();
        let mut until_evicted = self.rng.usize(..200);
        let (mut is_evicted, mut receive_weight, mut has_shut_down) = (false, 1, false);
        loop {
            // The deadline of a blocked write is the only one that can be running.
            self.was_blocked |= hub.alarm().due().is_some();
            if self.rng.u8(..30) == 0 {
                receive_weight = [0, 1, 1, 10][self.rng.usize(..4)];
            }
            match self.rng.usize(..8 + receive_weight) {
                0..3 if !has_shut_down => self.send_piece(&mut bytes, transport).await,
                3 if !is_evicted && self.accepted.len() < 40 => {
                    self.publish_or_mail(hub, topic, client).await
                }
                4 if self.evicts && !is_evicted => {
                    is_evicted = until_evicted == 0;
                    until_evicted = until_evicted.saturating_sub(1);
                    if is_evicted {
                        assert!(hub.evict(client.id(), EVICTED).await.unwrap());
                    }
                }
                8.. => {
                    if !self.receive(transport).await {
                        return;
                    }
                    if self.received.last().is_some_and(|frame| frame.0 == FINAL | CLOSE)
                        && !std::mem::replace(&mut has_shut_down, true)
                    {
                        transport.shut_down();
                    }
                }
                _ => future::yield_now().await,
            }
        }
    }

    async fn send_piece(&mut self, bytes: &mut VecDeque<u8>, transport: &Transport) {
        let size = self.rng.usize(1..=self.max_piece_bytes).min(bytes.len());
        if size > 0 {
            let piece = IoSlice::new(&bytes.make_contiguous()[..size]);
            let sending = poll_fn(|cx| transport.poll_send(cx, &[piece]));
            // An error is allowed: the server may have refused the input and closed the connection.
            if let Some(Ok(count)) = future::poll_once(sending).await {
                bytes.drain(..count);
            }
        }
    }

    async fn publish_or_mail(&mut self, hub: &HubHandle, topic: &TopicName, client: &Client) {
        let index = self.accepted.len();
        let max_bytes = [10, 3000][self.rng.usize(..2)];
        let filler = "-".repeat(self.rng.usize(..max_bytes));
        let is_mail = self.rng.bool();
        let text = format!("{} {index} {filler}", if is_mail { "mail" } else { "published" });
        let is_accepted = match is_mail {
            true => hub.send_to(client.id(), &*text).await.unwrap(),
            false => hub.publish(topic, &*text).await.is_ok(),
        };
        self.accepted.extend(is_accepted.then_some(text));
    }

    /// Reads once, if there is anything to read. Returns false at the end of the stream.
    async fn receive(&mut self, transport: &Transport) -> bool {
        let max_bytes = [10, 500, 20_000][self.rng.usize(..3)];
        let mut buffer = vec![0; self.rng.usize(1..max_bytes)];
        let reading = poll_fn(|cx| transport.poll_recv(cx, &mut buffer));
        match future::poll_once(reading).await {
            Some(Ok(count)) if count > 0 => self.rest.extend(&buffer[..count]),
            Some(_) => return false,
            None => future::yield_now().await,
        }
        while let Some((frame, length)) = server_frame(&self.rest) {
            self.received.push(frame);
            self.rest.drain(..length);
        }
        true
    }
}

/// Decodes the server frame at the start of `bytes`, and returns it with its length.
fn server_frame(bytes: &[u8]) -> Option<((u8, Vec<u8>), usize)> {
    let [first, second, ..] = *bytes else { return None };
    assert!(first & 0x70 == 0 && second & MASKED == 0, "invalid frame: {first:x} {second:x}");
    let (start, length) = match second {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()).into()),
        127 => panic!("no payload is longer than 65535 bytes"),
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(start..start + length)?;
    Some(((first, payload.to_vec()), start + length))
}

const ROUNDS: u64 = 300;
const ROUND_TIMEOUT: Duration = Duration::from_secs(10);
const EVICTED: CloseReason = CloseReason::new(CloseCode::new(4321).unwrap(), "evicted");
/// The size of the state when this limit was last set, rounded up to a multiple of 8.
const STATE_BYTES: usize = 120;
