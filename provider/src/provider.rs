//! The provider's own configuration: where the engine is and who is asking.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use tfplugin::{Attribute, Diagnostic, Diagnostics, Named, Path, Pending, Provider, Schema, Type, Value};
use vmetal_api::{ApiError, Client, ClientConfig, IdentitySource, Secret, TokenSource};

use crate::{
    actions,
    afterwards::Afterwards,
    convert::sentence,
    cost::Cost,
    ephemerals,
    events::Events,
    functions,
    hardware::Hardware,
    host::Hosts,
    image::Images,
    look::{All, One},
    managed::Managed,
    network::Networks,
    node_pool::NodePools,
    node_type::NodeTypes,
    placement::Placement,
    policy::Policies,
    reads::Reads,
    tenant_cluster::TenantClusters,
    tenant_node::TenantNodes,
};

/// The provider's source address on the public registry.
pub const ADDRESS: &str = "registry.terraform.io/vmetal/vmetal";

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7600";

/// The provider.
#[derive(Debug, Default)]
pub struct Vmetal(());

impl Vmetal {
    /// The provider.
    pub fn new() -> Self {
        Self::default()
    }
}

/// The configured engine.
#[derive(Debug)]
pub enum Engine {
    /// Connects on first use.
    Known(Box<Run>),
    /// The configuration depends on something that is not known before apply.
    NotYetKnown,
}

impl Engine {
    /// The client.
    ///
    /// # Errors
    /// A diagnostic while the configuration is not known.
    pub fn client(&self) -> Result<&Client, Diagnostic> {
        self.run().map(|run| &run.client)
    }

    /// The client, and what this run has to remember.
    ///
    /// # Errors
    /// A diagnostic while the configuration is not known.
    pub(crate) fn run(&self) -> Result<&Run, Diagnostic> {
        match self {
            Self::Known(run) => Ok(run),
            Self::NotYetKnown => Err(Diagnostic::error(
                "The provider's configuration is not known yet",
                "The vmetal provider's endpoint or token comes from a resource that is not applied yet. Apply that one \
                 first (terraform apply -target=...).",
            )),
        }
    }

