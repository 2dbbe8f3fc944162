use std::time::{Duration, Instant};

use fastrand::Rng;

use super::*;
use crate::rate::{Rate, RateState};
use crate::ws::shared::control_rate;

/// One frame, as decoded by the model.
#[derive(Debug)]
struct ModelFrame {
    payload_start: usize,
    end: usize,
    /// True if the byte after the frame begins a message.
    precedes_message: bool,
}

/// The expected result of the gate for a sequence of bytes.
#[derive(Debug, Default)]
struct Expected {
    /// The frames with a complete header, up to the violation.
    frames: Vec<ModelFrame>,
    /// The close code, and the number of bytes that prove the violation.
    violation: Option<(CloseCode, usize)>,
}

/// Decodes all of `bytes` with a model of the gate. A wrong length is a violation at its last byte, a text
/// with an incomplete last character at the end of its last frame, and everything else at the first wrong
/// byte.
fn expect(bytes: &[u8], limit: usize) -> Expected {
    let mut expected = Expected::default();
    expected.violation = decode(bytes, limit, &mut expected.frames).err();
    expected
}

fn decode(
    bytes: &[u8],
    limit: usize,
    frames: &mut Vec<ModelFrame>,
) -> Result<(), (CloseCode, usize)> {
    let (mut at, mut message, mut controls) = (0, None::<OpenMessage>, 0);
    loop {
        let Some(&first) = bytes.get(at) else { return Ok(()) };
        let (is_final, opcode) = (first >= 128, first % 16);
        let is_allowed = match opcode {
            0 => message.is_some(),
            1 | 2 => message.is_none(),
            8..=10 => is_final,
            _ => false,
        };
        if !is_allowed || first / 16 % 8 != 0 {
            return Err((CloseCode::Protocol, at + 1));
        }
        let Some(&second) = bytes.get(at + 1) else { return Ok(()) };
        if second < 128 || (opcode >= 8 && second - 128 > 125) {
            return Err((CloseCode::Protocol, at + 2));
        }
        let (width, min_length) = match second - 128 {
            126 => (2, 126),
            127 => (8, 65536),
            _ => (0, 0),
        };
        let Some(digits) = bytes.get(at + 2..at + 2 + width) else { return Ok(()) };
        let mut length = u128::from(second - 128);
        if width > 0 {
            length = digits.iter().fold(0, |length, digit| length * 256 + u128::from(*digit));
        }
        let before = message.as_ref().map_or(0, |message| message.payload_bytes);
        if opcode < 8 && length + before as u128 > limit as u128 {
            return Err((CloseCode::Size, at + 2 + width));
        }
        if length < min_length {
            return Err((CloseCode::Protocol, at + 2 + width));
        }
        let length = length as usize;
        let payload_start = at + 2 + width + 4;
        let Some(mask) = bytes.get(payload_start - 4..payload_start) else { return Ok(()) };
        if opcode >= 8 {
            controls += 1;
            if controls > 20 {
                return Err((CloseCode::Policy, payload_start));
            }
        } else {
            let message = message.get_or_insert_with(|| OpenMessage::new(opcode == 1));
            message.payload_bytes += length;
            message.bytes += payload_start - at + length;
            if message.bytes > limit + 1024 * 14 {
                return Err((CloseCode::Policy, payload_start));
            }
        }
        let end = payload_start + length;
        let precedes_message = if opcode < 8 { is_final } else { message.is_none() };
        frames.push(ModelFrame { payload_start, end, precedes_message });
        let payload = &bytes[payload_start..end.min(bytes.len())];
        if opcode < 8
            && let Some(text) = message.as_mut().and_then(|message| message.text.as_mut())
        {
            for (index, byte) in payload.iter().enumerate() {
                text.push(byte ^ mask[index % 4]);
                if check_utf8(text) == Utf8State::Invalid {
                    return Err((CloseCode::Invalid, payload_start + index + 1));
                }
            }
            if end <= bytes.len() && is_final && check_utf8(text) == Utf8State::Incomplete {
                return Err((CloseCode::Invalid, end));
            }
        }
        if end > bytes.len() {
            return Ok(());
        }
        if opcode < 8 && is_final {
            message = None;
        }
        at = end;
    }
}

/// An unfinished message.
struct OpenMessage {
    payload_bytes: usize,
    /// The size of the payload and the frame headers.
    bytes: usize,
    /// The incomplete last character, if the message is a text.
    text: Option<Vec<u8>>,
}

