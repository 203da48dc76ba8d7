//! What cloud-init is told: the files of a NoCloud seed.
//!
//! Users bring cloud-config documents at three levels (provider, node type, claim). They are merged key by key, the more
//! specific one winning: maps are merged, everything else is replaced. Into the result goes what joining needs, so that
//! neither side can undo the other: files and SSH keys are appended, and `runcmd` becomes
//!
//! 1. phone home: the engine learns that the installed system runs,
//! 2. the user's commands (mounting data disks, registering with a proxy: a node may need them to join),
//! 3. `kubeadm join`; when it fails, the end of its log goes to the engine.
//!
//! What is written is JSON, which every YAML reader takes: cloud-init and kubeadm read YAML 1.1, where a bare `yes` is a
//! truth value and a bare MAC address a number in base 60, so nothing is written bare. Users' documents are read as YAML 1.2:
//! `true` and `false` are truth values, `yes` and `on` are texts (which cloud-init takes for true where it wants one).
//!
//! Secrets are kept out of command lines and of everything that is logged: the callback token and the bootstrap token are
//! in files under /run, which no disk sees, readable by root.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};
use vmetal_model::Taint;

use crate::join::JoinGrant;
use crate::node::split_labels;

/// The line that makes a document a cloud-config (cloud-init, "User data formats").
pub(crate) const HEADER: &str = "#cloud-config";
const DIRECTORY: &str = "/run/vmetal";
const DEFAULT_CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// User data that cannot be merged. The messages name the level.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// Another of cloud-init's formats.
    #[error(
        "user data of {level} does not start with \"#cloud-config\" but with {found:?}; scripts and archives cannot be \
         merged: write a cloud-config and put the commands under runcmd"
    )]
    NotCloudConfig {
        /// Where it comes from.
        level: String,
        /// Its first line, shortened.
        found: String,
    },
    /// Not YAML.
    #[error("user data of {level} is not valid YAML")]
    Yaml {
        /// Where it comes from.
        level: String,
        /// Line and column, and what was expected.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// YAML, but not what cloud-config wants there.
    #[error("user data of {level}: {key} must be {expected}")]
    WrongType {
        /// Where it comes from.
        level: String,
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A value that would break out of the place where it is written.
    #[error("{what} {value:?} cannot be written to user data: {problem}")]
    Unrepresentable {
        /// Which value.
        what: &'static str,
        /// The value.
        value: String,
        /// Why not.
        problem: &'static str,
    },
    /// The finished document could not be written.
    #[error("the merged user data could not be written")]
    Write(#[source] serde_json::Error),
}

/// An address of the engine that the installed system reports to.
#[derive(Clone, PartialEq, Eq)]
pub struct Callback {
    /// Where to POST.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: String,
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").field("url", &self.url).finish_non_exhaustive()
    }
}

/// How the node is to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRegistration {
    /// The right to join.
    pub grant: JoinGrant,
    /// The Node's name.
    pub name: String,
    /// The Node's provider id.
    pub provider_id: String,
    /// The server's address on its network, which becomes the Node's `InternalIP`. Without it the kubelet takes the address
    /// that the default route leads out of, and a Node on a network without one has no address at all.
    pub address: Option<std::net::Ipv4Addr>,
    /// Labels. Those that a kubelet may not set are left out; [`crate::TenantClient::observe_node`] sets them later.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// The container runtime's socket; containerd's when `None`.
    pub cri_socket: Option<String>,
}

/// Everything that goes into user data.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UserDataInput {
    /// Users' documents, the least specific first, each with the name of where it comes from (for messages).
    pub layers: Vec<(String, String)>,
    /// SSH public keys for the image's default user.
    pub ssh_authorized_keys: Vec<String>,
    /// Where to say that the system runs.
    pub phone_home: Option<Callback>,
    /// Where to say that joining failed.
    pub join_failed: Option<Callback>,
    /// The cluster to join, if any: a server may also be installed for its own sake.
    pub registration: Option<NodeRegistration>,
}

impl fmt::Debug for UserDataInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Users' documents may hold passwords.
        f.debug_struct("UserDataInput")
            .field("layers", &self.layers.iter().map(|(level, _)| level).collect::<Vec<_>>())
            .field("phone_home", &self.phone_home)
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

