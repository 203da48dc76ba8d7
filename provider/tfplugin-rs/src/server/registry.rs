//! What a provider offers, by name, with each schema read once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::redact;
use crate::{
    codec::{self, CodecError, Type},
    diagnostics::{Diagnostic, Diagnostics},
    resource::Named,
    schema::{self, Schema},
    value::Value,
    wire,
};

/// One thing that has a schema. Cheap to clone: every call does.
pub(super) struct Entry<T: ?Sized> {
    pub(super) schema: Arc<Schema>,
    pub(super) ty: Arc<Type>,
    pub(super) item: Arc<T>,
}

impl<T: ?Sized> Clone for Entry<T> {
    fn clone(&self) -> Self {
        let Self { schema, ty, item } = self;
        Self { schema: Arc::clone(schema), ty: Arc::clone(ty), item: Arc::clone(item) }
    }
}

/// All things of one kind.
pub(super) struct Registry<T: ?Sized> {
    /// What a user calls the kind: `resource type`.
    kind: &'static str,
    entries: BTreeMap<&'static str, Entry<T>>,
}

impl<T: ?Sized> Registry<T> {
    pub(super) fn new(kind: &'static str, items: Vec<Named<T>>, schema: impl Fn(&T) -> Schema) -> Self {
        let entry = |(name, item): Named<T>| {
            let schema = schema(&item);
            (name, Entry { ty: Arc::new(schema.value_type()), schema: Arc::new(schema), item })
        };
        Self { kind, entries: items.into_iter().map(entry).collect() }
    }

    pub(super) fn find(&self, name: &str) -> Result<Entry<T>, Diagnostic> {
        self.entries.get(name).cloned().ok_or_else(|| {
            Diagnostic::error(
                format!("Unknown {} {name}", self.kind),
                format!("This version of the provider has no {} of this name.", self.kind),
            )
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Entry<T>)> {
        self.entries.iter().map(|(name, entry)| (*name, entry))
    }

    pub(super) fn schemas(&self) -> HashMap<String, wire::Schema> {
        self.iter().map(|(name, entry)| (name.to_owned(), entry.schema.to_wire())).collect()
    }
}

impl<T: ?Sized> Entry<T> {
    /// A configuration that was sent for it.
    pub(super) fn config(&self, config: Option<&wire::DynamicValue>) -> Result<Value, Diagnostic> {
        self.value(config, "configuration")
    }

    /// A value that was sent for it. Its secrets are hidden from now on.
    pub(super) fn value(&self, value: Option<&wire::DynamicValue>, what: &str) -> Result<Value, Diagnostic> {
        let value = decode(value, &self.ty, what)?;
        redact::learn(&self.schema, &value);
        Ok(value)
    }

    /// The configuration and what the schema's own validators say of it.
    pub(super) fn checked(&self, config: Option<&wire::DynamicValue>) -> Result<(Value, Diagnostics), Diagnostic> {
        let config = self.config(config)?;
        let found = schema::check(&self.schema, &config);
        Ok((config, found))
    }
}

pub(super) fn decode(value: Option<&wire::DynamicValue>, ty: &Type, what: &str) -> Result<Value, Diagnostic> {
    codec::from_wire(value, ty).map_err(|error: CodecError| {
        Diagnostic::error(
            format!("The provider cannot read the {what}"),
            format!("Terraform sent something that does not fit the schema: {error}. Please report this."),
        )
    })
}

pub(super) fn told<E: Into<Diagnostics>>(result: Result<Diagnostics, E>) -> Vec<wire::Diagnostic> {
    result.unwrap_or_else(Into::into).to_wire()
}

pub(super) fn failed(failure: impl Into<Diagnostics>) -> Vec<wire::Diagnostic> {
    failure.into().to_wire()
}
