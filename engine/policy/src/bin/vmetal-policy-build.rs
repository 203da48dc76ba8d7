//! Builds policy crates into components: `vmetal-policy-build <output directory> <crate>...`, run in the workspace.
//!
//! Prints one line for each component: its SHA-256, its size in bytes, its path.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let out = args.next().map(PathBuf::from);
    let packages: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (Some(out), false) = (out, packages.is_empty()) else {
        eprintln!("usage: vmetal-policy-build <output directory> <crate>...");
        return ExitCode::from(2);
    };
    for package in packages {
        match vmetal_policy::componentize::build(Path::new("."), &package, &out) {
            Ok(built) => println!("{}  {:>9}  {}", built.sha256, built.size, built.path.display()),
            Err(error) => {
                let mut cause: Option<&dyn std::error::Error> = Some(&error);
                let mut line = String::from("vmetal-policy-build");
                while let Some(error) = cause {
                    line.push_str(": ");
                    line.push_str(&error.to_string());
                    cause = error.source();
                }
                eprintln!("{line}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
