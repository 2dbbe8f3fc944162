//! A small certificate authority (RFC 5280), with P-256 keys and SHA-256. It may sign only for this host and
//! for private addresses, so that its key is of little use to a thief.

use std::fs;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::der::*;
use super::host_names::host_name;
use super::pem::{self, file_error};
use super::setup::TlsError;

/// A certificate authority (CA).
pub(super) struct Authority {
    key: EcdsaKeyPair,
    certificate: CaCertificate,
}

struct CaCertificate {
    der: Vec<u8>,
    /// The name of the CA, in DER.
    subject: Vec<u8>,
    /// The last second in which the certificate is valid, as [`time_digits`] formats it.
    end: String,
}

/// The first and the last second in which a certificate is valid, in seconds since 1970.
pub(super) type Validity = [u64; 2];

impl Authority {
    /// Generates a CA that is not stored.
    pub(super) fn generate(validity: Validity) -> Result<Self, TlsError> {
        let key = key_pair(&generate_key()?).ok_or_else(no_random)?;
        let certificate = certify(&key, None, validity)?;
        Ok(Self { key, certificate })
    }

    /// Loads the CA in `directory`, or creates it there. The certificate is renewed, with the same key and
    /// name, if it expires before `needed_until`, in seconds since 1970.
    pub(super) fn find_or_create(
        directory: &Path,
        validity: Validity,
        needed_until: u64,
    ) -> Result<Self, TlsError> {
        let failed = |error| {
            let directory = directory.display();
            TlsError::new(format!("can't store a certificate authority in `{directory}`: {error}"))
        };
        let (file, key_file) = (directory.join(CA_FILE), directory.join(CA_KEY_FILE));
        let (exists, has_key) = (file.exists(), key_file.exists());
        if !has_key {
            fs::create_dir_all(directory).map_err(failed)?;
            pem::write(&key_file, "PRIVATE KEY", &generate_key()?, 0o600).map_err(failed)?;
        }
        let key = load_key(&key_file)?;
        let found = if exists && has_key { Some(load_certificate(&file, &key)?) } else { None };
        let certificate = match found {
            Some(found) if found.end >= time_digits(needed_until) => found,
            found => {
                if exists {
                    let reason = if has_key { "it expires soon" } else { "its key is missing" };
                    let file = file.display();
                    log::warn!("`{file}` is replaced: {reason}; clients must trust the new file");
                }
                let renewed = certify(&key, found.map(|found| found.subject), validity)?;
                pem::write(&file, "CERTIFICATE", &renewed.der, 0o644).map_err(failed)?;
                renewed
            }
        };
        replace_self_signed(directory, &file);
        Ok(Self { key, certificate })
    }

    /// Returns the CA's own certificate, in DER.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate.der
    }

    /// Signs a server's certificate for `alternative_names`. Returns the certificate and its key.
    pub(super) fn sign(
        &self,
        alternative_names: &[u8],
        validity: Validity,
    ) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), TlsError> {
        let key = generate_key()?;
        let pair = key_pair(&key).ok_or_else(no_random)?;
        let issuer_key = der(KEY_ID, &key_id(&self.key));
        let extensions = [
            extension(&KEY_USAGE, true, &bit_string(7, &[0x80])),
            for_servers(),
            extension(&SUBJECT_ALT_NAME, false, &der(SEQUENCE, alternative_names)),
            extension(&AUTHORITY_KEY_ID, false, &der(SEQUENCE, &issuer_key)),
        ];
        let issuer = &self.certificate.subject;
        let signed =
            issue(&self.key, issuer, &name("falconet"), validity, &pair, &extensions.concat())?;
        Ok((signed.into(), key.into()))
    }

    /// Returns true if a certificate of this CA may be for a DNS name in lower case.
    pub(super) fn permits_name(&self, name: &str) -> bool {
        let has = |base: &str| contains(&self.certificate.der, &name_subtree(base));
        let mut parents = iter::successors(parent(name), |name| parent(name));
        has(name) || parents.any(|base| has(base) && !has(&format!(".{base}")))
    }
}

