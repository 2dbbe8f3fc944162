//! A network that fails between client and server, in network namespaces of the test. Needs root and the
//! program `ip`; without them the test prints a note and is skipped.

use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::measure::*;
use crate::support::*;

/// client ─ router ─ server, each in a network namespace of its own. The namespaces are deleted on drop.
struct Network {
    names: [String; 3],
}

impl Network {
    /// Creates the namespaces and connects them.
    ///
    /// # Errors
    ///
    /// The command that failed, and its message.
    fn build() -> Result<Self, String> {
        let id = std::process::id();
        let names = ["client", "router", "server"].map(|role| format!("falconet-{role}-{id}"));
        let network = Self { names };
        let [client, router, server] = &network.names;
        for name in [client, router, server] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        for (end, device, address) in [(client, "west", "10.99.1"), (server, "east", "10.99.2")] {
            ip(&format!("-n {router} link add {device} type veth peer name plug netns {end}"))?;
            ip(&format!("-n {router} address add {address}.1/24 dev {device}"))?;
            ip(&format!("-n {router} link set {device} up"))?;
            ip(&format!("-n {end} address add {address}.2/24 dev plug"))?;
            ip(&format!("-n {end} link set plug up"))?;
            ip(&format!("-n {end} route add default via {address}.1"))?;
        }
        network.set_forwarding(true)?;
        Ok(network)
    }

    /// Connects or disconnects client and server. Packets that the router does not forward are lost silently.
    fn set_forwarding(&self, on: bool) -> Result<(), String> {
        let value = if on { "1" } else { "0" };
        self.within(1, || std::fs::write("/proc/sys/net/ipv4/ip_forward", value))
            .map_err(|error| format!("ip_forward: {error}"))
    }

    /// Runs `work` on a thread inside a namespace. Sockets that it opens stay in that namespace.
    fn within<T: Send>(&self, namespace: usize, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.names[namespace]);
        let thread = move || {
            let file = std::fs::File::open(path).expect("the namespace exists");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)
                .expect("root may enter a namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            // Building may have failed before this namespace existed.
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {message}")) }
}

#[test]
fn c26_clients_whose_network_fails_are_swept_and_no_others() {
    let _guard = serial();
    let network = match Network::build() {
        Ok(network) => network,
        Err(why) => {
            eprintln!("skipped: no network namespaces: {why}");
            return;
        }
    };
    let program = Falconet::command();
    let falconet = Falconet::start_with(
        Command::new("ip")
            .args(["netns", "exec", &network.names[2]])
            .arg(program.get_program())
            // With broadcasts, unacknowledged data is always in flight.
            .args(["--listen", "http://10.99.2.2:0", "--broadcast-every", "200ms"])
            .args(["--ping-every", "500ms", "--idle-timeout", "1500ms"]),
    );
    let address = falconet.address();
    let canaries = network.within(2, || Canaries::start(address));
    let without_clients = falconet.open_files();
    let connect = || IdleClient::start(Client::connect(address));
    let clients = network.within(0, || [connect(), connect()]);
    wait_until("both clients have answered two pings", || clients.iter().all(|c| c.pongs() >= 2));
    assert_eq!(falconet.open_files(), without_clients + 2);

    network.set_forwarding(false).unwrap();
    let failed = Instant::now();
    wait_until("both clients are swept", || falconet.open_files() == without_clients);
    let swept = failed.elapsed();
    println!("swept {swept:?} after the network failed");
    // The idle timeout, the second between two sweeps, and slack.
    let limit = Duration::from_millis(1500 + 1000 + 500);
    assert!(swept > Duration::from_millis(400) && swept < limit, "{swept:?}");
    canaries.finish();
    for client in clients {
        let _ = client.stream.shutdown(Shutdown::Both);
        let _ = client.thread.join();
    }
}
