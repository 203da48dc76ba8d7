//! Data sources: things that are looked up and never changed.

use crate::{
    diagnostics::{Diagnostic, Diagnostics},
    resource::{Ctx, Pending},
    schema::Schema,
    value::Value,
};

/// One kind of data source.
///
/// Terraform reads it during the plan when its configuration is wholly known, else during the apply; so it must change
/// nothing, and a second read may come at any time.
pub trait DataSource<C: Send + Sync + 'static>: Send + Sync + 'static {
    /// Its attributes: what the user asks by, and what is found.
    fn schema(&self) -> Schema;

    /// Checks that go beyond one attribute. Values may be unknown.
    fn validate(&self, config: &Value) -> Diagnostics {
        let _ = config;
        Diagnostics::new()
    }

    /// Looks it up. `config` is wholly known.
    ///
    /// A thing that is not there is an error unless the data source is about "which of them are there".
    fn read<'a>(&'a self, ctx: &'a Ctx<C>, config: Value) -> Pending<'a, Found>;
}

/// What a data source found, and what to tell the user about it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The object: the configuration with its computed attributes filled in. Null with an error.
    pub state: Value,
    /// Errors and warnings.
    pub diagnostics: Diagnostics,
}

impl From<Value> for Found {
    fn from(state: Value) -> Self {
        Self { state, diagnostics: Diagnostics::new() }
    }
}

impl From<Diagnostic> for Found {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { state: Value::Null, diagnostics: diagnostic.into() }
    }
}

impl From<Diagnostics> for Found {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { state: Value::Null, diagnostics }
    }
}

impl<T: Into<Found>, E: Into<Found>> From<Result<T, E>> for Found {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}
