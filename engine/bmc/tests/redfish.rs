//! What the gateway asks and makes of the answers, against a scripted BMC.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::*;
use vmetal_bmc::BmcError;
use vmetal_model::{BootMode, Cause, PowerState, Timestamp};

#[tokio::test]
async fn a_probe_finds_the_only_system_and_reads_who_it_is() {
    let bmc = Fake::start(|seen| tree(seen, system("Off", json!({})))).await;
    let facts = gateways().for_host(&bmc.target(), alone()).unwrap().probe().await.unwrap();
    assert_eq!(facts.system_path, SYSTEM);
    assert_eq!(facts.manufacturer.as_deref(), Some("Acme"));
    assert_eq!((facts.serial.as_deref(), facts.uuid.as_deref()), (Some("S1"), Some("ab")));
    assert_eq!((facts.firmware.as_deref(), facts.redfish_version.as_deref()), (Some("7.10"), Some("1.17.0")));
    assert_eq!((facts.power, facts.certificate), (PowerState::Off, None));
    for seen in bmc.seen.lock().unwrap().iter() {
        let expected = (seen.path != "/redfish/v1/").then_some("Basic YWRtaW46c2VjcmV0");
        assert_eq!(seen.authorization.as_deref(), expected, "{}: the root needs no credentials", seen.path);
    }
}

#[tokio::test]
async fn several_systems_need_a_path_and_a_wrong_path_lists_them() {
    let bmc = Fake::start(|seen| match seen.path.as_str() {
        "/redfish/v1/" => json_reply(root()),
        "/redfish/v1/Systems" => json_reply(systems(&["/redfish/v1/Systems/a", "/redfish/v1/Systems/b"])),
        "/redfish/v1/Systems/b" => json_reply(system("On", json!({}))),
        _ => status(404, json!({})),
    })
    .await;
    let gateways = gateways();
    let error = gateways.for_host(&bmc.target(), alone()).unwrap().probe().await.unwrap_err();
    assert_eq!(error.cause(), Cause::BmcSystem);
    assert!(error.to_string().contains("2 systems (/redfish/v1/Systems/a, /redfish/v1/Systems/b)"), "{error}");
    assert!(error.advice().contains("/redfish/v1/Systems/a"));

    let with = |path: &str| target(&format!("{}{path}", bmc.target().address));
    let wrong = gateways.for_host(&with("/redfish/v1/Systems/z"), alone()).unwrap().power().await.unwrap_err();
    assert!(matches!(&wrong, BmcError::NoSuchSystem { available, .. } if available.len() == 2), "{wrong:?}");
    let right = gateways.for_host(&with("/redfish/v1/Systems/b"), alone()).unwrap();
    assert_eq!(right.power().await.unwrap(), PowerState::On);
    let mut remembered = bmc.target();
    remembered.system_path = Some("/redfish/v1/Systems/b".into());
    assert_eq!(gateways.for_host(&remembered, alone()).unwrap().power().await.unwrap(), PowerState::On);
}

#[tokio::test]
async fn a_system_that_was_found_is_looked_for_again_when_it_is_gone() {
    let bmc = Fake::start(|seen| tree(seen, system("On", json!({})))).await;
    let mut stale = bmc.target();
    stale.system_path = Some("/redfish/v1/Systems/before".into());
    let gateway = gateways().for_host(&stale, alone()).unwrap();
    assert_eq!(gateway.probe().await.unwrap().system_path, SYSTEM);
    let asked = bmc.count();
    gateway.power().await.unwrap();
    assert_eq!(bmc.count(), asked + 1, "it is remembered");
}

#[tokio::test]
async fn no_system_at_all_is_said_so() {
    let bmc = Fake::start(|seen| match seen.path.as_str() {
        "/redfish/v1/" => json_reply(root()),
        _ => json_reply(systems(&[])),
    })
    .await;
    let error = gateways().for_host(&bmc.target(), alone()).unwrap().power().await.unwrap_err();
    assert!(error.to_string().contains("has no system"), "{error}");
}

/// A system whose power follows resets after some readings.
fn powered(initial: &'static str, lag: usize) -> impl Fn(&Seen) -> Reply + Send + Sync {
    let state = Mutex::new((initial.to_owned(), None::<(String, usize)>));
    move |seen| {
        let mut state = state.lock().unwrap();
        if seen.path == RESET {
            let next = if seen.body["ResetType"] == "On" { "On" } else { "Off" };
            state.1 = Some((next.into(), lag));
            return empty(204);
        }
        if seen.path == SYSTEM
            && let Some((next, left)) = state.1.take()
        {
            match left {
                0 => state.0 = next,
                left => state.1 = Some((next, left - 1)),
            }
        }
        tree(seen, system(&state.0, json!({})))
    }
}

