//! A fleet and what is asked of it, in files.
//!
//! A fleet is either written down in short (`hosts`, `node_types`, `levels`), or what `vmetal get host -o json` and
//! `vmetal get node-type -o json` print of a running engine; several files make one fleet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmetal_model::{Host, NodeType, Requirement, Resources};
use vmetal_policy::{Columns, HostRow, Offer, View, Wanted, columns::LEVELS};

use crate::error::ToolError;

/// Hosts and node types at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Labels that say where a host is, from the widest to the narrowest.
    #[serde(default = "levels")]
    pub levels: Vec<String>,
    /// Node types; without any, one that every host belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_types: Vec<TypeRow>,
    /// Hosts.
    #[serde(default)]
    pub hosts: Vec<HostRow>,
}

fn levels() -> Vec<String> {
    LEVELS.map(str::to_owned).to_vec()
}

/// A node type in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeRow {
    /// Its name.
    pub name: String,
    /// Labels that its hosts have.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// More labels for requirements to match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// What one of its hosts offers.
    #[serde(default)]
    pub resources: Resources,
    /// The operator's price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
}

/// What is asked for over time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Claims, in whatever order.
    pub claims: Vec<ClaimRow>,
}

/// One claim: so many hosts together, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRow {
    /// Its name.
    pub name: String,
    /// The tenant cluster.
    #[serde(default = "tenant")]
    pub cluster: String,
    /// How many hosts.
    #[serde(default = "one")]
    pub count: u32,
    /// When it comes, in seconds since 1970-01-01 UTC.
    #[serde(default)]
    pub at: u64,
    /// For how many seconds it keeps its hosts; to the end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<u64>,
    /// The node type that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_type: Option<String>,
    /// What it asks of each.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Conditions on the node type's labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<Requirement>,
}

fn tenant() -> String {
    "blue".to_owned()
}

fn one() -> u32 {
    1
}

impl ClaimRow {
    /// As policies are asked.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            name: self.name.clone(),
            cluster: self.cluster.clone(),
            count: self.count,
            node_type: self.node_type.clone(),
            resources: self.resources.clone(),
            requirements: self.requirements.clone(),
            quota: Vec::new(),
            used_up: Vec::new(),
        }
    }
}

impl Trace {
    /// Reads a trace, in YAML or JSON.
    ///
    /// # Errors
    /// A file that cannot be read or is no trace.
    pub fn read(path: &Path) -> Result<Self, ToolError> {
        let trace: Trace = parse(path, &text(path)?, "trace of claims (`claims:`, each with a name)")?;
        let zero = trace.claims.iter().find(|claim| claim.count == 0);
        match zero {
            Some(claim) => Err(form(path, "trace of claims", format!("claim {} wants 0 hosts", claim.name))),
            None => Ok(trace),
        }
    }

