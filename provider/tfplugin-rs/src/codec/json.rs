//! The JSON encoding: stored states, and configurations from hosts that do not send msgpack.
//!
//! JSON cannot hold unknown values. Numbers beyond 64 bits arrive through `serde_json` as binary64, the precision every
//! JSON tool of Terraform's ecosystem has; msgpack, which carries everything but stored state, keeps them exact.

use serde_json::Value as Json;

use super::{CodecError, Type, mismatch};
use crate::{
    path::Path,
    value::{Map, Number, Value},
};

/// Reads a value of type `ty`; attributes the type does not have are an error.
///
/// # Errors
/// [`CodecError::Mismatch`] if the JSON is of another type.
pub fn from_json(json: &Json, ty: &Type) -> Result<Value, CodecError> {
    decode(json, ty, &Path::root(), Extra::Refuse)
}

/// Like [`from_json`], but drops attributes the type does not have: the way to read a state an older schema wrote.
///
/// # Errors
/// [`CodecError::Mismatch`] if the JSON is of another type.
pub fn from_json_lenient(json: &Json, ty: &Type) -> Result<Value, CodecError> {
    decode(json, ty, &Path::root(), Extra::Drop)
}

#[derive(Clone, Copy, PartialEq)]
enum Extra {
    Refuse,
    Drop,
}

fn decode(json: &Json, ty: &Type, at: &Path, extra: Extra) -> Result<Value, CodecError> {
    if json.is_null() {
        return Ok(Value::Null);
    }
    match (ty, json) {
        (Type::String, Json::String(text)) => Ok(Value::String(text.clone())),
        (Type::Bool, Json::Bool(flag)) => Ok(Value::Bool(*flag)),
        (Type::Number, Json::Number(number)) => {
            let parsed = number
                .as_i64()
                .map(Number::Int)
                .or_else(|| number.as_u64().map(Number::from_u64))
                .or_else(|| number.as_f64().map(Number::from_f64));
            parsed.map(Value::Number).ok_or_else(|| mismatch(at, "a number", number.to_string()))
        }
        (Type::Number, Json::String(text)) => {
            Number::parse(text).map(Value::Number).ok_or_else(|| mismatch(at, "a number", format!("{text:?}")))
        }
        (Type::List(element) | Type::Set(element), Json::Array(items)) => {
            let items = items.iter().enumerate().map(|(i, item)| decode(item, element, &at.index(i), extra));
            items.collect::<Result<_, _>>().map(Value::List)
        }
        (Type::Tuple(types), Json::Array(items)) if items.len() == types.len() => {
            let items =
                items.iter().zip(types).enumerate().map(|(i, (item, ty))| decode(item, ty, &at.index(i), extra));
            items.collect::<Result<_, _>>().map(Value::List)
        }
        (Type::Map(element), Json::Object(entries)) => {
            let entries = entries.iter().map(|(k, value)| Ok((k.clone(), decode(value, element, &at.key(k), extra)?)));
            entries.collect::<Result<_, _>>().map(Value::Map)
        }
        (Type::Object(attributes), Json::Object(entries)) => {
            let mut map: Map = attributes.keys().map(|name| (name.clone(), Value::Null)).collect();
            for (name, value) in entries {
                match attributes.get(name) {
                    Some(ty) => {
                        map.insert(name.clone(), decode(value, ty, &at.attribute(name), extra)?);
                    }
                    None if extra == Extra::Drop => {}
                    None => {
                        return Err(mismatch(at, "only attributes of the schema", format!("attribute {name:?}")));
                    }
                }
            }
            Ok(Value::Map(map))
        }
        // In JSON an open place is {"value": ..., "type": ...}, unlike the pair msgpack has.
        (Type::Dynamic, Json::Object(entries)) => match (entries.get("type"), entries.get("value")) {
            (Some(ty), Some(value)) => {
                match Type::from_json(ty)? {
                    // A value said to be of any type says no more than it did.
                    Type::Dynamic => decode(value, &Type::Dynamic, at, extra),
                    ty => Ok(Value::Dynamic(Box::new((ty.clone(), decode(value, &ty, at, extra)?)))),
                }
            }
            _ => Err(mismatch(at, "a type and a value", "another object")),
        },
        (ty, json) => Err(mismatch(at, expected(ty), kind(json))),
    }
}

fn expected(ty: &Type) -> &'static str {
    match ty {
        Type::String => "a string",
        Type::Number => "a number",
        Type::Bool => "a bool",
        Type::Dynamic => "a type and a value",
        Type::List(_) => "a list",
        Type::Set(_) => "a set",
        Type::Map(_) => "a map",
        Type::Object(_) => "an object",
        Type::Tuple(_) => "a tuple of the declared length",
    }
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a bool",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}
