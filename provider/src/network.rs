//! `vmetal_network`: a network that installed nodes are given addresses of.

use std::{fmt::Display, net::IpAddr, net::Ipv4Addr, str::FromStr};

use tfplugin::{Attribute, Diagnostic, Path, Schema, Type, Value, schema::Validator};
use vmetal_model::{AddressRange, Cidr, Failure, Network, NetworkSpec};

use crate::{
    convert::{equal, id_attribute, name_attribute, parsed, parses, refresh, same_parsed, sentence, string_list},
    kind::{Declaration, Kind, Verdict},
    timeouts::Timeouts,
};

/// `vmetal_network`.
pub(crate) struct Networks;

/// Each item, at its place.
fn parsed_list<T: FromStr<Err: Display>>(value: &Value, name: &str) -> Result<Vec<T>, Diagnostic> {
    let items = value.attr(name).as_list().unwrap_or_default().iter().enumerate();
    items.map(|(index, item)| parsed(item, Path::attr(name).index(index))).collect()
}

fn texts<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// `10.0.0.5-10.0.0.5` is `10.0.0.5`, however it is spelled.
fn same_items<T: FromStr + PartialEq>(a: &Value, b: &Value) -> bool {
    let (x, y) = (a.as_list().unwrap_or_default(), b.as_list().unwrap_or_default());
    a.is_known() == b.is_known() && x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_parsed::<T>(x, y))
}

/// Checks each item of a list.
fn items_parse<T: FromStr<Err: Display> + 'static>(summary: &str) -> Validator {
    Validator::value(summary, |value| {
        let bad = |item: &Value| item.as_str()?.parse::<T>().err().map(|error| sentence(&error.to_string()));
        value.as_list().unwrap_or_default().iter().find_map(bad).map_or(Ok(()), Err)
    })
}

fn whole<T: TryFrom<i64>>(value: &Value, name: &str) -> Result<Option<T>, Diagnostic> {
    let value = value.attr(name);
    let wrong = || Diagnostic::error("Invalid value", "Expected a whole number.").at(Path::attr(name));
    let number = |value: &Value| value.as_i64().and_then(|number| T::try_from(number).ok()).ok_or_else(wrong);
    (!value.is_null()).then(|| number(value)).transpose()
}

impl Kind for Networks {
    type Object = Network;

    const TYPE: &'static str = "vmetal_network";
    const NOUN: &'static str = "network";
    const TIMEOUTS: Timeouts = Timeouts::minutes(5);
    const WAIT_FOR: Option<&'static str> = None;

    fn is_supply() -> bool {
        true
    }

    fn schema() -> Schema {
        Schema::new(
            "A network that installed nodes are given addresses of: one for each tenant node, from the moment its host is \
             reserved until that host is erased. A node type, a tenant cluster or a tenant node names it by `network`.",
            [
                ("id", id_attribute()),
                ("name", name_attribute("network")),
                (
                    "cidr",
                    Attribute::required(Type::String)
                        .semantic_equality(same_parsed::<Cidr>)
                        .validate(parses::<Cidr>("Invalid network"))
                        .describe(
                            "The network's block of IPv4 addresses by its first address, such as `10.20.0.0/24`. No two \
                             networks overlap, and none has addresses that the engine gives out on the provisioning network.",
                        ),
                ),
                (
                    "ranges",
                    Attribute::optional(Type::list(Type::String))
                        .semantic_equality(same_items::<AddressRange>)
                        .validate(items_parse::<AddressRange>("Invalid range of addresses"))
                        .describe(
                            "Which addresses nodes are given: ranges such as `10.20.0.10-10.20.0.99`, or single addresses. \
                             All of the block when not set. Addresses in use must stay among them.",
                        ),
                ),
                (
                    "reserved",
                    Attribute::optional(Type::list(Type::String))
                        .semantic_equality(same_items::<AddressRange>)
                        .validate(items_parse::<AddressRange>("Invalid range of addresses"))
                        .describe(
                            "Which of them nodes are never given. The gateway and the block's first and last address are not \
                             either, without being named.",
                        ),
                ),
                (
                    "gateway",
                    Attribute::optional(Type::String)
                        .validate(parses::<Ipv4Addr>("Invalid address"))
                        .describe("Where the default route of a node leads. Without it nodes have none in this network."),
                ),
                (
                    "nameservers",
                    Attribute::optional(Type::list(Type::String))
                        .semantic_equality(same_items::<IpAddr>)
                        .validate(items_parse::<IpAddr>("Invalid address"))
                        .describe("Name servers, IPv4 or IPv6, in the order in which nodes ask them."),
                ),
                (
                    "search_domains",
                    Attribute::optional(Type::list(Type::String)).describe("Domains that nodes look short names up in."),
                ),
                (
                    "vlan",
                    Attribute::optional(Type::Number).validate(Validator::integer(1, 4094)).describe(
                        "The IEEE 802.1Q tag of the network's frames on the node's boot interface, which keeps what it has by \
                         DHCP beside it. When not set, the network is untagged and takes the place of DHCP.",
                    ),
                ),
                (
                    "mtu",
                    Attribute::optional(Type::Number)
                        .validate(Validator::integer(576, 65_535))
                        .describe("The largest packet in bytes; the interface's own default when not set."),
                ),
                ("timeouts", Self::TIMEOUTS.attribute()),
                (
                    "addresses",
                    Attribute::computed(Type::Number).describe("How many addresses nodes may be given."),
                ),
                ("used", Attribute::computed(Type::Number).describe("How many of them hosts have, as last counted.")),
                ("free", Attribute::computed(Type::Number).describe("How many are left, as last counted.")),
            ],
        )
    }

