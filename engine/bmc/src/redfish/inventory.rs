//! What a BMC knows of the hardware without booting it: less, and less exact, than what the installer finds. Where a BMC
//! does not tell, the field stays empty or zero; nothing is guessed.

use serde_json::Value;
use vmetal_model::inventory::{Cpu, Disk, Firmware, Identity, Nic};
use vmetal_model::{Inventory, MacAddr};

use super::system::{System, text};

fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or(0)
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Puts together what was read of a system.
pub(crate) fn assemble(system: &System, processors: &[Value], drives: &[Value], nics: &[Value]) -> Inventory {
    let gib = f64::from(1u32 << 30);
    // Float to integer casts saturate; a negative or absurd amount becomes 0 or the maximum.
    let memory_bytes = (system.links.memory_gib.unwrap_or(0.0) * gib) as u64;
    Inventory {
        identity: Identity {
            serial: system.facts.serial.clone(),
            uuid: system.facts.uuid.clone(),
            manufacturer: system.facts.manufacturer.clone(),
            product: system.facts.model.clone(),
        },
        cpu: cpu(system, processors),
        memory_bytes,
        disks: drives.iter().map(disk).collect(),
        nics: nics.iter().filter_map(nic).collect(),
        pci: Vec::new(),
        firmware: if system.boot.mode.as_deref() == Some("Legacy") { Firmware::Bios } else { Firmware::Uefi },
    }
}

fn cpu(system: &System, processors: &[Value]) -> Cpu {
    // GPUs, FPGAs and accelerators are listed beside CPUs (DSP0268 `ProcessorType`); empty sockets are `Absent`.
    let cpus: Vec<&Value> = processors
        .iter()
        .filter(|p| matches!(p["ProcessorType"].as_str(), None | Some("CPU")))
        .filter(|p| p["Status"]["State"].as_str() != Some("Absent"))
        .collect();
    let sum = |member: &str| small(cpus.iter().map(|p| number(p, member)).sum());
    let summary = &system.links.processor_summary;
    let Some(first) = cpus.first() else {
        return Cpu {
            model: text(summary, "Model").unwrap_or_default(),
            sockets: small(number(summary, "Count")),
            cores: small(number(summary, "CoreCount")),
            threads: small(number(summary, "LogicalProcessorCount")),
            ..Cpu::default()
        };
    };
    let architecture = match (first["InstructionSet"].as_str(), first["ProcessorArchitecture"].as_str()) {
        (Some("x86-64"), _) | (None, Some("x86")) => "x86_64",
        (Some("ARM-A64"), _) | (None, Some("ARM")) => "aarch64",
        _ => "",
    };
    Cpu {
        architecture: architecture.into(),
        model: text(first, "Model").unwrap_or_default(),
        sockets: small(cpus.len() as u64),
        cores: sum("TotalCores"),
        threads: sum("TotalThreads"),
    }
}

fn disk(drive: &Value) -> Disk {
    let bus = match drive["Protocol"].as_str() {
        Some("NVMe" | "PCIe") => "nvme",
        Some("SATA") => "sata",
        Some("SAS") => "sas",
        Some("USB") => "usb",
        _ => "other",
    };
    let wwn = drive["Identifiers"].as_array().into_iter().flatten().find_map(|id| text(id, "DurableName"));
    Disk {
        name: text(drive, "Id").or_else(|| text(drive, "Name")).unwrap_or_default(),
        size_bytes: number(drive, "CapacityBytes"),
        bus: bus.into(),
        rotational: drive["MediaType"].as_str() == Some("HDD"),
        vendor: text(drive, "Manufacturer"),
        model: text(drive, "Model"),
        serial: text(drive, "SerialNumber"),
        wwn,
        hctl: None,
        sector_bytes: small(number(drive, "BlockSizeBytes")),
    }
}

/// `None` for an interface without a readable address: nothing can be matched with it.
fn nic(interface: &Value) -> Option<Nic> {
    let mac: MacAddr = ["PermanentMACAddress", "MACAddress"].iter().find_map(|m| text(interface, m)?.parse().ok())?;
    Some(Nic {
        name: text(interface, "Id").unwrap_or_default(),
        mac,
        driver: None,
        speed_mbps: interface["SpeedMbps"].as_u64().filter(|speed| *speed > 0).map(small),
        link_up: interface["LinkStatus"].as_str() == Some("LinkUp"),
        pci_address: None,
        boot: false,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::redfish::path::ResourcePath;

    #[test]
    fn what_is_told_is_taken_and_nothing_is_guessed() {
        let value = json!({"SerialNumber": "S1", "MemorySummary": {"TotalSystemMemoryGiB": 1.5},
            "Boot": {"BootSourceOverrideMode": "Legacy"}});
        let system = System::read(&ResourcePath::root(), &value, None).unwrap();
        let processors = [
            json!({"ProcessorType": "CPU", "Model": "EPYC ", "TotalCores": 32, "TotalThreads": 64, "InstructionSet": "x86-64"}),
            json!({"ProcessorType": "CPU", "TotalCores": 32, "TotalThreads": 64}),
            json!({"ProcessorType": "GPU", "TotalCores": 18432}),
            json!({"ProcessorType": "CPU", "Status": {"State": "Absent"}}),
        ];
        let drives = [json!({"Id": "0", "Protocol": "NVMe", "CapacityBytes": 960_197_124_096_u64,
            "SerialNumber": " X ", "MediaType": "SSD", "Identifiers": [{"DurableName": "eui.01"}]})];
        let nics = [json!({"Id": "1", "MACAddress": "52-54-00-AB-CD-01"}), json!({"Id": "2"})];
        let inventory = assemble(&system, &processors, &drives, &nics);
        assert_eq!((inventory.cpu.sockets, inventory.cpu.cores, inventory.cpu.threads), (2, 64, 128));
        assert_eq!((inventory.cpu.model.as_str(), inventory.cpu.architecture.as_str()), ("EPYC", "x86_64"));
        assert_eq!(inventory.memory_bytes, 3 << 29);
        assert_eq!(inventory.disks[0].serial.as_deref(), Some("X"));
        assert_eq!((inventory.disks[0].bus.as_str(), inventory.disks[0].sector_bytes), ("nvme", 0));
        assert_eq!(inventory.nics.len(), 1);
        assert_eq!(inventory.nics[0].mac.to_string(), "52:54:00:ab:cd:01");
        assert_eq!(inventory.firmware, Firmware::Bios);
    }

    #[test]
    fn without_processor_resources_the_summary_speaks() {
        let value =
            json!({"ProcessorSummary": {"Count": 2, "CoreCount": 8, "LogicalProcessorCount": 16, "Model": "M"}});
        let system = System::read(&ResourcePath::root(), &value, None).unwrap();
        let cpu = assemble(&system, &[], &[], &[]).cpu;
        assert_eq!((cpu.sockets, cpu.cores, cpu.threads, cpu.model.as_str()), (2, 8, 16, "M"));
    }
}
