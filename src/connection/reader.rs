//! The buffered reading side of an HTTP connection. It also counts the bytes in both directions.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::future::yield_now;

use crate::access::proxy_protocol::{self, ProxiedClient, ProxyHeaderError};
use crate::config::Limits;
use crate::http::HeadError;
use crate::http::body::{BodyError, ChunkedBody, Framing};
use crate::http::head::HeadScan;
use crate::net::{Held, Peer, Transport, is_eviction};

use super::access_log::AccessLogEntry;

/// A connection, and the bytes that were read from it but not consumed.
pub(super) struct Reader {
    transport: Transport,
    log_entry: AccessLogEntry,
    bytes: Vec<u8>,
    /// The peer, or the client that it has named.
    peer: Peer,
    held: Held,
}

/// The reason why no request head could be read.
pub(super) enum NoHead {
    /// The bytes are not a valid head.
    Refused(HeadError),
    /// The connection was closed or has failed, or the peer breaks the TLS protocol.
    Lost(io::Error),
    /// The connection was chosen to be closed, because the memory for unfinished requests is used up.
    Evicted,
}

/// The reason why the body of a request could not be read.
pub(super) enum NoBody {
    /// The body is malformed or too long.
    Refused(BodyError),
    /// The connection was closed or has failed.
    Lost,
    /// The connection was chosen to be closed, because the memory for unfinished requests is used up.
    Evicted,
}

/// The reason why no header of the PROXY protocol could be read.
pub(super) enum NoHeader {
    /// The bytes are not a valid header.
    Invalid(ProxyHeaderError),
    /// The connection was closed or has failed.
    Lost,
}

impl Reader {
    pub(super) fn new(transport: Transport, peer: Peer) -> Self {
        let log_entry = AccessLogEntry::new(transport.timer().now());
        Self { transport, log_entry, bytes: Vec::new(), peer, held: Held::default() }
    }

    /// Notes the client that the peer has named.
    pub(super) fn set_peer(&mut self, client: Peer) {
        if client != self.peer {
            self.peer = client;
            // The next holder has the client's address.
            self.held.clear();
            self.transport.set_client(client);
        }
    }

