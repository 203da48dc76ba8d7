//! Operators' orders by the real client: `terraform apply -invoke` (Terraform 1.14 and later), provider, engine and the lab's BMCs.
//! What a client without actions can do is in the lane `terraform_lab`; this one needs a client that has them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use vmetal_acceptance::{Deed, Place, Stack, Terraform, knock};
use vmetal_model::agent::BootPurpose;

#[path = "terraform_lab/support.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod support;

use support::Ground::Here;
use support::{
    HostBlock, ground, journal, must_say, node_type, object, password, rewrite, start, tenant_node, terraform, vmetal,
};

/// What the BMC of `alpha` is given.
const NEW: &str = "rotated-secret-of-alpha-91c4";
/// What somebody gives it without the engine.
const BY_HAND: &str = "hand-made-secret-of-alpha-3d70";

fn actions() -> String {
    let action = |kind: &str, label: &str, host: &str, more: &str| {
        format!("action \"vmetal_{kind}\" \"{label}\" {{\n  config {{\n    host = \"{host}\"\n    {more}\n  }}\n}}\n")
    };
    let variable = |name: &str| format!("variable \"{name}\" {{\n  type      = string\n  sensitive = true\n}}\n");
    let waits = "reason = \"the console hangs\"\n    wait   = true";
    let switch = |power: &str| format!("power  = \"{power}\"\n    {waits}");
    [
        variable("new"),
        variable("by_hand"),
        action("inspect", "alpha", "alpha", waits),
        action("set_maintenance", "alpha", "alpha", "reason = \"two DIMMs are replaced\""),
        action("end_maintenance", "alpha", "alpha", "wait = true"),
        action("release_from_quarantine", "alpha", "alpha", waits),
        action("power", "on", "alpha", &switch("on")),
        action("power", "cycle", "alpha", &switch("cycle")),
        action("rotate_credentials", "alpha", "alpha", &format!("password = var.new\n    {waits}")),
        action("rotate_credentials", "by_hand", "alpha", &format!("password = var.by_hand\n    {waits}")),
        action("inspect", "beta", "beta", waits),
        action("power", "beta", "beta", &switch("off")),
    ]
    .concat()
}

/// A client, a configuration and the stack that it is for.
struct Operator<'a> {
    stack: &'a Stack,
    terraform: Terraform,
}

impl Operator<'_> {
    fn run(&self, action: &str) -> (bool, String) {
        let invoke = format!("-invoke=action.vmetal_{action}");
        let mut command = self.terraform.command(&["apply", "-auto-approve", "-input=false", "-no-color", &invoke]);
        // Terraform's trace has its arguments, but not its environment.
        command
            .env("TF_VAR_new", NEW)
            .env("TF_VAR_by_hand", BY_HAND)
            .env("TF_LOG", "TRACE")
            .env("TF_LOG_PATH", self.trace());
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }

    /// Of all that was invoked.
    fn trace(&self) -> PathBuf {
        self.terraform.directory().join("trace.log")
    }

    fn invoke(&self, action: &str) -> String {
        let (done, said) = self.run(action);
        assert!(done && said.contains("Actions: 1 invoked"), "{action}: {said}");
        said
    }

    fn refused(&self, action: &str, parts: &[&str]) {
        let (done, said) = self.run(action);
        assert!(!done, "{action} was to be refused: {said}");
        must_say(&said, parts);
    }

    fn status(&self, host: &str) -> Value {
        object(&self.stack.place, "host", host)["status"].clone()
    }

    fn inspections(&self) -> usize {
        self.stack.installers().unwrap().count("alpha", &Deed::Began(BootPurpose::Inspect))
    }
}

