//! The connection to one tenant cluster.

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::{Api, Client};

use crate::discovery;
use crate::error::TenantError;
use crate::kubeconfig::{self, KubeconfigError};

/// A tenant cluster, as seen with its kubeconfig. Cheap to clone; holds connections, no state.
#[derive(Clone)]
pub struct TenantClient {
    /// Retries 429, 503 and 504 by itself with backoff: right for reads and small writes.
    retrying: Client,
    /// Never retries: for evictions, where 429 is an answer.
    direct: Client,
    server: String,
}

impl std::fmt::Debug for TenantClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantClient").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What a cluster says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFacts {
    /// The API server's version, for example `v1.36.3`.
    pub version: String,
    /// `host:port` at which nodes join.
    pub endpoint: String,
    /// The pin of the cluster's authority: `sha256:` and the digest of its public key, in hexadecimal.
    pub ca_cert_hash: String,
}

impl TenantClient {
    /// Makes the clients from a kubeconfig that is complete in itself. Makes no connection yet.
    ///
    /// # Errors
    /// [`TenantError::Kubeconfig`] when it does not parse, lacks something, or points at commands or files.
    pub async fn connect(kubeconfig_yaml: &str) -> Result<Self, TenantError> {
        let config = kubeconfig::parse(kubeconfig_yaml).await.map_err(TenantError::Kubeconfig)?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = |retry: bool| {
            let mut config = config.clone();
            config.default_retry = retry;
            Client::try_from(config).map_err(|e| TenantError::Kubeconfig(KubeconfigError::Client(Box::new(e))))
        };
        Ok(TenantClient { retrying: client(true)?, direct: client(false)?, server })
    }

    /// The API server's URL, as the kubeconfig has it.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Looks whether the cluster answers and could take nodes, without changing anything.
    ///
    /// # Errors
    /// All of [`TenantError`] that concern reaching the cluster and its join configuration.
    pub async fn facts(&self) -> Result<ClusterFacts, TenantError> {
        let version =
            self.retrying.apiserver_version().await.map_err(|e| self.error("read the API server's version", e))?;
        let target = discovery::read(self).await?;
        Ok(ClusterFacts { version: version.git_version, endpoint: target.endpoint, ca_cert_hash: target.ca_cert_hash })
    }

    /// A connection over this client, which is to make no retries of its own. For simulations; `server` names it in errors.
    pub fn over(client: Client, server: impl Into<String>) -> Self {
        TenantClient { retrying: client.clone(), direct: client, server: server.into() }
    }

    pub(crate) fn error(&self, action: impl Into<String>, error: kube::Error) -> TenantError {
        TenantError::from_kube(&self.server, action, error)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.retrying.clone(), "kube-system")
    }

    pub(crate) fn config_maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.retrying.clone(), namespace)
    }

    pub(crate) fn nodes(&self) -> Api<Node> {
        Api::all(self.retrying.clone())
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::all(self.retrying.clone())
    }

    /// The client that passes 429 on.
    pub(crate) fn direct(&self) -> &Client {
        &self.direct
    }
}
