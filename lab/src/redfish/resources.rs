//! The resources that can only be read: service root, inventory, chassis, manager.

use serde_json::{Value, json};

use super::REDFISH_VERSION;
use super::auth::SESSION_TIMEOUT_S;
use crate::config::{DiskBus, HostConfig};
use crate::machine::View;

/// The values of `Manager.Reset` that the lab takes.
pub(super) const MANAGER_RESETS: [&str; 2] = ["GracefulRestart", "ForceRestart"];

/// How long passwords are.
pub(super) const MIN_PASSWORD: usize = 8;
pub(super) const MAX_PASSWORD: usize = 64;

/// `Status` of something present and well.
pub(super) fn status_ok() -> Value {
    json!({"State": "Enabled", "Health": "OK", "HealthRollup": "OK"})
}

fn collection(path: &str, kind: &str, ids: &[String]) -> Value {
    let members: Vec<Value> = ids.iter().map(|id| json!({"@odata.id": format!("{path}/{id}")})).collect();
    json!({
        "@odata.id": path,
        "@odata.type": format!("#{kind}Collection.{kind}Collection"),
        "Name": format!("{kind} collection"),
        "Members@odata.count": members.len(),
        "Members": members,
    })
}

fn count(n: usize) -> Vec<String> {
    (1..=n).map(|i| i.to_string()).collect()
}

/// Position of a member whose ids count from 1.
fn position(id: &str, members: usize) -> Option<usize> {
    id.parse::<usize>().ok().filter(|i| (1..=members).contains(i)).map(|i| i - 1)
}

/// The resource at `path` (segments after `/redfish/v1`), if there is one.
pub(super) fn get(config: &HostConfig, view: &View, path: &[&str]) -> Option<Value> {
    let here = ["/redfish/v1"].into_iter().chain(path.iter().copied()).collect::<Vec<_>>().join("/");
    let one = |kind: &str| collection(&here, kind, &count(1));
    Some(match path {
        [] => service_root(config),
        ["odata"] => odata(),
        ["SessionService"] => session_service(),
        ["AccountService"] => account_service(),
        ["AccountService", "Accounts"] => one("ManagerAccount"),
        ["AccountService", "Accounts", "1"] => account(config),
        ["Systems"] => collection(&here, "ComputerSystem", std::slice::from_ref(&config.bmc.system_id)),
        ["Systems", id, rest @ ..] if *id == config.bmc.system_id => return system_part(config, &here, rest),
        ["Chassis"] => one("Chassis"),
        ["Chassis", "1"] => chassis(config, view),
        ["Managers"] => one("Manager"),
        ["Managers", "1"] => manager(config),
        _ => return None,
    })
}

