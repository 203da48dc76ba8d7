//! A real OCI registry for tests: Debian's `docker-registry`, on a port of 127.0.0.1 that the system chooses, with a directory
//! of its own, and gone without a trace when the test process ends, whichever way it ends.
//!
//! ```no_run
//! let registry = vmetal_test_registry::Registry::start(vmetal_test_registry::Guests::Everybody);
//! println!("{}", registry.host()); // 127.0.0.1:40451
//! ```
//!
//! A small shell script (`keeper.sh`) holds the reading end of a pipe to the test process and ends the registry when it closes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// The user that a registry with [`Guests::Known`] lets in.
pub const USER: &str = "pusher";
/// That user's password.
pub const PASSWORD: &str = "s3cret:x";
/// The two as the registry keeps them: bcrypt with the least work.
const LOGIN: &str = "pusher:$2b$04$Kjxubz4I6uGkkTaU6O8g1OxlKBlMnJ46cImhNG7aFDkXU.CESqmbK\n";

/// Whom a registry lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// Whoever comes.
    Everybody,
    /// [`USER`] with [`PASSWORD`].
    Known,
}

/// A running registry. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Registry {
    directory: PathBuf,
    host: String,
    shell: Child,
    /// Taken when it is to end.
    pipe: Option<ChildStdin>,
}

impl Registry {
    /// Starts one.
    ///
    /// # Panics
    /// When it is not installed or does not start: a test that needs it fails without it.
    pub fn start(guests: Guests) -> Self {
        let program = program().unwrap_or_else(|| {
            panic!(
                "docker-registry is missing: it is neither in PATH nor in the cache; `scripts/setup --tests` gets it"
            )
        });
        let holder = tempfile::Builder::new().prefix("vmetal-registry-").tempdir();
        let directory = holder.unwrap_or_else(|error| panic!("cannot make a directory: {error}")).keep();
        let auth = match guests {
            Guests::Everybody => String::new(),
            Guests::Known => {
                format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", directory.join("logins").display())
            }
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nhttp: {{addr: '127.0.0.1:0', secret: tests}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  maintenance: {{uploadpurging: {{enabled: false}}}}\n{auth}",
            directory.join("data").display()
        );
        for (name, text) in [("config.yml", config.as_str()), ("logins", LOGIN)] {
            std::fs::write(directory.join(name), text).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
        }
        let shell = Command::new("setsid")
            .args(["sh", "-c", include_str!("keeper.sh"), "keeper"])
            .args([directory.as_path(), &program])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut shell =
            shell.unwrap_or_else(|error| panic!("cannot start a shell (setsid: package util-linux): {error}"));
        let pipe = shell.stdin.take();
        let said = BufReader::new(shell.stderr.take().unwrap_or_else(|| panic!("the shell has no pipes")));
        let mut heard = Vec::new();
        let mut lines = said.lines();
        // It says where it listens once it does; nothing has to be waited for by the clock.
        let host = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the registry ended; it said:\n{}", heard.join("\n")) };
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split('"').next().unwrap_or_default().to_owned();
            }
            heard.push(line);
        };
        // Whatever else it says is read, so that it never has to wait.
        std::thread::spawn(move || lines.for_each(drop));
        Registry { directory, host, shell, pipe }
    }

    /// Host and port, as a reference has them.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The file with the bytes of a blob, `sha256` in hexadecimal.
    pub fn blob(&self, sha256: &str) -> PathBuf {
        let blobs = self.directory.join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&sha256[..2]).join(sha256).join("data")
    }

    /// The directory with a repository's tags.
    pub fn tags(&self, repository: &str) -> PathBuf {
        self.directory.join("data/docker/registry/v2/repositories").join(repository).join("_manifests/tags")
    }

    /// The manifest that a tag names.
    ///
    /// # Panics
    /// When there is no such tag.
    pub fn tagged(&self, repository: &str, tag: &str) -> Vec<u8> {
        let link = self.tags(repository).join(tag).join("current/link");
        let read = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let digest = String::from_utf8_lossy(&read(&link)).into_owned();
        read(&self.blob(digest.trim().trim_start_matches("sha256:")))
    }

    /// What Docker's `config.json` says after a login with [`USER`] and [`PASSWORD`].
    pub fn docker_config(&self) -> String {
        // base64 of pusher:s3cret:x
        format!("{{\"auths\": {{{:?}: {{\"auth\": \"cHVzaGVyOnMzY3JldDp4\"}}}}}}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.pipe = None;
        // Fails only when it has ended already.
        let _ = self.shell.wait();
    }
}

/// The registry's program: in PATH, or where `scripts/setup` puts it.
fn program() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let cache = variable("VMETAL_CACHE").or_else(|| Some(caches?.join("vmetal")));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> =
        std::env::split_paths(&in_path).chain(cache.map(|cache| cache.join("tools/bin"))).collect();
    places.iter().map(|place: &PathBuf| Path::new(place).join("docker-registry")).find(|program| program.is_file())
}
