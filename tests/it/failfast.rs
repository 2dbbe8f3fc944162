//! The cases of sections 3 to 7 of the Autobahn test suite, derived from RFC 6455. A test's name begins
//! with the number of its section. Violations must be detected while the frame or message is still incomplete.

use crate::support::*;

#[test]
fn s3_reserved_bits_are_refused() {
    let falconet = start();
    for bits in 1..8_u8 {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            for payload in [&b""[..], b"a payload"] {
                let mut frame = masked(true, opcode, payload);
                frame[0] |= bits << 4;
                expect(&falconet, &frame, &[], 1002);
            }
        }
        // The first byte is enough. Complete messages before it are answered.
        let hello = masked(true, TEXT, b"hello");
        let bytes = [&hello[..], &[0x81 | bits << 4]].concat();
        expect(&falconet, &bytes, &[(TEXT, b"hello")], 1002);
        let bytes = [&masked(false, TEXT, b"hel")[..], &[0x80 | bits << 4]].concat();
        expect(&falconet, &bytes, &[], 1002);
    }
}

#[test]
fn s4_unknown_opcodes_are_refused() {
    let falconet = start();
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        expect(&falconet, &masked(true, opcode, b""), &[], 1002);
        expect(&falconet, &masked(true, opcode, b"a payload"), &[], 1002);
        expect(&falconet, &[0x80 | opcode], &[], 1002);
        let hello = masked(true, TEXT, b"hello");
        let bytes = [&hello[..], &[0x80 | opcode]].concat();
        expect(&falconet, &bytes, &[(TEXT, b"hello")], 1002);
    }
}

#[test]
fn s5_fragments_form_a_message_with_control_frames_between_them() {
    let falconet = start();
    for opcode in [TEXT, BINARY] {
        let fragments = [
            masked(false, opcode, b"fragment1 "),
            masked(true, PING, b"ping payload"),
            masked(false, CONTINUATION, b""),
            masked(true, PONG, b"unasked"),
            masked(false, CONTINUATION, b"fragment2 "),
            masked(true, CONTINUATION, b"fragment3"),
        ];
        let echo: (u8, &[u8]) = (opcode, b"fragment1 fragment2 fragment3");
        expect_echo(&falconet, &fragments.concat(), &[(PONG, b"ping payload"), echo]);
        let empty = [masked(false, opcode, b""), masked(true, CONTINUATION, b"")].concat();
        expect_echo(&falconet, &empty, &[(opcode, b"")]);
    }
}

#[test]
fn s5_invalid_fragment_sequences_are_refused_at_their_first_byte() {
    let falconet = start();
    for control in [CLOSE, PING, PONG] {
        expect(&falconet, &[control], &[], 1002);
    }
    for first in [0x00, 0x80] {
        expect(&falconet, &[first], &[], 1002);
        // Also after a complete message.
        let bytes = [&masked(true, TEXT, b"whole")[..], &[first]].concat();
        expect(&falconet, &bytes, &[(TEXT, b"whole")], 1002);
        let fragments = [masked(false, TEXT, b"who"), masked(true, CONTINUATION, b"le")].concat();
        expect(&falconet, &[&fragments[..], &[first]].concat(), &[(TEXT, b"whole")], 1002);
    }
    for first in [TEXT, BINARY, 0x80 | TEXT, 0x80 | BINARY] {
        let bytes = [&masked(false, TEXT, b"begun")[..], &[first]].concat();
        expect(&falconet, &bytes, &[], 1002);
        let ping = masked(true, PING, b"between");
        let bytes = [&masked(false, BINARY, b"begun")[..], &ping, &[first]].concat();
        expect(&falconet, &bytes, &[(PONG, b"between")], 1002);
    }
}

#[test]
fn s5_an_invalid_length_is_refused_at_once() {
    let falconet = start();
    for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
        expect(&falconet, &[0x80 | opcode, 0x01], &[], 1002);
    }
    for control in [CLOSE, PING, PONG] {
        expect(&falconet, &[0x80 | control, 0x80 | 126], &[], 1002);
        expect(&falconet, &[0x80 | control, 0x80 | 127], &[], 1002);
    }
    // Lengths that must be encoded in a shorter form.
    expect(&falconet, &[0x82, 0x80 | 126, 0, 125], &[], 1002);
    expect(&falconet, &[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], &[], 1002);
}

