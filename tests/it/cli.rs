//! Options, their sources, exit codes, listen URLs, signals and log formats.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use rustix::process::Signal;

use crate::support::command::*;
use crate::support::folder::Folder;
use crate::support::installed::skip;
use crate::support::*;

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let folder = Folder::new("sources");
    let file =
        folder.write("falconet.conf", "ping-every = 11s\nidle-timeout = 11m\nmax-head = 11k\n");
    let config = stdout_of(
        Falconet::command()
            .env("FALCONET_IDLE_TIMEOUT", "22m")
            .env("FALCONET_MAX_HEAD", "22k")
            .args(["--print-config", "--config", &file, "--max-head", "33k"]),
    );
    for line in ["ping-every = 11s", "idle-timeout = 22m", "max-head = 33k", "write-timeout = 10s"]
    {
        assert!(config.lines().any(|there| there == line), "{line} is not in\n{config}");
    }
}

#[test]
fn listen_urls_of_one_source_replace_those_of_the_sources_it_overrides() {
    let folder = Folder::new("listen");
    let file = folder.write("falconet.conf", "listen = http://a:1\nlisten = http://b:2\n");
    for (environment, flags, urls) in [
        (None, &[][..], &["http://a:1", "http://b:2"][..]),
        (Some("http://c:3 unix:/d"), &[], &["http://c:3", "unix:/d"]),
        (
            Some("http://c:3"),
            &["--listen=http://e:5", "--listen=http://f:6"],
            &["http://e:5", "http://f:6"],
        ),
    ] {
        let mut command = Falconet::command();
        command
            .env("FALCONET_CONFIG", &file)
            .envs(environment.map(|urls| ("FALCONET_LISTEN", urls)));
        let config = stdout_of(command.arg("--print-config").args(flags));
        let listen = config.lines().filter_map(|line| line.strip_prefix("listen = "));
        assert_eq!(listen.collect::<Vec<_>>(), urls);
    }
}

#[cfg(all(feature = "full", feature = "tls"))]
#[test]
fn the_output_of_print_config_is_read_back_unchanged() {
    let folder = Folder::new("round-trip");
    let files = format!("--static={}", folder.path.display());
    let tokens = format!("--token-file={}", folder.write("tokens", "secret\n"));
    let admin_tokens = format!("--admin-token-file={}", folder.write("admin-tokens", "secret\n"));
    let flags = [
        "--listen=http://[::1]:81",
        "--listen=https://[::1]:444",
        "--listen=unix:/tmp/x y",
        "--tls-self-signed",
        "--state-dir=/var/lib/x y",
        "--user=nobody",
        "--sandbox=off",
        "--tls-timeout=3s",
        "--admin=http://192.0.2.1:9090",
        "--stdin=garden/Küche, \"50 %\"",
        "--stdin-separator=nul",
        "--exit-on-eof",
        &files,
        "--broadcast-every=0",
        "--ping-every=1500ms",
        "--idle-timeout=2h",
        "--head-timeout=90s",
        "--keep-alive=20s",
        "--write-timeout=0",
        "--min-rate=3k",
        "--close-timeout=1ms",
        "--max-message=70000",
        "--max-head=256",
        "--max-pending=100k",
        "--max-connections=1",
        "--max-per-address=9",
        "--max-handshake-rate=6",
        "--max-publish-rate=5",
        "--publish-keys=8",
        "--max-message-rate=7",
        "--max-topics=7",
        "--max-filters=8",
        "--retain=0",
        "--retain-bytes=1000",
        "--log-messages=5",
        "--log-bytes=1m",
        "--log-total=3k",
        "--slow-consumer=close",
        &tokens,
        &admin_tokens,
        "--allow-query-token",
        "--origin=https://example.org",
        "--origin=any",
        "--origin=null",
        "--origin=file://",
        "--trust-proxy=10.0.0.0/8",
        "--trust-proxy=unix",
        "--proxy-protocol",
        "--reject=drop",
        "--log-level=off",
        "--log-format=json",
    ];
    let config = stdout_of(Falconet::command().arg("--print-config").args(flags));
    for flag in flags {
        let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
        let line = format!("{} = {value}", name.trim_start_matches("--"));
        assert!(config.lines().any(|there| there == line), "{line} is not in\n{config}");
    }
    let file = folder.write("printed.conf", &config);
    assert_eq!(stdout_of(Falconet::command().args(["--print-config", "--config", &file])), config);
    assert_eq!(config.lines().count(), flags.len(), "every option is printed");
}

