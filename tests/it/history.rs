//! The samples of the last ten minutes that a new dashboard receives.

use tinyjson::JsonValue;

use crate::support::admin::*;
use crate::support::*;

#[test]
fn a_new_dashboard_receives_past_samples_first() {
    let (falconet, admin) = start(NO_BROADCAST);
    let mut watcher = Events::connect(admin, "/events", "");
    assert_eq!(watcher.read().kind, "stats", "no samples of the past");
    let mut client = Client::connect(falconet.address());
    client.echo("one");
    wait_until("the client is counted", || watcher.read().data.contains(r#""websocket":1,"#));
    drop(watcher);
    wait_until("the sample is kept", || websocket_counts(&history(admin)) == [0.0, 1.0]);
    let samples: JsonValue = history(admin).parse().unwrap();
    let number = |index: usize, name: &str| *samples[index][name].get::<f64>().unwrap();
    assert!(number(0, "time") < number(1, "time"));
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    assert!((now.unwrap().as_secs_f64() - number(1, "time")).abs() < 10.0);
    assert_eq!((number(0, "received"), number(1, "received")), (0.0, 1.0));
    assert!(number(1, "resident_bytes") > 500_000.0);
}
