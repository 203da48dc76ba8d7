//! Node pools and placement under the real client, against the real API server over a world in memory.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use bench::{Bench, changes, host_with};
use engine::PASSWORD;
use tfplugin::testing::Planned;
use vmetal_model::{Kind, TenantNode};

/// So many hosts, and what a pool needs besides them.
fn ground(hosts: usize) -> String {
    let host = |n: usize| host_with(&format!("h{n}"), PASSWORD, "1", &format!("52:54:00:aa:00:{n:02x}"), "");
    let hosts: String = (1..=hosts).map(host).collect();
    format!(
        r#"{hosts}
resource "vmetal_node_type" "small" {{
  name      = "small"
  selector  = {{ class = "small" }}
  resources = {{ cpu = "4", memory = "8Gi" }}
}}
resource "vmetal_tenant_cluster" "acme" {{
  name          = "acme"
  kubeconfig_wo = "a secret kubeconfig"
}}
"#
    )
}

fn pool(size: usize, extra: &str) -> String {
    format!(
        r#"
resource "vmetal_node_pool" "workers" {{
  name         = "workers"
  size         = {size}
  cluster      = vmetal_tenant_cluster.acme.name
  resources    = {{ cpu = "2" }}
  user_data_wo = "a secret script"
  {extra}
}}
"#
    )
}

const POOL: &str = "vmetal_node_pool.workers";

fn nodes(bench: &Bench) -> Vec<TenantNode> {
    let all = (0..20).filter_map(|n| bench.engine.world.get(Kind::TenantNode, &format!("workers-{n}")));
    all.map(|node| node.typed().unwrap()).collect()
}

fn names(bench: &Bench) -> Vec<String> {
    nodes(bench).iter().map(|node| node.name().to_owned()).collect()
}

#[test]
fn a_pool_grows_shrinks_is_imported_and_goes() {
    let bench = Bench::new();
    bench.config(&ground(4));
    bench.tf.apply().unwrap();
    bench.config(&format!("{}{}", ground(4), pool(3, "")));
    bench.tf.apply().unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "a second plan is empty");
    let state = bench.state(POOL);
    assert_eq!((&state["ready"], &state["cost"], &state["id"]), (&3.into(), &(3 * 4242).into(), &"workers".into()));
    assert_eq!((&state["nodes"][2]["name"], &state["nodes"][2]["phase"]), (&"workers-2".into(), &"ready".into()));
    assert_eq!(names(&bench), ["workers-0", "workers-1", "workers-2"]);
    assert!(nodes(&bench).iter().all(|node| node.metadata.annotations.is_empty()), "the stamps of the create are gone");
    let secret = bench.engine.world.secret(Kind::TenantNode, "workers-2", "user_data");
    assert_eq!(secret.as_deref(), Some("a secret script"));

    let first = bench.uid(Kind::TenantNode, "workers-0");
    bench.config(&format!("{}{}", ground(4), pool(4, "")));
    assert_eq!(bench.tf.plan().unwrap(), changes(POOL, &["update"]));
    bench.tf.apply().unwrap();
    bench.config(&format!("{}{}", ground(4), pool(2, "drain = { timeout = \"5m\" }")));
    let planned = bench.tf.expect(&["plan", "-no-color"]).unwrap();
    assert!(planned.flat().contains("gives up 2 of its members"), "{}", planned.text);
    bench.tf.apply().unwrap();
    assert_eq!(names(&bench), ["workers-0", "workers-1"], "the youngest go first");
    assert!(nodes(&bench).iter().all(|node| node.spec.drain.timeout_seconds == 300), "and the others heard the news");
    assert_eq!(bench.uid(Kind::TenantNode, "workers-0"), first, "what stays is not touched");

    // A member that somebody else deletes is drift, and is made again.
    bench.engine.world.delete(Kind::TenantNode, "workers-0");
    bench.until(|| bench.engine.world.get(Kind::TenantNode, "workers-0").is_none());
    assert_eq!(bench.tf.plan().unwrap(), changes(POOL, &["update"]));
    bench.tf.apply().unwrap();
    assert_eq!(names(&bench), ["workers-0", "workers-1"]);
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);

    bench.tf.expect(&["state", "rm", POOL]).unwrap();
    bench.tf.import(POOL, "workers").unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "imported, there is nothing to do");
    let planned = bench.tf.expect(&["plan", "-no-color", "-destroy"]).unwrap();
    assert!(planned.flat().contains("2 hosts will be erased"), "{}", planned.text);
    bench.tf.destroy().unwrap();
    assert_eq!(bench.engine.world.count(), 0);
}

