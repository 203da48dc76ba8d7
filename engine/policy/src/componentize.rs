//! From a policy crate to a component, with cargo as the only tool.
//!
//! Cargo builds the crate for `wasm32-unknown-unknown`; the module carries the description of its world in a custom
//! section (put there by the SDK), from which the encoder makes the component. Paths of the building machine are mapped
//! away, so that the same source gives the same bytes on every machine with the same compiler.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vmetal_policy_sdk::Kind;

use crate::cases::{Case, SECTION};
use crate::component::sandbox::Limits;
use crate::component::{scan, sha256};
use crate::error::{Cause, LoadError};
use crate::slot;

/// The target that policies are built for: no system interface at all.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// The cargo profile that policies are built with.
pub const PROFILE: &str = "policy";

/// Why a component could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo could not be started.
    #[error("cannot start {cargo}")]
    Cargo {
        /// The program.
        cargo: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The crate does not compile.
    #[error("{package} does not compile for {TARGET}\n{output}")]
    Compile {
        /// The crate.
        package: String,
        /// What cargo said.
        output: String,
    },
    /// The compiler cannot build for WebAssembly.
    #[error("the Rust target {TARGET} is not installed: `rustup target add {TARGET}`\n{output}")]
    NoTarget {
        /// What cargo said.
        output: String,
    },
    /// There is no crate.
    #[error("there is no Cargo.toml in {}; `vmetal policy new` makes a policy crate", directory.display())]
    NotACrate {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// Cargo knows no package there.
    #[error("cargo finds no package in {}\n{output}", manifest.display())]
    Manifest {
        /// Its manifest.
        manifest: PathBuf,
        /// What cargo said.
        output: String,
    },
    /// Cargo built no module.
    #[error("building {package} gave no WebAssembly module; its [lib] needs crate-type \"cdylib\"")]
    NoModule {
        /// The crate.
        package: String,
    },
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of cases is not what is expected.
    #[error("{} is no list of cases", path.display())]
    Cases {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Cause,
    },
    /// There are no cases to put into a component.
    #[error("there is no case in {}; cases are written in *.yaml", directory.display())]
    NoCases {
        /// Where they were looked for.
        directory: PathBuf,
    },
    /// A component has cases, and would have more than one list of them.
    #[error("{} brings cases already; give the component as its own tools made it", path.display())]
    HasCases {
        /// The component.
        path: PathBuf,
    },
    /// A component is no policy.
    #[error(transparent)]
    NotAPolicy(#[from] LoadError),
    /// The module is no policy.
    #[error("{package} cannot be made a component; does it call export_cost_policy! or export_placement_policy!?")]
    Encode {
        /// The crate.
        package: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// A component that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size: usize,
}

/// Makes a component of a module that was built with the SDK.
///
/// # Errors
/// When the bytes are no module or do not describe a policy world.
pub fn encode(module: &[u8]) -> Result<Vec<u8>, Cause> {
    let mut encoder = wit_component::ComponentEncoder::default().module(module)?.validate(true);
    Ok(encoder.encode()?)
}

/// Builds the policy crate in `directory`, of this workspace or of any other, and writes `<out>/<package>.wasm`.
///
/// # Errors
/// When cargo, the encoder or the file system refuses.
pub fn build(directory: &Path, out: &Path) -> Result<Built, BuildError> {
    let project = Project::find(directory)?;
    let module = compile(&project)?;
    let bytes = std::fs::read(&module).map_err(|source| BuildError::File { path: module, source })?;
    let package = &project.package;
    let encode_error = |source| BuildError::Encode { package: package.clone(), source };
    let mut component = encode(&bytes).map_err(encode_error)?;
    embed_cases(&mut component, &read_cases(&project.directory.join("cases"))?);
    write(&component, out.join(format!("{package}.wasm")))
}

/// Writes a component that other tools made, with the cases of a directory in it.
///
/// # Errors
/// When it is no policy, it or the cases cannot be read, there are none, or it brings some already.
pub fn pack(component: &Path, cases: &Path, out: &Path) -> Result<Built, BuildError> {
    let mut bytes = slot::read(component, &Limits::default())?.to_vec();
    let policy = component.display().to_string();
    let outline = scan::outline(&policy, &bytes)?;
    let kind = if outline.exports_some("cost") { Kind::Cost } else { Kind::Placement };
    if scan::scan(&policy, &bytes, kind)?.is_some() {
        return Err(BuildError::HasCases { path: component.to_owned() });
    }
    let found = read_cases(cases)?;
    if found.is_empty() {
        return Err(BuildError::NoCases { directory: cases.to_owned() });
    }
    embed_cases(&mut bytes, &found);
    write(&bytes, out.to_owned())
}

/// Written beside and renamed, so that an engine never reads half a file.
fn write(component: &[u8], path: PathBuf) -> Result<Built, BuildError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::File { path, source }
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(file(directory))?;
    }
    let mut partial = path.clone().into_os_string();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    std::fs::write(&partial, component).map_err(file(&partial))?;
    std::fs::rename(&partial, &path).map_err(file(&path))?;
    Ok(Built { path, sha256: sha256(component), size: component.len() })
}

/// Builds the crate in `directory` for WebAssembly; where the module is.
///
/// # Errors
/// When cargo refuses.
pub fn module(directory: &Path) -> Result<PathBuf, BuildError> {
    compile(&Project::find(directory)?)
}

/// Puts cases into a component: it is tried with them before it is seated.
fn embed_cases(component: &mut Vec<u8>, cases: &[Case]) {
    // Plain data; writing it into memory cannot fail.
    let content = serde_json::to_vec(cases).unwrap_or_default();
    let mut section = Vec::new();
    leb128(&mut section, SECTION.len());
    section.extend_from_slice(SECTION.as_bytes());
    section.extend_from_slice(&content);
    // Identifier 0: a custom section (WebAssembly core specification, 5.5.3; the component format takes it over).
    component.push(0);
    leb128(component, section.len());
    component.extend_from_slice(&section);
}

/// An unsigned number in the variable-length form of the WebAssembly binary format.
fn leb128(out: &mut Vec<u8>, mut number: usize) {
    loop {
        // Seven bits fit into a byte.
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// The cases in the YAML files of a directory, by file name; none when there is no such directory.
///
/// # Errors
/// A file that cannot be read or is no list of cases.
pub fn read_cases(directory: &Path) -> Result<Vec<Case>, BuildError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::File { path, source }
    };
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut paths: Vec<PathBuf> = entries.map_err(file(directory))?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        cases.extend(read_case_file(&path)?);
    }
    Ok(cases)
}

