//! Functions: pure helpers for configurations, `provider::vmetal::NAME(...)`.

use std::sync::Arc;

use tfplugin::{Function, FunctionError, Named, Parameter, Path, Signature, Type, Value};
use vmetal_model::{BmcAddress, MacAddr, bmc::BmcScheme};
use vmetal_user_data::Document;

use crate::{
    convert::{resources, sentence, string_list},
    cost::published,
};

/// All of them.
pub(crate) fn all() -> Vec<Named<dyn Function>> {
    vec![
        ("node_cost", Arc::new(NodeCost)),
        ("normalize_mac", Arc::new(NormalizeMac)),
        ("parse_bmc_address", Arc::new(ParseBmcAddress)),
        ("render_user_data", Arc::new(RenderUserData)),
    ]
}

fn argument<T: std::str::FromStr<Err: std::fmt::Display>>(
    arguments: &[Value],
    index: usize,
) -> Result<T, FunctionError> {
    let text = arguments.get(index).and_then(Value::as_str).unwrap_or_default();
    text.parse().map_err(|error: T::Err| FunctionError::argument(index, sentence(&error.to_string())))
}

struct NormalizeMac;

impl Function for NormalizeMac {
    fn signature(&self) -> Signature {
        let mac = Parameter::new("mac", Type::String, "A MAC address: `AA-BB-CC-DD-EE-FF`, `aabb.ccdd.eeff`, ...");
        Signature::new("A MAC address in the one spelling vmetal uses", [mac], Type::String).describe(
            "The address in lower case with colons, `aa:bb:cc:dd:ee:ff`: to compare addresses of different sources.",
        )
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        Ok(argument::<MacAddr>(arguments, 0)?.to_string().into())
    }
}

struct ParseBmcAddress;

impl Function for ParseBmcAddress {
    fn signature(&self) -> Signature {
        let address = Parameter::new("address", Type::String, "A BMC address as `vmetal_host` takes it.");
        let parts = ["scheme", "origin", "system_path", "identity"].map(|name| (name, Type::String));
        Signature::new("The parts of a BMC address", [address], Type::object(parts)).describe(
            "`scheme`: `redfish+https` (which plain `redfish` means) or `redfish+http`; `origin`: the URL that is connected to; `system_path`: the path of the \
             Redfish system, null when the address names none; `identity`: what must be unique over all hosts.",
        )
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        let address: BmcAddress = argument(arguments, 0)?;
        let scheme = match address.scheme() {
            BmcScheme::RedfishHttp => "redfish+http",
            BmcScheme::RedfishHttps => "redfish+https",
        };
        Ok(Value::object([
            ("scheme", Value::from(scheme)),
            ("origin", address.origin().into()),
            ("system_path", address.system_path().into()),
            ("identity", address.identity().into()),
        ]))
    }
}

struct NodeCost;

impl Function for NodeCost {
    fn signature(&self) -> Signature {
        let resources = Parameter::new(
            "resources",
            Type::map(Type::String),
            "What the node offers, in Kubernetes' notation: `cpu`, `memory` and other resources such as `nvidia.com/gpu`.",
        );
        Signature::new("What a node costs by the published price list", [resources], Type::Number).describe(
            "In millionths of a unit, exact: 10 for each processor, 2 for each GiB of memory, 10000 for each unit of every other \
             resource; `pods` and `ephemeral-storage` are free of charge. It is what the engine's default cost policy charges for \
             a node type without a `cost` of its own; what a given engine charges tells `data \"vmetal_cost\"`.",
        )
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        let given = arguments.first().unwrap_or(&Value::Null);
        let null = given.as_map().into_iter().flatten().find(|(_, amount)| amount.is_null());
        if let Some((name, _)) = null {
            return Err(FunctionError::argument(0, format!("The resource {name:?} has no amount.")));
        }
        let amounts = resources(given, &Path::root()).map_err(|fault| {
            let at = fault.path.map(|path| format!("{path}: ")).unwrap_or_default();
            FunctionError::argument(0, format!("{at}{}", fault.detail))
        })?;
        let micros = published(&amounts);
        Ok(micros.ok_or_else(|| FunctionError::argument(0, "The cost is too large to be counted."))?.into())
    }
}

