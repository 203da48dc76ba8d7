//! What a resource looks like to its users, and the rules that go with each attribute.
//!
//! A schema is a tree of [`Attribute`]s. Blocks are left out on purpose: protocol 6 has nested attributes, which do the
//! same with plain values, can be required or computed as a whole, and have no "empty block" that is neither null nor set.
//!
//! Besides its shape an attribute carries its behaviour: a default, validators, what a change of it means for the object
//! ([`Attribute::requires_replace`]), whether its computed value survives an update
//! ([`Attribute::use_state_for_unknown`]), and when two spellings mean the same ([`Attribute::semantic_equality`]).
//! [`crate::plan`] applies them.

mod validate;

pub use validate::{Validator, check};

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{codec::Type, path::Path, value::Value, wire};

/// Who sets an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The user, always.
    Required,
    /// The user, or nobody.
    Optional,
    /// The provider.
    Computed,
    /// The user, else the provider.
    OptionalComputed,
}

/// How much of an attribute may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// All of it.
    Open,
    /// Stored, but not shown.
    Sensitive,
    /// Given to the provider at apply and kept nowhere (Terraform 1.11 and later).
    WriteOnly,
}

/// How a nested attribute is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// One object.
    Single,
    /// A list of objects.
    List,
    /// A set of objects.
    Set,
    /// Objects by name.
    Map,
}

/// The shape of an attribute.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A plain value.
    Plain(Type),
    /// Objects with attributes of their own.
    Nested(Nesting, BTreeMap<String, Attribute>),
}

/// Decides whether two known values of an attribute mean the same.
pub type Equality = fn(&Value, &Value) -> bool;

/// What a change of a value means for the object that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// It is updated in place.
    Update,
    /// It is destroyed and made anew.
    Replace,
}

/// One attribute: shape, rules and behaviour.
#[derive(Clone)]
pub struct Attribute {
    pub(crate) shape: Shape,
    pub(crate) usage: Usage,
    pub(crate) secrecy: Secrecy,
    pub(crate) description: String,
    pub(crate) deprecation: Option<String>,
    pub(crate) default: Option<Value>,
    pub(crate) validators: Vec<Validator>,
    pub(crate) on_change: OnChange,
    pub(crate) keep_state: bool,
    pub(crate) equality: Option<Equality>,
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute")
            .field("shape", &self.shape)
            .field("usage", &self.usage)
            .field("secrecy", &self.secrecy)
            .finish_non_exhaustive()
    }
}

impl Attribute {
    fn new(shape: Shape, usage: Usage) -> Self {
        Self {
            shape,
            usage,
            secrecy: Secrecy::Open,
            description: String::new(),
            deprecation: None,
            default: None,
            validators: Vec::new(),
            on_change: OnChange::Update,
            keep_state: false,
            equality: None,
        }
    }

    /// The user must set it.
    pub fn required(ty: Type) -> Self {
        Self::new(Shape::Plain(ty), Usage::Required)
    }

    /// The user may set it.
    pub fn optional(ty: Type) -> Self {
        Self::new(Shape::Plain(ty), Usage::Optional)
    }

    /// The provider sets it.
    pub fn computed(ty: Type) -> Self {
        Self::new(Shape::Plain(ty), Usage::Computed)
    }

    /// The user may set it, else the provider does.
    pub fn optional_computed(ty: Type) -> Self {
        Self::new(Shape::Plain(ty), Usage::OptionalComputed)
    }

    /// Objects with attributes of their own.
    pub fn nested<N: Into<String>>(
        nesting: Nesting,
        usage: Usage,
        attributes: impl IntoIterator<Item = (N, Attribute)>,
    ) -> Self {
        let attributes = attributes.into_iter().map(|(name, attribute)| (name.into(), attribute)).collect();
        Self::new(Shape::Nested(nesting, attributes), usage)
    }

    /// Says what it is for, in Markdown.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Marks it deprecated and says what to use instead.
    #[must_use]
    pub fn deprecate(mut self, message: impl Into<String>) -> Self {
        self.deprecation = Some(message.into());
        self
    }

    /// Stored, but not shown.
    #[must_use]
    pub fn sensitive(mut self) -> Self {
        self.secrecy = Secrecy::Sensitive;
        self
    }

    /// Given to the provider at apply and kept nowhere. Only for what the user sets.
    #[must_use]
    pub fn write_only(mut self) -> Self {
        self.secrecy = Secrecy::WriteOnly;
        self
    }