    /// One claim by name; the first when none is given.
    ///
    /// # Errors
    /// When there is none.
    pub fn claim(&self, name: Option<&str>) -> Result<&ClaimRow, ToolError> {
        let found = match name {
            Some(name) => self.claims.iter().find(|claim| claim.name == name),
            None => self.claims.first(),
        };
        found.ok_or_else(|| ToolError::NoSuchClaim {
            name: name.unwrap_or("(the first)").to_owned(),
            known: self.claims.iter().take(5).map(|claim| claim.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Fleet {
    /// No hosts.
    pub(crate) fn empty() -> Self {
        Fleet { levels: levels(), node_types: Vec::new(), hosts: Vec::new() }
    }

    /// Reads a fleet from files.
    ///
    /// # Errors
    /// A file that cannot be read or is no fleet, or a host that is there twice.
    pub fn read(paths: &[PathBuf]) -> Result<Self, ToolError> {
        let mut fleet = Fleet::empty();
        for path in paths {
            fleet.take_in(path)?;
        }
        let mut names: Vec<&str> = fleet.hosts.iter().map(|host| host.name.as_str()).collect();
        names.sort_unstable();
        if let (Some(twice), Some(path)) = (names.windows(2).find(|pair| pair[0] == pair[1]), paths.last()) {
            return Err(form(path, "fleet", format!("host {} is in it twice", twice[0])));
        }
        Ok(fleet)
    }

    fn take_in(&mut self, path: &Path) -> Result<(), ToolError> {
        let text = text(path)?;
        const EXPECTED: &str = "fleet (`hosts:`, or what `vmetal get host -o json` prints)";
        let documents: Vec<serde_json::Value> = match parse(path, &text, EXPECTED)? {
            serde_json::Value::Array(documents) => documents,
            document => vec![document],
        };
        let mut columns = Columns::default();
        for document in documents {
            let wrong = |error: serde_json::Error| form(path, EXPECTED, error.to_string());
            match document["kind"].as_str() {
                Some("host") => {
                    let host: Host = serde_json::from_value(document).map_err(wrong)?;
                    columns.update(&host);
                }
                Some("node_type") => {
                    let node_type: NodeType = serde_json::from_value(document).map_err(wrong)?;
                    self.node_types.push(TypeRow {
                        name: node_type.name().to_owned(),
                        selector: node_type.spec.selector,
                        properties: node_type.spec.properties,
                        resources: node_type.spec.resources,
                        cost: node_type.spec.cost,
                    });
                }
                Some(other) => {
                    let reason = format!("objects of kind {other} are neither hosts nor node types");
                    return Err(form(path, EXPECTED, reason));
                }
                None => {
                    let read: Fleet = serde_json::from_value(document).map_err(wrong)?;
                    self.levels = read.levels;
                    self.node_types.extend(read.node_types);
                    // Who writes hosts down in short does not mean that they were never looked at.
                    let inspected = |mut host: HostRow| {
                        host.hardware.get_or_insert_default();
                        host
                    };
                    self.hosts.extend(read.hosts.into_iter().map(inspected));
                }
            }
        }
        self.hosts.extend(columns.view().rows());
        Ok(())
    }

    /// As decisions see it.
    pub fn columns(&self) -> Columns {
        let mut columns = Columns::new(self.levels.iter().cloned());
        self.hosts.iter().for_each(|host| columns.insert(host));
        columns
    }

    /// The node types with nothing said of hosts.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        if self.node_types.is_empty() {
            return vec![Offer::empty("any")];
        }
        let offer = |row: &TypeRow| {
            let mut labels = row.properties.clone();
            labels.extend(row.selector.clone());
            Offer {
                selector: row.selector.clone(),
                labels,
                resources: row.resources.clone(),
                explicit_cost: row.cost,
                ..Offer::empty(&row.name)
            }
        };
        self.node_types.iter().map(offer).collect()
    }

    /// The node types with the hosts of each counted.
    pub(crate) fn counted(&self, view: &View) -> Vec<Offer> {
        self.offers().into_iter().map(|offer| offer.counted(view)).collect()
    }
}

fn text(path: &Path) -> Result<String, ToolError> {
    std::fs::read_to_string(path).map_err(|source| ToolError::File { path: path.to_owned(), source })
}

fn form(path: &Path, expected: &'static str, reason: String) -> ToolError {
    ToolError::Form { path: path.to_owned(), expected, reason }
}

/// JSON, which is read faster, or YAML.
fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str, expected: &'static str) -> Result<T, ToolError> {
    let wrong = |reason: String| form(path, expected, reason);
    if text.trim_start().starts_with(['{', '[']) {
        return serde_json::from_str(text).map_err(|error| wrong(error.to_string()));
    }
    serde_yaml_ng::from_str(text).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn file(directory: &Path, text: &str) -> PathBuf {
        let path = directory.join("file");
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_fleet_is_read_in_short_form_and_as_the_engine_prints_it() {
        let directory = tempfile::tempdir().unwrap();
        let short = file(directory.path(), "hosts:\n- { name: a, phase: available, labels: { rack: r1 } }\n");
        let fleet = Fleet::read(&[short]).unwrap();
        assert_eq!((fleet.hosts[0].name.as_str(), fleet.levels.len(), fleet.offers().len()), ("a", 5, 1));
        let bmc = serde_json::json!({"address": "redfish+https://10.0.0.1/redfish/v1/Systems/1", "username": "u"});
        let printed = serde_json::json!([{
            "kind": "host",
            "metadata": {
                "name": "b", "uid": "1", "generation": 1, "created": "2026-01-01T00:00:00Z", "labels": {"rack": "r2"}
            },
            "spec": {"bmc": bmc, "boot_mac": "52:54:00:00:00:01"},
            "status": vmetal_model::HostStatus::new("2026-01-01T00:00:00Z".parse().unwrap()),
        }]);
        let printed = printed.to_string();
        let fleet = Fleet::read(&[file(directory.path(), &printed)]).unwrap();
        assert_eq!((fleet.hosts[0].name.as_str(), fleet.hosts[0].labels["rack"].as_str()), ("b", "r2"));
    }

    #[test]
    fn what_is_no_fleet_or_trace_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let fleet = |text| Fleet::read(&[file(directory.path(), text)]).unwrap_err().to_string();
        assert!(fleet("hosts: [{ name: a }]").contains("missing field `phase`"));
        assert!(fleet("hsots: []").contains("unknown field `hsots`"));
        assert!(fleet(r#"{"kind":"image","metadata":{}}"#).contains("kind image"));
        let twice = fleet("hosts: [{ name: a, phase: available }, { name: a, phase: available }]");
        assert!(twice.contains("host a is in it twice"), "{twice}");
        let trace = Trace::read(&file(directory.path(), "claims: [{ name: x, count: 0 }]")).unwrap_err().to_string();
        assert!(trace.contains("claim x wants 0 hosts"), "{trace}");
        assert!(Trace::read(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
