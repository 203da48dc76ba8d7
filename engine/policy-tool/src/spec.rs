//! Which policy, and with which settings.

use std::path::{Path, PathBuf};

use vmetal_policy::{Workbench, shipped};
use vmetal_policy_sdk::Kind;

use crate::error::ToolError;

/// A policy as it is named on a command line: a component's file or the name of a shipped policy, and its settings behind it
/// as a JSON object: `place-spread{"max_skew": 2}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// File or name.
    pub name: String,
    /// Settings as JSON text; empty for none.
    pub settings: String,
    /// Where machine code of components that bring an interpreter is kept, if anywhere.
    pub cache: Option<PathBuf>,
}

impl std::str::FromStr for Spec {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Spec::read(text))
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.name, self.settings)
    }
}

impl Spec {
    /// Takes settings from behind the name.
    pub fn read(text: &str) -> Self {
        let at = if text.ends_with('}') { text.find('{') } else { None };
        let (name, settings) = text.split_at(at.unwrap_or(text.len()));
        Spec { name: name.to_owned(), settings: settings.to_owned(), cache: None }
    }

    /// A file, without settings.
    pub fn file(path: &Path) -> Self {
        Spec { name: path.display().to_string(), settings: String::new(), cache: None }
    }

    /// The same, with machine code kept in a directory.
    #[must_use]
    pub fn cached(self, cache: Option<PathBuf>) -> Self {
        Spec { cache, ..self }
    }

    /// Loads it. A file of that name comes before a shipped policy.
    ///
    /// # Errors
    /// When there is none, or it is refused.
    pub fn open(&self) -> Result<Workbench, ToolError> {
        let path = Path::new(&self.name);
        if path.is_dir() {
            return Err(ToolError::Directory { path: path.to_owned() });
        }
        let known = [shipped(Kind::Cost), shipped(Kind::Placement)].concat();
        if !path.exists() && known.contains(&self.name.as_str()) {
            return Ok(Workbench::native(&self.name, &self.settings)?);
        }
        if !path.exists() {
            return Err(ToolError::NoSuchPolicy { name: self.name.clone(), known: known.join(", ") });
        }
        Ok(Workbench::component(path, &self.settings, self.cache.as_deref())?)
    }

    /// The same of a native twin, where the policy is one of the shipped ones.
    pub(crate) fn twin(&self, name: &str) -> Result<Option<Workbench>, ToolError> {
        let known = [shipped(Kind::Cost), shipped(Kind::Placement)].concat();
        if !known.contains(&name) {
            return Ok(None);
        }
        Ok(Some(Workbench::native(name, &self.settings)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn spec(text: &str) -> Spec {
        text.parse().unwrap()
    }

    #[test]
    fn settings_stand_behind_the_name() {
        assert_eq!(spec("a.wasm"), Spec::file(Path::new("a.wasm")));
        assert_eq!(spec(r#"x{"a":{}}"#), Spec { settings: r#"{"a":{}}"#.into(), ..Spec::file(Path::new("x")) });
        assert_eq!(spec("odd{name").name, "odd{name");
    }

    #[test]
    fn what_is_no_policy_is_named() {
        let text = |of: &str| spec(of).open().err().unwrap().to_string();
        assert!(text("place-best").contains("place-balanced, place-first-fit"), "{}", text("place-best"));
        assert!(text("/").contains("is a directory"));
        let refused = text(r#"place-balanced{"stanby":1}"#);
        assert!(refused.contains("refuses its settings: unknown field `stanby`"), "{refused}");
    }
}
