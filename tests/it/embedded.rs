//! The library, as used by a program that composes its own server.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use falconet::{
    Action, Asset, ClientId, CloseReason, Config, Denied, Echo, HubHandle, RequestHead, Service,
    Session, SessionEnd, Stop, TopicName,
};

use crate::support::folder::Folder;
use crate::support::operator::{command_operator, start_operated};
use crate::support::*;

/// An endpoint that panics at the first message.
async fn panic_at_first_message(mut session: Session) -> SessionEnd {
    session.next().await;
    // A panic that does not call the hook, which would print into the tests' output.
    std::panic::resume_unwind(Box::new("an endpoint of a test"))
}

/// An endpoint that replies to every message with the number of clients in the hub.
async fn count(mut session: Session) -> SessionEnd {
    while session.next().await.is_some() {
        let counts = session.hub().client_counts().await.unwrap();
        session.send(format!("{}", counts.clients)).await;
    }
    session.close(CloseReason::NORMAL).await
}

#[test]
fn a_panic_of_one_session_does_not_affect_the_others() {
    let server = Embedded::start(|server| {
        let mut config = Config::default();
        // There is no spare connection, so the place of a session that panicked must be released.
        config.limits.connections = 2 + 1 + 99 + 1;
        server
            .config(config)
            .endpoint("/", Echo)
            .endpoint("/panic", panic_at_first_message)
            .endpoint("/count", count)
    });
    let canaries = Canaries::start(server.address);
    let mut counter = Client::connect_to(server.address, "/count");
    let mut others: Vec<Client> = (0..99).map(|_| Client::connect(server.address)).collect();
    for round in 0..20 {
        let mut victim = Client::connect_to(server.address, "/panic");
        victim.send(true, TEXT, "now");
        assert_eq!(victim.read_to_close(), None, "the connection is closed");
        for (index, other) in others.iter_mut().enumerate() {
            other.echo(&format!("round {round} of client {index}"));
        }
        counter.send(true, TEXT, "how many?");
        assert_eq!(counter.read().text(), "102");
    }
    canaries.finish();
    drop(others);
    drop(counter);
    server.stop().expect("the panic does not reach the caller").unwrap();
}

#[test]
fn a_session_dropped_early_ends_its_connection_while_its_endpoint_still_runs() {
    let (ended, endings) = channel();
    let server = Embedded::start(|server| {
        server.endpoint("/", async move |session: Session| {
            let timer = session.timer();
            drop(session);
            // Dropped when the server ends, and not earlier.
            let _ended = Ended(ended.clone());
            timer.sleep(None).await;
            SessionEnd::TransportLost
        })
    });
    let mut client = Client::connect(server.address);
    assert_eq!(
        std::io::Read::read(&mut client.stream, &mut [0]).unwrap(),
        0,
        "the stream has ended"
    );
    assert!(endings.try_recv().is_err(), "the endpoint still runs");
    server.stop().unwrap().unwrap();
    endings.recv_timeout(TIMEOUT).unwrap();
}

#[test]
fn the_connection_of_a_lost_client_ends_while_its_endpoint_still_runs() {
    let server = Embedded::start(|server| {
        server.endpoint("/", async |mut session: Session| {
            let timer = session.timer();
            while session.next().await.is_some() {}
            drop(session);
            timer.sleep(None).await;
            SessionEnd::TransportLost
        })
    });
    let mut client = Client::connect(server.address);
    // Close only the sending side, without a Close frame.
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        std::io::Read::read(&mut client.stream, &mut [0]).unwrap(),
        0,
        "the stream has ended"
    );
}

#[test]
fn messages_sent_before_a_session_is_dropped_arrive() {
    let server = Embedded::start(|server| {
        server.endpoint("/", async |mut session: Session| {
            while let Some(message) = session.next().await {
                let is_last = message.as_text() == Some("last");
                session.send(message).await;
                if is_last {
                    break;
                }
            }
            SessionEnd::TransportLost
        })
    });
    let mut client = Client::connect(server.address);
    let frames = ["one", "last", "and more", "never read"];
    let frames = frames.map(|text| masked(true, TEXT, text.as_bytes())).concat();
    std::io::Write::write_all(&mut client.stream, &frames).unwrap();
    assert_eq!(client.read().text(), "one");
    assert_eq!(client.read().text(), "last");
}

