//! What must hold of the codec for any bytes at all. The fuzz target and the crate's tests share it.
//!
//! An input is the description of a type, a zero byte, and a value in msgpack or JSON.

use serde_json::Value as Json;
use tfplugin::{Type, Value, codec};

/// Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (description, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(description) = serde_json::from_slice::<Json>(description) else { return };
    let Ok(ty) = Type::from_json(&description) else { return };
    let again = serde_json::from_slice(&ty.to_bytes()).ok().and_then(|json| Type::from_json(&json).ok());
    assert_eq!(again.as_ref(), Some(&ty), "a type survives being written down");
    if let Ok(value) = codec::from_msgpack(value, &ty) {
        survives(&value, &ty);
    }
    if let Ok(json) = serde_json::from_slice::<Json>(value) {
        let lenient = codec::from_json_lenient(&json, &ty).ok();
        if let Ok(value) = codec::from_json(&json, &ty) {
            assert_eq!(lenient.as_ref(), Some(&value), "leniency changes nothing that is right already");
        }
        if let Some(value) = lenient {
            survives(&value, &ty);
        }
    }
}

/// What was read can be written, and is then read as the same; writing it again gives the same bytes.
fn survives(value: &Value, ty: &Type) {
    let bytes = codec::to_msgpack(value, ty);
    match codec::from_msgpack(&bytes, ty) {
        Ok(again) => {
            assert_eq!(&again, value, "a value survives the way to msgpack and back");
            assert_eq!(codec::to_msgpack(&again, ty), bytes, "one value has one form");
        }
        Err(error) => panic!("{value:?} as {ty:?} was written as something else: {error}"),
    }
    assert!(value.equivalent(value, ty), "a value is what it is");
}
