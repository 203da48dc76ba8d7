#![allow(clippy::unwrap_used, reason = "tests")]
use std::io::Write as _;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use vmetal_model::TaintEffect;

use super::*;
use crate::token::TokenSecret;

fn registration() -> NodeRegistration {
    NodeRegistration {
        grant: JoinGrant {
            token_id: "abcdef".into(),
            token_secret: TokenSecret::parse("0123456789abcdef").unwrap(),
            ca_cert_hash: "sha256:00ff".into(),
            api_endpoint: "172.22.0.1:6443".into(),
            expires_at: Timestamp::UNIX_EPOCH,
        },
        name: "worker-1".into(),
        provider_id: "vmetal://h1".into(),
        address: Some(std::net::Ipv4Addr::new(172, 22, 0, 10)),
        labels: [("rack", "r1"), ("zone", ""), ("node-role.kubernetes.io/worker", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        taints: vec![Taint { key: "gpu".into(), value: "yes".into(), effect: TaintEffect::NoSchedule }],
        cri_socket: None,
    }
}

fn callback(path: &str) -> Callback {
    Callback { url: format!("http://172.22.0.1:8480/agent/v1/{path}"), token: format!("secret-of-{path}") }
}

fn input(layers: &[(&str, &str)]) -> UserDataInput {
    UserDataInput {
        layers: layers.iter().map(|(level, text)| ((*level).to_owned(), (*text).to_owned())).collect(),
        ssh_authorized_keys: vec!["ssh-ed25519 AAAA admin".into()],
        phone_home: Some(callback("phone-home")),
        join_failed: Some(callback("join-failed")),
        registration: Some(registration()),
    }
}

fn render(input: &UserDataInput) -> Value {
    let text = render_user_data(input).unwrap();
    assert!(text.starts_with("#cloud-config\n"), "{text}");
    serde_yaml_ng::from_str(&text).unwrap()
}

fn written<'a>(document: &'a Value, path: &str) -> &'a Value {
    document["write_files"].as_array().unwrap().iter().find(|file| file["path"] == path).unwrap()
}

#[test]
fn the_more_specific_level_wins_key_by_key() {
    let document = render(&input(&[
        ("provider", "#cloud-config\ntimezone: UTC\nntp: {enabled: true, servers: [a]}\npackages: [x]\n"),
        ("type", "#cloud-config\nntp: {servers: [b, c]}\n"),
        ("claim", "#cloud-config\ntimezone: Europe/Berlin\npackages: []\n"),
    ]));
    assert_eq!(document["timezone"], "Europe/Berlin");
    assert_eq!(document["ntp"], json!({ "enabled": true, "servers": ["b", "c"] }));
    assert_eq!(document["packages"], json!([]));
}

#[test]
fn commands_run_in_order_phone_home_user_join() {
    let document = render(&input(&[
        ("type", "#cloud-config\nruncmd: [overridden]\n"),
        ("claim", "#cloud-config\nruncmd:\n- echo one\n- [touch, /tmp/two]\n"),
    ]));
    let expected =
        json!([["sh", "/run/vmetal/phone-home.sh"], "echo one", ["touch", "/tmp/two"], ["sh", "/run/vmetal/join.sh"]]);
    assert_eq!(document["runcmd"], expected);
}

#[test]
fn files_and_keys_are_added_to_the_users() {
    let document = render(&input(&[(
        "claim",
        "#cloud-config\nwrite_files: [{path: /etc/mine, content: x}]\nssh_authorized_keys: [ssh-rsa BBBB me]\n",
    )]));
    assert_eq!(written(&document, "/etc/mine")["content"], "x");
    assert_eq!(document["ssh_authorized_keys"], json!(["ssh-rsa BBBB me", "ssh-ed25519 AAAA admin"]));
}

