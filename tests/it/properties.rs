//! Random messages in random fragments and random pieces, compared with the expected echoes.
//!
//! A failure prints its seed; `FALCONET_TEST_SEED=… cargo test properties` repeats it.

use std::io::Write;
use std::net::Shutdown;

use fastrand::Rng;

use crate::support::*;

#[test]
fn every_message_is_echoed_however_it_is_split() {
    let seed = Seed::new();
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    for round in 0..ROUNDS {
        let mut rng = Rng::with_seed(seed.0.wrapping_add(round));
        let script = Script::random(&mut rng);
        let answers = play(&falconet, &script, &mut rng);
        // Not assert_eq!, which would print megabytes.
        assert!(answers.pongs == script.expected.pongs, "round {round}: pongs differ");
        let (echoes, expected) = (&answers.echoes, &script.expected.echoes);
        let same =
            echoes.iter().zip(expected).take_while(|(answers, sent)| answers == sent).count();
        assert!(
            same == expected.len() && same == echoes.len(),
            "round {round}: {same} echoes are right, {} received, {} expected",
            echoes.len(),
            expected.len()
        );
        assert_eq!(answers.close_code, script.expected.close_code, "round {round}");
    }
}

/// The frames that a client receives, pongs and echoes each in their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answers {
    echoes: Vec<(u8, Vec<u8>)>,
    pongs: Vec<Vec<u8>>,
    close_code: Option<u16>,
}

/// The frames that a client sends, and the expected frames.
struct Script {
    frames: Vec<u8>,
    expected: Answers,
}

impl Script {
    /// Returns some fragmented messages with pings between them and a Close, or, now and then, a last message
    /// beyond the limit.
    fn random(rng: &mut Rng) -> Self {
        let mut script = Self { frames: Vec::new(), expected: Answers::default() };
        let mut pings = rng.usize(..=MAX_PINGS);
        for _ in 0..rng.usize(1..=MAX_MESSAGES) {
            let opcode = if rng.bool() { TEXT } else { BINARY };
            let size = random_size(rng);
            let payload =
                if opcode == TEXT { random_text(rng, size) } else { random_bytes(rng, size) };
            script.add_message(opcode, &payload, &mut pings, rng);
            if payload.len() > LIMIT {
                script.expected.close_code = Some(1009);
                return script;
            }
            script.expected.echoes.push((opcode, payload));
        }
        let code = if rng.bool() { 1000 } else { rng.u16(3000..5000) };
        script.frames.extend(masked(true, CLOSE, &code.to_be_bytes()));
        script.expected.close_code = Some(code);
        script
    }

    fn add_message(&mut self, opcode: u8, payload: &[u8], pings: &mut usize, rng: &mut Rng) {
        let mut opcode = opcode;
        let mut rest = payload;
        loop {
            // A Ping after the byte that exceeds the limit gets no Pong.
            if *pings > 0 && rng.bool() && payload.len() - rest.len() <= LIMIT {
                *pings -= 1;
                let size = [0, 1, 4, 125][rng.usize(..4)];
                let ping = random_bytes(rng, size);
                self.frames.extend(masked(true, PING, &ping));
                self.expected.pongs.push(ping);
            }
            let size = if rng.u8(..4) == 0 { rest.len() } else { rng.usize(..=rest.len()) };
            let last = size == rest.len() && rng.u8(..4) > 0;
            self.frames.extend(masked(last, opcode, &rest[..size]));
            opcode = CONTINUATION;
            rest = &rest[size..];
            if last {
                return;
            }
        }
    }
}

/// Sends a script in random pieces while another thread reads.
fn play(falconet: &Falconet, script: &Script, rng: &mut Rng) -> Answers {
    let mut client = Client::connect(falconet.address());
    let mut writer = client.stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut answers = Answers::default();
        while let Ok(frame) = client.try_read() {
            assert!(frame.fin, "echoes are not fragmented");
            match frame.opcode {
                PONG => answers.pongs.push(frame.payload),
                CLOSE => answers.close_code = Some(frame.close_code()),
                opcode => answers.echoes.push((opcode, frame.payload)),
            }
        }
        answers
    });
    let largest = [1, 100, 5_000, 100_000][rng.usize(..4)];
    let mut rest = &script.frames[..];
    // Only the first pieces are small, because small pieces would take too long for the whole script.
    let mut pieces_left = MAX_PIECES;
    while !rest.is_empty() {
        let most = if pieces_left > 0 { largest.min(rest.len()) } else { rest.len() };
        pieces_left = pieces_left.saturating_sub(1);
        let (piece, after) = rest.split_at(rng.usize(1..=most));
        rest = after;
        // The server may stop reading once the limit is exceeded.
        if writer.write_all(piece).is_err() {
            break;
        }
    }
    if script.expected.close_code == Some(1009) {
        // Without the end of the stream the server would keep reading for a while.
        let _ = writer.shutdown(Shutdown::Write);
    }
    reader.join().expect("frames are well-formed")
}

/// Returns a size near a length that is encoded or handled differently, or between such lengths.
fn random_size(rng: &mut Rng) -> usize {
    match rng.u8(..10) {
        0 => 0,
        1 => rng.usize(124..=127),
        2 => rng.usize(65_534..=LIMIT),
        3 => rng.usize(LIMIT - 1..=LIMIT + 2),
        4 => rng.usize(..70_000),
        5 | 6 => rng.usize(..5_000),
        _ => rng.usize(..300),
    }
}

fn random_bytes(rng: &mut Rng, size: usize) -> Vec<u8> {
    std::iter::repeat_with(|| rng.u8(..)).take(size).collect()
}

/// Returns text of exactly `size` bytes, in characters of one to four bytes.
fn random_text(rng: &mut Rng, size: usize) -> Vec<u8> {
    let mut text = String::with_capacity(size);
    while text.len() < size {
        let character = match rng.u8(..4) {
            0 => rng.char('\u{80}'..'\u{800}'),
            1 => rng.char('\u{800}'..),
            _ => rng.char(' '..'\u{7f}'),
        };
        let fits = text.len() + character.len_utf8() <= size;
        text.push(if fits { character } else { '.' });
    }
    text.into_bytes()
}

/// The seed of the random numbers, printed when a test fails.
struct Seed(u64);

impl Seed {
    fn new() -> Self {
        let given = std::env::var("FALCONET_TEST_SEED").ok();
        Self(given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number")))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with FALCONET_TEST_SEED={}", self.0);
        }
    }
}

const ROUNDS: u64 = 40;
/// The default limit of a message, in bytes.
const LIMIT: usize = 64 * 1024;
const MAX_MESSAGES: usize = 8;
/// The server allows twenty control frames at once, and the Close is one of them.
const MAX_PINGS: usize = 18;
const MAX_PIECES: usize = 2_000;
