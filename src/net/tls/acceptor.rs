//! The server side of TLS: loading the certificate, and reloading it after a renewal.

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

use super::self_signed::SelfSigned;
use super::session::{Session, SharedBuffers, Side};
use super::setup::TlsError;

/// A factory for the server side of TLS connections. A renewed certificate is used for new connections.
pub struct Acceptor {
    config: RefCell<Arc<ServerConfig>>,
    files: Option<WatchedFiles>,
    buffers: Rc<SharedBuffers>,
}

impl Acceptor {
    /// Loads the certificate. A self-signed one is valid for this host and for `hosts`, the hosts of
    /// the listen URLs. The fingerprint of the certificate is logged.
    ///
    /// # Errors
    /// [`TlsError`], if no certificate is configured, or if it can't be loaded, generated or stored.
    pub fn new(tls: &Tls, hosts: &[String]) -> Result<Rc<Self>, TlsError> {
        let certificate = tls.certificate.as_ref().ok_or_else(|| {
            TlsError::new(
                "an https:// listen URL needs a certificate: tls-cert and tls-key, or \
                 tls-self-signed",
            )
        })?;
        let (config, files) = match certificate {
            Certificate::Files { chain, key } => {
                let (config, files) = WatchedFiles::load(chain, key, tls.check_every)?;
                (config, Some(files))
            }
            Certificate::SelfSigned { state_dir: Some(directory) } => {
                let (chain, key) = SelfSigned::find_or_create(directory, hosts)?;
                let (config, files) = WatchedFiles::load(&chain, &key, tls.check_every)?;
                (config, Some(files))
            }
            Certificate::SelfSigned { state_dir: None } => {
                let generated = SelfSigned::generate(hosts)?;
                let chain = vec![CertificateDer::from(generated.certificate)];
                (configure(chain, PrivateKeyDer::Pkcs8(generated.key.into()))?, None)
            }
        };
        Ok(Rc::new(Self { config: RefCell::new(config), files, buffers: Rc::default() }))
    }

    /// Checks that the files of a certificate and its key can be loaded and belong together. Nothing is
    /// checked for [`Certificate::SelfSigned`].
    ///
    /// # Errors
    /// [`TlsError`], if the check fails.
    pub fn check(certificate: &Certificate) -> Result<(), TlsError> {
        match certificate {
            Certificate::Files { chain, key } => load(chain, key).map(drop),
            Certificate::SelfSigned { .. } => Ok(()),
        }
    }

    /// Creates a session with a client that connected at `now`. If the certificate's files are due for a
    /// check and have changed, reloads the certificate first.
    pub(in crate::net) fn session(&self, now: Instant) -> io::Result<Session> {
        if let Some(renewed) = self.files.as_ref().and_then(|files| files.reload(now)) {
            self.config.replace(renewed);
        }
        let server = UnbufferedServerConnection::new(self.config.borrow().clone());
        server
            .and_then(|server| Session::new(Side::Server(server), self.buffers.clone()))
            .map_err(io::Error::other)
    }
}

/// The files of a certificate and its key, which are checked for changes.
struct WatchedFiles {
    chain: PathBuf,
    key: PathBuf,
    check_interval: Duration,
    last_check: Cell<Option<Instant>>,
    /// The versions of both files at the last check, or `None` if a file could not be read.
    versions: Cell<Option<[FileVersion; 2]>>,
}

/// The version of a file: device, inode, size, and modification time in seconds and nanoseconds.
type FileVersion = (u64, u64, u64, i64, i64);

impl WatchedFiles {
    /// Loads the files. Returns the configuration, and the files to be checked from now on.
    fn load(
        chain: &Path,
        key: &Path,
        check_interval: Duration,
    ) -> Result<(Arc<ServerConfig>, Self), TlsError> {
        let files = Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            check_interval,
            last_check: Cell::new(None),
            versions: Cell::new(None),
        };
        // Read before the contents, so that the next check detects a change in between.
        files.versions.set(files.current_versions());
        Ok((load(chain, key)?, files))
    }

    /// Checks the files, if `check_interval` has passed since the last check. Returns the new
    /// configuration if they have changed and can be loaded.
    fn reload(&self, now: Instant) -> Option<Arc<ServerConfig>> {
        if self.last_check.get().is_some_and(|last| now < last + self.check_interval) {
            return None;
        }
        self.last_check.set(Some(now));
        let versions = self.current_versions();
        if self.versions.replace(versions) == versions {
            return None;
        }
        let renewed = load(&self.chain, &self.key);
        renewed.inspect_err(|error| log::warn!("the old certificate stays in use: {error}")).ok()
    }

    fn current_versions(&self) -> Option<[FileVersion; 2]> {
        let version = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        };
        Some([version(&self.chain)?, version(&self.key)?])
    }
}

/// Reads a certificate chain and its key from PEM files.
fn load(chain_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(chain_file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| file_error(chain_file, &error, CHAIN_EXPECTED))?;
    if chain.is_empty() {
        return Err(file_error(chain_file, &"no certificate", CHAIN_EXPECTED));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| {
        file_error(key_file, &error, "a private key in PEM: PKCS#8, PKCS#1 or SEC1")
    })?;
    configure(chain, key).map_err(|error| {
        let expected = format!("the key of the certificate in `{}`", chain_file.display());
        file_error(key_file, &error, &expected)
    })
}

fn file_error(path: &Path, error: &dyn std::fmt::Display, expected: &str) -> TlsError {
    TlsError::new(format!("`{}`: {error}: expected {expected}", path.display()))
}

/// Creates the rustls configuration of a certificate, and logs the certificate's fingerprint.
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
    config.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS);
    config.send_tls13_tickets = 1;
    log::info!("TLS certificate in use, SHA-256 fingerprint {fingerprint}");
    Ok(Arc::new(config))
}

/// Returns the SHA-256 fingerprint in the form that browsers and openssl show.
fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest(&SHA256, certificate);
    let bytes: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

const CHAIN_EXPECTED: &str = "a certificate chain in PEM, the server's certificate first";
/// The maximum number of sessions that clients can resume. A resumed session saves the server a signature.
/// This number is enough for a few users, whose browsers open several connections each.
const RESUMABLE_SESSIONS: usize = 64;
