//! The provider service: messages in, typed requests to the author's code, messages out.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use tonic::{Request, Response, Status};

use super::operations::{Listening, StopSwitch, guarded, salvage, settle};
use crate::{
    codec::{self, CodecError, Type},
    diagnostics::{Diagnostic, Diagnostics},
    plan::{self, consistency},
    resource::{Apply, Ctx, Named, Outcome, Private, Provider, Read, Resource},
    schema::{self, Schema},
    value::Value,
    wire,
};

type Reply<T> = Result<Response<T>, Status>;

/// A provider as a gRPC service. [`crate::serve`] puts it on a socket; tests can call it in process.
pub struct ProviderService<P: Provider> {
    inner: Arc<Inner<P>>,
}

struct Inner<P: Provider> {
    provider: P,
    schema: Schema,
    resources: BTreeMap<&'static str, Registered<P::Client>>,
    client: RwLock<Option<Arc<P::Client>>>,
    stop: StopSwitch,
}

struct Registered<C> {
    schema: Schema,
    ty: Type,
    resource: Arc<dyn Resource<C>>,
}

impl<C> Clone for Registered<C> {
    fn clone(&self) -> Self {
        Self { schema: self.schema.clone(), ty: self.ty.clone(), resource: Arc::clone(&self.resource) }
    }
}