impl OpenMessage {
    fn new(is_text: bool) -> Self {
        Self { payload_bytes: 0, bytes: 0, text: is_text.then(Vec::new) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Utf8State {
    Complete,
    Incomplete,
    Invalid,
}

/// Checks `text`, which holds at most one character, after a byte was appended. Removes the
/// character if it is complete (RFC 3629 §4).
fn check_utf8(text: &mut Vec<u8>) -> Utf8State {
    let range = |low, high, byte: &u8| (low..=high).contains(byte);
    let Some((first, rest)) = text.split_first() else { return Utf8State::Complete };
    let (length, low, high) = match first {
        0x00..=0x7f => (1, 0, 0),
        0xc2..=0xdf => (2, 0x80, 0xbf),
        0xe0 => (3, 0xa0, 0xbf),
        0xed => (3, 0x80, 0x9f),
        0xe1..=0xef => (3, 0x80, 0xbf),
        0xf0 => (4, 0x90, 0xbf),
        0xf1..=0xf3 => (4, 0x80, 0xbf),
        0xf4 => (4, 0x80, 0x8f),
        _ => return Utf8State::Invalid,
    };
    let is_valid = rest.first().is_none_or(|second| range(low, high, second))
        && rest.iter().skip(1).all(|byte| range(0x80, 0xbf, byte));
    if !is_valid {
        return Utf8State::Invalid;
    }
    if text.len() < length {
        return Utf8State::Incomplete;
    }
    text.clear();
    Utf8State::Complete
}

/// Passes `bytes` to a gate in pieces of the given sizes, followed by the rest in one piece, and checks that
/// the results are as expected.
fn compare(
    bytes: &[u8],
    limit: usize,
    expected: &Expected,
    pieces: impl IntoIterator<Item = usize>,
) {
    let (mut gate, mut controls) = (Gate::new(limit), Controls::new());
    let mut pieces = pieces.into_iter();
    let (mut at, mut ends) = (0, Vec::new());
    while at < bytes.len() {
        let piece_end = pieces.next().map_or(bytes.len(), |size| bytes.len().min(at + size));
        while at < piece_end {
            let piece = &bytes[at..piece_end];
            match gate.admit(piece, || controls.allows_frame()) {
                Ok(count) => {
                    assert!((1..=piece.len()).contains(&count), "{count}");
                    at += count;
                    if let Some((_, proven_at)) = expected.violation {
                        assert!(at < proven_at, "not refused at {proven_at}: {expected:?}");
                    }
                    assert_state(&gate, at, expected);
                    let has_ended = gate.header_bytes == 0;
                    assert!(has_ended || at == piece_end, "stopped within a frame at {at}");
                    ends.extend(has_ended.then_some(at));
                }
                Err(reason) => {
                    let (code, proven_at) = expected.violation.expect("a valid stream is admitted");
                    assert_eq!(reason.code, code, "{reason} at {at}: {expected:?}");
                    assert!(
                        (at + 1..=piece_end).contains(&proven_at),
                        "{at}..{piece_end}: {expected:?}"
                    );
                    let frame_ends = expected.frames.iter().map(|frame| frame.end);
                    assert_eq!(ends, frame_ends.filter(|end| *end < proven_at).collect::<Vec<_>>());
                    return;
                }
            }
        }
    }
    assert_eq!(expected.violation, None, "the violation is not refused");
    let frame_ends = expected.frames.iter().map(|frame| frame.end);
    assert_eq!(ends, frame_ends.filter(|end| *end <= bytes.len()).collect::<Vec<_>>());
}

fn assert_state(gate: &Gate, at: usize, expected: &Expected) {
    let within = |frame: &&ModelFrame| (frame.payload_start..frame.end).contains(&at);
    let left = expected.frames.iter().find(within).map_or(0, |frame| frame.end - at);
    assert_eq!(gate.payload_left(), left as u64, "at {at}: {expected:?}");
    let is_between_messages =
        expected.frames.iter().any(|frame| frame.end == at && frame.precedes_message);
    assert_eq!(gate.is_between_messages(), is_between_messages, "at {at}: {expected:?}");
}

/// Compares in one piece, in single bytes, in every two pieces if `bytes` is short, and in random pieces.
fn compare_in_pieces(bytes: &[u8], limit: usize, rng: &mut Rng) {
    let expected = expect(bytes, limit);
    compare(bytes, limit, &expected, None);
    compare(bytes, limit, &expected, std::iter::repeat_n(1, bytes.len()));
    if bytes.len() <= EVERY_SPLIT_BYTES {
        for split in 1..bytes.len() {
            compare(bytes, limit, &expected, [split]);
        }
    }
    for largest in [3, 40, 700] {
        compare(bytes, limit, &expected, std::iter::from_fn(|| Some(rng.usize(1..=largest))));
    }
}

/// The description of a frame, which may be invalid.
#[derive(Clone, Debug)]
struct FrameSpec {
    first: u8,
    payload: Vec<u8>,
    is_masked: bool,
    /// The length in the header and the size of the length field, if they differ from the correct ones.
    claimed_length: Option<(u64, usize)>,
}

impl FrameSpec {
    fn new(first: u8, payload: &[u8]) -> Self {
        Self { first, payload: payload.to_vec(), is_masked: true, claimed_length: None }
    }

    fn encode(&self, mask: [u8; 4]) -> Vec<u8> {
        let length = self.payload.len() as u64;
        let width = match length {
            0..=125 => 0,
            126..=65535 => 2,
            _ => 8,
        };
        let (length, width) = self.claimed_length.unwrap_or((length, width));
        let masked = if self.is_masked { 0x80 } else { 0 };
        let short = match width {
            0 => length as u8,
            2 => 126,
            _ => 127,
        };
        let mut bytes = vec![self.first, masked | short];
        bytes.extend(&length.to_be_bytes()[8 - width..]);
        if !self.is_masked {
            bytes.extend(&self.payload);
            return bytes;
        }
        bytes.extend(mask);
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

fn encode(specs: &[FrameSpec], rng: &mut Rng) -> Vec<u8> {
    specs.iter().flat_map(|spec| spec.encode(rng.u32(..).to_ne_bytes())).collect()
}

/// Returns valid messages within `limit`, whole and in fragments, with control frames in between.
fn valid_specs(rng: &mut Rng, limit: usize) -> Vec<FrameSpec> {
    let (mut specs, mut controls) = (Vec::new(), rng.usize(..6));
    for _ in 0..rng.usize(1..5) {
        let is_text = rng.bool();
        let max_size = limit.min([0, 5, 30, 300, 3000][rng.usize(..5)]);
        let size = rng.usize(..=max_size);
        let payload = if is_text { text(rng, size) } else { vec![rng.u8(..); size] };
        let (mut rest, mut first) = (&payload[..], if is_text { TEXT } else { BINARY });
        loop {
            if controls > 0 && rng.u8(..3) == 0 {
                controls -= 1;
                let control = FINAL | [CLOSE, PING, PONG][rng.usize(..3)];
                let size = [0, 1, 7, 125][rng.usize(..4)];
                specs.push(FrameSpec::new(control, &vec![rng.u8(..); size]));
            }
            let is_last = rng.u8(..3) == 0;
            let (part, after) = rest.split_at(match is_last {
                true => rest.len(),
                false => rng.usize(..=rest.len()),
            });
            specs.push(FrameSpec::new(first | if is_last { FINAL } else { 0 }, part));
            (rest, first) = (after, CONTINUATION);
            if is_last {
                break;
            }
        }
    }
    specs
}

/// Returns a text of `size` bytes, with characters of one to four bytes and those of `EDGES`.
fn text(rng: &mut Rng, size: usize) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < size {
        let character = match rng.u8(..6) {
            0 => rng.char('\u{80}'..='\u{7ff}'),
            1 => rng.char('\u{800}'..='\u{ffff}'),
            2 => rng.char('\u{10000}'..),
            3 => EDGES[rng.usize(..EDGES.len())],
            _ => rng.char(' '..='~'),
        };
        text.push(if text.len() + character.len_utf8() <= size { character } else { '.' });
    }
    text.into_bytes()
}

/// Changes one frame in a way that is usually, but not always, a violation.
fn break_rule(specs: &mut Vec<FrameSpec>, rng: &mut Rng, limit: usize) {
    let index = rng.usize(..specs.len());
    let spec = &mut specs[index];
    let length = spec.payload.len() as u64;
    let control = [CLOSE, PING, PONG][rng.usize(..3)];
    let too_big = [1 << 31, 1 << 63, u64::MAX, limit as u64 + 1];
    match rng.u8(..12) {
        0 => spec.is_masked = false,
        1 => spec.first |= [0x10, 0x20, 0x40][rng.usize(..3)],
        2 => {
            spec.first = (spec.first & 0xf0) | RESERVED_OPCODES[rng.usize(..RESERVED_OPCODES.len())]
        }
        3 => *spec = FrameSpec::new(FINAL | control, &[b'x'; 126]),
        4 => *spec = FrameSpec::new(control, b"x"),
        5 => spec.first = (spec.first & 0xf0) | [CONTINUATION, TEXT, BINARY][rng.usize(..3)],
        6 => spec.claimed_length = Some((length, [2, 8][rng.usize(..2)])),
        7 => spec.claimed_length = Some((too_big[rng.usize(..4)], 8)),
        8 => spec.payload.extend(vec![b'x'; limit + 1 - spec.payload.len().min(limit)]),
        9 => spec.first ^= FINAL,
        10 => {
            let invalid = NOT_UTF_8[rng.usize(..NOT_UTF_8.len())];
            let index = rng.usize(..=spec.payload.len());
            spec.payload.splice(index..index, invalid.iter().copied());
        }
        _ => {
            specs.remove(index);
        }
    }
}

/// Changes, inserts or removes one random byte.
fn corrupt(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let index = rng.usize(..bytes.len());
    match rng.u8(..4) {
        0 => bytes[index] ^= 1 << rng.u8(..8),
        1 => bytes[index] = rng.u8(..),
        2 => bytes.insert(index, rng.u8(..)),
        _ => {
            bytes.remove(index);
        }
    }
}

fn random_limit(rng: &mut Rng) -> usize {
    [0, 10, 125, 126, 500, 4000, 70_000][rng.usize(..7)]
}

#[test]
fn valid_streams_are_admitted_in_pieces_of_any_size() {
    for seed in 0..STREAMS {
        let mut rng = Rng::with_seed(seed);
        let limit = random_limit(&mut rng);
        let specs = valid_specs(&mut rng, limit);
        let bytes = encode(&specs, &mut rng);
        let expected = expect(&bytes, limit);
        assert_eq!(expected.violation, None, "seed {seed}");
        assert_eq!(expected.frames.len(), specs.len(), "seed {seed}");
        compare_in_pieces(&bytes, limit, &mut rng);
    }
}

#[test]
fn a_violation_is_refused_at_the_first_byte_that_proves_it() {
    let mut codes = [0; 4];
    for seed in 0..STREAMS * 4 {
        let mut rng = Rng::with_seed(seed);
        let limit = random_limit(&mut rng);
        let mut specs = valid_specs(&mut rng, limit);
        break_rule(&mut specs, &mut rng, limit);
        let mut bytes = encode(&specs, &mut rng);
        for _ in 0..[0, 0, 1, 3][rng.usize(..4)] {
            corrupt(&mut bytes, &mut rng);
        }
        bytes.truncate(3 * MAX_STREAM_BYTES);
        compare_in_pieces(&bytes, limit, &mut rng);
        codes[match expect(&bytes, limit).violation {
            None => 0,
            Some((CloseCode::Protocol, _)) => 1,
            Some((CloseCode::Invalid, _)) => 2,
            Some(_) => 3,
        }] += 1;
    }
    assert!(
        codes.iter().all(|count| *count > STREAMS / 20),
        "the streams are too similar: {codes:?}"
    );
}

#[test]
fn invalid_utf_8_is_refused_at_every_position_and_in_all_pieces() {
    let mut rng = Rng::with_seed(1);
    for invalid in NOT_UTF_8 {
        // A text is checked 512 bytes at a time, after at most 3 bytes of an incomplete character.
        for before in [0, 1, 4, 120, 509, 510, 511, 512, 513, 1023] {
            let text = [&vec![b'a'; before][..], invalid, b"bcde"].concat();
            let whole = [FrameSpec::new(FINAL | TEXT, &text)];
            compare_in_pieces(&encode(&whole, &mut rng), 70_000, &mut rng);
            let cut_off = [FrameSpec::new(FINAL | TEXT, &text[..before + invalid.len()])];
            let expected = expect(&encode(&cut_off, &mut rng), 70_000);
            assert_eq!(expected.violation.unwrap().0, CloseCode::Invalid);
            compare_in_pieces(&encode(&cut_off, &mut rng), 70_000, &mut rng);
            for cut in before..=before + invalid.len() {
                let ping = FrameSpec::new(FINAL | PING, b"\xff");
                let fragments = [
                    FrameSpec::new(TEXT, &text[..cut]),
                    ping,
                    FrameSpec::new(CONTINUATION, b""),
                    FrameSpec::new(FINAL, &text[cut..]),
                ];
                compare_in_pieces(&encode(&fragments, &mut rng), 70_000, &mut rng);
            }
        }
    }
}

#[test]
fn each_violation_has_its_close_code_and_the_byte_that_proves_it() {
    let open = [TEXT, 0x81, 0, 0, 0, 0, b'a'];
    let after_open = |bytes: &[u8]| [&open[..], bytes].concat();
    for (bytes, code, proven_at) in [
        (vec![0x81, 0x01], CloseCode::Protocol, 2),
        (vec![0xc1], CloseCode::Protocol, 1),
        (vec![0xa1], CloseCode::Protocol, 1),
        (vec![0x91], CloseCode::Protocol, 1),
        (vec![0x83], CloseCode::Protocol, 1),
        (vec![0x8b], CloseCode::Protocol, 1),
        (vec![0x09], CloseCode::Protocol, 1),
        (vec![0x89, 0xfe], CloseCode::Protocol, 2),
        (vec![0x00], CloseCode::Protocol, 1),
        (vec![0x80], CloseCode::Protocol, 1),
        (after_open(&[0x81]), CloseCode::Protocol, 8),
        (after_open(&[0x02]), CloseCode::Protocol, 8),
        (vec![0x82, 0xfe, 0, 100], CloseCode::Protocol, 4),
        (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 90], CloseCode::Protocol, 10),
        (vec![0x82, 0xe5], CloseCode::Size, 2),
        (vec![0x82, 0xfe, 0, 126], CloseCode::Size, 4),
        (vec![0x82, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0], CloseCode::Size, 10),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], CloseCode::Size, 10),
        (vec![0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255], CloseCode::Size, 10),
        // The fragments have 1 + 100 bytes, and the limit is 100.
        (after_open(&[0x80, 0xe4]), CloseCode::Size, 9),
        (vec![0x81, 0x85, 0, 0, 0, 0, b'a', 0xed, 0xa0], CloseCode::Invalid, 9),
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xc3], CloseCode::Invalid, 7),
    ] {
        assert_eq!(expect(&bytes, 100).violation, Some((code, proven_at)), "{bytes:x?}");
        compare_in_pieces(&bytes, 100, &mut Rng::with_seed(0));
    }
}

