#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use vmetal_model::PolicyKind;

use vmetal_model::HostPhase;

use super::*;
use crate::input::Hardware;
use crate::{Config, Recorded};

fn host(name: &str, provisions: u32, class: &str) -> HostRow {
    HostRow {
        name: name.to_owned(),
        deleted: false,
        held: false,
        phase: HostPhase::Available,
        claimed_by: None,
        labels: BTreeMap::from([("class".to_owned(), class.to_owned()), ("rack".to_owned(), "r1".to_owned())]),
        hardware: Some(Hardware { threads: 8, memory_bytes: 1 << 34, ..Hardware::default() }),
        last_release: 0,
        last_tenant: String::new(),
        provisions,
        power: Default::default(),
        erased: None,
        failures: 0,
    }
}

fn wanted(name: &str) -> Wanted {
    Wanted { name: name.to_owned(), cluster: "blue".to_owned(), ..Wanted::nothing() }
}

fn offer() -> Offer {
    Offer { selector: BTreeMap::from([("class".to_owned(), "a".to_owned())]), ..Offer::empty("a") }
}

fn view(hosts: &[HostRow]) -> View {
    View::from_rows(hosts, &["rack".to_owned()])
}

fn policies() -> PolicyEngine {
    PolicyEngine::new(Config::native()).unwrap()
}

fn node(name: &str) -> vmetal_model::TenantNode {
    let metadata = serde_json::json!({ "name": name, "uid": "u", "generation": 1, "revision": 1, "created": Timestamp::UNIX_EPOCH });
    vmetal_model::Object {
        metadata: serde_json::from_value(metadata).unwrap(),
        spec: vmetal_model::TenantNodeSpec { cluster: "blue".into(), ..Default::default() },
        status: vmetal_model::TenantNodeStatus::new(Timestamp::UNIX_EPOCH),
    }
}

/// A round of three claims over two hosts: the second host is given back once.
fn round(name: &str, hosts: &[HostRow], policies: &PolicyEngine) -> Recorded {
    let mut round = Round::over(vec![offer()], view(hosts), Timestamp::UNIX_EPOCH).recorded_as(name.to_owned());
    for claim in ["n0", "n1", "n2"] {
        let node = node(claim);
        let outcome = round.decide(policies, &node, &Bars::none()).unwrap();
        if let Some(host) = outcome.host {
            round.take(&host, &node, None);
            if claim == "n1" {
                round.give_back(&host);
            }
        }
    }
    round.end(policies).unwrap()
}

#[test]
fn every_logged_decision_comes_out_the_same_again_after_packing_and_over_fleets_told_as_news() {
    let policies = policies();
    let mut hosts: Vec<HostRow> = (0..6).map(|n| host(&format!("h{n}"), n, if n < 2 { "a" } else { "b" })).collect();
    let (mut replica, mut known): (Replica, Option<View>) = (Replica::default(), None);
    for turn in 0..5u32 {
        let recorded = round(&format!("c.{turn}"), &hosts, &policies);
        let fleet = recorded.fleet.clone();
        let journal = recorded.journal(known.as_ref());
        assert_eq!(journal.fleet.whole.is_some(), turn == 0);
        assert!(turn == 0 || journal.fleet.put.len() < hosts.len(), "only what is new is told");
        known = Some(fleet);
        let read = Journal::unpack(&journal.pack()).unwrap();
        assert_eq!(read, journal);
        let header = Journal::header(&journal.pack()).unwrap();
        assert_eq!((header.whole, header.decisions), (turn == 0, 3));
        let fleet = replica.follow(&read).unwrap();
        for decided in read.decisions() {
            let again = policies.replay(&read, fleet.clone(), decided.number).unwrap().unwrap();
            assert_eq!((&again.answer, again.outcome.hosts()), (&decided.answer, decided.hosts()), "{decided:?}");
            let digests: Vec<_> = again.outcome.records.iter().map(|record| record.input_digest.clone()).collect();
            assert_eq!(digests, decided.parts.iter().map(|part| part.input_digest.clone()).collect::<Vec<_>>());
        }
        let chosen: Vec<_> = read.decisions().map(|decided| decided.host.is_some()).collect();
        assert_eq!(chosen, [true, true, true], "the host that was given back is had by the third");
        // One host changes, one goes, one comes, and the row of one that stays moves.
        hosts[0].provisions += 1;
        hosts.swap_remove(2);
        hosts.insert(3, host(&format!("x{turn}"), 0, "b"));
    }
}