struct RenderUserData;

impl Function for RenderUserData {
    fn signature(&self) -> Signature {
        let documents = Parameter::new(
            "documents",
            Type::list(Type::String),
            "Cloud-config documents (`#cloud-config`), the least specific first. An empty one says nothing.",
        );
        let keys = Parameter::new(
            "ssh_authorized_keys",
            Type::list(Type::String),
            "SSH public keys to add for the image's default user; may be empty.",
        );
        Signature::new("One cloud-config out of several", [documents, keys], Type::String).describe(
            "The documents are merged key by key, the later one winning: maps are merged, everything else is replaced; the keys \
             are added. It is done by the code that renders the user data of servers, so what cannot be merged fails here and not \
             on a server. The result fits `user_data_wo`. What joining needs, the engine adds by itself.",
        )
    }

    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        let list = |index: usize| string_list(arguments.get(index).unwrap_or(&Value::Null));
        let level = |(index, text): (usize, String)| (format!("document {}", index + 1), text);
        let levels: Vec<_> = list(0).into_iter().enumerate().map(level).collect();
        let failed = |error: vmetal_user_data::DocumentError| FunctionError::argument(0, sentence(&error.to_string()));
        let mut document = Document::merge(&levels).map_err(failed)?;
        document.append("ssh_authorized_keys", list(1).into_iter().map(Into::into).collect());
        Ok(document.render().map_err(failed)?.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn spellings_come_together_and_nonsense_is_named() {
        let call = |text: &str| NormalizeMac.call(&[Value::from(text)]);
        assert_eq!(call("AA-BB-CC-DD-EE-0F").unwrap(), Value::from("aa:bb:cc:dd:ee:0f"));
        assert_eq!(call("aa:bb").unwrap_err().argument, Some(0));
    }

    #[test]
    fn an_address_is_taken_apart() {
        let parts = ParseBmcAddress.call(&[Value::from("redfish://10.0.0.7/redfish/v1/Systems/1")]).unwrap();
        assert_eq!(parts.attr("scheme"), &Value::from("redfish+https"));
        assert_eq!(parts.attr("system_path"), &Value::from("/redfish/v1/Systems/1"));
        assert!(parts.attr("origin").as_str().unwrap().starts_with("https://10.0.0.7"));
        assert!(ParseBmcAddress.call(&[Value::from("ipmi://x")]).unwrap_err().text.contains("redfish"));
    }

    #[test]
    fn a_node_costs_what_the_price_list_says() {
        let call = |resources: Value| NodeCost.call(&[resources]);
        let gpu = Value::object([("cpu", "96"), ("memory", "768Gi"), ("nvidia.com/gpu", "8")]);
        assert_eq!(call(gpu).unwrap(), Value::from(82_496_000_000u64));
        let bad = call(Value::object([("cpu", "many")])).unwrap_err();
        assert!(bad.argument == Some(0) && bad.text.contains("cpu") && bad.text.contains("not a quantity"), "{bad:?}");
        let none = call(Value::object([("cpu", Value::Null)])).unwrap_err();
        assert!(none.text.contains("\"cpu\" has no amount"), "{none:?}");
    }

    #[test]
    fn documents_become_one() {
        let call = |documents: &[&str], keys: &[&str]| {
            let list = |all: &[&str]| Value::List(all.iter().map(|text| Value::from(*text)).collect());
            RenderUserData.call(&[list(documents), list(keys)])
        };
        let documents =
            ["#cloud-config\nntp: {enabled: true, servers: [a]}\n", "", "#cloud-config\nntp: {servers: [b]}\n"];
        let text = call(&documents, &["ssh-ed25519 AAAA me"]).unwrap();
        let text = text.as_str().unwrap();
        let json: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        let expected = serde_json::json!({ "ntp": { "enabled": true, "servers": ["b"] }, "ssh_authorized_keys": ["ssh-ed25519 AAAA me"] });
        assert_eq!(json, expected);
        let bad = call(&["#cloud-config\n", "#!/bin/sh\n"], &[]).unwrap_err();
        assert!(bad.argument == Some(0) && bad.text.contains("document 2 does not start with"), "{bad:?}");
    }
}
