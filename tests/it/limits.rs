//! The server on small hosts, with few file descriptors and little memory.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use rustix::net::sockopt;

#[cfg(feature = "full")]
use crate::support::admin::{Metrics, admin_address};
use crate::support::folder::Folder;
use crate::support::*;

#[test]
fn with_64_descriptors_the_server_serves_as_many_clients_as_it_logs() {
    let falconet = Falconet::start_with(&mut limited("ulimit -n 64"));
    let line = falconet.wait_for_line("the limit on open files");
    let text = line.split("at most ").nth(1).unwrap();
    let room: usize = text.split(' ').filter_map(|word| word.parse::<usize>().ok()).take(2).sum();
    assert!(room >= 32, "{line}");
    let files = falconet.open_files();
    let connect_some = |count| -> Vec<Client> {
        (0..count).map(|_| Client::connect(falconet.address())).collect()
    };
    let mut clients = connect_some(room);
    for _ in 0..room {
        // Sends nothing, because a reset for unread data could overtake the response.
        assert_eq!(status_of(&exchange(falconet.address(), "")), 503);
    }
    clients.truncate(room / 2);
    wait_until("there is room again", || falconet.open_files() == files + clients.len());
    clients.extend(connect_some(room - clients.len()));
    assert_eq!(status_of(&exchange(falconet.address(), "")), 503);
    for client in &mut clients {
        client.echo("a");
    }
    let log = falconet.log_so_far();
    assert!(!log.iter().any(|line| line.contains("out of file descriptors")), "{log:#?}");
}

#[cfg(feature = "full")]
#[test]
fn slow_downloads_leave_descriptors_for_everybody() {
    let folder = Folder::new("slow-downloads");
    fs::File::create(folder.file("film.webm")).unwrap().set_len(64 << 20).unwrap();
    let path = folder.file("").display().to_string();
    let mut command = limited("ulimit -n 256");
    command.args(["--static", &path, "--admin", "http://127.0.0.1:0", "--write-timeout", "60s"]);
    let falconet = Falconet::start_with(&mut command);
    let admin = admin_address(&falconet);
    let mut readers: Vec<(Http, u16)> = (0..125)
        .map(|_| {
            let mut reader = Http::connect(falconet.address());
            // With a small buffer, the kernel can't take the whole file.
            sockopt::set_socket_recv_buffer_size(reader.stream(), 32 << 10).unwrap();
            reader.send(get("/film.webm"));
            let status = status_of(&read_response_head(&mut reader.stream()));
            (reader, status)
        })
        .collect();
    // A fourth of the descriptors that neither the server, the administrator nor this host has for itself.
    let sent = readers.iter().filter(|(_, status)| *status == 200).count();
    assert_eq!(sent, (256 - 32 - 16 - 16) / 4);
    assert!(readers.iter().all(|(_, status)| matches!(status, 200 | 503)));
    assert_eq!(fetch(falconet.address(), get("/style.css")).status(), 200);
    Client::connect(falconet.address()).echo("still here");

    // Connections may take the others, except those of the administrator.
    let is_full = |http: &mut Http| http.fetch(get("/style.css")).status() == 503;
    let mut idle: Vec<Http> = Vec::new();
    while !idle.last_mut().is_some_and(is_full) {
        assert!(idle.len() < 256, "the server runs out of descriptors");
        idle.push(Http::connect(falconet.address()));
    }
    let sources = [[127, 0, 0, 1], [127, 0, 0, 2]].into_iter().flat_map(|source| [source; 8]);
    let mut administrators: Vec<Http> =
        sources.map(|source| Http::connect_from(source, admin)).collect();
    let pages = administrators.iter_mut().map(|http| Metrics::of(&http.fetch(get("/metrics"))));
    let page = pages.last().unwrap();
    assert_eq!(page.value("falconet_requests_refused_total", "files"), (125 - sent) as f64);
    assert_eq!(page.value("falconet_connections_rejected_total", "files"), 0.0);

    // The end of the downloads makes room for others.
    readers.retain(|(_, status)| *status != 200);
    wait_until("there is room for a download", || {
        let mut reader = Http::connect(falconet.address());
        reader.send(get("/film.webm"));
        status_of(&read_response_head(&mut reader.stream())) == 200
    });
    let log = falconet.log_so_far();
    assert!(!log.iter().any(|line| line.contains("out of file descriptors")), "{log:#?}");
}

