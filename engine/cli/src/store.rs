//! `vmetal store`: what is done to the store from outside the engine.

use std::io::Write;
use std::path::{Path, PathBuf};

use vmetal_store::{CheckReport, Existing, PostgresOptions, PostgresStore, PostgresUrl, Restored};

use crate::args::{StoreCommand, StorePlace};
use crate::error::CliError;

/// Which store.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Place {
    File(PathBuf),
    Database(PostgresUrl),
}

/// Runs one command.
pub(crate) async fn run(command: StoreCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        StoreCommand::Check { place } => check(find(&place)?, out).await,
        StoreCommand::Backup { place, to } => match find(&place)? {
            Place::File(store) => backup(&store, &to, out),
            Place::Database(url) => Err(elsewhere(
                "a store in PostgreSQL is backed up with PostgreSQL's tools",
                &format!(
                    "pg_dump --format=custom --schema={} --file={} '{url}'",
                    PostgresOptions::default().schema,
                    to.display()
                ),
            )),
        },
        StoreCommand::Restore { place, from, replace } => match find(&place)? {
            Place::File(store) => {
                restore(&from, &store, if replace { Existing::SetAside } else { Existing::Refuse }, out)
            }
            Place::Database(url) => Err(elsewhere(
                "a store in PostgreSQL is restored with PostgreSQL's tools, with every engine stopped",
                &format!(
                    "psql -c 'ALTER SCHEMA {0} RENAME TO {0}_replaced' '{url}' && pg_restore --single-transaction \
                     --dbname='{url}' {1}",
                    PostgresOptions::default().schema,
                    from.display()
                ),
            )),
        },
    }
}

fn find(place: &StorePlace) -> Result<Place, CliError> {
    let Some(url) = &place.url else { return Ok(Place::File(place.state_dir.join("store.db"))) };
    let mut url = PostgresUrl::parse(url).map_err(store)?;
    if let Some(path) = &place.password_file {
        let password = std::fs::read_to_string(path).map_err(|source| CliError::File { path: path.clone(), source })?;
        url = url.with_password(password.trim_end_matches(['\n', '\r']));
    }
    Ok(Place::Database(url))
}

fn store(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Store { source: Box::new(error), advice: String::new() }
}

fn elsewhere(message: &str, command: &str) -> CliError {
    CliError::Usage { message: message.to_owned(), advice: command.to_owned() }
}

async fn check(place: Place, out: &mut impl Write) -> Result<(), CliError> {
    let (name, report) = match place {
        Place::File(path) => (path.display().to_string(), vmetal_store::check_file(&path).map_err(store)?),
        Place::Database(url) => {
            let opened = PostgresStore::open_existing(url, PostgresOptions::default()).await.map_err(store)?;
            (opened.url().to_string(), opened.check().await.map_err(store)?)
        }
    };
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    if report.more > 0 {
        writeln!(out, "and {} more", report.more)?;
    }
    if !report.is_sound() {
        return Err(CliError::Damaged { store: name, count: report.count() });
    }
    writeln!(out, "{name} is sound: {}", summary(&report))?;
    Ok(out.flush()?)
}

fn summary(report: &CheckReport) -> String {
    let CheckReport { revision, objects, versions, events, compacted, .. } = report;
    format!("revision {revision}, {objects} objects, {versions} values since revision {compacted}, {events} events")
}

fn backup(from: &Path, to: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let report = vmetal_store::backup_file(from, to).map_err(store)?;
    writeln!(out, "{} is a backup of {}, and sound: {}", to.display(), from.display(), summary(&report))?;
    Ok(out.flush()?)
}

