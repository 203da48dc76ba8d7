//! Link-layer addresses.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An EUI-48 address. Written as lower-case pairs with colons; read with colons or hyphens in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct MacAddr(pub [u8; 6]);

/// Text that is not a unicast EUI-48 address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six hexadecimal pairs.
    #[error("{0:?} is not a MAC address; expected six hexadecimal pairs such as 52:54:00:12:34:56")]
    Malformed(String),
    /// The group bit is set, or the address is all zero: no network card has it.
    #[error("{0} is a multicast, broadcast or null address; a network card's own address is expected")]
    NotUnicast(MacAddr),
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for MacAddr {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError::Malformed(text.to_owned());
        let mut bytes = [0u8; 6];
        let mut pairs = text.trim().split([':', '-']);
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or_else(malformed)?;
            [*byte] = hex::decode(pair).ok().and_then(|b| b.try_into().ok()).ok_or_else(malformed)?;
        }
        if pairs.next().is_some() {
            return Err(malformed());
        }
        let mac = MacAddr(bytes);
        if bytes[0] & 1 == 1 || bytes == [0; 6] { Err(MacError::NotUnicast(mac)) } else { Ok(mac) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reads_what_people_write_and_writes_one_form() {
        for text in ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01", " 52:54:00:ab:cd:01 "] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), "52:54:00:ab:cd:01");
        }
        for text in ["", "52:54", "52:54:00:ab:cd:01:02", "52:54:00:ab:cd:0g", "5254.00ab.cd01", "+1:54:00:ab:cd:01"] {
            assert!(matches!(text.parse::<MacAddr>(), Err(MacError::Malformed(_))), "{text}");
        }
        assert!(matches!("01:00:5e:00:00:01".parse::<MacAddr>(), Err(MacError::NotUnicast(_))));
    }
}
