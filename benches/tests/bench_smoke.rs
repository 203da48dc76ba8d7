//! A small fleet through everything that `make bench NAME=fleet` does, so that it is known to work before anybody needs it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

/// What the bench promises to say.
const ROWS: [&str; 12] = [
    "engine_idle_mib",
    "fleet_1000_hosts_per_min",
    "fleet_13500_minutes",
    "fleet_rate_13500_over_1000",
    "fleet_end_state_fraction",
    "engine_kib_per_host",
    "claim_p50_ms",
    "claim_p99_ms",
    "release_p50_ms",
    "release_p99_ms",
    "fleet_13500_with_delays_minutes",
    "healthy_p99_rise_pct",
];

#[test]
fn a_small_fleet_is_registered_claimed_released_and_every_figure_is_there() {
    let bench = Path::new(env!("CARGO_BIN_EXE_vmetal-bench"));
    let vmetald = bench.with_file_name("vmetald");
    assert!(vmetald.is_file(), "{} is missing: run `make build`", vmetald.display());
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(bench)
        .args(["fleet", "--quick", "--out"])
        .arg(out.path())
        .arg("--vmetald")
        .arg(vmetald)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(out.path().join("fleet.json")).unwrap()).unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("there is no {name}"));
    for name in ROWS {
        let ours = row(name)["ours"].as_f64().unwrap();
        assert!(name == "healthy_p99_rise_pct" || ours > 0.0, "{name} is {ours}");
    }
    assert_eq!(row("fleet_end_state_fraction")["ours"], 1.0);
    let left: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["fleet.json"], "state was left behind");
}
