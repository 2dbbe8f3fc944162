use fastrand::Rng;

use super::*;

/// The outcome of decoding: the payload, and what follows the body; `None` if the body is incomplete.
type Outcome = Result<Option<(Vec<u8>, Vec<u8>)>, BodyError>;

/// Decodes `bytes` that arrive in `pieces`, as a connection does.
fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limit: u64) -> Outcome {
    let mut body = ChunkedBody::new(limit);
    let (mut payload, mut rest, mut has_ended) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        if has_ended {
            rest.extend_from_slice(piece);
            continue;
        }
        let mut piece = piece.to_vec();
        let (length, end) = body.decode(&mut piece)?;
        payload.extend_from_slice(&piece[..length]);
        if let Some(end) = end {
            has_ended = true;
            rest.extend_from_slice(&piece[end..]);
        }
    }
    Ok(has_ended.then_some((payload, rest)))
}

/// Decodes a whole body in the plainest way. The texts of its errors are empty.
fn model(bytes: &[u8], limit: u64) -> Outcome {
    let malformed = || BodyError::Malformed("");
    let (mut payload, mut rest, mut discarded) = (Vec::new(), bytes, 0);
    loop {
        let Some([line, after]) = model_line(rest, &mut discarded, true)? else { return Ok(None) };
        let size = line.split(|byte| *byte == b';').next().unwrap();
        let size = u64::from_str_radix(str::from_utf8(size).unwrap(), 16).unwrap();
        rest = after;
        if size == 0 {
            break;
        }
        if size > limit - payload.len() as u64 {
            return Err(BodyError::TooLong { limit });
        }
        let size = size as usize;
        payload.extend_from_slice(&rest[..size.min(rest.len())]);
        match &rest[size.min(rest.len())..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', after @ ..] => rest = after,
            _ => return Err(malformed()),
        }
    }
    loop {
        let Some([line, after]) = model_line(rest, &mut discarded, false)? else { return Ok(None) };
        rest = after;
        if line.is_empty() {
            return Ok(Some((payload, rest.to_vec())));
        }
    }
}

/// Takes a line of a size or a trailer. Returns `None` if the line is incomplete.
fn model_line<'b>(
    bytes: &'b [u8],
    discarded: &mut usize,
    is_size: bool,
) -> Result<Option<[&'b [u8]; 2]>, BodyError> {
    let malformed = || BodyError::Malformed("");
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let (line, after) = bytes.split_at(bytes.iter().take_while(|byte| is_text(byte)).count());
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let is_complete = !after.is_empty();
    if is_size {
        let has_extension = digits < line.len();
        let is_valid = digits <= 16 && (!has_extension || line[digits] == b';');
        if !is_valid || (digits == 0 && (has_extension || is_complete)) {
            return Err(malformed());
        }
        *discarded += (line.len() - digits).saturating_sub(1);
    } else {
        *discarded += line.len();
    }
    if *discarded > 8192 {
        return Err(malformed());
    }
    match after {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', after @ ..] => Ok(Some([line, after])),
        _ => Err(malformed()),
    }
}

/// Checks that `bytes` have the outcome of the model, wherever they are split.
fn assert_model(bytes: &[u8], limit: u64) {
    let expected = model(bytes, limit);
    let assert_same = |outcome: Outcome, split: &str| {
        let outcome = outcome.map_err(|error| match error {
            BodyError::Malformed(_) => BodyError::Malformed(""),
            error => error,
        });
        assert_eq!(outcome, expected, "{:?} {split}", bytes.escape_ascii().to_string());
    };
    for position in 0..=bytes.len() {
        let (one, other) = bytes.split_at(position);
        assert_same(decode([one, other], limit), &format!("split at {position}"));
    }
    assert_same(decode(bytes.chunks(1), limit), "byte by byte");
}

/// Returns a valid body whose payload has up to 40 bytes, and bytes after it.
fn random_body(rng: &mut Rng) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..rng.usize(..5) {
        let size = rng.usize(1..=8);
        body.extend_from_slice(format!("{size:00$x}", rng.usize(..4)).as_bytes());
        body.extend_from_slice([";a=b;c=\"d e\"", ";", "", ""][rng.usize(..4)].as_bytes());
        body.extend_from_slice(b"\r\n");
        body.extend((0..size).map(|_| b"\r\n0;a"[rng.usize(..5)]));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(["0\r\n", "000;x\r\n"][rng.usize(..2)].as_bytes());
    body.extend_from_slice(["A: b\r\nC:\r\n", "", ""][rng.usize(..3)].as_bytes());
    body.extend_from_slice(b"\r\n");
    body.extend_from_slice(["GET /", "\r\n", ""][rng.usize(..3)].as_bytes());
    body
}

