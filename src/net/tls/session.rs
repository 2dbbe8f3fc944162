//! A TLS connection over a socket, from the handshake to the end of the stream.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use rustls::Error;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use super::super::pending::SMALL_BYTES;
use super::super::reactor::Sleep;
use super::super::socket::Socket;

/// Buffers that all sessions share. Each one is used only within one call, so that no session needs
/// its own.
#[derive(Default)]
pub(super) struct SharedBuffers {
    /// The decrypted bytes of one read.
    plaintext: RefCell<Vec<u8>>,
    /// The encrypted records of one write.
    records: RefCell<Vec<u8>>,
    /// The plaintext of one write, if it is given in several slices.
    joined: RefCell<Vec<u8>>,
}

/// A TLS connection. Between two records it holds no buffer.
pub(in crate::net) struct Session {
    side: Side,
    buffers: Rc<SharedBuffers>,
    phase: Phase,
    /// The received part of an incomplete record or handshake message.
    incoming: Vec<u8>,
    /// Decrypted bytes. Those before `plaintext_consumed` were returned to the caller already.
    plaintext: Vec<u8>,
    plaintext_consumed: usize,
    /// Encrypted records. Those before `outgoing_sent` were written to the socket already.
    outgoing: Vec<u8>,
    outgoing_sent: usize,
    /// The number of plaintext bytes that are encrypted in `outgoing` but not yet reported as sent by
    /// `poll_send`.
    unreported: usize,
    /// Runs until the first step of the handshake may begin, if that step has to wait.
    begin: Option<Box<Sleep>>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// This process's side of the connection.
pub(super) enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshaking,
    Open,
    /// The peer will send no more data.
    Ended,
    /// There was a TLS error.
    Failed,
    /// The peer sent plain HTTP. Responses are sent unencrypted.
    PlainHttp,
}

/// The result of one call to rustls.
enum Step {
    /// Call rustls again.
    Again,
    /// The handshake needs more bytes.
    NeedsInput,
    /// The handshake is done. Call rustls again once there are more bytes.
    Open,
    /// The peer will send no more data. Call rustls again.
    PeerClosed,
}

impl Session {
    pub(super) fn new(side: Side, buffers: Rc<SharedBuffers>) -> Result<Self, Error> {
        let mut session = Self {
            side,
            buffers,
            phase: Phase::Handshaking,
            incoming: Vec::new(),
            plaintext: Vec::new(),
            plaintext_consumed: 0,
            outgoing: Vec::new(),
            outgoing_sent: 0,
            unreported: 0,
            begin: None,
        };
        // On the client side, this encodes the first handshake message.
        session.process(&mut [], &mut Vec::new()).map(|_| session)
    }

