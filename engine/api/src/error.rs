//! Errors, on both sides of the wire.
//!
//! The engine says [`BackendError`]. It crosses the wire as a gRPC code (for tools that know only gRPC), a sentence (for
//! people) and its own JSON form in the status details (for our clients), and arrives as the [`ApiError`] of the same
//! name. Nothing is ever found out by looking into a text.

use std::fmt;

use serde::{Deserialize, Serialize};
use tonic::{Code, Status};
use vmetal_model::{FieldError, Kind};

/// An object, named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

/// What the engine answers when it does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum BackendError {
    /// There is no such object.
    #[error("{object} does not exist")]
    NotFound {
        /// What was asked for.
        object: ObjectRef,
    },
    /// The object exists and the request demanded that it does not.
    #[error("{object} exists already")]
    AlreadyExists {
        /// The object.
        object: ObjectRef,
    },
    /// A value that must be unique belongs to another object.
    #[error("the value {value:?} of {field} of {object} already belongs to {holder}")]
    Unique {
        /// The field, for example `spec.boot_mac`.
        field: String,
        /// The value.
        value: String,
        /// The object of the request.
        object: ObjectRef,
        /// The object that has the value.
        holder: ObjectRef,
    },
    /// The object is not at the revision, or not the one, that the request demanded.
    #[error("{object} has changed: expected {expected}, found {found}")]
    Conflict {
        /// The object.
        object: ObjectRef,
        /// For example `revision 7`.
        expected: String,
        /// For example `revision 9`.
        found: String,
    },
    /// The object is not valid. Every error, not only the first.
    #[error("{}", sentence(.errors))]
    Invalid {
        /// One per field.
        #[serde(with = "field_errors")]
        errors: Vec<FieldError>,
    },
    /// The request cannot be done in the present state.
    #[error("{message}")]
    Precondition {
        /// What stands in the way.
        message: String,
        /// What to do about it.
        advice: String,
    },
    /// Whoever asks may not do this.
    #[error("{message}")]
    Forbidden {
        /// Who, and what is missing.
        message: String,
    },
    /// The engine cannot answer now; the same request may work soon.
    #[error("{message}")]
    Unavailable {
        /// Why.
        message: String,
    },
    /// A fault inside the engine.
    #[error("{message}")]
    Internal {
        /// What failed.
        message: String,
    },
}

