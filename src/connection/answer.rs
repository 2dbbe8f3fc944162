//! Sends responses, to requests and to input that is not a valid request.

use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Instant, SystemTime};

use futures_lite::future::yield_now;
use log::Level;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::config::{Config, Reject, Timeouts};
use crate::counters::Rejection;
use crate::features::Feature;
use crate::http::head::origin_in;
use crate::http::response::Envelope;
use crate::http::{HeadError, Response};
use crate::net::{BYTES_PER_TURN, Peer, Sleep};
use crate::resource::{Answer, BodyFile};

use super::context::Context;
use super::reader::Reader;
use super::request::Request;

/// Logs and counts a request head that cannot be parsed or breaks a rule, and answers it with an error.
pub(super) async fn refuse_head(
    reader: &mut Reader,
    error: &HeadError,
    peer: Peer,
    context: &Context,
) {
    reader.log_entry().end("refused");
    context.count_rejection(match error {
        HeadError::PlainHttp => Rejection::Tls,
        _ => Rejection::Head,
    });
    log::info!(target: "falconet::request", address = peer.to_string(); "refused: {error}");
    if let Some(response) = error.response() {
        let envelope = last_envelope(reader, context);
        refuse(reader, &response, &envelope, context).await;
    }
}

/// Returns the envelope of the last response of a connection, to input that is not a valid request head.
pub(super) fn last_envelope(reader: &Reader, context: &Context) -> Envelope {
    let origin = if Feature::Full.is_built_in() { origin_in(reader.bytes()) } else { None };
    Envelope::last(context.access.cors_lines(origin), SystemTime::now())
}

/// Sends the last response of a connection and shuts the connection down. If the configuration says that
/// refused clients are dropped, nothing is sent.
pub(super) async fn refuse(
    reader: &mut Reader,
    response: &Response,
    envelope: &Envelope,
    context: &Context,
) {
    if context.config.reject == Reject::Drop {
        return;
    }
    let response = response.encode(envelope);
    if write_all(reader, &response, &context.config).await {
        reader.close(context.config.timeouts.linger).await;
    }
}

/// Returns the response to a request for an event stream that can't be served now, in place of `response` with
/// status 503: a stream that ends at once, with the connection, and asks the client to reconnect. EventSource
/// never reconnects after any other status than 200 (HTML Standard, section 9.2.3). Returns all other responses
/// unchanged.
pub(super) fn reconnecting(response: Response, request: &mut Request) -> Response {
    if !(Feature::Full.is_built_in() && request.wants_events && response.status() == 503) {
        return response;
    }
    request.close = true;
    let mut random = [0; 2];
    // Without random numbers, which the kernel lacks only while it boots, all clients reconnect early.
    let _ = getrandom(&mut random, GetRandomFlags::NONBLOCK);
    response.into_retry(MIN_RETRY_MS + u32::from(u16::from_ne_bytes(random)) % RETRY_SPREAD_MS)
}

/// Answers a request, and logs and counts it. Returns true if the connection can serve another request.
pub(super) async fn answer(
    reader: &mut Reader,
    mut answer: Answer,
    mut request: Request,
    context: &Context,
) -> bool {
    // Even if the client is asked to reconnect with status 200, the request went wrong.
    let has_failed = answer.response.status() >= 400;
    let is_dropped = has_failed && context.config.reject == Reject::Drop;
    // The 503 of the administrator's readiness probe says what it says.
    if !is_dropped && !context.is_admin() {
        answer.response = reconnecting(answer.response, &mut request);
    }
    let status = answer.response.status();
    context.count_answer(status);
    // No further request is read during a drain.
    request.close |= context.stop.is_requested();
    let level = if has_failed { Level::Info } else { Level::Debug };
    request.log(level, status, if is_dropped { "dropped" } else { "answered" });
    let is_sent = !is_dropped && respond(reader, answer, &request, &context.config).await;
    let closes = request.close;
    reader.log_entry().add_request(request, status);
    match (is_sent, closes) {
        (true, false) => return true,
        (true, true) => {
            reader.log_entry().end("closed by us");
            reader.close(context.config.timeouts.linger).await;
        }
        (false, _) => reader.log_entry().end(if is_dropped { "refused" } else { "lost" }),
    }
    false
}

