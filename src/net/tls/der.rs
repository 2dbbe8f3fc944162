//! The encoding of certificates: DER (X.690), and the types and object identifiers that they contain.

use tz::UtcDateTime;

/// Encodes a value with its tag and length (X.690 §8.1).
pub(super) fn der(tag: u8, value: &[u8]) -> Vec<u8> {
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

/// Splits off the first value. Returns its tag, its contents, and what follows it.
pub(super) fn split_first(encoded: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], mut rest) = encoded.split_first_chunk()?;
    let mut length = usize::from(length);
    if length >= 0x80 {
        let (digits, after) = rest.split_at_checked(length - 0x80)?;
        length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = after;
    }
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// Encodes `bytes` as a bit string whose last bits are unused (X.690 §8.6).
pub(super) fn bit_string(unused_bits: u8, bytes: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[&[unused_bits], bytes].concat())
}

/// Encodes an extension (RFC 5280 §4.1). A client that does not know a critical one must refuse the
/// certificate.
pub(super) fn extension(id: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if is_critical { der(BOOLEAN, &[0xff]) } else { Vec::new() };
    der(SEQUENCE, &[der(OBJECT_ID, id), critical, der(OCTET_STRING, value)].concat())
}

/// Encodes a time, in seconds since 1970, in the form that RFC 5280 §4.1.2.5 requires for its year.
pub(super) fn time(seconds: u64) -> Vec<u8> {
    let digits = time_digits(seconds);
    match *digits < *"2050" {
        true => der(UTC_TIME, &digits.as_bytes()[2..]),
        false => der(GENERALIZED_TIME, digits.as_bytes()),
    }
}

/// Formats a time, in seconds since 1970, as `20361130092032Z`.
pub(super) fn time_digits(seconds: u64) -> String {
    let date = UtcDateTime::from_timespec(seconds.cast_signed(), 0)
        .expect("the kernel's clock ends in the year 2232");
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        date.month(),
        date.month_day(),
        date.hour(),
        date.minute(),
        date.second(),
    )
}

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
pub(super) const DNS_NAME: u8 = 0x82;
pub(super) const IP_ADDRESS: u8 = 0x87;
/// The identifier of the issuer's key, in an authority key identifier.
pub(super) const KEY_ID: u8 = 0x80;
/// The version of a certificate, and the permitted part of name constraints.
pub(super) const EXPLICIT_0: u8 = 0xa0;
/// The excluded part of name constraints.
pub(super) const EXPLICIT_1: u8 = 0xa1;
/// The extensions of a certificate.
pub(super) const EXPLICIT_3: u8 = 0xa3;

/// 2.5.4.3
pub(super) const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
/// 2.5.29.14
pub(super) const SUBJECT_KEY_ID: [u8; 3] = [0x55, 29, 14];
/// 2.5.29.15
pub(super) const KEY_USAGE: [u8; 3] = [0x55, 29, 15];
/// 2.5.29.17
pub(super) const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 29, 17];
/// 2.5.29.19
pub(super) const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 29, 19];
/// 2.5.29.30
pub(super) const NAME_CONSTRAINTS: [u8; 3] = [0x55, 29, 30];
/// 2.5.29.35
pub(super) const AUTHORITY_KEY_ID: [u8; 3] = [0x55, 29, 35];
/// 2.5.29.37
pub(super) const EXTENDED_KEY_USAGE: [u8; 3] = [0x55, 29, 37];
/// 1.3.6.1.5.5.7.3.1
pub(super) const SERVER_AUTH: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 3, 1];
/// 1.2.840.10045.2.1
pub(super) const EC_PUBLIC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// 1.2.840.10045.3.1.7
pub(super) const PRIME256V1: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// 1.2.840.10045.4.3.2
pub(super) const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_lengths_have_the_shortest_form() {
        assert_eq!(der(4, &[7; 3]), [4, 3, 7, 7, 7]);
        assert_eq!(der(4, &[7; 127])[..2], [4, 127]);
        assert_eq!(der(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(der(4, &[7; 256])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn a_value_is_split_off_and_an_incomplete_one_is_not() {
        for length in [0, 3, 127, 128, 256, 70_000] {
            let mut encoded = der(4, &vec![7; length]);
            encoded.push(9);
            assert_eq!(split_first(&encoded), Some((4, &*vec![7; length], &[9][..])));
            encoded.truncate(encoded.len() - 2);
            assert_eq!(split_first(&encoded), None, "{length}");
        }
        for broken in [&[][..], &[4], &[4, 0x82, 1], &[4, 0xff, 1], &[4, 0x89, 255, 255, 255]] {
            assert_eq!(split_first(broken), None);
        }
    }

    #[test]
    fn years_from_2050_have_the_long_form() {
        let last = 2_524_607_999;
        assert_eq!(time(last), der(UTC_TIME, b"491231235959Z"));
        assert_eq!(time(last + 1), der(GENERALIZED_TIME, b"20500101000000Z"));
        assert_eq!(time(0), der(UTC_TIME, b"700101000000Z"));
    }
}
