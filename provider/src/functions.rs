//! Functions: pure helpers for configurations, `provider::vmetal::NAME(...)`.

use std::sync::Arc;

use tfplugin::{Function, FunctionError, Named, Parameter, Signature, Type, Value};
use vmetal_model::{BmcAddress, MacAddr, bmc::BmcScheme};

use crate::convert::sentence;

/// All of them.
pub(crate) fn all() -> Vec<Named<dyn Function>> {
    vec![("normalize_mac", Arc::new(NormalizeMac)), ("parse_bmc_address", Arc::new(ParseBmcAddress))]
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
}