fn restore(from: &Path, to: &Path, existing: Existing, out: &mut impl Write) -> Result<(), CliError> {
    let restored = vmetal_store::restore_file(from, to, existing).map_err(|error| {
        let advice = match &error {
            vmetal_store::RestoreError::Exists { .. } => {
                "stop the engine, then `vmetal store restore --replace`, which keeps the present store under another name"
            }
            vmetal_store::RestoreError::Open(vmetal_store::OpenError::Locked { .. }) => "stop the engine first",
            _ => "",
        };
        CliError::Store { source: Box::new(error), advice: advice.to_owned() }
    })?;
    let Restored { revision, set_aside } = restored;
    if let Some(kept) = set_aside {
        writeln!(out, "the store that was there is kept as {}", kept.display())?;
    }
    writeln!(out, "{} is restored to revision {revision} from {}", to.display(), from.display())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::Parser as _;
    use vmetal_store::{AnyStore, Key, SqliteOptions, Store as _, Txn};

    use super::*;
    use crate::args::{Cli, Command};

    /// What a command line prints, or how it fails.
    async fn vmetal(line: &[&str]) -> Result<String, (u8, String)> {
        let cli = Cli::try_parse_from([&["vmetal", "store"], line].concat()).unwrap();
        let Command::Store { command } = cli.command else { panic!("{:?}", cli.command) };
        let mut out = Vec::new();
        let done = run(command, &mut out).await;
        let out = String::from_utf8(out).unwrap();
        done.map(|()| out.clone()).map_err(|error| (error.exit_code(), out + &error.lines().join("\n")))
    }

    async fn engine(dir: &Path) -> AnyStore {
        let store = AnyStore::open(dir.join("store.db"), SqliteOptions::default()).unwrap();
        for name in ["a", "b"] {
            store
                .commit(
                    Txn::new()
                        .put(Key::new("host", name), format!("value of {name}"))
                        .event(Key::new("host", name), "made"),
                )
                .await
                .unwrap();
        }
        store
    }

    #[tokio::test]
    async fn a_store_is_checked_backed_up_and_restored() {
        let dir = tempfile::tempdir().unwrap();
        let (state, backup) = (dir.path().to_str().unwrap(), dir.path().join("backup.db"));
        let backup = backup.to_str().unwrap();
        let store = engine(dir.path()).await;
        // While the engine runs.
        let sound = vmetal(&["check", "--state-dir", state]).await.unwrap();
        assert!(
            sound.ends_with("store.db is sound: revision 2, 2 objects, 2 values since revision 0, 2 events\n"),
            "{sound}"
        );
        let made = vmetal(&["backup", "--state-dir", state, "--to", backup]).await.unwrap();
        assert!(made.contains("backup.db is a backup of") && made.contains("revision 2"), "{made}");
        let (code, again) = vmetal(&["backup", "--state-dir", state, "--to", backup]).await.unwrap_err();
        assert!(code == 1 && again.contains("already exists"), "{again}");
        store.commit(Txn::new().delete(Key::new("host", "a"))).await.unwrap();
        let (_, running) = vmetal(&["restore", "--state-dir", state, "--from", backup, "--replace"]).await.unwrap_err();
        assert!(running.contains("is in use by process") && running.contains("stop the engine"), "{running}");
        drop(store);

        let (code, refused) = vmetal(&["restore", "--state-dir", state, "--from", backup]).await.unwrap_err();
        assert!(
            refused.contains("a sound store at revision 3 with 1 objects; the backup is at revision 2"),
            "{refused}"
        );
        assert!(code == 1 && refused.contains("--replace"), "{refused}");
        let done = vmetal(&["restore", "--state-dir", state, "--from", backup, "--replace"]).await.unwrap();
        assert!(done.contains("kept as") && done.contains("restored to revision 2"), "{done}");
        assert!(dir.path().join("store.db.replaced-1").exists());
        let store = AnyStore::open(dir.path().join("store.db"), SqliteOptions::default()).unwrap();
        assert!(store.get(&Key::new("host", "a")).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn damage_is_listed_and_neither_backed_up_nor_restored() {
        let dir = tempfile::tempdir().unwrap();
        let (state, file) = (dir.path().to_str().unwrap(), dir.path().join("store.db"));
        drop(engine(dir.path()).await);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.windows(10).position(|window| window == b"value of a").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        std::fs::copy(&file, dir.path().join("bad.db")).unwrap();

        let (code, found) = vmetal(&["check", "--state-dir", state]).await.unwrap_err();
        assert!(code == 1 && found.contains("host/a at revision 1 does not match its checksum"), "{found}");
        assert!(found.contains("1 problem") && found.contains("vmetal store restore"), "{found}");
        let to = dir.path().join("backup.db");
        let (_, refused) = vmetal(&["backup", "--state-dir", state, "--to", to.to_str().unwrap()]).await.unwrap_err();
        assert!(refused.contains("no backup was made: the store is damaged") && !to.exists(), "{refused}");
        let elsewhere = dir.path().join("other");
        std::fs::create_dir(&elsewhere).unwrap();
        let bad = dir.path().join("bad.db");
        let line = ["restore", "--state-dir", elsewhere.to_str().unwrap(), "--from", bad.to_str().unwrap()];
        let (_, refused) = vmetal(&line).await.unwrap_err();
        assert!(refused.contains("is damaged") && !elsewhere.join("store.db").exists(), "{refused}");
    }

    #[tokio::test]
    async fn a_database_names_its_own_tools() {
        let url = "postgres://vmetal:hunter2@db.example/vmetal?sslmode=disable";
        for (line, says) in [
            (
                ["backup", "--url", url, "--to", "x.dump"],
                "pg_dump --format=custom --schema=vmetal --file=x.dump 'postgres://vmetal@db.example:5432/vmetal'",
            ),
            (["restore", "--url", url, "--from", "x.dump"], "pg_restore --single-transaction"),
        ] {
            let (code, text) = vmetal(&line).await.unwrap_err();
            assert!(code == 2 && text.contains(says) && !text.contains("hunter2"), "{text}");
        }
    }

    #[tokio::test]
    async fn nothing_there_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let (_, text) = vmetal(&["check", "--state-dir", dir.path().to_str().unwrap()]).await.unwrap_err();
        assert!(text.contains("store.db") && text.contains("not found"), "{text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a look makes no file");
    }
}
