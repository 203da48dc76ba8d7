//! What can go wrong with a tenant's cluster, in the words of the person who has to fix it.

use std::error::Error;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use vmetal_model::{Cause, Failure};

use crate::kubeconfig::KubeconfigError;

/// A failed call to a tenant's cluster. The message says what was tried and found, [`TenantError::advice`] what to do; the
/// technical cause, where there is one, is the source.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// The kubeconfig cannot be used.
    #[error("the tenant cluster's kubeconfig cannot be used")]
    Kubeconfig(#[source] KubeconfigError),
    /// No connection, or no answer in time.
    #[error("cannot reach the tenant's API server {server} to {action}")]
    Unreachable {
        /// The API server's URL.
        server: String,
        /// What the call was for.
        action: String,
        /// The transport's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The server's certificate is not signed by the authority in the kubeconfig, or is for another name.
    #[error("the certificate of the tenant's API server {server} is not trusted: {problem}")]
    Certificate {
        /// The API server's URL.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// 401: the credentials are not known to the server.
    #[error(
        "the tenant's API server {server} does not accept the kubeconfig's credentials (401) to {action}: {message}"
    )]
    Unauthorized {
        /// The API server's URL.
        server: String,
        /// What the call was for.
        action: String,
        /// The server's words.
        message: String,
    },
    /// 403: the credentials are good and do not suffice.
    #[error("the kubeconfig's user may not {action} on {server} (403): {message}")]
    Forbidden {
        /// The API server's URL.
        server: String,
        /// What the call was for.
        action: String,
        /// The server's words, which name user, verb and resource.
        message: String,
    },
    /// The server is there but cannot serve now (429, 500, 502, 503, 504). Worth trying again.
    #[error("the tenant's API server {server} could not {action} now ({code}): {message}")]
    Busy {
        /// The API server's URL.
        server: String,
        /// What the call was for.
        action: String,
        /// HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The server refused what was asked for some other reason.
    #[error("the tenant's API server {server} refused to {action} ({code} {reason}): {message}")]
    Refused {
        /// The API server's URL.
        server: String,
        /// What the call was for.
        action: String,
        /// HTTP status.
        code: u16,
        /// Kubernetes' reason word.
        reason: String,
        /// The server's words.
        message: String,
    },
    /// The server's answer made no sense, or the request could not be built.
    #[error("the exchange with the tenant's API server {server} to {action} failed")]
    Protocol {
        /// The API server's URL.
        server: String,
        /// What the call was for.
        action: String,
        /// The library's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object that every cluster made by kubeadm has is missing.
    #[error("the tenant cluster has no {object}: {meaning}")]
    MissingObject {
        /// Kind, namespace and name.
        object: &'static str,
        /// What that means.
        meaning: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// An object is there but does not hold what it must.
    #[error("{object} of the tenant cluster is malformed: {problem}")]
    MalformedObject {
        /// Kind, namespace and name.
        object: String,
        /// What was expected and seen.
        problem: String,
    },
    /// cluster-info was not signed for the token.
    #[error(
        "the tenant cluster did not sign cluster-info for bootstrap token {token_id} within {waited:?}: its \
         kube-controller-manager does not run the bootstrap signer, without which no node can join"
    )]
    NoBootstrapSigner {
        /// Public half of the token.
        token_id: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The pin would be ambiguous.
    #[error(
        "the tenant cluster publishes {count} certificate authorities in kube-system/kube-root-ca.crt; joining nodes pin \
         exactly one"
    )]
    SeveralAuthorities {
        /// How many.
        count: usize,
    },
    /// Nodes would refuse the cluster.
    #[error(
        "kube-public/cluster-info of the tenant cluster does not name the authority that kube-system/kube-root-ca.crt \
         publishes ({pin}), so joining nodes would refuse it"
    )]
    AuthorityMismatch {
        /// The authority that was expected.
        pin: String,
    },
    /// Nodes would be sent to two addresses.
    #[error(
        "the tenant cluster tells joining nodes two addresses: {cluster_info} in kube-public/cluster-info and {kubeadm_config} \
         in kube-system/kubeadm-config (controlPlaneEndpoint)"
    )]
    EndpointMismatch {
        /// `host:port` of cluster-info's server.
        cluster_info: String,
        /// `host:port` of controlPlaneEndpoint.
        kubeadm_config: String,
    },
    /// All of the claim's token ids belong to others.
    #[error(
        "every bootstrap token id that this claim may use is taken by a Secret that is not its own (last: \
         kube-system/{secret})"
    )]
    TokenIdsTaken {
        /// The last Secret that was tried.
        secret: String,
    },
    /// A text that is not a token id was given.
    #[error("{0:?} is not a bootstrap token id: six characters of a-z and 0-9 are expected")]
    BadTokenId(String),
    /// The Secret that carries the token's id is not ours to delete.
    #[error("kube-system/{secret} was not made by vmetal and is left alone")]
    ForeignToken {
        /// Name of the Secret.
        secret: String,
    },
}

impl TenantError {
    /// The kind of failure, for the engine's backoff and ladders.
    pub fn cause(&self) -> Cause {
        match self {
            TenantError::Kubeconfig(_)
            | TenantError::Unreachable { .. }
            | TenantError::Certificate { .. }
            | TenantError::Unauthorized { .. }
            | TenantError::Forbidden { .. }
            | TenantError::Busy { .. }
            | TenantError::Protocol { .. } => Cause::TenantUnreachable,
            TenantError::Refused { .. }
            | TenantError::MissingObject { .. }
            | TenantError::MalformedObject { .. }
            | TenantError::NoBootstrapSigner { .. }
            | TenantError::SeveralAuthorities { .. }
            | TenantError::AuthorityMismatch { .. }
            | TenantError::EndpointMismatch { .. }
            | TenantError::TokenIdsTaken { .. }
            | TenantError::BadTokenId(_)
            | TenantError::ForeignToken { .. } => Cause::TenantSetup,
        }
    }

