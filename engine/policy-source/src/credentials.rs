//! Who we are to a registry: what `docker login`, `podman login` and the like have written down.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The most bytes of a file with credentials.
const MOST_BYTES: u64 = 1 << 20;
/// Under which name Docker keeps those of its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// User names and passwords, each for one registry.
#[derive(Clone, Default)]
pub struct Credentials {
    known: HashMap<String, Login>,
    /// Where they come from, or where they were looked for.
    place: String,
}

#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Credentials {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registries: Vec<&String> = self.known.keys().collect();
        f.debug_struct("Credentials")
            .field("place", &self.place)
            .field("registries", &registries)
            .finish_non_exhaustive()
    }
}

/// The part of Docker's configuration that is read.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
}

impl Credentials {
    /// From the first of these that there is: the variable `DOCKER_AUTH_CONFIG` (the text itself), the file that
    /// `REGISTRY_AUTH_FILE` names, `config.json` in the directory that `DOCKER_CONFIG` names, `.docker/config.json` in the home
    /// directory. None of them is no failure: many registries give to everybody.
    ///
    /// # Errors
    /// What is wrong with the one that there is. The message holds nothing of its content.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(text) = named("DOCKER_AUTH_CONFIG") {
            return Self::parse(text.as_encoded_bytes(), "DOCKER_AUTH_CONFIG".to_owned());
        }
        let file = named("REGISTRY_AUTH_FILE")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&named("DOCKER_CONFIG")?).join("config.json")))
            .or_else(|| Some(Path::new(&named("HOME")?).join(".docker/config.json")));
        let Some(file) = file else {
            return Ok(Credentials { place: "the environment".to_owned(), ..Self::default() });
        };
        let place = file.display().to_string();
        match crate::file::read(&file, MOST_BYTES) {
            Ok(text) => Self::parse(&text, place),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Credentials { place, ..Credentials::default() })
            }
            Err(error) => Err(format!("cannot read the registry credentials {place}: {error}")),
        }
    }

    fn parse(text: &[u8], place: String) -> Result<Self, String> {
        // What serde says may quote the text.
        let config: Config = serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("the registry credentials in {place} are not as Docker has them (line {line}, column {column})")
        })?;
        let mut known = HashMap::new();
        for (registry, Auth { auth }) in config.auths {
            // An entry without a login points to a helper program, which is not asked.
            if auth.is_empty() {
                continue;
            }
            let login = STANDARD.decode(&auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let login = login.as_deref().and_then(|login| login.trim_end_matches('\0').split_once(':'));
            let Some((user, password)) = login else {
                return Err(format!(
                    "the registry credentials in {place} for {registry} are not base64 of USER:PASSWORD"
                ));
            };
            known.insert(registry, Login { user: user.to_owned(), password: password.to_owned() });
        }
        Ok(Credentials { known, place })
    }

    /// Those for this registry.
    pub(crate) fn of(&self, registry: &str) -> Option<&Login> {
        let hub = (registry == "docker.io").then_some(DOCKER_HUB);
        let mut names = [registry, hub.unwrap_or(registry)].into_iter();
        names.find_map(|name| self.known.get(name)).or_else(|| self.known.get(&format!("https://{registry}")))
    }

    /// Where they come from, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Credentials, String> {
        let found =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        Credentials::from_environment(found)
    }

    fn config(registry: &str, login: &str) -> String {
        format!("{{\"auths\": {{{registry:?}: {{\"auth\": {:?}}}, \"other\": {{}}}}}}", STANDARD.encode(login))
    }

    #[test]
    fn the_first_place_counts_and_each_login_is_for_its_registry() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        std::fs::create_dir(directory.path().join(".docker")).unwrap();
        std::fs::write(directory.path().join("config.json"), config("a.example", "docker:x")).unwrap();
        std::fs::write(directory.path().join(".docker/config.json"), config("a.example", "home:x")).unwrap();
        std::fs::write(directory.path().join("auth.json"), config("a.example", "podman:x:y")).unwrap();
        let auth = format!("{path}/auth.json");
        let text = config("a.example", "text:x");
        let all = [
            ("DOCKER_AUTH_CONFIG", text.as_str()),
            ("REGISTRY_AUTH_FILE", &auth),
            ("DOCKER_CONFIG", path),
            ("HOME", path),
        ];
        for (from_here, user) in
            all.iter().enumerate().map(|(at, _)| &all[at..]).zip(["text", "podman", "docker", "home"])
        {
            let found = from(from_here).unwrap();
            assert_eq!(found.of("a.example").unwrap().user, user);
            assert!(found.of("b.example").is_none() && found.of("other").is_none());
        }
        assert_eq!(from(&[("REGISTRY_AUTH_FILE", &auth)]).unwrap().of("a.example").unwrap().password, "x:y");
        assert!(from(&[("HOME", "/nowhere")]).unwrap().of("a.example").is_none());
        let hub = config(DOCKER_HUB, "me:x");
        assert_eq!(from(&[("DOCKER_AUTH_CONFIG", &hub)]).unwrap().of("docker.io").unwrap().user, "me");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let text = config("a.example", "user:hunter2");
        assert!(!format!("{:?}", from(&[("DOCKER_AUTH_CONFIG", &text)]).unwrap()).contains("hunter2"));
        for wrong in ["hunter2", "{\"auths\": \"hunter2\"}", &config("a.example", "hunter2")] {
            let error = from(&[("DOCKER_AUTH_CONFIG", wrong)]).unwrap_err();
            assert!(error.contains("DOCKER_AUTH_CONFIG") && !error.contains("hunter2"), "{error}");
        }
    }
}