#[test]
fn only_the_shortest_form_of_a_length_is_admitted() {
    for (length, widths) in [
        (0, [true, false, false]),
        (125, [true, false, false]),
        (126, [false, true, false]),
        (65535, [false, true, false]),
        (65536, [false, false, true]),
    ] {
        for (width, is_shortest) in [0, 2, 8].into_iter().zip(widths) {
            // The length does not fit into the field.
            if (width == 0 && length > 125) || (width == 2 && length > 65535) {
                continue;
            }
            let mut spec = FrameSpec::new(FINAL | BINARY, &vec![0; length as usize]);
            spec.claimed_length = Some((length, width));
            let bytes = spec.encode([1, 2, 3, 4]);
            let violation = (!is_shortest).then_some((CloseCode::Protocol, 2 + width));
            let expected = expect(&bytes, 70_000);
            assert_eq!(expected.violation, violation, "{length} in {width}");
            compare(&bytes, 70_000, &expected, None);
            compare(&bytes, 70_000, &expected, [1, 1, 1, 1, 6, 4, 100]);
        }
    }
}

/// The rate limit for control frames, with a clock that the test sets.
struct Controls {
    rate: Rate,
    state: RateState,
    now: Instant,
}

impl Controls {
    fn new() -> Self {
        let now = Instant::now();
        Self { rate: control_rate(now), state: RateState::default(), now }
    }

