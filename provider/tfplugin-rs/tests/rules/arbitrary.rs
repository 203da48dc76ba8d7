//! Random schemas, and random configurations and states that fit them.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};
use tfplugin::{
    Attribute, Schema, Type, Value,
    schema::{Nesting, Usage},
};

/// Attributes by name.
pub(crate) type Specs = BTreeMap<String, Spec>;

/// One attribute: what the schema is made from, and what the rules are checked against.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) usage: Usage,
    pub(crate) shape: Shape,
    pub(crate) write_only: bool,
    default: Option<Value>,
    replace: bool,
    keep: bool,
    loose: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Plain(Type),
    Nested(Nesting, Specs),
}

impl Spec {
    pub(crate) fn is_computed(&self) -> bool {
        matches!(self.usage, Usage::Computed | Usage::OptionalComputed)
    }

    pub(crate) fn is_optional(&self) -> bool {
        matches!(self.usage, Usage::Optional | Usage::OptionalComputed)
    }

    fn attribute(&self) -> Attribute {
        let mut attribute = match &self.shape {
            Shape::Plain(ty) => match self.usage {
                Usage::Required => Attribute::required(ty.clone()),
                Usage::Optional => Attribute::optional(ty.clone()),
                Usage::Computed => Attribute::computed(ty.clone()),
                // A default is what makes an optional attribute computed as well.
                Usage::OptionalComputed if self.default.is_some() => Attribute::optional(ty.clone()),
                Usage::OptionalComputed => Attribute::optional_computed(ty.clone()),
            },
            Shape::Nested(nesting, specs) => Attribute::nested(*nesting, self.usage, attributes(specs)),
        };
        attribute = attribute.describe("random");
        if let Some(default) = &self.default {
            attribute = attribute.default(default.clone());
        }
        if self.write_only {
            attribute = attribute.write_only();
        }
        if self.replace {
            attribute = attribute.requires_replace();
        }
        if self.keep {
            attribute = attribute.use_state_for_unknown();
        }
        if self.loose {
            attribute = attribute.semantic_equality(same_letters);
        }
        attribute
    }

    /// The type of its values.
    pub(crate) fn ty(&self) -> Type {
        match &self.shape {
            Shape::Plain(ty) => ty.clone(),
            Shape::Nested(nesting, specs) => match nesting {
                Nesting::Single => object(specs),
                Nesting::List => Type::list(object(specs)),
                Nesting::Set => Type::set(object(specs)),
                Nesting::Map => Type::map(object(specs)),
            },
        }
    }
}

/// The type of an object with these attributes.
pub(crate) fn object(specs: &Specs) -> Type {
    Type::object(specs.iter().map(|(name, spec)| (name.clone(), spec.ty())))
}

fn attributes(specs: &Specs) -> Vec<(String, Attribute)> {
    specs.iter().map(|(name, spec)| (name.clone(), spec.attribute())).collect()
}

/// The schema of a resource with these attributes.
pub(crate) fn schema(specs: &Specs) -> Schema {
    Schema::new("random", attributes(specs))
}

/// Upper and lower case mean the same.
fn same_letters(a: &Value, b: &Value) -> bool {
    matches!((a.as_str(), b.as_str()), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
}

/// Where an attribute stands, which decides what makes sense there.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    who: Who,
    /// Below a set, whose elements are told apart by their values.
    in_set: bool,
}

/// Who may set what stands there.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// The user or the provider, or both.
    Anybody,
    /// Perhaps the user, else the provider.
    ProviderToo,
    /// The provider alone.
    Provider,
}

fn plain_type() -> impl Strategy<Value = Type> {
    let leaf =
        prop_oneof![4 => Just(Type::String), 2 => Just(Type::Number), 1 => Just(Type::Bool), 1 => Just(Type::Dynamic)];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(Type::list),
            // A set whose elements may have any type is no type that Terraform has.
            inner.clone().prop_filter("no open type in a set", |ty| !open(ty)).prop_map(Type::set),
            inner.clone().prop_filter("no open type in a map", |ty| !open(ty)).prop_map(Type::map),
            vec(inner.clone(), 1..3).prop_map(Type::Tuple),
            vec(inner, 1..3).prop_map(|types| Type::object(named("f", types))),
        ]
    })
}

