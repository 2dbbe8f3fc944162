//! One accepted stream: requests and their answers, until one of them takes the connection over.

mod access_log;
mod reader;
mod request;
mod upgrade;

use std::fs::File;
use std::future::{self, Future};
use std::io::{self, Read};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures_lite::future::yield_now;

use crate::access::{Access, Action, AddressPlace, Refused};
use crate::admin::{AdminRequest, AdminState, Errand};
use crate::config::{Config, Reject};
use crate::counters::{Counters, Refusal, Rejection, Source};
use crate::endpoints::events::Encoder;
use crate::endpoints::topic::{Exchange, TopicError, TopicRequest};
use crate::endpoints::{AnyEndpoint, Stage};
use crate::features::Feature;
use crate::http::head;
use crate::http::response::Envelope;
use crate::http::route::{Destination, RouteError, Routes};
use crate::http::{HeadError, RequestHead, Response};
use crate::hub::{HubGone, HubHandle};
use crate::net::{Peer, Reach, Transport};
use crate::rate::Pace;
use crate::services::Stop;
use crate::ws::SessionShared;
use crate::ws::handshake::{self, HandshakeError};

use reader::{NoHead, NoHeader, Reader};
pub(crate) use request::Correlations;
use request::Request;
use upgrade::Opening;

/// What every connection of the public listeners shares, or every one of the administrator's.
pub(crate) struct Context {
    pub(crate) config: Rc<Config>,
    pub(crate) routes: Routes<Rc<dyn AnyEndpoint>>,
    pub(crate) access: Rc<Access>,
    pub(crate) hub: HubHandle,
    pub(crate) stop: Stop,
    pub(crate) correlations: Correlations,
    pub(crate) encoder: Encoder,
    pub(crate) shared: Rc<SessionShared>,
    pub(crate) counters: Rc<Counters>,
    /// Where the administrator's requests go; on a public listener there is none, and no way to it.
    pub(crate) admin_state: Option<Rc<AdminState>>,
}

impl Context {
    /// Counts a request by the status of its response. Who looks at the counts is no part of them.
    fn count_answer(&self, status: u16) {
        if self.admin_state.is_none() {
            self.counters.answer(status);
        }
    }

    fn count_rejection(&self, why: Rejection) {
        if self.admin_state.is_none() {
            self.counters.reject(why);
        }
    }

    fn count_refusal(&self, why: Refusal) {
        if self.admin_state.is_none() {
            self.counters.refuse(why);
        }
    }
}

/// What a request leads to.
enum Plan {
    /// A response that is known, and the file that is its body, if the response has none.
    Answer(Response, Option<File>),
    /// A response that only the hub can give.
    Ask(Question),
    /// Something other than a response.
    Upgrade(Opening),
}

impl Plan {
    /// Whether a body of the request stays unread, which is not to be taken for the next request; nor is
    /// what may be one.
    fn leaves_a_body(&self, request: &Request) -> bool {
        match self {
            Self::Answer(response, _) => request.body_bytes > 0 || response.status() == 411,
            Self::Ask(question) => request.body_bytes > 0 && !question.takes_body(),
            Self::Upgrade(_) => false,
        }
    }
}

/// What is asked.
enum Question {
    Topic(Exchange),
    Admin(Errand, Rc<AdminState>),
}

impl Question {
    /// Whether the request's body is for it.
    fn takes_body(&self) -> bool {
        match self {
            Self::Topic(exchange) => exchange.takes_body(),
            Self::Admin(errand, _) => errand.takes_body(),
        }
    }

    fn expects_continue(&self) -> bool {
        match self {
            Self::Topic(exchange) => exchange.expects_continue(),
            Self::Admin(errand, _) => errand.expects_continue(),
        }
    }

    /// Has it answered. No `async fn`, which would have code for what is never asked in this build.
    fn perform<'a>(
        self,
        body: &'a [u8],
        context: &'a Context,
    ) -> Pin<Box<dyn Future<Output = Result<Response, HubGone>> + 'a>> {
        match self {
            Self::Topic(exchange) if Feature::Full.is_built_in() => {
                Box::pin(exchange.perform(body, Source::Http, &context.hub))
            }
            Self::Admin(errand, admin_state) if Feature::Full.is_built_in() => {
                Box::pin(async move { errand.perform(body, &admin_state).await })
            }
            Self::Topic(_) | Self::Admin(..) => Box::pin(future::ready(Err(HubGone))),
        }
    }
}

