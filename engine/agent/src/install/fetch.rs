//! From the image server to the disk, over several connections at once.
//!
//! Each thread fetches, verifies and writes one chunk at a time, so that memory is bounded by the number of threads: a
//! compressed and a raw chunk each, under 40 MiB in all. A chunk that does not arrive is fetched again until the server
//! has given nothing at all for a long time; one that arrives damaged is fetched a few times again and is then an error,
//! since the damage is at the source.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use vmetal_image::{ChunkDecoder, ChunkEntry, Digest, Manifest};

use super::ImageError;
use crate::clock;
use crate::console::say;
use crate::engine::{CallError, Engine};
use crate::error::{AgentError, chain};
use crate::target::Target;
use crate::work::Progress;

const THREADS: usize = 4;
/// Tries for content that comes and is wrong, or that the server says it does not have.
const TRIES: u32 = 4;

/// Fetches something until `accept` takes it.
pub(super) fn verified<T>(
    engine: &Engine,
    image: &Digest,
    what: &str,
    path: &str,
    limit: u64,
    mut accept: impl FnMut(&[u8]) -> Result<T, String>,
) -> Result<T, ImageError> {
    let begun = clock::now();
    let mut away = 0;
    let mut bad = 0;
    loop {
        let fetch = |source| ImageError::Fetch { image: *image, what: what.to_owned(), source: Box::new(source) };
        match engine.get(path, what, limit) {
            Ok(bytes) => match accept(&bytes) {
                Ok(value) => return Ok(value),
                Err(reason) => {
                    bad += 1;
                    if bad == TRIES {
                        return Err(ImageError::Corrupt { image: *image, what: what.to_owned(), reason });
                    }
                    say(&format!("{reason}; fetching it again"));
                }
            },
            Err(error @ CallError::Away { .. }) => {
                if begun.elapsed() > engine.pace().image_patience {
                    return Err(fetch(error));
                }
                if away % 8 == 0 {
                    say(&format!("{error}; trying again"));
                }
                thread::sleep(engine.pace().backoff(away));
                away += 1;
            }
            Err(error) => {
                bad += 1;
                if bad == TRIES {
                    return Err(fetch(error));
                }
                thread::sleep(engine.pace().backoff(bad));
            }
        }
    }
}

/// Writes every chunk to its place. Returns the bytes fetched.
pub(super) fn write_image(
    engine: &Engine,
    image: &Digest,
    manifest: &Manifest,
    target: &Target,
    progress: &Progress,
) -> Result<u64, AgentError> {
    let next = AtomicUsize::new(0);
    let fetched = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let failure: Mutex<Option<AgentError>> = Mutex::new(None);
    let work = || -> Result<(), AgentError> {
        let mut decoder = ChunkDecoder::new().map_err(ImageError::Decoder)?;
        while !failed.load(Ordering::Relaxed) {
            let Some(chunk) = manifest.chunks().get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            write_chunk(engine, image, manifest, chunk, target, &mut decoder, &fetched)?;
            progress.add(manifest.raw_len(chunk) as u64);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    if let Err(error) = work() {
                        failed.store(true, Ordering::Relaxed);
                        // Keeps the first: the others are usually its echoes.
                        failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join())
    })
    .map_err(|_| ImageError::Interrupted)?;
    match failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(error) => Err(error),
        None => Ok(fetched.into_inner()),
    }
}

fn write_chunk(
    engine: &Engine,
    image: &Digest,
    manifest: &Manifest,
    chunk: &ChunkEntry,
    target: &Target,
    decoder: &mut ChunkDecoder,
    fetched: &AtomicU64,
) -> Result<(), AgentError> {
    let what = format!("chunk {} of {}", chunk.index, manifest.chunks().len());
    let path = format!("/images/{image}/chunks/{}", chunk.digest);
    // Damage is found before the write, so a failed write is the disk's fault and is not tried again.
    let written = verified(engine, image, &what, &path, u64::from(chunk.stored_bytes) + 1, |bytes| {
        fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let raw = decoder.decode(manifest, chunk, bytes).map_err(|e| chain(&e))?;
        Ok(target.write_at(manifest.offset(chunk), raw))
    })?;
    Ok(written?)
}
