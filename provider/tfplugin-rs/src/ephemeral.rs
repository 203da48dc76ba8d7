//! Ephemeral resources: values that exist for the length of a Terraform command and are stored nowhere (Terraform 1.10
//! and later), such as a token that is made for an apply and revoked after it.

use jiff::Timestamp;

use crate::{
    diagnostics::{Diagnostic, Diagnostics},
    resource::{Ctx, Pending, Private},
    schema::Schema,
    value::Value,
};

/// One kind of ephemeral resource.
pub trait Ephemeral<C: Send + Sync + 'static>: Send + Sync + 'static {
    /// Its attributes: what the user asks for, and what is made.
    fn schema(&self) -> Schema;

    /// Checks that go beyond one attribute. Values may be unknown.
    fn validate(&self, config: &Value) -> Diagnostics {
        let _ = config;
        Diagnostics::new()
    }

    /// Makes the value. `config` is wholly known.
    ///
    /// # Errors
    /// What the user should see; nothing is left open then.
    fn open<'a>(&'a self, ctx: &'a Ctx<C>, config: Value) -> Pending<'a, Result<Opened, Diagnostics>>;

    /// Prolongs it. Called at the time that `open` or the renewal before asked for.
    ///
    /// # Errors
    /// What the user should see. The value is closed all the same later.
    fn renew<'a>(&'a self, ctx: &'a Ctx<C>, private: Private) -> Pending<'a, Result<Renewed, Diagnostics>> {
        let _ = ctx;
        Box::pin(async move { Ok(Renewed { private, renew_at: None }) })
    }

    /// Ends it. Called once for each that was opened, also when the command failed.
    fn close<'a>(&'a self, ctx: &'a Ctx<C>, private: Private) -> Pending<'a, Diagnostics> {
        let _ = (ctx, private);
        Box::pin(async { Diagnostics::new() })
    }
}

/// A value that was made.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The configuration with its computed attributes filled in.
    pub result: Value,
    /// What renewing and closing need to know. It stays in Terraform's memory.
    pub private: Private,
    /// When it has to be prolonged.
    pub renew_at: Option<Timestamp>,
}

impl From<Value> for Opened {
    fn from(result: Value) -> Self {
        Self { result, private: Private::default(), renew_at: None }
    }
}

/// A value that was prolonged.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// What the next renewal and closing need to know.
    pub private: Private,
    /// When it has to be prolonged again.
    pub renew_at: Option<Timestamp>,
}

/// The rule for every result: known, and what the user set is what it says.
pub(crate) fn faults(schema: &Schema, config: &Value, result: &Value) -> Option<Diagnostic> {
    let broken = if !result.is_wholly_known() {
        Some("a part of the result is unknown")
    } else if schema
        .attributes()
        .iter()
        .any(|(name, attribute)| !attribute.is_computed() && result.attr(name) != config.attr(name))
    {
        Some("the result differs from the configuration")
    } else {
        None
    };
    broken.map(|rule| {
        Diagnostic::error("The provider made an inconsistent ephemeral value", format!("{rule}. Please report this."))
    })
}