#[cfg(feature = "full")]
#[test]
fn the_descriptors_of_many_listeners_are_not_counted_as_free() {
    let mut command = limited("ulimit -n 200");
    (0..20).for_each(|_| _ = command.args(["--listen", "http://127.0.0.1:0"]));
    let falconet = Falconet::start_with(&mut command);
    let is_full = |http: &mut Http| http.fetch(get("/style.css")).status() == 503;
    let mut clients: Vec<Http> = Vec::new();
    while !clients.last_mut().is_some_and(is_full) {
        assert!(clients.len() < 200, "the server runs out of descriptors");
        clients.push(Http::connect(falconet.address()));
    }
    assert!(clients.len() > 64, "only {} clients", clients.len());
    let log = falconet.log_so_far();
    assert!(!log.iter().any(|line| line.contains("out of file descriptors")), "{log:#?}");
}

#[cfg(feature = "full")]
#[test]
fn peers_on_this_host_have_16_places_beside_the_limit() {
    let folder = Folder::new("local-places");
    let url = format!("unix:{}", folder.file("socket").display());
    let falconet = Falconet::start(&["--max-connections", "1", "--listen", &url]);
    let over_tcp: Vec<Client> = (0..9).map(|_| Client::connect(falconet.address())).collect();
    let connect_unix = || UnixStream::connect(folder.file("socket")).unwrap();
    let mut over_unix: Vec<_> = (0..8).map(|_| Client::upgrade(connect_unix(), "/")).collect();
    // Sends nothing, because a reset for unread data could overtake the response.
    assert_eq!(status_of(&exchange(falconet.address(), "")), 503);
    assert_eq!(status_of(&read_response_head(&mut connect_unix())), 503);
    drop(over_tcp);
    over_unix[0].echo("still here");
    wait_until("there is room again", || {
        fetch(falconet.address(), get("/style.css")).status() == 200
    });
}

#[cfg(feature = "full")]
#[test]
fn a_proxy_on_this_host_gives_its_place_up_to_a_client_on_another_host() {
    let limits = ["--max-connections", "1", "--max-per-address", "9"];
    for trust in [&["--trust-proxy", "127.0.0.1"][..], &[]] {
        let falconet = Falconet::start(&[&limits, trust].concat());
        let for_client = || request("GET", "/", "X-Forwarded-For: 192.0.2.1\r\n", "");
        let mut first = Http::connect(falconet.address());
        for _ in 0..2 {
            assert_eq!(first.fetch(for_client()).status(), 200);
            for _ in 0..2 * LOCAL_PLACES {
                let refused = fetch(falconet.address(), for_client());
                assert!(refused.status() == 503 && refused.closes(), "{}", refused.head);
            }
            assert_eq!(fetch(falconet.address(), get("/")).status(), 200, "a script on this host");
            // The proxy keeps its place between two requests, even for a request of its own.
            assert_eq!(first.fetch(get("/")).status(), 200);
        }
        drop(first);
        wait_until("there is room again", || {
            fetch(falconet.address(), for_client()).status() == 200
        });
    }
}

#[test]
fn five_hundred_clients_fit_into_8_mib_of_data() {
    let falconet = Falconet::start_with(&mut limited("ulimit -d 8192"));
    assert_500_fit_into(&falconet);
}

#[test]
fn five_hundred_clients_fit_into_a_memory_cgroup_of_8_mib() {
    let Some(group) = Group::of_mib("clients", 8) else { return };
    let falconet = Falconet::start_with(&mut limited(&group.join()));
    assert_500_fit_into(&falconet);
    println!("{} bytes at most, the kernel's included", group.peak());
}

