//! The life of any resource: declare, wait, read back, change, remove, import.
//!
//! **Whose object is it?** A create demands that the object does not exist, and stamps it with a claim: a digest over
//! type, name and declaration, kept as an annotation until the create has come to its end. If Terraform or the provider is
//! killed in between, the state knows nothing, but the next create finds an object with its own claim and takes it up where
//! it was. An object without that claim is somebody else's, and the answer is "import it". Once the create has ended the
//! claim is removed, so that a second configuration with the same text cannot take the object over.
//!
//! **What if the wait ends early?** An error on create would make Terraform taint the object: the next apply would destroy
//! it and start over. So a create whose wait ends early succeeds with a warning and leaves a note in the private state.
//! While the note is there and the engine is not done, every plan shows the resource as to be changed, and the apply goes
//! on waiting; on that path, too, nothing is tainted, and time running out is an error. What the engine has given up
//! (verdict *stuck*) is an error at once, on create as well: there is nothing to go on with.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tfplugin::{
    Apply as ApplyRequest, Ctx, Diagnostic, Diagnostics, IdentitySchema, Imported, Named, Outcome, Pending, Private,
    Read, Resource, Schema, Type, Value,
    plan::{Change, Plan, empty_object},
};
use vmetal_api::{Annotate, ApiError, Apply, Client, Following, Precondition, Resource as ModelResource};
use vmetal_model::{Uid, Validate};

use crate::{
    errand::errand,
    explain::{circumstances, exists, invalid, refused, span, title},
    held::{self, Parting, Removal},
    kind::{Declaration, Kind, Verdict},
    provider::{Engine, Run},
    wait::{Ended, Wait},
};

/// The annotation that marks an object whose create has not come to its end.
pub(crate) const CLAIM: &str = "vmetal.io/terraform-claim";
/// The private note that an apply is not finished.
pub(crate) const WAITING: &str = "waiting";
/// How often a change is tried again when somebody else changes the object at the same time.
const TRIES: usize = 5;

/// What `wait_for` says where nothing is to be waited for.
const NOTHING: &str = "none";

/// An object as it was declared, and what becomes of it where that is followed.
type Made<O> = (O, Option<Following<O>>);

/// A resource type.
pub(crate) struct Managed<K> {
    /// Made when it is first needed, and once: every validation needs it.
    schema: OnceLock<Schema>,
    kind: PhantomData<K>,
}

/// What is being done; decides how an unfinished wait is told.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Create,
    Update,
}

impl<K: Kind> Managed<K> {
    fn shape(&self) -> &Schema {
        self.schema.get_or_init(K::schema)
    }

    pub(crate) fn register() -> Named<dyn Resource<Engine>> {
        (K::TYPE, Arc::new(Self { schema: OnceLock::new(), kind: PhantomData }))
    }

    async fn make(ctx: &Ctx<Engine>, request: &ApplyRequest) -> Result<Outcome, Diagnostics> {
        let run = ctx.client()?.run()?;
        let client = &run.client;
        let timeouts = K::TIMEOUTS.with(request.planned.attr("timeouts"));
        let mut planned = request.planned.clone();
        K::supply(client, &mut planned).await?;
        let apply = Self::to_apply(&planned, &request.config)?;
        let made = if wait_for::<K>(&planned) == NOTHING {
            (Self::declare(ctx, client, apply, timeouts.create).await?, None)
        } else {
            let follow = |apply| client.apply_and_follow(apply);
            let (object, news) = Self::declare_by(ctx, client, apply, timeouts.create, follow).await?;
            (object, Some(news))
        };
        Ok(Self::finish(ctx, run, made, planned, Private::default(), timeouts.create, Step::Create).await)
    }

    /// Makes a new object, stamped, or finds the one that an apply of the same declaration made before it was cut off.
    pub(crate) async fn declare(
        ctx: &Ctx<Engine>,
        client: &Client,
        apply: Apply,
        within: Duration,
    ) -> Result<K::Object, Diagnostics> {
        Self::declare_by(ctx, client, apply, within, |apply| client.apply_as(apply)).await
    }

