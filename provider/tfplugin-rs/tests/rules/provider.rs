//! A provider of one resource with any schema, that decides what a plan leaves open, and lies where it is told to.

use std::sync::Arc;

use tfplugin::{
    Apply, Ctx, Diagnostics, Imported, Named, Outcome, Pending, Provider, Read, Resource, Schema, Type, Value,
    plan::Plan,
};

use super::arbitrary::{Shape, Specs, distinct, object, schema};

/// The resource's name.
pub(crate) const THING: &str = "random_thing";

/// When the provider says something else than it should.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lie {
    /// Never.
    Never,
    /// In the plan.
    Plan,
    /// In the answer to an apply.
    Apply,
}

/// The provider. The same seed gives the same answers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    pub(crate) specs: Specs,
    pub(crate) seed: u64,
    pub(crate) lie: Lie,
}

impl Provider for Random {
    type Client = ();

    fn name(&self) -> &str {
        "random"
    }

    fn schema(&self) -> Schema {
        Schema::default()
    }

    fn configure(&self, _: &Value) -> Result<(), Diagnostics> {
        Ok(())
    }

    fn resources(&self) -> Vec<Named<dyn Resource<()>>> {
        vec![(THING, Arc::new(self.clone()))]
    }
}

impl Resource<()> for Random {
    fn schema(&self) -> Schema {
        schema(&self.specs)
    }

    fn plan<'a>(&'a self, _: &'a Ctx<()>, plan: &'a mut Plan) -> Pending<'a, Diagnostics> {
        if self.lie == Lie::Plan {
            lie(&self.specs, &mut plan.planned, &mut Chance(self.seed));
        }
        Box::pin(async { Diagnostics::new() })
    }

    fn create<'a>(&'a self, _: &'a Ctx<()>, request: Apply) -> Pending<'a, Outcome> {
        Box::pin(async move { self.answer(request) })
    }

    fn update<'a>(&'a self, _: &'a Ctx<()>, request: Apply) -> Pending<'a, Outcome> {
        Box::pin(async move { self.answer(request) })
    }

    fn read<'a>(&'a self, _: &'a Ctx<()>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move { Outcome::new(request.state, request.private) })
    }

    fn delete<'a>(&'a self, _: &'a Ctx<()>, _: Read) -> Pending<'a, Outcome> {
        Box::pin(async { Outcome::gone() })
    }

    fn import<'a>(&'a self, _: &'a Ctx<()>, _: &'a str) -> Pending<'a, Result<Imported, Diagnostics>> {
        Box::pin(async { Err(Diagnostics::new()) })
    }
}

impl Random {
    fn answer(&self, request: Apply) -> Outcome {
        let mut chance = Chance(self.seed);
        let state = decided(&request.planned, &object(&self.specs), &mut chance);
        let mut state = schema(&self.specs).without_write_only(&state);
        if self.lie == Lie::Apply {
            lie(&self.specs, &mut state, &mut chance);
        }
        Outcome::new(state, request.private)
    }
}

/// A small deterministic source of numbers (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }

    /// Any known value of a type. Texts and numbers are all different.
    fn value(&mut self, ty: &Type) -> Value {
        match ty {
            Type::String => Value::from(format!("{:x}", self.next())),
            Type::Number => Value::from(self.next()),
            Type::Bool => Value::from(self.next().is_multiple_of(2)),
            Type::Dynamic => Value::Dynamic(Box::new((Type::String, self.value(&Type::String)))),
            Type::List(element) | Type::Set(element) => {
                let items = (0..self.below(3)).map(|_| self.value(element)).collect();
                Value::List(if matches!(ty, Type::Set(_)) { distinct(items, element) } else { items })
            }
            Type::Map(element) => {
                Value::Map((0..self.below(3)).map(|n| (format!("k{n}"), self.value(element))).collect())
            }
            Type::Tuple(types) => Value::List(types.iter().map(|ty| self.value(ty)).collect()),
            Type::Object(types) => Value::Map(types.iter().map(|(name, ty)| (name.clone(), self.value(ty))).collect()),
        }
    }
}

/// The plan with everything decided that it leaves open.
fn decided(planned: &Value, ty: &Type, chance: &mut Chance) -> Value {
    match (planned, ty) {
        (Value::Unknown(_), ty) => chance.value(ty),
        (Value::List(items), Type::List(element)) => {
            Value::List(items.iter().map(|item| decided(item, element, chance)).collect())
        }
        (Value::List(items), Type::Set(element)) => {
            Value::List(distinct(items.iter().map(|item| decided(item, element, chance)).collect(), element))
        }
        (Value::List(items), Type::Tuple(types)) => {
            Value::List(items.iter().zip(types).map(|(item, ty)| decided(item, ty, chance)).collect())
        }
        (Value::Map(items), Type::Map(element)) => {
            Value::Map(items.iter().map(|(key, item)| (key.clone(), decided(item, element, chance))).collect())
        }
        (Value::Map(_), Type::Object(types)) => {
            Value::Map(types.iter().map(|(name, ty)| (name.clone(), decided(planned.attr(name), ty, chance))).collect())
        }
        (Value::Dynamic(inner), _) => Value::Dynamic(Box::new((inner.0.clone(), decided(&inner.1, &inner.0, chance)))),
        (other, _) => other.clone(),
    }
}

/// Changes something, somewhere.
fn lie(specs: &Specs, value: &mut Value, chance: &mut Chance) {
    let names: Vec<_> = specs.keys().collect();
    let name = names[chance.below(names.len())];
    let spec = &specs[name];
    let mut part = value.attr(name).clone();
    let deeper = match (&spec.shape, &mut part) {
        (Shape::Nested(_, children), Value::Map(_)) if spec.ty() == object(children) => {
            lie(children, &mut part, chance);
            true
        }
        (Shape::Nested(_, children), Value::List(items)) if !items.is_empty() && chance.below(3) > 0 => {
            let index = chance.below(items.len());
            lie(children, &mut items[index], chance);
            true
        }
        _ => false,
    };
    if !deeper {
        part = match chance.below(6) {
            0 => Value::Null,
            1 => Value::unknown(),
            _ => chance.value(&spec.ty()),
        };
    }
    value.set(name, part);
}
