//! Messages with an `Idempotency-Key`, which are published once however often they are sent.

use std::net::SocketAddr;

use falconet::{Action, AllowAll, Authorize, Denied, RequestHead, TrustedProxies};
use rustix::process::Signal;

use crate::support::access::{assert_no_token_leak, basic, bearer};
use crate::support::folder::Folder;
use crate::support::*;

/// Returns a request that publishes `body` to a topic with a key and more header `lines`.
fn publish_with(topic: &str, key: &str, lines: &str, body: &str) -> Vec<u8> {
    let lines = format!("Idempotency-Key: {key}\r\n{lines}");
    request("POST", &format!("/topics/{topic}"), &lines, body)
}

/// Publishes `body` to a topic with a key and more header `lines`.
fn publish(address: SocketAddr, topic: &str, key: &str, lines: &str, body: &str) -> Answer {
    fetch(address, publish_with(topic, key, lines, body))
}

/// Publishes a message that must be accepted. Returns its id.
fn accepted(address: SocketAddr, topic: &str, key: &str, lines: &str) -> String {
    let answer = publish(address, topic, key, lines, "x");
    assert_eq!(answer.status(), 202, "{topic} {key} {lines}: {answer:?}");
    id_in(&answer).to_owned()
}

/// Returns the id in the answer to an accepted message.
fn id_in(answer: &Answer) -> &str {
    answer.text().split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap()
}

/// Sends each request on a connection of its own so that the server reads all of them in one turn, and returns
/// the answers.
fn fetch_together(falconet: &Falconet, requests: &[Vec<u8>]) -> Vec<Answer> {
    let mut connections: Vec<Http> =
        requests.iter().map(|_| Http::connect(falconet.address())).collect();
    for connection in &mut connections {
        assert_eq!(connection.fetch(get("/topics/")).status(), 200, "the connection is accepted");
    }
    falconet.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", falconet.pid());
    wait_until("the server is stopped", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    for (connection, request) in connections.iter_mut().zip(requests) {
        connection.send(request);
    }
    falconet.signal(Signal::CONT);
    connections.iter_mut().map(|connection| connection.read(true)).collect()
}

#[test]
fn a_repeat_gets_the_answer_of_the_first_and_is_not_published() {
    let falconet = Falconet::start(NO_BROADCAST);
    let address = falconet.address();
    let mut events = Events::connect(address, "/topics/a", "");
    let first = publish(address, "a", "k1", "", "one");
    assert_eq!((first.status(), first.text().contains("\"subscribers\":1")), (202, true));
    let mut client = Client::connect_to(address, "/topics/a?last=0");
    let mut http = Http::connect(address);
    let lines = "Idempotency-Key: k1\r\nTransfer-Encoding: chunked\r\n";
    let chunked = format!("PUT /topics/a HTTP/1.1\r\nHost: a\r\n{lines}\r\n3\r\none\r\n0\r\n\r\n");
    for repeat in [publish_with("a", "k1", "", "one"), chunked.into_bytes()] {
        let repeated = http.fetch(repeat);
        assert_eq!((repeated.status(), repeated.text()), (202, first.text()));
        assert_eq!(repeated.header("Content-Type"), first.header("Content-Type"));
        assert!(!repeated.closes());
    }
    assert_ne!(publish(address, "a", "k2", "", "two").text(), first.text());
    fetch(address, post("/topics/a", "two"));
    let received: Vec<String> = (0..3).map(|_| events.read().data).collect();
    assert_eq!(received, ["one", "two", "two"]);
    assert_eq!([client.read().text(), client.read().text()], ["two", "two"]);
}

#[test]
fn keys_of_different_topics_and_tokens_are_different() {
    let folder = Folder::new("publish-once");
    let tokens = folder.write("tokens", "MARKER-1\nMARKER-2\n");
    let flags = ["--token-file", &tokens, "--trust-proxy", "127.0.0.1", "--log-level", "debug"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let accepted = |topic, lines: &str| accepted(falconet.address(), topic, "key", lines);
    let first = accepted("a", &bearer("MARKER-1"));
    let other_topic = accepted("b", &bearer("MARKER-1"));
    let other_token = accepted("a", &bearer("MARKER-2"));
    assert!(first != other_topic && first != other_token && other_topic != other_token);
    // The same token in another form and from another address.
    assert_eq!(accepted("a", &basic("me:MARKER-1")), first);
    let lines = format!("X-Forwarded-For: 192.0.2.1\r\n{}", bearer("MARKER-1"));
    assert_eq!(accepted("a", &lines), first);
    assert_eq!(accepted("b", &bearer("MARKER-1")), other_topic);
    assert_eq!(accepted("a", &bearer("MARKER-2")), other_token);
    let denied = publish(falconet.address(), "a", "key", &bearer("wrong"), "x");
    assert_eq!(denied.status(), 401);
    assert_no_token_leak(&falconet, "MARKER");
}

#[test]
fn without_tokens_the_keys_of_different_addresses_are_different() {
    let server = Embedded::start(|server| {
        let mut proxies = TrustedProxies::default();
        proxies.add("127.0.0.0/8".parse().unwrap());
        server.topics().authorize(AllowAll).trust_proxies(proxies)
    });
    let accepted = |client: &str| {
        let lines = if client.is_empty() { "" } else { &format!("X-Forwarded-For: {client}\r\n") };
        accepted(server.address, "a", "key", lines)
    };
    let clients = ["", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"];
    let ids = clients.map(accepted);
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id), "{}", clients[index]);
        assert_eq!(accepted(clients[index]), *id);
    }
    assert_eq!(accepted("2001:db8::2"), ids[3], "the same network");
    assert_eq!(accepted("127.0.0.2"), ids[0], "this host");
    server.stop().unwrap().unwrap();
}

