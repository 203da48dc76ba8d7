//! Small versions of what `make bench` does, so that it is known to work before anybody needs it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What the fleet bench promises to say.
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

/// Runs a small version of one bench; its rows.
fn quick(bench: &str, more: &[&str]) -> Vec<Value> {
    let program = Path::new(env!("CARGO_BIN_EXE_vmetal-bench"));
    let vmetald = program.with_file_name("vmetald");
    assert!(vmetald.is_file(), "{} is missing: run `make build`", vmetald.display());
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .args([bench, "--quick", "--out"])
        .arg(out.path())
        .arg("--vmetald")
        .arg(vmetald)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = format!("{bench}.json");
    let left: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [file.as_str()], "state was left behind");
    serde_json::from_slice(&std::fs::read(out.path().join(file)).unwrap()).unwrap()
}

#[test]
fn a_small_fleet_is_registered_claimed_released_and_every_figure_is_there() {
    let rows = quick("fleet", &[]);
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("there is no {name}"));
    for name in ROWS {
        let ours = row(name)["ours"].as_f64().unwrap();
        assert!(name == "healthy_p99_rise_pct" || ours > 0.0, "{name} is {ours}");
    }
    assert_eq!(row("fleet_end_state_fraction")["ours"], 1.0);
}

#[test]
fn a_few_hosts_cost_the_provider_something_and_every_figure_is_there() {
    let rows = quick("provider", &[]);
    for name in [
        "handshake_ms",
        "rss_mib",
        "apply_1000_over_terraform_data",
        "plan_1000_over_terraform_data",
        "refresh_1000_over_terraform_data",
        "apply_1000_over_echo",
        "plan_1000_over_echo",
        "refresh_1000_over_echo",
        "echo_apply_1000_over_terraform_data",
        "echo_plan_1000_over_terraform_data",
        "echo_refresh_1000_over_terraform_data",
    ] {
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("there is no {name}"));
        assert!(row["ours"].as_f64().unwrap() > 0.0, "{row}");
    }
}

/// The peer is installed from PyPI, which tests do without: its side is left out.
#[test]
fn our_side_of_the_run_beside_ironic_reaches_the_pool() {
    let rows = quick("ironic", &["--without-peers"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["name"], "enroll_200_seconds");
    assert!(rows[0]["ours"].as_f64().unwrap() > 0.0);
    assert!(rows[0]["peer"].is_null() && rows[0]["ratio"].is_null());
}

/// The peers are built for WebAssembly, which costs more than the rest: their side is left out.
#[test]
fn a_few_decisions_and_claims_are_made_and_every_figure_is_there() {
    let policies = Path::new(env!("CARGO_BIN_EXE_vmetal-bench")).with_file_name("../artifacts/policies");
    assert!(policies.join("place-balanced.wasm").is_file(), "the components are missing: run `make policies`");
    let rows = quick("policy", &["--without-peers", "--policies", policies.to_str().unwrap()]);
    for name in [
        "place_10k_mixed_over_native",
        "place_10k_uniform_over_native",
        "decisions_per_s_core",
        "instantiate_us",
        "columns_update_us",
        "columns_rebuild_10k_ms",
        "claims_per_s_daemon",
        "claim_decision_p99_ms",
    ] {
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("there is no {name}"));
        assert!(row["ours"].as_f64().unwrap() > 0.0, "{row}");
    }
}