/// Notifies a channel on drop.
struct Ended(Sender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_stale_client_id_reaches_no_client() {
    let server = Embedded::start(|server| {
        let known: Rc<RefCell<Vec<ClientId>>> = Rc::default();
        server.endpoint("/", async move |mut session: Session| {
            while let Some(message) = session.next().await {
                let (verb, index) = message.as_text().unwrap().split_once(' ').unwrap();
                let id = known.borrow().get(index.parse::<usize>().unwrap()).copied();
                let answer = match (verb, id) {
                    ("remember", _) => {
                        known.borrow_mut().push(session.id());
                        // Only the Debug form shows the slot.
                        format!("{:?}", session.id())
                    }
                    ("send", Some(id)) => {
                        format!("{}", session.hub().send_to(id, "mail").await.unwrap())
                    }
                    ("evict", Some(id)) => {
                        let reason = CloseReason::NORMAL;
                        format!("{}", session.hub().evict(id, reason).await.unwrap())
                    }
                    _ => format!("{}", session.hub().client_counts().await.unwrap().clients),
                };
                session.send(answer).await;
            }
            session.close(CloseReason::NORMAL).await
        })
    });
    let ask = |client: &mut Client, question: &str| {
        client.send(true, TEXT, question);
        client.read().text().to_owned()
    };
    let slot = |id: &str| id.split(", generation").next().unwrap().to_owned();
    let mut asker = Client::connect(server.address);
    let mut old = Client::connect(server.address);
    let old_id = ask(&mut old, "remember 0");
    assert_eq!(ask(&mut asker, "send 0"), "true");
    assert_eq!(old.read().text(), "mail");
    drop(old);
    wait_until("the old client is disconnected", || ask(&mut asker, "count 9") == "1");

    let mut new = Client::connect(server.address);
    let new_id = ask(&mut new, "remember 1");
    assert_eq!(slot(&old_id), slot(&new_id), "the slot must be reused for this test");
    assert_ne!(old_id, new_id);
    assert_eq!(ask(&mut asker, "send 0"), "false");
    assert_eq!(ask(&mut asker, "evict 0"), "false");
    assert_eq!(ask(&mut new, "count 9"), "2", "no mail and no Close comes before the answer");
    assert_eq!(ask(&mut asker, "send 1"), "true");
    assert_eq!(new.read().text(), "mail");
}

#[test]
fn an_authorizer_decides_about_pages_and_sessions() {
    let server = Embedded::start(|server| {
        server.endpoint("/", Echo).asset("/", PAGE).asset("/private", PAGE).authorize(
            |head: &RequestHead<'_>| {
                let sent = head.single("authorization");
                let is_guest = sent.ok_or(Denied::Unauthenticated("Bearer"))? == b"Bearer guest";
                Ok(move |action: Action<'_>| match action {
                    Action::Read("/private") | Action::Connect(_) if is_guest => {
                        Err(Denied::Forbidden)
                    }
                    _ => Ok(()),
                })
            },
        )
    });
    let get = |path: &str, more: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
        exchange(server.address, head)
    };
    let upgrade = |more: &str| {
        let request = handshake_with("/", more);
        let mut stream = connect(server.address);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        read_response_head(&mut stream)
    };
    let (guest, friend) = ("Authorization: Bearer guest\r\n", "Authorization: Bearer friend\r\n");
    let unknown = get("/", "");
    assert!(unknown.starts_with("HTTP/1.1 401 "), "{unknown}");
    assert!(unknown.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{unknown}");
    assert!(
        get("/nowhere", "").starts_with("HTTP/1.1 401 "),
        "the request is authorized before its path is looked up"
    );
    assert!(get("/", guest).starts_with("HTTP/1.1 200 "));
    assert!(get("/private", guest).starts_with("HTTP/1.1 403 "));
    assert!(get("/private", friend).starts_with("HTTP/1.1 200 "));
    assert!(upgrade("").starts_with("HTTP/1.1 401 "));
    assert!(upgrade(guest).starts_with("HTTP/1.1 403 "));
    assert!(upgrade(friend).starts_with("HTTP/1.1 101 "));
}

