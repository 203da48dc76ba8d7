//! Damage at random places, full disks, and growth.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;

use super::*;
use crate::conformance::open_when_free;
use crate::{Change, Guard, Write};

/// A generator of pseudo-random numbers (SplitMix64); its seed is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

fn host(name: impl Into<String>) -> Key {
    Key::new("host", name)
}

/// Everything that can be read out of objects, history and events.
async fn everything(store: &SqliteStore) -> Result<(Vec<Stored>, Vec<crate::Event>, Vec<Committed>), String> {
    let objects = store.list_all(&Selector::All).await.map_err(|error| error.to_string())?;
    let events = store.events(&Selector::All, Revision::ZERO, usize::MAX).await.map_err(|error| error.to_string())?;
    let mut commits = Vec::new();
    let mut watch = store.watch(Selector::All, Revision(20));
    let mut reached = Revision(20);
    while reached < objects.revision {
        let change = futures::StreamExt::next(&mut watch).await.unwrap().map_err(|error| match error {
            WatchError::Read(error) => error.to_string(),
            other => other.to_string(),
        })?;
        reached = change.revision();
        if let Change::Committed(commit) = change {
            commits.push(commit);
        }
    }
    Ok((objects.items, events.events, commits))
}

/// A store with a bit of everything.
async fn rich(path: &Path) {
    let store = SqliteStore::open(path, SqliteOptions::default()).unwrap();
    for round in 0..4 {
        let commits = (0..15).map(|number| {
            let key = host(format!("h{number}"));
            let unique = vec![crate::UniqueKey::new("boot-mac", format!("52:54:00:00:00:{number:02x}"))];
            let put = Write::Put { key: key.clone(), value: vec![b'a' + round; 300 + 700 * number], unique };
            store
                .commit(Txn::new().write(put).event(key, format!("round {round}")).request(format!("{round}/{number}")))
        });
        join_all(commits).await.into_iter().for_each(|commit| assert!(commit.is_ok(), "{commit:?}"));
    }
    store.commit(Txn::new().delete(host("h3")).event(host("h3"), "gone")).await.unwrap();
    store.compact(Revision(20)).await.unwrap();
    store.forget_events(Revision(10)).await.unwrap();
    for _ in 0..3 {
        store.acquire(Shard(1), "one", Duration::from_secs(15)).await.unwrap();
    }
}

/// What the store holds that nothing in it says twice, and in which damage cannot be seen: the marks, the leases and the
/// revisions of requests. Their pages are left alone here; [`crate::check`] names them as not covered.
fn pages_of_small_records(path: &Path) -> Vec<usize> {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name IN ('meta', 'lease', 'request') AND rootpage > 0";
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get::<_, u32>(0)).unwrap().map(|page| page.unwrap() as usize - 1).collect()
}