/// Serves a connection from its first byte to its last.
pub(crate) fn serve(
    transport: Transport,
    address_place: AddressPlace,
    reach: Reach,
    context: Rc<Context>,
) -> Stage {
    Stage::new(converse(transport, address_place, reach, context))
}

/// Answers requests until one takes the connection over, or all is said.
async fn converse(
    transport: Transport,
    address_place: AddressPlace,
    reach: Reach,
    context: Rc<Context>,
) -> Option<Stage> {
    let mut reader = Reader::new(transport);
    if let Some(introduction) = introduction(&mut reader, &address_place, &context) {
        introduction.await?;
    }
    let (peer, mut pace) = (address_place.client(), Pace::default());
    let limits = &context.config.limits;
    let is_tls = reader.transport().is_tls();
    for count in 1..=limits.requests {
        let head = hear(&mut reader, count == 1, peer, &context).await?;
        let (mut request, plan) = match head::parse(&reader.bytes()[head.clone()], limits) {
            Ok(head) => {
                let admitted = context.access.admit(&head, peer, reach, is_tls, &address_place);
                let reach = address_place.reach(reach);
                let plan = admitted.and_then(|()| plan(&head, reach, &context));
                (Request::of(&head, address_place.client(), &context.correlations), plan)
            }
            Err(error) => {
                // Boxed, as is all else that few need: a connection has room for the largest it ever awaits.
                Box::pin(refuse_head(&mut reader, &error, peer, &context)).await;
                return None;
            }
        };
        if context.admin_state.is_some() && request.is_read() {
            // The line of a request that comes every few seconds.
            request.level = log::Level::Debug;
        }
        request.close |= count == limits.requests || context.config.timeouts.keep_alive.is_none();
        let plan = plan.unwrap_or_else(|Refused { why, response }| {
            if let Some(why) = why {
                context.count_refusal(why);
            }
            Plan::Answer(response, None)
        });
        request.close |= plan.leaves_a_body(&request);
        let end = head.end + request.body_bytes as usize;
        let (response, file) = match plan {
            Plan::Answer(response, file) => (response, file),
            Plan::Ask(question) => {
                let asking =
                    asking(&mut reader, head.end, question, &mut request, &mut pace, &context);
                (asking.await?, None)
            }
            Plan::Upgrade(opening) => {
                return opening.open(reader, head.end, request, address_place, &context).await;
            }
        };
        if !answer(&mut reader, &response, file, request, &context).await {
            return None;
        }
        reader.consume(end);
        // A proxy's next request may be another's. It has had this address_place, so there is room.
        address_place.give_to(peer, true);
        // Somebody may have sent many at once.
        yield_now().await;
    }
    None
}

/// What comes before the first request of a proxy that says by the PROXY protocol for whom it asks.
fn introduction<'a>(
    reader: &'a mut Reader,
    address_place: &'a AddressPlace,
    context: &'a Context,
) -> Option<Pin<Box<dyn Future<Output = Option<()>> + 'a>>> {
    let introduces =
        Feature::Full.is_built_in() && context.access.proxies.introduce(address_place.client());
    introduces.then(|| Box::pin(introduce(reader, address_place, context)) as _)
}

/// Hears from a proxy for whom the connection is, and gives the address_place to its client; `None` if that can't
/// be.
async fn introduce(
    reader: &mut Reader,
    address_place: &AddressPlace,
    context: &Context,
) -> Option<()> {
    let (proxy, timer) = (address_place.client(), reader.transport().timer());
    let deadline = timer.sleep(context.config.timeouts.head);
    let reading = context.stop.unless_requested(reader.proxy_header());
    let refusal = match timer.until(deadline, reading).await {
        Some(Some(Ok(client))) => {
            let client = client.map_or(proxy, Peer::Ip);
            if address_place.give_to(client, context.access.proxies.trust(client)) {
                return Some(());
            }
            context.count_rejection(Rejection::Address);
            log::warn!(target: "falconet::limit", address = client.to_string(); "too many connections: dropped");
            return None;
        }
        Some(Some(Err(NoHeader::Wrong(error)))) => {
            context.count_rejection(Rejection::Proxy);
            error.to_string()
        }
        Some(Some(Err(NoHeader::Lost))) => "left without a word".to_owned(),
        Some(None) => "the server is stopping".to_owned(),
        None => {
            context.count_rejection(Rejection::Proxy);
            "no header of the PROXY protocol in time".to_owned()
        }
    };
    log::info!(target: "falconet::access", address = proxy.to_string(); "dropped: {refusal}");
    None
}

