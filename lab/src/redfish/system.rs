//! The computer system: what it shows, what may be changed, and its reset action.

use http::header::{IF_MATCH, IF_NONE_MATCH};
use serde_json::{Map, Value, json};

use super::resources::status_ok;
use super::{ApiError, Reply, Request};
use crate::config::{HostConfig, IfMatch};
use crate::machine::{BootOverride, Machine, OverrideEnabled, OverrideTarget, ResetError, ResetType, View};

const ENABLED: [(&str, OverrideEnabled); 3] = [
    ("Disabled", OverrideEnabled::Disabled),
    ("Once", OverrideEnabled::Once),
    ("Continuous", OverrideEnabled::Continuous),
];

const TARGETS: [(&str, OverrideTarget); 3] =
    [("None", OverrideTarget::None), ("Pxe", OverrideTarget::Pxe), ("Hdd", OverrideTarget::Hdd)];

fn word<T: PartialEq + Copy>(table: &[(&'static str, T)], value: T) -> &'static str {
    // Each table lists every value of its enum.
    table.iter().find(|(_, v)| *v == value).map_or("", |(w, _)| w)
}

fn words<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(w, _)| *w).collect()
}

fn path(config: &HostConfig) -> String {
    format!("/redfish/v1/Systems/{}", config.bmc.system_id)
}

fn etag(view: &View) -> String {
    format!("\"{}\"", view.revision)
}

/// The resource as it is now.
pub(super) fn resource(machine: &Machine) -> Value {
    let (config, view) = (machine.config(), machine.view());
    let path = path(config);
    let link = |name: &str| json!({"@odata.id": format!("{path}/{name}")});
    let gib = config.memory_mib as f64 / 1024.0;
    let mut body = json!({
        "@odata.id": path,
        "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem",
        "@odata.etag": etag(&view),
        "Id": config.bmc.system_id,
        "Name": config.name,
        "HostName": config.name,
        "SystemType": "Physical",
        "Manufacturer": config.manufacturer,
        "Model": config.model,
        "SKU": "",
        "SerialNumber": config.serial(),
        "UUID": config.system_uuid(),
        "AssetTag": view.asset_tag,
        "BiosVersion": match config.firmware {
            crate::config::Firmware::Uefi => "OVMF",
            crate::config::Firmware::Bios => "SeaBIOS",
        },
        "PowerState": view.power.as_str(),
        "Status": status_ok(),
        "Boot": {
            "BootSourceOverrideEnabled": word(&ENABLED, view.boot_override.enabled),
            "BootSourceOverrideEnabled@Redfish.AllowableValues": words(&ENABLED),
            "BootSourceOverrideTarget": word(&TARGETS, view.boot_override.target),
            "BootSourceOverrideTarget@Redfish.AllowableValues": words(&TARGETS),
            "BootSourceOverrideMode": config.firmware.redfish_mode(),
            "BootSourceOverrideMode@Redfish.AllowableValues": [config.firmware.redfish_mode()],
        },
        "ProcessorSummary": {
            "Count": 1,
            "CoreCount": config.cpus,
            "LogicalProcessorCount": config.cpus,
            "Model": "QEMU",
            "Status": status_ok(),
        },
        "MemorySummary": {"TotalSystemMemoryGiB": gib, "Status": status_ok()},
        "Processors": link("Processors"),
        "Memory": link("Memory"),
        "EthernetInterfaces": link("EthernetInterfaces"),
        "Storage": link("Storage"),
        "Links": {
            "Chassis": [{"@odata.id": "/redfish/v1/Chassis/1"}],
            "ManagedBy": [{"@odata.id": "/redfish/v1/Managers/1"}],
        },
        "Actions": {"#ComputerSystem.Reset": {
            "target": format!("{path}/Actions/ComputerSystem.Reset"),
            "ResetType@Redfish.AllowableValues": ResetType::ALL.map(ResetType::as_str),
        }},
    });
    if let Some(time) = view.last_reset {
        body["LastResetTime"] = json!(format!("{time:.0}"));
    }
    body
}

/// `POST .../Actions/ComputerSystem.Reset`.
pub(super) async fn reset(machine: &Machine, request: &Request) -> Result<Reply, ApiError> {
    const ACTION: &str = "ComputerSystem.Reset";
    let asked = reset_type(ACTION, request)?;
    let asked = asked.as_str();
    let reset = ResetType::ALL.into_iter().find(|r| r.as_str() == asked);
    let reset = reset.ok_or_else(|| ApiError::parameter_not_in_list(ACTION, "ResetType", asked))?;
    match machine.reset(reset).await {
        Ok(()) => Ok(Reply::no_content()),
        Err(error @ ResetError::Conflict { .. }) => Err(ApiError::conflict(&error.to_string())),
        Err(ResetError::Backend(error)) => {
            tracing::error!(host = machine.config().name, %error, "a reset failed");
            Err(ApiError::internal(&error.to_string()))
        }
    }
}

/// The one parameter of the two reset actions.
pub(super) fn reset_type(action: &'static str, request: &Request) -> Result<String, ApiError> {
    let body = object(&request.body)?;
    if let Some(unknown) = body.keys().find(|k| *k != "ResetType" && !k.starts_with('@')) {
        return Err(ApiError::parameter_unknown(action, unknown));
    }
    let asked = body.get("ResetType").ok_or_else(|| ApiError::parameter_missing(action, "ResetType"))?;
    asked.as_str().map(str::to_owned).ok_or_else(|| ApiError::property_type("ResetType", asked))
}

/// `PATCH` of the system. Checked whole before anything is changed.
pub(super) fn patch(machine: &Machine, request: &Request) -> Result<Reply, ApiError> {
    precondition(machine, request)?;
    let body = object(&request.body)?;
    if body.is_empty() {
        return Err(ApiError::empty_object());
    }
    let current = resource(machine);
    let mut asset_tag = None;
    let mut boot = None;
    for (name, value) in &body {
        match name.as_str() {
            "AssetTag" => {
                let text = value.as_str().ok_or_else(|| ApiError::property_type("AssetTag", value))?;
                asset_tag = Some(text.to_owned());
            }
            "Boot" => boot = Some(boot_override(machine, value)?),
            name if name.starts_with('@') => {}
            name if current.get(name).is_some() => return Err(ApiError::property_not_writable(name)),
            name => return Err(ApiError::property_unknown(name)),
        }
    }
    if let Some(boot) = boot {
        machine.set_override(boot);
    }
    if let Some(tag) = asset_tag {
        machine.set_asset_tag(tag);
    }
    Ok(Reply::ok(resource(machine)))
}

fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(ApiError::malformed_json()),
    }
}

