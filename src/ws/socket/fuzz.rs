//! The entry point for fuzzing of the gate and of the decoder of frames.

use super::*;
use crate::frame::{BINARY, CLOSE, CONTINUATION, FINAL, MASKED, PING, PONG, TEXT};
use crate::ws::decode::{PayloadBuffer, apply_mask, whole_message};

/// Reads the frames of a client. The first byte is the size of the pieces in which they arrive. If the size is even,
/// the largest accepted message is so large that its length has 64 bits.
pub(crate) fn frames(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let limit = if size % 2 == 0 { LARGE_MESSAGE_BYTES } else { SMALL_MESSAGE_BYTES };
    let read = read_in_pieces(bytes, bytes.len(), limit);
    assert_eq!(read_in_pieces(bytes, (*size).into(), limit), read);
    let expected = decode_plainly(bytes);
    if read.end.as_ref().is_some_and(|end| end.starts_with("Refused")) {
        // The plain decoder does not know the frames that are refused.
        assert!(expected.messages.starts_with(&read.messages), "{read:?}: {expected:?}");
        assert!(expected.answers.starts_with(&read.answers), "{read:?}: {expected:?}");
    } else {
        assert_eq!(expected.messages, read.messages);
        // The answer to a Close comes last.
        assert!(read.answers.starts_with(&expected.answers), "{read:?}: {expected:?}");
        assert!(read.end.is_some() || read.answers == expected.answers, "{read:?}: {expected:?}");
    }
}

/// The results of a client's frames.
#[derive(Debug, Default, PartialEq)]
struct Read {
    messages: Vec<Message>,
    /// The answers to Pings and to a Close.
    answers: Vec<u8>,
    end: Option<String>,
}

/// Reads frames as [`Socket::poll_next`] does, but without a connection. A message has at most `limit` bytes.
fn read_in_pieces(bytes: &[u8], size: usize, limit: usize) -> Read {
    let (mut input, mut buffer, mut read) =
        (InputState::default(), PayloadBuffer::new(), Read::default());
    for piece in bytes.chunks(size.max(1)) {
        input.backlog_mut().bytes.extend_from_slice(piece);
        while read.end.is_none() && !input.backlog().is_empty() {
            let whole_message = |bytes: &[u8]| whole_message(bytes, limit, &mut buffer);
            let decoded = input.decode(limit, whole_message, || true);
            let result = decoded.and_then(|Decoded { result, answers, count }| {
                assert!(count > 0);
                read.answers.extend(answers);
                result
            });
            match result {
                Ok(message) => read.messages.extend(message),
                Err(ending) => read.end = Some(format!("{ending:?}")),
            }
        }
    }
    read
}

/// Decodes frames that are valid. Stops at a Close, and at a frame that is incomplete or not masked.
fn decode_plainly(mut bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut open = None;
    while let Some((first, payload, rest)) = split_frame(bytes) {
        bytes = rest;
        match first & 0x0f {
            TEXT | BINARY | CONTINUATION => {
                let (kind, message) = open.get_or_insert((first & 0x0f, Vec::new()));
                message.extend(payload);
                if first & FINAL == 0 {
                    continue;
                }
                let message = match *kind {
                    TEXT => String::from_utf8(std::mem::take(message)).map(Message::from),
                    _ => Ok(Message::from(std::mem::take(message))),
                };
                let Ok(message) = message else { break };
                read.messages.push(message);
                open = None;
            }
            PING => {
                read.answers.extend([FINAL | PONG, payload.len() as u8]);
                read.answers.extend(payload);
            }
            CLOSE => break,
            _ => {}
        }
    }
    read
}

/// Splits the first frame from `bytes`. Returns its first byte, its payload, and the bytes after it.
fn split_frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (length, rest) = match second.checked_sub(MASKED)? {
        126 => rest.split_first_chunk().map(|(n, rest)| (u16::from_be_bytes(*n).into(), rest))?,
        127 => rest.split_first_chunk().map(|(n, rest)| (u64::from_be_bytes(*n), rest))?,
        length => (length.into(), rest),
    };
    let (mask, rest) = rest.split_first_chunk()?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let mut payload = payload.to_vec();
    apply_mask(&mut payload, *mask);
    Some((*first, payload, rest))
}

/// The largest accepted messages. A small input reaches the small limit.
const SMALL_MESSAGE_BYTES: usize = 300;
const LARGE_MESSAGE_BYTES: usize = 70_000;
