//! Which policies decide, and what of them is believed: `[policies]`.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Deserialize;
use vmetal_policy::{Binding, OnFailure, Source};
use vmetal_policy_source::{Credentials, Digest, Origin, Reference, Registries, SourceError, Sources, Trust};

use super::ConfigError;
use crate::causes::whole;

/// Which policies decide.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Directory with the shipped components (`place-balanced.wasm` and so on). Absent: their native twins decide.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Who prices node types: the name of a shipped policy, or a table. Default `cost-vcluster`.
    #[serde(default)]
    pub cost: Option<PolicyChoice>,
    /// Who chooses hosts: the name of a shipped policy, or a table. Default `place-balanced`.
    #[serde(default)]
    pub placement: Option<PolicyChoice>,
    /// Labels that say where a host is, from the widest to the narrowest failure domain. Default: the
    /// `topology.vmetal.dev/` labels.
    #[serde(default)]
    pub levels: Option<Vec<String>>,
    /// Public keys, each a PEM file's path or its text. With them every component needs a signature by one of them, also those
    /// in `dir`; what is compiled into the engine needs none. Absent: a pinned digest is enough.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
    /// Registries (`HOST:PORT`) that are spoken to without TLS. Those on loopback always are.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
}

/// A policy: `"place-spread"`, or a table that says more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PolicyChoice {
    /// A shipped policy without settings.
    Name(String),
    /// More than a name.
    Table(PolicyTable),
}

/// A policy with where it comes from, its settings, and what happens when it fails.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTable {
    /// A shipped policy. Either this, `file` or `oci`.
    #[serde(default)]
    pub name: Option<String>,
    /// A component.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The SHA-256 of the component's file, hexadecimal; another file is refused. Needed with `file`.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The detached signature of `file`. Default: beside it, `FILE.sig`. Looked at where `policies.keys` are configured.
    #[serde(default)]
    pub signature: Option<PathBuf>,
    /// An artifact in a registry, `REGISTRY/REPOSITORY@sha256:DIGEST`.
    #[serde(default)]
    pub oci: Option<String>,
    /// What the policy is told; it checks them itself.
    #[serde(default)]
    pub settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// What happens when a component fails. Default: the native twin decides.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
}

/// A policy of the configuration, before anything of it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Where it comes from.
    pub origin: PolicyOrigin,
    /// Its settings as JSON text; empty for none.
    pub settings: String,
    /// What happens when it fails.
    pub on_failure: OnFailure,
}

/// Where a policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyOrigin {
    /// It is compiled into the engine: the shipped policy of this name.
    Engine(String),
    /// A component from outside.
    Outside(Origin),
}

impl Chosen {
    /// Fetches the policy, if it is from outside, and checks that it is what it should be.
    ///
    /// # Errors
    /// When it cannot be had or is not trusted.
    pub async fn binding(self, sources: &Sources) -> Result<Binding, SourceError> {
        let source = match self.origin {
            PolicyOrigin::Engine(name) => Source::Native { name },
            PolicyOrigin::Outside(origin) => {
                let found = sources.component(&origin).await?;
                if let Some(key) = &found.signer {
                    tracing::info!(policy = found.name, sha256 = found.digest.hex(), %key, "policy is signed by a trusted key");
                }
                Source::Bytes { name: found.name, bytes: found.bytes, sha256: None }
            }
        };
        Ok(Binding { source, settings: self.settings, on_failure: self.on_failure })
    }
}

impl Policies {
    /// The policies: who prices node types, who chooses hosts.
    ///
    /// # Errors
    /// When a table does not say which policy, or says it twice.
    pub fn chosen(&self) -> Result<[Chosen; 2], ConfigError> {
        let default = |name: &str| PolicyChoice::Name(name.to_owned());
        let cost = self.cost.clone().unwrap_or_else(|| default(vmetal_policy::DEFAULT_COST));
        let placement = self.placement.clone().unwrap_or_else(|| default(vmetal_policy::DEFAULT_PLACEMENT));
        Ok([self.choice("policies.cost", cost)?, self.choice("policies.placement", placement)?])
    }

    fn choice(&self, key: &'static str, choice: PolicyChoice) -> Result<Chosen, ConfigError> {
        let table = match choice {
            PolicyChoice::Name(name) => PolicyTable { name: Some(name), ..PolicyTable::default() },
            PolicyChoice::Table(table) => table,
        };
        let origin = self.origin(&table).map_err(|message| ConfigError::Value { key, message })?;
        let on_failure = match origin {
            PolicyOrigin::Engine(_) => OnFailure::Closed,
            PolicyOrigin::Outside(_) => OnFailure::NativeTwin,
        };
        let settings = table.settings.map(|settings| serde_json::Value::Object(settings).to_string());
        Ok(Chosen {
            origin,
            settings: settings.unwrap_or_default(),
            on_failure: table.on_failure.unwrap_or(on_failure),
        })
    }

