//! The files of certificates and keys (RFC 7468): writing them, errors about them, and fingerprints.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64ct::{Base64, Encoding};
use ring::digest::{SHA256, digest};

use super::setup::TlsError;

/// Writes a value in DER to a file, atomically and durably: a temporary file is renamed once it is complete.
pub(super) fn write(path: &Path, label: &str, der: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // A temporary file that an interrupted server has left may have other permissions.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(encode(label, der).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Encodes `der` as PEM.
fn encode(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes give one line of 64 characters (RFC 7468 §2).
    for line in der.chunks(48) {
        text += &Base64::encode_string(line);
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// Returns the error of a file that can't be used.
pub(super) fn file_error(path: &Path, error: &dyn Display, expected: &str) -> TlsError {
    TlsError::new(format!("`{}`: {error}: expected {expected}", path.display()))
}

/// Returns the SHA-256 fingerprint of a certificate in the form that browsers and openssl show.
pub(super) fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest(&SHA256, certificate);
    let bytes: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}
