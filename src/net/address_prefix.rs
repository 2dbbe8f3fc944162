//! The networks that the limits per address count as one address.

use std::iter;
use std::net::IpAddr;

use crate::features::Feature;

/// An IPv4 address, or an IPv6 network of 64, 56 or 48 bits. Every limit per address counts each prefix of a
/// peer's address.
///
/// A host can choose any address within its IPv6 network of 64 bits (RFC 4291 §2.5.4), and one customer of a
/// provider usually has 256 or 65,536 such networks (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPrefix {
    /// An IPv4 address, or the first 64 bits of an IPv6 address with all bits behind the prefix cleared.
    network: u64,
    /// The length of the prefix: 32 for IPv4, and 64, 56 or 48 for IPv6.
    bits: u8,
}

impl AddressPrefix {
    /// Stands for all addresses of this host, and for its Unix sockets. It is the prefix of no address.
    pub(crate) const THIS_HOST: Self = Self { network: 0, bits: 0 };

    /// Returns the longest prefix of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { network: address.to_bits().into(), bits: 32 },
            IpAddr::V6(address) => Self { network: (address.to_bits() >> 64) as u64, bits: 64 },
        }
    }

    /// Returns this prefix and the shorter ones of the same address, the longest one first. A build without the
    /// feature `full` has no shorter ones.
    pub fn with_shorter(self) -> impl Iterator<Item = Self> {
        iter::successors(Some(self), |prefix| match prefix.bits {
            // The smallest build has no room for more.
            _ if !Feature::Full.is_built_in() => None,
            64 => Some(Self { network: prefix.network & (!0 << 8), bits: 56 }),
            56 => Some(Self { network: prefix.network & (!0 << 16), bits: 48 }),
            _ => None,
        })
    }

    /// Returns the shortest prefix of the same address.
    pub(super) fn shortest(self) -> Self {
        self.with_shorter().last().unwrap_or(self)
    }

    /// Returns how many times the limit per address this prefix has: 1 for an IPv4 address and an IPv6
    /// network of 64 bits, 2 for 56 bits, 4 for 48 bits.
    pub fn shares(self) -> u8 {
        match self.bits {
            48 => 4,
            56 => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str) -> AddressPrefix {
        AddressPrefix::of(address.parse().unwrap())
    }

    /// Returns the lengths of the prefixes that two addresses share, in bits.
    fn shared(one: &str, other: &str) -> Vec<u8> {
        let pairs = prefix(one).with_shorter().zip(prefix(other).with_shorter());
        pairs.filter(|(one, other)| one == other).map(|(one, _)| one.bits).collect()
    }

    #[cfg(feature = "full")]
    #[test]
    fn an_ipv6_address_shares_the_prefixes_of_64_56_and_48_bits() {
        let one = "2001:db8:1:203::1";
        assert_eq!(shared(one, "2001:db8:1:203:ffff:ffff:ffff:ffff"), [64, 56, 48]);
        assert_eq!(shared(one, "2001:db8:1:2ff::1"), [56, 48]);
        assert_eq!(shared(one, "2001:db8:1:303::1"), [48]);
        assert_eq!(shared(one, "2001:db8:2:203::1"), []);
        let shares: Vec<u8> = prefix(one).with_shorter().map(AddressPrefix::shares).collect();
        assert_eq!(shares, [1, 2, 4]);
    }

    #[test]
    fn an_ipv4_address_shares_nothing_with_another_one() {
        assert_eq!(shared("192.0.2.1", "192.0.2.1"), [32]);
        assert_eq!(shared("192.0.2.1", "::ffff:192.0.2.1"), [32], "it is the same address");
        assert_eq!(shared("192.0.2.1", "192.0.2.2"), []);
        assert_eq!(shared("192.0.2.1", "0:0:c000:201::1"), [], "of the other version");
        assert_eq!(shared("::ffff:192.0.2.1", "::ffff:192.0.2.2"), []);
        assert_eq!(prefix("192.0.2.1").shares(), 1);
    }

    #[test]
    fn no_address_has_the_prefix_of_this_host() {
        for address in ["127.0.0.1", "::1", "::", "0.0.0.0"] {
            assert!(prefix(address).with_shorter().all(|one| one != AddressPrefix::THIS_HOST));
        }
        assert_eq!(AddressPrefix::THIS_HOST.with_shorter().count(), 1);
    }
}
