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
/// The pause before the API server is asked again.
const AGAIN: Duration = Duration::from_secs(1);

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
    let register = async || match nodes.get_opt(&name).await? {
        Some(_) => Ok(()),
        None => nodes.create(&PostParams::default(), &node).await.map(|_| ()),
    };
    let live = async || nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status())).await;
    persist("register", register).await;
    let mut registered = Some(registered);
    while persist("say that the Node lives", &live).await.is_some() {
        if let Some(tell) = registered.take() {
            tell();
        }
        sleep(HEARTBEAT).await;
    }
    Ok(())
}

/// Asks until there is an answer, as a real kubelet does. `None`: what it is about does not exist.
async fn persist<T>(what: &str, ask: impl AsyncFn() -> kube::Result<T>) -> Option<T> {
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(kube::Error::Api(status)) if status.code == 404 => return None,
            Err(error) => eprintln!("a kubelet cannot {what}, and tries again: {error}"),
        }
        sleep(AGAIN).await;
    }
}

/// The token must exist in the cluster as the seed has it: a real server would not let anybody else in.
async fn check_token(client: &Client, join: &Value) -> Result<()> {
    let token = join["discovery"]["bootstrapToken"]["token"].as_str().unwrap_or_default();
    let (id, secret) = token.split_once('.').context("the join configuration has no token")?;
    let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system");
    let name = format!("bootstrap-token-{id}");
    let known = persist("read the join token", async || secrets.get(&name).await).await;
    let known = known.context("the join token is unknown")?;
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
