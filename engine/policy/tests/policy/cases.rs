//! The cases beside each shipped policy, run on the component and on its native twin.
#![allow(clippy::unwrap_used, reason = "tests")]

use vmetal_model::PolicyKind;
use vmetal_policy::{Binding, Config, PolicyEngine, componentize, shipped};
use vmetal_policy_sdk::Kind;

use crate::support;

fn engine(kind: Kind, binding: Binding) -> PolicyEngine {
    let config = match kind {
        Kind::Cost => Config { cost: binding, ..Config::native() },
        Kind::Placement => Config { placement: binding, ..Config::native() },
    };
    PolicyEngine::new(config).unwrap()
}

#[test]
fn every_shipped_policy_decides_its_cases_as_component_and_as_twin() {
    for kind in [Kind::Cost, Kind::Placement] {
        for policy in shipped(kind) {
            let cases =
                componentize::read_cases(&support::workspace().join("policies").join(policy).join("cases")).unwrap();
            assert!(!cases.is_empty(), "{policy} has no cases");
            let component = Binding::file(support::components().join(format!("{policy}.wasm")));
            for (how, binding) in [("component", component), ("native twin", Binding::native(policy))] {
                let engine = engine(kind, binding);
                for case in &cases {
                    let record =
                        engine.run_case(kind, case).unwrap_or_else(|e| panic!("{policy} ({how}): {}: {e}", case.case));
                    let problems = case.problems(&record);
                    assert!(problems.is_empty(), "{policy} ({how}): {}: {}", case.case, problems.join("\n"));
                    assert_eq!(record.fuel.is_some(), how == "component");
                }
            }
        }
    }
}

#[test]
fn a_component_that_fails_its_own_case_is_not_seated() {
    let bytes = std::fs::read(support::components().join("place-first-fit.wasm")).unwrap();
    // The cases are text at the end: expect another host, of the same length.
    let text = bytes.windows(9).rposition(|window| window == b"rack1-07\"").unwrap();
    let mut wrong = bytes;
    wrong[text..text + 8].copy_from_slice(b"rack1-12");
    let engine = support::native();
    let error = engine
        .install(PolicyKind::Placement, &crate::fixtures::bind(wrong, vmetal_policy::OnFailure::Closed))
        .unwrap_err();
    match error {
        vmetal_policy::LoadError::Smoke { case, detail, .. } => {
            assert_eq!(case, "the first name, whatever the order");
            assert!(detail.contains("expected"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.identities()[1].generation, 1);
}
