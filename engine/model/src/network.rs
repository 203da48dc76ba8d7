//! A network that installed nodes are given addresses of.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::Object;
use crate::node_type::NodeTypeSpec;
use crate::tenant_cluster::TenantClusterSpec;
use crate::tenant_node::TenantNodeSpec;
use crate::validate::{FieldError, Validate};

/// A network that installed nodes are given addresses of.
pub type Network = Object<NetworkSpec, NetworkStatus>;

/// What a network is: which addresses it has, and how a node that has one of them reaches the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The network's block of addresses. No two networks share any of it.
    pub cidr: Cidr,
    /// Which of them nodes are given; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<AddressRange>,
    /// Which of them nodes are never given, besides the gateway and the block's first and last address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<AddressRange>,
    /// Where the default route of a node leads; without it, nodes have no default route in this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, in the order in which nodes ask them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub nameservers: Vec<IpAddr>,
    /// Domains that nodes look short names up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search_domains: Vec<String>,
    /// The IEEE 802.1Q tag of the network's frames on the node's boot interface; untagged when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The largest packet, bytes; the interface's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What the engine counted in a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NetworkStatus {
    /// How many addresses nodes may be given.
    #[serde(default)]
    pub addresses: u64,
    /// How many of them hosts have.
    #[serde(default)]
    pub used: u64,
    /// Addresses that hosts have and that are none of those that nodes may be given any more, because a declaration and a
    /// reservation met. They stay as they are until they are given back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub outside: Vec<Ipv4Addr>,
    /// The generation of the spec that the status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
}

impl NetworkStatus {
    /// How many addresses are left.
    pub fn free(&self) -> u64 {
        self.addresses.saturating_sub(self.used)
    }
}

/// An address of a network that a claim's host has, from the reservation until what the claim left there is erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    /// The network's name.
    pub network: String,
    /// The address. No other host has it.
    #[schemars(with = "String")]
    pub address: Ipv4Addr,
}

/// The network that a tenant node's host gets an address of, if any: the tenant node's own word goes before its cluster's,
/// and that before the node type's.
pub fn chosen<'a>(
    node: &'a TenantNodeSpec,
    cluster: Option<&'a TenantClusterSpec>,
    node_type: Option<&'a NodeTypeSpec>,
) -> Option<&'a str> {
    let of_cluster = || cluster.and_then(|cluster| cluster.network.as_deref());
    let of_type = || node_type.and_then(|node_type| node_type.network.as_deref());
    node.network.as_deref().or_else(of_cluster).or_else(of_type)
}

/// A block of IPv4 addresses in CIDR notation (RFC 4632), by its first address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Cidr {
    first: Ipv4Addr,
    prefix: u8,
}

/// Text that is not a block of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No address, a slash and a number from 1 to 32.
    #[error("{0:?} is not a block of IPv4 addresses; expected one such as 10.20.0.0/24")]
    Malformed(String),
    /// The address is not the first of the block.
    #[error("{given} is inside a block, not a block; expected {block} (and, if it is meant, gateway {gateway})")]
    HostBits {
        /// What was given.
        given: String,
        /// The block that it is inside of.
        block: Cidr,
        /// Its address.
        gateway: Ipv4Addr,
    },
}

