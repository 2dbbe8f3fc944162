//! Topics whose names have spaces, other scripts, and characters that URLs, JSON and logs reserve.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use tinyjson::JsonValue;

use crate::support::access::bearer;
use crate::support::admin;
use crate::support::client::PipedClient;
use crate::support::command::stdout_of;
use crate::support::folder::Folder;
use crate::support::*;

/// Names, each in the form that it has in a URL.
const NAMES: &[(&str, &str)] = &[
    ("zigbee2mqtt/Living Room", "zigbee2mqtt/Living%20Room"),
    ("home/küche", "home/k%C3%BCche"),
    ("say \"hi\"", "say%20%22hi%22"),
    (r"a\b\n", "a%5Cb%5Cn"),
    ("50%", "50%25"),
    ("a%2Fb", "a%252Fb"),
    ("a,b", "a%2Cb"),
    ("what?", "what%3F"),
    ("a&b=c;d", "a%26b%3Dc%3Bd"),
    ("🦅", "%F0%9F%A6%85"),
    (" ", "%20"),
    ("<b>'x'", "%3Cb%3E%27x%27"),
];

/// Returns the name of a topic of 256 bytes, and its form in a URL.
fn longest() -> (String, String) {
    ("🦅".repeat(64), "%F0%9F%A6%85".repeat(64))
}

fn all_names() -> Vec<(String, String)> {
    let owned = |(name, encoded): &(&str, &str)| (name.to_string(), encoded.to_string());
    NAMES.iter().map(owned).chain([longest()]).collect()
}

/// Returns the field `topic` of a JSON object.
fn topic_of(json: &JsonValue) -> String {
    json["topic"].get::<String>().expect("a string").clone()
}

fn json_of(answer: &Answer) -> JsonValue {
    answer.text().parse().expect("the answer is JSON")
}

#[test]
fn a_topic_of_any_name_is_published_subscribed_to_read_listed_and_deleted() {
    let falconet = Falconet::start(NO_BROADCAST);
    let address = falconet.address();
    for (name, encoded) in all_names() {
        let path = format!("/topics/{encoded}");
        let mut client = Client::connect_to(address, &path);
        let mut events = Events::connect(address, &path, "");
        let answer = fetch(address, post(&path, "by HTTP"));
        assert_eq!((answer.status(), topic_of(&json_of(&answer))), (202, name.clone()));
        assert_eq!((client.read().text(), &*events.read().data), ("by HTTP", "by HTTP"));
        client.echo("by WebSocket");
        assert_eq!(events.read().data, "by WebSocket");
        assert_eq!(fetch(address, get(&path)).text(), "by WebSocket", "{name}");
        let list = json_of(&fetch(address, get("/topics/")));
        let list: &Vec<JsonValue> = list.get().expect("an array");
        assert!(list.iter().any(|topic| topic_of(topic) == name), "{name}: {list:?}");
        let list = fetch(address, request("GET", "/topics/", "Accept: text/plain\r\n", ""));
        let first_words: Vec<_> = list.text().lines().map(|line| line.split(' ').next()).collect();
        assert!(first_words.contains(&Some(&*encoded)), "{encoded}: {first_words:?}");
        assert!(list.text().lines().all(|line| line.split(' ').count() == 3), "{list:?}");
        assert_eq!(fetch(address, request("DELETE", &path, "", "")).status(), 204);
        assert_eq!(fetch(address, get(&path)).status(), 404, "{name}");
    }
}

#[test]
fn a_name_of_more_than_256_bytes_is_refused() {
    let falconet = Falconet::start(NO_BROADCAST);
    for path in ["/topics/".to_owned() + &"x".repeat(257), format!("/topics/{}x", longest().1)] {
        for (method, lines) in [("GET", ""), ("GET", SSE), ("POST", ""), ("DELETE", "")] {
            let answer = fetch(falconet.address(), request(method, &path, lines, ""));
            assert_eq!(answer.status(), 404, "{method} {path}");
            assert!(answer.text().contains("expected 1 to 256 bytes"), "{answer:?}");
        }
        assert_eq!(status_of(&exchange(falconet.address(), handshake(&path))), 404, "{path}");
    }
}

