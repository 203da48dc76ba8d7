//! Makes anew what is derived from the provider's schema: `schema.json`, and the registry's pages. `make docs` runs it.
//!
//! `schema.json` is what users can rely on. A difference that breaks configurations or states of theirs is refused unless
//! `--breaking` says that it is meant.

#[path = "reference/pages.rs"]
#[allow(unreachable_pub, reason = "shared with the tests")]
mod pages;

use std::{fs, io, path::Path, process::ExitCode};

use serde_json::Value as Json;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let meant = std::env::args().skip(1).any(|argument| argument == "--breaking");
    let repository = root.join("..");
    let made = schema(&root.join("schema.json"), meant)
        .and_then(|()| documents(&repository).map_err(|error| format!("docs/registry: {error}")));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn schema(path: &Path, meant: bool) -> Result<(), String> {
    let now = provider_vmetal::description();
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let before: Json = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(&error))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Json::Null,
        Err(error) => return Err(failed(&error)),
    };
    let broken = tfplugin::describe::breaking(&before, &now);
    if !broken.is_empty() && !meant {
        return Err(format!(
            "these changes break what users have:\n  {}\nIf that is meant, say so in CHANGELOG.md and run: make docs BREAKING=1",
            broken.join("\n  ")
        ));
    }
    fs::write(path, format!("{now:#}\n")).map_err(|error| failed(&error))
}

/// Writes every page and removes those of what is no longer there; guides are written by hand.
fn documents(repository: &Path) -> io::Result<()> {
    let docs = repository.join("docs/registry");
    for (_, directory, _, _) in pages::SORTS {
        match fs::remove_dir_all(docs.join(directory)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for (path, text) in pages::all(&provider_vmetal::description(), &repository.join("examples/registry"))? {
        let path = docs.join(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}
