//! The client's side of the opening handshake (RFC 6455 §4.1).

use std::rc::Rc;

use base64ct::{Base64, Encoding};
use falconet::net::{Reactor, Transport};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::http::HttpConnection;
use crate::options::Server;
use crate::response::{Refusal, Response};

/// Connects to the server and requests an upgrade to WebSocket. Returns the connection and the bytes that
/// came after the response head.
///
/// # Errors
/// [`Refusal`], if the server can't be reached, does not upgrade, or exceeds a deadline: 5 s for the
/// connection and 5 s for the response.
///
/// # Cancel safety
/// If the future is dropped early, the connection is closed.
pub(crate) async fn open(
    server: &Server,
    reactor: &Rc<Reactor>,
) -> Result<(Transport, Vec<u8>), Refusal> {
    let mut key = [0; 16];
    getrandom(&mut key, GetRandomFlags::empty()).map_err(|error| {
        Refusal::temporary(format!("can't get random bytes for the key: {error}"))
    })?;
    let key = Base64::encode_string(&key);
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", &key),
    ];
    let mut connection = HttpConnection::open(server, reactor).await?;
    let response = connection.request("GET", server, &fields, b"").await?;
    if response.code != 101 {
        let body = connection.body(&response).await;
        return Err(Refusal::from_response(&response, &body, server.token.as_ref()));
    }
    check_upgrade(&response, &falconet::accept_value(key.as_bytes()))?;
    Ok(connection.into_parts())
}

/// Checks the response to an upgrade request. `accept` is the expected value of Sec-WebSocket-Accept.
fn check_upgrade(response: &Response, accept: &str) -> Result<(), Refusal> {
    let is = |name, wanted: &str| {
        response.single(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted))
    };
    let error = if response.version != 1 {
        "an upgrade needs HTTP/1.1"
    } else if !is("upgrade", "websocket") {
        "the response lacks `Upgrade: websocket`"
    } else if !response.has_token("connection", "upgrade") {
        "the response lacks `Connection: Upgrade`"
    } else if response.single("sec-websocket-accept") != Some(accept) {
        "Sec-WebSocket-Accept is wrong"
    } else if response.has("sec-websocket-extensions") {
        "the server chose an extension that was not offered"
    } else if response.has("sec-websocket-protocol") {
        "the server chose a subprotocol that was not offered"
    } else {
        return Ok(());
    };
    Err(Refusal::permanent(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: keep-alive, upgrade\r\nSec-WebSocket-Accept: right\r\n\r\n";

    fn checked(head: &str) -> Result<(), Refusal> {
        let (response, _) = Response::parse(head.as_bytes()).unwrap().expect("it is whole");
        check_upgrade(&response, "right")
    }

    #[test]
    fn a_valid_upgrade_is_accepted() {
        checked(GOOD).unwrap();
    }

    #[test]
    fn an_invalid_upgrade_is_refused_permanently() {
        for (part, instead, reason) in [
            ("right", "wrong", "Sec-WebSocket-Accept"),
            ("right", "right\r\nSec-WebSocket-Accept: right", "Sec-WebSocket-Accept"),
            ("websocket", "h2c", "Upgrade: websocket"),
            ("keep-alive, upgrade", "close", "Connection: Upgrade"),
            ("HTTP/1.1", "HTTP/1.0", "HTTP/1.1"),
            ("right", "right\r\nSec-WebSocket-Extensions: x", "extension"),
            ("right", "right\r\nSec-WebSocket-Protocol: x", "subprotocol"),
        ] {
            let refusal = checked(&GOOD.replacen(part, instead, 1)).unwrap_err();
            assert!(refusal.is_permanent && refusal.to_string().contains(reason), "{refusal}");
        }
    }
}
