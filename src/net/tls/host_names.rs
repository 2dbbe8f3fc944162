//! The names and addresses of this host.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The names and addresses at which clients may reach this host, without duplicates.
pub(super) struct HostNames {
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// The error, if the host's own addresses could not be read.
    pub(super) failure: Option<String>,
}

impl HostNames {
    /// Returns localhost, this host's name and addresses, and `hosts`.
    pub(super) fn of_this_host(hosts: &[String]) -> Self {
        let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let (names, addresses) = (vec!["localhost".to_owned()], loopbacks.into());
        let mut all = Self { names, addresses, failure: None };
        if let Some(name) = host_name() {
            all.add(&name);
            // The name in multicast DNS (RFC 6762).
            let first = name.split('.').next().unwrap_or(&name);
            all.add(&format!("{first}.local"));
        }
        for host in hosts {
            all.add(host);
        }
        let [trie, interfaces] = ["fib_trie", "if_inet6"].map(|file| {
            let file = format!("/proc/self/net/{file}");
            fs::read_to_string(&file).unwrap_or_else(|error| {
                // A kernel without IPv6 has no file for it.
                if error.kind() != ErrorKind::NotFound {
                    all.failure = Some(format!("can't read {file}: {error}"));
                }
                String::new()
            })
        });
        for address in addresses_v4(&trie).chain(addresses_v6(&interfaces)) {
            all.add_address(address);
        }
        // The order of the kernel may change without a change of the addresses.
        all.addresses.sort_unstable();
        all
    }

    /// Adds a name or an address, unless it is invalid or already present.
    fn add(&mut self, host: &str) {
        let host = host.to_ascii_lowercase();
        if let Ok(address) = host.parse() {
            self.add_address(address);
        } else if is_dns_name(&host) && !self.names.contains(&host) {
            self.names.push(host);
        }
    }

    fn add_address(&mut self, address: IpAddr) {
        if !address.is_unspecified() && !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }
}

/// Returns the host's own name in lower case, unless it can't be a name in a certificate.
pub(super) fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    Some(name).filter(|name| is_dns_name(name))
}

/// Returns true for a name that clients accept in a certificate. They refuse the whole certificate for any
/// other name.
fn is_dns_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| {
        (1..64).contains(&label.len())
            && label.bytes().all(is_letter)
            && !(label.starts_with('-') || label.ends_with('-'))
    };
    // A name that ends in a number would be taken for an address.
    let ends_in_number =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() < 254 && name.split('.').all(is_label) && !ends_in_number
}

/// Returns the host's own IPv4 addresses from the text of `fib_trie`: those that are followed
/// by a line with `/32 host LOCAL`.
fn addresses_v4(trie: &str) -> impl Iterator<Item = IpAddr> + '_ {
    trie.lines().zip(trie.lines().skip(1)).filter_map(|(line, next)| {
        let address = line.trim().strip_prefix("|-- ")?;
        next.contains("/32 host LOCAL").then(|| address.parse().ok())?
    })
}

/// Returns the host's own IPv6 addresses from the text of `if_inet6`, except link-local ones,
/// which are valid only together with an interface name.
fn addresses_v6(interfaces: &str) -> impl Iterator<Item = IpAddr> + '_ {
    interfaces.lines().filter_map(|line| {
        let digits = line.split_whitespace().next().filter(|digits| digits.len() == 32)?;
        let address = Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
        (!address.is_unicast_link_local()).then_some(IpAddr::V6(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosts_own_addresses_are_found() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.0\n        /8 host LOCAL\n     \
                    |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        \
                    /32 link BROADCAST\n";
        let found: Vec<IpAddr> = addresses_v4(trie).collect();
        assert_eq!(found, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        let interfaces = "00000000000000000000000000000001 01 80 10 80       lo\n\
                          20010db8000000000000000000000001 02 40 00 80     eth0\n\
                          fe80000000000000021122fffe334455 02 40 20 80     eth0\nodd\n";
        let found: Vec<String> = addresses_v6(interfaces).map(|found| found.to_string()).collect();
        assert_eq!(found, ["::1", "2001:db8::1"]);
    }

    #[test]
    fn duplicate_and_invalid_names_are_not_added() {
        let mut names = HostNames { names: Vec::new(), addresses: Vec::new(), failure: None };
        let long = "x".repeat(64);
        for host in
            ["Pi", "pi", "", "a b", "pi.", ".pi", "a..b", "-a", "a-", "(none)", "7", "a.7", &long]
        {
            names.add(host);
        }
        for host in ["0.0.0.0", "192.0.2.7", "192.0.2.7", "::", "::1", "my_pi.7b"] {
            names.add(host);
        }
        assert_eq!(names.names, ["pi", "my_pi.7b"]);
        assert_eq!(names.addresses.len(), 2);
    }
}
