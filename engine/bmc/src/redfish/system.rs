//! The `ComputerSystem` resource (DSP0268): identity, power, boot override and the reset action.

use serde_json::Value;
use vmetal_model::{BmcFacts, BootMode, PowerState};

use super::path::ResourcePath;

/// What this crate uses of a system.
#[derive(Debug, Clone)]
pub(crate) struct System {
    pub(crate) path: ResourcePath,
    pub(crate) facts: BmcFacts,
    pub(crate) manager: Option<ResourcePath>,
    pub(crate) boot: Boot,
    pub(crate) reset: Option<Reset>,
    pub(crate) etag: Option<String>,
    pub(crate) links: Links,
}

/// The boot override as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Boot {
    pub(crate) target: Option<String>,
    pub(crate) enabled: Option<String>,
    pub(crate) mode: Option<String>,
    /// Targets the system offers; empty when it does not say.
    pub(crate) targets: Vec<String>,
    /// Whether the system knows about modes at all.
    pub(crate) has_mode: HasMode,
}

/// Whether `BootSourceOverrideMode` is part of the system's boot object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum HasMode {
    #[default]
    No,
    Yes,
}

/// The reset action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) target: ResourcePath,
    /// Reset types the system offers; empty when it does not say.
    pub(crate) types: Vec<String>,
}

/// Where the inventory is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    pub(crate) processors: Option<ResourcePath>,
    pub(crate) storage: Option<ResourcePath>,
    pub(crate) nics: Option<ResourcePath>,
    pub(crate) memory_gib: Option<f64>,
    pub(crate) processor_summary: Value,
}

/// A trimmed, non-empty text member. Numbers are taken as text: some BMCs give serial numbers that way.
pub(crate) fn text(value: &Value, member: &str) -> Option<String> {
    let text = match &value[member] {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(|s| s.trim().to_owned()).collect()
}

/// `PowerState` in DSP0268's words. `Paused` counts as on: the machine holds its memory.
pub(crate) fn power(value: &Value) -> PowerState {
    match value["PowerState"].as_str() {
        Some("On" | "Paused") => PowerState::On,
        Some("Off") => PowerState::Off,
        Some("PoweringOn") => PowerState::PoweringOn,
        Some("PoweringOff") => PowerState::PoweringOff,
        _ => PowerState::Unknown,
    }
}

/// DSP0268's word for a boot mode.
pub(crate) fn mode(mode: BootMode) -> &'static str {
    match mode {
        BootMode::Uefi => "UEFI",
        BootMode::Bios => "Legacy",
    }
}

impl System {
    /// `None` when the value is not an object at all.
    pub(crate) fn read(path: &ResourcePath, value: &Value, etag: Option<String>) -> Option<Self> {
        value.as_object()?;
        let facts = BmcFacts {
            system_path: path.as_str().trim_end_matches('/').to_owned(),
            manufacturer: text(value, "Manufacturer"),
            model: text(value, "Model"),
            serial: text(value, "SerialNumber"),
            uuid: text(value, "UUID").map(|uuid| uuid.to_ascii_lowercase()),
            power: power(value),
            ..BmcFacts::default()
        };
        let boot = &value["Boot"];
        let has_mode = ["BootSourceOverrideMode", "BootSourceOverrideMode@Redfish.AllowableValues"]
            .iter()
            .any(|member| boot.get(member).is_some());
        let reset = &value["Actions"]["#ComputerSystem.Reset"];
        let link = |member: &str| ResourcePath::link(&value[member]);
        Some(System {
            path: path.clone(),
            facts,
            manager: value["Links"]["ManagedBy"].as_array().and_then(|all| ResourcePath::link(all.first()?)),
            boot: Boot {
                target: text(boot, "BootSourceOverrideTarget"),
                enabled: text(boot, "BootSourceOverrideEnabled"),
                mode: text(boot, "BootSourceOverrideMode"),
                targets: texts(&boot["BootSourceOverrideTarget@Redfish.AllowableValues"]),
                has_mode: if has_mode { HasMode::Yes } else { HasMode::No },
            },
            reset: reset["target"]
                .as_str()
                .and_then(ResourcePath::parse)
                .map(|target| Reset { target, types: texts(&reset["ResetType@Redfish.AllowableValues"]) }),
            etag: etag.or_else(|| text(value, "@odata.etag")),
            links: Links {
                processors: link("Processors"),
                storage: link("Storage"),
                nics: link("EthernetInterfaces"),
                memory_gib: value["MemorySummary"]["TotalSystemMemoryGiB"].as_f64(),
                processor_summary: value["ProcessorSummary"].clone(),
            },
        })
    }
}

impl Reset {
    /// The first of these types that the system offers; the first of all when it does not say what it offers.
    pub(crate) fn choose(&self, wanted: &[&'static str]) -> Option<&'static str> {
        match self.types.as_slice() {
            [] => wanted.first().copied(),
            offered => wanted.iter().find(|want| offered.iter().any(|offer| offer == *want)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> System {
        System::read(&ResourcePath::parse("/redfish/v1/Systems/1/").unwrap(), value, None).unwrap()
    }

    #[test]
    fn facts_are_trimmed_and_missing_ones_are_none() {
        let system = read(&json!({
            "Manufacturer": " Dell Inc. ", "Model": "", "SerialNumber": 4711, "UUID": "4C4C4544-0042",
            "PowerState": "On", "Boot": null, "Actions": "none", "@odata.etag": "W/\"1\"",
        }));
        assert_eq!(system.facts.system_path, "/redfish/v1/Systems/1");
        assert_eq!(system.facts.manufacturer.as_deref(), Some("Dell Inc."));
        assert_eq!(system.facts.model, None);
        assert_eq!(system.facts.serial.as_deref(), Some("4711"));
        assert_eq!(system.facts.uuid.as_deref(), Some("4c4c4544-0042"));
        assert_eq!(system.facts.power, PowerState::On);
        assert_eq!((system.reset, system.boot.has_mode), (None, HasMode::No));
        assert_eq!(system.etag.as_deref(), Some("W/\"1\""));
        assert!(System::read(&ResourcePath::root(), &json!([]), None).is_none());
    }

    #[test]
    fn a_reset_that_leads_elsewhere_is_no_reset() {
        let system = read(&json!({"Actions": {"#ComputerSystem.Reset": {"target": "http://evil/reset"}}}));
        assert_eq!(system.reset, None);
    }

    #[test]
    fn the_first_offered_reset_type_is_taken() {
        let target = ResourcePath::root();
        let offering =
            |types: &[&str]| Reset { target: target.clone(), types: types.iter().map(|t| (*t).to_owned()).collect() };
        assert_eq!(offering(&[]).choose(&["On", "ForceOn"]), Some("On"));
        assert_eq!(offering(&["ForceOn"]).choose(&["On", "ForceOn"]), Some("ForceOn"));
        assert_eq!(offering(&["Nmi"]).choose(&["On", "ForceOn"]), None);
    }
}
