//! The HTTP API on the administrator's listener.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Instant;

use futures_lite::future;

use crate::access::{Action, Gatekeeper, Refused};
use crate::counters::Source;
use crate::endpoints::events::EventUpgrade;
use crate::endpoints::topic::{self, Content, List, Publish, Read};
use crate::escaped::JsonString;
use crate::frame::{CloseCode, CloseReason};
use crate::http::response::JSON;
use crate::http::{RequestHead, Response};
use crate::hub::{Client, ClientKind, CorrelationId, Filter, TOPICS_PATH, TopicName};
use crate::resource::{Answering, Plan, Question, Requester, Resource};
use crate::ws::SessionShared;

use super::seconds::Seconds;
use super::state::AdminState;
use super::{dashboard, metrics};

/// The resource of the administrator's listener. It answers the requests for all paths there.
pub(crate) struct AdminApi {
    pub(crate) state: Rc<AdminState>,
    pub(crate) shared: Rc<SessionShared>,
}

impl Resource for AdminApi {
    fn plan(
        &self,
        head: &RequestHead<'_>,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Option<Plan>, Refused> {
        let (path, shared) = (head.path(), &self.shared);
        gatekeeper.may(Action::Admin(path))?;
        let allowed = allowed_methods(path)?;
        if !allowed.split(", ").any(|method| method == head.method()) {
            return Err(Response::other_method(head.method(), allowed).into());
        }
        Ok(Some(match path {
            "/" => Plan::Answer(dashboard::response().into()),
            // The liveness probe: any response shows that the event loop runs.
            "/healthz" => Plan::Answer(uncached(Response::text(200, "ok\n")).into()),
            "/readyz" => Plan::Answer(self.readiness().into()),
            "/events" => {
                let prologue = self.state.history_event();
                Plan::Upgrade(Box::new(EventUpgrade::of_stats(head, prologue, shared.clone())))
            }
            "/broadcast" => {
                let topic = TopicName::broadcast();
                Plan::Ask(Box::new(Publish::of(head, topic, Source::Admin, shared, &None)?))
            }
            "/topics" | TOPICS_PATH => Plan::Ask(Box::new(List::of(head, shared)?)),
            _ => match path.strip_prefix(TOPICS_PATH) {
                // Subscribing is possible on the public listeners only.
                Some(_) if topic::subscribes(head) => return Err(Response::not_found().into()),
                Some(_) => Plan::Ask(Box::new(Read::named(head, shared)?)),
                None => {
                    let (call, state) = (Call::of(head, shared)?, self.state.clone());
                    Plan::Ask(Box::new(AdminQuestion { call, state }))
                }
            },
        }))
    }
}

impl AdminApi {
    /// Returns the response of the readiness probe: 503 during a drain.
    fn readiness(&self) -> Response {
        match self.state.stop.is_requested() {
            false => uncached(Response::text(200, "ready\n")),
            true => Response::text(503, "draining\n"),
        }
    }
}

/// Returns the methods that are allowed at a path besides OPTIONS, as in an Allow header.
///
/// # Errors
/// The response 404, if nothing stands at the path.
fn allowed_methods(path: &str) -> Result<&'static str, Response> {
    Ok(match path {
        "/" | "/healthz" | "/readyz" | "/metrics" | "/topics" => "GET, HEAD",
        "/events" => "GET",
        "/broadcast" | "/drain" => "POST",
        "/clients" => "GET, HEAD, DELETE",
        _ if path.starts_with(TOPICS_PATH) => "GET, HEAD",
        _ if client_number(path).is_some() => "DELETE, POST",
        _ if path.starts_with(CLIENTS_PATH) => return Err(no_client()),
        _ => return Err(Response::not_found()),
    })
}

/// Returns the number of a client that a path names.
fn client_number(path: &str) -> Option<u64> {
    path.strip_prefix(CLIENTS_PATH)?.parse().ok()
}

/// A call of the API that needs the hub or changes something.
enum Call {
    Metrics,
    Clients,
    /// Closes the session of the client with this number.
    Evict(u64),
    /// Closes the sessions of all clients with this id.
    EvictAll(CorrelationId),
    /// Sends the request's body to the client with this number.
    Send {
        client: u64,
        content: Content,
    },
    /// Stops the server, as SIGTERM does.
    Drain,
}

impl Call {
    /// Reads a call from a request head, whose path and method are allowed.
    ///
    /// # Errors
    /// The response, if the call names no client.
    fn of(head: &RequestHead<'_>, shared: &SessionShared) -> Result<Self, Response> {
        match head.path() {
            "/metrics" => Ok(Self::Metrics),
            "/drain" => Ok(Self::Drain),
            "/clients" if head.method() == "DELETE" => {
                let id = head.query_value("client").and_then(CorrelationId::new);
                let expected = "expected /clients?client=ID or /clients/NUMBER\n";
                id.map(Self::EvictAll).ok_or_else(|| Response::text(400, expected))
            }
            "/clients" => Ok(Self::Clients),
            path => {
                let client = client_number(path).ok_or_else(no_client)?;
                if head.method() == "DELETE" {
                    return Ok(Self::Evict(client));
                }
                Ok(Self::Send { client, content: Content::of(head, &shared.config.limits)? })
            }
        }
    }
}

