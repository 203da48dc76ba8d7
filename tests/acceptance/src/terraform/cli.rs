//! Which program applies configurations: HashiCorp's Terraform, or OpenTofu in its place.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Names a program to use instead of the first that is found.
const CHOICE: &str = "VMETAL_TERRAFORM";
/// Write-only arguments came with this version, of both.
const NEEDED: (u32, u32) = (1, 11);

/// Who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// HashiCorp's Terraform.
    Terraform,
    /// OpenTofu.
    OpenTofu,
}

impl Product {
    /// What it is called in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Product::Terraform => "Terraform",
            Product::OpenTofu => "OpenTofu",
        }
    }

    /// The host of the registry that a provider address without one means.
    pub fn registry(self) -> &'static str {
        match self {
            Product::Terraform => "registry.terraform.io",
            Product::OpenTofu => "registry.opentofu.org",
        }
    }
}

/// A program that was found and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cli {
    /// What to run: a name on the PATH, or a path.
    pub program: PathBuf,
    /// Who made it.
    pub product: Product,
    /// Its version, for example `1.11.4`.
    pub version: String,
}

impl fmt::Display for Cli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.product.name(), self.version, self.program.display())
    }
}

impl Cli {
    /// The program that `VMETAL_TERRAFORM` names, otherwise the first that is new enough of: `terraform` and `tofu` on the PATH,
    /// and the `tofu` that `make setup` has built.
    ///
    /// # Errors
    /// What was looked for, what was wrong with it, and what to do.
    pub fn find() -> Result<Self> {
        if let Some(chosen) = std::env::var_os(CHOICE) {
            let chosen = PathBuf::from(chosen);
            return Self::of(&chosen).with_context(|| format!("{CHOICE} names {}", chosen.display()));
        }
        let mut refused = Vec::new();
        for program in [PathBuf::from("terraform"), PathBuf::from("tofu"), cache().join("tools/bin/tofu")] {
            match Self::of(&program) {
                Ok(cli) => return Ok(cli),
                Err(error) => refused.push(format!("  {}: {error:#}", program.display())),
            }
        }
        bail!(
            "neither Terraform nor OpenTofu {}.{} or newer was found; run `make setup`\n{}",
            NEEDED.0,
            NEEDED.1,
            refused.join("\n")
        )
    }

    fn of(program: &std::path::Path) -> Result<Self> {
        let output =
            Command::new(program).arg("version").env("CHECKPOINT_DISABLE", "1").output().context("cannot be run")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (product, version) = parse(&said)
            .with_context(|| format!("is neither Terraform nor OpenTofu by what it says of its version: {said:?}"))?;
        let cli = Cli { program: program.to_owned(), product, version };
        ensure!(
            numbers(&cli.version) >= NEEDED,
            "is {} {}, but write-only passwords need {}.{} or newer",
            product.name(),
            cli.version,
            NEEDED.0,
            NEEDED.1
        );
        Ok(cli)
    }
}

/// Product and version from what `terraform version` prints; warnings about its configuration may come before them.
fn parse(said: &str) -> Option<(Product, String)> {
    said.lines().find_map(|line| {
        let (name, version) = line.split_once(" v")?;
        let product = [Product::Terraform, Product::OpenTofu].into_iter().find(|product| product.name() == name)?;
        Some((product, version.trim().to_owned()))
    })
}

fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Where `scripts/setup` keeps its tools.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("VMETAL_CACHE").unwrap_or_else(|| {
        set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache")).join("vmetal")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn both_products_are_told_apart_and_others_are_refused() {
        let text = "Terraform v1.11.4\non linux_amd64\n\nYour version of Terraform is out of date!";
        assert_eq!(parse(text), Some((Product::Terraform, "1.11.4".to_owned())));
        assert_eq!(
            parse("\nWarning: no very good file\n\nOpenTofu v1.12.6\n"),
            Some((Product::OpenTofu, "1.12.6".to_owned()))
        );
        assert_eq!(parse("Terragrunt v1.12.6\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn minor_versions_are_compared_as_numbers() {
        assert!(numbers("1.9.8") < NEEDED && numbers("1.11.0-rc1") >= NEEDED && numbers("2.0") >= NEEDED);
    }

    #[test]
    fn what_is_too_old_or_missing_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("terraform");
        std::fs::write(&old, "#!/bin/sh\necho Terraform v1.5.7\n").unwrap();
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
        let said = format!("{:#}", Cli::of(&old).unwrap_err());
        assert_eq!(said, "is Terraform 1.5.7, but write-only passwords need 1.11 or newer");
        let said = format!("{:#}", Cli::of(&directory.path().join("none")).unwrap_err());
        assert!(said.starts_with("cannot be run"), "{said}");
    }
}
