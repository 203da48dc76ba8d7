//! Processors, from their topology in sysfs: the same on every architecture.

use std::collections::BTreeSet;

use vmetal_model::inventory::Cpu;

use super::Sysfs;

pub(super) fn read(sysfs: &Sysfs) -> Cpu {
    let mut sockets = BTreeSet::new();
    let mut cores = BTreeSet::new();
    let mut threads = 0;
    for (name, path) in sysfs.entries(&sysfs.path("sys/devices/system/cpu")) {
        let is_cpu = name.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok());
        // A processor that is switched off has no topology.
        let topology = path.join("topology");
        if !is_cpu || !topology.is_dir() {
            continue;
        }
        threads += 1;
        let id = |file: &str| sysfs.text(&topology.join(file)).unwrap_or_default();
        let socket = id("physical_package_id");
        cores.insert((socket.clone(), id("die_id"), id("core_id")));
        sockets.insert(socket);
    }
    let cpuinfo = sysfs.text(&sysfs.path("proc/cpuinfo")).unwrap_or_default();
    let model = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
        .unwrap_or_default();
    Cpu {
        architecture: std::env::consts::ARCH.to_owned(),
        model,
        sockets: sockets.len() as u32,
        cores: cores.len() as u32,
        threads,
    }
}
