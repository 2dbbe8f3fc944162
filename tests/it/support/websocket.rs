//! WebSocket frames (RFC 6455 §5.2), and a client that sends and reads them one by one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::wait::TIMEOUT;
use super::wire::{connect, handshake, handshake_with, read_response_head};

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// A frame as received from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Returns the text of a text frame.
    pub fn text(&self) -> &str {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).expect("text frames are UTF-8")
    }

    /// Returns the code of a Close frame, or 1005 if the frame has none.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        match self.payload[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        }
    }
}

/// Encodes a masked frame, as clients must send them.
pub fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if fin { 0x80 } else { 0 } | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A WebSocket client that sends and reads single frames. The frames that it sends may be invalid.
pub struct Client<S = TcpStream> {
    pub stream: S,
}

impl Client {
    /// Connects to `/`.
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_to(address, "/")
    }

    /// Connects to `path`.
    pub fn connect_to(address: SocketAddr, path: &str) -> Self {
        Self::connect_with_headers(address, path, "").0
    }

    /// Connects to `path` with more header `lines`. Also returns the head of the response.
    pub fn connect_with_headers(address: SocketAddr, path: &str, lines: &str) -> (Self, String) {
        let mut stream = connect(address);
        stream.write_all(handshake_with(path, lines).as_bytes()).unwrap();
        let head = read_response_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (Self { stream }, head)
    }
}

impl<S: Read + Write> Client<S> {
    /// Performs the opening handshake for `path` over `stream`.
    pub fn upgrade(mut stream: S, path: &str) -> Self {
        stream.write_all(handshake(path).as_bytes()).unwrap();
        let head = read_response_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { stream }
    }

    /// Sends one masked frame.
    pub fn send(&mut self, fin: bool, opcode: u8, payload: impl AsRef<[u8]>) {
        self.stream.write_all(&masked(fin, opcode, payload.as_ref())).unwrap();
    }

    /// Sends bytes as they are. Returns false if the write fails.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads one frame.
    pub fn read(&mut self) -> Frame {
        self.try_read().expect("a frame")
    }

    /// Reads one frame.
    ///
    /// # Errors
    ///
    /// The error that ended the stream.
    pub fn try_read(&mut self) -> io::Result<Frame> {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header)?;
        assert_eq!(header[1] & 0x80, 0, "servers do not mask");
        let length = match header[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                u16::from_be_bytes(length).into()
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            length => length.into(),
        };
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { fin: header[0] & 0x80 != 0, opcode: header[0] & 0x0f, payload })
    }

    /// Sends a text message and checks its echo. Skips time broadcasts and answers pings.
    pub fn echo(&mut self, text: &str) {
        self.send(true, TEXT, text);
        let deadline = Instant::now() + TIMEOUT;
        loop {
            assert!(Instant::now() < deadline, "no echo among the broadcasts");
            let frame = self.read();
            if frame.opcode == TEXT && frame.payload.starts_with(b"Server time: ") {
                continue;
            }
            if frame.opcode == PING {
                self.send(true, PONG, frame.payload);
                continue;
            }
            assert_eq!(frame.text(), text);
            return;
        }
    }

    /// Checks that the stream ends without another frame.
    pub fn assert_ended(&mut self) {
        match self.try_read() {
            Ok(frame) => panic!("no end: {frame:?}"),
            Err(error) => {
                assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the stream does not end");
            }
        }
    }

    /// Reads to the end of the stream. Returns the code of the last Close frame, if one was received.
    pub fn read_to_close(&mut self) -> Option<u16> {
        let mut code = None;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            assert!(Instant::now() < deadline, "the stream does not end");
            match self.try_read() {
                Ok(frame) if frame.opcode == CLOSE => code = Some(frame.close_code()),
                Ok(_) => {}
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the stream does not end");
                    return code;
                }
            }
        }
    }
}

/// Returns once the server has read everything that was sent to it before this call.
///
/// The server has one thread, which serves its connections in turn, so an echo to `barrier` proves that. Two
/// echoes are needed, because a new connection must be accepted before the server can read from it.
pub fn wait_until_read(barrier: &mut Client<impl Read + Write>) {
    barrier.echo("1");
    barrier.echo("2");
}
