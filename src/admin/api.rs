//! The HTTP API on the administrator's listener.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Instant;

use futures_lite::future;

use crate::access::{Action, Gatekeeper, Refused};
use crate::counters::Source;
use crate::endpoints::events::EventUpgrade;
use crate::endpoints::topic::{self, Content, List, Publish, Read};
use crate::frame::{CloseCode, CloseReason};
use crate::http::response::JSON;
use crate::http::{RequestHead, Response};
use crate::hub::{Client, ClientKind, CorrelationId, HubGone, TopicName};
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
        let path = head.path();
        gatekeeper.may(Action::Admin(path))?;
        let shared = &self.shared;
        Ok(Some(match path {
            "/events" => {
                expect(head, "GET")?;
                let prologue = self.state.history_event();
                Plan::Upgrade(Box::new(EventUpgrade::of_stats(path, prologue, shared.clone())))
            }
            "/broadcast" => {
                expect(head, "POST")?;
                let topic = TopicName::broadcast();
                Plan::Ask(Box::new(Publish::of(head, topic, Source::Admin, shared, &None)?))
            }
            "/topics" => Plan::Ask(Box::new(List::of(head, shared)?)),
            _ => match path.strip_prefix("/topics/") {
                Some(name) => Plan::Ask(self.plan_topic(head, name)?),
                None => Plan::Ask(Box::new(AdminQuestion {
                    call: Call::of(head, shared)?,
                    state: self.state.clone(),
                })),
            },
        }))
    }
}

impl AdminApi {
    /// Plans a request for the list of topics, or for one topic. Here, a topic can only be read.
    fn plan_topic(&self, head: &RequestHead<'_>, name: &str) -> Result<Box<dyn Question>, Refused> {
        expect(head, "GET, HEAD")?;
        match name {
            "" => Ok(Box::new(List::of(head, &self.shared)?)),
            // Subscribing is possible on the public listeners only.
            _ if topic::subscribes(head) => Err(Response::not_found().into()),
            _ => Ok(Box::new(Read::named(head, name, &self.shared)?)),
        }
    }
}

/// A request to the API, and the state that the answer comes from.
struct AdminQuestion {
    call: Call,
    state: Rc<AdminState>,
}

/// The calls of the API, without those that the resources of topics answer.
enum Call {
    Dashboard,
    /// The liveness probe: any response shows that the event loop runs.
    Health,
    /// The readiness probe: the response is 503 during a drain.
    Readiness,
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
    /// Reads a call from a request head.
    ///
    /// # Errors
    /// The response, if there is no such call or the method is not allowed.
    fn of(head: &RequestHead<'_>, shared: &SessionShared) -> Result<Self, Response> {
        let read = |call| expect(head, "GET, HEAD").map(|()| call);
        match head.path() {
            "/" => read(Self::Dashboard),
            "/healthz" => read(Self::Health),
            "/readyz" => read(Self::Readiness),
            "/metrics" => read(Self::Metrics),
            "/drain" => expect(head, "POST").map(|()| Self::Drain),
            "/clients" if head.method() == "DELETE" => {
                let id = head.query_value("client").and_then(CorrelationId::new);
                let expected = "expected /clients?client=ID or /clients/NUMBER\n";
                id.map(Self::EvictAll).ok_or_else(|| Response::text(400, expected))
            }
            "/clients" => {
                expect(head, "GET, HEAD, DELETE")?;
                Ok(Self::Clients)
            }
            path => {
                let number = path.strip_prefix("/clients/").ok_or_else(Response::not_found)?;
                let client = number.parse().map_err(|_| no_client())?;
                expect(head, "DELETE, POST")?;
                match head.method() {
                    "DELETE" => Ok(Self::Evict(client)),
                    _ => {
                        let content = Content::of(head, &shared.config.limits)?;
                        Ok(Self::Send { client, content })
                    }
                }
            }
        }
    }
}

/// Checks the method of a request. `allowed` is a list as in an Allow header.
///
/// # Errors
/// The response 405, if the method is not in the list.
fn expect(head: &RequestHead<'_>, allowed: &'static str) -> Result<(), Response> {
    match allowed.split(", ").any(|method| method == head.method()) {
        true => Ok(()),
        false => Err(Response::method_not_allowed(allowed)),
    }
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
        Box::pin(async move { self.call.answer(body, &self.state).await })
    }
}

impl Call {
    async fn answer(self, body: &[u8], state: &AdminState) -> Result<Response, HubGone> {
        let hub = &state.hub;
        Ok(match self {
            Self::Dashboard => dashboard::response(),
            Self::Health => uncached(Response::text(200, "ok\n")),
            Self::Readiness => uncached(match state.stop.is_requested() {
                false => Response::text(200, "ready\n"),
                true => Response::text(503, "draining\n"),
            }),
            Self::Metrics => {
                let page = metrics::page(state, &hub.stats().await?);
                uncached(Response::new(200, METRICS, page.into_bytes()))
            }
            Self::Clients => {
                let list = list(&hub.clients().await?, state.now()).await;
                uncached(Response::new(200, JSON, list.into_bytes()))
            }
            Self::Evict(number) => match hub.find(number).await? {
                Some(id) => evicted(usize::from(hub.evict(id, EVICTED).await?)),
                None => no_client(),
            },
            Self::EvictAll(id) => evicted(hub.evict_all(&id, EVICTED).await?),
            Self::Send { client, content } => match hub.find(client).await? {
                Some(id) => sent(hub.send_frame(id, content.frame(body)).await?),
                None => no_client(),
            },
            Self::Drain => {
                state.stop.request();
                Response::text(202, "draining\n")
            }
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
        r#"{{"id":{},"correlation":"{}","address":"{}","kind":"{}","topic":"{}","path":"#,
        client.id(),
        client.correlation,
        client.peer(),
        client.kind.as_str(),
        client.topics().next().map_or("", TopicName::as_str),
    );
    push_json(list, &client.path());
    let _ = write!(
        list,
        r#","age_seconds":{},"last_seen_seconds":{},"received":{received},"sent":{sent},"lagged":{lagged},"behind":{}}}"#,
        Seconds(client.age(now)),
        Seconds(client.silence(now)),
        client.behind(),
    );
}

/// Appends a text as a JSON string (RFC 8259 §7).
fn push_json(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..' ' => _ = write!(json, "\\u{:04x}", u32::from(character)),
            _ => json.push(character),
        }
    }
    json.push('"');
}

fn evicted(count: usize) -> Response {
    match count {
        0 => no_client(),
        _ => Response::new(200, JSON, format!("{{\"evicted\":{count}}}\n").into_bytes()),
    }
}

fn sent(is_sent: bool) -> Response {
    match is_sent {
        true => Response::new(202, JSON, &b"{\"sent\":1}\n"[..]),
        false => Response::text(503, "the client does not read the messages sent before\n"),
    }
}

fn no_client() -> Response {
    Response::text(404, "no such client\n")
}

/// Adds the header that forbids caches to store a response.
fn uncached(response: Response) -> Response {
    response.with_header("Cache-Control", "no-store")
}

/// The media type of Prometheus's text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const EVICTED: CloseReason = CloseReason::new(CloseCode::Policy, "evicted by the administrator");
/// The number of clients that are encoded before other tasks run.
const CLIENTS_PER_TURN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_characters_becomes_a_json_string() {
        let mut json = String::new();
        push_json(&mut json, "/a\"b\\c\n\u{e9}");
        assert_eq!(json, "\"/a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