/// The cases in one YAML file.
///
/// # Errors
/// A file that cannot be read or is no list of cases.
pub fn read_case_file(path: &Path) -> Result<Vec<Case>, BuildError> {
    let text = std::fs::read_to_string(path).map_err(|source| BuildError::File { path: path.to_owned(), source })?;
    serde_yaml_ng::from_str(&text).map_err(|source| BuildError::Cases { path: path.to_owned(), source: source.into() })
}

/// A policy crate as cargo knows it.
struct Project {
    /// Where its `Cargo.toml` is.
    directory: PathBuf,
    package: String,
    /// Directories of this machine and what stands for them in the component.
    remapped: Vec<(PathBuf, String)>,
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

impl Project {
    fn find(directory: &Path) -> Result<Self, BuildError> {
        let file = |source| BuildError::File { path: directory.to_owned(), source };
        let directory = directory.canonicalize().map_err(file)?;
        let manifest = directory.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(BuildError::NotACrate { directory });
        }
        let mut command = Command::new(cargo());
        command.current_dir(&directory).args(["metadata", "--no-deps", "--format-version", "1"]).stdin(Stdio::null());
        let output = command.output().map_err(|source| BuildError::Cargo { cargo: cargo(), source })?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = packages.iter().find(|found| found["manifest_path"].as_str().map(Path::new) == Some(&manifest));
        let (Some(found), Some(root)) = (found, metadata["workspace_root"].as_str()) else {
            let output = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(BuildError::Manifest { manifest, output });
        };
        let package = found["name"].as_str().unwrap_or_default().to_owned();
        // The last match counts: what is more particular comes later.
        let mut remapped = Vec::new();
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        remapped.extend(home.map(|home| (home, "cargo".to_owned())));
        let beside = found["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let local = beside.iter().filter_map(|one| Some((one["path"].as_str()?, one["name"].as_str()?)));
        remapped.extend(
            local
                .filter(|(path, _)| !Path::new(path).starts_with(root))
                .map(|(path, name)| (path.into(), name.to_owned())),
        );
        remapped.push((root.into(), ".".to_owned()));
        Ok(Project { directory, package, remapped })
    }
}

/// How policies are compiled: small, and as fast as the compiler can make them. Said here and not in a `Cargo.toml`, so
/// that a crate anywhere is built the same way.
const OPTIONS: [&str; 6] =
    ["inherits=\"release\"", "opt-level=3", "lto=\"fat\"", "codegen-units=1", "panic=\"abort\"", "strip=\"symbols\""];

/// Heap that a policy begins with: what a call about little needs, so that it grows no memory. Growing it, and taking it back
/// afterwards, costs the engine a third of such a call.
const INITIAL_HEAP: &str = "-Clink-arg=--initial-heap=131072";

/// Whether the compiler that cargo calls in a directory has the standard library of a target. Who cannot be asked has it: cargo
/// says then what is wrong.
fn has_target(directory: &Path, target: &str) -> bool {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let mut command = Command::new(rustc);
    command.current_dir(directory).args(["--print", "target-libdir", "--target", target]).stdin(Stdio::null());
    let Ok(output) = command.output() else { return true };
    !output.status.success() || Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
}

fn compile(project: &Project) -> Result<PathBuf, BuildError> {
    let package = &project.package;
    let mut command = Command::new(cargo());
    command
        .current_dir(&project.directory)
        .args(["build", "--package", package, "--lib", "--target", TARGET, "--profile", PROFILE])
        .args(["--message-format", "json-render-diagnostics"])
        .args(OPTIONS.iter().flat_map(|option| ["--config".to_owned(), format!("profile.{PROFILE}.{option}")]))
        .stdin(Stdio::null());
    let flag = |(from, to): &(PathBuf, String)| format!("--remap-path-prefix={}={to}", from.display());
    let flags: Vec<String> = project.remapped.iter().map(flag).chain([INITIAL_HEAP.to_owned()]).collect();
    // An encoded list: paths may contain spaces.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let output = command.output().map_err(|source| BuildError::Cargo { cargo: cargo(), source })?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(match has_target(&project.directory, TARGET) {
            true => BuildError::Compile { package: package.clone(), output },
            false => BuildError::NoTarget { output },
        });
    }
    let library = package.replace('-', "_");
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == library.as_str())
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .ok_or_else(|| BuildError::NoModule { package: package.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_target_is_told_from_one_that_is_there() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(has_target(here, TARGET), "run `make setup`");
        // A target of the second tier that nobody installs.
        assert!(!has_target(here, "sparcv9-sun-solaris"));
        assert!(has_target(here, "no-such-target"), "cargo tells of that itself");
        let told = BuildError::NoTarget { output: String::new() }.to_string();
        assert!(told.contains("rustup target add wasm32-unknown-unknown"), "{told}");
    }
}
