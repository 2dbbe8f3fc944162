//! The administrator's requests.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Instant;

use futures_lite::future;

use crate::config::Limits;
use crate::counters::{Counters, Source};
use crate::endpoints::topic::{Content, Exchange, JSON, TopicError, TopicRequest};
use crate::http::{RequestHead, Response};
use crate::hub::{Client, ClientKind, CorrelationId, HubGone, HubStats, TopicName};
use crate::ws::frame::{CloseCode, CloseReason};

use super::{AdminState, Seconds, dashboard, metrics};

/// What a request of the administrator wants.
#[derive(Debug)]
pub(crate) enum AdminRequest {
    /// To hear how things are, as server-sent events.
    Listen,
    /// One exchange.
    Errand(Errand),
}

/// What the administrator can have or have done in one exchange.
#[derive(Debug)]
pub(crate) enum Errand {
    Dashboard,
    /// Whether the loop turns; who is answered knows.
    Health,
    /// Whether others may be sent here.
    Readiness,
    Metrics,
    Clients,
    /// To close the client of this number.
    Evict(u64),
    /// To close all clients of this id.
    EvictAll(CorrelationId),
    /// To send the body to the client of this number.
    Send {
        client: u64,
        content: Content,
        expects_continue: bool,
    },
    /// What can be done with topics.
    Topic(Exchange),
    /// To stop, as on SIGTERM.
    Drain,
}

impl AdminRequest {
    /// Reads what a request wants.
    ///
    /// # Errors
    /// The response that says what would be right.
    pub(crate) fn read(head: &RequestHead<'_>, limits: &Limits) -> Result<Self, Response> {
        let path = head.path();
        let errand = match path {
            "/events" => {
                expect(head, &["GET"], "GET")?;
                return Ok(Self::Listen);
            }
            "/broadcast" => {
                expect(head, &["POST"], "POST")?;
                Errand::Topic(read_topic(head, "broadcast", limits)?)
            }
            "/drain" => {
                expect(head, &["POST"], "POST")?;
                Errand::Drain
            }
            "/clients" if head.method() == "DELETE" => {
                let id = head.query_value("client").and_then(CorrelationId::new);
                let expected = "expected /clients?client=ID or /clients/NUMBER\n";
                Errand::EvictAll(id.ok_or_else(|| Response::text(400, expected))?)
            }
            "/clients" => {
                expect(head, &["GET", "HEAD"], "GET, HEAD, DELETE")?;
                Errand::Clients
            }
            _ => match path.strip_prefix("/clients/") {
                Some(number) => read_client_errand(head, number, limits)?,
                None => read_view(head, limits)?,
            },
        };
        Ok(Self::Errand(errand))
    }
}

/// Reads what a request wants that can only look.
fn read_view(head: &RequestHead<'_>, limits: &Limits) -> Result<Errand, Response> {
    let path = head.path();
    let errand = match path {
        "/" => Errand::Dashboard,
        "/healthz" => Errand::Health,
        "/readyz" => Errand::Readiness,
        "/metrics" => Errand::Metrics,
        _ => {
            let name = match path {
                "/topics" => "",
                _ => path.strip_prefix("/topics/").ok_or_else(not_found)?,
            };
            expect(head, &["GET", "HEAD"], "GET, HEAD")?;
            return Ok(Errand::Topic(read_topic(head, name, limits)?));
        }
    };
    expect(head, &["GET", "HEAD"], "GET, HEAD")?;
    Ok(errand)
}

/// Reads what is to be done with one client.
fn read_client_errand(
    head: &RequestHead<'_>,
    number: &str,
    limits: &Limits,
) -> Result<Errand, Response> {
    let client = number.parse().map_err(|_| no_client())?;
    expect(head, &["DELETE", "POST"], "DELETE, POST")?;
    if head.method() == "DELETE" {
        return Ok(Errand::Evict(client));
    }
    let (content, expects_continue) = Content::read(head, limits).map_err(TopicError::response)?;
    Ok(Errand::Send { client, content, expects_continue })
}

fn read_topic(head: &RequestHead<'_>, name: &str, limits: &Limits) -> Result<Exchange, Response> {
    match TopicRequest::read(head, name, limits).map_err(TopicError::response)? {
        TopicRequest::Exchange(exchange) => Ok(exchange),
        // Subscribers have the public listeners.
        TopicRequest::Converse { .. } | TopicRequest::Listen { .. } => Err(not_found()),
    }
}