    /// The same by a call of the caller's choice.
    async fn declare_by<T, Made>(
        ctx: &Ctx<Engine>,
        client: &Client,
        mut apply: Apply,
        within: Duration,
        make: impl Fn(Apply) -> Made + Send + Sync,
    ) -> Result<T, Diagnostics>
    where
        Made: Future<Output = Result<T, ApiError>> + Send,
    {
        let name = apply.name.clone();
        let claim = claim(&apply);
        apply.annotations.insert(CLAIM.to_owned(), claim.clone());
        apply.precondition = Precondition::MustNotExist;
        let doing = format!("creating {}", title::<K>(&name));
        for _ in 0..TRIES {
            match make(apply.clone()).await {
                Ok(made) => return Ok(made),
                Err(ApiError::AlreadyExists { .. }) => {}
                Err(error) => return Err(refused::<K>(&doing, error)),
            }
            let existing = client.get_as::<K::Object>(&name).await.map_err(|e| refused::<K>(&doing, e))?;
            // Gone in between: try again.
            let Some(existing) = existing else { continue };
            let found = &existing.object().metadata;
            if found.deleted.is_some() {
                ctx.progress(&format!("{} of the same name is still being removed; waiting", title::<K>(&name)));
                Self::removed(ctx, client, &name, &found.uid, within).await?;
            } else if found.annotations.get(CLAIM) == Some(&claim) {
                ctx.progress(&format!("{} was made by an apply that was cut off; going on with it", title::<K>(&name)));
                let again = Apply { precondition: Precondition::Uid(found.uid.clone()), ..apply.clone() };
                return make(again).await.map_err(|e| refused::<K>(&doing, e));
            } else {
                return Err(exists::<K>(&name, &found.uid.0).into());
            }
        }
        Err(Diagnostic::error(
            format!("The {} cannot be created", title::<K>(&name)),
            "Somebody else keeps creating and deleting an object of this name. Agree on who owns it, then apply again.",
        )
        .into())
    }

    async fn change(ctx: &Ctx<Engine>, request: &ApplyRequest) -> Result<Outcome, Diagnostics> {
        let run = ctx.client()?.run()?;
        let client = &run.client;
        let name = name_of(&request.planned);
        let doing = format!("changing {}", title::<K>(&name));
        let uid = uid_of(&request.prior);
        let found = client.get(K::Object::KIND, &name).await.map_err(|e| refused::<K>(&doing, e))?;
        let Some(found) = found.filter(|found| found.metadata.uid == uid) else {
            return Err(Diagnostic::error(
                format!("The {} is gone", title::<K>(&name)),
                "It was deleted after Terraform last looked. Run terraform apply again: the new plan will create it.",
            )
            .into());
        };
        let mut planned = request.planned.clone();
        K::supply(client, &mut planned).await?;
        let mut apply = Self::to_apply(&planned, &request.config)?;
        // What was sent in full once is sent again when the user says that it is another one. What the engine was given in the
        // meantime by other means, as a new BMC password is, must not be undone by a change of something else.
        let version = K::secrets_version(&planned);
        let unfinished = request.private.get(WAITING).is_some();
        if !unfinished && !version.is_null() && version == K::secrets_version(&request.prior) {
            apply.secrets.clear();
        }
        // Annotations are not managed here: whoever wrote them keeps them.
        apply.annotations = found.metadata.annotations;
        apply.precondition = Precondition::Uid(uid);
        let (object, news) = client.apply_and_follow(apply).await.map_err(|e| refused::<K>(&doing, e))?;
        let timeouts = K::TIMEOUTS.with(request.planned.attr("timeouts"));
        let private = request.private.clone();
        Ok(Self::finish(ctx, run, (object, Some(news)), planned, private, timeouts.update, Step::Update).await)
    }

