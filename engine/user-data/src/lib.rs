//! Cloud-config documents, merged and written. Pure: the engine renders the user data of servers with it, and the Terraform
//! provider shows with the same code what that will be.
//!
//! Users bring documents at several levels, the least specific first. They are merged key by key, the more specific one
//! winning: maps are merged, everything else is replaced.
//!
//! What is written is JSON, which every YAML reader takes: cloud-init reads YAML 1.1, where a bare `yes` is a truth value and
//! a bare MAC address a number in base 60, so nothing is written bare. Users' documents are read as YAML 1.2: `true` and
//! `false` are truth values, `yes` and `on` are texts (which cloud-init takes for true where it wants one).
//!
//! ```
//! use vmetal_user_data::Document;
//! let levels = [
//!     ("the class".to_owned(), "#cloud-config\nntp: {enabled: true}\n".to_owned()),
//!     ("the node".to_owned(), "#cloud-config\nntp: {servers: [a]}\n".to_owned()),
//! ];
//! let text = Document::merge(&levels)?.render()?;
//! assert!(text.starts_with("#cloud-config\n") && text.contains("enabled") && text.contains("servers"));
//! # Ok::<(), vmetal_user_data::DocumentError>(())
//! ```

use serde_json::{Map, Value};

/// The line that makes a document a cloud-config (cloud-init, "User data formats").
pub const HEADER: &str = "#cloud-config";

/// The keys whose lists are added to. They must be lists at whatever level they are given.
const LISTS: [&str; 3] = ["runcmd", "write_files", "ssh_authorized_keys"];

/// Documents that cannot be merged. The messages name the level.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Another of cloud-init's formats.
    #[error(
        "user data of {level} does not start with \"#cloud-config\" but with {found:?}; scripts and archives cannot be \
         merged: write a cloud-config and put the commands under runcmd"
    )]
    NotCloudConfig {
        /// Where it comes from.
        level: String,
        /// Its first line, shortened.
        found: String,
    },
    /// Not YAML.
    #[error("user data of {level} is not valid YAML: {source}")]
    Yaml {
        /// Where it comes from.
        level: String,
        /// Line and column, and what was expected.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// YAML, but not what cloud-config wants there.
    #[error("user data of {level}: {key} must be {expected}")]
    WrongType {
        /// Where it comes from.
        level: String,
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The finished document could not be written.
    #[error("the merged user data could not be written")]
    Write(#[source] serde_json::Error),
}

/// A cloud-config.
#[derive(Clone, Default, PartialEq)]
pub struct Document(Map<String, Value>);

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Users' documents may hold passwords.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Document {
    /// Merges documents, the least specific first, each with the name of where it comes from. An empty one says nothing.
    ///
    /// # Errors
    /// [`DocumentError`] when one of them is no cloud-config.
    pub fn merge(levels: &[(String, String)]) -> Result<Self, DocumentError> {
        let mut document = Map::new();
        for (level, text) in levels {
            let layer = parse(level, text)?;
            check_lists(level, &layer)?;
            merge(&mut document, layer);
        }
        Ok(Document(document))
    }

    /// Adds to the end of a list.
    pub fn append(&mut self, key: &str, more: Vec<Value>) {
        self.surround(key, Vec::new(), more);
    }

    /// Adds to both ends of a list.
    pub fn surround(&mut self, key: &str, before: Vec<Value>, after: Vec<Value>) {
        let own = match self.0.remove(key) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let list: Vec<Value> = before.into_iter().chain(own).chain(after).collect();
        if !list.is_empty() {
            self.0.insert(key.to_owned(), Value::Array(list));
        }
    }

    /// The document as cloud-init reads it.
    ///
    /// # Errors
    /// [`DocumentError::Write`], which no input is known to cause.
    pub fn render(self) -> Result<String, DocumentError> {
        Ok(format!("{HEADER}\n{}", write(&Value::Object(self.0))?))
    }
}

/// Writes a value in a form that every YAML reader takes.
///
/// # Errors
/// [`DocumentError::Write`], which no input is known to cause.
pub fn write(value: &Value) -> Result<String, DocumentError> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(DocumentError::Write)
}

fn parse(level: &str, text: &str) -> Result<Map<String, Value>, DocumentError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let first = text.lines().next().unwrap_or_default().trim_end();
    if first != HEADER {
        return Err(DocumentError::NotCloudConfig { level: level.to_owned(), found: first.chars().take(40).collect() });
    }
    match serde_yaml_ng::from_str(text).map_err(|source| DocumentError::Yaml { level: level.to_owned(), source })? {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        _ => Err(DocumentError::WrongType { level: level.to_owned(), key: "the document", expected: "a mapping" }),
    }
}

fn check_lists(level: &str, layer: &Map<String, Value>) -> Result<(), DocumentError> {
    let wrong = |key: &&str| layer.get(*key).is_some_and(|value| !value.is_array() && !value.is_null());
    match LISTS.into_iter().find(wrong) {
        Some(key) => Err(DocumentError::WrongType { level: level.to_owned(), key, expected: "a list" }),
        None => Ok(()),
    }
}

fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
