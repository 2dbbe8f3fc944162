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
use crate::frame::{BINARY, CLOSE, CONTINUATION, FINAL, MASKED, PING, PONG, TEXT};
use crate::hub::{self, Newcomer, Start, TopicName};
use crate::net::Reactor;
use crate::ws::decode::apply_mask;

/// What a client can rely on, with an endpoint that sends back each message before it asks for the next:
///
/// 1. Echoes and pongs come in the order in which messages end and pings come: the echo of a message
///    before a ping is before its pong, the pong to a ping between two fragments before their echo.
/// 2. What is published comes in its order and whole, and so does what is sent to this client alone; what
///    was sent to it alone before something was published comes before that. Neither has a place
///    among the echoes.
/// 3. Nothing comes after the Close, of which there is one. Before it come
///    - if the client closes or breaks a rule: all echoes and pongs due;
///    - if the hub evicts it: all that the hub was told before;
///    - if the endpoint is done: what was due until then.
#[test]
fn whatever_the_pieces_and_the_times_a_client_gets_what_is_due_in_order() {
    let mut blocked = 0;
    for seed in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed);
        let script = Script::random(&mut rng);
        let played = Played::new(seed, &script, rng);
        played.check(seed, &script);
        blocked += usize::from(played.was_blocked);
    }
    assert!(blocked as u64 > ROUNDS / 10, "the kernel took nearly all at once: {blocked}");
}

#[test]
fn what_a_session_shares_takes_little_memory() {
    assert!(size_of::<State>() <= STATE_BYTES, "{}", size_of::<State>());
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// The client says a Close with this code.
    Closed(u16),
    /// The client breaks a rule.
    Violation,
    /// The hub evicts the client.
    Evicted,
    /// The endpoint has had enough after so many messages.
    Done(usize),
}

/// What a client says, and what is due to it for that.
struct Script {
    bytes: Vec<u8>,
    /// First bytes and payloads of the answers, in their order.
    replies: Vec<(u8, Vec<u8>)>,
    finish: Finish,
    /// How large the pieces are, at most.
    piece_bytes: usize,
}

