//! Zip archives whose bytes depend on their content and on nothing else.
//!
//! No clock, no user and no umask gets in: each entry has the first moment that the format knows (1 January 1980) and the mode
//! that it is given. So whoever builds the same program gets the same archive, and can compare check sums.
//!
//! Format: PKWARE APPNOTE 6.3, sections 4.3.7 (local header), 4.3.12 (central directory) and 4.3.16 (its end). One disk, no
//! ZIP64, names in ASCII.

use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};

use crate::ReleaseError;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
/// 2.0: the first version that can deflate.
const NEEDED: u16 = 20;
/// Made by 2.0 on Unix, so that the mode in the external attributes counts.
const MADE_BY: u16 = (3 << 8) | NEEDED;
const DEFLATED: u16 = 8;
/// 1 January 1980, 00:00, as MS-DOS has it.
const TIME: u16 = 0;
const DATE: u16 = (1 << 5) | 1;
/// The file type of a regular file in a Unix mode.
const REGULAR: u32 = 0o100_000;

/// A file in an archive.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name, without directories.
    pub name: &'a str,
    /// The permission bits of its mode.
    pub mode: u32,
    /// What is in it.
    pub content: &'a [u8],
}

struct Packed<'a> {
    entry: Entry<'a>,
    crc: u32,
    deflated: Vec<u8>,
    offset: u32,
}

/// An archive of these files, in this order.
///
/// # Errors
/// [`ReleaseError::TooLarge`] when one of them, or all together, do not fit into the format.
pub fn archive(entries: &[Entry<'_>]) -> Result<Vec<u8>, ReleaseError> {
    let mut out = Vec::new();
    let mut packed = Vec::with_capacity(entries.len());
    for entry in entries {
        let offset = small(entry.name, out.len())?;
        small(entry.name, entry.content.len())?;
        let one =
            Packed { entry: *entry, crc: crc32fast::hash(entry.content), deflated: deflate(entry.content), offset };
        put(&mut out, &[&LOCAL.to_le_bytes()]);
        one.fields(&mut out);
        // No extra field.
        put(&mut out, &[&0u16.to_le_bytes(), entry.name.as_bytes(), &one.deflated]);
        packed.push(one);
    }
    let directory = small("the archive's directory", out.len())?;
    for one in &packed {
        let attributes = (REGULAR | (one.entry.mode & 0o7777)) << 16;
        put(&mut out, &[&CENTRAL.to_le_bytes(), &MADE_BY.to_le_bytes()]);
        one.fields(&mut out);
        // No extra field, no comment, the first disk, binary content.
        put(&mut out, &[&[0; 8], &attributes.to_le_bytes(), &one.offset.to_le_bytes(), one.entry.name.as_bytes()]);
    }
    let size = small("the archive's directory", out.len())? - directory;
    let count = u16::try_from(packed.len()).unwrap_or(u16::MAX).to_le_bytes();
    put(
        &mut out,
        &[&END.to_le_bytes(), &[0; 4], &count, &count, &size.to_le_bytes(), &directory.to_le_bytes(), &[0; 2]],
    );
    Ok(out)
}

impl Packed<'_> {
    /// What local header and directory have in common, from the version to the length of the name.
    fn fields(&self, out: &mut Vec<u8>) {
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let name = u16::try_from(self.entry.name.len()).unwrap_or(u16::MAX);
        for field in [NEEDED, 0, DEFLATED, TIME, DATE] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let (deflated, whole) = (length(self.deflated.len()), length(self.entry.content.len()));
        put(out, &[&self.crc.to_le_bytes(), &deflated, &whole, &name.to_le_bytes()]);
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn small(name: &str, bytes: usize) -> Result<u32, ReleaseError> {
    // The largest value means ZIP64.
    match u32::try_from(bytes) {
        Ok(bytes) if bytes < u32::MAX => Ok(bytes),
        _ => Err(ReleaseError::TooLarge { name: name.to_owned(), bytes: bytes as u64 }),
    }
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail; should it ever, the sizes tell every reader.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}
