//! Objects, events and the present time in; text out.

pub(crate) mod describe;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod rows;

use serde::Serialize;
use serde_json::Value;
use vmetal_api::AnyObject;

/// An object as JSON and YAML show it, and as `vmetal apply` reads it.
#[derive(Serialize)]
struct Document<'a> {
    kind: &'a str,
    metadata: &'a vmetal_model::Metadata,
    spec: &'a Value,
    status: &'a Value,
}

impl<'a> From<&'a AnyObject> for Document<'a> {
    fn from(object: &'a AnyObject) -> Self {
        Document { kind: object.kind.as_str(), metadata: &object.metadata, spec: &object.spec, status: &object.status }
    }
}

/// One object as indented JSON; a list of them as an array.
pub(crate) fn json(objects: &[AnyObject], one: One) -> Result<String, serde_json::Error> {
    let documents: Vec<Document<'_>> = objects.iter().map(Document::from).collect();
    let text = match (one, documents.as_slice()) {
        (One::Yes, [only]) => serde_json::to_string_pretty(only)?,
        (_, all) => serde_json::to_string_pretty(all)?,
    };
    Ok(text + "\n")
}

/// One object as one line of JSON.
pub(crate) fn json_line(object: &AnyObject) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(&Document::from(object))? + "\n")
}

/// Objects as YAML documents.
pub(crate) fn yaml(objects: &[AnyObject]) -> Result<String, serde_yaml_ng::Error> {
    let documents: Result<Vec<String>, _> =
        objects.iter().map(|object| serde_yaml_ng::to_string(&Document::from(object))).collect();
    Ok(documents?.join("---\n"))
}

/// Whether one object was asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum One {
    /// It was.
    Yes,
    /// All were.
    No,
}

#[cfg(test)]
pub(crate) mod samples;
