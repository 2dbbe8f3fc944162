//! Reads requests off a connection, one after another, and sends the answers.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;

use crate::access::proxy_protocol::{self, ProxyHeaderError};
use crate::config::Limits;
use crate::http::HeadError;
use crate::http::head::HeadScan;
use crate::net::Transport;

use super::access_log::AccessLogEntry;

/// What a connection has brought and is not yet dealt with.
pub(super) struct Reader {
    transport: Transport,
    access_log: AccessLogEntry,
    bytes: Vec<u8>,
}

/// Why there is no head to judge.
pub(super) enum NoHead {
    /// The bytes are no head, or break a rule.
    Refused(HeadError),
    /// The peer has left, or does not speak as it should for a head to be read.
    Lost(io::Error),
}

/// Why a proxy has not said for whom a connection is.
pub(super) enum NoHeader {
    /// It does not speak the PROXY protocol.
    Wrong(ProxyHeaderError),
    /// It has left.
    Lost,
}

impl Reader {
    pub(super) fn new(transport: Transport) -> Self {
        let access_log = AccessLogEntry::new(transport.timer().now());
        Self { transport, access_log, bytes: Vec::new() }
    }

    /// What is remembered of the connection.
    pub(super) fn access_log(&mut self) -> &mut AccessLogEntry {
        &mut self.access_log
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// What was read, from the head at hand on.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Waits until a header of the PROXY protocol is there, and takes it out: for whom the connection is,
    /// or `None` if it is the proxy's own. It comes before all else, a TLS handshake too, so nothing is
    /// read beyond it.
    pub(super) async fn proxy_header(&mut self) -> Result<Option<SocketAddr>, NoHeader> {
        loop {
            if let Some(header) = proxy_protocol::parse(&self.bytes).map_err(NoHeader::Wrong)? {
                self.consume(header.length);
                return Ok(header.client);
            }
            let begin = self.bytes.len();
            self.bytes.resize(begin + proxy_protocol::missing(&self.bytes), 0);
            let space = &mut self.bytes[begin..];
            let read = poll_fn(|cx| self.transport.poll_recv_beneath(cx, space)).await;
            let Ok(count @ 1..) = read else { return Err(NoHeader::Lost) };
            self.bytes.truncate(begin + count);
            self.access_log.count_received(count);
        }
    }

    /// Waits until a whole head is there; says where.
    pub(super) async fn head(&mut self, limits: &Limits) -> Result<Range<usize>, NoHead> {
        let mut scan = HeadScan::default();
        loop {
            if let Some(head) = scan.find(&self.bytes, limits).map_err(NoHead::Refused)? {
                return Ok(head);
            }
            self.more().await.map_err(|error| match self.transport.met_plain_http() {
                true => NoHead::Refused(HeadError::PlainHttp),
                false => NoHead::Lost(error),
            })?;
        }
    }

    /// Waits until so many bytes are there; `None` if the peer leaves before.
    pub(super) async fn at_least(&mut self, count: usize) -> Option<()> {
        while self.bytes.len() < count {
            self.more().await.ok()?;
        }
        Some(())
    }

    /// Forgets a request that is dealt with. While nothing else has come, no memory is held.
    pub(super) fn consume(&mut self, count: usize) {
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Sends some bytes of `bytes`.
    pub(super) async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let sent = poll_fn(|cx| self.transport.poll_send(cx, &[IoSlice::new(bytes)])).await?;
        self.access_log.count_sent(sent);
        Ok(sent)
    }

    /// Gives up reading: the transport, and what was read beyond the request at hand, of `count` bytes.
    pub(super) fn into_parts(mut self, count: usize) -> (Transport, Vec<u8>) {
        self.access_log.hand_over();
        let beyond = self.bytes.split_off(count);
        (self.transport, beyond)
    }

    /// Reads what is there.
    async fn more(&mut self) -> io::Result<()> {
        let bytes = &mut self.bytes;
        let read = poll_fn(|cx| {
            self.transport.poll_recv_with(cx, |received| {
                bytes.extend_from_slice(received);
                received.len()
            })
        });
        match read.await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.access_log.count_received(count);
                Ok(())
            }
        }
    }
}
