//! `vmetal_host`: one physical server.

use std::net::Ipv4Addr;

use tfplugin::{
    Attribute, Diagnostic, Diagnostics, Path, Pending, Schema, Type, Value,
    plan::{Change, Plan},
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::{ApiError, Secret, Secrets};
use vmetal_model::{
    BmcAddress, BmcSpec, BootMode, DeclaredMaintenance, Failure, Host, HostPhase, HostSpec, MacAddr, OnDelete,
    PowerState, RootDeviceHints, TlsTrust, agent::EraseLevel,
};

use crate::{
    convert::{
        equal, id_attribute, labels_attribute, last_error_attribute, name_attribute, parsed, parses, refresh, same_mac,
        string_map, text,
    },
    held::{Parting, Removal},
    inventory,
    kind::{Declaration, Kind, Verdict},
    timeouts::Timeouts,
};

/// `vmetal_host`.
pub(crate) struct Hosts;

const ERASE: [(&str, EraseLevel); 3] =
    [("metadata", EraseLevel::Metadata), ("discard", EraseLevel::Discard), ("overwrite", EraseLevel::Overwrite)];

fn same_bmc(a: &Value, b: &Value) -> bool {
    let identity = |value: &Value| value.as_str().and_then(|text| text.parse::<BmcAddress>().ok());
    match (identity(a), identity(b)) {
        (Some(a), Some(b)) => a.identity() == b.identity(),
        _ => a == b,
    }
}

fn same_fingerprint(a: &Value, b: &Value) -> bool {
    let bytes = |value: &Value| TlsTrust::Fingerprint(value.as_str()?.to_owned()).fingerprint_bytes();
    match (bytes(a), bytes(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn same_time(a: &Value, b: &Value) -> bool {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<vmetal_model::Timestamp>().ok());
    match (time(a), time(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn bmc_attribute() -> Attribute {
    let bmc = [
        (
            "address",
            Attribute::required(Type::String)
                .semantic_equality(same_bmc)
                .validate(parses::<BmcAddress>("Invalid BMC address"))
                .describe(
                    "Where the BMC is: `redfish://`, `redfish+https://` or `redfish+http://`, a host, and, where the BMC \
                     has several systems, the path of one (`/redfish/v1/Systems/1`).",
                ),
        ),
        ("username", Attribute::required(Type::String).describe("The account to sign in with.")),
        (
            "password_wo",
            Attribute::optional(Type::String).write_only().describe(
                "The account's password. Write-only: it reaches the engine and is kept neither in plans nor in the state. \
                 Change `password_wo_version` together with it.",
            ),
        ),
        (
            "password_wo_version",
            Attribute::optional(Type::String)
                .describe(
                    "Any text or number; change it whenever the password changes, so that Terraform sends the new one. While it \
                     stays as it is, no password is sent again, and one that the engine has been given since is not undone; \
                     without it, every change of the host sends the password.",
                ),
        ),
        (
            "tls_fingerprint",
            Attribute::optional(Type::String)
                .semantic_equality(same_fingerprint)
                .validate(Validator::string("Invalid fingerprint", |text| {
                    let read = TlsTrust::Fingerprint(text.to_owned()).fingerprint_bytes();
                    read.map(drop).ok_or_else(|| format!("{text:?} is not a SHA-256 fingerprint; expected 64 hexadecimal digits, colons allowed."))
                }))
                .describe("SHA-256 fingerprint of the BMC's certificate: trust this one and no other. For self-signed certificates."),
        ),
        (
            "insecure",
            Attribute::optional(Type::Bool)
                .default(false)
                .describe("Accept any certificate. Anybody in between can then read the password; prefer `tls_fingerprint`."),
        ),
    ];
    Attribute::nested(Nesting::Single, Usage::Required, bmc).describe("The management controller.")
}

fn root_device_attribute() -> Attribute {
    let hint = |description: &str| Attribute::optional(Type::String).describe(description);
    let hints = [
        ("device_name", hint("Kernel name, with or without `/dev/`.")),
        ("serial", hint("Exact serial number.")),
        ("wwn", hint("Exact world wide name.")),
        ("model", hint("Part of the model name.")),
        ("vendor", hint("Part of the vendor name.")),
        ("hctl", hint("SCSI `host:channel:target:lun`.")),
        (
            "min_size_gib",
            Attribute::optional(Type::Number)
                .validate(Validator::integer(1, 1 << 40))
                .describe("At least this many GiB."),
        ),
        ("rotational", Attribute::optional(Type::Bool).describe("Spinning (`true`) or solid state (`false`).")),
    ];
    Attribute::nested(Nesting::Single, Usage::Optional, hints).describe(
        "Which disk operating systems are installed on. Every hint must hold and exactly one disk must be left; without \
         hints it is the smallest.",
    )
}

fn maintenance_attribute() -> Attribute {
    let time = |text: &str| {
        let read = text.parse::<vmetal_model::Timestamp>();
        read.map(drop).map_err(|_| format!("{text:?} is not a time; expected for example 2026-11-22T06:00:00Z."))
    };
    let parts = [
        ("reason", Attribute::required(Type::String).describe("Why; whoever looks at the host reads it.")),
        (
            "until",
            Attribute::optional(Type::String)
                .semantic_equality(same_time)
                .validate(Validator::string("Invalid time", time))
                .describe("When it ends by itself (RFC 3339). Without it, it ends when the block is removed."),
        ),
    ];
    Attribute::nested(Nesting::Single, Usage::Optional, parts).describe(
        "Takes the host out of the pool as soon as no tenant node holds it; nothing is done to it until the maintenance ends. It \
         is then registered and inspected anew.",
    )
}

impl Kind for Hosts {
    type Object = Host;

    const TYPE: &'static str = "vmetal_host";
    const NOUN: &'static str = "host";
    const TIMEOUTS: Timeouts = Timeouts::minutes(90);
    const WAIT_FOR: Option<&'static str> = Some("available");

    fn is_supply() -> bool {
        true
    }

    fn schema() -> Schema {
        Schema::new(
            "A physical server: registered through its BMC, inspected by booting the installer over the network, then in \
             the pool for tenant nodes.",
            [
                ("id", id_attribute()),
                ("name", name_attribute("host")),
                ("bmc", bmc_attribute()),
                (
                    "boot_mac",
                    Attribute::required(Type::String)
                        .semantic_equality(same_mac)
                        .validate(parses::<MacAddr>("Invalid MAC address"))
                        .describe("MAC address of the interface the server boots from the network with."),
                ),
                (
                    "boot_mode",
                    Attribute::optional(Type::String)
                        .default("uefi")
                        .validate(Validator::one_of(&["uefi", "bios"]))
                        .describe("Boot mode of the firmware: `uefi` (default) or `bios`."),
                ),
                ("labels", labels_attribute("Labels; node types select hosts by them.")),
                ("root_device", root_device_attribute()),
                (
                    "address",
                    Attribute::optional(Type::String)
                        .validate(parses::<Ipv4Addr>("Invalid IPv4 address"))
                        .describe("A fixed IPv4 address on the provisioning network; the engine reserves one otherwise."),
                ),
                (
                    "erase",
                    Attribute::optional(Type::String)
                        .default("discard")
                        .validate(Validator::one_of(&["metadata", "discard", "overwrite"]))
                        .describe(
                            "How thoroughly disks are erased between tenants: `metadata`, `discard` (default) or `overwrite`.",
                        ),
                ),
                (
                    "on_destroy",
                    Attribute::optional(Type::String)
                        .default("clean")
                        .validate(Validator::one_of(&["clean", "orphan"]))
                        .describe(
                            "What becomes of the server when the host is destroyed: `clean` (default) refuses while a tenant's \
                             data on it is not erased; `orphan` leaves power and disks as they are.",
                        ),
                ),
                ("maintenance", maintenance_attribute()),
                (
                    "wait_for",
                    Attribute::optional(Type::String)
                        .default("available")
                        .validate(Validator::one_of(&["registered", "available", "none"]))
                        .describe(
                            "What an apply waits for: `registered` (the BMC answers and is who it should be), `available` \
                             (inspected and in the pool; default) or `none`.",
                        ),
                ),
                ("timeouts", Self::TIMEOUTS.attribute()),
                ("phase", Attribute::computed(Type::String).describe("Where the host is in its life.")),
                ("power", Attribute::computed(Type::String).describe("Power as last read: `on`, `off`, ...")),
                (
                    "provisioning_address",
                    Attribute::computed(Type::String).describe("Its address on the provisioning network."),
                ),
                ("claimed_by", Attribute::computed(Type::String).describe("The tenant node that holds the host.")),
                ("last_error", last_error_attribute()),
            ],
        )
    }

    fn validate(config: &Value) -> Diagnostics {
        let bmc = config.attr("bmc");
        let mut found = Diagnostics::new();
        if bmc.attr("insecure").as_bool() == Some(true) && !bmc.attr("tls_fingerprint").is_null() {
            found.push(
                Diagnostic::error(
                    "Conflicting settings",
                    "A pinned fingerprint has no meaning with insecure; remove one of them.",
                )
                .at(Path::attr("bmc").attribute("insecure")),
            );
        }
        if !bmc.attr("password_wo_version").is_null() && bmc.is_known() && bmc.attr("password_wo").is_null() {
            found.push(
                Diagnostic::warning(
                    "A password version without a password",
                    "The engine keeps the password it has. Set password_wo as well to change it.",
                )
                .at(Path::attr("bmc").attribute("password_wo_version")),
            );
        }
        found
    }

    fn declare(planned: &Value) -> Result<Declaration<HostSpec>, Diagnostic> {
        let (bmc, at) = (planned.attr("bmc"), Path::attr("bmc"));
        let tls = match (bmc.attr("insecure").as_bool(), text(bmc.attr("tls_fingerprint"))) {
            (Some(true), _) => TlsTrust::Insecure,
            (_, Some(fingerprint)) => TlsTrust::Fingerprint(fingerprint),
            _ => TlsTrust::Verify,
        };
        let hints = planned.attr("root_device");
        let hint = |name: &str| text(hints.attr(name));
        let spec = HostSpec {
            bmc: BmcSpec {
                address: parsed(bmc.attr("address"), at.attribute("address"))?,
                username: text(bmc.attr("username")).unwrap_or_default(),
                password_version: text(bmc.attr("password_wo_version")).unwrap_or_default(),
                tls,
            },
            boot_mac: parsed(planned.attr("boot_mac"), Path::attr("boot_mac"))?,
            boot_mode: match planned.attr("boot_mode").as_str() {
                Some("bios") => BootMode::Bios,
                _ => BootMode::Uefi,
            },
            root_device: RootDeviceHints {
                device_name: hint("device_name"),
                serial: hint("serial"),
                wwn: hint("wwn"),
                model: hint("model"),
                vendor: hint("vendor"),
                hctl: hint("hctl"),
                min_size_gib: hints.attr("min_size_gib").as_i64().and_then(|n| u64::try_from(n).ok()),
                rotational: hints.attr("rotational").as_bool(),
            },
            address: match planned.attr("address").as_str() {
                Some(_) => Some(parsed(planned.attr("address"), Path::attr("address"))?),
                None => None,
            },
            erase: ERASE
                .into_iter()
                .find(|(name, _)| planned.attr("erase").as_str() == Some(name))
                .map_or(EraseLevel::default(), |(_, level)| level),
            maintenance: match text(planned.attr("maintenance").attr("reason")) {
                Some(reason) => {
                    let until = planned.attr("maintenance").attr("until");
                    let at = Path::attr("maintenance").attribute("until");
                    let until = if until.is_null() { None } else { Some(parsed(until, at)?) };
                    Some(DeclaredMaintenance { reason, until })
                }
                None => None,
            },
            on_delete: match planned.attr("on_destroy").as_str() {
                Some("orphan") => OnDelete::Orphan,
                _ => OnDelete::Clean,
            },
        };
        Ok(Declaration { spec, labels: string_map(planned.attr("labels")) })
    }

    fn secrets(config: &Value) -> Secrets {
        let password = text(config.attr("bmc").attr("password_wo"));
        password.into_iter().map(|password| ("bmc.password".to_owned(), Secret::new(password))).collect()
    }

    fn secrets_version(state: &Value) -> &Value {
        state.attr("bmc").attr("password_wo_version")
    }

    fn observe(state: &mut Value, host: &Host) {
        let status = &host.status;
        state.set("phase", status.phase.as_str());
        state.set("power", power(status.power));
        state.set("provisioning_address", status.address.map(|address| address.to_string()));
        state.set("claimed_by", status.claim.as_ref().map(|claim| claim.node.clone()));
        state.set("last_error", status.failure.as_ref().map(ToString::to_string));
    }

    fn seen_also() -> Vec<(&'static str, Attribute)> {
        vec![("inventory", inventory::attribute())]
    }

    fn see_also(state: &mut Value, host: &Host) {
        state.set("inventory", host.status.inventory.as_ref().map(inventory::value));
    }

    fn recall(state: &mut Value, host: &Host) {
        let HostSpec { bmc: wanted, boot_mac, boot_mode, root_device, address, erase, maintenance, on_delete } =
            &host.spec;
        let mut bmc = state.attr("bmc").clone();
        refresh(&mut bmc, "address", wanted.address.as_str(), same_bmc);
        refresh(&mut bmc, "username", wanted.username.clone(), equal);
        refresh(&mut bmc, "password_wo_version", wanted.password_version.clone(), equal);
        bmc.set("password_wo", Value::Null);
        let fingerprint = match &wanted.tls {
            TlsTrust::Fingerprint(text) => Some(text.clone()),
            _ => None,
        };
        refresh(&mut bmc, "tls_fingerprint", fingerprint, same_fingerprint);
        bmc.set("insecure", wanted.tls == TlsTrust::Insecure);
        state.set("bmc", bmc);
        refresh(state, "boot_mac", boot_mac.to_string(), same_mac);
        refresh(state, "boot_mode", if *boot_mode == BootMode::Bios { "bios" } else { "uefi" }, equal);
        refresh(state, "labels", host.metadata.labels.clone(), equal);
        refresh(state, "address", address.map(|address| address.to_string()), equal);
        let level = ERASE.into_iter().find(|(_, level)| level == erase).map(|(name, _)| name);
        refresh(state, "erase", level, equal);
        refresh(state, "on_destroy", if *on_delete == OnDelete::Orphan { "orphan" } else { "clean" }, equal);
        match maintenance {
            Some(declared) => {
                let mut block = state.attr("maintenance").clone();
                refresh(&mut block, "reason", declared.reason.clone(), equal);
                refresh(&mut block, "until", declared.until.map(|until| until.to_string()), same_time);
                state.set("maintenance", block);
            }
            None => state.set("maintenance", Value::Null),
        }
        if !(root_device.is_empty() && state.attr("root_device").is_null()) {
            let mut hints = state.attr("root_device").clone();
            for (name, hint) in [
                ("device_name", &root_device.device_name),
                ("serial", &root_device.serial),
                ("wwn", &root_device.wwn),
                ("model", &root_device.model),
                ("vendor", &root_device.vendor),
                ("hctl", &root_device.hctl),
            ] {
                refresh(&mut hints, name, hint.clone(), equal);
            }
            refresh(&mut hints, "min_size_gib", root_device.min_size_gib, equal);
            refresh(&mut hints, "rotational", root_device.rotational, equal);
            state.set("root_device", hints);
        }
    }

    fn judge(host: &Host, wait_for: &str) -> Verdict {
        use HostPhase as Phase;
        let status = &host.status;
        let current = status.observed_generation >= host.metadata.generation;
        let going = || Verdict::Going(Self::doing(host));
        match (wait_for, status.phase) {
            ("none", _) => Verdict::Done,
            // An error about an earlier declaration says nothing about this one.
            (_, Phase::Error) if !current => going(),
            ("registered", Phase::Error) if status.registered_as.is_some() => Verdict::Done,
            (_, Phase::Error | Phase::Quarantined | Phase::Discovered) => match &status.failure {
                Some(failure) => Verdict::Stuck(failure.clone()),
                None => going(),
            },
            // It was registered and inspected before, and somebody works on it.
            (_, Phase::Maintenance) => Verdict::Done,
            // A host at work for a tenant has been through inspection; what is declared anew waits until it is free.
            (_, Phase::Provisioning | Phase::Provisioned) => Verdict::Done,
            ("registered", Phase::Inspecting | Phase::Deprovisioning) => Verdict::Done,
            (_, Phase::Available) if current => Verdict::Done,
            _ => going(),
        }
    }

    fn doing(host: &Host) -> String {
        let status = &host.status;
        let phase = status.phase.as_str();
        let step = match (&status.progress, &status.wait) {
            (Some(progress), _) if progress.total > 0 => {
                format!(", {} ({} %)", progress.step, progress.done.saturating_mul(100) / progress.total)
            }
            (Some(progress), _) => format!(", {}", progress.step),
            (None, Some(wait)) => format!(", waiting for {}", wait.reason),
            (None, None) => String::new(),
        };
        let held = match (&host.metadata.deleted, &status.claim) {
            (Some(_), Some(claim)) => format!("; tenant node {:?} still holds it", claim.node),
            _ => String::new(),
        };
        format!("{phase}{step}{held}")
    }

    fn failure(host: &Host) -> Option<&Failure> {
        host.status.failure.as_ref()
    }

    fn warn(plan: &Plan) -> Diagnostics {
        let holder = plan.prior.attr("claimed_by").as_str();
        let at = Path::attr("bmc").attribute("password_wo");
        match holder {
            _ if plan.change() == Change::Create && at.find(&plan.config).is_none_or(Value::is_null) => Diagnostic::warning(
                "A host without a BMC password",
                "The engine has no password for this host's BMC yet and will not be able to sign in. Set password_wo.",
            )
            .at(at)
            .into(),
            Some(holder) if !plan.replace.is_empty() => Diagnostic::warning(
                "The host is in use",
                format!(
                    "Tenant node {holder:?} holds the host. It is removed only when that tenant node is, so this plan waits \
                     until then."
                ),
            )
            .into(),
            _ => Diagnostics::new(),
        }
    }

    fn refused<'a>(removal: Removal<'a>, error: ApiError) -> Pending<'a, Result<Parting, Diagnostics>> {
        Box::pin(removal.of_host(error))
    }

    fn warn_destroy(state: &Value) -> Diagnostics {
        match state.attr("claimed_by").as_str() {
            Some(holder) => Diagnostic::warning(
                format!("Host {:?} is in use", state.attr("name").as_str().unwrap_or_default()),
                format!(
                    "Tenant node {holder:?} holds it. The host is removed when that tenant node has been released, and not \
                     before; where everything in the state is destroyed, Terraform does not wait for that."
                ),
            )
            .into(),
            None => Diagnostics::new(),
        }
    }

    fn whereabouts(host: &Host) -> Vec<String> {
        vec![format!("Host: {}, BMC {}, boots with {}", host.name(), host.spec.bmc.address, host.spec.boot_mac)]
    }

    fn attribute_of(field: &str) -> Option<&'static str> {
        match field {
            "bmc.tls.fingerprint" => Some("bmc.tls_fingerprint"),
            "on_delete" => Some("on_destroy"),
            "bmc.tls" => Some("bmc.insecure"),
            "bmc.password" => Some("bmc.password_wo"),
            "bmc.password_version" => Some("bmc.password_wo_version"),
            _ => None,
        }
    }
}

fn power(power: PowerState) -> &'static str {
    match power {
        PowerState::Unknown => "unknown",
        PowerState::On => "on",
        PowerState::Off => "off",
        PowerState::PoweringOn => "powering_on",
        PowerState::PoweringOff => "powering_off",
    }
}
