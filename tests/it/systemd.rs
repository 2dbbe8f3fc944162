//! Notifications to systemd, and sockets passed by it.

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

use crate::support::command::{KillOnDrop, assert_refused};
use crate::support::folder::Folder;
use crate::support::systemd::{bind_notify_socket, next_notification};
use crate::support::*;

#[test]
fn systemd_is_notified_of_start_and_stop() {
    let folder = Folder::new("notify");
    let (systemd, name) = bind_notify_socket(&folder);
    assert_start_and_stop_are_notified(&systemd, &name);
}

#[test]
fn the_notification_socket_may_be_abstract() {
    let name = format!("falconet-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let systemd = UnixDatagram::bind_addr(&address).unwrap();
    systemd.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_start_and_stop_are_notified(&systemd, &format!("@{name}"));
}

#[test]
fn a_blocked_event_loop_does_not_notify_the_watchdog() {
    const WATCHDOG_TIMEOUT: Duration = Duration::from_millis(300);
    let folder = Folder::new("blocked");
    let (systemd, name) = bind_notify_socket(&folder);
    let (blocking, blocked) = channel();
    let (resume, resumed) = channel();
    let server = Embedded::start(move |server| {
        let notifier = Notifier::connect(&name, Some(WATCHDOG_TIMEOUT)).unwrap();
        let block = async move |mut session: Session| {
            session.next().await;
            blocking.send(()).unwrap();
            // Blocks the only thread, which no endpoint may do.
            resumed.recv_timeout(TIMEOUT).unwrap();
            session.close(CloseReason::NORMAL).await
        };
        server
            .service(Supervision::new(Rc::new(notifier)))
            .endpoint("/", Echo)
            .endpoint("/block", block)
    });
    assert_eq!(next_notification(&systemd), "WATCHDOG=1\nSTATUS=0 clients");
    let mut other = Client::connect(server.address);
    let mut client = Client::connect_to(server.address, "/block");
    client.send(true, TEXT, "now");
    blocked.recv_timeout(TIMEOUT).unwrap();
    // Discard the notifications sent so far.
    systemd.set_nonblocking(true).unwrap();
    while systemd.recv(&mut [0; 256]).is_ok() {}
    systemd.set_nonblocking(false).unwrap();

    systemd.set_read_timeout(Some(2 * WATCHDOG_TIMEOUT)).unwrap();
    let received = systemd.recv(&mut [0; 256]);
    assert_eq!(received.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    resume.send(()).unwrap();
    systemd.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert!(next_notification(&systemd).starts_with("WATCHDOG=1\n"));
    assert_eq!(client.read_to_close(), Some(1000));
    other.echo("served again");
    server.stop().unwrap().unwrap();
}

#[test]
fn the_watchdog_of_another_process_is_ignored() {
    let folder = Folder::new("watchdog-pid");
    let (systemd, name) = bind_notify_socket(&folder);
    let mut command = plain();
    command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let falconet = start(&mut command);
    assert!(next_notification(&systemd).starts_with("READY=1"));
    let mut client = Client::connect(falconet.address());
    for _ in 0..1000 {
        client.echo("a");
    }
    falconet.signal(Signal::TERM);
    let next = next_notification(&systemd);
    assert!(next.starts_with("STOPPING=1"), "{next}");
}

#[test]
fn a_missing_notification_socket_is_one_warning() {
    let falconet = start(plain().env("NOTIFY_SOCKET", "/nowhere/notify"));
    Client::connect(falconet.address()).echo("a");
    let log = falconet.log_so_far();
    let warnings: Vec<&String> = log.iter().filter(|line| line.contains("systemd")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("/nowhere/notify"), "{log:#?}");
}

#[test]
fn a_full_notification_socket_does_not_block_the_server() {
    let folder = Folder::new("notify-full");
    // No test reads from the socket, and a few datagrams fill it.
    let (_systemd, name) = bind_notify_socket(&folder);
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
fn a_client_that_connects_between_two_servers_is_served_by_the_second() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut first = start_passed(&listener.try_clone().unwrap().into());
    assert_eq!(first.address(), listener.local_addr().unwrap());
    Client::connect(first.address()).echo("to the first");
    first.signal(Signal::TERM);
    assert_eq!(first.wait_for_exit(TIMEOUT).code(), Some(0));
    // No server runs, but the listener accepts the connection.
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
    assert_echo(with_timeout(UnixStream::connect(&path).unwrap()));
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(path.exists(), "only systemd removes this socket");
    let log = falconet.log_so_far().join("\n");
    assert!(log.contains(&format!("listening on unix:{} ", path.display())), "{log}");
}

#[test]
fn the_server_listens_on_every_passed_socket() {
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("falconet-passed-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let other = UnixListener::bind_addr(&address).unwrap();
    let mut command = passing(2);
    let sockets = [one.try_clone().unwrap().into(), other.into()];
    let [one_passed, other_passed]: [OwnedFd; 2] = sockets;
    command.stdin(one_passed).stdout(other_passed).stderr(Stdio::null());
    let _falconet = KillOnDrop(command.spawn().unwrap());
    assert_echo(connect(one.local_addr().unwrap()));
    assert_echo(with_timeout(UnixStream::connect_addr(&address).unwrap()));
}

#[cfg(feature = "full")]
#[test]
fn a_passed_socket_that_other_hosts_can_reach_is_read_only() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let falconet = start_passed(&listener.into());
    falconet.wait_for_line("publishing is forbidden at http://0.0.0.0:");
    let port = falconet.address().port();
    let answer = fetch(([127, 0, 0, 1], port).into(), post("/topics/a", "b"));
    assert_eq!(answer.status(), 403);
}

#[test]
fn a_passed_descriptor_must_be_a_listener_and_at_least_one_must_be_passed() {
    let none = "systemd passed no sockets";
    let wrong = "descriptor 3 is not a listening stream socket";
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap().into();
    let connected = UnixStream::pair().unwrap().0.into();
    for socket in [datagrams, connected] {
        let socket: OwnedFd = socket;
        let mut command = passing(1);
        // The shell passes its standard input as the socket.
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

/// Returns a command that runs the program in a shell, which passes its standard input as a socket, as systemd
/// does, and its standard output as a second one.
fn passing(sockets: u32) -> Command {
    let script = format!(
        "export LISTEN_FDS={sockets} LISTEN_PID=$$; exec 3<&0 4>&1 </dev/null >/dev/null \"$@\""
    );
    let mut command = Command::new("sh");
    command.env_clear().env("FALCONET_ORIGIN", TEST_ORIGIN).args(["-c", &script, "sh"]);
    command.args([env!("CARGO_BIN_EXE_falconet"), "--listen", "systemd"]);
    command
}

/// Starts the program with a passed socket.
fn start_passed(socket: &OwnedFd) -> Falconet {
    Falconet::start_with_stdin(&mut passing(1), socket.try_clone().unwrap())
}

fn assert_refused_reading(command: &mut Command, stdin: OwnedFd, part: &str) {
    let child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = KillOnDrop(child);
    let mut output = String::new();
    // The program logs one line and ends.
    child.0.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(output.starts_with("falconet: ") && output.contains(part), "{output}");
    wait_until("the program has ended", || child.0.try_wait().unwrap().is_some());
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
}

fn with_timeout(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Upgrades to WebSocket and checks an echo.
fn assert_echo(mut stream: impl Read + Write) {
    stream.write_all(handshake("/").as_bytes()).unwrap();
    assert_eq!(status_of(&read_response_head(&mut stream)), 101);
    stream.write_all(&masked(true, TEXT, b"hello")).unwrap();
    let mut echo = [0; 7];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x05hello");
}

fn assert_start_and_stop_are_notified(systemd: &UnixDatagram, name: &str) {
    let mut command = Falconet::command();
    command.env("NOTIFY_SOCKET", name).args(["--listen", "http://127.0.0.1:0"]);
    let mut falconet = start(command.args(["--listen", "http://[::1]:0"]));
    assert_eq!(next_notification(systemd), "READY=1\nSTATUS=listening on 2 URLs");
    let mut client = Client::connect(falconet.address());
    falconet.signal(Signal::TERM);
    assert!(next_notification(systemd).starts_with("STOPPING=1\n"));
    // The client is closed only after the notification.
    assert_eq!(client.read().close_code(), 1001);
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    drop(client);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

/// Returns a command for the program that listens on a free port.
fn plain() -> Command {
    let mut command = Falconet::command();
    command.args(["--listen", "http://127.0.0.1:0"]);
    command
}

fn start(command: &mut Command) -> Falconet {
    Falconet::start_with(command)
}
