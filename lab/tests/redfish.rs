//! The front end as a client sees it: authentication, one-shot boot, resets, errors, faults.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which measure real time")]

use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vmetal_lab::config::{BootDevice, HostConfig, IfMatch, TlsMode};
use vmetal_lab::fault::{FaultAction, FaultSpec};
use vmetal_lab::journal::Record;
use vmetal_lab::sim::{self, SimBmc};

const SYSTEM: &str = "/redfish/v1/Systems/1";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

struct Client {
    bmc: SimBmc,
    http: reqwest::Client,
}

impl Client {
    async fn with(config: HostConfig) -> Self {
        // Fails when another test of this process was first, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).tls_info(true);
        let http = http.timeout(Duration::from_secs(20)).build().unwrap();
        Self { bmc: sim::start(config).await.unwrap(), http }
    }

    async fn new() -> Self {
        Self::with(HostConfig::sim("node-a")).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.bmc.base_url())).basic_auth("admin", Some("password"))
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn patch(&self, body: Value) -> Response {
        self.request(Method::PATCH, SYSTEM).json(&body).send().await.unwrap()
    }

    async fn reset(&self, kind: &str) -> Response {
        self.request(Method::POST, RESET).json(&json!({"ResetType": kind})).send().await.unwrap()
    }

    async fn override_once(&self, target: &str) -> StatusCode {
        let boot = json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target});
        self.patch(json!({"Boot": boot})).await.status()
    }

    fn first_boot_devices(&self) -> Vec<BootDevice> {
        let entries = self.bmc.journal().into_iter();
        let boots = entries.filter_map(|e| match e.what {
            Record::Boot { order, .. } => Some(order[0]),
            _ => None,
        });
        boots.collect()
    }
}

