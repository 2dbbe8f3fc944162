//! The server side of TLS: loading or signing the certificate, and replacing it after a renewal.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerSessionMemoryCache, UnbufferedServerConnection};

use crate::config::{Certificate, Tls};
use crate::reload::{FileContent, Reload};

use super::pem::{file_error, fingerprint};
use super::self_signed::{SelfSigned, Time};
use super::session::{Session, SharedBuffers, Side};
use super::setup::TlsError;

/// A factory for the server side of TLS connections. A renewed certificate is used for new connections.
pub struct Acceptor {
    config: RefCell<Arc<ServerConfig>>,
    source: Source,
    reload: Reload,
    buffers: Rc<SharedBuffers>,
}

enum Source {
    Files { chain: PathBuf, key: PathBuf },
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
        let every = tls.check_every;
        let (config, source, reload) = match certificate {
            Certificate::Files { chain, key } => {
                let files = read_files(chain, key)?;
                let reload = Reload::new("the TLS certificate and key", every, &files);
                let source = Source::Files { chain: chain.clone(), key: key.clone() };
                (load(chain, key, files)?, source, reload)
            }
            Certificate::SelfSigned { state_dir } => {
                let own = SelfSigned::new(state_dir.as_deref(), hosts)?;
                let now = Time::now(Instant::now());
                let names = own.names(now)?;
                let reload = Reload::new("the names in the TLS certificate", every, &names);
                let config = configure_signed(own.sign(names, now)?)?;
                (config, Source::SelfSigned(Box::new(own)), reload)
            }
        };
        Ok(Rc::new(Self { config: RefCell::new(config), source, reload, buffers: Rc::default() }))
    }

    /// Checks that the files of a certificate and its key can be loaded and belong together. Nothing is
    /// checked for [`Certificate::SelfSigned`].
    ///
    /// # Errors
    /// [`TlsError`], if the check fails.
    pub fn check(certificate: &Certificate) -> Result<(), TlsError> {
        match certificate {
            Certificate::Files { chain, key } => {
                load(chain, key, read_files(chain, key)?).map(drop)
            }
            Certificate::SelfSigned { .. } => Ok(()),
        }
    }

    /// Creates a session with a client that connected at `now`. Replaces the certificate first, if it is due:
    /// the clock is checked each time, and files, among them those with the host's addresses, only if they
    /// were not read lately.
    pub(in crate::net) fn session(&self, now: Instant) -> io::Result<Session> {
        if let Some(renewed) = self.renew(now) {
            self.config.replace(renewed);
        }
        let server = UnbufferedServerConnection::new(self.config.borrow().clone());
        server
            .and_then(|server| Session::new(Side::Server(server), self.buffers.clone()))
            .map_err(io::Error::other)
    }

    fn renew(&self, now: Instant) -> Option<Arc<ServerConfig>> {
        match &self.source {
            Source::Files { chain, key } => {
                let load = |files| load(chain, key, files);
                self.reload.renew(now, false, || read_files(chain, key), load)
            }
            Source::SelfSigned(own) => {
                let time = Time::now(now);
                let sign = |names| own.sign(names, time).and_then(configure_signed);
                self.reload.renew(now, own.is_due(time), || own.names(time), sign)
            }
        }
    }
}

/// Reads the PEM files of a certificate chain and its key.
fn read_files(chain: &Path, key: &Path) -> Result<[FileContent; 2], TlsError> {
    let read = |file, expected| {
        FileContent::read(file).map_err(|error| file_error(file, &error, expected))
    };
    Ok([read(chain, CHAIN_EXPECTED)?, read(key, KEY_EXPECTED)?])
}

/// Parses the content of the PEM files of a certificate chain and its key.
fn load(
    chain_file: &Path,
    key_file: &Path,
    [chain, key]: [FileContent; 2],
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&chain.bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file_error(chain_file, &error, CHAIN_EXPECTED))?;
    if chain.is_empty() {
        return Err(file_error(chain_file, &"no certificate", CHAIN_EXPECTED));
    }
    let private_key = PrivateKeyDer::from_pem_slice(&key.bytes)
        .map_err(|error| file_error(key_file, &error, KEY_EXPECTED))?;
    let config = configure(chain, private_key).map_err(|error| {
        let expected = format!("the key of the certificate in `{}`", chain_file.display());
        file_error(key_file, &error, &expected)
    })?;
    key.warn_if_public(key_file);
    Ok(config)
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
const KEY_EXPECTED: &str = "a private key in PEM: PKCS#8, PKCS#1 or SEC1";
/// The maximum number of sessions that clients can resume. A resumed session saves the server a signature.
/// This number is enough for a few users, whose browsers open several connections each.
const RESUMABLE_SESSIONS: usize = 64;