/// How often each kind of reset was asked for and granted.
fn resets(place: &Place, host: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in journal(place, host) {
        if entry["path"].as_str().is_some_and(|path| path.ends_with("ComputerSystem.Reset")) {
            assert_eq!(entry["status"], 204, "an action that made no sense: {entry}");
            *counts.entry(entry["body"]["ResetType"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn orders_are_carried_out_on_the_servers_and_waited_for() {
    let lab = start(&["alpha", "beta"], BTreeMap::new(), "");
    let place = &lab.stack.place;
    let hosts = [ground(place), HostBlock::of(place, "alpha").text(), HostBlock::of(place, "beta").text()].concat();
    let held = [node_type("beta", Here), tenant_node("worker", "beta", Here)].concat();
    let operator = Operator { stack: &lab.stack, terraform: terraform(place, "orders", &format!("{hosts}{held}")) };
    operator.terraform.apply().unwrap();
    // Actions need variables that the first apply does not have.
    rewrite(&operator.terraform, &format!("{hosts}{held}{}", actions()));

    inspected(&operator);
    maintained(&operator);
    released(&operator);
    rotated(&operator);
    refused(&operator);

    let phases = ["alpha", "beta"].map(|host| operator.status(host)["phase"].clone());
    assert_eq!(phases, ["available", "provisioned"]);
    rewrite(&operator.terraform, &format!("{hosts}{held}"));
    assert!(operator.terraform.plan_is_empty().unwrap(), "orders are no drift");
    let state = operator.terraform.directory().join("terraform.tfstate");
    for (what, file) in [("the trace", operator.trace()), ("the state", state)] {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("alpha"), "{what} is not what it should be, the search proves nothing");
        let secrets = [&password("alpha"), NEW, BY_HAND];
        assert!(!secrets.into_iter().any(|secret| text.contains(secret)), "a password is in {what}");
    }
    operator.terraform.destroy().unwrap();
}

fn inspected(operator: &Operator<'_>) {
    let before = operator.inspections();
    let said = operator.invoke("inspect.alpha");
    assert!(said.contains("host alpha: "), "progress is told: {said}");
    assert_eq!(operator.inspections(), before + 1);
    assert_eq!(operator.status("alpha")["phase"], "available", "it was waited for");
}

/// Out of the pool, switched by hand, and back.
fn maintained(operator: &Operator<'_>) {
    let place = &operator.stack.place;
    operator.refused(
        "power.on",
        &["Host alpha is available", "`power on` is for hosts in phase maintenance or quarantined"],
    );
    operator.invoke("set_maintenance.alpha");
    let status = operator.status("alpha");
    assert_eq!((&status["phase"], &status["power"]), (&"maintenance".into(), &"off".into()), "{status:#}");
    assert!(vmetal(place, &["describe", "host", "alpha"]).contains("two DIMMs are replaced"));

    let before = resets(place, "alpha");
    operator.invoke("power.on");
    assert_eq!(operator.status("alpha")["power"], "on", "it was waited for");
    operator.invoke("power.cycle");
    let status = operator.status("alpha");
    assert_eq!((&status["phase"], &status["power"]), (&"maintenance".into(), &"on".into()), "{status:#}");
    let after = resets(place, "alpha");
    let switched: usize = after.values().sum::<usize>() - before.values().sum::<usize>();
    assert!((2..=3).contains(&switched), "once on, and off and on in one or two: {before:?} then {after:?}");

    let inspections = operator.inspections();
    operator.invoke("end_maintenance.alpha");
    assert_eq!(operator.status("alpha")["phase"], "available", "it was waited for");
    assert_eq!(operator.inspections(), inspections + 1, "somebody had their hands in it");
}

fn released(operator: &Operator<'_>) {
    operator
        .refused("release_from_quarantine.alpha", &["Host alpha is available", "is for hosts in phase quarantined"]);
    vmetal(&operator.stack.place, &["host", "quarantine", "alpha", "--reason", "a fan rattles"]);
    assert_eq!(operator.status("alpha")["phase"], "quarantined");
    operator.invoke("release_from_quarantine.alpha");
    assert_eq!(operator.status("alpha")["phase"], "available", "it was waited for");
}

fn rotated(operator: &Operator<'_>) {
    let address = HostBlock::of(&operator.stack.place, "alpha").address;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opens = |password: &str| runtime.block_on(knock::opens(&address, "admin", password)).unwrap();
    assert!(opens(&password("alpha")) && !opens(NEW), "before");
    let said = operator.invoke("rotate_credentials.alpha");
    assert!(!said.contains(NEW), "{said}");
    assert!(!opens(&password("alpha")) && opens(NEW), "the new password holds, and the old one no longer");
    // The engine works with it.
    operator.invoke("inspect.alpha");

    // Where somebody was faster at the BMC, the engine is only told.
    runtime.block_on(knock::give(&address, "admin", NEW, BY_HAND)).unwrap();
    assert!(opens(BY_HAND) && !opens(NEW));
    operator.invoke("rotate_credentials.by_hand");
    operator.invoke("inspect.alpha");
}

/// What a tenant holds is not touched, and why is said.
fn refused(operator: &Operator<'_>) {
    let before = (operator.status("beta"), resets(&operator.stack.place, "beta"));
    operator.refused("inspect.beta", &["Host beta is held by tenant node worker", "delete the tenant node"]);
    operator.refused("power.beta", &["Host beta is held by tenant node worker"]);
    assert_eq!((operator.status("beta"), resets(&operator.stack.place, "beta")), before);
}