    fn allows_frame(&mut self) -> bool {
        self.rate.admit(&mut self.state, self.now).is_ok()
    }
}

/// Admits one whole frame.
fn admit(gate: &mut Gate, first: u8, payload: &[u8]) -> Result<(), CloseCode> {
    admit_with(gate, first, payload, &mut Controls::new())
}

fn admit_with(
    gate: &mut Gate,
    first: u8,
    payload: &[u8],
    controls: &mut Controls,
) -> Result<(), CloseCode> {
    let bytes = FrameSpec::new(first, payload).encode([1, 2, 3, 4]);
    let count = gate.admit(&bytes, || controls.allows_frame()).map_err(|reason| reason.code)?;
    assert_eq!(count, bytes.len());
    Ok(())
}

#[test]
fn the_number_of_fragments_is_limited_for_each_message() {
    let limit = 1000;
    let max_fragments = (limit + 1024 * 14) / 6;
    let mut gate = Gate::new(limit);
    for _ in 0..3 {
        assert_eq!(admit(&mut gate, BINARY, b""), Ok(()));
        for _ in 2..max_fragments {
            assert_eq!(admit(&mut gate, CONTINUATION, b""), Ok(()));
        }
        assert!(!gate.is_between_messages());
        assert_eq!(admit(&mut gate, FINAL, b""), Ok(()));
        assert!(gate.is_between_messages());
    }
    assert_eq!(admit(&mut gate, TEXT, b""), Ok(()));
    for _ in 1..max_fragments {
        assert_eq!(admit(&mut gate, CONTINUATION, b""), Ok(()));
    }
    assert_eq!(admit(&mut gate, CONTINUATION, b""), Err(CloseCode::Policy));
}

