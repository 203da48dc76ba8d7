//! The gateway against the lab's BMC: another author's reading of the standard.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::json;
use support::{alone, config, impatient, target};
use vmetal_bmc::{AddressGuard, BmcError, BmcTarget, Config, Gateways};
use vmetal_lab::config::{HostConfig, IfMatch, TlsMode};
use vmetal_lab::fault::{FaultAction, FaultSpec};
use vmetal_lab::journal::Record;
use vmetal_lab::sim::{self, SimBmc};
use vmetal_model::inventory::Identity;
use vmetal_model::{BootMode, Cause, PowerState, TlsTrust};

fn reach(bmc: &SimBmc, host: &HostConfig) -> BmcTarget {
    let scheme = if bmc.fingerprint().is_some() { "redfish" } else { "redfish+http" };
    let mut target = target(&format!("{scheme}://{}", bmc.address()));
    target.username = host.bmc.username.clone();
    target.password = host.bmc.password.clone();
    if let Some(fingerprint) = bmc.fingerprint() {
        target.tls = TlsTrust::Fingerprint(fingerprint.into());
    }
    target
}

#[tokio::test]
async fn a_host_is_identified_set_to_network_boot_and_switched() {
    let mut host = HostConfig::sim("node-a");
    host.bmc.if_match = IfMatch::Required;
    let bmc = sim::start(host.clone()).await.unwrap();
    let gateway = Gateways::new(config()).for_host(&reach(&bmc, &host), alone()).unwrap();
    let facts = gateway.probe().await.unwrap();
    assert_eq!(facts.power, PowerState::Off);
    assert_eq!(facts.certificate.as_deref(), bmc.fingerprint());
    assert!(facts.serial.is_some() && facts.uuid.is_some(), "{facts:?}");
    gateway.set_network_boot_once(BootMode::Uefi).await.unwrap();
    gateway.power_on().await.unwrap();
    gateway.power_on().await.unwrap();
    assert_eq!(gateway.power().await.unwrap(), PowerState::On);
    gateway.power_off().await.unwrap();
    gateway.power_off().await.unwrap();
    assert_eq!(bmc.resets(), ["On", "ForceOff"], "each change was made once");
    let inventory = gateway.inventory().await.unwrap();
    assert_eq!(inventory.memory_bytes, 8192 << 20);
    assert_eq!(inventory.disks[0].size_bytes, 64 << 30);
    assert_eq!(inventory.nics.len(), 1);
}

#[tokio::test]
async fn a_whole_registration_passes_without_waiting_for_its_pace() {
    let host = HostConfig::sim("node-p");
    let bmc = sim::start(host.clone()).await.unwrap();
    let gateway = Gateways::new(config()).for_host(&reach(&bmc, &host), alone()).unwrap();
    gateway.probe().await.unwrap();
    gateway.set_network_boot_once(BootMode::Uefi).await.unwrap();
    gateway.power_on().await.unwrap();
    gateway.power_off().await.unwrap();
    let requests = bmc.journal().into_iter().filter(|entry| matches!(entry.what, Record::Request { .. })).count();
    let burst = Config::new(AddressGuard::default()).burst;
    assert!(
        requests <= usize::try_from(burst).unwrap(),
        "{requests} requests, and {burst} may follow each other at once"
    );
}

