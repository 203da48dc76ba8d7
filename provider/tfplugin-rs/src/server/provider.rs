//! The provider service: messages in, typed requests to the author's code, messages out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use futures::{StreamExt, stream};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    operations::{StopSwitch, guarded},
    redact,
    registry::{Registry, decode, failed, told},
    unmanaged::timestamp,
};
use crate::{
    action::Action,
    data_source::DataSource,
    diagnostics::{Diagnostic, Diagnostics},
    ephemeral::Ephemeral,
    function::{Function, Signature},
    list::Lister,
    resource::{Ctx, Provider, Resource},
    schema::{self, Schema},
    value::Value,
    wire,
};

type Reply<T> = Result<Response<T>, Status>;

/// A provider as a gRPC service. [`crate::serve`] puts it on a socket; tests can call it in process.
pub struct ProviderService<P: Provider> {
    pub(super) inner: Arc<Inner<P>>,
}

pub(super) struct Inner<P: Provider> {
    provider: P,
    schema: Schema,
    pub(super) resources: Registry<dyn Resource<P::Client>>,
    pub(super) data_sources: Registry<dyn DataSource<P::Client>>,
    pub(super) ephemerals: Registry<dyn Ephemeral<P::Client>>,
    pub(super) lists: Registry<dyn Lister<P::Client>>,
    pub(super) actions: Registry<dyn Action<P::Client>>,
    pub(super) functions: BTreeMap<&'static str, (Signature, Arc<dyn Function>)>,
    client: RwLock<Option<Arc<P::Client>>>,
    stop: StopSwitch,
}

