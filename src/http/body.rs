//! The body of a request: its framing, and the decoder of a chunked body (RFC 9112 §7.1).

use std::fmt;

use super::response::Response;

/// The framing of a request's body (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The head announces no body.
    None,
    /// The body has this number of bytes.
    Length(u64),
    /// The body is sent in chunks. Its length is unknown until its end.
    Chunked,
}

impl Framing {
    /// Returns true if this body must not be read for a resource that takes at most `limit` bytes. With the
    /// limit 0, no chunked body is read, not even an empty one.
    pub(crate) fn exceeds(self, limit: u64) -> bool {
        match self {
            Self::None => false,
            Self::Length(bytes) => bytes > limit,
            Self::Chunked => limit == 0,
        }
    }

    /// Returns the number of bytes that the body has at least on the connection.
    pub(crate) fn least_bytes(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Length(bytes) => bytes,
            Self::Chunked => b"0\r\n\r\n".len() as u64,
        }
    }
}

/// A decoder of a chunked body that arrives in pieces. It examines each byte once, and discards extensions
/// and trailers.
#[derive(Debug)]
pub(crate) struct ChunkedBody {
    state: State,
    /// The value of the digits of the chunk's size, then the number of bytes that its data still has.
    left: u64,
    /// The number of bytes that the payload may still have.
    room: u64,
    limit: u64,
    /// The length of the extensions and trailers so far, in bytes.
    discarded: usize,
}

/// The position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size of a chunk, after this number of digits.
    Size(u8),
    Extensions,
    /// Before the line feed that ends the line with the size.
    SizeEnd,
    Data,
    /// Before the carriage return after the data.
    DataEnd,
    /// Before the line feed after the data.
    ChunkEnd,
    /// At the start of a line after the last chunk.
    LineStart,
    Trailer,
    /// Before the line feed that ends a trailer.
    TrailerEnd,
    /// Before the last line feed.
    End,
}

impl ChunkedBody {
    /// Creates a decoder for a body whose payload has at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { state: State::Size(0), left: 0, room: limit, limit, discarded: 0 }
    }

    /// Decodes the next piece of the body, and moves the payload in it to its front. Returns the length of
    /// that payload, and the position after the body if the body ends in this piece.
    ///
    /// # Errors
    /// [`BodyError`], as soon as the error is certain.
    pub(crate) fn decode(&mut self, piece: &mut [u8]) -> Result<(usize, Option<usize>), BodyError> {
        let (mut payload, mut position) = (0, 0);
        while position < piece.len() {
            if self.state == State::Data {
                let rest = piece.len() - position;
                let count = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                piece.copy_within(position..position + count, payload);
                payload += count;
                position += count;
                self.left -= count as u64;
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
                continue;
            }
            let byte = piece[position];
            position += 1;
            if (self.state, byte) == (State::End, b'\n') {
                return Ok((payload, Some(position)));
            }
            self.state = self.after(byte)?;
        }
        Ok((payload, None))
    }

    /// Returns the state after a byte that is not data.
    fn after(&mut self, byte: u8) -> Result<State, BodyError> {
        Ok(match (self.state, byte) {
            (State::Size(digits @ ..MAX_SIZE_DIGITS), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = (self.left << 4) | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(1..), b';') => State::Extensions,
            (State::Size(1..) | State::Extensions, b'\r') => State::SizeEnd,
            (State::SizeEnd, b'\n') if self.left == 0 => State::LineStart,
            (State::SizeEnd, b'\n') => {
                let room = self.room.checked_sub(self.left);
                self.room = room.ok_or(BodyError::TooLong { limit: self.limit })?;
                State::Data
            }
            (State::DataEnd, b'\r') => State::ChunkEnd,
            (State::ChunkEnd, b'\n') => State::Size(0),
            (State::LineStart, b'\r') => State::End,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerEnd, b'\n') => State::LineStart,
            (
                state @ (State::Extensions | State::LineStart | State::Trailer),
                b'\t' | b' '..=b'~' | 0x80..,
            ) => {
                self.discarded += 1;
                if self.discarded > MAX_DISCARDED_BYTES {
                    return Err(BodyError::Malformed(
                        "its extensions and trailers exceed 8192 bytes",
                    ));
                }
                if state == State::Extensions { state } else { State::Trailer }
            }
            (state, _) => return Err(BodyError::Malformed(state.problem())),
        })
    }
}

impl State {
    /// Returns what is wrong with a byte that is not expected in this state.
    fn problem(self) -> &'static str {
        match self {
            Self::Size(_) => "the size of a chunk is not 1 to 16 hexadecimal digits",
            Self::Data | Self::DataEnd => "a chunk is longer than its size",
            Self::Extensions | Self::LineStart | Self::Trailer => {
                "an extension or trailer has a control character"
            }
            Self::SizeEnd | Self::ChunkEnd | Self::TrailerEnd | Self::End => {
                "a carriage return without a line feed"
            }
        }
    }
}

/// The reason why the body of a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The chunks break the grammar; the text says where.
    Malformed(&'static str),
    /// The payload is longer than the limit.
    TooLong {
        /// The limit, in bytes.
        limit: u64,
    },
}

impl BodyError {
    /// Returns the response. The end of the body is unknown, so the connection must be closed after it.
    pub(crate) fn response(&self) -> Response {
        let status = match self {
            Self::Malformed(_) => 400,
            Self::TooLong { .. } => 413,
        };
        Response::text(status, format!("{self}\n"))
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed chunked body: {what}"),
            Self::TooLong { limit } => write!(f, "request body is longer than {limit} bytes"),
        }
    }
}

impl std::error::Error for BodyError {}

/// The maximum number of digits of a chunk's size: those of a 64-bit number. This limits the overhead of a
/// chunk to 20 bytes beside its extensions.
const MAX_SIZE_DIGITS: u8 = 16;
/// The maximum length of all extensions and trailers of a body, in bytes.
const MAX_DISCARDED_BYTES: usize = 8192;

#[cfg(test)]
mod tests;
