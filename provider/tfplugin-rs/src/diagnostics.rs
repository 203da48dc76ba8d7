//! Messages for the person who runs Terraform.
//!
//! A diagnostic is the only way to fail: a gRPC error would throw the state of the object away. Summaries are one short
//! line without a full stop; details say what happened, where, and what to do next.

use crate::{path::Path, wire};

/// How much a [`Diagnostic`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The operation failed. On create this also taints the object: Terraform will replace it on the next apply.
    Error,
    /// The operation went on.
    Warning,
}

/// One message, and which attribute it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// One line.
    pub summary: String,
    /// What happened, where, and what to do.
    pub detail: String,
    /// The attribute it is about; Terraform then shows file and line.
    pub path: Option<Path>,
}

impl Diagnostic {
    /// A failure.
    pub fn error(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Error, summary: summary.into(), detail: detail.into(), path: None }
    }

    /// A warning.
    pub fn warning(summary: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, summary: summary.into(), detail: detail.into(), path: None }
    }

    /// Says which attribute it is about.
    #[must_use]
    pub fn at(mut self, path: Path) -> Self {
        self.path = Some(path);
        self
    }

    /// The form that travels.
    ///
    /// Cores find the source line of a path by looking its last step up among the attributes of the innermost *block* the
    /// path leads through (measured with Terraform 1.11). Nested attributes are no blocks, so `bmc.address` would be shown
    /// at a top-level `address`, if there is one, and at no attribute otherwise. Only the first step is sent; the rest goes
    /// into the detail.
    pub fn to_wire(&self) -> wire::Diagnostic {
        let severity = match self.severity {
            Severity::Error => wire::diagnostic::Severity::Error,
            Severity::Warning => wire::diagnostic::Severity::Warning,
        };
        let (attribute, detail) = match &self.path {
            Some(path) if path.steps().len() > 1 => (Some(path.first()), format!("{path}: {}", self.detail)),
            Some(path) if !path.is_root() => (Some(path.clone()), self.detail.clone()),
            _ => (None, self.detail.clone()),
        };
        wire::Diagnostic {
            severity: severity.into(),
            summary: self.summary.clone(),
            detail,
            attribute: attribute.as_ref().map(Path::to_wire),
        }
    }
}

/// Messages in the order they arose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// No message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// The form that travels.
    pub fn to_wire(&self) -> Vec<wire::Diagnostic> {
        self.0.iter().map(Diagnostic::to_wire).collect()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<T: IntoIterator<Item = Diagnostic>>(&mut self, more: T) {
        self.0.extend(more);
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<T: IntoIterator<Item = Diagnostic>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_path_is_named_and_shown_at_its_attribute() {
        let nested = Diagnostic::error("s", "Bad.").at(Path::attr("bmc").attribute("address")).to_wire();
        assert_eq!(nested.detail, "bmc.address: Bad.");
        assert_eq!(nested.attribute, Some(Path::attr("bmc").to_wire()));
        let plain = Diagnostic::error("s", "Bad.").at(Path::attr("mac")).to_wire();
        assert_eq!((plain.detail.as_str(), plain.attribute), ("Bad.", Some(Path::attr("mac").to_wire())));
        assert_eq!(Diagnostic::error("s", "d").at(Path::root()).to_wire().attribute, None);
    }
}
