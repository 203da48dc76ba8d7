//! The provider in this process, spoken to by its own protocol.

use provider_vmetal::Vmetal;
use tfplugin::{
    Provider as _, Value,
    server::ProviderService,
    testing::packed,
    wire::{self, provider_client::ProviderClient, provider_server::ProviderServer},
};

use super::engine::{Engine, TOKEN};

pub(crate) type Plugin = ProviderClient<ProviderServer<ProviderService<Vmetal>>>;

/// As it starts.
pub(crate) fn unconfigured() -> Plugin {
    ProviderClient::new(ProviderServer::new(ProviderService::new(Vmetal::new())))
}

/// Configured for an engine, with the token that may do everything.
pub(crate) async fn plugin(engine: &Engine) -> Plugin {
    plugin_with(engine, TOKEN).await
}

/// Configured for an engine, with another token.
pub(crate) async fn plugin_with(engine: &Engine, token: &str) -> Plugin {
    let mut plugin = unconfigured();
    let fields: [(&str, Value); 2] = [("endpoint", engine.endpoint().into()), ("token", token.into())];
    let config = packed(&Vmetal::new().schema(), &fields);
    let request = wire::ConfigureProviderRequest { config, ..Default::default() };
    assert!(plugin.configure_provider(request).await.unwrap().into_inner().diagnostics.is_empty());
    plugin
}
