//! The rooms, and who may know whom.
//!
//! Dependencies of the workspace point one way. [`ROOMS`] says what each crate may know; whatever else a `Cargo.toml` of ours
//! names as a normal or build dependency is a broken rule and fails here with the crate, the dependency and what to do.
//! Development dependencies are exempt: a test may put two rooms side by side that must not know each other.
//!
//! The same table, with the reasons, is in `docs/architecture.md`; a test compares the two.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Every crate of the workspace and the crates of the workspace that it may know.
const ROOMS: &[(&str, &[&str])] = &[
    ("vmetal-model", &[]),
    ("vmetal-lifecycle", &["vmetal-model"]),
    ("vmetal-store", &[]),
    ("vmetal-runtime", &[]),
    ("vmetal-bmc", &["vmetal-model"]),
    ("vmetal-image", &["vmetal-model"]),
    ("vmetal-agent", &["vmetal-model", "vmetal-image"]),
    ("vmetal-network", &["vmetal-model"]),
    ("vmetal-user-data", &[]),
    ("vmetal-tenant", &["vmetal-model", "vmetal-user-data"]),
    ("vmetal-policy-sdk", &[]),
    ("cost-vcluster", &["vmetal-policy-sdk"]),
    ("cost-effective", &["vmetal-policy-sdk"]),
    ("place-first-fit", &["vmetal-policy-sdk"]),
    ("place-balanced", &["vmetal-policy-sdk"]),
    ("place-gang-topology", &["vmetal-policy-sdk"]),
    ("place-spread", &["vmetal-policy-sdk"]),
    ("place-quarantine", &["vmetal-policy-sdk"]),
    ("fill-racks", &["vmetal-policy-sdk"]),
    (
        "vmetal-policy",
        &[
            "vmetal-model",
            "vmetal-policy-sdk",
            "cost-vcluster",
            "cost-effective",
            "place-first-fit",
            "place-balanced",
            "place-gang-topology",
            "place-spread",
            "place-quarantine",
        ],
    ),
    // Files and registries, and nothing of what is in a component: so it can be asked without an engine, too.
    ("vmetal-policy-source", &[]),
    // What authors do with a policy needs the host that runs it, and no engine.
    ("vmetal-policy-tool", &["vmetal-model", "vmetal-policy", "vmetal-policy-sdk"]),
    ("vmetal-api", &["vmetal-model"]),
    ("vmetal-netboot", &["vmetal-model", "vmetal-api"]),
    // The store is checked, backed up and restored by `vmetal store` where no engine runs to be asked; policies are written
    // and tried by `vmetal policy`.
    ("vmetal-cli", &["vmetal-model", "vmetal-api", "vmetal-store", "vmetal-policy-source", "vmetal-policy-tool"]),
    (
        "vmetald",
        &[
            "vmetal-model",
            "vmetal-lifecycle",
            "vmetal-store",
            "vmetal-runtime",
            "vmetal-bmc",
            "vmetal-image",
            "vmetal-network",
            "vmetal-tenant",
            "vmetal-policy",
            "vmetal-policy-source",
            "vmetal-api",
        ],
    ),
    ("tfplugin", &[]),
    // Its functions compute what the engine computes, with the same code: the published price list, and merged user data.
    ("terraform-provider-vmetal", &["tfplugin", "vmetal-model", "vmetal-api", "vmetal-policy-sdk", "vmetal-user-data"]),
    ("vmetal-release", &[]),
    ("vmetal-lab", &[]),
    ("vmetal-acceptance", &["vmetal-model", "vmetal-api", "vmetal-test-port"]),
    (
        "vmetal-simulation",
        &[
            "vmetald",
            "vmetal-api",
            "vmetal-bmc",
            "vmetal-lifecycle",
            "vmetal-model",
            "vmetal-policy",
            "vmetal-runtime",
            "vmetal-store",
            "vmetal-tenant",
        ],
    ),
    ("vmetal-test-port", &[]),
    ("vmetal-test-postgres", &["vmetal-test-port"]),
    ("vmetal-test-registry", &[]),
    ("policy-peers", &[]),
    // The policy bench asks policies directly, beside peers.
    ("vmetal-bench", &["vmetal-model", "vmetal-api", "vmetal-policy", "vmetal-policy-sdk", "policy-peers"]),
];