/// Checks the shape of DSP0266 and returns the message id without registry and version.
async fn error_id(response: Response) -> String {
    let body: Value = response.json().await.unwrap();
    let error = &body["error"];
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
    let info = &error["@Message.ExtendedInfo"][0];
    for property in ["MessageId", "Message", "MessageSeverity", "Resolution"] {
        assert!(info[property].as_str().is_some_and(|m| !m.is_empty()), "{property} in {body}");
    }
    assert!(info["MessageArgs"].is_array(), "{body}");
    assert_eq!(error["code"], info["MessageId"]);
    error["code"].as_str().unwrap().rsplit('.').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_service_root_is_open_and_the_rest_is_not() {
    let client = Client::new().await;
    let open = |path: &str| client.http.get(format!("{}{path}", client.bmc.base_url())).send();
    assert_eq!(open("/redfish").await.unwrap().status(), StatusCode::OK);
    let root = open("/redfish/v1/").await.unwrap();
    assert_eq!(root.headers()["odata-version"], "4.0");
    assert_eq!(root.json::<Value>().await.unwrap()["RedfishVersion"], "1.20.0");
    for path in [SYSTEM, "/redfish/v1/Systems", "/redfish/v1/nothing"] {
        let refused = open(path).await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.headers().contains_key("www-authenticate"));
        assert_eq!(error_id(refused).await, "NoValidSession");
    }
    let wrong = client.http.get(format!("{}{SYSTEM}", client.bmc.base_url())).basic_auth("admin", Some("no"));
    assert_eq!(wrong.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_fingerprint_is_that_of_the_certificate_served() {
    let client = Client::new().await;
    let response = client.request(Method::GET, SYSTEM).send().await.unwrap();
    let tls = response.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    let served = hex::encode(Sha256::digest(tls.peer_certificate().unwrap()));
    assert_eq!(client.bmc.fingerprint(), Some(served.as_str()));
}

#[tokio::test]
async fn plain_http_when_tls_is_off() {
    let mut config = HostConfig::sim("node-a");
    config.bmc.tls = TlsMode::Off;
    let client = Client::with(config).await;
    assert!(client.bmc.base_url().starts_with("http://"));
    assert_eq!(client.bmc.fingerprint(), None);
    assert_eq!(client.get(SYSTEM).await["PowerState"], "Off");
}

#[tokio::test]
async fn sessions_open_work_and_end() {
    let client = Client::new().await;
    let sessions = format!("{}/redfish/v1/SessionService/Sessions", client.bmc.base_url());
    let create =
        |password: &str| client.http.post(&sessions).json(&json!({"UserName": "admin", "Password": password})).send();
    assert_eq!(create("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let created = create("password").await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    let token = created.headers()["x-auth-token"].to_str().unwrap().to_owned();
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    let with_token = |method: Method, path: &str| {
        let url = format!("{}{path}", client.bmc.base_url());
        client.http.request(method, url).header("X-Auth-Token", &token).send()
    };
    assert_eq!(with_token(Method::GET, SYSTEM).await.unwrap().status(), StatusCode::OK);
    assert_eq!(with_token(Method::DELETE, &location).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(with_token(Method::GET, SYSTEM).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let journal = serde_json::to_string(&client.bmc.journal()).unwrap();
    assert!(journal.contains("Sessions") && !journal.contains("\"password\""), "{journal}");
}

#[tokio::test]
async fn every_link_leads_to_a_resource_that_names_itself() {
    let client = Client::new().await;
    let mut queue = vec!["/redfish/v1/".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = queue.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let body = client.get(&path).await;
        assert_eq!(body["@odata.id"], path.as_str());
        let mut stack = vec![&body];
        while let Some(value) = stack.pop() {
            match value {
                Value::Object(map) => {
                    queue.extend(map.get("@odata.id").and_then(Value::as_str).map(str::to_owned));
                    stack.extend(map.values());
                }
                Value::Array(items) => stack.extend(items),
                _ => {}
            }
        }
    }
    for expected in ["Drives/1", "EthernetInterfaces/1", "Processors/CPU1", "Memory/DIMM1", "Managers/1", "Chassis/1"] {
        assert!(seen.iter().any(|p| p.ends_with(expected)), "{expected} not in {seen:?}");
    }
}

#[tokio::test]
async fn inventory_is_what_the_configuration_says() {
    let config = HostConfig::sim("node-a");
    let client = Client::with(config.clone()).await;
    let system = client.get(SYSTEM).await;
    assert_eq!(system["SerialNumber"], config.serial());
    assert_eq!(system["UUID"], config.system_uuid());
    assert_eq!(system["MemorySummary"]["TotalSystemMemoryGiB"], 8.0);
    assert_eq!(system["Boot"]["BootSourceOverrideMode"], "UEFI");
    let drive = client.get("/redfish/v1/Systems/1/Storage/1/Drives/1").await;
    assert_eq!(drive["CapacityBytes"], 64_u64 << 30);
    assert_eq!(drive["SerialNumber"], config.disk_serial(0));
    let nic = client.get("/redfish/v1/Systems/1/EthernetInterfaces/1").await;
    assert_eq!(nic["MACAddress"], config.boot_mac().to_string());
}

#[tokio::test]
async fn once_is_consumed_and_reads_back_disabled() {
    let client = Client::new().await;
    assert_eq!(client.override_once("Pxe").await, StatusCode::OK);
    let boot = client.get(SYSTEM).await["Boot"].clone();
    assert_eq!(
        (&boot["BootSourceOverrideEnabled"], &boot["BootSourceOverrideTarget"]),
        (&json!("Once"), &json!("Pxe"))
    );
    assert_eq!(client.reset("On").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(client.get(SYSTEM).await["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    client.bmc.machine().guest_reset().await;
    assert_eq!(client.first_boot_devices(), [BootDevice::Pxe, BootDevice::Disk]);
}

#[tokio::test]
async fn continuous_stays_until_disabled() {
    let client = Client::new().await;
    let boot = json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Pxe"});
    client.patch(json!({"Boot": boot})).await;
    client.reset("On").await;
    client.reset("ForceRestart").await;
    assert_eq!(client.get(SYSTEM).await["Boot"]["BootSourceOverrideEnabled"], "Continuous");
    client.patch(json!({"Boot": {"BootSourceOverrideTarget": "None"}})).await;
    assert_eq!(client.get(SYSTEM).await["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    client.reset("PowerCycle").await;
    assert_eq!(client.first_boot_devices(), [BootDevice::Pxe, BootDevice::Pxe, BootDevice::Disk]);
}

#[tokio::test]
async fn resets_that_cannot_be_are_409_and_change_nothing() {
    let client = Client::new().await;
    for kind in ["ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"] {
        let response = client.reset(kind).await;
        assert_eq!(response.status(), StatusCode::CONFLICT, "{kind}");
        assert_eq!(error_id(response).await, "ResourceInUse");
    }
    client.reset("On").await;
    assert_eq!(client.reset("On").await.status(), StatusCode::CONFLICT);
    assert_eq!(client.reset("GracefulShutdown").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(client.get(SYSTEM).await["PowerState"], "Off");
    assert_eq!(client.bmc.resets(), ["On", "GracefulShutdown"]);
    let seqs: Vec<u64> = client.bmc.journal().iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn mistakes_are_named() {
    let client = Client::new().await;
    let post = |body: &'static str| client.request(Method::POST, RESET).body(body).send();
    for (body, expected) in [
        ("{\"ResetType\":\"Nmi\"}", "ActionParameterValueNotInList"),
        ("{}", "ActionParameterMissing"),
        ("{\"ResetType\":\"On\",\"Delay\":1}", "ActionParameterUnknown"),
        ("{\"ResetType\":1}", "PropertyValueTypeError"),
        ("[1", "MalformedJSON"),
    ] {
        let response = post(body).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(error_id(response).await, expected, "{body}");
    }
    for (body, expected) in [
        (json!({"PowerState": "On"}), "PropertyNotWritable"),
        (json!({"Colour": "red"}), "PropertyUnknown"),
        (json!({"Boot": {"BootSourceOverrideTarget": "Floppy"}}), "PropertyValueNotInList"),
        (json!({"Boot": {"BootSourceOverrideMode": "Legacy"}}), "PropertyValueNotInList"),
        (json!({"Boot": {"BootSourceOverrideEnabled": 1}}), "PropertyValueTypeError"),
        (json!({"AssetTag": "kept?", "Boot": {"Nope": 1}}), "PropertyUnknown"),
        (json!({}), "EmptyJSON"),
    ] {
        let response = client.patch(body.clone()).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(error_id(response).await, expected, "{body}");
    }
    assert_eq!(client.get(SYSTEM).await["AssetTag"], "", "a refused PATCH must change nothing");
    assert!(client.bmc.resets().is_empty());

    let missing = client.request(Method::GET, "/redfish/v1/Systems/2").send().await.unwrap();
    assert_eq!((missing.status(), error_id(missing).await.as_str()), (StatusCode::NOT_FOUND, "ResourceNotFound"));
    let delete = client.request(Method::DELETE, SYSTEM).send().await.unwrap();
    assert_eq!(delete.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(delete.headers()["allow"], "GET, HEAD, PATCH");
    let expand = client.request(Method::GET, "/redfish/v1/Systems?$expand=.").send().await.unwrap();
    assert_eq!(expand.status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn etags_guard_changes() {
    let mut config = HostConfig::sim("node-a");
    config.bmc.if_match = IfMatch::Required;
    let client = Client::with(config).await;
    let body = json!({"AssetTag": "rack 7"});
    let patch = |etag: Option<String>| {
        let request = client.request(Method::PATCH, SYSTEM).json(&body);
        let request = etag.into_iter().fold(request, |r, etag| r.header("If-Match", etag));
        async { request.send().await.unwrap().status() }
    };
    let read = client.request(Method::GET, SYSTEM).send().await.unwrap();
    let etag = read.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(read.json::<Value>().await.unwrap()["@odata.etag"], etag.as_str());
    assert_eq!(patch(None).await, StatusCode::PRECONDITION_REQUIRED);
    assert_eq!(patch(Some(etag.clone())).await, StatusCode::OK);
    assert_eq!(patch(Some(etag)).await, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn faults_busy_then_well() {
    let client = Client::new().await;
    let busy = FaultAction::Status { code: 503, retry_after_s: Some(3) };
    client.bmc.faults().add(FaultSpec::always(busy).on("GET", "/redfish/v1/Systems/*").times(1)).unwrap();
    let response = client.request(Method::GET, SYSTEM).send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"3".parse().unwrap())
    );
    assert_eq!(error_id(response).await, "ServiceTemporarilyUnavailable");
    assert_eq!(client.get(SYSTEM).await["PowerState"], "Off");
}

#[tokio::test]
async fn faults_refused_password_for_a_while() {
    let client = Client::new().await;
    client
        .bmc
        .faults()
        .add(FaultSpec::always(FaultAction::Status { code: 401, retry_after_s: None }).times(2))
        .unwrap();
    for expected in [401, 401, 200] {
        assert_eq!(client.request(Method::GET, SYSTEM).send().await.unwrap().status(), expected);
    }
}

#[tokio::test]
async fn faults_lying_power_state() {
    let client = Client::new().await;
    let lie = FaultAction::Merge { json: json!({"PowerState": "On"}) };
    client.bmc.faults().add(FaultSpec::always(lie).on("GET", SYSTEM)).unwrap();
    assert_eq!(client.get(SYSTEM).await["PowerState"], "On");
    assert_eq!(client.bmc.faults().clear(None), 1);
    assert_eq!(client.get(SYSTEM).await["PowerState"], "Off");
}

#[tokio::test]
async fn faults_ignored_changes() {
    let client = Client::new().await;
    let faults = client.bmc.faults();
    let id = faults.add(FaultSpec::always(FaultAction::Ignore).times(2)).unwrap();
    assert_eq!(client.override_once("Pxe").await, StatusCode::NO_CONTENT);
    assert_eq!(client.get(SYSTEM).await["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    assert_eq!(client.reset("On").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(client.get(SYSTEM).await["PowerState"], "Off");
    let ignored = client
        .bmc
        .journal()
        .into_iter()
        .filter(|e| matches!(&e.what, Record::Request { fault: Some(fault), .. } if *fault == id));
    assert_eq!(ignored.count(), 2);
}

#[tokio::test]
async fn faults_lost_override_boots_from_disk() {
    let client = Client::new().await;
    client.bmc.faults().add(FaultSpec::always(FaultAction::LoseOverride).times(1)).unwrap();
    client.override_once("Pxe").await;
    client.reset("On").await;
    assert_eq!(client.first_boot_devices(), [BootDevice::Disk]);
}

#[tokio::test]
async fn faults_dropped_slow_and_hanging_connections() {
    let client = Client::new().await;
    let faults = client.bmc.faults();
    faults.add(FaultSpec::always(FaultAction::Drop).on("POST", RESET).times(1)).unwrap();
    let dropped = client.request(Method::POST, RESET).json(&json!({"ResetType": "On"})).send().await;
    assert!(dropped.is_err_and(|e| !e.is_timeout()));
    assert_eq!(client.get(SYSTEM).await["PowerState"], "Off", "a dropped request must not take effect");

    faults.add(FaultSpec::always(FaultAction::Latency { ms: 300 }).times(1)).unwrap();
    let begin = Instant::now();
    client.get(SYSTEM).await;
    assert!(begin.elapsed() >= Duration::from_millis(300));

    let hang = faults.add(FaultSpec::always(FaultAction::Hang).times(1)).unwrap();
    let request = client.request(Method::GET, SYSTEM).timeout(Duration::from_secs(3600));
    let mut hung = tokio::spawn(request.send());
    // A client that gave up before its request was read would leave the fault to the next one.
    while faults.list().iter().any(|fault| fault.id == hang && fault.spec.remaining != Some(0)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = tokio::time::timeout(Duration::from_millis(300), &mut hung).await;
    assert!(answer.is_err(), "a hanging request was answered: {answer:?}");
    hung.abort();
    assert_eq!(client.get(SYSTEM).await["PowerState"], "Off");
}

#[tokio::test]
async fn a_hundred_bmcs_fit_in_one_process() {
    let mut bmcs = Vec::new();
    for i in 0..100 {
        let mut config = HostConfig::sim(&format!("node-{i}"));
        config.bmc.tls = TlsMode::Off;
        bmcs.push(Client::with(config).await);
    }
    for client in &bmcs {
        assert_eq!(client.reset("On").await.status(), StatusCode::NO_CONTENT);
    }
    assert!(bmcs.iter().all(|c| c.bmc.resets() == ["On"]));
}