impl Script {
    fn random(rng: &mut Rng) -> Self {
        let piece_bytes = [3, 100, 5_000, 100_000][rng.usize(..4)];
        let count = rng.usize(1..=30);
        let mut script =
            Self { bytes: Vec::new(), replies: Vec::new(), finish: Finish::Evicted, piece_bytes };
        let mut pings = rng.usize(..16);
        for _ in 0..count {
            script.add_message(&mut pings, rng);
        }
        script.finish = match rng.u8(..4) {
            0 => {
                let code = rng.u16(3000..5000);
                script.add(FINAL | CLOSE, &code.to_be_bytes(), rng);
                // What comes behind is not heard.
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
        let most = if self.piece_bytes < 100 { 300 } else { [125, 300, 20_000][rng.usize(..3)] };
        let size = rng.usize(..=most);
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

    /// Adds a client's frame.
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

    /// How many replies are due if the endpoint serves so many messages.
    fn replies_to(&self, messages: usize) -> usize {
        let replies = self.replies.iter().enumerate();
        let mut echoes = replies.filter(|(_, (first, _))| *first != FINAL | PONG);
        echoes.nth(messages - 1).unwrap().0 + 1
    }
}

/// What came of a script.
struct Played {
    heard: Vec<(u8, Vec<u8>)>,
    /// Bytes that are no whole frame.
    rest: Vec<u8>,
    /// What the hub was told, in its order.
    told: Vec<String>,
    end: Option<SessionEnd>,
    was_blocked: bool,
}

impl Played {
    /// Plays a script to its end.
    fn new(seed: u64, script: &Script, rng: Rng) -> Self {
        let reactor = Reactor::new().unwrap();
        let executor = LocalExecutor::new().leak();
        let config = Rc::new(Self::config());
        let (hub, hub_task) =
            hub::open(config.timeouts.clone(), config.topics.clone(), Rc::default());
        executor.spawn(hub_task.run()).detach();
        let topic = TopicName::new("t").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let [ours, theirs] = [ours, theirs].map(|stream| {
            stream.set_nonblocking(true).unwrap();
            // The least there can be, so that it takes parts.
            sockopt::set_socket_send_buffer_size(&stream, 1).unwrap();
            Transport::new(&reactor, stream.into()).unwrap()
        });
        let timer = Timer::new(&reactor);
        let joined = executor.spawn({
            let (hub, topic, now) = (hub.clone(), topic.clone(), timer.now());
            async move {
                let topics = vec![(topic, Start::Live)];
                let membership = hub.join(Newcomer::local(1.into()), topics, now).await.unwrap();
                (membership, hub.clients().await.unwrap().remove(0))
            }
        });
        let (membership, client) = reactor.run(executor, joined).unwrap();
        let shared = Rc::new(SessionShared::new(config, hub.clone()));
        let session = Session::begin(ours, Vec::new(), None, membership, shared);
        let end = Rc::new(Cell::new(None));
        let serving = {
            let (end, finish) = (end.clone(), script.finish);
            session.served_by(async move |session| {
                let echo = echo(session, finish);
                let is_apart = seed.is_multiple_of(2);
                end.set(Some(if is_apart { Apart::new(echo).await } else { echo.await }));
                end.get().unwrap()
            })
        };
        let serving = executor.spawn(serving);
        let mut speaker = Speaker::new(script, rng);
        let main = executor.spawn({
            let (bytes, limit) = (script.bytes.clone(), timer.sleep(Some(PATIENCE)));
            async move {
                let talk = async {
                    speaker.talk(&bytes, &theirs, &hub, &topic, &client).await;
                    drop((theirs, client));
                    serving.await;
                };
                assert!(timer.until(limit, talk).await.is_some(), "seed {seed} hung");
                speaker
            }
        });
        let speaker = reactor.run(executor, main).unwrap();
        let Speaker { heard, rest, told, was_blocked, .. } = speaker;
        Self { heard, rest, told, end: end.get(), was_blocked }
    }

    /// Nobody lags, and nobody is swept.
    fn config() -> Config {
        let mut config = Config::default();
        let timeouts = &mut config.timeouts;
        (timeouts.idle, timeouts.ping_every, timeouts.message) = (None, None, None);
        config.topics.log_messages = 1000;
        config.topics.log_bytes = 1 << 30;
        config
    }

    fn check(&self, seed: u64, script: &Script) {
        let place = format!("seed {seed}, {:?}", script.finish);
        assert_eq!(self.rest, [], "{place}: no whole frame at the end");
        let (close, before) = self.heard.split_last().unwrap();
        let expected_code = match script.finish {
            Finish::Closed(code) => code,
            Finish::Violation => 1002,
            Finish::Evicted => EVICTED.code.into(),
            Finish::Done(_) => 1000,
        };
        assert_eq!(close.0, FINAL | CLOSE, "{place}");
        assert_eq!(close.1[..2], expected_code.to_be_bytes(), "{place}");
        let is_of_hub =
            |frame: &&(u8, Vec<u8>)| frame.0 == FINAL | TEXT && !frame.1.starts_with(b"echo ");
        let replies: Vec<_> = before.iter().filter(|frame| !is_of_hub(frame)).collect();
        let due = match script.finish {
            Finish::Closed(_) | Finish::Violation => script.replies.len(),
            Finish::Done(messages) => script.replies_to(messages),
            Finish::Evicted => replies.len(),
        };
        assert_eq!(replies.len(), due, "{place}: not as many replies as are due");
        let differs = replies.iter().zip(&script.replies).position(|(reply, due)| *reply != due);
        assert_eq!(differs, None, "{place}: a reply is not the one that is due");
        self.check_hubs(before.iter().filter(is_of_hub), script, &place);
        let end = self.end.unwrap();
        match script.finish {
            Finish::Closed(code) => assert_eq!(end, SessionEnd::ClosedByPeer(code.into())),
            Finish::Evicted => assert_eq!(end, SessionEnd::Evicted(EVICTED)),
            Finish::Violation | Finish::Done(_) => {
                let SessionEnd::Evicted(reason) = end else { panic!("{place}: {end}") };
                assert_eq!(u16::from(reason.code), expected_code, "{place}");
            }
        }
    }

    /// Checks what the hub was told and the client heard of it.
    fn check_hubs<'h>(
        &self,
        heard: impl Iterator<Item = &'h (u8, Vec<u8>)>,
        script: &Script,
        place: &str,
    ) {
        let heard: Vec<&str> =
            heard.map(|frame| str::from_utf8(&frame.1).expect("text is UTF-8")).collect();
        let of = |kind: &str, all: &[&str]| -> Vec<String> {
            all.iter().filter(|text| text.starts_with(kind)).map(|text| text.to_string()).collect()
        };
        let told: Vec<&str> = self.told.iter().map(String::as_str).collect();
        for kind in ["published ", "mail "] {
            let (heard, told) = (of(kind, &heard), of(kind, &told));
            assert!(told.starts_with(&heard), "{place}: {kind} in another order");
            if script.finish == Finish::Evicted {
                assert_eq!(heard.len(), told.len(), "{place}: {kind} lost");
            }
        }
        for (index, published) in heard.iter().enumerate() {
            if published.starts_with("published ") {
                let told_at = told.iter().position(|told| told == published).unwrap();
                let before = of("mail ", &told[..told_at]).len();
                assert!(of("mail ", &heard[..index]).len() >= before, "{place}: mail overtaken");
            }
        }
    }
}

/// Sends every message back; is done after as many as `finish` says.
async fn echo(mut session: Session, finish: Finish) -> SessionEnd {
    let mut left = if let Finish::Done(messages) = finish { messages } else { usize::MAX };
    while left > 0 {
        let Some(message) = session.next().await else { break };
        session.send(message).await;
        left -= 1;
    }
    session.close(CloseReason::NORMAL).await
}

/// Polls a future by a waker of its own and only when that was woken, as what waits for many does.
struct Apart<F> {
    future: Pin<Box<F>>,
    call: Arc<Call>,
}

struct Call {
    is_called: AtomicBool,
    task: Mutex<Waker>,
}

impl<F> Apart<F> {
    fn new(future: F) -> Self {
        let call =
            Call { is_called: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) };
        Self { future: Box::pin(future), call: Arc::new(call) }
    }
}

impl<F: Future> Future for Apart<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.call.task.lock().unwrap().clone_from(cx.waker());
        if !self.call.is_called.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        let waker = Waker::from(self.call.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.is_called.store(true, Ordering::SeqCst);
        self.task.lock().unwrap().wake_by_ref();
    }
}

