//! Admission checks that need nothing but the object itself. Each error names the field, what was seen and what was
//! expected; all errors of an object are reported together.

use crate::TlsTrust;
use crate::host::HostSpec;
use crate::image::ImageSpec;
use crate::node_type::NodeTypeSpec;
use crate::policy::{LONGEST_SETTINGS, PolicySpec};
use crate::requirement::{Operator, Requirement};
use crate::tenant_cluster::TenantClusterSpec;
use crate::tenant_node::{GroupSpec, Taint, TenantNodeSpec};

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The field, for example `spec.bmc.address` or `spec.requirements[0].values`.
    pub path: String,
    /// What was seen, what was expected.
    pub message: String,
}

impl FieldError {
    /// An error for a field.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError { path: path.into(), message: message.into() }
    }
}

/// Checks an object's spec.
pub trait Validate {
    /// Everything that is wrong, in the order of the fields.
    fn validate(&self) -> Vec<FieldError>;
}

/// Checks an object's name: a DNS label (RFC 1123), because names become host names and Node names.
pub fn name(name: &str) -> Result<(), FieldError> {
    let ok = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if ok {
        return Ok(());
    }
    Err(FieldError::new(
        "metadata.name",
        format!(
            "{name:?} is not a valid name; expected 1 to 63 lower-case letters, digits or hyphens, with a letter or digit at both ends"
        ),
    ))
}

/// Checks a label key and value by Kubernetes' rules.
pub fn label(path: &str, key: &str, value: &str) -> Result<(), FieldError> {
    let part = |text: &str| {
        let alnum = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        text.len() <= 63
            && alnum(text.bytes().next())
            && alnum(text.bytes().last())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let (prefix, key_name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| {
        prefix.len() <= 253
            && prefix.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
    });
    if !prefix_ok || !part(key_name) {
        return Err(FieldError::new(
            path,
            format!(
                "{key:?} is not a valid label key; expected [dns.prefix/]name with a name of at most 63 letters, digits, '-', '_' or '.'"
            ),
        ));
    }
    if !value.is_empty() && !part(value) {
        return Err(FieldError::new(
            path,
            format!(
                "{value:?} is not a valid value for the label {key}; expected at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends"
            ),
        ));
    }
    Ok(())
}

fn labels<'a>(path: &str, labels: impl IntoIterator<Item = (&'a String, &'a String)>, errors: &mut Vec<FieldError>) {
    errors.extend(labels.into_iter().filter_map(|(key, value)| label(path, key, value).err()));
}

fn taints(path: &str, taints: &[Taint], errors: &mut Vec<FieldError>) {
    errors
        .extend(taints.iter().enumerate().filter_map(|(i, t)| label(&format!("{path}[{i}]"), &t.key, &t.value).err()));
}

fn required(path: &str, text: &str, what: &str, errors: &mut Vec<FieldError>) {
    if text.trim().is_empty() {
        errors.push(FieldError::new(path, format!("is empty; expected {what}")));
    }
}

impl Validate for HostSpec {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        required("spec.bmc.username", &self.bmc.username, "the BMC account's name", &mut errors);
        if let TlsTrust::Fingerprint(text) = &self.bmc.tls
            && self.bmc.tls.fingerprint_bytes().is_none()
        {
            let message =
                format!("{text:?} is not a SHA-256 fingerprint; expected 64 hexadecimal digits, colons allowed");
            errors.push(FieldError::new("spec.bmc.tls.fingerprint", message));
        }
        if self.root_device.min_size_gib == Some(0) {
            errors.push(FieldError::new(
                "spec.root_device.min_size_gib",
                "is 0; expected a positive number of GiB or nothing",
            ));
        }
        if let Some(maintenance) = &self.maintenance {
            required("spec.maintenance.reason", &maintenance.reason, "why the host is out of the pool", &mut errors);
        }
        errors
    }
}

impl Validate for PolicySpec {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(digit) {
            let seen: String = self.sha256.chars().take(80).collect();
            let message = format!("{seen:?} is not a SHA-256; expected 64 hexadecimal digits in lower case");
            errors.push(FieldError::new("spec.sha256", message));
        }
        let length = self.settings_text().len();
        if length > LONGEST_SETTINGS {
            let message = format!("are {length} bytes of JSON; expected at most {LONGEST_SETTINGS}");
            errors.push(FieldError::new("spec.settings", message));
        }
        errors
    }
}

impl Validate for NodeTypeSpec {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.selector.is_empty() {
            errors.push(FieldError::new(
                "spec.selector",
                "is empty; expected at least one label, or every host would belong to the class",
            ));
        }
        labels("spec.selector", &self.selector, &mut errors);
        labels("spec.properties", &self.properties, &mut errors);
        for resource in [crate::quantity::CPU, crate::quantity::MEMORY] {
            if self.resources.get(resource).is_none_or(|quantity| quantity.is_zero()) {
                errors.push(FieldError::new(
                    format!("spec.resources.{resource}"),
                    "is missing or 0; expected what a host of the class offers",
                ));
            }
        }
        if self.standby > 0 && self.image.is_none() {
            let message =
                format!("is {}, but spec.image is not set; expected the image that is kept installed", self.standby);
            errors.push(FieldError::new("spec.standby", message));
        }
        errors
    }
}

