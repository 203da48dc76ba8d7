//! Secrets are in no file and no output: not in states, saved plans, traces, nor in what is left of a crash.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests watch the real clock")]

#[path = "support/bench.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod bench;
#[path = "support/engine.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod engine;

use std::process::Command;

use bench::{Bench, REST, children, host};
use engine::{JOIN_SECRET, PASSWORD, TOKEN};
use vmetal_model::Kind;

/// Everything that is secret here: write-only values, ephemeral ones, and tokens of the engine by how they begin: that of the
/// provider's own configuration and those that are made.
const SECRETS: [&str; 5] = [PASSWORD, "a secret kubeconfig", "a secret script", JOIN_SECRET, "vmt_"];

/// Credentials that a configuration asks for and hands on, to where they are not kept.
const HANDED_ON: &str = r#"
ephemeral "vmetal_join_token" "acme" {
  cluster = vmetal_tenant_cluster.acme.id
  reason  = "a test"
}
ephemeral "vmetal_api_token" "script" {
  role   = "operator"
  reason = "a test"
}
ephemeral "vmetal_bmc_credential" "h1" {
  host   = vmetal_host.h1.id
  reason = "a test"
}
resource "vmetal_tenant_node" "handed" {
  name         = "handed"
  cluster      = vmetal_tenant_cluster.acme.name
  wait_for     = "none"
  plan_check   = "off"
  depends_on   = [vmetal_tenant_node.one]
  user_data_wo = "${ephemeral.vmetal_api_token.script.token} ${ephemeral.vmetal_join_token.acme.join_command} ${ephemeral.vmetal_bmc_credential.h1.password}"
}
"#;

/// Files that Terraform keeps or that were printed, with what they hold. The configuration itself is the user's.
fn kept(bench: &Bench) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(bench.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && name != "main.tf" {
            found.push((name, String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()));
        }
    }
    found
}

fn assert_none(texts: &[(String, String)]) {
    for (name, text) in texts {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{name} holds {secret:?}");
        }
    }
}

#[test]
fn no_secret_is_kept_or_printed_not_even_by_a_crash() {
    let mut bench = Bench::new();
    let trace = bench.dir.path().join("trace.log").display().to_string();
    bench.tf.env("TF_LOG", "TRACE");
    bench.tf.env("TF_LOG_PATH", &trace);
    // The token is given where users give it most carelessly, too.
    let provider = format!("provider \"vmetal\" {{\n  token = \"{TOKEN}\"\n}}\n");
    bench.config(&format!("{provider}{}{REST}{HANDED_ON}", host("h1", "")));
    let mut printed = bench.tf.expect(&["plan", "-no-color", "-out=saved.tfplan"]).unwrap().text;
    // A saved plan is a compressed archive that also holds the configuration; what Terraform makes of it is shown here.
    printed += &bench.tf.expect(&["show", "-no-color", "saved.tfplan"]).unwrap().text;
    let shown: serde_json::Value =
        serde_json::from_str(&bench.tf.expect(&["show", "-json", "saved.tfplan"]).unwrap().text).unwrap();
    for part in ["planned_values", "resource_changes", "prior_state"] {
        printed += &shown[part].to_string();
    }
    printed += &bench.tf.expect(&["apply", "-no-color", "saved.tfplan"]).unwrap().text;
    printed += &bench.tf.expect(&["show", "-json"]).unwrap().text;
    // They were there, and used, and ended with each command.
    let handed = bench.engine.world.secret(Kind::TenantNode, "handed", "user_data").unwrap();
    assert!(handed.contains(JOIN_SECRET) && handed.ends_with(PASSWORD), "the search proves nothing");
    let token = handed.split(' ').next().unwrap();
    assert!(TOKEN.starts_with("vmt_") && token.starts_with("vmt_"), "the search proves nothing");
    assert_eq!(bench.engine.tokens.identify(token), None, "it ended with the command");
    let (made, revoked) = bench.engine.world.tokens();
    let ids =
        |made: &[(String, usize)]| made.iter().map(|(id, _)| id.clone()).collect::<std::collections::BTreeSet<_>>();
    assert!(!made.is_empty() && ids(&made) == revoked.into_iter().collect(), "{made:?}");
    printed += &bench.tf.expect(&["plan", "-no-color", "-destroy"]).unwrap().text;
    let kept_now = kept(&bench);
    let names: Vec<_> = kept_now.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"terraform.tfstate") && names.contains(&"trace.log"), "{names:?}");
    for (name, text) in kept_now.iter().filter(|(name, _)| ["terraform.tfstate", "trace.log"].contains(&name.as_str()))
    {
        assert!(
            text.contains("h1") && text.contains("vmetal_host"),
            "{name} is not what it should be, the search proves nothing"
        );
    }
    assert!(printed.contains("vmetal_tenant_node.one"), "what was printed is not what it should be");
    assert_none(&kept_now);
    assert_none(&[("what was printed".to_owned(), printed)]);

    // The provider dies in the middle of a create that has the secret in its hands.
    bench.engine.world.hold("h2");
    let second = host("h2", "").replace("AA:00:01", "AA:00:02");
    bench.config(&format!("{provider}{}{REST}{HANDED_ON}{second}", host("h1", "")));
    let mut apply = bench.apply_until_made(Kind::Host, "h2");
    let all = children(apply.id());
    assert!(!all.is_empty(), "the provider was not found");
    for pid in all {
        assert!(Command::new("kill").args(["-ABRT", &pid.to_string()]).status().unwrap().success());
    }
    assert!(!apply.wait().unwrap().success());
    let after = kept(&bench);
    let output = after.iter().find(|(name, _)| name == "output.log").unwrap();
    assert!(output.1.contains("Plugin did not respond") || output.1.contains("Request cancelled"), "{}", output.1);
    assert_none(&after);
    bench.engine.world.release("h2");
    // It goes on to the pool, where the node that waits may have it at once.
    bench.until(|| bench.engine.world.get(Kind::Host, "h2").unwrap().status["inventory"].is_object());
}
