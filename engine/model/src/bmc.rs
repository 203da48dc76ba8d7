//! How a server's management controller (BMC) is named, trusted and described.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The BMC of one host as the operator declares it. The password is write-only and never part of this type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BmcSpec {
    /// Where the BMC is, for example `redfish+https://10.0.0.7/redfish/v1/Systems/1`.
    pub address: BmcAddress,
    /// The account to sign in with.
    pub username: String,
    /// Changes whenever the password does, so that the engine tries again with the new one.
    #[serde(default)]
    pub password_version: String,
    /// How the BMC's TLS certificate is trusted. Ignored for `redfish+http`.
    #[serde(default)]
    pub tls: TlsTrust,
}

/// How a BMC's TLS certificate is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsTrust {
    /// A chain to a public or configured root is required. A self-signed certificate is refused.
    #[default]
    Verify,
    /// The certificate's SHA-256 fingerprint (over its DER form) must be this one: 64 hexadecimal digits; colons and
    /// upper case are forgiven when read, see [`TlsTrust::fingerprint_bytes`].
    Fingerprint(String),
    /// Anything is accepted. Shown wherever the host is shown.
    Insecure,
}

impl TlsTrust {
    /// The pinned fingerprint as bytes; `None` when nothing is pinned or the text is not 32 bytes of hexadecimal.
    pub fn fingerprint_bytes(&self) -> Option<[u8; 32]> {
        let TlsTrust::Fingerprint(text) = self else { return None };
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        hex::decode(digits).ok()?.try_into().ok()
    }
}

/// The protocol that a BMC address asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BmcScheme {
    /// `redfish` and `redfish+https`: DSP0266 over TLS.
    RedfishHttps,
    /// `redfish+http`: DSP0266 in clear text.
    RedfishHttp,
}

/// A parsed BMC address: `redfish://`, `redfish+https://` or `redfish+http://`, host, optional port, optional system path.
/// Plain `redfish` means TLS, as in Metal3. Serialises as the text the operator wrote.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct BmcAddress {
    text: String,
}

