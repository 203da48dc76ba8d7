//! From a raw or qcow2 file to a published image.
//!
//! Every worker takes the next chunk's index, reads that part of the source, skips it when it is all zero, hashes,
//! compresses and stores it: no thread waits for another, and memory is one raw and one compressed chunk per worker. A
//! further thread computes the source file's SHA-256 when one is expected; both share the page cache. Nothing is
//! published before all of it is stored, synced and checked: the image appears by one rename.

mod error;
mod publish;
mod qcow2;
mod source;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use sha2::{Digest as _, Sha256};
use vmetal_model::image::ImageFormat;

pub use error::ImportError;
use publish::Workspace;
use source::{Content, Source};

use crate::chunk::is_zero;
use crate::manifest::{CHUNK_BYTES, ChunkEntry, Digest, Manifest};

/// Compression level: 3 is zstd's knee; higher levels cost import time for a few per cent.
const LEVEL: i32 = 3;

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Directory of published images ([`crate::ImageStore`]'s root); made when missing.
    pub images: PathBuf,
    /// `sha256:` and 64 hexadecimal digits over the source file as it is, or `None` to trust the file.
    pub checksum: Option<String>,
    /// The source's format, or `None` to tell it from its first bytes. Only a named `raw` is taken without a partition
    /// table.
    pub format: Option<ImageFormat>,
    /// Worker threads; 0 for one per processor.
    pub threads: usize,
}

impl ImportOptions {
    /// Into `images`, without checksum, format found out, one worker per processor.
    pub fn new(images: impl Into<PathBuf>) -> Self {
        ImportOptions { images: images.into(), checksum: None, format: None, threads: 0 }
    }
}

/// How far an import is. Both counts reach their totals; the import is done when [`import`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes of the disk looked at, holes included.
    pub done: u64,
    /// Size of the disk in bytes.
    pub total: u64,
    /// Compressed bytes stored so far.
    pub stored: u64,
}

/// A published image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image's name.
    pub digest: Digest,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Bytes kept, compressed, without holes; a chunk that occurs twice counts once.
    pub stored_bytes: u64,
    /// What the source was.
    pub format: ImageFormat,
}