fn service_root(config: &HostConfig) -> Value {
    json!({
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_17_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Root Service",
        "RedfishVersion": REDFISH_VERSION,
        "UUID": config.system_uuid(),
        "Vendor": config.manufacturer,
        "Product": "vmetal-lab BMC",
        "ProtocolFeaturesSupported": {
            "ExpandQuery": {"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false},
            "FilterQuery": false,
            "SelectQuery": false,
            "OnlyMemberQuery": false,
            "ExcerptQuery": false,
        },
        "Systems": {"@odata.id": "/redfish/v1/Systems"},
        "Chassis": {"@odata.id": "/redfish/v1/Chassis"},
        "Managers": {"@odata.id": "/redfish/v1/Managers"},
        "SessionService": {"@odata.id": "/redfish/v1/SessionService"},
        "AccountService": {"@odata.id": "/redfish/v1/AccountService"},
        "Links": {"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}},
    })
}

fn odata() -> Value {
    let entry = |name: &str| json!({"name": name, "kind": "Singleton", "url": format!("/redfish/v1/{name}")});
    json!({
        "@odata.context": "/redfish/v1/$metadata",
        "value": [entry("Systems"), entry("Chassis"), entry("Managers"), entry("SessionService"), entry("AccountService")],
    })
}

fn account_service() -> Value {
    json!({
        "@odata.id": "/redfish/v1/AccountService",
        "@odata.type": "#AccountService.v1_15_0.AccountService",
        "Id": "AccountService",
        "Name": "Account Service",
        "ServiceEnabled": true,
        "MinPasswordLength": MIN_PASSWORD,
        "MaxPasswordLength": MAX_PASSWORD,
        "Status": status_ok(),
        "Accounts": {"@odata.id": "/redfish/v1/AccountService/Accounts"},
    })
}

fn account(config: &HostConfig) -> Value {
    json!({
        "@odata.id": "/redfish/v1/AccountService/Accounts/1",
        "@odata.type": "#ManagerAccount.v1_12_0.ManagerAccount",
        "Id": "1",
        "Name": "Account",
        "UserName": config.bmc.username,
        // Never shown (DSP0268).
        "Password": null,
        "Enabled": true,
        "Locked": false,
        "RoleId": "Administrator",
    })
}

fn session_service() -> Value {
    json!({
        "@odata.id": "/redfish/v1/SessionService",
        "@odata.type": "#SessionService.v1_1_9.SessionService",
        "Id": "SessionService",
        "Name": "Session Service",
        "ServiceEnabled": true,
        "SessionTimeout": SESSION_TIMEOUT_S,
        "Status": status_ok(),
        "Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"},
    })
}

fn system_part(config: &HostConfig, here: &str, path: &[&str]) -> Option<Value> {
    let macs: Vec<String> = config.macs().map(|m| m.to_string()).collect();
    Some(match path {
        ["Processors"] => collection(here, "Processor", &["CPU1".to_owned()]),
        ["Processors", "CPU1"] => json!({
            "@odata.id": here,
            "@odata.type": "#Processor.v1_19_0.Processor",
            "Id": "CPU1",
            "Name": "CPU1",
            "Socket": "CPU1",
            "ProcessorType": "CPU",
            "ProcessorArchitecture": "x86",
            "InstructionSet": "x86-64",
            "Manufacturer": "QEMU",
            "Model": "QEMU",
            "TotalCores": config.cpus,
            "TotalThreads": config.cpus,
            "Status": status_ok(),
        }),
        ["Memory"] => collection(here, "Memory", &["DIMM1".to_owned()]),
        ["Memory", "DIMM1"] => json!({
            "@odata.id": here,
            "@odata.type": "#Memory.v1_19_0.Memory",
            "Id": "DIMM1",
            "Name": "DIMM1",
            "MemoryType": "DRAM",
            "CapacityMiB": config.memory_mib,
            "DeviceLocator": "DIMM1",
            "Status": status_ok(),
        }),
        ["EthernetInterfaces"] => collection(here, "EthernetInterface", &count(macs.len())),
        ["EthernetInterfaces", id] => {
            let mac = &macs[position(id, macs.len())?];
            json!({
                "@odata.id": here,
                "@odata.type": "#EthernetInterface.v1_12_0.EthernetInterface",
                "Id": id,
                "Name": format!("NIC {id}"),
                "InterfaceEnabled": true,
                "LinkStatus": "LinkUp",
                "MACAddress": mac,
                "PermanentMACAddress": mac,
                "Status": status_ok(),
            })
        }
        ["Storage"] => collection(here, "Storage", &count(1)),
        ["Storage", "1"] => {
            let drives: Vec<Value> = count(config.disks.len())
                .iter()
                .map(|id| json!({"@odata.id": format!("{here}/Drives/{id}")}))
                .collect();
            json!({
                "@odata.id": here,
                "@odata.type": "#Storage.v1_16_0.Storage",
                "Id": "1",
                "Name": "Local storage",
                "Drives@odata.count": drives.len(),
                "Drives": drives,
                "Status": status_ok(),
            })
        }
        ["Storage", "1", "Drives", id] => drive(config, here, position(id, config.disks.len())?)?,
        _ => return None,
    })
}

fn drive(config: &HostConfig, here: &str, index: usize) -> Option<Value> {
    let disk = config.disks.get(index)?;
    let (model, protocol) = match disk.bus {
        DiskBus::Nvme => ("QEMU NVMe Ctrl", Some("NVMe")),
        DiskBus::Sata => ("QEMU HARDDISK", Some("SATA")),
        // The schema knows no word for virtio.
        DiskBus::Virtio => ("virtio-blk", None),
    };
    let mut body = json!({
        "@odata.id": here,
        "@odata.type": "#Drive.v1_20_0.Drive",
        "Id": (index + 1).to_string(),
        "Name": format!("Disk {}", index + 1),
        "Manufacturer": "QEMU",
        "Model": model,
        "SerialNumber": config.disk_serial(index),
        "CapacityBytes": disk.size_gib << 30,
        "BlockSizeBytes": 512,
        "MediaType": "SSD",
        "Status": status_ok(),
    });
    if let Some(protocol) = protocol {
        body["Protocol"] = json!(protocol);
    }
    Some(body)
}

fn chassis(config: &HostConfig, view: &View) -> Value {
    json!({
        "@odata.id": "/redfish/v1/Chassis/1",
        "@odata.type": "#Chassis.v1_25_0.Chassis",
        "Id": "1",
        "Name": "Chassis",
        "ChassisType": "RackMount",
        "Manufacturer": config.manufacturer,
        "Model": config.model,
        "SerialNumber": config.serial(),
        "PowerState": view.power.as_str(),
        "Status": status_ok(),
        "Links": {
            "ComputerSystems": [{"@odata.id": format!("/redfish/v1/Systems/{}", config.bmc.system_id)}],
            "ManagedBy": [{"@odata.id": "/redfish/v1/Managers/1"}],
        },
    })
}

fn manager(config: &HostConfig) -> Value {
    json!({
        "@odata.id": "/redfish/v1/Managers/1",
        "@odata.type": "#Manager.v1_19_0.Manager",
        "Id": "1",
        "Name": "BMC",
        "ManagerType": "BMC",
        "Manufacturer": config.manufacturer,
        "Model": "vmetal-lab BMC",
        "FirmwareVersion": env!("CARGO_PKG_VERSION"),
        "DateTime": format!("{:.0}", crate::clock::now()),
        "DateTimeLocalOffset": "+00:00",
        "PowerState": "On",
        "Status": status_ok(),
        "Links": {
            "ManagerForServers": [{"@odata.id": format!("/redfish/v1/Systems/{}", config.bmc.system_id)}],
            "ManagerForChassis": [{"@odata.id": "/redfish/v1/Chassis/1"}],
        },
        "Actions": {"#Manager.Reset": {
            "target": "/redfish/v1/Managers/1/Actions/Manager.Reset",
            "ResetType@Redfish.AllowableValues": MANAGER_RESETS,
        }},
    })
}
