//! A real PostgreSQL server for tests: made in a moment, reached by a socket in a directory of its own, and gone without
//! a trace when the test process ends, whichever way it ends.
//!
//! ```no_run
//! let database = vmetal_test_postgres::shared().database();
//! println!("{}", database); // postgres://vmetal@/test_4711_0?host=/tmp/...
//! ```
//!
//! The server is kept by a small shell script (`keeper.sh`) that holds the reading end of a pipe to the test process.
//! When the pipe closes, by a clean exit, a panic or `kill -9`, the keeper ends the server and removes its directory. So
//! nothing has to be cleaned up by hand, and no test ends a server that it did not start.
//!
//! PostgreSQL refuses to run as root: then the keeper runs as the user `postgres`, which Debian's package makes, or
//! `nobody`. Nothing listens on the network unless a test asks for it ([`Listen::Loopback`]).

#![allow(clippy::disallowed_methods, reason = "waits for a real server in real time")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use vmetal_test_port::free_port;

/// How long a server may take to start. It takes under a second; machines that test are busy.
const START: Duration = Duration::from_secs(60);
/// The name of the superuser; there is no password, the socket's directory belongs to the user of the test.
pub const USER: &str = "vmetal";

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL is not installed.
    #[error(
        "PostgreSQL is missing: found no initdb in PATH or /usr/lib/postgresql/*/bin; install the Debian package \
         `postgresql` (scripts/setup does)"
    )]
    Missing,
    /// PostgreSQL does not run as root, and there is no user to become.
    #[error("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as")]
    NoUser,
    /// Something failed.
    #[error("{what}")]
    Io {
        /// What.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A program of PostgreSQL failed.
    #[error("{what} failed ({outcome}); it said:\n{said}")]
    Failed {
        /// Which.
        what: String,
        /// How it ended.
        outcome: String,
        /// Its output.
        said: String,
    },
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    |source| Error::Io { what, source }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On a unix socket only.
    Socket,
    /// Also on a free port of 127.0.0.1.
    Loopback,
}

/// A running server. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    dir: PathBuf,
    port: Option<u16>,
    keeper: Mutex<Keeper>,
    databases: AtomicU32,
}

#[derive(Debug)]
struct Keeper {
    shell: Child,
    /// Taken when the keeper is to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: u32,
}

/// The server that all tests of this process share. It is started by the first who asks.
///
/// # Panics
/// When there is none, with what is missing: a test that needs PostgreSQL fails without it.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(Listen::Socket).unwrap_or_else(|error| panic!("{}", whole(&error))))
}

