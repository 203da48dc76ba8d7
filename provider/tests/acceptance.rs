//! The provider under the real `terraform`, against the real API server over a world in memory.
//!
//! What users fear is tried here: time running out, Ctrl-C, kill -9, a restarted engine, objects of other people.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use std::{process::Command, time::Duration};

use bench::{Bench, REST, changes, children, host, host_with, signal};
use engine::{PASSWORD, TOKEN};
use serde_json::Value as Json;
use tfplugin::testing::Planned;
use vmetal_model::Kind;

#[test]
fn one_apply_one_ready_node_and_back() {
    let bench = Bench::new();
    let second = host_with("h2", PASSWORD, "1", "52:54:00:AA:00:02", "");
    bench.config(&format!("{}{second}{REST}", host("h1", "root_device = { min_size_gib = 10, rotational = false }")));
    // The stamp of a create is gone once the create has come to its end.
    bench.apply_to_the_last(6, "h2");
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "a second plan is empty");
    bench.tf.apply().unwrap();

    let (host, node) = (bench.state("vmetal_host.h1"), bench.state("vmetal_tenant_node.one"));
    assert_eq!((&node["phase"], &node["host"], &node["node_name"]), (&"ready".into(), &"h1".into(), &"one".into()));
    assert_eq!((&node["chosen_node_type"], &node["cost"]), (&"small".into(), &4242.into()));
    assert_eq!(node["decision_reason"], "the cheapest type that fits");
    assert_eq!((&host["id"], &host["claimed_by"]), (&bench.uid(Kind::Host, "h1").into(), &"one".into()));
    assert!(host.get("inventory").is_none(), "what is only looked at is not kept in the state of each host");
    assert_eq!(host["boot_mac"], "52:54:00:AA:00:01", "the user's spelling is kept");
    let node_type = bench.state("vmetal_node_type.small");
    assert_eq!((&node_type["effective_cost"], &node_type["resources"]["memory"]), (&4242.into(), &"8192Mi".into()));
    assert_eq!(bench.state("vmetal_image.debian")["digest"], "d1");

    // Secrets reached the engine and nothing else.
    let world = &bench.engine.world;
    assert_eq!(world.secret(Kind::Host, "h1", "bmc.password").as_deref(), Some(PASSWORD));
    assert_eq!(world.secret(Kind::TenantCluster, "acme", "kubeconfig").as_deref(), Some("a secret kubeconfig"));
    assert_eq!(world.secret(Kind::TenantNode, "one", "user_data").as_deref(), Some("a secret script"));
    let state = std::fs::read_to_string(bench.dir.path().join("terraform.tfstate")).unwrap();
    for secret in [PASSWORD, "a secret"] {
        assert!(!state.contains(secret), "the state holds {secret:?}");
    }

    // Everything can be forgotten and found again, by name or by id, and then there is nothing to do.
    let all = [
        ("vmetal_host.h1", Kind::Host, "h1"),
        ("vmetal_node_type.small", Kind::NodeType, "small"),
        ("vmetal_image.debian", Kind::Image, "debian"),
    ];
    for (address, _, name) in all {
        bench.tf.expect(&["state", "rm", address]).unwrap();
        bench.tf.import(address, name).unwrap();
    }
    for (address, kind, name) in [
        ("vmetal_tenant_cluster.acme", Kind::TenantCluster, "acme"),
        ("vmetal_tenant_node.one", Kind::TenantNode, "one"),
    ] {
        bench.tf.expect(&["state", "rm", address]).unwrap();
        bench.tf.import(address, &bench.uid(kind, name)).unwrap();
    }
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "imported, there is nothing to do");

    // A change that reinstalls says what is lost.
    let text = bench.tf.expect(&["plan", "-no-color", "-destroy"]).unwrap();
    assert!(text.flat().contains("Host h1 will be erased"), "{}", text.text);
    bench.tf.destroy().unwrap();
    // A host whose tenant node came later in Terraform's order goes when that has been released.
    bench.until(|| bench.engine.world.count() == 0);
}

