//! `data "vmetal_inventory"`: all that inspection and the BMC told of a host's hardware. The `inventory` of `data "vmetal_host"`
//! has the part that most configurations want.

use std::sync::Arc;

use tfplugin::{
    Attribute, Ctx, DataSource, Diagnostics, Found, Named, Pending, Schema, Type, Value,
    schema::{Nesting, Usage},
};
use vmetal_model::{
    BmcFacts, Host, Inventory,
    inventory::{Disk, Firmware, Nic, PciDevice},
};

use crate::{host::Hosts, managed::Managed, provider::Engine};

/// PCI base class of display controllers, which is what accelerators say they are (PCI Code and ID Assignment, 1.4).
const DISPLAY: u8 = 0x03;
/// Of those, what only drives a screen: VGA-compatible controllers, as boards have them for their console.
const VGA: u8 = 0x00;

/// The data source.
pub(crate) struct Hardware;

impl Hardware {
    pub(crate) fn register() -> Named<dyn DataSource<Engine>> {
        ("vmetal_inventory", Arc::new(Self))
    }

    async fn ask(ctx: &Ctx<Engine>, config: &Value) -> Result<Value, Diagnostics> {
        let asked = config.attr("host").as_str().unwrap_or_default();
        let host: Host = Managed::<Hosts>::lookup(ctx, asked).await?;
        let mut state = config.clone();
        state.set("inspected", host.status.inventory.is_some());
        state.set("bmc", host.status.bmc.as_ref().map(bmc));
        let found = host.status.inventory.as_ref().map(hardware);
        for name in attributes().map(|(name, _)| name) {
            state.set(name, found.as_ref().map_or(Value::Null, |found| found.attr(name).clone()));
        }
        Ok(state)
    }
}

fn text(what: &str) -> Attribute {
    Attribute::computed(Type::String).describe(what)
}

fn number(what: &str) -> Attribute {
    Attribute::computed(Type::Number).describe(what)
}

fn flag(what: &str) -> Attribute {
    Attribute::computed(Type::Bool).describe(what)
}

/// What inspection brings. Null as long as the host was not inspected.
fn attributes() -> impl Iterator<Item = (&'static str, Attribute)> {
    let system = [
        ("manufacturer", text("System manufacturer.")),
        ("product", text("Product name.")),
        ("serial", text("System serial number.")),
        ("uuid", text("System UUID.")),
    ];
    let cpu = [
        ("architecture", text("`x86_64` or `aarch64`.")),
        ("model", text("Model of the first processor.")),
        ("sockets", number("Populated sockets.")),
        ("cores", number("Physical cores over all sockets.")),
        ("threads", number("Hardware threads: what Kubernetes counts as `cpu`.")),
    ];
    let disks = [
        ("name", text("Kernel name, such as `nvme0n1`; may change between boots.")),
        ("size_bytes", number("Capacity in bytes.")),
        ("sector_bytes", number("Logical sector size in bytes.")),
        ("bus", text("`nvme`, `sata`, `sas`, `virtio`, `usb` or `other`.")),
        ("rotational", flag("Whether the media spins.")),
        ("vendor", text("Vendor.")),
        ("model", text("Model.")),
        ("serial", text("Serial number.")),
        ("wwn", text("World wide name.")),
        ("hctl", text("SCSI `host:channel:target:lun`.")),
    ];
    let nics = [
        ("name", text("Kernel name.")),
        ("mac", text("Permanent address.")),
        ("driver", text("Driver.")),
        ("speed_mbps", number("Link speed in Mbit/s.")),
        ("link_up", flag("Whether a carrier was seen.")),
        ("pci_address", text("PCI address, such as `0000:01:00.0`.")),
        ("boot", flag("Whether the installer was booted over it.")),
    ];
    let all = |what: &str, nesting, attributes: Vec<(&'static str, Attribute)>| {
        Attribute::nested(nesting, Usage::Computed, attributes).describe(what)
    };
    [
        ("system", all("Who the machine says it is (SMBIOS type 1).", Nesting::Single, system.into())),
        ("cpu", all("The processors, taken together.", Nesting::Single, cpu.into())),
        ("memory_bytes", number("Installed memory in bytes, as the kernel sees it.")),
        ("firmware", text("How the installer was booted: `uefi` or `bios`.")),
        ("disks", all("Disks that a system could be installed on.", Nesting::List, disks.into())),
        ("nics", all("Physical network interfaces.", Nesting::List, nics.into())),
        ("pci", all("All PCI functions.", Nesting::List, function().into())),
        (
            "accelerators",
            all(
                "PCI functions that are GPUs and their like, consoles' VGA controllers left out.",
                Nesting::List,
                function().into(),
            ),
        ),
    ]
    .into_iter()
}

