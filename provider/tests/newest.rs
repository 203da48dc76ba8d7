//! What only newer clients do, with a real one: imports by identity, `terraform query` and actions (Terraform 1.14).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;
#[path = "support/everything.rs"]
mod everything;

use bench::{Bench, host};
use engine::PASSWORD;
use everything::{LIVES, component, everything, made};
use tfplugin::testing::Planned;
use vmetal_model::{HostAction, Kind, PowerWish};

/// None with a client that is too old, unless everything must run.
fn bench() -> Option<Bench> {
    let bench = Bench::new();
    if bench.tf.knows("query").unwrap() {
        component(bench.dir.path());
        return Some(bench);
    }
    let reason = "this client has no queries and actions; name a Terraform 1.14 or later in TF_ACC_TERRAFORM_PATH";
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    println!("SKIPPED: {reason}");
    None
}

/// Everything is there, and Terraform knows of nothing.
fn forgotten() -> Option<Bench> {
    let bench = bench()?;
    bench.config(&made(1, ""));
    bench.tf.apply().unwrap();
    std::fs::remove_file(bench.dir.path().join("terraform.tfstate")).unwrap();
    Some(bench)
}

#[test]
fn each_is_adopted_by_its_identity() {
    let Some(bench) = forgotten() else { return };
    let block = |(address, name): &(&str, &str)| {
        format!("import {{\n  to = {address}\n  identity = {{\n    name = {name:?}\n  }}\n}}\n")
    };
    let blocks: String = LIVES.iter().map(block).collect();
    bench.config(&format!("{}{blocks}", everything(1)));
    let applied = bench.tf.apply().unwrap();
    assert!(applied.flat().contains("10 imported, 0 added, 0 changed, 0 destroyed"), "{}", applied.text);
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    bench.tf.destroy().unwrap();
    bench.until(|| bench.engine.world.count() == 0);
}

/// `terraform query` finds what is there and writes resources and imports for it, and what it has written is right.
#[test]
fn what_is_there_is_found_by_a_query_and_adopted() {
    let Some(bench) = forgotten() else { return };
    // A pool is nothing of the engine's: its members are listed.
    let listed = LIVES.iter().map(|(address, name)| (address.split_once('.').unwrap().0, *name));
    let listed: Vec<_> = listed.filter(|(kind, _)| *kind != "vmetal_node_pool").collect();
    let mut kinds: Vec<_> = listed.iter().map(|(kind, _)| *kind).collect();
    kinds.dedup();
    let lists = |kinds: &[&str], more: &str| {
        let list = |kind: &&str| format!("list {kind:?} \"all\" {{\n  provider = vmetal\n{more}}}\n");
        let text: String = kinds.iter().map(list).collect();
        std::fs::write(bench.dir.path().join("all.tfquery.hcl"), text).unwrap();
    };
    // Terraform reads both kinds of file.
    bench.config("");
    lists(&kinds, "");
    let found = bench.tf.expect(&["query", "-no-color"]).unwrap().text;
    for (kind, name) in listed {
        let line = |line: &str| line.contains(&format!("list.{kind}.all")) && line.contains(&format!("name={name}"));
        assert!(found.lines().any(line), "{kind} {name}: {found}");
    }
    lists(&["vmetal_host"], "  config {\n    labels = { variant = \"2\" }\n  }\n");
    let found = bench.tf.expect(&["query", "-no-color"]).unwrap().text;
    assert!(!found.contains("name=h1"), "no host is labelled so: {found}");

    lists(&["vmetal_host"], "");
    bench.tf.expect(&["query", "-no-color", "-generate-config-out=generated.tf"]).unwrap();
    let generated = std::fs::read_to_string(bench.dir.path().join("generated.tf")).unwrap();
    assert!(generated.contains("boot_mac") && generated.contains("identity = {"), "{generated}");
    std::fs::remove_file(bench.dir.path().join("all.tfquery.hcl")).unwrap();
    let applied = bench.tf.apply().unwrap();
    assert!(applied.flat().contains("3 imported, 0 added, 0 changed, 0 destroyed"), "{}\n{generated}", applied.text);
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
}