/// Waits for a request head within its deadline; `None` when there is none to come.
async fn hear(
    reader: &mut Reader,
    is_first: bool,
    peer: Peer,
    context: &Context,
) -> Option<Range<usize>> {
    let timeouts = &context.config.timeouts;
    let timer = reader.transport().timer();
    if !is_first {
        let deadline = timer.sleep(timeouts.keep_alive);
        let more = context.stop.unless_requested(reader.at_least(1));
        let how = match timer.until(deadline, more).await {
            Some(Some(Some(()))) => None,
            Some(Some(None)) => Some("closed by the peer"),
            Some(None) => Some(STOPPING),
            None => Some("idle"),
        };
        if let Some(how) = how {
            reader.access_log().end(how);
            return None;
        }
    }
    let handshakes = is_first && reader.transport().is_tls();
    let deadline = timer.sleep(if handshakes { timeouts.tls_head } else { timeouts.head });
    let reading = context.stop.unless_requested(reader.head(&context.config.limits));
    let how = match timer.until(deadline, reading).await {
        Some(Some(Ok(head))) => return Some(head),
        Some(Some(Err(NoHead::Refused(error)))) => {
            Box::pin(refuse_head(reader, &error, peer, context)).await;
            return None;
        }
        Some(Some(Err(NoHead::Lost(error)))) if error.kind() == io::ErrorKind::InvalidData => {
            context.count_rejection(Rejection::Tls);
            log::info!(target: "falconet::request", address = peer.to_string(); "refused: TLS: {error}");
            "refused"
        }
        Some(Some(Err(NoHead::Lost(_)))) => {
            log::debug!(target: "falconet::request", address = peer.to_string(); "left without a request");
            "closed by the peer"
        }
        Some(None) => {
            let response = Response::text(503, "the server is stopping\n");
            let envelope = Envelope::last(SystemTime::now());
            Box::pin(refuse(reader, &response, &envelope, context)).await;
            STOPPING
        }
        None => {
            let handshakes = reader.transport().is_handshaking();
            let why = if handshakes { Rejection::Tls } else { Rejection::Timeout };
            context.count_rejection(why);
            log::info!(target: "falconet::request", address = peer.to_string(); "dropped: no request in time");
            "timed out"
        }
    };
    reader.access_log().end(how);
    None
}

/// Decides what a request leads to.
///
/// # Errors
/// [`Refused`].
fn plan(head: &RequestHead<'_>, reach: Reach, context: &Context) -> Result<Plan, Refused> {
    if Feature::Full.is_built_in()
        && let Some(admin_state) = &context.admin_state
    {
        return plan_errand(head, admin_state, reach, context);
    }
    if Feature::Full.is_built_in()
        && let Some(name) = context.routes.topic(head.path())
    {
        return plan_topic(head, name, reach, context);
    }
    let action = match head.wants_websocket() {
        true => Action::Connect(head.path()),
        false => Action::Read(head.path()),
    };
    context.access.authorize(head, action, reach)?;
    match context.routes.find(head).map_err(RouteError::response)? {
        Destination::Asset(response) => Ok(Plan::Answer(response, None)),
        Destination::File(response, file) => Ok(Plan::Answer(response, file)),
        Destination::Endpoint(path, endpoint) => {
            let accept = handshake::accept(head).map_err(HandshakeError::response)?;
            Ok(Plan::Upgrade(Opening::of_endpoint(accept, path.clone(), endpoint.clone())))
        }
    }
}

