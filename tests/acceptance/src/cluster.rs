//! Looking at the tenant's cluster, independently of the engine.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

/// A Node as `kubectl get nodes` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// `Ready` or `NotReady`, and `SchedulingDisabled`.
    pub status: String,
    /// The kubelet's version.
    pub version: String,
    /// The operating system's name.
    pub os: String,
    /// The provider id.
    pub provider_id: String,
    /// The address inside the cluster's network.
    pub address: String,
    /// The labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A client with the rights of the kubeconfig.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    // An error means that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("cannot read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// All Nodes.
///
/// # Errors
/// What the API server says.
pub async fn nodes(client: &Client) -> Result<Vec<NodeRow>> {
    let list = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    Ok(list.items.into_iter().map(row).collect())
}

fn row(node: Node) -> NodeRow {
    let status = node.status.unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let spec = node.spec.unwrap_or_default();
    let info = status.node_info.unwrap_or_default();
    let mut text = if ready { "Ready" } else { "NotReady" }.to_owned();
    if spec.unschedulable == Some(true) {
        text.push_str(",SchedulingDisabled");
    }
    let address = status.addresses.iter().flatten().find(|a| a.type_ == "InternalIP").map(|a| a.address.clone());
    NodeRow {
        name: node.metadata.name.unwrap_or_default(),
        status: text,
        version: info.kubelet_version,
        os: info.os_image,
        provider_id: spec.provider_id.unwrap_or_default(),
        address: address.unwrap_or_default(),
        labels: node.metadata.labels.unwrap_or_default(),
    }
}

/// The names of all bootstrap tokens' Secrets.
///
/// # Errors
/// What the API server says.
pub async fn join_tokens(client: &Client) -> Result<Vec<String>> {
    Ok(tokens(client).await?.into_iter().filter_map(|secret| secret.metadata.name).collect())
}

/// The secret halves of all bootstrap tokens, for a test that looks for them where they must not be.
///
/// # Errors
/// What the API server says.
pub async fn join_token_secrets(client: &Client) -> Result<Vec<String>> {
    let secrets = tokens(client).await?.into_iter().filter_map(|secret| secret.data?.remove("token-secret"));
    Ok(secrets.map(|secret| String::from_utf8_lossy(&secret.0).into_owned()).collect())
}

async fn tokens(client: &Client) -> Result<Vec<Secret>> {
    let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system").list(&ListParams::default()).await?;
    let token = |secret: &Secret| secret.type_.as_deref() == Some("bootstrap.kubernetes.io/token");
    Ok(secrets.items.into_iter().filter(token).collect())
}
