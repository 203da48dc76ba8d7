//! Ephemeral resources: credentials that live as long as a Terraform command and are stored nowhere (Terraform 1.10 and
//! later).

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tfplugin::{
    Attribute, Ctx, Diagnostic, Diagnostics, Ephemeral, Named, Opened, Path, Pending, Private, Renewed, Schema, Type,
    Value, schema::Validator,
};
use vmetal_api::{ApiError, ApiTokenRequest, JoinToken, JoinTokenRequest};

use crate::{
    convert::{duration, text},
    explain::refused,
    host::Hosts,
    managed::Managed,
    provider::Engine,
    tenant_cluster::TenantClusters,
};

mod api_token;

/// How long a token works unless the user says otherwise. It is prolonged for as long as the command runs.
const LIFE: Duration = Duration::from_secs(15 * 60);

/// How Terraform learns that it has to wait: names are known before there is anything.
const OF_THE_SAME: &str =
    "Refer to the `id` of one that the same configuration makes, so that Terraform opens this after it.";

/// All of them.
pub(crate) fn all() -> Vec<Named<dyn Ephemeral<Engine>>> {
    vec![
        ("vmetal_join_token", Arc::new(Join)),
        ("vmetal_bmc_credential", Arc::new(Bmc)),
        ("vmetal_api_token", Arc::new(api_token::Api)),
    ]
}

fn reason_attribute() -> Attribute {
    Attribute::required(Type::String)
        .describe("Why; it goes on the engine's record, with the name of the token that asked.")
}

// Tokens of both kinds may live as long.
const _: () = assert!(
    JoinTokenRequest::SHORTEST.as_secs() == ApiTokenRequest::SHORTEST.as_secs()
        && JoinTokenRequest::LONGEST.as_secs() == ApiTokenRequest::LONGEST.as_secs()
);

/// How long a token outlives a command that was killed.
fn ttl_attribute(more: &str) -> Attribute {
    let span = |text: &str| {
        let allowed = JoinTokenRequest::SHORTEST..=JoinTokenRequest::LONGEST;
        if allowed.contains(&duration(text)?) { Ok(()) } else { Err(format!("{text:?} is not between 1m and 24h.")) }
    };
    Attribute::optional(Type::String).validate(Validator::string("Invalid duration", span)).describe(format!(
        "How long the token outlives a command that was killed, from `1m` to `24h`; `15m` when not set.{more}"
    ))
}

fn ttl(config: &Value) -> Duration {
    config.attr("ttl").as_str().and_then(|text| duration(text).ok()).unwrap_or(LIFE)
}

/// What Terraform was to keep and give back has not come back.
fn lost(what: &str) -> Diagnostic {
    Diagnostic::error(
        format!("The notes about {what} are lost"),
        "Terraform gave back something else. Please report this.",
    )
}

fn secret(what: &str) -> Attribute {
    Attribute::computed(Type::String).sensitive().describe(what)
}

fn computed(what: &str) -> Attribute {
    Attribute::computed(Type::String).describe(what)
}

/// `vmetal_join_token`.
struct Join;

/// What renewing and closing need to know of a token.
struct Lease {
    request: JoinTokenRequest,
    token_id: String,
}

impl Lease {
    fn to_private(&self) -> Private {
        let mut private = Private::default();
        let JoinTokenRequest { cluster, ttl, reason, request_id } = &self.request;
        private.set("cluster", cluster);
        private.set("ttl", ttl.as_secs().to_string());
        private.set("reason", reason);
        private.set("request_id", request_id);
        private.set("token_id", &self.token_id);
        private
    }

    fn from_private(private: &Private) -> Result<Self, Diagnostic> {
        let read = || {
            let note = |name: &str| private.get(name).map(str::to_owned);
            let ttl = Duration::from_secs(note("ttl")?.parse().ok()?);
            let (cluster, reason, request_id) = (note("cluster")?, note("reason")?, note("request_id")?);
            Some(Lease { request: JoinTokenRequest { cluster, ttl, reason, request_id }, token_id: note("token_id")? })
        };
        read().ok_or_else(|| lost("a join token"))
    }

    /// When a third of its life is left.
    fn renew_at(&self, expires_at: Timestamp) -> Timestamp {
        let early = SignedDuration::try_from(self.request.ttl / 3).unwrap_or_default();
        expires_at.saturating_sub(early).unwrap_or(Timestamp::MIN)
    }
}

fn asked(cluster: &str, error: ApiError) -> Diagnostics {
    refused::<TenantClusters>(&format!("asking for a join token of tenant cluster {cluster:?}"), error)
}

impl Join {
    async fn make(ctx: &Ctx<Engine>, config: &Value) -> Result<Opened, Diagnostics> {
        let client = ctx.client()?.client()?;
        let asked_for = config.attr("cluster").as_str().unwrap_or_default();
        let cluster = Managed::<TenantClusters>::lookup(ctx, asked_for).await?.name().to_owned();
        let request = JoinTokenRequest {
            cluster: cluster.clone(),
            ttl: ttl(config),
            reason: text(config.attr("reason")).unwrap_or_default(),
            request_id: client.new_request_id().map_err(|error| asked(&cluster, error))?,
        };
        let made = client.create_join_token(&request).await.map_err(|error| asked(&cluster, error))?;
        let lease = Lease { request, token_id: made.id().to_owned() };
        let renew_at = Some(lease.renew_at(made.expires_at));
        Ok(Opened { result: result(config, &made), private: lease.to_private(), renew_at })
    }

