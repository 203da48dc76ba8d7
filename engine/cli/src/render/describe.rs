//! Everything about one object, for `vmetal describe`: what it is, what it waits for, what failed and what to do.

use jiff::Timestamp;
use vmetal_api::{AnyObject, DecodeError};
use vmetal_model::agent::{BootPurpose, EraseLevel};
use vmetal_model::inventory::Firmware;
use vmetal_model::{
    BmcFacts, BootMode, Candidate, ClaimState, Decision, Failure, Host, HostPhase, Image, Inventory, Kind, Lack, Lease,
    Metadata, Network, NodeType, Operation, OperationState, Policy, Stage, TenantCluster, TenantNode, TlsTrust, Wait,
};

use vmetal_policy_tool::Quotas;

use super::rows::{image_phase, labels, phase, policy_name, power, ranges, resources};
use crate::text::{Fields, NONE, Table, age, bytes, clean, until};

/// Waiting claims that are named.
const WAITING: usize = 10;

/// The whole text but the events.
///
/// # Errors
/// When the object does not have the shape that this release knows.
pub(crate) fn describe(object: &AnyObject, now: Timestamp) -> Result<String, DecodeError> {
    let head = format!("{} {}\n", object.kind, clean(&object.metadata.name));
    let body = match object.kind {
        Kind::Host => host(&object.typed()?, now),
        Kind::NodeType => node_type(&object.typed()?, now),
        Kind::TenantNode => tenant_node(&object.typed()?, now),
        Kind::TenantCluster => tenant_cluster(&object.typed()?, now),
        Kind::Image => image(&object.typed()?, now),
        Kind::Network => network(&object.typed()?, now),
        Kind::Policy => policy(&object.typed()?, now),
    };
    Ok(head + &body)
}

fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("\n{title}\n{body}") }
}

fn metadata(metadata: &Metadata, now: Timestamp) -> Fields {
    let mut fields = Fields::default();
    fields.add("uid", metadata.uid.0.clone());
    fields.add("created", format!("{} ago", age(metadata.created, now)));
    fields.maybe("deletion", metadata.deleted.map(|at| format!("asked for {} ago", age(at, now))));
    if !metadata.labels.is_empty() {
        fields.add("labels", labels(&metadata.labels));
    }
    if !metadata.annotations.is_empty() {
        fields.add("annotations", labels(&metadata.annotations));
    }
    fields
}

fn waiting(fields: &mut Fields, wait: Option<&Wait>, now: Timestamp) {
    let Some(wait) = wait else { return };
    let mut text = format!("for {}, {} so far\nends with {}", wait.reason, age(wait.since, now), wait.unblocks);
    if let Some(next) = wait.next_check {
        text += &format!("\nlooks again {}", until(next, now));
    }
    if let Some(deadline) = wait.deadline {
        text += &format!("\ngives up {}", until(deadline, now));
    }
    fields.add("waiting", text);
}

fn failed(fields: &mut Fields, failure: Option<&Failure>, now: Timestamp) {
    let Some(failure) = failure else { return };
    fields.add("failure", format!("{}, {} ago\n{}", failure.cause, age(failure.at, now), failure.message));
    fields.add("what to do", failure.advice.clone());
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Idle => "",
        Stage::Address => "reserving an address",
        Stage::Probe => "asking the BMC who it is",
        Stage::Seed => "waiting for the claim's join token",
        Stage::Off => "powering off before a network boot",
        Stage::Open => "opening a network boot attempt",
        Stage::BootDevice => "setting network boot",
        Stage::On => "powering on",
        Stage::Agent => "waiting for the installer to call in",
        Stage::Work => "the installer works",
        Stage::FirstBoot => "waiting for the installed system",
        Stage::HandOver => "handing the system on standby over to the claim",
        Stage::NodeRemoval => "waiting for the Node to be removed",
        Stage::OffAgain => "powering off",
        Stage::ResetBmc => "restarting the BMC",
        Stage::Drain => "keeping the power off for a while",
    }
}

