//! The msgpack encoding, including unknown values (extension 0) and refined unknowns (extension 12).

use rmpv::Value as Pack;

use super::{CodecError, Type, mismatch};
use crate::{
    path::Path,
    value::{Map, Number, Refinements, Value},
};

const EXT_UNKNOWN: i8 = 0;
const EXT_REFINED: i8 = 12;

/// How deep a value may be nested. No configuration comes near it, and reading it stays well within a thread's stack.
const DEEPEST: usize = 256;

const REFINE_NULL: u64 = 1;
const REFINE_PREFIX: u64 = 2;
const REFINE_LOWER: u64 = 3;
const REFINE_UPPER: u64 = 4;
const REFINE_MIN_LENGTH: u64 = 5;
const REFINE_MAX_LENGTH: u64 = 6;

/// Reads a value of type `ty`.
///
/// # Errors
/// [`CodecError`] if the bytes are not msgpack, not of that type, or longer than the value.
pub fn from_msgpack(bytes: &[u8], ty: &Type) -> Result<Value, CodecError> {
    let mut rest = bytes;
    let pack = rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST).map_err(CodecError::Msgpack)?;
    if !rest.is_empty() {
        return Err(CodecError::Trailing(rest.len()));
    }
    decode(&pack, ty, &Path::root())
}

fn decode(pack: &Pack, ty: &Type, at: &Path) -> Result<Value, CodecError> {
    match pack {
        Pack::Nil => return Ok(Value::Null),
        Pack::Ext(code, payload) => return decode_unknown(*code, payload),
        _ => {}
    }
    match ty {
        Type::String => {
            let text = pack.as_str().ok_or_else(|| mismatch(at, "a string", kind(pack)))?;
            Ok(Value::String(text.to_owned()))
        }
        Type::Bool => pack.as_bool().map(Value::Bool).ok_or_else(|| mismatch(at, "a bool", kind(pack))),
        Type::Number => decode_number(pack).map(Value::Number).ok_or_else(|| mismatch(at, "a number", kind(pack))),
        Type::List(element) | Type::Set(element) => {
            let items = pack.as_array().ok_or_else(|| mismatch(at, "a list", kind(pack)))?;
            let items = items.iter().enumerate().map(|(i, item)| decode(item, element, &at.index(i)));
            items.collect::<Result<_, _>>().map(Value::List)
        }
        Type::Tuple(types) => {
            let items = pack.as_array().ok_or_else(|| mismatch(at, "a tuple", kind(pack)))?;
            if items.len() != types.len() {
                return Err(mismatch(at, "a tuple of the declared length", format!("{} elements", items.len())));
            }
            let items = items.iter().zip(types).enumerate().map(|(i, (item, ty))| decode(item, ty, &at.index(i)));
            items.collect::<Result<_, _>>().map(Value::List)
        }
        Type::Map(element) => {
            let mut map = Map::new();
            for (key, value) in pack.as_map().ok_or_else(|| mismatch(at, "a map", kind(pack)))? {
                let key = key.as_str().ok_or_else(|| mismatch(at, "a string key", kind(key)))?;
                map.insert(key.to_owned(), decode(value, element, &at.key(key))?);
            }
            Ok(Value::Map(map))
        }
        Type::Object(attributes) => {
            let mut map: Map = attributes.keys().map(|name| (name.clone(), Value::Null)).collect();
            for (key, value) in pack.as_map().ok_or_else(|| mismatch(at, "an object", kind(pack)))? {
                let key = key.as_str().ok_or_else(|| mismatch(at, "an attribute name", kind(key)))?;
                let ty = attributes
                    .get(key)
                    .ok_or_else(|| mismatch(at, "only attributes of the schema", format!("attribute {key:?}")))?;
                map.insert(key.to_owned(), decode(value, ty, &at.attribute(key))?);
            }
            Ok(Value::Map(map))
        }
        Type::Dynamic => match pack.as_array().map(Vec::as_slice) {
            Some([Pack::Binary(ty), value]) => {
                match Type::from_json(&serde_json::from_slice(ty).map_err(CodecError::Json)?)? {
                    // A value said to be of any type says no more than it did.
                    Type::Dynamic => decode(value, &Type::Dynamic, at),
                    ty => Ok(Value::Dynamic(Box::new((ty.clone(), decode(value, &ty, at)?)))),
                }
            }
            _ => Err(mismatch(at, "a type and a value", kind(pack))),
        },
    }
}

fn decode_number(pack: &Pack) -> Option<Number> {
    match pack {
        Pack::Integer(int) => int.as_i64().map(Number::Int).or_else(|| int.as_u64().map(Number::from_u64)),
        // Terraform has infinities, but nothing that is not a number.
        Pack::F32(float) => Some(f64::from(*float)).filter(|float| !float.is_nan()).map(Number::from_f64),
        Pack::F64(float) => Some(*float).filter(|float| !float.is_nan()).map(Number::from_f64),
        Pack::String(text) => text.as_str().and_then(Number::parse),
        _ => None,
    }
}

/// Any extension is an unknown value; only code 12 carries refinements, and what cannot be read is no promise.
fn decode_unknown(code: i8, payload: &[u8]) -> Result<Value, CodecError> {
    let mut refinements = Refinements::default();
    if code == EXT_REFINED {
        let mut rest = payload;
        let pack = rmpv::decode::read_value_with_max_depth(&mut rest, DEEPEST).map_err(CodecError::Msgpack)?;
        for (key, value) in pack.as_map().map(Vec::as_slice).unwrap_or_default() {
            match key.as_u64() {
                Some(REFINE_NULL) => refinements.null = value.as_bool(),
                Some(REFINE_PREFIX) => refinements.prefix = value.as_str().map(str::to_owned),
                Some(REFINE_LOWER) => refinements.lower = decode_bound(value),
                Some(REFINE_UPPER) => refinements.upper = decode_bound(value),
                Some(REFINE_MIN_LENGTH) => refinements.min_length = value.as_u64(),
                Some(REFINE_MAX_LENGTH) => refinements.max_length = value.as_u64(),
                _ => {}
            }
        }
    }
    Ok(Value::Unknown(refinements))
}

