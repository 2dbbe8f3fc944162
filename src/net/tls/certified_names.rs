//! The names that a certificate is valid for.

use std::path::Path;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

/// The names that a certificate is valid for.
#[derive(Clone, Debug)]
pub(in crate::net) struct CertifiedNames {
    certificate: CertificateDer<'static>,
}

impl CertifiedNames {
    /// Reads the first certificate of a PEM file. Returns `None` if it can't be read.
    pub(in crate::net) fn read(chain: &Path) -> Option<Self> {
        let certificate = CertificateDer::from_pem_file(chain).ok()?;
        Some(Self { certificate })
    }

    /// Returns true if the certificate is valid for `name`. Case is ignored, and `*.example.org` is valid for
    /// `a.example.org` (RFC 6125 §6.4).
    pub(in crate::net) fn contains(&self, name: &str) -> bool {
        let Ok(certificate) = ParsedCertificate::try_from(&self.certificate) else { return false };
        ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    }
}
