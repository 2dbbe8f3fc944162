//! What systemd is told, and what it passes.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Folder;
use crate::rig::*;

#[test]
fn systemd_hears_of_the_start_and_the_stop() {
    let folder = Folder::new("notify");
    let (systemd, name) = listen_as_systemd(&folder);
    assert_start_and_stop_are_told(&systemd, &name);
}

#[test]
fn systemd_may_have_an_abstract_socket() {
    let name = format!("falconet-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let systemd = UnixDatagram::bind_addr(&address).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_start_and_stop_are_told(&systemd, &format!("@{name}"));
}

#[test]
fn signs_of_life_come_twice_in_the_time_systemd_waits_and_count_the_clients() {
    let folder = Folder::new("watchdog");
    let (systemd, name) = listen_as_systemd(&folder);
    let falconet = start(plain().env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "200000"));
    let ready = told(&systemd);
    assert!(ready.starts_with("READY=1"), "{ready}");
    let begun = std::time::Instant::now();
    assert_eq!(told(&systemd), "WATCHDOG=1\nSTATUS=0 clients");
    let _client = Client::connect(falconet.address());
    assert_eq!(told(&systemd), "WATCHDOG=1\nSTATUS=1 clients");
    let taken = begun.elapsed();
    assert!(taken > Duration::from_millis(150) && taken < Duration::from_secs(2), "{taken:?}");
}

#[test]
fn a_loop_that_does_not_turn_gives_no_sign_of_life() {
    let folder = Folder::new("stuck");
    let (systemd, name) = listen_as_systemd(&folder);
    let falconet = start(plain().env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "20000"));
    while !told(&systemd).starts_with("WATCHDOG=1") {}
    falconet.signal(Signal::STOP);
    // What was under way when it stopped.
    systemd.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 256];
    let late = (0..100).take_while(|_| systemd.recv(&mut buffer).is_ok()).count();
    assert!(late < 20, "{late} signs of life of a stopped process");
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    falconet.signal(Signal::CONT);
    assert!(told(&systemd).starts_with("WATCHDOG=1"));
}

#[test]
fn a_watchdog_of_another_process_is_none_of_ours() {
    let folder = Folder::new("watchdog-pid");
    let (systemd, name) = listen_as_systemd(&folder);
    let mut command = plain();
    command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let falconet = start(&mut command);
    assert!(told(&systemd).starts_with("READY=1"));
    let mut client = Client::connect(falconet.address());
    for _ in 0..1000 {
        client.echo("a");
    }
    falconet.signal(Signal::TERM);
    let next = told(&systemd);
    assert!(next.starts_with("STOPPING=1"), "{next}");
}

#[test]
fn without_systemd_nothing_wakes_up() {
    let falconet = start(plain().env("WATCHDOG_USEC", "1000"));
    let mut client = Client::connect(falconet.address());
    client.echo("a");
    drop(client);
    falconet.wait_for_line("connection ended");
    // Its line is written before it is gone.
    std::thread::sleep(Duration::from_millis(50));
    let before = falconet.context_switches();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(falconet.context_switches(), before);
}

#[test]
fn a_systemd_that_is_not_there_is_one_warning() {
    let falconet = start(plain().env("NOTIFY_SOCKET", "/nowhere/notify"));
    Client::connect(falconet.address()).echo("a");
    let log = falconet.log_so_far();
    let warnings: Vec<&String> = log.iter().filter(|line| line.contains("systemd")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("/nowhere/notify"), "{log:#?}");
}

#[test]
fn a_systemd_that_does_not_listen_stops_nobody() {
    let folder = Folder::new("deaf");
    // Nothing is read here, and a few datagrams fill it.
    let (_systemd, name) = listen_as_systemd(&folder);
    let falconet = start(plain().env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "200"));
    falconet.wait_for_line("can't tell systemd");
    let mut client = Client::connect(falconet.address());
    for _ in 0..1000 {
        client.echo("a");
    }
    let log = falconet.log_so_far();
    let warnings = log.iter().filter(|line| line.contains("systemd")).count();
    assert_eq!(warnings, 1, "{log:#?}");
}

fn assert_start_and_stop_are_told(systemd: &UnixDatagram, name: &str) {
    let mut command = Falconet::command();
    command.env("NOTIFY_SOCKET", name).args(["--listen", "http://127.0.0.1:0"]);
    let mut falconet = start(command.args(["--listen", "http://[::1]:0"]));
    assert_eq!(told(systemd), "READY=1\nSTATUS=listening on 2 URLs");
    let mut client = Client::connect(falconet.address());
    falconet.signal(Signal::TERM);
    assert!(told(systemd).starts_with("STOPPING=1\n"));
    // The client was told only now, or later.
    assert_eq!(client.read().close_code(), 1001);
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    drop(client);
    assert_eq!(falconet.wait_for_exit(PATIENCE).code(), Some(0));
}

/// The socket that systemd has for what its services tell, and its name.
fn listen_as_systemd(folder: &Folder) -> (UnixDatagram, String) {
    let path = folder.path.join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    (systemd, path.into_os_string().into_string().unwrap())
}

/// What systemd is told next.
fn told(systemd: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = systemd.recv(&mut buffer).expect("systemd is told something");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// The program, to listen on a free port.
fn plain() -> Command {
    let mut command = Falconet::command();
    command.args(["--listen", "http://127.0.0.1:0"]);
    command
}

fn start(command: &mut Command) -> Falconet {
    Falconet::start_with(command)
}
