//! Installing an operating system: from an order to a disk that boots.
//!
//! Nothing on the disk is touched before everything that can be checked has been: the machine (by the caller), the
//! manifest, the disk, the fit of image and disk. From then on a failure leaves a disk without a partition table rather
//! than half an old and half a new system.
//!
//! Holes are zeroed explicitly, whatever a discard promised: the old tenant's bytes under the new tenant's file system
//! would be a leak, and file systems made by image builders expect zeros there.

mod fetch;

use vmetal_image::{CHUNK_BYTES, Digest, MAX_MANIFEST_BYTES, Manifest};
use vmetal_model::agent::{InstallOrder, Installed};
use vmetal_model::inventory::{Disk, Firmware};

use crate::clock;
use crate::console::say;
use crate::efi::Variables;
use crate::engine::{CallError, Engine};
use crate::erase;
use crate::error::{AgentError, chain};
use crate::gpt;
use crate::inventory;
use crate::root_device;
use crate::seed::{self, SEED_BYTES};
use crate::target::{Target, Unmap};
use crate::work::{Machine, Progress};

/// Room besides image and seed: alignment of the seed, and the backup partition table.
const SLACK_BYTES: u64 = 2 << 20;

/// Why the image cannot be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The order's digest is none.
    #[error("the order names the image {0:?}, which is not a digest")]
    Name(String),
    /// It cannot be fetched.
    #[error("cannot fetch {what} of image {image}")]
    Fetch {
        /// The image.
        image: Digest,
        /// Manifest or chunk.
        what: String,
        /// The last answer.
        #[source]
        source: Box<CallError>,
    },
    /// It is not what its digest promises, however often it is fetched. Nothing wrong was written.
    #[error("{what} of image {image} is damaged and was not written: {reason}")]
    Corrupt {
        /// The image.
        image: Digest,
        /// Manifest or chunk.
        what: String,
        /// Expected and seen.
        reason: String,
    },
    /// Made for other sectors.
    #[error(
        "the image is laid out for {image}-byte sectors and {disk} has {sectors}-byte sectors; nothing was touched"
    )]
    Sectors {
        /// Of the image.
        image: u32,
        /// Kernel name of the disk.
        disk: String,
        /// Of the disk.
        sectors: u32,
    },
    /// Cannot boot this machine.
    #[error("this machine boots by UEFI and the image has no EFI system partition; nothing was touched")]
    NoEsp,
    /// No memory for decompression.
    #[error("cannot prepare decompression")]
    Decoder(#[source] std::io::Error),
    /// A thread of the installation ended without a result.
    #[error("writing the image was interrupted")]
    Interrupted,
}