/// Returns a DNS name without its first label.
fn parent(name: &str) -> Option<&str> {
    Some(name.split_once('.')?.1)
}

/// Returns true if a certificate of a CA may be for an address.
pub(super) fn permits_address(address: IpAddr) -> bool {
    let address = octets(address);
    PERMITTED_NETWORKS.iter().any(|(network, prefix)| {
        let (network, mask) = (octets(*network), mask(*prefix));
        let bits = address.iter().zip(mask).map(|(octet, mask)| octet & mask);
        network.len() == address.len() && bits.eq(network.iter().copied())
    })
}

/// Returns the octets of an address, as certificates have them.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// Returns the octets of a network mask. Those of an IPv4 mask are the first four.
fn mask(prefix: u8) -> [u8; 16] {
    (!u128::MAX.checked_shr(prefix.into()).unwrap_or(0)).to_be_bytes()
}

/// Removes the certificate that earlier versions of falconet signed with its own key, and that key.
fn replace_self_signed(directory: &Path, ca_file: &Path) {
    let old = directory.join(SELF_SIGNED_FILE);
    let is_self_signed = |certificate: CertificateDer<'_>| {
        subject_and_end(&certificate).is_some_and(|(subject, end)| {
            contains(subject, b"falconet ") && end == "99991231235959Z"
        })
    };
    if CertificateDer::from_pem_file(&old).is_ok_and(is_self_signed) {
        log::warn!(
            "the self-signed certificate `{}` is replaced: clients must trust `{}` instead",
            old.display(),
            ca_file.display()
        );
        // A file that can't be removed does no harm: the warning is repeated at the next start.
        let _ = fs::remove_file(directory.join(SELF_SIGNED_KEY_FILE));
        let _ = fs::remove_file(old);
    }
}

/// Generates a key, as PKCS#8.
fn generate_key() -> Result<Vec<u8>, TlsError> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    Ok(key.map_err(|_| no_random())?.as_ref().to_vec())
}

fn key_pair(pkcs8: &[u8]) -> Option<EcdsaKeyPair> {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random).ok()
}

fn no_random() -> TlsError {
    TlsError::new("can't generate a certificate: the system's random generator failed")
}

fn load_key(file: &Path) -> Result<EcdsaKeyPair, TlsError> {
    let failed = |error: &dyn std::fmt::Display| {
        file_error(file, error, &format!("the key that falconet has stored with `{CA_FILE}`"))
    };
    let key = PrivatePkcs8KeyDer::from_pem_file(file).map_err(|error| failed(&error))?;
    key_pair(key.secret_pkcs8_der()).ok_or_else(|| failed(&"not a P-256 key"))
}

fn load_certificate(file: &Path, key: &EcdsaKeyPair) -> Result<CaCertificate, TlsError> {
    let failed = |error: &dyn std::fmt::Display| {
        let expected = format!(
            "the certificate authority of `{CA_KEY_FILE}`, as falconet has stored it; without both \
             files a new one is made"
        );
        file_error(file, error, &expected)
    };
    let der = CertificateDer::from_pem_file(file).map_err(|error| failed(&error))?.to_vec();
    let is_own =
        contains(&der, key.public_key().as_ref()) && contains(&der, &name_subtree("localhost"));
    match subject_and_end(&der) {
        Some((subject, end)) if is_own => {
            let subject = subject.to_vec();
            Ok(CaCertificate { der, subject, end })
        }
        _ => Err(failed(&"another certificate")),
    }
}

/// Returns the name and the last second of a certificate, as [`time_digits`] formats it.
fn subject_and_end(certificate: &[u8]) -> Option<(&[u8], String)> {
    let (_, certificate, _) = split_first(certificate)?;
    let (_, mut content, _) = split_first(certificate)?;
    // Version, serial number, signature algorithm and issuer.
    for _ in 0..4 {
        (_, _, content) = split_first(content)?;
    }
    let (_, validity, subject) = split_first(content)?;
    let (_, _, end) = split_first(validity)?;
    let (tag, end, _) = split_first(end)?;
    let century = if tag == UTC_TIME { "20" } else { "" };
    let (_, _, after) = split_first(subject)?;
    let subject = &subject[..subject.len() - after.len()];
    Some((subject, format!("{century}{}", str::from_utf8(end).ok()?)))
}