    /// Returns true if the handshake is not yet done.
    pub(in crate::net) fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshaking
    }

    /// Returns true if the peer sent plain HTTP instead of a handshake.
    pub(in crate::net) fn received_plain_http(&self) -> bool {
        self.phase == Phase::PlainHttp
    }

    /// Returns the size of the session's own buffers.
    pub(in crate::net) fn buffered_bytes(&self) -> usize {
        self.incoming.capacity() + self.plaintext.capacity() + self.outgoing.capacity()
    }

    /// Lets the handshake wait for `begin`.
    pub(in crate::net) fn postpone(&mut self, begin: Sleep) {
        self.begin = Some(Box::new(begin));
    }

    /// Completes once the handshake need not wait any more.
    pub(in crate::net) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(begin) = &mut self.begin {
            ready!(Pin::new(begin).poll(cx));
            self.begin = None;
        }
        Poll::Ready(())
    }

    /// Reads from the socket once, and keeps the decrypted bytes. During a handshake, this is one step of it.
    pub(in crate::net) fn poll_read(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut plaintext = std::mem::take(&mut self.plaintext);
        let received = self.poll_receive(socket, cx, &mut plaintext);
        self.plaintext = plaintext;
        received
    }

    /// Completes once the handshake is done and all its messages are sent. Only for the client's side: on the
    /// server's side, each step must be admitted.
    pub(in crate::net) fn poll_handshake(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.is_handshaking() {
            ready!(self.poll_read(socket, cx))?;
        }
        self.poll_flushed(socket, cx)
    }

    /// Returns the decrypted bytes that are not consumed yet, and reads more if there are none. An empty
    /// slice means the end of the stream.
    pub(in crate::net) fn poll_plaintext(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&[u8]>> {
        while !self.has_plaintext() && self.is_readable() {
            ready!(self.poll_read(socket, cx))?;
        }
        self.check_failed()?;
        Poll::Ready(Ok(&self.plaintext[self.plaintext_consumed..]))
    }

    /// Consumes the first `count` bytes that [`poll_plaintext`](Self::poll_plaintext) returned.
    pub(in crate::net) fn consume_plaintext(&mut self, count: usize) {
        self.plaintext_consumed += count;
        if !self.has_plaintext() {
            (self.plaintext, self.plaintext_consumed) = (Vec::new(), 0);
        }
    }

    /// Passes all decrypted bytes to `take`, and reads more if there are none. No bytes means the end of
    /// the stream.
    pub(in crate::net) fn poll_recv_with<R>(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        if self.has_plaintext() {
            let taken = take(&self.plaintext[self.plaintext_consumed..]);
            (self.plaintext, self.plaintext_consumed) = (Vec::new(), 0);
            return Poll::Ready(Ok(taken));
        }
        let buffers = self.buffers.clone();
        let mut plaintext = buffers.plaintext.borrow_mut();
        plaintext.clear();
        while plaintext.is_empty() && self.is_readable() {
            ready!(self.poll_receive(socket, cx, &mut plaintext))?;
        }
        self.check_failed()?;
        Poll::Ready(Ok(take(&plaintext)))
    }

    /// Encrypts and sends some bytes of `slices`. Returns the number of bytes sent. The last of these bytes
    /// counts as sent once all records are written to the socket; before, as many bytes as the socket has
    /// taken count, so that the caller knows of the progress. The next call must begin with the bytes that
    /// were not sent.
    pub(in crate::net) fn poll_send(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.phase {
            Phase::PlainHttp => return socket.poll_send(cx, slices),
            Phase::Handshaking => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Phase::Open | Phase::Ended | Phase::Failed => self.check_failed()?,
        }
        if self.unreported > 0 {
            return self.poll_unreported(socket, cx);
        }
        ready!(self.poll_flushed(socket, cx))?;
        let buffers = self.buffers.clone();
        let (mut joined, mut records) = (buffers.joined.borrow_mut(), buffers.records.borrow_mut());
        let bytes = join(&mut joined, slices);
        let bytes = &bytes[..bytes.len().min(SEND_BYTES)];
        let length = self.encrypt(bytes, &mut records)?;
        let sent = match socket.poll_send(cx, &[IoSlice::new(&records[..length])]) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        if sent == length {
            return Poll::Ready(Ok(bytes.len()));
        }
        let progress = sent.min(bytes.len().saturating_sub(1));
        self.outgoing.extend_from_slice(&records[sent..length]);
        self.unreported = bytes.len() - progress;
        if progress > 0 {
            return Poll::Ready(Ok(progress));
        }
        // Registers the waker, or sends the rest if the socket has become writable.
        self.poll_unreported(socket, cx)
    }

    /// Sends pending records. Returns the number of bytes that count as sent since the last report.
    fn poll_unreported(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(flushed) = self.poll_flushed(socket, cx) {
            return Poll::Ready(flushed.map(|()| std::mem::take(&mut self.unreported)));
        }
        let progress = self.outgoing_sent.min(self.unreported.saturating_sub(1));
        if progress == 0 {
            return Poll::Pending;
        }
        // From here on, `outgoing_sent` counts what the next report is about.
        self.outgoing.drain(..std::mem::take(&mut self.outgoing_sent));
        self.unreported -= progress;
        Poll::Ready(Ok(progress))
    }

    /// Sends a `close_notify` alert, unless one was sent before. Does not wait until the socket can take
    /// the alert.
    pub(in crate::net) fn close(&mut self, socket: &Socket) {
        if matches!(self.phase, Phase::Open | Phase::Ended) {
            let buffers = self.buffers.clone();
            let mut records = buffers.records.borrow_mut();
            let room = records.len().max(RECORD_OVERHEAD_BYTES);
            records.resize(room, 0);
            let phase = std::mem::replace(&mut self.phase, Phase::Failed);
            if let Ok(length) = self.side.encrypt_close_notify(&mut self.incoming, &mut records) {
                self.outgoing.extend_from_slice(&records[..length]);
                self.phase = phase;
            }
        }
        // Fails only if the connection is closed already.
        let _ = self.poll_flushed(socket, &mut Context::from_waker(Waker::noop()));
    }

    /// Completes once all encrypted records are written to the socket.
    pub(in crate::net) fn poll_flushed(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.outgoing_sent < self.outgoing.len() {
            let rest = IoSlice::new(&self.outgoing[self.outgoing_sent..]);
            self.outgoing_sent += ready!(socket.poll_send(cx, &[rest]))?;
        }
        if self.outgoing_sent > 0 {
            (self.outgoing, self.outgoing_sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    fn has_plaintext(&self) -> bool {
        self.plaintext_consumed < self.plaintext.len()
    }

    fn is_readable(&self) -> bool {
        matches!(self.phase, Phase::Handshaking | Phase::Open)
    }

    fn check_failed(&self) -> io::Result<()> {
        match self.phase {
            Phase::Failed | Phase::PlainHttp => {
                Err(invalid_data("the TLS connection has failed already"))
            }
            Phase::Handshaking | Phase::Open | Phase::Ended => Ok(()),
        }
    }

    /// Reads from the socket once, and appends the decrypted bytes to `plaintext`. There may be none.
    fn poll_receive(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        plaintext: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        // Pending records go first, because the peer may be waiting for them. Reading continues even if
        // the socket can't take them now.
        if let Poll::Ready(flushed) = self.poll_flushed(socket, cx) {
            flushed?;
        }
        if self.incoming.len() > SMALL_BYTES
            && matches!(self.side, Side::Server(_))
            && socket.reactor().pending().is_full()
        {
            // The transport registers the waker with its holder.
            return Poll::Pending;
        }
        let mut received = socket.receive_buffer();
        if self.incoming.len() + MIN_READ_BYTES > received.capacity() {
            return Poll::Ready(Err(self.fail("a TLS handshake message is too long")));
        }
        received.extend_from_slice(&self.incoming);
        if ready!(socket.poll_recv_more(cx, &mut received))? == 0 {
            return Poll::Ready(self.end_of_stream());
        }
        if self.phase == Phase::Handshaking && self.is_plain_http(&received) {
            self.phase = Phase::PlainHttp;
            return Poll::Ready(Err(invalid_data("received plain HTTP; expected TLS")));
        }
        let processed = self.process(&mut received, plaintext);
        // Sends the reply to a handshake message or a key update, which the peer may be waiting for.
        let flushed = self.poll_flushed(socket, cx);
        match processed {
            Ok(used) => self.incoming = received[used..].to_vec(),
            Err(error) => return Poll::Ready(Err(self.fail(error))),
        }
        match flushed {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Handles the end of the socket's stream.
    ///
    /// Without a `close_notify` alert, an attacker may have truncated the stream. This is not an error
    /// here, because the protocols above TLS detect incomplete messages themselves.
    fn end_of_stream(&mut self) -> io::Result<()> {
        let was_handshaking = self.phase == Phase::Handshaking;
        // `incoming` is kept: rustls remembers its position in an incomplete record, and needs the same
        // bytes again to encrypt the `close_notify` alert.
        self.phase = Phase::Ended;
        match was_handshaking {
            true => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed the connection during the TLS handshake",
            )),
            false => Ok(()),
        }
    }

    fn fail(&mut self, error: impl Into<BoxError>) -> io::Error {
        (self.phase, self.incoming) = (Phase::Failed, Vec::new());
        invalid_data(error)
    }

    /// Returns true if a client's first bytes are plain HTTP. TLS begins with the byte 22, HTTP with the
    /// first letter of a method, in upper case.
    fn is_plain_http(&self, received: &[u8]) -> bool {
        matches!(self.side, Side::Server(_)) && received.first().is_some_and(u8::is_ascii_uppercase)
    }

    /// Passes `received` to rustls, and appends the decrypted bytes to `plaintext` and replies to
    /// `outgoing`. Returns how many bytes of `received` were used.
    fn process(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            // The phase is `Failed` until the call has succeeded, so that rustls is not called again
            // after an error or a panic.
            let phase = std::mem::replace(&mut self.phase, Phase::Failed);
            let (discard, step) =
                self.side.advance(&mut received[used..], plaintext, &mut self.outgoing);
            used += discard;
            if step.is_ok() {
                self.phase = phase;
            }
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.phase = Phase::Ended,
                Ok(Step::NeedsInput) => return Ok(used),
                Ok(Step::Open) => {
                    if self.phase == Phase::Handshaking {
                        self.phase = Phase::Open;
                    }
                    return Ok(used);
                }
                Err(error) => {
                    // Encodes the alert for the peer, if there is one. rustls needs the same bytes again,
                    // because it remembers its position in them.
                    let _ = self.side.advance(&mut received[used..], plaintext, &mut self.outgoing);
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts `bytes` into `records`, which grows if necessary. Returns the length of the records.
    fn encrypt(&mut self, bytes: &[u8], records: &mut Vec<u8>) -> io::Result<usize> {
        let room = bytes.len() + (bytes.len() / RECORD_BYTES + 2) * RECORD_OVERHEAD_BYTES;
        records.resize(records.len().max(room), 0);
        let phase = std::mem::replace(&mut self.phase, Phase::Failed);
        let encrypted = self.side.encrypt(&mut self.incoming, bytes, records);
        if encrypted.is_ok() {
            self.phase = phase;
        }
        encrypted.map_err(|error| self.fail(error))
    }
}

impl Side {
    fn advance(
        &mut self,
        received: &mut [u8],
        plaintext: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Server(server) => {
                advance(server.process_tls_records(received), plaintext, outgoing)
            }
            Self::Client(client) => {
                advance(client.process_tls_records(received), plaintext, outgoing)
            }
        }
    }

    fn encrypt(
        &mut self,
        incoming: &mut [u8],
        bytes: &[u8],
        records: &mut [u8],
    ) -> Result<usize, BoxError> {
        match self {
            Self::Server(server) => encrypt(server.process_tls_records(incoming), bytes, records),
            Self::Client(client) => encrypt(client.process_tls_records(incoming), bytes, records),
        }
    }

    fn encrypt_close_notify(
        &mut self,
        incoming: &mut [u8],
        records: &mut [u8],
    ) -> Result<usize, BoxError> {
        match self {
            Self::Server(server) => {
                encrypt_close_notify(server.process_tls_records(incoming), records)
            }
            Self::Client(client) => {
                encrypt_close_notify(client.process_tls_records(incoming), records)
            }
        }
    }
}

/// Handles one state of rustls. Returns the number of received bytes to discard, and the next step.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    plaintext.extend_from_slice(record.payload);
                    discard += record.discard;
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut handshake)) => {
            let begin = outgoing.len();
            if let Err(EncodeError::InsufficientSize(short)) = handshake.encode(&mut []) {
                outgoing.resize(begin + short.required_size, 0);
            }
            match handshake.encode(&mut outgoing[begin..]) {
                Ok(_) => Ok(Step::Again),
                Err(error) => Err(Error::General(error.to_string())),
            }
        }
        Ok(ConnectionState::TransmitTlsData(transmission)) => {
            // The data is in `outgoing` already, and is sent before anything else.
            transmission.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Open),
        // `BlockedHandshake` or `Closed`; early data is not enabled.
        Ok(_) => Ok(Step::NeedsInput),
    };
    (discard, step)
}

