#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{ChunkDecoder, ImageStore};

const MIB: u64 = 1 << 20;

/// Bytes that do not compress to nothing and never are all zero.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    // Half of it repeats, so that compression has something to do.
    for i in 0..len / 2 {
        out[len - 1 - i] = (i % 7) as u8 + 1;
    }
    out
}

/// A sparse raw disk with a boot signature and data at the given places.
fn raw_disk(path: &Path, size: u64, parts: &[(u64, Vec<u8>)]) {
    let mut file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in parts {
        file.seek(SeekFrom::Start(*at)).unwrap();
        file.write_all(bytes).unwrap();
    }
    file.seek(SeekFrom::Start(510)).unwrap();
    file.write_all(&[0x55, 0xaa]).unwrap();
}

/// What a disk would hold after the image is written: through the same calls that an installer makes.
fn restore(images: &Path, digest: &Digest) -> Vec<u8> {
    let store = ImageStore::new(images);
    let manifest = store.manifest(digest).unwrap();
    let mut disk = vec![0; manifest.size_bytes() as usize];
    let mut decoder = ChunkDecoder::new().unwrap();
    for chunk in manifest.chunks() {
        let stored = fs::read(store.chunk_path(digest, &chunk.digest)).unwrap();
        let raw = decoder.decode(&manifest, chunk, &stored).unwrap();
        let at = manifest.offset(chunk) as usize;
        disk[at..at + raw.len()].copy_from_slice(raw);
    }
    disk
}

fn entries_of(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sample() -> (TempDir, PathBuf, ImportOptions) {
    let dir = TempDir::new().unwrap();
    let source = dir.path().join("disk.raw");
    // Data at the start, across a chunk border, twice the same chunk, and in a short last chunk.
    let same = noise(4 << 20, 3);
    raw_disk(
        &source,
        33 * MIB,
        &[
            (0, noise(100_000, 1)),
            (8 * MIB - 5000, noise(10_000, 2)),
            (12 * MIB, same.clone()),
            (20 * MIB, same),
            (33 * MIB - 512, noise(512, 4)),
        ],
    );
    let options = ImportOptions { threads: 3, ..ImportOptions::new(dir.path().join("images")) };
    (dir, source, options)
}

fn sha256_of(path: &Path) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(fs::read(path).unwrap())))
}

