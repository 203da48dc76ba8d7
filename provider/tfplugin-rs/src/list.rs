//! List resources: which objects of a resource type exist, so that `terraform query` (1.14 and later) can show them and
//! write import blocks for them.

use crate::{
    diagnostics::Diagnostics,
    resource::{Ctx, Pending},
    schema::Schema,
    value::Value,
};

/// Lists the objects of one managed resource type, which must have an identity.
pub trait Lister<C: Send + Sync + 'static>: Send + Sync + 'static {
    /// What the user can narrow the list by.
    fn schema(&self) -> Schema;

    /// Checks that go beyond one attribute. Values may be unknown.
    fn validate(&self, config: &Value) -> Diagnostics {
        let _ = config;
        Diagnostics::new()
    }

    /// Lists at most `limit` objects.
    ///
    /// # Errors
    /// What the user should see instead of a list.
    fn list<'a>(
        &'a self,
        ctx: &'a Ctx<C>,
        config: Value,
        limit: usize,
    ) -> Pending<'a, Result<Vec<Listed>, Diagnostics>>;
}

/// One object of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What users know it by.
    pub display_name: String,
    /// Its state, as a read would give it. Its identity is taken from it.
    pub state: Value,
}