/// Refuses what is none of `methods`.
fn expect(head: &RequestHead<'_>, methods: &[&str], allow: &'static str) -> Result<(), Response> {
    if methods.contains(&head.method()) {
        return Ok(());
    }
    Err(Response::text(405, "method not allowed here\n").with_header("Allow", allow))
}

impl Errand {
    /// Whether the request's body is for it.
    pub(crate) fn takes_body(&self) -> bool {
        match self {
            Self::Send { .. } => true,
            Self::Topic(exchange) => exchange.takes_body(),
            _ => false,
        }
    }

    /// Whether the client waits for a word before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        match self {
            Self::Send { expects_continue, .. } => *expects_continue,
            Self::Topic(exchange) => exchange.expects_continue(),
            _ => false,
        }
    }

    /// Does it. `body` is the request's, if it has one.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    pub(crate) async fn perform(
        self,
        body: &[u8],
        admin_state: &AdminState,
    ) -> Result<Response, HubGone> {
        Ok(match self {
            Self::Dashboard => dashboard::response(),
            Self::Health => fresh(Response::text(200, "ok\n")),
            Self::Readiness => fresh(match admin_state.stop.is_requested() {
                false => Response::text(200, "ready\n"),
                true => Response::text(503, "draining\n"),
            }),
            Self::Metrics => {
                let page = metrics::page(admin_state, &admin_state.hub.stats().await?);
                fresh(Response::new(200, METRICS, page.into_bytes()))
            }
            Self::Clients => {
                let clients = admin_state.hub.clients().await?;
                let list = list(&clients, admin_state.stop.timer().now()).await;
                fresh(Response::new(200, JSON, list.into_bytes()))
            }
            Self::Evict(number) => match admin_state.hub.find(number).await? {
                Some(id) => evicted(usize::from(admin_state.hub.evict(id, EVICTED).await?)),
                None => no_client(),
            },
            Self::EvictAll(id) => evicted(admin_state.hub.evict_all(&id, EVICTED).await?),
            Self::Send { client, content, .. } => match admin_state.hub.find(client).await? {
                Some(id) => sent(admin_state.hub.send_frame(id, content.frame(body)).await?),
                None => no_client(),
            },
            Self::Topic(exchange) => {
                exchange.perform(body, Source::Admin, &admin_state.hub).await?
            }
            Self::Drain => {
                admin_state.stop.request();
                Response::text(202, "draining\n")
            }
        })
    }
}

/// How many connections are with requests, or between two.
pub(super) fn http_connections(counters: &Counters, stats: &HubStats) -> usize {
    let others = counters.admin_connections.now() + stats.websocket + stats.events;
    // The hub hears a moment later of who has left.
    counters.connections.now().saturating_sub(others)
}

/// The clients as JSON, one a line, but not who looks at this.
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

/// Writing to a string can't fail.
fn push_client(list: &mut String, client: &Client, now: Instant) {
    let [received, sent, lagged] = client.counts();
    let _ = write!(
        list,
        r#"{{"id":{},"correlation":"{}","address":"{}","kind":"{}","topic":"{}","path":"#,
        client.id(),
        client.correlation,
        client.peer(),
        client.kind.as_str(),
        client.topic().map_or("", TopicName::as_str),
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

/// A text as JSON (RFC 8259 §7).
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
        false => Response::text(503, "it does not read what it was sent before\n"),
    }
}

fn no_client() -> Response {
    Response::text(404, "nobody is called so\n")
}

fn not_found() -> Response {
    Response::text(404, "nothing here that you accept\n")
}

/// What is true now and for nobody's cache.
fn fresh(response: Response) -> Response {
    response.with_header("Cache-Control", "no-store")
}

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const EVICTED: CloseReason = CloseReason::new(CloseCode::Policy, "evicted by the administrator");
/// How many clients are written before others run.
const CLIENTS_PER_TURN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_json_whatever_is_in_it() {
        let mut json = String::new();
        push_json(&mut json, "/a\"b\\c\n\u{e9}");
        assert_eq!(json, "\"/a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
