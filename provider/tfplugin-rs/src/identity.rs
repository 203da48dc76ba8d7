//! Resource identity: the few attributes by which an object is found again, whatever becomes of the rest (Terraform 1.12
//! and later). `import` blocks can name them, `terraform query` lists by them.

use std::collections::BTreeMap;

use crate::{codec::Type, value::Value, wire};

/// The attributes that identify an object of one resource type. Their values never change during its life.
#[derive(Clone, Debug, Default)]
pub struct IdentitySchema {
    version: i64,
    attributes: BTreeMap<String, IdentityAttribute>,
}

/// One of them.
#[derive(Clone, Debug)]
struct IdentityAttribute {
    ty: Type,
    description: String,
    required: bool,
}

impl IdentitySchema {
    /// No attribute yet, version 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an attribute that an import must give.
    #[must_use]
    pub fn required(self, name: &str, ty: Type, description: &str) -> Self {
        self.with(name, ty, description, true)
    }

    /// Adds an attribute that an import may give.
    #[must_use]
    pub fn optional(self, name: &str, ty: Type, description: &str) -> Self {
        self.with(name, ty, description, false)
    }

    fn with(mut self, name: &str, ty: Type, description: &str, required: bool) -> Self {
        self.attributes
            .insert(name.to_owned(), IdentityAttribute { ty, description: description.to_owned(), required });
        self
    }

    /// Sets the version; raise it when stored identities need [`crate::Resource::upgrade_identity`].
    #[must_use]
    pub fn version(mut self, version: i64) -> Self {
        self.version = version;
        self
    }

    /// The version of identities written under this schema.
    pub fn current_version(&self) -> i64 {
        self.version
    }

    /// The names of the attributes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attributes.keys().map(String::as_str)
    }

    /// The type of an identity.
    pub fn value_type(&self) -> Type {
        Type::object(self.attributes.iter().map(|(name, attribute)| (name.clone(), attribute.ty.clone())))
    }

    /// The attributes of the same names in a state; `None` while one that is required is not known or not set.
    pub fn of(&self, state: &Value) -> Option<Value> {
        let complete =
            |(name, attribute): (&String, &IdentityAttribute)| !attribute.required || state.attr(name).is_known();
        let identity = || Value::object(self.attributes.keys().map(|name| (name.clone(), state.attr(name).clone())));
        self.attributes.iter().all(complete).then(identity)
    }

    pub(crate) fn to_wire(&self) -> wire::ResourceIdentitySchema {
        use wire::resource_identity_schema::IdentityAttribute as Wire;
        let attribute = |(name, attribute): (&String, &IdentityAttribute)| Wire {
            name: name.clone(),
            r#type: attribute.ty.to_bytes(),
            required_for_import: attribute.required,
            optional_for_import: !attribute.required,
            description: attribute.description.clone(),
        };
        wire::ResourceIdentitySchema {
            version: self.version,
            identity_attributes: self.attributes.iter().map(attribute).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_part_of_the_state_and_whole_or_nothing() {
        let schema = IdentitySchema::new().required("name", Type::String, "n").optional("site", Type::String, "s");
        let state = Value::object([("name", Value::from("a")), ("more", Value::from(1i64))]);
        assert_eq!(schema.of(&state), Some(Value::object([("name", Value::from("a")), ("site", Value::Null)])));
        assert_eq!(schema.of(&Value::object([("name", Value::unknown())])), None);
        assert_eq!(schema.of(&Value::Null), None);
    }
}