#[test]
fn the_join_configuration_says_all_that_kubeadm_needs() {
    let document = render(&input(&[]));
    let file = written(&document, "/run/vmetal/kubeadm-join.yaml");
    assert_eq!(file["permissions"], "0600");
    let configuration: Value = serde_yaml_ng::from_str(file["content"].as_str().unwrap()).unwrap();
    assert_eq!(
        configuration,
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "discovery": { "bootstrapToken": {
                "apiServerEndpoint": "172.22.0.1:6443",
                "token": "abcdef.0123456789abcdef",
                "caCertHashes": ["sha256:00ff"],
            }},
            "nodeRegistration": {
                "name": "worker-1",
                "criSocket": "unix:///run/containerd/containerd.sock",
                "kubeletExtraArgs": [
                    { "name": "provider-id", "value": "vmetal://h1" },
                    { "name": "node-ip", "value": "172.22.0.10" },
                    { "name": "node-labels", "value": "rack=r1,zone=" },
                ],
                "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }],
            },
        })
    );
}

#[test]
fn secrets_are_in_files_for_root_and_nowhere_else() {
    let input = input(&[]);
    let document = render(&input);
    for file in document["write_files"].as_array().unwrap() {
        let (content, permissions) = (file["content"].as_str().unwrap(), file["permissions"].as_str().unwrap());
        if ["0123456789abcdef", "secret-of-"].iter().any(|secret| content.contains(secret)) {
            assert_eq!(permissions, "0600", "{file}");
        }
    }
    assert!(!document["runcmd"].to_string().contains("secret"), "{document}");
    let shown = format!("{input:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("secret-of-"), "{shown}");
}

#[test]
fn without_a_cluster_the_server_only_phones_home() {
    let document = render(&UserDataInput { registration: None, ..input(&[]) });
    assert_eq!(document["runcmd"], json!([["sh", "/run/vmetal/phone-home.sh"]]));
    assert!(!document.to_string().contains("kubeadm"), "{document}");
    assert_eq!(render_user_data(&UserDataInput::default()).unwrap().trim_end(), "#cloud-config\n{}");
}

#[test]
fn unusable_layers_are_named() {
    for (text, words) in [
        ("#!/bin/sh\nrm -rf /\n", "does not start with \"#cloud-config\" but with \"#!/bin/sh\""),
        ("#cloud-config\na: [", "not valid YAML"),
        ("#cloud-config\n- a\n", "the document must be a mapping"),
        ("#cloud-config\nruncmd: reboot\n", "runcmd must be a list"),
        ("#cloud-config\nwrite_files: {}\n", "write_files must be a list"),
    ] {
        let error = render_user_data(&input(&[("claim web-1", text)])).unwrap_err().to_string();
        assert!(error.contains("claim web-1") && error.contains(words), "{error}");
    }
    render_user_data(&input(&[("claim", ""), ("type", "#cloud-config\n"), ("x", "#cloud-config\nruncmd:\n")])).unwrap();
}

#[test]
fn values_cannot_break_out_of_their_place() {
    let mut bad = input(&[]);
    bad.phone_home = Some(Callback { url: "http://h/'; reboot; '".into(), token: "t".into() });
    assert!(matches!(render_user_data(&bad), Err(UserDataError::Unrepresentable { what: "callback address", .. })));
    bad.phone_home = Some(Callback { url: "http://h/".into(), token: "t\r\nX-Evil: 1".into() });
    let error = render_user_data(&bad).unwrap_err();
    assert!(!error.to_string().contains("Evil"), "{error}");
    let mut bad = input(&[]);
    bad.registration.as_mut().unwrap().labels.insert("a".into(), "b,c=d".into());
    assert!(matches!(render_user_data(&bad), Err(UserDataError::Unrepresentable { what: "label", .. })));
    // A name that is YAML by itself stays text.
    let mut odd = input(&[]);
    odd.registration.as_mut().unwrap().name = "1e3: {a}\n- b".into();
    let document = render(&odd);
    let content = written(&document, "/run/vmetal/kubeadm-join.yaml")["content"].as_str().unwrap().to_owned();
    let configuration: Value = serde_yaml_ng::from_str(&content).unwrap();
    assert_eq!(configuration["nodeRegistration"]["name"], "1e3: {a}\n- b");
}

#[test]
fn the_scripts_are_shell() {
    let document = render(&input(&[]));
    for name in ["phone-home", "join"] {
        let content = written(&document, &format!("/run/vmetal/{name}.sh"))["content"].as_str().unwrap().to_owned();
        let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success(), "{content}");
    }
}

