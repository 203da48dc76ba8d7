//! The engine as a process, where the machine around it fails.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which wait for a real process")]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends with the test, however the test ends.
struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come about within ten minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The disk that the log goes to is full: nothing is logged, and everything else goes on.
#[test]
fn a_full_disk_under_the_log_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // On an address that no outgoing connection has, so that none takes the port before the engine does.
    let address = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    let config = directory.path().join("vmetald.toml");
    let content = format!(
        "state_dir = {:?}\n[api]\nlisten = \"{address}\"\n[network]\nrange_start = \"172.22.0.10\"\nrange_end = \
         \"172.22.0.20\"\nurl = \"http://172.22.0.1\"\n",
        directory.path().join("state"),
    );
    std::fs::write(&config, content).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_vmetald"), "--config"]).arg(&config).stderr(full);
    let mut engine = Engine(command.spawn().unwrap());
    until("its API", || {
        assert_eq!(engine.0.try_wait().unwrap(), None, "it ended");
        TcpStream::connect(address).ok()
    });
    kill(Pid::from_raw(engine.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let status: ExitStatus = until("its end", || engine.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}
