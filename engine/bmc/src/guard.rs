//! Which addresses may be reached.
//!
//! A BMC address is user input, and the engine stands where users do not: without a guard, `redfish://169.254.169.254`
//! would make the engine read a cloud's metadata service for them. The operator lists the networks that BMCs are in; an
//! empty list allows nothing. Special networks (loopback, link-local, multicast, unspecified, metadata) need an entry
//! that lies inside them: `0.0.0.0/0` does not include them.
//!
//! The check is made on the addresses that will be dialled, after name resolution, so that a name that changes its mind
//! between check and use gains nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A network: address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Text that is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network; expected address/prefix such as 10.0.0.0/16 or fd00::/64, without host bits")]
pub struct CidrError(pub String);

impl Cidr {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Cidr { network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// The address as a number, left-aligned in 128 bits, and its length in bits.
    fn bits(address: IpAddr) -> (u128, u8) {
        match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        }
    }

    fn mask(prefix: u8) -> u128 {
        if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) }
    }

    /// Whether the address is in the network. The two families never match each other.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, width) = Self::bits(self.network);
        let (address, other) = Self::bits(address);
        width == other && (network ^ address) & Self::mask(self.prefix) == 0
    }

    /// Whether the other network lies inside this one.
    fn encloses(&self, other: &Cidr) -> bool {
        self.prefix <= other.prefix && self.contains(other.network)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let network: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let (bits, width) = Self::bits(network);
        if prefix > width || bits & !Self::mask(prefix) != 0 {
            return Err(bad());
        }
        Ok(Cidr { network, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Networks that are never allowed by a wider entry.
const SPECIAL: [(Cidr, &str); 9] = [
    (Cidr::v4(127, 0, 0, 0, 8), "loopback"),
    (Cidr::v4(169, 254, 0, 0, 16), "link-local"),
    (Cidr::v4(0, 0, 0, 0, 8), "this host"),
    (Cidr::v4(224, 0, 0, 0, 3), "multicast or reserved"),
    (Cidr { network: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 }, "loopback"),
    (Cidr { network: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 128 }, "this host"),
    (Cidr { network: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix: 10 }, "link-local"),
    (Cidr { network: IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), prefix: 8 }, "multicast"),
    (Cidr { network: IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), prefix: 128 }, "cloud metadata"),
];

/// An address that may not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} {why}")]
pub struct Denied {
    /// The address.
    pub address: IpAddr,
    /// Why, for example `is a loopback address and no allowed network lies in 127.0.0.0/8`.
    pub why: String,
}

/// The networks that may be reached. The default allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressGuard {
    allow: Vec<Cidr>,
}

impl AddressGuard {
    /// A guard that allows these networks.
    pub fn new(allow: impl IntoIterator<Item = Cidr>) -> Self {
        AddressGuard { allow: allow.into_iter().collect() }
    }

    /// Reads networks.
    ///
    /// # Errors
    /// [`CidrError`] for the first text that is not a network.
    pub fn parse<T: AsRef<str>>(networks: impl IntoIterator<Item = T>) -> Result<Self, CidrError> {
        let allow = networks.into_iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>()?;
        Ok(AddressGuard { allow })
    }

    /// Whether the address may be reached. An IPv4 address in IPv6 clothes is judged as what it is.
    ///
    /// # Errors
    /// [`Denied`] with the reason.
    pub fn check(&self, address: IpAddr) -> Result<(), Denied> {
        let address = address.to_canonical();
        let denied = |why: String| Err(Denied { address, why });
        let special = SPECIAL.iter().find(|(network, _)| network.contains(address));
        let mut allowed = self.allow.iter().filter(|network| network.contains(address));
        match special {
            Some((special, what)) if !allowed.any(|network| special.encloses(network)) => {
                denied(format!("is a {what} address and no allowed network lies inside {special}"))
            }
            None if allowed.next().is_none() => {
                let list = self.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                denied(if list.is_empty() {
                    "is not allowed: no BMC network is configured".into()
                } else {
                    format!("is in none of the allowed BMC networks ({list})")
                })
            }
            _ => Ok(()),
        }
    }

    /// The addresses of a name that may be dialled.
    ///
    /// # Errors
    /// [`Denied`] when the name has addresses and none may be reached.
    pub fn filter(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Denied> {
        let mut first_denial = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match self.check(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(denied) => first_denial = first_denial.or(Some(denied)),
            }
        }
        match first_denial {
            Some(denied) if allowed.is_empty() => Err(denied),
            _ => Ok(allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn allows(guard: &AddressGuard, address: &str) -> bool {
        guard.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn nothing_is_allowed_by_default_and_wide_entries_leave_special_networks_out() {
        assert!(!allows(&AddressGuard::default(), "10.0.0.1"));
        let wide = AddressGuard::parse(["0.0.0.0/0", "::/0"]).unwrap();
        assert!(allows(&wide, "10.0.0.1") && allows(&wide, "2001:db8::1"));
        let special = [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ];
        for address in special {
            assert!(!allows(&wide, address), "{address}");
        }
    }

    #[test]
    fn an_entry_inside_a_special_network_opens_just_itself() {
        let guard = AddressGuard::parse(["127.0.0.2/32", "10.1.0.0/16"]).unwrap();
        assert!(allows(&guard, "127.0.0.2") && !allows(&guard, "127.0.0.1"));
        assert!(allows(&guard, "10.1.255.255") && !allows(&guard, "10.2.0.0"));
        assert!(allows(&guard, "::ffff:10.1.0.1"), "an IPv4 address in IPv6 clothes is that IPv4 address");
        let why = guard.check("10.2.0.0".parse().unwrap()).unwrap_err().to_string();
        assert!(why.contains("10.1.0.0/16"), "{why}");
    }

    #[test]
    fn of_a_name_only_the_allowed_addresses_are_dialled() {
        let guard = AddressGuard::parse(["10.0.0.0/8"]).unwrap();
        let addresses: Vec<SocketAddr> = ["10.0.0.1:0", "127.0.0.1:0"].map(|a| a.parse().unwrap()).into();
        assert_eq!(guard.filter(addresses.clone()).unwrap(), addresses[..1]);
        assert!(guard.filter(addresses[1..].to_vec()).is_err());
    }

    #[test]
    fn networks_are_read_strictly() {
        for bad in ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "x/8", "fd00::1/64", ""] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!("fd00::/64".parse::<Cidr>().unwrap().to_string(), "fd00::/64");
    }
}