#[tokio::test]
async fn damage_anywhere_is_an_error_and_never_a_wrong_value() {
    let seed = std::env::var("VMETAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("seed {seed} (VMETAL_SEED)");
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    rich(&path).await;
    let small = pages_of_small_records(&path);
    let sound = std::fs::read(&path).unwrap();
    let store = open_when_free(&path, &SqliteOptions::default()).unwrap();
    let truth = everything(&store).await.unwrap();
    drop(store);
    assert!(truth.0.len() == 14 && truth.2.len() == 41, "{} objects, {} commits", truth.0.len(), truth.2.len());

    let (mut refused, mut told, mut harmless) = (0, 0, 0);
    for trial in 0..250 {
        let mut bytes = sound.clone();
        let page = loop {
            let page = dice.roll(bytes.len() / 4096);
            if !small.contains(&page) {
                break page;
            }
        };
        let at = page * 4096 + dice.roll(4096);
        let what = match dice.roll(4) {
            0 => {
                // A torn write: some sectors are of another time.
                let sector = at / 512 * 512;
                bytes[sector..sector + 512].fill(0);
                format!("trial {trial}: sector at {sector} lost")
            }
            1 => {
                bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
                format!("trial {trial}: page {page} overwritten")
            }
            _ => {
                let bit = dice.roll(8);
                bytes[at] ^= 1 << bit;
                format!("trial {trial}: bit {bit} at {at} flipped")
            }
        };
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
        std::fs::write(&path, &bytes).unwrap();
        match open_when_free(&path, &SqliteOptions::default()) {
            Err(error) => {
                let said = format!("{error}");
                assert!(said.contains("store.db"), "{what}: {said}");
                match error {
                    OpenError::Corrupt { .. } => assert!(said.contains("vmetal store restore"), "{what}: {said}"),
                    // The first page says what kind of file it is.
                    OpenError::NotAStore { .. } | OpenError::Newer { .. } | OpenError::Sqlite { .. } => {
                        assert_eq!(page, 0, "{what}: {said}");
                    }
                    other => panic!("{what}: {other:?}"),
                }
                refused += 1;
            }
            Ok(store) => match everything(&store).await {
                Err(said) => {
                    assert!(said.contains("does not match its checksum") && said.contains("backup"), "{what}: {said}");
                    let report = check_file(&path).unwrap();
                    assert!(!report.is_sound(), "{what}");
                    told += 1;
                }
                Ok(read) => {
                    assert!(read == truth, "{what}: a wrong value");
                    harmless += 1;
                }
            },
        }
    }
    println!("{refused} refused at open, {told} told when read, {harmless} in unused space");
    assert!(refused > 50 && told > 20, "{refused} {told} {harmless}");
}

const CHILD: &str = "VMETAL_STORE_TEST_DISK";

#[tokio::test]
#[ignore = "a helper process of the test below"]
async fn child_fills_its_disk() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let path = dir.join("store.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let mut last = Revision::ZERO;
    let full = loop {
        let txn =
            Txn::new().guard(Guard::Absent(host(format!("h{last}")))).put(host(format!("h{last}")), vec![1; 20_000]);
        match store.commit(txn).await {
            Ok(revision) => last = revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, CommitError::Full), "{full:?}");
    // What was acknowledged can be read, and nothing else is there.
    assert_eq!(store.revision().await.unwrap(), last);
    assert_eq!(store.list_all(&Selector::All).await.unwrap().items.len() as u64, last.0);
    // Removing something needs space too; an operator makes some, here by removing a ballast.
    std::fs::remove_file(dir.join("ballast")).unwrap();
    store.commit(Txn::new().put(host("small"), "x")).await.unwrap();
    drop(store);
    let report = check_file(&path).unwrap();
    assert!(report.is_sound() && report.revision == last.next(), "{report:?}");
    println!("\nchild: full at {last}, {}", full);
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    // A file system of its own, in a mount namespace of its own that goes with the process.
    let mount = "mount -t tmpfs -o size=2m tmpfs \"$0\" && dd if=/dev/zero of=\"$0/ballast\" bs=64k count=8 status=none && exec \"$@\"";
    let mut unshare = Command::new("unshare");
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        unshare.arg("--map-root-user");
    }
    let output = unshare
        .args(["--mount", "--", "sh", "-ec", mount])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::damage::child_fills_its_disk", "--ignored", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("child: full at"), "{said}");
}

#[tokio::test]
async fn a_store_that_is_compacted_does_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let mut sizes = Vec::new();
    for round in 1..=20_u64 {
        let commits = (0..500).map(|number| {
            store.commit(Txn::new().put(host(format!("h{}", number % 100)), vec![7; 3_000]).event(host("e"), "x"))
        });
        join_all(commits).await.into_iter().for_each(|commit| assert!(commit.is_ok(), "{commit:?}"));
        store.compact(Revision((round - 1) * 500)).await.unwrap();
        store.forget_events(Revision((round - 1) * 500)).await.unwrap();
        sizes.push(
            std::fs::metadata(&path).unwrap().len() + std::fs::metadata(dir.path().join("store.db-wal")).unwrap().len(),
        );
    }
    // 10,000 values of 3,000 bytes have gone through; one to two rounds of them may be there at any time.
    let (early, late) = (sizes[..8].iter().max().unwrap(), sizes[12..].iter().max().unwrap());
    assert!(late < &(early * 5 / 4) && late < &(24 << 20), "{sizes:?}");
    drop(store);
    let report = check_file(&path).unwrap();
    assert!(report.is_sound() && report.versions < 1_700, "{report:?}");
}