/// With a node that has an address of it, but for what `more` says of the network itself.
fn networked(more: &str) -> String {
    let network = format!(
        "resource \"vmetal_network\" \"tenants\" {{\n  name = \"tenants\"\n  cidr = \"10.40.0.0/24\"\n  {more}\n}}\n"
    );
    let node = r#"
resource "vmetal_node_type" "small" {
  name      = "small"
  selector  = { class = "small" }
  resources = { cpu = "4", memory = "8Gi" }
  network   = vmetal_network.tenants.name
}
resource "vmetal_tenant_cluster" "acme" {
  name                  = "acme"
  kubeconfig_wo         = "a secret kubeconfig"
  kubeconfig_wo_version = 1
}
resource "vmetal_tenant_node" "one" {
  name       = "one"
  cluster    = vmetal_tenant_cluster.acme.name
  depends_on = [vmetal_node_type.small]
}
"#;
    format!("{}{network}{node}", host("h1", ""))
}

#[test]
fn a_network_from_create_to_destroy() {
    let bench = Bench::new();
    let network = || bench.state("vmetal_network.tenants");
    let wide = r#"ranges = ["10.40.0.20 - 10.40.0.29"]
  gateway = "10.40.0.1"
  nameservers = ["10.40.0.2", "fd00:0::53"]
  vlan = 120"#;
    bench.config(&networked(wide));
    bench.tf.apply().unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "a second plan is empty");
    assert_eq!((&network()["addresses"], &network()["vlan"]), (&10.into(), &120.into()));
    assert_eq!(network()["ranges"][0], "10.40.0.20 - 10.40.0.29", "the user's spelling is kept");
    assert_eq!(bench.state("vmetal_tenant_node.one")["address"], "10.40.0.20");
    bench.until(|| {
        let network: vmetal_model::Network = bench.engine.world.get(Kind::Network, "tenants").unwrap().typed().unwrap();
        network.status.used == 1
    });
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "that addresses are used is no change");

    // Changed in place; found again by name and by id.
    let uid = bench.uid(Kind::Network, "tenants");
    bench.config(&networked(&wide.replace("29", "39")));
    assert_eq!(bench.tf.plan().unwrap(), changes("vmetal_network.tenants", &["update"]));
    bench.tf.apply().unwrap();
    assert_eq!((bench.uid(Kind::Network, "tenants"), &network()["addresses"]), (uid.clone(), &20.into()));
    for id in ["tenants", &uid] {
        bench.tf.expect(&["state", "rm", "vmetal_network.tenants"]).unwrap();
        bench.tf.import("vmetal_network.tenants", id).unwrap();
        assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "imported by {id}, there is nothing to do");
    }

    // What cannot be is told where it is written, before anything is touched.
    bench.config(&networked("ranges = [\"10.40.0.20\", \"10.41.0.9-10.41.0.12\"]\n  gateway = \"10.40.0.20\""));
    let told = bench.tf.run(&["plan", "-no-color"]).unwrap();
    let flat = told.flat();
    assert!(!told.ok() && flat.contains("includes the gateway 10.40.0.20"), "{flat}");
    assert!(flat.contains("10.41.0.9-10.41.0.12 is not within 10.40.0.0/24"), "{flat}");

    // A node that is not Terraform's has an address: the network stays.
    bench.config("");
    bench.tf.expect(&["state", "rm", "vmetal_tenant_node.one", "vmetal_host.h1"]).unwrap();
    let refused = bench.tf.run(&["apply", "-auto-approve", "-no-color"]).unwrap();
    assert!(!refused.ok() && refused.flat().contains("used by tenant node one (10.40.0.20)"), "{}", refused.text);
    assert_eq!(bench.uid(Kind::Network, "tenants"), uid);
}

#[test]
fn mistakes_are_found_before_anything_is_touched() {
    let bench = Bench::new();
    let bad = r#"
resource "vmetal_host" "h" {
  name = "Not A Name"
  bmc = {
    address         = "ipmi://10.0.0.7"
    username        = "root"
    insecure        = true
    tls_fingerprint = "ab"
  }
  boot_mac = "52:54:00"
  address  = "10.0.0"
  labels   = { "bad key" = "x" }
  wait_for = "christmas"
  timeouts = { create = "soon" }
}
resource "vmetal_node_type" "t" {
  name      = "t"
  selector  = {}
  resources = { cpu = "many" }
}
resource "vmetal_tenant_node" "n" {
  name         = "n"
  cluster      = "c"
  requirements = [{ key = "k", operator = "Gt", values = ["x"] }]
}
"#;
    bench.config(bad);
    let output = bench.tf.run(&["plan", "-no-color"]).unwrap();
    assert!(!output.ok());
    let text = output.flat();
    for expected in [
        "\"Not A Name\" is not a valid name",
        "unknown scheme \"ipmi\"",
        "is not a SHA-256 fingerprint",
        "A pinned fingerprint has no meaning",
        "\"52:54:00\" is not a MAC address",
        "Invalid IPv4 address",
        "Invalid label",
        "\"christmas\" is not one of registered, available, none.",
        "\"soon\" is not a duration",
        "\"many\" is not a quantity",
        "expected exactly one integer",
        "bmc.address: BMC address",
        "9: bmc = {",
        "16: address = \"10.0.0\"",
    ] {
        assert!(text.contains(expected), "missing {expected:?} in:\n{}", output.text);
    }
    assert_eq!(bench.engine.world.made(), 0);
}

