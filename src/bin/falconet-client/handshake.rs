//! Connecting, and the client's half of the opening handshake (RFC 6455 §4.1).

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use falconet::net::{ListenUrl, Reactor, Timer, Transport};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::options::Url;
use crate::screen::escaped;

/// Connects to the server and asks it to speak WebSocket. Returns the connection and the bytes that
/// came after the response head.
///
/// # Errors
/// [`Refusal`], also when a deadline of 5 s for the connection or 5 s for the response has passed.
///
/// # Cancel safety
/// Dropped early, the attempt is given up.
pub(crate) async fn open(
    url: &Url,
    reactor: &Rc<Reactor>,
) -> Result<(Transport, Vec<u8>), Refusal> {
    let timer = Timer::new(reactor);
    let transport = connect(url, reactor, &timer).await?;
    let asked = ask(url, &transport, &timer);
    let deadline = timer.sleep(Some(HANDSHAKE_TIMEOUT));
    let late = || Refusal::passing("no response within 5 s");
    let early = timer.until(deadline, asked).await.ok_or_else(late)??;
    Ok((transport, early))
}

/// Connects to the first address of the server that answers.
async fn connect(url: &Url, reactor: &Rc<Reactor>, timer: &Timer) -> Result<Transport, Refusal> {
    if let ListenUrl::Unix(path) = &url.address {
        let connecting = Transport::connect_unix(reactor, path);
        let deadline = timer.sleep(Some(CONNECT_TIMEOUT));
        let connected = timer.until(deadline, connecting).await.unwrap_or_else(timed_out);
        return connected.map_err(|error| Refusal::passing(format!("{url}: {error}")));
    }
    // The resolver blocks, for as long as resolv.conf lets it. There is nothing else to do yet.
    let addresses = url.address.resolve();
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

fn timed_out<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within 5 s"))
}

/// Sends the request and reads the response.
async fn ask(url: &Url, transport: &Transport, timer: &Timer) -> Result<Vec<u8>, Refusal> {
    let mut key = [0; 16];
    getrandom(&mut key, GetRandomFlags::empty()).map_err(io::Error::from)?;
    let key = Base64::encode_string(&key);
    send(transport, request(url, &key).as_bytes()).await?;
    let accept = falconet::accept_value(key.as_bytes());
    let mut received = Vec::new();
    loop {
        receive(transport, &mut received).await?;
        match judge(&received, &accept)? {
            Verdict::Accepted { head_bytes } => return Ok(received.split_off(head_bytes)),
            Verdict::Declined { mut refusal, head_bytes, body_bytes } => {
                let whole = head_bytes + body_bytes.min(MAX_BODY_BYTES);
                let body = async {
                    while received.len() < whole && receive(transport, &mut received).await.is_ok()
                    {
                    }
                };
                // A reason is worth a little patience only.
                timer.until(timer.sleep(Some(BODY_TIMEOUT)), body).await;
                refusal.add_body(&received[head_bytes..whole.min(received.len())]);
                return Err(refusal);
            }
            Verdict::Incomplete if received.len() > MAX_HEAD_BYTES => {
                return Err(Refusal::lasting("the response head is too long"));
            }
            Verdict::Incomplete => {}
        }
    }
}

fn request(url: &Url, key: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\n\
         Host: {}\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\n\
         User-Agent: falconet-client/{}\r\n\r\n",
        url.target,
        url.host,
        env!("CARGO_PKG_VERSION")
    )
}

async fn send(transport: &Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| transport.poll_send(cx, &[IoSlice::new(bytes)])).await?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Reads some more.
async fn receive(transport: &Transport, received: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 1024];
    match poll_fn(|cx| transport.poll_recv(cx, &mut chunk)).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up")),
        count => {
            received.extend_from_slice(&chunk[..count]);
            Ok(())
        }
    }
}

/// What a response says.
#[derive(Debug)]
enum Verdict {
    Incomplete,
    Accepted { head_bytes: usize },
    Declined { refusal: Refusal, head_bytes: usize, body_bytes: usize },
}

/// Judges what has been received of a response; `accept` is what a server that understood sends.
fn judge(received: &[u8], accept: &str) -> Result<Verdict, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(Verdict::Incomplete),
        Err(error) => return Err(Refusal::lasting(format!("that is not HTTP: {error}"))),
    };
    let code = response.code.unwrap_or_default();
    if code != 101 {
        let phrase = escaped(response.reason.unwrap_or_default());
        let refusal = Refusal { reason: format!("{code} {phrase}"), is_lasting: is_lasting(code) };
        let body_bytes = single(&response, "content-length").and_then(|text| text.parse().ok());
        let body_bytes = body_bytes.unwrap_or(MAX_BODY_BYTES);
        return Ok(Verdict::Declined { refusal, head_bytes, body_bytes });
    }
    let is = |name, wanted: &str| {
        single(&response, name).is_some_and(|value| value.eq_ignore_ascii_case(wanted))
    };
    let wrong = if response.version != Some(1) {
        "an upgrade needs HTTP/1.1"
    } else if !is("upgrade", "websocket") {
        "the response lacks `Upgrade: websocket`"
    } else if !has_token(&response, "connection", "upgrade") {
        "the response lacks `Connection: Upgrade`"
    } else if single(&response, "sec-websocket-accept") != Some(accept) {
        "Sec-WebSocket-Accept is wrong"
    } else if has(&response, "sec-websocket-extensions") {
        "the server chose an extension that was not offered"
    } else if has(&response, "sec-websocket-protocol") {
        "the server chose a subprotocol that was not offered"
    } else {
        return Ok(Verdict::Accepted { head_bytes });
    };
    Err(Refusal::lasting(wrong))
}

