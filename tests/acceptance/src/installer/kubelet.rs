//! A kubelet without a server: a Node that registers as the join configuration says and stays Ready.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, NodeSpec, Secret, Taint};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::sleep;
use vmetal_model::agent::Seed;

use crate::cluster;

/// How often the Node says that it lives; the node controller loses patience after 50 s.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A file that the seed writes.
fn file(seed: &Seed, name: &str) -> Option<String> {
    let document: Value = serde_json::from_str(seed.user_data.strip_prefix("#cloud-config\n")?).ok()?;
    let files = document["write_files"].as_array()?;
    let file = files.iter().find(|file| file["path"].as_str().is_some_and(|path| path.ends_with(name)))?;
    Some(file["content"].as_str()?.to_owned())
}

/// The token that the installed system reports with.
pub(super) fn callback_token(seed: &Seed) -> Option<String> {
    let header = file(seed, "/phone-home.header")?;
    Some(header.trim().strip_prefix("Authorization: Bearer ")?.to_owned())
}

fn join(seed: &Seed) -> Option<Value> {
    serde_json::from_str(&file(seed, "/kubeadm-join.yaml")?).ok()
}

/// The secret half of the join token.
pub(super) fn join_token(seed: &Seed) -> Option<String> {
    let join = join(seed)?;
    let token = join["discovery"]["bootstrapToken"]["token"].as_str()?.to_owned();
    Some(token.split_once('.')?.1.to_owned())
}

/// Registers the Node and keeps it Ready until it is dropped, or the Node is deleted.
pub(super) async fn run(kubeconfig: &Path, seed: &Seed, registered: impl FnOnce()) -> Result<()> {
    let join = join(seed).context("the seed has no join configuration")?;
    let client = cluster::client(kubeconfig).await?;
    check_token(&client, &join).await?;
    let nodes = Api::<Node>::all(client);
    let node = node(&join)?;
    let name = node.metadata.name.clone().unwrap_or_default();
    if nodes.get_opt(&name).await?.is_none() {
        nodes.create(&PostParams::default(), &node).await.context("cannot register")?;
    }
    nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status())).await?;
    registered();
    loop {
        sleep(HEARTBEAT).await;
        match nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status())).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error).context("cannot say that the Node lives"),
        }
    }
}

/// The token must exist in the cluster as the seed has it: a real server would not let anybody else in.
async fn check_token(client: &Client, join: &Value) -> Result<()> {
    let token = join["discovery"]["bootstrapToken"]["token"].as_str().unwrap_or_default();
    let (id, secret) = token.split_once('.').context("the join configuration has no token")?;
    let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system");
    let known = secrets.get(&format!("bootstrap-token-{id}")).await.context("the join token is unknown")?;
    let kept = known.data.unwrap_or_default().remove("token-secret").unwrap_or_default();
    anyhow::ensure!(kept.0 == secret.as_bytes(), "the join token has another secret");
    Ok(())
}

fn node(join: &Value) -> Result<Node> {
    let registration = &join["nodeRegistration"];
    let arguments = registration["kubeletExtraArgs"].as_array().context("no kubelet arguments")?;
    let argument = |name: &str| arguments.iter().find(|a| a["name"] == name).and_then(|a| a["value"].as_str());
    let name = registration["name"].as_str().context("no node name")?.to_owned();
    let labels = argument("node-labels").unwrap_or_default().split(',').filter_map(|pair| pair.split_once('='));
    let mut labels: BTreeMap<String, String> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let taint = |taint: &Value| Taint {
        key: text(&taint["key"]),
        value: Some(text(&taint["value"])),
        effect: text(&taint["effect"]),
        time_added: None,
    };
    let taints = registration["taints"].as_array().map(|taints| taints.iter().map(taint).collect());
    Ok(Node {
        metadata: ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec { provider_id: argument("provider-id").map(str::to_owned), taints, ..NodeSpec::default() }),
        status: None,
    })
}

#[allow(clippy::disallowed_methods, reason = "the API server wants the real time")]
fn status() -> Value {
    let now = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
    json!({ "status": {
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "simulated://1", "kernelVersion": "6.1",
            "kubeProxyVersion": "", "kubeletVersion": "v1.36.3", "machineID": "", "operatingSystem": "linux",
            "osImage": "Simulated", "systemUUID": "",
        },
    }})
}