#[test]
fn a_random_body_has_the_outcome_of_the_model_at_every_split() {
    let mut rng = Rng::with_seed(17);
    for _ in 0..500 {
        let body = random_body(&mut rng);
        assert!(matches!(model(&body, 40), Ok(Some(_))), "{}", body.escape_ascii());
        assert_model(&body, 40);
        assert_model(&body, rng.u64(..20));
    }
}

#[test]
fn a_damaged_body_has_the_outcome_of_the_model_at_every_split() {
    let mut rng = Rng::with_seed(18);
    for _ in 0..3_000 {
        let mut body = random_body(&mut rng);
        for _ in 0..rng.usize(1..3) {
            let byte = b"\r\n0f; :\tg\0\x7f\xff"[rng.usize(..12)];
            let position = rng.usize(..body.len());
            match rng.u8(..3) {
                0 => body[position] = byte,
                1 => body.insert(position, byte),
                _ => drop(body.remove(position)),
            }
        }
        assert_model(&body, 40);
    }
}

#[test]
fn a_malformed_body_is_refused_with_its_reason() {
    let size = "the size of a chunk is not 1 to 16 hexadecimal digits";
    let control = "an extension or trailer has a control character";
    let end = "a carriage return without a line feed";
    for (body, reason) in [
        ("\r\n", size),
        (";a\r\n", size),
        (" 1\r\na\r\n0\r\n\r\n", size),
        ("1 \r\na\r\n0\r\n\r\n", size),
        ("1 ;a\r\na\r\n0\r\n\r\n", size),
        ("0x1\r\na\r\n0\r\n\r\n", size),
        ("+1\r\na\r\n0\r\n\r\n", size),
        ("-1\r\na\r\n0\r\n\r\n", size),
        ("1\na\r\n0\r\n\r\n", size),
        ("00000000000000001\r\na\r\n0\r\n\r\n", size),
        ("10000000000000001\r\na\r\n0\r\n\r\n", size),
        ("1\ra\r\n0\r\n\r\n", end),
        ("1;a\na\r\n0\r\n\r\n", control),
        ("1;a\0\r\na\r\n0\r\n\r\n", control),
        ("1\r\nab\r\n0\r\n\r\n", "a chunk is longer than its size"),
        ("1\r\na\n0\r\n\r\n", "a chunk is longer than its size"),
        ("1\r\na\r0\r\n\r\n", end),
        ("0\r\n\n", control),
        ("0\r\nA: b\n\r\n", control),
        ("0\r\nA: \x7f\r\n\r\n", control),
        ("0\r\n\r\r\n", end),
    ] {
        let outcome = decode([body.as_bytes()], 100);
        assert_eq!(outcome, Err(BodyError::Malformed(reason)), "{body:?}");
    }
}

#[test]
fn the_limit_is_for_the_payload_and_any_64_bit_size_is_compared_with_it() {
    let ten = "A\r\n0123456789\r\n";
    let outcome = decode([format!("{ten}0\r\n\r\n").as_bytes()], 10);
    assert_eq!(outcome, Ok(Some((b"0123456789".to_vec(), Vec::new()))));
    for body in [ten, "FFFFFFFFFFFFFFFF\r\n", "7fffffffffffffff;a\r\n", "000000000000000A\r\n"] {
        assert_eq!(decode([body.as_bytes()], 9), Err(BodyError::TooLong { limit: 9 }), "{body}");
    }
    // The sum of the sizes would overflow.
    let body = "1\r\na\r\nFFFFFFFFFFFFFFFF\r\n";
    assert_eq!(decode([body.as_bytes()], 10), Err(BodyError::TooLong { limit: 10 }));
}

#[test]
fn extensions_and_trailers_are_discarded_up_to_8_kib() {
    let filler = |bytes: usize| "x".repeat(bytes);
    let extension = |bytes| format!("1;{}\r\na\r\n0\r\n\r\n", filler(bytes));
    let trailer = |bytes| format!("1\r\na\r\n0\r\n{}\r\n\r\n", filler(bytes));
    let both = |bytes: usize| format!("1;{0}\r\na\r\n0\r\n{0}\r\n\r\n", filler(bytes / 2));
    for body in [extension(8192), trailer(8192), both(8192)] {
        assert_eq!(decode([body.as_bytes()], 1), Ok(Some((b"a".to_vec(), Vec::new()))));
    }
    for body in [extension(8193), trailer(8193), both(8194)] {
        let refused = Err(BodyError::Malformed("its extensions and trailers exceed 8192 bytes"));
        assert_eq!(decode([body.as_bytes()], 1), refused);
    }
}