    async fn prolong(ctx: &Ctx<Engine>, private: Private) -> Result<Renewed, Diagnostics> {
        let lease = Lease::from_private(&private)?;
        let client = ctx.client()?.client()?;
        let again = client.create_join_token(&lease.request).await;
        let again = again.map_err(|error| asked(&lease.request.cluster, error))?;
        if again.id() != lease.token_id {
            // Somebody removed it, and what has been handed on opens nothing any more.
            let revoked = client.revoke_join_token(&lease.request.cluster, again.id()).await;
            revoked.map_err(|error| asked(&lease.request.cluster, error))?;
            let detail = "It was removed from its cluster while Terraform used it. Run the command again.";
            return Err(Diagnostic::error("The join token is gone", detail).into());
        }
        Ok(Renewed { renew_at: Some(lease.renew_at(again.expires_at)), private })
    }

    async fn revoke(ctx: &Ctx<Engine>, private: &Private) -> Result<(), Diagnostics> {
        let Lease { request: JoinTokenRequest { cluster, .. }, token_id } = Lease::from_private(private)?;
        let revoked = ctx.client()?.client()?.revoke_join_token(&cluster, &token_id).await;
        let doing = format!("revoking join token {token_id} of tenant cluster {cluster:?} (it expires by itself)");
        revoked.map_err(|error| refused::<TenantClusters>(&doing, error))
    }
}

fn result(config: &Value, made: &JoinToken) -> Value {
    let JoinToken { token, ca_cert_hash, endpoint, expires_at } = made;
    let token = token.expose();
    let mut result = config.clone();
    result.set("token_id", made.id());
    result.set("token", token);
    result.set("ca_cert_hash", ca_cert_hash.clone());
    result.set("endpoint", endpoint.clone());
    result.set("expires_at", expires_at.to_string());
    let command = format!("kubeadm join {endpoint} --token {token} --discovery-token-ca-cert-hash {ca_cert_hash}");
    result.set("join_command", command);
    result
}

impl Ephemeral<Engine> for Join {
    fn schema(&self) -> Schema {
        Schema::new(
            "A token that lets nodes join a tenant's cluster, for servers that vmetal does not install. It is made for the \
             command, prolonged while that runs, revoked after it, and kept nowhere; Terraform opens it for the plan and again \
             for the apply. Tenant nodes have tokens of their own.",
            [
                (
                    "cluster",
                    Attribute::required(Type::String)
                        .describe(format!("Name or id of the tenant cluster. {OF_THE_SAME}")),
                ),
                ("reason", reason_attribute()),
                ("ttl", ttl_attribute("")),
                ("token_id", computed("The public half of the token.")),
                ("token", secret("The token, `id.secret`.")),
                ("ca_cert_hash", computed("The pin of the cluster's authority, as kubeadm takes it.")),
                ("endpoint", computed("`host:port` of the API server.")),
                ("expires_at", computed("When the token ends unless it is prolonged (RFC 3339).")),
                ("join_command", secret("The command that joins a server with kubeadm.")),
            ],
        )
    }

    fn open<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Result<Opened, Diagnostics>> {
        Box::pin(async move { Self::make(ctx, &config).await })
    }

    fn renew<'a>(&'a self, ctx: &'a Ctx<Engine>, private: Private) -> Pending<'a, Result<Renewed, Diagnostics>> {
        Box::pin(Self::prolong(ctx, private))
    }

    fn close<'a>(&'a self, ctx: &'a Ctx<Engine>, private: Private) -> Pending<'a, Diagnostics> {
        Box::pin(async move { Self::revoke(ctx, &private).await.err().unwrap_or_default() })
    }
}

/// `vmetal_bmc_credential`.
struct Bmc;

impl Bmc {
    async fn read(ctx: &Ctx<Engine>, config: &Value) -> Result<Opened, Diagnostics> {
        let client = ctx.client()?.client()?;
        let reason = text(config.attr("reason")).unwrap_or_default();
        let host = Managed::<Hosts>::lookup(ctx, config.attr("host").as_str().unwrap_or_default()).await?;
        let host = host.name();
        let found = client.bmc_credential(host, &reason).await.map_err(|error| {
            let doing = format!("asking for the BMC password of host {host:?}");
            refused::<Hosts>(&doing, error).into_iter().map(|told| told.at(Path::attr("host"))).collect::<Diagnostics>()
        })?;
        let mut result = config.clone();
        result.set("address", found.address.as_str());
        result.set("origin", found.address.origin());
        result.set("username", found.username);
        result.set("password", found.password.expose());
        Ok(result.into())
    }
}

impl Ephemeral<Engine> for Bmc {
    fn schema(&self) -> Schema {
        Schema::new(
            "How to sign in to a host's BMC, for another provider or a provisioner in the same configuration. The engine hands \
             it out only where its configuration says so (`hand_out_passwords` in `[bmc]`), and puts every time on the host's \
             record; Terraform opens it for the plan and again for the apply.",
            [
                ("host", Attribute::required(Type::String).describe(format!("Name or id of the host. {OF_THE_SAME}"))),
                ("reason", reason_attribute()),
                ("address", computed("The BMC's address as declared.")),
                ("origin", computed("The URL that is connected to.")),
                ("username", computed("The account.")),
                ("password", secret("Its password.")),
            ],
        )
    }

    fn open<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Result<Opened, Diagnostics>> {
        Box::pin(async move { Self::read(ctx, &config).await })
    }
}