#[test]
fn a_message_of_the_largest_size_is_admitted_in_1024_fragments() {
    let limit = 64 * 1024;
    let mut gate = Gate::new(limit);
    for _ in 0..3 {
        assert_eq!(admit(&mut gate, BINARY, &vec![0; limit - 1023 * 10]), Ok(()));
        for _ in 0..1022 {
            assert_eq!(admit(&mut gate, CONTINUATION, &[0; 10]), Ok(()));
        }
        assert_eq!(admit(&mut gate, FINAL, &[0; 10]), Ok(()));
    }
}

#[test]
fn a_burst_of_twenty_control_frames_is_admitted_and_then_ten_per_second() {
    let (mut gate, mut controls) = (Gate::new(100), Controls::new());
    for index in 0..20 {
        let first = FINAL | [CLOSE, PING, PONG][index % 3];
        assert_eq!(admit_with(&mut gate, first, b"", &mut controls), Ok(()), "{index}");
    }
    for _ in 0..100 {
        controls.now += Duration::from_millis(100);
        assert_eq!(admit_with(&mut gate, FINAL | PING, b"", &mut controls), Ok(()));
    }
    controls.now += Duration::from_millis(99);
    let refused = admit_with(&mut gate, FINAL | PONG, b"", &mut controls);
    assert_eq!(refused, Err(CloseCode::Policy));
}