#[test]
fn a_comma_is_a_part_of_a_name_only_if_it_is_encoded() {
    let (falconet, admin) = admin::start(NO_BROADCAST);
    let address = falconet.address();
    assert_eq!(fetch(address, post("/topics/a%2Cb", "one topic")).status(), 202);
    assert_eq!(fetch(address, get("/topics/a%2cb?last=1,2")).text(), "one topic");
    assert_eq!(fetch(admin, get("/topics/a%2Cb")).text(), "one topic");
    for path in ["/topics/a,b", "/topics/a,b%2Cc", "/%74opics/a,b", "/topics%2Fa,b", "/topics/a,b/"]
    {
        assert_eq!(fetch(address, get(path)).text(), "[]\n", "{path}");
        let expected = format!("`{path}` is not one topic: expected the name of one, with `%2C`");
        for method in ["POST", "PUT", "DELETE"] {
            let answer = fetch(address, request(method, path, "", "x"));
            assert_eq!(answer.status(), 405, "{method} {path}");
            assert!(answer.text().starts_with(&expected), "{answer:?}");
        }
        let refused = exchange(address, handshake(&format!("{path}?mode=in")));
        assert_eq!(status_of(&refused), 400, "{path}");
        assert!(refused.contains("expected the name of one topic, with `%2C`"), "{refused}");
        let answer = fetch(admin, get(path));
        assert_eq!((answer.status(), answer.text().starts_with(&expected)), (404, true), "{path}");
    }
    for path in ["/topics/,", "/topics/a,/b", "/topics/a,b,"] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = fetch(address, request(method, path, "", ""));
            assert_eq!(answer.status(), 404, "{method} {path}");
            assert!(answer.text().contains("is not a topic"), "{answer:?}");
        }
    }
}

#[test]
fn a_list_has_topics_of_any_name() {
    let (falconet, admin) = admin::start(NO_BROADCAST);
    let address = falconet.address();
    let encoded: Vec<String> = all_names().into_iter().map(|(_, encoded)| encoded).collect();
    let path = format!("/topics/{}", encoded.join(","));
    let mut client = Client::connect_to(address, &path);
    let mut events = Events::connect(address, &path, "");
    let clients = json_of(&fetch(admin, get("/clients")));
    assert_eq!(topic_of(&clients[0]), encoded.join(","));
    assert_eq!(clients[0]["path"].get::<String>(), Some(&path));
    for (name, encoded) in all_names() {
        let answer = fetch(address, post(&format!("/topics/{encoded}"), &*name));
        assert_eq!(answer.status(), 202, "{name}");
        assert_eq!(client.read().text(), name);
        let event: JsonValue = events.read().data.parse().expect("JSON");
        assert_eq!((topic_of(&event), event["data"].get::<String>()), (name.clone(), Some(&name)));
    }
    let list = json_of(&fetch(address, get(&path)));
    let listed: &Vec<JsonValue> = list.get().expect("an array");
    let mut names: Vec<String> = all_names().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(listed.iter().map(topic_of).collect::<Vec<_>>(), names);
}

#[test]
fn a_filter_has_segments_of_any_text() {
    let (falconet, admin) = admin::start(NO_BROADCAST);
    let address = falconet.address();
    for (filter, shown, topic) in [
        ("Living%20Room/+", "Living Room/+", "Living%20Room/a%2Cb"),
        ("k%C3%BCche/", "küche/#", "k%C3%BCche/%2523"),
        // An encoded wildcard is a wildcard, because no name contains these characters.
        ("%2B/50%25/%23", "+/50%/#", "x/50%25"),
        ("a%2Cb/%23", "a,b/#", "a%2Cb"),
        ("%252B/+", "%2B/+", "%252B/x"),
    ] {
        let path = format!("/topics/{filter}");
        let mut client = Client::connect_to(address, &path);
        let list = json_of(&fetch(admin, get("/clients")));
        assert_eq!(topic_of(&list[0]), shown);
        assert_eq!(list[0]["path"].get::<String>(), Some(&path));
        assert_eq!(fetch(address, post(&format!("/topics/{topic}"), filter)).status(), 202);
        assert_eq!(client.read().text(), filter);
        drop(client);
        wait_until("the client is gone", || admin::clients(admin).is_empty());
    }
    for filter in ["a%2Bb", "a%2B/b", "%23/b", "a%23"] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = fetch(address, request(method, &format!("/topics/{filter}"), "", ""));
            assert_eq!(answer.status(), 404, "{method} {filter}");
            assert!(answer.text().contains("is not a topic filter: expected"), "{answer:?}");
        }
    }
}