/// One member that finds no host costs the others nothing: no taint, and the next apply goes on.
#[test]
fn a_pool_that_is_not_whole_is_gone_on_with() {
    let bench = Bench::new();
    bench.config(&ground(2));
    bench.tf.apply().unwrap();
    let short = "timeouts = { create = \"3s\", update = \"3s\" }";
    bench.config(&format!("{}{}", ground(2), pool(3, short)));
    let first = bench.tf.apply().unwrap();
    let text = first.flat();
    assert!(text.contains("Warning: Node pool \"workers\" is not finished yet"), "{}", first.text);
    assert!(text.contains("- workers-") && text.contains("pending"), "{}", first.text);
    assert!(!bench.tf.tainted(POOL).unwrap());
    assert_eq!(bench.state(POOL)["ready"], 2);
    let uids: Vec<_> = nodes(&bench).iter().map(|node| node.metadata.uid.clone()).collect();

    assert_eq!(bench.tf.plan().unwrap(), changes(POOL, &["update"]), "it says that it is not finished");
    let second = bench.tf.try_apply().unwrap();
    assert!(!second.ok() && second.flat().contains("is not finished yet"), "{}", second.text);
    assert!(!bench.tf.tainted(POOL).unwrap());

    bench.config(&format!("{}{}", ground(3), pool(3, short)));
    bench.tf.expect(&["apply", "-auto-approve", "-no-color", "-target=vmetal_host.h3"]).unwrap();
    bench.tf.apply().unwrap();
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    let same: Vec<_> = nodes(&bench).iter().map(|node| node.metadata.uid.clone()).collect();
    assert_eq!(same, uids, "nobody was replaced");
    bench.tf.destroy().unwrap();
}

/// Sixteen members wait on one stream, though Terraform makes ten things at a time; all of them get hosts, or none.
#[test]
fn a_pool_is_placed_together_whatever_the_parallelism() {
    let bench = Bench::new();
    bench.config(&ground(16));
    bench.tf.apply().unwrap();
    bench.config(&format!("{}{}", ground(16), pool(16, "together = { same = \"rack\" }")));
    bench.tf.apply().unwrap();
    let groups: Vec<_> = nodes(&bench).into_iter().map(|node| node.spec.group.unwrap()).collect();
    assert_eq!(groups.len(), 16);
    assert!(groups.iter().all(|group| (group.name.as_str(), group.size) == ("workers", 16)), "{groups:?}");
    assert_eq!(bench.state(POOL)["ready"], 16);
    bench.config(&format!("{}{}", ground(16), pool(15, "together = { same = \"rack\" }")));
    bench.tf.apply().unwrap();
    assert_eq!((nodes(&bench).len(), bench.tf.plan().unwrap()), (15, Planned::Nothing));
    bench.tf.destroy().unwrap();
}

#[test]
fn a_group_of_tenant_nodes_warns_of_the_parallelism_it_needs() {
    let bench = Bench::new();
    let node = r#"
resource "vmetal_tenant_node" "n" {
  name    = "n"
  cluster = "acme"
  group   = { name = "g", size = 12 }
}
"#;
    bench.config(node);
    let planned = bench.tf.expect(&["plan", "-no-color"]).unwrap();
    assert!(planned.flat().contains("-parallelism=12"), "{}", planned.text);
    bench.config(&node.replace("size = 12", "size = 12, same = \"not a label\""));
    let refused = bench.tf.run(&["plan", "-no-color"]).unwrap();
    assert!(!refused.ok() && refused.flat().contains("group.same"), "{}", refused.text);
}
