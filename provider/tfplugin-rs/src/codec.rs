//! Types, and values to and from the two encodings Terraform uses.
//!
//! Decoding is driven by the type the schema declares, never by what the bytes look like: the same msgpack string is a
//! string in one place and a wide number in another, and a JSON object is an object, a map or a typed dynamic value.
//! Everything read is checked; nothing here panics on hostile input.

mod json;
mod msgpack;

pub use json::{from_json, from_json_lenient};
pub use msgpack::{from_msgpack, to_msgpack};

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::{path::Path, value::Value, wire};

/// The type of a value, as Terraform's type system (cty) knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// A number of any size.
    Number,
    /// A boolean.
    Bool,
    /// Any type; the value says which.
    Dynamic,
    /// An ordered sequence of one type.
    List(Box<Type>),
    /// An unordered collection without duplicates.
    Set(Box<Type>),
    /// Text keys to values of one type.
    Map(Box<Type>),
    /// Named attributes, each with a type of its own.
    Object(BTreeMap<String, Type>),
    /// A sequence in which each position has a type of its own.
    Tuple(Vec<Type>),
}

/// Why bytes are not a value of the type the schema declares.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Not msgpack.
    #[error("the value is not valid msgpack")]
    Msgpack(#[source] rmpv::decode::Error),
    /// Not JSON.
    #[error("the value is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// Well-formed, but of another type.
    #[error("{at}: expected {expected}, found {found}")]
    Mismatch {
        /// Where; "the value" at the root.
        at: String,
        /// What the schema declares.
        expected: &'static str,
        /// What was there.
        found: String,
    },
    /// A type description nobody can read.
    #[error("the type description {0} is not one Terraform defines")]
    BadType(String),
    /// Bytes after the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

pub(crate) fn mismatch(at: &Path, expected: &'static str, found: impl Into<String>) -> CodecError {
    let at = if at.is_root() { "the value".to_owned() } else { at.to_string() };
    CodecError::Mismatch { at, expected, found: found.into() }
}

impl Type {
    /// A list of `element`.
    pub fn list(element: Type) -> Self {
        Self::List(Box::new(element))
    }

    /// A set of `element`.
    pub fn set(element: Type) -> Self {
        Self::Set(Box::new(element))
    }

    /// A map to `element`.
    pub fn map(element: Type) -> Self {
        Self::Map(Box::new(element))
    }

    /// An object.
    pub fn object<K: Into<String>>(attributes: impl IntoIterator<Item = (K, Type)>) -> Self {
        Self::Object(attributes.into_iter().map(|(k, t)| (k.into(), t)).collect())
    }

    /// The description Terraform uses, as JSON: `"string"`, `["list","bool"]`, `["object",{...}]`.
    pub fn to_json(&self) -> Json {
        match self {
            Self::String => Json::from("string"),
            Self::Number => Json::from("number"),
            Self::Bool => Json::from("bool"),
            Self::Dynamic => Json::from("dynamic"),
            Self::List(element) => Json::from(vec![Json::from("list"), element.to_json()]),
            Self::Set(element) => Json::from(vec![Json::from("set"), element.to_json()]),
            Self::Map(element) => Json::from(vec![Json::from("map"), element.to_json()]),
            Self::Object(attributes) => {
                let object = attributes.iter().map(|(name, ty)| (name.clone(), ty.to_json())).collect();
                Json::from(vec![Json::from("object"), Json::Object(object)])
            }
            Self::Tuple(types) => {
                Json::from(vec![Json::from("tuple"), types.iter().map(Self::to_json).collect::<Vec<_>>().into()])
            }
        }
    }

    /// The description as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_json().to_string().into_bytes()
    }

    /// Reads a description.
    ///
    /// # Errors
    /// [`CodecError::BadType`] if it is not one.
    pub fn from_json(json: &Json) -> Result<Self, CodecError> {
        let bad = || CodecError::BadType(json.to_string());
        match json {
            Json::String(name) => match name.as_str() {
                "string" => Ok(Self::String),
                "number" => Ok(Self::Number),
                "bool" => Ok(Self::Bool),
                "dynamic" => Ok(Self::Dynamic),
                _ => Err(bad()),
            },
            Json::Array(parts) => match parts.as_slice() {
                // A third part lists optional attributes; those exist in type constraints only, never in values.
                [Json::String(kind), Json::Object(attributes), ..] if kind == "object" => attributes
                    .iter()
                    .map(|(name, ty)| Ok((name.clone(), Self::from_json(ty)?)))
                    .collect::<Result<_, _>>()
                    .map(Self::Object),
                [Json::String(kind), Json::Array(types)] if kind == "tuple" => {
                    types.iter().map(Self::from_json).collect::<Result<_, _>>().map(Self::Tuple)
                }
                [Json::String(kind), element] => {
                    let element = Box::new(Self::from_json(element)?);
                    match kind.as_str() {
                        "list" => Ok(Self::List(element)),
                        "set" => Ok(Self::Set(element)),
                        "map" => Ok(Self::Map(element)),
                        _ => Err(bad()),
                    }
                }
                _ => Err(bad()),
            },
            _ => Err(bad()),
        }
    }
}

/// Reads a value in whichever encoding it came in; an absent value is null.
///
/// # Errors
/// [`CodecError`] if the bytes are not a value of type `ty`.
pub fn from_wire(value: Option<&wire::DynamicValue>, ty: &Type) -> Result<Value, CodecError> {
    match value {
        None => Ok(Value::Null),
        Some(value) if !value.msgpack.is_empty() => from_msgpack(&value.msgpack, ty),
        Some(value) if !value.json.is_empty() => {
            from_json(&serde_json::from_slice(&value.json).map_err(CodecError::Json)?, ty)
        }
        Some(_) => Ok(Value::Null),
    }
}

/// Writes a value the way it travels: msgpack, with every attribute of an object present.
pub fn to_wire(value: &Value, ty: &Type) -> wire::DynamicValue {
    wire::DynamicValue { msgpack: to_msgpack(value, ty), json: Vec::new() }
}

#[cfg(test)]
mod tests;
