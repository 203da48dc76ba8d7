//! Numbers of the PCI configuration space, as everybody writes them: hexadecimal, without a prefix.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of so many hexadecimal digits. Written with all of them in lower case; read in any case.
///
/// A fleet has tens of them in every host: as numbers they take four bytes each and no memory of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Hex<const DIGITS: usize>(u32);

/// A vendor or device id (PCI Local Bus Specification 3.0, section 6.2.1): four digits, `10de`.
pub type PciId = Hex<4>;

/// A class code (the same section): six digits for base class, subclass and programming interface, `030200`.
pub type PciClass = Hex<6>;

/// Text that is not a number of so many hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a PCI number; expected {digits} hexadecimal digits")]
pub struct HexError {
    text: String,
    digits: usize,
}

impl PciId {
    /// An id.
    pub const fn new(id: u16) -> Self {
        Hex(id as u32)
    }
}

impl PciClass {
    /// A class code.
    pub const fn new(base: u8, subclass: u8, interface: u8) -> Self {
        Hex(u32::from_be_bytes([0, base, subclass, interface]))
    }

    /// The base class; 03 is a display controller, 12 a processing accelerator.
    pub const fn base(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// What kind of its base class; `02` of a display controller is a 3D controller.
    pub const fn subclass(self) -> u8 {
        self.0.to_be_bytes()[2]
    }
}

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl<const DIGITS: usize> fmt::Debug for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<const DIGITS: usize> FromStr for Hex<DIGITS> {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u32::from_str_radix(text, 16).ok()).flatten();
        number.map(Hex).ok_or_else(|| HexError { text: text.to_owned(), digits: DIGITS })
    }
}

impl<const DIGITS: usize> TryFrom<String> for Hex<DIGITS> {
    type Error = HexError;
    fn try_from(text: String) -> Result<Self, HexError> {
        text.parse()
    }
}

impl<const DIGITS: usize> From<Hex<DIGITS>> for String {
    fn from(number: Hex<DIGITS>) -> String {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn all_digits_are_written_and_read() {
        let vendor: PciId = "10DE".parse().unwrap();
        assert_eq!((vendor, vendor.to_string().as_str()), (PciId::new(0x10de), "10de"));
        assert_eq!(PciId::new(0xe).to_string(), "000e");
        let class: PciClass = serde_json::from_str("\"030200\"").unwrap();
        assert_eq!((class.base(), class.subclass(), class), (3, 2, PciClass::new(3, 2, 0)));
        assert_eq!(serde_json::to_string(&class).unwrap(), "\"030200\"");
    }

    #[test]
    fn other_text_is_refused() {
        for wrong in ["", "10d", "10dee", "0x10", "+10d", "10dg", "é1d"] {
            let error = wrong.parse::<PciId>().unwrap_err().to_string();
            assert_eq!(error, format!("{wrong:?} is not a PCI number; expected 4 hexadecimal digits"));
        }
    }
}
