//! The names of this host.

use rustix::system::uname;

use super::address::{HOSTS, ListenUrl};
use super::tls::CertifiedNames;
use crate::config::{Certificate, Tls};

/// The names of this host, besides the current host name of the kernel, which may change at any time.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnNames {
    names: Vec<String>,
    certified: Option<CertifiedNames>,
}

impl OwnNames {
    /// Finds the hosts of the listen URLs, the names in the certificate file, and the names beside the host
    /// name in /etc/hosts, such as the full name of the host. The files are read only now, because the
    /// sandbox may forbid it later. DNS is not asked, because an attacker may answer.
    pub(crate) fn find<'u>(urls: impl Iterator<Item = &'u ListenUrl>, tls: &Tls) -> Self {
        let mut names: Vec<String> = urls.filter_map(ListenUrl::host).map(str::to_owned).collect();
        let hosts = std::fs::read(HOSTS).unwrap_or_default();
        let host_name = uname().nodename().to_string_lossy().into_owned();
        let beside = String::from_utf8_lossy(&hosts);
        names.extend(names_beside(&beside, &host_name).map(str::to_owned));
        let certified = match &tls.certificate {
            Some(Certificate::Files { chain, .. }) => CertifiedNames::read(chain),
            _ => None,
        };
        Self { names, certified }
    }

    /// Returns true if `name` is a name of this host. Case is ignored. The host name of the kernel is read
    /// with a system call, which the sandbox allows.
    pub(crate) fn contains(&self, name: &str) -> bool {
        let mut names = self.names.iter();
        uname().nodename().to_bytes().eq_ignore_ascii_case(name.as_bytes())
            || names.any(|own| own.eq_ignore_ascii_case(name))
            || self.certified.as_ref().is_some_and(|certified| certified.contains(name))
    }
}

/// Returns the names in all lines of a hosts file (hosts(5)) that contain `name`.
fn names_beside<'h>(hosts: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    let names = |line: &'h str| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_ascii_whitespace().skip(1)
    };
    let lines = hosts.lines().map(names);
    lines.filter(|names| names.clone().any(|one| one.eq_ignore_ascii_case(name))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_beside_the_host_name_are_names_of_the_host() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tpi.example.org Pi # pi2\n\
            # 127.0.1.1 pi old.example\n192.0.2.7 other.example pi2\n\n192.0.2.8 pi b.example";
        let found = |name| names_beside(hosts, name).collect::<Vec<_>>();
        assert_eq!(found("pi"), ["pi.example.org", "Pi", "pi", "b.example"]);
        for name in ["pi2.", "127.0.1.1", "old.example", ""] {
            assert_eq!(found(name), [""; 0], "{name}");
        }
    }

    #[test]
    fn the_host_name_and_the_hosts_of_listen_urls_are_names_of_the_host() {
        let urls = ["http://Pi.example:80", "https://live.example", "unix:/a", "systemd"];
        let urls = urls.map(|url| url.parse().unwrap());
        let names = OwnNames::find(urls.iter(), &Tls::default());
        let host_name = uname().nodename().to_string_lossy().into_owned();
        for name in ["pi.example", "LIVE.example", &host_name, &host_name.to_uppercase()] {
            assert!(names.contains(name), "{name}");
        }
        for name in ["example", "www.live.example", "/a", ""] {
            assert!(!names.contains(name), "{name}");
        }
        assert!(OwnNames::default().contains(&host_name));
    }
}