/// Decides what a request for a topic leads to.
///
/// # Errors
/// [`Refused`].
fn plan_topic(
    head: &RequestHead<'_>,
    name: &str,
    reach: Reach,
    context: &Context,
) -> Result<Plan, Refused> {
    let may = |action| context.access.authorize(head, action, reach);
    let request = TopicRequest::read(head, name, &context.config.limits);
    match request.map_err(TopicError::response)? {
        TopicRequest::Converse { accept, topic, mode, start } => {
            if mode.subscribes {
                may(Action::Subscribe(name))?;
            } else {
                may(Action::Publish(name))?;
            }
            let may_publish = mode.publishes && may(Action::Publish(name)).is_ok();
            let start = mode.subscribes.then_some(start);
            Ok(Plan::Upgrade(Opening::of_topic(accept, topic, start, may_publish)))
        }
        TopicRequest::Listen { topic, start } => {
            may(Action::Subscribe(name))?;
            Ok(Plan::Upgrade(Opening::of_events(topic, start)))
        }
        TopicRequest::Exchange(exchange) => {
            may(match exchange {
                Exchange::List { .. } => Action::Read(head.path()),
                Exchange::Read { .. } => Action::Subscribe(name),
                Exchange::Publish { .. } | Exchange::Clear { .. } => Action::Publish(name),
            })?;
            Ok(Plan::Ask(Question::Topic(exchange)))
        }
    }
}

/// Decides what a request of the administrator leads to.
///
/// # Errors
/// [`Refused`].
fn plan_errand(
    head: &RequestHead<'_>,
    admin_state: &Rc<AdminState>,
    reach: Reach,
    context: &Context,
) -> Result<Plan, Refused> {
    context.access.authorize(head, Action::Admin(head.path()), reach)?;
    match AdminRequest::read(head, &context.config.limits)? {
        AdminRequest::Listen => {
            Ok(Plan::Upgrade(Opening::of_stats(head.path(), admin_state.past())))
        }
        AdminRequest::Errand(errand) => Ok(Plan::Ask(Question::Admin(errand, admin_state.clone()))),
    }
}

/// [`ask`], boxed. No `async fn`, so that a build in which there is nothing to ask has no code for it.
fn asking<'a>(
    reader: &'a mut Reader,
    head_end: usize,
    question: Question,
    request: &'a mut Request,
    pace: &'a mut Pace,
    context: &'a Context,
) -> Pin<Box<dyn Future<Output = Option<Response>> + 'a>> {
    match Feature::Full.is_built_in() || Feature::Full.is_built_in() {
        true => Box::pin(ask(reader, head_end, question, request, pace, context)),
        false => Box::pin(future::ready(None)),
    }
}

/// Reads the request's body, if there is a use for it, and has done what is asked; `None` when nobody
/// waits for that.
async fn ask(
    reader: &mut Reader,
    head_end: usize,
    question: Question,
    request: &mut Request,
    pace: &mut Pace,
    context: &Context,
) -> Option<Response> {
    // Within the limit of a message.
    let body_bytes = if question.takes_body() { request.body_bytes as usize } else { 0 };
    let body = head_end..head_end + body_bytes;
    if question.expects_continue() && reader.bytes().len() < body.end {
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        if !write_all(reader, go_on, &context.config).await {
            reader.access_log().end("lost");
            return None;
        }
    }
    let timer = reader.transport().timer();
    let deadline = timer.sleep(context.config.timeouts.message);
    let reading = context.stop.unless_requested(reader.at_least(body.end));
    let refusal = match timer.until(deadline, reading).await {
        Some(Some(None)) => {
            reader.access_log().end("lost");
            return None;
        }
        Some(Some(Some(()))) => {
            if let Question::Topic(Exchange::Publish { .. }) = question
                && let Some(limit) = &context.access.publish_rate
                && let Err(wait) = limit.admit(request.peer, pace, timer.now())
            {
                context.count_refusal(Refusal::Rate);
                return Some(too_fast(wait));
            }
            return question.perform(&reader.bytes()[body], context).await.ok();
        }
        Some(None) => Response::text(503, "the server is stopping\n"),
        None => Response::text(408, "the message did not come in time\n"),
    };
    request.close = true;
    Some(refusal)
}

