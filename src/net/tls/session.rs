//! One TLS connection over a socket, from its handshake to its end.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use rustls::Error;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use super::super::socket::Socket;

/// What all sessions use in turn, so that none keeps buffers of its own.
#[derive(Default)]
pub(super) struct Scratch {
    /// What one read brought, decrypted.
    plaintext: RefCell<Vec<u8>>,
    /// What one write sends: records, and before them their plaintext if that came in parts.
    records: RefCell<Vec<u8>>,
    joined: RefCell<Vec<u8>>,
}

/// A TLS connection. Between two records it holds no buffer.
pub(in crate::net) struct Session {
    side: Side,
    scratch: Rc<Scratch>,
    phase: Phase,
    /// What has come of a record, or of a handshake message, that is not whole.
    incoming: Vec<u8>,
    /// What was decrypted and is not yet handed on, from `plaintext_taken` on.
    plaintext: Vec<u8>,
    plaintext_taken: usize,
    /// Records that the kernel has not taken, from `outgoing_sent` on.
    outgoing: Vec<u8>,
    outgoing_sent: usize,
    /// How many of the bytes offered to `poll_send` are in `outgoing`, and not yet reported as sent.
    promised: usize,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Which end of the connection is ours.
pub(super) enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshaking,
    Open,
    /// The peer will send no more.
    Ended,
    /// A rule of TLS was broken.
    Failed,
    /// The peer speaks plain HTTP, and is answered so.
    PlainHttp,
}

/// What rustls wants next.
enum Step {
    /// To be asked again.
    Again,
    /// More bytes, to go on with the handshake.
    Blocked,
    /// More bytes, if the peer has something to say; the handshake is done.
    Open,
    /// To be asked again; the peer has said that it will send no more.
    Ended,
}

impl Session {
    pub(super) fn new(side: Side, scratch: Rc<Scratch>) -> Result<Self, Error> {
        let mut session = Self {
            side,
            scratch,
            phase: Phase::Handshaking,
            incoming: Vec::new(),
            plaintext: Vec::new(),
            plaintext_taken: 0,
            outgoing: Vec::new(),
            outgoing_sent: 0,
            promised: 0,
        };
        // A client speaks first.
        session.digest(&mut [], &mut Vec::new()).map(|_| session)
    }

