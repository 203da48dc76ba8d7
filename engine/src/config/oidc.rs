//! Whose identity tokens are believed, and what they are good for: `[[oidc]]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::SignedDuration;
use serde::Deserialize;
use vmetal_api::Role;

use super::ConfigError;

/// A platform that says who its workloads are, by OpenID Connect ID tokens: HCP Terraform, a CI service, a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The issuer, exactly as its tokens name it (`iss`), for example `https://app.terraform.io`.
    pub issuer: String,
    /// For whom tokens must be made out (`aud`).
    pub audience: String,
    /// Where the issuer's keys are: a JSON Web Key Set over `https://`. Either this or `jwks_file`.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The issuer's keys in a file, where the engine has no way to the issuer; read whenever they are needed.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// How long a token is good for that an identity token was exchanged for. Default 1 h, from 1 min to 12 h.
    #[serde(default = "default_lifetime")]
    pub token_lifetime: SignedDuration,
    /// Who may what. The first grant whose claims are all there counts; who fits none gets nothing.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// What workloads with certain claims may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// What stands on the record of what they do, with the token's subject after it.
    pub name: String,
    /// `reader` or `operator`.
    pub role: Role,
    /// Claims and the values they must have; at least one, because an issuer makes tokens for everybody.
    pub claims: BTreeMap<String, Accepted>,
}

/// What a claim must be: a text, or one of several. There are no patterns. A claim that is a list must have one of them in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Accepted {
    /// This one.
    One(String),
    /// One of these.
    OneOf(Vec<String>),
}

impl Accepted {
    /// Whether it is this one.
    pub fn has(&self, value: &str) -> bool {
        match self {
            Accepted::One(accepted) => accepted == value,
            Accepted::OneOf(accepted) => accepted.iter().any(|accepted| accepted == value),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Accepted::One(accepted) => accepted.is_empty(),
            Accepted::OneOf(accepted) => accepted.is_empty() || accepted.iter().any(String::is_empty),
        }
    }
}

/// Claims that every token of an issuer has alike, or that say nothing about who it is.
const NO_IDENTITY: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

fn default_lifetime() -> SignedDuration {
    SignedDuration::from_hours(1)
}

/// Checks all of them.
pub(super) fn check(issuers: &[Oidc]) -> Result<(), ConfigError> {
    let wrong = |key, message: String| Err(ConfigError::Value { key, message });
    for (index, one) in issuers.iter().enumerate() {
        let issuer = &one.issuer;
        if issuer.is_empty() || one.audience.is_empty() {
            return wrong("oidc", "issuer and audience must not be empty".to_owned());
        }
        if issuers[..index].iter().any(|other| other.issuer == *issuer) {
            return wrong("oidc.issuer", format!("{issuer} is there twice; put its grants together"));
        }
        match (&one.jwks_url, &one.jwks_file) {
            (Some(url), None) if is_safe(url) => {}
            (None, Some(_)) => {}
            (Some(url), None) => {
                let message = format!(
                    "{url:?}; expected an https:// URL (http:// on loopback only): whoever can change what is read there can do everything"
                );
                return wrong("oidc.jwks_url", message);
            }
            _ => return wrong("oidc", format!("{issuer} needs either jwks_url or jwks_file")),
        }
        let (least, most) = (SignedDuration::from_mins(1), SignedDuration::from_hours(12));
        if one.token_lifetime < least || one.token_lifetime > most {
            let message = format!("{:#} is out of bounds; expected {least:#} to {most:#}", one.token_lifetime);
            return wrong("oidc.token_lifetime", message);
        }
        if one.grants.is_empty() {
            return wrong("oidc.grants", format!("{issuer} has none, so it is good for nothing"));
        }
        for grant in &one.grants {
            let name = &grant.name;
            if name.is_empty() {
                return wrong("oidc.grants.name", "is empty; it stands on the record of what is done".to_owned());
            }
            if grant.claims.keys().all(|claim| NO_IDENTITY.contains(&claim.as_str())) {
                let message = format!(
                    "{name:?} names no claim that says who it is, so everybody with a token of {issuer} would get it; \
                     add for example the organization and the workspace"
                );
                return wrong("oidc.grants.claims", message);
            }
            if let Some((claim, _)) = grant.claims.iter().find(|(_, accepted)| accepted.is_empty()) {
                return wrong("oidc.grants.claims", format!("{claim} of {name:?} has an empty value or none"));
            }
        }
    }
    Ok(())
}

fn is_safe(url: &str) -> bool {
    let loopback = ["http://127.0.0.1:", "http://127.0.0.1/", "http://[::1]:", "http://[::1]/"];
    (url.starts_with("https://") && url.len() > "https://".len()) || loopback.iter().any(|start| url.starts_with(start))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = r#"
        issuer = "https://app.terraform.io"
        audience = "vmetal"
        jwks_url = "https://app.terraform.io/.well-known/jwks"
        [[grants]]
        name = "hcp"
        role = "operator"
        claims = { terraform_workspace_id = "ws-1", terraform_run_phase = ["plan", "apply"] }
    "#;

    fn checked(text: &str) -> Result<Oidc, String> {
        let one: Oidc = toml::from_str(text).map_err(|e| e.to_string())?;
        check(std::slice::from_ref(&one)).map_err(|e| e.to_string())?;
        Ok(one)
    }

    #[test]
    fn what_is_enough_is_taken() {
        let one = checked(GOOD).unwrap();
        assert_eq!(one.token_lifetime, SignedDuration::from_hours(1));
        assert_eq!(one.grants[0].role, Role::Operator);
        assert!(one.grants[0].claims["terraform_run_phase"].has("apply"));
        assert!(!one.grants[0].claims["terraform_run_phase"].has("app"));
        let message = check(&[one.clone(), one]).unwrap_err().to_string();
        assert!(message.contains("twice"), "{message}");
    }

    #[test]
    fn what_would_let_everybody_in_is_refused() {
        for (from, to, says) in [
            ("https://app.terraform.io/.well-known/jwks", "http://app.terraform.io/jwks", "https://"),
            ("https://app.terraform.io/.well-known/jwks", "http://127.0.0.1.example/jwks", "https://"),
            ("jwks_url =", "jwks_fil =", "jwks_fil"),
            ("jwks_url", "jwks_file = \"/x\"\njwks_url", "either"),
            ("audience = \"vmetal\"", "audience = \"\"", "audience"),
            ("\"operator\"", "\"root\"", "root"),
            ("terraform_workspace_id = \"ws-1\", terraform_run_phase", "iss", "everybody"),
            ("terraform_workspace_id = \"ws-1\", terraform_run_phase = [\"plan\", \"apply\"]", "", "everybody"),
            ("\"ws-1\"", "\"\"", "terraform_workspace_id"),
            ("[\"plan\", \"apply\"]", "[]", "terraform_run_phase"),
            ("audience", "token_lifetime = \"1s\"\naudience", "out of bounds"),
            ("audience", "token_lifetime = \"24h\"\naudience", "out of bounds"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let message = checked(&GOOD.replace(from, to)).unwrap_err();
            assert!(message.contains(says), "{to}: {message}");
        }
        let message = checked(GOOD.split("[[grants]]").next().unwrap()).unwrap_err();
        assert!(message.contains("good for nothing"), "{message}");
    }
}
