//! What one resource type has to say for itself; [`crate::managed`] does the rest.

use std::{collections::BTreeMap, time::Duration};

use tfplugin::{Attribute, Diagnostic, Diagnostics, Pending, Schema, Value, plan::Plan};
use vmetal_api::{ApiError, Client, Resource, Secrets};
use vmetal_model::{Failure, Validate};

use crate::{
    held::{Parting, Removal},
    provider::Engine,
    timeouts::Timeouts,
};

/// How a Terraform resource type maps to a kind of the model.
pub(crate) trait Kind: Sized + Send + Sync + 'static {
    /// The model's object.
    type Object: Resource<Spec: Validate>;

    /// The resource type, `vmetal_host`.
    const TYPE: &'static str;
    /// What users call it, `host`.
    const NOUN: &'static str;
    /// How long operations wait unless the user says otherwise.
    const TIMEOUTS: Timeouts;
    /// The default of `wait_for`; what it means is up to [`Kind::judge`]. `None` where there is nothing to choose.
    const WAIT_FOR: Option<&'static str>;

    /// The attributes.
    fn schema() -> Schema;

    /// Checks that need more than one attribute, beyond the model's own.
    fn validate(config: &Value) -> Diagnostics {
        let _ = config;
        Diagnostics::new()
    }

    /// The declaration, from a wholly known plan (or configuration).
    fn declare(planned: &Value) -> Result<Declaration<<Self::Object as Resource>::Spec>, Diagnostic>;

    /// The write-only values, by the engine's names.
    fn secrets(config: &Value) -> Secrets {
        let _ = config;
        Secrets::new()
    }

    /// What the user changes together with the write-only values; null where they do not say.
    fn secrets_version(state: &Value) -> &Value {
        let _ = state;
        &Value::Null
    }

    /// Writes what the engine found into the computed attributes.
    fn observe(state: &mut Value, object: &Self::Object);

    /// What only those see who look at the object without managing it: facts that are many. Terraform encodes its whole state
    /// after each resource, so that a run over a thousand resources takes time with the square of what each keeps.
    fn seen_also() -> Vec<(&'static str, Attribute)> {
        Vec::new()
    }

    /// Writes what [`Kind::seen_also`] names.
    fn see_also(state: &mut Value, object: &Self::Object) {
        let _ = (state, object);
    }

    /// Writes what the engine was told into the configurable attributes, keeping spellings that mean the same.
    fn recall(state: &mut Value, object: &Self::Object);

    /// How far the object is on the way to what `wait_for` asks for.
    fn judge(object: &Self::Object, wait_for: &str) -> Verdict;

    /// What the engine is doing with it, in a few words.
    fn doing(object: &Self::Object) -> String;

    /// The failure the engine shows, if any.
    fn failure(object: &Self::Object) -> Option<&Failure>;

    /// What the user should be told before a plan is carried out.
    fn warn(plan: &Plan) -> Diagnostics {
        let _ = plan;
        Diagnostics::new()
    }

    /// Whether tenant nodes choose from such objects: a plan that changes them cannot know what will be chosen.
    fn is_supply() -> bool {
        false
    }

    /// What the engine foresees for an object that is to be made.
    fn foresee<'a>(engine: &'a Engine, plan: &'a Plan) -> Pending<'a, Diagnostics> {
        let _ = (engine, plan);
        Box::pin(async { Diagnostics::new() })
    }

    /// What is done about a removal that the engine refuses.
    fn refused<'a>(removal: Removal<'a>, error: ApiError) -> Pending<'a, Result<Parting, Diagnostics>> {
        Box::pin(removal.of_used::<Self>(error))
    }

    /// Completes a plan with what can be computed here, and tells what there is to tell of it. The engine is not known while the
    /// provider's configuration is not.
    fn complete<'a>(engine: Option<&'a Engine>, plan: &'a mut Plan) -> Pending<'a, Diagnostics> {
        let _ = (engine, plan);
        Box::pin(async { Diagnostics::new() })
    }

    /// Hands the engine what it must have before the declaration, and puts into the plan what was left open for that.
    fn supply<'a>(client: &'a Client, planned: &'a mut Value) -> Pending<'a, Result<(), Diagnostics>> {
        let _ = (client, planned);
        Box::pin(async { Ok(()) })
    }

    /// What the user should be told before a destruction.
    fn warn_destroy(state: &Value) -> Diagnostics {
        let _ = state;
        Diagnostics::new()
    }

    /// Facts that help to find the thing: `BMC redfish://...`.
    fn whereabouts(object: &Self::Object) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// The attribute that a field of the model is set by, where the names differ.
    fn attribute_of(field: &str) -> Option<&'static str> {
        let _ = field;
        None
    }
}

/// What the user wants.
pub(crate) struct Declaration<S> {
    pub(crate) spec: S,
    pub(crate) labels: BTreeMap<String, String>,
}

/// How far an object is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// There.
    Done,
    /// On its way; in a few words, what is going on.
    Going(String),
    /// Not on its way, and unless that changes within the time given it counts as [`Verdict::Stuck`].
    Doubtful(Failure, Duration),
    /// The engine has given up until somebody helps.
    Stuck(Failure),
}