#[test]
fn a_wrong_password_is_told_and_can_be_corrected() {
    let bench = Bench::new();
    bench.config(&host_with("h1", "wrong", "1", "52:54:00:aa:00:01", ""));
    let output = bench.tf.try_apply().unwrap();
    let text = output.flat();
    assert!(!output.ok());
    for expected in [
        "host \"h1\" failed",
        "refused user name and password",
        "What to do: Correct the password.",
        "BMC redfish+http://127.0.0.1:8000/redfish/v1/Systems/h1",
        "Last event",
    ] {
        assert!(text.contains(expected), "missing {expected:?} in:\n{}", output.text);
    }
    bench.config(&host("h1", ""));
    bench.tf.apply().unwrap();
    assert_eq!(bench.state("vmetal_host.h1")["phase"], "available");
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    // A password that goes bad later is an update, not a replacement.
    let uid = bench.uid(Kind::Host, "h1");
    bench.config(&host_with("h1", PASSWORD, "2", "52:54:00:aa:00:01", ""));
    assert_eq!(bench.tf.plan().unwrap(), changes("vmetal_host.h1", &["update"]));
    bench.tf.apply().unwrap();
    assert_eq!(bench.uid(Kind::Host, "h1"), uid);
}

#[test]
fn when_time_runs_out_the_next_apply_goes_on() {
    let bench = Bench::new();
    bench.engine.world.hold("h1");
    bench.config(&host("h1", "timeouts = { create = \"2s\", update = \"2s\" }"));
    let first = bench.tf.apply().unwrap();
    let text = first.flat();
    assert!(text.contains("not finished yet") && text.contains("within 2 s"), "{}", first.text);
    assert!(text.contains("Now: Inspecting"), "{}", first.text);
    assert!(!bench.tf.tainted("vmetal_host.h1").unwrap());
    assert_eq!(bench.state("vmetal_host.h1")["phase"], "inspecting");

    // Still not done: an error this time, and still no taint.
    assert_eq!(bench.tf.plan().unwrap(), changes("vmetal_host.h1", &["update"]));
    let second = bench.tf.try_apply().unwrap();
    assert!(!second.ok() && second.flat().contains("not finished yet"), "{}", second.text);
    assert!(!bench.tf.tainted("vmetal_host.h1").unwrap());

    let uid = bench.uid(Kind::Host, "h1");
    bench.engine.world.release("h1");
    bench.until(|| {
        let host = bench.engine.world.get(Kind::Host, "h1").unwrap();
        host.status["phase"] == "available"
    });
    bench.tf.apply().unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    assert_eq!((bench.uid(Kind::Host, "h1"), bench.engine.world.made()), (uid, 1));
}

#[test]
fn ctrl_c_loses_nothing() {
    let bench = Bench::new();
    bench.engine.world.hold("h1");
    bench.config(&host("h1", ""));
    let mut apply = bench.apply_until_made(Kind::Host, "h1");
    signal(&apply, "-INT");
    apply.wait().unwrap();
    let log = std::fs::read_to_string(bench.dir.path().join("output.log")).unwrap();
    assert!(log.contains("You asked Terraform to stop"), "{log}");
    assert!(!bench.tf.tainted("vmetal_host.h1").unwrap());
    assert_eq!(bench.state("vmetal_host.h1")["id"], bench.uid(Kind::Host, "h1"));
    bench.engine.world.release("h1");
    bench.tf.apply().unwrap();
    assert_eq!((bench.tf.plan().unwrap(), bench.engine.world.made()), (Planned::Nothing, 1));
}

