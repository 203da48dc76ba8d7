//! What an author of a provider writes: a [`Provider`] and its [`Resource`]s.
//!
//! The server around them keeps three promises so that the authors need not think of them:
//! * a panic or a malformed message becomes a diagnostic, and the state that is saved is the best one known
//!   (the last [`Ctx::checkpoint`], else the prior state);
//! * Ctrl-C reaches every running operation through [`Ctx::cancelled`], and only the running ones;
//! * write-only values are in [`Plan::config`](crate::plan::Plan) and in apply requests, and nowhere else.
//!
//! Nothing is cancelled by dropping a future: an operation runs to its own end even if its caller is gone.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map as JsonMap, Value as Json};
use tokio_util::sync::CancellationToken;

use crate::{
    action::Action,
    data_source::DataSource,
    diagnostics::{Diagnostic, Diagnostics},
    ephemeral::Ephemeral,
    function::Function,
    identity::IdentitySchema,
    list::Lister,
    plan::Plan,
    schema::Schema,
    value::Value,
};

/// A future that borrows its arguments, so that traits with async methods can be used as objects.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something a provider offers, and its name.
pub type Named<T> = (&'static str, Arc<T>);

/// A provider: its configuration and what it offers.
pub trait Provider: Send + Sync + 'static {
    /// What a configured provider gives its resources, typically an API client. Built anew by every configuration, so
    /// that nothing leaks from one into the next.
    type Client: Send + Sync + 'static;

    /// The short name, such as `vmetal`; resource types begin with it.
    fn name(&self) -> &str;

    /// The provider's own configuration.
    fn schema(&self) -> Schema;

    /// Checks that go beyond one attribute. Values may be unknown.
    fn validate(&self, config: &Value) -> Diagnostics {
        let _ = config;
        Diagnostics::new()
    }

    /// Makes the client. Must not need the network (connect on first use) and must not fail because a value is unknown:
    /// at plan time it may be.
    ///
    /// # Errors
    /// What the user should see.
    fn configure(&self, config: &Value) -> Result<Self::Client, Diagnostics>;

    /// The resources by full type name.
    fn resources(&self) -> Vec<Named<dyn Resource<Self::Client>>>;

    /// The data sources by full type name.
    fn data_sources(&self) -> Vec<Named<dyn DataSource<Self::Client>>> {
        Vec::new()
    }

    /// The ephemeral resources by full type name.
    fn ephemerals(&self) -> Vec<Named<dyn Ephemeral<Self::Client>>> {
        Vec::new()
    }

    /// The lists, by the full type name of the resource that they list.
    fn lists(&self) -> Vec<Named<dyn Lister<Self::Client>>> {
        Vec::new()
    }

    /// The actions by full type name.
    fn actions(&self) -> Vec<Named<dyn Action<Self::Client>>> {
        Vec::new()
    }

    /// Called before the process ends, when Terraform has said goodbye: a moment for what nobody waited for. Terraform kills a
    /// provider that is still there two seconds after it was asked to end.
    fn finish<'a>(&'a self, client: &'a Self::Client) -> Pending<'a, ()> {
        let _ = client;
        Box::pin(async {})
    }

    /// The functions by name, without the provider's.
    fn functions(&self) -> Vec<Named<dyn Function>> {
        Vec::new()
    }
}

/// One kind of managed resource.
///
/// Every method that talks to the outside answers with diagnostics *and* the state it knows; see [`Outcome`].
pub trait Resource<C: Send + Sync + 'static>: Send + Sync + 'static {
    /// Its attributes.
    fn schema(&self) -> Schema;

    /// Checks that go beyond one attribute. Values may be unknown.
    fn validate(&self, config: &Value) -> Diagnostics {
        let _ = config;
        Diagnostics::new()
    }