    fn to_apply(planned: &Value, config: &Value) -> Result<Apply, Diagnostics> {
        let Declaration { spec, labels } = K::declare(planned)?;
        let mut apply = Apply::new::<K::Object>(name_of(planned), &spec)
            .map_err(|e| Diagnostic::error("The declaration cannot be sent", e.to_string()))?
            .labels(labels);
        apply.secrets = K::secrets(config);
        Ok(apply)
    }

    /// Waits for what the user wants to wait for, and says how it ended.
    async fn finish(
        ctx: &Ctx<Engine>,
        run: &Run,
        (object, news): Made<K::Object>,
        planned: Value,
        mut private: Private,
        within: Duration,
        step: Step,
    ) -> Outcome {
        let client = &run.client;
        let (name, uid) = (name_of(&planned), object.object().metadata.uid.clone());
        let wait_for = wait_for::<K>(&planned);
        let state_of = |object: &K::Object| {
            let mut state = planned.without_unknowns();
            state.set("id", object.object().metadata.uid.0.clone());
            K::observe(&mut state, object);
            state
        };
        private.set(WAITING, wait_for.clone());
        ctx.checkpoint(state_of(&object), private.clone());
        let ended = match K::judge(&object, &wait_for) {
            Verdict::Done => Ended::Done(Box::new(object)),
            _ => {
                let wait = Wait { client, name: &name, uid: &uid, within, cancelled: ctx.cancelled() };
                let told = |what: &str| ctx.progress(&format!("{}: {what}", title::<K>(&name)));
                match wait.until_from(news, |seen| K::judge(seen, &wait_for), told).await {
                    // What was made is the last thing seen if nothing else was.
                    Ended::Cancelled(last) => Ended::Cancelled(last.or(Some(Box::new(object)))),
                    Ended::Deadline(last) => Ended::Deadline(last.or(Some(Box::new(object)))),
                    Ended::Refused(last, error) => Ended::Refused(last.or(Some(Box::new(object))), error),
                    other => other,
                }
            }
        };
        let title = title::<K>(&name);
        let unfinished = |why: String| match step {
            Step::Create => Diagnostic::warning(format!("The {title} is not finished yet"), why),
            Step::Update => Diagnostic::error(format!("The {title} is not finished yet"), why),
        };
        match ended {
            Ended::Done(object) => {
                private.remove(WAITING);
                Self::release_claim(ctx, run, &object);
                Outcome::new(state_of(&object), private)
            }
            Ended::Gone => Outcome::gone().with(Diagnostic::error(
                format!("The {title} was deleted by somebody else"),
                "It disappeared while Terraform waited for it. Apply again to create it anew.",
            )),
            Ended::Stuck(object, failure) => {
                let mut detail = circumstances::<K>(client, &object, Some(&failure)).await;
                if step == Step::Create {
                    detail.push_str(&tainted::<K>());
                }
                Outcome::new(state_of(&object), private).with(Diagnostic::error(format!("The {title} failed"), detail))
            }
            Ended::Cancelled(last) => {
                let state = last.as_ref().map_or_else(|| planned.without_unknowns(), |object| state_of(object));
                let why = "You asked Terraform to stop. The engine goes on with it by itself, and the object is saved. Run \
                           terraform apply again to go on waiting, or terraform destroy to give it up.";
                if let Some(last) = &last {
                    Self::release_claim(ctx, run, last);
                }
                Outcome::new(state, private).with(unfinished(why.to_owned()))
            }
            Ended::Deadline(last) => {
                let state = last.as_ref().map_or_else(|| planned.without_unknowns(), |object| state_of(object));
                let said = match &last {
                    Some(object) => circumstances::<K>(client, object, None).await,
                    None => "The engine has said nothing about it.".to_owned(),
                };
                let why = format!(
                    "It was not {wait_for} within {}. The engine goes on with it by itself, and the object is saved. Run \
                     terraform apply again to go on waiting (raise timeouts if this is normal here).\n\n{said}",
                    span(within)
                );
                if let Some(last) = &last {
                    Self::release_claim(ctx, run, last);
                }
                Outcome::new(state, private).with(unfinished(why))
            }
            Ended::Refused(last, error) => {
                let state = last.map_or_else(|| planned.without_unknowns(), |object| state_of(&object));
                let told: Vec<_> = refused::<K>(&format!("waiting for {title}"), error).into_iter().collect();
                let why: Vec<_> = told.into_iter().map(|d| format!("{}. {}", d.summary, d.detail)).collect();
                Outcome::new(state, private).with(unfinished(why.join("\n")))
            }
        }
    }