/// The client, and who publishes.
struct Speaker {
    rng: Rng,
    evicts: bool,
    piece_bytes: usize,
    heard: Vec<(u8, Vec<u8>)>,
    rest: Vec<u8>,
    told: Vec<String>,
    was_blocked: bool,
}

impl Speaker {
    fn new(script: &Script, rng: Rng) -> Self {
        Self {
            rng,
            evicts: script.finish == Finish::Evicted,
            piece_bytes: script.piece_bytes,
            heard: Vec::new(),
            rest: Vec::new(),
            told: Vec::new(),
            was_blocked: false,
        }
    }

    /// Sends, hears and publishes by turns as chance has it, until the stream has ended.
    async fn talk(
        &mut self,
        bytes: &[u8],
        transport: &Transport,
        hub: &HubHandle,
        topic: &TopicName,
        client: &Client,
    ) {
        let mut bytes: VecDeque<u8> = bytes.iter().copied().collect();
        let mut until_evicted = self.rng.usize(..200);
        let (mut is_evicted, mut eagerness, mut has_shut_down) = (false, 1, false);
        loop {
            // No other deadline runs than that of a blocked write.
            self.was_blocked |= hub.alarm().due().is_some();
            if self.rng.u8(..30) == 0 {
                eagerness = [0, 1, 1, 10][self.rng.usize(..4)];
            }
            match self.rng.usize(..8 + eagerness) {
                0..3 if !has_shut_down => self.speak(&mut bytes, transport).await,
                3 if !is_evicted && self.told.len() < 40 => self.tell(hub, topic, client).await,
                4 if self.evicts && !is_evicted => {
                    is_evicted = until_evicted == 0;
                    until_evicted = until_evicted.saturating_sub(1);
                    if is_evicted {
                        assert!(hub.evict(client.id(), EVICTED).await.unwrap());
                    }
                }
                8.. => {
                    if !self.hear(transport).await {
                        return;
                    }
                    if self.heard.last().is_some_and(|frame| frame.0 == FINAL | CLOSE)
                        && !std::mem::replace(&mut has_shut_down, true)
                    {
                        transport.shut_down();
                    }
                }
                _ => future::yield_now().await,
            }
        }
    }

