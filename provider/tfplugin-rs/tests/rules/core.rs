//! Terraform core's side of a plan and an apply, written anew from what is documented of it: what it proposes, and what it
//! accepts. It shares nothing with the crate under test but the values.

use tfplugin::{Type, Value, schema::Nesting};

use super::arbitrary::{Shape, Spec, Specs};

/// The prior state merged with the configuration.
pub(crate) fn propose(specs: &Specs, prior: &Value, config: &Value) -> Value {
    let merged = specs.iter().map(|(name, spec)| {
        let (prior, config) = (prior.attr(name), config.attr(name));
        (name.clone(), propose_one(spec, prior, config))
    });
    Value::Map(merged.collect())
}

fn propose_one(spec: &Spec, prior: &Value, config: &Value) -> Value {
    if spec.is_computed() && config.is_null() {
        // Something in it that only a user can have set: it was configured before, and is not any more.
        return if spec.is_optional() && has_users_part(spec, prior) { Value::Null } else { prior.clone() };
    }
    let Shape::Nested(nesting, specs) = &spec.shape else { return config.clone() };
    match (nesting, config) {
        (Nesting::Single, Value::Map(_)) => propose(specs, prior, config),
        (Nesting::List, Value::List(items)) => {
            let before = |index: usize| prior.as_list().and_then(|list| list.get(index)).cloned().unwrap_or_default();
            Value::List(items.iter().enumerate().map(|(index, item)| propose(specs, &before(index), item)).collect())
        }
        (Nesting::Map, Value::Map(items)) => {
            Value::Map(items.iter().map(|(key, item)| (key.clone(), propose(specs, prior.attr(key), item))).collect())
        }
        (Nesting::Set, Value::List(items)) => {
            let mut left: Vec<&Value> = prior.as_list().unwrap_or_default().iter().collect();
            let mut one = |item: &Value| {
                let partner = left.iter().position(|before| could_be(specs, before, item));
                let before = partner.map(|index| left.remove(index).clone()).unwrap_or_default();
                propose(specs, &before, item)
            };
            Value::List(items.iter().map(&mut one).collect())
        }
        _ => config.clone(),
    }
}

fn has_users_part(spec: &Spec, value: &Value) -> bool {
    let Shape::Nested(nesting, specs) = &spec.shape else { return false };
    let within = |object: &Value| {
        let part = |(name, spec): (&String, &Spec)| {
            let value = object.attr(name);
            !value.is_null() && (!spec.is_computed() || has_users_part(spec, value))
        };
        specs.iter().any(part)
    };
    match (nesting, value) {
        (Nesting::Single, value) => within(value),
        (_, Value::List(items)) => items.iter().any(within),
        (_, Value::Map(items)) => items.values().any(within),
        _ => false,
    }
}

/// Whether an element of a set in the state can be the one that is configured: what the provider set does not count.
fn could_be(specs: &Specs, prior: &Value, config: &Value) -> bool {
    specs.iter().all(|(name, spec)| alike(spec, prior.attr(name), config.attr(name)))
}

fn alike(spec: &Spec, prior: &Value, config: &Value) -> bool {
    if spec.is_computed() && config.is_null() {
        return true;
    }
    let Shape::Nested(nesting, specs) = &spec.shape else { return config.equivalent(prior, &spec.ty()) };
    match (nesting, prior, config) {
        (Nesting::Single, Value::Map(_), Value::Map(_)) => could_be(specs, prior, config),
        (Nesting::List, Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| could_be(specs, a, b))
        }
        (Nesting::Set, Value::List(a), Value::List(b)) => {
            a.len() == b.len() && correlate(a, b, |a, b| could_be(specs, a, b))
        }
        (Nesting::Map, Value::Map(a), Value::Map(b)) => {
            a.keys().eq(b.keys()) && a.iter().all(|(key, a)| could_be(specs, a, &b[key]))
        }
        _ => prior == config,
    }
}

/// What core says against a plan.
pub(crate) fn plan_faults(specs: &Specs, prior: &Value, config: &Value, planned: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    object(specs, [prior, config, planned], "", &mut faults);
    faults
}

fn object(specs: &Specs, [prior, config, planned]: [&Value; 3], at: &str, faults: &mut Vec<String>) {
    for (name, spec) in specs {
        let parts = [prior.attr(name), config.attr(name), planned.attr(name)];
        one(spec, parts, &format!("{at}.{name}"), faults);
    }
}

