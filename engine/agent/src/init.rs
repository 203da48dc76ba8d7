//! Process 1: takes a machine that has nothing but a kernel to the point where it can work, and never ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic::{self, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{dup2_stderr, dup2_stdout};

use crate::cmdline::Cmdline;
use crate::console::say;
use crate::engine::{Engine, Pace};
use crate::error::chain;
use crate::inventory::{self, Sysfs};
use crate::net;
use crate::sys;
use crate::work::{self, Farewell, Machine};

/// The kernel modules to load, one path per line, in order.
const MODULES: &str = "/etc/vmetal/modules";

/// Between two tries of something that a person must see to.
const PAUSE: Duration = Duration::from_secs(10);

/// Takes the machine over.
pub fn run() -> ! {
    mount_all();
    take_console();
    panic::set_hook(Box::new(|info| say(&format!("FAULT: {info}"))));
    say(concat!("version ", env!("CARGO_PKG_VERSION"), " has the machine"));
    loop {
        match catch_unwind(live) {
            Ok(farewell) => depart(farewell),
            // The hook has told it. Process 1 must not end, so everything starts over.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn live() -> Farewell {
    load_modules(Path::new(MODULES));
    // Firmware variables need a module on some kernels.
    if Path::new("/sys/firmware/efi/efivars").is_dir() {
        mount_one("efivarfs", "/sys/firmware/efi/efivars");
    }
    let sysfs = Sysfs::system();
    // Beside the network, so that it costs no time of its own.
    let settling = {
        let sysfs = sysfs.clone();
        thread::spawn(move || inventory::settle(&sysfs))
    };
    let cmdline = loop {
        let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        match Cmdline::parse(&text) {
            Ok(cmdline) => break cmdline,
            Err(error) => {
                say(&format!("cannot work: {error}"));
                thread::sleep(PAUSE);
            }
        }
    };
    say(&format!("booted for {cmdline:?}"));
    let lease = loop {
        match net::bring_up(&sysfs, cmdline.mac) {
            Ok(lease) => break lease,
            Err(error) => {
                say(&format!("no network: {}; trying again", chain(&error)));
                thread::sleep(Duration::from_secs(1));
            }
        }
    };
    say(&format!("address {}/{} from {}", lease.address, lease.prefix, lease.server));
    let engine = Engine::new(&cmdline.url, &cmdline.token, Pace::default());
    let machine = Machine {
        sysfs,
        dev: PathBuf::from("/dev"),
        boot_mac: cmdline.mac,
        attempt: cmdline.attempt,
        settling: Mutex::new(Some(settling)),
    };
    say(&format!("calling {}", cmdline.url));
    work::run(&engine, &machine)
}

fn depart(farewell: Farewell) {
    nix::unistd::sync();
    let (mode, what) = match farewell {
        Farewell::Reboot => (RebootMode::RB_AUTOBOOT, "restarting"),
        Farewell::PowerOff => (RebootMode::RB_POWER_OFF, "powering off"),
    };
    say(what);
    // The call returns only when it fails.
    let Err(error) = reboot(mode);
    say(&format!("{what} failed: {error}"));
    thread::sleep(PAUSE);
}

fn mount_all() {
    mount_one("proc", "/proc");
    mount_one("sysfs", "/sys");
    mount_one("devtmpfs", "/dev");
    mount_one("tmpfs", "/run");
}

fn mount_one(kind: &str, target: &str) {
    // The initramfs may lack the directory; below /sys the kernel has it.
    let _ = fs::create_dir_all(target);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    match mount(Some(kind), target, Some(kind), flags, None::<&str>) {
        Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
        Err(error) => say(&format!("cannot mount {kind} on {target}: {error}")),
    }
}

/// Without a node `/dev/console` in the initramfs the kernel starts process 1 with nothing open; now there is one.
fn take_console() {
    for path in ["/dev/console", "/dev/ttyS0", "/dev/tty0"] {
        if let Ok(console) = OpenOptions::new().read(true).write(true).open(path) {
            let _ = dup2_stdout(&console);
            let _ = dup2_stderr(&console);
            return;
        }
    }
}

fn load_modules(list: &Path) {
    let Ok(text) = fs::read_to_string(list) else { return };
    let mut loaded = 0;
    for path in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match File::open(path).and_then(|file| sys::load_module(&file)) {
            Ok(()) => loaded += 1,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => loaded += 1,
            // The hardware, or EFI, is not there; the others may be.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => say(&format!("cannot load {path}: {error}")),
        }
    }
    say(&format!("{loaded} kernel modules loaded"));
}