    /// Whether the handshake is not yet done.
    pub(in crate::net) fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshaking
    }

    /// Whether the peer began in plain HTTP.
    pub(in crate::net) fn met_plain_http(&self) -> bool {
        self.phase == Phase::PlainHttp
    }

    /// Is ready once the handshake is done.
    pub(in crate::net) fn poll_open(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.phase == Phase::Handshaking {
            let mut plaintext = std::mem::take(&mut self.plaintext);
            let received = self.poll_receive(socket, cx, &mut plaintext);
            self.plaintext = plaintext;
            ready!(received)?;
        }
        self.poll_flushed(socket, cx)
    }

    /// What is decrypted and not yet handed on; empty is the end of the stream.
    pub(in crate::net) fn poll_plaintext(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&[u8]>> {
        while !self.holds_plaintext() && self.is_readable() {
            let mut plaintext = std::mem::take(&mut self.plaintext);
            let received = self.poll_receive(socket, cx, &mut plaintext);
            self.plaintext = plaintext;
            ready!(received)?;
        }
        self.check_failed()?;
        Poll::Ready(Ok(&self.plaintext[self.plaintext_taken..]))
    }

    /// Notes that so much of it was handed on.
    pub(in crate::net) fn forget_plaintext(&mut self, count: usize) {
        self.plaintext_taken += count;
        if !self.holds_plaintext() {
            (self.plaintext, self.plaintext_taken) = (Vec::new(), 0);
        }
    }

    /// Has `take` take out all that is there; nothing is the end of the stream.
    pub(in crate::net) fn poll_recv_with<R>(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        if self.holds_plaintext() {
            let taken = take(&self.plaintext[self.plaintext_taken..]);
            (self.plaintext, self.plaintext_taken) = (Vec::new(), 0);
            return Poll::Ready(Ok(taken));
        }
        let scratch = self.scratch.clone();
        let mut plaintext = scratch.plaintext.borrow_mut();
        plaintext.clear();
        while plaintext.is_empty() && self.is_readable() {
            ready!(self.poll_receive(socket, cx, &mut plaintext))?;
        }
        self.check_failed()?;
        Poll::Ready(Ok(take(&plaintext)))
    }

    /// Encrypts and sends some bytes of `slices`. They are reported when the kernel has taken all of
    /// their records; until then it is pending, and expects to be offered the same bytes again.
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
        ready!(self.poll_flushed(socket, cx))?;
        if self.promised > 0 {
            return Poll::Ready(Ok(std::mem::take(&mut self.promised)));
        }
        let scratch = self.scratch.clone();
        let (mut joined, mut records) = (scratch.joined.borrow_mut(), scratch.records.borrow_mut());
        let bytes = join(&mut joined, slices);
        let bytes = &bytes[..bytes.len().min(SEND_BYTES)];
        let length = self.seal(bytes, &mut records)?;
        let sent = match socket.poll_send(cx, &[IoSlice::new(&records[..length])]) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        if sent == length {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.outgoing.extend_from_slice(&records[sent..length]);
        self.promised = bytes.len();
        // It is not taken now, so this only leaves the waker, or finds that there is room after all.
        ready!(self.poll_flushed(socket, cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.promised)))
    }

    /// Says that nothing more will come, once, if that can be sent at once.
    pub(in crate::net) fn close(&mut self, socket: &Socket) {
        if matches!(self.phase, Phase::Open | Phase::Ended) {
            let scratch = self.scratch.clone();
            let mut records = scratch.records.borrow_mut();
            let room = records.len().max(RECORD_OVERHEAD_BYTES);
            records.resize(room, 0);
            let phase = std::mem::replace(&mut self.phase, Phase::Failed);
            if let Ok(length) = self.side.seal_goodbye(&mut self.incoming, &mut records) {
                self.outgoing.extend_from_slice(&records[..length]);
                self.phase = phase;
            }
        }
        // It fails only when the connection is over already.
        let _ = self.poll_flushed(socket, &mut Context::from_waker(Waker::noop()));
    }

    fn holds_plaintext(&self) -> bool {
        self.plaintext_taken < self.plaintext.len()
    }

    fn is_readable(&self) -> bool {
        matches!(self.phase, Phase::Handshaking | Phase::Open)
    }

    fn check_failed(&self) -> io::Result<()> {
        match self.phase {
            Phase::Failed | Phase::PlainHttp => Err(invalid("TLS has failed before")),
            Phase::Handshaking | Phase::Open | Phase::Ended => Ok(()),
        }
    }

    /// Is ready once the kernel has all that was encrypted.
    fn poll_flushed(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing_sent < self.outgoing.len() {
            let rest = IoSlice::new(&self.outgoing[self.outgoing_sent..]);
            self.outgoing_sent += ready!(socket.poll_send(cx, &[rest]))?;
        }
        if self.outgoing_sent > 0 {
            (self.outgoing, self.outgoing_sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and adds what that brings to `plaintext`, which may be nothing.
    fn poll_receive(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        plaintext: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        // The peer may wait for it. If it has to wait itself, that keeps nobody from reading.
        if let Poll::Ready(flushed) = self.poll_flushed(socket, cx) {
            flushed?;
        }
        let mut received = socket.receive_buffer();
        if self.incoming.len() + LEAST_READ_BYTES > received.capacity() {
            return Poll::Ready(Err(self.fail("a TLS handshake message is too long")));
        }
        received.extend_from_slice(&self.incoming);
        if ready!(socket.poll_recv_more(cx, &mut received))? == 0 {
            return Poll::Ready(self.end());
        }
        if self.phase == Phase::Handshaking && self.is_plain_http(&received) {
            self.phase = Phase::PlainHttp;
            return Poll::Ready(Err(invalid("plain HTTP, where TLS is spoken")));
        }
        let digested = self.digest(&mut received, plaintext);
        // What a handshake or a change of keys answers is for the peer to go on with.
        let flushed = self.poll_flushed(socket, cx);
        match digested {
            Ok(used) => self.incoming = received[used..].to_vec(),
            Err(error) => return Poll::Ready(Err(self.fail(error))),
        }
        match flushed {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// The stream has ended. Without a goodbye somebody may have cut it; what is read from it knows
    /// its own end.
    fn end(&mut self) -> io::Result<()> {
        let was_handshaking = self.phase == Phase::Handshaking;
        // What has come of a record stays: rustls remembers how far it is in it, also to say goodbye.
        self.phase = Phase::Ended;
        match was_handshaking {
            true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "left in the TLS handshake")),
            false => Ok(()),
        }
    }

    fn fail(&mut self, why: impl Into<BoxError>) -> io::Error {
        (self.phase, self.incoming) = (Phase::Failed, Vec::new());
        invalid(why)
    }

    /// TLS begins with a byte 22, HTTP with the capital letter of a method.
    fn is_plain_http(&self, received: &[u8]) -> bool {
        matches!(self.side, Side::Server(_)) && received.first().is_some_and(u8::is_ascii_uppercase)
    }

    /// Has rustls take what it can of `received`; says how much that was.
    fn digest(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            // Whatever goes wrong in there, nothing more is asked of it.
            let phase = std::mem::replace(&mut self.phase, Phase::Failed);
            let (discard, step) =
                self.side.step(&mut received[used..], plaintext, &mut self.outgoing);
            used += discard;
            if step.is_ok() {
                self.phase = phase;
            }
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Ended) => self.phase = Phase::Ended,
                Ok(Step::Blocked) => return Ok(used),
                Ok(Step::Open) => {
                    if self.phase == Phase::Handshaking {
                        self.phase = Phase::Open;
                    }
                    return Ok(used);
                }
                Err(error) => {
                    // The alert that tells the peer, if there is one to send; of the same bytes, which
                    // rustls remembers the place in.
                    let _ = self.side.step(&mut received[used..], plaintext, &mut self.outgoing);
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts `bytes` into `records`, which grows if it must; says how long they are.
    fn seal(&mut self, bytes: &[u8], records: &mut Vec<u8>) -> io::Result<usize> {
        let room = bytes.len() + (bytes.len() / RECORD_BYTES + 2) * RECORD_OVERHEAD_BYTES;
        records.resize(records.len().max(room), 0);
        let phase = std::mem::replace(&mut self.phase, Phase::Failed);
        let sealed = self.side.seal(&mut self.incoming, bytes, records);
        if sealed.is_ok() {
            self.phase = phase;
        }
        sealed.map_err(|error| self.fail(error))
    }
}

impl Side {
    fn step(
        &mut self,
        received: &mut [u8],
        plaintext: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Server(server) => {
                settle(server.process_tls_records(received), plaintext, outgoing)
            }
            Self::Client(client) => {
                settle(client.process_tls_records(received), plaintext, outgoing)
            }
        }
    }

    fn seal(
        &mut self,
        incoming: &mut [u8],
        bytes: &[u8],
        records: &mut [u8],
    ) -> Result<usize, BoxError> {
        match self {
            Self::Server(server) => seal(server.process_tls_records(incoming), bytes, records),
            Self::Client(client) => seal(client.process_tls_records(incoming), bytes, records),
        }
    }

    fn seal_goodbye(&mut self, incoming: &mut [u8], records: &mut [u8]) -> Result<usize, BoxError> {
        match self {
            Self::Server(server) => seal_goodbye(server.process_tls_records(incoming), records),
            Self::Client(client) => seal_goodbye(client.process_tls_records(incoming), records),
        }
    }
}

/// Does what rustls wants done.
fn settle<Data>(
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
            // It is in `outgoing`, which goes before all else.
            transmission.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Open),
        // Early data is never allowed, so it never comes.
        Ok(_) => Ok(Step::Blocked),
    };
    (discard, step)
}

