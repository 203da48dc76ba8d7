//! Compiled components, kept between starts.
//!
//! Compiling takes a third of a second for a small policy and many for one that brings an interpreter. The result is
//! machine code: whoever can change it can make the engine do anything. So a file is used only when it, and the
//! directory it is in, belong to this process's user and nobody else may write to them; its first line is the SHA-256 of
//! the rest, which guards against damage, not against malice. Whatever is wrong with a file, the component is compiled
//! again and the file replaced.
//!
//! The name says what the code was made from and for: the component's digest, and a hash over the compiler's version,
//! its settings and the processor's features.
//!
//! A daemon has a program of its own do the compiling: the compiler takes tens of megabytes that the allocator would keep
//! for as long as the daemon runs, and a component made to choke it takes only that program down.
#![allow(unsafe_code, reason = "machine code from a file is trusted only after the checks above")]

use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::sha256;

/// Nobody but the owner may write.
const OTHERS_WRITE: u32 = 0o022;
/// The length of a SHA-256 in hexadecimal and a line's end.
const HEADER: usize = 65;

/// How much is kept in all. What was written longest ago goes first: machine code of an interpreter takes 35 MiB, and with
/// each change of the policy it is another one.
const KEPT: u64 = 512 << 20;

/// The longest a component may take to compile; interpreters of 30 MiB take some ten seconds on one busy processor.
const COMPILING: Duration = Duration::from_secs(120);
/// How often it is looked whether the compiling program has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Where compiled components are kept, and who compiles them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The directory; made when it is needed.
    pub directory: PathBuf,
    /// Who compiles.
    pub compiler: Compiler,
}

/// Who compiles a component that is not kept yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// This process.
    Here,
    /// A program that is given the directory as its last argument and the component on its standard input, and calls
    /// [`crate::compile_into`]: the daemon itself under another option.
    Program {
        /// The program and what comes before the directory.
        command: Vec<OsString>,
    },
}

/// A directory of compiled components.
pub(crate) struct Cache {
    kept: Kept,
    made_for: String,
}

