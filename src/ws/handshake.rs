//! The opening handshake (RFC 6455 §4.2).

use std::fmt;

use base64ct::{Base64, Encoding};

use super::sha1::sha1;
use crate::http::{RequestHead, Response};
use crate::hub::{CorrelationId, EventId};

/// The outcome of a valid request to open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// The value of Sec-WebSocket-Accept.
    value: String,
    /// True if the client offers the subprotocol `falconet`. The response must then select it: browsers
    /// fail the connection if they offered subprotocols and none is selected. A page offers `falconet`
    /// together with its token, because this header is the only one that it can set.
    selects_protocol: bool,
}

/// Checks a request to open a WebSocket (RFC 6455 §4.2.1).
///
/// # Errors
/// The first [`HandshakeError`] that is found.
pub(crate) fn accept(head: &RequestHead<'_>) -> Result<Acceptance, HandshakeError> {
    if head.method() != "GET" {
        return Err(HandshakeError::NotGet);
    }
    if !head.is_http_1_1() {
        return Err(HandshakeError::OldHttp);
    }
    if head.body().exceeds(0) {
        return Err(HandshakeError::Body);
    }
    if !head.has_token("connection", "upgrade") {
        return Err(HandshakeError::NoUpgradeToken);
    }
    if head.single("sec-websocket-version") != Some(b"13") {
        return Err(HandshakeError::WrongVersion);
    }
    let key = head.single("sec-websocket-key").filter(|key| is_key(key));
    let key = key.ok_or(HandshakeError::BadKey)?;
    let selects_protocol =
        head.items("sec-websocket-protocol").any(|offer| offer == PROTOCOL.as_bytes());
    Ok(Acceptance { value: accept_value(key), selects_protocol })
}

/// Returns the response that opens the WebSocket (RFC 6455 §4.2.2). The ids of the client and of the request are
/// also in the log lines about them. `before` is the message id after which the client's messages begin, if they
/// have ids.
pub(crate) fn response(
    accept: &Acceptance,
    client_id: &CorrelationId,
    request_id: &str,
    before: Option<EventId>,
) -> String {
    let Acceptance { value, selects_protocol } = accept;
    let selected = match selects_protocol {
        true => format!("Sec-WebSocket-Protocol: {PROTOCOL}\r\n"),
        false => String::new(),
    };
    let before = before.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: {value}\r\n\
         {selected}{before}\
         X-Client-Id: {client_id}\r\n\
         X-Request-Id: {request_id}\r\n\r\n"
    )
}

/// Returns the value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 §4.2.2). The client
/// computes the same value, to verify that the server supports WebSocket.
///
/// ```
/// let accept = falconet::accept_value(b"dGhlIHNhbXBsZSBub25jZQ==");
/// assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_value(key: &[u8]) -> String {
    Base64::encode_string(&sha1(&[key, GUID]))
}

/// Returns true if `key` is 16 bytes in base64: 22 digits and two padding characters. The last digit
/// encodes only two bits, so it is one of four.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    matches!(key, [digits @ .., b'A' | b'Q' | b'g' | b'w', b'=', b'=']
        if digits.len() == 21 && digits.iter().all(is_digit))
}

/// The reason for which a request to open a WebSocket is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The method is not GET.
    NotGet,
    /// The request is not HTTP/1.1.
    OldHttp,
    /// The request has a body, which frames can't be told from.
    Body,
    /// No Connection header contains the token `upgrade`.
    NoUpgradeToken,
    /// There is not exactly one Sec-WebSocket-Version header, or its value is not 13.
    WrongVersion,
    /// There is not exactly one Sec-WebSocket-Key header, or its value is not 16 bytes in base64.
    BadKey,
}

impl HandshakeError {
    /// Returns the response to the refused request.
    pub(crate) fn response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Self::NotGet => Response::text(405, text).with_header("Allow", "GET"),
            Self::WrongVersion => Response::text(426, text)
                .with_header("Upgrade", "websocket")
                .with_header("Connection", "Upgrade")
                .with_header("Sec-WebSocket-Version", "13"),
            Self::OldHttp | Self::Body | Self::NoUpgradeToken | Self::BadKey => {
                Response::text(400, text)
            }
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotGet => "a WebSocket handshake must use GET",
            Self::OldHttp => "a WebSocket handshake needs HTTP/1.1",
            Self::Body => "a WebSocket handshake has no body",
            Self::NoUpgradeToken => "the Connection header lacks the token upgrade",
            Self::WrongVersion => "Sec-WebSocket-Version must be 13",
            Self::BadKey => "there must be exactly one Sec-WebSocket-Key, 16 bytes in base64",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// The only subprotocol. It adds nothing to the messages.
const PROTOCOL: &str = "falconet";
/// The constant that is appended to the key before hashing (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_matches_the_example_of_the_rfc() {
        assert_eq!(accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_must_be_sixteen_bytes_in_base64() {
        let key = *b"dGhlIHNhbXBsZSBub25jZQ==";
        assert!(is_key(&key));
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZSBub25jZTQ2"] {
            assert!(!is_key(key.as_bytes()), "{key}");
        }
        for (index, byte) in
            (0..key.len()).flat_map(|index| (0..=255).map(move |byte| (index, byte)))
        {
            let mut changed = key;
            changed[index] = byte;
            let mut decoded = [0; 18];
            let decodes =
                Base64::decode(changed, &mut decoded).is_ok_and(|bytes| bytes.len() == 16);
            assert_eq!(is_key(&changed), decodes, "{byte} at {index}");
        }
    }
}