    /// The create has come to its end: from now on the object can only be had by import. Not so when Terraform is gone:
    /// then nobody will store what was made, and the next create must find it. Nobody waits for it.
    pub(crate) fn release_claim(ctx: &Ctx<Engine>, run: &Run, last: &K::Object) {
        let metadata = &last.object().metadata;
        if ctx.is_abandoned() || !metadata.annotations.contains_key(CLAIM) {
            return;
        }
        let (client, name, uid) = (run.client.clone(), metadata.name.clone(), Some(metadata.uid.clone()));
        let remove = vec![CLAIM.to_owned()];
        let released = Annotate { kind: K::Object::KIND, name, uid, set: BTreeMap::new(), remove };
        run.afterwards.spawn(async move {
            match client.annotate(&released).await {
                // Or it is gone already, perhaps with another of its name in its place.
                Ok(()) | Err(ApiError::NotFound { .. } | ApiError::Conflict { .. }) => {}
                // The object is made and saved; a claim that stays can only be met by the very same configuration.
                Err(error) => tracing::warn!(%error, name = released.name, "the claim could not be removed"),
            }
        });
    }

    async fn removed(
        ctx: &Ctx<Engine>,
        client: &Client,
        name: &str,
        uid: &Uid,
        within: Duration,
    ) -> Result<(), Diagnostics> {
        let wait = Wait { client, name, uid, within, cancelled: ctx.cancelled() };
        let title = title::<K>(name);
        let told = |what: &str| ctx.progress(&format!("{title}: {what}"));
        let unfinished = |why: String| Diagnostic::error(format!("The {title} is not removed yet"), why);
        match wait.gone::<K::Object>(K::doing, told).await {
            Ended::Gone | Ended::Done(_) => Ok(()),
            Ended::Cancelled(_) => Err(unfinished(
                "You asked Terraform to stop. The engine goes on removing it by itself; run the same command again to wait \
                 for it."
                    .to_owned(),
            )
            .into()),
            Ended::Stuck(last, _) | Ended::Deadline(Some(last)) => {
                let said = circumstances::<K>(client, &last, None).await;
                let why = format!(
                    "It is still there after {}. The engine goes on removing it by itself; run the same command again to \
                     wait for it.\n\n{said}",
                    span(within)
                );
                Err(unfinished(why).into())
            }
            Ended::Deadline(None) => {
                Err(unfinished(format!("The engine has said nothing about it for {}.", span(within))).into())
            }
            Ended::Refused(_, error) => Err(refused::<K>(&format!("removing {title}"), error)),
        }
    }

    async fn look(ctx: &Ctx<Engine>, request: &Read) -> Result<Outcome, Diagnostics> {
        let run = ctx.client()?.run()?;
        let name = name_of(&request.state);
        let doing = format!("reading {}", title::<K>(&name));
        let found = run.reads.read::<K::Object>(&run.client, &name).await.map_err(|e| refused::<K>(&doing, e))?;
        let Some(object) = found else { return Ok(Outcome::gone()) };
        let metadata = &object.object().metadata;
        let known = uid_of(&request.state);
        if !known.0.is_empty() && metadata.uid != known {
            return Ok(Outcome::gone().with(Diagnostic::warning(
                format!("The {} is another one now", title::<K>(&name)),
                format!(
                    "The one that Terraform made (id {known}) is gone; the engine has one of the same name with id {}. To \
                     manage that one, import it.",
                    metadata.uid
                ),
            )));
        }
        let mut state = request.state.clone();
        Self::describe(&mut state, &object);
        let mut private = request.private.clone();
        if K::judge(&object, &wait_for::<K>(&state)) == Verdict::Done {
            private.remove(WAITING);
        }
        let outcome = Outcome::new(state, private);
        if metadata.deleted.is_none() {
            return Ok(outcome);
        }
        Ok(outcome.with(Diagnostic::warning(
            format!("The {} is being removed", title::<K>(&name)),
            "Somebody asked the engine to delete it; it stays until its release is complete. Changes will be refused.",
        )))
    }

