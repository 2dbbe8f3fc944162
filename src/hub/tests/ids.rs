//! Ids of clients, while slots are reused.

use super::*;

/// Takes one frame from the mailbox of each client. Returns the clients that had one.
fn clients_with_mail(clients: &[Rc<Client>]) -> Vec<ClientId> {
    let got = clients.iter().filter(|client| client.take_mail().is_some());
    got.map(|client| client.id()).collect()
}

fn join_somewhere(hub: &mut Hub, random: &mut fastrand::Rng, now: Instant) -> Rc<Client> {
    let topic = random.choice([None, Some("broadcast"), Some("a"), Some("b"), Some("c")]).unwrap();
    let subscribed = topic.map(|topic| Subscription::to(name(topic), Start::Live));
    let subscription = subscribed.unwrap_or_else(Subscription::none);
    hub.join(new_client("test"), subscription, now).unwrap().0
}

#[test]
fn an_id_reaches_its_client_and_never_another() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    let now = Instant::now();
    let mut clients: Vec<Rc<Client>> = Vec::new();
    let mut left: Vec<ClientId> = Vec::new();
    let (mut filling, mut emptied) = (true, 0);
    for step in 0..100_000 {
        let context = format!("step {step}");
        // The number of clients grows and shrinks by turns.
        filling = clients.is_empty() || (filling && clients.len() < 40);
        if clients.is_empty() || filling == (random.u8(0..4) > 0) {
            clients.push(join_somewhere(&mut hub, &mut random, now));
        } else {
            let client = clients.swap_remove(random.usize(0..clients.len()));
            left.push(client.id());
            leave(&mut hub, client);
        }
        emptied += usize::from(clients.is_empty());

        if let Some(client) = random.choice(&clients) {
            let id = client.id();
            assert!(hub.send_to(id, frame("m")), "{context}");
            assert_eq!(clients_with_mail(&clients), [id], "{context}");
        }
        for stale in [left.last(), random.choice(&left)].into_iter().flatten() {
            assert!(!hub.send_to(*stale, frame("m")) && !hub.evict(*stale, REASON), "{context}");
            hub.leave(*stale);
        }
        assert_eq!(clients_with_mail(&clients), [], "{context}");
        assert_eq!(hub.client_counts().clients, clients.len(), "{context}");
        assert!(clients.iter().all(|client| client.eviction().is_none()), "{context}");
        assert_consistent(&hub, &context);
        if step % 100 == 0 {
            assert_ringing_reaches_the_subscribers(&mut hub, &clients, &context);
        }
    }
    assert!(emptied > 100, "all clients left {emptied} times");
    for client in clients {
        leave(&mut hub, client);
    }
    assert_eq!(hub.clients.capacity(), 0);
    assert_eq!(topics(&hub), ["broadcast"]);
    let broadcast = hub.topics.get(&TopicName::broadcast()).unwrap();
    assert_eq!(broadcast.subscribers.capacity(), 0);
}

fn assert_ringing_reaches_the_subscribers(hub: &mut Hub, clients: &[Rc<Client>], context: &str) {
    for topic in ["broadcast", "a", "b", "c"] {
        clients.iter().for_each(|client| client.bell.clear());
        publish(hub, topic, context).unwrap();
        for client in clients {
            let subscribes = client.filters().any(|subscribed| subscribed == name(topic).into());
            assert_eq!(client.bell.is_rung(), subscribes, "{context}");
        }
    }
}