fn open(ty: &Type) -> bool {
    match ty {
        Type::Dynamic => true,
        Type::List(element) | Type::Set(element) | Type::Map(element) => open(element),
        Type::Tuple(types) => types.iter().any(open),
        Type::Object(types) => types.values().any(open),
        _ => false,
    }
}

/// Gives each a name: `xa`, `xb`, ...
fn named<T>(prefix: &str, items: Vec<T>) -> impl Iterator<Item = (String, T)> {
    ('a'..).zip(items).map(move |(letter, item)| (format!("{prefix}{letter}"), item)).collect::<Vec<_>>().into_iter()
}

/// Attributes of a resource.
pub(crate) fn any_specs() -> impl Strategy<Value = Specs> {
    specs(Place { who: Who::Anybody, in_set: false }, 2)
}

fn specs(place: Place, depth: u32) -> BoxedStrategy<Specs> {
    vec(spec(place, depth), 1..5).prop_map(|all| named("x", all).collect()).boxed()
}

fn spec(place: Place, depth: u32) -> BoxedStrategy<Spec> {
    let usage = match place.who {
        Who::Provider => vec![Usage::Computed],
        Who::ProviderToo => vec![Usage::Computed, Usage::OptionalComputed],
        Who::Anybody => vec![Usage::Required, Usage::Optional, Usage::Computed, Usage::OptionalComputed],
    };
    let flags = any::<[bool; 5]>();
    (proptest::sample::select(usage), flags, 0..4u8)
        .prop_flat_map(move |(usage, flags, sort)| match sort {
            // What the provider sets in an element of a set must not make two elements one: no collections that may be empty.
            0 if depth > 0 && !(place.in_set && matches!(usage, Usage::Computed | Usage::OptionalComputed)) => {
                nested(place, usage, flags[0], depth)
            }
            _ => plain(place, usage, flags),
        })
        .boxed()
}

fn nested(place: Place, usage: Usage, replace: bool, depth: u32) -> BoxedStrategy<Spec> {
    let nesting = prop_oneof![Just(Nesting::Single), Just(Nesting::List), Just(Nesting::Set), Just(Nesting::Map)];
    nesting
        .prop_flat_map(move |nesting| {
            let who = match usage {
                Usage::Computed => Who::Provider,
                Usage::OptionalComputed => Who::ProviderToo,
                Usage::Required | Usage::Optional => place.who,
            };
            let below = Place { who, in_set: place.in_set || nesting == Nesting::Set };
            specs(below, depth - 1).prop_map(move |children| Spec {
                usage,
                shape: Shape::Nested(nesting, children),
                write_only: false,
                default: None,
                replace: replace && !place.in_set,
                keep: false,
                loose: false,
            })
        })
        .boxed()
}

fn plain(place: Place, usage: Usage, [secret, with_default, replace, keep, loose]: [bool; 5]) -> BoxedStrategy<Spec> {
    let computed = matches!(usage, Usage::Computed | Usage::OptionalComputed);
    let ty = match place.in_set && computed {
        true => prop_oneof![Just(Type::String), Just(Type::Number)].boxed(),
        false => plain_type().boxed(),
    };
    ty.prop_flat_map(move |ty| {
        let default = match usage {
            Usage::OptionalComputed if with_default && !place.in_set => value(&ty, Sort::Known).prop_map(Some).boxed(),
            _ => Just(None).boxed(),
        };
        default.prop_map(move |default| Spec {
            usage,
            write_only: secret && !computed && !place.in_set,
            default,
            replace: replace && !place.in_set,
            keep: keep && computed,
            loose: loose && ty == Type::String && !place.in_set,
            shape: Shape::Plain(ty.clone()),
        })
    })
    .boxed()
}

/// What a value may have in it.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Known,
    PerhapsUnknown,
}

