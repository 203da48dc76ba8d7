//! `vmetal_api_token`: a token of the engine's API that ends with the command.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tfplugin::{
    Attribute, Ctx, Diagnostic, Diagnostics, Ephemeral, Opened, Path, Pending, Private, Renewed, Schema, Type, Value,
    schema::Validator,
};
use vmetal_api::{ApiError, ApiTokenRequest, Client, IssuedToken, Role};

use super::{computed, lost, reason_attribute, secret, ttl, ttl_attribute};
use crate::{convert::text, explain::refused, host::Hosts, provider::Engine};

/// `vmetal_api_token`.
pub(super) struct Api;

/// What renewing and closing need to know of a token.
struct Lease {
    id: String,
    ttl: Duration,
}

impl Lease {
    fn to_private(&self) -> Private {
        let mut private = Private::default();
        private.set("id", &self.id);
        private.set("ttl", self.ttl.as_secs().to_string());
        private
    }

    fn from_private(private: &Private) -> Result<Self, Diagnostic> {
        let read = || {
            let ttl = Duration::from_secs(private.get("ttl")?.parse().ok()?);
            Some(Self { id: private.get("id")?.to_owned(), ttl })
        };
        read().ok_or_else(|| lost("an API token"))
    }
}

/// So far ahead, by the clock of this machine, which is Terraform's.
#[allow(clippy::disallowed_methods, reason = "Terraform compares it with the same clock")]
fn ahead(span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or_default();
    Timestamp::now().saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// When a third of its life is left.
fn renew_at(issued: &IssuedToken) -> Option<Timestamp> {
    Some(ahead(issued.expires_in * 2 / 3))
}

fn failed(doing: &str, error: ApiError) -> Diagnostics {
    let role = matches!(error, ApiError::Forbidden { .. });
    let told = refused::<Hosts>(doing, error).into_iter();
    told.map(|told| if role { told.at(Path::attr("role")) } else { told }).collect()
}

fn client(ctx: &Ctx<Engine>) -> Result<&Client, Diagnostics> {
    Ok(ctx.client()?.client()?)
}

impl Api {
    async fn make(ctx: &Ctx<Engine>, config: &Value) -> Result<Opened, Diagnostics> {
        let role = config.attr("role").as_str().and_then(|name| name.parse().ok()).unwrap_or(Role::Reader);
        let ttl = ttl(config);
        let reason = text(config.attr("reason")).unwrap_or_default();
        let request = ApiTokenRequest { role, ttl, reason, request_id: String::new() };
        let made = client(ctx)?.create_api_token(&request).await;
        let made = made.map_err(|error| failed("asking for an API token", error))?;
        let mut result = config.clone();
        result.set("token_id", made.issued.id.clone());
        result.set("token", made.token.expose());
        result.set("name", made.issued.name.clone());
        result.set("expires_at", ahead(made.issued.expires_in).to_string());
        let renew_at = renew_at(&made.issued);
        Ok(Opened { result, private: Lease { id: made.issued.id, ttl }.to_private(), renew_at })
    }

    async fn prolong(ctx: &Ctx<Engine>, private: Private) -> Result<Renewed, Diagnostics> {
        let Lease { id, ttl } = Lease::from_private(&private)?;
        let issued = client(ctx)?.prolong_api_token(&id, ttl).await;
        let issued = issued.map_err(|error| failed(&format!("prolonging API token {id}"), error))?;
        Ok(Renewed { renew_at: renew_at(&issued), private })
    }

    async fn revoke(ctx: &Ctx<Engine>, private: &Private) -> Result<(), Diagnostics> {
        let Lease { id, .. } = Lease::from_private(private)?;
        let revoked = client(ctx)?.revoke_api_token(&id).await;
        revoked.map_err(|error| failed(&format!("revoking API token {id} (it expires by itself)"), error))
    }
}

impl Ephemeral<Engine> for Api {
    fn schema(&self) -> Schema {
        Schema::new(
            "A token of the engine's API for what else runs in the same command: another provider, a script. It may do no more \
             than the provider's own token, makes no further tokens, is made for the command, prolonged while that runs, revoked \
             after it, and kept nowhere; Terraform opens it for the plan and again for the apply.",
            [
                (
                    "role",
                    Attribute::optional(Type::String)
                        .validate(Validator::one_of(&["reader", "operator"]))
                        .describe("What it may do: `reader` (look; also when not set) or `operator` (everything)."),
                ),
                ("reason", reason_attribute()),
                ("ttl", ttl_attribute(" It never outlives the token that the provider itself uses.")),
                ("token_id", computed("By which operators see it (`vmetal token list`) and revoke it.")),
                ("token", secret("The token, for `Authorization: Bearer`, `VMETAL_TOKEN`.")),
                ("name", computed("Under which name the engine records what is done with it.")),
                ("expires_at", computed("When the token ends unless it is prolonged (RFC 3339).")),
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
