//! What must hold of every resource alike, of all of them at once: changed in place, changed by somebody else, gone, adopted;
//! and cut off in the middle of its creation, by time, by Ctrl-C, by a provider that is killed, and by somebody else who is at
//! it at the same time.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;
#[path = "support/everything.rs"]
mod everything;

use std::{collections::BTreeMap, path::Path, process::Command};

use bench::{Bench, children, client, configure, signal};
use engine::PASSWORD;
use everything::{LIVES, component, everything, made};
use serde_json::Value as Json;
use tfplugin::testing::{Planned, Running, Terraform};
use vmetal_api::AnyObject;
use vmetal_model::Kind;

/// What they are in the engine.
const OBJECTS: [(Kind, &str); 11] = [
    (Kind::Host, "h1"),
    (Kind::Host, "h2"),
    (Kind::Host, "h3"),
    (Kind::Image, "debian"),
    (Kind::Network, "tenants"),
    (Kind::NodeType, "small"),
    (Kind::Policy, "place"),
    (Kind::TenantCluster, "acme"),
    (Kind::TenantNode, "one"),
    (Kind::TenantNode, "workers-0"),
    (Kind::TenantNode, "workers-1"),
];

fn bench() -> Bench {
    let bench = Bench::new();
    component(bench.dir.path());
    bench
}

/// Nothing of all this gets to where an apply waits for it.
fn held() -> Bench {
    let bench = bench();
    OBJECTS.iter().for_each(|(_, name)| bench.engine.world.hold(name));
    bench
}

fn let_go(bench: &Bench) {
    OBJECTS.iter().for_each(|(_, name)| bench.engine.world.release(name));
}

