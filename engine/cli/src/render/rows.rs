//! One line per object, for `vmetal get`.

use jiff::Timestamp;
use vmetal_api::{AnyObject, DecodeError};
use vmetal_model::{
    AddressRange, Failure, Host, Image, Kind, Network, NodeType, Policy, PolicyFacts, PowerState, Resources,
    TenantCluster, TenantNode, Wait, image::ImagePhase,
};

use crate::text::{NONE, age, bytes, or_none};

/// How much of an object a line shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Usual,
    Wide,
}

/// The column names of a kind.
pub(crate) fn header(kind: Kind, width: Width) -> Vec<&'static str> {
    let (usual, wide, note): (&[_], &[_], &[_]) = match kind {
        Kind::Host => (
            &["NAME", "PHASE", "SINCE", "POWER", "CLAIM"],
            &["ADDRESS", "BOOT MAC", "SERIAL", "THREADS", "MEMORY", "DISKS", "BMC"],
            &["NOTE"],
        ),
        Kind::NodeType => (
            &["NAME", "COST", "TOTAL", "AVAILABLE", "STANDBY", "CLAIMED", "RESOURCES"],
            &["SELECTOR", "IMAGE"],
            &["NOTE"],
        ),
        Kind::TenantNode => (
            &["NAME", "PHASE", "SINCE", "CLUSTER", "TYPE", "COST", "HOST"],
            &["ADDRESS", "NODE", "IMAGE", "PROVIDER ID"],
            &["NOTE"],
        ),
        Kind::TenantCluster => (&["NAME", "REACHABLE", "VERSION", "ENDPOINT", "AGE"], &[], &["NOTE"]),
        Kind::Image => (&["NAME", "PHASE", "SIZE", "STORED", "AGE"], &["DIGEST", "SOURCE"], &["NOTE"]),
        Kind::Network => {
            (&["NAME", "CIDR", "ADDRESSES", "USED", "FREE", "VLAN", "AGE"], &["GATEWAY", "RANGES"], &["NOTE"])
        }
        Kind::Policy => (&["NAME", "PHASE", "KIND", "POLICY", "AGE"], &["SHA256", "ON FAILURE", "ORIGIN"], &["NOTE"]),
    };
    let wide = if width == Width::Wide { wide } else { &[] };
    [usual, wide, note].concat()
}

/// One object's line, in the columns of [`header`].
///
/// # Errors
/// When the object does not have the shape that this release knows.
pub(crate) fn row(object: &AnyObject, width: Width, now: Timestamp) -> Result<Vec<String>, DecodeError> {
    let (mut usual, wide, note) = match object.kind {
        Kind::Host => host(&object.typed()?, now),
        Kind::NodeType => node_type(&object.typed()?),
        Kind::TenantNode => tenant_node(&object.typed()?, now),
        Kind::TenantCluster => tenant_cluster(&object.typed()?, now),
        Kind::Image => image(&object.typed()?, now),
        Kind::Network => network(&object.typed()?, now),
        Kind::Policy => policy(&object.typed()?, now),
    };
    if width == Width::Wide {
        usual.extend(wide);
    }
    usual.extend(note);
    Ok(usual)
}

type Parts = (Vec<String>, Vec<String>, Option<String>);

/// What matters most now: the failure, else what is being waited for.
fn note(failure: Option<&Failure>, wait: Option<&Wait>, now: Timestamp) -> String {
    match (failure, wait) {
        (Some(failure), _) => format!("{}: {}", failure.cause, failure.message),
        (None, Some(wait)) => format!("waiting for {} ({})", wait.reason, age(wait.since, now)),
        (None, None) => String::new(),
    }
}

/// Power in one word.
pub(crate) fn power(power: PowerState) -> &'static str {
    match power {
        PowerState::Unknown => "unknown",
        PowerState::On => "on",
        PowerState::Off => "off",
        PowerState::PoweringOn => "powering on",
        PowerState::PoweringOff => "powering off",
    }
}

/// The phase, and that the object is on its way out.
pub(crate) fn phase(phase: &str, deleted: Option<Timestamp>) -> String {
    if deleted.is_some() { format!("{phase} (deleting)") } else { phase.to_owned() }
}

/// `cpu=8, memory=32Gi`.
pub(crate) fn resources(resources: &Resources) -> String {
    let parts: Vec<String> = resources.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    or_none(Some(&parts.join(", ")))
}

/// `rack=1, tier=a`.
pub(crate) fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    let parts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(Some(&parts.join(", ")))
}