#[test]
fn the_pings_of_a_day_do_not_use_up_a_limit() {
    let (mut gate, mut controls) = (Gate::new(100), Controls::new());
    assert_eq!(admit(&mut gate, TEXT, b"a"), Ok(()));
    for _ in 0..24 * 3600 {
        controls.now += Duration::from_secs(1);
        assert_eq!(admit_with(&mut gate, FINAL | PING, &[255; 125], &mut controls), Ok(()));
        assert!(!gate.is_between_messages());
    }
    assert_eq!(admit(&mut gate, FINAL, &[b'a'; 99]), Ok(()));
    assert!(gate.is_between_messages());
}

#[test]
fn many_messages_are_admitted_one_after_another() {
    let mut gate = Gate::new(100);
    for _ in 0..10_000 {
        assert_eq!(admit(&mut gate, FINAL | TEXT, &[b'a'; 100]), Ok(()));
        assert!(gate.is_between_messages());
    }
}

const STREAMS: u64 = 400;
const MAX_STREAM_BYTES: usize = 4000;
/// Streams of at most this size are split at every byte.
const EVERY_SPLIT_BYTES: usize = 120;
/// Reserved opcodes (RFC 6455 §5.2).
const RESERVED_OPCODES: &[u8] = &[3, 4, 5, 6, 7, 11, 12, 13, 14, 15];
/// The first and the last character of each encoded length, and those next to the surrogates.
const EDGES: &[char] = &[
    '\0',
    '\u{7f}',
    '\u{80}',
    '\u{7ff}',
    '\u{800}',
    '\u{fff}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{ffff}',
    '\u{10000}',
    '\u{3ffff}',
    '\u{10ffff}',
];
/// Each is invalid, or an incomplete character that an ASCII letter cannot continue.
const NOT_UTF_8: &[&[u8]] = &[
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xc3",
    b"\xc3\x28",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xe2\x82",
    b"\xe2\x28\xa1",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
];