fn object(bench: &Bench, (kind, name): (Kind, &str)) -> AnyObject {
    bench.engine.world.get(kind, name).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The ids in the engine.
fn uids(bench: &Bench) -> Vec<String> {
    OBJECTS.map(|which| object(bench, which).metadata.uid.0).into()
}

/// What was declared, without what the provider notes beside it.
fn declared(bench: &Bench) -> Vec<Json> {
    let declared = |which| {
        let AnyObject { spec, metadata, .. } = object(bench, which);
        serde_json::json!({ "spec": spec, "labels": metadata.labels })
    };
    OBJECTS.map(declared).into()
}

/// What a plan would do to each resource.
fn planned(bench: &Bench) -> Vec<(String, Vec<String>)> {
    match bench.tf.plan().unwrap() {
        Planned::Nothing => Vec::new(),
        Planned::Changes(mut changes) => {
            changes.sort();
            changes
        }
    }
}

fn all(action: &str) -> Vec<(String, Vec<String>)> {
    LIVES.iter().map(|(address, _)| ((*address).to_owned(), vec![action.to_owned()])).collect()
}

/// What the state has: addresses with ids, or `tainted`.
fn state(dir: &Path) -> BTreeMap<String, String> {
    let Ok(text) = std::fs::read(dir.join("terraform.tfstate")) else { return BTreeMap::new() };
    let state: Json = serde_json::from_slice(&text).unwrap();
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let resource = |resource: &Json| {
        let instance = &resource["instances"][0];
        let id = if instance["status"].is_null() { &instance["attributes"]["id"] } else { &instance["status"] };
        (format!("{}.{}", text(&resource["type"]), text(&resource["name"])), text(id))
    };
    state["resources"].as_array().into_iter().flatten().map(resource).collect()
}

/// The state has everything, and nothing of it is tainted.
fn assert_whole(bench: &Bench, dir: &Path) {
    let state = state(dir);
    let addresses: Vec<_> = state.keys().map(String::as_str).collect();
    assert_eq!(addresses, LIVES.map(|(address, _)| address));
    for (address, id) in &state {
        let name = address.rsplit('.').next().unwrap();
        let there = OBJECTS.iter().find(|(_, object)| *object == name);
        // A pool has no id but its name.
        let expected = there.map_or(name.to_owned(), |which| object(bench, *which).metadata.uid.0);
        assert_eq!(*id, expected, "{address}");
    }
}

/// Nothing was made twice, and there is nothing left to do.
fn assert_done(bench: &Bench, uids_before: &[String]) {
    assert_eq!((uids(bench).as_slice(), bench.engine.world.made()), (uids_before, OBJECTS.len()));
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    assert_whole(bench, bench.dir.path());
}

/// Applies, and sees that no stamp of a create stays, but for that of the policy, which comes last: nothing needs it. What is held
/// is let go once it is planned, so that each that was cut off is gone on with.
fn apply_all(bench: &Bench) {
    bench.tf.expect(&["plan", "-out=p", "-no-color"]).unwrap();
    let_go(bench);
    bench.carry_out_to_the_last(&["p"], OBJECTS.len(), "place");
}

/// Starts an apply and waits until the engine has all of it.
fn apply_until_made(bench: &Bench) -> Running {
    let apply = bench.tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    bench.until(|| bench.engine.world.made() == OBJECTS.len());
    apply
}

#[test]
fn each_is_changed_in_place_and_mended_where_somebody_else_changed_it() {
    let bench = bench();
    bench.config(&made(1, ""));
    apply_all(&bench);
    let (uids, first) = (uids(&bench), bench.engine.world.objects());
    bench.config(&made(2, ""));
    assert_eq!(planned(&bench), all("update"));
    apply_all(&bench);
    assert_done(&bench, &uids);
    let second = declared(&bench);
    // Of the pool only the last member.
    let others = |object: &&AnyObject| object.metadata.name != "workers-0";
    first.iter().filter(others).for_each(|object| bench.engine.world.put_back(object));
    let drift = bench.tf.expect(&["plan", "-refresh-only", "-no-color"]).unwrap();
    for (address, _) in LIVES {
        assert!(drift.text.contains(&format!("# {address} has changed")), "{address} is not in:\n{}", drift.text);
    }
    assert_eq!(planned(&bench), all("update"));
    apply_all(&bench);
    assert_eq!(declared(&bench), second);
    assert_done(&bench, &uids);

    OBJECTS.iter().for_each(|(kind, name)| bench.engine.world.vanish(*kind, name));
    assert_eq!(planned(&bench), all("create"));
    bench.tf.apply().unwrap();
    assert_whole(&bench, bench.dir.path());
    assert_eq!((declared(&bench), bench.engine.world.made()), (second, 2 * OBJECTS.len()));
}

#[test]
fn each_is_adopted_by_a_block_and_goes() {
    let bench = bench();
    bench.config(&made(1, ""));
    bench.tf.apply().unwrap();
    let uids = uids(&bench);
    std::fs::remove_file(bench.dir.path().join("terraform.tfstate")).unwrap();
    let block = |(address, id): &(&str, &str)| {
        // By name or by id.
        let uid = OBJECTS.iter().find(|(kind, name)| name == id && *kind != Kind::Image);
        let id = uid.map_or((*id).to_owned(), |which| object(&bench, *which).metadata.uid.0);
        format!("import {{\n  to = {address}\n  id = {id:?}\n}}\n")
    };
    let blocks: String = LIVES.iter().map(block).collect();
    bench.config(&format!("{}{blocks}", everything(1)));
    let applied = bench.tf.apply().unwrap();
    assert!(applied.flat().contains("10 imported, 0 added, 0 changed, 0 destroyed"), "{}", applied.text);
    assert_done(&bench, &uids);
    bench.tf.destroy().unwrap();
    bench.until(|| bench.engine.world.count() == 0);
}

#[test]
fn ctrl_c_loses_none() {
    let bench = held();
    bench.config(&made(1, ""));
    let mut apply = apply_until_made(&bench);
    signal(&apply, "-INT");
    apply.wait().unwrap();
    assert_whole(&bench, bench.dir.path());
    let uids = uids(&bench);
    apply_all(&bench);
    assert_done(&bench, &uids);
}

#[test]
fn a_provider_that_is_killed_doubles_none() {
    let bench = held();
    bench.config(&made(1, ""));
    let mut apply = apply_until_made(&bench);
    let providers = children(apply.id());
    assert!(!providers.is_empty());
    for pid in providers {
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    }
    assert!(!apply.wait().unwrap().success());
    assert_eq!(state(bench.dir.path()), BTreeMap::new(), "the state knows nothing");
    let uids = uids(&bench);
    apply_all(&bench);
    assert_done(&bench, &uids);
}

#[test]
fn when_time_runs_out_the_next_apply_goes_on_with_all() {
    let bench = held();
    bench.config(&made(1, "timeouts = { create = \"1s\" }"));
    let said = bench.tf.apply().unwrap();
    assert!(said.flat().contains("is not finished yet"), "{}", said.text);
    assert_whole(&bench, bench.dir.path());
    assert_eq!(planned(&bench), all("update"), "each says that it is not finished");
    let uids = uids(&bench);
    apply_all(&bench);
    assert_done(&bench, &uids);
}

/// What the engine gave up is an error, and is made anew once it is corrected; everything else is not touched.
#[test]
fn what_failed_is_made_anew_and_the_rest_stays() {
    let bench = bench();
    // Two hosts are not enough for three nodes: those are not waited for.
    let right = made(1, "").replace("plan_check = \"off\"", "plan_check = \"off\"\n  wait_for   = \"none\"");
    let wrong = right.replacen(PASSWORD, "the-wrong-password", 1).replace("/srv/images", "/missing");
    std::fs::write(bench.dir.path().join("mine.wasm"), b"\0asm\x0d\0\x01\0 broken").unwrap();
    bench.config(&wrong);
    // One at a time: Terraform 1.16 panics where it writes the state just as a resource that failed is being marked as tainted.
    let failed = bench.tf.run(&["apply", "-auto-approve", "-no-color", "-parallelism=1"]).unwrap();
    for part in ["host \"h1\" failed", "image \"debian\" failed", "policy \"place\" failed"] {
        assert!(!failed.ok() && failed.flat().contains(part), "missing {part:?} in:\n{}", failed.text);
    }
    let anew = ["vmetal_host.h1", "vmetal_image.debian", "vmetal_policy.place"];
    let state = state(bench.dir.path());
    let tainted: Vec<_> =
        state.iter().filter(|(_, id)| *id == "tainted").map(|(address, _)| address.as_str()).collect();
    assert_eq!(tainted, anew);

    let before: BTreeMap<_, _> = OBJECTS.into_iter().zip(uids(&bench)).collect();
    component(bench.dir.path());
    bench.config(&right);
    bench.tf.apply().unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    let after: BTreeMap<_, _> = OBJECTS.into_iter().zip(uids(&bench)).collect();
    let replaced: Vec<_> = OBJECTS.iter().filter(|which| before[*which] != after[*which]).collect();
    assert_eq!(replaced, [&(Kind::Host, "h1"), &(Kind::Image, "debian"), &(Kind::Policy, "place")]);
}

/// A second directory with this configuration and a state of its own, as another person has it.
fn other(bench: &Bench, config: &str) -> (Terraform, tempfile::TempDir) {
    let (tf, dir) = client(&bench.engine);
    component(dir.path());
    configure(&tf, config);
    (tf, dir)
}

/// What the last command that was left running said, in one line.
fn output(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("output.log")).unwrap();
    text.replace(['│', '╷', '╵'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Twice the same at the same time: the second goes on with what the first has made.
#[test]
fn two_applies_of_the_same_make_each_once() {
    let bench = held();
    bench.config(&made(1, ""));
    let (tf, dir) = other(&bench, &made(1, ""));
    let mut first = apply_until_made(&bench);
    let mut second = tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    // Once by the first; refused to the second, which then finds its own claim there and declares it again.
    bench.until(|| OBJECTS.iter().all(|(kind, name)| bench.engine.world.asked(*kind, name) >= 3));
    let uids = uids(&bench);
    let_go(&bench);
    assert!(first.wait().unwrap().success(), "{}", output(bench.dir.path()));
    assert!(second.wait().unwrap().success(), "{}", output(dir.path()));
    assert_done(&bench, &uids);
    assert_whole(&bench, dir.path());

    // Both change all of it: whoever came last has it whole, and the other sees that.
    bench.config(&made(2, ""));
    configure(&tf, &made(3, ""));
    let mut first = bench.tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    let mut second = tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    assert!(first.wait().unwrap().success(), "{}", output(bench.dir.path()));
    assert!(second.wait().unwrap().success(), "{}", output(dir.path()));
    bench.tf.apply().unwrap();
    assert_done(&bench, &uids);
}

/// Two that want each of them otherwise, at the same time: one has it, the other is told so and has made nothing of it.
#[test]
fn of_two_applies_that_differ_one_makes_each() {
    let bench = bench();
    bench.config(&made(1, ""));
    let (tf, dir) = other(&bench, &made(2, ""));
    let mut first = bench.tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    let mut second = tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    let _ = (first.wait().unwrap(), second.wait().unwrap());
    assert_eq!(bench.engine.world.made(), OBJECTS.len());
    let states = [state(bench.dir.path()), state(dir.path())];
    let said = [output(bench.dir.path()), output(dir.path())];
    for (address, _) in LIVES {
        let has = states.each_ref().map(|state| state.contains_key(address));
        assert!(has[0] != has[1], "{address}: {has:?}\n{}\n{}", said[0], said[1]);
    }
    let refused: usize = said.iter().map(|text| text.matches("exists already").count()).sum();
    assert_eq!(refused, LIVES.len(), "{}\n{}", said[0], said[1]);
    let tainted = |state: &BTreeMap<String, String>| state.values().any(|id| id == "tainted");
    assert!(!states.iter().any(tainted), "{}\n{}", said[0], said[1]);
    let drain = |name| object(&bench, (Kind::TenantNode, name)).spec["drain"].clone();
    assert_eq!(drain("workers-0"), drain("workers-1"), "the whole pool is one's");
}