#[tokio::test]
async fn a_bmc_is_restarted_and_its_server_goes_on() {
    let host = HostConfig::sim("node-r");
    let bmc = sim::start(host.clone()).await.unwrap();
    let gateway = Gateways::new(config()).for_host(&reach(&bmc, &host), alone()).unwrap();
    gateway.power_on().await.unwrap();
    gateway.reset_bmc().await.unwrap();
    let asked = bmc.journal().into_iter().filter_map(|entry| match entry.what {
        Record::Request { path, body, status, .. } if path.ends_with("Manager.Reset") => Some((body, status)),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [(json!({ "ResetType": "GracefulRestart" }), Some(204))]);
    assert_eq!(gateway.power().await.unwrap(), PowerState::On, "signed in again by itself, and the server still runs");
    assert_eq!(bmc.resets(), ["On"]);
}

#[tokio::test]
async fn another_machine_behind_the_bmc_is_not_touched() {
    let host = HostConfig::sim("node-w");
    let bmc = sim::start(host.clone()).await.unwrap();
    let gateway = Gateways::new(config()).for_host(&reach(&bmc, &host), alone()).unwrap();
    let facts = gateway.probe().await.unwrap();
    let known = Identity { serial: facts.serial.clone(), uuid: facts.uuid.clone(), ..Identity::default() };
    let gateway = gateway.expecting(known);
    gateway.power_on().await.unwrap();
    // The board is swapped, or another server was given the address.
    let other = json!({ "SerialNumber": "OTHER", "UUID": "00000000-0000-4000-8000-00000000beef" });
    bmc.faults().add(FaultSpec::always(FaultAction::Merge { json: other }).on("GET", "/redfish/v1/Systems/*")).unwrap();
    let before = bmc.journal().len();
    let errors = [
        gateway.power().await.map(drop).unwrap_err(),
        gateway.power_off().await.unwrap_err(),
        gateway.power_on().await.unwrap_err(),
        gateway.set_network_boot_once(BootMode::Uefi).await.unwrap_err(),
        gateway.reset_bmc().await.unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert_eq!(error.cause(), Cause::WrongMachine);
        assert!(text.contains("OTHER") && text.contains(facts.serial.as_deref().unwrap()), "{text}");
        assert!(error.advice().contains("unquarantine"));
    }
    assert_eq!(bmc.journal().len(), before, "nothing was changed");
    // A machine that is accepted again is the one that answers.
    let gateway = gateway.expecting(Identity::default());
    gateway.power_off().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_and_a_lying_bmc_are_told_apart() {
    let mut host = HostConfig::sim("node-b");
    host.bmc.tls = TlsMode::Off;
    let bmc = sim::start(host.clone()).await.unwrap();
    let gateways = Gateways::new(config());
    let mut wrong = reach(&bmc, &host);
    wrong.password = "wrong".into();
    assert!(matches!(
        gateways.for_host(&wrong, alone()).unwrap().probe().await.unwrap_err(),
        BmcError::Credentials { .. }
    ));
    let gateway = gateways.for_host(&reach(&bmc, &host), alone()).unwrap();
    gateway.probe().await.unwrap();
    bmc.faults().add(FaultSpec::always(FaultAction::Ignore)).unwrap();
    let error = gateway.set_network_boot_once(BootMode::Uefi).await.unwrap_err();
    assert!(matches!(error, BmcError::NotApplied { .. }), "{error:?}");
    let impatient = impatient().for_host(&reach(&bmc, &host), alone()).unwrap();
    let error = impatient.power_on().await.unwrap_err();
    assert!(matches!(error, BmcError::NotApplied { .. }), "{error:?}");
    bmc.faults().clear(None);
    bmc.faults().add(FaultSpec::always(FaultAction::Drop).times(1)).unwrap();
    assert!(matches!(gateway.power().await.unwrap_err(), BmcError::Unreachable { .. }));
    gateway.power_on().await.unwrap();
}

#[tokio::test]
async fn the_account_gets_another_password() {
    let host = HostConfig::sim("node-k");
    let bmc = sim::start(host.clone()).await.unwrap();
    let gateways = Gateways::new(config());
    let old = reach(&bmc, &host);
    let with = |password: &str, version: &str| {
        let (password, password_version) = (password.to_owned(), version.to_owned());
        gateways.for_host(&BmcTarget { password, password_version, ..old.clone() }, alone()).unwrap()
    };
    let gateway = gateways.for_host(&old, alone()).unwrap();
    let refused = gateway.change_password("short").await.unwrap_err();
    assert_eq!(refused.to_failure(jiff::Timestamp::UNIX_EPOCH).cause, Cause::BmcProtocol);
    assert!(!refused.to_string().contains("short"), "{refused}");
    gateway.sign_in().await.unwrap();

    gateway.change_password("another-password").await.unwrap();
    with("another-password", "2").sign_in().await.unwrap();
    let closed = with(&old.password, "3").sign_in().await.unwrap_err();
    assert!(matches!(closed, BmcError::Credentials { .. }), "{closed}");
    let journal = format!("{:?}", bmc.journal());
    assert!(journal.contains("ManagerAccount") || journal.contains("Accounts/1"), "{journal}");

    let stranger = BmcTarget { username: "somebody".to_owned(), ..old.clone() };
    let nobody = gateways.for_host(&stranger, alone()).unwrap().change_password("x").await.unwrap_err();
    assert!(matches!(nobody, BmcError::Credentials { .. }), "{nobody}");
}