impl<P: Provider> ProviderService<P> {
    /// Reads the provider's schemas once.
    pub fn new(provider: P) -> Self {
        let register = |(name, resource): Named<P::Client>| {
            let schema = resource.schema();
            (name, Registered { ty: schema.value_type(), schema, resource })
        };
        let resources = provider.resources().into_iter().map(register).collect();
        let inner = Inner {
            schema: provider.schema(),
            provider,
            resources,
            client: RwLock::default(),
            stop: StopSwitch::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn find(&self, type_name: &str) -> Result<Registered<P::Client>, Diagnostic> {
        self.inner.resources.get(type_name).cloned().ok_or_else(|| {
            Diagnostic::error(
                format!("Unknown resource type {type_name}"),
                format!("This version of the {} provider has no such resource type.", self.inner.provider.name()),
            )
        })
    }

    fn ctx(&self) -> Ctx<P::Client> {
        let client = self.inner.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ctx::new(client, self.inner.stop.token())
    }

    async fn validate_resource(&self, request: wire::ValidateResourceConfigRequest) -> Result<Diagnostics, Diagnostic> {
        let found = self.find(&request.type_name)?;
        let config = decode(request.config.as_ref(), &found.ty, "configuration")?;
        let mut diagnostics = schema::check(&found.schema, &config);
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
        let more = guarded("validation", async move { found.resource.validate(&config) }).await?;
        diagnostics.extend(more);
        Ok(diagnostics)
    }

    async fn upgrade(&self, request: wire::UpgradeResourceStateRequest) -> Result<wire::DynamicValue, Diagnostic> {
        let found = self.find(&request.type_name)?;
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
            let resource = found.resource;
            state = guarded("a state upgrade", async move { resource.upgrade(version, state) }).await??;
        }
        let state = codec::from_json_lenient(&state, &ty).map_err(|e| unreadable(format!("{e}.")))?;
        Ok(codec::to_wire(&state, &ty))
    }

    async fn read(&self, request: wire::ReadResourceRequest) -> Result<wire::ReadResourceResponse, Diagnostic> {
        let found = self.find(&request.type_name)?;
        let state = decode(request.current_state.as_ref(), &found.ty, "state")?;
        let private = Private::from_bytes(&request.private);
        let ctx = self.ctx();
        let read = Read { state: state.clone(), private: private.clone() };
        let (task_ctx, resource) = (ctx.clone(), Arc::clone(&found.resource));
        let outcome = guarded("a read", async move { resource.read(&task_ctx, read).await }).await;
        let outcome = outcome.unwrap_or_else(|failure| salvage(&ctx, state.clone(), private, failure));
        let outcome = settle(&found.schema, &request.type_name, &state, None, outcome);
        Ok(wire::ReadResourceResponse {
            new_state: Some(codec::to_wire(&outcome.state, &found.ty)),
            diagnostics: outcome.diagnostics.to_wire(),
            private: outcome.private.to_bytes(),
            ..Default::default()
        })
    }

    async fn plan(
        &self,
        request: wire::PlanResourceChangeRequest,
    ) -> Result<wire::PlanResourceChangeResponse, Diagnostic> {
        let found = self.find(&request.type_name)?;
        let prior = decode(request.prior_state.as_ref(), &found.ty, "prior state")?;
        let proposed = decode(request.proposed_new_state.as_ref(), &found.ty, "proposed state")?;
        let ctx = self.ctx();
        let resource = Arc::clone(&found.resource);
        if proposed.is_null() {
            let planning = async move { resource.plan_destroy(&ctx, &prior).await };
            return Ok(wire::PlanResourceChangeResponse {
                planned_state: Some(codec::to_wire(&Value::Null, &found.ty)),
                planned_private: request.prior_private,
                diagnostics: guarded("the plan of a destroy", planning).await?.to_wire(),
                ..Default::default()
            });
        }
        let config = decode(request.config.as_ref(), &found.ty, "configuration")?;
        let private = Private::from_bytes(&request.prior_private);
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
            diagnostics: diagnostics.to_wire(),
            ..Default::default()
        })
    }

    async fn apply(
        &self,
        request: wire::ApplyResourceChangeRequest,
    ) -> Result<wire::ApplyResourceChangeResponse, Diagnostic> {
        let found = self.find(&request.type_name)?;
        let prior = decode(request.prior_state.as_ref(), &found.ty, "prior state")?;
        let planned = decode(request.planned_state.as_ref(), &found.ty, "planned state")?;
        let config = decode(request.config.as_ref(), &found.ty, "configuration")?;
        let private = Private::from_bytes(&request.planned_private);
        let ctx = self.ctx();
        let (task_ctx, resource) = (ctx.clone(), Arc::clone(&found.resource));
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
            ..Default::default()
        })
    }

    async fn import(
        &self,
        request: wire::ImportResourceStateRequest,
    ) -> Result<wire::ImportResourceStateResponse, Diagnostics> {
        let found = self.find(&request.type_name)?;
        if request.id.is_empty() {
            return Err(Diagnostic::error("Import needs an id", "This provider imports by id, not by identity.").into());
        }
        let (ctx, resource) = (self.ctx(), Arc::clone(&found.resource));
        let id = request.id.clone();
        let imported = guarded("an import", async move { resource.import(&ctx, &id).await }).await??;
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
            identity: None,
        };
        Ok(wire::ImportResourceStateResponse {
            imported_resources: vec![imported],
            diagnostics: settled.diagnostics.to_wire(),
            deferred: None,
        })
    }

    async fn configure(&self, request: wire::ConfigureProviderRequest) -> Result<(), Diagnostics> {
        let config = decode(request.config.as_ref(), &self.inner.schema.value_type(), "provider configuration")?;
        let inner = Arc::clone(&self.inner);
        let client = guarded("configuration", async move { inner.provider.configure(&config) }).await??;
        *self.inner.client.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(client));
        Ok(())
    }

    async fn validate_provider(&self, request: wire::ValidateProviderConfigRequest) -> Result<Diagnostics, Diagnostic> {
        let config = decode(request.config.as_ref(), &self.inner.schema.value_type(), "provider configuration")?;
        let mut diagnostics = schema::check(&self.inner.schema, &config);
        let inner = Arc::clone(&self.inner);
        diagnostics.extend(guarded("validation", async move { inner.provider.validate(&config) }).await?);
        Ok(diagnostics)
    }
}

fn decode(value: Option<&wire::DynamicValue>, ty: &Type, what: &str) -> Result<Value, Diagnostic> {
    codec::from_wire(value, ty).map_err(|error: CodecError| {
        Diagnostic::error(
            format!("The provider cannot read the {what}"),
            format!("Terraform sent something that does not fit the schema: {error}. Please report this."),
        )
    })
}

fn told<E: Into<Diagnostics>>(result: Result<Diagnostics, E>) -> Vec<wire::Diagnostic> {
    result.unwrap_or_else(Into::into).to_wire()
}

fn failed(failure: impl Into<Diagnostics>) -> Vec<wire::Diagnostic> {
    failure.into().to_wire()
}