/// What must hold even where somebody widens [`ROOMS`]: who must not reach whom, over any number of steps.
const NEVER: &[(&str, &str, &str)] = &[
    ("vmetal-bmc", "vmetal-store", "gateways act; the engine remembers"),
    ("vmetal-netboot", "vmetal-store", "it parses what strangers send and must hold nothing worth stealing"),
    ("vmetal-image", "vmetal-store", "the installer uses it"),
    ("vmetal-agent", "vmetal-store", "it runs on servers that belong to tenants"),
    ("vmetal-network", "vmetal-store", "it proposes addresses; the store says who has one"),
    ("vmetal-tenant", "vmetal-store", "it makes single calls without memory"),
    ("vmetal-policy", "vmetal-store", "a decision is a function of its arguments"),
    ("vmetal-policy", "vmetal-policy-source", "a decision never waits for a network"),
    ("vmetal-policy-tool", "vmetal-api", "a policy is written and tried where no engine is"),
    ("vmetal-lifecycle", "vmetal-store", "a step is a function of its arguments"),
    ("terraform-provider-vmetal", "vmetal-lifecycle", "the engine decides, the provider asks"),
    ("terraform-provider-vmetal", "vmetal-store", "the API is the only way in"),
    ("vmetal-store", "vmetal-model", "the store keeps opaque values"),
    ("vmetal-runtime", "vmetal-model", "the machinery knows no host from a node"),
    ("tfplugin", "vmetal-model", "any provider written in Rust could use it"),
    ("vmetal-lab", "vmetal-model", "a test double that shares our types shares our mistakes"),
    ("vmetal-lab", "vmetal-bmc", "a test double that shares our types shares our mistakes"),
];

/// Crates that only compute. Nothing that talks to the outside, waits, or draws chance may be below them, however deep.
const PURE: &[&str] = &[
    "vmetal-model",
    "vmetal-lifecycle",
    "vmetal-network",
    "vmetal-policy-sdk",
    "vmetal-user-data",
    "cost-vcluster",
    "cost-effective",
    "place-first-fit",
    "place-balanced",
    "place-gang-topology",
    "place-spread",
    "place-quarantine",
];

/// Crates that do what the pure ones must not.
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "fatfs",
    "futures",
    "getrandom",
    "hyper",
    "hyper-util",
    "imago",
    "kube",
    "libc",
    "mio",
    "native-tls",
    "nix",
    "rand",
    "reqwest",
    "rusqlite",
    "rustix",
    "rustls",
    "socket2",
    "tempfile",
    "tokio",
    "tonic",
    "tracing-subscriber",
    "ureq",
    "wasmtime",
];

/// Who names whom.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn workspace_root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(workspace_root().join("Cargo.toml"));
    // One platform, so that nothing has to be downloaded that the build did not need anyway.
    command.other_options(["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned).to_vec());
    command.exec().unwrap()
}

/// The workspace's crates with the workspace's crates that their `Cargo.toml` names, tests aside.
fn declared(metadata: &Metadata) -> Graph {
    let ours: BTreeSet<String> = metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let named = |package: &&cargo_metadata::Package| {
        let dependencies = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        let internal = dependencies.map(|d| d.name.clone()).filter(|name| ours.contains(name)).collect();
        (package.name.to_string(), internal)
    };
    metadata.workspace_packages().iter().map(named).collect()
}

/// Everything that may be compiled into each crate, from anywhere, tests and build scripts aside. Cargo names optional
/// dependencies here that the features in use leave out, so this finds too much rather than too little.
fn below(metadata: &Metadata) -> Graph {
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.to_string())).collect();
    let resolve = metadata.resolve.as_ref().unwrap();
    let mut graph = Graph::new();
    for node in &resolve.nodes {
        let normal =
            node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        // Two versions of one crate share an entry: what either of them reaches counts.
        graph.entry(names[&node.id].clone()).or_default().extend(normal.map(|dep| names[&dep.pkg].clone()));
    }
    graph
}

/// The shortest way from one crate to another, both ends included.
fn way(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut queue = std::collections::VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::from([from.to_owned()]);
    while let Some(path) = queue.pop_front() {
        for next in graph.get(path.last()?).into_iter().flatten() {
            let mut longer = path.clone();
            longer.push(next.clone());
            if next == to {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                queue.push_back(longer);
            }
        }
    }
    None
}

fn listing(names: &[&str]) -> String {
    if names.is_empty() { "no crate of ours".to_owned() } else { names.join(", ") }
}

/// Holds what is declared against the table.
fn broken_rooms(graph: &Graph, rooms: &[(&str, &[&str])]) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, known) in graph {
        let Some((_, allowed)) = rooms.iter().find(|(room, _)| room == name) else {
            broken.push(format!(
                "{name} has no room: add it to ROOMS here and to the table in docs/architecture.md, with what it may know"
            ));
            continue;
        };
        for dependency in known.iter().filter(|dependency| !allowed.contains(&dependency.as_str())) {
            broken.push(format!(
                "{name} must not know {dependency}; it may know {}. Move the code to a crate that may know both, or pass in what \
                 is needed; a test may name it under [dev-dependencies]",
                listing(allowed)
            ));
        }
    }
    let gone = rooms.iter().filter(|(room, _)| !graph.contains_key(*room));
    broken
        .extend(gone.map(|(room, _)| format!("{room} is in ROOMS but not in the workspace: remove it from the table")));
    broken
}

/// Holds the table, or what is declared, against the promises that outlive it.
fn broken_promises(graph: &Graph, never: &[(&str, &str, &str)]) -> Vec<String> {
    let promise = |&(from, to, why): &(&str, &str, &str)| {
        way(graph, from, to).map(|path| format!("{from} reaches {to} ({}), but must not: {why}", path.join(" -> ")))
    };
    never.iter().filter_map(promise).collect()
}