fn one(spec: &Spec, [prior, config, planned]: [&Value; 3], at: &str, faults: &mut Vec<String>) {
    let ty = spec.ty();
    if spec.write_only {
        if !planned.is_null() {
            faults.push(format!("{at}: a write-only value"));
        }
        return;
    }
    let only_computed = spec.is_computed() && !spec.is_optional();
    let left_open = spec.is_computed() && config.is_null();
    let kept = !prior.is_null() && !config.is_null() && planned.equivalent(prior, &ty);
    if planned.equivalent(config, &ty) || only_computed || left_open || kept {
        return;
    }
    match &spec.shape {
        Shape::Plain(_) => faults.push(format!("{at}: neither the configured nor the prior value")),
        Shape::Nested(nesting, specs) => nested(*nesting, specs, [prior, config, planned], at, faults),
    }
}

fn nested(nesting: Nesting, specs: &Specs, [prior, config, planned]: [&Value; 3], at: &str, faults: &mut Vec<String>) {
    if planned.is_null() || config.is_null() || !planned.is_known() || !config.is_known() {
        faults.push(format!("{at}: absent, present or unknown against the configuration"));
        return;
    }
    match (nesting, config, planned) {
        (Nesting::Single, Value::Map(_), Value::Map(_)) => object(specs, [prior, config, planned], at, faults),
        (Nesting::List, Value::List(wanted), Value::List(items)) if wanted.len() == items.len() => {
            for (index, (config, planned)) in wanted.iter().zip(items).enumerate() {
                let prior = prior.as_list().and_then(|list| list.get(index)).cloned().unwrap_or_default();
                object(specs, [&prior, config, planned], &format!("{at}[{index}]"), faults);
            }
        }
        (Nesting::Map, Value::Map(wanted), Value::Map(items)) if wanted.keys().eq(items.keys()) => {
            for (key, config) in wanted {
                object(specs, [prior.attr(key), config, planned.attr(key)], &format!("{at}[{key}]"), faults);
            }
        }
        (Nesting::Set, Value::List(wanted), Value::List(items)) if wanted.len() == items.len() => {
            let fits = |planned: &Value, config: &Value| {
                let mut faults = Vec::new();
                object(specs, [&Value::Null, config, planned], "", &mut faults);
                faults.is_empty()
            };
            if !correlate(items, wanted, fits) {
                faults.push(format!("{at}: elements that are not configured"));
            }
        }
        _ => faults.push(format!("{at}: more or fewer objects than configured")),
    }
}

/// Whether each of these has one of those that it fits, and the other way round.
fn correlate(these: &[Value], those: &[Value], fits: impl Fn(&Value, &Value) -> bool) -> bool {
    these.iter().all(|a| those.iter().any(|b| fits(a, b))) && those.iter().all(|b| these.iter().any(|a| fits(a, b)))
}

/// What core says against the object after an apply.
pub(crate) fn apply_faults(specs: &Specs, planned: &Value, new: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if !new.is_wholly_known() {
        faults.push("unknown after apply".to_owned());
    }
    if new.is_null() {
        faults.push("absent".to_owned());
    }
    for (name, spec) in specs {
        let new = new.attr(name);
        if !compatible(planned.attr(name), new, &spec.ty()) {
            faults.push(format!("{name}: {new:?} for {:?}", planned.attr(name)));
        }
    }
    faults
}

fn compatible(planned: &Value, new: &Value, ty: &Type) -> bool {
    match (planned, new, ty) {
        (Value::Unknown(_), _, _) => true,
        (Value::Null, new, _) => new.is_null(),
        (Value::Dynamic(before), Value::Dynamic(after), _) => {
            before.0 == after.0 && compatible(&before.1, &after.1, &before.0)
        }
        (Value::List(before), Value::List(after), Type::Set(element)) => {
            before.len() >= after.len() && correlate(before, after, |a, b| compatible(a, b, element))
        }
        (Value::List(before), Value::List(after), Type::List(element)) => {
            before.len() == after.len() && before.iter().zip(after).all(|(a, b)| compatible(a, b, element))
        }
        (Value::List(before), Value::List(after), Type::Tuple(types)) => {
            before.len() == after.len() && before.iter().zip(after).zip(types).all(|((a, b), ty)| compatible(a, b, ty))
        }
        (Value::Map(before), Value::Map(after), Type::Map(element)) => {
            before.keys().eq(after.keys()) && before.iter().all(|(key, a)| compatible(a, &after[key], element))
        }
        (Value::Map(_), Value::Map(_), Type::Object(types)) => {
            types.iter().all(|(name, ty)| compatible(planned.attr(name), new.attr(name), ty))
        }
        (planned, new, _) => planned == new,
    }
}
