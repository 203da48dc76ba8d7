//! What must have been built before anything can be put together. `make artifacts` builds it all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The built pieces.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// Where the Rust programs are.
    pub bin: PathBuf,
    /// Kernel, installer and boot loaders.
    pub assets: PathBuf,
    /// The policy components.
    pub policies: PathBuf,
    /// The Kubernetes programs.
    pub kubernetes: PathBuf,
    /// The node image.
    pub node_image: PathBuf,
}

impl Artifacts {
    /// Finds them: the programs beside the running one, the rest in `artifacts` of the target directory.
    ///
    /// # Errors
    /// Names what is missing and the command that builds it.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let above = own.ancestors().find(|dir| dir.join("vmetald").is_file());
        let Some(bin) = above else {
            bail!("no vmetald beside {}: run `make artifacts`", own.display());
        };
        let built = bin.parent().unwrap_or(bin).join("artifacts");
        let artifacts = Artifacts {
            bin: bin.to_owned(),
            assets: built.join("assets"),
            policies: built.join("policies"),
            kubernetes: built.join("kubernetes"),
            node_image: built.join("node-image.raw"),
        };
        let needed = [
            artifacts.program("vmetald"),
            artifacts.program("vmetal"),
            artifacts.program("vmetal-lab"),
            artifacts.program("vmetal-netboot"),
            artifacts.program("terraform-provider-vmetal"),
            artifacts.assets.join("manifest.json"),
            artifacts.policies.join("cost-vcluster.wasm"),
            artifacts.kubernetes.join("testcluster"),
            artifacts.node_image.clone(),
        ];
        match needed.iter().find(|path| !path.exists()) {
            Some(missing) => bail!("{} is missing: run `make artifacts`", missing.display()),
            None => Ok(artifacts),
        }
    }

    /// One of our programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// The root of the sources.
pub fn sources() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