impl Validate for Requirement {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = label("key", &self.key, "").err().into_iter().collect();
        let integer = |value: &String| value.parse::<i64>().is_ok();
        let (ok, expected) = match self.operator {
            Operator::In | Operator::NotIn => (!self.values.is_empty(), "at least one value"),
            Operator::Exists | Operator::DoesNotExist => (self.values.is_empty(), "no value"),
            Operator::Gt | Operator::Lt => {
                (self.values.len() == 1 && self.values.iter().all(integer), "exactly one integer")
            }
        };
        if !ok {
            let message =
                format!("{:?} does not fit the operator {:?}; expected {expected}", self.values, self.operator);
            errors.push(FieldError::new("values", message));
        }
        errors
    }
}

impl Validate for TenantNodeSpec {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        required("spec.cluster", &self.cluster, "the name of a tenant cluster", &mut errors);
        for (i, requirement) in self.requirements.iter().enumerate() {
            let inner = requirement.validate().into_iter();
            errors.extend(inner.map(|e| FieldError::new(format!("spec.requirements[{i}].{}", e.path), e.message)));
        }
        labels("spec.labels", &self.labels, &mut errors);
        taints("spec.taints", &self.taints, &mut errors);
        if self.drain.timeout_seconds == 0 {
            errors.push(FieldError::new("spec.drain.timeout_seconds", "is 0; expected a positive number of seconds"));
        }
        if let Some(group) = &self.group {
            validate_group(group, &mut errors);
        }
        errors
    }
}

fn validate_group(group: &GroupSpec, errors: &mut Vec<FieldError>) {
    let GroupSpec { name: given, size, same } = group;
    errors.extend(name(given).err().map(|error| FieldError::new("spec.group.name", error.message)));
    if !(1..=GroupSpec::LARGEST).contains(size) {
        let message = format!("is {size}; expected 1 to {}", GroupSpec::LARGEST);
        errors.push(FieldError::new("spec.group.size", message));
    }
    errors.extend(same.as_ref().and_then(|key| label("spec.group.same", key, "").err()));
}

impl Validate for TenantClusterSpec {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        labels("spec.labels", &self.labels, &mut errors);
        taints("spec.taints", &self.taints, &mut errors);
        let named = self.quota.node_types.keys().filter_map(|node_type| name(node_type).err());
        errors.extend(named.map(|error| FieldError::new("spec.quota.node_types", error.message)));
        if self.quota.resources.contains_key("") {
            errors.push(FieldError::new("spec.quota.resources", "has an empty name; expected a resource such as cpu"));
        }
        errors
    }
}

impl Validate for ImageSpec {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let source = self.source.as_str();
        if !["/", "http://", "https://"].iter().any(|start| source.starts_with(start)) {
            errors.push(FieldError::new(
                "spec.source",
                format!("{source:?} is neither an absolute path nor an http:// or https:// URL"),
            ));
        }
        match &self.checksum {
            Some(text) => {
                let digits = text.strip_prefix("sha256:").unwrap_or_default();
                if hex::decode(digits).map_or(true, |bytes| bytes.len() != 32) {
                    errors.push(FieldError::new(
                        "spec.checksum",
                        format!("{text:?} is not a checksum; expected sha256: and 64 hexadecimal digits"),
                    ));
                }
            }
            None if source.starts_with("http://") => {
                errors.push(FieldError::new("spec.checksum", "is missing; an image fetched in clear text needs one"));
            }
            None => {}
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "gpu-01", &"x".repeat(63)] {
            assert_eq!(name(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "ä", &"x".repeat(64)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_follow_kubernetes() {
        assert!(label("l", "nvidia.com/gpu.product", "H100_80GB").is_ok());
        assert!(label("l", "rack", "").is_ok());
        let bad = label("spec.labels", "rack", "row 1").unwrap_err().to_string();
        assert!(bad.contains("spec.labels") && bad.contains("\"row 1\""), "{bad}");
        assert!(label("l", "a/b/c", "x").is_err());
    }

    #[test]
    fn all_errors_of_an_object_come_together_with_their_paths() {
        let spec = TenantNodeSpec {
            requirements: vec![Requirement { key: "k".into(), operator: Operator::Gt, values: vec!["x".into()] }],
            drain: crate::tenant_node::DrainSpec { timeout_seconds: 0, ..Default::default() },
            group: Some(GroupSpec { name: "Not a name".into(), size: 0, same: Some("a b".into()) }),
            ..Default::default()
        };
        let paths: Vec<String> = spec.validate().into_iter().map(|e| e.path).collect();
        assert_eq!(
            paths,
            [
                "spec.cluster",
                "spec.requirements[0].values",
                "spec.drain.timeout_seconds",
                "spec.group.name",
                "spec.group.size",
                "spec.group.same"
            ]
        );
    }

    #[test]
    fn standby_needs_an_image() {
        let amount = |text: &str| text.parse().unwrap();
        let mut spec = NodeTypeSpec {
            selector: [("class".to_owned(), "a".to_owned())].into(),
            resources: [("cpu".to_owned(), amount("1")), ("memory".to_owned(), amount("1Gi"))].into(),
            standby: 2,
            ..NodeTypeSpec::default()
        };
        assert_eq!(spec.validate()[0].path, "spec.standby");
        spec.image = Some("linux".to_owned());
        assert!(spec.validate().is_empty());
    }

    #[test]
    fn an_image_in_clear_text_needs_a_checksum() {
        let spec = |source: &str, checksum: Option<&str>| ImageSpec {
            source: source.into(),
            checksum: checksum.map(Into::into),
            format: None,
        };
        assert!(spec("/srv/x.qcow2", None).validate().is_empty());
        assert_eq!(spec("http://x/y", None).validate()[0].path, "spec.checksum");
        assert_eq!(spec("y.raw", Some("md5:1")).validate().len(), 2);
    }
}