#[tokio::test]
async fn power_is_changed_only_if_needed_and_read_back() {
    let bmc = Fake::start(powered("On", 3)).await;
    let gateway = gateways().for_host(&bmc.target(), alone()).unwrap();
    gateway.power_on().await.unwrap();
    assert!(!bmc.requests().iter().any(|r| r.starts_with("POST")), "it was on");
    gateway.power_off().await.unwrap();
    assert_eq!(gateway.power().await.unwrap(), PowerState::Off);
    gateway.power_off().await.unwrap();
    gateway.power_on().await.unwrap();
    let resets: Vec<Value> =
        bmc.seen.lock().unwrap().iter().filter(|s| s.path == RESET).map(|s| s.body["ResetType"].clone()).collect();
    assert_eq!(resets, ["ForceOff", "On"], "the second power off had nothing to do");
}

#[tokio::test]
async fn a_bmc_that_says_done_and_does_nothing_is_found_out() {
    let bmc = Fake::start(powered("On", usize::MAX)).await;
    let error = impatient().for_host(&bmc.target(), alone()).unwrap().power_off().await.unwrap_err();
    assert!(
        matches!(&error, BmcError::NotApplied { setting, wanted, seen, .. }
        if setting == "power" && wanted == "Off" && seen.contains("On after")),
        "{error:?}"
    );
    assert_eq!(error.to_failure(Timestamp::UNIX_EPOCH).cause, Cause::BmcNotApplied);
}

#[tokio::test]
async fn a_refused_reset_counts_as_done_only_if_the_state_is_reached() {
    let off = Arc::new(AtomicBool::new(false));
    let becomes_off = Arc::new(AtomicBool::new(true));
    let script = {
        let (off, becomes_off) = (off.clone(), becomes_off.clone());
        move |seen: &Seen| {
            if seen.path == RESET {
                off.store(becomes_off.load(Ordering::SeqCst), Ordering::SeqCst);
                let info = json!([{"Message": "Already powering off", "MessageId": "X.1"}]);
                return status(409, json!({"error": {"@Message.ExtendedInfo": info}}));
            }
            tree(seen, system(if off.load(Ordering::SeqCst) { "Off" } else { "On" }, json!({})))
        }
    };
    let bmc = Fake::start(script).await;
    let gateway = gateways().for_host(&bmc.target(), alone()).unwrap();
    gateway.power_off().await.unwrap();
    off.store(false, Ordering::SeqCst);
    becomes_off.store(false, Ordering::SeqCst);
    let error = gateway.power_off().await.unwrap_err().to_string();
    assert!(error.contains("HTTP 409: Already powering off (X.1)"), "{error}");
}

#[tokio::test]
async fn a_missing_reset_type_is_named_and_not_sent() {
    let bmc = Fake::start(|seen| {
        let mut system = system("On", json!({}));
        system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"] = json!(["On", "Nmi"]);
        tree(seen, system)
    })
    .await;
    let error = gateways().for_host(&bmc.target(), alone()).unwrap().power_off().await.unwrap_err().to_string();
    assert!(error.contains("ForceOff") && error.contains("On, Nmi"), "{error}");
    assert!(!bmc.requests().iter().any(|r| r.starts_with("POST")));
}

/// A system that takes a boot override; `wants_match` demands the present ETag.
fn bootable(boot: Value, wants_match: bool, offers_etag: bool) -> impl Fn(&Seen) -> Reply + Send + Sync {
    let state = Mutex::new((boot, 0u32));
    move |seen| {
        let mut state = state.lock().unwrap();
        let etag = |version: u32| format!("\"{version}\"");
        if seen.method == "PATCH" {
            match &seen.if_match {
                None if wants_match => return status(428, json!({})),
                Some(given) if given != "*" && *given != etag(state.1) => return status(412, json!({})),
                _ => {}
            }
            for (member, value) in seen.body["Boot"].as_object().unwrap() {
                state.0[member] = value.clone();
            }
            state.1 += 1;
            return empty(204);
        }
        let version = state.1;
        let reply = tree(seen, system("Off", state.0.clone()));
        if seen.path == SYSTEM && offers_etag { reply.header("etag", &etag(version)) } else { reply }
    }
}

fn patches(bmc: &Fake) -> Vec<Seen> {
    bmc.seen.lock().unwrap().iter().filter(|s| s.method == "PATCH").cloned().collect()
}

