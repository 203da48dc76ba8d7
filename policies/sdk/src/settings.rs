//! Settings: JSON text that the operator wrote, as a type of the policy.

use serde::de::DeserializeOwned;

/// Reads settings; without any, the type's defaults. Give the type `#[serde(default, deny_unknown_fields)]`, so that every
/// setting is optional and a mistyped one is refused.
///
/// # Errors
/// One message that says what is wrong and where.
pub fn read<T: DeserializeOwned + Default>(json: &str) -> Result<T, Vec<String>> {
    if json.trim().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(json).map_err(|error| vec![error.to_string()])
}

/// The same for settings that were accepted before, as [`crate::Context::settings`] are.
pub fn accepted<T: DeserializeOwned + Default>(json: &str) -> T {
    read(json).unwrap_or_default()
}