    /// Refines the plan the schema gives. Must be deterministic: it is asked again during apply.
    fn plan<'a>(&'a self, ctx: &'a Ctx<C>, plan: &'a mut Plan) -> Pending<'a, Diagnostics> {
        let _ = (ctx, plan);
        Box::pin(async { Diagnostics::new() })
    }

    /// Called before an object is destroyed, when the destruction is planned: a place for warnings, and for notes that the
    /// destruction will read. Notes of a plan that is never carried out are not kept.
    fn plan_destroy<'a>(
        &'a self,
        ctx: &'a Ctx<C>,
        state: &'a Value,
        private: &'a mut Private,
    ) -> Pending<'a, Diagnostics> {
        let _ = (ctx, state, private);
        Box::pin(async { Diagnostics::new() })
    }

    /// Makes the object.
    ///
    /// An error diagnostic taints what is returned: Terraform will destroy and remake it. A null state with an error
    /// means that nothing was made.
    fn create<'a>(&'a self, ctx: &'a Ctx<C>, request: Apply) -> Pending<'a, Outcome>;

    /// Reads the object; a null state when it is gone.
    fn read<'a>(&'a self, ctx: &'a Ctx<C>, request: Read) -> Pending<'a, Outcome>;

    /// Changes the object in place. An error does not taint.
    fn update<'a>(&'a self, ctx: &'a Ctx<C>, request: Apply) -> Pending<'a, Outcome>;

    /// Destroys the object; a null state when it is gone, the state that is left otherwise.
    fn delete<'a>(&'a self, ctx: &'a Ctx<C>, request: Read) -> Pending<'a, Outcome>;

    /// Finds the object that `id` names. The state need not be complete: a read follows.
    fn import<'a>(&'a self, ctx: &'a Ctx<C>, id: &'a str) -> Pending<'a, Result<Imported, Diagnostics>>;

    /// What its objects are known by for ever; `None` when there is nothing but the id. The values are the attributes of the
    /// same names in the state.
    fn identity(&self) -> Option<IdentitySchema> {
        None
    }

    /// Finds the object that an identity names. The default imports by the value of the one required attribute.
    fn import_identity<'a>(
        &'a self,
        ctx: &'a Ctx<C>,
        identity: &'a Value,
    ) -> Pending<'a, Result<Imported, Diagnostics>> {
        Box::pin(async move {
            let named = identity.as_map().into_iter().flatten().filter(|(_, value)| value.is_known());
            match named.map(|(_, value)| value.as_str()).collect::<Vec<_>>().as_slice() {
                [Some(id)] => self.import(ctx, id).await,
                _ => Err(Diagnostic::error(
                    "The object cannot be found by this identity",
                    "This resource imports by one attribute of its identity, or by id.",
                )
                .into()),
            }
        })
    }

    /// Turns a stored identity of an older version into the current shape.
    ///
    /// # Errors
    /// What the user should see.
    fn upgrade_identity(&self, version: i64, identity: Json) -> Result<Json, Diagnostic> {
        let _ = version;
        Ok(identity)
    }

    /// Turns a stored state of an older schema version into the current shape. Attributes the schema no longer has are
    /// dropped afterwards, so the default (change nothing) is right for every addition and removal.
    ///
    /// # Errors
    /// What the user should see.
    fn upgrade(&self, version: i64, state: Json) -> Result<Json, Diagnostic> {
        let _ = version;
        Ok(state)
    }
}

/// A create or an update.
#[derive(Clone, Debug)]
pub struct Apply {
    /// What the user wrote; write-only values included.
    pub config: Value,
    /// The object as last read; null on create.
    pub prior: Value,
    /// The object as promised by the plan.
    pub planned: Value,
    /// The provider's own notes.
    pub private: Private,
}

/// A read or a delete.
#[derive(Clone, Debug)]
pub struct Read {
    /// The object as last known.
    pub state: Value,
    /// The provider's own notes.
    pub private: Private,
}

