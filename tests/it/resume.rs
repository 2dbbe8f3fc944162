//! Message ids: a subscriber resumes from one, over each transport, and learns from which.

use crate::support::*;

/// Publishes the texts `FIRST` to `LAST` to the topic `a`, which must get the same numbers.
fn publish(falconet: &Falconet, numbers: std::ops::RangeInclusive<u64>) {
    let mut http = Http::connect(falconet.address());
    for number in numbers {
        let answer = http.fetch(post("/topics/a", number.to_string()));
        let expected = format!("{{\"topic\":\"a\",\"id\":{number},\"subscribers\":");
        assert!(with_numbers(answer.text()).starts_with(&expected), "{}", answer.text());
    }
}

fn number_in(head: &str) -> u64 {
    number_of(header_of(head, "Last-Event-ID").unwrap_or_else(|| panic!("no id in {head}")))
}

#[test]
fn a_websocket_resumes_from_an_id_and_its_response_says_whether_messages_are_missing() {
    let falconet = Falconet::start(NO_BROADCAST);
    // The topic keeps the newest 64: 37 to 100.
    publish(&falconet, 1..=100);
    let id = |number| id_of(falconet.address(), number);
    let other_epoch = "aaaaaaaa:50".to_owned();
    for (id, before) in [
        (id(100), 100),
        (id(98), 98),
        (id(36), 36),
        (id(35), 36),
        (id(0), 36),
        (id(101), 36),
        (other_epoch, 36),
        ("x".to_owned(), 36),
    ] {
        let escaped = id.replace(':', "%3A");
        for (path, lines) in [
            (format!("/topics/a?since={id}"), ""),
            (format!("/topics/a?last=3&lastEventId={escaped}"), ""),
            ("/topics/a?since=unknown".to_owned(), &*format!("Last-Event-ID: {id}\r\n")),
        ] {
            let address = falconet.address();
            let (mut client, head) = Client::connect_with_headers(address, &path, lines);
            assert_eq!(number_in(&head), before, "{path} {lines}");
            for number in before + 1..=100 {
                assert_eq!(client.read().text(), number.to_string(), "{path} {lines}");
            }
        }
    }
}

#[test]
fn a_websocket_that_resumes_with_missing_messages_is_not_a_slow_consumer() {
    let falconet = Falconet::start(&["--slow-consumer", "close"]);
    publish(&falconet, 1..=100);
    let path = format!("/topics/a?since={}", id_of(falconet.address(), 1));
    let mut client = Client::connect_to(falconet.address(), &path);
    for number in 37..=100 {
        assert_eq!(client.read().text(), number.to_string());
    }
    publish(&falconet, 101..=101);
    assert_eq!(client.read().text(), "101");
}

#[test]
fn the_newest_retained_message_comes_first_unless_none_is_requested() {
    let falconet = Falconet::start(NO_BROADCAST);
    publish(&falconet, 1..=2);
    let connect = |query| {
        let path = format!("/topics/a{query}");
        let client = Client::connect_to(falconet.address(), &path);
        (client, Events::connect(falconet.address(), &path, ""))
    };
    let (mut client, mut events) = connect("");
    assert_eq!((client.read().text(), &*events.read().data), ("2", "2"));
    let (mut client, mut events) = connect("?last=0");
    publish(&falconet, 3..=3);
    assert_eq!((client.read().text(), &*events.read().data), ("3", "3"));
}

#[test]
fn a_stream_says_from_which_id_to_resume_once_its_replay_has_ended() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut early = Events::connect(falconet.address(), "/topics/a", "");
    assert_eq!(early.read_end_of_replay(), 0);
    publish(&falconet, 1..=3);
    // A message of another topic has a number, too.
    fetch(falconet.address(), post("/topics/b", "4"));
    let lines = format!("Last-Event-ID: {}\r\n", id_of(falconet.address(), 1));
    for (query, lines, replayed) in [("", "", 3..4), ("?last=0", "", 4..4), ("", &lines, 2..4)] {
        let mut events = Events::connect(falconet.address(), &format!("/topics/a{query}"), lines);
        for number in replayed {
            assert_eq!(events.read().id, Some(number), "{query} {lines}");
        }
        assert_eq!(events.read_end_of_replay(), 4, "{query} {lines}");
    }
}

#[test]
fn every_response_to_a_get_has_the_id_to_follow_it_with() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut http = Http::connect(falconet.address());
    let mut newest = |method, path: &str, lines: &str, status| {
        let answer = http.fetch(request(method, path, lines, ""));
        assert_eq!(answer.status(), status, "{method} {path}");
        answer.header("Last-Event-ID").unwrap().to_owned()
    };
    assert_eq!(number_of(&newest("GET", "/topics/a", "", 404)), 0);
    publish(&falconet, 1..=1);
    fetch(falconet.address(), post("/topics/b", "2"));
    let id = newest("GET", "/topics/a", "", 200);
    assert_eq!(number_of(&id), 2);
    let known = format!("If-None-Match: \"{}\"\r\n", id_of(falconet.address(), 1));
    assert_eq!(newest("GET", "/topics/a", &known, 304), id);
    assert_eq!(newest("HEAD", "/topics/a", "", 200), id);
    assert_eq!(newest("GET", "/topics/none", "", 404), id);
    assert_eq!(newest("GET", "/topics/", "", 200), id);
    // A message that is published before the subscription is not lost.
    publish(&falconet, 3..=3);
    let path = format!("/topics/a?since={id}");
    let (mut client, head) = Client::connect_with_headers(falconet.address(), &path, "");
    assert_eq!((number_in(&head), client.read().text()), (2, "3"));
    let mut events = Events::connect(falconet.address(), &path, "");
    assert_eq!(events.read().id, Some(3));
}

#[test]
fn a_heartbeat_has_the_id_to_resume_from() {
    let flags = ["--ping-every", "1s"];
    let falconet = Falconet::start(&[NO_BROADCAST, &flags].concat());
    let mut events = Events::connect(falconet.address(), "/topics/a", "");
    assert_eq!(events.read_end_of_replay(), 0);
    // The client gets no message of this topic, but need not resume from before it.
    fetch(falconet.address(), post("/topics/b", "1"));
    assert_eq!(events.read_heartbeat(), Some(1));
}
