//! The Redfish service of a BMC, before a machine.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vmetal_bmc::wire::{WireAnswer, WireRequest};
use vmetal_model::BootMode;

use crate::machine::Machine;
use crate::scenario::USER;
use crate::world::World;

const SYSTEM: &str = "/redfish/v1/Systems/1";
pub(super) const MANAGER: &str = "/redfish/v1/Managers/1";

pub(super) fn answer(status: u16, body: Value) -> WireAnswer {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    WireAnswer { status, headers: HeaderMap::new(), body }
}

fn refusal(status: u16, text: &str) -> WireAnswer {
    answer(status, json!({ "error": { "message": text } }))
}

/// The Redfish service (DSP0266), as far as the engine uses it.
pub(super) fn serve(world: &Arc<World>, index: usize, request: &WireRequest) -> WireAnswer {
    let path = request.url.path().trim_end_matches('/');
    if path == "/redfish/v1" {
        return answer(200, json!({ "RedfishVersion": "1.18.0", "Systems": { "@odata.id": "/redfish/v1/Systems" } }));
    }
    let expected = format!("{USER}:{}", world.inner().machines[index].password);
    let expected = base64::engine::general_purpose::STANDARD.encode(expected);
    if credentials(request) != format!("Basic {expected}") {
        return refusal(401, "wrong credentials");
    }
    let body: Value = request.body.as_deref().and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
    match (request.method.as_str(), path) {
        ("GET", "/redfish/v1/Systems") => answer(200, json!({ "Members": [{ "@odata.id": SYSTEM }] })),
        ("GET", SYSTEM) => system(&world.inner().machines[index]),
        ("GET", MANAGER) => answer(
            200,
            json!({
                "FirmwareVersion": "7.10",
                "Actions": { "#Manager.Reset": {
                    "target": format!("{MANAGER}/Actions/Manager.Reset"),
                    "ResetType@Redfish.AllowableValues": ["GracefulRestart", "ForceRestart"],
                } },
            }),
        ),
        ("PATCH", SYSTEM) => patch(&mut world.inner().machines[index], request, &body),
        ("POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset") => reset(world, index, &body),
        ("POST", "/redfish/v1/Managers/1/Actions/Manager.Reset") => {
            let machine = &mut world.inner().machines[index];
            machine.bmc_away = Some(Instant::now() + Duration::from_secs(90));
            machine.drop_reset();
            answer(204, Value::Null)
        }
        _ => refusal(404, "no such resource"),
    }
}

/// What a request says to be let in.
pub(super) fn credentials(request: &WireRequest) -> &str {
    request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn etag(machine: &Machine) -> String {
    format!("W/\"{}\"", machine.etag)
}

fn system(machine: &Machine) -> WireAnswer {
    let mode = match machine.mode {
        BootMode::Uefi => "UEFI",
        BootMode::Bios => "Legacy",
    };
    let (target, enabled) = if machine.network_next { ("Pxe", "Once") } else { ("None", "Disabled") };
    let mut told = answer(
        200,
        json!({
            "@odata.id": SYSTEM, "Manufacturer": "Simulated", "Model": "S1", "SerialNumber": machine.serial,
            "UUID": machine.uuid, "PowerState": if machine.on { "On" } else { "Off" },
            "Boot": {
                "BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": enabled, "BootSourceOverrideMode": mode,
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd"],
            },
            "Links": { "ManagedBy": [{ "@odata.id": MANAGER }] },
            "Actions": { "#ComputerSystem.Reset": {
                "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
                "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart"],
            } },
        }),
    );
    if let Ok(value) = HeaderValue::from_str(&etag(machine)) {
        told.headers.insert(header::ETAG, value);
    }
    told
}

fn patch(machine: &mut Machine, request: &WireRequest, body: &Value) -> WireAnswer {
    let wanted = request.headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
    if wanted.is_some_and(|wanted| wanted != "*" && wanted != etag(machine)) {
        return refusal(412, "the resource has changed");
    }
    let boot = &body["Boot"];
    if boot["BootSourceOverrideTarget"] != "Pxe" || boot["BootSourceOverrideEnabled"] != "Once" {
        return refusal(400, "only a network boot at the next start is simulated");
    }
    machine.network_next = true;
    machine.etag += 1;
    answer(200, json!({}))
}

/// A reset is accepted at once and performed a little later, or much later, or never.
fn reset(world: &Arc<World>, index: usize, body: &Value) -> WireAnswer {
    let mut inner = world.inner();
    let machine = &mut inner.machines[index];
    let (on, now) = (machine.on, Instant::now());
    if machine.reset.as_ref().is_some_and(|(_, until)| *until > now) {
        return refusal(409, "a job of this system is running");
    }
    let delay = world.chance.between(Duration::from_millis(100), Duration::from_secs(4));
    let hangs = machine.next_reset_hangs.take();
    let world = Arc::clone(world);
    let done = match (body["ResetType"].as_str(), on) {
        (Some("On"), false) => tokio::spawn(async move {
            sleep(delay + hangs.unwrap_or_default()).await;
            world.power_on(index);
        }),
        (Some("ForceOff"), true) => tokio::spawn(async move {
            sleep(delay + hangs.unwrap_or_default()).await;
            world.power_off(index, "BMC");
        }),
        (Some("On" | "ForceOff"), _) => return refusal(409, "the system is in that state already"),
        _ => return refusal(400, "no such reset type"),
    };
    // One that does not hang is no job that the BMC knows of.
    machine.reset = Some((done.abort_handle(), hangs.map_or(now, |hangs| now + delay + hangs)));
    answer(if hangs.is_some() { 202 } else { 204 }, Value::Null)
}
