#![allow(clippy::unwrap_used, reason = "tests")]

use vmetal_model::{Metadata, Object, TenantNodeSpec, TenantNodeStatus, TriedHost, Uid};

use super::*;

fn metadata(name: &str, second: i64) -> Metadata {
    Metadata {
        name: name.into(),
        uid: Uid(format!("uid-{name}")),
        generation: 1,
        revision: 1,
        labels: Default::default(),
        annotations: Default::default(),
        created: Timestamp::from_second(second).unwrap(),
        deleted: None,
    }
}

fn node(name: &str, second: i64, group: Option<(&str, u32)>) -> TenantNode {
    let group = group.map(|(name, size)| GroupSpec { name: name.into(), size, same: None });
    let spec = TenantNodeSpec { cluster: "c".into(), group, ..Default::default() };
    Object { metadata: metadata(name, second), spec, status: TenantNodeStatus::new(Timestamp::UNIX_EPOCH) }
}

fn host(name: &str) -> Host {
    let spec = vmetal_model::HostSpec {
        bmc: vmetal_model::BmcSpec {
            address: "redfish://10.0.0.1".parse().unwrap(),
            username: "u".into(),
            password_version: String::new(),
            tls: Default::default(),
        },
        boot_mac: "52:54:00:00:00:01".parse().unwrap(),
        boot_mode: Default::default(),
        root_device: Default::default(),
        address: None,
        erase: Default::default(),
        maintenance: None,
        on_delete: Default::default(),
    };
    let mut status = vmetal_model::HostStatus::new(Timestamp::UNIX_EPOCH);
    status.phase = HostPhase::Available;
    Object { metadata: metadata(name, 0), spec, status }
}

fn choice() -> Choice {
    Choice {
        node_type: None,
        host: None,
        cost: None,
        reason: "r".into(),
        node_types: vec![],
        hosts: vec![],
        policies: vec![],
        input_digest: "d".into(),
        at: Timestamp::UNIX_EPOCH,
        log: None,
    }
}

fn shown<N: AsNode>(units: &[Unit<'_, N>]) -> Vec<String> {
    let names = |of: &[&N]| of.iter().map(|one| one.node().name()).collect::<Vec<_>>().join("+");
    let one = |unit: &Unit<'_, N>| match unit {
        Unit::One(one) => one.node().name().to_owned(),
        Unit::Elsewhere(one) => format!("{} elsewhere", one.node().name()),
        Unit::Group { waiting, seated, .. } => format!("{} beside [{}]", names(waiting), names(seated)),
        Unit::Broken { why, .. } => why.clone(),
    };
    units.iter().map(one).collect()
}

#[test]
fn the_oldest_is_served_first_and_a_group_is_as_old_as_its_eldest() {
    let nodes = [
        node("late", 9, None),
        node("b", 5, None),
        node("a", 5, None),
        node("g2", 8, Some(("g", 2))),
        node("g1", 1, Some(("g", 2))),
        node("quiet", 0, None),
    ];
    let all = units(&nodes, |node| node.name() != "quiet");
    assert_eq!(shown(&all), ["g1+g2 beside []", "a", "b", "late"]);
    // Whoever of a group asks, it is decided on as a whole.
    assert_eq!(shown(&units(&nodes, |node| node.name() == "g2")), ["g1+g2 beside []"]);
}

#[test]
fn a_group_waits_for_its_members_and_says_who_is_there() {
    let mut nodes = vec![node("g1", 1, Some(("g", 3))), node("g2", 2, Some(("g", 3)))];
    let incomplete = "2 of the 3 members of group g are declared (g1, g2); 1 more to come";
    assert_eq!(shown(&units(&nodes, |_| true)), [incomplete]);
    nodes.push(node("g3", 3, Some(("g", 3))));
    nodes[2].spec.cluster = "another".into();
    assert_eq!(shown(&units(&nodes, |node| node.name() != "g3")), [incomplete], "groups are a cluster's own");
    nodes[2].spec.cluster = "c".into();
    nodes[2].metadata.deleted = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(shown(&units(&nodes, |_| true)), [incomplete], "who is leaving is no member");
    nodes[2].metadata.deleted = None;
    assert_eq!(shown(&units(&nodes, |_| true)), ["g1+g2+g3 beside []"]);
    nodes[2].spec.group = Some(GroupSpec { name: "g".into(), size: 3, same: Some("rack".into()) });
    assert_eq!(
        shown(&units(&nodes, |_| true)),
        ["the members of group g disagree: g1 says 3 hosts, g3 says 3 hosts of the same rack"]
    );
}

#[test]
fn a_member_that_comes_back_is_placed_beside_those_that_have_hosts() {
    let mut nodes = [node("g1", 1, Some(("g", 2))), node("g2", 2, Some(("g", 2)))];
    nodes[0].status.phase = Phase::Ready;
    nodes[0].status.host = Some("h1".into());
    assert_eq!(shown(&units(&nodes, |_| true)), ["g2 beside [g1]"]);
    nodes[0].status.phase = Phase::Failed;
    assert_eq!(shown(&units(&nodes, |node| node.name() == "g1")), ["g1 elsewhere"]);
}

