//! Files for `vmetal apply`: YAML (and so JSON) documents of one object each.
//!
//! ```yaml
//! kind: host
//! metadata:
//!   name: rack1-07
//!   labels: { rack: "1" }
//! spec:
//!   bmc: { address: "redfish://10.0.0.7", username: admin }
//!   boot_mac: 52:54:00:12:34:56
//! secrets:
//!   bmc.password: { env: BMC_PASSWORD }   # or { file: /run/secrets/bmc }, or the value itself
//! ```
//!
//! What `vmetal get -o yaml` shows can be applied again: `status` and what the engine sets in `metadata` are ignored.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use vmetal_api::{Apply, Secret};
use vmetal_model::Kind;

use crate::error::CliError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: String,
    metadata: DocumentMetadata,
    spec: serde_json::Value,
    #[serde(default)]
    secrets: BTreeMap<String, SecretSource>,
    #[serde(default, rename = "status")]
    _status: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct DocumentMetadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", untagged)]
enum SecretSource {
    Value(String),
    Env { env: String },
    File { file: std::path::PathBuf },
}

/// Reads all documents of a text; `path` is for messages. `env` looks up environment variables.
pub(crate) fn read(path: &Path, text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Vec<Apply>, CliError> {
    let mut applies = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let wrong = |reason: String| CliError::Manifest { path: path.to_owned(), document: index + 1, reason };
        let Some(document) = Option::<Document>::deserialize(document).map_err(|e| wrong(e.to_string()))? else {
            continue;
        };
        let kind: Kind = document.kind.parse().map_err(|e: vmetal_model::meta::UnknownKind| wrong(e.to_string()))?;
        let mut apply = Apply::from_json(kind, document.metadata.name, document.spec);
        apply.labels = document.metadata.labels;
        apply.annotations = document.metadata.annotations;
        for (field, source) in document.secrets {
            let value = match source {
                SecretSource::Value(value) => value,
                SecretSource::Env { env: name } => {
                    env(&name).ok_or_else(|| wrong(format!("secret {field}: the variable {name} is not set")))?
                }
                SecretSource::File { file } => {
                    let text = std::fs::read_to_string(&file);
                    let text =
                        text.map_err(|e| wrong(format!("secret {field}: cannot read {}: {e}", file.display())))?;
                    // Editors end files with a newline that is not part of a password.
                    text.strip_suffix('\n').map_or_else(|| text.clone(), str::to_owned)
                }
            };
            apply.secrets.insert(field, Secret::new(value));
        }
        applies.push(apply);
    }
    if applies.is_empty() {
        return Err(CliError::Manifest {
            path: path.to_owned(),
            document: 1,
            reason: "there is no object in it".into(),
        });
    }
    Ok(applies)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parse(text: &str) -> Result<Vec<Apply>, CliError> {
        read(Path::new("f.yaml"), text, |name| (name == "PASSWORD").then(|| "hunter2".to_owned()))
    }

    #[test]
    fn several_documents_with_secrets_from_elsewhere() {
        let text = "kind: hosts\nmetadata: {name: a, labels: {rack: '1'}, uid: ignored}\nspec: {boot_mac: x}\n\
                    secrets: {bmc.password: {env: PASSWORD}}\nstatus: {phase: available}\n---\n\
                    kind: image\nmetadata: {name: b}\nspec: {source: /x}\nsecrets: {x: plain}\n---\n";
        let applies = parse(text).unwrap();
        assert_eq!(applies.len(), 2);
        assert_eq!((applies[0].kind, applies[0].name.as_str()), (Kind::Host, "a"));
        assert_eq!(applies[0].secrets["bmc.password"].expose(), "hunter2");
        assert_eq!(applies[0].labels["rack"], "1");
        assert_eq!(applies[1].secrets["x"].expose(), "plain");
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_document() {
        for (text, words) in [
            ("kind: machine\nmetadata: {name: a}\nspec: {}\n", "expected host"),
            ("kind: host\nspec: {}\n", "metadata"),
            ("kind: host\nmetadata: {name: a}\nspec: {}\nspeck: {}\n", "speck"),
            ("kind: host\nmetadata: {name: a}\nspec: {}\nsecrets: {x: {env: NOPE}}\n", "NOPE is not set"),
            ("kind: host\nmetadata: {name: a}\nspec: {}\nsecrets: {x: {file: /does/not/exist}}\n", "/does/not/exist"),
            ("", "no object"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().starts_with("f.yaml, document 1: "), "{error}");
            assert!(error.to_string().contains(words), "{error} lacks {words}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