    /// Used where the user sets nothing. Makes an optional attribute computed as well, which is what lets the plan differ
    /// from the configuration.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        if self.usage == Usage::Optional {
            self.usage = Usage::OptionalComputed;
        }
        self
    }

    /// Adds a check of known values.
    #[must_use]
    pub fn validate(mut self, validator: Validator) -> Self {
        self.validators.push(validator);
        self
    }

    /// A change of it destroys the object and makes a new one.
    #[must_use]
    pub fn requires_replace(mut self) -> Self {
        self.on_change = OnChange::Replace;
        self
    }

    /// A computed value that stays what it is across updates. Nulls do not stick: what is still unset may be set by the
    /// update.
    #[must_use]
    pub fn use_state_for_unknown(mut self) -> Self {
        self.keep_state = true;
        self
    }

    /// When two spellings mean the same; the stored one is then kept and no change is planned.
    #[must_use]
    pub fn semantic_equality(mut self, same: Equality) -> Self {
        self.equality = Some(same);
        self
    }

    /// The type of its values.
    pub fn value_type(&self) -> Type {
        match &self.shape {
            Shape::Plain(ty) => ty.clone(),
            Shape::Nested(nesting, attributes) => {
                let object = object_type(attributes);
                match nesting {
                    Nesting::Single => object,
                    Nesting::List => Type::list(object),
                    Nesting::Set => Type::set(object),
                    Nesting::Map => Type::map(object),
                }
            }
        }
    }

    /// The attributes of the objects it holds, if it holds objects.
    pub fn children(&self) -> Option<&BTreeMap<String, Attribute>> {
        match &self.shape {
            Shape::Plain(_) => None,
            Shape::Nested(_, children) => Some(children),
        }
    }

    /// How the objects it holds are repeated, if it holds objects.
    pub fn nesting(&self) -> Option<Nesting> {
        match &self.shape {
            Shape::Plain(_) => None,
            Shape::Nested(nesting, _) => Some(*nesting),
        }
    }

    /// Whether only the provider can set it.
    pub fn is_read_only(&self) -> bool {
        self.usage == Usage::Computed
    }

    pub(crate) fn is_required(&self) -> bool {
        self.usage == Usage::Required
    }

    pub(crate) fn is_computed(&self) -> bool {
        matches!(self.usage, Usage::Computed | Usage::OptionalComputed)
    }

    pub(crate) fn is_write_only(&self) -> bool {
        self.secrecy == Secrecy::WriteOnly
    }

    fn to_wire(&self, name: &str) -> wire::schema::Attribute {
        let (ty, nested_type) = match &self.shape {
            Shape::Plain(ty) => (ty.to_bytes(), None),
            Shape::Nested(nesting, attributes) => {
                use wire::schema::object::NestingMode;
                let mode = match nesting {
                    Nesting::Single => NestingMode::Single,
                    Nesting::List => NestingMode::List,
                    Nesting::Set => NestingMode::Set,
                    Nesting::Map => NestingMode::Map,
                };
                let object = wire::schema::Object {
                    attributes: attributes_to_wire(attributes),
                    nesting: mode.into(),
                    ..Default::default()
                };
                (Vec::new(), Some(object))
            }
        };
        wire::schema::Attribute {
            name: name.to_owned(),
            r#type: ty,
            nested_type,
            description: self.description.clone(),
            description_kind: wire::StringKind::Markdown.into(),
            required: self.usage == Usage::Required,
            optional: matches!(self.usage, Usage::Optional | Usage::OptionalComputed),
            computed: self.is_computed(),
            sensitive: self.secrecy == Secrecy::Sensitive,
            write_only: self.is_write_only(),
            deprecated: self.deprecation.is_some(),
            deprecation_message: self.deprecation.clone().unwrap_or_default(),
        }
    }
}

fn look_at<'a>(attributes: impl Iterator<Item = (&'a String, &'a Attribute)>) -> BTreeMap<String, Attribute> {
    let open = attributes.filter(|(_, attribute)| !attribute.is_write_only());
    open.map(|(name, attribute)| {
        let shape = match &attribute.shape {
            Shape::Plain(ty) => Shape::Plain(ty.clone()),
            Shape::Nested(nesting, children) => Shape::Nested(*nesting, look_at(children.iter())),
        };
        let mut seen = Attribute::new(shape, Usage::Computed).describe(attribute.description.clone());
        seen.secrecy = attribute.secrecy;
        (name.clone(), seen)
    })
    .collect()
}

