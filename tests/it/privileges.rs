//! The privileges that the server drops once it listens: root, and access that it does not need.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use falconet::privileges::{Sandbox, SandboxStatus};
use rustix::process::{Signal, geteuid};

use crate::support::command::{assert_refused, stdout_of};
use crate::support::folder::Folder;
use crate::support::*;

#[test]
fn every_thread_becomes_the_user_once_a_privileged_port_is_bound() {
    if !geteuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    let free = (600..1000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let url = format!("http://127.0.0.1:{free}");
    let mut falconet =
        Falconet::start_with(Falconet::command().args(["--listen", &url, "--user", "nobody"]));
    Client::connect(falconet.address()).echo("a");
    let id = |what: &str| stdout_of(Command::new("id").args([what, "nobody"])).trim().to_owned();
    for status in statuses_of_threads(&falconet) {
        assert_eq!(words_after(&status, "Uid:"), [&*id("-u"); 4]);
        assert_eq!(words_after(&status, "Gid:"), [&*id("-g"); 4]);
        assert_eq!(words_after(&status, "Groups:"), id("-G").split(' ').collect::<Vec<_>>());
        assert_eq!(words_after(&status, "CapEff:"), ["0000000000000000"]);
        assert_eq!(words_after(&status, "CapPrm:"), ["0000000000000000"]);
    }
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(!falconet.log_so_far().iter().any(|line| line.contains(" warn ")));
}

#[test]
fn an_unknown_user_is_refused() {
    let parts = &["user `no-such-user`", "expected a user"][..];
    for flag in ["--check-config", "--log-level=info"] {
        let mut command = Falconet::command();
        assert_refused(command.args(["--user", "no-such-user", flag]), 78, parts);
    }
}

#[test]
fn only_root_becomes_another_user() {
    let mut command = Falconet::command();
    command.args(["--listen", "http://127.0.0.1:0", "--user", "nobody"]);
    if geteuid().is_root() {
        // Run as another user. That user may have no access to the directory of the program.
        let version = Command::new(env!("CARGO_BIN_EXE_falconet")).arg("-V").uid(NOBODY).output();
        if version.is_err() {
            return println!(
                "skipped: the user nobody can't start {}",
                env!("CARGO_BIN_EXE_falconet")
            );
        }
        command.uid(NOBODY);
    }
    let parts = &["user `nobody`", "expected to be started by root"][..];
    assert_refused(command.args(["--log-level", "off"]), 78, parts);
}

#[cfg(all(feature = "full", feature = "tls"))]
#[test]
fn a_warning_is_logged_for_root_and_for_an_unreadable_file() {
    if !geteuid().is_root() {
        return println!("skipped: the warnings are only for root");
    }
    let warnings = |falconet: &Falconet| {
        let log = falconet.log_so_far();
        log.into_iter().filter(|line| line.contains(" warn ")).collect::<Vec<String>>()
    };
    let falconet = Falconet::start(&[]);
    let warned = warnings(&falconet);
    assert!(warned.len() == 1 && warned[0].contains("--user NAME"), "{warned:?}");
    let folder = Folder::new("unreadable");
    let tokens = folder.write("tokens", "0123456789abcdef\n");
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let falconet = Falconet::start(&["--user", "nobody", "--token-file", &tokens]);
    let warned = warnings(&falconet);
    assert!(warned.len() == 1 && warned[0].contains(&tokens), "{warned:?}");
}

#[test]
fn every_thread_is_in_the_sandbox_unless_it_is_off() {
    if status_of_sandbox(&Sandbox::default()) == SandboxStatus::None {
        return println!("skipped: this kernel has no Landlock");
    }
    for (how, new_privileges) in [("auto", "1"), ("off", "0")] {
        let falconet = Falconet::start(&["--sandbox", how]);
        Client::connect(falconet.address()).echo("a");
        let statuses = statuses_of_threads(&falconet);
        assert_eq!(statuses.len(), 2);
        for status in statuses {
            assert_eq!(words_after(&status, "NoNewPrivs:"), [new_privileges], "{how}");
        }
    }
}

#[cfg(all(feature = "full", feature = "tls"))]
#[test]
fn the_sandbox_allows_what_the_options_need() {
    let folder = Folder::new("sandboxed");
    let socket = folder.path.join("socket");
    fs::create_dir(folder.path.join("public")).unwrap();
    let tokens = folder.write("tokens", "first\n");
    let mut falconet = Falconet::start(&[
        "--static",
        folder.path.join("public").to_str().unwrap(),
        "--token-file",
        &tokens,
        "--listen",
        &format!("unix:{}", socket.display()),
        "--admin",
        "http://127.0.0.1:0",
        "--sandbox",
        "auto",
    ]);
    let line = falconet.wait_for_line("administration on ");
    let admin = line.split("://").nth(1).unwrap().trim().parse().unwrap();
    // Files that are created later, and a file that is replaced.
    folder.write("public/late.txt", "late");
    folder.write("new", "second\n");
    fs::rename(folder.path.join("new"), &tokens).unwrap();
    let authorized = |path| request("GET", path, "Authorization: Bearer second\r\n", "");
    wait_until("the tokens are read again", || {
        fetch(falconet.address(), authorized("/late.txt")).status() == 200
    });
    let metrics = fetch(admin, authorized("/metrics"));
    assert_eq!(metrics.status(), 200);
    for name in ["process_cpu_seconds_total", "process_start_time_seconds", "process_open_fds"] {
        let value = metrics.text().lines().find_map(|line| line.strip_prefix(name));
        assert!(value.is_some_and(|value| value.trim() != "0"), "{name}\n{}", metrics.text());
    }
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn in_the_sandbox_nothing_outside_is_opened_connected_to_or_executed() {
    let folder = Folder::new("sandbox-limits");
    let inside = folder.path.join("inside");
    fs::create_dir(&inside).unwrap();
    let (open, outside) = (folder.write("inside/open", "a"), folder.write("outside", "b"));
    let (again, fleeting) = (folder.write("again", "c"), folder.write("inside/fleeting", "d"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let name =
        SocketAddr::from_abstract_name(format!("sandbox-limits-{}", std::process::id())).unwrap();
    let _abstract = UnixListener::bind_addr(&name).unwrap();
    let true_program = Command::new("true");
    let mut sandbox = Sandbox::default();
    sandbox.allow_directory(&inside);
    sandbox.remove(fleeting.as_ref());
    // The sandbox applies to the thread that enters it, so other tests run outside.
    let thread = std::thread::spawn(move || {
        let status = sandbox.enter().unwrap();
        if status != SandboxStatus::All {
            return println!(
                "skipped: sandbox status {status:?}, this kernel is older than Linux 6.12"
            );
        }
        assert_eq!(fs::read_to_string(&open).unwrap(), "a");
        fs::remove_file(&fleeting).unwrap();
        let denied = |what: &str, kind: Option<ErrorKind>| {
            assert_eq!(kind, Some(ErrorKind::PermissionDenied), "{what}");
        };
        denied("read", fs::read(&outside).err().map(|error| error.kind()));
        denied("read /etc", fs::read("/etc/passwd").err().map(|error| error.kind()));
        denied("list", fs::read_dir(&inside).err().map(|error| error.kind()));
        denied("write", fs::write(&open, "x").err().map(|error| error.kind()));
        denied("make", fs::write(inside.join("new"), "x").err().map(|error| error.kind()));
        denied("remove", fs::remove_file(&again).err().map(|error| error.kind()));
        denied("connect", TcpStream::connect(address).err().map(|error| error.kind()));
        denied("bind", TcpListener::bind("127.0.0.1:0").err().map(|error| error.kind()));
        denied("abstract", UnixStream::connect_addr(&name).err().map(|error| error.kind()));
        let mut program = true_program;
        denied("execute", program.spawn().err().map(|error| error.kind()));
    });
    thread.join().unwrap();
    assert!(fs::read_to_string(folder.path.join("outside")).is_ok());
}

/// Enters the sandbox in another thread, and returns how much this kernel supports.
fn status_of_sandbox(sandbox: &Sandbox) -> SandboxStatus {
    let sandbox = sandbox.clone();
    std::thread::spawn(move || sandbox.enter().unwrap()).join().unwrap()
}

/// Returns /proc/PID/task/TID/status of each thread.
fn statuses_of_threads(falconet: &Falconet) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", falconet.pid())).unwrap();
    tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect()
}

fn words_after<'s>(status: &'s str, name: &str) -> Vec<&'s str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().collect()
}

const NOBODY: u32 = 65534;