#[cfg(feature = "full")]
#[test]
fn a_bad_option_is_named_with_its_value_and_the_expected_form() {
    let rows: [(&[&str], &[&str]); 18] = [
        (&["--origin", "pi"], &["--origin", "`pi`", "SCHEME://HOST"]),
        (&["--trust-proxy", "proxy"], &["--trust-proxy", "`proxy`", "10.0.0.0/8"]),
        (&["--trust-proxy", "10.0.0.0/40"], &["--trust-proxy", "`10.0.0.0/40`", "unix"]),
        (&["--max-per-address", "-1"], &["--max-per-address", "`-1`", "0 to 4294967295"]),
        (&["--max-publish-rate", "5k"], &["--max-publish-rate", "`5k`", "0 to 4294967295"]),
        (&["--publish-keys", "8193"], &["--publish-keys", "`8193`", "0 to 8192"]),
        (&["--ping-every", "5"], &["--ping-every", "`5`", "250ms"]),
        (&["--idle-timeout", "soon"], &["--idle-timeout", "`soon`", "25s"]),
        (&["--broadcast-every", "-1s"], &["--broadcast-every", "`-1s`", "25s"]),
        (&["--max-message", "1t"], &["--max-message", "`1t`", "64k"]),
        (&["--max-message", "2g"], &["--max-message", "`2g`", "64k"]),
        (&["--max-connections", "many"], &["--max-connections", "`many`", "1 to 1000000"]),
        (&["--reject", "maybe"], &["--reject", "`maybe`", "respond, drop"]),
        (&["--log-level", "loud"], &["--log-level", "`loud`", "info, debug"]),
        (&["--log-format", "xml"], &["--log-format", "`xml`", "text, logfmt, json"]),
        (&["--listen", "ftp://a"], &["--listen", "`ftp://a`", "unix:PATH or systemd"]),
        (&["--listen", "http://a:99999"], &["--listen", "`http://a:99999`", "0 to 65535"]),
        (&["--listen", ""], &["--listen", "``", "unix:PATH or systemd"]),
    ];
    for (flags, parts) in rows {
        assert_refused(Falconet::command().args(flags), 2, parts);
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let rows: [(&[&str], &str); 6] = [
        (&["--ping-evry", "5s"], "--ping-evry"),
        (&["-x"], "-x"),
        (&["serve"], "serve"),
        (&["--ping-every"], "--ping-every"),
        (&["--config"], "--config"),
        (&["--check-config=yes"], "--check-config"),
    ];
    for (flags, part) in rows {
        assert_refused(Falconet::command().args(flags), 2, &[part]);
    }
}

#[test]
fn a_bad_environment_is_exit_code_78() {
    for (name, value, right) in [
        ("FALCONET_PING_EVERY", "5", "25s"),
        ("FALCONET_LISTEN", "http://a:1 ftp://b", "http://HOST:PORT"),
        ("FALCONET_LOG_LEVEL", "", "warn"),
        ("FALCONET_CONFIG", "/nowhere/falconet.conf", "/nowhere/falconet.conf"),
    ] {
        let part = if name == "FALCONET_CONFIG" { "can't read" } else { name };
        assert_refused(Falconet::command().env(name, value), 78, &[part, right]);
    }
}

#[test]
fn a_bad_file_is_exit_code_78_and_its_line_is_named() {
    let folder = Folder::new("bad-file");
    for (text, parts) in [
        ("# fine\n\nping-every = 5", &[":3: ", "ping-every", "`5`", "25s"][..]),
        ("max-message = ten # bytes", &[":1: ", "max-message", "`ten # bytes`", "64k"]),
        ("ping-evry = 5s", &[":1: ", "`ping-evry`"]),
        ("ping-every: 5s", &[":1: ping-every: ", "`name = value`"]),
        ("config = other", &[":1: ", "`config`"]),
    ] {
        let file = folder.write("bad.conf", text);
        let parts = [&[&*file], parts].concat();
        assert_refused(Falconet::command().args(["--config", &file]), 78, &parts);
        assert_refused(Falconet::command().args(["--check-config", "--config", &file]), 78, &parts);
    }
}

#[test]
fn contradictory_values_are_exit_code_78() {
    let flags = ["--ping-every", "30s", "--idle-timeout", "30s"];
    assert_refused(
        Falconet::command().args(flags),
        78,
        &["idle-timeout `30s`", "ping-every `30s`"],
    );
}

#[test]
fn check_config_confirms_a_good_configuration() {
    let folder = Folder::new("check");
    let file = folder.write("good.conf", "# all good\r\n  broadcast-every=5s\n\nreject = drop \n");
    let output = stdout_of(Falconet::command().args(["--check-config", "--config", &file]));
    assert_eq!(output, "the configuration is valid\n");
}

#[test]
fn help_and_version_take_precedence() {
    for flags in [&["-V"][..], &["--version"], &["--print-config", "-V"]] {
        let version = stdout_of(Falconet::command().env("FALCONET_LISTEN", "bad").args(flags));
        assert_eq!(version, concat!("falconet ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let help = stdout_of(Falconet::command().arg("-h"));
    assert_eq!(help, stdout_of(Falconet::command().arg("--help")));
    for option in stdout_of(Falconet::command().arg("--print-config")).lines() {
        let (name, value) = option.split_once(" = ").unwrap();
        assert!(help.contains(&format!("--{name} ")), "{name}");
        assert!(help.contains(&format!("[default: {value}]")), "{option}");
    }
}

#[test]
fn an_address_in_use_is_one_line_and_exit_code_1() {
    let falconet = Falconet::start(&[]);
    let url = format!("http://{}", falconet.address());
    let parts = &["falconet: ", &url, "in use"][..];
    assert_refused(Falconet::command().args(["--listen", &url]), 1, parts);
}

#[test]
fn a_unix_socket_speaks_http_and_websocket() {
    let folder = Folder::new("unix");
    let (_falconet, path) = start_on_unix(&folder);
    let mut stream = connect_unix(&path);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status_of(&answer), 200);
    assert_unix_echo(&path);
}

#[test]
fn a_unix_socket_file_is_removed_when_the_server_stops() {
    let folder = Folder::new("unix-stop");
    let (mut falconet, path) = start_on_unix(&folder);
    falconet.signal(Signal::TERM);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_stale_unix_socket_file_is_replaced() {
    let folder = Folder::new("unix-stale");
    // The standard library does not remove the file.
    drop(UnixListener::bind(folder.path.join("socket")).unwrap());
    let (mut falconet, path) = start_on_unix(&folder);
    assert_unix_echo(&path);
    // A killed server does not remove its file, either.
    falconet.signal(Signal::KILL);
    falconet.wait_for_exit(TIMEOUT);
    assert!(path.exists());
    let (_falconet, path) = start_on_unix(&folder);
    assert_unix_echo(&path);
}

#[test]
fn a_live_unix_socket_is_refused() {
    let folder = Folder::new("unix-live");
    let (_falconet, path) = start_on_unix(&folder);
    let url = format!("unix:{}", path.display());
    assert_refused(Falconet::command().args(["--listen", &url]), 1, &[&url, "in use"]);
    assert_unix_echo(&path);
}

#[test]
fn a_live_unix_socket_that_is_too_busy_to_answer_is_refused() {
    let folder = Folder::new("unix-busy");
    let path = folder.path.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // The smallest backlog, which the next connection fills.
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let url = format!("unix:{}", path.display());
    assert_refused(Falconet::command().args(["--listen", &url]), 1, &[&url, "in use"]);
    assert!(path.exists());
}

#[test]
fn a_unix_socket_file_of_a_successor_is_kept() {
    let folder = Folder::new("unix-successor");
    let (mut falconet, path) = start_on_unix(&folder);
    std::fs::remove_file(&path).unwrap();
    let (_successor, _) = start_on_unix(&folder);
    falconet.signal(Signal::TERM);
    assert!(falconet.wait_for_exit(TIMEOUT).success());
    assert_unix_echo(&path);
}

#[test]
fn a_file_that_is_no_socket_is_refused_and_kept() {
    let folder = Folder::new("unix-file");
    let path = folder.write("precious", "data");
    let url = format!("unix:{path}");
    assert_refused(Falconet::command().args(["--listen", &url]), 1, &[&url, "not a socket"]);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "data");
}

#[test]
fn an_unusable_listen_url_is_one_line_and_exit_code_1() {
    let long = format!("unix:/tmp/{}", "x".repeat(200));
    for url in ["unix:/nowhere/socket", &long, "http://256.0.0.1:80"] {
        assert_refused(Falconet::command().args(["--listen", url]), 1, &["falconet: ", url]);
    }
}

#[test]
fn an_address_that_this_host_does_not_have_yet_is_bound_with_a_warning() {
    let mut command = Falconet::command();
    let falconet = Falconet::start_with(command.args(["--listen", "http://192.0.2.1:0"]));
    let log = falconet.log_so_far();
    let warnings = log.iter().filter(|line| line.contains("the address 192.0.2.1 yet")).count();
    assert_eq!(warnings, 1, "{log:#?}");
}

#[test]
fn both_wildcards_can_be_bound_to_the_same_port() {
    // The port is free for both families.
    let port = match TcpListener::bind("[::]:0") {
        Ok(listener) => listener.local_addr().unwrap().port(),
        Err(_) => return println!("skipped: no IPv6"),
    };
    let [v4, v6] = ["0.0.0.0", "[::]"].map(|host| format!("http://{host}:{port}"));
    for urls in [[&v4, &v6], [&v6, &v4]] {
        let mut command = Falconet::command();
        for url in urls {
            command.args(["--listen", url]);
        }
        let _falconet = Falconet::start_with(&mut command);
        for loopback in ["127.0.0.1", "[::1]"] {
            let address = format!("{loopback}:{port}").parse().unwrap();
            Client::connect(address).echo(loopback);
        }
    }
}

#[test]
fn a_hangup_drains_the_server() {
    let mut falconet = Falconet::start(&[]);
    let mut client = Client::connect(falconet.address());
    falconet.signal(Signal::HUP);
    assert_eq!(client.read().close_code(), 1001);
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    drop(client);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

#[test]
fn the_thread_that_waits_for_signals_shares_no_descriptors_with_the_server() {
    let may_unshare = std::thread::spawn(|| nix::sched::unshare(CloneFlags::CLONE_FILES).is_ok());
    if !may_unshare.join().unwrap() {
        return println!("skipped: unshare(2) is forbidden here");
    }
    let falconet = Falconet::start(&[]);
    let tasks = PathBuf::from(format!("/proc/{}/task", falconet.pid()));
    let main = tasks.join(falconet.pid().to_string());
    let mut threads = std::fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path());
    let other = threads.find(|thread| *thread != main).unwrap();
    let open_files = || [&main, &other].map(|thread| thread.join("fd").read_dir().unwrap().count());
    let before = open_files();
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(falconet.address())).collect();
    clients[4].echo("served");
    assert_eq!(open_files(), [before[0] + 5, before[1]]);
}

#[test]
fn a_unix_socket_is_closed_at_once_when_the_server_drains() {
    let folder = Folder::new("unix-drain");
    let path = folder.path.join("socket");
    let url = format!("unix:{}", path.display());
    let falconet = Falconet::start(&["--listen", &url, "--close-timeout", "1h"]);
    let beside = folder.path.join("beside");
    std::fs::hard_link(&path, &beside).unwrap();
    let mut client = Client::connect(falconet.address());
    client.echo("keeps the drain waiting");
    assert_unix_echo(&beside);
    falconet.signal(Signal::TERM);
    assert_eq!(client.read().close_code(), 1001);
    wait_until("connections are refused", || {
        let refused = UnixStream::connect(&beside);
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(!path.exists());
    // The server has not ended: it still waits for this client.
    client.stream.set_nonblocking(true).unwrap();
    let more = client.stream.peek(&mut [0]);
    assert!(more.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{more:?}");
}

#[cfg(feature = "full")]
#[test]
fn a_server_needs_no_dev_null() {
    let hides_devices = |script: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            &format!("mount -t tmpfs none /dev && {script}"),
            "sh",
        ]);
        command
    };
    if !hides_devices("! test -e /dev/null").output().is_ok_and(|output| output.status.success()) {
        return println!("skipped: mounts are forbidden here");
    }
    for sandbox in ["auto", "off"] {
        let falconet = Falconet::start_with(hides_devices("exec \"$@\"").args([
            env!("CARGO_BIN_EXE_falconet"),
            "--listen",
            "http://127.0.0.1:0",
            "--sandbox",
            sandbox,
        ]));
        Client::connect(falconet.address()).echo("served");
    }
}

#[test]
fn a_system_call_that_fails_at_the_start_is_named() {
    let folder = Folder::new("strace");
    let strace = |inject: &str| {
        let mut command = Command::new("strace");
        command.args(["--quiet=all", "-f", "-o", &folder.write("trace", ""), "-e", inject]);
        command
    };
    if !strace("trace=none").arg("true").output().is_ok_and(|output| output.status.success()) {
        return skip("strace");
    }
    for (name, calls) in [
        ("epoll_create", "epoll_create1"),
        ("eventfd", "eventfd2"),
        ("epoll_ctl", "epoll_ctl"),
        ("epoll_wait", "?epoll_wait,?epoll_pwait,?epoll_pwait2"),
        ("socket", "socket"),
        ("setsockopt", "setsockopt"),
        ("bind", "bind"),
        ("listen", "listen"),
        ("getsockname", "getsockname"),
    ] {
        let mut command = strace(&format!("inject={calls}:error=EIO"));
        command.args([env!("CARGO_BIN_EXE_falconet"), "--listen", "http://127.0.0.1:0"]);
        command.args(["--log-level", "off"]);
        let expected = format!("{name}: Input/output error");
        assert_refused(&mut command, 1, &[&expected]);
    }
}

#[test]
fn a_hangup_ignored_at_the_start_stays_ignored() {
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    command.args([env!("CARGO_BIN_EXE_falconet"), "--listen", "http://127.0.0.1:0"]);
    let mut falconet = Falconet::start_with(&mut command);
    let mut client = Client::connect(falconet.address());
    falconet.signal(Signal::HUP);
    client.echo("still here");
    // If the hangup had counted as the first signal, this would be the second, with exit code 1.
    falconet.signal(Signal::TERM);
    assert_eq!(client.read().close_code(), 1001);
    client.send(true, CLOSE, 1001_u16.to_be_bytes());
    drop(client);
    assert_eq!(falconet.wait_for_exit(TIMEOUT).code(), Some(0));
}

#[test]
fn text_lines_have_time_level_message_and_fields() {
    let line = logged_request("text", &[]);
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == 29 && time.ends_with("+00:00"), "{line}");
    assert!(rest.starts_with("info  answered address=127.0.0.1:"), "{line}");
    assert!(rest.contains(r#" path="/\"\\=\"" "#) && rest.ends_with(" status=404"), "{line}");
}

#[test]
fn logfmt_lines_parse() {
    let line = logged_request("logfmt", &[]);
    let pairs = parse_logfmt(&line);
    assert_fields(|key| pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone()));
}

#[test]
fn json_lines_parse() {
    let line = logged_request("json", &[]);
    let pairs = parse_json(&line);
    assert_fields(|key| pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone()));
}

#[test]
fn in_the_journal_text_has_a_priority_and_no_time() {
    let line = logged_request("text", &[("JOURNAL_STREAM", "8:12345")]);
    assert!(line.starts_with("<6>answered address=127.0.0.1:"), "{line}");
}

#[test]
fn bytes_of_a_peer_are_escaped_in_the_log() {
    for format in ["text", "logfmt", "json"] {
        let falconet = Falconet::start(&["--log-format", format, "--log-level", "debug"]);
        for head in [
            "GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\x1b[31m\r\n\r\n",
            "GET /\u{9b}31m HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \u{9b}31m\r\n\r\n",
            "GET /nothing HTTP/1.1\r\nHost: a\r\nX-Request-Id: \u{9b}31m\r\n\r\n",
            "GET /nothing HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\tb\r\n\r\n",
            "GET /nothing HTTP/1.1\r\nHost: a\r\nX-Client-Id: \u{9b}31m\r\n\r\n",
            "PUT /topics/a\u{9b}?client=\u{9b} HTTP/1.1\r\nHost: a\r\n\r\n",
            "\x1b]0;title\x07 / HTTP/1.1\r\n\r\n",
        ] {
            exchange(falconet.address(), head);
        }
        get_odd_path(&falconet);
        falconet.wait_for_line("request-of-the-last");
        for line in falconet.log_so_far() {
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        }
    }
}

#[test]
fn the_log_level_decides_what_is_logged() {
    // The lines that each level adds.
    for (level, detail, connection) in [
        ("debug", true, true),
        ("info", false, true),
        ("warn", false, false),
        ("off", false, false),
    ] {
        let folder = Folder::new(&format!("level-{level}"));
        let path = folder.path.join("socket");
        let url = format!("unix:{}", path.display());
        let mut command = Falconet::command();
        command.args(["--listen", &url, "--log-level", level]).stderr(Stdio::piped());
        let mut program = KillOnDrop(command.spawn().unwrap());
        // Without a log there is no line to wait for.
        wait_until("the program listens", || UnixStream::connect(&path).is_ok());
        assert_unix_echo(&path);
        let pid = rustix::process::Pid::from_child(&program.0);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(wait_for_exit(&mut program.0), Some(0));
        let mut log = String::new();
        program.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        // As root the server logs a warning.
        let lines = log.lines().filter(|line| !line.contains("running as root"));
        let log = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(log.contains("new connection"), connection, "{level}:\n{log}");
        assert_eq!(log.contains("connection ended"), connection, "{level}:\n{log}");
        assert_eq!(log.contains(" debug "), detail, "{level}:\n{log}");
        assert_eq!(log.is_empty(), !connection, "{level}:\n{log}");
    }
}

fn start_on_unix(folder: &Folder) -> (Falconet, PathBuf) {
    let path = folder.path.join("socket");
    let url = format!("unix:{}", path.display());
    (Falconet::start_with(Falconet::command().args(["--listen", &url])), path)
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

fn assert_unix_echo(path: &Path) {
    let mut stream = connect_unix(path);
    stream.write_all(handshake("/").as_bytes()).unwrap();
    assert_eq!(status_of(&read_response_head(&mut stream)), 101);
    stream.write_all(&masked(true, TEXT, b"hello")).unwrap();
    let mut echo = [0; 7];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x05hello");
}

/// Requests a path of quotes, a backslash and an equals sign.
fn get_odd_path(falconet: &Falconet) {
    let head = "GET /\"\\=\" HTTP/1.1\r\nHost: a\r\nX-Request-Id: request-of-the-last\r\n\
                X-Client-Id: client-of-the-last\r\n\r\n";
    assert_eq!(status_of(&exchange(falconet.address(), head)), 404);
}

/// Returns the log line of [`get_odd_path`] in `format`.
fn logged_request(format: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Falconet::command();
    command.env("TZ", "UTC0").envs(environment.iter().copied());
    let falconet = Falconet::start_with(command.args([
        "--listen",
        "http://127.0.0.1:0",
        "--log-format",
        format,
    ]));
    get_odd_path(&falconet);
    falconet.wait_for_line("request-of-the-last")
}

fn assert_fields(field: impl Fn(&str) -> Option<String>) {
    for (key, value) in [
        ("level", "info"),
        ("message", "answered"),
        ("method", "GET"),
        ("path", r#"/"\=""#),
        ("request", "request-of-the-last"),
        ("correlation", "client-of-the-last"),
        ("status", "404"),
    ] {
        assert_eq!(field(key).as_deref(), Some(value), "{key}");
    }
    assert!(field("time").unwrap().contains('T') && field("address").unwrap().starts_with("127."));
}

/// Parses `key=value key="quoted \" value"`, and fails for anything else.
fn parse_logfmt(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').expect("a key");
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{key}");
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => parse_string(quoted),
            None => {
                let end = after.find(' ').unwrap_or(after.len());
                assert!(!after[..end].contains(['"', '=']), "{after}");
                (after[..end].to_owned(), &after[end..])
            }
        };
        pairs.push((key.to_owned(), value));
        rest = if after.is_empty() { after } else { after.strip_prefix(' ').expect("a space") };
    }
    pairs
}

/// Parses a flat JSON object of strings, and fails for anything else.
fn parse_json(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line.strip_prefix('{').expect("an object");
    loop {
        let (key, after) = parse_string(rest.strip_prefix('"').expect("a key"));
        let (value, after) = parse_string(after.strip_prefix(":\"").expect("a value"));
        pairs.push((key, value));
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                assert_eq!(after, "}");
                return pairs;
            }
        }
    }
}

/// Parses up to the closing quote. Returns the text before the quote, and the rest after it.
fn parse_string(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (text, &quoted[index + 1..]),
            '\\' => text.push(characters.next().expect("an escape").1),
            _ => text.push(character),
        }
    }
    panic!("no closing quote: {quoted}")
}
