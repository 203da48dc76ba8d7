#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use vmetal_model::{Claim, ClaimState, Host, HostPhase, Lack, NodeType, Object, TenantNode, Uid};

use super::*;
use crate::Config;
use crate::testing::metadata;

fn host(name: &str, rack: &str, phase: HostPhase) -> Host {
    let spec = serde_json::json!({
        "bmc": { "address": "redfish://10.0.0.1", "username": "u" }, "boot_mac": "52:54:00:00:00:01"
    });
    let mut status = model::HostStatus::new(Timestamp::UNIX_EPOCH);
    status.phase = phase;
    status.inventory = Some(model::Inventory::default());
    let mut metadata = metadata(name);
    metadata.labels = BTreeMap::from([("class".into(), "a".into()), ("rack".into(), rack.into())]);
    Object { metadata, spec: serde_json::from_value(spec).unwrap(), status }
}

fn view(hosts: &[Host]) -> View {
    let mut columns = crate::Columns::default();
    hosts.iter().for_each(|host| columns.update(host));
    columns.view()
}

fn node_type() -> NodeType {
    let spec = model::NodeTypeSpec { selector: BTreeMap::from([("class".into(), "a".into())]), ..Default::default() };
    Object { metadata: metadata("a"), spec, status: Default::default() }
}

fn node(name: &str) -> TenantNode {
    Object {
        metadata: metadata(name),
        spec: model::TenantNodeSpec { cluster: "c".into(), ..Default::default() },
        status: model::TenantNodeStatus::new(Timestamp::UNIX_EPOCH),
    }
}

fn policies() -> PolicyEngine {
    PolicyEngine::new(Config::native()).unwrap()
}

#[test]
fn what_is_taken_is_claimed_for_the_next_and_what_is_given_back_is_free() {
    let hosts = [host("h1", "r1", HostPhase::Available), host("h2", "r1", HostPhase::Available)];
    let mut round = Round::new(&[node_type()], view(&hosts), Timestamp::UNIX_EPOCH);
    let policies = policies();
    let decide = |round: &mut Round| round.decide(&policies, &node("n"), &Bars::none()).unwrap();
    let first = decide(&mut round).host.unwrap();
    assert_eq!(decide(&mut round).host, Some(first.clone()), "deciding takes nothing");
    round.take(&first, &node("n0"), None);
    let second = decide(&mut round).host.unwrap();
    assert_ne!(first, second);
    round.take(&second, &node("n1"), None);
    let none = decide(&mut round);
    assert_eq!(none.host, None);
    assert_eq!(none.decision.reason, "no node type fits; a: 0 of 2 hosts free: 2 claimed");
    assert_eq!(none.decision.node_types[0].lacks, Some(Lack::FreeHost), "waiting may help");
    let mut big = node("big");
    big.spec.resources = [("cpu".to_owned(), "9999".parse().unwrap())].into();
    let none = round.decide(&policies, &big, &Bars::none()).unwrap();
    assert_eq!(none.decision.node_types[0].lacks, Some(Lack::Fit), "waiting does not");
    let mut empty = Round::new(&[node_type()], view(&[]), Timestamp::UNIX_EPOCH);
    assert_eq!(decide(&mut empty).decision.node_types[0].lacks, Some(Lack::Fit), "nor does it where there is no host");
    round.give_back(&first);
    assert_eq!(decide(&mut round).host, Some(first));
}

#[test]
fn bars_keep_a_claim_from_hosts_and_say_why() {
    let hosts = [host("h1", "r1", HostPhase::Available), host("h2", "r2", HostPhase::Available)];
    let mut round = Round::new(&[node_type()], view(&hosts), Timestamp::UNIX_EPOCH);
    let mut bars = Bars::none();
    bars.domain = Some(("rack".into(), "r2".into()));
    let policies = policies();
    assert_eq!(round.decide(&policies, &node("n"), &bars).unwrap().host.as_deref(), Some("h2"));
    bars.tried.insert("h2".into(), "the disk broke".into());
    let none = round.decide(&policies, &node("n"), &bars).unwrap().decision;
    assert_eq!(none.reason, "no node type fits; a: 0 of 2 hosts free: 1 another rack, 1 tried before");
    let shown: Vec<_> = none.hosts.iter().map(|host| host.reason.as_str()).collect();
    assert_eq!(
        shown,
        [
            "as a: the group is at rack=r2, the host at rack=r1",
            "as a: was tried for this claim and given up: the disk broke"
        ]
    );
}

proptest! {
    /// Counting along gives what counting anew gives.
    #[test]
    fn a_round_that_took_and_gave_back_is_a_round_over_the_fleet_as_it_is(
        phases in prop::collection::vec(any::<bool>(), 1..6),
        moves in prop::collection::vec((0usize..6, any::<bool>()), 0..12),
    ) {
        let phase = |free: bool| if free { HostPhase::Available } else { HostPhase::Inspecting };
        let mut hosts: Vec<Host> =
            phases.iter().enumerate().map(|(i, free)| host(&format!("h{i}"), "r", phase(*free))).collect();
        let mut round = Round::new(&[node_type()], view(&hosts), Timestamp::UNIX_EPOCH);
        for (index, take) in moves {
            if index >= hosts.len() {
                continue;
            }
            hosts[index].status.claim = take.then(|| Claim {
                node: "n".into(),
                uid: Uid("n".into()),
                state: ClaimState::Reserved,
                since: Timestamp::UNIX_EPOCH,
                image: None,
                lease: None,
            });
            let name = format!("h{index}");
            if take { round.take(&name, &node("n"), None) } else { round.give_back(&name) }
        }
        let anew = Round::new(&[node_type()], view(&hosts), Timestamp::UNIX_EPOCH);
        prop_assert_eq!(&round.offers, &anew.offers);
        prop_assert_eq!(&round.gates[0].codes, &anew.gates[0].codes);
    }
}
