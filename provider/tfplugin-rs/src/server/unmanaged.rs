//! What has no state of its own: data sources, functions, ephemeral resources, lists and actions.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{
    managed::identity_of,
    operations::{Listening, guarded},
    provider::ProviderService,
    redact,
    registry::failed,
};
use crate::{
    action::Progress,
    codec,
    diagnostics::{Diagnostic, Diagnostics},
    ephemeral::{self, Renewed},
    function::FunctionError,
    list::Listed,
    path::Path,
    plan::consistency,
    resource::{Private, Provider},
    schema::{Attribute, Schema},
    value::Value,
    wire::{self, invoke_action_event as event},
};

/// How many objects a list brings when Terraform names no limit.
const LIST_LIMIT: usize = 100;

impl<P: Provider> ProviderService<P> {
    pub(super) async fn validate_data(
        &self,
        request: wire::ValidateDataResourceConfigRequest,
    ) -> Result<Diagnostics, Diagnostic> {
        let found = self.inner.data_sources.find(&request.type_name)?;
        let (config, mut diagnostics) = found.checked(request.config.as_ref())?;
        diagnostics.extend(guarded("validation", async move { found.item.validate(&config) }).await?);
        Ok(diagnostics)
    }

    pub(super) async fn read_data(
        &self,
        request: wire::ReadDataSourceRequest,
    ) -> Result<wire::ReadDataSourceResponse, Diagnostic> {
        let source = self.inner.data_sources.find(&request.type_name)?;
        let config = source.config(request.config.as_ref())?;
        let (ctx, item) = (self.ctx(), Arc::clone(&source.item));
        let mut found = guarded("a read", async move { item.read(&ctx, config).await }).await?;
        if !found.diagnostics.has_errors() {
            let broken = consistency::state(&source.schema, &found.state);
            found.diagnostics.extend(consistency::report(&request.type_name, "read", broken));
        }
        Ok(wire::ReadDataSourceResponse {
            state: Some(codec::to_wire(&found.state.without_unknowns(), &source.ty)),
            diagnostics: found.diagnostics.to_wire(),
            deferred: None,
        })
    }