fn host(host: &Host, now: Timestamp) -> Parts {
    let (spec, status) = (&host.spec, &host.status);
    let inventory = status.inventory.as_ref();
    let usual = vec![
        host.metadata.name.clone(),
        phase(status.phase.as_str(), host.metadata.deleted),
        age(status.phase_since, now),
        power(status.power).into(),
        or_none(status.claim.as_ref().map(|claim| claim.node.as_str())),
    ];
    let serial = status.bmc.as_ref().and_then(|bmc| bmc.serial.as_deref());
    let serial = serial.or_else(|| inventory.and_then(|i| i.identity.serial.as_deref()));
    let wide = vec![
        status.address.map_or_else(|| NONE.into(), |address| address.to_string()),
        spec.boot_mac.to_string(),
        or_none(serial),
        inventory.map_or_else(|| NONE.into(), |i| i.cpu.threads.to_string()),
        inventory.map_or_else(|| NONE.into(), |i| bytes(i.memory_bytes)),
        inventory.map_or_else(|| NONE.into(), |i| i.disks.len().to_string()),
        spec.bmc.address.to_string(),
    ];
    (usual, wide, Some(note(status.failure.as_ref(), status.wait.as_ref(), now)))
}

fn node_type(node_type: &NodeType) -> Parts {
    let (spec, status) = (&node_type.spec, &node_type.status);
    let capacity = status.capacity;
    let usual = vec![
        node_type.metadata.name.clone(),
        status.cost.to_string(),
        capacity.total.to_string(),
        capacity.available.to_string(),
        if spec.standby > 0 || capacity.standby > 0 {
            format!("{}/{}", capacity.standby, spec.standby)
        } else {
            "0".into()
        },
        capacity.claimed.to_string(),
        resources(&spec.resources),
    ];
    let trouble = status.standby.as_ref().map(|trouble| format!("standby: {}", trouble.failure.message));
    (usual, vec![labels(&spec.selector), or_none(spec.image.as_deref())], Some(trouble.unwrap_or_default()))
}

fn tenant_node(node: &TenantNode, now: Timestamp) -> Parts {
    let (spec, status) = (&node.spec, &node.status);
    let decision = status.decision.as_ref();
    let chosen = decision.and_then(|d| d.node_type.as_deref()).or(spec.node_type.as_deref());
    let usual = vec![
        node.metadata.name.clone(),
        phase(status.phase.as_str(), node.metadata.deleted),
        age(status.phase_since, now),
        spec.cluster.clone(),
        or_none(chosen),
        decision.and_then(|d| d.cost).map_or_else(|| NONE.into(), |cost| cost.to_string()),
        or_none(status.host.as_deref()),
    ];
    let wide = vec![
        status.lease.as_ref().map_or_else(|| NONE.into(), |lease| lease.address.to_string()),
        or_none(status.node_name.as_deref()),
        or_none(spec.image.as_deref()),
        or_none(status.provider_id.as_deref()),
    ];
    (usual, wide, Some(note(status.failure.as_ref(), status.wait.as_ref(), now)))
}

fn tenant_cluster(cluster: &TenantCluster, now: Timestamp) -> Parts {
    let status = &cluster.status;
    let usual = vec![
        cluster.metadata.name.clone(),
        if status.reachable { "yes" } else { "no" }.into(),
        or_none(status.version.as_deref()),
        or_none(status.endpoint.as_deref()),
        age(cluster.metadata.created, now),
    ];
    (usual, Vec::new(), Some(note(status.failure.as_ref(), None, now)))
}

/// An image phase in one word.
pub(crate) fn image_phase(phase: ImagePhase) -> &'static str {
    match phase {
        ImagePhase::Pending => "pending",
        ImagePhase::Importing => "importing",
        ImagePhase::Ready => "ready",
        ImagePhase::Failed => "failed",
    }
}

fn image(image: &Image, now: Timestamp) -> Parts {
    let status = &image.status;
    let size = |size: u64| if size == 0 { NONE.to_owned() } else { bytes(size) };
    let usual = vec![
        image.metadata.name.clone(),
        phase(image_phase(status.phase), image.metadata.deleted),
        size(status.size_bytes),
        size(status.stored_bytes),
        age(image.metadata.created, now),
    ];
    let wide = vec![or_none(status.digest.as_deref()), image.spec.source.clone()];
    (usual, wide, Some(note(status.failure.as_ref(), None, now)))
}