fn precondition(machine: &Machine, request: &Request) -> Result<(), ApiError> {
    let config = machine.config();
    let current = etag(&machine.view());
    let list = |name: http::HeaderName| request.headers.get(name).and_then(|v| v.to_str().ok());
    // A weak tag with the same value is good enough for us; the specification lets services decide.
    let names =
        |text: &str| text.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == "*" || t == current);
    match list(IF_MATCH) {
        Some(text) if names(text) => Ok(()),
        Some(_) => Err(ApiError::precondition_failed()),
        None if list(IF_NONE_MATCH).is_some_and(names) => Err(ApiError::precondition_failed()),
        None => match config.bmc.if_match {
            IfMatch::Required => Err(ApiError::precondition_required()),
            IfMatch::Optional => Ok(()),
        },
    }
}

/// The override that results from patching `Boot` with `value`.
fn boot_override(machine: &Machine, value: &Value) -> Result<BootOverride, ApiError> {
    let Value::Object(map) = value else {
        return Err(ApiError::property_type("Boot", value));
    };
    let mut result = machine.view().boot_override;
    for (name, value) in map {
        let property = format!("Boot.{name}");
        let text = || value.as_str().ok_or_else(|| ApiError::property_type(&property, value));
        match name.as_str() {
            "BootSourceOverrideEnabled" => result.enabled = pick(&ENABLED, &property, text()?)?,
            "BootSourceOverrideTarget" => result.target = pick(&TARGETS, &property, text()?)?,
            "BootSourceOverrideMode" => {
                let mode = machine.config().firmware.redfish_mode();
                pick(&[(mode, ())], &property, text()?)?;
            }
            _ => return Err(ApiError::property_unknown(&property)),
        }
    }
    if result.target == OverrideTarget::None {
        // DSP2046: target None disables the override.
        result.enabled = OverrideEnabled::Disabled;
    }
    Ok(result)
}

fn pick<T: Copy>(table: &[(&'static str, T)], property: &str, asked: &str) -> Result<T, ApiError> {
    let found = table.iter().find(|(w, _)| *w == asked);
    found.map(|(_, v)| *v).ok_or_else(|| ApiError::property_not_in_list(property, asked))
}