fn host(host: &Host, now: Timestamp) -> String {
    let (spec, status) = (&host.spec, &host.status);
    let mut fields = metadata(&host.metadata, now);
    fields.maybe("standby for", status.on_standby().map(|standby| standby.node_type.clone()));
    let mut text = phase(status.phase.as_str(), None) + " for " + &age(status.phase_since, now);
    if status.phase == HostPhase::Error
        && let Some(from) = status.failed_phase
    {
        text += &format!(" (failed while {})", from.as_str());
    }
    fields.add("phase", text);
    if status.stage != Stage::Idle {
        fields.add("doing", format!("{}, {} so far", stage(status.stage), age(status.stage_since, now)));
    }
    if let Some(progress) = &status.progress {
        let amount = match progress.total {
            0 => bytes(progress.done),
            total => {
                let percent = u128::from(progress.done) * 100 / u128::from(total);
                format!("{} of {} ({percent} %)", bytes(progress.done), bytes(total))
            }
        };
        fields.add("progress", format!("{}: {amount}", progress.step));
    }
    waiting(&mut fields, status.wait.as_ref(), now);
    failed(&mut fields, status.failure.as_ref(), now);
    if status.retry.failures > 0 {
        let mut text = format!("{} failures in a row", status.retry.failures);
        if let Some(not_before) = status.retry.not_before {
            text += &format!(", next try {}", until(not_before, now));
        }
        fields.add("retries", text);
    }
    if status.retry.attempts > 0 {
        fields.add("attempts", format!("{} network boots in this phase", status.retry.attempts));
    }
    fields.add("power", power(status.power));
    fields.maybe("operation", status.operation.as_ref().map(|o| operation(o, now)));
    fields.maybe("before that", status.previous_operation.as_ref().map(|o| operation(o, now)));
    fields.maybe(
        "claim",
        status.claim.as_ref().map(|claim| {
            let wants = match claim.state {
                ClaimState::Reserved => "reserved, token and user data are being made",
                ClaimState::Install => "to be installed",
                ClaimState::Release => "to be released",
                ClaimState::Erase => "to be erased",
            };
            format!("tenant_node {}, {wants}, since {}", claim.node, age(claim.since, now))
        }),
    );
    fields.maybe("address", status.leases().next().map(lease));

    let mut network = Fields::default();
    network.add("boot interface", spec.boot_mac.to_string());
    network.add(
        "boot mode",
        match spec.boot_mode {
            BootMode::Uefi => "UEFI",
            BootMode::Bios => "BIOS",
        },
    );
    network.maybe("address", status.address.map(|address| address.to_string()));
    if let Some(boot) = &status.boot {
        let purpose = match boot.purpose {
            BootPurpose::Inspect => "inspect",
            BootPurpose::Install => "install",
            BootPurpose::Erase => "erase",
        };
        let mut text = format!("{} to {purpose}, opened {} ago", boot.id, age(boot.opened, now));
        for (what, at) in [
            ("installer called in", boot.called_in),
            ("last heard of", boot.last_seen),
            ("work done", boot.work_done),
            ("installed system phoned home", boot.phoned_home),
        ] {
            if let Some(at) = at {
                text += &format!("\n{what} {} ago", age(at, now));
            }
        }
        network.add("boot attempt", text);
    }

    let mut erase = Fields::default();
    if let Some(record) = &status.erase {
        erase.add("at", format!("{} ({} ago)", record.at.strftime("%Y-%m-%d %H:%M:%S"), age(record.at, now)));
        erase.add(
            "level",
            match record.level {
                EraseLevel::Metadata => "metadata",
                EraseLevel::Discard => "discard",
                EraseLevel::Overwrite => "overwrite",
            },
        );
        let disks = record.disks.iter().map(|disk| {
            format!("{} ({}): {}", disk.name, disk.serial.as_deref().unwrap_or("no serial number"), disk.method)
        });
        erase.add("disks", disks.collect::<Vec<_>>().join("\n"));
    }
    let hardware = status.inventory.as_ref().map(inventory).unwrap_or_default();
    fields.render()
        + &section("BMC", &bmc(host, status.bmc.as_ref(), now))
        + &section("Network boot", &network.render())
        + &section("Hardware", &hardware)
        + &section("Last erasure", &erase.render())
}

fn operation(operation: &Operation, now: Timestamp) -> String {
    let what = operation.kind.describe();
    let ended = operation.finished.map(|at| format!(" {} ago", age(at, now))).unwrap_or_default();
    match &operation.state {
        OperationState::Intended => format!("{what}, begun {} ago", age(operation.started, now)),
        OperationState::Succeeded => format!("{what}, done{ended}"),
        OperationState::Failed { failure } => format!("{what}, failed{ended}: {}", failure.message),
        OperationState::Observed => format!("{what}, found out by looking{ended}"),
    }
}

