//! One accepted stream: its head, then an answer or a session.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;

use crate::access::{Action, Authorize, Denied};
use crate::config::{Config, Reject};
use crate::endpoints::AnyEndpoint;
use crate::http::head::{self, HeadScan};
use crate::http::route::{Destination, RouteError, Routes};
use crate::http::{HeadError, RequestHead, Response};
use crate::hub::HubHandle;
use crate::net::{Peer, Transport};
use crate::services::Stop;
use crate::ws::Session;
use crate::ws::handshake::{self, HandshakeError};

/// What every connection shares.
pub(crate) struct Context {
    pub(crate) config: Rc<Config>,
    pub(crate) routes: Routes<Rc<dyn AnyEndpoint>>,
    pub(crate) authorizer: Box<dyn Authorize>,
    pub(crate) hub: HubHandle,
    pub(crate) stop: Stop,
    pub(crate) correlations: Correlations,
}

/// What a connection's first bytes lead to.
enum Verdict {
    /// Nothing is said.
    Drop,
    /// A response, with its body or, to HEAD, without.
    Answer { response: Response, body: bool },
    /// A session, after `handshake`; the client may have sent `early` bytes already.
    Upgrade { handshake: String, early: Vec<u8>, endpoint: Rc<dyn AnyEndpoint>, request: Request },
}

/// What the log says of a request.
struct Request {
    path: String,
    correlation: String,
}

/// Serves a connection from its first byte to its last.
pub(crate) async fn serve(transport: Transport, peer: Peer, context: Rc<Context>) {
    // Boxed, so that all it takes to come to a session is gone when the session begins.
    let Some((session, endpoint)) = Box::pin(open(transport, peer, context)).await else { return };
    let client = session.id();
    let end = endpoint.serve_boxed(session).await;
    log::debug!(target: "falconet::client", client:%, address:% = peer; "connection ended: {end}");
}

/// Hears the request; answers it, or begins the session it asks for.
async fn open(
    transport: Transport,
    peer: Peer,
    context: Rc<Context>,
) -> Option<(Session, Rc<dyn AnyEndpoint>)> {
    let config = &context.config;
    match hear(&transport, peer, &context).await {
        Verdict::Drop => None,
        Verdict::Answer { response, body } => {
            answer(&transport, &response.encode(body), config).await;
            None
        }
        Verdict::Upgrade { handshake, early, endpoint, request } => {
            if !write_all(&transport, handshake.as_bytes(), config).await {
                return None;
            }
            let (hub, config) = (context.hub.clone(), config.clone());
            let session = Session::begin(transport, early, peer, hub, config).await.ok()?;
            log::info!(
                target: "falconet::client",
                client:% = session.id(), address:% = peer, path = &*request.path,
                correlation = &*request.correlation;
                "new connection"
            );
            Some((session, endpoint))
        }
    }
}

/// Reads a request head within its deadline and judges it.
async fn hear(transport: &Transport, peer: Peer, context: &Rc<Context>) -> Verdict {
    let timer = transport.timer();
    let deadline = timer.sleep(context.config.timeouts.head);
    let reading = context.stop.unless_requested(read_head(transport, &context.config));
    match timer.until(deadline, reading).await {
        Some(Some(Ok(heard))) => judge(heard, peer, context),
        Some(Some(Err(NoHead::Refused(error)))) => refuse_head(&error, peer, context),
        Some(Some(Err(NoHead::Lost))) => {
            log::debug!(target: "falconet::request", address:% = peer; "left without a request");
            Verdict::Drop
        }
        Some(None) => refuse(Response::text(503, "the server is stopping\n"), true, context),
        None => {
            log::info!(target: "falconet::request", address:% = peer; "dropped: no request in time");
            Verdict::Drop
        }
    }
}

/// A whole head in the bytes read so far.
struct Heard {
    bytes: Vec<u8>,
    head: std::ops::Range<usize>,
}

/// Why there is no head to judge.
enum NoHead {
    Refused(HeadError),
    Lost,
}

async fn read_head(transport: &Transport, config: &Config) -> Result<Heard, NoHead> {
    let mut bytes = Vec::new();
    let mut scan = HeadScan::default();
    loop {
        if bytes.len() == bytes.capacity() {
            // Twice as large, but never beyond the limit: what follows the head is not ours to read.
            let size = (2 * bytes.len()).max(FIRST_READ_BYTES).min(config.limits.head_bytes);
            bytes.reserve_exact(size - bytes.len());
        }
        let read = poll_fn(|cx| transport.poll_recv_more(cx, &mut bytes)).await;
        read.ok().filter(|count| *count > 0).ok_or(NoHead::Lost)?;
        match scan.find(&bytes, &config.limits) {
            Ok(Some(head)) => return Ok(Heard { bytes, head }),
            Ok(None) => {}
            Err(error) => return Err(NoHead::Refused(error)),
        }
    }
}