/// A call as a question. The state provides the answer.
struct AdminQuestion {
    call: Call,
    state: Rc<AdminState>,
}

impl Question for AdminQuestion {
    fn body_limit(&self) -> u64 {
        match self.call {
            Call::Send { content, .. } => content.body_limit(),
            _ => 0,
        }
    }

    fn expects_continue(&self) -> bool {
        matches!(self.call, Call::Send { content, .. } if content.expects_continue())
    }

    fn answer<'a>(self: Box<Self>, body: &'a [u8], _: Requester<'a>) -> Answering<'a> {
        Box::pin(async move {
            let (state, hub) = (&*self.state, &self.state.hub);
            Ok(match &self.call {
                Call::Metrics => {
                    let page = metrics::page(state, &hub.stats().await?);
                    uncached(Response::new(200, METRICS, page.into_bytes()))
                }
                Call::Clients => {
                    let list = list(&hub.clients().await?, state.now()).await;
                    uncached(Response::new(200, JSON, list.into_bytes()))
                }
                Call::Evict(number) => {
                    evicted(usize::from(hub.evict_number(*number, EVICTED).await?))
                }
                Call::EvictAll(id) => evicted(hub.evict_all(id, EVICTED).await?),
                Call::Send { client, content } => {
                    let frame = content.frame(body).await;
                    sent(hub.send_to_number(*client, frame).await?)
                }
                Call::Drain => {
                    state.stop.request();
                    Response::text(202, "draining\n")
                }
            })
        })
    }
}

/// Encodes the list of clients as JSON, one client per line, without the administrator's event streams.
async fn list(clients: &[Rc<Client>], now: Instant) -> String {
    let mut list = String::from("[");
    let shown = clients.iter().filter(|client| client.kind != ClientKind::Admin);
    for (count, client) in shown.enumerate() {
        if count > 0 {
            list.push_str(",\n ");
        }
        push_client(&mut list, client, now);
        if count % CLIENTS_PER_TURN == CLIENTS_PER_TURN - 1 {
            future::yield_now().await;
        }
    }
    list + "]\n"
}

/// Appends one client as JSON.
fn push_client(list: &mut String, client: &Client, now: Instant) {
    // Writing to a string never fails.
    let [received, sent, lagged] = client.counts();
    let _ = write!(
        list,
        r#"{{"id":{},"correlation":"{}","address":"{}","kind":"{}","topic":{},"path":{},"#,
        client.id(),
        client.correlation,
        client.peer(),
        client.kind.as_str(),
        JsonString(&topics_of(client)),
        JsonString(&client.path()),
    );
    let _ = write!(
        list,
        r#""age_seconds":{},"last_seen_seconds":{},"received":{received},"sent":{sent},"lagged":{lagged},"behind":{}}}"#,
        Seconds(client.age(now)),
        Seconds(client.silence(now)),
        client.behind(),
    );
}

/// Returns the filter of a client as text; several in the form that they have in a URL, in which only commas
/// between them are not encoded.
fn topics_of(client: &Client) -> String {
    let filters: Vec<Filter> = client.filters().collect();
    match &filters[..] {
        [filter] => filter.as_str().to_owned(),
        filters => filters.iter().map(Filter::encoded).collect::<Vec<_>>().join(","),
    }
}

fn evicted(count: usize) -> Response {
    match count {
        0 => no_client(),
        _ => Response::new(200, JSON, format!("{{\"evicted\":{count}}}\n").into_bytes()),
    }
}

/// Returns the response to a message for one client. `is_sent` is `None` if there is no such client.
fn sent(is_sent: Option<bool>) -> Response {
    match is_sent {
        Some(true) => Response::new(202, JSON, &b"{\"sent\":1}\n"[..]),
        Some(false) => Response::text(503, "the client does not read the messages sent before\n"),
        None => no_client(),
    }
}

fn no_client() -> Response {
    Response::text(404, "no such client\n")
}

/// Adds the header that forbids caches to store a response.
fn uncached(response: Response) -> Response {
    response.with_header("Cache-Control", "no-store")
}

/// The path below which the clients are.
const CLIENTS_PATH: &str = "/clients/";
/// The media type of Prometheus's text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const EVICTED: CloseReason = CloseReason::new(CloseCode::Policy, "evicted by the administrator");
/// The number of clients that are encoded before other tasks run.
const CLIENTS_PER_TURN: usize = 256;