fn sentence(errors: &[FieldError]) -> String {
    match errors {
        [] => "the object is not valid".into(),
        errors => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// [`FieldError`]s as JSON.
mod field_errors {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use vmetal_model::FieldError;

    #[derive(Serialize, Deserialize)]
    struct Wire {
        path: String,
        message: String,
    }

    pub(super) fn serialize<S: Serializer>(errors: &[FieldError], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(errors.iter().map(|e| Wire { path: e.path.clone(), message: e.message.clone() }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FieldError>, D::Error> {
        let wire = Vec::<Wire>::deserialize(from)?;
        Ok(wire.into_iter().map(|e| FieldError::new(e.path, e.message)).collect())
    }
}

impl BackendError {
    fn code(&self) -> Code {
        match self {
            BackendError::NotFound { .. } => Code::NotFound,
            BackendError::AlreadyExists { .. } | BackendError::Unique { .. } => Code::AlreadyExists,
            BackendError::Conflict { .. } => Code::Aborted,
            BackendError::Invalid { .. } => Code::InvalidArgument,
            BackendError::Precondition { .. } => Code::FailedPrecondition,
            BackendError::Forbidden { .. } => Code::PermissionDenied,
            BackendError::Unavailable { .. } => Code::Unavailable,
            BackendError::Internal { .. } => Code::Internal,
        }
    }

    /// The error as it crosses the wire.
    pub(crate) fn to_status(&self) -> Status {
        // Serialising plain strings cannot fail; without details the code and the sentence still arrive.
        let details = serde_json::to_vec(self).unwrap_or_default();
        // gRPC messages travel in a header: keep them far below every header limit, the details carry the rest.
        let mut message = self.to_string();
        if let Some((end, _)) = message.char_indices().nth(1000) {
            message.truncate(end);
            message.push('…');
        }
        Status::with_details(self.code(), message, details.into())
    }
}

/// Why a call failed, in an operator's words. [`ApiError::advice`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The client is not set up correctly: endpoint, token file, certificate.
    #[error("{message}")]
    Config {
        /// What is wrong with which setting.
        message: String,
        /// What to do about it.
        advice: String,
    },
    /// No connection, or the connection broke.
    #[error("the engine at {endpoint} cannot be reached: {reason}")]
    EngineUnreachable {
        /// Where it was expected.
        endpoint: String,
        /// What the network said.
        reason: String,
    },
    /// The engine is there but did not answer in time.
    #[error("the engine at {endpoint} did not answer within {seconds} s")]
    Timeout {
        /// Where.
        endpoint: String,
        /// The deadline of the call.
        seconds: u64,
    },
    /// The engine is there but cannot answer now.
    #[error("the engine at {endpoint} is not ready: {reason}")]
    Unavailable {
        /// Where.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// No token, or one that the engine does not know.
    #[error("the engine at {endpoint} refused the token: {reason}")]
    Unauthenticated {
        /// Where.
        endpoint: String,
        /// What the engine said.
        reason: String,
    },
    /// The token is known, but not for this.
    #[error("the engine at {endpoint} does not allow it: {reason}")]
    Forbidden {
        /// Where.
        endpoint: String,
        /// Who, and what is missing.
        reason: String,
    },
    /// There is no such object.
    #[error("{object} does not exist")]
    NotFound {
        /// What was asked for.
        object: ObjectRef,
    },
    /// The object exists and the request demanded that it does not.
    #[error("{object} exists already")]
    AlreadyExists {
        /// The object.
        object: ObjectRef,
    },
    /// A value that must be unique belongs to another object.
    #[error("the value {value:?} of {field} of {object} already belongs to {holder}")]
    Unique {
        /// The field, for example `spec.boot_mac`.
        field: String,
        /// The value.
        value: String,
        /// The object of the request.
        object: ObjectRef,
        /// The object that has the value.
        holder: ObjectRef,
    },
    /// The object is not at the revision, or not the one, that the request demanded.
    #[error("{object} has changed: expected {expected}, found {found}")]
    Conflict {
        /// The object.
        object: ObjectRef,
        /// For example `revision 7`.
        expected: String,
        /// For example `revision 9`.
        found: String,
    },
    /// The object is not valid.
    #[error("{}", sentence(.0))]
    Invalid(Vec<FieldError>),
    /// The request cannot be done in the present state.
    #[error("{message}")]
    Precondition {
        /// What stands in the way.
        message: String,
        /// What to do about it.
        advice: String,
    },
    /// Engine and client do not understand each other.
    #[error("{message}")]
    Incompatible {
        /// What was not understood.
        message: String,
    },
    /// Anything else.
    #[error("the engine at {endpoint} failed: {message}")]
    Other {
        /// Where.
        endpoint: String,
        /// What it said.
        message: String,
    },
}

impl ApiError {
    /// What an operator can do. Never empty.
    pub fn advice(&self) -> String {
        match self {
            ApiError::Config { advice, .. } | ApiError::Precondition { advice, .. } if !advice.is_empty() => {
                advice.clone()
            }
            ApiError::Config { .. } => "correct the setting and try again".into(),
            ApiError::Precondition { .. } => "wait for the object to change, or change it, and try again".into(),
            ApiError::EngineUnreachable { .. } => {
                "check that vmetald runs there, that the endpoint (scheme, host, port) is right, and that no firewall is in between".into()
            }
            ApiError::Timeout { .. } => {
                "the engine is overloaded or its disk hangs; look at its log, then try again".into()
            }
            ApiError::Unavailable { .. } => "it is starting or stopping; try again in a few seconds".into(),
            ApiError::Unauthenticated { .. } => {
                "give the token that vmetald wrote at its first start (VMETAL_TOKEN or VMETAL_TOKEN_FILE), or one that was added since".into()
            }
            ApiError::Forbidden { .. } => {
                "use a token of an operator: in the engine's `tokens` file the role stands after the hash, for workloads in its `[[oidc]]` rules".into()
            }
            ApiError::NotFound { .. } => "check the name; `vmetal get` lists what there is".into(),
            ApiError::AlreadyExists { object } => {
                format!("choose another name, or import {object} instead of creating it")
            }
            ApiError::Unique { field, holder, .. } => {
                format!("give the object another {field}, or change or delete {holder} first")
            }
            ApiError::Conflict { .. } => {
                "somebody else changed it in between: read it again and repeat the change".into()
            }
            ApiError::Invalid(_) => "correct the named fields and try again".into(),
            ApiError::Incompatible { .. } => {
                "engine and client are of different releases: update the older one".into()
            }
            ApiError::Other { .. } => "look at the engine's log; if it happens again, report it".into(),
        }
    }

    /// True when the same call may succeed soon without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, ApiError::EngineUnreachable { .. } | ApiError::Unavailable { .. } | ApiError::Timeout { .. })
    }

    /// The error that a status from `endpoint` stands for.
    pub(crate) fn from_status(endpoint: &str, status: &Status) -> Self {
        if let Ok(error) = serde_json::from_slice::<BackendError>(status.details()) {
            return Self::from_backend(endpoint, error);
        }
        let endpoint = endpoint.to_owned();
        // A status that the transport made has the transport's error as its source; one that the engine sent has none.
        if let Some(reason) = transport_reason(status) {
            return ApiError::EngineUnreachable { endpoint, reason };
        }
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        match status.code() {
            Code::Unauthenticated => ApiError::Unauthenticated { endpoint, reason: message },
            Code::PermissionDenied => ApiError::Forbidden { endpoint, reason: message },
            Code::Unavailable => ApiError::Unavailable { endpoint, reason: message },
            Code::Unimplemented => ApiError::Incompatible {
                message: format!("what answers at {endpoint} does not know this call ({message})"),
            },
            Code::OutOfRange | Code::ResourceExhausted => ApiError::Other {
                message: format!(
                    "a message was too large ({message}); the limit is {} bytes",
                    crate::MAX_MESSAGE_BYTES
                ),
                endpoint,
            },
            _ => ApiError::Other { endpoint, message },
        }
    }

    pub(crate) fn from_backend(endpoint: &str, error: BackendError) -> Self {
        match error {
            BackendError::NotFound { object } => ApiError::NotFound { object },
            BackendError::AlreadyExists { object } => ApiError::AlreadyExists { object },
            BackendError::Unique { field, value, object, holder } => ApiError::Unique { field, value, object, holder },
            BackendError::Conflict { object, expected, found } => ApiError::Conflict { object, expected, found },
            BackendError::Invalid { errors } => ApiError::Invalid(errors),
            BackendError::Precondition { message, advice } => ApiError::Precondition { message, advice },
            BackendError::Forbidden { message } => {
                ApiError::Forbidden { endpoint: endpoint.to_owned(), reason: message }
            }
            BackendError::Unavailable { message } => {
                ApiError::Unavailable { endpoint: endpoint.to_owned(), reason: message }
            }
            BackendError::Internal { message } => ApiError::Other { endpoint: endpoint.to_owned(), message },
        }
    }
}

/// The innermost error of a status that the transport itself made: `connection refused` rather than `transport error`.
fn transport_reason(status: &Status) -> Option<String> {
    let mut error = std::error::Error::source(status)?;
    while let Some(inner) = error.source() {
        error = inner;
    }
    Some(error.to_string())
}

impl From<crate::resource::DecodeError> for ApiError {
    fn from(error: crate::resource::DecodeError) -> Self {
        ApiError::Incompatible { message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn host(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::Host, name: name.into() }
    }

    fn all() -> Vec<BackendError> {
        vec![
            BackendError::NotFound { object: host("a") },
            BackendError::AlreadyExists { object: host("a") },
            BackendError::Unique {
                field: "spec.boot_mac".into(),
                value: "52:54:00:00:00:01".into(),
                object: host("b"),
                holder: host("a"),
            },
            BackendError::Conflict { object: host("a"), expected: "revision 7".into(), found: "revision 9".into() },
            BackendError::Invalid {
                errors: vec![FieldError::new("spec.x", "is bad"), FieldError::new("spec.y", "too")],
            },
            BackendError::Precondition { message: "no".into(), advice: "do".into() },
            BackendError::Forbidden { message: "readers may not".into() },
            BackendError::Unavailable { message: "starting".into() },
            BackendError::Internal { message: "broken".into() },
        ]
    }

    #[test]
    fn every_error_survives_the_wire_and_gives_advice() {
        for error in all() {
            let arrived = ApiError::from_status("http://e", &error.to_status());
            assert_eq!(arrived, ApiError::from_backend("http://e", error.clone()));
            assert!(!arrived.advice().is_empty());
            assert!(arrived.to_string().contains(&error.to_string()), "{arrived} lost {error}");
        }
    }

    #[test]
    fn both_holders_of_a_value_are_named() {
        let text = all()[2].to_string();
        assert!(text.contains("host \"a\"") && text.contains("host \"b\"") && text.contains("52:54"), "{text}");
    }

    #[test]
    fn a_status_without_our_details_still_becomes_words() {
        let error = ApiError::from_status("http://e", &Status::new(Code::Unimplemented, "unknown service"));
        assert!(matches!(error, ApiError::Incompatible { .. }), "{error:?}");
        let error = ApiError::from_status("http://e", &Status::new(Code::Internal, ""));
        assert_eq!(error.to_string(), "the engine at http://e failed: Internal error");
    }

    #[test]
    fn a_very_long_message_is_cut_and_the_details_are_not() {
        let errors: Vec<FieldError> = (0..200).map(|i| FieldError::new(format!("spec.f{i}"), "is bad")).collect();
        let status = BackendError::Invalid { errors: errors.clone() }.to_status();
        assert!(status.message().len() < 1100);
        assert_eq!(ApiError::from_status("e", &status), ApiError::Invalid(errors));
    }
}
