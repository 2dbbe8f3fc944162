//! HTTP/1.1, the client's side: connecting, and one request after the other (RFC 9112).

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use falconet::net::{Connector, ListenUrl, Reactor, Timer, Transport, Trust};
use futures_lite::future;

use crate::options::Server;
use crate::response::{Refusal, Response};
use crate::screen::escaped;
use crate::url::Url;

/// A connection for one request after the other.
pub(crate) struct HttpConnection {
    transport: Transport,
    timer: Timer,
    received: Vec<u8>,
    is_request_sent: bool,
}

impl HttpConnection {
    /// Connects to the first address of the server that answers, and over TLS if the URL says so and
    /// whom we trust allows it.
    ///
    /// # Errors
    /// [`Refusal`], also when an address has not answered within 5 s.
    ///
    /// # Cancel safety
    /// Dropped early, the attempt is given up.
    pub(crate) async fn open(server: &Server, reactor: &Rc<Reactor>) -> Result<Self, Refusal> {
        let Server { url, trust, .. } = server;
        let timer = Timer::new(reactor);
        let mut transport = connect(url, reactor, &timer).await?;
        if let Some(host) = url.address.tls_host() {
            transport = secure(transport, host, url, trust, &timer).await?;
        }
        Ok(Self { transport, timer, received: Vec::new(), is_request_sent: false })
    }

    /// Sends a request, with the token if there is one, and reads the head of the response, which may come before all is sent.
    ///
    /// # Errors
    /// [`RequestError`], also when the server has taken nothing for 5 s or not answered within 5 s.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        server: &Server,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, RequestError> {
        let Self { transport, timer, received, is_request_sent } = self;
        *is_request_sent = false;
        let bytes = [head(method, server, fields).as_bytes(), body].concat();
        let answered = read_response(transport, received);
        let overdue = async {
            send(transport, timer, &bytes).await?;
            *is_request_sent = true;
            timer.sleep(Some(RESPONSE_TIMEOUT)).await;
            Err(RequestError::Late)
        };
        future::or(answered, overdue).await
    }

    /// Reads what follows the head of `response`: at most 1 KiB, for at most half a second.
    pub(crate) async fn body(&mut self, response: &Response) -> Vec<u8> {
        let wanted = response.body_bytes().unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
        let Self { transport, timer, received, .. } = self;
        let reading = async {
            while received.len() < wanted && receive(transport, received).await.is_ok() {}
        };
        timer.until(timer.sleep(Some(BODY_TIMEOUT)), reading).await;
        received.drain(..wanted.min(received.len())).collect()
    }

    /// Whether another request may be sent: the last one was, and the server has neither hung up nor
    /// said anything unasked, as far as is known.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let is_silent =
            poll_fn(|cx| Poll::Ready(self.transport.poll_recv(cx, &mut [0]).is_pending()));
        self.is_request_sent && self.received.is_empty() && is_silent.await
    }

    /// Gives the connection to another protocol, with the bytes that came after the last response.
    pub(crate) fn into_parts(self) -> (Transport, Vec<u8>) {
        (self.transport, self.received)
    }
}

async fn connect(url: &Url, reactor: &Rc<Reactor>, timer: &Timer) -> Result<Transport, Refusal> {
    if let ListenUrl::Unix(path) = &url.address {
        let connecting = Transport::connect_unix(reactor, path);
        let deadline = timer.sleep(Some(CONNECT_TIMEOUT));
        let connected = timer.until(deadline, connecting).await.unwrap_or_else(timed_out);
        return connected.map_err(|error| Refusal::passing(format!("{url}: {error}")));
    }
    // The resolver blocks, for as long as resolv.conf lets it. There is nothing else to do yet.
    let addresses = url.address.resolve().or_else(|_| look_up(&url.address));
    let addresses = addresses.map_err(|error| Refusal::passing(format!("{url}: {error}")))?;
    let mut failures = Vec::new();
    for address in addresses {
        let connecting = Transport::connect_tcp(reactor, address);
        let deadline = timer.sleep(Some(CONNECT_TIMEOUT));
        match timer.until(deadline, connecting).await.unwrap_or_else(timed_out) {
            Ok(transport) => return Ok(transport),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(Refusal::passing(failures.join("; ")))
}

/// Asks the resolver of the host for a server's addresses.
fn look_up(address: &ListenUrl) -> io::Result<Vec<SocketAddr>> {
    match address {
        ListenUrl::Http { host, port } | ListenUrl::Https { host, port } => {
            Ok((host.as_str(), *port).to_socket_addrs()?.collect())
        }
        ListenUrl::Unix(_) | ListenUrl::Systemd => Ok(Vec::new()),
    }
}

/// Speaks TLS on a connection.
async fn secure(
    transport: Transport,
    host: &str,
    url: &Url,
    trust: &Trust,
    timer: &Timer,
) -> Result<Transport, Refusal> {
    let connector = Connector::new(trust).map_err(|error| Refusal::lasting(error.to_string()))?;
    let deadline = timer.sleep(Some(CONNECT_TIMEOUT));
    let secured = timer.until(deadline, transport.secure(&connector, host)).await;
    secured.unwrap_or_else(timed_out).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Refusal::lasting(format!(
            "{url}: {}; --ca FILE says who is trusted, --insecure trusts anybody",
            escaped(&error.to_string())
        )),
        _ => Refusal::passing(format!("{url}: TLS: {error}")),
    })
}