fn qemu_img(args: &[&str], source: &Path, target: &Path) {
    let output = Command::new("qemu-img").args(args).arg(source).arg(target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_raw_disk_round_trips_sparse_and_twice() {
    let (dir, source, mut options) = sample();
    options.checksum = Some(sha256_of(&source));
    let mut seen = Vec::new();
    let first = import(&source, &options, |p| seen.push(p)).unwrap();
    assert_eq!((first.size_bytes, first.format), (33 * MIB, ImageFormat::Raw));
    assert!(restore(&options.images, &first.digest) == fs::read(&source).unwrap());

    let manifest = ImageStore::new(&options.images).manifest(&first.digest).unwrap();
    let indices: Vec<u64> = manifest.chunks().iter().map(|c| c.index).collect();
    assert_eq!(indices, [0, 1, 2, 3, 5, 8], "holes do not exist");
    let image = options.images.join(first.digest.to_string());
    assert_eq!(entries_of(&image.join("chunks")).len(), 5, "equal chunks are stored once");
    let on_disk: u64 = fs::read_dir(image.join("chunks")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(on_disk, first.stored_bytes);

    assert!(seen.windows(2).all(|w| w[0].done <= w[1].done));
    assert_eq!(seen.last().map(|p| (p.done, p.stored)), Some((33 * MIB, first.stored_bytes)));

    let second = import(&source, &options, |_| {}).unwrap();
    assert_eq!(second.digest, first.digest);
    assert_eq!(entries_of(&options.images), [first.digest.to_string()], "nothing else is left");

    ImageStore::new(&options.images).remove(&first.digest).unwrap();
    ImageStore::new(&options.images).remove(&first.digest).unwrap();
    assert!(entries_of(&options.images).is_empty());
    drop(dir);
}

#[test]
fn every_qcow2_that_qemu_makes_equals_its_raw_source() {
    let (dir, source, options) = sample();
    let expected = import(&source, &options, |_| {}).unwrap().digest;
    for args in [
        "-O qcow2",
        "-O qcow2 -c",
        "-O qcow2 -c -o compression_type=zstd",
        "-O qcow2 -o compat=0.10",
        "-O qcow2 -o compat=0.10 -c",
        "-O qcow2 -o cluster_size=512",
        "-O qcow2 -o cluster_size=2M -c",
        "-O qcow2 -o cluster_size=4k,lazy_refcounts=on,refcount_bits=1",
        "-O qcow2 -S 0",
        "-O qcow2 -o preallocation=metadata",
    ] {
        let target = dir.path().join("disk.qcow2");
        let mut all = vec!["convert"];
        all.extend(args.split(' '));
        qemu_img(&all, &source, &target);
        let imported = import(&target, &options, |_| {}).unwrap_or_else(|e| panic!("{args}: {e}"));
        assert_eq!(imported.format, ImageFormat::Qcow2, "{args}");
        assert_eq!(imported.digest, expected, "{args}");
    }
    // Guest writes, zero clusters and discards after creation.
    let target = dir.path().join("written.qcow2");
    qemu_img(&["convert", "-O", "qcow2", "-c"], &source, &target);
    let io = ["write -P 0x5a 100k 300k", "write -z 12M 4M", "write -P 1 32M 1k", "discard 20M 1M"];
    let mut command = Command::new("qemu-io");
    command.args(["-f", "qcow2", "-d", "unmap"]).args(io.iter().flat_map(|c| ["-c", *c])).arg(&target);
    assert!(command.output().unwrap().status.success());
    let flat = dir.path().join("flat.raw");
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw"], &target, &flat);
    let imported = import(&target, &options, |_| {}).unwrap();
    assert!(restore(&options.images, &imported.digest) == fs::read(&flat).unwrap());
}

#[test]
fn an_image_that_needs_another_file_is_refused_without_opening_it() {
    let (dir, source, options) = sample();
    let target = dir.path().join("overlay.qcow2");
    let backing = format!("backing_file={},backing_fmt=raw", source.display());
    let create = |args: &[&str]| {
        let output = Command::new("qemu-img").arg("create").args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    create(&["-f", "qcow2", "-o", &backing, &target.display().to_string()]);
    let error = import(&target, &options, |_| {}).unwrap_err();
    assert!(matches!(&error, ImportError::Dependent { needs, .. } if needs.contains("disk.raw")), "{error}");
    assert!(error.to_string().contains("qemu-img convert"), "{error}");

    let external = dir.path().join("external.qcow2");
    let data = format!("data_file={}", dir.path().join("data.raw").display());
    create(&["-f", "qcow2", "-o", &data, &external.display().to_string(), "16M"]);
    assert!(matches!(import(&external, &options, |_| {}), Err(ImportError::Dependent { .. })));

    let subclusters = dir.path().join("subclusters.qcow2");
    create(&["-f", "qcow2", "-o", "extended_l2=on", &subclusters.display().to_string(), "16M"]);
    assert!(matches!(import(&subclusters, &options, |_| {}), Err(ImportError::Unsupported { .. })));
    assert!(entries_of(&options.images).is_empty(), "a failed import leaves nothing");
}

#[test]
fn wrong_files_are_named_for_what_they_are() {
    let (dir, source, options) = sample();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    for (name, bytes, expected) in [
        ("empty", &b""[..], "empty"),
        ("page.html", b"<!doctype html><title>404</title>", "text"),
        ("disk.raw.gz", b"\x1f\x8b\x08\0aaaaaaaaaaaaaaaaaaa", "gzip"),
        ("disk.vmdk", b"KDMV\x01\0\0\0", "VMDK"),
        ("zeros", &[0; 4096], "no partition table"),
    ] {
        let error = import(&file(name, bytes), &options, |_| {}).unwrap_err();
        assert!(matches!(&error, ImportError::NotAnImage { found, .. } if found.contains(expected)), "{name}: {error}");
    }
    let raw = ImportOptions { format: Some(ImageFormat::Raw), ..options.clone() };
    assert!(import(&file("declared", &[0; 4096]), &raw, |_| {}).is_ok(), "who says raw gets raw");
    let qcow2 = ImportOptions { format: Some(ImageFormat::Qcow2), ..options.clone() };
    assert!(matches!(import(&source, &qcow2, |_| {}), Err(ImportError::NotAnImage { .. })));
    assert!(matches!(
        import(dir.path(), &options, |_| {}),
        Err(ImportError::NotAnImage { .. } | ImportError::Read { .. })
    ));
    assert!(matches!(import(&dir.path().join("absent"), &options, |_| {}), Err(ImportError::Read { .. })));

    let mut odd = fs::read(&source).unwrap();
    odd.truncate(10_000_001);
    assert!(matches!(import(&file("odd", &odd), &options, |_| {}), Err(ImportError::Truncated { .. })));
    let target = dir.path().join("whole.qcow2");
    for args in [&["convert", "-O", "qcow2"][..], &["convert", "-O", "qcow2", "-c"]] {
        qemu_img(args, &source, &target);
        let whole = fs::read(&target).unwrap();
        let cut = file("cut.qcow2", &whole[..whole.len() * 2 / 3]);
        let error = import(&cut, &options, |_| {}).unwrap_err();
        assert!(matches!(error, ImportError::Truncated { .. } | ImportError::Damaged { .. }), "{args:?}: {error}");
    }
    let cut = file("head.qcow2", &fs::read(&target).unwrap()[..50]);
    assert!(matches!(import(&cut, &options, |_| {}), Err(ImportError::Truncated { .. })));
}

#[test]
fn a_wrong_checksum_names_both_digests_and_explains_everything_else() {
    let (dir, source, mut options) = sample();
    let right = sha256_of(&source);
    let wrong = format!("sha256:{}", "0".repeat(64));
    options.checksum = Some(wrong.clone());
    let text = import(&source, &options, |_| {}).unwrap_err().to_string();
    assert!(text.contains(&right[7..]) && text.contains(&wrong[7..]), "{text}");

    let page = dir.path().join("page");
    fs::write(&page, "<html>not found</html>").unwrap();
    assert!(matches!(import(&page, &options, |_| {}), Err(ImportError::Checksum { .. })), "not: not an image");

    for bad in ["", "md5:00", "sha256:zz", &right[..70]] {
        options.checksum = Some(bad.to_owned());
        assert!(matches!(import(&source, &options, |_| {}), Err(ImportError::ChecksumSyntax(_))), "{bad}");
    }
    assert!(entries_of(&options.images).is_empty());
}

#[test]
fn remains_of_a_crash_are_cleared_and_a_running_import_is_not() {
    let (_dir, source, options) = sample();
    let running = Workspace::create(&options.images).unwrap();
    let dead = options.images.join(".import-1-0");
    fs::create_dir_all(dead.join("chunks")).unwrap();
    let digest = import(&source, &options, |_| {}).unwrap().digest;
    assert!(!dead.exists());
    assert_eq!(entries_of(&options.images).len(), 2, "the running import's directory and the image");
    drop(running);
    assert_eq!(entries_of(&options.images), [digest.to_string()]);
}

#[test]
fn a_hostile_header_is_an_error_and_no_more() {
    let (dir, source, options) = sample();
    let target = dir.path().join("disk.qcow2");
    qemu_img(&["convert", "-O", "qcow2", "-c"], &source, &target);
    let good = fs::read(&target).unwrap();
    let bad_path = dir.path().join("bad.qcow2");
    // Every header field and the first-level table in turn gets every kind of nonsense: no panic, no huge allocation.
    for at in (4..104).step_by(4).chain((0x30000..0x30040).step_by(4)) {
        for value in [0u32, 1, 0x7fff_ffff, 0xffff_ffff] {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_be_bytes());
            fs::write(&bad_path, &bad).unwrap();
            let file = File::open(&bad_path).unwrap();
            if let Ok(opened) = Source::open(&file, &bad_path, None) {
                let mut chunk = vec![0; CHUNK_BYTES as usize];
                for index in 0..4.min(opened.size() / u64::from(CHUNK_BYTES)) {
                    let _ = opened.read(index * u64::from(CHUNK_BYTES), &mut chunk);
                }
            }
        }
    }
    drop(options);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_disk_comes_back_as_it_was(
        sectors in 1u64..40_000,
        parts in prop::collection::vec((any::<prop::sample::Index>(), 1usize..200_000, any::<u64>()), 0..6),
    ) {
        let dir = TempDir::new().unwrap();
        let source = dir.path().join("disk.raw");
        let size = sectors * 512;
        let parts: Vec<(u64, Vec<u8>)> = parts
            .into_iter()
            .map(|(at, len, seed)| {
                let at = at.index(size as usize) as u64;
                (at, noise(len.min((size - at) as usize), seed))
            })
            .collect();
        raw_disk(&source, size, &parts);
        let options = ImportOptions { threads: 2, ..ImportOptions::new(dir.path().join("images")) };
        let imported = import(&source, &options, |_| {}).unwrap();
        prop_assert!(restore(&options.images, &imported.digest) == fs::read(&source).unwrap());
    }
}