    fn origin(&self, table: &PolicyTable) -> Result<PolicyOrigin, String> {
        let of_a_file = [("sha256", table.sha256.is_some()), ("signature", table.signature.is_some())];
        let needless = of_a_file.iter().find(|(_, given)| *given).map(|(name, _)| name);
        match (&table.name, &table.file, &table.oci) {
            (None, Some(path), None) => {
                let sha256 = table.sha256.as_ref().ok_or("a file needs its sha256; `sha256sum FILE` prints it")?;
                let sha256: Digest = sha256.parse().map_err(|error| format!("sha256: {error}"))?;
                let (path, signature) = (path.clone(), table.signature.clone());
                Ok(PolicyOrigin::Outside(Origin::File { path, sha256: Some(sha256), signature }))
            }
            (Some(_), None, None) | (None, None, Some(_)) if needless.is_some() => {
                Err(format!("{} belongs to a file, and there is none", needless.unwrap_or(&"")))
            }
            (Some(name), None, None) => Ok(match &self.dir {
                Some(directory) => PolicyOrigin::Outside(Origin::file(directory.join(format!("{name}.wasm")))),
                None => PolicyOrigin::Engine(name.clone()),
            }),
            (None, None, Some(reference)) => {
                let reference: Reference = reference.parse().map_err(|error: SourceError| error.to_string())?;
                Ok(PolicyOrigin::Outside(Origin::Oci(reference)))
            }
            _ => Err("expected one of name (a shipped policy), file with sha256, or oci".to_owned()),
        }
    }

    /// The way to components from outside. What comes from registries is kept in the directory. `variable` reads the environment.
    ///
    /// # Errors
    /// When a key or the credentials for registries cannot be used.
    pub fn sources(&self, kept: PathBuf, variable: impl Fn(&str) -> Option<OsString>) -> Result<Sources, ConfigError> {
        let trust = Trust::of(self.keys.as_deref());
        let trust = trust.map_err(|error| ConfigError::Value { key: "policies.keys", message: whole(&error) })?;
        let registry = |chosen: &Chosen| matches!(chosen.origin, PolicyOrigin::Outside(Origin::Oci(_)));
        // Whoever uses no registry is not to be stopped by what a login has left behind.
        let credentials = match self.chosen()?.iter().any(registry) {
            true => Credentials::from_environment(variable)
                .map_err(|message| ConfigError::Value { key: "policies", message })?,
            false => Credentials::default(),
        };
        let registries = Registries::new(credentials, self.insecure_registries.clone());
        Ok(Sources::new(trust, registries, Some(kept)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn chosen(text: &str) -> Result<[Chosen; 2], String> {
        let policies: Policies = toml::from_str(text).map_err(|e| e.to_string())?;
        policies.chosen().map_err(|e| e.to_string())
    }

    #[test]
    fn policies_are_named_or_files_or_artifacts_with_a_digest() {
        let native = |name: &str| Chosen {
            origin: PolicyOrigin::Engine(name.to_owned()),
            settings: String::new(),
            on_failure: OnFailure::Closed,
        };
        assert_eq!(chosen("").unwrap(), [native("cost-vcluster"), native(vmetal_policy::DEFAULT_PLACEMENT)]);
        let [_, placement] = chosen("dir = \"/p\"\nplacement = \"place-spread\"").unwrap();
        assert_eq!(placement.origin, PolicyOrigin::Outside(Origin::file("/p/place-spread.wasm")));
        assert_eq!(placement.on_failure, OnFailure::NativeTwin);

        let more = "settings = { level = \"rack\" }, on_failure = \"closed\"";
        let file = format!("cost = {{ file = \"/x.wasm\", sha256 = {DIGEST:?}, signature = \"/x.s\", {more} }}");
        let [cost, _] = chosen(&file).unwrap();
        let (path, sha256, signature) = ("/x.wasm".into(), Some(Digest::of(b"")), Some("/x.s".into()));
        let origin = PolicyOrigin::Outside(Origin::File { path, sha256, signature });
        assert_eq!(cost, Chosen { origin, settings: "{\"level\":\"rack\"}".to_owned(), on_failure: OnFailure::Closed });

        let reference = format!("registry.example/policies/mine@sha256:{DIGEST}");
        let [cost, _] = chosen(&format!("cost = {{ oci = {reference:?} }}")).unwrap();
        assert_eq!(cost.origin, PolicyOrigin::Outside(Origin::Oci(reference.parse().unwrap())));
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for (wrong, why) in [
            ("cost = { file = \"/x.wasm\" }", "needs its sha256"),
            ("cost = { file = \"/x.wasm\", sha256 = \"ab\" }", "64 hexadecimal digits"),
            ("cost = { settings = {} }", "expected one of name"),
            ("cost = { name = \"a\", file = \"/b\", sha256 = \"DIGEST\" }", "expected one of name"),
            ("cost = { name = \"a\", oci = \"r.example/a:1\" }", "expected one of name"),
            ("cost = { name = \"a\", sha256 = \"DIGEST\" }", "sha256 belongs to a file"),
            ("cost = { oci = \"r.example/a:1\", signature = \"/s\" }", "signature belongs to a file"),
            ("cost = { oci = \"place-mine\" }", "is no OCI reference"),
            ("cost = { nmae = \"a\" }", "cost"),
        ] {
            let error = chosen(&wrong.replace("DIGEST", DIGEST)).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn keys_are_read_and_credentials_only_where_there_is_a_registry() {
        let broken = |name: &str| (name == "DOCKER_AUTH_CONFIG").then(|| OsString::from("broken"));
        let sources = |text: &str| {
            let policies: Policies = toml::from_str(text).unwrap();
            policies.sources("/nowhere".into(), broken).map(|_| ()).map_err(|error| error.to_string())
        };
        sources("").unwrap();
        assert!(sources("keys = []").unwrap_err().contains("policies.keys: the list of trusted keys is empty"));
        let error = sources("keys = [\"/no/such/key.pem\"]").unwrap_err();
        assert!(error.contains("policies.keys: cannot read the key /no/such/key.pem; "), "{error}");
        let error = sources("cost = { oci = \"r.example/a:1\" }").unwrap_err();
        assert!(error.contains("DOCKER_AUTH_CONFIG"), "{error}");
    }
}
