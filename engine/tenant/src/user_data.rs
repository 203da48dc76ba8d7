//! What cloud-init is told: the files of a NoCloud seed.
//!
//! Users' cloud-config documents are merged by [`vmetal_user_data`]. Into the result goes what joining needs, so that neither
//! side can undo the other: files and SSH keys are appended, and `runcmd` becomes
//!
//! 1. phone home: the engine learns that the installed system runs,
//! 2. the user's commands (mounting data disks, registering with a proxy: a node may need them to join),
//! 3. `kubeadm join`; when it fails, the end of its log goes to the engine.
//!
//! Secrets are kept out of command lines and of everything that is logged: the callback token and the bootstrap token are
//! in files under /run, which no disk sees, readable by root.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use vmetal_model::{NetworkSpec, Taint};
use vmetal_user_data::{Document, DocumentError};

use crate::join::JoinGrant;
use crate::node::split_labels;

const DIRECTORY: &str = "/run/vmetal";
const DEFAULT_CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// User data that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// Users' documents cannot be merged.
    #[error(transparent)]
    Document(#[from] DocumentError),
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
    pub address: Option<Ipv4Addr>,
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
    let mut document = Document::merge(&input.layers)?;
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

    document.append("write_files", files);
    document.append("ssh_authorized_keys", input.ssh_authorized_keys.iter().map(|key| json!(key)).collect());
    document.surround("runcmd", before, after);
    Ok(document.render()?)
}

/// Renders `meta-data`. A new `instance_id` is what makes cloud-init treat the boot as a first one.
///
/// # Errors
/// [`UserDataError::Document`], which no input is known to cause.
pub fn render_meta_data(instance_id: &str, hostname: &str) -> Result<String, UserDataError> {
    write(&json!({ "instance-id": instance_id, "local-hostname": hostname }))
}

/// What an interface has of a network.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// The network.
    pub network: &'a NetworkSpec,
    /// The node's address there.
    pub address: Ipv4Addr,
}

/// Renders `network-config` (version 2) for the port with this MAC address, which is the one that the server was installed
/// through. Without it cloud-init would guess among the ports.
///
/// The port asks by DHCP. A node with an address of a network has that instead, and nothing by DHCP; where the network's frames
/// carry a tag, it has that on an interface for the tag, beside what the port gets by DHCP, whose routes come second.
///
/// # Errors
/// [`UserDataError::Document`], which no input is known to cause.
pub fn render_network_config(mac: &str, attachment: Option<Attachment<'_>>) -> Result<String, UserDataError> {
    let mut port = json!({ "match": { "macaddress": mac.to_ascii_lowercase() }, "dhcp4": true });
    let Some(Attachment { network, address }) = attachment else {
        return write(&json!({ "version": 2, "ethernets": { PORT: port } }));
    };
    let on_network = interface(network, address);
    let Some(tag) = network.vlan else {
        port["dhcp4"] = json!(false);
        merge(&mut port, on_network);
        return write(&json!({ "version": 2, "ethernets": { PORT: port } }));
    };
    port["dhcp4-overrides"] = json!({ "route-metric": SECOND });
    if let Some(mtu) = network.mtu {
        // A tag's interface carries no larger packets than the port below it.
        port["mtu"] = json!(mtu);
    }
    let mut tagged = json!({ "id": tag, "link": PORT, "dhcp4": false });
    merge(&mut tagged, on_network);
    write(&json!({ "version": 2, "ethernets": { PORT: port }, "vlans": { format!("vlan{tag}"): tagged } }))
}

/// The name of the port in the document; nothing is renamed by it.
const PORT: &str = "provisioning";
/// The metric of routes that are used where the network has none. A static route's is 0.
const SECOND: u32 = 2048;

/// Address, routes and name servers of an interface in a network.
fn interface(network: &NetworkSpec, address: Ipv4Addr) -> Value {
    let mut interface = json!({ "addresses": [format!("{address}/{}", network.cidr.prefix())] });
    if let Some(gateway) = network.gateway {
        // In full: not every renderer of cloud-init knows the word `default`.
        interface["routes"] = json!([{ "to": "0.0.0.0/0", "via": gateway.to_string() }]);
    }
    let mut names = serde_json::Map::new();
    if !network.nameservers.is_empty() {
        names.insert("addresses".to_owned(), network.nameservers.iter().map(|one| json!(one.to_string())).collect());
    }
    if !network.search_domains.is_empty() {
        names.insert("search".to_owned(), json!(network.search_domains));
    }
    if !names.is_empty() {
        interface["nameservers"] = Value::Object(names);
    }
    if let Some(mtu) = network.mtu {
        interface["mtu"] = json!(mtu);
    }
    interface
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

pub(crate) fn write(document: &Value) -> Result<String, UserDataError> {
    Ok(vmetal_user_data::write(document)?)
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
