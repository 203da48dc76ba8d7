#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn resources(pairs: &[(&str, &str)]) -> Resources {
    pairs.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect()
}

fn offer(name: &str, selector: &[(&str, &str)], amounts: &[(&str, &str)]) -> Offer {
    Offer {
        name: name.to_owned(),
        deleted: false,
        selector: map(selector),
        labels: map(selector),
        resources: resources(amounts),
        explicit_cost: None,
        total: 3,
        free: 1,
        standby: 0,
        taken: String::new(),
    }
}

fn wanted(amounts: &[(&str, &str)]) -> Wanted {
    Wanted {
        name: "n".to_owned(),
        cluster: "c".to_owned(),
        count: 1,
        node_type: None,
        resources: resources(amounts),
        requirements: vec![],
        quota: vec![],
        used_up: vec![],
    }
}

fn row(name: &str, labels: &[(&str, &str)], phase: HostPhase) -> HostRow {
    HostRow {
        name: name.to_owned(),
        deleted: false,
        phase,
        claimed_by: None,
        labels: map(labels),
        hardware: Some(Hardware { threads: 8, memory_bytes: 16 << 30, ..Hardware::default() }),
        held: false,
        last_release: 0,
        last_tenant: String::new(),
        provisions: 0,
        power: vmetal_model::bmc::PowerState::Off,
        erased: None,
        failures: 0,
    }
}

fn texts(rejections: &[Rejection]) -> Vec<String> {
    rejections.iter().map(ToString::to_string).collect()
}

#[test]
fn a_host_is_told_every_rule_that_it_fails() {
    let offer = offer("h100", &[("gpu", "h100")], &[("cpu", "8"), ("memory", "16Gi")]);
    assert_eq!(host(&offer, &row("a", &[("gpu", "h100")], HostPhase::Available)), []);
    let other = row("b", &[("gpu", "a100")], HostPhase::Inspecting);
    assert_eq!(
        texts(&host(&offer, &other)),
        ["label gpu=h100 wanted, host has gpu=a100", "phase is inspecting, wanted available"]
    );
    let mut third = row("c", &[], HostPhase::Available);
    third.claimed_by = Some("web-1".to_owned());
    third.deleted = true;
    third.hardware = None;
    assert_eq!(
        texts(&host(&offer, &third)),
        [
            "label gpu=h100 wanted, host has no label gpu",
            "is being deleted",
            "claimed by tenant node web-1",
            "inspection has not reported its hardware yet"
        ]
    );
}

#[test]
fn what_is_declared_must_be_there_but_kernel_memory_may_be_missing() {
    let gpus = offer("t", &[], &[("cpu", "9"), ("memory", "64Gi"), ("nvidia.com/gpu", "4"), ("example.com/card", "7")]);
    let found = texts(&host(&gpus, &row("a", &[], HostPhase::Available)));
    assert_eq!(found, ["cpu 9 wanted, 8 there", "memory 64Gi wanted, 16Gi there", "nvidia.com/gpu 4 wanted, 0 there"]);
    let mut small = row("b", &[], HostPhase::Available);
    small.hardware = Some(Hardware { threads: 2, memory_bytes: 2_015_000_001, ..Hardware::default() });
    assert_eq!(host(&offer("t", &[], &[("memory", "2Gi")]), &small), [], "2 GiB installed, 1.875 GiB seen");
    assert_eq!(texts(&host(&offer("t", &[], &[("memory", "3Gi")]), &small)), ["memory 3Gi wanted, 1.8Gi there"]);
}

#[test]
fn a_type_with_special_resources_wants_to_be_asked() {
    let gpu =
        offer("gpu", &[], &[("cpu", "64"), ("nvidia.com/gpu", "4"), ("pods", "110"), ("ephemeral-storage", "1Ti")]);
    assert_eq!(
        texts(&node_type(&wanted(&[("cpu", "2")]), &gpu)),
        ["has the special resource nvidia.com/gpu, which the claim does not ask for"]
    );
    assert_eq!(node_type(&wanted(&[("nvidia.com/gpu", "1")]), &gpu), []);
    assert_eq!(node_type(&wanted(&[("nvidia.com/gpu", "0")]), &gpu).len(), 1, "asking for none is not asking");
    assert_eq!(texts(&node_type(&wanted(&[("nvidia.com/gpu", "8")]), &gpu)), ["nvidia.com/gpu 8 wanted, 4 there"]);
    assert_eq!(node_type(&wanted(&[("pods", "20")]), &offer("plain", &[], &[("cpu", "2")])), []);
}

#[test]
fn names_requirements_and_capacity() {
    let mut full = offer("small", &[("tier", "bronze")], &[("cpu", "2")]);
    full.free = 0;
    full.taken = "2 claimed, 1 not available".to_owned();
    let mut claim = wanted(&[]);
    claim.node_type = Some("large".to_owned());
    let requirement = |operator, values: &[&str]| Requirement {
        key: "tier".to_owned(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    claim.requirements = vec![
        requirement(vmetal_model::Operator::In, &["gold", "silver"]),
        requirement(vmetal_model::Operator::Exists, &[]),
        requirement(vmetal_model::Operator::DoesNotExist, &[]),
    ];
    assert_eq!(
        texts(&node_type(&claim, &full)),
        [
            "the claim names node type large",
            "tier in [gold, silver] wanted, node type has tier=bronze",
            "tier does not exist wanted, node type has tier=bronze",
            "0 of 3 hosts free: 2 claimed, 1 not available"
        ]
    );
    let pair = Wanted { count: 2, ..wanted(&[]) };
    assert_eq!(texts(&node_type(&pair, &offer("t", &[], &[]))), ["1 of 3 hosts free, 2 wanted"]);
}

#[test]
fn capacity_counts_hosts_of_the_selector_and_says_why_the_rest_are_taken() {
    let mut offer = offer("h100", &[("gpu", "h100")], &[("cpu", "8")]);
    let label = [("gpu", "h100")];
    let mut claimed = row("b", &label, HostPhase::Provisioned);
    claimed.claimed_by = Some("x".to_owned());
    let hosts = [
        row("a", &label, HostPhase::Available),
        claimed,
        row("c", &label, HostPhase::Inspecting),
        row("d", &label, HostPhase::Error),
        row("e", &[], HostPhase::Available),
    ];
    let fleet = crate::View::from_rows(&hosts, &[]);
    gates::Gates::of(&offer, &fleet).fill_in(&mut offer, &fleet, &crate::Bars::none());
    assert_eq!((offer.total, offer.free, offer.taken.as_str()), (4, 1, "2 not available, 1 claimed"));
}

#[test]
fn topics_are_counted_by_frequency_then_by_name() {
    let label = Rejection::Label { key: "gpu".to_owned(), wanted: "a".to_owned(), seen: None };
    let phase = Rejection::Phase { seen: HostPhase::Error };
    let all = [phase, label.clone(), label, Rejection::NotInspected];
    assert_eq!(count_topics(all.iter().map(|one| (one.topic(), 1))), "2 label gpu, 1 not available, 1 not inspected");
}
