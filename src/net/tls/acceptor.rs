//! The server side of TLS: loading or signing the certificate, and replacing it after a renewal.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerSessionMemoryCache, UnbufferedServerConnection};

use crate::config::{Certificate, Tls};

use super::pem::{file_error, fingerprint};
use super::self_signed::{SelfSigned, Time};
use super::session::{Session, SharedBuffers, Side};
use super::setup::TlsError;

/// A factory for the server side of TLS connections. A renewed certificate is used for new connections.
pub struct Acceptor {
    config: RefCell<Arc<ServerConfig>>,
    source: Source,
    check_interval: Duration,
    last_check: Cell<Option<Instant>>,
    buffers: Rc<SharedBuffers>,
}

enum Source {
    Files(WatchedFiles),
    SelfSigned(Box<SelfSigned>),
}

impl Acceptor {
    /// Loads the certificate, or signs one for this host and for `hosts`, the hosts of the listen URLs. The
    /// fingerprint of the certificate is logged.
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
        let (config, source) = match certificate {
            Certificate::Files { chain, key } => {
                let (config, files) = WatchedFiles::load(chain, key)?;
                (config, Source::Files(files))
            }
            Certificate::SelfSigned { state_dir } => {
                let own = SelfSigned::new(state_dir.as_deref(), hosts)?;
                let signed = own.renew(Time::now(Instant::now()), true)?;
                let config = configure_signed(signed.expect("the first certificate is due"))?;
                (config, Source::SelfSigned(Box::new(own)))
            }
        };
        Ok(Rc::new(Self {
            config: RefCell::new(config),
            source,
            check_interval: tls.check_every,
            last_check: Cell::new(None),
            buffers: Rc::default(),
        }))
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

    /// Creates a session with a client that connected at `now`. Replaces the certificate first, if it is due:
    /// the clock is checked each time, and files, among them those with the host's addresses, only if they
    /// were not checked lately.
    pub(in crate::net) fn session(&self, now: Instant) -> io::Result<Session> {
        match self.renew(now) {
            Ok(Some(renewed)) => drop(self.config.replace(renewed)),
            Ok(None) => {}
            Err(error) => log::warn!("the old certificate stays in use: {error}"),
        }
        let server = UnbufferedServerConnection::new(self.config.borrow().clone());
        server
            .and_then(|server| Session::new(Side::Server(server), self.buffers.clone()))
            .map_err(io::Error::other)
    }

    fn renew(&self, now: Instant) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        let last = self.last_check.get();
        let reads_files = last.is_none_or(|last| now >= last + self.check_interval);
        if reads_files {
            self.last_check.set(Some(now));
        }
        match &self.source {
            Source::Files(files) if reads_files => files.reload(),
            Source::Files(_) => Ok(None),
            Source::SelfSigned(own) => {
                own.renew(Time::now(now), reads_files)?.map(configure_signed).transpose()
            }
        }
    }
}

/// The files of a certificate and its key, which are checked for changes.
struct WatchedFiles {
    chain: PathBuf,
    key: PathBuf,
    /// The versions of both files at the last check, or `None` if a file could not be read.
    versions: Cell<Option<[FileVersion; 2]>>,
}

/// The version of a file: device, inode, size, and modification time in seconds and nanoseconds.
type FileVersion = (u64, u64, u64, i64, i64);

impl WatchedFiles {
    /// Loads the files. Returns the configuration, and the files to be checked from now on.
    fn load(chain: &Path, key: &Path) -> Result<(Arc<ServerConfig>, Self), TlsError> {
        let files =
            Self { chain: chain.to_owned(), key: key.to_owned(), versions: Cell::new(None) };
        // Read before the contents, so that the next check detects a change in between.
        files.versions.set(files.current_versions());
        Ok((load(chain, key)?, files))
    }

    /// Returns the new configuration if the files have changed.
    fn reload(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        let versions = self.current_versions();
        if self.versions.replace(versions) == versions {
            return Ok(None);
        }
        load(&self.chain, &self.key).map(Some)
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

/// Creates the rustls configuration of a certificate that this program has signed.
fn configure_signed(
    (certificate, key): (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>),
) -> Result<Arc<ServerConfig>, TlsError> {
    configure(vec![certificate], key.into())
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

const CHAIN_EXPECTED: &str = "a certificate chain in PEM, the server's certificate first";
/// The maximum number of sessions that clients can resume. A resumed session saves the server a signature.
/// This number is enough for a few users, whose browsers open several connections each.
const RESUMABLE_SESSIONS: usize = 64;