/// Hashes with a function whose value does not differ between processes.
struct Stable(Sha256);

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl Cache {
    pub(crate) fn new(kept: Kept, engine: &Engine) -> Self {
        let mut hasher = Stable(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Cache { kept, made_for: format!("{:016x}", hasher.finish()) }
    }

    /// The component's machine code. A cache that cannot be used costs time and is reported, but fails nothing.
    pub(crate) fn get_or_compile(&self, engine: &Engine, digest: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        let path = self.path(digest);
        match self.load(engine, &path) {
            Ok(component) => return Ok(component),
            Err(Unusable::Absent) => {}
            Err(reason) => tracing::warn!(file = %path.display(), %reason, "compiling a policy again"),
        }
        if let Compiler::Program { command } = &self.kept.compiler {
            match self.compile_elsewhere(command, bytes) {
                Ok(()) => match self.load(engine, &path) {
                    Ok(component) => return Ok(component),
                    Err(reason) => tracing::warn!(file = %path.display(), %reason, "a compiled policy cannot be used"),
                },
                // A component that the compiler refuses is told of below, in the words of the compiler.
                Err(Elsewhere::Refused) => {}
                Err(Elsewhere::Hung) => {
                    return Err(wasmtime::Error::msg(format!("compiling took longer than {} s", COMPILING.as_secs())));
                }
                Err(Elsewhere::Died(status)) => {
                    return Err(wasmtime::Error::msg(format!("the compiling program died of it ({status})")));
                }
                Err(Elsewhere::NotStarted(error)) => {
                    tracing::warn!(%error, "no program can be started to compile a policy; compiling it here");
                }
            }
        }
        self.compile(engine, digest, bytes)
    }

    /// Compiles in this process and keeps the result.
    pub(crate) fn compile(&self, engine: &Engine, digest: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        let path = self.path(digest);
        let component = Component::new(engine, bytes)?;
        if let Err(error) = self.write(&path, &component.serialize()?).and_then(|()| self.make_room(&path, KEPT)) {
            tracing::warn!(file = %path.display(), %error, "a compiled policy could not be kept; the next start compiles it again");
        }
        Ok(component)
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.kept.directory.join(format!("{digest}-{}.cwasm", self.made_for))
    }

    fn compile_elsewhere(&self, command: &[OsString], bytes: &[u8]) -> Result<(), Elsewhere> {
        let (program, arguments) = command.split_first().ok_or_else(|| {
            Elsewhere::NotStarted(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the command is empty"))
        })?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(&self.kept.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Elsewhere::NotStarted)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ended early says so by its status.
            let _ = stdin.write_all(bytes);
        }
        await_end(&mut child)
    }

    fn load(&self, engine: &Engine, path: &Path) -> Result<Component, Unusable> {
        let content = self.read(path)?;
        let code = content.get(HEADER..).unwrap_or_default();
        // SAFETY: only this user could have written the bytes, `write` below wrote them with this compiler and for this
        // processor, and they are whole.
        unsafe { Component::deserialize(engine, code) }.map_err(|error| Unusable::Foreign(error.into()))
    }

    /// The whole file, its first line included: machine code of interpreters is not copied for want of 65 bytes.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Unusable> {
        let content = match std::fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Unusable::Absent),
            Err(error) => return Err(Unusable::Unreadable(error)),
        };
        for path in [path, &self.kept.directory] {
            let metadata = std::fs::symlink_metadata(path).map_err(Unusable::Unreadable)?;
            if metadata.mode() & OTHERS_WRITE != 0 || metadata.uid() != own_uid()? || metadata.is_symlink() {
                return Err(Unusable::Unprotected(path.to_owned()));
            }
        }
        let (Some(header), Some(code)) = (content.get(..HEADER), content.get(HEADER..)) else {
            return Err(Unusable::Damaged);
        };
        if header != format!("{}\n", sha256(code)).as_bytes() {
            return Err(Unusable::Damaged);
        }
        Ok(content)
    }

    /// Written beside and renamed: no reader ever sees half a file.
    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.kept.directory)?;
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        let written = file.write_all(format!("{}\n", sha256(code)).as_bytes()).and_then(|()| file.write_all(code));
        written.and_then(|()| std::fs::rename(&partial, path)).inspect_err(|_| {
            // The error that matters is the first; a leftover is overwritten next time.
            let _ = std::fs::remove_file(&partial);
        })
    }

    /// Removes what was written longest ago until no more than `most` bytes are left; never `new`.
    fn make_room(&self, new: &Path, most: u64) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.kept.directory)? {
            let path = entry?.path();
            if path == new || path.extension().is_none_or(|extension| extension != "cwasm") {
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(metadata) => files.push((metadata.modified()?, metadata.len(), path)),
                // Another process made room.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort();
        let mut kept = std::fs::metadata(new)?.len();
        for (_, size, path) in files.into_iter().rev() {
            kept = kept.saturating_add(size);
            if kept > most {
                std::fs::remove_file(&path).or_else(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
            }
        }
        Ok(())
    }
}

/// Waits until the compiling program has ended, or ends it.
fn await_end(child: &mut Child) -> Result<(), Elsewhere> {
    let mut waited = Duration::ZERO;
    loop {
        match child.try_wait().map_err(Elsewhere::NotStarted)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) if status.code().is_some() => return Err(Elsewhere::Refused),
            Some(status) => return Err(Elsewhere::Died(status)),
            None if waited >= COMPILING => {
                // It may end at this moment; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Elsewhere::Hung);
            }
            None => {
                std::thread::sleep(LOOK);
                waited += LOOK;
            }
        }
    }
}

/// How compiling elsewhere failed.
enum Elsewhere {
    NotStarted(std::io::Error),
    Refused,
    Died(std::process::ExitStatus),
    Hung,
}

/// Who this process is: the owner of its own entry in /proc.
fn own_uid() -> Result<u32, Unusable> {
    std::fs::metadata("/proc/self").map(|metadata| metadata.uid()).map_err(Unusable::Unreadable)
}

/// Why a kept file is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("there is none")]
    Absent,
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("{} is a link, belongs to somebody else, or others may write to it", .0.display())]
    Unprotected(PathBuf),
    #[error("its content is damaged")]
    Damaged,
    #[error("it is not machine code for this compiler and processor: {0}")]
    Foreign(crate::error::Cause),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_was_written_longest_ago_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept { directory: directory.path().to_owned(), compiler: Compiler::Here };
        let cache = Cache { kept, made_for: "this".to_owned() };
        let write = |name: &str, age: u64| {
            let path = directory.path().join(name);
            std::fs::write(&path, [0; 100]).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000 - age)).unwrap();
            path
        };
        let new = write("new.cwasm", 5);
        ["a.cwasm", "b.cwasm", "c.cwasm"].into_iter().zip([3, 1, 2]).for_each(|(name, age)| drop(write(name, age)));
        write("other", 9);
        let left = || {
            let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        let all = left();
        cache.make_room(&new, 400).unwrap();
        assert_eq!(left(), all);
        cache.make_room(&new, 399).unwrap();
        assert_eq!(left(), ["b.cwasm", "c.cwasm", "new.cwasm", "other"].into_iter().map(Into::into).collect());
        cache.make_room(&new, 0).unwrap();
        assert_eq!(left(), ["new.cwasm", "other"].into_iter().map(Into::into).collect());
    }
}
