//! The server's side: its certificate, and what a renewed one takes.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, UnbufferedServerConnection};

use crate::config::{Certificate, Tls};

use super::TlsError;
use super::self_signed::SelfSigned;
use super::session::{Scratch, Session, Side};

/// Makes TLS sessions with clients, from a certificate that may be renewed meanwhile.
pub struct Acceptor {
    config: RefCell<Arc<ServerConfig>>,
    watch: Option<Watch>,
    scratch: Rc<Scratch>,
}

impl Acceptor {
    /// Reads the certificate, or makes one for this host and the listen URLs' `hosts`. Its fingerprint
    /// is logged.
    ///
    /// # Errors
    /// [`TlsError`], when there is none or it is no good.
    pub fn new(tls: &Tls, hosts: &[String]) -> Result<Rc<Self>, TlsError> {
        let certificate = tls.certificate.as_ref().ok_or_else(|| {
            TlsError::new(
                "an https:// listen URL needs a certificate: tls-cert and tls-key, or \
                 tls-self-signed",
            )
        })?;
        let (config, watch) = match certificate {
            Certificate::Files { chain, key } => {
                let (config, watch) = Watch::begin(chain, key, tls.look_every)?;
                (config, Some(watch))
            }
            Certificate::SelfSigned { state_dir: Some(directory) } => {
                let (chain, key) = SelfSigned::keep(directory, hosts)?;
                let (config, watch) = Watch::begin(&chain, &key, tls.look_every)?;
                (config, Some(watch))
            }
            Certificate::SelfSigned { state_dir: None } => {
                let made = SelfSigned::make(hosts)?;
                let chain = vec![CertificateDer::from(made.certificate)];
                (configure(chain, PrivateKeyDer::Pkcs8(made.key.into()))?, None)
            }
        };
        Ok(Rc::new(Self { config: RefCell::new(config), watch, scratch: Rc::default() }))
    }

    /// Says whether a certificate is good, before anything is bound.
    ///
    /// # Errors
    /// [`TlsError`], when it is not.
    pub fn check(certificate: &Certificate) -> Result<(), TlsError> {
        match certificate {
            Certificate::Files { chain, key } => load(chain, key).map(drop),
            Certificate::SelfSigned { .. } => Ok(()),
        }
    }

    /// A session with a client that is there at `now`. First the files are looked at, if that is due.
    pub(in crate::net) fn session(&self, now: Instant) -> io::Result<Session> {
        if let Some(renewed) = self.watch.as_ref().and_then(|watch| watch.look(now)) {
            self.config.replace(renewed);
        }
        let server = UnbufferedServerConnection::new(self.config.borrow().clone());
        server
            .and_then(|server| Session::new(Side::Server(server), self.scratch.clone()))
            .map_err(io::Error::other)
    }
}

/// The files of a certificate and its key, which somebody may renew.
struct Watch {
    chain: PathBuf,
    key: PathBuf,
    every: Duration,
    looked: Cell<Option<Instant>>,
    stamp: Cell<Option<[Stamp; 2]>>,
}

/// What tells a file from the one that took its place: device, inode, size, and time of change.
type Stamp = (u64, u64, u64, i64, i64);

impl Watch {
    fn begin(
        chain: &Path,
        key: &Path,
        every: Duration,
    ) -> Result<(Arc<ServerConfig>, Self), TlsError> {
        let watch = Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            every,
            looked: Cell::new(None),
            stamp: Cell::new(None),
        };
        // Before they are read: a change meanwhile is then seen later.
        watch.stamp.set(watch.stamp());
        Ok((watch.load()?, watch))
    }

    /// What to use from now on, if the files have changed to something good.
    fn look(&self, now: Instant) -> Option<Arc<ServerConfig>> {
        if self.looked.get().is_some_and(|looked| now < looked + self.every) {
            return None;
        }
        self.looked.set(Some(now));
        let stamp = self.stamp();
        if self.stamp.replace(stamp) == stamp {
            return None;
        }
        let renewed = self.load();
        renewed.inspect_err(|error| log::warn!("the old certificate stays in use: {error}")).ok()
    }

    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        load(&self.chain, &self.key)
    }

    fn stamp(&self) -> Option<[Stamp; 2]> {
        let stamp = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        };
        Some([stamp(&self.chain)?, stamp(&self.key)?])
    }
}

fn load(chain_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(chain_file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| bad(chain_file, &error, CHAIN_EXPECTED))?;
    if chain.is_empty() {
        return Err(bad(chain_file, &"no certificate", CHAIN_EXPECTED));
    }
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| bad(key_file, &error, "a private key in PEM: PKCS#8, PKCS#1 or SEC1"))?;
    configure(chain, key).map_err(|error| {
        let expected = format!("the key of the certificate in `{}`", chain_file.display());
        bad(key_file, &error, &expected)
    })
}

fn bad(path: &Path, error: &dyn std::fmt::Display, expected: &str) -> TlsError {
    TlsError::new(format!("`{}`: {error}: expected {expected}", path.display()))
}

fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let fingerprint = fingerprint(&chain[0]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| TlsError::new(error.to_string()))?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_REMEMBERED);
    config.send_tls13_tickets = 1;
    log::info!("TLS certificate in use, SHA-256 fingerprint {fingerprint}");
    Ok(Arc::new(config))
}

/// As browsers and openssl show it.
fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest(&SHA256, certificate);
    let bytes: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

const CHAIN_EXPECTED: &str = "a certificate in PEM, and after it those of who signed it";
/// How many clients may come back without a signature of ours: a page's handful of connections, for a
/// few people.
const SESSIONS_REMEMBERED: usize = 64;