#[cfg(feature = "full")]
#[test]
fn an_authorizer_decides_about_a_file_whatever_escapes_its_path_has() {
    let folder = Folder::new("authorized-files");
    folder.write("open", "for all");
    folder.write("secret", "for none");
    let path = folder.path.clone();
    let server = Embedded::start(|server| {
        server.files(path).authorize(|_: &RequestHead<'_>| {
            Ok(|action: Action<'_>| match action {
                Action::Read("/secret") => Err(Denied::Forbidden),
                _ => Ok(()),
            })
        })
    });
    for path in ["/secret", "/%73ecret", "/%73%65cre%74"] {
        assert_eq!(fetch(server.address, get(path)).status(), 403, "{path}");
    }
    for path in ["/open", "/%6fpen"] {
        assert_eq!(fetch(server.address, get(path)).text(), "for all", "{path}");
    }
}

#[test]
fn an_endpoint_at_another_path_works_beside_the_page() {
    let server = Embedded::start(|server| {
        server.asset("/", PAGE).endpoint("/shout", async |mut session: Session| {
            while let Some(message) = session.next().await {
                session.send(message.as_text().unwrap_or("BYTES").to_uppercase()).await;
            }
            session.close(CloseReason::NORMAL).await
        })
    });
    let mut client = Client::connect_to(server.address, "/shout");
    client.send(true, TEXT, "falcon");
    assert_eq!(client.read().text(), "FALCON");
    let page = exchange(server.address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.ends_with("a page"), "{page}");
    client.send(true, BINARY, "falcon");
    assert_eq!(client.read().text(), "BYTES");
}

/// A service that reports its start, the request to stop, and its end.
struct Reporter(Sender<&'static str>);

impl Service for Reporter {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        self.0.send("started").unwrap();
        stop.requested().await;
        self.0.send("asked to stop").unwrap();
        // A service has time to clean up: the drain waits up to 2.5 s.
        stop.timer().sleep(Some(Duration::from_millis(100))).await;
        hub.client_counts().await.unwrap();
        self.0.send("done").unwrap();
    }
}

#[test]
fn a_service_is_asked_to_stop_and_awaited() {
    let (reports, reported) = channel();
    let server = Embedded::start(|server| server.service(Reporter(reports)));
    assert_eq!(reported.recv_timeout(TIMEOUT), Ok("started"));
    server.stop().unwrap().unwrap();
    assert_eq!(reported.try_iter().collect::<Vec<_>>(), ["asked to stop", "done"]);
}

/// A service that ignores the request to stop.
struct Stubborn;

impl Service for Stubborn {
    async fn run(self: Box<Self>, _: HubHandle, _: Stop) {
        std::future::pending().await
    }
}

#[test]
fn a_server_that_has_ended_has_released_everything() {
    let (kept, left) = channel::<Infallible>();
    let server = Embedded::start(|server| {
        let mut config = Config::default();
        config.timeouts.drain = Duration::from_millis(300);
        let server = server.config(config).service(Stubborn).endpoint("/", Echo);
        server.endpoint("/stubborn", async move |_session: Session| {
            let _kept = kept.clone();
            std::future::pending().await
        })
    });
    // A client that does not answer the Close, one whose endpoint does not end, and one with an unfinished head.
    let idle = Client::connect(server.address);
    let stubborn = Client::connect_to(server.address, "/stubborn");
    let mut early = TcpStream::connect(server.address).unwrap();
    early.set_read_timeout(Some(TIMEOUT)).unwrap();
    early.write_all(b"GET /").unwrap();
    server.stop().unwrap().unwrap();
    assert_eq!(left.recv_timeout(TIMEOUT), Err(RecvTimeoutError::Disconnected));
    for stream in [idle.stream, stubborn.stream, early] {
        rest_of(stream);
    }
}