    pub(crate) fn describe(state: &mut Value, object: &K::Object) {
        let metadata = &object.object().metadata;
        state.set("id", metadata.uid.0.clone());
        state.set("name", metadata.name.clone());
        K::observe(state, object);
        K::recall(state, object);
    }

    /// Removes the object; answers with what there is to tell where it is gone from the state.
    async fn remove(ctx: &Ctx<Engine>, request: &Read) -> Result<Diagnostics, Diagnostics> {
        let client = ctx.client()?.client()?;
        let (name, uid) = (name_of(&request.state), uid_of(&request.state));
        let within = K::TIMEOUTS.with(request.state.attr("timeouts")).delete;
        let asked = client.delete(K::Object::KIND, &name, Some(&uid)).await;
        let _place = match asked {
            Ok(None) => return Ok(Diagnostics::new()),
            // Another object of that name: ours is gone.
            Err(ApiError::Conflict { .. }) => return Ok(Diagnostics::new()),
            Ok(Some(_)) => None,
            Err(error) => {
                let removal = Removal { ctx, client, name: &name, uid: &uid, private: &request.private, within };
                match K::refused(removal, error).await? {
                    Parting::Going(place) => place,
                    Parting::Later(told) => return Ok(told.into()),
                }
            }
        };
        Self::removed(ctx, client, &name, &uid, within).await.map(|()| Diagnostics::new())
    }

    async fn find(ctx: &Ctx<Engine>, id: &str) -> Result<Imported, Diagnostics> {
        let object = Self::lookup(ctx, id).await?;
        Ok(Imported { state: Self::adopted(&object), private: Private::default() })
    }

    /// The state of an object that Terraform has not managed so far.
    pub(crate) fn adopted(object: &K::Object) -> Value {
        let mut state = empty_object(&K::schema());
        if let Some(default) = K::WAIT_FOR {
            state.set("wait_for", default);
        }
        Self::describe(&mut state, object);
        state
    }

    /// The object with this name or id.
    pub(crate) async fn lookup(ctx: &Ctx<Engine>, id: &str) -> Result<K::Object, Diagnostics> {
        let client = ctx.client()?.client()?;
        let doing = format!("looking for {}", title::<K>(id));
        let by_name = client.get_as::<K::Object>(id).await.map_err(|e| refused::<K>(&doing, e))?;
        let object = match by_name {
            Some(object) => Some(object),
            None => {
                let all = client.list_as::<K::Object>(&BTreeMap::new()).await.map_err(|e| refused::<K>(&doing, e))?;
                all.into_iter().find(|object| object.object().metadata.uid.0 == id)
            }
        };
        object.ok_or_else(|| {
            Diagnostic::error(
                format!("There is no {}", title::<K>(id)),
                format!(
                    "The engine at {} has no {} with this name or id. Names are listed by: vmetal get {}",
                    client.endpoint(),
                    K::NOUN,
                    K::Object::KIND
                ),
            )
            .into()
        })
    }
}

impl<K: Kind> Resource<Engine> for Managed<K> {
    fn schema(&self) -> Schema {
        K::schema()
    }

    fn identity(&self) -> Option<IdentitySchema> {
        Some(IdentitySchema::new().required("name", Type::String, "The object's name."))
    }

    fn validate(&self, config: &Value) -> Diagnostics {
        let mut found = K::validate(config);
        // The engine's own rules, as far as all values are known. What does not even parse is reported by its attribute.
        let open = self.shape().without_write_only(config);
        if open.is_wholly_known()
            && let Ok(Declaration { spec, .. }) = K::declare(&open)
        {
            found.extend(spec.validate().iter().map(invalid::<K>));
        }
        found
    }

