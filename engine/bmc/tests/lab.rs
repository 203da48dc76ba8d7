//! The gateway against the lab's BMC: another author's reading of the standard.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{alone, config, target};
use vmetal_bmc::{BmcError, BmcTarget, Gateways};
use vmetal_lab::config::{HostConfig, IfMatch, TlsMode};
use vmetal_lab::fault::{FaultAction, FaultSpec};
use vmetal_lab::sim::{self, SimBmc};
use vmetal_model::{BootMode, PowerState, TlsTrust};

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
    let error = gateway.power_on().await.unwrap_err();
    assert!(matches!(error, BmcError::NotApplied { .. }), "{error:?}");
    bmc.faults().clear(None);
    bmc.faults().add(FaultSpec::always(FaultAction::Drop).times(1)).unwrap();
    assert!(matches!(gateway.power().await.unwrap_err(), BmcError::Unreachable { .. }));
    gateway.power_on().await.unwrap();
}