/// Decides what a request leads to, and logs it.
fn judge(mut heard: Heard, peer: Peer, context: &Context) -> Verdict {
    let head = match head::parse(&heard.bytes[heard.head.clone()], &context.config.limits) {
        Ok(head) => head,
        Err(error) => return refuse_head(&error, peer, context),
    };
    let request = Request { path: head.path().into(), correlation: context.correlations.of(&head) };
    let body = head.method() != "HEAD";
    let log_answer = |response: &Response, verb: &str| {
        log::info!(
            target: "falconet::request",
            address:% = peer, method = head.method(), path = &*request.path,
            correlation = &*request.correlation, status = response.status();
            "{verb}"
        );
    };
    match find(&head, context) {
        Ok(Found::Page(response)) => {
            log_answer(&response, "answered");
            Verdict::Answer { response, body }
        }
        Ok(Found::Endpoint { handshake, endpoint }) => {
            let early = heard.bytes.split_off(heard.head.end);
            Verdict::Upgrade { handshake, early, endpoint, request }
        }
        Err(response) => {
            let silent = context.config.reject == Reject::Drop;
            log_answer(&response, if silent { "dropped" } else { "answered" });
            refuse(response, body, context)
        }
    }
}

/// What is where a request wants to go.
enum Found {
    Page(Response),
    Endpoint { handshake: String, endpoint: Rc<dyn AnyEndpoint> },
}

/// Authorizes and routes a request, and for a WebSocket does the handshake.
fn find(head: &RequestHead<'_>, context: &Context) -> Result<Found, Response> {
    let action = match head.wants_websocket() {
        true => Action::Connect(head.path()),
        false => Action::Read(head.path()),
    };
    context.authorizer.authorize(head, action).map_err(Denied::response)?;
    match context.routes.find(head).map_err(RouteError::response)? {
        Destination::Asset(response) => Ok(Found::Page(response)),
        Destination::Endpoint(endpoint) => {
            let handshake = handshake::accept(head).map_err(HandshakeError::response)?;
            Ok(Found::Endpoint { handshake, endpoint: endpoint.clone() })
        }
    }
}

/// Logs a head that is none, or breaks the rules.
fn refuse_head(error: &HeadError, peer: Peer, context: &Context) -> Verdict {
    log::info!(target: "falconet::request", address:% = peer; "refused: {error}");
    error.response().map_or(Verdict::Drop, |response| refuse(response, true, context))
}

/// What a well-formed request gets that is refused.
fn refuse(response: Response, body: bool, context: &Context) -> Verdict {
    match context.config.reject {
        Reject::Respond => Verdict::Answer { response, body },
        Reject::Drop => Verdict::Drop,
    }
}

/// Sends a response and sees it off: the peer reads it before the connection ends.
async fn answer(transport: &Transport, response: &[u8], config: &Config) {
    if write_all(transport, response, config).await {
        transport.see_off(config.timeouts.linger).await;
    }
}

/// Writes everything within the write deadline; says whether it could.
async fn write_all(transport: &Transport, mut bytes: &[u8], config: &Config) -> bool {
    let writing = async {
        while !bytes.is_empty() {
            let sent = poll_fn(|cx| transport.poll_send(cx, &[IoSlice::new(bytes)])).await?;
            bytes = &bytes[sent..];
        }
        io::Result::Ok(())
    };
    let deadline = transport.timer().sleep(config.timeouts.write);
    matches!(transport.timer().until(deadline, writing).await, Some(Ok(())))
}

/// Makes the ids that tie the log lines of a request together.
pub(crate) struct Correlations {
    prefix: u32,
    made: Cell<u64>,
}

impl Correlations {
    /// Ids that differ from those of the server's other runs.
    pub(crate) fn new() -> Self {
        let mut prefix = [0; 4];
        // Without randomness, ids of two runs may be equal; nothing else hangs on them.
        let _ = rustix::rand::getrandom(&mut prefix, rustix::rand::GetRandomFlags::NONBLOCK);
        Self { prefix: u32::from_ne_bytes(prefix), made: Cell::new(0) }
    }

    /// The request's `X-Request-Id`, if it is 1 to 64 harmless bytes, or a fresh id.
    fn of(&self, head: &RequestHead<'_>) -> String {
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        match head.single("x-request-id") {
            Some(id) if (1..=64).contains(&id.len()) && id.iter().all(harmless) => {
                String::from_utf8_lossy(id).into_owned()
            }
            _ => {
                self.made.set(self.made.get() + 1);
                format!("{:08x}-{}", self.prefix, self.made.get())
            }
        }
    }
}

/// Browsers' heads are about this long.
const FIRST_READ_BYTES: usize = 1024;