fn seal<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    bytes: &[u8],
    records: &mut [u8],
) -> Result<usize, BoxError> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => Ok(traffic.encrypt(bytes, records)?),
        state => Err(format!("TLS can't send now: {state:?}").into()),
    }
}

fn seal_goodbye<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    records: &mut [u8],
) -> Result<usize, BoxError> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => Ok(traffic.queue_close_notify(records)?),
        state => Err(format!("TLS can't send now: {state:?}").into()),
    }
}

/// The bytes of all `slices` in one piece; `space` is used if there are more than one.
fn join<'s>(space: &'s mut Vec<u8>, slices: &'s [IoSlice<'_>]) -> &'s [u8] {
    if let [slice] = slices {
        return slice;
    }
    space.clear();
    for slice in slices {
        space.extend_from_slice(&slice[..slice.len().min(SEND_BYTES)]);
    }
    space
}

fn invalid(why: impl Into<BoxError>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// How much is encrypted at once: a message of the usual limit, so that it leaves in one call.
const SEND_BYTES: usize = 64 * 1024 + 256;
/// How much room a read must have; the longest record leaves more of the buffer that all share.
const LEAST_READ_BYTES: usize = 8 * 1024;
/// The most a record holds (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// More than a record adds to what it holds (RFC 8446 §5.2), an alert, or a change of keys takes.
const RECORD_OVERHEAD_BYTES: usize = 256;
