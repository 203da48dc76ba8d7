//! A directory that Terraform and OpenTofu install from, without a registry: `filesystem_mirror`, packed layout.
//!
//! ```text
//! DIR/registry.terraform.io/vmetal/vmetal/terraform-provider-vmetal_0.1.0_linux_amd64.zip
//! DIR/registry.opentofu.org/vmetal/vmetal/terraform-provider-vmetal_0.1.0_linux_amd64.zip
//! ```
//!
//! The short address `vmetal/vmetal` means another host in each of them, so both are there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{ReleaseError, bundle::Bundle, bundle::NAME, io};

/// Where the short address of a provider leads: to Terraform's registry in Terraform, to OpenTofu's in OpenTofu.
pub const HOSTS: [&str; 2] = ["registry.terraform.io", "registry.opentofu.org"];

const NAMESPACE: &str = "vmetal";

/// Checks a release and puts its zips into the mirror. What is there already, of this or of other releases, stays.
///
/// # Errors
/// [`ReleaseError::Sum`] when a file is not the released one: nothing is installed then.
pub fn install(release: &Bundle, mirror: &Path) -> Result<Vec<PathBuf>, ReleaseError> {
    let mut installed = Vec::new();
    for zip in release.check()? {
        for host in HOSTS {
            let directory = mirror.join(host).join(NAMESPACE).join(NAME);
            fs::create_dir_all(&directory).map_err(io("make", &directory))?;
            let to = directory.join(zip.file_name().unwrap_or_default());
            // A client may be installing from here just now: it sees the old file or the new one, never a part.
            let new = to.with_extension("zip.new");
            fs::copy(&zip, &new).map_err(io("write", &new))?;
            fs::rename(&new, &to).map_err(io("write", &to))?;
            installed.push(to);
        }
    }
    Ok(installed)
}

/// What a user's CLI configuration (`~/.terraformrc`, `~/.tofurc`) must say to install from the mirror.
pub fn configuration(mirror: &Path) -> String {
    let addresses = HOSTS.map(|host| format!("\"{host}/{NAMESPACE}/{NAME}\"")).join(", ");
    format!(
        "provider_installation {{\n  filesystem_mirror {{\n    path    = {:?}\n    include = [{addresses}]\n  }}\n  direct {{\n    exclude = [{addresses}]\n  }}\n}}\n",
        mirror.display().to_string()
    )
}
