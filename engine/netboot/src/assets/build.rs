//! Builds the boot assets from Debian's kernel and iPXE packages and the installer.
//!
//! Deterministic: equal inputs give equal bytes, whoever builds and when. The digest of the inputs stands in the manifest;
//! building again with the same inputs does nothing. The new files take their names only when all are written, the manifest
//! last, so that an interrupted build leaves a directory that is refused rather than one that is mixed.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cpio::{Cpio, Device};
use super::modules::{self, ModuleError, WANTED};
use super::{FileEntry, INITRD, KERNEL, LOADERS, MANIFEST, Manifest, read_manifest, sha256};

/// Changes whenever this code would make other bytes of the same inputs.
const RECIPE: &str = "2";

/// Where the kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// A package file.
    Deb(PathBuf),
    /// A package of the configured Debian archives, possibly one that only depends on the current kernel.
    Package(String),
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// The kernel.
    pub kernel: KernelSource,
    /// The installer: a static executable.
    pub agent: PathBuf,
    /// Where Debian's `ipxe` package put its files.
    pub ipxe: PathBuf,
    /// The directory to write.
    pub out: PathBuf,
}

/// Whether there was anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Built {
    /// The files were made.
    Now,
    /// They were there already, made from the same inputs.
    Before,
}

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be read or written.
    #[error("{path}: {source}{}", hint(.path))]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A tool failed.
    #[error("`{command}` failed: {why}")]
    Tool {
        /// The command line.
        command: String,
        /// Its last words, or that it is not installed.
        why: String,
    },
    /// The package has no kernel in it.
    #[error(
        "{deb} holds no boot/vmlinuz-*; expected a package such as linux-image-6.1.0-1-amd64, not one that depends on it"
    )]
    NoKernel {
        /// The package file.
        deb: PathBuf,
    },
    /// The archive does not have the package.
    #[error("package {package} is not known to apt ({why}); run `apt-get update`, or give a file with --kernel-deb")]
    NoPackage {
        /// Its name.
        package: String,
        /// What is missing.
        why: &'static str,
    },
    /// The installer needs libraries that the initramfs does not have.
    #[error("{agent} is not a static executable for x86-64 ({why}); build it with `-C target-feature=+crt-static`")]
    Agent {
        /// The file.
        agent: PathBuf,
        /// What was found.
        why: &'static str,
    },
    /// A driver is not what its name says.
    #[error("{path} is not a kernel module: {source}")]
    Module {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ModuleError,
    },
}

fn hint(path: &Path) -> &'static str {
    if path.file_name().is_some_and(|name| LOADERS.iter().any(|loader| name == *loader)) {
        "; boot loaders come with Debian's package ipxe: `apt-get install ipxe`, or give their directory with --ipxe"
    } else {
        ""
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { path, source }
}

fn read_file(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(io_error(path))
}

/// Builds, unless the same was built before.
///
/// # Errors
/// [`BuildError`].
pub fn build(config: &BuildConfig) -> Result<(Manifest, Built), BuildError> {
    let agent = read_file(&config.agent)?;
    check_static(&config.agent, &agent)?;
    let mut loaders = BTreeMap::new();
    for name in LOADERS {
        loaders.insert(name, read_file(&config.ipxe.join(name))?);
    }
    let kernel = locate(&config.kernel)?;
    let mut inputs = format!("recipe {RECIPE}\nkernel {}\nagent {}\n", kernel.sha256, sha256(&agent));
    inputs.push_str(&format!("modules {}\n", WANTED.join(" ")));
    for (name, contents) in &loaders {
        inputs.push_str(&format!("{name} {}\n", sha256(contents)));
    }
    let inputs = sha256(inputs.as_bytes());
    if let Ok(manifest) = read_manifest(&config.out)
        && manifest.inputs == inputs
        && super::Assets::load(&config.out).is_ok()
    {
        return Ok((manifest, Built::Before));
    }

    std::fs::create_dir_all(&config.out).map_err(io_error(&config.out))?;
    let work = Scratch::new(&config.out)?;
    let unpacked = unpack(&kernel, &work.0)?;
    let Initramfs { archive, modules, absent } = initramfs(&unpacked, &agent)?;
    let mut files: Vec<(&str, Vec<u8>)> = vec![(KERNEL, read_file(&unpacked.kernel)?), (INITRD, archive)];
    files.extend(loaders);
    let entry = |contents: &[u8]| FileEntry {
        sha256: sha256(contents),
        size: u64::try_from(contents.len()).unwrap_or(u64::MAX),
    };
    let manifest = Manifest {
        inputs,
        kernel_release: unpacked.release,
        modules,
        absent,
        files: files.iter().map(|(name, contents)| ((*name).to_owned(), entry(contents))).collect(),
    };
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|e| io_error(&config.out)(e.into()))?;
    text.push(b'\n');
    files.push((MANIFEST, text));
    for (name, contents) in &files {
        let path = work.0.join(name);
        std::fs::write(&path, contents).map_err(io_error(&path))?;
    }
    for (name, _) in &files {
        let path = config.out.join(name);
        std::fs::rename(work.0.join(name), &path).map_err(io_error(&path))?;
    }
    Ok((manifest, Built::Now))
}