    /// What an operator can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            TenantError::Kubeconfig(_) => "apply the tenant cluster with a kubeconfig that is complete in itself",
            TenantError::Unreachable { .. } => {
                "check that the API server runs and that the engine's network may connect to its address; the engine tries again"
            }
            TenantError::Certificate { .. } => {
                "if the cluster was rebuilt or its authority was replaced, apply the tenant cluster with the new kubeconfig"
            }
            TenantError::Unauthorized { .. } => {
                "the credentials may have expired: apply the tenant cluster with a new kubeconfig"
            }
            TenantError::Forbidden { .. } => {
                "grant the user that right, or apply the tenant cluster with a kubeconfig that has it"
            }
            TenantError::Busy { .. } => "nothing; the engine tries again",
            TenantError::Refused { .. } => "read the server's words; they name the field or the rule",
            TenantError::Protocol { .. } => "check that the kubeconfig's server is a Kubernetes API server",
            TenantError::MissingObject { advice, .. } => advice,
            TenantError::MalformedObject { .. } => "restore the object as kubeadm made it",
            TenantError::NoBootstrapSigner { .. } => {
                "start the tenant's kube-controller-manager with --controllers=*,bootstrapsigner,tokencleaner"
            }
            TenantError::SeveralAuthorities { .. } => "finish or undo the rotation of the cluster's authority",
            TenantError::AuthorityMismatch { .. } => "recreate cluster-info with `kubeadm init phase bootstrap-token`",
            TenantError::EndpointMismatch { .. } => "make the two addresses equal",
            TenantError::TokenIdsTaken { .. } => {
                "delete Secrets of type bootstrap.kubernetes.io/token that are not used any more"
            }
            TenantError::BadTokenId(_) => "this is a fault of the engine: please report it",
            TenantError::ForeignToken { .. } => "delete the Secret by hand if nothing needs it",
        }
    }

    /// The error as it is kept on an object and shown: the message with its causes, each once, and the advice.
    pub fn to_failure(&self, now: Timestamp) -> Failure {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Libraries repeat their source in their own words; what was said is not said again.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Failure { cause: self.cause(), message, advice: self.advice().to_owned(), at: now }
    }

    /// Sorts a client error. `action` continues the sentence "could not …".
    pub(crate) fn from_kube(server: &str, action: impl Into<String>, error: kube::Error) -> TenantError {
        let (server, action) = (server.to_owned(), action.into());
        match error {
            kube::Error::Api(status) => {
                let message = status.message;
                match status.code {
                    401 => TenantError::Unauthorized { server, action, message },
                    403 => TenantError::Forbidden { server, action, message },
                    code @ (429 | 500 | 502 | 503 | 504) => TenantError::Busy { server, action, code, message },
                    code => TenantError::Refused { server, action, code, reason: status.reason, message },
                }
            }
            error @ (kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)) => {
                match tls_error(&error) {
                    Some(problem) => TenantError::Certificate { server, problem },
                    None => TenantError::Unreachable { server, action, source: Box::new(error) },
                }
            }
            error => TenantError::Protocol { server, action, source: Box::new(error) },
        }
    }
}

/// The TLS library's complaint about the peer's certificate, wherever in the chain it is. `io::Error` hides what it wraps
/// from `source`, hence the second way down.
fn tls_error(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(tls @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref::<rustls::Error>() {
        return Some(tls.to_string());
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.and_then(|inner| tls_error(inner)).or_else(|| error.source().and_then(tls_error))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn status(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, ..Status::failure(message, "Reason") }))
    }

    #[test]
    fn statuses_become_what_the_operator_can_do_about_them() {
        for (code, expected) in [
            (401, "with a new kubeconfig"),
            (403, "grant the user that right"),
            (429, "tries again"),
            (503, "tries again"),
            (422, "read the server's words"),
        ] {
            let error = TenantError::from_kube("https://t:6443", "join", status(code, "words"));
            let Failure { message, advice, .. } = error.to_failure(Timestamp::UNIX_EPOCH);
            assert!(message.contains("words") && message.contains("https://t:6443"), "{message}");
            assert!(message.contains(&code.to_string()) && advice.contains(expected), "{message}; {advice}");
        }
    }

    #[test]
    fn an_untrusted_certificate_is_told_from_a_dead_server() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        // As the HTTP client hands it up: wrapped twice.
        let inner = io::Error::new(io::ErrorKind::InvalidData, tls);
        let error = kube::Error::Service(Box::new(io::Error::other(inner)));
        let error = TenantError::from_kube("https://t:6443", "join", error);
        assert!(
            matches!(&error, TenantError::Certificate { problem, .. } if problem.contains("UnknownIssuer")),
            "{error}"
        );

        let error = kube::Error::Service(Box::new(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody there")));
        let error = TenantError::from_kube("s", "join", error);
        assert!(matches!(error, TenantError::Unreachable { .. }));
        let failure = error.to_failure(Timestamp::UNIX_EPOCH);
        assert_eq!(failure.message.matches("nobody there").count(), 1, "{}", failure.message);
        assert_eq!(failure.cause, Cause::TenantUnreachable);
    }
}
