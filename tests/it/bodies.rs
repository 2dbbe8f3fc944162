//! Chunked request bodies, and the programs that send them.

use std::io::Write;
use std::process::Stdio;

use crate::support::peer::peer;
use crate::support::*;

/// Returns the head of a request with a chunked body, with more header `lines`.
fn chunked_head(path: &str, lines: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{lines}\r\n")
}

#[test]
fn a_chunked_body_is_published_and_the_connection_continues() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    for (body, payload) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2;a=b\r\nhe\r\n3;c=\"d e\"\r\nllo\r\n000\r\nTrailer: x\r\n\r\n", "hello"),
        ("a\r\n\r\n0\r\n\r\nGET\r\n0\r\n\r\n", "\r\n0\r\n\r\nGET"),
    ] {
        let request = chunked_head("/topics/a", "") + body;
        assert_eq!(http.fetch(&request).status(), 202, "{body:?}");
        assert_eq!(http.fetch(get("/topics/a")).text(), payload);
        // Pipelined, and in pieces of one byte.
        let both = [request.as_bytes(), &get("/topics/a")].concat();
        for byte in both.chunks(1) {
            http.send(byte);
        }
        assert_eq!(http.read(true).status(), 202, "{body:?}");
        assert_eq!(http.read(true).text(), payload);
    }
    let put = chunked_head("/topics/a", "").replacen("POST", "PUT", 1) + "1\r\nx\r\n0\r\n\r\n";
    assert_eq!(http.fetch(put).status(), 202);
}

#[test]
fn the_limit_of_a_message_counts_the_payload_of_a_chunked_body() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-message", "1000"]].concat());
    // 1,000 bytes in chunks of one byte, with five bytes of framing each.
    let body = "1\r\nx\r\n".repeat(1000);
    let accepted = fetch(falconet.address(), chunked_head("/topics/a", "") + &body + "0\r\n\r\n");
    assert_eq!((accepted.status(), accepted.closes()), (202, false));
    // The server refuses the size of the chunk, and waits for no data.
    for body in [body + "1\r\n", "3e9\r\n".to_owned(), "ffffffffffffffff\r\n".to_owned()] {
        let mut http = Http::connect(falconet.address());
        let refused = http.fetch(chunked_head("/topics/a", "") + &body);
        assert_eq!((refused.status(), refused.closes()), (413, true));
        assert_eq!(refused.text(), "request body is longer than 1000 bytes\n");
        http.assert_ended();
    }
    assert_eq!(fetch(falconet.address(), get("/topics/a")).body.len(), 1000);
}

#[test]
fn a_malformed_chunked_body_is_answered_with_its_reason_and_publishes_nothing() {
    let falconet = Falconet::start(NO_BROADCAST);
    for (body, reason) in [
        ("1 \r\n", "the size of a chunk is not 1 to 16 hexadecimal digits"),
        ("1\r\nab", "a chunk is longer than its size"),
        ("0\r\nA: b\n", "an extension or trailer has a control character"),
    ] {
        let mut http = Http::connect(falconet.address());
        let refused = http.fetch(chunked_head("/topics/a", "") + body);
        assert_eq!((refused.status(), refused.closes()), (400, true), "{body:?}");
        assert_eq!(refused.text(), format!("malformed chunked body: {reason}\n"));
        http.assert_ended();
    }
    // An incomplete body is not published, either.
    assert_eq!(exchange(falconet.address(), chunked_head("/topics/a", "") + "1\r\nx\r\n0\r\n"), "");
    assert_eq!(fetch(falconet.address(), get("/topics/a")).status(), 404);
}

#[test]
fn a_chunked_body_that_no_resource_takes_closes_the_connection_after_the_response() {
    let falconet = Falconet::start(NO_BROADCAST);
    for (line, status) in [
        ("POST / ", 405),
        ("POST /nothing ", 404),
        ("DELETE /topics/a ", 204),
        ("PATCH /topics/a ", 405),
        ("GET / ", 200),
        ("GET /topics/ ", 200),
    ] {
        let mut http = Http::connect(falconet.address());
        let head = chunked_head("/", "Expect: 100-continue\r\n").replacen("POST / ", line, 1);
        let answer = http.fetch(head + "0\r\n\r\n");
        assert_eq!((answer.status(), answer.closes()), (status, true), "{line}");
        http.assert_ended();
    }
}

#[test]
fn a_client_that_expects_100_continue_before_its_chunks_gets_it_once() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    let head = chunked_head("/topics/a", "Expect: 100-continue\r\n");
    for _ in 0..2 {
        http.send(&head);
        assert_eq!(http.read(true).head, "HTTP/1.1 100 Continue\r\n\r\n");
        http.send("1\r\nx\r\n");
        http.send("0\r\n\r\n");
        assert_eq!(http.read(true).status(), 202);
    }
    // The body arrives with the head.
    assert_eq!(http.fetch(head + "1\r\nx\r\n0\r\n\r\n").status(), 202);
}

#[test]
fn an_unfinished_chunked_body_has_the_deadline_of_a_message() {
    let server = Embedded::start(|server| {
        let mut config = falconet::Config::default();
        config.timeouts.message = Some(std::time::Duration::from_millis(100));
        server.config(config).topics()
    });
    let mut http = Http::connect(server.address);
    let late = http.fetch(chunked_head("/topics/a", "") + "1\r\nx\r\n0\r\nA: ");
    assert_eq!((late.status(), late.closes()), (408, true));
}

#[test]
fn curl_publishes_what_it_reads_from_a_pipe() {
    let falconet = Falconet::start(NO_BROADCAST);
    let url = format!("http://{}/topics/a", falconet.address());
    for lines in [&[][..], &["-H", "Expect: 100-continue"]] {
        let Some(mut curl) = peer("curl") else { return };
        let payload = "from a pipe\n".repeat(3000);
        let mut child = curl
            .args(["-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-T", "-", &url])
            .args(lines)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(payload.as_bytes()).unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"202");
        assert_eq!(fetch(falconet.address(), get("/topics/a")).text(), payload);
    }
}

#[test]
fn a_python_generator_and_a_node_stream_are_published() {
    let falconet = Falconet::start(NO_BROADCAST);
    let port = falconet.address().port().to_string();
    let python = "\
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10)
for _ in range(2):
    connection.request('POST', '/topics/a', body=(b'%d,' % n for n in range(3)), encode_chunked=True)
    answer = connection.getresponse()
    answer.read()
    print(answer.status)
";
    let node = "\
const body = new ReadableStream({
  start(stream) {
    for (const n of [0, 1, 2]) stream.enqueue(new TextEncoder().encode(n + ','));
    stream.close();
  },
});
const options = { method: 'POST', body, duplex: 'half', signal: AbortSignal.timeout(10000) };
fetch(`http://127.0.0.1:${process.argv[1]}/topics/a`, options).then(answer => console.log(answer.status));
";
    for (program, flag, script, printed) in
        [("python3", "-c", python, "202\n202\n"), ("node", "-e", node, "202\n")]
    {
        let Some(mut command) = peer(program) else { continue };
        let output = command.args([flag, script, &port]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, printed, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fetch(falconet.address(), get("/topics/a")).text(), "0,1,2,");
        fetch(falconet.address(), request("DELETE", "/topics/a", "", ""));
    }
}