/// An authorizer that knows the users by a header.
struct Users;

impl Authorize for Users {
    type Identity = Vec<u8>;

    fn identify(&self, head: &RequestHead<'_>) -> Result<Vec<u8>, Denied> {
        head.single("x-user").map(<[u8]>::to_vec).ok_or(Denied::Forbidden)
    }

    fn may(&self, _: &Vec<u8>, _: Action<'_>) -> Result<(), Denied> {
        Ok(())
    }

    fn name<'i>(&self, user: &'i Vec<u8>) -> Option<&'i [u8]> {
        Some(user)
    }
}

#[test]
fn the_keys_of_different_identities_are_different() {
    let server = Embedded::start(|server| server.topics().authorize(Users));
    let accepted =
        |user: &str| accepted(server.address, "a", "key", &format!("X-User: {user}\r\n"));
    let (one, other) = (accepted("one"), accepted("other"));
    assert_ne!(one, other);
    assert_eq!((accepted("one"), accepted("other")), (one, other));
    server.stop().unwrap().unwrap();
}

#[test]
fn an_invalid_key_is_400_and_the_expected_form_is_named() {
    let falconet = Falconet::start(NO_BROADCAST);
    let long = "k".repeat(65);
    for (lines, text) in [
        (format!("Idempotency-Key: {long}\r\n"), "expected 1 to 64 visible ASCII characters\n"),
        ("Idempotency-Key: k\u{e9}\r\n".to_owned(), "expected 1 to 64 visible ASCII characters\n"),
        ("Idempotency-Key: \r\n".to_owned(), "expected 1 to 64 visible ASCII characters\n"),
        ("Idempotency-Key: a\r\nIdempotency-Key: a\r\n".to_owned(), "expected one key\n"),
    ] {
        let answer = fetch(falconet.address(), request("POST", "/topics/a", &lines, "x"));
        assert_eq!(answer.status(), 400, "{lines}");
        assert!(answer.text().starts_with("Idempotency-Key") && answer.text().ends_with(text));
    }
    accepted(falconet.address(), "a", &long[1..], "");
    // Other requests have no use for a key.
    let lines = format!("Idempotency-Key: {long}\r\n");
    assert_eq!(fetch(falconet.address(), request("GET", "/topics/a", &lines, "")).status(), 200);
}

#[test]
fn the_key_of_another_message_is_422() {
    let falconet = Falconet::start(NO_BROADCAST);
    let address = falconet.address();
    let mut events = Events::connect(address, "/topics/a", "");
    let large = "x".repeat(60_000);
    let first = publish(address, "a", "key", "", &large);
    for other in ["x", &(large.clone() + "x"), &large[1..]] {
        let answer = publish(address, "a", "key", "", other);
        assert_eq!(answer.status(), 422);
        let text =
            "Idempotency-Key was used for another message: expected a new key for each message\n";
        assert_eq!(answer.text(), text);
    }
    assert_eq!(publish(address, "a", "key", "", &large).text(), first.text());
    fetch(address, post("/topics/a", "the next"));
    assert_eq!([events.read().data, events.read().data], [large, "the next".to_owned()]);
}

