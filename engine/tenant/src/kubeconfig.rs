//! Reading a kubeconfig that somebody else wrote.
//!
//! A kubeconfig is a program as much as a document: it can name commands to run and files to read. Ours arrive over the
//! API, so whoever may declare a tenant cluster could run commands as the engine, or have its files sent to a server of
//! theirs. Therefore only self-contained kubeconfigs are accepted: server, authority, and a certificate or token, inline.

use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take. Nothing here streams, so a silent server is a dead one.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A kubeconfig that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It does not parse, or its parts do not fit together.
    #[error("it is not a kubeconfig with a usable current context")]
    Invalid(#[source] Box<kube::config::KubeconfigError>),
    /// It points outside itself.
    #[error("{field} is not allowed: {instead}")]
    NotSelfContained {
        /// The offending field, by its name in the file.
        field: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
    /// The client could not be made of it.
    #[error("its certificate, key or token is malformed")]
    Client(#[source] Box<kube::Error>),
}

/// Parses `yaml` into a client configuration with time limits.
pub(crate) async fn parse(yaml: &str) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::from_yaml(yaml).map_err(invalid)?;
    require_self_contained(&kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(invalid)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // Otherwise the time a pooled connection lay idle counts as waiting for the next answer.
    config.reset_reader_on_write = true;
    Ok(config)
}

fn invalid(error: kube::config::KubeconfigError) -> KubeconfigError {
    KubeconfigError::Invalid(Box::new(error))
}

/// Checks every entry, not just the current context's: what is not used today may be tomorrow.
fn require_self_contained(kubeconfig: &Kubeconfig) -> Result<(), KubeconfigError> {
    const INLINE: &str =
        "files are not read from the engine's disk; inline the content (kubectl config view --flatten --raw)";
    const NO_COMMAND: &str =
        "the engine runs no commands for a kubeconfig; use a service account token or a client certificate";
    let users = kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()).flat_map(|user| {
        [
            ("users[].user.exec", NO_COMMAND, user.exec.is_some()),
            ("users[].user.auth-provider", NO_COMMAND, user.auth_provider.is_some()),
            ("users[].user.tokenFile", INLINE, user.token_file.is_some()),
            ("users[].user.client-certificate", INLINE, user.client_certificate.is_some()),
            ("users[].user.client-key", INLINE, user.client_key.is_some()),
        ]
    });
    let clusters =
        kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()).map(|cluster| {
            ("clusters[].cluster.certificate-authority", INLINE, cluster.certificate_authority.is_some())
        });
    match users.chain(clusters).find(|(_, _, present)| *present) {
        Some((field, instead, _)) => Err(KubeconfigError::NotSelfContained { field, instead }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn kubeconfig(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
             clusters:\n- name: k\n  cluster: {{server: 'https://192.0.2.1:6443', {cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
        )
    }

    #[tokio::test]
    async fn commands_and_files_are_refused() {
        for (cluster, user, field) in [
            ("", "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/true}", "exec"),
            ("", "auth-provider: {name: gcp, config: {cmd-path: /bin/true}}", "auth-provider"),
            ("", "tokenFile: /etc/shadow", "tokenFile"),
            ("", "client-certificate: /etc/passwd", "client-certificate"),
            ("", "client-key: /etc/shadow", "client-key"),
            ("certificate-authority: /etc/passwd", "token: t", "certificate-authority"),
        ] {
            let error = parse(&kubeconfig(cluster, user)).await.unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("not allowed"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_self_contained_one_is_accepted_with_limits() {
        let config = parse(&kubeconfig("", "token: t")).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://192.0.2.1:6443/");
        assert_eq!((config.connect_timeout, config.read_timeout), (Some(CONNECT_TIMEOUT), Some(READ_TIMEOUT)));
    }

    #[tokio::test]
    async fn other_text_is_not_a_kubeconfig() {
        for text in ["", "hello", "{}", "apiVersion: v1\nkind: Config\ncurrent-context: gone\n"] {
            assert!(matches!(parse(text).await, Err(KubeconfigError::Invalid(_))), "{text:?}");
        }
    }
}
