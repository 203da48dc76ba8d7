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
use vmetal_model::{Kind, TenantNode, TenantNodePhase};

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
    bench.config(&format!("{}{}", ground(5), pool(3, "")));
    // The stamps of the create are gone once the create has come to its end.
    bench.apply_to_the_last(5 + 2 + 3, "h5");
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing, "a second plan is empty");
    let state = bench.state(POOL);
    assert_eq!((&state["ready"], &state["cost"], &state["id"]), (&3.into(), &(3 * 4242).into(), &"workers".into()));
    assert_eq!((&state["nodes"][2]["name"], &state["nodes"][2]["phase"]), (&"workers-2".into(), &"ready".into()));
    assert_eq!(names(&bench), ["workers-0", "workers-1", "workers-2"]);
    let secret = bench.engine.world.secret(Kind::TenantNode, "workers-2", "user_data");
    assert_eq!(secret.as_deref(), Some("a secret script"));

    let first = bench.uid(Kind::TenantNode, "workers-0");
    bench.config(&format!("{}{}", ground(5), pool(4, "")));
    assert_eq!(bench.tf.plan().unwrap(), changes(POOL, &["update"]));
    bench.tf.apply().unwrap();
    bench.config(&format!("{}{}", ground(5), pool(2, "drain = { timeout = \"5m\" }")));
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
    // A host whose tenant node came later in Terraform's order goes when that has been released.
    bench.until(|| bench.engine.world.count() == 0);
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
    let ready = |node: &TenantNode| node.status.phase == TenantNodePhase::Ready;
    bench.until(|| nodes(&bench).into_iter().filter(ready).count() == 2);
    bench.tf.expect(&["apply", "-refresh-only", "-auto-approve", "-no-color"]).unwrap();
    assert_eq!(bench.state(POOL)["ready"], 2);
    let uids: Vec<_> = nodes(&bench).iter().map(|node| node.metadata.uid.clone()).collect();

    assert_eq!(bench.tf.plan().unwrap(), changes(POOL, &["update"]), "it says that it is not finished");
    let second = bench.tf.try_apply().unwrap();
    assert!(!second.ok() && second.flat().contains("is not finished yet"), "{}", second.text);
    assert!(!bench.tf.tainted(POOL).unwrap());

    bench.config(&format!("{}{}", ground(3), pool(3, "")));
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
    // As in every configuration that has both: a claimed host goes only when its claim is gone, and ten that wait for that
    // would take all the turns that Terraform has.
    let hosts: Vec<String> = (1..=16).map(|n| format!("vmetal_host.h{n}")).collect();
    let extra = format!("together = {{ same = \"rack\" }}\n  depends_on = [{}]", hosts.join(", "));
    bench.config(&format!("{}{}", ground(16), pool(16, &extra)));
    bench.tf.apply().unwrap();
    let groups: Vec<_> = nodes(&bench).into_iter().map(|node| node.spec.group.unwrap()).collect();
    assert_eq!(groups.len(), 16);
    assert!(groups.iter().all(|group| (group.name.as_str(), group.size) == ("workers", 16)), "{groups:?}");
    assert_eq!(bench.state(POOL)["ready"], 16);
    bench.config(&format!("{}{}", ground(16), pool(15, &extra)));
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
  plan_check = "off"
}
"#;
    bench.config(node);
    let planned = bench.tf.expect(&["plan", "-no-color"]).unwrap();
    assert!(planned.flat().contains("-parallelism=12"), "{}", planned.text);
    bench.config(&node.replace("size = 12", "size = 12, same = \"not a label\""));
    let refused = bench.tf.run(&["plan", "-no-color"]).unwrap();
    assert!(!refused.ok() && refused.flat().contains("group.same"), "{}", refused.text);
}

const NODE: &str = r#"
resource "vmetal_tenant_node" "n" {
  name      = "n"
  cluster   = vmetal_tenant_cluster.acme.name
  resources = { cpu = "2" }
}
"#;