fn bmc(host: &Host, facts: Option<&BmcFacts>, now: Timestamp) -> String {
    let spec = &host.spec.bmc;
    let mut fields = Fields::default();
    fields.add("address", spec.address.to_string());
    fields.add("user", spec.username.clone());
    if spec.address.scheme() == vmetal_model::bmc::BmcScheme::RedfishHttps {
        fields.add(
            "certificate",
            match &spec.tls {
                TlsTrust::Verify => "verified against the trusted roots",
                TlsTrust::Fingerprint(_) => "pinned",
                TlsTrust::Insecure => "NOT VERIFIED (insecure)",
            },
        );
    } else {
        fields.add("certificate", "none: clear text");
    }
    if let Some(facts) = facts {
        fields.maybe("fingerprint", facts.certificate.clone());
        fields.add("system", facts.system_path.clone());
        let model = [facts.manufacturer.as_deref(), facts.model.as_deref()];
        fields.add("model", model.into_iter().flatten().collect::<Vec<_>>().join(" "));
        fields.maybe("serial number", facts.serial.clone());
        fields.maybe("uuid", facts.uuid.clone());
        fields.maybe("firmware", facts.firmware.clone());
        fields.maybe("read", facts.read.map(|at| format!("{} ago", age(at, now))));
    }
    fields.render()
}

fn inventory(inventory: &Inventory) -> String {
    let mut fields = Fields::default();
    let cpu = &inventory.cpu;
    fields.add(
        "processors",
        format!("{} x {} ({}), {} cores, {} threads", cpu.sockets, cpu.model, cpu.architecture, cpu.cores, cpu.threads),
    );
    fields.add("memory", bytes(inventory.memory_bytes));
    fields.add(
        "firmware",
        match inventory.firmware {
            Firmware::Uefi => "UEFI",
            Firmware::Bios => "BIOS",
        },
    );
    let disks = inventory.disks.iter().map(|disk| {
        let media = if disk.rotational { "spinning" } else { "solid state" };
        let model = disk.model.as_deref().unwrap_or("unknown model");
        let serial = disk.serial.as_deref().unwrap_or(NONE);
        format!("{}  {} {} {media}, {model}, serial {serial}", disk.name, bytes(disk.size_bytes), disk.bus)
    });
    fields.add("disks", disks.collect::<Vec<_>>().join("\n"));
    let nics = inventory.nics.iter().map(|nic| {
        let link = match (nic.link_up, nic.speed_mbps) {
            (true, Some(speed)) => format!("up, {speed} Mbit/s"),
            (true, None) => "up".into(),
            (false, _) => "down".into(),
        };
        format!("{}  {} {link}{}", nic.name, nic.mac, if nic.boot { ", booted over" } else { "" })
    });
    fields.add("interfaces", nics.collect::<Vec<_>>().join("\n"));
    fields.render()
}

fn node_type(node_type: &NodeType, now: Timestamp) -> String {
    let (spec, status) = (&node_type.spec, &node_type.status);
    let mut fields = metadata(&node_type.metadata, now);
    fields.add("selector", labels(&spec.selector));
    fields.add("resources", resources(&spec.resources));
    let cost = if spec.cost.is_some() { "declared" } else { "computed by the cost policy" };
    fields.add("cost", format!("{} ({cost})", status.cost));
    fields.maybe("image", spec.image.clone());
    fields.maybe("network", spec.network.clone());
    if !spec.properties.is_empty() {
        fields.add("properties", labels(&spec.properties));
    }
    let capacity = status.capacity;
    let vmetal_model::Capacity { total, available, claimed, standby } = capacity;
    let standby = if spec.standby > 0 || standby > 0 {
        format!(", {standby} on standby ({} wanted)", spec.standby)
    } else {
        String::new()
    };
    fields.add("hosts", format!("{total} in all, {available} available, {claimed} claimed{standby}"));
    if let Some(trouble) = &status.standby {
        fields.add("standby", format!("failed on {} hosts; {}", trouble.failed, next_standby(trouble.next, now)));
        failed(&mut fields, Some(&trouble.failure), now);
    }
    fields.render()
}

fn lease(lease: &Lease) -> String {
    format!("{} of network {}", lease.address, lease.network)
}

