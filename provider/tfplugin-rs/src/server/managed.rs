//! Managed resources: typed requests to the author's code, and what may leave of its answers.

use std::sync::Arc;

use super::{
    operations::{Listening, guarded, salvage, settle},
    provider::ProviderService,
    registry::decode,
};
use crate::{
    codec,
    diagnostics::{Diagnostic, Diagnostics},
    plan::{self, consistency},
    resource::{Apply, Outcome, Private, Provider, Read, Resource},
    value::Value,
    wire,
};

impl<P: Provider> ProviderService<P> {
    pub(super) async fn validate_resource(
        &self,
        request: wire::ValidateResourceConfigRequest,
    ) -> Result<Diagnostics, Diagnostic> {
        let found = self.inner.resources.find(&request.type_name)?;
        let (config, mut diagnostics) = found.checked(request.config.as_ref())?;
        let knows_write_only = request.client_capabilities.is_some_and(|c| c.write_only_attributes_allowed);
        if !knows_write_only {
            diagnostics.extend(found.schema.write_only_paths(&config).into_iter().map(|path| {
                Diagnostic::error(
                    "Write-only attributes need Terraform 1.11",
                    "This Terraform would store the value in its state. Use Terraform 1.11 or later.",
                )
                .at(path)
            }));
        }
        let more = guarded("validation", async move { found.item.validate(&config) }).await?;
        diagnostics.extend(more);
        Ok(diagnostics)
    }

    pub(super) async fn upgrade(
        &self,
        request: wire::UpgradeResourceStateRequest,
    ) -> Result<wire::DynamicValue, Diagnostic> {
        let found = self.inner.resources.find(&request.type_name)?;
        let unreadable = |detail: String| {
            Diagnostic::error(format!("The stored state of {} cannot be read", request.type_name), detail)
        };
        let raw = request.raw_state.unwrap_or_default();
        let mut state = serde_json::from_slice(&raw.json).map_err(|e| {
            unreadable(format!("It is not JSON ({e}). States of Terraform 0.11 and earlier are not supported."))
        })?;
        let current = found.schema.current_version();
        if request.version > current {
            return Err(unreadable(format!(
                "It was written by a newer version of this provider (schema version {}, this one knows {current}). Use \
                 that version or a later one.",
                request.version
            )));
        }
        let (ty, version) = (found.ty, request.version);
        if version < current {
            let resource = found.item;
            state = guarded("a state upgrade", async move { resource.upgrade(version, state) }).await??;
        }
        let state = codec::from_json_lenient(&state, &ty).map_err(|e| unreadable(format!("{e}.")))?;
        Ok(codec::to_wire(&state, &ty))
    }

    pub(super) async fn read(
        &self,
        request: wire::ReadResourceRequest,
    ) -> Result<wire::ReadResourceResponse, Diagnostic> {
        let found = self.inner.resources.find(&request.type_name)?;
        let state = found.value(request.current_state.as_ref(), "state")?;
        let private = Private::from_bytes(&request.private);
        let ctx = self.ctx();
        let read = Read { state: state.clone(), private: private.clone() };
        let (task_ctx, resource) = (ctx.clone(), Arc::clone(&found.item));
        let outcome = guarded("a read", async move { resource.read(&task_ctx, read).await }).await;
        let outcome = outcome.unwrap_or_else(|failure| salvage(&ctx, state.clone(), private, failure));
        let outcome = settle(&found.schema, &request.type_name, &state, None, outcome);
        Ok(wire::ReadResourceResponse {
            new_state: Some(codec::to_wire(&outcome.state, &found.ty)),
            diagnostics: outcome.diagnostics.to_wire(),
            private: outcome.private.to_bytes(),
            new_identity: identity_of(&*found.item, &outcome.state),
            ..Default::default()
        })
    }

