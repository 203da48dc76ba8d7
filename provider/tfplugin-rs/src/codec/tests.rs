#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};
use serde_json::json;

use super::*;
use crate::value::{Number, Refinements};

fn any_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![Just(Type::String), Just(Type::Number), Just(Type::Bool), Just(Type::Dynamic)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(Type::list),
            inner.clone().prop_map(Type::set),
            inner.clone().prop_map(Type::map),
            vec(inner.clone(), 0..4).prop_map(Type::Tuple),
            btree_map("[a-z]{1,4}", inner, 0..4).prop_map(Type::Object),
        ]
    })
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::Int),
        any::<u64>().prop_map(Number::from_u64),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Number::from_f64),
        "-?[1-9][0-9]{20,60}".prop_map(|text| Number::parse(&text).unwrap()),
        "-?[0-9]{1,30}\\.[0-9]{18,30}".prop_map(|text| Number::parse(&text).unwrap()),
    ]
}

fn any_refinements() -> impl Strategy<Value = Refinements> {
    (
        proptest::option::of(any::<bool>()),
        proptest::option::of("[a-z]{1,8}"),
        proptest::option::of((any_number(), any::<bool>())),
        proptest::option::of((any_number(), any::<bool>())),
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<u64>()),
    )
        .prop_map(|(null, prefix, lower, upper, min_length, max_length)| Refinements {
            null,
            prefix,
            lower,
            upper,
            min_length,
            max_length,
        })
}

fn known_of(ty: &Type, unknowns: bool) -> BoxedStrategy<Value> {
    match ty {
        Type::String => ".{0,12}".prop_map(Value::String).boxed(),
        Type::Number => any_number().prop_map(Value::Number).boxed(),
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::List(element) | Type::Set(element) => {
            vec(value_of(element, unknowns), 0..4).prop_map(Value::List).boxed()
        }
        Type::Map(element) => btree_map(".{0,4}", value_of(element, unknowns), 0..4).prop_map(Value::Map).boxed(),
        Type::Tuple(types) => {
            types.iter().map(|ty| value_of(ty, unknowns)).collect::<Vec<_>>().prop_map(Value::List).boxed()
        }
        Type::Object(attributes) => {
            let names: Vec<_> = attributes.keys().cloned().collect();
            let values: Vec<_> = attributes.values().map(|ty| value_of(ty, unknowns)).collect();
            values.prop_map(move |values| Value::Map(names.iter().cloned().zip(values).collect())).boxed()
        }
        Type::Dynamic => prop_oneof![Just(Type::String), Just(Type::Number), Just(Type::list(Type::Bool))]
            .prop_flat_map(move |ty| {
                known_of(&ty, unknowns).prop_map(move |value| Value::Dynamic(Box::new((ty.clone(), value))))
            })
            .boxed(),
    }
}

fn value_of(ty: &Type, unknowns: bool) -> BoxedStrategy<Value> {
    let known = known_of(ty, unknowns);
    if unknowns {
        prop_oneof![6 => known, 1 => Just(Value::Null), 1 => any_refinements().prop_map(Value::Unknown)].boxed()
    } else {
        prop_oneof![6 => known, 1 => Just(Value::Null)].boxed()
    }
}

fn typed_value() -> impl Strategy<Value = (Type, Value)> {
    any_type().prop_flat_map(|ty| {
        let value = value_of(&ty, true);
        (Just(ty), value)
    })
}

proptest! {
    #[test]
    fn msgpack_round_trips((ty, value) in typed_value()) {
        let bytes = to_msgpack(&value, &ty);
        prop_assert_eq!(from_msgpack(&bytes, &ty).unwrap(), value);
    }

    #[test]
    fn types_round_trip(ty in any_type()) {
        let json: Json = serde_json::from_slice(&ty.to_bytes()).unwrap();
        prop_assert_eq!(Type::from_json(&json).unwrap(), ty);
    }

    #[test]
    fn hostile_bytes_are_refused_not_fatal(ty in any_type(), bytes in vec(any::<u8>(), 0..64)) {
        let _ = from_msgpack(&bytes, &ty);
        if let Ok(json) = serde_json::from_slice::<Json>(&bytes) {
            let _ = from_json(&json, &ty);
        }
    }

    #[test]
    fn truncated_values_are_refused((ty, value) in typed_value(), cut in 1usize..8) {
        let bytes = to_msgpack(&value, &ty);
        prop_assume!(bytes.len() > cut);
        prop_assert!(from_msgpack(&bytes[..bytes.len() - cut], &ty).is_err());
    }
}

#[test]
fn the_bytes_terraform_sends() {
    // What a core sends for an unknown value, and a refined one: not null, prefix "ab".
    assert_eq!(from_msgpack(&[0xd4, 0, 0], &Type::String).unwrap(), Value::unknown());
    let refined = [0xc7, 7, 12, 0x82, 1, 0xc2, 2, 0xa2, b'a', b'b'];
    let expected = Refinements { null: Some(false), prefix: Some("ab".into()), ..Refinements::default() };
    assert_eq!(from_msgpack(&refined, &Type::String).unwrap(), Value::Unknown(expected.clone()));
    assert_eq!(to_msgpack(&Value::Unknown(expected), &Type::String), refined);
    assert_eq!(to_msgpack(&Value::unknown(), &Type::Bool), [0xd4, 0, 0]);
    // Another extension is an unknown value about which nothing is promised.
    assert_eq!(from_msgpack(&[0xd4, 99, 7], &Type::Number).unwrap(), Value::unknown());
}

#[test]
fn an_object_is_written_whole() {
    let ty = Type::object([("a", Type::String), ("b", Type::Number)]);
    let bytes = to_msgpack(&Value::object([("b", 1i64), ("gone", 2i64)]), &ty);
    assert_eq!(bytes, [0x82, 0xa1, b'a', 0xc0, 0xa1, b'b', 1]);
}

#[test]
fn dynamic_differs_between_the_encodings() {
    let from_state = from_json(&json!({"type": ["list", "string"], "value": ["x"]}), &Type::Dynamic).unwrap();
    let bytes = to_msgpack(&from_state, &Type::Dynamic);
    let mut expected = vec![0x92, 0xc4, 17];
    expected.extend(br#"["list","string"]"#);
    expected.extend([0x91, 0xa1, b'x']);
    assert_eq!(bytes, expected);
}

#[test]
fn old_states_lose_only_what_the_schema_lost() {
    let ty = Type::object([("kept", Type::String), ("new", Type::Bool)]);
    let json = json!({"kept": "x", "gone": [1, 2]});
    assert_eq!(
        from_json_lenient(&json, &ty).unwrap(),
        Value::object([("kept", Value::from("x")), ("new", Value::Null)])
    );
    assert!(from_json(&json, &ty).is_err());
}

#[test]
fn errors_name_the_place() {
    let ty = Type::object([("disks", Type::list(Type::object([("size", Type::Number)])))]);
    let error = from_json(&json!({"disks": [{"size": true}]}), &ty).unwrap_err();
    assert_eq!(error.to_string(), "disks[0].size: expected a number, found a bool");
    assert!(matches!(from_msgpack(&[1, 2], &Type::Number), Err(CodecError::Trailing(1))));
}