impl Cidr {
    /// The block's first address, which names the network.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// The block's last address: the broadcast address, where there is one.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) | !mask(self.prefix))
    }

    /// How many leading bits the addresses have in common, 1 to 32.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address is in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&address)
    }

    /// Whether two blocks have an address in common.
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The addresses that interfaces may have: all but the network's own and the broadcast address, which blocks of one and
    /// two addresses do not have (RFC 3021).
    pub fn hosts(self) -> AddressRange {
        let (first, last) = (u32::from(self.first()), u32::from(self.last()));
        let inset = u32::from(self.prefix < 31);
        AddressRange { first: Ipv4Addr::from(first + inset), last: Ipv4Addr::from(last - inset) }
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let malformed = || CidrError::Malformed(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        if !number || !(1..=32).contains(&prefix) {
            return Err(malformed());
        }
        let block = Cidr { first: Ipv4Addr::from(u32::from(address) & mask(prefix)), prefix };
        match block.first == address {
            true => Ok(block),
            false => Err(CidrError::HostBits { given: text.trim().to_owned(), block, gateway: address }),
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;
    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

/// Addresses from a first to a last, both included. Written `10.20.0.10-10.20.0.99`, or as one address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// Text that is not a range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither one address nor two with a hyphen between them.
    #[error("{0:?} is not a range of IPv4 addresses; expected one such as 10.20.0.10-10.20.0.99, or one address")]
    Malformed(String),
    /// The last comes before the first.
    #[error("{0:?} ends before it begins; expected the lower address first")]
    Backwards(String),
}

impl AddressRange {
    /// A range; none where the last comes before the first.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        (first <= last).then_some(AddressRange { first, last })
    }

    /// Its first address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// Its last address.
    pub fn last(self) -> Ipv4Addr {
        self.last
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Whether two ranges have an address in common.
    pub fn overlaps(self, other: AddressRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |part: &str| part.trim().parse().map_err(|_| RangeError::Malformed(text.to_owned()));
        AddressRange::new(address(first)?, address(last)?).ok_or_else(|| RangeError::Backwards(text.to_owned()))
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;
    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> String {
        range.to_string()
    }
}

/// The smallest packet that every IPv4 link must carry (RFC 791), and the largest that there is.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;
/// The tags that a network may have: 0 and 4095 mean other things (IEEE 802.1Q).
const VLAN: std::ops::RangeInclusive<u16> = 1..=4094;

impl Validate for NetworkSpec {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (cidr, hosts) = (self.cidr, self.cidr.hosts());
        for (i, range) in self.ranges.iter().enumerate() {
            let path = || format!("spec.ranges[{i}]");
            if !(hosts.contains(range.first) && hosts.contains(range.last)) {
                let message = format!("{range} is not within {cidr}; expected addresses from {hosts}");
                errors.push(FieldError::new(path(), message));
            }
            if let Some(gateway) = self.gateway.filter(|gateway| range.contains(*gateway)) {
                let message = format!("{range} includes the gateway {gateway}; expected ranges that leave it out");
                errors.push(FieldError::new(path(), message));
            }
            if let Some((j, other)) = self.ranges.iter().enumerate().take(i).find(|(_, other)| other.overlaps(*range)) {
                let message =
                    format!("{range} overlaps spec.ranges[{j}], which is {other}; expected each address once");
                errors.push(FieldError::new(path(), message));
            }
        }
        for (i, range) in self.reserved.iter().enumerate() {
            if !(cidr.contains(range.first) && cidr.contains(range.last)) {
                let message = format!("{range} is not within {cidr}; expected addresses of the network");
                errors.push(FieldError::new(format!("spec.reserved[{i}]"), message));
            }
        }
        if let Some(gateway) = self.gateway.filter(|gateway| !hosts.contains(*gateway)) {
            let message =
                format!("{gateway} is not an address that {cidr} has for a router; expected one from {hosts}");
            errors.push(FieldError::new("spec.gateway", message));
        }
        for (i, domain) in self.search_domains.iter().enumerate().filter(|(_, domain)| !is_domain(domain)) {
            let message = format!("{domain:?} is not a domain name; expected one such as tenants.example.com");
            errors.push(FieldError::new(format!("spec.search_domains[{i}]"), message));
        }
        if let Some(vlan) = self.vlan.filter(|vlan| !VLAN.contains(vlan)) {
            errors
                .push(FieldError::new("spec.vlan", format!("is {vlan}; expected 1 to 4094, or nothing for untagged")));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| !MTU.contains(mtu)) {
            errors.push(FieldError::new("spec.mtu", format!("is {mtu}; expected 576 to 65535 bytes")));
        }
        errors
    }
}

/// A domain name as RFC 1123 has it: labels of letters, digits and hyphens.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn spec(json: serde_json::Value) -> NetworkSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_block_is_named_by_its_first_address_and_says_what_else_was_meant() {
        let block: Cidr = "10.20.0.0/23".parse().unwrap();
        assert_eq!(
            (block.last().to_string(), block.hosts().to_string()),
            ("10.20.1.255".into(), "10.20.0.1-10.20.1.254".into())
        );
        assert_eq!("10.0.0.4/31".parse::<Cidr>().unwrap().hosts().to_string(), "10.0.0.4-10.0.0.5");
        assert_eq!("10.0.0.4/32".parse::<Cidr>().unwrap().hosts().to_string(), "10.0.0.4");
        for text in ["", "10.0.0.0", "10.0.0.0/0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "fd00::/64", "10.0.0.0/"] {
            assert!(matches!(text.parse::<Cidr>(), Err(CidrError::Malformed(_))), "{text}");
        }
        let told = "10.20.0.1/24".parse::<Cidr>().unwrap_err().to_string();
        assert_eq!(
            told,
            "10.20.0.1/24 is inside a block, not a block; expected 10.20.0.0/24 (and, if it is meant, gateway 10.20.0.1)"
        );
    }

    #[test]
    fn blocks_and_ranges_know_what_they_share() {
        let block = |text: &str| text.parse::<Cidr>().unwrap();
        assert!(
            block("10.0.0.0/8").overlaps(block("10.3.0.0/16")) && block("10.3.0.0/16").overlaps(block("10.0.0.0/8"))
        );
        assert!(!block("10.0.0.0/24").overlaps(block("10.0.1.0/24")));
        let range = |text: &str| text.parse::<AddressRange>().unwrap();
        assert!(range("10.0.0.1-10.0.0.9").overlaps(range("10.0.0.9 - 10.0.0.12")));
        assert!(!range("10.0.0.1-10.0.0.8").overlaps(range("10.0.0.9")));
        assert_eq!("10.0.0.9-10.0.0.1".parse::<AddressRange>(), Err(RangeError::Backwards("10.0.0.9-10.0.0.1".into())));
        assert!(matches!("10.0.0.0/24".parse::<AddressRange>(), Err(RangeError::Malformed(_))));
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_path() {
        let wrong = spec(serde_json::json!({
            "cidr": "10.20.0.0/24",
            "ranges": ["10.20.0.1-10.20.0.9", "10.20.0.9-10.20.1.4", "10.20.0.0"],
            "reserved": ["10.21.0.0-10.21.0.3"],
            "gateway": "10.20.0.1",
            "search_domains": ["tenants.example.com", "a b"],
            "vlan": 4095,
            "mtu": 64,
        }));
        let told: Vec<String> = wrong.validate().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "spec.ranges[0]: 10.20.0.1-10.20.0.9 includes the gateway 10.20.0.1; expected ranges that leave it out",
                "spec.ranges[1]: 10.20.0.9-10.20.1.4 is not within 10.20.0.0/24; expected addresses from 10.20.0.1-10.20.0.254",
                "spec.ranges[1]: 10.20.0.9-10.20.1.4 overlaps spec.ranges[0], which is 10.20.0.1-10.20.0.9; expected each address once",
                "spec.ranges[2]: 10.20.0.0 is not within 10.20.0.0/24; expected addresses from 10.20.0.1-10.20.0.254",
                "spec.reserved[0]: 10.21.0.0-10.21.0.3 is not within 10.20.0.0/24; expected addresses of the network",
                "spec.search_domains[1]: \"a b\" is not a domain name; expected one such as tenants.example.com",
                "spec.vlan: is 4095; expected 1 to 4094, or nothing for untagged",
                "spec.mtu: is 64; expected 576 to 65535 bytes",
            ]
        );
        let outside = spec(serde_json::json!({ "cidr": "10.20.0.0/24", "gateway": "10.20.0.255" }));
        assert_eq!(outside.validate()[0].path, "spec.gateway");
        let right = spec(
            serde_json::json!({ "cidr": "10.20.0.0/24", "ranges": ["10.20.0.10-10.20.0.99"], "gateway": "10.20.0.1" }),
        );
        assert!(right.validate().is_empty());
    }

    #[test]
    fn the_most_specific_word_counts() {
        let named = |name: &str| Some(name.to_owned());
        let node_type = NodeTypeSpec { network: named("type"), ..NodeTypeSpec::default() };
        let cluster = TenantClusterSpec { network: named("cluster"), ..TenantClusterSpec::default() };
        let node = TenantNodeSpec { network: named("node"), ..TenantNodeSpec::default() };
        let silent = (TenantNodeSpec::default(), TenantClusterSpec::default());
        assert_eq!(chosen(&node, Some(&cluster), Some(&node_type)), Some("node"));
        assert_eq!(chosen(&silent.0, Some(&cluster), Some(&node_type)), Some("cluster"));
        assert_eq!(chosen(&silent.0, Some(&silent.1), Some(&node_type)), Some("type"));
        assert_eq!(chosen(&silent.0, None, None), None);
    }
}