/// Carries an order out.
///
/// # Errors
/// [`AgentError`] in an operator's words.
pub fn install(
    engine: &Engine,
    machine: &Machine,
    order_id: &str,
    order: &InstallOrder,
    progress: &Progress,
) -> Result<Installed, AgentError> {
    let begun = clock::now();
    let image: Digest = order.image_digest.parse().map_err(|_| ImageError::Name(order.image_digest.clone()))?;
    progress.begin("fetching the image's manifest", 0);
    let mut fetched = 0;
    let manifest = manifest(engine, &image, &mut fetched)?;

    let disks = inventory::disks(&machine.sysfs);
    let needed = manifest.size_bytes() + SEED_BYTES + SLACK_BYTES;
    let disk = root_device::select(&disks, &order.root_device, needed)?;
    let target = Target::open(&machine.dev.join(&disk.name))?;
    say(&format!("installing image {image} on {} (serial {})", disk.name, disk.serial.as_deref().unwrap_or("none")));
    let firmware = inventory::firmware(&machine.sysfs);
    check_fit(engine, &image, &manifest, (&target, disk), firmware, &mut fetched)?;

    progress.begin("clearing the disk", 0);
    erase::clear_metadata(&target)?;
    // Only to tell flash what is free; nothing relies on it.
    if let Err(error) = target.discard(&|_| {}) {
        say(&format!("discard failed, going on without: {}", chain(&error)));
    }
    let holes = manifest.holes();
    progress.begin("zeroing the image's holes", holes.iter().map(|(_, length)| length).sum());
    for (offset, length) in holes {
        target.zero(offset, length, Unmap::Allowed, &|bytes| progress.add(bytes))?;
    }

    progress.begin("writing image", manifest.data_bytes());
    fetched += fetch::write_image(engine, &image, &manifest, &target, progress)?;

    progress.begin("writing the seed", 0);
    // Unique, yet the same if the order is carried out again.
    let unique = blake3::hash(format!("seed {order_id} {image}").as_bytes());
    let unique = unique.as_bytes();
    let mut guid: [u8; 16] = unique.first_chunk().copied().unwrap_or_default();
    // Version 8 (vendor-specific content), variant RFC 9562; the third field is stored little-endian.
    guid[7] = guid[7] & 0x0f | 0x80;
    guid[8] = guid[8] & 0x3f | 0x80;
    let volume = u32::from_le_bytes([unique[16], unique[17], unique[18], unique[19]]);
    let file_system = seed::file_system(&order.seed, target.sector_bytes(), volume).map_err(AgentError::Seed)?;
    let span = gpt::add_seed_partition(&target, file_system.len() as u64, guid)?;
    target.write_at(span.offset, &file_system)?;

    progress.begin("flushing the disk", 0);
    target.sync()?;
    if let Err(error) = target.reread_partitions() {
        // Nothing here needs the partitions; the next boot reads them.
        say(&chain(&error));
    }
    if firmware == Firmware::Uefi {
        progress.begin("setting the firmware's boot entry", 0);
        let esp = gpt::find_esp(&target)?.ok_or(ImageError::NoEsp)?;
        let variables = Variables::at(machine.sysfs.path("sys/firmware/efi/efivars"));
        let number = variables.set_boot_entry(&order.boot_label, &esp)?;
        say(&format!("boot entry Boot{number:04X} {:?} is first", order.boot_label));
    }
    nix::unistd::sync();
    let installed = Installed {
        disk: disk.name.clone(),
        disk_serial: disk.serial.clone(),
        bytes_written: manifest.data_bytes(),
        bytes_fetched: fetched,
        elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    say(&format!(
        "installed on {} in {} ms, {} bytes written",
        installed.disk, installed.elapsed_ms, installed.bytes_written
    ));
    Ok(installed)
}

fn manifest(engine: &Engine, image: &Digest, fetched: &mut u64) -> Result<Manifest, ImageError> {
    let path = format!("/images/{image}/manifest.json");
    fetch::verified(engine, image, "the manifest", &path, MAX_MANIFEST_BYTES as u64, |bytes| {
        *fetched += bytes.len() as u64;
        Manifest::parse(bytes, image).map_err(|e| chain(&e))
    })
}

/// Would the image boot from this disk? An image made for disks with other sectors has its partition table where the
/// firmware will not look, and UEFI needs an EFI system partition.
fn check_fit(
    engine: &Engine,
    image: &Digest,
    manifest: &Manifest,
    (target, disk): (&Target, &Disk),
    firmware: Firmware,
    fetched: &mut u64,
) -> Result<(), ImageError> {
    let no_esp = || if firmware == Firmware::Uefi { Err(ImageError::NoEsp) } else { Ok(()) };
    let Some(first) = manifest.chunks().first().filter(|chunk| chunk.index == 0) else { return no_esp() };
    let mut decoder = vmetal_image::ChunkDecoder::new().map_err(ImageError::Decoder)?;
    let path = format!("/images/{image}/chunks/{}", first.digest);
    let table = fetch::verified(engine, image, "the first chunk", &path, u64::from(CHUNK_BYTES) * 2, |bytes| {
        *fetched += bytes.len() as u64;
        decoder.decode(manifest, first, bytes).map(gpt::table_of).map_err(|e| chain(&e))
    })?;
    match table {
        Some(table) if table.sector_bytes != target.sector_bytes() => Err(ImageError::Sectors {
            image: table.sector_bytes,
            disk: disk.name.clone(),
            sectors: target.sector_bytes(),
        }),
        Some(table) if table.esp => Ok(()),
        _ => no_esp(),
    }
}