    /// Returns the connection's entry in the access log.
    pub(super) fn log_entry(&mut self) -> &mut AccessLogEntry {
        &mut self.log_entry
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Returns the bytes that were read and not consumed. They begin with the current request.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads and consumes a header of the PROXY protocol. Returns the client that the header names. Reads no
    /// byte after the header, because a TLS handshake may follow.
    ///
    /// # Errors
    /// [`NoHeader`].
    pub(super) async fn proxy_header(&mut self) -> Result<ProxiedClient, NoHeader> {
        loop {
            if let Some(header) = proxy_protocol::parse(&self.bytes).map_err(NoHeader::Invalid)? {
                self.consume(header.length);
                return Ok(header.client);
            }
            let begin = self.bytes.len();
            self.bytes.resize(begin + proxy_protocol::missing(&self.bytes), 0);
            let space = &mut self.bytes[begin..];
            let read = poll_fn(|cx| self.transport.poll_recv_raw(cx, space)).await;
            let Ok(count @ 1..) = read else { return Err(NoHeader::Lost) };
            self.bytes.truncate(begin + count);
            self.log_entry.count_received(count);
        }
    }

    /// Reads until there is a complete request head. Returns its range in [`bytes`](Self::bytes), which
    /// may begin after empty lines.
    ///
    /// # Errors
    /// [`NoHead`].
    ///
    /// # Cancel safety
    /// If the future is dropped early, the bytes read so far are kept.
    pub(super) async fn head(&mut self, limits: &Limits) -> Result<Range<usize>, NoHead> {
        let mut scan = HeadScan::default();
        loop {
            if let Some(head) = scan.find(&self.bytes, limits).map_err(NoHead::Refused)? {
                return Ok(head);
            }
            self.read_more().await.map_err(|error| match self.transport.received_plain_http() {
                true => NoHead::Refused(HeadError::PlainHttp),
                false if is_eviction(&error) => NoHead::Evicted,
                false => NoHead::Lost(error),
            })?;
        }
    }

    /// Reads until there are at least `count` bytes.
    ///
    /// # Errors
    /// The error of the transport; `UnexpectedEof` at the end of the stream; an [eviction](is_eviction).
    ///
    /// # Cancel safety
    /// If the future is dropped early, the bytes read so far are kept.
    pub(super) async fn at_least(&mut self, count: usize) -> io::Result<()> {
        while self.bytes.len() < count {
            self.read_more().await?;
        }
        Ok(())
    }

    /// Reads the body of a request whose head ends at `begin`. Other tasks run after each read. Returns the end
    /// of the body in [`bytes`](Self::bytes), where the payload replaces the chunks of a chunked body. The
    /// caller must have checked that the body does not [exceed](Framing::exceeds) `limit`.
    ///
    /// # Errors
    /// [`NoBody`].
    pub(super) async fn body(
        &mut self,
        begin: usize,
        body: Framing,
        limit: u64,
    ) -> Result<usize, NoBody> {
        if body == Framing::Chunked {
            return self.chunked_body(begin, limit).await;
        }
        let end = begin + body.least_bytes() as usize;
        while self.bytes.len() < end {
            self.read_more().await?;
            // A body that arrives as fast as it is read must not take the thread.
            yield_now().await;
        }
        Ok(end)
    }

    /// Reads a chunked body as [`body`](Self::body) does. Each byte is moved at most once, however small the
    /// chunks are.
    async fn chunked_body(&mut self, begin: usize, limit: u64) -> Result<usize, NoBody> {
        let mut body = ChunkedBody::new(limit);
        let mut end = begin;
        loop {
            let decoded = body.decode(&mut self.bytes[end..]).map_err(NoBody::Refused)?;
            let (payload, body_end) = decoded;
            match body_end {
                Some(body_end) => {
                    self.bytes.drain(end + payload..end + body_end);
                    return Ok(end + payload);
                }
                None => self.bytes.truncate(end + payload),
            }
            end += payload;
            self.read_more().await?;
            yield_now().await;
        }
    }

    /// Discards the first `count` bytes, once their request has been answered. An empty buffer is freed, so
    /// that a connection between two requests holds no memory for it.
    pub(super) fn consume(&mut self, count: usize) {
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        self.hold(0);
    }

    /// Writes some of `bytes`, which are in a buffer of `held` bytes. Returns the number of bytes written.
    ///
    /// # Errors
    /// The error of the transport; an [eviction](is_eviction).
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        held: usize,
    ) -> Poll<io::Result<usize>> {
        let polled = self.transport.poll_send(cx, &[IoSlice::new(bytes)]);
        if polled.is_pending() {
            self.hold(held);
            self.held.check(cx)?;
        }
        let sent = ready!(polled)?;
        self.log_entry.count_sent(sent);
        Poll::Ready(Ok(sent))
    }

    /// Returns the transport, and the bytes that were read after the first `count` bytes, which are the
    /// request that upgrades the connection.
    pub(super) fn into_parts(mut self, count: usize) -> (Transport, Vec<u8>) {
        let early = self.bytes.split_off(count);
        (self.transport, early)
    }

    /// Shuts the connection down after its last response, as [`Transport::close_gracefully`] does. The received
    /// bytes are freed before.
    pub(super) async fn close(&mut self, linger: Duration) {
        self.bytes = Vec::new();
        self.hold(0);
        // Boxed, because a connection reserves space for the largest future that it ever awaits.
        Box::pin(self.transport.close_gracefully(linger)).await;
    }

    /// Waits for input and appends it to the buffer.
    ///
    /// # Errors
    /// The error of the transport; `UnexpectedEof` at the end of the stream; an [eviction](is_eviction).
    async fn read_more(&mut self) -> io::Result<()> {
        let bytes = &mut self.bytes;
        let read = poll_fn(|cx| {
            ready!(self.held.poll_more(cx))?;
            let polled = self.transport.poll_recv_with(cx, |received| {
                bytes.extend_from_slice(received);
                received.len()
            });
            if polled.is_pending() {
                self.held.check(cx)?;
            }
            polled
        });
        let read = read.await;
        if read.as_ref().is_err_and(is_eviction) {
            // The answer must be sent.
            self.held.clear();
        }
        let count = read?;
        self.hold(0);
        match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.log_entry.count_received(count);
                Ok(())
            }
        }
    }

    /// Counts the buffer, and `unsent` bytes of a response, against the budget for unfinished input and output.
    fn hold(&self, unsent: usize) {
        let bytes = self.bytes.capacity() + unsent;
        self.held.set(self.transport.pending(), bytes, || self.peer.limited_prefix());
    }
}

impl From<io::Error> for NoBody {
    fn from(error: io::Error) -> Self {
        if is_eviction(&error) { Self::Evicted } else { Self::Lost }
    }
}
