//! Refusals that the server sends before the peer has sent everything. The peer must receive them.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::support::command::stdout_of;
use crate::support::folder::Folder;
use crate::support::installed::find_program;
use crate::support::*;

#[test]
fn a_refusal_reaches_a_peer_that_reads_only_after_it_has_sent_everything() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let everything = vec![b'x'; EVERYTHING_BYTES];
    let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}");
    for (begin, status) in [
        (head(&format!("Content-Length: {EVERYTHING_BYTES}\r\n\r\n")), 405),
        (head(&format!("Origin: http://b\r\nContent-Length: {EVERYTHING_BYTES}\r\n\r\n")), 403),
        (head("Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400),
        (head("X: "), 431),
    ] {
        let mut stream = connect(falconet.address());
        stream.write_all(begin.as_bytes()).unwrap();
        stream.write_all(&everything).unwrap();
        assert_eq!(status_of(&read_response_head(&mut stream)), status, "{begin}");
    }
    for (begin, close_code) in [
        (masked(false, BINARY, &[0; 65_536]), 1009),
        (masked(true, TEXT, b"\xff"), 1007),
        (masked(true, CONTINUATION, b""), 1002),
        (masked(true, PING, b"").repeat(50), 1008),
    ] {
        let mut client = Client::connect(falconet.address());
        client.stream.write_all(&begin).unwrap();
        client.stream.write_all(&masked(true, CONTINUATION, &everything)).unwrap();
        assert_eq!(client.read_to_close(), Some(close_code));
    }
}

#[cfg(feature = "full")]
#[test]
fn the_refusal_of_a_full_server_reaches_a_peer_whose_body_takes_longer_than_the_head_may() {
    let falconet = Falconet::start(&["--broadcast-every", "0", "--max-connections", "1"]);
    let _inside = fill(falconet.address());
    let mut stream = connect(falconet.address());
    let head =
        format!("POST /topics/a HTTP/1.1\r\nHost: a\r\nContent-Length: {EVERYTHING_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    for piece in vec![b'x'; EVERYTHING_BYTES].chunks(EVERYTHING_BYTES / 15) {
        // A slow upload, not a wait for the server.
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(piece).unwrap();
    }
    assert_eq!(status_of(&read_response_head(&mut stream)), 503);
}

#[cfg(feature = "full")]
#[test]
fn a_go_client_gets_the_413_for_each_of_20_bodies() {
    let Some(go) = find_program(&["go"]) else { return };
    let folder = Folder::new("post-go");
    let program = folder.file("post");
    // Compiled separately, because the compiler may need more time than a test gives to a peer.
    let mut compiler = Command::new(go);
    compiler.args(["build", "-o"]).arg(&program).arg(folder.write("post.go", GO));
    let compiled = compiler.output().unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    assert_20_times_413(&mut Command::new(program));
}

#[cfg(feature = "full")]
#[test]
fn a_node_client_gets_the_413_for_each_of_20_bodies() {
    let Some(node) = find_program(&["node"]) else { return };
    let folder = Folder::new("post-node");
    assert_20_times_413(Command::new(node).arg(folder.write("post.mjs", NODE)));
}

/// Runs a client that posts 20 bodies of 200 KB to 5 MB to the URL that is its argument, and prints the status
/// of each response.
#[cfg(feature = "full")]
fn assert_20_times_413(client: &mut Command) {
    let falconet = Falconet::start(NO_BROADCAST);
    let printed = stdout_of(client.arg(format!("http://{}/topics/t", falconet.address())));
    assert_eq!(printed, "413\n".repeat(20));
}

#[cfg(feature = "full")]
#[test]
fn a_connection_that_lingers_counts_against_its_address() {
    let flags = ["--trust-proxy", "127.0.0.1", "--max-per-address", "1"];
    let falconet = Falconet::start(&flags);
    let lines = "X-Forwarded-For: 192.0.2.1\r\nContent-Length: 100000\r\n";
    let mut sending = connect(falconet.address());
    write!(sending, "POST /topics/t HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").unwrap();
    assert_eq!(status_of(&read_response_head(&mut sending)), 413);
    let ask =
        || fetch(falconet.address(), request("GET", "/", "X-Forwarded-For: 192.0.2.1\r\n", ""));
    assert_eq!(ask().status(), 503);
    drop::<TcpStream>(sending);
    wait_until("the address has room again", || ask().status() == 200);
}

/// More than the buffers of two sockets hold.
const EVERYTHING_BYTES: usize = 5_000_000;

#[cfg(feature = "full")]
const GO: &str = r#"package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
)

func main() {
	for index := 0; index < 20; index++ {
		body := make([]byte, 200_000+index*250_000)
		response, err := http.Post(os.Args[1], "text/plain", bytes.NewReader(body))
		if err != nil {
			fmt.Println(err)
			continue
		}
		response.Body.Close()
		fmt.Println(response.StatusCode)
	}
}
"#;

#[cfg(feature = "full")]
const NODE: &str = r#"import http from "node:http";

for (let index = 0; index < 20; index++) {
  await new Promise((done) => {
    const request = http.request(process.argv[2], { method: "POST" }, (response) => {
      console.log(response.statusCode);
      response.resume().on("end", done);
    });
    request.on("error", (error) => done(console.log(error.code)));
    request.end(Buffer.alloc(200_000 + index * 250_000));
  });
}
"#;