    fn plan<'a>(&'a self, ctx: &'a Ctx<Engine>, plan: &'a mut Plan) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            let mut told = K::warn(plan);
            if plan.change() == Change::Update && plan.replace.is_empty() && plan.private.get(WAITING).is_some() {
                plan.reopen(self.shape());
                told.push(Diagnostic::warning(
                    format!("The {} is not finished yet", title::<K>(&name_of(&plan.planned))),
                    "An earlier apply stopped waiting for it. This one goes on where that one stopped.",
                ));
            }
            let engine = ctx.client().ok().map(Arc::as_ref);
            told.extend(K::complete(engine, plan).await);
            if let Some(engine) = engine {
                if K::is_supply() && plan.prior != plan.planned {
                    engine.plan_supply();
                }
                if plan.change() == Change::Create {
                    told.extend(K::foresee(engine, plan).await);
                }
            }
            told
        })
    }

    fn plan_destroy<'a>(
        &'a self,
        _: &'a Ctx<Engine>,
        state: &'a Value,
        private: &'a mut Private,
    ) -> Pending<'a, Diagnostics> {
        held::note(errand(), private);
        Box::pin(async move { K::warn_destroy(state) })
    }

    fn create<'a>(&'a self, ctx: &'a Ctx<Engine>, request: ApplyRequest) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let made = Self::make(ctx, &request).await;
            made.unwrap_or_else(|diagnostics| Outcome { diagnostics, ..Outcome::gone() })
        })
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let seen = Self::look(ctx, &request).await;
            seen.unwrap_or_else(|diagnostics| Outcome { state: request.state, private: request.private, diagnostics })
        })
    }

    fn update<'a>(&'a self, ctx: &'a Ctx<Engine>, request: ApplyRequest) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let changed = Self::change(ctx, &request).await;
            changed.unwrap_or_else(|diagnostics| Outcome {
                state: request.prior,
                private: request.private,
                diagnostics,
            })
        })
    }

    fn delete<'a>(&'a self, ctx: &'a Ctx<Engine>, request: Read) -> Pending<'a, Outcome> {
        Box::pin(async move {
            match Self::remove(ctx, &request).await {
                Ok(diagnostics) => Outcome { diagnostics, ..Outcome::gone() },
                Err(diagnostics) => Outcome { state: request.state, private: request.private, diagnostics },
            }
        })
    }

    fn import<'a>(&'a self, ctx: &'a Ctx<Engine>, id: &'a str) -> Pending<'a, Result<Imported, Diagnostics>> {
        Box::pin(Self::find(ctx, id))
    }
}

fn name_of(value: &Value) -> String {
    value.attr("name").as_str().unwrap_or_default().to_owned()
}

fn uid_of(state: &Value) -> Uid {
    Uid(state.attr("id").as_str().unwrap_or_default().to_owned())
}

/// What Terraform makes of a create that failed, and how not to lose what the engine has gone on with.
fn tainted<K: Kind>() -> String {
    format!(
        "\n\nTerraform marks the resource as tainted: the next apply destroys it and begins anew. If the cause is mended and \
         the engine has gone on with this one, keep it: terraform untaint {}.<name>",
        K::TYPE
    )
}

fn wait_for<K: Kind>(state: &Value) -> String {
    let default = K::WAIT_FOR.unwrap_or("ready");
    state.attr("wait_for").as_str().unwrap_or(default).to_owned()
}

/// Names a create. The same configuration gives the same claim, whichever process asks.
pub(crate) fn claim(apply: &Apply) -> String {
    let mut digest = Sha256::new();
    for part in [apply.kind.as_str(), &apply.name, &apply.spec.to_string(), &format!("{:?}", apply.labels)] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    hex::encode(&digest.finalize()[..16])
}

#[cfg(test)]
mod tests;
