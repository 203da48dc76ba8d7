//! One configuration with a resource of each type.

use std::path::Path;

use super::{bench::host_with, engine::PASSWORD};

/// Every resource of the configuration, and what it is imported by.
pub(crate) const LIVES: [(&str, &str); 10] = [
    ("vmetal_host.h1", "h1"),
    ("vmetal_host.h2", "h2"),
    ("vmetal_host.h3", "h3"),
    ("vmetal_image.debian", "debian"),
    ("vmetal_network.tenants", "tenants"),
    ("vmetal_node_pool.workers", "workers"),
    ("vmetal_node_type.small", "small"),
    ("vmetal_policy.place", "place"),
    ("vmetal_tenant_cluster.acme", "acme"),
    ("vmetal_tenant_node.one", "one"),
];

/// One resource of each type, none of which waits for another, so that Terraform makes all of them at the same time. The variant
/// is in something of each that can be changed where it stands.
pub(crate) fn everything(variant: u32) -> String {
    let host = |n: u32| {
        let host = host_with(&format!("h{n}"), PASSWORD, "1", &format!("52:54:00:aa:00:0{n}"), "");
        host.replace("class = \"small\"", &format!("class = \"small\", variant = \"{variant}\""))
    };
    let hosts: String = (1..=3).map(host).collect();
    format!(
        r#"{hosts}
resource "vmetal_image" "debian" {{
  name   = "debian"
  source = "/srv/images/debian-{variant}.qcow2"
}}
resource "vmetal_network" "tenants" {{
  name = "tenants"
  cidr = "10.20.0.0/24"
  mtu  = 150{variant}
}}
resource "vmetal_node_type" "small" {{
  name      = "small"
  selector  = {{ class = "small" }}
  resources = {{ cpu = "4", memory = "8Gi" }}
  cost      = {variant}
}}
resource "vmetal_tenant_cluster" "acme" {{
  name                = "acme"
  kubeconfig_wo       = "a secret kubeconfig"
  ssh_authorized_keys = ["ssh-ed25519 AAAA{variant} me"]
}}
resource "vmetal_policy" "place" {{
  name     = "place"
  kind     = "placement"
  source   = "mine.wasm"
  settings = jsonencode({{ max_skew = {variant} }})
}}
resource "vmetal_tenant_node" "one" {{
  name         = "one"
  cluster      = "acme"
  resources    = {{ cpu = "2" }}
  user_data_wo = "a secret script"
  drain        = {{ timeout = "{variant}m" }}
}}
resource "vmetal_node_pool" "workers" {{
  name         = "workers"
  cluster      = "acme"
  size         = 2
  resources    = {{ cpu = "2" }}
  user_data_wo = "a secret script"
  drain        = {{ timeout = "{variant}m" }}
}}
"#
    )
}

/// The same as it is made: with something more to say in each resource, and a cluster that is waited for like everything else.
/// As nothing depends on anything, nodes may be planned before the hosts and the type that they will get.
pub(crate) fn made(variant: u32, more: &str) -> String {
    let resources = everything(variant).replace("\n  name ", &format!("\n  {more}\n  name "));
    let resources = resources.replace("kubeconfig_wo  ", "wait_for = \"reachable\"\n  kubeconfig_wo  ");
    resources.replace("\n  drain ", "\n  plan_check = \"off\"\n  drain ")
}

/// What this world takes for a component; see `support/policies.rs`.
pub(crate) fn component(dir: &Path) {
    std::fs::write(dir.join("mine.wasm"), b"\0asm\x0d\0\x01\0 mine").unwrap();
}
