#![allow(clippy::unwrap_used, reason = "tests")]

use super::validate::is_uuid;
use super::*;

fn parse(text: &str) -> Result<LabConfig, String> {
    let config: LabConfig = toml::from_str(text).map_err(|e| e.to_string())?;
    config.validate().map_err(|e| e.to_string())?;
    Ok(config)
}

const ONE: &str = r#"
[network]
bridge = "172.22.0.1/24"
[[hosts]]
name = "a"
disks = [{ size_gib = 4, bus = "nvme", serial = "D1" }]
bmc = { listen = "127.77.0.11:8443", password = "x" }
"#;

#[test]
fn defaults_are_filled_and_stable() {
    let config = parse(ONE).unwrap();
    let host = &config.hosts[0];
    assert_eq!(host.backend, BackendKind::Qemu);
    assert_eq!(host.firmware, Firmware::Uefi);
    assert_eq!(host.bmc.username, "admin");
    assert_eq!(host.boot_mac(), parse(ONE).unwrap().hosts[0].boot_mac());
    assert_eq!(host.boot_mac().0[..3], [0x52, 0x54, 0]);
    assert!(is_uuid(&host.system_uuid()), "{}", host.system_uuid());
    assert_ne!(HostConfig::sim("x").serial(), HostConfig::sim("y").serial());
    assert!(host.disk_serial(0) == "D1" && HostConfig::sim("x").disk_serial(0).len() <= 20);
}

#[test]
fn wrong_labs_are_refused_with_the_reason() {
    let cases = [
        ("bridge = \"172.22.0.1/24\"", "bridge = \"172.22.0.0/24\"", "network or broadcast"),
        ("bridge = \"172.22.0.1/24\"", "bridge = \"172.22.0.1/31\"", "8 to 30"),
        ("127.77.0.11:8443", "10.0.0.1:8443", "not a loopback"),
        ("name = \"a\"", "name = \"A_\"", "lower-case"),
        ("name = \"a\"", "name = \"a\"\nmac = \"53:54:00:00:00:01\"", "group or null"),
        ("name = \"a\"", "name = \"a\"\nuuid = \"nope\"", "not a UUID"),
        ("name = \"a\"", "name = \"a\"\ncolour = \"red\"", "colour"),
        ("serial = \"D1\"", "serial = \"D 1\"", "disk serial"),
        ("size_gib = 4", "size_gib = 0", "no size"),
        ("[network]\nbridge = \"172.22.0.1/24\"", "", "needs a [network]"),
    ];
    for (from, to, expected) in cases {
        let text = ONE.replace(from, to);
        assert_ne!(text, ONE, "the case {to:?} changes nothing");
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{to:?} gave {error:?}, expected {expected:?}");
    }
}

#[test]
fn duplicates_name_the_host() {
    let second = ONE[ONE.find("[[hosts]]").unwrap()..].replace("name = \"a\"", "name = \"b\"");
    let error = parse(&format!("{ONE}{second}")).unwrap_err();
    assert!(error.contains("host b") && error.contains("127.77.0.11:8443"), "{error}");
}

#[test]
fn forwards_stay_between_the_bridge_and_loopback() {
    let with = |listen: &str, to: &str| parse(&format!("{ONE}[[forwards]]\nlisten = \"{listen}\"\nto = \"{to}\"\n"));
    assert!(with("172.22.0.1:6443", "127.0.0.1:6443").is_ok());
    assert!(with("172.22.0.9:6443", "127.0.0.1:6443").unwrap_err().contains("bridge address"));
    assert!(with("172.22.0.1:6443", "192.0.2.1:6443").unwrap_err().contains("loopback"));
}

#[test]
fn the_shipped_example_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/lab/quickstart.toml");
    let config = LabConfig::load(std::path::Path::new(path)).unwrap();
    assert_eq!(config.hosts.len(), 2);
}