#[test]
fn a_plan_says_what_will_be_chosen_and_fails_where_nothing_can_be() {
    let bench = Bench::new();
    bench.config(&ground(1));
    bench.tf.apply().unwrap();
    let plan = |body: &str| {
        bench.config(&format!("{}{body}", ground(1)));
        bench.tf.run(&["plan", "-no-color"]).unwrap()
    };
    let good = plan(NODE);
    let text = good.flat();
    assert!(good.ok() && text.contains("Placement of tenant node \"n\": 1 x small, cost 4242"), "{}", good.text);
    assert!(text.contains("The cheapest type that fits. Now that would be: h1."), "{}", good.text);

    let huge = NODE.replace("\"2\"", "\"64\"");
    let bad = plan(&huge);
    assert!(!bad.ok() && bad.flat().contains("No node type fits tenant node \"n\""), "{}", bad.text);
    assert!(bad.flat().contains("- node type small: offers less cpu than asked for"), "{}", bad.text);
    let warned = plan(&huge.replace("name      =", "plan_check = \"warn\"\n  name      ="));
    assert!(warned.ok() && warned.flat().contains("Warning: No node type fits"), "{}", warned.text);
    let off = plan(&huge.replace("name      =", "plan_check = \"off\"\n  name      ="));
    assert!(off.ok() && !off.flat().contains("No node type fits"), "{}", off.text);

    // All hosts are taken: that is worth waiting for.
    let crowd = plan(&pool(3, ""));
    assert!(crowd.ok() && crowd.flat().contains("1 x small, cost 4242; 2 without a free host"), "{}", crowd.text);

    // Together, one host is none.
    let gang = plan(&pool(3, "together = {}"));
    assert!(gang.ok() && gang.flat().contains("node pool \"workers\": none of the 3 gets a host yet"), "{}", gang.text);
    assert!(
        gang.flat().contains("1 of the 3 hosts that group workers waits for can be had. All of them wait"),
        "{}",
        gang.text
    );
    let member = plan(&NODE.replace("resources =", "group     = { name = \"g\", size = 2 }\n  resources ="));
    assert!(member.ok() && member.flat().contains("the group of tenant node \"n\": none of the 2"), "{}", member.text);

    // A plan that makes a node type itself cannot know, and says nothing.
    let own = "resource \"vmetal_node_type\" \"large\" {\n  name = \"large\"\n  selector = { class = \"large\" }\n  resources = { cpu = \"64\", memory = \"8Gi\" }\n}\n";
    let depends = huge.replace("name      =", "node_type = vmetal_node_type.large.name\n  name      =");
    let open = plan(&format!("{own}{depends}"));
    assert!(open.ok() && !open.flat().contains("No node type fits"), "{}", open.text);
    assert!(bench.engine.world.get(Kind::TenantNode, "n").is_none(), "planning declares nothing");
}

