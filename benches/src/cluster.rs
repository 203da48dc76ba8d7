//! Simulated tenant clusters: what the engine asks of a kubeadm cluster's API server, over TLS, from memory.
//!
//! The bootstrap signer signs at once. The kubelet of an installed system registers its Node in memory and is Ready at once,
//! so that what is measured is the engine's share of a claim.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::identity::Identity;
use crate::web::{Answer, Call, json as reply};

const FIRST: u32 = u32::from_be_bytes([127, 32, 0, 1]);

/// Where cluster number `index` is.
fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + u32::try_from(index).unwrap_or(0))
}

/// All clusters.
pub struct Clusters {
    authority: String,
    clusters: Vec<Mutex<Objects>>,
    port: AtomicU64,
    uids: AtomicU64,
    /// Requests so far.
    pub requests: AtomicU64,
}

#[derive(Default)]
struct Objects {
    secrets: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
}

impl Clusters {
    /// So many clusters, with the certificate that they show.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new(count: usize) -> Result<(Self, Identity)> {
        let identity = Identity::new("bench API server", (0..count.max(1)).map(address))?;
        let clusters = Clusters {
            authority: identity.pem.clone(),
            clusters: (0..count).map(|_| Mutex::default()).collect(),
            port: AtomicU64::new(0),
            uids: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        };
        Ok((clusters, identity))
    }

    /// Tells the port that all of them are served on.
    pub fn served_on(&self, port: u16) {
        self.port.store(port.into(), Ordering::Relaxed);
    }

    fn endpoint(&self, index: usize) -> String {
        format!("{}:{}", address(index), self.port.load(Ordering::Relaxed))
    }

    /// The kubeconfig of cluster number `index`.
    pub fn kubeconfig(&self, index: usize) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": self.place(index) }],
            "users": [{ "name": "u", "user": { "token": "bench" } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        })
        .to_string()
    }

    fn place(&self, index: usize) -> Value {
        json!({
            "server": format!("https://{}", self.endpoint(index)),
            "certificate-authority-data": STANDARD.encode(&self.authority),
        })
    }

    fn lock(&self, index: usize) -> Option<MutexGuard<'_, Objects>> {
        Some(self.clusters.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nodes that are registered, over all clusters.
    pub fn nodes(&self) -> usize {
        (0..self.clusters.len()).filter_map(|index| self.lock(index)).map(|objects| objects.nodes.len()).sum()
    }

    /// A server joins as its join configuration says, if its token is known.
    pub fn register(&self, join: &Value) {
        let discovery = &join["discovery"]["bootstrapToken"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let endpoint = text(&discovery["apiServerEndpoint"]);
        let token = text(&discovery["token"]);
        let secret = format!("bootstrap-token-{}", token.split('.').next().unwrap_or_default());
        let Some(index) = (0..self.clusters.len()).find(|index| self.endpoint(*index) == endpoint) else {
            return eprintln!("bench: there is no cluster at {endpoint}");
        };
        let Some(mut objects) = self.lock(index) else { return };
        if !objects.secrets.contains_key(&secret) {
            return eprintln!("bench: {secret} is not known at {endpoint}");
        }
        let registration = &join["nodeRegistration"];
        let arguments = registration["kubeletExtraArgs"].as_array().cloned().unwrap_or_default();
        let argument = |name: &str| arguments.iter().find(|a| a["name"] == name).map(|a| text(&a["value"]));
        let labels: BTreeMap<String, String> = argument("node-labels")
            .unwrap_or_default()
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let name = text(&registration["name"]);
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "uid": self.uid(), "labels": labels },
            "spec": { "providerID": argument("provider-id"), "taints": registration["taints"] },
            "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" }] },
        });
        objects.nodes.insert(name, node);
    }

    fn uid(&self) -> String {
        format!("00000000-0000-4000-9000-{:012x}", self.uids.fetch_add(1, Ordering::Relaxed))
    }

    /// Answers one request.
    pub fn answer(&self, call: &Call) -> Answer {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let index = usize::try_from(u32::from(call.to).wrapping_sub(FIRST)).unwrap_or(usize::MAX);
        let Some(mut objects) = self.lock(index) else { return missing() };
        let path: Vec<&str> = call.head.uri.path().trim_matches('/').split('/').collect();
        match (&call.head.method, path.as_slice()) {
            (&Method::GET, ["version"]) => reply(200, &json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0" })),
            (&Method::GET, ["api", "v1", "namespaces", _, "configmaps", name]) => {
                self.config_map(index, name, &objects)
            }
            (&Method::POST, ["api", "v1", "namespaces", "kube-system", "secrets"]) => {
                let mut secret = call.json();
                secret["metadata"]["uid"] = self.uid().into();
                let name = secret["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if objects.secrets.contains_key(&name) {
                    return refused(409, "AlreadyExists");
                }
                objects.secrets.insert(name, secret.clone());
                reply(201, &secret)
            }
            (method, ["api", "v1", "namespaces", "kube-system", "secrets", name]) => {
                one(method, &mut objects.secrets, name, call)
            }
            (method, ["api", "v1", "nodes", name]) => one(method, &mut objects.nodes, name, call),
            (&Method::GET, ["api", "v1", "pods"]) => {
                reply(200, &json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [] }))
            }
            _ => missing(),
        }
    }

    fn config_map(&self, index: usize, name: &str, objects: &Objects) -> Answer {
        let data = match name {
            "kube-root-ca.crt" => json!({ "ca.crt": self.authority }),
            "kubeadm-config" => {
                let configuration = json!({ "controlPlaneEndpoint": self.endpoint(index) });
                json!({ "ClusterConfiguration": configuration.to_string() })
            }
            "cluster-info" => {
                let info = json!({ "clusters": [{ "name": "", "cluster": self.place(index) }] });
                let mut data = json!({ "kubeconfig": info.to_string() });
                for secret in objects.secrets.keys() {
                    let id = secret.trim_start_matches("bootstrap-token-");
                    data[format!("jws-kubeconfig-{id}")] = "simulated..signature".into();
                }
                data
            }
            _ => return missing(),
        };
        reply(200, &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data }))
    }
}

fn refused(code: u16, reason: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    reply(code, &status)
}

fn missing() -> Answer {
    refused(404, "NotFound")
}

/// Reads, patches or deletes one object.
fn one(method: &Method, objects: &mut BTreeMap<String, Value>, name: &str, call: &Call) -> Answer {
    let Some(object) = objects.get_mut(name) else { return missing() };
    match *method {
        Method::GET => reply(200, object),
        Method::PATCH => {
            merge(object, call.json());
            reply(200, object)
        }
        Method::DELETE => {
            objects.remove(name);
            reply(200, &json!({ "apiVersion": "v1", "kind": "Status", "status": "Success" }))
        }
        _ => refused(405, "MethodNotAllowed"),
    }
}

/// A merge patch (RFC 7396), which is all that an apply of labels comes to here.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}
