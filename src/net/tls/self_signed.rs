//! A certificate that a server signs for itself (RFC 5280), of P-256 and SHA-256.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::TlsError;

/// A certificate and its key, in DER.
pub(super) struct SelfSigned {
    pub(super) certificate: Vec<u8>,
    /// PKCS#8.
    pub(super) key: Vec<u8>,
}

impl SelfSigned {
    /// Makes one for localhost, this host's name and addresses, and `hosts`.
    pub(super) fn make(hosts: &[String]) -> Result<Self, TlsError> {
        let random = SystemRandom::new();
        let failed = |_| TlsError::new("can't make a certificate: no randomness to be had");
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
        let key = key.map_err(failed)?.as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key, &random)
            .expect("it has just been made");
        let mut serial = [0; 16];
        random.fill(&mut serial).map_err(failed)?;
        let signed = to_be_signed(serial, &Names::of_this_host(hosts), pair.public_key().as_ref());
        let signature = pair.sign(&random, &signed).map_err(failed)?;
        let parts = [signed, algorithm(), bits(signature.as_ref())];
        Ok(Self { certificate: der(SEQUENCE, &parts.concat()), key })
    }

    /// Finds the one kept in `directory`, or makes one and keeps it. Says where it and its key are.
    pub(super) fn keep(directory: &Path, hosts: &[String]) -> Result<(PathBuf, PathBuf), TlsError> {
        let (chain, key) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        if !(chain.exists() && key.exists()) {
            let made = Self::make(hosts)?;
            let failed = |error: io::Error| {
                let directory = directory.display();
                TlsError::new(format!("can't keep a certificate in `{directory}`: {error}"))
            };
            fs::create_dir_all(directory).map_err(failed)?;
            write_whole(&key, &pem("PRIVATE KEY", &made.key), 0o600).map_err(failed)?;
            write_whole(&chain, &pem("CERTIFICATE", &made.certificate), 0o644).map_err(failed)?;
        }
        Ok((chain, key))
    }
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    // One left by a server that was stopped here may be somebody's else to read.
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes are a line of 64 characters (RFC 7468).
    for line in der.chunks(48) {
        text += &Base64::encode_string(line);
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// What a host is called.
struct Names {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    fn of_this_host(hosts: &[String]) -> Self {
        let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut all = Self { names: vec!["localhost".to_owned()], addresses: loopbacks.into() };
        let system = rustix::system::uname();
        let name = system.nodename().to_string_lossy();
        all.add(&name);
        if !name.contains('.') {
            // As it is found without a name server (RFC 6762).
            all.add(&format!("{name}.local"));
        }
        for host in hosts {
            all.add(host);
        }
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (trie, interfaces) = (read("/proc/net/fib_trie"), read("/proc/net/if_inet6"));
        for address in addresses_v4(&trie).chain(addresses_v6(&interfaces)) {
            all.add_address(address);
        }
        all
    }

    /// Adds a name or an address, unless it is none that a certificate could have.
    fn add(&mut self, host: &str) {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let host = host.to_ascii_lowercase();
        if let Ok(address) = host.parse() {
            self.add_address(address);
        } else if !host.is_empty() && host.bytes().all(is_name) && !self.names.contains(&host) {
            self.names.push(host);
        }
    }

    fn add_address(&mut self, address: IpAddr) {
        if !address.is_unspecified() && !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }
}

/// The host's own addresses in the kernel's table of routes: those before a line of the kind `LOCAL`.
fn addresses_v4(trie: &str) -> impl Iterator<Item = IpAddr> + '_ {
    trie.lines().zip(trie.lines().skip(1)).filter_map(|(line, next)| {
        let address = line.trim().strip_prefix("|-- ")?;
        next.contains("/32 host LOCAL").then(|| address.parse().ok())?
    })
}

/// The addresses of interfaces, but for those that mean nothing without the name of one.
fn addresses_v6(interfaces: &str) -> impl Iterator<Item = IpAddr> + '_ {
    interfaces.lines().filter_map(|line| {
        let digits = line.split_whitespace().next().filter(|digits| digits.len() == 32)?;
        let address = Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
        (!address.is_unicast_link_local()).then_some(IpAddr::V6(address))
    })
}

