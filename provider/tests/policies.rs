//! `vmetal_policy` under the real client, against the real API server over a world in memory.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use bench::{Bench, changes};
use tfplugin::testing::Planned;
use vmetal_model::{Duty, Kind, Policy};

const PLACE: &str = "vmetal_policy.place";

/// What this world takes for a component; see `support/policies.rs`.
fn component(bench: &Bench, file: &str, what: &str) {
    let bytes = [b"\0asm\x0d\0\x01\0", what.as_bytes()].concat();
    std::fs::write(bench.dir.path().join(file), bytes).unwrap();
}

fn policy(name: &str, file: &str, extra: &str) -> String {
    format!(
        "resource \"vmetal_policy\" \"{name}\" {{\n  name = \"{name}\"\n  kind = \"placement\"\n  source = \"{file}\"\n  {extra}\n}}\n"
    )
}

fn stored(bench: &Bench, name: &str) -> Policy {
    bench.engine.world.get(Kind::Policy, name).unwrap().typed().unwrap()
}

#[test]
fn a_policy_is_made_exchanged_imported_mended_and_removed() {
    let bench = Bench::new();
    component(&bench, "mine.wasm", "one");
    bench.config(&policy("place", "mine.wasm", "settings = jsonencode({ max_skew = 2 })"));
    bench.tf.apply().unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "a second plan is empty");
    let state = bench.state(PLACE);
    assert_eq!(
        (&state["phase"], &state["active"], &state["on_failure"]),
        (&"active".into(), &true.into(), &"native_twin".into())
    );
    assert_eq!(state["describe"]["name"], "place-mine");
    assert_eq!((&state["sha256"], &state["last_error"]), (&state["active_sha256"], &serde_json::Value::Null));
    let (first, uid) = (state["sha256"].as_str().unwrap().to_owned(), bench.uid(Kind::Policy, "place"));
    assert_eq!(stored(&bench, "place").spec.origin.as_deref(), Some("mine.wasm"));

    // Another file of the same name is another policy in the same place.
    component(&bench, "mine.wasm", "two");
    assert_eq!(bench.tf.plan().unwrap(), changes(PLACE, &["update"]));
    // What a plan has left there may be forgotten before the apply.
    bench.engine.world.forget_components();
    bench.tf.apply().unwrap();
    let state = bench.state(PLACE);
    assert_ne!(state["active_sha256"].as_str().unwrap(), first);
    assert_eq!(bench.uid(Kind::Policy, "place"), uid);

    // Forgotten and found again, there is nothing to do.
    bench.tf.expect(&["state", "rm", PLACE]).unwrap();
    bench.tf.import(PLACE, "place").unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "imported, there is nothing to do");

    // What somebody else changed is seen and put back.
    bench.engine.world.change_policy("place", |spec| {
        spec.duty = Duty::Rests;
        spec.settings.insert("max_skew".into(), 7.into());
        spec.sha256 = "ab".repeat(32);
    });
    assert_eq!(bench.tf.plan().unwrap(), changes(PLACE, &["update"]));
    bench.tf.apply().unwrap();
    let mended = stored(&bench, "place");
    assert_eq!((mended.spec.duty, mended.spec.settings_text().as_str()), (Duty::Decides, r#"{"max_skew":2}"#));
    assert_eq!(mended.spec.sha256, state["sha256"].as_str().unwrap());

    // A file that is gone does not keep the policy.
    std::fs::remove_file(bench.dir.path().join("mine.wasm")).unwrap();
    bench.tf.destroy().unwrap();
    assert_eq!(bench.engine.world.count(), 0);
}

#[test]
fn mistakes_are_found_while_planning_and_named_where_they_are() {
    let bench = Bench::new();
    component(&bench, "good.wasm", "good");
    component(&bench, "wasi.wasm", "wasi");
    component(&bench, "cost.wasm", "cost");
    std::fs::write(bench.dir.path().join("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let cases = [
        (policy("p", "none.wasm", ""), vec!["\"none.wasm\" cannot be read: No such file", "source = \"none.wasm\""]),
        (policy("p", "module.wasm", ""), vec!["is a core WebAssembly module", "`vmetal policy build`"]),
        (policy("p", "wasi.wasm", ""), vec!["imports \"wasi:clocks\"", "source = \"wasi.wasm\""]),
        (policy("p", "cost.wasm", ""), vec!["is a Cost policy", "kind = \"placement\""]),
        (policy("p", "good.wasm", "settings = \"[1]\""), vec!["Settings are a JSON object", "settings = \"[1]\""]),
        (
            policy("p", "good.wasm", "settings = jsonencode({ max_skew = \"two\" })"),
            vec!["settings.max_skew: is \"two\"; expected integer", "settings = jsonencode"],
        ),
        (
            policy("p", "good.wasm", "settings = jsonencode({ colour = \"red\" })"),
            vec!["settings.colour: is not a setting of the policy"],
        ),
    ];
    for (config, expected) in cases {
        bench.config(&config);
        let output = bench.tf.run(&["plan", "-no-color"]).unwrap();
        assert!(!output.ok(), "{config}{}", output.text);
        for part in expected {
            assert!(output.flat().contains(part), "missing {part:?} in:\n{}", output.text);
        }
    }
    assert_eq!(bench.engine.world.made(), 0);
}

#[test]
fn of_two_that_want_to_decide_the_second_is_refused_and_one_that_rests_is_not() {
    let bench = Bench::new();
    component(&bench, "one.wasm", "one");
    component(&bench, "two.wasm", "two");
    let first = policy("place", "one.wasm", "");
    bench.config(&first);
    bench.tf.apply().unwrap();
    bench.config(&format!("{first}{}", policy("other", "two.wasm", "")));
    let output = bench.tf.try_apply().unwrap();
    let text = output.flat();
    assert!(!output.ok());
    for part in ["Another policy decides already", "already belongs to policy \"place\""] {
        assert!(text.contains(part), "missing {part:?} in:\n{}", output.text);
    }
    bench.config(&format!("{first}{}", policy("other", "two.wasm", "active = false")));
    bench.tf.apply().unwrap();
    let other = bench.state("vmetal_policy.other");
    assert_eq!((&other["phase"], &other["active_sha256"]), (&"resting".into(), &serde_json::Value::Null));
    assert_eq!((bench.tf.plan().unwrap(), bench.engine.world.components()), (Planned::Nothing, 2));
    bench.tf.destroy().unwrap();
}

#[test]
fn one_that_is_refused_when_it_is_seated_says_what_goes_on() {
    let bench = Bench::new();
    component(&bench, "mine.wasm", "fine");
    bench.config(&policy("place", "mine.wasm", ""));
    bench.tf.apply().unwrap();
    let first = bench.state(PLACE)["sha256"].clone();
    component(&bench, "mine.wasm", "broken");
    let output = bench.tf.try_apply().unwrap();
    assert!(!output.ok() && output.flat().contains("generation 1 goes on"), "{}", output.text);
    let state = bench.state(PLACE);
    assert_eq!((&state["phase"], &state["active_sha256"]), (&"failed".into(), &first));
    component(&bench, "mine.wasm", "fine");
    bench.tf.apply().unwrap();
    assert_eq!((&bench.state(PLACE)["phase"], &bench.state(PLACE)["sha256"]), (&"active".into(), &first));
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
}