    pub(super) async fn plan(
        &self,
        request: wire::PlanResourceChangeRequest,
    ) -> Result<wire::PlanResourceChangeResponse, Diagnostic> {
        let found = self.inner.resources.find(&request.type_name)?;
        let prior = found.value(request.prior_state.as_ref(), "prior state")?;
        let proposed = found.value(request.proposed_new_state.as_ref(), "proposed state")?;
        let ctx = self.ctx();
        let resource = Arc::clone(&found.item);
        let mut private = Private::from_bytes(&request.prior_private);
        if proposed.is_null() {
            let planning = async move {
                let diagnostics = resource.plan_destroy(&ctx, &prior, &mut private).await;
                (private, diagnostics)
            };
            let (private, diagnostics) = guarded("the plan of a destroy", planning).await?;
            return Ok(wire::PlanResourceChangeResponse {
                planned_state: Some(codec::to_wire(&Value::Null, &found.ty)),
                planned_private: private.to_bytes(),
                diagnostics: diagnostics.to_wire(),
                ..Default::default()
            });
        }
        let config = found.config(request.config.as_ref())?;
        let mut plan = plan::propose(&found.schema, prior, config, &proposed, private);
        let planning = async move {
            let diagnostics = resource.plan(&ctx, &mut plan).await;
            (plan, diagnostics)
        };
        let (plan, mut diagnostics) = guarded("a plan", planning).await?;
        if !diagnostics.has_errors() {
            let broken = consistency::plan(&found.schema, &plan.prior, &plan.config, &plan.planned);
            diagnostics.extend(consistency::report(&request.type_name, "plan", broken));
        }
        Ok(wire::PlanResourceChangeResponse {
            planned_state: Some(codec::to_wire(&plan.planned, &found.ty)),
            requires_replace: plan.replace.iter().map(crate::Path::to_wire).collect(),
            planned_private: plan.private.to_bytes(),
            planned_identity: identity_of(&*found.item, &plan.planned).or(request.prior_identity),
            diagnostics: diagnostics.to_wire(),
            ..Default::default()
        })
    }

    pub(super) async fn apply(
        &self,
        request: wire::ApplyResourceChangeRequest,
    ) -> Result<wire::ApplyResourceChangeResponse, Diagnostic> {
        let found = self.inner.resources.find(&request.type_name)?;
        let prior = found.value(request.prior_state.as_ref(), "prior state")?;
        let planned = found.value(request.planned_state.as_ref(), "planned state")?;
        let config = found.config(request.config.as_ref())?;
        let private = Private::from_bytes(&request.planned_private);
        let ctx = self.ctx();
        let (task_ctx, resource) = (ctx.clone(), Arc::clone(&found.item));
        let listening = Listening::to(&ctx);
        let outcome = if planned.is_null() {
            let delete = Read { state: prior.clone(), private: private.clone() };
            guarded("a destroy", async move { resource.delete(&task_ctx, delete).await }).await
        } else {
            let apply = Apply { config, prior: prior.clone(), planned: planned.clone(), private: private.clone() };
            if prior.is_null() {
                guarded("a create", async move { resource.create(&task_ctx, apply).await }).await
            } else {
                guarded("an update", async move { resource.update(&task_ctx, apply).await }).await
            }
        };
        listening.heard();
        let mut outcome = outcome.unwrap_or_else(|failure| salvage(&ctx, prior.clone(), private, failure));
        if planned.is_null() && !outcome.state.is_null() && !outcome.diagnostics.has_errors() {
            outcome = outcome.with(Diagnostic::error(
                format!("{} still exists after its destruction", request.type_name),
                "The provider reported neither an error nor that the object is gone. Please report this.",
            ));
        }
        let outcome = settle(&found.schema, &request.type_name, &prior, Some(&planned), outcome);
        Ok(wire::ApplyResourceChangeResponse {
            new_state: Some(codec::to_wire(&outcome.state, &found.ty)),
            private: outcome.private.to_bytes(),
            diagnostics: outcome.diagnostics.to_wire(),
            new_identity: identity_of(&*found.item, &outcome.state),
            ..Default::default()
        })
    }