/// Terraform dies without a word, so the state knows nothing: the object is found again by its claim, and only by it.
#[test]
fn kill_9_doubles_nothing() {
    let bench = Bench::new();
    bench.engine.world.hold("h1");
    bench.config(&host("h1", ""));
    let mut apply = bench.apply_until_made(Kind::Host, "h1");
    signal(&apply, "-KILL");
    apply.wait().unwrap();
    let uid = bench.uid(Kind::Host, "h1");
    let _ = std::fs::remove_file(bench.dir.path().join(".terraform.tfstate.lock.info"));
    assert!(bench.tf.state("vmetal_host.h1").unwrap().is_none(), "the state knows nothing");

    // Another declaration is not the one that was cut off.
    bench.config(&host("h1", "boot_mode = \"bios\""));
    let other = bench.tf.try_apply().unwrap();
    assert!(!other.ok() && other.flat().contains("terraform import vmetal_host.<name> h1"), "{}", other.text);

    bench.engine.world.release("h1");
    bench.config(&host("h1", ""));
    bench.tf.apply().unwrap();
    assert_eq!((bench.uid(Kind::Host, "h1"), bench.engine.world.made()), (uid, 1));
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);

    // Finished, the object can no longer be taken over by the same text.
    bench.tf.expect(&["state", "rm", "vmetal_host.h1"]).unwrap();
    let again = bench.tf.try_apply().unwrap();
    assert!(!again.ok() && again.flat().contains("exists already"), "{}", again.text);
}

/// The provider dies under Terraform, which then knows nothing of what was made.
#[test]
fn a_provider_that_is_killed_doubles_nothing() {
    let bench = Bench::new();
    bench.engine.world.hold("h1");
    bench.config(&host("h1", ""));
    let mut apply = bench.apply_until_made(Kind::Host, "h1");
    let providers = children(apply.id());
    assert!(!providers.is_empty());
    for pid in providers {
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    }
    assert!(!apply.wait().unwrap().success());
    assert!(bench.tf.state("vmetal_host.h1").unwrap().is_none());
    let uid = bench.uid(Kind::Host, "h1");
    bench.engine.world.release("h1");
    bench.tf.apply().unwrap();
    assert_eq!((bench.uid(Kind::Host, "h1"), bench.engine.world.made()), (uid, 1));
}

/// `terraform plan -generate-config-out` writes a configuration for what exists, and that configuration is right.
#[test]
fn a_configuration_can_be_generated_from_what_exists() {
    let bench = Bench::new();
    bench.config(&format!("{}{REST}", host("h1", "")));
    bench.tf.apply().unwrap();
    for address in ["vmetal_host.h1", "vmetal_tenant_node.one", "vmetal_tenant_cluster.acme"] {
        bench.tf.expect(&["state", "rm", address]).unwrap();
    }
    let kept = REST.split("resource \"vmetal_tenant_cluster\"").next().unwrap();
    let import = |more: &str| {
        let blocks = ["vmetal_host.h1", "vmetal_tenant_node.one", "vmetal_tenant_cluster.acme"].map(|address| {
            let id = address.rsplit('.').next().unwrap();
            format!("import {{\n  to = {address}\n  id = {id:?}\n{more}}}\n")
        });
        bench.config(&format!("{kept}{}", blocks.concat()));
    };
    // Terraform 1.16 looks for hashicorp/vmetal without it, and no version takes it where there is a resource.
    import("  provider = vmetal\n");
    bench.tf.expect(&["plan", "-no-color", "-generate-config-out=generated.tf"]).unwrap();
    let generated = std::fs::read_to_string(bench.dir.path().join("generated.tf")).unwrap();
    assert!(generated.contains("boot_mac"), "{generated}");
    import("");
    let applied = bench.tf.apply().unwrap();
    assert!(applied.flat().contains("3 imported, 0 added, 0 changed, 0 destroyed"), "{}", applied.text);
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    bench.tf.destroy().unwrap();
}

#[test]
fn duplicates_name_both_hosts() {
    let bench = Bench::new();
    let two = format!(
        "{}{}",
        host("h1", ""),
        host_with("h2", PASSWORD, "1", "52-54-00-aa-00-01", "depends_on = [vmetal_host.h1]")
    );
    bench.config(&two);
    let output = bench.tf.try_apply().unwrap();
    let text = output.flat();
    assert!(!output.ok() && text.contains("host \"h1\"") && text.contains("host \"h2\""), "{}", output.text);
    assert!(text.contains("boot_mac = \"52-54-00-aa-00-01\""), "the line is shown: {}", output.text);
}

