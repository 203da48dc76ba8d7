//! Destroying hosts together with the tenant nodes that hold them, in an order that the configuration does not give.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use bench::{Bench, host_with};
use engine::PASSWORD;
use vmetal_model::{Host, HostAction, Kind, TenantNode};

/// More than Terraform has turns.
const MANY: usize = 14;

fn hosts(count: usize) -> String {
    (1..=count).map(|n| host_with(&format!("h{n}"), PASSWORD, "1", &format!("52:54:00:aa:00:{n:02x}"), "")).collect()
}

const GROUND: &str = r#"
resource "vmetal_node_type" "small" {
  name      = "small"
  selector  = { class = "small" }
  resources = { cpu = "4", memory = "8Gi" }
}
resource "vmetal_tenant_cluster" "acme" {
  name          = "acme"
  kubeconfig_wo = "a secret kubeconfig"
}
"#;

/// So many tenant nodes, which depend on no host.
fn nodes(count: usize) -> String {
    format!(
        r#"
resource "vmetal_tenant_node" "n" {{
  count     = {count}
  name      = "n${{count.index}}"
  cluster   = vmetal_tenant_cluster.acme.name
  resources = {{ cpu = "2" }}
}}
"#
    )
}

/// Hosts, and tenant nodes on all of them.
fn claimed(count: usize) -> Bench {
    let bench = Bench::new();
    bench.config(&format!("{}{GROUND}", hosts(count)));
    bench.tf.apply().unwrap();
    bench.config(&format!("{}{GROUND}{}", hosts(count), nodes(count)));
    bench.tf.apply().unwrap();
    bench
}

fn host(bench: &Bench, name: &str) -> Option<Host> {
    bench.engine.world.get(Kind::Host, name).map(|host| host.typed().unwrap())
}

#[test]
fn everything_goes_at_once_whatever_the_order() {
    let bench = claimed(MANY);
    bench.tf.destroy().unwrap();
    // A host whose tenant node came later in Terraform's order goes when that has been released.
    bench.until(|| bench.engine.world.count() == 0);
}

/// The plan says what it is for, and whoever carries it out reads that from it.
#[test]
fn a_plan_of_a_destruction_goes_the_same_way() {
    let bench = claimed(2);
    bench.tf.expect(&["plan", "-destroy", "-out=p", "-no-color"]).unwrap();
    bench.tf.expect(&["apply", "-no-color", "p"]).unwrap();
    bench.until(|| bench.engine.world.count() == 0);
}

/// A tenant node of another state keeps its server, nobody else gets that, and the host goes when the tenant node does.
#[test]
fn a_tenant_node_that_is_not_destroyed_keeps_its_host() {
    let bench = claimed(1);
    bench.tf.expect(&["state", "rm", "vmetal_tenant_node.n[0]"]).unwrap();
    bench.config(&format!("{}{GROUND}", hosts(1)));
    let refused = bench.tf.run(&["destroy", "-auto-approve", "-no-color", "-target=vmetal_host.h1"]).unwrap();
    assert!(!refused.ok() && refused.flat().contains("is used by tenant node n0"), "{}", refused.text);
    assert!(bench.tf.state("vmetal_host.h1").unwrap().is_some(), "and it stays in the state");
    assert!(host(&bench, "h1").unwrap().metadata.deleted.is_none(), "where only a part is destroyed, it is refused");

    bench.tf.expect(&["state", "rm", "vmetal_node_type.small", "vmetal_tenant_cluster.acme"]).unwrap();
    bench.config(&hosts(1));
    let told = bench.tf.expect(&["destroy", "-auto-approve", "-no-color"]).unwrap();
    assert!(told.flat().contains("Tenant node \"n0\" holds host \"h1\""), "{}", told.text);
    let kept = host(&bench, "h1").unwrap();
    assert!(kept.metadata.deleted.is_some() && kept.status.claim.is_some_and(|claim| claim.node == "n0"));
    let node: TenantNode = bench.engine.world.get(Kind::TenantNode, "n0").unwrap().typed().unwrap();
    assert_eq!((node.metadata.deleted, node.status.host.as_deref()), (None, Some("h1")), "nothing was taken from it");
    assert!(matches!(bench.engine.world.orders().as_slice(), [(name, HostAction::Retire { .. })] if name == "h1"));
    bench.engine.world.delete(Kind::TenantNode, "n0");
    bench.until(|| host(&bench, "h1").is_none());
}

/// What is no longer declared waits for a tenant node that is on its way out, because the engine goes on with that by itself.
#[test]
fn a_tenant_node_that_leaves_is_waited_for() {
    let bench = claimed(1);
    bench.engine.world.hold("n0");
    bench.engine.world.delete(Kind::TenantNode, "n0");
    bench.config(GROUND);
    let mut apply = bench.tf.spawn(&["apply", "-auto-approve", "-no-color"]).unwrap();
    bench.until(|| bench.engine.world.refusals() > 0);
    assert!(host(&bench, "h1").is_some_and(|host| host.metadata.deleted.is_none()));
    bench.engine.world.release("n0");
    let ended = apply.wait().unwrap();
    assert!(ended.success(), "{}", std::fs::read_to_string(bench.dir.path().join("output.log")).unwrap());
    assert!(host(&bench, "h1").is_none() && bench.engine.world.get(Kind::TenantNode, "n0").is_none());
}
