//! The client's side of HTTP/1.1: connections and successive requests (RFC 9112).

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

/// A connection for successive requests.
pub(crate) struct HttpConnection {
    transport: Transport,
    timer: Timer,
    received: Vec<u8>,
    is_request_sent: bool,
}

impl HttpConnection {
    /// Connects to the first address of the server that accepts the connection. If the URL requires TLS,
    /// performs the handshake and verifies the certificate.
    ///
    /// # Errors
    /// [`Refusal`], if no address accepts the connection within 5 s, or TLS fails.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the connection is closed.
    pub(crate) async fn open(server: &Server, reactor: &Rc<Reactor>) -> Result<Self, Refusal> {
        let Server { url, trust, .. } = server;
        let timer = Timer::new(reactor);
        let mut transport = connect(url, reactor, &timer).await?;
        if let Some(host) = url.address.tls_host() {
            transport = secure(transport, host, url, trust, &timer).await?;
        }
        Ok(Self { transport, timer, received: Vec::new(), is_request_sent: false })
    }

    /// Sends a request, with the token if there is one, and reads the head of the response. The response may
    /// come before the whole request is sent.
    ///
    /// # Errors
    /// [`RequestError`], also if the server accepts no data for 5 s or does not respond within 5 s.
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

    /// Reads the body of `response`: at most 1 KiB, for at most half a second.
    pub(crate) async fn body(&mut self, response: &Response) -> Vec<u8> {
        let wanted = response.body_bytes().unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
        let Self { transport, timer, received, .. } = self;
        let reading = async {
            while received.len() < wanted && receive(transport, received).await.is_ok() {}
        };
        timer.until(timer.sleep(Some(BODY_TIMEOUT)), reading).await;
        received.drain(..wanted.min(received.len())).collect()
    }

    /// Returns true if another request may be sent: the last one is completely sent, and the server has neither
    /// closed the connection nor sent anything else.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let is_silent =
            poll_fn(|cx| Poll::Ready(self.transport.poll_recv(cx, &mut [0]).is_pending()));
        self.is_request_sent && self.received.is_empty() && is_silent.await
    }

    /// Returns the transport, for another protocol, and the bytes that came after the last response.
    pub(crate) fn into_parts(self) -> (Transport, Vec<u8>) {
        (self.transport, self.received)
    }
}

async fn connect(url: &Url, reactor: &Rc<Reactor>, timer: &Timer) -> Result<Transport, Refusal> {
    if let ListenUrl::Unix(path) = &url.address {
        let connecting = Transport::connect_unix(reactor, path);
        let deadline = timer.sleep(Some(CONNECT_TIMEOUT));
        let connected = timer.until(deadline, connecting).await.unwrap_or_else(timed_out);
        return connected.map_err(|error| Refusal::temporary(format!("{url}: {error}")));
    }
    // The resolver blocks, up to the timeout in resolv.conf. No other task has work at this point.
    let addresses = url.address.resolve().or_else(|_| look_up(&url.address));
    let addresses = addresses.map_err(|error| Refusal::temporary(format!("{url}: {error}")))?;
    let mut failures = Vec::new();
    for address in addresses {
        let connecting = Transport::connect_tcp(reactor, address);
        let deadline = timer.sleep(Some(CONNECT_TIMEOUT));
        match timer.until(deadline, connecting).await.unwrap_or_else(timed_out) {
            Ok(transport) => return Ok(transport),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(Refusal::temporary(failures.join("; ")))
}

/// Looks up the addresses of a server with the resolver of the host.
fn look_up(address: &ListenUrl) -> io::Result<Vec<SocketAddr>> {
    match address {
        ListenUrl::Http { host, port } | ListenUrl::Https { host, port } => {
            Ok((host.as_str(), *port).to_socket_addrs()?.collect())
        }
        ListenUrl::Unix(_) | ListenUrl::Systemd => Ok(Vec::new()),
    }
}

/// Performs the TLS handshake on a connection.
async fn secure(
    transport: Transport,
    host: &str,
    url: &Url,
    trust: &Trust,
    timer: &Timer,
) -> Result<Transport, Refusal> {
    let connector = Connector::new(trust).map_err(|error| Refusal::permanent(error.to_string()))?;
    let deadline = timer.sleep(Some(CONNECT_TIMEOUT));
    let secured = timer.until(deadline, transport.secure(&connector, host)).await;
    secured.unwrap_or_else(timed_out).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Refusal::permanent(format!(
            "{url}: {}; use --ca FILE to trust its issuer, or --insecure to skip verification",
            escaped(&error.to_string())
        )),
        _ => Refusal::temporary(format!("{url}: TLS: {error}")),
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

/// Sends all `bytes`. Returns early without an error if the connection is closed.
async fn send(transport: &Transport, timer: &Timer, mut bytes: &[u8]) -> Result<(), RequestError> {
    while !bytes.is_empty() {
        let sending = poll_fn(|cx| transport.poll_send(cx, &[IoSlice::new(bytes)]));
        let deadline = timer.sleep(Some(RESPONSE_TIMEOUT));
        match timer.until(deadline, sending).await.ok_or(RequestError::Late)? {
            Ok(sent) => bytes = &bytes[sent..],
            // The server may have sent a response before it closed the connection. It must still be read.
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
            .map_err(|error| RequestError::Invalid(format!("the response is not HTTP: {error}")))?;
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

/// Appends bytes from the server to `received`.
///
/// # Errors
/// [`io::Error`], also if the server closed the connection.
async fn receive(transport: &Transport, received: &mut Vec<u8>) -> io::Result<()> {
    let before = received.len();
    poll_fn(|cx| transport.poll_recv_with(cx, |bytes| received.extend_from_slice(bytes))).await?;
    if received.len() == before {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ));
    }
    Ok(())
}

/// The error that a request got no response.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The connection ended before the first byte of a response.
    Unanswered(io::Error),
    /// The connection ended within the head of the response.
    Broken(io::Error),
    /// A deadline passed.
    Late,
    /// The response is not valid HTTP.
    Invalid(String),
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unanswered(error) | RequestError::Broken(error) => {
                Self::temporary(format!("the connection broke before the response: {error}"))
            }
            RequestError::Late => Self::temporary("no response within 5 s"),
            RequestError::Invalid(reason) => Self::permanent(reason),
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Short, because the body only contains the reason of a status.
const BODY_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_BODY_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    #[test]
    fn a_request_head_has_its_fields_between_host_and_user_agent() {
        let url: Url = "ws://pi:8080/chat?room=1".parse().unwrap();
        let token = Token::in_environment(Some("secret".as_ref())).unwrap();
        let mut server = Server { url, trust: Trust::default(), token };
        let with_token = head("GET", &server, &[("Upgrade", "websocket"), ("A", "b")]);
        server.token = None;
        let head = head("GET", &server, &[("Upgrade", "websocket"), ("A", "b")]);
        let begin = "GET /chat?room=1 HTTP/1.1\r\nHost: pi:8080\r\nUpgrade: websocket\r\nA: b\r\n";
        assert!(head.starts_with(begin) && head.ends_with("\r\n\r\n"), "{head}");
        let begin = format!("{begin}Authorization: Bearer secret\r\nUser-Agent: ");
        assert!(with_token.starts_with(&begin), "{with_token}");
        assert!(!head.contains("Authorization"), "{head}");
    }
}
