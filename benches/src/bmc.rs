//! Redfish BMCs of simulated servers: what the engine uses of DSP0266, with basic authentication, ETags and a one-shot boot
//! override, and the ways in which a sick BMC misbehaves.

use std::net::Ipv4Addr;
use std::sync::Arc;

use base64::Engine as _;
use http::Method;
use http::header::{AUTHORIZATION, ETAG, HeaderValue, IF_MATCH};
use serde_json::{Value, json};

use crate::machine::{Machine, Sickness};
use crate::web::{Answer, Call, json as reply, raw};

/// The account that every simulated BMC knows.
pub const USERNAME: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "bench-password";

const SYSTEM: &str = "/redfish/v1/Systems/1";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

/// The first address of BMCs: number n is n addresses further.
const FIRST: u32 = u32::from_be_bytes([127, 64, 0, 1]);

/// Where BMC number `index` is.
pub fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + index)
}

/// All BMCs.
pub struct Bmcs {
    machines: Arc<Vec<Arc<Machine>>>,
    authorization: HeaderValue,
}

impl Bmcs {
    /// The BMCs of these machines, by number.
    pub fn new(machines: Arc<Vec<Arc<Machine>>>) -> Self {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USERNAME}:{PASSWORD}"));
        // Base64 is ASCII.
        let authorization = HeaderValue::try_from(format!("Basic {pair}")).unwrap_or(HeaderValue::from_static(""));
        Bmcs { machines, authorization }
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, call: Call) -> Answer {
        let index = u32::from(call.to).wrapping_sub(FIRST);
        let Some(machine) = usize::try_from(index).ok().and_then(|index| self.machines.get(index)) else {
            return error(404, "there is no BMC at this address");
        };
        match machine.sickness {
            Sickness::Healthy => {}
            Sickness::Hangs => std::future::pending().await,
            Sickness::Busy => return error(503, "the BMC is busy"),
            Sickness::Truncates => return raw(200, &br#"{"@odata.id": "/redfish/v1/", "Systems": {"@od"#[..]),
        }
        let path = call.head.uri.path();
        if path.trim_end_matches('/') == "/redfish/v1" {
            return reply(200, &root());
        }
        if call.head.headers.get(AUTHORIZATION) != Some(&self.authorization) {
            return error(401, "wrong user name or password");
        }
        match (&call.head.method, path) {
            (&Method::GET, "/redfish/v1/Systems") => reply(200, &json!({ "Members": [{ "@odata.id": SYSTEM }] })),
            (&Method::GET, SYSTEM) => shown(machine),
            (&Method::PATCH, SYSTEM) => patch(machine, &call),
            (&Method::POST, RESET) => reset(machine, &call.json()),
            (&Method::GET, "/redfish/v1/Managers/1") => {
                reply(200, &json!({ "Id": "1", "ManagerType": "BMC", "FirmwareVersion": "1.0" }))
            }
            _ => error(404, "there is no such resource"),
        }
    }
}

fn error(status: u16, message: &str) -> Answer {
    reply(status, &json!({ "error": { "code": "Base.1.18.GeneralError", "message": message } }))
}

fn root() -> Value {
    json!({
        "@odata.id": "/redfish/v1/", "Id": "RootService", "RedfishVersion": "1.20.0",
        "Systems": { "@odata.id": "/redfish/v1/Systems" }, "Managers": { "@odata.id": "/redfish/v1/Managers" },
    })
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn shown(machine: &Machine) -> Answer {
    let now = machine.view();
    let mut answer = reply(
        200,
        &json!({
            "@odata.id": SYSTEM,
            "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem",
            "Id": "1",
            "Name": machine.name,
            "Manufacturer": "vmetal",
            "Model": "bench",
            "SerialNumber": machine.serial(),
            "UUID": machine.uuid(),
            "PowerState": if now.on { "On" } else { "Off" },
            "Status": { "State": "Enabled", "Health": "OK", "HealthRollup": "OK" },
            "Boot": {
                "BootSourceOverrideEnabled": if now.network_once { "Once" } else { "Disabled" },
                "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"],
                "BootSourceOverrideTarget": if now.network_once { "Pxe" } else { "None" },
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd"],
                "BootSourceOverrideMode": "UEFI",
                "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI"],
            },
            "ProcessorSummary": { "Count": 2, "CoreCount": 64, "LogicalProcessorCount": 128, "Model": "Simulated" },
            "MemorySummary": { "TotalSystemMemoryGiB": 512 },
            "Links": {
                "Chassis": [{ "@odata.id": "/redfish/v1/Chassis/1" }],
                "ManagedBy": [{ "@odata.id": "/redfish/v1/Managers/1" }],
            },
            "Actions": { "#ComputerSystem.Reset": {
                "target": RESET,
                "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart", "GracefulShutdown"],
            }},
        }),
    );
    if let Ok(value) = HeaderValue::try_from(etag(now.revision)) {
        answer.headers_mut().insert(ETAG, value);
    }
    answer
}

fn patch(machine: &Machine, call: &Call) -> Answer {
    if let Some(wanted) = call.head.headers.get(IF_MATCH)
        && wanted.as_bytes() != etag(machine.view().revision).as_bytes()
        && wanted.as_bytes() != b"*"
    {
        return error(412, "the resource has changed");
    }
    let boot = &call.json()["Boot"];
    if boot["BootSourceOverrideTarget"] != "Pxe" || boot["BootSourceOverrideEnabled"] != "Once" {
        return error(400, "only a network boot, once, can be set");
    }
    machine.boot_from_network_once();
    raw(204, "")
}

fn reset(machine: &Arc<Machine>, body: &Value) -> Answer {
    match body["ResetType"].as_str() {
        Some("On") => machine.power_on(),
        Some("ForceOff") => machine.power_off(),
        _ => return error(400, "only On and ForceOff are known"),
    }
    raw(204, "")
}