#[test]
fn s6_utf8_is_echoed_however_it_is_fragmented() {
    let falconet = start();
    let text = "κόσμε \u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}\0";
    expect_echo(&falconet, &masked(true, TEXT, text.as_bytes()), &[(TEXT, text.as_bytes())]);
    let mut bytes = Vec::new();
    let mut opcode = TEXT;
    for byte in text.as_bytes() {
        bytes.extend(masked(false, opcode, &[*byte]));
        opcode = CONTINUATION;
    }
    bytes.extend(masked(true, CONTINUATION, b""));
    expect_echo(&falconet, &bytes, &[(TEXT, text.as_bytes())]);
    // Binary messages may have any bytes.
    expect_echo(&falconet, &masked(true, BINARY, b"\xff\xed\xa0"), &[(BINARY, b"\xff\xed\xa0")]);
}

#[test]
fn s6_invalid_utf8_is_refused_in_whole_messages_and_in_fragments() {
    let falconet = start();
    for wrong in NOT_UTF_8.iter().chain(UNFINISHED) {
        let text = [b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", *wrong].concat();
        expect(&falconet, &masked(true, TEXT, &text), &[], 1007);
        for cut in [1, 11, 12, text.len()] {
            let (first, second) = text.split_at(cut.min(text.len()));
            let parts = [masked(false, TEXT, first), masked(true, CONTINUATION, second)];
            expect(&falconet, &parts.concat(), &[], 1007);
        }
    }
}

#[test]
fn s6_invalid_utf8_is_refused_while_its_frame_is_incomplete() {
    let falconet = start();
    for wrong in NOT_UTF_8 {
        // The frame announces 1000 bytes more, which are never sent.
        let frame = masked(true, TEXT, &[&b"some text "[..], wrong, &[b'x'; 1000]].concat());
        expect(&falconet, &frame[..8 + 10 + wrong.len()], &[], 1007);
        // A message without its last fragment.
        let parts = [masked(false, TEXT, b"some text "), masked(false, CONTINUATION, wrong)];
        expect(&falconet, &parts.concat(), &[], 1007);
        let ping = masked(true, PING, b"\xff");
        let parts = [&masked(false, TEXT, b"text ")[..], &ping, &frame_of_rest(wrong)].concat();
        expect(&falconet, &parts, &[(PONG, b"\xff")], 1007);
    }
    // Each part in a separate write, as in Autobahn's section 6.4.
    let text = ["κόσμε".as_bytes(), b"\xf4\x90\x80\x80", b"edited"].concat();
    let frame = masked(true, TEXT, &text);
    let mut client = Client::connect(falconet.address());
    let mut barrier = Client::connect(falconet.address());
    let right = 6 + "κόσμε".len();
    for part in [&frame[..right], &frame[right..right + 1], &frame[right + 1..right + 2]] {
        assert!(client.send_raw(part));
        wait_until_read(&mut barrier);
    }
    assert_eq!(client.read().close_code(), 1007);
}

/// Returns the beginning of a last fragment that announces 200 bytes more than `payload`.
fn frame_of_rest(payload: &[u8]) -> Vec<u8> {
    let mut frame = masked(true, CONTINUATION, &[payload, &[b'x'; 200]].concat());
    frame.truncate(8 + payload.len());
    frame
}

#[test]
fn s7_a_close_of_any_valid_length_is_answered() {
    let falconet = start();
    expect(&falconet, &masked(true, CLOSE, b""), &[], 1005);
    for length in [0, 1, 2, 50, 122, 123] {
        let payload = [&1000_u16.to_be_bytes()[..], &vec![b'r'; length]].concat();
        expect(&falconet, &masked(true, CLOSE, &payload), &[], 1000);
    }
    let reason = [&1000_u16.to_be_bytes()[..], "κόσμε".as_bytes()].concat();
    expect(&falconet, &masked(true, CLOSE, &reason), &[], 1000);
}

#[test]
fn s7_a_malformed_close_is_refused() {
    let falconet = start();
    expect(&falconet, &masked(true, CLOSE, b"\x03"), &[], 1002);
    let long = [&1000_u16.to_be_bytes()[..], &[b'r'; 124]].concat();
    expect(&falconet, &masked(true, CLOSE, &long), &[], 1002);
    for wrong in NOT_UTF_8.iter().chain(UNFINISHED) {
        let reason = [&1000_u16.to_be_bytes()[..], b"reason ", wrong].concat();
        expect(&falconet, &masked(true, CLOSE, &reason), &[], 1007);
    }
}

#[test]
fn s7_valid_codes_are_sent_back() {
    let falconet = start();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        expect(&falconet, &masked(true, CLOSE, &u16::to_be_bytes(code)), &[], code);
    }
}