    pub(super) async fn import(
        &self,
        request: wire::ImportResourceStateRequest,
    ) -> Result<wire::ImportResourceStateResponse, Diagnostics> {
        let found = self.inner.resources.find(&request.type_name)?;
        let (ctx, resource) = (self.ctx(), Arc::clone(&found.item));
        let by = import_by(&request, &*found.item)?;
        let imported = guarded("an import", async move {
            match by {
                ImportBy::Id(id) => resource.import(&ctx, &id).await,
                ImportBy::Identity(identity) => resource.import_identity(&ctx, &identity).await,
            }
        })
        .await??;
        let settled = settle(
            &found.schema,
            &request.type_name,
            &Value::Null,
            None,
            Outcome::new(imported.state, imported.private),
        );
        let imported = wire::ImportedResource {
            type_name: request.type_name,
            state: Some(codec::to_wire(&settled.state, &found.ty)),
            private: settled.private.to_bytes(),
            identity: identity_of(&*found.item, &settled.state),
        };
        Ok(wire::ImportResourceStateResponse {
            imported_resources: vec![imported],
            diagnostics: settled.diagnostics.to_wire(),
            deferred: None,
        })
    }

    pub(super) fn identity_schemas(&self) -> wire::GetResourceIdentitySchemasResponse {
        let schema = |(name, entry): (&'static str, &super::registry::Entry<dyn Resource<P::Client>>)| {
            Some((name.to_owned(), entry.item.identity()?.to_wire()))
        };
        wire::GetResourceIdentitySchemasResponse {
            identity_schemas: self.inner.resources.iter().filter_map(schema).collect(),
            diagnostics: Vec::new(),
        }
    }

    pub(super) async fn upgrade_identity(
        &self,
        request: wire::UpgradeResourceIdentityRequest,
    ) -> Result<wire::ResourceIdentityData, Diagnostic> {
        let found = self.inner.resources.find(&request.type_name)?;
        let unreadable = |detail: String| {
            Diagnostic::error(format!("The stored identity of {} cannot be read", request.type_name), detail)
        };
        let schema = found.item.identity().ok_or_else(|| unreadable("This resource has no identity.".to_owned()))?;
        let raw = request.raw_identity.unwrap_or_default();
        let mut identity =
            serde_json::from_slice(&raw.json).map_err(|error| unreadable(format!("It is not JSON: {error}.")))?;
        let (version, current) = (request.version, schema.current_version());
        if version > current {
            return Err(unreadable(format!(
                "It was written by a newer version of this provider (identity version {version}, this one knows {current}). \
                 Use that version or a later one."
            )));
        }
        if version < current {
            let resource = found.item;
            identity =
                guarded("an identity upgrade", async move { resource.upgrade_identity(version, identity) }).await??;
        }
        let ty = schema.value_type();
        let identity = codec::from_json_lenient(&identity, &ty).map_err(|error| unreadable(format!("{error}.")))?;
        Ok(wire::ResourceIdentityData { identity_data: Some(codec::to_wire(&identity, &ty)) })
    }
}

/// How the object to import is named.
enum ImportBy {
    Id(String),
    Identity(Value),
}

fn import_by<C: Send + Sync + 'static>(
    request: &wire::ImportResourceStateRequest,
    resource: &dyn Resource<C>,
) -> Result<ImportBy, Diagnostic> {
    if !request.id.is_empty() {
        return Ok(ImportBy::Id(request.id.clone()));
    }
    let data = request.identity.as_ref().and_then(|identity| identity.identity_data.as_ref());
    match (data, resource.identity()) {
        (Some(data), Some(schema)) => Ok(ImportBy::Identity(decode(Some(data), &schema.value_type(), "identity")?)),
        _ => Err(Diagnostic::error("Import needs an id", "Neither an id nor an identity of this resource was given.")),
    }
}

/// The identity of an object, once its state says it.
pub(super) fn identity_of<C: Send + Sync + 'static>(
    resource: &dyn Resource<C>,
    state: &Value,
) -> Option<wire::ResourceIdentityData> {
    let schema = resource.identity()?;
    let identity = schema.of(state)?;
    Some(wire::ResourceIdentityData { identity_data: Some(codec::to_wire(&identity, &schema.value_type())) })
}