fn network(network: &Network, now: Timestamp) -> String {
    let (spec, status) = (&network.spec, &network.status);
    let mut fields = metadata(&network.metadata, now);
    fields.add("cidr", spec.cidr.to_string());
    if !spec.ranges.is_empty() {
        fields.add("ranges", ranges(&spec.ranges));
    }
    if !spec.reserved.is_empty() {
        fields.add("reserved", ranges(&spec.reserved));
    }
    fields.maybe("gateway", spec.gateway.map(|gateway| gateway.to_string()));
    let names: Vec<String> = spec.nameservers.iter().map(ToString::to_string).collect();
    fields.maybe("nameservers", (!names.is_empty()).then(|| names.join(", ")));
    fields.maybe("search", (!spec.search_domains.is_empty()).then(|| spec.search_domains.join(", ")));
    fields.maybe("vlan", spec.vlan.map(|vlan| vlan.to_string()));
    fields.maybe("mtu", spec.mtu.map(|mtu| mtu.to_string()));
    fields.add("addresses", format!("{} in all, {} used, {} free", status.addresses, status.used, status.free()));
    if !status.outside.is_empty() {
        let outside: Vec<String> = status.outside.iter().map(ToString::to_string).collect();
        fields.add("in use, and not to be given again", outside.join(", "));
    }
    fields.render()
}

fn next_standby(next: Option<Timestamp>, now: Timestamp) -> String {
    match next {
        Some(next) if next > now => format!("another is tried in {}", age(now, next)),
        Some(_) => "another is tried when there is one free".to_owned(),
        None => "no other is tried before image or node type change, or one of them goes on".to_owned(),
    }
}

fn candidates(value: &str, candidates: &[Candidate], chosen: Option<&str>) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["", "NAME", value, "FITS", "REASON"]);
    for candidate in candidates {
        table.row(vec![
            if chosen == Some(candidate.name.as_str()) { "*" } else { "" }.into(),
            candidate.name.clone(),
            candidate.value.map_or_else(|| NONE.into(), |value| value.to_string()),
            if candidate.feasible { "yes" } else { "no" }.into(),
            candidate.reason.clone(),
        ]);
    }
    table.render_indented()
}

fn decision(decision: &Decision, now: Timestamp) -> String {
    let mut fields = Fields::default();
    fields.add("reason", decision.reason.clone());
    fields.add("decided", format!("{} ago", age(decision.at, now)));
    fields.add("policies", decision.policies.join("\n"));
    fields.maybe("logged as", decision.log.clone());
    let types = candidates("COST", &decision.node_types, decision.node_type.as_deref());
    let hosts = candidates("SCORE", &decision.hosts, decision.host.as_deref());
    section("Decision", &fields.render())
        + &section("Node types considered", &types)
        + &section("Hosts considered", &hosts)
}