const ACTIONS: &str = r#"
variable "fleeting" {
  type      = string
  ephemeral = true
  default   = "another password"
}
variable "kept" {
  type      = string
  sensitive = true
  default   = "a third password"
}
action "vmetal_inspect" "after" {
  config {
    host   = "h1"
    reason = "it changed"
  }
}
action "vmetal_power" "cycle" {
  config {
    host   = "h1"
    power  = "cycle"
    reason = "hangs"
    wait   = true
  }
}
action "vmetal_rotate_credentials" "leaver" {
  config {
    host     = "h1"
    password = var.fleeting
    reason   = "a leaver"
    wait     = true
  }
}
action "vmetal_rotate_credentials" "by_hand" {
  config {
    host     = "h1"
    password = var.kept
    reason   = "a leaver"
    wait     = true
  }
}
action "vmetal_power" "nowhere" {
  config {
    host   = "nowhere"
    power  = "off"
    reason = "x"
  }
}
"#;
const TRIGGER: &str = r"
  lifecycle {
    action_trigger {
      events  = [after_create, after_update]
      actions = [action.vmetal_inspect.after]
    }
  }
";

const LEAVER: &str = r#"
resource "terraform_data" "leaver" {
  input = "ada"
  lifecycle {
    action_trigger {
      events  = [after_create]
      actions = [action.vmetal_rotate_credentials.leaver]
    }
  }
}
"#;

#[test]
fn actions_run_by_themselves_and_with_changes() {
    let Some(bench) = bench() else { return };
    let config = |more: &str, beside: &str| {
        bench.config(&format!("{ACTIONS}{}{beside}", host("h1", &format!("{more}{TRIGGER}"))));
    };
    let orders = || bench.engine.world.orders().into_iter().map(|(_, order)| order).collect::<Vec<_>>();
    let inspect = || HostAction::Inspect { reason: "it changed".into() };
    config("", "");
    bench.tf.apply().unwrap();
    assert_eq!(orders(), [inspect()]);
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "what was done is not done again");
    config("erase = \"metadata\"", "");
    bench.tf.apply().unwrap();
    assert_eq!(orders(), [inspect(), inspect()]);

    let invoke = |action: &str| {
        let invoke = format!("-invoke=action.{action}");
        bench.tf.run(&["apply", "-auto-approve", "-no-color", &invoke]).unwrap()
    };
    let cycled = invoke("vmetal_power.cycle");
    assert!(cycled.ok() && cycled.flat().contains("Actions: 1 invoked"), "{}", cycled.text);
    let cycle = HostAction::Power { power: PowerWish::Cycle, reason: "hangs".into() };
    assert_eq!(orders().last(), Some(&cycle));
    let host = bench.engine.world.get(Kind::Host, "h1").unwrap();
    assert_eq!(host.status["power"], "on", "it was waited for");

    let refused = invoke("vmetal_power.nowhere");
    assert!(!refused.ok() && refused.flat().contains("The object does not exist"), "{}", refused.text);
    assert_eq!(orders().len(), 3, "{:?}", orders());

    // Terraform takes an ephemeral value away from an action that is invoked by hand, and keeps it for one that is triggered.
    let password = || bench.engine.world.secret(Kind::Host, "h1", "bmc.password").unwrap();
    let refused = invoke("vmetal_rotate_credentials.leaver");
    assert!(!refused.ok() && refused.flat().contains("password did not arrive"), "{}", refused.text);
    assert_eq!(password(), PASSWORD);
    let by_hand = invoke("vmetal_rotate_credentials.by_hand");
    assert!(by_hand.ok(), "{}", by_hand.text);
    assert_eq!(password(), "a third password");
    config("erase = \"metadata\"", LEAVER);
    let triggered = bench.tf.apply().unwrap();
    assert_eq!(password(), "another password");
    let state = std::fs::read_to_string(bench.dir.path().join("terraform.tfstate")).unwrap();
    for text in [by_hand.text, triggered.text, state] {
        assert!(!text.contains("another password") && !text.contains("a third password"), "{text}");
    }
}
