//! Names of artifacts in registries.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::SourceError;

/// An artifact in a registry: `registry.example:5000/policies/place-mine@sha256:…` or `…:1.2`. The registry is always named:
/// what is meant without one differs from tool to tool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

/// Which of a repository's artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// Whichever has the tag; it can be moved.
    Tag(String),
    /// The one whose manifest has this digest.
    Digest(Digest),
}

impl Reference {
    /// Host and, if it is not the usual one, port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag or digest.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The digest, if it is pinned to one.
    pub fn digest(&self) -> Option<Digest> {
        match self.version {
            Version::Digest(digest) => Some(digest),
            Version::Tag(_) => None,
        }
    }

    /// The artifact of this digest in the same repository.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Reference { version: Version::Digest(digest), ..self.clone() }
    }

    /// The artifact of this tag in the same repository.
    #[must_use]
    pub(crate) fn tagged(&self, tag: String) -> Self {
        Reference { version: Version::Tag(tag), ..self.clone() }
    }
}

impl fmt::Display for Version {
    /// As the distribution API has it in a path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Tag(tag) => f.write_str(tag),
            Version::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        write!(f, "{}/{}{sign}{}", self.registry, self.repository, self.version)
    }
}

impl FromStr for Reference {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let wrong = |reason: &str| SourceError::NotAReference { text: text.to_owned(), reason: reason.to_owned() };
        let bare = text.strip_prefix("oci://").unwrap_or(text);
        let (registry, rest) = bare.split_once('/').ok_or_else(|| wrong("there is no registry in it"))?;
        if !is_registry(registry) {
            return Err(wrong(&format!("{registry:?} is no host of a registry; it is always named, also docker.io")));
        }
        let (repository, version) = match (rest.split_once('@'), rest.rsplit_once(':')) {
            // A tag in front of a digest says nothing more: the digest decides.
            (Some((name, digest)), _) => {
                let digest = digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
                let digest = digest.ok_or_else(|| wrong("what is behind the @ is no sha256:DIGEST"))?;
                (name.split_once(':').map_or(name, |(name, _)| name), Version::Digest(digest))
            }
            (None, Some((name, tag))) if is_tag(tag) => (name, Version::Tag(tag.to_owned())),
            (None, Some(_)) => return Err(wrong("what is behind the colon is no tag")),
            (None, None) => return Err(wrong("it has neither a digest nor a tag")),
        };
        if !repository.split('/').all(is_path_component) || repository.len() > 255 {
            return Err(wrong(&format!("{repository:?} is no name of a repository")));
        }
        Ok(Reference { registry: registry.to_owned(), repository: repository.to_owned(), version })
    }
}

/// A host with a dot or a port, or localhost: otherwise the first part could be one of a path.
fn is_registry(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let host = text == "localhost" || text.contains('.') || text.contains(':');
    host && text.chars().all(known) && url::Url::parse(&format!("https://{text}/")).is_ok_and(|url| url.has_host())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` of the distribution specification.
fn is_path_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
        && text.split(plain).all(separator)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` of the distribution specification.
fn is_tag(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(first) && text.len() <= 128 && text.chars().all(|c| first(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_read_and_written() {
        for text in [
            "127.0.0.1:5000/place-mine:1",
            "localhost/a:latest",
            "[::1]:5000/a/b:v1.0_x",
            "ghcr.io/an-org/pol__icies/place.mine:1.2.3-rc.1",
            &format!("registry.example/policies/place-mine@{DIGEST}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let both: Reference = format!("oci://registry.example:5000/a/b:1.2@{DIGEST}").parse().unwrap();
        assert_eq!((both.registry(), both.repository()), ("registry.example:5000", "a/b"));
        assert_eq!(both.digest(), Some(Digest::of(b"")));
    }

    #[test]
    fn what_is_no_reference_is_told_why() {
        for (text, why) in [
            ("place-mine", "no registry"),
            ("library/place-mine:1", "is no host of a registry"),
            ("registry.example/a", "neither a digest nor a tag"),
            ("registry.example/a:", "no tag"),
            ("registry.example/a:-x", "no tag"),
            ("registry.example/a@sha256:ab", "no sha256:DIGEST"),
            ("registry.example/a@md5:d41d8cd98f00b204e9800998ecf8427e", "no sha256:DIGEST"),
            ("registry.example/A:1", "no name of a repository"),
            ("registry.example/a//b:1", "no name of a repository"),
            ("registry.example/../b:1", "no name of a repository"),
            ("registry.example/a_.b:1", "no name of a repository"),
            ("user@registry.example/a:1", "is no host"),
            ("registry.example:port/a:1", "is no host"),
            ("registry.example?x/a:1", "is no host"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("expected REGISTRY/REPOSITORY@"), "{text}: {error}");
        }
    }
}