/// Creates the certificate of a CA. If it has no `subject` yet, it is named after the host.
fn certify(
    key: &EcdsaKeyPair,
    subject: Option<Vec<u8>>,
    validity: Validity,
) -> Result<CaCertificate, TlsError> {
    let (host, key_id) = (host_name(), key_id(key));
    let subject = subject.unwrap_or_else(|| {
        // Each CA has its own name: a client could take a CA of the same name for the issuer. The common
        // name is limited to 64 characters.
        let host = host.as_deref().unwrap_or("localhost");
        name(&format!("falconet CA {host:.40} {:02x}{:02x}{:02x}", key_id[0], key_id[1], key_id[2]))
    });
    let extensions = [
        // A CA that signs no other CA.
        extension(&BASIC_CONSTRAINTS, true, &[SEQUENCE, 6, BOOLEAN, 1, 0xff, INTEGER, 1, 0]),
        // It signs certificates and revocation lists.
        extension(&KEY_USAGE, true, &bit_string(1, &[0x06])),
        for_servers(),
        extension(&NAME_CONSTRAINTS, true, &name_constraints(host.as_deref())),
        extension(&SUBJECT_KEY_ID, false, &der(OCTET_STRING, &key_id)),
    ];
    let der = issue(key, &subject, &subject, validity, key, &extensions.concat())?;
    Ok(CaCertificate { der, subject, end: time_digits(validity[1]) })
}

/// Encodes what a CA may sign for (RFC 5280 §4.2.1.10): localhost, names that end in `.local`, `host` and the
/// permitted networks.
fn name_constraints(host: Option<&str>) -> Vec<u8> {
    let names = ["localhost", "local"].into_iter().chain(host).map(name_subtree);
    let networks = PERMITTED_NETWORKS.iter().map(|(network, prefix)| {
        let network = octets(*network);
        let mask = &mask(*prefix)[..network.len()];
        der(SEQUENCE, &der(IP_ADDRESS, &[&network, mask].concat()))
    });
    let permitted = der(EXPLICIT_0, &names.chain(networks).collect::<Vec<_>>().concat());
    // A host may be called `dev` or `app`, like a top-level domain. So nothing below one label is permitted.
    let one_label = host.filter(|host| !host.contains('.'));
    let excluded = one_label.map(|host| der(EXPLICIT_1, &name_subtree(&format!(".{host}"))));
    der(SEQUENCE, &[permitted, excluded.unwrap_or_default()].concat())
}

/// Encodes a DNS name with all names below it; one that begins with a dot is without the name itself.
fn name_subtree(name: &str) -> Vec<u8> {
    der(SEQUENCE, &der(DNS_NAME, name.as_bytes()))
}

/// Creates and signs a certificate (RFC 5280 §4.1).
fn issue(
    issuer_key: &EcdsaKeyPair,
    issuer: &[u8],
    subject: &[u8],
    [begin, end]: Validity,
    key: &EcdsaKeyPair,
    extensions: &[u8],
) -> Result<Vec<u8>, TlsError> {
    let random = SystemRandom::new();
    let mut serial = [0; 16];
    random.fill(&mut serial).map_err(|_| no_random())?;
    // A positive integer whose first byte is not zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let algorithm = der(SEQUENCE, &der(OBJECT_ID, &ECDSA_WITH_SHA256));
    let key_algorithm = [der(OBJECT_ID, &EC_PUBLIC_KEY), der(OBJECT_ID, &PRIME256V1)].concat();
    let public_key = bit_string(0, key.public_key().as_ref());
    let content = [
        // Version 3.
        der(EXPLICIT_0, &der(INTEGER, &[2])),
        der(INTEGER, &serial),
        algorithm.clone(),
        issuer.to_vec(),
        der(SEQUENCE, &[time(begin), time(end)].concat()),
        subject.to_vec(),
        der(SEQUENCE, &[der(SEQUENCE, &key_algorithm), public_key].concat()),
        der(EXPLICIT_3, &der(SEQUENCE, extensions)),
    ];
    let content = der(SEQUENCE, &content.concat());
    let signature = issuer_key.sign(&random, &content).map_err(|_| no_random())?;
    Ok(der(SEQUENCE, &[content, algorithm, bit_string(0, signature.as_ref())].concat()))
}