    async fn speak(&mut self, bytes: &mut VecDeque<u8>, transport: &Transport) {
        let size = self.rng.usize(1..=self.piece_bytes).min(bytes.len());
        if size > 0 {
            let piece = IoSlice::new(&bytes.make_contiguous()[..size]);
            let sending = poll_fn(|cx| transport.poll_send(cx, &[piece]));
            // Having refused it, the server may be gone.
            if let Some(Ok(count)) = future::poll_once(sending).await {
                bytes.drain(..count);
            }
        }
    }

    async fn tell(&mut self, hub: &HubHandle, topic: &TopicName, client: &Client) {
        let index = self.told.len();
        let most = [10, 3000][self.rng.usize(..2)];
        let filler = "-".repeat(self.rng.usize(..most));
        let is_mail = self.rng.bool();
        let text = format!("{} {index} {filler}", if is_mail { "mail" } else { "published" });
        let is_told = match is_mail {
            true => hub.send_to(client.id(), &*text).await.unwrap(),
            false => hub.publish(topic, &*text).await.is_ok(),
        };
        self.told.extend(is_told.then_some(text));
    }

    /// Reads a piece, if there is one; says false at the end of the stream.
    async fn hear(&mut self, transport: &Transport) -> bool {
        let most = [10, 500, 20_000][self.rng.usize(..3)];
        let mut room = vec![0; self.rng.usize(1..most)];
        let reading = poll_fn(|cx| transport.poll_recv(cx, &mut room));
        match future::poll_once(reading).await {
            Some(Ok(count)) if count > 0 => self.rest.extend(&room[..count]),
            Some(_) => return false,
            None => future::yield_now().await,
        }
        while let Some((frame, length)) = server_frame(&self.rest) {
            self.heard.push(frame);
            self.rest.drain(..length);
        }
        true
    }
}

/// Decodes a server's frame that `bytes` begin with, and says how long it is.
fn server_frame(bytes: &[u8]) -> Option<((u8, Vec<u8>), usize)> {
    let [first, second, ..] = *bytes else { return None };
    assert!(first & 0x70 == 0 && second & MASKED == 0, "no frame: {first:x} {second:x}");
    let (start, length) = match second {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()).into()),
        127 => panic!("nothing is so long"),
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(start..start + length)?;
    Some(((first, payload.to_vec()), start + length))
}

const ROUNDS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(10);
const EVICTED: CloseReason = CloseReason::new(CloseCode::Library(4321), "evicted");
/// What it was when this was written, rounded up to 8.
const STATE_BYTES: usize = 120;