#[test]
fn a_filter_matches_names_with_a_dollar_sign_only_if_it_begins_with_one() {
    let (reader, mut producer) = std::io::pipe().unwrap();
    let flags = ["--listen", "http://127.0.0.1:0", "--stdin", "$SYS/load", "--broadcast-every=0"];
    let falconet = Falconet::start_with_stdin(Falconet::command().args(flags), reader);
    let address = falconet.address();
    let mut matching = ["$SYS/", "%24SYS/+", "a,$SYS/load"]
        .map(|filter| Client::connect_to(address, &format!("/topics/{filter}")));
    let mut others = ["", "%23", "+/load", "%2B/%23"]
        .map(|filter| Client::connect_to(address, &format!("/topics/{filter}")));
    producer.write_all(b"0.25\n").unwrap();
    for client in &mut matching {
        assert_eq!(client.read().text(), "0.25");
    }
    assert_eq!(fetch(address, post("/topics/b/load", "matched")).status(), 202);
    for client in &mut others {
        assert_eq!(client.read().text(), "matched");
    }
    assert!(fetch(address, get("/topics/$SYS/")).text().contains("\"topic\":\"$SYS/load\""));
    assert!(!fetch(address, get("/topics/")).text().contains("$SYS"));
    for method in ["POST", "DELETE"] {
        assert_eq!(fetch(address, request(method, "/topics/$SYS/", "", "")).status(), 405);
    }
}

#[test]
fn a_path_that_cannot_be_decoded_names_no_topic() {
    let falconet = Falconet::start(NO_BROADCAST);
    for name in ["50%", "a%2", "a%zz", "%ff", "a%00", "a%0A", "%C2%85", "%2e%2e", "a%2F.."] {
        // The topic whose name is the path as it is sent.
        let other = format!("/topics/{}", name.replace('%', "%25"));
        assert_eq!(fetch(falconet.address(), post(&other, "another topic")).status(), 202);
        let path = format!("/topics/{name}");
        for method in ["GET", "POST", "DELETE"] {
            let answer = fetch(falconet.address(), request(method, &path, "", ""));
            assert_eq!(answer.status(), 404, "{method} {path}");
            let expected = format!("`{path}` can't be decoded: expected UTF-8");
            assert!(answer.text().starts_with(&expected), "{answer:?}");
        }
        assert_eq!(status_of(&exchange(falconet.address(), handshake(&path))), 404, "{path}");
        assert_eq!(fetch(falconet.address(), get(&other)).text(), "another topic");
    }
}

#[test]
fn clients_subscribe_to_a_topic_that_begins_with_a_dollar_sign_and_may_not_publish_to_it() {
    let (reader, mut producer) = std::io::pipe().unwrap();
    let flags = ["--listen", "http://127.0.0.1:0", "--stdin", "$SYS/load", "--broadcast-every=0"];
    let falconet = Falconet::start_with_stdin(Falconet::command().args(flags), reader);
    let address = falconet.address();
    let mut events = Events::connect(address, "/topics/$SYS/load", "");
    let mut receiver = Client::connect_to(address, "/topics/%24SYS/load?mode=out");
    let mut client = Client::connect_to(address, "/topics/$SYS%2fload");
    for path in ["/topics/$SYS/load", "/topics/%24SYS/load", "/topics/$"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = fetch(address, request(method, path, "", "forged"));
            assert_eq!(answer.status(), 403, "{method} {path}");
            assert!(
                answer.text().contains("` begins with `$`: clients can subscribe"),
                "{answer:?}"
            );
        }
        let refused = exchange(address, handshake(&format!("{path}?mode=in")));
        assert_eq!(status_of(&refused), 403, "{path}");
    }
    producer.write_all(b"0.25\n").unwrap();
    assert_eq!((receiver.read().text(), client.read().text()), ("0.25", "0.25"));
    assert_eq!(events.read().data, "0.25");
    assert_eq!(fetch(address, get("/topics/$SYS/load")).text(), "0.25");
    client.send(true, TEXT, "forged");
    assert_eq!(client.read().close_code(), 1008);
    assert_eq!(fetch(address, post("/topics/a/$b", "x")).status(), 202);
}