/// A service that panics once a client is connected, and reports it just before.
struct Broken(Sender<&'static str>);

impl Service for Broken {
    async fn run(self: Box<Self>, hub: HubHandle, _: Stop) {
        hub.until_subscribed(&TopicName::broadcast()).await.unwrap();
        self.0.send("panics").unwrap();
        std::panic::resume_unwind(Box::new("a service of a test"))
    }
}

#[test]
fn a_panic_in_a_service_neither_ends_the_server_nor_blocks_its_stop() {
    let (panics, panicked) = channel();
    let (reports, reported) = channel();
    let server = Embedded::start(|server| {
        server.endpoint("/", Echo).service(Broken(panics)).service(Reporter(reports))
    });
    let mut client = Client::connect(server.address);
    client.echo("hello");
    assert_eq!(panicked.recv_timeout(TIMEOUT), Ok("panics"));
    Client::connect(server.address).echo("after the panic");
    drop(client);
    server.stop().expect("the panic does not reach the caller").unwrap();
    assert_eq!(reported.try_iter().last(), Some("done"));
}

const PAGE: Asset = Asset { content_type: "text/plain", body: b"a page" };

/// A service that broadcasts endlessly, faster than a slow client reads, and counts its broadcasts.
struct Firehose(Arc<AtomicUsize>);

impl Service for Firehose {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        let timer = stop.timer().clone();
        while stop.sleep_until(timer.now() + Duration::from_millis(1)).await {
            if hub.broadcast(vec![7; 8 * 1024]).await.is_err() {
                return;
            }
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_client_slower_than_the_broadcasts_still_gets_its_echo() {
    let broadcasts = Arc::new(AtomicUsize::new(0));
    let firehose = Firehose(broadcasts.clone());
    let server = Embedded::start(|server| server.endpoint("/", Echo).service(firehose));
    let mut client = Client::connect(server.address);
    // Otherwise the kernel would buffer megabytes of broadcasts, which the client would read first.
    rustix::net::sockopt::set_socket_recv_buffer_size(&client.stream, 16 * 1024).unwrap();
    // 4 MiB are more than the server and the kernel keep for a client.
    wait_until("the client has fallen behind", || broadcasts.load(Ordering::Relaxed) >= 512);
    client.send(true, TEXT, "hello");
    let begun = std::time::Instant::now();
    while client.read().opcode != TEXT {
        assert!(begun.elapsed() < TIMEOUT, "still no echo");
        // Read a fifth of the broadcasts.
        std::thread::sleep(Duration::from_millis(5));
    }
    server.stop().unwrap().unwrap();
}

/// The connections of one user: two sessions of an endpoint, one of a topic, and an event stream.
struct User {
    clients: Vec<Client>,
    events: Events,
}

impl User {
    fn connect(server: &Embedded, id: &str) -> Self {
        let at = |path: &str| format!("{path}?client={id}");
        let paths = [at("/"), at("/"), at("/topics/t")];
        Self {
            clients: paths.iter().map(|path| Client::connect_to(server.address, path)).collect(),
            events: Events::connect(server.address, &at("/topics/t"), ""),
        }
    }
}

#[cfg(feature = "full")]
#[test]
fn a_message_to_a_correlation_id_reaches_all_its_connections_and_no_others() {
    let (server, mut operator) = start_operated();
    let mut alice = User::connect(&server, "alice");
    let mut bob = User::connect(&server, "bob");
    let mut anonymous = Client::connect(server.address);
    assert_eq!(command_operator(&mut operator, "send alice hello"), "4");
    assert_eq!(command_operator(&mut operator, "send carol hello"), "0");
    for client in &mut alice.clients {
        assert_eq!(client.read().text(), "hello");
    }
    let event = alice.events.read();
    assert_eq!((event.id, &*event.data), (None, "hello"), "the message belongs to no topic");

    // The next message that every other client receives is the next one sent to that client.
    assert_eq!(command_operator(&mut operator, "publish t news"), "1 4");
    for user in [&mut alice, &mut bob] {
        assert_eq!(user.clients[2].read().text(), "news");
        let event = user.events.read();
        assert_eq!((event.id, &*event.data), (Some(1), "news"));
        user.clients[..2].iter_mut().for_each(|client| client.echo("nothing before"));
    }
    anonymous.echo("nothing before");
    drop((alice, bob, anonymous, operator));
    server.stop().unwrap().unwrap();
}

#[cfg(feature = "full")]
#[test]
fn evicting_a_correlation_id_closes_all_its_connections_and_no_others() {
    let (server, mut operator) = start_operated();
    let mut alice = User::connect(&server, "alice");
    let mut bob = User::connect(&server, "bob");
    assert_eq!(command_operator(&mut operator, "publish t before"), "1 4");
    assert_eq!(command_operator(&mut operator, "evict alice"), "4");
    assert_eq!(alice.clients[2].read().text(), "before");
    assert_eq!(alice.events.read().data, "before");
    for mut client in alice.clients {
        let close = client.read();
        assert_eq!((close.close_code(), &close.payload[2..]), (1008, &b"go away"[..]));
        client.send(true, CLOSE, &close.payload[..2]);
        assert_eq!(client.read_to_close(), None);
    }
    assert_eq!(alice.events.try_read(), None);
    drop(alice.events);
    // The hub removes the clients only after the close.
    wait_until("all clients of alice are disconnected", || {
        command_operator(&mut operator, "evict alice") == "0"
    });

    assert_eq!(command_operator(&mut operator, "publish t after"), "2 2");
    for text in ["before", "after"] {
        assert_eq!(bob.clients[2].read().text(), text);
        assert_eq!(bob.events.read().data, text);
    }
    bob.clients[0].echo("still here");
    drop((bob, operator));
    server.stop().unwrap().unwrap();
}

#[cfg(feature = "full")]
#[test]
fn a_handle_publishes_lists_and_clears_topics() {
    let (server, mut operator) = start_operated();
    // The operator subscribes to `broadcast`, as the sessions of every endpoint do.
    assert_eq!(command_operator(&mut operator, "topics"), "broadcast:1:0");
    assert_eq!(command_operator(&mut operator, "publish b/c one"), "1 0");
    let mut client = Client::connect_to(server.address, "/topics/b/c?last=1");
    assert_eq!(client.read().text(), "one");
    assert_eq!(command_operator(&mut operator, "publish b/c two"), "2 1");
    assert_eq!(client.read().text(), "two");
    assert_eq!(command_operator(&mut operator, "publish a x"), "3 0");
    assert_eq!(command_operator(&mut operator, "topics"), "a:0:3 b/c:1:2 broadcast:1:0");
    assert_eq!(command_operator(&mut operator, "publish d x"), "too many topics: the limit is 3");

    assert_eq!(command_operator(&mut operator, "clear b/c"), "cleared");
    let mut late = Client::connect_to(server.address, "/topics/b/c?last=1");
    assert_eq!(command_operator(&mut operator, "publish b/c three"), "5 2");
    for client in [&mut late, &mut client] {
        assert_eq!(client.read().text(), "three");
    }
    // A topic without subscribers and retained messages is removed.
    assert_eq!(command_operator(&mut operator, "clear a"), "cleared");
    assert_eq!(command_operator(&mut operator, "topics"), "b/c:2:5 broadcast:1:0");
    assert_eq!(command_operator(&mut operator, "publish d x"), "7 0");
    drop((client, late, operator));
    server.stop().unwrap().unwrap();
}

/// A service that publishes a message for the first subscriber of a topic, and stops the server when the last
/// subscriber has disconnected.
struct Host;

impl Service for Host {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        let topic = TopicName::new("topic").unwrap();
        hub.until_subscribed(&topic).await.unwrap();
        let published = hub.publish(&topic, "welcome").await.unwrap();
        assert_eq!((published.id.number(), published.subscribers), (1, 1));
        hub.until_unsubscribed(&topic).await.unwrap();
        stop.request();
    }
}

#[cfg(feature = "full")]
#[test]
fn a_service_awaits_subscribers_of_its_topic_and_can_stop_the_server() {
    let mut server = Embedded::start(|server| server.topics().endpoint("/", Echo).service(Host));
    let mut elsewhere = Client::connect_to(server.address, "/topics/other");
    let mut here = Client::connect(server.address);
    here.echo("the topic has no subscriber yet");
    let mut subscriber = Client::connect_to(server.address, "/topics/topic");
    assert_eq!(subscriber.read().text(), "welcome");
    here.echo("the topic has a subscriber");
    drop(subscriber);
    for client in [&mut elsewhere, &mut here] {
        assert_eq!(client.read().close_code(), 1001);
    }
    drop((elsewhere, here));
    let thread = server.thread.take().unwrap();
    wait_until("the server has ended", || thread.is_finished());
    thread.join().unwrap().unwrap();
}

#[cfg(feature = "full")]
#[test]
fn an_authorizer_decides_by_the_name_of_a_topic() {
    let server = Embedded::start(|server| {
        server.topics().authorize(|head: &RequestHead<'_>| {
            let token = head.query_value("token").ok_or(Denied::Unauthenticated("Bearer"))?;
            let token = token.to_owned();
            Ok(move |action: Action<'_>| match (&*token, action) {
                (_, Action::Subscribe("#")) => Ok(()),
                ("reader" | "both", Action::Subscribe("a/b")) => Ok(()),
                ("writer" | "both", Action::Publish("a/b")) => Ok(()),
                _ => Err(Denied::Forbidden),
            })
        })
    });
    let head = |request: &[u8]| {
        let mut stream = connect(server.address);
        std::io::Write::write_all(&mut stream, request).unwrap();
        status_of(&read_response_head(&mut stream))
    };
    let status = |method: &str, path: &str, lines: &str| head(&request(method, path, lines, ""));
    for (token, reads, publishes) in [
        ("", 401, 401),
        ("?token=reader", 200, 403),
        ("?token=writer", 403, 202),
        ("?token=both", 200, 202),
    ] {
        let path = format!("/topics/a/b{token}");
        let joined = if token.is_empty() { "?" } else { "&" };
        assert_eq!(status("POST", &path, ""), publishes, "{token}");
        assert_eq!(status("PUT", &path, ""), publishes, "{token}");
        // A retained message, so that reading finds one.
        status("POST", "/topics/a/b?token=both", "");
        assert_eq!(status("GET", &path, ""), reads, "{token}");
        assert_eq!(status("HEAD", &path, ""), reads, "{token}");
        assert_eq!(status("GET", &path, "Accept: text/event-stream\r\n"), reads, "{token}");
        let upgraded = |wanted| if wanted < 300 { 101 } else { wanted };
        let upgrade = |mode: &str| head(handshake(&format!("{path}{joined}{mode}")).as_bytes());
        assert_eq!(upgrade("last=0"), upgraded(reads), "{token}");
        assert_eq!(upgrade("mode=out"), upgraded(reads), "{token}");
        assert_eq!(upgrade("mode=in"), upgraded(publishes), "{token}");
        let deleted = if publishes == 202 { 204 } else { publishes };
        assert_eq!(status("DELETE", &path, ""), deleted, "{token}");
        let list = if token.is_empty() { 401 } else { 200 };
        assert_eq!(status("GET", &format!("/topics/{token}"), ""), list, "{token}");
    }
    // Only the exact name is allowed.
    assert_eq!(status("POST", "/topics/a?token=both", ""), 403);
    assert_eq!(status("POST", "/topics/a/b/c?token=both", ""), 403);

    let mut writer = Client::connect_to(server.address, "/topics/a/b?token=both");
    let mut reader = Client::connect_to(server.address, "/topics/a/b?token=reader");
    let mut out_only = Client::connect_to(server.address, "/topics/a/b?token=both&mode=out");
    for client in [&mut reader, &mut out_only] {
        client.send(true, TEXT, "may I?");
        let close = client.read();
        assert_eq!(close.close_code(), 1008);
        assert_eq!(&close.payload[2..], b"publishing is not allowed");
    }
    writer.send(true, TEXT, "I may");
    assert_eq!(writer.read().text(), "I may", "nothing was published before");
    drop((writer, reader, out_only));
    server.stop().unwrap().unwrap();
}

#[test]
fn a_close_reason_is_cut_to_the_limit_of_a_control_frame() {
    const LONG: &str = match std::str::from_utf8(&[b'x'; 2000]) {
        Ok(text) => text,
        Err(_) => "",
    };
    let server = Embedded::start(|server| {
        server.endpoint("/", async |session: Session| {
            session.close(CloseReason::new(falconet::CloseCode::Normal, LONG)).await
        })
    });
    let mut client = Client::connect(server.address);
    let close = client.read();
    assert_eq!(close.close_code(), 1000);
    assert_eq!(close.payload.len(), 125);
    server.stop().unwrap().unwrap();
}