/// A value of a type that is set.
fn value(ty: &Type, sort: Sort) -> BoxedStrategy<Value> {
    match ty {
        // Few letters of both cases, so that values repeat and differ in case.
        Type::String => "[aAb]{0,2}".prop_map(Value::String).boxed(),
        Type::Number => prop_oneof![
            (0..3i64).prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from)
        ]
        .boxed(),
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Dynamic => prop_oneof![
            Just(Type::String),
            Just(Type::list(Type::Number)),
            Just(Type::Tuple(vec![Type::Bool, Type::String]))
        ]
        .prop_flat_map(move |ty| value(&ty, sort).prop_map(move |value| Value::Dynamic(Box::new((ty.clone(), value)))))
        .boxed(),
        Type::List(element) => vec(part(element, sort), 0..3).prop_map(Value::List).boxed(),
        Type::Set(element) => {
            let element_type = element.clone();
            vec(part(element, sort), 0..3).prop_map(move |items| Value::List(distinct(items, &element_type))).boxed()
        }
        Type::Map(element) => {
            proptest::collection::btree_map("[ab]", part(element, sort), 0..3).prop_map(Value::Map).boxed()
        }
        Type::Tuple(types) => types.iter().map(|ty| part(ty, sort)).collect::<Vec<_>>().prop_map(Value::List).boxed(),
        Type::Object(types) => {
            let names: Vec<_> = types.keys().cloned().collect();
            let parts: Vec<_> = types.values().map(|ty| part(ty, sort)).collect();
            parts.prop_map(move |parts| Value::Map(names.iter().cloned().zip(parts).collect())).boxed()
        }
    }
}

/// A value in a collection: it may be null.
fn part(ty: &Type, sort: Sort) -> BoxedStrategy<Value> {
    let unknown = u32::from(sort == Sort::PerhapsUnknown);
    prop_oneof![8 => value(ty, sort), 1 => Just(Value::Null), unknown => Just(Value::unknown())].boxed()
}

/// The elements as a set has them. Unknown ones are all different until they are known.
pub(crate) fn distinct(items: Vec<Value>, ty: &Type) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if !item.is_wholly_known() || !kept.iter().any(|other| other.equivalent(&item, ty)) {
            kept.push(item);
        }
    }
    kept
}

/// A configuration: what the provider sets is null.
pub(crate) fn config(specs: &Specs) -> BoxedStrategy<Value> {
    fill(specs, Sort::PerhapsUnknown, by_user)
}

/// A configuration without anything unknown.
pub(crate) fn known_config(specs: &Specs) -> BoxedStrategy<Value> {
    fill(specs, Sort::Known, by_user)
}

fn by_user(spec: &Spec) -> Set {
    match spec.usage {
        Usage::Computed => Set::Never,
        Usage::Required => Set::Always,
        Usage::Optional | Usage::OptionalComputed => Set::Sometimes,
    }
}

/// A state as any read may have given it, or none.
pub(crate) fn prior(specs: &Specs) -> BoxedStrategy<Value> {
    let state = fill(specs, Sort::Known, |spec| match spec.usage {
        _ if spec.write_only => Set::Never,
        Usage::Required => Set::Always,
        _ => Set::Sometimes,
    });
    prop_oneof![1 => Just(Value::Null), 3 => state].boxed()
}

#[derive(Clone, Copy, PartialEq)]
enum Set {
    Always,
    Sometimes,
    Never,
}

fn fill(specs: &Specs, sort: Sort, set: fn(&Spec) -> Set) -> BoxedStrategy<Value> {
    let names: Vec<_> = specs.keys().cloned().collect();
    let parts: Vec<_> = specs.values().map(|spec| fill_one(spec, sort, set)).collect();
    parts.prop_map(move |parts| Value::Map(names.iter().cloned().zip(parts).collect())).boxed()
}

fn fill_one(spec: &Spec, sort: Sort, set: fn(&Spec) -> Set) -> BoxedStrategy<Value> {
    let known = match &spec.shape {
        Shape::Plain(ty) => value(ty, sort),
        Shape::Nested(nesting, specs) => {
            let one = fill(specs, sort, set);
            let ty = object(specs);
            match nesting {
                Nesting::Single => one,
                Nesting::List => vec(one, 0..3).prop_map(Value::List).boxed(),
                Nesting::Set => vec(one, 0..3).prop_map(move |items| Value::List(distinct(items, &ty))).boxed(),
                Nesting::Map => proptest::collection::btree_map("[ab]", one, 0..3).prop_map(Value::Map).boxed(),
            }
        }
    };
    let unknown = u32::from(sort == Sort::PerhapsUnknown);
    match set(spec) {
        Set::Never => Just(Value::Null).boxed(),
        Set::Always => prop_oneof![6 => known, unknown => Just(Value::unknown())].boxed(),
        Set::Sometimes => option::of(prop_oneof![6 => known, unknown => Just(Value::unknown())])
            .prop_map(Option::unwrap_or_default)
            .boxed(),
    }
}