#[test]
fn s7_invalid_codes_are_refused() {
    let falconet = start();
    for code in
        [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 32768, 65535]
    {
        expect(&falconet, &masked(true, CLOSE, &u16::to_be_bytes(code)), &[], 1002);
        let reason = [&u16::to_be_bytes(code)[..], b"reason"].concat();
        expect(&falconet, &masked(true, CLOSE, &reason), &[], 1002);
    }
}

#[test]
fn s7_frames_after_a_close_are_ignored() {
    let falconet = start();
    let close = masked(true, CLOSE, &3001_u16.to_be_bytes());
    for after in [
        masked(true, TEXT, b"too late"),
        masked(true, PING, b"too late"),
        masked(true, CLOSE, &1001_u16.to_be_bytes()),
        vec![0xff, 0xff],
    ] {
        let before = masked(true, TEXT, b"in time");
        let bytes = [&before[..], &close, &after].concat();
        expect(&falconet, &bytes, &[(TEXT, b"in time")], 3001);
        // A Close within a message discards the message.
        let begun = masked(false, TEXT, b"begun");
        expect(&falconet, &[&begun[..], &close, &after].concat(), &[], 3001);
    }
}

fn start() -> Falconet {
    Falconet::start(&["--broadcast-every", "0"])
}

/// Sends `bytes` without closing the stream. Expects `answers`, a Close with `code`, and then the end of the
/// stream. The code 1005 stands for a Close without a code.
fn expect(falconet: &Falconet, bytes: &[u8], answers: &[(u8, &[u8])], code: u16) {
    let mut client = Client::connect(falconet.address());
    client.send_raw(bytes);
    for (opcode, payload) in answers {
        let frame = client.read();
        assert_eq!((frame.opcode, &frame.payload[..]), (*opcode, *payload), "{bytes:x?}");
    }
    assert_eq!(client.read().close_code(), code, "{bytes:x?}");
    client.assert_ended();
}

/// Sends `bytes` and a Close, and expects `answers` and a normal close.
fn expect_echo(falconet: &Falconet, bytes: &[u8], answers: &[(u8, &[u8])]) {
    let close = masked(true, CLOSE, &1000_u16.to_be_bytes());
    expect(falconet, &[bytes, &close].concat(), answers, 1000);
}

/// Bytes that are invalid UTF-8 at their last byte, whatever follows.
const NOT_UTF_8: &[&[u8]] = &[
    b"\x80",
    b"\xbf",
    b"\xc0",
    b"\xc1",
    b"\xc3\x28",
    b"\xe0\x80",
    b"\xe0\x9f",
    b"\xe2\x82\x28",
    b"\xed\xa0",
    b"\xed\xbf",
    b"\xf0\x80",
    b"\xf0\x8f",
    b"\xf0\x9f\x98\x28",
    b"\xf4\x90",
    b"\xf5",
    b"\xf8",
    b"\xfe",
    b"\xff",
];
/// Bytes that are invalid UTF-8 only if the text ends after them.
const UNFINISHED: &[&[u8]] =
    &[b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x98"];