/// A directory next to the result, removed in any case.
struct Scratch(PathBuf);

impl Scratch {
    fn new(out: &Path) -> Result<Self, BuildError> {
        let path = out.join(format!(".build-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(io_error(&path))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "left behind");
        }
    }
}

/// A static executable has no interpreter (program header 3).
fn check_static(path: &Path, elf: &[u8]) -> Result<(), BuildError> {
    const X86_64: u16 = 62;
    const INTERPRETER: u32 = 3;
    let bad = |why| BuildError::Agent { agent: path.to_owned(), why };
    let at = |from: usize, size: usize| -> Option<u64> {
        let mut value = [0; 8];
        value[..size].copy_from_slice(elf.get(from..from.checked_add(size)?)?);
        Some(u64::from_le_bytes(value))
    };
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") || at(18, 2) != Some(X86_64.into()) {
        return Err(bad("not an ELF executable for x86-64"));
    }
    let headers = || {
        let (table, size, count) = (usize::try_from(at(0x20, 8)?).ok()?, at(0x36, 2)?, at(0x38, 2)?);
        let size = usize::try_from(size).ok()?;
        (0..usize::try_from(count).ok()?)
            .map(|index| at(table.checked_add(index * size)?, 4))
            .collect::<Option<Vec<_>>>()
    };
    match headers() {
        None => Err(bad("its program headers are cut short")),
        Some(kinds) if kinds.contains(&INTERPRETER.into()) => Err(bad("it asks for a dynamic loader")),
        Some(_) => Ok(()),
    }
}

struct Kernel {
    sha256: String,
    source: Located,
}

enum Located {
    File(PathBuf),
    /// Name and version in the archive.
    Archive(String),
}

fn locate(source: &KernelSource) -> Result<Kernel, BuildError> {
    match source {
        KernelSource::Deb(path) => {
            Ok(Kernel { sha256: sha256(&read_file(path)?), source: Located::File(path.clone()) })
        }
        KernelSource::Package(name) => {
            let mut name = name.clone();
            // A package such as linux-image-amd64 depends on the one with the kernel in it.
            for _ in 0..3 {
                let text = tool(Command::new("apt-cache").args(["show", "--no-all-versions", &name]))?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let field = |wanted: &str| {
                    text.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(": ")).map(str::to_owned)
                };
                let missing = |why| BuildError::NoPackage { package: name.clone(), why };
                let version = field("Version").ok_or_else(|| missing("no version"))?;
                let depends = field("Depends").unwrap_or_default();
                let deeper = depends.split([',', '|']).filter_map(|part| part.split_whitespace().next());
                if let Some(next) = deeper.into_iter().find(|next| next.starts_with("linux-image-")) {
                    name = next.to_owned();
                    continue;
                }
                let sha256 = field("SHA256").ok_or_else(|| missing("no digest"))?;
                return Ok(Kernel { sha256, source: Located::Archive(format!("{name}={version}")) });
            }
            Err(BuildError::NoPackage { package: name, why: "its dependencies go round in circles" })
        }
    }
}

struct Unpacked {
    kernel: PathBuf,
    release: String,
    modules: PathBuf,
    config: Vec<u8>,
}

fn unpack(kernel: &Kernel, work: &Path) -> Result<Unpacked, BuildError> {
    let deb = match &kernel.source {
        Located::File(path) => path.clone(),
        Located::Archive(package) => {
            let download = work.join("download");
            std::fs::create_dir(&download).map_err(io_error(&download))?;
            // The sandbox user of apt cannot write into a directory of ours.
            let mut command = Command::new("apt-get");
            tool(command.args(["download", "-o", "APT::Sandbox::User=root", package]).current_dir(&download))?;
            let path = sole_file(&download, |name| name.ends_with(".deb"))?
                .ok_or_else(|| BuildError::NoPackage { package: package.clone(), why: "nothing was downloaded" })?;
            let found = sha256(&read_file(&path)?);
            if found != kernel.sha256 {
                return Err(BuildError::NoPackage { package: package.clone(), why: "its digest is not the archive's" });
            }
            path
        }
    };
    let tree = work.join("kernel");
    tool(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;
    let boot = tree.join("boot");
    let image = sole_file(&boot, |name| name.starts_with("vmlinuz-")).ok().flatten();
    let image = image.ok_or_else(|| BuildError::NoKernel { deb: deb.clone() })?;
    let release = image.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("vmlinuz-"));
    let release = release.ok_or(BuildError::NoKernel { deb })?.to_owned();
    let config = std::fs::read(boot.join(format!("config-{release}"))).unwrap_or_default();
    let lib = ["lib", "usr/lib"].map(|lib| tree.join(lib).join("modules").join(&release));
    let modules = lib.iter().find(|dir| dir.is_dir()).unwrap_or(&lib[0]).clone();
    Ok(Unpacked { kernel: image, release, modules, config })
}