fn object_type(attributes: &BTreeMap<String, Attribute>) -> Type {
    Type::Object(attributes.iter().map(|(name, attribute)| (name.clone(), attribute.value_type())).collect())
}

fn attributes_to_wire(attributes: &BTreeMap<String, Attribute>) -> Vec<wire::schema::Attribute> {
    attributes.iter().map(|(name, attribute)| attribute.to_wire(name)).collect()
}

/// The schema of a provider configuration or of a resource.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    version: i64,
    description: String,
    attributes: Arc<BTreeMap<String, Attribute>>,
}

impl Schema {
    /// A schema, version 0, from its attributes.
    pub fn new<N: Into<String>>(
        description: impl Into<String>,
        attributes: impl IntoIterator<Item = (N, Attribute)>,
    ) -> Self {
        let attributes = attributes.into_iter().map(|(name, attribute)| (name.into(), attribute)).collect();
        Self { version: 0, description: description.into(), attributes: Arc::new(attributes) }
    }

    /// Sets the version; raise it when stored states need [`crate::Resource::upgrade`].
    #[must_use]
    pub fn version(mut self, version: i64) -> Self {
        self.version = version;
        self
    }

    /// The same attributes as somebody sees who can only look: all computed, without defaults and validators; write-only
    /// ones and those named in `without` are left out. For data sources about an object that is also a resource.
    pub fn to_look_at(&self, without: &[&str]) -> BTreeMap<String, Attribute> {
        let kept = self.attributes.iter().filter(|(name, _)| !without.contains(&name.as_str()));
        look_at(kept)
    }

    /// The version of states written under this schema.
    pub fn current_version(&self) -> i64 {
        self.version
    }

    /// The attributes by name.
    pub fn attributes(&self) -> &BTreeMap<String, Attribute> {
        &self.attributes
    }

    /// The type of a whole state or configuration.
    pub fn value_type(&self) -> Type {
        object_type(&self.attributes)
    }

    /// A copy of `value` with every write-only part null: what may go into a plan or a state.
    pub fn without_write_only(&self, value: &Value) -> Value {
        strip(value, &self.attributes)
    }

    /// Where `value` has write-only parts that are set (or will be).
    pub fn write_only_paths(&self, value: &Value) -> Vec<Path> {
        let mut paths = Vec::new();
        find_write_only(value, &self.attributes, &Path::root(), &mut paths);
        paths
    }

    /// The form that travels.
    pub fn to_wire(&self) -> wire::Schema {
        let block = wire::schema::Block {
            version: self.version,
            attributes: attributes_to_wire(&self.attributes),
            description: self.description.clone(),
            description_kind: wire::StringKind::Markdown.into(),
            ..Default::default()
        };
        wire::Schema { version: self.version, block: Some(block) }
    }

    /// Contradictions in the schema itself, one line each: a write-only attribute the provider computes, a required one
    /// with a default, a name Terraform reserves. Meant for a unit test of every provider.
    pub fn faults(&self) -> Vec<String> {
        const RESERVED: [&str; 7] =
            ["count", "for_each", "depends_on", "lifecycle", "provider", "provisioner", "connection"];
        let mut faults = Vec::new();
        for name in self.attributes.keys().filter(|name| RESERVED.contains(&name.as_str())) {
            faults.push(format!("{name}: Terraform keeps this name for itself"));
        }
        attribute_faults(&self.attributes, "", Within::Object, &mut faults);
        faults
    }
}

/// Where attributes stand. The elements of a set are known by their values, so some rules are stricter below one.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Object,
    Set,
}

fn attribute_faults(attributes: &BTreeMap<String, Attribute>, parent: &str, within: Within, faults: &mut Vec<String>) {
    for (name, attribute) in attributes {
        let at = format!("{parent}{name}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || !name.bytes().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            faults.push(format!("{at}: not a valid attribute name"));
        }
        if attribute.is_write_only() && attribute.is_computed() {
            faults.push(format!("{at}: a write-only attribute cannot be computed"));
        }
        if attribute.default.is_some() && attribute.usage != Usage::OptionalComputed {
            faults.push(format!("{at}: only an optional attribute can have a default"));
        }
        if attribute.is_write_only() && within == Within::Set {
            faults.push(format!("{at}: Terraform allows no write-only attribute in a set"));
        }
        if attribute.default.is_some() && within == Within::Set {
            faults.push(format!("{at}: a default can make two elements of its set the same"));
        }
        if attribute.keep_state && !attribute.is_computed() {
            faults.push(format!("{at}: only a computed attribute can keep its state"));
        }
        if attribute.description.is_empty() {
            faults.push(format!("{at}: no description"));
        }
        if let Shape::Nested(nesting, children) = &attribute.shape {
            let within = if *nesting == Nesting::Set { Within::Set } else { within };
            for (name, _) in children.iter().filter(|(_, child)| attribute.is_computed() && !child.is_computed()) {
                // With it set, Terraform takes the whole for configured and plans to remove it.
                faults.push(format!("{at}.{name}: what is below a computed object must be computed as well"));
            }
            attribute_faults(children, &format!("{at}."), within, faults);
        }
    }
}

