//! Redfish resources as this crate reads them: tolerant of what is missing or of another type, strict about links.

pub(crate) mod inventory;
pub(crate) mod path;
pub(crate) mod system;
