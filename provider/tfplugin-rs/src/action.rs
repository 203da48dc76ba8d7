//! Actions: things to do that leave no state, such as a power cycle (Terraform 1.14 and later).

use tokio::sync::mpsc;

use crate::{
    diagnostics::Diagnostics,
    resource::{Ctx, Pending},
    schema::Schema,
    value::Value,
};

/// One kind of action.
pub trait Action<C: Send + Sync + 'static>: Send + Sync + 'static {
    /// Its attributes.
    fn schema(&self) -> Schema;

    /// Checks that go beyond one attribute. Values may be unknown.
    fn validate(&self, config: &Value) -> Diagnostics {
        let _ = config;
        Diagnostics::new()
    }

    /// Called when the action is planned: a place for warnings. Must change nothing. Values may be unknown.
    fn plan<'a>(&'a self, ctx: &'a Ctx<C>, config: Value) -> Pending<'a, Diagnostics> {
        let _ = (ctx, config);
        Box::pin(async { Diagnostics::new() })
    }

    /// Does it, and says how far it is. An error ends the apply.
    fn invoke<'a>(&'a self, ctx: &'a Ctx<C>, config: Value, progress: Progress) -> Pending<'a, Diagnostics>;
}

/// Where an action says how far it is. What nobody listens to any more is lost.
#[derive(Clone, Debug)]
pub struct Progress(mpsc::UnboundedSender<String>);

impl Progress {
    /// For the server, and for tests that invoke an action directly.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Shows one line to the user.
    pub fn say(&self, message: impl Into<String>) {
        // A closed channel means that Terraform is gone; the action goes on to its end.
        let _ = self.0.send(message.into());
    }
}