fn strip(value: &Value, attributes: &BTreeMap<String, Attribute>) -> Value {
    let Value::Map(map) = value else { return value.clone() };
    let mut stripped = map.clone();
    for (name, attribute) in attributes {
        if attribute.is_write_only() {
            stripped.insert(name.clone(), Value::Null);
        } else if let Shape::Nested(nesting, children) = &attribute.shape
            && let Some(inner) = map.get(name)
        {
            let inner = match (nesting, inner) {
                (Nesting::Single, inner) => strip(inner, children),
                (_, Value::List(items)) => Value::List(items.iter().map(|item| strip(item, children)).collect()),
                (_, Value::Map(items)) => {
                    Value::Map(items.iter().map(|(key, item)| (key.clone(), strip(item, children))).collect())
                }
                (_, other) => other.clone(),
            };
            stripped.insert(name.clone(), inner);
        }
    }
    Value::Map(stripped)
}

fn find_write_only(value: &Value, attributes: &BTreeMap<String, Attribute>, at: &Path, found: &mut Vec<Path>) {
    for (name, attribute) in attributes {
        let (value, at) = (value.attr(name), at.attribute(name));
        if attribute.is_write_only() {
            if !value.is_null() {
                found.push(at);
            }
        } else if let Shape::Nested(nesting, children) = &attribute.shape {
            match (nesting, value) {
                (Nesting::Single, value) => find_write_only(value, children, &at, found),
                (_, Value::List(items)) => {
                    for (index, item) in items.iter().enumerate() {
                        find_write_only(item, children, &at.index(index), found);
                    }
                }
                (_, Value::Map(items)) => {
                    for (key, item) in items {
                        find_write_only(item, children, &at.key(key), found);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_found() {
        let bad = Schema::new(
            "",
            [
                ("count", Attribute::optional(Type::Number).describe("x")),
                ("w", Attribute::computed(Type::String).write_only().describe("x")),
                ("d", Attribute::required(Type::String).default("x").describe("x")),
                ("Bad", Attribute::required(Type::String).describe("x")),
                (
                    "silent",
                    Attribute::nested(Nesting::Single, Usage::Optional, [("x", Attribute::required(Type::Bool))]),
                ),
                (
                    "set",
                    Attribute::nested(
                        Nesting::Set,
                        Usage::Optional,
                        [
                            ("w", Attribute::optional(Type::String).write_only().describe("x")),
                            ("d", Attribute::optional(Type::String).default("x").describe("x")),
                        ],
                    )
                    .describe("x"),
                ),
            ],
        );
        assert_eq!(
            bad.faults(),
            [
                "count: Terraform keeps this name for itself",
                "Bad: not a valid attribute name",
                "d: only an optional attribute can have a default",
                "set.d: a default can make two elements of its set the same",
                "set.w: Terraform allows no write-only attribute in a set",
                "silent: no description",
                "silent.x: no description",
                "w: a write-only attribute cannot be computed",
            ]
        );
    }

    #[test]
    fn secrets_are_stripped_at_any_depth() {
        let secret =
            || [("pw", Attribute::optional(Type::String).write_only()), ("u", Attribute::optional(Type::String))];
        let schema = Schema::new(
            "",
            [
                ("one", Attribute::nested(Nesting::Single, Usage::Optional, secret())),
                ("many", Attribute::nested(Nesting::List, Usage::Optional, secret())),
            ],
        );
        let filled = Value::object([("pw", "secret"), ("u", "root")]);
        let clean = Value::object([("pw", Value::Null), ("u", Value::from("root"))]);
        let value = Value::object([("one", filled.clone()), ("many", Value::list([filled]))]);
        let expected = Value::object([("one", clean.clone()), ("many", Value::list([clean]))]);
        assert_eq!(schema.without_write_only(&value), expected);
        let paths: Vec<_> = schema.write_only_paths(&value).iter().map(Path::to_string).collect();
        assert_eq!(paths, ["many[0].pw", "one.pw"]);
    }
}
