//! A crate to begin a policy with.

use std::path::{Path, PathBuf};

use vmetal_policy_sdk::Kind;

use crate::error::ToolError;

/// Where the repository of this program is published; a policy that is written without a checkout gets the SDK from there.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files of a new crate: where, and their text with `NAME`, `TYPE` and `SDK` to be filled in.
type Template = [(&'static str, &'static str); 5];

const PLACEMENT: Template = [
    ("Cargo.toml", include_str!("../templates/Cargo.toml.in")),
    (".gitignore", include_str!("../templates/gitignore")),
    ("README.md", include_str!("../templates/README.md.in")),
    ("src/lib.rs", include_str!("../templates/placement/lib.rs.in")),
    ("cases/first.yaml", include_str!("../templates/placement/first.yaml")),
];

const COST: Template = [
    ("Cargo.toml", include_str!("../templates/Cargo.toml.in")),
    (".gitignore", include_str!("../templates/gitignore")),
    ("README.md", include_str!("../templates/README.md.in")),
    ("src/lib.rs", include_str!("../templates/cost/lib.rs.in")),
    ("cases/first.yaml", include_str!("../templates/cost/first.yaml")),
];

/// Where a new crate gets the SDK from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sdk {
    /// `policies/sdk` of a checkout.
    Path(PathBuf),
    /// The published repository, at the tag of this program's version.
    Published,
}

impl Sdk {
    /// The SDK in a directory.
    ///
    /// # Errors
    /// When that is not it.
    pub fn at(path: &Path) -> Result<Self, ToolError> {
        let wrong = || ToolError::NotTheSdk { path: path.to_owned() };
        let manifest = std::fs::read_to_string(path.join("Cargo.toml")).map_err(|_| wrong())?;
        if !manifest.lines().any(|line| line.trim() == "name = \"vmetal-policy-sdk\"") {
            return Err(wrong());
        }
        Ok(Sdk::Path(path.canonicalize().map_err(|_| wrong())?))
    }

    /// The SDK of the checkout that a directory is in, or the published one.
    pub fn around(directory: &Path) -> Self {
        let above = directory.ancestors().map(|above| above.join("policies/sdk"));
        above.filter_map(|path| Sdk::at(&path).ok()).next().unwrap_or(Sdk::Published)
    }

    /// What `Cargo.toml` says of it.
    fn dependency(&self) -> String {
        match self {
            // A path in quotes as TOML and Rust both read them.
            Sdk::Path(path) => format!("{{ path = {:?} }}", path.display().to_string()),
            Sdk::Published => format!("{{ git = \"{REPOSITORY}\", tag = \"v{VERSION}\" }}"),
        }
    }

    /// The versions that the SDK was tested with; a checkout has them.
    fn lock(&self) -> Option<PathBuf> {
        match self {
            Sdk::Path(path) => Some(path.join("../../Cargo.lock")).filter(|lock| lock.is_file()),
            Sdk::Published => None,
        }
    }
}

/// Makes a policy crate called after the directory's last part. Gives the files, relative to it.
///
/// # Errors
/// A name that is none, a directory that is there already, or a file system that refuses; what was written by then stays.
pub fn new(directory: &Path, kind: Kind, sdk: &Sdk) -> Result<Vec<PathBuf>, ToolError> {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let first = name.chars().next().is_some_and(|first| first.is_ascii_lowercase());
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !first || !rest || name.ends_with('-') || name.contains("--") {
        return Err(ToolError::Name { name });
    }
    if directory.exists() {
        return Err(ToolError::Exists { path: directory.to_owned() });
    }
    let template = match kind {
        Kind::Cost => COST,
        Kind::Placement => PLACEMENT,
    };
    let fill = |text: &str| {
        text.replace("{NAME}", &name).replace("{TYPE}", &type_name(&name)).replace("{SDK}", &sdk.dependency())
    };
    let mut written = Vec::new();
    for (path, text) in template {
        let whole = directory.join(path);
        let file = |source| ToolError::File { path: whole.clone(), source };
        if let Some(parent) = whole.parent() {
            std::fs::create_dir_all(parent).map_err(file)?;
        }
        std::fs::write(&whole, fill(text)).map_err(file)?;
        written.push(PathBuf::from(path));
    }
    // Cargo drops from it what the crate does not use.
    if let Some(lock) = sdk.lock() {
        std::fs::copy(&lock, directory.join("Cargo.lock")).map_err(|source| ToolError::File { path: lock, source })?;
    }
    Ok(written)
}

/// `place-mine` as a type: `PlaceMine`.
fn type_name(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
    };
    name.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_checked_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        for wrong in ["Mine", "1st", "my_policy", "mine-", "a--b", "mine.wasm"] {
            let refused = new(&directory.path().join(wrong), Kind::Cost, &Sdk::Published).unwrap_err();
            assert!(matches!(refused, ToolError::Name { .. }), "{wrong}: {refused}");
        }
        let there = directory.path().join("mine");
        std::fs::create_dir(&there).unwrap();
        assert!(matches!(new(&there, Kind::Cost, &Sdk::Published), Err(ToolError::Exists { .. })));
        assert_eq!(std::fs::read_dir(&there).unwrap().count(), 0);
    }

    #[test]
    fn a_crate_of_each_kind_is_filled_in_whole() {
        let directory = tempfile::tempdir().unwrap();
        for (name, kind) in [("place-mine", Kind::Placement), ("cost-mine-2", Kind::Cost)] {
            let made = directory.path().join(name);
            let files = new(&made, kind, &Sdk::Published).unwrap();
            for file in &files {
                let text = std::fs::read_to_string(made.join(file)).unwrap();
                assert!(!["{NAME}", "{TYPE}", "{SDK}"].iter().any(|hole| text.contains(hole)), "{}", file.display());
            }
            let manifest = std::fs::read_to_string(made.join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("name = \"{name}\"")) && manifest.contains("tag = \"v"), "{manifest}");
        }
        assert_eq!(type_name("cost-mine-2"), "CostMine2");
    }

    #[test]
    fn the_sdk_of_the_checkout_is_found_and_another_directory_is_refused() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let Sdk::Path(path) = Sdk::around(here) else { panic!("the checkout's SDK was not found") };
        assert!(path.ends_with("policies/sdk"));
        assert!(matches!(Sdk::at(here), Err(ToolError::NotTheSdk { .. })));
        assert_eq!(Sdk::around(Path::new("/")), Sdk::Published);
    }
}