#[test]
fn an_engine_that_restarts_in_the_middle_costs_nothing() {
    let mut bench = Bench::new();
    bench.engine.world.hold("h1");
    bench.config(&host("h1", ""));
    let mut apply = bench.apply_until_made(Kind::Host, "h1");
    bench.engine.down();
    bench.engine.world.release("h1");
    std::thread::sleep(Duration::from_millis(1500));
    bench.engine.up();
    assert!(apply.wait().unwrap().success(), "{:?}", std::fs::read_to_string(bench.dir.path().join("output.log")));
    assert_eq!((bench.tf.plan().unwrap(), bench.engine.world.made()), (Planned::Nothing, 1));
}

#[test]
fn an_absent_engine_and_a_wrong_token_are_plain_sentences() {
    let mut bench = Bench::new();
    bench.config(&host("h1", ""));
    bench.tf.env("VMETAL_TOKEN", "nonsense");
    let output = bench.tf.try_apply().unwrap();
    assert!(!output.ok() && output.flat().contains("The vmetal engine refused the token"), "{}", output.text);
    bench.engine.down();
    bench.tf.env("VMETAL_TOKEN", TOKEN);
    let output = bench.tf.try_apply().unwrap();
    let text = output.flat();
    assert!(!output.ok() && text.contains("The vmetal engine cannot be reached"), "{}", output.text);
    for noise in ["grpc", "gRPC", "status:", "tonic", "Status {"] {
        assert!(!text.contains(noise), "{noise} in {}", output.text);
    }
}

#[test]
fn no_node_type_lists_every_candidate() {
    let bench = Bench::new();
    bench.config(&format!("{}{}", host("h1", ""), REST.replace("cpu = \"2\"", "cpu = \"64\"")));
    let output = bench.tf.try_apply().unwrap();
    let text = output.flat();
    assert!(!output.ok() && text.contains("tenant node \"one\" failed"), "{}", output.text);
    assert!(text.contains("node type small: offers less cpu than asked for"), "{}", output.text);
    assert!(text.contains("Tenant cluster: acme"), "{}", output.text);
    // Once a plan knows what there is to choose from, it fails; Terraform plans before it destroys, too, and that goes through.
    let planned = bench.tf.run(&["plan", "-no-color"]).unwrap();
    assert!(!planned.ok() && planned.flat().contains("Error: No node type fits"), "{}", planned.text);
    bench.tf.expect(&["destroy", "-auto-approve", "-no-color"]).unwrap();
    assert_eq!(bench.engine.world.count(), 0);
}

#[test]
fn drift_is_seen() {
    let bench = Bench::new();
    bench.config(&host("h1", ""));
    bench.tf.apply().unwrap();
    bench.config(&host("h1", "").replace("class = \"small\"", "class = \"large\""));
    assert_eq!(bench.tf.plan().unwrap(), changes("vmetal_host.h1", &["update"]));
    bench.tf.apply().unwrap();
    bench.engine.world.vanish(Kind::Host, "h1");
    assert_eq!(bench.tf.plan().unwrap(), changes("vmetal_host.h1", &["create"]));
    bench.tf.apply().unwrap();
    assert_eq!(bench.engine.world.made(), 2);
    bench.tf.destroy().unwrap();
}

#[test]
fn a_failed_image_says_why() {
    let bench = Bench::new();
    bench.config("resource \"vmetal_image\" \"i\" {\n  name = \"i\"\n  source = \"/missing.raw\"\n}\n");
    let output = bench.tf.try_apply().unwrap();
    let text = output.flat();
    assert!(
        !output.ok() && text.contains("image \"i\" failed") && text.contains("Source: /missing.raw"),
        "{}",
        output.text
    );
}

/// A password that the BMC was given by an action stays, whatever else of the host is changed, until the configuration names
/// another version.
#[test]
fn a_new_password_is_not_undone_by_a_change_of_something_else() {
    let bench = Bench::new();
    bench.config(&host("h1", ""));
    bench.tf.apply().unwrap();
    let kept = || bench.engine.world.secret(Kind::Host, "h1", "bmc.password").unwrap();
    bench.engine.world.rotate("h1", "a rotated password");
    bench.config(&host("h1", "").replace("class = \"small\"", "class = \"large\""));
    bench.tf.apply().unwrap();
    assert_eq!(kept(), "a rotated password");
    bench.config(&host_with("h1", PASSWORD, "2", "52:54:00:AA:00:01", ""));
    bench.tf.apply().unwrap();
    assert_eq!((kept().as_str(), bench.tf.plan().unwrap()), (PASSWORD, Planned::Nothing));
}

