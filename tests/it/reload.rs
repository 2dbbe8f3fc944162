//! The files that the server reads again while it runs: tokens, a certificate and its key.

#![cfg(all(feature = "full", feature = "tls"))]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::support::access::bearer;
use crate::support::folder::Folder;
use crate::support::tls::*;
use crate::support::*;

/// A server, the files that it reads, and other files that a test puts in their place.
struct Reloading {
    falconet: Falconet,
    used: Folder,
    new: Folder,
    /// The configuration of a client that trusts both certificates.
    trusting: Arc<ClientConfig>,
    old_certificate: CertificateDer<'static>,
    new_certificate: CertificateDer<'static>,
}

impl Reloading {
    /// Starts a server. With `obeys_permissions`, it is not root, who can read every file.
    fn start(name: &str, obeys_permissions: bool) -> Self {
        let [used, new] = [name.to_owned(), format!("{name}-new")].map(|name| Folder::new(&name));
        let (old_certificate, new_certificate) =
            (copy_pair("old", &used.path), copy_pair("ec", &new.path));
        used.write("tokens", &format!("{OLD_TOKEN}\n"));
        for (_, file) in FILES {
            fs::set_permissions(used.file(file), Permissions::from_mode(0o644)).unwrap();
        }
        new.write("tokens", &format!("{NEW_TOKEN}\n"));
        let mut roots = RootCertStore::empty();
        roots.add(old_certificate.clone()).unwrap();
        roots.add(new_certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let trusting = Arc::new(config.with_root_certificates(roots).with_no_client_auth());

        let mut command = Falconet::command();
        command.args(["--listen", "https://127.0.0.1:0", "--broadcast-every", "0"]);
        for (option, file) in FILES {
            command.arg(option).arg(used.file(file));
        }
        if obeys_permissions && geteuid().is_root() {
            command.args(["--user", "nobody"]);
        }
        let falconet = Falconet::start_with(&mut command);
        Self { falconet, used, new, trusting, old_certificate, new_certificate }
    }

    /// Connects. Returns the connection and the certificate of the server.
    fn connect(&self) -> (TlsStream, CertificateDer<'static>) {
        let stream = connect_tls(self.falconet.address(), &self.trusting).unwrap();
        let certificate = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
        (stream, certificate)
    }

    fn uses_the_new_files(&self) -> bool {
        let (mut stream, certificate) = self.connect();
        certificate == self.new_certificate
            && status(&mut stream, NEW_TOKEN) == 200
            && status(&mut stream, OLD_TOKEN) == 401
    }

    fn each_file(&self) -> [PathBuf; 3] {
        FILES.map(|(_, file)| self.used.file(file))
    }

    /// Writes the new content into the files, whose permissions stay.
    fn write_new_content(&self) {
        for (_, file) in FILES {
            fs::write(self.used.file(file), fs::read(self.new.file(file)).unwrap()).unwrap();
        }
    }

    fn set_permissions(&self, mode: u32) {
        for file in self.each_file() {
            fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
        }
    }

    /// Returns the number of log lines with a text.
    fn count_of(&self, part: &str) -> usize {
        self.falconet.log_so_far().iter().filter(|line| line.contains(part)).count()
    }
}

/// Lets the server open no descriptor but that of one more connection.
fn exhaust_descriptors(falconet: &Falconet) {
    let directory = PathBuf::from(format!("/proc/{}/fd", falconet.pid()));
    let is_free = |fd: &u64| !directory.join(fd.to_string()).is_symlink();
    let free = (0..).find(is_free).unwrap();
    limit_descriptors(falconet, Some(free + 1));
}

/// Lets the server open as many descriptors as this process may open.
fn free_descriptors(falconet: &Falconet) {
    limit_descriptors(falconet, getrlimit(Resource::Nofile).current);
}

fn limit_descriptors(falconet: &Falconet, current: Option<u64>) {
    let pid = Pid::from_raw(falconet.pid() as i32);
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// Returns the status of a request with a token.
fn status(stream: &mut TlsStream, token: &str) -> u16 {
    stream.write_all(&request("HEAD", "/", &bearer(token), "")).unwrap();
    status_of(&read_response_head(stream))
}

#[test]
fn every_kind_of_failure_is_logged_once_and_a_mended_file_is_used_without_a_restart() {
    let failures: [(&str, Step, Step); 4] = [
        (
            "missing",
            |server| server.each_file().iter().for_each(|file| fs::remove_file(file).unwrap()),
            Reloading::write_new_content,
        ),
        (
            "invalid",
            |server| server.each_file().iter().for_each(|file| fs::write(file, "half").unwrap()),
            Reloading::write_new_content,
        ),
        (
            "unreadable",
            |server| {
                server.write_new_content();
                server.set_permissions(0o000);
            },
            // Neither content nor size nor time of modification changes.
            |server| server.set_permissions(0o644),
        ),
        (
            "descriptors",
            |server| {
                server.write_new_content();
                exhaust_descriptors(&server.falconet);
            },
            |server| free_descriptors(&server.falconet),
        ),
    ];
    for (name, fail, mend) in failures {
        // Without CAP_SYS_RESOURCE, root can't limit the processes of other users.
        let server = Reloading::start(&format!("reload-{name}"), name == "unreadable");
        fail(&server);
        let (mut stream, certificate) = server.connect();
        assert_eq!(certificate, server.old_certificate, "{name}");
        // The server reads the files again in this time, and fails again.
        let retried = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < retried {
            assert_eq!(status(&mut stream, OLD_TOKEN), 200, "{name}");
            assert_eq!(status(&mut stream, NEW_TOKEN), 401, "{name}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for failed in ["can't reload the tokens", "can't reload the TLS certificate and key"] {
            assert_eq!(server.count_of(failed), 1, "{name}: {failed}");
        }
        drop(stream);
        mend(&server);
        wait_until("the new files are used", || server.uses_the_new_files());
        for (line, count) in
            [("can't reload", 2), ("tokens read again", 1), ("TLS certificate in use", 2)]
        {
            assert_eq!(server.count_of(line), count, "{name}: {line}");
        }
    }
}

#[test]
fn an_unchanged_file_that_can_be_read_again_is_logged_once() {
    let server = Reloading::start("reload-same", true);
    server.set_permissions(0o000);
    let (mut stream, _) = server.connect();
    assert_eq!(status(&mut stream, OLD_TOKEN), 200);
    server.set_permissions(0o644);
    for part in ["the tokens can be read again", "the TLS certificate and key can be read again"] {
        wait_until(part, || {
            assert_eq!(status(&mut server.connect().0, OLD_TOKEN), 200);
            server.count_of(part) == 1
        });
    }
    assert_eq!(server.count_of("read again"), 2);
    assert_eq!(server.count_of("can't reload"), 2);
}

#[test]
fn names_of_the_host_that_could_not_be_read_are_read_again_after_a_second() {
    let server = TlsServer::start("reload-names", &[]);
    let count_of =
        |part: &str| server.falconet.log_so_far().iter().filter(|line| line.contains(part)).count();
    exhaust_descriptors(&server.falconet);
    drop(server.connect());
    server
        .falconet
        .wait_for_line("can't reload the names in the TLS certificate: can't read /proc");
    free_descriptors(&server.falconet);
    wait_until("the names are read", || {
        drop(server.connect());
        count_of("the names in the TLS certificate can be read again") == 1
    });
    assert_eq!(count_of("TLS certificate in use"), 1, "the names have not changed");
}

/// A step of a test, which changes the files of a server or the server's limits.
type Step = fn(&Reloading);

const OLD_TOKEN: &str = "old-0123456789abcdef";
const NEW_TOKEN: &str = "new-0123456789abcdef";
/// The options that name the files, with the names of the files.
const FILES: [(&str, &str); 3] =
    [("--token-file", "tokens"), ("--tls-cert", "tls-cert.pem"), ("--tls-key", "tls-key.pem")];