#[test]
fn a_topic_called_stats_is_not_the_administrators() {
    let (falconet, admin) = admin::start(NO_BROADCAST);
    let address = falconet.address();
    let _subscriber = Client::connect_to(address, "/topics/$stats");
    let mut watcher = Events::connect(admin, "/events", "");
    while watcher.read().kind != "stats" {}
    for (address, path, names) in [
        (address, "/topics/", ""),
        (address, "/topics/$stats,+", "%24stats 1 -\n"),
        (admin, "/topics/", "%24stats 1 -\nbroadcast 0 -\n"),
    ] {
        let list = fetch(address, request("GET", path, "Accept: text/plain\r\n", ""));
        assert_eq!(list.text(), names);
        assert!(fetch(address, get("/topics/%00stats")).text().contains("can't be decoded"));
    }
    assert_eq!(fetch(address, post("/topics/$stats", "forged")).status(), 403);
}

#[test]
fn the_topics_in_a_token_file_are_percent_encoded() {
    let folder = Folder::new("encoded-topics");
    let lines = "room all zigbee2mqtt/Living%20Room/ # a comment\nkitchen publish home/küche\n\
                 comma publish a%2Cb\npercent publish a%252Cb\nsystem all %24SYS\n";
    let falconet = Falconet::start(&["--token-file", &folder.write("tokens", lines)]);
    for (token, path, status) in [
        ("room", "zigbee2mqtt/Living%20Room", 202),
        ("room", "zigbee2mqtt/Living%20Room/light", 202),
        ("room", "zigbee2mqtt/Living", 403),
        ("room", "zigbee2mqtt/Living%2520Room", 403),
        ("kitchen", "home/k%c3%bcche", 202),
        ("kitchen", "home/ku%CC%88che", 403),
        ("comma", "a%2Cb", 202),
        ("comma", "a%252Cb", 403),
        ("percent", "a%252Cb", 202),
        ("percent", "a%2Cb", 403),
        ("system", "$SYS/load", 403),
        ("none", "$SYS/load", 401),
    ] {
        let request = request("POST", &format!("/topics/{path}"), &bearer(token), "x");
        let answer = fetch(falconet.address(), request);
        assert_eq!(answer.status(), status, "{token} {path}");
        assert_eq!(answer.text().contains("begins with `$`"), token == "system", "{answer:?}");
    }
    let read = request("GET", "/topics/%24SYS/load", &bearer("system"), "");
    assert!(fetch(falconet.address(), read).text().contains("retains no message"));
}

#[test]
fn the_administrator_sees_the_name_and_the_path_of_a_subscriber() {
    let (falconet, admin) = admin::start(NO_BROADCAST);
    for (name, encoded) in all_names() {
        let path = format!("/topics/{encoded}");
        let client = Client::connect_to(falconet.address(), &path);
        let list = json_of(&fetch(admin, get("/clients")));
        assert_eq!(topic_of(&list[0]), name);
        assert_eq!(list[0]["path"].get::<String>(), Some(&path));
        drop(client);
        wait_until("the client is gone", || admin::clients(admin).is_empty());
    }
}

