//! What a command can fail with.

use std::path::PathBuf;

use vmetal_api::ApiError;
use vmetal_api::client::WaitError;
use vmetal_policy_source::SourceError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The engine refused, or could not be asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The same, for one object of a file.
    #[error("{what}: {source}")]
    Object {
        /// Kind and name.
        what: String,
        /// Why.
        #[source]
        source: Box<ApiError>,
    },
    /// Waiting ended too early.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The command line is not complete or contradicts itself.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        advice: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}, document {document}: {reason}", .path.display())]
    Manifest {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        document: usize,
        /// What is wrong.
        reason: String,
    },
    /// The store cannot be opened, copied or restored.
    #[error("{}", chain(&**source))]
    Store {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do, if that is not said.
        advice: String,
    },
    /// The store is damaged; what is wrong was listed.
    #[error("{store} is damaged: {count} problem{}", if *count == 1 { "" } else { "s" })]
    Damaged {
        /// Which.
        store: String,
        /// How many problems were found.
        count: u64,
    },
    /// Something about a policy.
    #[error("{}", chain(source))]
    Policy {
        /// What.
        #[from]
        source: vmetal_policy_tool::ToolError,
    },
    /// A component cannot be had, published, or trusted.
    #[error("{}", chain(source))]
    Source {
        /// Why.
        #[from]
        source: SourceError,
    },
    /// Cases or properties of a policy do not hold; which ones was listed.
    #[error("{what}")]
    PolicyFails {
        /// What, counted.
        what: String,
    },
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// 1 when the engine said no, 2 when the command or a file is wrong. A reader that closes the pipe is no failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            CliError::Api(ApiError::Config { .. })
            | CliError::Usage { .. }
            | CliError::File { .. }
            | CliError::Manifest { .. } => 2,
            CliError::Policy { source } if source.is_usage() => 2,
            CliError::Source { source } if source.is_usage() => 2,
            _ => 1,
        }
    }

    /// What is printed: the error, then what to do.
    pub fn lines(&self) -> Vec<String> {
        let advice = match self {
            CliError::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Vec::new(),
            CliError::Api(error) | CliError::Wait(WaitError::Api(error)) => error.advice(),
            CliError::Object { source, .. } => source.advice(),
            CliError::Wait(WaitError::Deadline { .. }) => "it goes on without you; look with `vmetal describe`".into(),
            CliError::Usage { advice, .. } | CliError::Store { advice, .. } => advice.clone(),
            CliError::Damaged { .. } => {
                "stop the engine and `vmetal store restore` the last sound backup; keep the damaged store for a closer look"
                    .into()
            }
            CliError::Manifest { .. } => {
                "each document needs kind, metadata.name and spec; `vmetal get KIND -o yaml` shows examples".into()
            }
            CliError::Policy { .. }
            | CliError::Source { .. }
            | CliError::PolicyFails { .. }
            | CliError::File { .. }
            | CliError::Output(_) => String::new(),
        };
        let mut lines = match self {
            // One line per field reads better than one sentence.
            CliError::Api(ApiError::Invalid(errors)) => fields("error: the object is not valid", errors),
            CliError::Object { what, source } => match &**source {
                ApiError::Invalid(errors) => fields(&format!("error: {what} is not valid"), errors),
                _ => vec![format!("error: {self}")],
            },
            error => vec![format!("error: {error}")],
        };
        if !advice.is_empty() {
            lines.push(format!("  try: {advice}"));
        }
        lines
    }
}

/// An error with its causes; what a message says of its cause itself is not said again.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        if !text.ends_with(&more) {
            text += &format!(": {more}");
        }
        cause = deeper.source();
    }
    text
}

fn fields(head: &str, errors: &[vmetal_model::FieldError]) -> Vec<String> {
    std::iter::once(head.to_owned()).chain(errors.iter().map(|e| format!("  {e}"))).collect()
}

#[cfg(test)]
mod tests {
    use vmetal_model::FieldError;

    use super::*;

    #[test]
    fn errors_say_what_to_do_and_choose_the_exit_code() {
        let away = CliError::Api(ApiError::EngineUnreachable { endpoint: "http://e".into(), reason: "refused".into() });
        let lines = away.lines();
        assert_eq!(lines[0], "error: the engine at http://e cannot be reached: refused");
        assert!(lines[1].starts_with("  try: check that vmetald runs"), "{lines:?}");
        assert_eq!(away.exit_code(), 1);
        let usage = CliError::Usage { message: "m".into(), advice: "a".into() };
        assert_eq!((usage.exit_code(), usage.lines()), (2, vec!["error: m".to_owned(), "  try: a".to_owned()]));
        let pipe = CliError::Output(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!((pipe.exit_code(), pipe.lines().len()), (0, 0));
    }

    #[test]
    fn every_wrong_field_has_its_own_line() {
        let errors = vec![FieldError::new("spec.a", "is bad"), FieldError::new("spec.b", "is worse")];
        let error = CliError::Object { what: "host \"x\"".into(), source: Box::new(ApiError::Invalid(errors)) };
        let lines = error.lines();
        assert_eq!(lines[..3], ["error: host \"x\" is not valid", "  spec.a: is bad", "  spec.b: is worse"]);
    }
}