#[test]
fn a_reservation_is_refused_as_a_whole_for_whatever_must_not_be() {
    let limits = Limits::default();
    let now = Timestamp::UNIX_EPOCH;
    let (a, b, one, two) = (node("a", 1, None), node("b", 2, None), host("h1"), host("h2"));
    let both = |n: &TenantNode, h: &Host| {
        let seats = vec![
            Seat { node: &a, host: &one, choice: choice(), lease: None },
            Seat { node: n, host: h, choice: choice(), lease: None },
        ];
        reserve(seats, &limits, now)
    };
    let made = both(&b, &two).unwrap();
    assert_eq!(made.len(), 2);
    for Reserved { node, host, .. } in &made {
        let claim = host.status.claim.as_ref().unwrap();
        assert_eq!((&claim.uid, claim.state), (&node.metadata.uid, ClaimState::Reserved));
        assert_eq!((node.status.phase, node.status.host_uid.as_ref()), (Phase::Scheduled, Some(&host.metadata.uid)));
    }
    let why = |n: &TenantNode, h: &Host| both(n, h).unwrap_err().why;
    assert!(why(&b, &one).contains("twice") && why(&a, &two).contains("twice"));
    let mut host = two.clone();
    host.metadata.deleted = Some(now);
    assert!(why(&b, &host).contains("host is being deleted"));
    let mut host = two.clone();
    host.status.phase = HostPhase::Error;
    assert!(why(&b, &host).contains("not available"));
    let mut host = two.clone();
    host.status.phase = HostPhase::Standby;
    let wish = vmetal_model::Standby {
        uid: Uid("s".into()),
        node_type: "t".into(),
        image: "i".into(),
        wish: StandbyWish::Keep,
        since: now,
    };
    host.status.standby = Some(wish.clone());
    assert!(
        both(&b, &host).unwrap()[1].host.status.standby.is_some(),
        "a host on standby may be had, with what is on it"
    );
    let given_back = vmetal_model::Standby { wish: StandbyWish::GiveBack, ..wish };
    host.status.standby = Some(given_back);
    assert!(why(&b, &host).contains("leave standby"));
    host.status.phase = HostPhase::Available;
    assert_eq!(both(&b, &host).unwrap()[1].host.status.standby, None, "what was not begun is not begun");
    let mut host = two.clone();
    host.status.claim = made[0].host.status.claim.clone();
    assert!(why(&b, &host).contains("claimed"));
    let mut node = b.clone();
    node.metadata.deleted = Some(now);
    assert!(why(&node, &two).contains("tenant node is being deleted"));
    let mut node = b.clone();
    let failure =
        vmetal_model::Failure { cause: vmetal_model::Cause::Disk, message: "m".into(), advice: String::new(), at: now };
    node.status.tried.push(TriedHost { host: "h2".into(), host_uid: two.metadata.uid.clone(), failure });
    assert!(why(&node, &two).contains("given up"));
}

#[test]
fn an_address_stays_with_the_host_until_what_the_claim_left_there_is_erased() {
    let (limits, now) = (Limits::default(), Timestamp::UNIX_EPOCH);
    let lease = vmetal_model::Lease { network: "tenants".into(), address: std::net::Ipv4Addr::new(10, 20, 0, 7) };
    let (node, host) = (node("a", 1, None), host("h1"));
    let seat = Seat { node: &node, host: &host, choice: choice(), lease: Some(lease.clone()) };
    let reserved = reserve(vec![seat], &limits, now).unwrap().remove(0);
    assert_eq!(reserved.node.status.lease, Some(lease.clone()));
    let mut status = reserved.host.status;
    let held = |status: &vmetal_model::HostStatus| status.leases().cloned().collect::<Vec<_>>();
    assert_eq!(held(&status), std::slice::from_ref(&lease));
    let failure =
        vmetal_model::Failure { cause: vmetal_model::Cause::Disk, message: "m".into(), advice: String::new(), at: now };
    crate::grant::end_tenancy(&mut status, vmetal_model::TenancyEnd::Failed, &failure, now);
    assert!(status.claim.is_none());
    assert_eq!(held(&status), std::slice::from_ref(&lease), "what runs there may still use it");
    let record = |uid: &Uid| vmetal_model::EraseRecord {
        claim_uid: uid.clone(),
        level: Default::default(),
        disks: Vec::new(),
        at: now,
    };
    crate::grant::settle(&mut status, record(&Uid("another".into())));
    assert_eq!(held(&status), [lease], "an erasure after another tenancy says nothing of this one");
    crate::grant::settle(&mut status, record(&node.metadata.uid));
    assert_eq!(held(&status), []);
}