/// The extension that limits a certificate, or all certificates of a CA, to servers.
fn for_servers() -> Vec<u8> {
    extension(&EXTENDED_KEY_USAGE, false, &der(SEQUENCE, &der(OBJECT_ID, &SERVER_AUTH)))
}

/// Encodes a name that consists of a common name.
fn name(common_name: &str) -> Vec<u8> {
    let value = der(UTF8_STRING, common_name.as_bytes());
    let attribute = der(SEQUENCE, &[der(OBJECT_ID, &COMMON_NAME), value].concat());
    der(SEQUENCE, &der(SET, &attribute))
}

/// Returns the identifier of a key (RFC 7093 §2, method 1).
fn key_id(key: &EcdsaKeyPair) -> [u8; 20] {
    let digest = digest(&SHA256, key.public_key().as_ref());
    *digest.as_ref().first_chunk().expect("the digest has 32 bytes")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The networks that are private, local to a link or loopback, with the number of their leading bits.
const PERMITTED_NETWORKS: [(IpAddr, u8); 9] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    // The addresses behind a provider's NAT, which overlay networks use as well (RFC 6598).
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";
/// The files of earlier versions.
const SELF_SIGNED_FILE: &str = "tls-cert.pem";
const SELF_SIGNED_KEY_FILE: &str = "tls-key.pem";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_and_loopback_addresses_are_permitted() {
        for (address, expected) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("127.0.0.2", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("192.0.2.1", false),
            ("169.254.1.1", true),
            ("8.8.8.8", false),
            ("::1", true),
            ("::2", false),
            ("fd12::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(permits_address(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn the_constraints_say_which_names_are_permitted() {
        let with_host = |host| {
            let key = key_pair(&generate_key().unwrap()).unwrap();
            let der = name_constraints(Some(host));
            Authority {
                key,
                certificate: CaCertificate { der, subject: vec![], end: String::new() },
            }
        };
        let (short, long) = (with_host("dev"), with_host("pi.example.org"));
        for (name, in_short, in_long) in [
            ("localhost", true, true),
            ("pi.local", true, true),
            ("a.pi.local", true, true),
            ("local.example", false, false),
            ("dev", true, false),
            ("bank.dev", false, false),
            ("pi.example.org", false, true),
            ("a.pi.example.org", false, true),
            ("api.example.org", false, false),
            ("example.org", false, false),
        ] {
            assert_eq!(short.permits_name(name), in_short, "{name}");
            assert_eq!(long.permits_name(name), in_long, "{name}");
        }
    }

    #[test]
    fn an_authority_that_expires_soon_is_renewed_with_the_same_key_and_name() {
        let directory = std::env::temp_dir().join(format!("falconet-ca-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let find = |end: u64, needed_until: u64| {
            let found = Authority::find_or_create(&directory, [1_700_000_000, end], needed_until);
            found.unwrap().certificate
        };
        let (soon, later) = (2_000_000_000, 2_600_000_000);
        let first = find(soon, soon);
        assert_eq!(find(later, soon).der, first.der, "it does not expire yet");
        let renewed = find(later, soon + 1);
        assert_eq!((&renewed.subject, &*renewed.end), (&first.subject, "20520522141320Z"));
        assert_ne!(renewed.der, first.der);
        let stored = find(soon, later);
        assert_eq!((stored.der, stored.end), (renewed.der, renewed.end));
        fs::remove_dir_all(&directory).unwrap();
    }
}
