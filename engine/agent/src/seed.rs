//! The NoCloud seed: a small FAT file system labelled `CIDATA`, in which cloud-init finds its first-boot data.

use std::io::{self, Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use vmetal_model::agent::Seed;

/// Size of the partition: room for user data beyond anything cloud-init accepts, and FAT16 with small clusters.
pub const SEED_BYTES: u64 = 16 << 20;

const LABEL: [u8; 11] = *b"CIDATA     ";

/// Makes the file system. `volume_id` makes equal seeds of different installations differ in nothing but that.
///
/// # Errors
/// When the data does not fit.
pub fn file_system(seed: &Seed, sector_bytes: u32, volume_id: u32) -> io::Result<Vec<u8>> {
    let mut disk = Cursor::new(vec![0; SEED_BYTES as usize]);
    let sector_bytes = u16::try_from(sector_bytes).map_err(io::Error::other)?;
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(volume_id).bytes_per_sector(sector_bytes);
    format_volume(&mut disk, options)?;
    {
        let fs = FileSystem::new(&mut disk, FsOptions::new())?;
        let root = fs.root_dir();
        let put = |name: &str, text: &str| -> io::Result<()> {
            let mut file = root.create_file(name)?;
            file.write_all(text.as_bytes())?;
            file.flush()
        };
        put("user-data", &seed.user_data)?;
        put("meta-data", &seed.meta_data)?;
        if !seed.network_config.is_empty() {
            put("network-config", &seed.network_config)?;
        }
    }
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::process::Command;

    use super::*;

    #[test]
    fn mtools_reads_every_file_back() {
        let seed = Seed {
            user_data: "#cloud-config\n".to_owned() + &"x".repeat(100_000),
            meta_data: "instance-id: i-1\n".to_owned(),
            network_config: "version: 2\n".to_owned(),
        };
        let dir = tempfile::TempDir::new().unwrap();
        for sector_bytes in [512, 4096] {
            let path = dir.path().join("seed.img");
            std::fs::write(&path, file_system(&seed, sector_bytes, 0x1234_5678).unwrap()).unwrap();
            let read = |name: &str| {
                let output = Command::new("mtype").arg("-i").arg(&path).arg(format!("::{name}")).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap()
            };
            assert_eq!(read("user-data"), seed.user_data);
            assert_eq!(read("meta-data"), seed.meta_data);
            assert_eq!(read("network-config"), seed.network_config);
            let label = Command::new("mlabel").arg("-s").arg("-i").arg(&path).arg("::").output().unwrap();
            assert!(String::from_utf8_lossy(&label.stdout).contains("CIDATA"), "{label:?}");
        }
    }

    #[test]
    fn too_much_is_an_error_and_no_network_config_is_no_file() {
        let big = Seed { user_data: "x".repeat(SEED_BYTES as usize), ..Seed::default() };
        assert!(file_system(&big, 512, 1).is_err());
        let bytes = file_system(&Seed::default(), 512, 1).unwrap();
        let fs = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        let mut names: Vec<String> = fs.root_dir().iter().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["meta-data", "user-data"]);
    }
}