fn function() -> [(&'static str, Attribute); 4] {
    [
        ("address", text("`domain:bus:device.function`.")),
        ("vendor", text("Vendor id, four hexadecimal digits.")),
        ("device", text("Device id, four hexadecimal digits.")),
        ("class", text("Class code, six hexadecimal digits.")),
    ]
}

fn hardware(found: &Inventory) -> Value {
    let Inventory { identity, cpu, memory_bytes, disks, nics, pci, firmware } = found;
    let accelerator = |one: &&PciDevice| one.class.base() == DISPLAY && one.class.subclass() != VGA;
    Value::object([
        (
            "system",
            Value::object([
                ("manufacturer", identity.manufacturer.clone()),
                ("product", identity.product.clone()),
                ("serial", identity.serial.clone()),
                ("uuid", identity.uuid.clone()),
            ]),
        ),
        (
            "cpu",
            Value::object([
                ("architecture", Value::from(cpu.architecture.clone())),
                ("model", cpu.model.clone().into()),
                ("sockets", u64::from(cpu.sockets).into()),
                ("cores", u64::from(cpu.cores).into()),
                ("threads", u64::from(cpu.threads).into()),
            ]),
        ),
        ("memory_bytes", (*memory_bytes).into()),
        (
            "firmware",
            match firmware {
                Firmware::Bios => "bios".into(),
                Firmware::Uefi => "uefi".into(),
            },
        ),
        ("disks", Value::List(disks.iter().map(disk).collect())),
        ("nics", Value::List(nics.iter().map(nic).collect())),
        ("pci", Value::List(pci.iter().map(pci_function).collect())),
        ("accelerators", Value::List(pci.iter().filter(accelerator).map(pci_function).collect())),
    ])
}

fn disk(disk: &Disk) -> Value {
    Value::object([
        ("name", Value::from(disk.name.clone())),
        ("size_bytes", disk.size_bytes.into()),
        ("sector_bytes", u64::from(disk.sector_bytes).into()),
        ("bus", disk.bus.clone().into()),
        ("rotational", disk.rotational.into()),
        ("vendor", disk.vendor.clone().into()),
        ("model", disk.model.clone().into()),
        ("serial", disk.serial.clone().into()),
        ("wwn", disk.wwn.clone().into()),
        ("hctl", disk.hctl.clone().into()),
    ])
}

fn nic(nic: &Nic) -> Value {
    Value::object([
        ("name", Value::from(nic.name.clone())),
        ("mac", nic.mac.to_string().into()),
        ("driver", nic.driver.clone().into()),
        ("speed_mbps", nic.speed_mbps.map(u64::from).into()),
        ("link_up", nic.link_up.into()),
        ("pci_address", nic.pci_address.clone().into()),
        ("boot", nic.boot.into()),
    ])
}

fn pci_function(one: &PciDevice) -> Value {
    Value::object([
        ("address", one.address.clone()),
        ("vendor", one.vendor.to_string()),
        ("device", one.device.to_string()),
        ("class", one.class.to_string()),
    ])
}

fn bmc(facts: &BmcFacts) -> Value {
    Value::object([
        ("system_path", Value::from(facts.system_path.clone())),
        ("manufacturer", facts.manufacturer.clone().into()),
        ("model", facts.model.clone().into()),
        ("serial", facts.serial.clone().into()),
        ("firmware", facts.firmware.clone().into()),
        ("redfish_version", facts.redfish_version.clone().into()),
        ("certificate", facts.certificate.clone().into()),
    ])
}

impl DataSource<Engine> for Hardware {
    fn schema(&self) -> Schema {
        let bmc = [
            ("system_path", text("The path of the Redfish system.")),
            ("manufacturer", text("Manufacturer.")),
            ("model", text("Model.")),
            ("serial", text("Serial number of the system.")),
            ("firmware", text("Firmware version of the BMC.")),
            ("redfish_version", text("Redfish protocol version.")),
            ("certificate", text("SHA-256 fingerprint of the certificate that it showed, if TLS was used.")),
        ];
        let own = [
            ("host", Attribute::required(Type::String).describe("The name (or id) of the host.")),
            ("inspected", flag("Whether the host was inspected; what inspection finds is null before.")),
            (
                "bmc",
                Attribute::nested(Nesting::Single, Usage::Computed, bmc)
                    .describe("What the BMC told at registration; null before."),
            ),
        ];
        Schema::new(
            "The hardware of a host, as the installer found it at the last inspection: processors, memory, disks, network \
             interfaces, PCI functions, DMI.",
            own.into_iter().chain(attributes()),
        )
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Found> {
        Box::pin(async move { Self::ask(ctx, &config).await.into() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn accelerators_are_not_the_console() {
        let one = |class: &str| PciDevice { class: class.parse().unwrap(), ..PciDevice::default() };
        let pci = vec![one("030000"), one("030200"), one("020000")];
        let found = hardware(&Inventory { pci, ..Inventory::default() });
        assert_eq!(found.attr("pci").as_list().unwrap().len(), 3);
        let accelerators = found.attr("accelerators").as_list().unwrap();
        assert_eq!(accelerators.len(), 1);
        assert_eq!(accelerators[0].attr("class"), &Value::from("030200"));
    }
}