    pub(super) fn call(&self, request: wire::CallFunctionRequest) -> Result<wire::DynamicValue, FunctionError> {
        let Some((signature, function)) = self.inner.functions.get(request.name.as_str()) else {
            return Err(FunctionError::new(format!("This version of the provider has no function {}.", request.name)));
        };
        let mut arguments = Vec::with_capacity(request.arguments.len());
        for (index, argument) in request.arguments.iter().enumerate() {
            let parameter = signature
                .parameter(index)
                .ok_or_else(|| FunctionError::argument(index, "The function takes fewer arguments."))?;
            let value = codec::from_wire(Some(argument), parameter.value_type())
                .map_err(|error| FunctionError::argument(index, format!("{}: {error}.", parameter.name())))?;
            arguments.push(value);
        }
        if arguments.len() < signature.parameters.len() {
            return Err(FunctionError::new(format!("The function takes {} arguments.", signature.parameters.len())));
        }
        let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function.call(&arguments)));
        let result = called.map_err(|_| {
            FunctionError::new("A bug in the provider ended the function; please report it with its arguments.")
        })??;
        Ok(codec::to_wire(&result, &signature.returns))
    }

    pub(super) async fn validate_ephemeral(
        &self,
        request: wire::ValidateEphemeralResourceConfigRequest,
    ) -> Result<Diagnostics, Diagnostic> {
        let found = self.inner.ephemerals.find(&request.type_name)?;
        let (config, mut diagnostics) = found.checked(request.config.as_ref())?;
        diagnostics.extend(guarded("validation", async move { found.item.validate(&config) }).await?);
        Ok(diagnostics)
    }

    pub(super) async fn open(
        &self,
        request: wire::OpenEphemeralResourceRequest,
    ) -> Result<wire::OpenEphemeralResourceResponse, Diagnostics> {
        let found = self.inner.ephemerals.find(&request.type_name)?;
        let config = found.config(request.config.as_ref())?;
        let (ctx, item) = (self.ctx(), Arc::clone(&found.item));
        let asked = config.clone();
        let opened = guarded("opening", async move { item.open(&ctx, asked).await }).await??;
        redact::learn(&found.schema, &opened.result);
        let private = opened.private.to_bytes();
        if let Some(fault) = ephemeral::faults(&found.schema, &config, &opened.result) {
            // Terraform does not close what it was not given.
            let (ctx, item) = (self.ctx(), found.item);
            let mut told = Diagnostics::from(fault);
            told.extend(guarded("closing", async move { item.close(&ctx, opened.private).await }).await?);
            return Err(told);
        }
        Ok(wire::OpenEphemeralResourceResponse {
            diagnostics: Vec::new(),
            renew_at: opened.renew_at.map(timestamp),
            result: Some(codec::to_wire(&opened.result, &found.ty)),
            private: Some(private),
            deferred: None,
        })
    }

    pub(super) async fn renew(&self, request: wire::RenewEphemeralResourceRequest) -> Result<Renewed, Diagnostics> {
        let found = self.inner.ephemerals.find(&request.type_name)?;
        let private = Private::from_bytes(&request.private.unwrap_or_default());
        let ctx = self.ctx();
        guarded("a renewal", async move { found.item.renew(&ctx, private).await }).await?
    }

    pub(super) async fn close(&self, request: wire::CloseEphemeralResourceRequest) -> Result<Diagnostics, Diagnostic> {
        let found = self.inner.ephemerals.find(&request.type_name)?;
        let private = Private::from_bytes(&request.private.unwrap_or_default());
        let ctx = self.ctx();
        guarded("closing", async move { found.item.close(&ctx, private).await }).await
    }

    pub(super) async fn validate_list(
        &self,
        request: wire::ValidateListResourceConfigRequest,
    ) -> Result<Diagnostics, Diagnostic> {
        let found = self.inner.lists.find(&request.type_name)?;
        let (config, mut diagnostics) = found.checked(request.config.as_ref())?;
        diagnostics.extend(guarded("validation", async move { found.item.validate(&config) }).await?);
        Ok(diagnostics)
    }

    pub(super) async fn list(&self, request: wire::ListResourceRequest) -> Vec<wire::ListResourceEvent> {
        let whole = request.include_resource_object;
        match self.listed(&request).await {
            Ok(listed) => listed.into_iter().map(|one| self.list_event(&request.type_name, one, whole)).collect(),
            Err(failure) => vec![wire::ListResourceEvent { diagnostic: failed(failure), ..Default::default() }],
        }
    }

    async fn listed(&self, request: &wire::ListResourceRequest) -> Result<Vec<Listed>, Diagnostics> {
        let found = self.inner.lists.find(&request.type_name)?;
        let config = found.config(request.config.as_ref())?;
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(LIST_LIMIT);
        let ctx = self.ctx();
        let mut listed = guarded("a list", async move { found.item.list(&ctx, config, limit).await }).await??;
        listed.truncate(limit);
        Ok(listed)
    }

    /// One object, or what is wrong with it: the others are shown all the same.
    fn list_event(&self, type_name: &str, listed: Listed, whole: bool) -> wire::ListResourceEvent {
        let resource = match self.inner.resources.find(type_name) {
            Ok(resource) => resource,
            Err(failure) => return wire::ListResourceEvent { diagnostic: failed(failure), ..Default::default() },
        };
        let identity = identity_of(&*resource.item, &listed.state);
        let nameless = identity.is_none().then(|| {
            Diagnostic::error(
                format!("{} has no identity", listed.display_name),
                "The provider listed an object that cannot be imported. Please report this.",
            )
        });
        let state = resource.schema.without_write_only(&listed.state.without_unknowns());
        wire::ListResourceEvent {
            identity,
            display_name: listed.display_name,
            resource_object: whole.then(|| codec::to_wire(&state, &resource.ty)),
            diagnostic: nameless.map(failed).unwrap_or_default(),
        }
    }

    pub(super) async fn validate_action(
        &self,
        request: wire::ValidateActionConfigRequest,
    ) -> Result<Diagnostics, Diagnostic> {
        let found = self.inner.actions.find(&request.type_name)?;
        let (config, mut diagnostics) = found.checked(request.config.as_ref())?;
        diagnostics.extend(guarded("validation", async move { found.item.validate(&config) }).await?);
        Ok(diagnostics)
    }

    pub(super) async fn planned_action(&self, request: wire::PlanActionRequest) -> Result<Diagnostics, Diagnostic> {
        let found = self.inner.actions.find(&request.action_type)?;
        let config = found.config(request.config.as_ref())?;
        let ctx = self.ctx();
        guarded("the plan of an action", async move { found.item.plan(&ctx, config).await }).await
    }

    /// Starts an action; the stream tells how far it is and ends with its diagnostics. The action goes on to its end even if
    /// the stream is dropped, but is told so.
    pub(super) fn invoke(
        &self,
        request: wire::InvokeActionRequest,
    ) -> impl Stream<Item = wire::InvokeActionEvent> + Send + 'static + use<P> {
        let (progress, messages) = Progress::channel();
        let ctx = self.ctx();
        let listening = Listening::to(&ctx);
        let prepared = self.inner.actions.find(&request.action_type).and_then(|found| {
            let config = found.config(request.config.as_ref())?;
            match lost(&found.schema, &config) {
                Some(name) => Err(did_not_arrive(name)),
                None => Ok((found.item, config)),
            }
        });
        let work = tokio::spawn(async move {
            let (item, config): (_, Value) = prepared?;
            guarded("an action", async move { item.invoke(&ctx, config, progress).await }).await
        });
        let told =
            UnboundedReceiverStream::new(messages).map(|message| event::Event::Progress(event::Progress { message }));
        let ended = stream::once(async move {
            let result = work.await.unwrap_or_else(|error| {
                Err(Diagnostic::error("The action broke off", format!("{error}. Please report this.")))
            });
            listening.heard();
            event::Event::Completed(event::Completed { diagnostics: result.unwrap_or_else(Into::into).to_wire() })
        });
        told.chain(ended).map(|event| wire::InvokeActionEvent { event: Some(event) })
    }
}

/// A required attribute that has no value after all. Terraform does not let that through but in one case: it takes ephemeral
/// values out of a plan, and hands an action that is invoked by hand what was planned.
fn lost<'a>(schema: &'a Schema, config: &Value) -> Option<&'a str> {
    let lost = |(name, attribute): &(&String, &Attribute)| attribute.is_required() && config.attr(name).is_null();
    schema.attributes().iter().find(lost).map(|(name, _)| name.as_str())
}

fn did_not_arrive(name: &str) -> Diagnostic {
    Diagnostic::error(
        format!("{name} did not arrive"),
        "The action was not begun. Terraform hands no ephemeral value to an action that is invoked by hand (-invoke). Take the \
         value from something that is sensitive and not ephemeral, or let the change of a resource trigger the action.",
    )
    .at(Path::attr(name))
}

pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}