fn timed_out<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within 5 s"))
}

fn head(method: &str, server: &Server, fields: &[(&str, &str)]) -> String {
    let Server { url, token, .. } = server;
    let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", url.target, url.host);
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(token) = token {
        head += &format!("Authorization: {}\r\n", token.authorization());
    }
    head + concat!("User-Agent: falconet-client/", env!("CARGO_PKG_VERSION"), "\r\n\r\n")
}

/// Sends all `bytes`, unless the connection is over.
async fn send(transport: &Transport, timer: &Timer, mut bytes: &[u8]) -> Result<(), RequestError> {
    while !bytes.is_empty() {
        let sending = poll_fn(|cx| transport.poll_send(cx, &[IoSlice::new(bytes)]));
        let deadline = timer.sleep(Some(RESPONSE_TIMEOUT));
        match timer.until(deadline, sending).await.ok_or(RequestError::Late)? {
            Ok(sent) => bytes = &bytes[sent..],
            // What the server said before is still to be read, perhaps why it hung up.
            Err(_) => break,
        }
    }
    Ok(())
}

async fn read_response(
    transport: &Transport,
    received: &mut Vec<u8>,
) -> Result<Response, RequestError> {
    loop {
        let parsed = Response::parse(received)
            .map_err(|error| RequestError::Invalid(format!("that is not HTTP: {error}")))?;
        match parsed {
            Some((response, head_bytes)) => {
                received.drain(..head_bytes);
                return Ok(response);
            }
            None if received.len() > MAX_HEAD_BYTES => {
                return Err(RequestError::Invalid("the response head is too long".to_owned()));
            }
            None => receive(transport, received).await.map_err(|error| {
                if received.is_empty() {
                    RequestError::Unanswered(error)
                } else {
                    RequestError::Broken(error)
                }
            })?,
        }
    }
}

/// Reads some more.
async fn receive(transport: &Transport, received: &mut Vec<u8>) -> io::Result<()> {
    let before = received.len();
    poll_fn(|cx| transport.poll_recv_with(cx, |bytes| received.extend_from_slice(bytes))).await?;
    if received.len() == before {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up"));
    }
    Ok(())
}

/// Why a request got no response.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The server hung up before the first byte of one.
    Unanswered(io::Error),
    /// The connection broke in the middle of one.
    Broken(io::Error),
    /// None came in time.
    Late,
    /// What came is none.
    Invalid(String),
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unanswered(error) | RequestError::Broken(error) => {
                Self::passing(format!("the connection broke before the response: {error}"))
            }
            RequestError::Late => Self::passing("no response within 5 s"),
            RequestError::Invalid(why) => Self::lasting(why),
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A reason is worth a little patience only.
const BODY_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_BODY_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    #[test]
    fn a_request_head_has_its_fields_between_host_and_agent() {
        let url: Url = "ws://pi:8080/chat?room=1".parse().unwrap();
        let token = Token::in_environment(Some("secret".as_ref())).unwrap();
        let mut server = Server { url, trust: Trust::default(), token };
        let shown = head("GET", &server, &[("Upgrade", "websocket"), ("A", "b")]);
        server.token = None;
        let head = head("GET", &server, &[("Upgrade", "websocket"), ("A", "b")]);
        let begin = "GET /chat?room=1 HTTP/1.1\r\nHost: pi:8080\r\nUpgrade: websocket\r\nA: b\r\n";
        assert!(head.starts_with(begin) && head.ends_with("\r\n\r\n"), "{head}");
        let begin = format!("{begin}Authorization: Bearer secret\r\nUser-Agent: ");
        assert!(shown.starts_with(&begin) && !head.contains("Authorization"), "{shown}");
    }
}
