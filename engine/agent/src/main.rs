//! The installer's binary. As process 1 it takes the machine over; otherwise it only shows what it would report.

use std::process::ExitCode;

use vmetal_agent::init;
use vmetal_agent::inventory::{self, Sysfs};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    match std::env::args().nth(1).as_deref() {
        Some("inventory") => match serde_json::to_string_pretty(&inventory::read(&Sysfs::system(), None)) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("cannot print the inventory: {error}");
                ExitCode::FAILURE
            }
        },
        Some("--version") => {
            println!("vmetal-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("vmetal-agent is the /init of the installer's initramfs. Elsewhere it knows two commands:");
            eprintln!("  vmetal-agent inventory    print this machine's inventory as JSON; changes nothing");
            eprintln!("  vmetal-agent --version");
            ExitCode::from(2)
        }
    }
}
