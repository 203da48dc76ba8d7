//! What a node needs to know before it trusts a cluster: where the API server is, and which authority vouches for it.
//!
//! `kubeadm join` reads kube-public/cluster-info without authentication, believes it because it is signed with the token,
//! and then compares the authority in it with a pin. Both are read here first, with the engine's credentials, so that
//! whatever would make the join hang on the server is an error with a name before the server is powered on.

use std::time::Duration;

use http::Uri;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::client::TenantClient;
use crate::error::TenantError;

const ROOT_CA: &str = "ConfigMap kube-system/kube-root-ca.crt";
const CLUSTER_INFO: &str = "ConfigMap kube-public/cluster-info";
const KUBEADM_CONFIG: &str = "ConfigMap kube-system/kubeadm-config";
/// The API server's port where an endpoint names none (kubeadm's default).
const DEFAULT_PORT: u16 = 6443;

/// Where to join, and whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinTarget {
    /// `host:port`.
    pub(crate) endpoint: String,
    /// kubeadm's form: `sha256:` and the hexadecimal digest of the authority's SubjectPublicKeyInfo.
    pub(crate) ca_cert_hash: String,
}

/// Reads and cross-checks the three objects.
pub(crate) async fn read(client: &TenantClient) -> Result<JoinTarget, TenantError> {
    let root = config_map(
        client,
        "kube-system",
        "kube-root-ca.crt",
        ROOT_CA,
        "its kube-controller-manager has not published the cluster's authority",
        "check that the tenant's kube-controller-manager runs, with --root-ca-file",
    )
    .await?;
    let info = config_map(
        client,
        "kube-public",
        "cluster-info",
        CLUSTER_INFO,
        "nodes cannot discover it",
        "create the object with `kubeadm init phase bootstrap-token`",
    )
    .await?;
    let kubeadm = config_map(
        client,
        "kube-system",
        "kubeadm-config",
        KUBEADM_CONFIG,
        "it was not made by kubeadm, or the object was deleted",
        "create the object with `kubeadm init phase upload-config kubeadm`",
    )
    .await?;
    target(
        data(&root, ROOT_CA, "ca.crt")?,
        data(&info, CLUSTER_INFO, "kubeconfig")?,
        data(&kubeadm, KUBEADM_CONFIG, "ClusterConfiguration")?,
    )
}

/// Waits until cluster-info carries the signature for the token.
pub(crate) async fn wait_until_signed(
    client: &TenantClient,
    token_id: &str,
    limit: Duration,
) -> Result<(), TenantError> {
    const INTERVAL: Duration = Duration::from_millis(500);
    let key = format!("jws-kubeconfig-{token_id}");
    let deadline = Instant::now() + limit;
    loop {
        let info = client
            .config_maps("kube-public")
            .get_opt("cluster-info")
            .await
            .map_err(|e| client.error("read kube-public/cluster-info", e))?;
        if info.and_then(|info| info.data).is_some_and(|data| data.contains_key(&key)) {
            return Ok(());
        }
        if Instant::now() + INTERVAL > deadline {
            return Err(TenantError::NoBootstrapSigner { token_id: token_id.to_owned(), waited: limit });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn config_map(
    client: &TenantClient,
    namespace: &str,
    name: &str,
    object: &'static str,
    meaning: &'static str,
    advice: &'static str,
) -> Result<ConfigMap, TenantError> {
    client
        .config_maps(namespace)
        .get_opt(name)
        .await
        .map_err(|e| client.error(format!("read {object}"), e))?
        .ok_or(TenantError::MissingObject { object, meaning, advice })
}

fn data<'a>(map: &'a ConfigMap, object: &str, key: &str) -> Result<&'a str, TenantError> {
    map.data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(String::as_str)
        .ok_or_else(|| malformed(object, format!("it has no key {key:?}")))
}

fn malformed(object: &str, problem: impl Into<String>) -> TenantError {
    TenantError::MalformedObject { object: object.to_owned(), problem: problem.into() }
}

#[derive(Deserialize)]
struct ClusterConfiguration {
    #[serde(default, rename = "controlPlaneEndpoint")]
    control_plane_endpoint: String,
}

#[derive(Deserialize)]
struct ClusterInfo {
    clusters: Vec<NamedCluster>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    server: String,
    #[serde(default, rename = "certificate-authority-data")]
    authority: String,
}

/// The pure half: the three documents to one target, or the reason why a join could not work.
fn target(root_ca: &str, cluster_info: &str, cluster_configuration: &str) -> Result<JoinTarget, TenantError> {
    let authorities = pins(root_ca.as_bytes(), ROOT_CA)?;
    let [pin] = authorities.as_slice() else {
        return Err(TenantError::SeveralAuthorities { count: authorities.len() });
    };

    let info: ClusterInfo = serde_yaml_ng::from_str(cluster_info)
        .map_err(|e| malformed(CLUSTER_INFO, format!("its kubeconfig does not parse: {e}")))?;
    let [NamedCluster { cluster }] = info.clusters.as_slice() else {
        return Err(malformed(
            CLUSTER_INFO,
            format!("its kubeconfig names {} clusters, expected one", info.clusters.len()),
        ));
    };
    use base64::Engine as _;
    let published = base64::engine::general_purpose::STANDARD
        .decode(cluster.authority.trim())
        .map_err(|e| malformed(CLUSTER_INFO, format!("certificate-authority-data is not base64: {e}")))?;
    if !pins(&published, CLUSTER_INFO)?.contains(pin) {
        return Err(TenantError::AuthorityMismatch { pin: pin.clone() });
    }

    let discovered = endpoint(&cluster.server)
        .ok_or_else(|| malformed(CLUSTER_INFO, format!("server {:?} is not an https URL", cluster.server)))?;
    let configuration: ClusterConfiguration = serde_yaml_ng::from_str(cluster_configuration)
        .map_err(|e| malformed(KUBEADM_CONFIG, format!("ClusterConfiguration does not parse: {e}")))?;
    let configured = configuration.control_plane_endpoint.trim();
    // A cluster with a single control plane may leave it out; cluster-info is then all there is.
    if !configured.is_empty() {
        let configured = endpoint(&format!("https://{configured}")).ok_or_else(|| {
            malformed(KUBEADM_CONFIG, format!("controlPlaneEndpoint {configured:?} is not host:port"))
        })?;
        if configured != discovered {
            return Err(TenantError::EndpointMismatch { cluster_info: discovered, kubeadm_config: configured });
        }
    }
    Ok(JoinTarget { endpoint: discovered, ca_cert_hash: pin.clone() })
}

/// `host:port` of an https URL, with the port spelled out.
fn endpoint(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("https") {
        return None;
    }
    let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    Some(format!("{host}:{}", uri.port_u16().unwrap_or(DEFAULT_PORT)))
}

/// The pins of all certificates in a PEM text: SHA-256 over the DER SubjectPublicKeyInfo, as kubeadm computes it.
fn pins(pem: &[u8], object: &str) -> Result<Vec<String>, TenantError> {
    CertificateDer::pem_slice_iter(pem)
        .map(|certificate| {
            let certificate = certificate.map_err(|e| malformed(object, format!("the authority is not PEM: {e}")))?;
            let parsed = ParsedCertificate::try_from(&certificate)
                .map_err(|e| malformed(object, format!("the authority is not an X.509 certificate: {e}")))?;
            Ok(format!("sha256:{}", hex::encode(Sha256::digest(parsed.subject_public_key_info()))))
        })
        .collect()
}

#[cfg(test)]
mod tests;