fn tenant_node(node: &TenantNode, now: Timestamp) -> String {
    let (spec, status) = (&node.spec, &node.status);
    let mut fields = metadata(&node.metadata, now);
    fields.add("phase", format!("{} for {}", status.phase.as_str(), age(status.phase_since, now)));
    waiting(&mut fields, status.wait.as_ref(), now);
    failed(&mut fields, status.failure.as_ref(), now);
    fields.add("cluster", spec.cluster.clone());
    fields.maybe("host", status.host.clone());
    fields.maybe("address", status.lease.as_ref().map(lease));
    fields.maybe("image", spec.image.clone());
    fields.maybe("node", status.node_name.clone());
    fields.maybe("node uid", status.node_uid.clone());
    fields.maybe("provider id", status.provider_id.clone());
    if !spec.requirements.is_empty() {
        let all = spec.requirements.iter().map(ToString::to_string);
        fields.add("requirements", all.collect::<Vec<_>>().join("\n"));
    }
    if !spec.resources.is_empty() {
        fields.add("resources", resources(&spec.resources));
    }
    if !spec.taints.is_empty() {
        fields.add("taints", spec.taints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    fields.render() + &status.decision.as_ref().map(|d| decision(d, now)).unwrap_or_default()
}

fn tenant_cluster(cluster: &TenantCluster, now: Timestamp) -> String {
    let status = &cluster.status;
    let mut fields = metadata(&cluster.metadata, now);
    fields.add("reachable", if status.reachable { "yes" } else { "no" });
    fields.maybe("version", status.version.clone());
    fields.maybe("endpoint", status.endpoint.clone());
    failed(&mut fields, status.failure.as_ref(), now);
    fields.render()
}

/// What a tenant cluster holds of its quota, and whose claims wait for more of it; nothing for a cluster without one.
pub(crate) fn quota(cluster: &TenantCluster, node_types: &[NodeType], nodes: &[TenantNode]) -> String {
    let held = Quotas::of(&[cluster], node_types, nodes).held(cluster.name());
    let waits = |node: &&TenantNode| {
        let lacks = |decision: &Decision| decision.node_types.iter().any(|one| one.lacks == Some(Lack::Quota));
        node.spec.cluster == cluster.name()
            && node.status.host.is_none()
            && node.status.decision.as_ref().is_some_and(lacks)
    };
    let waiting: Vec<&str> = nodes.iter().filter(waits).map(TenantNode::name).collect();
    let mut fields = Fields::default();
    fields.add("held", held.join("\n"));
    if !held.is_empty() && !waiting.is_empty() {
        let more = waiting.len().saturating_sub(WAITING);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        fields.add("waiting", waiting[..waiting.len().min(WAITING)].join(", ") + &more);
    }
    section("Quota", &fields.render())
}

fn image(image: &Image, now: Timestamp) -> String {
    let (spec, status) = (&image.spec, &image.status);
    let mut fields = metadata(&image.metadata, now);
    fields.add("phase", image_phase(status.phase));
    failed(&mut fields, status.failure.as_ref(), now);
    fields.add("source", spec.source.clone());
    fields.maybe("checksum", spec.checksum.clone());
    fields.maybe("digest", status.digest.clone());
    if status.size_bytes > 0 {
        fields.add("size", format!("{} ({} stored)", bytes(status.size_bytes), bytes(status.stored_bytes)));
    }
    fields.render()
}

fn policy(policy: &Policy, now: Timestamp) -> String {
    let (spec, status) = (&policy.spec, &policy.status);
    let mut fields = metadata(&policy.metadata, now);
    fields.add("phase", status.phase.as_str());
    failed(&mut fields, status.failure.as_ref(), now);
    fields.add("decides on", spec.kind.as_str());
    if let Some(facts) = &status.facts {
        fields.add("policy", format!("{} ({})", policy_name(facts), facts.world));
    }
    if let Some(in_force) = &status.in_force {
        fields.add("in force", format!("generation {}, sha256 {}", in_force.generation, in_force.spec.sha256));
    }
    fields.add("declared", format!("generation {}, sha256 {}", policy.metadata.generation, spec.sha256));
    fields.maybe("origin", spec.origin.clone());
    if !spec.settings.is_empty() {
        fields.add("settings", spec.settings_text());
    }
    fields.add("on failure", spec.on_failure.as_str());
    if let Some(facts) = status.facts.as_ref().filter(|facts| !facts.reasons.is_empty()) {
        fields.add("reasons", facts.reasons.join("\n"));
    }
    fields.render()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::render::samples;

    fn text(object: &AnyObject) -> String {
        describe(object, samples::now()).unwrap()
    }

    #[test]
    fn a_failed_host_says_what_failed_and_what_to_do() {
        assert_eq!(
            text(&samples::failed_host()),
            "\
host rack1-003
  uid         uid-of-rack1-003
  created     1d0h ago
  labels      rack=1
  phase       error for 45s (failed while registering)
  failure     bmc_credentials, 45s ago
              BMC https://10.0.0.3 refused user \"root\"
  what to do  correct user name or password
  power       unknown

BMC
  address      redfish://10.0.0.3
  user         root
  certificate  verified against the trusted roots

Network boot
  boot interface  52:54:00:00:00:03
  boot mode       UEFI
"
        );
    }

    #[test]
    fn a_busy_host_says_what_it_waits_for_and_how_far_it_is() {
        assert_eq!(
            text(&samples::busy_host()),
            "\
host rack1-02
  uid        uid-of-rack1-02
  created    1d0h ago
  deletion   asked for 10s ago
  labels     rack=1
  phase      provisioning for 3m12s
  doing      the installer works, 1m2s so far
  progress   writing image: 1 GiB of 4 GiB (25 %)
  waiting    for the installer to write the image, 1m2s so far
             ends with its report
             looks again in 5s
             gives up in 14m0s
  attempts   1 network boots in this phase
  power      on
  operation  power on, done 2m48s ago
  claim      tenant_node web-1, to be installed, since 3m20s

BMC
  address      redfish://10.0.0.2
  user         root
  certificate  verified against the trusted roots

Network boot
  boot interface  52:54:00:00:00:02
  boot mode       UEFI
  boot attempt    b7 to install, opened 3m0s ago
                  installer called in 1m30s ago
"
        );
    }

    #[test]
    fn an_available_host_shows_hardware_and_erasure() {
        let text = text(&samples::available_host());
        let hardware = "\
Hardware
  processors  1 x EPYC 9354 (x86_64), 32 cores, 64 threads
  memory      256 GiB
  firmware    UEFI
  disks       nvme0n1  894.2 GiB nvme solid state, PM9A3, serial D1
  interfaces  eth0  52:54:00:00:00:01 up, 25000 Mbit/s, booted over

Last erasure
  at     2026-11-20 09:53:20 (2h6m ago)
  level  discard
  disks  nvme0n1 (D1): BLKDISCARD
";
        assert!(text.ends_with(hardware), "{text}");
        assert!(text.contains("  fingerprint    ab12\n  system         /redfish/v1/Systems/1\n"), "{text}");
    }

    #[test]
    fn a_claim_explains_its_decision_with_every_candidate() {
        assert_eq!(
            text(&samples::tenant_node()),
            "\
tenant_node web-1
  uid          uid-of-web-1
  created      1d0h ago
  labels       rack=1
  phase        provisioning for 3m12s
  cluster      prod
  host         rack1-02
  provider id  vmetal://uid-of-rack1-02

Decision
  reason    small is the cheapest class that fits
  decided   3m20s ago
  policies  cost-vcluster@0.1.0 sha256:aa

Node types considered
     NAME   COST  FITS  REASON
  *  small  42    yes   cheapest
     large  310   yes   costs more
     gpu    -     no    arch in [arm64] does not hold: arch is amd64

Hosts considered
     NAME      SCORE  FITS  REASON
  *  rack1-02  10     yes   first that fits
     rack1-01  -      no    claimed by web-0
"
        );
    }

    #[test]
    fn a_quota_shows_what_is_held_of_it_and_who_waits() {
        let (mut cluster, class): (TenantCluster, NodeType) =
            (samples::tenant_cluster().typed().unwrap(), samples::node_type().typed().unwrap());
        let placed: TenantNode = samples::tenant_node().typed().unwrap();
        let mut waiting = placed.clone();
        waiting.metadata.name = "web-2".into();
        waiting.status.host = None;
        let decision = waiting.status.decision.as_mut().unwrap();
        decision.node_types[0].lacks = Some(Lack::Quota);
        let nodes = [placed, waiting];
        assert_eq!(quota(&cluster, std::slice::from_ref(&class), &nodes), "", "no quota, no words");
        cluster.spec.quota.hosts = Some(1);
        cluster.spec.quota.resources = [("cpu".to_owned(), "64".parse().unwrap())].into();
        assert_eq!(
            quota(&cluster, std::slice::from_ref(&class), &nodes),
            "\nQuota\n  held     1 of 1 host\n           8 of 64 cpu\n  waiting  web-2\n"
        );
    }

    #[test]
    fn the_other_kinds_are_described_too() {
        assert!(
            text(&samples::node_type())
                .contains("  hosts      4 in all, 2 available, 1 claimed, 1 on standby (2 wanted)\n")
        );
        assert!(text(&samples::tenant_cluster()).contains("  endpoint   https://10.1.0.1\n"));
        assert!(text(&samples::image()).contains("  size     3 GiB (512 MiB stored)\n"));
        let network = text(&samples::network());
        assert!(network.contains("  addresses    90 in all, 90 used, 0 free\n"), "{network}");
        let policy = text(&samples::policy());
        let expected = [
            "  phase       failed\n",
            "refuses its settings",
            "  decides on  placement\n",
            "  policy      mine@1 (vmetal:policy/placement-policy@0.1.0)\n",
            "  in force    generation 1, sha256 aa\n",
            "  declared    generation 2, sha256 bb\n",
            "  settings    {\"max_skew\":2}\n",
        ];
        for line in expected {
            assert!(policy.contains(line), "{line} is not in\n{policy}");
        }
    }
}
