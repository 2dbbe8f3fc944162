//! Topic filters: one connection for several topics, over each transport.

use crate::support::folder::Folder;
use crate::support::*;

fn publish(falconet: &Falconet, topic: &str, text: &str) {
    let answer = fetch(falconet.address(), post(&format!("/topics/{topic}"), text));
    assert_eq!(answer.status(), 202, "{topic}");
}

/// Publishes a body with a media type.
fn publish_as(falconet: &Falconet, topic: &str, media_type: &str, body: &[u8]) {
    let lines = format!("Content-Type: {media_type}\r\n");
    let request = request("POST", &format!("/topics/{topic}"), &lines, body);
    assert_eq!(fetch(falconet.address(), request).status(), 202, "{topic}");
}

/// Replaces the ids in a text by their numbers, and removes the times.
fn without_times(text: &str) -> String {
    let numbered = with_numbers(text);
    let mut parts = numbered.split("\"time\":");
    let mut rest = parts.next().unwrap().to_owned();
    for part in parts {
        let (time, after) = part.split_once(',').unwrap();
        let time: u64 = time.parse().unwrap();
        assert!((1_700_000_000_000..10_000_000_000_000).contains(&time), "{text}");
        rest += after;
    }
    rest
}

#[test]
fn an_event_stream_of_a_filter_carries_json() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut events = Events::connect(falconet.address(), "/topics/garden/", "");
    publish(&falconet, "garden/t", "21.5");
    publish(&falconet, "house", "not matched");
    publish_as(&falconet, "garden", "application/json", b"{\"a\":\n[1]}");
    publish_as(&falconet, "garden/j", "application/json", b"{");
    publish_as(&falconet, "garden/c", "text/csv", b"a\n\"b\"");
    publish_as(&falconet, "garden/b", "image/png", &[0, 255]);
    let deletion = request("DELETE", "/topics/garden/t", "", "");
    assert_eq!(fetch(falconet.address(), deletion).status(), 204);
    for (number, kind, data) in [
        (1, "message", r#"{"topic":"garden/t","id":1,"data":"21.5"}"#),
        (3, "message", r#"{"topic":"garden","id":3,"json":{"a": [1]}}"#),
        (4, "message", r#"{"topic":"garden/j","id":4,"data":"{"}"#),
        (5, "message", r#"{"topic":"garden/c","id":5,"type":"text/csv","data":"a\u000a\"b\""}"#),
        (6, "message", r#"{"topic":"garden/b","id":6,"type":"image/png","base64":"AP8="}"#),
        (7, "cleared", r#"{"topic":"garden/t","id":7,"cleared":true}"#),
    ] {
        let event = events.read();
        assert_eq!((event.id, &*event.kind), (Some(number), kind), "{event:?}");
        assert_eq!(without_times(&event.data), data);
    }
}

#[test]
fn every_form_of_a_filter_subscribes_over_each_transport() {
    let falconet = Falconet::start(NO_BROADCAST);
    let topics = ["a", "a/t", "a/t/x", "b/t", "broadcast"];
    for (path, expected) in [
        ("", &["a", "a/t", "a/t/x", "b/t"][..]),
        ("%23", &["a", "a/t", "a/t/x", "b/t"]),
        ("a/", &["a", "a/t", "a/t/x"]),
        ("a/%23", &["a", "a/t", "a/t/x"]),
        ("+/t", &["a/t", "b/t"]),
        ("%2B", &["a"]),
        ("a,b/t", &["a", "b/t"]),
        ("a/,+/t,a/t", &["a", "a/t", "a/t/x", "b/t"]),
        ("a,broadcast", &["a", "broadcast"]),
    ] {
        let path = format!("/topics/{path}?last=0");
        let mut events = Events::connect(falconet.address(), &path, "");
        let mut client = Client::connect_to(falconet.address(), &path);
        for topic in topics {
            publish(&falconet, topic, topic);
        }
        for topic in expected {
            let event = events.read();
            assert!(
                event.data.starts_with(&format!("{{\"topic\":\"{topic}\",")),
                "{path} {event:?}"
            );
            assert_eq!(client.read().text(), *topic, "{path}");
        }
    }
}

#[test]
fn the_newest_messages_of_each_topic_come_first() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--retain", "2"]].concat());
    for (topic, text) in [("b", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("c", "5")] {
        publish(&falconet, topic, text);
    }
    for (query, expected) in
        [("", &["2", "4", "5"][..]), ("?last=2", &["2", "3", "4", "5"]), ("?last=0", &[])]
    {
        let (mut client, head) =
            Client::connect_with_headers(falconet.address(), &format!("/topics/+{query}"), "");
        let before = number_of(header_of(&head, "Last-Event-ID").unwrap());
        let first = expected.first().map_or(6, |first| first.parse().unwrap());
        assert_eq!(before, first - 1, "{query}");
        for text in expected {
            assert_eq!(client.read().text(), *text, "{query}");
        }
        if query == "?last=0" {
            publish(&falconet, "d", "live");
            assert_eq!(client.read().text(), "live");
        }
    }
}

#[test]
fn a_filter_resumes_from_an_id_and_says_if_messages_are_missing() {
    let falconet = Falconet::start(NO_BROADCAST);
    for number in 1..=100 {
        publish(&falconet, ["a/x", "a/y"][number % 2], &number.to_string());
    }
    let id = |number| id_of(falconet.address(), number);
    let read = |lines: &str| {
        let mut events = Events::connect(falconet.address(), "/topics/a/+", lines);
        let first = events.read();
        let ids = if first.kind == "lagged" { vec![] } else { vec![first.id.unwrap()] };
        let rest = std::iter::from_fn(|| events.read().id).take(100 - ids.len());
        (first.data, ids.into_iter().chain(rest).collect::<Vec<_>>())
    };
    let mut events =
        Events::connect(falconet.address(), &format!("/topics/a/+?since={}", id(90)), "");
    for number in 91..=100 {
        assert_eq!(events.read().id, Some(number));
    }
    assert_eq!(events.read_end_of_replay(), 100);
    let (_, ids) = read(&format!("Last-Event-ID: {}\r\n", id(0)));
    assert_eq!(ids, (1..=100).collect::<Vec<_>>());
    let (notice, ids) = read("Last-Event-ID: aaaaaaaa:50\r\n");
    assert_eq!((&*notice, ids.len()), ("unknown", 100));
}

#[test]
fn a_websocket_of_a_filter_only_receives() {
    let falconet = Falconet::start(NO_BROADCAST);
    for path in ["/topics/a/", "/topics/a,b"] {
        let mut client = Client::connect_to(falconet.address(), path);
        client.send(true, TEXT, "x");
        assert_eq!(client.read_to_close(), Some(1008), "{path}");
        let answer = exchange(falconet.address(), handshake(&format!("{path}?mode=in")));
        assert_eq!(status_of(&answer), 400, "{path}");
        assert!(answer.contains("expected the name of one topic"), "{answer}");
    }
    let mut client = Client::connect_to(falconet.address(), "/topics/a,a");
    client.send(true, TEXT, "x");
    assert_eq!(client.read().text(), "x");
}

#[test]
fn an_invalid_filter_is_refused_with_a_reason() {
    let falconet = Falconet::start(NO_BROADCAST);
    for filter in ["a+", "a/%23/b", "%23/a", "a%23", "a,,b", ",", "a//+", "../+"] {
        let path = format!("/topics/{filter}");
        let answer = fetch(falconet.address(), request("GET", &path, SSE, ""));
        assert_eq!(answer.status(), 404, "{path}");
        assert!(answer.text().contains("expected"), "{}", answer.text());
        assert_eq!(status_of(&exchange(falconet.address(), handshake(&path))), 404, "{path}");
    }
    let many = format!("/topics/{}", ["a/"; 65].join(","));
    let answer = fetch(falconet.address(), request("GET", &many, SSE, ""));
    assert_eq!((answer.status(), answer.text()), (400, "65 topic filters, limit 64\n"));
    let sixty_four: Vec<String> = (0..64).map(|number| format!("a{number}/")).collect();
    let path = format!("/topics/{}", sixty_four.join(","));
    let mut client = Client::connect_to(falconet.address(), &path);
    publish(&falconet, "a63/x", "x");
    assert_eq!(client.read().text(), "x");
}

#[test]
fn at_most_max_filters_different_filters_have_subscribers() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-filters", "1"]].concat());
    let _first = Client::connect_to(falconet.address(), "/topics/a/");
    let _same = Client::connect_to(falconet.address(), "/topics/a/%23,t");
    let refused = exchange(falconet.address(), handshake("/topics/b/"));
    assert_eq!(status_of(&refused), 503);
    assert!(refused.contains("too many different topic filters: the limit is 1"), "{refused}");
    let stream = fetch(falconet.address(), request("GET", "/topics/b/", SSE, ""));
    assert!(stream.text().contains("retry: "), "{}", stream.text());
}

#[test]
fn a_slow_subscriber_of_a_filter_is_told_and_ends_with_the_newest_messages() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--max-message", "1m"]].concat());
    let mut events = Events::connect(falconet.address(), "/topics/", "");
    publish(&falconet, "quiet", "first");
    assert!(events.read().data.contains("first"));
    publish(&falconet, "quiet", "last");
    // More than the kernel and the feed hold.
    let large = "x".repeat(1 << 20);
    for _ in 0..40 {
        publish(&falconet, "busy", &large);
    }
    publish(&falconet, "busy", "end");
    let (mut has_lagged, mut last_of_quiet) = (false, String::new());
    loop {
        let event = events.read();
        has_lagged |= event.kind == "lagged";
        if event.data.contains("\"topic\":\"quiet\"") {
            last_of_quiet = event.data;
        } else if event.data.contains("\"data\":\"end\"") {
            break;
        }
    }
    assert!(has_lagged && last_of_quiet.contains("\"data\":\"last\""), "{last_of_quiet}");
}

#[test]
fn a_token_must_cover_the_whole_filter() {
    let folder = Folder::new("filters");
    let file =
        folder.write("tokens", "garden-token-1234 subscribe garden\nreader-token-1234 subscribe\n");
    let falconet = Falconet::start(&[NO_BROADCAST, &["--token-file", &file]].concat());
    for (path, refused) in [
        ("garden/", None),
        ("garden/+/t,garden", None),
        ("garden,house", Some("house")),
        ("garden/,+/t", Some("+/t")),
        ("", Some("#")),
        ("gardener/", Some("gardener/#")),
    ] {
        let path = format!("/topics/{path}");
        let lines = format!("{SSE}Authorization: Bearer garden-token-1234\r\n");
        let head = head_of_stream(&falconet, &path, &lines);
        assert_eq!(status_of(&head), if refused.is_some() { 403 } else { 200 }, "{path}");
        if let Some(refused) = refused {
            let answer = fetch(falconet.address(), request("GET", &path, &lines, ""));
            assert_eq!(answer.text(), format!("not allowed to subscribe to `{refused}`\n"));
        }
        let lines = lines.replace("garden-token", "reader-token");
        assert_eq!(status_of(&head_of_stream(&falconet, &path, &lines)), 200, "{path}");
        assert_eq!(status_of(&head_of_stream(&falconet, &path, SSE)), 401, "{path}");
    }
}

/// Returns the head of the response to a GET.
fn head_of_stream(falconet: &Falconet, path: &str, lines: &str) -> String {
    let mut http = Http::connect(falconet.address());
    http.send(request("GET", path, lines, ""));
    read_response_head(&mut http.into_client().stream)
}

#[test]
fn a_get_of_a_filter_is_the_newest_message_of_each_topic() {
    let falconet = Falconet::start(NO_BROADCAST);
    let read = |path: &str| {
        let answer = fetch(falconet.address(), get(path));
        assert_eq!(
            (answer.status(), answer.header("Content-Type")),
            (200, Some("application/json"))
        );
        let id = number_of(answer.header("Last-Event-ID").unwrap());
        (without_times(answer.text()), id)
    };
    assert_eq!(read("/topics/"), ("[]\n".to_owned(), 0));
    publish(&falconet, "garden/t", "20");
    publish_as(&falconet, "garden/t", "application/json", b"{\"c\":21.5}");
    publish_as(&falconet, "garden", "application/octet-stream", &[0, 255]);
    publish(&falconet, "house", "x");
    let _client = Client::connect_to(falconet.address(), "/topics/garden/u");
    let _stream = Events::connect(falconet.address(), "/topics/garden/+", "");
    let expected = concat!(
        "[{\"topic\":\"garden\",\"id\":3,\"base64\":\"AP8=\",\"subscribers\":0},\n ",
        "{\"topic\":\"garden/t\",\"id\":2,\"json\":{\"c\":21.5},\"subscribers\":1},\n ",
        "{\"topic\":\"garden/u\",\"subscribers\":2}]\n"
    );
    assert_eq!(read("/topics/garden/"), (expected.to_owned(), 4));
    assert_eq!(
        read("/topics/house,nothing").0,
        "[{\"topic\":\"house\",\"id\":4,\"data\":\"x\",\"subscribers\":0}]\n"
    );
    let text = fetch(falconet.address(), request("GET", "/topics/+", "Accept: text/plain\r\n", ""));
    let lines: Vec<_> = text.text().lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("garden 0 ") && lines[1].starts_with("house 0 "), "{lines:?}");
    for method in ["POST", "PUT", "DELETE"] {
        for path in ["/topics/", "/topics/garden/", "/topics/a,b"] {
            let answer = fetch(falconet.address(), request(method, path, "", ""));
            assert_eq!(
                (answer.status(), answer.header("Allow")),
                (405, Some("GET, HEAD, OPTIONS"))
            );
        }
    }
}

#[test]
fn a_page_that_reads_a_filter_and_then_follows_it_misses_nothing() {
    let falconet = Falconet::start(NO_BROADCAST);
    publish(&falconet, "a", "1");
    let answer = fetch(falconet.address(), get("/topics/+"));
    publish(&falconet, "b", "2");
    let path = format!("/topics/+?since={}", answer.header("Last-Event-ID").unwrap());
    let mut client = Client::connect_to(falconet.address(), &path);
    publish(&falconet, "c", "3");
    assert_eq!(client.read().text(), "2");
    assert_eq!(client.read().text(), "3");
}