/// Objects that somebody else declared are found by name and by label, and functions take addresses apart.
#[test]
fn what_is_there_can_be_looked_at() {
    let bench = Bench::new();
    bench.config(&format!("{}{REST}", host("rack1", "")));
    bench.tf.apply().unwrap();
    std::fs::remove_file(bench.dir.path().join("terraform.tfstate")).unwrap();
    bench.config(
        r##"
data "vmetal_host" "one" {
  name = "rack1"
}
data "vmetal_hosts" "small" {
  labels = { class = "small" }
}
data "vmetal_hosts" "none" {
  labels = { class = "huge" }
}
data "vmetal_node_type" "small" {
  name = "small"
}
data "vmetal_inventory" "one" {
  host = "rack1"
}
data "vmetal_cost" "month" {
  size      = 3
  hours     = 720
  resources = { cpu = "2" }
}
output "cost" {
  value = provider::vmetal::node_cost(data.vmetal_node_type.small.resources)
}
output "user_data" {
  value = provider::vmetal::render_user_data(["#cloud-config\ntimezone: UTC\n"], ["ssh-ed25519 AAAA me"])
}
output "mac" {
  value = provider::vmetal::normalize_mac("52-54-00-AA-00-01")
}
output "bmc" {
  value = provider::vmetal::parse_bmc_address(data.vmetal_host.one.bmc.address).origin
}
"##,
    );
    bench.tf.apply().unwrap();
    let one = bench.state("data.vmetal_host.one");
    assert_eq!(one["phase"], "provisioned");
    assert_eq!(one["bmc"]["username"], "root");
    assert_eq!(one["inventory"]["memory_bytes"], 8_589_934_592u64);
    assert!(one["bmc"].get("password_wo").is_none(), "a secret is not even null there");
    let small = bench.state("data.vmetal_hosts.small");
    assert_eq!((&small["names"][0], &small["items"][0]["phase"]), (&Json::from("rack1"), &Json::from("provisioned")));
    assert_eq!(small["items"][0]["inventory"]["memory_bytes"], 8_589_934_592u64);
    assert_eq!(bench.state("data.vmetal_hosts.none")["names"], Json::Array(Vec::new()));
    assert_eq!(bench.state("data.vmetal_node_type.small")["resources"]["cpu"], "4");
    let outputs = bench.tf.expect(&["output", "-json"]).unwrap().text;
    let outputs: Json = serde_json::from_str(&outputs).unwrap();
    assert_eq!(outputs["mac"]["value"], "52:54:00:aa:00:01");
    assert_eq!(outputs["bmc"]["value"], "http://127.0.0.1:8000");
    assert_eq!(outputs["cost"]["value"], (4 * 10 + 8 * 2) * 1_000_000);
    assert!(outputs["user_data"]["value"].as_str().unwrap().starts_with("#cloud-config\n{"), "{outputs}");
    let inventory = bench.state("data.vmetal_inventory.one");
    assert_eq!((&inventory["inspected"], &inventory["memory_bytes"]), (&true.into(), &8_589_934_592u64.into()));
    assert_eq!((&inventory["firmware"], &inventory["bmc"]), (&"bios".into(), &Json::Null));
    // The only host is taken: a node that waits costs like any other. The price is exact, to the millionth.
    let cost = bench.state("data.vmetal_cost.month");
    assert_eq!((&cost["micros_per_hour"], &cost["micros"]), (&12_724_500_000u64.into(), &9_161_640_000_000u64.into()));
    assert_eq!(cost["by_node_type"][0]["nodes"], 3);
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    bench.config("data \"vmetal_cost\" \"x\" {\n  resources = { cpu = \"64\" }\n}\n");
    let refused = bench.tf.try_apply().unwrap();
    assert!(!refused.ok() && refused.flat().contains("node type small: offers less cpu"), "{}", refused.flat());
    bench.config("data \"vmetal_host\" \"x\" {\n  name = \"nowhere\"\n}\n");
    let refused = bench.tf.try_apply().unwrap();
    assert!(!refused.ok() && refused.flat().contains("There is no host \"nowhere\""), "{}", refused.flat());
}
