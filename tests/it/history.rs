//! What the administrator is told of the last ten minutes.

use tinyjson::JsonValue;

use crate::support::admin::*;
use crate::support::*;

#[test]
fn who_looks_is_told_first_how_things_were() {
    let (falconet, admin) = start(NO_BROADCAST);
    let mut looker = Events::connect(admin, "/events", "");
    assert_eq!(looker.read().kind, "stats", "nobody was there before");
    let mut client = Client::connect(falconet.address());
    client.echo("one");
    while !looker.read().data.contains(r#""websocket":1,"#) {}
    drop(looker);
    wait_until("it is remembered", || websocket_counts(&history(admin)) == [0.0, 1.0]);
    let samples: JsonValue = history(admin).parse().unwrap();
    let number = |index: usize, name: &str| *samples[index][name].get::<f64>().unwrap();
    assert!(number(0, "time") < number(1, "time"));
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    assert!((now.unwrap().as_secs_f64() - number(1, "time")).abs() < 10.0);
    assert_eq!((number(0, "received"), number(1, "received")), (0.0, 1.0));
    assert!(number(1, "resident_bytes") > 500_000.0);
}
