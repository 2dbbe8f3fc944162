use std::time::{Duration, Instant};

use fastrand::Rng;

use super::*;
use crate::rate::{Pace, Rate};
use crate::ws::shared::control_rate;

/// One frame as the model sees it: where it begins, where its payload does, and where it ends.
#[derive(Debug)]
struct Seen {
    payload_start: usize,
    end: usize,
    /// Whether the byte behind it begins a message.
    at_rest: bool,
}

/// What is true of a string of bytes.
#[derive(Debug, Default)]
struct Truth {
    /// Frames whose header is whole, up to the violation.
    frames: Vec<Seen>,
    /// The close code, and after how many bytes it is certain.
    violation: Option<(CloseCode, usize)>,
}

/// Decodes all of `bytes`. A length is judged when all of it has come, and a text that breaks off when
/// its last frame has ended; everything else at the byte that is wrong.
fn truth(bytes: &[u8], limit: usize) -> Truth {
    let mut truth = Truth::default();
    truth.violation = decode(bytes, limit, &mut truth.frames).err();
    truth
}

fn decode(bytes: &[u8], limit: usize, frames: &mut Vec<Seen>) -> Result<(), (CloseCode, usize)> {
    let (mut at, mut message, mut controls) = (0, None::<Model>, 0);
    loop {
        let Some(&first) = bytes.get(at) else { return Ok(()) };
        let (is_final, opcode) = (first >= 128, first % 16);
        let known = match opcode {
            0 => message.is_some(),
            1 | 2 => message.is_none(),
            8..=10 => is_final,
            _ => false,
        };
        if !known || first / 16 % 8 != 0 {
            return Err((CloseCode::Protocol, at + 1));
        }
        let Some(&second) = bytes.get(at + 1) else { return Ok(()) };
        if second < 128 || (opcode >= 8 && second - 128 > 125) {
            return Err((CloseCode::Protocol, at + 2));
        }
        let (width, least) = match second - 128 {
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
        if length < least {
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
            let message = message.get_or_insert_with(|| Model::new(opcode == 1));
            message.payload_bytes += length;
            message.bytes += payload_start - at + length;
            if message.bytes > limit + 1024 * 14 {
                return Err((CloseCode::Policy, payload_start));
            }
        }
        let end = payload_start + length;
        let at_rest = if opcode < 8 { is_final } else { message.is_none() };
        frames.push(Seen { payload_start, end, at_rest });
        let payload = &bytes[payload_start..end.min(bytes.len())];
        if opcode < 8
            && let Some(text) = message.as_mut().and_then(|message| message.text.as_mut())
        {
            for (index, byte) in payload.iter().enumerate() {
                text.push(byte ^ mask[index % 4]);
                if spell(text) == Spelling::Wrong {
                    return Err((CloseCode::Invalid, payload_start + index + 1));
                }
            }
            if end <= bytes.len() && is_final && spell(text) == Spelling::Unfinished {
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

/// A message under way.
struct Model {
    payload_bytes: usize,
    /// With headers.
    bytes: usize,
    /// The end of its text.
    text: Option<Vec<u8>>,
}

impl Model {
    fn new(is_text: bool) -> Self {
        Self { payload_bytes: 0, bytes: 0, text: is_text.then(Vec::new) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Spelling {
    Whole,
    Unfinished,
    Wrong,
}

/// Looks at the end of a text after each byte; a whole character is forgotten (RFC 3629 §4).
fn spell(text: &mut Vec<u8>) -> Spelling {
    let range = |low, high, byte: &u8| (low..=high).contains(byte);
    let Some((first, rest)) = text.split_first() else { return Spelling::Whole };
    let (length, low, high) = match first {
        0x00..=0x7f => (1, 0, 0),
        0xc2..=0xdf => (2, 0x80, 0xbf),
        0xe0 => (3, 0xa0, 0xbf),
        0xed => (3, 0x80, 0x9f),
        0xe1..=0xef => (3, 0x80, 0xbf),
        0xf0 => (4, 0x90, 0xbf),
        0xf1..=0xf3 => (4, 0x80, 0xbf),
        0xf4 => (4, 0x80, 0x8f),
        _ => return Spelling::Wrong,
    };
    let is_right = rest.first().is_none_or(|second| range(low, high, second))
        && rest.iter().skip(1).all(|byte| range(0x80, 0xbf, byte));
    if !is_right {
        return Spelling::Wrong;
    }
    if text.len() < length {
        return Spelling::Unfinished;
    }
    text.clear();
    Spelling::Whole
}

/// Lets `bytes` through a gate in pieces of these sizes, the last as large as need be, and sees that all
/// is as the model says.
fn compare(bytes: &[u8], limit: usize, truth: &Truth, pieces: impl IntoIterator<Item = usize>) {
    let (mut gate, mut controls) = (Gate::new(limit), Controls::new());
    let mut pieces = pieces.into_iter();
    let (mut at, mut ends) = (0, Vec::new());
    while at < bytes.len() {
        let piece_end = pieces.next().map_or(bytes.len(), |size| bytes.len().min(at + size));
        while at < piece_end {
            let piece = &bytes[at..piece_end];
            match gate.admit(piece, || controls.may_come()) {
                Ok(count) => {
                    assert!((1..=piece.len()).contains(&count), "{count}");
                    at += count;
                    if let Some((_, certain)) = truth.violation {
                        assert!(at < certain, "not refused at {certain}: {truth:?}");
                    }
                    assert_state(&gate, at, truth);
                    let has_ended = gate.header_bytes == 0;
                    assert!(has_ended || at == piece_end, "stopped within a frame at {at}");
                    ends.extend(has_ended.then_some(at));
                }
                Err(reason) => {
                    let (code, certain) = truth.violation.expect("nothing is wrong");
                    assert_eq!(reason.code, code, "{reason} at {at}: {truth:?}");
                    assert!(
                        (at + 1..=piece_end).contains(&certain),
                        "{at}..{piece_end}: {truth:?}"
                    );
                    let whole = truth.frames.iter().map(|frame| frame.end);
                    assert_eq!(ends, whole.filter(|end| *end < certain).collect::<Vec<_>>());
                    return;
                }
            }
        }
    }
    assert_eq!(truth.violation, None, "not refused");
    let whole = truth.frames.iter().map(|frame| frame.end);
    assert_eq!(ends, whole.filter(|end| *end <= bytes.len()).collect::<Vec<_>>());
}

fn assert_state(gate: &Gate, at: usize, truth: &Truth) {
    let within = |frame: &&Seen| (frame.payload_start..frame.end).contains(&at);
    let left = truth.frames.iter().find(within).map_or(0, |frame| frame.end - at);
    assert_eq!(gate.payload_left(), left as u64, "at {at}: {truth:?}");
    let at_rest = truth.frames.iter().any(|frame| frame.end == at && frame.at_rest);
    assert_eq!(gate.is_at_rest(), at_rest, "at {at}: {truth:?}");
}

/// Compares at every chunking that is worth it.
fn compare_chunked(bytes: &[u8], limit: usize, rng: &mut Rng) {
    let truth = truth(bytes, limit);
    compare(bytes, limit, &truth, None);
    compare(bytes, limit, &truth, std::iter::repeat_n(1, bytes.len()));
    if bytes.len() <= EVERY_SPLIT_BYTES {
        for split in 1..bytes.len() {
            compare(bytes, limit, &truth, [split]);
        }
    }
    for largest in [3, 40, 700] {
        compare(bytes, limit, &truth, std::iter::from_fn(|| Some(rng.usize(1..=largest))));
    }
}

/// A frame to be sent, right or wrong.
#[derive(Clone, Debug)]
struct Sketch {
    first: u8,
    payload: Vec<u8>,
    is_masked: bool,
    /// The length it says, and in how many bytes, if not the one that is right.
    claim: Option<(u64, usize)>,
}

impl Sketch {
    fn new(first: u8, payload: &[u8]) -> Self {
        Self { first, payload: payload.to_vec(), is_masked: true, claim: None }
    }

    fn encode(&self, mask: [u8; 4]) -> Vec<u8> {
        let length = self.payload.len() as u64;
        let width = match length {
            0..=125 => 0,
            126..=65535 => 2,
            _ => 8,
        };
        let (length, width) = self.claim.unwrap_or((length, width));
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

fn encode(sketches: &[Sketch], rng: &mut Rng) -> Vec<u8> {
    sketches.iter().flat_map(|sketch| sketch.encode(rng.u32(..).to_ne_bytes())).collect()
}

/// Valid messages within `limit`, whole and in fragments, with control frames between.
fn valid(rng: &mut Rng, limit: usize) -> Vec<Sketch> {
    let (mut sketches, mut controls) = (Vec::new(), rng.usize(..6));
    for _ in 0..rng.usize(1..5) {
        let is_text = rng.bool();
        let most = limit.min([0, 5, 30, 300, 3000][rng.usize(..5)]);
        let size = rng.usize(..=most);
        let payload = if is_text { text(rng, size) } else { vec![rng.u8(..); size] };
        let (mut rest, mut first) = (&payload[..], if is_text { TEXT } else { BINARY });
        loop {
            if controls > 0 && rng.u8(..3) == 0 {
                controls -= 1;
                let control = FINAL | [CLOSE, PING, PONG][rng.usize(..3)];
                let size = [0, 1, 7, 125][rng.usize(..4)];
                sketches.push(Sketch::new(control, &vec![rng.u8(..); size]));
            }
            let is_last = rng.u8(..3) == 0;
            let (part, after) = rest.split_at(match is_last {
                true => rest.len(),
                false => rng.usize(..=rest.len()),
            });
            sketches.push(Sketch::new(first | if is_last { FINAL } else { 0 }, part));
            (rest, first) = (after, CONTINUATION);
            if is_last {
                break;
            }
        }
    }
    sketches
}

/// Text of `size` bytes, in characters of one to four, and the first and last of each length.
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

/// Makes one thing wrong with one frame; it may turn out to be right all the same.
fn spoil(sketches: &mut Vec<Sketch>, rng: &mut Rng, limit: usize) {
    let index = rng.usize(..sketches.len());
    let sketch = &mut sketches[index];
    let length = sketch.payload.len() as u64;
    let control = [CLOSE, PING, PONG][rng.usize(..3)];
    let too_big = [1 << 31, 1 << 63, u64::MAX, limit as u64 + 1];
    match rng.u8(..12) {
        0 => sketch.is_masked = false,
        1 => sketch.first |= [0x10, 0x20, 0x40][rng.usize(..3)],
        2 => sketch.first = (sketch.first & 0xf0) | UNKNOWN[rng.usize(..UNKNOWN.len())],
        3 => *sketch = Sketch::new(FINAL | control, &[b'x'; 126]),
        4 => *sketch = Sketch::new(control, b"x"),
        5 => sketch.first = (sketch.first & 0xf0) | [CONTINUATION, TEXT, BINARY][rng.usize(..3)],
        6 => sketch.claim = Some((length, [2, 8][rng.usize(..2)])),
        7 => sketch.claim = Some((too_big[rng.usize(..4)], 8)),
        8 => sketch.payload.extend(vec![b'x'; limit + 1 - sketch.payload.len().min(limit)]),
        9 => sketch.first ^= FINAL,
        10 => {
            let wrong = NOT_UTF_8[rng.usize(..NOT_UTF_8.len())];
            let place = rng.usize(..=sketch.payload.len());
            sketch.payload.splice(place..place, wrong.iter().copied());
        }
        _ => {
            sketches.remove(index);
        }
    }
}

/// Changes bytes that know nothing of frames.
fn garble(bytes: &mut Vec<u8>, rng: &mut Rng) {
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
fn valid_streams_pass_in_whatever_pieces_they_come() {
    for seed in 0..STREAMS {
        let mut rng = Rng::with_seed(seed);
        let limit = random_limit(&mut rng);
        let sketches = valid(&mut rng, limit);
        let bytes = encode(&sketches, &mut rng);
        let truth = truth(&bytes, limit);
        assert_eq!(truth.violation, None, "seed {seed}");
        assert_eq!(truth.frames.len(), sketches.len(), "seed {seed}");
        compare_chunked(&bytes, limit, &mut rng);
    }
}

#[test]
fn what_is_wrong_is_refused_at_the_byte_that_makes_it_certain() {
    let mut codes = [0; 4];
    for seed in 0..STREAMS * 4 {
        let mut rng = Rng::with_seed(seed);
        let limit = random_limit(&mut rng);
        let mut sketches = valid(&mut rng, limit);
        spoil(&mut sketches, &mut rng, limit);
        let mut bytes = encode(&sketches, &mut rng);
        for _ in 0..[0, 0, 1, 3][rng.usize(..4)] {
            garble(&mut bytes, &mut rng);
        }
        bytes.truncate(3 * MAX_STREAM_BYTES);
        compare_chunked(&bytes, limit, &mut rng);
        codes[match truth(&bytes, limit).violation {
            None => 0,
            Some((CloseCode::Protocol, _)) => 1,
            Some((CloseCode::Invalid, _)) => 2,
            Some(_) => 3,
        }] += 1;
    }
    assert!(codes.iter().all(|count| *count > STREAMS / 20), "too much alike: {codes:?}");
}

#[test]
fn wrong_characters_are_refused_wherever_they_stand_and_however_they_are_cut() {
    let mut rng = Rng::with_seed(1);
    for wrong in NOT_UTF_8 {
        // The room the text is looked at in ends after 512 bytes, and 3 more may stand before them.
        for before in [0, 1, 4, 120, 509, 510, 511, 512, 513, 1023] {
            let text = [&vec![b'a'; before][..], wrong, b"bcde"].concat();
            let whole = [Sketch::new(FINAL | TEXT, &text)];
            compare_chunked(&encode(&whole, &mut rng), 70_000, &mut rng);
            let cut_off = [Sketch::new(FINAL | TEXT, &text[..before + wrong.len()])];
            let truth = truth(&encode(&cut_off, &mut rng), 70_000);
            assert_eq!(truth.violation.unwrap().0, CloseCode::Invalid);
            compare_chunked(&encode(&cut_off, &mut rng), 70_000, &mut rng);
            for cut in before..=before + wrong.len() {
                let ping = Sketch::new(FINAL | PING, b"\xff");
                let fragments = [
                    Sketch::new(TEXT, &text[..cut]),
                    ping,
                    Sketch::new(CONTINUATION, b""),
                    Sketch::new(FINAL, &text[cut..]),
                ];
                compare_chunked(&encode(&fragments, &mut rng), 70_000, &mut rng);
            }
        }
    }
}

#[test]
fn each_rule_has_its_code_and_the_byte_where_it_is_certain() {
    let open = [TEXT, 0x81, 0, 0, 0, 0, b'a'];
    let after_open = |bytes: &[u8]| [&open[..], bytes].concat();
    for (bytes, code, certain) in [
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
        // One byte and a hundred are more than a hundred.
        (after_open(&[0x80, 0xe4]), CloseCode::Size, 9),
        (vec![0x81, 0x85, 0, 0, 0, 0, b'a', 0xed, 0xa0], CloseCode::Invalid, 9),
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xc3], CloseCode::Invalid, 7),
    ] {
        assert_eq!(truth(&bytes, 100).violation, Some((code, certain)), "{bytes:x?}");
        compare_chunked(&bytes, 100, &mut Rng::with_seed(0));
    }
}

#[test]
fn a_length_has_one_form() {
    for (length, widths) in [
        (0, [true, false, false]),
        (125, [true, false, false]),
        (126, [false, true, false]),
        (65535, [false, true, false]),
        (65536, [false, false, true]),
    ] {
        for (width, is_right) in [0, 2, 8].into_iter().zip(widths) {
            // One that has no room in a form can't be said in it.
            if (width == 0 && length > 125) || (width == 2 && length > 65535) {
                continue;
            }
            let mut sketch = Sketch::new(FINAL | BINARY, &vec![0; length as usize]);
            sketch.claim = Some((length, width));
            let bytes = sketch.encode([1, 2, 3, 4]);
            let expected = (!is_right).then_some((CloseCode::Protocol, 2 + width));
            let truth = truth(&bytes, 70_000);
            assert_eq!(truth.violation, expected, "{length} in {width}");
            compare(&bytes, 70_000, &truth, None);
            compare(&bytes, 70_000, &truth, [1, 1, 1, 1, 6, 4, 100]);
        }
    }
}

/// When control frames may come.
struct Controls {
    rate: Rate,
    pace: Pace,
    now: Instant,
}

impl Controls {
    fn new() -> Self {
        let now = Instant::now();
        Self { rate: control_rate(now), pace: Pace::default(), now }
    }

    fn may_come(&mut self) -> bool {
        self.rate.admit(&mut self.pace, self.now).is_ok()
    }
}

/// Lets one whole frame in.
fn admit(gate: &mut Gate, first: u8, payload: &[u8]) -> Result<(), CloseCode> {
    admit_paced(gate, first, payload, &mut Controls::new())
}

fn admit_paced(
    gate: &mut Gate,
    first: u8,
    payload: &[u8],
    controls: &mut Controls,
) -> Result<(), CloseCode> {
    let bytes = Sketch::new(first, payload).encode([1, 2, 3, 4]);
    let count = gate.admit(&bytes, || controls.may_come()).map_err(|reason| reason.code)?;
    assert_eq!(count, bytes.len());
    Ok(())
}

#[test]
fn a_message_has_an_allowance_of_fragments_and_the_next_has_it_again() {
    let limit = 1000;
    let most = (limit + 1024 * 14) / 6;
    let mut gate = Gate::new(limit);
    for _ in 0..3 {
        assert_eq!(admit(&mut gate, BINARY, b""), Ok(()));
        for _ in 2..most {
            assert_eq!(admit(&mut gate, CONTINUATION, b""), Ok(()));
        }
        assert!(!gate.is_at_rest());
        assert_eq!(admit(&mut gate, FINAL, b""), Ok(()));
        assert!(gate.is_at_rest());
    }
    assert_eq!(admit(&mut gate, TEXT, b""), Ok(()));
    for _ in 1..most {
        assert_eq!(admit(&mut gate, CONTINUATION, b""), Ok(()));
    }
    assert_eq!(admit(&mut gate, CONTINUATION, b""), Err(CloseCode::Policy));
}

#[test]
fn a_message_of_the_limit_passes_in_a_thousand_fragments() {
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
fn twenty_control_frames_may_come_at_once_and_then_ten_a_second() {
    let (mut gate, mut controls) = (Gate::new(100), Controls::new());
    for index in 0..20 {
        let first = FINAL | [CLOSE, PING, PONG][index % 3];
        assert_eq!(admit_paced(&mut gate, first, b"", &mut controls), Ok(()), "{index}");
    }
    for _ in 0..100 {
        controls.now += Duration::from_millis(100);
        assert_eq!(admit_paced(&mut gate, FINAL | PING, b"", &mut controls), Ok(()));
    }
    controls.now += Duration::from_millis(99);
    let refused = admit_paced(&mut gate, FINAL | PONG, b"", &mut controls);
    assert_eq!(refused, Err(CloseCode::Policy));
}

#[test]
fn the_pings_of_a_day_use_up_nothing() {
    let (mut gate, mut controls) = (Gate::new(100), Controls::new());
    assert_eq!(admit(&mut gate, TEXT, b"a"), Ok(()));
    for _ in 0..24 * 3600 {
        controls.now += Duration::from_secs(1);
        assert_eq!(admit_paced(&mut gate, FINAL | PING, &[255; 125], &mut controls), Ok(()));
        assert!(!gate.is_at_rest());
    }
    assert_eq!(admit(&mut gate, FINAL, &[b'a'; 99]), Ok(()));
    assert!(gate.is_at_rest());
}

#[test]
fn many_messages_pass_one_after_another() {
    let mut gate = Gate::new(100);
    for _ in 0..10_000 {
        assert_eq!(admit(&mut gate, FINAL | TEXT, &[b'a'; 100]), Ok(()));
        assert!(gate.is_at_rest());
    }
}

const STREAMS: u64 = 400;
const MAX_STREAM_BYTES: usize = 4000;
/// Streams up to this are split at every place.
const EVERY_SPLIT_BYTES: usize = 120;
/// Opcodes that mean nothing.
const UNKNOWN: &[u8] = &[3, 4, 5, 6, 7, 11, 12, 13, 14, 15];
/// The first and the last characters of each length, and of what surrounds the surrogates.
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
/// Of which each is wrong, or the beginning of a character that a letter can't go on with.
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