    /// Remembers that this run plans to make or change hosts or node types: what there will be to choose from is not known.
    pub(crate) fn plan_supply(&self) {
        if let Self::Known(run) = self {
            run.supply.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it does.
    pub(crate) fn plans_supply(&self) -> bool {
        matches!(self, Self::Known(run) if run.supply.0.load(Ordering::Relaxed))
    }
}

/// One run of Terraform against a configured engine.
#[derive(Debug)]
pub struct Run {
    pub(crate) client: Client,
    pub(crate) reads: Reads,
    pub(crate) afterwards: Afterwards,
    supply: Supply,
}

/// Whether the run that this configuration is for plans to change what placements choose from. Terraform plans what a
/// resource depends on before the resource itself.
#[derive(Debug, Default)]
struct Supply(AtomicBool);

impl Provider for Vmetal {
    type Client = Engine;

    fn name(&self) -> &str {
        "vmetal"
    }

    fn schema(&self) -> Schema {
        Schema::new(
            "Bare metal as Terraform resources: declare servers and classes of servers, and get Ready nodes of your \
             Kubernetes clusters.",
            [
                (
                    "endpoint",
                    Attribute::optional(Type::String).describe(format!(
                        "Where the engine (vmetald) is: `http://host:port` or `https://host:port`. Also `VMETAL_ENDPOINT`; default `{DEFAULT_ENDPOINT}`."
                    )),
                ),
                (
                    "token",
                    Attribute::optional(Type::String)
                        .sensitive()
                        .describe("The engine's bearer token. Also `VMETAL_TOKEN`. Prefer `token_file`."),
                ),
                (
                    "token_file",
                    Attribute::optional(Type::String).describe(
                        "A file that holds the token; read for every call, so that it can be rotated during a long apply. Also `VMETAL_TOKEN_FILE`.",
                    ),
                ),
                (
                    "identity_token_file",
                    Attribute::optional(Type::String).describe(
                        "A file that holds an OpenID Connect ID token of the platform that Terraform runs on; the engine gives a token for a while in exchange, which is renewed during a long apply, and the file is read again for that. Also `VMETAL_IDENTITY_TOKEN_FILE`. In HCP Terraform nothing needs to be set here: where there is no other token, `TFC_WORKLOAD_IDENTITY_TOKEN_VMETAL` is used, or else `TFC_WORKLOAD_IDENTITY_TOKEN`.",
                    ),
                ),
                (
                    "ca_file",
                    Attribute::optional(Type::String)
                        .describe("For `https`: the PEM file of the certificate authority to trust. Also `VMETAL_CA_FILE`."),
                ),
            ],
        )
    }

    fn validate(&self, config: &Value) -> Diagnostics {
        let mut set =
            ["token", "token_file", "identity_token_file"].into_iter().filter(|name| !config.attr(name).is_null());
        match (set.next(), set.next()) {
            (Some(first), Some(second)) => {
                Diagnostic::error("Two tokens", format!("Set {first} or {second}, not both."))
                    .at(Path::attr(second))
                    .into()
            }
            _ => Diagnostics::new(),
        }
    }

    fn configure(&self, config: &Value) -> Result<Engine, Diagnostics> {
        settings(config, |name| std::env::var(name).ok())
    }

    fn finish<'a>(&'a self, engine: &'a Engine) -> Pending<'a, ()> {
        Box::pin(async move {
            if let Engine::Known(run) = engine {
                run.afterwards.settle().await;
            }
        })
    }

    fn resources(&self) -> Vec<Named<dyn tfplugin::Resource<Engine>>> {
        vec![
            Managed::<Hosts>::register(),
            Managed::<NodeTypes>::register(),
            Managed::<TenantNodes>::register(),
            NodePools::register(),
            Managed::<TenantClusters>::register(),
            Managed::<Images>::register(),
            Managed::<Networks>::register(),
            Managed::<Policies>::register(),
        ]
    }

    fn data_sources(&self) -> Vec<Named<dyn tfplugin::DataSource<Engine>>> {
        vec![
            One::<Hosts>::register(),
            One::<NodeTypes>::register(),
            One::<TenantNodes>::register(),
            One::<TenantClusters>::register(),
            One::<Images>::register(),
            One::<Networks>::register(),
            One::<Policies>::register(),
            All::<Hosts>::register("vmetal_hosts"),
            All::<NodeTypes>::register("vmetal_node_types"),
            All::<TenantNodes>::register("vmetal_tenant_nodes"),
            All::<TenantClusters>::register("vmetal_tenant_clusters"),
            All::<Images>::register("vmetal_images"),
            All::<Networks>::register("vmetal_networks"),
            All::<Policies>::register("vmetal_policies"),
            Placement::register(),
            Cost::register(),
            Hardware::register(),
            Events::register(),
        ]
    }

    fn lists(&self) -> Vec<Named<dyn tfplugin::Lister<Engine>>> {
        vec![
            All::<Hosts>::register_list(),
            All::<NodeTypes>::register_list(),
            All::<TenantNodes>::register_list(),
            All::<TenantClusters>::register_list(),
            All::<Images>::register_list(),
            All::<Networks>::register_list(),
            All::<Policies>::register_list(),
        ]
    }

    fn actions(&self) -> Vec<Named<dyn tfplugin::Action<Engine>>> {
        actions::all()
    }

    fn ephemerals(&self) -> Vec<Named<dyn tfplugin::Ephemeral<Engine>>> {
        ephemerals::all()
    }

    fn functions(&self) -> Vec<Named<dyn tfplugin::Function>> {
        functions::all()
    }
}

/// The configuration, completed from the environment. What the configuration says wins over any variable.
fn settings(config: &Value, var: impl Fn(&str) -> Option<String>) -> Result<Engine, Diagnostics> {
    const NAMES: [&str; 5] = ["endpoint", "token", "token_file", "identity_token_file", "ca_file"];
    if NAMES.iter().any(|name| config.attr(name).is_unknown()) {
        return Ok(Engine::NotYetKnown);
    }
    let set = |name: &str| config.attr(name).as_str().map(str::to_owned).filter(|text| !text.is_empty());
    let variable = |name: &str| var(name).filter(|text| !text.is_empty());
    let token = (set("token").map(token_literal))
        .or_else(|| set("token_file").map(token_file))
        .or_else(|| set("identity_token_file").map(identity_file))
        .or_else(|| variable("VMETAL_TOKEN").map(token_literal))
        .or_else(|| variable("VMETAL_TOKEN_FILE").map(token_file))
        .or_else(|| variable("VMETAL_IDENTITY_TOKEN_FILE").map(identity_file))
        .or_else(|| variable("TFC_WORKLOAD_IDENTITY_TOKEN_VMETAL").map(identity_literal))
        .or_else(|| variable("TFC_WORKLOAD_IDENTITY_TOKEN").map(identity_literal));
    let Some(token) = token else {
        return Err(Diagnostic::error(
            "No token for the vmetal engine",
            "The engine serves only callers with its token, which it wrote to a file at its first start. Set token_file in \
             the provider block or VMETAL_TOKEN_FILE to that file, or VMETAL_TOKEN to the token itself. In HCP Terraform, \
             where a run can show who it is instead, set TFC_WORKLOAD_IDENTITY_AUDIENCE_VMETAL in the workspace.",
        )
        .into());
    };
    let endpoint =
        set("endpoint").or_else(|| variable("VMETAL_ENDPOINT")).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let mut client = ClientConfig::new(endpoint, token);
    if let Some(file) = set("ca_file").or_else(|| variable("VMETAL_CA_FILE")) {
        let pem = std::fs::read(&file).map_err(|e| {
            Diagnostic::error("The certificate authority cannot be read", format!("{file}: {e}."))
                .at(Path::attr("ca_file"))
        })?;
        client.ca_pem = Some(pem);
    }
    let client = Client::connect_lazy(client).map_err(|error: ApiError| {
        let detail = format!("{} {}", sentence(&error.to_string()), sentence(&error.advice()));
        Diagnostic::error("The vmetal provider is not set up correctly", detail).at(Path::attr("endpoint"))
    })?;
    let run = Run { client, reads: Reads::default(), afterwards: Afterwards::default(), supply: Supply::default() };
    Ok(Engine::Known(Box::new(run)))
}

fn token_literal(token: String) -> TokenSource {
    TokenSource::Literal(Secret::new(token))
}

fn token_file(path: String) -> TokenSource {
    TokenSource::File(PathBuf::from(path))
}

fn identity_literal(token: String) -> TokenSource {
    TokenSource::Identity(IdentitySource::Literal(Secret::new(token)))
}

fn identity_file(path: String) -> TokenSource {
    TokenSource::Identity(IdentitySource::File(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn summary(result: Result<Engine, Diagnostics>) -> String {
        result.unwrap_err().into_iter().next().unwrap().summary
    }

    #[tokio::test]
    async fn the_configuration_wins_over_the_environment() {
        let env = |name: &str| match name {
            "VMETAL_ENDPOINT" => Some("http://from-env:1".to_owned()),
            "VMETAL_TOKEN" => Some("t".to_owned()),
            _ => None,
        };
        let endpoint = |config: &Value| match settings(config, env).unwrap() {
            Engine::Known(run) => run.client.endpoint().to_owned(),
            Engine::NotYetKnown => "unknown".to_owned(),
        };
        assert_eq!(endpoint(&Value::Null), "http://from-env:1");
        assert_eq!(endpoint(&Value::object([("endpoint", "http://set:2")])), "http://set:2");
        assert_eq!(endpoint(&Value::object([("endpoint", Value::unknown())])), "unknown");
    }

    #[test]
    fn two_tokens_are_one_too_many() {
        let both = Value::object([("token", "t"), ("identity_token_file", "/f")]);
        let told = Vmetal::new().validate(&both).into_iter().next().unwrap();
        assert_eq!(told.detail, "Set token or identity_token_file, not both.");
        assert!(!Vmetal::new().validate(&Value::object([("identity_token_file", "/f")])).has_errors());
    }

    #[tokio::test]
    async fn what_is_missing_or_wrong_is_said() {
        assert_eq!(summary(settings(&Value::Null, |_| None)), "No token for the vmetal engine");
        let bad = Value::object([("endpoint", "ftp://x"), ("token", "t")]);
        assert_eq!(summary(settings(&bad, |_| None)), "The vmetal provider is not set up correctly");
    }

    #[test]
    fn every_schema_is_sound() {
        let provider = Vmetal::new();
        assert_eq!(provider.schema().faults(), Vec::<String>::new());
        for (name, resource) in provider.resources() {
            assert_eq!(resource.schema().faults(), Vec::<String>::new(), "{name}");
        }
        for (name, source) in provider.data_sources() {
            assert_eq!(source.schema().faults(), Vec::<String>::new(), "data {name}");
        }
        for (name, ephemeral) in provider.ephemerals() {
            assert_eq!(ephemeral.schema().faults(), Vec::<String>::new(), "ephemeral {name}");
        }
        for (name, action) in provider.actions() {
            assert_eq!(action.schema().faults(), Vec::<String>::new(), "action {name}");
        }
    }
}