/// Text that is not a BMC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BmcAddressError {
    /// No `scheme://`.
    #[error("BMC address {0:?} has no scheme; expected redfish://, redfish+https:// or redfish+http:// and a host")]
    NoScheme(String),
    /// A scheme vmetal does not speak.
    #[error(
        "BMC address {address:?} has the unknown scheme {scheme:?}; expected redfish, redfish+https or redfish+http"
    )]
    UnknownScheme {
        /// What was given.
        address: String,
        /// The scheme in it.
        scheme: String,
    },
    /// The part after the scheme is not `host[:port][/path]`.
    #[error("BMC address {address:?} is malformed: {reason}")]
    Malformed {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl BmcAddress {
    fn parts(&self) -> Option<(BmcScheme, url::Url)> {
        let (scheme, rest) = self.text.split_once("://")?;
        let (scheme, http) = match scheme {
            "redfish" | "redfish+https" => (BmcScheme::RedfishHttps, "https"),
            "redfish+http" => (BmcScheme::RedfishHttp, "http"),
            _ => return None,
        };
        Some((scheme, url::Url::parse(&format!("{http}://{rest}")).ok()?))
    }

    /// The protocol.
    pub fn scheme(&self) -> BmcScheme {
        self.parts().map_or(BmcScheme::RedfishHttps, |(scheme, _)| scheme)
    }

    /// The origin to connect to: `https://host:port` (no trailing slash; the default port is left out).
    pub fn origin(&self) -> String {
        self.parts().map_or_else(String::new, |(_, url)| url.origin().ascii_serialization())
    }

    /// The system's path, for example `/redfish/v1/Systems/1`; `None` when the engine is to find the only one.
    pub fn system_path(&self) -> Option<String> {
        let (_, url) = self.parts()?;
        let path = url.path().trim_end_matches('/');
        (!path.is_empty()).then(|| path.to_owned())
    }

    /// What makes two addresses the same BMC system: origin and path in one normal form. Used as a unique index.
    pub fn identity(&self) -> String {
        format!("{}{}", self.origin(), self.system_path().unwrap_or_default())
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for BmcAddress {
    type Err = BmcAddressError;
    fn from_str(text: &str) -> Result<Self, BmcAddressError> {
        let address = text.trim().to_owned();
        let Some((scheme, _)) = address.split_once("://") else { return Err(BmcAddressError::NoScheme(address)) };
        if !matches!(scheme, "redfish" | "redfish+https" | "redfish+http") {
            return Err(BmcAddressError::UnknownScheme { scheme: scheme.to_owned(), address });
        }
        let malformed =
            |reason: &str| BmcAddressError::Malformed { address: address.clone(), reason: reason.to_owned() };
        let parsed = BmcAddress { text: address.clone() };
        let (_, url) = parsed.parts().ok_or_else(|| malformed("expected host[:port][/system/path]"))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(malformed("the host is missing"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(malformed(
                "credentials do not belong in the address; use username and the write-only password",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(malformed("a query or fragment has no meaning here"));
        }
        Ok(parsed)
    }
}

impl TryFrom<String> for BmcAddress {
    type Error = BmcAddressError;
    fn try_from(text: String) -> Result<Self, BmcAddressError> {
        text.parse()
    }
}

impl From<BmcAddress> for String {
    fn from(address: BmcAddress) -> String {
        address.text
    }
}

impl fmt::Display for BmcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for BmcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Power as the BMC last reported it (DSP0268 `PowerState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// Not read yet, or the BMC said something else.
    #[default]
    Unknown,
    /// Running.
    On,
    /// Not running.
    Off,
    /// On its way up.
    PoweringOn,
    /// On its way down.
    PoweringOff,
}

/// What the BMC told about the system it manages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BmcFacts {
    /// The system resource that is used from now on, for example `/redfish/v1/Systems/1`.
    pub system_path: String,
    /// `Manufacturer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// `Model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `SerialNumber`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The SMBIOS UUID, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Firmware version of the BMC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Redfish protocol version of the service root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redfish_version: Option<String>,
    /// SHA-256 fingerprint of the certificate that was presented, if TLS was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Power at the time of the reading.
    #[serde(default)]
    pub power: PowerState,
    /// When this was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub read: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn schemes_select_tls_and_paths_are_optional() {
        let address: BmcAddress = "redfish://10.0.0.7".parse().unwrap();
        assert_eq!((address.origin().as_str(), address.system_path()), ("https://10.0.0.7", None));
        let address: BmcAddress = "redfish+http://[fd00::7]:8000/redfish/v1/Systems/a/".parse().unwrap();
        assert_eq!(address.scheme(), BmcScheme::RedfishHttp);
        assert_eq!(address.origin(), "http://[fd00::7]:8000");
        assert_eq!(address.system_path().unwrap(), "/redfish/v1/Systems/a");
    }

    #[test]
    fn the_same_bmc_has_one_identity() {
        let same = ["redfish://BMC.example/", "redfish+https://bmc.example:443"];
        let ids: Vec<String> = same.iter().map(|t| t.parse::<BmcAddress>().unwrap().identity()).collect();
        assert_eq!(ids[0], ids[1]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<BmcAddress>().unwrap_err().to_string();
        assert!(error("10.0.0.7").contains("no scheme"));
        assert!(error("ipmi://10.0.0.7").contains("\"ipmi\""));
        assert!(error("redfish://").contains("malformed"));
        assert!(error("redfish://a:b@10.0.0.7").contains("credentials do not belong"));
    }

    #[test]
    fn fingerprints_are_read_with_or_without_colons() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(TlsTrust::Fingerprint(plain).fingerprint_bytes(), TlsTrust::Fingerprint(colons).fingerprint_bytes());
        assert_eq!(TlsTrust::Fingerprint("ab".into()).fingerprint_bytes(), None);
    }
}
