//! Messages of some megabytes, which are read, checked, copied and sent in parts.

use crate::support::*;

#[test]
fn large_messages_are_echoed_whole_to_a_client_that_reads_late() {
    let falconet = Falconet::start(&[NO_BROADCAST, LIMITS].concat());
    let mut client = Client::connect(falconet.address());
    for (opcode, payload) in [(TEXT, text().into_bytes()), (BINARY, noise())] {
        client.send(true, opcode, &payload);
        assert_echo(&mut client, opcode, &payload);
        // In fragments of any size, with Pings in between.
        let mut first = opcode;
        for part in payload.chunks(700_001) {
            client.send(false, std::mem::replace(&mut first, CONTINUATION), part);
            client.send(true, PING, "");
        }
        client.send(true, CONTINUATION, "");
        for _ in payload.chunks(700_001) {
            assert_eq!(client.read().opcode, PONG);
        }
        assert_echo(&mut client, opcode, &payload);
    }
}

#[test]
fn a_large_text_that_ends_within_a_character_is_refused_with_1007() {
    let falconet = Falconet::start(&[NO_BROADCAST, LIMITS].concat());
    let mut client = Client::connect(falconet.address());
    client.send(true, TEXT, &(text() + "ä").into_bytes()[..SIZE + 1]);
    assert_eq!(client.read().close_code(), 1007);
}

#[cfg(feature = "full")]
#[test]
fn a_large_message_reaches_every_kind_of_reader_whole() {
    let falconet = Falconet::start(&[NO_BROADCAST, LIMITS].concat());
    let address = falconet.address();
    let mut subscriber = Client::connect_to(address, "/topics/a");
    let mut events = Events::connect(address, "/topics/a", "");
    let text = text();
    let mut check = |subscriber: &mut Client| {
        assert!(subscriber.read().text() == text);
        assert!(events.read().data == text);
        assert!(fetch(address, get("/topics/a")).body == text.as_bytes());
    };
    assert_eq!(fetch(address, post("/topics/a", &text)).status(), 202);
    check(&mut subscriber);
    subscriber.send(true, TEXT, &text);
    check(&mut subscriber);
    // A body that is not UTF-8 is a binary message.
    assert_eq!(fetch(address, post("/topics/a", noise())).status(), 202);
    let frame = subscriber.read();
    assert!(frame.opcode == BINARY && frame.payload == noise());
}

fn assert_echo(client: &mut Client, opcode: u8, payload: &[u8]) {
    let echo = client.read();
    assert_eq!((echo.opcode, echo.payload.len()), (opcode, payload.len()));
    assert!(echo.payload == payload, "the echo differs");
}

/// Returns a text of [`SIZE`] bytes, with characters of one to four bytes.
fn text() -> String {
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = String::new();
    while text.len() < SIZE - 3 {
        text.push(['a', 'ä', '☂', '\u{1f600}'][random.usize(..4)]);
    }
    let missing = SIZE - text.len();
    text + &"x".repeat(missing)
}

/// Returns [`SIZE`] bytes that are not UTF-8.
fn noise() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(2);
    (0..SIZE).map(|_| random.u8(..)).collect()
}

const SIZE: usize = 3 << 20;
const LIMITS: &[&str] = &["--max-message", "4m", "--log-bytes", "16m"];