/// Tells a publisher to wait.
fn too_fast(wait: Duration) -> Response {
    let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
    Response::text(429, "too many messages a second\n").with_header("Retry-After", seconds)
}

/// Logs a head that is none, or breaks the rules.
async fn refuse_head(reader: &mut Reader, error: &HeadError, peer: Peer, context: &Context) {
    reader.access_log().end("refused");
    context.count_rejection(match error {
        HeadError::PlainHttp => Rejection::Tls,
        _ => Rejection::Head,
    });
    log::info!(target: "falconet::request", address = peer.to_string(); "refused: {error}");
    if let Some(response) = error.response() {
        refuse(reader, &response, &Envelope::last(SystemTime::now()), context).await;
    }
}

/// Says why not, if that is to be said, and goodbye.
async fn refuse(reader: &Reader, response: &Response, envelope: &Envelope, context: &Context) {
    if context.config.reject == Reject::Drop {
        return;
    }
    let response = response.encode(envelope);
    if write_all(reader, &response, &context.config).await {
        reader.transport().see_off(context.config.timeouts.linger).await;
    }
}

/// Answers a request; says whether the connection goes on.
async fn answer(
    reader: &mut Reader,
    response: &Response,
    file: Option<File>,
    mut request: Request,
    context: &Context,
) -> bool {
    let status = response.status();
    context.count_answer(status);
    // There will be no other that could be heard.
    request.close |= context.stop.is_requested();
    let is_dropped = status >= 400 && context.config.reject == Reject::Drop;
    request.log(status, if is_dropped { "dropped" } else { "answered" });
    let is_sent = !is_dropped && respond(reader, response, file, &request, &context.config).await;
    let closes = request.close;
    reader.access_log().note(request, status);
    match (is_sent, closes) {
        (true, false) => return true,
        (true, true) => {
            reader.access_log().end("closed by us");
            reader.transport().see_off(context.config.timeouts.linger).await;
        }
        (false, _) => reader.access_log().end(if is_dropped { "refused" } else { "lost" }),
    }
    false
}

/// Sends a response and the file that belongs to it; says whether it could.
async fn respond(
    reader: &Reader,
    response: &Response,
    file: Option<File>,
    request: &Request,
    config: &Config,
) -> bool {
    let envelope = request.envelope();
    let bytes = response.encode(&envelope);
    write_all(reader, &bytes, config).await
        && match file.filter(|_| envelope.body).zip(response.streamed_bytes()) {
            Some((file, length)) => sending_file(reader, file, length, config).await,
            None => true,
        }
}

/// [`send_file`], boxed. No `async fn`, so that a build that serves no files has no code for it.
fn sending_file<'a>(
    reader: &'a Reader,
    file: File,
    length: u64,
    config: &'a Config,
) -> Pin<Box<dyn Future<Output = bool> + 'a>> {
    match Feature::Full.is_built_in() {
        true => Box::pin(send_file(reader, file, length, config)),
        false => Box::pin(future::ready(false)),
    }
}

/// Sends so many bytes of a file, piece by piece; says whether there were so many and it could.
async fn send_file(reader: &Reader, file: File, length: u64, config: &Config) -> bool {
    let mut file = file.take(length);
    let mut left = length;
    let mut piece = vec![0; FILE_PIECE_BYTES];
    while left > 0 {
        // It waits for the disk, and everybody with it: for one piece, then others run.
        match file.read(&mut piece) {
            Ok(count) if count > 0 && write_all(reader, &piece[..count], config).await => {
                left -= count as u64;
            }
            _ => return false,
        }
        yield_now().await;
    }
    true
}

/// Writes everything within the write deadline; says whether it could.
async fn write_all(reader: &Reader, mut bytes: &[u8], config: &Config) -> bool {
    let writing = async {
        while !bytes.is_empty() {
            bytes = &bytes[reader.send(bytes).await?..];
        }
        io::Result::Ok(())
    };
    let timer = reader.transport().timer();
    matches!(timer.until(timer.sleep(config.timeouts.write), writing).await, Some(Ok(())))
}

const STOPPING: &str = "the server is stopping";
/// How much of a file is in memory at once.
const FILE_PIECE_BYTES: usize = 16 * 1024;