fn to_be_signed(mut serial: [u8; 16], names: &Names, public_key: &[u8]) -> Vec<u8> {
    // A positive number without a leading zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    // Each has a name of its own: one that is trusted is not to be taken for who signed another.
    let name = format!("falconet {:02x}{:02x}{:02x}", serial[0], serial[1], serial[2]);
    let common_name = [der(OBJECT_ID, &COMMON_NAME), der(UTF8_STRING, name.as_bytes())].concat();
    let name = der(SEQUENCE, &der(SET, &der(SEQUENCE, &common_name)));
    // From long ago, for hosts whose clock is not set yet, and without a known end (RFC 5280
    // §4.1.2.5): who trusts it does so by its fingerprint.
    let begin = der(UTC_TIME, b"000101000000Z");
    let validity = [begin, der(GENERALIZED_TIME, b"99991231235959Z")].concat();
    let key_kind = [der(OBJECT_ID, &EC_PUBLIC_KEY), der(OBJECT_ID, &PRIME256V1)].concat();
    let key = [der(SEQUENCE, &key_kind), bits(public_key)].concat();
    let purposes = der(SEQUENCE, &der(OBJECT_ID, &SERVER_AUTH));
    let extensions = [
        extension(&SUBJECT_ALT_NAME, &der(SEQUENCE, &alternative_names(names))),
        extension(&EXTENDED_KEY_USAGE, &purposes),
    ];
    let parts = [
        der(EXPLICIT_VERSION, &der(INTEGER, &[2])),
        der(INTEGER, &serial),
        algorithm(),
        name.clone(),
        der(SEQUENCE, &validity),
        name,
        der(SEQUENCE, &key),
        der(EXPLICIT_EXTENSIONS, &der(SEQUENCE, &extensions.concat())),
    ];
    der(SEQUENCE, &parts.concat())
}

fn alternative_names(names: &Names) -> Vec<u8> {
    let dns = names.names.iter().map(|name| der(DNS_NAME, name.as_bytes()));
    let ip = names.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => der(IP_ADDRESS, &address.octets()),
        IpAddr::V6(address) => der(IP_ADDRESS, &address.octets()),
    });
    dns.chain(ip).collect::<Vec<_>>().concat()
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    der(SEQUENCE, &[der(OBJECT_ID, id), der(OCTET_STRING, value)].concat())
}

fn algorithm() -> Vec<u8> {
    der(SEQUENCE, &der(OBJECT_ID, &ECDSA_WITH_SHA256))
}

/// A string of bits that are whole bytes.
fn bits(bytes: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[&[0], bytes].concat())
}

/// A value with its tag and length (X.690 §8.1).
fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut encoded = vec![tag];
    let length = value.len().to_be_bytes();
    match value.len() {
        short @ 0..0x80 => encoded.push(short as u8),
        _ => {
            let zeros = length.iter().take_while(|byte| **byte == 0).count();
            encoded.push(0x80 | (length.len() - zeros) as u8);
            encoded.extend(&length[zeros..]);
        }
    }
    encoded.extend(value);
    encoded
}

const CERTIFICATE_FILE: &str = "tls-cert.pem";
const KEY_FILE: &str = "tls-key.pem";

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
const EXPLICIT_VERSION: u8 = 0xa0;
const EXPLICIT_EXTENSIONS: u8 = 0xa3;

/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
/// 2.5.29.17
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 29, 17];
/// 2.5.29.37
const EXTENDED_KEY_USAGE: [u8; 3] = [0x55, 29, 37];
/// 1.3.6.1.5.5.7.3.1
const SERVER_AUTH: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 3, 1];
/// 1.2.840.10045.2.1
const EC_PUBLIC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// 1.2.840.10045.3.1.7
const PRIME256V1: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// 1.2.840.10045.4.3.2
const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_lengths_are_as_short_as_can_be() {
        assert_eq!(der(4, &[7; 3]), [4, 3, 7, 7, 7]);
        assert_eq!(der(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(der(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(der(4, &[7; 256])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn the_hosts_own_addresses_are_found_and_no_others() {
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
    fn names_are_each_there_once_and_odd_ones_are_not() {
        let mut names = Names { names: Vec::new(), addresses: Vec::new() };
        for host in ["Pi", "pi", "", "a b", "0.0.0.0", "192.0.2.7", "192.0.2.7", "::", "::1"] {
            names.add(host);
        }
        assert_eq!(names.names, ["pi"]);
        assert_eq!(names.addresses.len(), 2);
    }
}