#[test]
fn a_refused_message_leaves_its_key_free() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-topics", "2"]].concat());
    let address = falconet.address();
    accepted(address, "other", "key", "");
    for _ in 0..2 {
        assert_eq!(publish(address, "a", "key", "", "x").status(), 503);
    }
    fetch(address, request("DELETE", "/topics/other", "", ""));
    // Even another message may have the key.
    let first = publish(address, "a", "key", "", "y");
    assert_eq!(first.status(), 202);
    assert_eq!(publish(address, "a", "key", "", "y").text(), first.text());
}

#[test]
fn a_repeat_does_not_count_against_the_publish_rate() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-publish-rate", "1"]].concat());
    let mut http = Http::connect(falconet.address());
    // Publishes until the rate is used up. A refused message is published later with the same key.
    let mut answers = (0..).map(|number| {
        let key = format!("key-{number}");
        (http.fetch(publish_with("a", &key, "", "x")), key)
    });
    let (first, _) = answers.next().unwrap();
    let (_, refused) = answers.find(|(answer, _)| answer.status() == 429).unwrap();
    drop(answers);
    for _ in 0..10 {
        let repeated = http.fetch(publish_with("a", "key-0", "", "x"));
        assert_eq!((repeated.status(), repeated.text()), (202, first.text()));
    }
    wait_until("publishing is allowed again", || {
        http.fetch(publish_with("a", &refused, "", "x")).status() == 202
    });
}

#[test]
fn repeats_that_come_while_the_first_is_under_way_get_its_answer() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    let mut requests = vec![publish_with("a", "key", "", "x"); 8];
    requests.push(publish_with("a", "key", "", "y"));
    let answers = fetch_together(&falconet, &requests);
    let statuses: Vec<u16> = answers.iter().map(Answer::status).collect();
    assert_eq!(statuses, [202, 202, 202, 202, 202, 202, 202, 202, 422]);
    assert!(answers[..8].iter().all(|answer| answer.text() == answers[0].text()), "{answers:?}");
    fetch(falconet.address(), post("/topics/a", "the next"));
    assert_eq!([events.read().data, events.read().data], ["x", "the next"]);
}

#[test]
fn repeats_of_a_message_that_is_refused_are_tried_one_after_the_other() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-topics", "2"]].concat());
    accepted(falconet.address(), "other", "key", "");
    let answers = fetch_together(&falconet, &vec![publish_with("a", "key", "", "x"); 8]);
    assert!(answers.iter().all(|answer| answer.status() == 503), "{answers:?}");
    fetch(falconet.address(), request("DELETE", "/topics/other", "", ""));
    accepted(falconet.address(), "a", "key", "");
}

#[test]
fn a_repeat_does_not_wait_for_a_first_request_that_has_not_arrived() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut slow = Http::connect(falconet.address());
    let lines = "Expect: 100-continue\r\n";
    let whole = publish_with("a", "key", lines, "x");
    let (head, body) = whole.split_at(whole.len() - 1);
    slow.send(head);
    // The server has planned the request, and waits for its body.
    assert_eq!(slow.read(false).status(), 100);
    let first = accepted(falconet.address(), "a", "key", "");
    slow.send(body);
    let repeated = slow.read(true);
    assert_eq!((repeated.status(), id_in(&repeated)), (202, &*first));
}

#[test]
fn the_number_of_keys_of_a_publisher_is_an_option() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--publish-keys", "2"]].concat());
    let accepted = |key| accepted(falconet.address(), "a", key, "");
    let ids = ["k1", "k2", "k3"].map(accepted);
    assert_eq!(["k2", "k3"].map(accepted), ids[1..]);
    assert_ne!(accepted("k1"), ids[0]);

    let off = Falconet::start(&[NO_BROADCAST, &["--publish-keys", "0"]].concat());
    let accepted = |key: &str| publish(off.address(), "a", key, "", "x");
    assert_ne!(accepted("k1").text(), accepted("k1").text());
    assert_eq!(accepted(&"k".repeat(65)).status(), 202, "keys are ignored");
}