#[test]
fn a_path_is_one_field_of_a_log_line() {
    for format in ["text", "logfmt", "json"] {
        let falconet = Falconet::start(&["--log-format", format, "--log-level", "debug"]);
        // Ten lines of a kind are logged in a second.
        for (_, encoded) in all_names().into_iter().rev().step_by(2) {
            let path = format!("/topics/{encoded}");
            drop(Client::connect_to(falconet.address(), &path));
            let shown = &path[..path.len().min(256)];
            falconet.wait_for_line(&match format {
                "json" => format!("\"kind\":\"websocket\",\"path\":\"{shown}"),
                _ => format!(" kind=websocket path={shown}"),
            });
        }
        // A client may also send such characters as they are.
        fetch(falconet.address(), post("/topics/\"=\\", "x"));
        falconet.wait_for_line(match format {
            "json" => r#""path":"/topics/\"=\\","request""#,
            _ => r#" path="/topics/\"=\\" request="#,
        });
    }
}

#[test]
fn stdin_is_published_to_a_topic_of_any_name() {
    for (name, encoded) in all_names() {
        for as_flag in [true, false] {
            let (reader, mut producer) = std::io::pipe().unwrap();
            let mut command = Falconet::command();
            command.args(["--listen", "http://127.0.0.1:0"]);
            match as_flag {
                true => command.args(["--stdin", &name]),
                false => command.env("FALCONET_STDIN", &name),
            };
            let falconet = Falconet::start_with_stdin(&mut command, reader);
            let mut client = Client::connect_to(falconet.address(), &format!("/topics/{encoded}"));
            producer.write_all(b"a line\n").unwrap();
            assert_eq!(client.read().text(), "a line", "{name}");
        }
    }
}

#[test]
fn a_name_that_is_not_utf_8_is_refused_by_the_server_and_by_the_client() {
    let name = OsStr::from_bytes(b"k\xfcche");
    let mut flag = Falconet::command();
    flag.arg("--stdin").arg(name);
    let mut variable = Falconet::command();
    variable.env("FALCONET_STDIN", name);
    let mut publisher = Command::new(env!("CARGO_BIN_EXE_falconet-client"));
    publisher.arg("pub").arg(name).arg("x");
    for (mut command, code, text) in [
        (flag, 2, r"--stdin `k\u{fffd}che`: expected UTF-8"),
        (variable, 78, r"FALCONET_STDIN `k\u{fffd}che`: expected UTF-8"),
        (publisher, 2, r#""k\xFCche" is not a topic name: expected UTF-8"#),
    ] {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
}

#[test]
fn the_client_publishes_and_subscribes_to_a_topic_of_any_name() {
    let falconet = Falconet::start(NO_BROADCAST);
    let server = format!("http://{}", falconet.address());
    for (name, encoded) in all_names() {
        let publish = |message: &str| {
            let client = PipedClient::start(&["pub", "--server", &server, &name, message]);
            assert_eq!(client.finish(), (0, String::new(), String::new()), "{name}");
        };
        publish("retained");
        let answer = fetch(falconet.address(), get(&format!("/topics/{encoded}")));
        assert_eq!(answer.text(), "retained", "{name}");
        let subscribers = [&[][..], &["--sse"]].map(|flags| {
            let arguments = ["sub", "--server", &server, "--last", "1", &name];
            PipedClient::start(&[&arguments, flags].concat())
        });
        for subscriber in &subscribers {
            assert_eq!(subscriber.line(), "retained\n", "{name}");
        }
        publish("live");
        for subscriber in &subscribers {
            assert_eq!(subscriber.line(), "live\n", "{name}");
        }
    }
    let client = PipedClient::start(&["pub", "--server", &server, "$SYS/load", "forged"]);
    let (code, _, stderr) = client.finish();
    assert!(code == 1 && stderr.contains("403"), "{stderr}");
}

#[test]
fn the_topic_of_stdin_is_printed_as_it_is_read() {
    let mut command = Falconet::command();
    let config = stdout_of(command.args(["--print-config", "--stdin", r#"a "b"\c/ü = 50%, d"#]));
    let folder = Folder::new("plain-topic");
    let file = folder.write("falconet.conf", &config);
    assert!(config.contains("\nstdin = a \"b\"\\c/ü = 50%, d\n"), "{config}");
    assert_eq!(stdout_of(Falconet::command().args(["--print-config", "--config", &file])), config);
}