fn whole(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Server {
    /// Makes a server with `fsync` off: it survives its own crash, not the machine's.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub fn start(listen: Listen) -> Result<Self, Error> {
        Self::with_settings(listen, "fsync = off\n")
    }

    /// Makes a server with further lines of `postgresql.conf`.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub fn with_settings(listen: Listen, settings: &str) -> Result<Self, Error> {
        let programs = programs().ok_or(Error::Missing)?;
        let user = User::to_become()?;
        let holder = tempfile::Builder::new().prefix("vmetal-pg-").tempdir().map_err(io("cannot make a directory"))?;
        if let Some(user) = &user {
            chown(holder.path(), Some(user.uid), Some(user.gid)).map_err(io("cannot give a directory away"))?;
        }
        // From here on the keeper removes it.
        let mut keeper = Keeper::start(holder.path(), &programs, user.as_ref())?;
        let dir = holder.keep();
        let port = match listen {
            Listen::Socket => None,
            Listen::Loopback => Some(free_port().map_err(io("no free port on 127.0.0.1"))?),
        };
        let make = ["-D", "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
        run(&programs, user.as_ref(), &dir, "initdb", &make)?;
        let config = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 200\n\
             shared_buffers = 32MB\n{settings}",
            if port.is_some() { "127.0.0.1" } else { "" },
            port.unwrap_or(5432),
            dir.display(),
        );
        let file = dir.join("data/postgresql.auto.conf");
        std::fs::write(&file, config).map_err(io(format!("cannot write {}", file.display())))?;
        keeper.order("start")?;
        let server = Self { programs, dir, port, keeper: Mutex::new(keeper), databases: AtomicU32::new(0) };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory with the socket, the data (`data`) and the log (`server.log`).
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port.unwrap_or(5432)))
    }

    /// The port on 127.0.0.1, if it listens there.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.keeper().server
    }

    /// Makes a new, empty database and returns the URL to reach it by.
    ///
    /// # Panics
    /// When the server is gone or refuses.
    pub fn database(&self) -> String {
        self.url(&self.new_database())
    }

    /// Makes a new, empty database and returns its name.
    ///
    /// # Panics
    /// When the server is gone or refuses.
    pub fn new_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let socket = self.dir.display().to_string();
        let port = self.port.unwrap_or(5432).to_string();
        let made =
            run(&self.programs, None, &self.dir, "createdb", &["-h", &socket, "-p", &port, "-U", USER, "-w", &name]);
        made.unwrap_or_else(|error| panic!("no database could be made: {}", whole(&error)));
        name
    }

    /// How to reach a database by the unix socket.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@/{database}?host={}&port={}", self.dir.display(), self.port.unwrap_or(5432))
    }

    /// Ends the server with `kill -9`, as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn crash(&self) -> Result<(), Error> {
        self.keeper().order("crash")
    }

    /// Ends the server as an operator would, cutting off its clients, and waits until it is gone.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn stop(&self) -> Result<(), Error> {
        self.keeper().order("stop")
    }

    /// Starts it again after [`Server::crash`] or [`Server::stop`], with the data it had.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self) -> Result<(), Error> {
        // The processes of a crashed server need a moment to notice; until then the new one refuses to start.
        let begin = Instant::now();
        loop {
            self.keeper().order("start")?;
            match self.wait_until_ready() {
                Err(_) if begin.elapsed() < START => std::thread::sleep(Duration::from_millis(100)),
                outcome => return outcome,
            }
        }
    }

    /// The server writes into its pid file how far it is.
    fn wait_until_ready(&self) -> Result<(), Error> {
        let (begin, pid) = (Instant::now(), self.pid());
        let (file, process) = (self.dir.join("data/postmaster.pid"), PathBuf::from(format!("/proc/{pid}")));
        loop {
            let state = std::fs::read_to_string(&file).unwrap_or_default();
            let ours = state.lines().next() == Some(pid.to_string().as_str());
            if ours && state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            let gone = !process.exists() || is_zombie(&process);
            if gone || begin.elapsed() > START {
                let said = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
                let outcome = if gone { "it ended" } else { "it is not ready in time" };
                return Err(Error::Failed { what: "postgres".into(), outcome: outcome.into(), said });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn is_zombie(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut keeper = self.keeper();
        keeper.orders = None;
        // Fails only when it has ended already.
        let _ = keeper.shell.wait();
    }
}

impl Keeper {
    fn start(dir: &Path, programs: &Path, user: Option<&User>) -> Result<Self, Error> {
        let mut shell = command(user, Path::new("setsid"))
            .args(["sh", "-c", include_str!("keeper.sh"), "keeper"])
            .args([dir, &programs.join("postgres")])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io("cannot start a shell (setsid, setpriv: Debian package util-linux)"))?;
        let (Some(orders), Some(answers)) = (shell.stdin.take(), shell.stdout.take()) else {
            return Err(io("the shell has no pipes")(std::io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self { shell, orders: Some(orders), answers: BufReader::new(answers), server: 0 })
    }

    fn order(&mut self, order: &str) -> Result<(), Error> {
        let gone = || Error::Io {
            what: format!("the keeper does not {order}"),
            source: std::io::ErrorKind::BrokenPipe.into(),
        };
        let orders = self.orders.as_mut().ok_or_else(gone)?;
        writeln!(orders, "{order}").map_err(io(format!("the keeper does not {order}")))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(io(format!("the keeper does not {order}")))?;
        let pid = answer.trim().strip_prefix(order).and_then(|pid| pid.trim().parse().ok());
        self.server = pid.ok_or_else(gone)?;
        Ok(())
    }
}

/// Who runs the server.
#[derive(Debug)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Whom to become; `None`: nobody, this is not root.
    fn to_become() -> Result<Option<Self>, Error> {
        let me = std::fs::metadata("/proc/self").map_err(io("cannot look at /proc/self"))?.uid();
        if me != 0 {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").map_err(io("cannot read /etc/passwd"))?;
        let find = |name: &str| {
            let mut fields =
                users.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?;
            Some(Self { uid: fields.nth(2)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        };
        find("postgres").or_else(|| find("nobody")).map(Some).ok_or(Error::NoUser)
    }
}

fn command(user: Option<&User>, program: &Path) -> Command {
    match user {
        None => Command::new(program),
        Some(User { uid, gid }) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--"]).arg(program);
            command
        }
    }
}

fn run(programs: &Path, user: Option<&User>, dir: &Path, name: &str, arguments: &[&str]) -> Result<(), Error> {
    let output = command(user, &programs.join(name)).args(arguments).current_dir(dir).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.map_err(io(format!("cannot run {name}")))?;
    if status.success() {
        return Ok(());
    }
    let said = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Err(Error::Failed { what: name.to_owned(), outcome: status.to_string(), said })
}

/// The directory with PostgreSQL's programs: the newest that Debian has, or one in PATH.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |entry: &std::fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
    let mut found: Vec<_> = versions.filter_map(|entry| Some((version(&entry)?, entry.path().join("bin")))).collect();
    found.sort();
    let newest = found.into_iter().rev().map(|(_, path)| path);
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let whole = |path: &PathBuf| ["initdb", "postgres", "createdb"].iter().all(|program| path.join(program).exists());
    newest.chain(std::env::split_paths(&in_path)).find(whole)
}