/// YAML 1.1 has ideas about these; PyYAML and kubeadm's reader follow it.
#[test]
fn nothing_is_left_for_yaml_to_guess() {
    let mut input = input(&[(
        "claim",
        "#cloud-config\nanswer: 'no'\nwrite_files: [{path: /x, permissions: '0644', content: 'on'}]\n",
    )]);
    input.registration.as_mut().unwrap().taints[0].value = "yes".into();
    let text = render_user_data(&input).unwrap();
    for quoted in [r#""no""#, r#""0644""#, r#""on""#, r#"\"yes\""#] {
        assert!(text.contains(quoted), "{quoted} in {text}");
    }
    assert!(render_network_config("52:54:00:12:34:56", None).unwrap().contains(r#""52:54:00:12:34:56""#));
    assert!(render_meta_data("1e3", "0755").unwrap().contains(r#""0755""#));
}

#[test]
fn meta_data_and_network_config_are_what_cloud_init_reads() {
    let meta: Value = serde_yaml_ng::from_str(&render_meta_data("i-1", "worker-1").unwrap()).unwrap();
    assert_eq!(meta, json!({ "instance-id": "i-1", "local-hostname": "worker-1" }));
    let network: Value = serde_yaml_ng::from_str(&render_network_config("52:54:00:AB:CD:EF", None).unwrap()).unwrap();
    let expected = json!({ "match": { "macaddress": "52:54:00:ab:cd:ef" }, "dhcp4": true });
    assert_eq!(network, json!({ "version": 2, "ethernets": { "provisioning": expected } }));
}

fn network(json: Value) -> vmetal_model::NetworkSpec {
    serde_json::from_value(json).unwrap()
}

fn network_config(json: Value) -> Value {
    let attachment = Attachment { network: &network(json), address: "10.20.0.7".parse().unwrap() };
    serde_yaml_ng::from_str(&render_network_config("52:54:00:AB:CD:EF", Some(attachment)).unwrap()).unwrap()
}

#[test]
fn an_address_of_a_network_takes_the_place_of_dhcp() {
    let config = network_config(serde_json::json!({
        "cidr": "10.20.0.0/22", "gateway": "10.20.0.1", "nameservers": ["10.20.0.2", "fd00::53"],
        "search_domains": ["tenants.example.com"], "mtu": 9000,
    }));
    assert_eq!(
        config,
        serde_json::json!({ "version": 2, "ethernets": { "provisioning": {
            "match": { "macaddress": "52:54:00:ab:cd:ef" },
            "dhcp4": false,
            "addresses": ["10.20.0.7/22"],
            "routes": [{ "to": "0.0.0.0/0", "via": "10.20.0.1" }],
            "nameservers": { "addresses": ["10.20.0.2", "fd00::53"], "search": ["tenants.example.com"] },
            "mtu": 9000,
        } } })
    );
    let bare = network_config(serde_json::json!({ "cidr": "10.20.0.0/24" }));
    let port = &bare["ethernets"]["provisioning"];
    assert_eq!(port["addresses"], serde_json::json!(["10.20.0.7/24"]));
    assert!(["routes", "nameservers", "mtu"].iter().all(|key| port.get(key).is_none()), "{bare}");
}

#[test]
fn a_tagged_network_is_beside_what_the_port_has() {
    let config = network_config(serde_json::json!({
        "cidr": "10.20.0.0/24", "gateway": "10.20.0.1", "vlan": 120, "mtu": 1400,
    }));
    assert_eq!(
        config,
        serde_json::json!({ "version": 2,
            "ethernets": { "provisioning": {
                "match": { "macaddress": "52:54:00:ab:cd:ef" },
                "dhcp4": true,
                "dhcp4-overrides": { "route-metric": 2048 },
                "mtu": 1400,
            } },
            "vlans": { "vlan120": {
                "id": 120, "link": "provisioning", "dhcp4": false,
                "addresses": ["10.20.0.7/24"],
                "routes": [{ "to": "0.0.0.0/0", "via": "10.20.0.1" }],
                "mtu": 1400,
            } },
        })
    );
}