    fn declare(planned: &Value) -> Result<Declaration<NetworkSpec>, Diagnostic> {
        let gateway = planned.attr("gateway");
        let spec = NetworkSpec {
            cidr: parsed(planned.attr("cidr"), Path::attr("cidr"))?,
            ranges: parsed_list(planned, "ranges")?,
            reserved: parsed_list(planned, "reserved")?,
            gateway: (!gateway.is_null()).then(|| parsed(gateway, Path::attr("gateway"))).transpose()?,
            nameservers: parsed_list(planned, "nameservers")?,
            search_domains: string_list(planned.attr("search_domains")),
            vlan: whole(planned, "vlan")?,
            mtu: whole(planned, "mtu")?,
        };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn observe(state: &mut Value, network: &Network) {
        let status = &network.status;
        state.set("addresses", status.addresses);
        state.set("used", status.used);
        state.set("free", status.free());
    }

    fn recall(state: &mut Value, network: &Network) {
        let NetworkSpec { cidr, ranges, reserved, gateway, nameservers, search_domains, vlan, mtu } = &network.spec;
        refresh(state, "cidr", cidr.to_string(), same_parsed::<Cidr>);
        refresh(state, "ranges", texts(ranges), same_items::<AddressRange>);
        refresh(state, "reserved", texts(reserved), same_items::<AddressRange>);
        refresh(state, "gateway", gateway.map(|gateway| gateway.to_string()), same_parsed::<Ipv4Addr>);
        refresh(state, "nameservers", texts(nameservers), same_items::<IpAddr>);
        refresh(state, "search_domains", search_domains.clone(), equal);
        refresh(state, "vlan", vlan.map(|vlan| Value::from(u64::from(vlan))).unwrap_or(Value::Null), equal);
        refresh(state, "mtu", mtu.map(|mtu| Value::from(u64::from(mtu))).unwrap_or(Value::Null), equal);
    }

    fn judge(network: &Network, _: &str) -> Verdict {
        match network.status.observed_generation >= network.metadata.generation {
            true => Verdict::Done,
            false => Verdict::Going(Self::doing(network)),
        }
    }

    fn doing(_: &Network) -> String {
        "waiting for the engine to count its addresses".to_owned()
    }

    fn failure(_: &Network) -> Option<&Failure> {
        None
    }

    fn whereabouts(network: &Network) -> Vec<String> {
        let (spec, status) = (&network.spec, &network.status);
        vec![format!("Network: {}, {} of {} addresses in use", spec.cidr, status.used, status.addresses)]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn declared() -> Value {
        Value::object([
            ("cidr", Value::from("10.20.0.0/24")),
            ("ranges", Value::list([Value::from("10.20.0.10 - 10.20.0.20"), Value::from("10.20.0.30-10.20.0.30")])),
            ("reserved", Value::Null),
            ("gateway", Value::from("10.20.0.1")),
            ("nameservers", Value::list([Value::from("fd00:0::53")])),
            ("search_domains", Value::Null),
            ("vlan", Value::from(120u64)),
            ("mtu", Value::Null),
        ])
    }

    #[test]
    fn a_network_goes_to_the_engine_and_comes_back_as_it_was_written() {
        let spec = Networks::declare(&declared()).unwrap().spec;
        assert_eq!((spec.cidr.prefix(), spec.ranges.len(), spec.vlan, spec.mtu), (24, 2, Some(120), None));
        let metadata = vmetal_model::Metadata {
            name: "n".into(),
            uid: vmetal_model::Uid("u".into()),
            generation: 1,
            revision: 1,
            labels: Default::default(),
            annotations: Default::default(),
            created: vmetal_model::Timestamp::UNIX_EPOCH,
            deleted: None,
        };
        let mut network = Network { metadata, spec, status: Default::default() };
        let mut state = declared();
        Networks::recall(&mut state, &network);
        assert_eq!(state, declared(), "the user's spelling");
        network.spec.ranges.pop();
        network.spec.gateway = None;
        Networks::recall(&mut state, &network);
        assert_eq!(state.attr("ranges"), &Value::list([Value::from("10.20.0.10-10.20.0.20")]));
        assert_eq!(state.attr("gateway"), &Value::Null);
    }

    #[test]
    fn what_cannot_be_read_is_told_where_it_is_written() {
        let mut wrong = declared();
        wrong.set("ranges", Value::list([Value::from("10.20.0.10-10.20.0.20"), Value::from("10.20.0.9-10.20.0.1")]));
        let told = Networks::declare(&wrong).map(|_| ()).unwrap_err();
        assert!(format!("{told:?}").contains("ends before it begins"), "{told:?}");
        wrong = declared();
        wrong.set("cidr", "10.20.0.1/24");
        let told = Networks::declare(&wrong).map(|_| ()).unwrap_err();
        assert!(format!("{told:?}").contains("expected 10.20.0.0/24"), "{told:?}");
    }
}