impl<P: Provider> ProviderService<P> {
    /// Reads the provider's schemas once.
    pub fn new(provider: P) -> Self {
        let inner = Inner {
            schema: provider.schema(),
            resources: Registry::new("resource type", provider.resources(), |r| r.schema()),
            data_sources: Registry::new("data source", provider.data_sources(), |d| d.schema()),
            ephemerals: Registry::new("ephemeral resource", provider.ephemerals(), |e| e.schema()),
            lists: Registry::new("list resource", provider.lists(), |l| l.schema()),
            actions: Registry::new("action", provider.actions(), |a| a.schema()),
            functions: provider.functions().into_iter().map(|(name, f)| (name, (f.signature(), f))).collect(),
            provider,
            client: RwLock::default(),
            stop: StopSwitch::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn ctx(&self) -> Ctx<P::Client> {
        let client = self.inner.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ctx::new(client, self.inner.stop.token())
    }

    fn provider_config(&self, config: Option<&wire::DynamicValue>) -> Result<Value, Diagnostic> {
        let config = decode(config, &self.inner.schema.value_type(), "provider configuration")?;
        redact::learn(&self.inner.schema, &config);
        Ok(config)
    }

    async fn configure(&self, request: wire::ConfigureProviderRequest) -> Result<(), Diagnostics> {
        let config = self.provider_config(request.config.as_ref())?;
        let inner = Arc::clone(&self.inner);
        let client = guarded("configuration", async move { inner.provider.configure(&config) }).await??;
        *self.inner.client.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(client));
        Ok(())
    }

    async fn validate_provider(&self, request: wire::ValidateProviderConfigRequest) -> Result<Diagnostics, Diagnostic> {
        let config = self.provider_config(request.config.as_ref())?;
        let mut diagnostics = schema::check(&self.inner.schema, &config);
        let inner = Arc::clone(&self.inner);
        diagnostics.extend(guarded("validation", async move { inner.provider.validate(&config) }).await?);
        Ok(diagnostics)
    }

    fn function_signatures(&self) -> HashMap<String, wire::Function> {
        let functions = self.inner.functions.iter();
        functions.map(|(name, (signature, _))| ((*name).to_owned(), signature.to_wire())).collect()
    }

    fn schemas(&self) -> wire::GetProviderSchemaResponse {
        let inner = &self.inner;
        let actions = inner.actions.schemas().into_iter();
        wire::GetProviderSchemaResponse {
            provider: Some(inner.schema.to_wire()),
            resource_schemas: inner.resources.schemas(),
            data_source_schemas: inner.data_sources.schemas(),
            ephemeral_resource_schemas: inner.ephemerals.schemas(),
            list_resource_schemas: inner.lists.schemas(),
            action_schemas: actions.map(|(name, schema)| (name, wire::ActionSchema { schema: Some(schema) })).collect(),
            functions: self.function_signatures(),
            server_capabilities: Some(wire::ServerCapabilities {
                plan_destroy: true,
                get_provider_schema_optional: true,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Gives the provider its last moment.
    pub(super) fn finish(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.inner);
        async move {
            let client = inner.client.read().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(client) = client {
                inner.provider.finish(&client).await;
            }
        }
    }

    /// Everything that the provider offers.
    pub(crate) fn description(&self) -> (wire::GetProviderSchemaResponse, wire::GetResourceIdentitySchemasResponse) {
        (self.schemas(), self.identity_schemas())
    }
}

#[tonic::async_trait]
impl<P: Provider> wire::provider_server::Provider for ProviderService<P> {
    async fn get_provider_schema(
        &self,
        _: Request<wire::GetProviderSchemaRequest>,
    ) -> Reply<wire::GetProviderSchemaResponse> {
        Ok(Response::new(self.schemas()))
    }

    // OpenTofu asks even though the schema lists them.
    async fn get_functions(&self, _: Request<wire::GetFunctionsRequest>) -> Reply<wire::GetFunctionsResponse> {
        let functions = self.function_signatures();
        Ok(Response::new(wire::GetFunctionsResponse { functions, diagnostics: Vec::new() }))
    }

    async fn get_resource_identity_schemas(
        &self,
        _: Request<wire::GetResourceIdentitySchemasRequest>,
    ) -> Reply<wire::GetResourceIdentitySchemasResponse> {
        Ok(Response::new(self.identity_schemas()))
    }

    async fn upgrade_resource_identity(
        &self,
        request: Request<wire::UpgradeResourceIdentityRequest>,
    ) -> Reply<wire::UpgradeResourceIdentityResponse> {
        let (upgraded_identity, diagnostics) = match self.upgrade_identity(request.into_inner()).await {
            Ok(identity) => (Some(identity), Vec::new()),
            Err(failure) => (None, failed(failure)),
        };
        Ok(Response::new(wire::UpgradeResourceIdentityResponse { upgraded_identity, diagnostics }))
    }

    async fn validate_data_resource_config(
        &self,
        request: Request<wire::ValidateDataResourceConfigRequest>,
    ) -> Reply<wire::ValidateDataResourceConfigResponse> {
        let diagnostics = told(self.validate_data(request.into_inner()).await);
        Ok(Response::new(wire::ValidateDataResourceConfigResponse { diagnostics }))
    }

    async fn read_data_source(
        &self,
        request: Request<wire::ReadDataSourceRequest>,
    ) -> Reply<wire::ReadDataSourceResponse> {
        Ok(Response::new(self.read_data(request.into_inner()).await.unwrap_or_else(|failure| {
            wire::ReadDataSourceResponse { diagnostics: failed(failure), ..Default::default() }
        })))
    }

    async fn call_function(&self, request: Request<wire::CallFunctionRequest>) -> Reply<wire::CallFunctionResponse> {
        let (result, error) = match self.call(request.into_inner()) {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error.to_wire())),
        };
        Ok(Response::new(wire::CallFunctionResponse { result, error }))
    }

    async fn validate_ephemeral_resource_config(
        &self,
        request: Request<wire::ValidateEphemeralResourceConfigRequest>,
    ) -> Reply<wire::ValidateEphemeralResourceConfigResponse> {
        let diagnostics = told(self.validate_ephemeral(request.into_inner()).await);
        Ok(Response::new(wire::ValidateEphemeralResourceConfigResponse { diagnostics }))
    }

    async fn open_ephemeral_resource(
        &self,
        request: Request<wire::OpenEphemeralResourceRequest>,
    ) -> Reply<wire::OpenEphemeralResourceResponse> {
        Ok(Response::new(self.open(request.into_inner()).await.unwrap_or_else(|failure| {
            wire::OpenEphemeralResourceResponse { diagnostics: failed(failure), ..Default::default() }
        })))
    }

    async fn renew_ephemeral_resource(
        &self,
        request: Request<wire::RenewEphemeralResourceRequest>,
    ) -> Reply<wire::RenewEphemeralResourceResponse> {
        let request = request.into_inner();
        let before = request.private.clone();
        Ok(Response::new(match self.renew(request).await {
            Ok(renewed) => wire::RenewEphemeralResourceResponse {
                diagnostics: Vec::new(),
                renew_at: renewed.renew_at.map(timestamp),
                private: Some(renewed.private.to_bytes()),
            },
            Err(failure) => {
                wire::RenewEphemeralResourceResponse { diagnostics: failed(failure), renew_at: None, private: before }
            }
        }))
    }

    async fn close_ephemeral_resource(
        &self,
        request: Request<wire::CloseEphemeralResourceRequest>,
    ) -> Reply<wire::CloseEphemeralResourceResponse> {
        let diagnostics = told(self.close(request.into_inner()).await);
        Ok(Response::new(wire::CloseEphemeralResourceResponse { diagnostics }))
    }

    async fn validate_list_resource_config(
        &self,
        request: Request<wire::ValidateListResourceConfigRequest>,
    ) -> Reply<wire::ValidateListResourceConfigResponse> {
        let diagnostics = told(self.validate_list(request.into_inner()).await);
        Ok(Response::new(wire::ValidateListResourceConfigResponse { diagnostics }))
    }

    async fn list_resource(
        &self,
        request: Request<wire::ListResourceRequest>,
    ) -> Reply<BoxStream<wire::ListResourceEvent>> {
        let events = self.list(request.into_inner()).await;
        Ok(Response::new(Box::pin(stream::iter(events).map(Ok))))
    }

    async fn validate_action_config(
        &self,
        request: Request<wire::ValidateActionConfigRequest>,
    ) -> Reply<wire::ValidateActionConfigResponse> {
        let diagnostics = told(self.validate_action(request.into_inner()).await);
        Ok(Response::new(wire::ValidateActionConfigResponse { diagnostics }))
    }

    async fn plan_action(&self, request: Request<wire::PlanActionRequest>) -> Reply<wire::PlanActionResponse> {
        let diagnostics = told(self.planned_action(request.into_inner()).await);
        Ok(Response::new(wire::PlanActionResponse { diagnostics, deferred: None }))
    }

    async fn invoke_action(
        &self,
        request: Request<wire::InvokeActionRequest>,
    ) -> Reply<BoxStream<wire::InvokeActionEvent>> {
        Ok(Response::new(Box::pin(self.invoke(request.into_inner()).map(Ok))))
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