/// Imports a disk image and publishes it under its digest. Importing the same disk again gives the same digest and
/// changes nothing. `progress` is called from the calling thread, a few times per second at most.
///
/// Blocks for the whole import: call it from a thread that may block.
///
/// # Errors
/// [`ImportError`], in an operator's words. Whatever the error, nothing is published and nothing is left behind; after
/// a crash the next import clears the remains.
pub fn import(
    source: &Path,
    options: &ImportOptions,
    mut progress: impl FnMut(ImportProgress),
) -> Result<Imported, ImportError> {
    let expected = options.checksum.as_deref().map(parse_checksum).transpose()?;
    let file = File::open(source).map_err(ImportError::read(source))?;
    let before = Fingerprint::of(&file, source)?;
    let workspace = Workspace::create(&options.images)?;

    let cancel = AtomicBool::new(false);
    let (cut, hashed) = thread::scope(|scope| {
        let cancel = &cancel;
        let hash = expected.map(|_| {
            let reader = File::open(source);
            scope.spawn(move || sha256(reader.map_err(ImportError::read(source))?, source, cancel))
        });
        let cut = Source::open(&file, source, options.format)
            .and_then(|opened| Ok((cut(&opened, &workspace, options.threads, &mut progress)?, opened)));
        // An unreadable image with the wrong checksum is first of all the wrong file, so the checksum is awaited; a
        // full disk is not made better by it.
        if cut.as_ref().is_err_and(|e| !e.is_about_source()) {
            cancel.store(true, Ordering::Relaxed);
        }
        let hash = hash.map(|thread| thread.join().unwrap_or(Err(ImportError::Interrupted)));
        (cut, hash)
    });
    if let (Some(expected), Some(hashed)) = (expected, hashed) {
        match hashed {
            Ok(actual) if actual != expected => {
                return Err(ImportError::Checksum {
                    path: source.to_owned(),
                    expected: hex::encode(expected),
                    actual: hex::encode(actual),
                });
            }
            // Only cancelled when cutting failed, and then that failure is the one to tell.
            Err(ImportError::Interrupted) if cut.is_err() => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    let ((mut entries, stored_bytes), source_info) = cut?;
    if Fingerprint::of(&file, source)? != before {
        return Err(ImportError::Changed { path: source.to_owned() });
    }
    entries.sort_unstable_by_key(|entry| entry.index);
    let manifest = Manifest::new(source_info.size(), entries)?;
    let digest = workspace.publish(&manifest)?;
    Ok(Imported { digest, size_bytes: manifest.size_bytes(), stored_bytes, format: source_info.format() })
}

/// What changes when a file is written to.
#[derive(PartialEq, Eq)]
struct Fingerprint(u64, i64, i64);

impl Fingerprint {
    fn of(file: &File, path: &Path) -> Result<Self, ImportError> {
        let meta = file.metadata().map_err(ImportError::read(path))?;
        Ok(Fingerprint(meta.len(), meta.mtime(), meta.mtime_nsec()))
    }
}

fn parse_checksum(text: &str) -> Result<[u8; 32], ImportError> {
    let mut digest = [0; 32];
    match text.strip_prefix("sha256:").map(|digits| hex::decode_to_slice(digits, &mut digest)) {
        Some(Ok(())) => Ok(digest),
        _ => Err(ImportError::ChecksumSyntax(text.to_owned())),
    }
}

fn sha256(mut file: File, path: &Path, cancel: &AtomicBool) -> Result<[u8; 32], ImportError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(ImportError::Interrupted);
        }
        match file.read(&mut buffer).map_err(ImportError::read(path))? {
            0 => return Ok(hasher.finalize().into()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// What a worker tells the importing thread about one chunk.
struct Done {
    raw: u64,
    entry: Option<ChunkEntry>,
    /// Bytes newly stored: 0 for a hole or a chunk that is stored already.
    stored: u64,
}

/// Cuts the source into stored chunks. The entries come in no particular order.
fn cut(
    source: &Source<'_>,
    workspace: &Workspace,
    threads: usize,
    progress: &mut impl FnMut(ImportProgress),
) -> Result<(Vec<ChunkEntry>, u64), ImportError> {
    let total = source.size();
    let count = total.div_ceil(u64::from(CHUNK_BYTES));
    let threads = match threads {
        0 => thread::available_parallelism().map_or(2, usize::from),
        n => n,
    };
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let failure: Mutex<Option<ImportError>> = Mutex::new(None);
    let (report, reports) = mpsc::sync_channel::<Done>(4 * threads);

    let mut entries = Vec::new();
    let mut state = ImportProgress { done: 0, total, stored: 0 };
    thread::scope(|scope| {
        for _ in 0..threads {
            let report = report.clone();
            let (next, failed, failure) = (&next, &failed, &failure);
            scope.spawn(move || {
                let result = Worker::new().and_then(|mut worker| {
                    while !failed.load(Ordering::Relaxed) {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            break;
                        }
                        let done = worker.chunk(source, workspace, index)?;
                        if report.send(done).is_err() {
                            break;
                        }
                    }
                    Ok(())
                });
                if let Err(error) = result {
                    failed.store(true, Ordering::Relaxed);
                    // Keeps the first: the others are usually its echoes.
                    failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
                }
            });
        }
        drop(report);
        let step = (total / 100).max(u64::from(CHUNK_BYTES));
        let mut told = 0;
        for done in reports {
            state.done += done.raw;
            state.stored += done.stored;
            entries.extend(done.entry);
            if state.done - told >= step || state.done == total {
                told = state.done;
                progress(state);
            }
        }
    });
    match failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(error) => Err(error),
        None => Ok((entries, state.stored)),
    }
}

/// One thread's buffers.
struct Worker {
    zstd: zstd::bulk::Compressor<'static>,
    raw: Vec<u8>,
}

impl Worker {
    fn new() -> Result<Self, ImportError> {
        let zstd = zstd::bulk::Compressor::new(LEVEL).map_err(ImportError::Compressor)?;
        Ok(Worker { zstd, raw: vec![0; CHUNK_BYTES as usize] })
    }

    fn chunk(&mut self, source: &Source<'_>, workspace: &Workspace, index: u64) -> Result<Done, ImportError> {
        let offset = index * u64::from(CHUNK_BYTES);
        let len = u64::from(CHUNK_BYTES).min(source.size() - offset);
        // At most CHUNK_BYTES, so it fits.
        let raw = &mut self.raw[..len as usize];
        if source.read(offset, raw)? == Content::Hole || is_zero(raw) {
            return Ok(Done { raw: len, entry: None, stored: 0 });
        }
        let digest = Digest::of(raw);
        let packed = self.zstd.compress(raw).map_err(ImportError::Compressor)?;
        let stored_bytes = packed.len() as u32;
        let new = workspace.store(&digest, &packed)?;
        let stored = if new { u64::from(stored_bytes) } else { 0 };
        Ok(Done { raw: len, entry: Some(ChunkEntry { index, digest, stored_bytes }), stored })
    }
}

#[cfg(test)]
mod tests;