/// The object after an operation, and what to tell the user about it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The object as best known; null when there is none.
    pub state: Value,
    /// The provider's own notes for next time.
    pub private: Private,
    /// Errors and warnings.
    pub diagnostics: Diagnostics,
}

impl Outcome {
    /// The object, without anything to say.
    pub fn new(state: Value, private: Private) -> Self {
        Self { state, private, diagnostics: Diagnostics::new() }
    }

    /// No object.
    pub fn gone() -> Self {
        Self::default()
    }

    /// Adds a message.
    #[must_use]
    pub fn with(mut self, diagnostic: Diagnostic) -> Self {
        self.diagnostics.push(diagnostic);
        self
    }
}

/// An imported object.
#[derive(Clone, Debug)]
pub struct Imported {
    /// As much of its state as is known.
    pub state: Value,
    /// The provider's own notes.
    pub private: Private,
}

/// Notes a provider keeps with an object and never shows. Stored as JSON in the state file: not a place for secrets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Private(JsonMap<String, Json>);

impl Private {
    /// Reads what [`Private::to_bytes`] wrote; anything else (another provider's notes, a truncated file) reads as empty.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).map(Self).unwrap_or_default()
    }

    /// The bytes to store; none at all when there are no notes.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.0.is_empty() { Vec::new() } else { Json::Object(self.0.clone()).to_string().into_bytes() }
    }

    /// A note.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Json::as_str)
    }

    /// Leaves a note.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_owned(), Json::String(value.into()));
    }

    /// Removes a note.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

/// What an operation has at hand: the client, the user's Ctrl-C, and a place to leave what it knows.
#[derive(Debug)]
pub struct Ctx<C> {
    client: Option<Arc<C>>,
    cancelled: CancellationToken,
    abandoned: CancellationToken,
    best_known: Arc<Mutex<Option<(Value, Private)>>>,
}

impl<C> Clone for Ctx<C> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            cancelled: self.cancelled.clone(),
            abandoned: self.abandoned.clone(),
            best_known: Arc::clone(&self.best_known),
        }
    }
}

impl<C> Ctx<C> {
    /// For the server, and for tests that call a resource directly.
    pub fn new(client: Option<Arc<C>>, cancelled: CancellationToken) -> Self {
        Self { client, cancelled, abandoned: CancellationToken::new(), best_known: Arc::default() }
    }

    /// The configured client.
    ///
    /// # Errors
    /// A diagnostic if the provider was never configured.
    pub fn client(&self) -> Result<&Arc<C>, Diagnostic> {
        self.client.as_ref().ok_or_else(|| {
            Diagnostic::error(
                "The provider is not configured",
                "Terraform asked for an operation before it configured the provider. Please report this.",
            )
        })
    }

    /// Fires when the user asks to stop, or when nobody listens any more. Waiting should end then; what is known should be
    /// returned.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Whether the caller went away (Terraform was killed): the answer will not be stored. What the operation has made must
    /// then stay recognisable for the next one.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }

    pub(crate) fn abandon(&self) {
        self.abandoned.cancel();
        self.cancelled.cancel();
    }

    /// Remembers the best known state. If the operation never returns because of a bug, this is what is saved.
    pub fn checkpoint(&self, state: Value, private: Private) {
        *self.best_known.lock().unwrap_or_else(PoisonError::into_inner) = Some((state, private));
    }

    /// Says how far a long operation is. Seen in the provider's log (`TF_LOG_PROVIDER=info`).
    pub fn progress(&self, message: &str) {
        tracing::info!(target: "provider", "{message}");
    }

    pub(crate) fn best_known(&self) -> Option<(Value, Private)> {
        self.best_known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_storage() {
        let mut notes = Private::default();
        assert!(notes.to_bytes().is_empty());
        notes.set("claim", "abc");
        let again = Private::from_bytes(&notes.to_bytes());
        assert_eq!(again.get("claim"), Some("abc"));
        assert_eq!(Private::from_bytes(b"\xff not json"), Private::default());
    }
}
