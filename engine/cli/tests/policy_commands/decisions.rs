//! The log of decisions through the command: claims are decided by a running engine, listed, taken again, and tried with
//! other policies.

use std::time::Duration;

use serde_json::Value;
use vmetal_store::{AnyStore, StoreClock};

use super::world::World;
use super::{start, vmetal};

/// How long the log may take to be written: it is, beside the reservations.
const PATIENCE: Duration = Duration::from_secs(60);

async fn json(endpoint: &str, args: &[&str]) -> Value {
    serde_json::from_str(&vmetal(endpoint, &[args, &["--json"]].concat()).await.unwrap()).unwrap()
}

/// The log, as soon as it has so many decisions.
#[allow(clippy::disallowed_methods, reason = "waits for a running engine")]
async fn logged(endpoint: &str, count: usize) -> Vec<Value> {
    let begin = std::time::Instant::now();
    loop {
        let log = json(endpoint, &["policy", "log"]).await;
        let entries = log.as_array().unwrap();
        if entries.len() >= count {
            return entries.clone();
        }
        assert!(begin.elapsed() < PATIENCE, "{} of {count} decisions are in the log: {log:#}", entries.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_listed_taken_again_and_tried_with_other_policies() {
    let world = World::start(AnyStore::memory(StoreClock::system()), 1).await;
    world.hosts_of(6, |_| "r1".into()).await;
    // The first by name has been used a lot: the default policy leaves it for last, first fit does not.
    world.alter(|host| host.status.tenancies.count = if host.name() == "h000" { 50 } else { 0 }).await;
    let endpoint = start(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("nodes.yaml");
    let node = |n: u32| format!("kind: tenant_node\nmetadata: {{name: web-{n}}}\nspec: {{cluster: c}}\n");
    std::fs::write(&manifest, (0..3).map(node).collect::<Vec<_>>().join("---\n")).unwrap();
    vmetal(&endpoint, &["apply", "-f", manifest.to_str().unwrap()]).await.unwrap();
    world.until("the claims to be placed", |world| world.placed() == 3).await;

    let entries = logged(&endpoint, 3).await;
    let field = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    let mut seen: Vec<(String, String)> = entries.iter().map(|one| (field(one, "node"), field(one, "host"))).collect();
    seen.sort();
    let held: Vec<(String, String)> =
        world.nodes().into_iter().map(|node| (node.metadata.name, node.status.host.unwrap())).collect();
    assert_eq!(seen, held, "each decision with the host that the claim really has");
    let mut hosts: Vec<&str> = held.iter().map(|(_, host)| host.as_str()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["h001", "h002", "h003"]);
    let listed = vmetal(&endpoint, &["policy", "log", "--last", "2"]).await.unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.starts_with("DECISION ") && listed.contains(&field(&entries[2], "decision")), "{listed}");

    // Taken again, each gives the same bytes.
    for entry in &entries {
        let id = field(entry, "decision");
        let replay = json(&endpoint, &["policy", "replay", &id]).await;
        assert_eq!((field(&replay, "node"), field(&replay, "host")), (field(entry, "node"), field(entry, "host")));
        assert_eq!(replay["replayed_host"], replay["host"]);
        assert!(field(&replay, "logged").len() == 64 && replay["logged"] == replay["replayed"], "{replay:#}");
        let told = vmetal(&endpoint, &["policy", "replay", &id]).await.unwrap();
        assert!(told.contains("the same"), "{told}");
    }
    let missing = vmetal(&endpoint, &["policy", "replay", "nothing-0"]).await.unwrap_err();
    assert_eq!(missing.exit_code(), 1);
    assert!(missing.lines().join("\n").contains("the log has no decision"), "{:?}", missing.lines());

    // Another policy would have taken the worn host each time: over the fleet of each decision it was free.
    let diff = json(&endpoint, &["policy", "diff", "place-first-fit"]).await;
    assert_eq!((diff["decisions"].as_u64(), diff["same"].as_u64()), (Some(3), Some(0)));
    for (difference, entry) in diff["differences"].as_array().unwrap().iter().zip(&entries) {
        assert_eq!((&difference["decision"], &difference["before"]), (&entry["decision"], &entry["host"]));
        assert_eq!(difference["after"], "h000");
    }
    let told = vmetal(&endpoint, &["policy", "diff", "place-first-fit", "--last", "1"]).await.unwrap();
    assert!(told.contains("would choose the same hosts in 0 of 1 logged decisions"), "{told}");
    // The one that decided would do so again; with other settings it would not.
    let same = json(&endpoint, &["policy", "diff", "place-balanced"]).await;
    assert_eq!((same["same"].as_u64(), same["differences"].as_array().map(Vec::len)), (Some(3), Some(0)));
    let other = json(&endpoint, &["policy", "diff", r#"place-balanced{"wear":0,"rest":0}"#]).await;
    assert_eq!(other["same"].as_u64(), Some(0), "{other:#}");
    // A cost policy chooses among node types, and here there is but one.
    let cost = json(&endpoint, &["policy", "diff", "cost-effective"]).await;
    assert_eq!((cost["chooses"].as_str(), cost["same"].as_u64()), (Some("node types"), Some(3)));
}