/// One address may hold 1,250 of 10,000 connections. Without a limit, their messages take 90 MB.
#[cfg(feature = "full")]
#[test]
fn unfinished_messages_of_1250_clients_fit_into_a_memory_cgroup_of_48_mib() {
    let Some(group) = Group::of_mib("attack", 48) else { return };
    let falconet = Falconet::start_with(&mut limited(&group.join()));
    let mut other = Client::connect(falconet.address());
    let count = connection_budget(1250);
    let attackers: Vec<Client> = (0..count).map(|_| Client::connect(falconet.address())).collect();
    let message = masked(true, BINARY, &[b'x'; 65_536]);
    for attacker in &attackers {
        attacker.stream.set_nonblocking(true).unwrap();
        // Writing fails if the server does not read.
        let _ = (&attacker.stream).write(&message[..message.len() - 1]);
    }
    other.echo("meanwhile");
    falconet.wait_for_line("closed by us with 1013");
    other.echo("after");
    println!("{} bytes at most, the kernel's included", group.peak());
}

/// Connects 500 clients that echo once and stay, and then one more.
fn assert_500_fit_into(falconet: &Falconet) {
    let count = connection_budget(500);
    let clients: Vec<Client> = (0..count)
        .map(|index| {
            let mut client = Client::connect(falconet.address());
            client.echo(&format!("client {index}"));
            client
        })
        .collect();
    Client::connect(falconet.address()).echo("one more");
    assert!(falconet.open_files() > clients.len(), "all clients are connected");
}

/// Returns a command that runs the program in a shell after `limit`.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", &format!("{limit}; exec \"$@\""), "sh"]);
    command.args([env!("CARGO_BIN_EXE_falconet"), "--listen", "http://127.0.0.1:0"]);
    command
}

/// A control group with a memory limit and without swap, removed on drop. Its processes must have ended by then.
struct Group {
    path: PathBuf,
}

impl Group {
    /// Creates a control group of version 1 or 2 with this memory. No two tests may use the same `name`. Returns
    /// `None`, and says so, if that is not possible, as without root.
    fn of_mib(name: &str, mib: usize) -> Option<Self> {
        let bytes = (mib << 20).to_string();
        let versions = [
            ("memory/", ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"], &*bytes),
            ("", ["memory.max", "memory.swap.max"], "0"),
        ];
        let group =
            versions.into_iter().find_map(|(parent, [limit, swap_limit], most_with_swap)| {
                let name = format!("/sys/fs/cgroup/{parent}falconet-{name}-{}", std::process::id());
                fs::create_dir(&name).ok()?;
                let group = Self { path: name.into() };
                // Writing would create the file in a folder that is no control group.
                let is_limited = group.path.join(limit).exists()
                    && fs::write(group.path.join(limit), &bytes).is_ok();
                // The file is missing if the kernel does not account for swap.
                let _ = fs::metadata(group.path.join(swap_limit))
                    .and_then(|_| fs::write(group.path.join(swap_limit), most_with_swap));
                is_limited.then_some(group)
            });
        if group.is_none() {
            // Written directly to stderr, because the output of a passing test is captured.
            let _ = writeln!(io::stderr(), "skipped: no memory cgroup can be created");
        }
        group
    }

    /// Returns a shell command that moves the shell into the group.
    fn join(&self) -> String {
        format!("echo $$ >'{}/cgroup.procs' || exit", self.path.display())
    }

    /// Returns the peak memory of the group, in bytes, as the kernel reports it.
    fn peak(&self) -> String {
        let files = ["memory.max_usage_in_bytes", "memory.peak"];
        let read = files.iter().find_map(|file| fs::read_to_string(self.path.join(file)).ok());
        read.map_or("an unknown number of".to_owned(), |bytes| bytes.trim().to_owned())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