fn decode_bound(pack: &Pack) -> Option<(Number, bool)> {
    match pack.as_array().map(Vec::as_slice) {
        Some([number, inclusive]) => Some((decode_number(number)?, inclusive.as_bool()?)),
        _ => None,
    }
}

/// Writes a value of type `ty`. Attributes of the schema that the value lacks are written as null; what the schema lacks
/// is left out.
pub fn to_msgpack(value: &Value, ty: &Type) -> Vec<u8> {
    write(&encode(value, ty))
}

fn write(pack: &Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail; an empty answer would be read as "no value" by the peer.
    let written = rmpv::encode::write_value(&mut bytes, pack);
    debug_assert!(written.is_ok(), "writing msgpack to memory");
    bytes
}

fn encode(value: &Value, ty: &Type) -> Pack {
    match (value, ty) {
        (Value::Null, _) => Pack::Nil,
        (Value::Unknown(refinements), _) => encode_unknown(refinements),
        (Value::Dynamic(inner), Type::Dynamic) => {
            if inner.1.is_null() && inner.0 == Type::Dynamic {
                return Pack::Nil;
            }
            Pack::Array(vec![Pack::Binary(inner.0.to_bytes()), encode(&inner.1, &inner.0)])
        }
        // A value without a type in an open place: give it the type it plainly has.
        (value, Type::Dynamic) => {
            let ty = implied_type(value);
            Pack::Array(vec![Pack::Binary(ty.to_bytes()), encode(value, &ty)])
        }
        (Value::Dynamic(inner), ty) => encode(&inner.1, ty),
        (Value::Bool(flag), _) => Pack::Boolean(*flag),
        (Value::Number(number), _) => encode_number(number),
        (Value::String(text), _) => Pack::from(text.as_str()),
        (Value::List(items), Type::Tuple(types)) => {
            Pack::Array(items.iter().zip(types).map(|(item, ty)| encode(item, ty)).collect())
        }
        (Value::List(items), Type::List(element) | Type::Set(element)) => {
            Pack::Array(items.iter().map(|item| encode(item, element)).collect())
        }
        (Value::Map(map), Type::Map(element)) => {
            Pack::Map(map.iter().map(|(key, value)| (Pack::from(key.as_str()), encode(value, element))).collect())
        }
        (Value::Map(_), Type::Object(attributes)) => Pack::Map(
            attributes.iter().map(|(name, ty)| (Pack::from(name.as_str()), encode(value.attr(name), ty))).collect(),
        ),
        // A value of another shape than its type is a bug in the provider; write it as it is, so that the peer names
        // the attribute instead of silently losing it.
        (value, _) => encode(value, &implied_type(value)),
    }
}

fn implied_type(value: &Value) -> Type {
    match value {
        Value::Null | Value::Unknown(_) => Type::Dynamic,
        Value::Bool(_) => Type::Bool,
        Value::Number(_) => Type::Number,
        Value::String(_) => Type::String,
        Value::List(items) => Type::Tuple(items.iter().map(implied_type).collect()),
        Value::Map(map) => Type::Object(map.iter().map(|(k, v)| (k.clone(), implied_type(v))).collect()),
        Value::Dynamic(inner) => inner.0.clone(),
    }
}

fn encode_number(number: &Number) -> Pack {
    match number {
        Number::Int(int) => Pack::from(*int),
        Number::UInt(int) => Pack::from(*int),
        Number::Float(float) => Pack::F64(*float),
        Number::Decimal(text) => Pack::from(text.as_str()),
    }
}

fn encode_unknown(refinements: &Refinements) -> Pack {
    let mut map = Vec::new();
    let mut put = |key: u64, value: Option<Pack>| {
        if let Some(value) = value {
            map.push((Pack::from(key), value));
        }
    };
    let bound = |bound: &Option<(Number, bool)>| {
        bound.as_ref().map(|(n, inclusive)| vec![encode_number(n), (*inclusive).into()])
    };
    put(REFINE_NULL, refinements.null.map(Pack::from));
    put(REFINE_PREFIX, refinements.prefix.as_deref().map(Pack::from));
    put(REFINE_LOWER, bound(&refinements.lower).map(Pack::Array));
    put(REFINE_UPPER, bound(&refinements.upper).map(Pack::Array));
    put(REFINE_MIN_LENGTH, refinements.min_length.map(Pack::from));
    put(REFINE_MAX_LENGTH, refinements.max_length.map(Pack::from));
    if map.is_empty() { Pack::Ext(EXT_UNKNOWN, vec![0]) } else { Pack::Ext(EXT_REFINED, write(&Pack::Map(map))) }
}

fn kind(pack: &Pack) -> &'static str {
    match pack {
        Pack::Nil => "null",
        Pack::Boolean(_) => "a bool",
        Pack::Integer(_) | Pack::F32(_) | Pack::F64(_) => "a number",
        Pack::String(_) => "a string",
        Pack::Binary(_) => "bytes",
        Pack::Array(_) => "a list",
        Pack::Map(_) => "a map",
        Pack::Ext(..) => "an unknown value",
    }
}