/// Renders `user-data`. The result holds secrets.
///
/// # Errors
/// [`UserDataError`] when a layer cannot be merged or a value cannot be written.
pub fn render_user_data(input: &UserDataInput) -> Result<String, UserDataError> {
    let mut document = Map::new();
    for (level, text) in &input.layers {
        let layer = parse_layer(level, text)?;
        check_lists(level, &layer)?;
        merge(&mut document, layer);
    }

    let mut files = Vec::new();
    let mut before = Vec::new();
    let mut after = Vec::new();
    if let Some(callback) = &input.phone_home {
        files.push(authorization_file("phone-home", callback)?);
        files.push(script("phone-home", &phone_home_script(callback)?));
        before.push(json!(["sh", format!("{DIRECTORY}/phone-home.sh")]));
    }
    if let Some(registration) = &input.registration {
        if let Some(callback) = &input.join_failed {
            files.push(authorization_file("join-failed", callback)?);
        }
        files.push(file("kubeadm-join.yaml", "0600", &join_configuration(registration)?));
        files.push(script("join", &join_script(input.join_failed.as_ref())?));
        after.push(json!(["sh", format!("{DIRECTORY}/join.sh")]));
    }

    append(&mut document, "write_files", files);
    append(&mut document, "ssh_authorized_keys", input.ssh_authorized_keys.iter().map(|key| json!(key)).collect());
    let commands: Vec<Value> = before.into_iter().chain(take_list(&mut document, "runcmd")).chain(after).collect();
    append(&mut document, "runcmd", commands);

    Ok(format!("{HEADER}\n{}", write(&Value::Object(document))?))
}

/// Renders `meta-data`. A new `instance_id` is what makes cloud-init treat the boot as a first one.
///
/// # Errors
/// [`UserDataError::Write`], which no input is known to cause.
pub fn render_meta_data(instance_id: &str, hostname: &str) -> Result<String, UserDataError> {
    write(&json!({ "instance-id": instance_id, "local-hostname": hostname }))
}

/// Renders `network-config` (version 2): DHCP on the port with this MAC address, which is the one that the server was
/// installed through. Without it cloud-init would guess among the ports.
///
/// # Errors
/// [`UserDataError::Write`], which no input is known to cause.
pub fn render_network_config(mac: &str) -> Result<String, UserDataError> {
    let ethernet = json!({ "match": { "macaddress": mac.to_ascii_lowercase() }, "dhcp4": true });
    write(&json!({ "version": 2, "ethernets": { "provisioning": ethernet } }))
}

pub(crate) fn write(document: &Value) -> Result<String, UserDataError> {
    serde_json::to_string_pretty(document).map(|text| text + "\n").map_err(UserDataError::Write)
}

fn parse_layer(level: &str, text: &str) -> Result<Map<String, Value>, UserDataError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let first = text.lines().next().unwrap_or_default().trim_end();
    if first != HEADER {
        return Err(UserDataError::NotCloudConfig { level: level.to_owned(), found: first.chars().take(40).collect() });
    }
    match serde_yaml_ng::from_str(text).map_err(|source| UserDataError::Yaml { level: level.to_owned(), source })? {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        _ => Err(UserDataError::WrongType { level: level.to_owned(), key: "the document", expected: "a mapping" }),
    }
}

/// The keys that are appended to must be lists, at whatever level they are given.
fn check_lists(level: &str, layer: &Map<String, Value>) -> Result<(), UserDataError> {
    match ["runcmd", "write_files", "ssh_authorized_keys"]
        .into_iter()
        .find(|key| layer.get(*key).is_some_and(|value| !value.is_array() && !value.is_null()))
    {
        Some(key) => Err(UserDataError::WrongType { level: level.to_owned(), key, expected: "a list" }),
        None => Ok(()),
    }
}

fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn take_list(document: &mut Map<String, Value>, key: &str) -> Vec<Value> {
    match document.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn append(document: &mut Map<String, Value>, key: &str, more: Vec<Value>) {
    let mut list = take_list(document, key);
    list.extend(more);
    if !list.is_empty() {
        document.insert(key.to_owned(), Value::Array(list));
    }
}

fn file(name: &str, permissions: &str, content: &str) -> Value {
    json!({ "path": format!("{DIRECTORY}/{name}"), "permissions": permissions, "owner": "root:root", "content": content })
}

fn script(name: &str, content: &str) -> Value {
    file(&format!("{name}.sh"), "0700", content)
}

/// A header file for curl's `-H @file`: arguments are visible to every user of the machine.
fn authorization_file(name: &str, callback: &Callback) -> Result<Value, UserDataError> {
    Ok(file(&format!("{name}.header"), "0600", &authorization(callback)?))
}

/// The line of such a file.
pub(crate) fn authorization(callback: &Callback) -> Result<String, UserDataError> {
    if !callback.token.bytes().all(|byte| byte.is_ascii_graphic()) {
        // The value itself is a secret.
        let problem = "it holds characters that a header cannot";
        return Err(UserDataError::Unrepresentable { what: "callback token", value: "(secret)".to_owned(), problem });
    }
    Ok(format!("Authorization: Bearer {}\n", callback.token))
}

/// A URL in single quotes for the shell.
pub(crate) fn quoted_url(callback: &Callback) -> Result<String, UserDataError> {
    let safe = callback.url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\'');
    if !safe || !(callback.url.starts_with("http://") || callback.url.starts_with("https://")) {
        let problem = "it is not an http or https URL without spaces and quotes";
        return Err(UserDataError::Unrepresentable { what: "callback address", value: callback.url.clone(), problem });
    }
    Ok(format!("'{}'", callback.url))
}

