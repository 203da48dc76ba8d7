//! Remarks that a step wants on the record.

use vmetal_model::Severity;

/// What the engine turns into an [`vmetal_model::Event`] of the object that the step was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// A stable word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Note {
    /// The normal course.
    pub fn info(reason: &'static str, message: impl Into<String>) -> Self {
        Note { severity: Severity::Info, reason, message: message.into() }
    }

    /// Not as planned; the engine goes on by itself.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Note { severity: Severity::Warning, reason, message: message.into() }
    }

    /// Somebody should look.
    pub fn error(reason: &'static str, message: impl Into<String>) -> Self {
        Note { severity: Severity::Error, reason, message: message.into() }
    }
}