/// Sends a response and the file that is its body, if any. Returns false if the sending failed.
async fn respond(
    reader: &Reader,
    Answer { response, file }: Answer,
    request: &Request,
    config: &Config,
) -> bool {
    let envelope = request.envelope();
    let (bytes, streamed) = (response.encode(&envelope), response.streamed_bytes());
    drop(response);
    let mut writing = write_all(reader, &bytes, config);
    (&mut writing).await
        && match file.filter(|_| envelope.body).zip(streamed) {
            // Boxed, because a connection reserves space for the largest future that it ever awaits.
            Some((file, length)) => Box::pin(send_file(writing, file, length)).await,
            None => true,
        }
}

/// Sends the first `length` bytes of a file, piece by piece, after the `head` of the response. Returns false if
/// reading or sending failed, or if the file is shorter. The write deadline applies to the response as a whole.
async fn send_file(head: Write<'_>, file: BodyFile, length: u64) -> bool {
    let BodyFile { file, permit: _permit } = file;
    let mut file = file.take(length);
    let (mut remaining, mut since) = (length, head.since);
    let mut piece = vec![0; FILE_PIECE_BYTES];
    let held = head.held + piece.len();
    while remaining > 0 {
        // Reading blocks all tasks while the disk works, so other tasks run after each piece.
        let Ok(count @ 1..) = file.read(&mut piece) else { return false };
        let mut writing = Write { bytes: &piece[..count], held, since, deadline: None, ..head };
        if !(&mut writing).await {
            return false;
        }
        since = writing.since;
        remaining -= count as u64;
        yield_now().await;
    }
    true
}

/// Writes all bytes. Returns false if an error occurs or the write deadline passes.
pub(super) fn write_all<'a>(reader: &'a Reader, bytes: &'a [u8], config: &'a Config) -> Write<'a> {
    let since = reader.transport().timer().now();
    let held = bytes.len();
    Write { reader, bytes, held, timeouts: &config.timeouts, since, deadline: None }
}

/// A future that writes all bytes. Returns false if an error occurs or the write deadline passes.
pub(super) struct Write<'a> {
    reader: &'a Reader,
    /// The bytes that have not been written.
    bytes: &'a [u8],
    /// The size of the buffer that they are in.
    held: usize,
    timeouts: &'a Timeouts,
    /// The time from which the write deadline counts. It moves forward when the peer reads.
    since: Instant,
    /// Runs while a write is blocked.
    deadline: Option<Sleep>,
}

impl Future for Write<'_> {
    type Output = bool;

    #[inline(never)] // Several futures poll it.
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<bool> {
        while !self.bytes.is_empty() {
            ready!(self.reader.transport().poll_turn(cx));
            let Some(count) = ready!(self.poll_some(cx)) else { return Poll::Ready(false) };
            self.bytes = &self.bytes[count..];
            if !self.bytes.is_empty() {
                // A peer that reads as fast as it is sent to must not take the thread.
                self.reader.transport().defer();
            }
        }
        Poll::Ready(true)
    }
}

impl Write<'_> {
    /// Writes some of the bytes. Returns their number, or `None` if an error occurs or the write deadline passes.
    fn poll_some(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<usize>> {
        let timer = self.reader.transport().timer();
        let piece = &self.bytes[..self.bytes.len().min(BYTES_PER_TURN)];
        let mut sent = self.reader.poll_send(cx, piece, self.held);
        if sent.is_pending() {
            let at = self.timeouts.write.and_then(|limit| self.since.checked_add(limit));
            let sleep = || at.map_or_else(|| timer.sleep(None), |at| timer.sleep_until(at));
            ready!(Pin::new(self.deadline.get_or_insert_with(sleep)).poll(cx));
            if Feature::Full.is_built_in() {
                // The peer may have read less than the kernel reports.
                self.reader.transport().assume_writable();
                sent = self.reader.poll_send(cx, piece, self.held);
            }
        }
        self.deadline = None;
        let Poll::Ready(Ok(count)) = sent else { return Poll::Ready(None) };
        if Feature::Full.is_built_in() {
            let renewed = self.since.checked_add(self.timeouts.renewal(count));
            self.since = renewed.map_or(timer.now(), |renewed| renewed.min(timer.now()));
        }
        Poll::Ready(Some(count))
    }
}

/// The text for a request that is given up because the memory for unfinished requests is used up.
pub(super) const EVICTED: &str = "too much unfinished input and output (see --max-pending)\n";
/// The shortest time after which a client is asked to reconnect, in milliseconds.
const MIN_RETRY_MS: u32 = 2000;
/// The number of different times, so that clients do not all reconnect at once: 2 s to 10 s.
const RETRY_SPREAD_MS: u32 = 8001;
/// The size of the pieces in which a file is read and sent.
const FILE_PIECE_BYTES: usize = 16 * 1024;