fn values<'r>(
    response: &'r httparse::Response<'_, '_>,
    name: &str,
) -> impl Iterator<Item = &'r str> {
    let named =
        response.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
}

/// The value of a header that is there exactly once.
fn single<'r>(response: &'r httparse::Response<'_, '_>, name: &str) -> Option<&'r str> {
    let mut values = values(response, name);
    values.next().filter(|_| values.next().is_none())
}

fn has(response: &httparse::Response<'_, '_>, name: &str) -> bool {
    values(response, name).next().is_some()
}

fn has_token(response: &httparse::Response<'_, '_>, name: &str, token: &str) -> bool {
    values(response, name)
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Whether the same request will be answered with the same status: all but server errors, and what
/// asks to try again.
fn is_lasting(code: u16) -> bool {
    !matches!(code, 408 | 425 | 429 | 500..)
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Refusal {
    reason: String,
    /// Whether another attempt would end the same.
    pub(crate) is_lasting: bool,
}

impl Refusal {
    fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_lasting: false }
    }

    fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_lasting: true }
    }

    /// Adds the first line of what the server has to say.
    fn add_body(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().unwrap_or_default();
        if !line.is_empty() {
            let line: String = line.chars().take(MAX_SHOWN_CHARACTERS).collect();
            self.reason += &format!(": {}", escaped(&line));
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::passing(format!("the connection broke during the handshake: {error}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.reason)
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const MAX_BODY_BYTES: usize = 1024;
const MAX_SHOWN_CHARACTERS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: keep-alive, upgrade\r\nSec-WebSocket-Accept: right\r\n\r\n";

    #[test]
    fn a_good_response_is_accepted_when_it_is_whole() {
        for cut in 0..GOOD.len() {
            let verdict = judge(&GOOD.as_bytes()[..cut], "right");
            assert!(matches!(verdict, Ok(Verdict::Incomplete)), "{cut}: {verdict:?}");
        }
        let with_more = format!("{GOOD}and a frame");
        match judge(with_more.as_bytes(), "right") {
            Ok(Verdict::Accepted { head_bytes }) => assert_eq!(head_bytes, GOOD.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wrong_upgrade_is_refused_for_good() {
        for (part, instead, reason) in [
            ("right", "wrong", "Sec-WebSocket-Accept"),
            ("right", "right\r\nSec-WebSocket-Accept: right", "Sec-WebSocket-Accept"),
            ("websocket", "h2c", "Upgrade: websocket"),
            ("keep-alive, upgrade", "close", "Connection: Upgrade"),
            ("HTTP/1.1", "HTTP/1.0", "HTTP/1.1"),
            ("right", "right\r\nSec-WebSocket-Extensions: x", "extension"),
            ("right", "right\r\nSec-WebSocket-Protocol: x", "subprotocol"),
            ("HTTP", "SSH-2.0", "not HTTP"),
        ] {
            let refusal = judge(GOOD.replacen(part, instead, 1).as_bytes(), "right").unwrap_err();
            assert!(refusal.is_lasting && refusal.to_string().contains(reason), "{refusal}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_lasts() {
        for (code, lasts) in [
            (200, true),
            (301, true),
            (400, true),
            (404, true),
            (408, false),
            (425, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let response = format!("HTTP/1.1 {code} No\x1b\r\nContent-Length: 3\r\n\r\n");
            let response = response.replace('\x1b', "");
            match judge(response.as_bytes(), "right") {
                Ok(Verdict::Declined { mut refusal, body_bytes, .. }) => {
                    assert_eq!((refusal.is_lasting, body_bytes), (lasts, 3), "{code}");
                    refusal.add_body(b"a \x1b[2J\nsecond line");
                    assert_eq!(refusal.to_string(), format!("refused: {code} No: a \\u{{1b}}[2J"));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_request_is_that_of_the_rfc() {
        let url: Url = "ws://pi:8080/chat?room=1".parse().unwrap();
        let request = request(&url, "a key");
        assert!(request.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: pi:8080\r\n"));
        for header in ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: a key"] {
            assert!(request.contains(&format!("\r\n{header}\r\n")));
        }
        assert!(request.ends_with("\r\n\r\n"));
    }
}