/// A cluster that may hold one host has one: what comes second says why it waits, at plan and in the apply, and comes as soon as
/// the first goes or more is allowed.
#[test]
fn a_node_beyond_the_quota_says_why_and_comes_when_there_is_room() {
    let bench = Bench::new();
    let within = |hosts: u32| {
        ground(3).replace("kubeconfig_wo =", &format!("quota         = {{ hosts = {hosts} }}\n  kubeconfig_wo ="))
    };
    let node = |name: &str, extra: &str| {
        NODE.replace("\"n\"", &format!("{name:?}")).replace("resources =", &format!("{extra}\n  resources ="))
    };
    let held = |name: &str| {
        let node: TenantNode = bench.engine.world.get(Kind::TenantNode, name).unwrap().typed().unwrap();
        node.status.host
    };
    bench.config(&within(1));
    bench.tf.apply().unwrap();
    bench.config(&format!("{}{}", within(1), node("first", "")));
    bench.tf.apply().unwrap();
    let short = node("second", "timeouts  = { create = \"3s\" }");
    bench.config(&format!("{}{}{short}", within(1), node("first", "")));
    bench.engine.world.hold("second");
    let planned = bench.tf.expect(&["plan", "-no-color"]).unwrap();
    for part in ["1 over the quota of their tenant cluster", "tenant cluster acme holds 1 of its 1 host"] {
        assert!(planned.flat().contains(part), "missing {part:?} in:\n{}", planned.text);
    }
    let waited = bench.tf.try_apply().unwrap();
    let told = ["The tenant node \"second\" is not finished yet", "tenant cluster acme holds 1 of its 1 host"];
    assert!(waited.ok() && told.iter().all(|part| waited.flat().contains(part)), "{}", waited.text);
    assert_eq!(held("second"), None);
    bench.engine.world.release("second");

    // In one apply the first goes and the second gets its place.
    let second = node("second", "");
    bench.config(&format!("{}{second}", within(1)));
    bench.tf.apply().unwrap();
    assert!(held("second").is_some() && bench.engine.world.get(Kind::TenantNode, "first").is_none());
    // In one apply more is allowed, and a third comes.
    bench.config(&format!("{}{second}{}", within(2), node("third", "")));
    bench.tf.apply().unwrap();
    assert!(held("third").is_some());
    // A quota below what is held takes nothing away.
    bench.config(&format!("{}{second}{}", within(1), node("third", "")));
    bench.tf.apply().unwrap();
    assert!(held("second").is_some() && held("third").is_some());
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    bench.tf.destroy().unwrap();
}

#[test]
fn placements_and_events_can_be_looked_at() {
    let bench = Bench::new();
    bench.config(&ground(2));
    bench.tf.apply().unwrap();
    let look = r#"
data "vmetal_placement" "two" {
  resources = { cpu = "2" }
  size      = 2
}
data "vmetal_placement" "three" {
  size = 3
}
data "vmetal_placement" "gang" {
  size     = 3
  together = { same = "rack" }
}
data "vmetal_placement" "huge" {
  resources = { cpu = "64" }
}
data "vmetal_events" "h1" {
  kind  = "host"
  name  = "h1"
  limit = 2
}
"#;
    bench.config(&format!("{}{look}", ground(2)));
    bench.tf.apply().unwrap();
    let two = bench.state("data.vmetal_placement.two");
    assert_eq!((&two["satisfiable"], &two["cost"]), (&true.into(), &(2 * 4242).into()));
    assert_eq!(two["hosts"], serde_json::json!(["h1", "h2"]));
    assert_eq!(
        (&two["chosen_node_type"], &two["node_type_candidates"][0]["feasible"]),
        (&"small".into(), &true.into())
    );
    let three = bench.state("data.vmetal_placement.three");
    assert_eq!((&three["satisfiable"], &three["hosts"][1]), (&false.into(), &"h2".into()));
    assert_eq!(three["node_type_candidates"][0]["reason"], "0 hosts free");
    let gang = bench.state("data.vmetal_placement.gang");
    assert_eq!((&gang["satisfiable"], &gang["hosts"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(gang["reason"], "2 of the 3 hosts that group preview waits for can be had");
    let huge = bench.state("data.vmetal_placement.huge");
    assert_eq!((&huge["satisfiable"], &huge["reason"]), (&false.into(), &"no node type fits".into()));
    let events = bench.state("data.vmetal_events.h1")["events"].as_array().unwrap().clone();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[1]["name"], &events[1]["message"]), (&"h1".into(), &"now available".into()));
    assert_eq!(bench.tf.plan().unwrap(), Planned::Nothing);
    bench.config("data \"vmetal_events\" \"x\" {\n  name = \"h1\"\n}\n");
    let refused = bench.tf.run(&["plan", "-no-color"]).unwrap();
    assert!(!refused.ok() && refused.flat().contains("Name without kind"), "{}", refused.text);
}