/// Finds what does I/O below crates that only compute.
fn broken_purity(graph: &Graph, pure: &[&str], impure: &[&str]) -> Vec<String> {
    let found = |name: &&str| {
        let ways = impure.iter().filter_map(|bad| way(graph, name, bad));
        ways.map(|path| {
            format!("{name} only computes, but {} is below it: {}", path[path.len() - 1], path.join(" -> "))
        })
        .collect()
    };
    pure.iter().flat_map(|name| -> Vec<String> { found(name) }).collect()
}

fn as_graph(rooms: &[(&str, &[&str])]) -> Graph {
    rooms
        .iter()
        .map(|(room, known)| ((*room).to_owned(), known.iter().map(|name| (*name).to_owned()).collect()))
        .collect()
}

#[track_caller]
fn assert_whole(broken: &[String]) {
    assert!(broken.is_empty(), "the dependency rule is broken:\n- {}", broken.join("\n- "));
}

#[test]
fn every_crate_knows_only_what_it_may_know() {
    let graph = declared(&metadata());
    assert!(graph["vmetald"].contains("vmetal-store"), "the graph was not read: {graph:?}");
    assert_whole(&broken_rooms(&graph, ROOMS));
    assert_whole(&broken_promises(&graph, NEVER));
}

#[test]
fn the_table_keeps_the_promises_and_has_no_circle() {
    let graph = as_graph(ROOMS);
    assert_whole(&broken_promises(&graph, NEVER));
    for (room, _) in ROOMS {
        assert_eq!(way(&graph, room, room), None, "a circle of rooms");
    }
}

#[test]
fn what_only_computes_stands_on_nothing_that_acts() {
    let graph = below(&metadata());
    assert!(way(&graph, "vmetald", "tokio").is_some(), "the graph was not read");
    assert_whole(&broken_purity(&graph, PURE, IMPURE));
}

#[test]
fn the_page_in_docs_has_the_same_table() {
    let page = std::fs::read_to_string(workspace_root().join("docs/architecture.md")).unwrap();
    let code = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let [name, _, _, known] = cells[..] else { return None };
        Some((code(name).first()?.clone(), code(known).into_iter().collect::<BTreeSet<_>>()))
    };
    let table: Graph = page.lines().filter_map(row).collect();
    assert_eq!(table, as_graph(ROOMS), "the table of crates in docs/architecture.md and ROOMS differ");
}

/// The checker itself, on examples that are broken.
mod checker {
    use super::*;

    const TABLE: &[(&str, &[&str])] =
        &[("model", &[]), ("store", &[]), ("bmc", &["model"]), ("engine", &["bmc", "store"])];

    #[test]
    fn a_whole_workspace_passes() {
        assert_eq!(broken_rooms(&as_graph(TABLE), TABLE), [] as [String; 0]);
    }

    #[test]
    fn a_dependency_that_is_not_allowed_is_named() {
        let mut graph = as_graph(TABLE);
        graph.get_mut("bmc").unwrap().insert("store".to_owned());
        let broken = broken_rooms(&graph, TABLE);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].starts_with("bmc must not know store; it may know model."), "{broken:?}");
        let never = [("bmc", "store", "gateways act")];
        assert_eq!(broken_promises(&graph, &never), ["bmc reaches store (bmc -> store), but must not: gateways act"]);
    }

    #[test]
    fn a_detour_does_not_help() {
        let mut graph = as_graph(TABLE);
        graph.get_mut("model").unwrap().insert("store".to_owned());
        let broken = broken_promises(&graph, &[("bmc", "store", "gateways act")]);
        assert_eq!(broken, ["bmc reaches store (bmc -> model -> store), but must not: gateways act"]);
    }

    #[test]
    fn new_and_removed_crates_are_noticed() {
        let mut graph = as_graph(TABLE);
        graph.remove("store");
        graph.get_mut("engine").unwrap().remove("store");
        graph.insert("gadget".to_owned(), BTreeSet::new());
        let broken = broken_rooms(&graph, TABLE);
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].starts_with("gadget has no room"), "{broken:?}");
        assert!(broken[1].starts_with("store is in ROOMS but not in the workspace"), "{broken:?}");
    }

    #[test]
    fn impure_crates_are_found_however_deep() {
        let mut graph = as_graph(TABLE);
        graph.get_mut("model").unwrap().insert("json".to_owned());
        graph.insert("json".to_owned(), BTreeSet::from(["tokio".to_owned()]));
        let broken = broken_purity(&graph, &["model", "store"], &["tokio"]);
        assert_eq!(broken, ["model only computes, but tokio is below it: model -> json -> tokio"]);
    }

    #[test]
    fn circles_are_found() {
        let mut graph = as_graph(TABLE);
        graph.get_mut("model").unwrap().insert("engine".to_owned());
        assert_eq!(way(&graph, "model", "model").unwrap().join(" "), "model engine bmc model");
    }
}
