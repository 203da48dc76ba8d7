//! What inspection found, as attributes.

use tfplugin::{
    Attribute, Type, Value,
    schema::{Nesting, Usage},
};
use vmetal_model::{
    Inventory,
    inventory::{Disk, Nic},
};

fn computed(ty: Type, description: &str) -> Attribute {
    Attribute::computed(ty).describe(description)
}

/// The `inventory` attribute.
pub(crate) fn attribute() -> Attribute {
    let disks = [
        ("name", computed(Type::String, "Kernel name, such as `nvme0n1`.")),
        ("size_bytes", computed(Type::Number, "Capacity in bytes.")),
        ("bus", computed(Type::String, "`nvme`, `sata`, `sas`, `virtio`, `usb` or `other`.")),
        ("rotational", computed(Type::Bool, "Whether the media spins.")),
        ("model", computed(Type::String, "Model.")),
        ("serial", computed(Type::String, "Serial number.")),
        ("wwn", computed(Type::String, "World wide name.")),
    ];
    let nics = [
        ("name", computed(Type::String, "Kernel name.")),
        ("mac", computed(Type::String, "Permanent address.")),
        ("speed_mbps", computed(Type::Number, "Link speed in Mbit/s.")),
        ("link_up", computed(Type::Bool, "Whether a carrier was seen.")),
    ];
    let all = [
        ("vendor", computed(Type::String, "System manufacturer.")),
        ("model", computed(Type::String, "Product name.")),
        ("serial", computed(Type::String, "System serial number.")),
        ("architecture", computed(Type::String, "`x86_64` or `aarch64`.")),
        ("cpus", computed(Type::Number, "Hardware threads: what Kubernetes counts as `cpu`.")),
        ("memory_bytes", computed(Type::Number, "Installed memory in bytes.")),
        (
            "disks",
            Attribute::nested(Nesting::List, Usage::Computed, disks)
                .describe("Disks that a system could be installed on."),
        ),
        ("nics", Attribute::nested(Nesting::List, Usage::Computed, nics).describe("Physical network interfaces.")),
    ];
    Attribute::nested(Nesting::Single, Usage::Computed, all)
        .describe("What inspection found; null until the host was inspected.")
}

/// Its value.
pub(crate) fn value(inventory: &Inventory) -> Value {
    let disk = |disk: &Disk| {
        Value::object([
            ("name", Value::from(disk.name.clone())),
            ("size_bytes", disk.size_bytes.into()),
            ("bus", disk.bus.clone().into()),
            ("rotational", disk.rotational.into()),
            ("model", disk.model.clone().into()),
            ("serial", disk.serial.clone().into()),
            ("wwn", disk.wwn.clone().into()),
        ])
    };
    let nic = |nic: &Nic| {
        Value::object([
            ("name", Value::from(nic.name.clone())),
            ("mac", nic.mac.to_string().into()),
            ("speed_mbps", nic.speed_mbps.map(u64::from).into()),
            ("link_up", nic.link_up.into()),
        ])
    };
    Value::object([
        ("vendor", Value::from(inventory.identity.manufacturer.clone())),
        ("model", inventory.identity.product.clone().into()),
        ("serial", inventory.identity.serial.clone().into()),
        ("architecture", inventory.cpu.architecture.clone().into()),
        ("cpus", u64::from(inventory.cpu.threads).into()),
        ("memory_bytes", inventory.memory_bytes.into()),
        ("disks", Value::List(inventory.disks.iter().map(disk).collect())),
        ("nics", Value::List(inventory.nics.iter().map(nic).collect())),
    ])
}