#[test]
fn a_round_without_its_ground_and_a_fleet_that_is_another_are_named() {
    let policies = policies();
    let hosts = [host("h0", 0, "a")];
    let first = round("c.0", &hosts, &policies);
    let fleet = first.fleet.clone();
    let mut journal = round("c.1", &[host("h0", 1, "a")], &policies).journal(Some(&fleet));
    assert!(matches!(Replica::default().follow(&journal), Err(JournalError::NoGround { round }) if round == "c.1"));
    let mut replica = Replica::default();
    replica.follow(&first.journal(None)).unwrap();
    journal.fleet.put[0].provisions = 7;
    assert!(matches!(replica.follow(&journal), Err(JournalError::OtherFleet { .. })));
    assert!(matches!(Journal::unpack(b"nothing"), Err(JournalError::Damaged { .. })));
    assert!(matches!(Journal::unpack(b"{}\nnothing"), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_policy_that_is_gone_is_named_and_one_that_was_exchanged_is_found() {
    let policies = policies();
    let recorded = round("c.0", &[host("h0", 0, "a")], &policies);
    let fleet = recorded.fleet.clone();
    let mut journal = recorded.journal(None);
    policies.install(PolicyKind::Placement, &crate::Binding::native("place-first-fit")).unwrap();
    let number = journal.decisions().next().unwrap().number;
    assert!(policies.replay(&journal, fleet.clone(), number).unwrap().is_some(), "shipped policies are always there");
    let placement = journal.deciders.iter_mut().find(|decider| decider.kind == "placement").unwrap();
    placement.policy.sha256 = Some("ab".to_owned());
    let error = policies.replay(&journal, fleet.clone(), number).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("place-balanced@0.2.0 sha256:ab decided") && text.contains("place-first-fit"), "{text}");
    assert!(error.advice().contains("vmetal policy install"));

    // The native one of an older engine: both versions are named.
    let placement = journal.deciders.iter_mut().find(|decider| decider.kind == "placement").unwrap();
    placement.policy = Identity { sha256: None, version: "0.1.0".to_owned(), ..placement.policy.clone() };
    let error = policies.replay(&journal, fleet.clone(), number).unwrap_err();
    assert_eq!(
        error.to_string(),
        "place-balanced@0.1.0 native decided, and this engine has place-balanced@0.2.0 native, which may decide otherwise"
    );
    // What another policy would have decided can be told all the same.
    assert!(policies.try_on(Kind::Placement, &journal, fleet, number).unwrap().after.is_ok());
}

#[test]
fn another_policy_is_tried_on_the_very_rounds_of_the_time() {
    let policies = policies();
    let hosts = [host("h0", 9, "a"), host("h1", 0, "a"), host("h2", 5, "a")];
    let recorded = round("c.0", &hosts, &policies);
    let fleet = recorded.fleet.clone();
    let journal = recorded.journal(None);
    let other = PolicyEngine::new(Config {
        placement: crate::Binding::native("place-first-fit"),
        cost: crate::Binding::native("cost-effective"),
        ..Config::native()
    })
    .unwrap();
    let tried = |engine: &PolicyEngine, kind| -> Vec<(Vec<String>, Vec<String>)> {
        let one = |decided: &Decided| {
            let tried = engine.try_on(kind, &journal, fleet.clone(), decided.number).unwrap();
            (tried.before, tried.after.unwrap().0)
        };
        journal.decisions().map(one).collect()
    };
    let names = |pairs: &[(&str, &str)]| -> Vec<(Vec<String>, Vec<String>)> {
        pairs.iter().map(|(a, b)| (vec![(*a).to_owned()], vec![(*b).to_owned()])).collect()
    };
    // The least worn first; the second claim's host was given back. First fit has what was promised before it as well.
    assert_eq!(tried(&other, Kind::Placement), names(&[("h1", "h0"), ("h2", "h0"), ("h2", "h0")]));
    assert_eq!(tried(&policies, Kind::Placement), names(&[("h1", "h1"), ("h2", "h2"), ("h2", "h2")]));
    assert_eq!(tried(&other, Kind::Cost), names(&[("a", "a"), ("a", "a"), ("a", "a")]));
    assert!(other.try_on(Kind::Cost, &journal, fleet.clone(), 9).is_none(), "there is no such decision");
}

#[test]
fn decisions_nobody_acted_on_are_left_out_and_what_was_taken_meanwhile_stays() {
    let policies = policies();
    let keep = |id: &str| id == "c.0-2";
    let recorded = round("c.0", &[host("h0", 0, "a"), host("h1", 0, "a")], &policies).keeping(keep).unwrap();
    let fleet = recorded.fleet.clone();
    let journal = recorded.journal(None);
    let decided = journal.decisions().next().unwrap();
    assert_eq!((journal.decisions().count(), decided.wanted.name.as_str()), (1, "n2"));
    assert_eq!(policies.replay(&journal, fleet, 2).unwrap().unwrap().answer, decided.answer);
    assert!(round("c.0", &[], &policies).keeping(|_| false).is_none());
}

#[test]
fn an_explanation_adds_up_and_says_what_it_would_take() {
    let policies = policies();
    let mut hosts = vec![host("h0", 3, "a"), host("h1", 0, "b"), host("h2", 0, "b")];
    hosts[2].claimed_by = Some("other".to_owned());
    let mut round = Round::over(vec![offer()], view(&hosts), Timestamp::UNIX_EPOCH);
    let found = round.explain(&policies, &wanted("n"), &Bars::none(), Basis::Present).unwrap();
    assert_eq!(found.decision.host.as_deref(), Some("h0"));
    for row in found.hosts.iter().chain(&found.node_types).filter(|row| row.feasible) {
        assert!(row.value == 0 || !row.terms.is_empty(), "{row:?}");
        assert_eq!(row.terms.iter().map(|term| term.amount).sum::<i64>(), row.value, "{row:?}");
    }
    let nearest: Vec<_> =
        found.nearest.iter().map(|change| (change.candidate.as_str(), change.steps.join(" and "))).collect();
    assert_eq!(
        nearest,
        [
            ("h1", "the host needs the label class=a".to_owned()),
            ("h2", "the host needs the label class=a and tenant node other has to be deleted".to_owned()),
        ]
    );
}