fn encrypt<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    bytes: &[u8],
    records: &mut [u8],
) -> Result<usize, BoxError> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => Ok(traffic.encrypt(bytes, records)?),
        state => Err(format!("can't send data in this TLS state: {state:?}").into()),
    }
}

fn encrypt_close_notify<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    records: &mut [u8],
) -> Result<usize, BoxError> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => Ok(traffic.queue_close_notify(records)?),
        state => Err(format!("can't send data in this TLS state: {state:?}").into()),
    }
}

/// Returns the first bytes of `slices` as one slice. Several slices are copied into `buffer`, each up
/// to [`SEND_BYTES`].
fn join<'s>(buffer: &'s mut Vec<u8>, slices: &'s [IoSlice<'_>]) -> &'s [u8] {
    if let [slice] = slices {
        return slice;
    }
    buffer.clear();
    for slice in slices {
        buffer.extend_from_slice(&slice[..slice.len().min(SEND_BYTES)]);
    }
    buffer
}

fn invalid_data(error: impl Into<BoxError>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The maximum number of plaintext bytes that are encrypted at once. A message of the default limit of 64 KiB
/// fits, so that it is sent in one system call.
const SEND_BYTES: usize = 64 * 1024 + 256;
/// The minimum free space in the receive buffer for a read. An incomplete record always leaves more.
const MIN_READ_BYTES: usize = 8 * 1024;
/// The maximum number of plaintext bytes in one record (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// An upper bound for the bytes that encryption adds to a record (RFC 8446 §5.2), and for the size of an
/// encrypted alert or key update.
const RECORD_OVERHEAD_BYTES: usize = 256;