fn phone_home_script(callback: &Callback) -> Result<String, UserDataError> {
    Ok(format!(
        "#!/bin/sh\n\
         # Tells the engine that the installed system runs. The engine may be restarting: try for ten minutes.\n\
         exec curl --silent --show-error --fail --output /dev/null --max-time 10 \\\n\
         \x20 --retry 300 --retry-delay 2 --retry-max-time 600 --retry-all-errors \\\n\
         \x20 --header @{DIRECTORY}/phone-home.header --data up {}\n",
        quoted_url(callback)?
    ))
}

fn join_script(failed: Option<&Callback>) -> Result<String, UserDataError> {
    let report = match failed {
        Some(callback) => format!(
            "# The end of the log, without anything that looks like a bootstrap token.\n\
             tail -c 6000 \"$log\" | sed 's/[a-z0-9]\\{{6\\}}\\.[a-z0-9]\\{{16\\}}/(token)/g' >{DIRECTORY}/join-failure\n\
             curl --silent --show-error --fail --output /dev/null --max-time 10 \\\n\
             \x20 --retry 300 --retry-delay 2 --retry-max-time 600 --retry-all-errors \\\n\
             \x20 --header @{DIRECTORY}/join-failed.header --header 'Content-Type: text/plain' \\\n\
             \x20 --data-binary @{DIRECTORY}/join-failure {}\n",
            quoted_url(callback)?
        ),
        None => String::new(),
    };
    Ok(format!(
        "#!/bin/sh\n\
         # Joins the tenant's cluster. Runs once: a node that has joined is left alone.\n\
         umask 077\n\
         log=/var/log/vmetal-join.log\n\
         if [ -e /etc/kubernetes/kubelet.conf ]; then exit 0; fi\n\
         kubeadm join --config {DIRECTORY}/kubeadm-join.yaml >\"$log\" 2>&1\n\
         status=$?\n\
         rm -f {DIRECTORY}/kubeadm-join.yaml\n\
         if [ \"$status\" -eq 0 ]; then exit 0; fi\n\
         echo \"kubeadm join ended with status $status\" >>\"$log\"\n\
         {report}\
         exit \"$status\"\n"
    ))
}

/// JoinConfiguration, kubeadm.k8s.io/v1beta4.
fn join_configuration(registration: &NodeRegistration) -> Result<String, UserDataError> {
    let NodeRegistration { grant, name, provider_id, address, labels, taints, cri_socket } = registration;
    let mut arguments = vec![json!({ "name": "provider-id", "value": provider_id })];
    arguments.extend(address.map(|address| json!({ "name": "node-ip", "value": address.to_string() })));
    let (labels, _) = split_labels(labels);
    if !labels.is_empty() {
        let list: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if let Some(bad) = list.iter().find(|label| label.contains([',', ' ']) || label.matches('=').count() != 1) {
            let problem = "a label holds neither comma, space nor a second equals sign";
            return Err(UserDataError::Unrepresentable { what: "label", value: bad.clone(), problem });
        }
        arguments.push(json!({ "name": "node-labels", "value": list.join(",") }));
    }
    let mut node = json!({
        "name": name,
        "criSocket": cri_socket.as_deref().unwrap_or(DEFAULT_CRI_SOCKET),
        "kubeletExtraArgs": arguments,
    });
    if !taints.is_empty() {
        let taints = taints.iter().map(|t| json!({ "key": t.key, "value": t.value, "effect": t.effect.as_str() }));
        node["taints"] = taints.collect();
    }
    let configuration = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": grant.api_endpoint,
                "token": format!("{}.{}", grant.token_id, grant.token_secret.expose()),
                "caCertHashes": [grant.ca_cert_hash],
            },
        },
        "nodeRegistration": node,
    });
    write(&configuration)
}

#[cfg(test)]
mod tests;