fn sole_file(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>, BuildError> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error(dir))? {
        let entry = entry.map_err(io_error(dir))?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found.into_iter().next())
}

struct Initramfs {
    /// Compressed.
    archive: Vec<u8>,
    /// In load order.
    modules: Vec<String>,
    /// Wanted, but not in this kernel.
    absent: Vec<String>,
}

fn initramfs(unpacked: &Unpacked, agent: &[u8]) -> Result<Initramfs, BuildError> {
    let mut available = BTreeMap::new();
    let mut contents = BTreeMap::new();
    let mut paths = Vec::new();
    module_files(&unpacked.modules.join("kernel"), &mut paths)?;
    paths.sort();
    for path in paths {
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = modules::normal(file.split(".ko").next().unwrap_or_default());
        // Reading all 4,000 modules of a full kernel takes a second; guessing what they need would take a table.
        let bytes = decompressed(&path)?;
        let info = modules::read(&bytes).map_err(|source| BuildError::Module { path: path.clone(), source })?;
        available.insert(name.clone(), info);
        contents.insert(name, path);
    }
    let order = modules::load_order(&available, WANTED);
    let builtin = read_file(&unpacked.modules.join("modules.builtin"))?;
    let absent = modules::absent(&available, &String::from_utf8_lossy(&builtin), WANTED);

    let mut cpio = Cpio::default();
    for directory in ["dev", "proc", "sys", "run", "tmp", "etc"] {
        cpio.directory(directory);
    }
    // The kernel opens it for us before there is a devtmpfs.
    cpio.device("dev/console", 0o600, Device { major: 5, minor: 1 });
    cpio.device("dev/null", 0o666, Device { major: 1, minor: 3 });
    cpio.file("init", 0o755, agent);
    let mut list = String::new();
    for name in &order {
        let path = format!("lib/modules/{}/{name}.ko", unpacked.release);
        if let Some(from) = contents.get(name) {
            cpio.file(&path, 0o644, &decompressed(from)?);
            list.push_str(&format!("/{path}\n"));
        }
    }
    cpio.file("etc/vmetal/modules", 0o644, list.as_bytes());
    Ok(Initramfs { archive: compress(&cpio.finish(), &unpacked.config)?, modules: order, absent })
}

fn module_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), BuildError> {
    // A kernel without any module is possible: everything is built in.
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(io_error(dir))?.path();
        if path.is_dir() {
            module_files(&path, found)?;
        } else if path.to_str().is_some_and(|p| [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|e| p.ends_with(e))) {
            found.push(path);
        }
    }
    Ok(())
}

fn decompressed(path: &Path) -> Result<Vec<u8>, BuildError> {
    let bytes = read_file(path)?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => zstd::decode_all(bytes.as_slice()).map_err(io_error(path)),
        Some("gz") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(io_error(path))?;
            Ok(plain)
        }
        Some("xz") => tool(Command::new("xz").args(["-dc", "--"]).arg(path)),
        _ => Ok(bytes),
    }
}

/// zstd where the kernel's configuration says that it can unpack it: three times faster to unpack than gzip, and smaller.
fn compress(archive: &[u8], config: &[u8]) -> Result<Vec<u8>, BuildError> {
    let here = Path::new(INITRD);
    if config.split(|&byte| byte == b'\n').any(|line| line == b"CONFIG_RD_ZSTD=y") {
        return zstd::encode_all(archive, 12).map_err(io_error(here));
    }
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    encoder.write_all(archive).and_then(|()| encoder.finish()).map_err(io_error(here))
}

/// Runs a tool and returns what it printed.
fn tool(command: &mut Command) -> Result<Vec<u8>, BuildError> {
    let shown = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let failed = |why: String| BuildError::Tool { command: shown.clone(), why };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(failed(format!("{} ({})", last.trim(), output.status)))
}

#[cfg(test)]
mod tests;
