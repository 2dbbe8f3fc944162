//! systemd: the watchdog on time, and no wake-ups without it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::measure::{context_switches, serial};
use crate::support::folder::Folder;
use crate::support::systemd::{bind_notify_socket, next_notification};
use crate::support::*;

#[test]
fn the_watchdog_is_notified_twice_per_timeout_with_the_number_of_clients() {
    let _guard = serial();
    let folder = Folder::new("watchdog");
    let (systemd, name) = bind_notify_socket(&folder);
    let falconet = Falconet::start_with(
        listening().env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "200000"),
    );
    let ready = next_notification(&systemd);
    assert!(ready.starts_with("READY=1"), "{ready}");
    let start = Instant::now();
    assert_eq!(next_notification(&systemd), "WATCHDOG=1\nSTATUS=0 clients");
    let _client = Client::connect(falconet.address());
    assert_eq!(next_notification(&systemd), "WATCHDOG=1\nSTATUS=1 clients");
    let taken = start.elapsed();
    assert!(taken > Duration::from_millis(150) && taken < Duration::from_secs(2), "{taken:?}");
}

#[test]
fn without_systemd_the_server_does_not_wake_up() {
    let _guard = serial();
    let falconet = Falconet::start_with(listening().env("WATCHDOG_USEC", "1000"));
    let mut client = Client::connect(falconet.address());
    client.echo("a");
    drop(client);
    falconet.wait_for_line("connection ended");
    // The server logs the end before it has freed the client.
    std::thread::sleep(Duration::from_millis(50));
    let before = context_switches(&falconet);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(context_switches(&falconet), before);
}

/// Returns a command for the program that listens on a free port.
fn listening() -> Command {
    let mut command = Falconet::command();
    command.args(["--listen", "http://127.0.0.1:0"]);
    command
}
