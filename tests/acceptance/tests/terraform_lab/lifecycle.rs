//! From nothing to a Ready node and back, and a user who changes their mind on the way.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use vmetal_acceptance::installer::Installation;
use vmetal_acceptance::{Behaviour, Deed, Place, Stack, Terraform, cluster};
use vmetal_model::agent::BootPurpose;

use crate::credentials;
use crate::support::Ground::Here;
use crate::support::{
    HostBlock, ground, must_say, node_type, object, objects, password, power_ons, start, tenant_node, terraform, vmetal,
};

/// How long anything may take that nobody measures.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
#[allow(clippy::disallowed_methods, reason = "waits for real processes in real time")]
fn from_nothing_to_a_ready_node_and_back() {
    let lab = start(&["alpha", "beta"], BTreeMap::new(), "");
    let place = &lab.stack.place;
    let text = [
        ground(place),
        HostBlock::of(place, "alpha").text(),
        HostBlock::of(place, "beta").text(),
        node_type("alpha", Here),
        node_type("beta", Here),
        tenant_node("worker", "alpha", Here),
    ]
    .concat();
    let terraform = terraform(place, "whole", &text);
    let mut printed = apply_traced(&terraform, "trace-apply.log");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(cluster::client(&place.kubeconfig())).unwrap();
    let nodes = || runtime.block_on(cluster::nodes(&client)).unwrap();
    let tokens = || runtime.block_on(cluster::join_tokens(&client)).unwrap();

    let host = object(place, "host", "alpha");
    let uid = host["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(host["status"]["phase"], "provisioned", "{host:#}");
    assert_eq!(object(place, "host", "beta")["status"]["phase"], "available");
    let node = nodes().into_iter().find(|node| node.name == "worker").unwrap();
    assert_eq!((node.status.as_str(), node.provider_id), ("Ready", format!("vmetal://{uid}")));
    assert_eq!(node.labels.get("vmetal.dev/pool").map(String::as_str), Some("test"));
    assert_eq!(tokens(), Vec::<String>::new(), "the join token is revoked once the node has joined");
    assert!(terraform.plan_is_empty().unwrap(), "a second plan finds something to do");

    imported(&terraform);

    printed += &terraform.must(&["plan", "-out=plan.bin", "-no-color", "-destroy"]).unwrap();
    printed += &terraform.must(&["show", "-json", "plan.bin"]).unwrap();
    printed +=
        &terraform.must(&["destroy", "-target=vmetal_tenant_node.worker", "-auto-approve", "-no-color"]).unwrap();
    let host = object(place, "host", "alpha");
    assert_eq!(host["status"]["phase"], "available", "{host:#}");
    assert!(host["status"]["claim"].is_null() && host["status"]["power"] == "off", "{host:#}");
    assert_eq!(host["metadata"]["uid"], uid);
    let events = vmetal(place, &["events", "host", "alpha"]);
    must_say(&events, &["erased after tenant node worker: nvme0n1 (SIM-NVME-0): simulated"]);
    assert!(nodes().is_empty(), "the Node is still there: {:?}", nodes());
    assert_eq!(tokens(), Vec::<String>::new());
    assert_eq!(power_ons(place, "alpha"), 3, "inspection, installation, erasure");

    interrupted(&lab.stack, &terraform, &text);
    let secrets = [credentials::rotated(place, "beta"), credentials::join_token(place)];
    changed(place, &terraform, &text);

    printed += &vmetal(place, &["get", "hosts", "-o", "json"]);
    printed += &vmetal(place, &["describe", "host", "beta"]);
    printed += &vmetal(place, &["get", "tenant_nodes", "-o", "json"]);
    printed += &vmetal(place, &["get", "tenant_clusters", "-o", "json"]);
    printed += &vmetal(place, &["events"]);
    printed += &terraform.must(&["show", "-json"]).unwrap();
    no_secret_anywhere(&lab.stack, &terraform, &printed, secrets);

    terraform.destroy().unwrap();
    // A host whose turn came before its tenant node's goes by itself, once it is free and erased.
    let start = Instant::now();
    while !objects(place, "hosts").is_empty() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
    }
    for kind in ["hosts", "images", "node_types", "tenant_clusters", "tenant_nodes"] {
        assert_eq!(objects(place, kind), Vec::<serde_json::Value>::new(), "{kind} are left");
    }
    assert_eq!(power_ons(place, "alpha"), 5, "inspection, and twice installation and erasure");
    assert!(nodes().is_empty());
}

/// Applies with everything that terraform and the provider can log.
fn apply_traced(terraform: &Terraform, log: &str) -> String {
    let mut command = terraform.command(&["apply", "-auto-approve", "-input=false", "-no-color"]);
    let output = command.env("TF_LOG", "TRACE").env("TF_LOG_PATH", terraform.directory().join(log)).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

/// What was imported looks like what was made.
fn imported(terraform: &Terraform) {
    terraform.must(&["state", "rm", "vmetal_host.alpha"]).unwrap();
    terraform.must(&["import", "-input=false", "-no-color", "vmetal_host.alpha", "alpha"]).unwrap();
    let plan = terraform.must(&["plan", "-input=false", "-no-color"]).unwrap();
    assert!(plan.contains("No changes"), "a plan after the import finds something to do:\n{plan}");
}

/// Ctrl-C while a server is being installed loses nothing and doubles nothing.
fn interrupted(stack: &Stack, terraform: &Terraform, text: &str) {
    let place = &stack.place;
    let installers = stack.installers().unwrap();
    crate::support::rewrite(
        terraform,
        &text.replace(&tenant_node("worker", "alpha", Here), &tenant_node("second", "beta", Here)),
    );
    let uid = object(place, "host", "beta")["metadata"]["uid"].clone();
    // Until the user has given up: there is something to interrupt.
    installers.set("beta", Behaviour { installation: Installation::GoesOn, ..Behaviour::default() });
    let child = terraform
        .command(&["apply", "-auto-approve", "-input=false", "-no-color"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, as a shell gives it: Ctrl-C reaches terraform and provider alike.
        .process_group(0)
        .spawn()
        .unwrap();
    installers.wait_for("beta", &Deed::Began(BootPurpose::Install), 1, PATIENCE).unwrap();
    killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    must_say(&said, &["You asked Terraform to stop", "apply again to go on waiting"]);
    let claim = object(place, "host", "beta")["status"]["claim"].clone();
    assert_eq!(claim["node"], "second", "the engine goes on by itself: {claim}");
    installers.set("beta", Behaviour::default());

    terraform.apply().unwrap();
    let host = object(place, "host", "beta");
    assert_eq!(host["metadata"]["uid"], uid);
    assert_eq!(host["status"]["claim"]["uid"], claim["uid"], "the same claim holds it");
    assert_eq!(host["status"]["phase"], "provisioned");
    let nodes = objects(place, "tenant_nodes");
    assert_eq!(nodes.len(), 1, "one claim: {nodes:#?}");
    assert_eq!(nodes[0]["status"]["phase"], "ready");
    assert!(object(place, "host", "alpha")["status"]["claim"].is_null());
    assert_eq!(power_ons(place, "beta"), 2, "inspection and one installation");
    assert!(terraform.plan_is_empty().unwrap());
}

/// What can change while a tenant holds the server changes where it stands, and undoes nothing: not the user data, and not the
/// password that the BMC has been given. A token to join by lives as long as the command.
fn changed(place: &Place, terraform: &Terraform, text: &str) {
    let second = tenant_node("second", "beta", Here);
    let emptied = second.replace("  depends_on", "  drain = { timeout = \"7s\" }\n  depends_on");
    let token = r#"
ephemeral "vmetal_join_token" "spare" {
  cluster = vmetal_tenant_cluster.tenant.name
  reason  = "handed to nobody"
}
"#;
    // Says nothing of the host that it will be on: what is destroyed together is destroyed in any order.
    let pool = r##"
resource "vmetal_node_pool" "pool" {
  name         = "pool"
  size         = 1
  cluster      = vmetal_tenant_cluster.tenant.name
  node_type    = vmetal_node_type.alpha.name
  user_data_wo = "#cloud-config\ntimezone: UTC\n"
}
"##;
    let text = text.replace(&tenant_node("worker", "alpha", Here), &format!("{emptied}{token}{pool}"));
    let text = text.replace("only = \"beta\" }\n  \n", "only = \"beta\", room = \"2\" }\n  \n");
    crate::support::rewrite(terraform, &text);
    let claim = object(place, "host", "beta")["status"]["claim"].clone();
    let said = terraform.apply().unwrap();
    assert!(said.contains("1 added, 2 changed, 0 destroyed"), "{said}");
    assert_eq!(object(place, "tenant-node", "pool-0")["status"]["phase"], "ready");
    assert_eq!(object(place, "host", "alpha")["status"]["claim"]["node"], "pool-0");
    let host = object(place, "host", "beta");
    assert_eq!((&host["metadata"]["labels"]["room"], &host["status"]["claim"]), (&"2".into(), &claim));
    assert_eq!(object(place, "tenant-node", "second")["spec"]["drain"]["timeout_seconds"], 7);
    assert!(terraform.plan_is_empty().unwrap());
    let events = vmetal(place, &["events", "tenant-cluster", "tenant"]);
    let count = |what: &str| events.matches(what).count();
    assert_eq!(count(" made for "), count(" revoked by "), "{events}");
    assert!(count(" made for ") >= 2, "{events}");
}

/// Looks for every secret that there is in everything that is written or printed, and proves that the search finds.
fn no_secret_anywhere(stack: &Stack, terraform: &Terraform, printed: &str, more: [String; 2]) {
    let place: &Place = &stack.place;
    let kubeconfig = std::fs::read_to_string(place.kubeconfig()).unwrap();
    let key = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("client-key-data:")).unwrap().trim();
    let admin = std::fs::read_to_string(place.token_file()).unwrap();
    let mut secrets = vec![password("alpha"), password("beta"), key[..64].to_owned(), admin.trim().to_owned()];
    let given = stack.installers().unwrap().secrets();
    assert!(given.len() >= 4, "boot tokens and join tokens: {}", given.len());
    secrets.extend(given);
    secrets.extend(more);

    let read = |path: &std::path::Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let directory = terraform.directory();
    let texts = [
        ("the state", read(&directory.join("terraform.tfstate"))),
        ("the state before", read(&directory.join("terraform.tfstate.backup"))),
        ("terraform's trace", read(&directory.join("trace-apply.log"))),
        ("the engine's log", read(&place.directory.join("vmetald.log"))),
        ("the lab's log", read(&place.directory.join("lab.log"))),
        ("what was printed", printed.to_owned()),
    ];
    for (what, text) in &texts {
        assert!(text.contains("alpha"), "{what} is not what it should be, the search proves nothing");
        for secret in &secrets {
            let found = text.find(secret.as_str()).map(|at| {
                let from = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                text[from..].chars().take(200).collect::<String>()
            });
            assert_eq!(found, None, "a secret is in {what}");
        }
    }
}