#[tonic::async_trait]
impl<P: Provider> wire::provider_server::Provider for ProviderService<P> {
    async fn get_provider_schema(
        &self,
        _: Request<wire::GetProviderSchemaRequest>,
    ) -> Reply<wire::GetProviderSchemaResponse> {
        let resources = &self.inner.resources;
        Ok(Response::new(wire::GetProviderSchemaResponse {
            provider: Some(self.inner.schema.to_wire()),
            resource_schemas: resources.iter().map(|(n, r)| ((*n).to_owned(), r.schema.to_wire())).collect(),
            server_capabilities: Some(wire::ServerCapabilities {
                plan_destroy: true,
                get_provider_schema_optional: true,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    // OpenTofu asks even if the schema lists no functions.
    async fn get_functions(&self, _: Request<wire::GetFunctionsRequest>) -> Reply<wire::GetFunctionsResponse> {
        Ok(Response::new(wire::GetFunctionsResponse::default()))
    }

    async fn validate_provider_config(
        &self,
        request: Request<wire::ValidateProviderConfigRequest>,
    ) -> Reply<wire::ValidateProviderConfigResponse> {
        let diagnostics = told(self.validate_provider(request.into_inner()).await);
        Ok(Response::new(wire::ValidateProviderConfigResponse { diagnostics }))
    }

    async fn validate_resource_config(
        &self,
        request: Request<wire::ValidateResourceConfigRequest>,
    ) -> Reply<wire::ValidateResourceConfigResponse> {
        let diagnostics = told(self.validate_resource(request.into_inner()).await);
        Ok(Response::new(wire::ValidateResourceConfigResponse { diagnostics }))
    }

    async fn configure_provider(
        &self,
        request: Request<wire::ConfigureProviderRequest>,
    ) -> Reply<wire::ConfigureProviderResponse> {
        let diagnostics = self.configure(request.into_inner()).await.err().unwrap_or_default().to_wire();
        Ok(Response::new(wire::ConfigureProviderResponse { diagnostics }))
    }

    async fn upgrade_resource_state(
        &self,
        request: Request<wire::UpgradeResourceStateRequest>,
    ) -> Reply<wire::UpgradeResourceStateResponse> {
        Ok(Response::new(match self.upgrade(request.into_inner()).await {
            Ok(state) => wire::UpgradeResourceStateResponse { upgraded_state: Some(state), diagnostics: Vec::new() },
            Err(failure) => wire::UpgradeResourceStateResponse { upgraded_state: None, diagnostics: failed(failure) },
        }))
    }

    async fn read_resource(&self, request: Request<wire::ReadResourceRequest>) -> Reply<wire::ReadResourceResponse> {
        let request = request.into_inner();
        let (state, private) = (request.current_state.clone(), request.private.clone());
        Ok(Response::new(self.read(request).await.unwrap_or_else(|failure| wire::ReadResourceResponse {
            new_state: state,
            private,
            diagnostics: failed(failure),
            ..Default::default()
        })))
    }

    async fn plan_resource_change(
        &self,
        request: Request<wire::PlanResourceChangeRequest>,
    ) -> Reply<wire::PlanResourceChangeResponse> {
        let request = request.into_inner();
        let (state, private) = (request.prior_state.clone(), request.prior_private.clone());
        Ok(Response::new(self.plan(request).await.unwrap_or_else(|failure| wire::PlanResourceChangeResponse {
            planned_state: state,
            planned_private: private,
            diagnostics: failed(failure),
            ..Default::default()
        })))
    }

    async fn apply_resource_change(
        &self,
        request: Request<wire::ApplyResourceChangeRequest>,
    ) -> Reply<wire::ApplyResourceChangeResponse> {
        let request = request.into_inner();
        let (state, private) = (request.prior_state.clone(), request.planned_private.clone());
        Ok(Response::new(self.apply(request).await.unwrap_or_else(|failure| wire::ApplyResourceChangeResponse {
            new_state: state,
            private,
            diagnostics: failed(failure),
            ..Default::default()
        })))
    }

    async fn import_resource_state(
        &self,
        request: Request<wire::ImportResourceStateRequest>,
    ) -> Reply<wire::ImportResourceStateResponse> {
        Ok(Response::new(self.import(request.into_inner()).await.unwrap_or_else(|failure| {
            wire::ImportResourceStateResponse { diagnostics: failure.to_wire(), ..Default::default() }
        })))
    }

    async fn stop_provider(&self, _: Request<wire::StopProviderRequest>) -> Reply<wire::StopProviderResponse> {
        self.inner.stop.stop();
        Ok(Response::new(wire::StopProviderResponse::default()))
    }
}
