#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::assets::Assets;

/// The head of an executable with one program header of this kind.
fn executable(kind: u32) -> Vec<u8> {
    let mut elf = vec![0; 64 + 56];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18..20].copy_from_slice(&62u16.to_le_bytes());
    elf[0x20..0x28].copy_from_slice(&64u64.to_le_bytes());
    elf[0x36..0x38].copy_from_slice(&56u16.to_le_bytes());
    elf[0x38..0x3a].copy_from_slice(&1u16.to_le_bytes());
    elf[64..68].copy_from_slice(&kind.to_le_bytes());
    elf
}

#[test]
fn an_installer_that_needs_libraries_is_refused_with_advice() {
    let path = Path::new("agent");
    assert!(check_static(path, &executable(1)).is_ok());
    let dynamic = check_static(path, &executable(3)).unwrap_err().to_string();
    assert!(dynamic.contains("dynamic loader") && dynamic.contains("crt-static"), "{dynamic}");
    assert!(check_static(path, b"#!/bin/sh\n").is_err());
    assert!(check_static(path, &executable(1)[..100]).is_ok(), "only what is read must be there");
    assert!(check_static(path, &executable(1)[..66]).is_err());
}

/// A package with a kernel, made by dpkg-deb itself.
fn package(dir: &Path, release: &str, config: &str) -> Option<PathBuf> {
    let tree = dir.join("tree");
    for sub in ["DEBIAN", "boot", &format!("lib/modules/{release}/kernel/drivers")] {
        std::fs::create_dir_all(tree.join(sub)).unwrap();
    }
    let control =
        "Package: kernel\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example.com>\nDescription: test\n";
    std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
    std::fs::write(tree.join(format!("boot/vmlinuz-{release}")), b"a kernel").unwrap();
    std::fs::write(tree.join(format!("boot/config-{release}")), config).unwrap();
    let drivers = tree.join(format!("lib/modules/{release}/kernel/drivers"));
    let module = |info: &[u8]| crate::assets::modules::tests::elf(info);
    std::fs::write(drivers.join("virtio_net.ko"), module(b"name=virtio_net\0depends=net_failover\0")).unwrap();
    let compressed = zstd::encode_all(&module(b"name=net_failover\0depends=\0")[..], 1).unwrap();
    std::fs::write(drivers.join("net_failover.ko.zst"), compressed).unwrap();
    std::fs::write(drivers.join("unwanted.ko"), module(b"name=unwanted\0depends=\0")).unwrap();
    let builtin = "kernel/drivers/nvme/host/nvme.ko\n";
    std::fs::write(tree.join(format!("lib/modules/{release}/modules.builtin")), builtin).unwrap();
    let deb = dir.join("kernel.deb");
    let built = Command::new("dpkg-deb").arg("-b").arg("-Znone").arg(&tree).arg(&deb).output();
    match built {
        Ok(output) if output.status.success() => Some(deb),
        _ => {
            eprintln!("SKIPPED: dpkg-deb is missing");
            None
        }
    }
}

fn config(dir: &Path, deb: PathBuf, out: &str) -> BuildConfig {
    let agent = dir.join("agent");
    std::fs::write(&agent, executable(1)).unwrap();
    for name in LOADERS {
        std::fs::write(dir.join(name), name).unwrap();
    }
    BuildConfig { kernel: KernelSource::Deb(deb), agent, ipxe: dir.to_owned(), out: dir.join(out) }
}

#[test]
fn equal_inputs_give_equal_bytes_once_and_a_change_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(deb) = package(dir.path(), "6.1-test", "CONFIG_RD_ZSTD=y\n") else { return };
    let first = config(dir.path(), deb.clone(), "one");
    let (manifest, built) = build(&first).unwrap();
    assert_eq!(built, Built::Now);
    assert_eq!((manifest.kernel_release.as_str(), manifest.modules.len()), ("6.1-test", 2));
    assert_eq!(manifest.modules, ["net_failover", "virtio_net"]);
    assert_eq!(build(&first).unwrap().1, Built::Before);

    let second = config(dir.path(), deb, "two");
    assert_eq!(build(&second).unwrap(), (manifest.clone(), Built::Now));
    for name in [KERNEL, INITRD, MANIFEST] {
        assert_eq!(read_file(&first.out.join(name)).unwrap(), read_file(&second.out.join(name)).unwrap(), "{name}");
    }
    let mut names: Vec<_> = std::fs::read_dir(&first.out).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 6, "nothing is left behind: {names:?}");

    let archive = zstd::decode_all(read_file(&first.out.join(INITRD)).unwrap().as_slice()).unwrap();
    let text = String::from_utf8_lossy(&archive);
    assert!(
        text.contains("/lib/modules/6.1-test/net_failover.ko\n/lib/modules/6.1-test/virtio_net.ko\n"),
        "the order file lists absolute paths"
    );
    assert!(!text.contains("unwanted"));

    let absent = |name: &str| manifest.absent.iter().any(|absent| absent == name);
    assert!(absent("e1000e") && !absent("virtio_net") && !absent("nvme"), "{:?}", manifest.absent);

    // A damaged file is made again, a changed input makes other files.
    std::fs::write(first.out.join(KERNEL), b"damaged").unwrap();
    assert!(Assets::load(&first.out).unwrap_err().to_string().contains("build the boot assets again"));
    assert_eq!(build(&first).unwrap(), (manifest.clone(), Built::Now));
    let mut agent = executable(1);
    agent.push(0);
    std::fs::write(&first.agent, agent).unwrap();
    let (changed, built) = build(&first).unwrap();
    assert_eq!(built, Built::Now);
    assert_ne!(changed.inputs, manifest.inputs);
}

#[test]
fn a_kernel_without_zstd_gets_gzip() {
    let dir = tempfile::tempdir().unwrap();
    let Some(deb) = package(dir.path(), "4.9-test", "CONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is not set\n") else { return };
    let config = config(dir.path(), deb, "out");
    build(&config).unwrap();
    assert_eq!(read_file(&config.out.join(INITRD)).unwrap()[..2], [0x1f, 0x8b]);
}

#[test]
fn a_package_without_a_kernel_and_missing_loaders_are_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let Some(deb) = package(dir.path(), "6.1-test", "") else { return };
    let mut wrong = config(dir.path(), deb, "out");
    std::fs::remove_file(dir.path().join("snponly.efi")).unwrap();
    let error = build(&wrong).unwrap_err().to_string();
    assert!(error.contains("snponly.efi") && error.contains("apt-get install ipxe"), "{error}");
    std::fs::write(dir.path().join("snponly.efi"), b"x").unwrap();
    std::fs::remove_file(dir.path().join("tree/boot/vmlinuz-6.1-test")).unwrap();
    let empty = dir.path().join("empty.deb");
    let made =
        Command::new("dpkg-deb").args(["-b", "-Znone"]).arg(dir.path().join("tree")).arg(&empty).output().unwrap();
    assert!(made.status.success());
    wrong.kernel = KernelSource::Deb(empty);
    let error = build(&wrong).unwrap_err().to_string();
    assert!(error.contains("holds no boot/vmlinuz-*"), "{error}");
    assert!(!wrong.out.join(MANIFEST).exists());
}
