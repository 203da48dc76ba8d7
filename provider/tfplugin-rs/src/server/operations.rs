//! What surrounds every operation: the guard against panics, and the rules about which state may leave.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::redact::redact;
use crate::{
    diagnostics::{Diagnostic, Diagnostics},
    plan::consistency,
    resource::{Ctx, Outcome, Private},
    schema::Schema,
    value::Value,
};

/// Runs an operation on a task of its own: a panic in it ends the task and not the process, and a caller that goes away
/// does not cut it short.
pub(super) async fn guarded<T: Send + 'static>(
    what: &str,
    operation: impl Future<Output = T> + Send + 'static,
) -> Result<T, Diagnostic> {
    tokio::spawn(operation).await.map_err(|failure| {
        let message = match failure.try_into_panic() {
            Ok(payload) => match payload.downcast::<String>() {
                Ok(text) => *text,
                Err(payload) => payload.downcast::<&str>().map_or("no message".to_owned(), |text| (*text).to_owned()),
            },
            Err(failure) => failure.to_string(),
        };
        let message = redact(&message);
        Diagnostic::error(
            format!("The provider failed during {what}"),
            format!(
                "A bug in the provider ended the operation ({message}). What it had done until then is kept as far as it \
                 is known; please report this and check the object before you apply again."
            ),
        )
    })
}

/// Tells an operation that its caller is gone. A connection that breaks drops the call's future and with it this; an
/// operation that ends in time is [`Listening::heard`].
pub(super) struct Listening<C>(Option<Ctx<C>>);

impl<C> Listening<C> {
    pub(super) fn to(ctx: &Ctx<C>) -> Self {
        Self(Some(ctx.clone()))
    }

    pub(super) fn heard(mut self) {
        self.0 = None;
    }
}

impl<C> Drop for Listening<C> {
    fn drop(&mut self) {
        if let Some(ctx) = self.0.take() {
            ctx.abandon();
        }
    }
}

/// The state to save after an operation that was given `prior`.
///
/// An error never makes an object vanish: where an operation fails without knowing the object, the last known state
/// stands. Secrets and unknown values never leave.
pub(super) fn settle(
    schema: &Schema,
    type_name: &str,
    prior: &Value,
    planned: Option<&Value>,
    mut outcome: Outcome,
) -> Outcome {
    if outcome.diagnostics.has_errors() {
        if outcome.state.is_null() {
            outcome.state = prior.clone();
        }
    } else {
        let found = match planned {
            Some(planned) if !planned.is_null() => consistency::apply(schema, planned, &outcome.state),
            _ => consistency::state(schema, &outcome.state),
        };
        outcome.diagnostics.extend(consistency::report(type_name, "change", found));
    }
    outcome.state = schema.without_write_only(&outcome.state.without_unknowns());
    outcome
}

/// The outcome of an operation that a bug ended.
pub(super) fn salvage<C>(ctx: &Ctx<C>, prior: Value, private: Private, failure: Diagnostic) -> Outcome {
    let (state, private) = ctx.best_known().unwrap_or((prior, private));
    Outcome { state, private, diagnostics: Diagnostics::from(failure) }
}

/// Ctrl-C for the operations that run now. A provider that is attached to outlives a command, so operations that begin
/// later get a fresh token.
#[derive(Default)]
pub(super) struct StopSwitch(Mutex<CancellationToken>);

impl StopSwitch {
    pub(super) fn token(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).child_token()
    }

    pub(super) fn stop(&self) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *current).cancel();
    }
}
