//! What systemd is told, and what it passes.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use falconet::systemd::Notifier;
use falconet::{CloseReason, Echo, Session, Supervision};
use rustix::process::Signal;

use crate::cli::{Folder, Killed, assert_refused};
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
fn while_the_loop_is_stuck_no_sign_of_life_comes() {
    const PATIENCE_OF_SYSTEMD: Duration = Duration::from_millis(300);
    let folder = Folder::new("stuck");
    let (systemd, name) = listen_as_systemd(&folder);
    let (sticking, stuck) = channel();
    let (resume, resumed) = channel();
    let server = Embedded::start(move |server| {
        let notifier = Notifier::connect(&name, Some(PATIENCE_OF_SYSTEMD)).unwrap();
        let stick = async move |mut session: Session| {
            session.next().await;
            sticking.send(()).unwrap();
            // As no endpoint may: nothing else runs meanwhile.
            resumed.recv_timeout(PATIENCE).unwrap();
            session.close(CloseReason::NORMAL).await
        };
        server
            .service(Supervision::new(Rc::new(notifier)))
            .endpoint("/", Echo)
            .endpoint("/stick", stick)
    });
    assert_eq!(told(&systemd), "WATCHDOG=1\nSTATUS=0 clients");
    let mut other = Client::connect(server.address);
    let mut client = Client::connect_to(server.address, "/stick");
    client.send(true, TEXT, "now");
    stuck.recv_timeout(PATIENCE).unwrap();
    // All that was told before is there by now.
    systemd.set_nonblocking(true).unwrap();
    while systemd.recv(&mut [0; 256]).is_ok() {}
    systemd.set_nonblocking(false).unwrap();

    systemd.set_read_timeout(Some(2 * PATIENCE_OF_SYSTEMD)).unwrap();
    let heard = systemd.recv(&mut [0; 256]);
    assert_eq!(heard.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    resume.send(()).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(told(&systemd).starts_with("WATCHDOG=1\n"));
    assert_eq!(client.read_to_close(), Some(1000));
    other.echo("as ever");
    server.stop().unwrap().unwrap();
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
    falconet.wait_for_line("can't notify systemd");
    let mut client = Client::connect(falconet.address());
    for _ in 0..1000 {
        client.echo("a");
    }
    let log = falconet.log_so_far();
    let warnings = log.iter().filter(|line| line.contains("systemd")).count();
    assert_eq!(warnings, 1, "{log:#?}");
}

#[test]
fn a_client_that_connects_while_no_process_is_up_is_answered_by_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = start_passed(&listener.try_clone().unwrap().into());
    assert_eq!(first.address(), listener.local_addr().unwrap());
    Client::connect(first.address()).echo("to the first");
    first.signal(Signal::TERM);
    assert_eq!(first.wait_for_exit(PATIENCE).code(), Some(0));
    // Nobody is there, and the connection is made nevertheless.
    let waiting = connect(listener.local_addr().unwrap());
    let _second = start_passed(&listener.into());
    assert_echo(waiting);
}

#[test]
fn a_unix_socket_that_was_passed_outlasts_the_server() {
    let folder = Folder::new("passed-unix");
    let path = folder.path.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut falconet = start_passed(&listener.into());
    assert_echo(patient(UnixStream::connect(&path).unwrap()));
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(path.exists(), "it is systemd's to remove");
    let log = falconet.log_so_far().join("\n");
    assert!(log.contains(&format!("listening on unix:{} ", path.display())), "{log}");
}

#[test]
fn every_socket_that_was_passed_is_listened_at() {
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("falconet-passed-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let other = UnixListener::bind_addr(&address).unwrap();
    let mut command = passing(2);
    let sockets = [one.try_clone().unwrap().into(), other.into()];
    let [one_passed, other_passed]: [OwnedFd; 2] = sockets;
    command.stdin(one_passed).stdout(other_passed).stderr(Stdio::null());
    let _falconet = Killed(command.spawn().unwrap());
    assert_echo(connect(one.local_addr().unwrap()));
    assert_echo(patient(UnixStream::connect_addr(&address).unwrap()));
}

#[cfg(feature = "full")]
#[test]
fn a_passed_socket_that_others_can_reach_is_read_only() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let falconet = start_passed(&listener.into());
    falconet.wait_for_line("nobody publish at http://0.0.0.0:");
    let port = falconet.address().port();
    let answer = ask(([127, 0, 0, 1], port).into(), post("/topics/a", "b"));
    assert_eq!(answer.status(), 403);
}

#[test]
fn what_is_no_listener_is_refused_and_so_is_nothing() {
    let none = "systemd passed no sockets";
    let wrong = "descriptor 3 is not a listening stream socket";
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap().into();
    let connected = UnixStream::pair().unwrap().0.into();
    for socket in [datagrams, connected] {
        let socket: OwnedFd = socket;
        let mut command = passing(1);
        // What is refused reads nothing, so its input is as good a place as any.
        command.args(["--log-level", "off"]);
        assert_refused_reading(&mut command, socket, wrong);
    }
    assert_refused(Falconet::command().args(["--listen", "systemd"]), 1, &[none]);
    let mut command = Falconet::command();
    command.args(["--listen", "systemd"]).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    assert_refused(&mut command, 1, &[none]);
    let mut command = Falconet::command();
    command.args(["--listen", "systemd"]).env("LISTEN_FDS", "99999999999");
    assert_refused(&mut command, 1, &[none]);
    assert_refused(Falconet::command().args(["--admin", "systemd"]), 2, &["--admin `systemd`"]);
}

/// The command line of the program by way of a shell, which passes its own input, and its output for a
/// second, in the place of systemd.
fn passing(sockets: u32) -> Command {
    let script = format!(
        "export LISTEN_FDS={sockets} LISTEN_PID=$$; exec 3<&0 4>&1 </dev/null >/dev/null \"$@\""
    );
    let mut command = Command::new("sh");
    command.env_clear().env("FALCONET_ORIGIN", HERE).args(["-c", &script, "sh"]);
    command.args([env!("CARGO_BIN_EXE_falconet"), "--listen", "systemd"]);
    command
}

/// Starts the program with a socket that is passed to it.
fn start_passed(socket: &OwnedFd) -> Falconet {
    Falconet::start_reading(&mut passing(1), socket.try_clone().unwrap())
}

fn assert_refused_reading(command: &mut Command, stdin: OwnedFd, part: &str) {
    let child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Killed(child);
    let mut said = String::new();
    // It says one thing, and ends.
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("falconet: ") && said.contains(part), "{said}");
    wait_until("it has ended", || child.0.try_wait().unwrap().is_some());
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
}

fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Upgrades, and checks that what is said comes back.
fn assert_echo(mut stream: impl Read + Write) {
    stream.write_all(handshake("/").as_bytes()).unwrap();
    assert_eq!(status_of(&read_response_head(&mut stream)), 101);
    stream.write_all(&masked(true, TEXT, b"hello")).unwrap();
    let mut echo = [0; 7];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x05hello");
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