#[tokio::test]
async fn network_boot_is_set_once_with_its_mode_and_an_etag() {
    let known = json!({"BootSourceOverrideMode": "Legacy", "BootSourceOverrideEnabled": "Disabled",
        "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd"]});
    let bmc = Fake::start(bootable(known, true, true)).await;
    let gateway = gateways().for_host(&bmc.target(), alone()).unwrap();
    gateway.set_network_boot_once(BootMode::Uefi).await.unwrap();
    let patches = patches(&bmc);
    assert_eq!(patches.len(), 1);
    assert_eq!(patches[0].if_match.as_deref(), Some("\"0\""));
    let boot = json!({"Boot": {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideMode": "UEFI"}});
    assert_eq!(patches[0].body, boot);
}

#[tokio::test]
async fn the_mode_is_left_out_where_the_system_has_none() {
    let bmc = Fake::start(bootable(json!({}), false, false)).await;
    gateways().for_host(&bmc.target(), alone()).unwrap().set_network_boot_once(BootMode::Bios).await.unwrap();
    let patches = patches(&bmc);
    assert_eq!((patches.len(), &patches[0].if_match), (1, &None));
    assert!(patches[0].body["Boot"].get("BootSourceOverrideMode").is_none());
}

#[tokio::test]
async fn a_bmc_that_wants_a_precondition_without_offering_one_gets_any() {
    let bmc = Fake::start(bootable(json!({}), true, false)).await;
    gateways().for_host(&bmc.target(), alone()).unwrap().set_network_boot_once(BootMode::Uefi).await.unwrap();
    let given: Vec<_> = patches(&bmc).into_iter().map(|p| p.if_match).collect();
    assert_eq!(given, [None, Some("*".to_owned())]);
}

#[tokio::test]
async fn a_lost_race_is_run_once_more_with_the_new_etag() {
    let inner = bootable(json!({}), true, true);
    let first = AtomicBool::new(true);
    let bmc = Fake::start(move |seen| {
        if seen.method == "PATCH" && first.swap(false, Ordering::SeqCst) {
            return status(412, json!({}));
        }
        inner(seen)
    })
    .await;
    gateways().for_host(&bmc.target(), alone()).unwrap().set_network_boot_once(BootMode::Uefi).await.unwrap();
    assert_eq!(patches(&bmc).len(), 2);
}

#[tokio::test]
async fn an_override_that_reads_back_different_is_an_error() {
    let cases = [
        (
            json!({"BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Disabled"}),
            "BootSourceOverrideTarget = Pxe",
        ),
        (
            json!({"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Continuous"}),
            "BootSourceOverrideEnabled = Once",
        ),
        (
            json!({"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "Legacy"}),
            "BootSourceOverrideMode = UEFI",
        ),
    ];
    for (boot, setting) in cases {
        let bmc =
            Fake::start(
                move |seen| {
                    if seen.method == "PATCH" { empty(200) } else { tree(seen, system("Off", boot.clone())) }
                },
            )
            .await;
        let error = gateways()
            .for_host(&bmc.target(), alone())
            .unwrap()
            .set_network_boot_once(BootMode::Uefi)
            .await
            .unwrap_err();
        assert!(matches!(error, BmcError::NotApplied { .. }), "{error:?}");
        assert!(error.to_string().contains(setting), "{error}");
    }
}

#[tokio::test]
async fn a_system_that_offers_no_network_boot_is_not_asked_for_it() {
    let boot = json!({"BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Hdd"]});
    let bmc = Fake::start(move |seen| tree(seen, system("Off", boot.clone()))).await;
    let error =
        gateways().for_host(&bmc.target(), alone()).unwrap().set_network_boot_once(BootMode::Uefi).await.unwrap_err();
    assert!(error.to_string().contains("None, Hdd"), "{error}");
    assert!(patches(&bmc).is_empty());
}

#[tokio::test]
async fn a_changing_call_runs_to_its_end_though_nobody_waits() {
    let bmc = Fake::start(|seen| {
        let reply = tree(seen, system("On", json!({})));
        if seen.path == RESET { empty(204) } else { reply.after(Duration::from_millis(30)) }
    })
    .await;
    let gateway = gateways().for_host(&bmc.target(), alone()).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(10), gateway.power_off()).await;
    assert!(waited.is_err(), "the caller gave up");
    for _ in 0..3_000 {
        if bmc.requests().iter().any(|r| r.starts_with("POST")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the reset was never sent: {:?}", bmc.requests());
}

#[tokio::test]
async fn one_change_and_two_reads_at_a_time_over_all_systems_of_a_bmc() {
    const TAKES: Duration = Duration::from_millis(20);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let script = {
        let changes = changes.clone();
        move |seen: &Seen| {
            if seen.method == "POST" {
                changes.lock().unwrap().push(tokio::time::Instant::now());
                return empty(204).after(TAKES);
            }
            match seen.path.as_str() {
                "/redfish/v1/" => json_reply(root()),
                path => json_reply(json!({"PowerState": "On", "Actions": {"#ComputerSystem.Reset": {"target": format!("{path}/Reset")}}})),
            }
            .after(TAKES)
        }
    };
    let bmc = Fake::start(script).await;
    let gateways = Arc::new(impatient());
    let origin = bmc.target().address.to_string();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..6 {
        let gateway = gateways.for_host(&target(&format!("{origin}/redfish/v1/Systems/{i}")), alone()).unwrap();
        tasks.spawn(async move {
            if i % 2 == 0 {
                let _ = gateway.power_off().await;
            } else {
                gateway.power().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let changes = changes.lock().unwrap();
    assert_eq!(changes.len(), 3);
    assert!(changes.windows(2).all(|pair| pair[1] - pair[0] >= TAKES), "two changes overlapped: {changes:?}");
    assert!(bmc.most_at_once.load(Ordering::SeqCst) <= 3, "two reads and one change");
}

#[tokio::test]
async fn the_inventory_follows_the_links_and_each_drive_once() {
    let bmc = Fake::start(|seen| {
        let link = |path: &str| json!({ "@odata.id": path });
        match seen.path.as_str() {
            SYSTEM => {
                let mut value = system("Off", json!({}));
                value["MemorySummary"] = json!({"TotalSystemMemoryGiB": 256});
                value["Processors"] = link("/p");
                value["EthernetInterfaces"] = link("/n");
                value["Storage"] = link("/s");
                json_reply(value)
            }
            "/p" => json_reply(json!({"Members": [link("/p/1")], "Members@odata.nextLink": "/p/more"})),
            "/p/more" => json_reply(systems(&["/p/2"])),
            "/p/1" | "/p/2" => json_reply(json!({"ProcessorType": "CPU", "TotalCores": 8, "TotalThreads": 16})),
            "/n" => json_reply(systems(&["/n/1"])),
            "/n/1" => {
                json_reply(json!({"Id": "1", "PermanentMACAddress": "52:54:00:00:00:01", "LinkStatus": "LinkUp"}))
            }
            "/s" => json_reply(systems(&["/s/1", "/s/2"])),
            "/s/1" | "/s/2" => json_reply(json!({"Drives": [link("/d/1")]})),
            "/d/1" => json_reply(json!({"Id": "d1", "CapacityBytes": 1000, "Protocol": "SATA"})),
            _ => tree(seen, Value::Null),
        }
    })
    .await;
    let inventory = gateways().for_host(&bmc.target(), alone()).unwrap().inventory().await.unwrap();
    assert_eq!((inventory.cpu.sockets, inventory.cpu.threads), (2, 32));
    assert_eq!(inventory.memory_bytes, 256 << 30);
    assert_eq!((inventory.disks.len(), inventory.disks[0].size_bytes), (1, 1000));
    assert!(inventory.nics[0].link_up);
    assert_eq!(bmc.requests().iter().filter(|r| r.ends_with("/d/1")).count(), 1);
}

/// Only a plain no is one: a BMC that fails after it took the new password must not be signed in to with the old one for ever.
#[tokio::test]
async fn a_new_password_is_refused_by_a_no_and_left_open_by_everything_else() {
    for (code, cause) in [(400, Cause::BmcProtocol), (500, Cause::BmcUnreachable), (302, Cause::BmcUnreachable)] {
        let bmc = Fake::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/redfish/v1/") => {
                let mut root = root();
                root["AccountService"] = json!({ "@odata.id": "/redfish/v1/AccountService" });
                json_reply(root)
            }
            ("GET", "/redfish/v1/AccountService") => {
                json_reply(json!({ "Accounts": { "@odata.id": "/redfish/v1/AccountService/Accounts" } }))
            }
            ("GET", "/redfish/v1/AccountService/Accounts") => {
                json_reply(systems(&["/redfish/v1/AccountService/Accounts/1"]))
            }
            ("GET", "/redfish/v1/AccountService/Accounts/1") => json_reply(json!({ "UserName": "admin" })),
            ("PATCH", "/redfish/v1/AccountService/Accounts/1") => {
                status(code, json!({ "error": { "message": "cannot take a-new-password" } }))
            }
            _ => tree(seen, system("Off", json!({}))),
        })
        .await;
        let gateway = gateways().for_host(&bmc.target(), alone()).unwrap();
        let error = gateway.change_password("a-new-password").await.unwrap_err();
        assert_eq!(error.cause(), cause, "{code}: {error}");
        assert!(!error.to_string().contains("a-new-password"), "{error}");
        assert!(bmc.seen.lock().unwrap().iter().any(|seen| seen.method == "PATCH"), "{code}: nothing was asked");
    }
}