fn network(network: &Network, now: Timestamp) -> Parts {
    let (spec, status) = (&network.spec, &network.status);
    let usual = vec![
        phase(&network.metadata.name, network.metadata.deleted),
        spec.cidr.to_string(),
        status.addresses.to_string(),
        status.used.to_string(),
        status.free().to_string(),
        spec.vlan.map_or_else(|| NONE.into(), |vlan| vlan.to_string()),
        age(network.metadata.created, now),
    ];
    let gateway = spec.gateway.map_or_else(|| NONE.into(), |gateway| gateway.to_string());
    let note = match (status.free(), status.outside.len()) {
        (_, 1..) => format!("{} addresses in use that nodes may not be given any more", status.outside.len()),
        (0, 0) if status.addresses > 0 => "no address left".to_owned(),
        _ => String::new(),
    };
    (usual, vec![gateway, ranges(&spec.ranges)], Some(note))
}

/// `10.20.0.10-10.20.0.99, 10.20.0.120`.
pub(crate) fn ranges(ranges: &[AddressRange]) -> String {
    let parts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    or_none(Some(&parts.join(", ")))
}

fn policy(policy: &Policy, now: Timestamp) -> Parts {
    let (spec, status) = (&policy.spec, &policy.status);
    let usual = vec![
        policy.metadata.name.clone(),
        phase(status.phase.as_str(), policy.metadata.deleted),
        spec.kind.to_string(),
        or_none(status.facts.as_ref().map(policy_name).as_deref()),
        age(policy.metadata.created, now),
    ];
    let digest = status.in_force.as_ref().map_or(&spec.sha256, |in_force| &in_force.spec.sha256);
    let wide = vec![digest.clone(), spec.on_failure.as_str().to_owned(), or_none(spec.origin.as_deref())];
    (usual, wide, Some(note(status.failure.as_ref(), None, now)))
}

/// `place-spread@0.1.0`.
pub(crate) fn policy_name(facts: &PolicyFacts) -> String {
    format!("{}@{}", facts.name, facts.version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::render::samples;
    use crate::text::Table;

    fn table(objects: &[AnyObject], width: Width) -> String {
        let mut table = Table::new(&header(objects[0].kind, width));
        for object in objects {
            table.row(row(object, width, samples::now()).unwrap());
        }
        table.render()
    }

    #[test]
    fn hosts_show_what_they_wait_for_or_what_failed() {
        let hosts = [samples::available_host(), samples::busy_host(), samples::failed_host()];
        assert_eq!(
            table(&hosts, Width::Usual),
            "\
NAME       PHASE                    SINCE  POWER    CLAIM  NOTE
rack1-01   available                2h5m   off      -
rack1-02   provisioning (deleting)  3m12s  on       web-1  waiting for the installer to write the image (1m2s)
rack1-003  error                    45s    unknown  -      bmc_credentials: BMC https://10.0.0.3 refused user \"root\"
"
        );
    }

    #[test]
    fn wide_adds_the_hardware_before_the_note() {
        assert_eq!(
            table(&[samples::available_host()], Width::Wide),
            "\
NAME      PHASE      SINCE  POWER  CLAIM  ADDRESS      BOOT MAC           SERIAL  THREADS  MEMORY   DISKS  BMC                 NOTE
rack1-01  available  2h5m   off    -      172.22.0.11  52:54:00:00:00:01  SN-1    64       256 GiB  1      redfish://10.0.0.1
"
        );
    }

    #[test]
    fn the_other_kinds() {
        assert_eq!(
            table(&[samples::node_type()], Width::Wide),
            "\
NAME   COST  TOTAL  AVAILABLE  STANDBY  CLAIMED  RESOURCES           SELECTOR    IMAGE   NOTE
small  42    4      2          1/2      1        cpu=8, memory=32Gi  size=small  debian
"
        );
        assert_eq!(
            table(&[samples::tenant_node()], Width::Usual),
            "\
NAME   PHASE         SINCE  CLUSTER  TYPE   COST  HOST      NOTE
web-1  provisioning  3m12s  prod     small  42    rack1-02
"
        );
        assert_eq!(
            table(&[samples::tenant_cluster()], Width::Usual),
            "\
NAME  REACHABLE  VERSION  ENDPOINT          AGE   NOTE
prod  yes        v1.36.0  https://10.1.0.1  1d0h
"
        );
        assert_eq!(
            table(&[samples::image()], Width::Usual),
            "\
NAME    PHASE  SIZE   STORED   AGE   NOTE
debian  ready  3 GiB  512 MiB  1d0h
"
        );
        assert_eq!(
            table(&[samples::network()], Width::Wide),
            "\
NAME     CIDR          ADDRESSES  USED  FREE  VLAN  AGE   GATEWAY    RANGES                 NOTE
tenants  10.20.0.0/24  90         90    0     120   1d0h  10.20.0.1  10.20.0.10-10.20.0.99  no address left
"
        );
    }
}
