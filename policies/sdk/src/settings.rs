//! Settings: JSON text that the operator wrote, as a type of the policy.
//!
//! [`settings!`](crate::settings!) declares them once: the type, what each is when it is left out, and the JSON Schema by
//! which operators, editors and plans know them. A derived schema (schemars) would cost every component a hundred crates'
//! worth of code; policies have a handful of plain settings.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads settings; without any, the type's defaults. Give a type that is not declared by [`settings!`](crate::settings!)
/// `#[serde(default, deny_unknown_fields)]`, so that every setting is optional and a mistyped one is refused.
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

/// A type that one setting can have.
pub trait Setting {
    /// The keywords of JSON Schema that describe its values, without braces: `"type":"boolean"`.
    fn schema() -> String;
}

/// Settings that describe themselves; [`settings!`](crate::settings!) implements it.
pub trait Described: Default + Serialize {
    /// What can be set, in the order in which it was declared.
    const PROPERTIES: &'static [Property];
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// The lines of its documentation.
    pub doc: &'static [&'static str],
    /// The keywords that describe its values.
    pub schema: fn() -> String,
}

/// No settings at all.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct None {}

impl Described for None {
    const PROPERTIES: &'static [Property] = &[];
}

/// The JSON Schema (draft 2020-12) of settings. Written in the order of declaration, so that component and native twin give
/// the same text.
pub fn schema<T: Described>() -> String {
    // Plain data; making JSON of it cannot fail.
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let property = |one: &Property| {
        let mut keywords = vec![(one.schema)()];
        let doc: Vec<&str> = one.doc.iter().map(|line| line.trim()).collect();
        if !doc.is_empty() {
            keywords.push(format!("\"description\":{}", quoted(&doc.join(" "))));
        }
        keywords.push(format!("\"default\":{}", defaults[one.name]));
        format!("{}:{{{}}}", quoted(one.name), keywords.join(","))
    };
    let properties: Vec<String> = T::PROPERTIES.iter().map(property).collect();
    format!(
        "{{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"type\":\"object\",\"properties\":{{{}}},\
         \"additionalProperties\":false}}",
        properties.join(",")
    )
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {
        $(impl Setting for $type {
            fn schema() -> String {
                format!("\"type\":\"integer\",\"minimum\":{},\"maximum\":{}", <$type>::MIN, <$type>::MAX)
            }
        })*
    };
}
whole_numbers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Setting for bool {
    fn schema() -> String {
        "\"type\":\"boolean\"".to_owned()
    }
}

impl Setting for String {
    fn schema() -> String {
        "\"type\":\"string\"".to_owned()
    }
}

impl<T: Setting> Setting for Option<T> {
    fn schema() -> String {
        format!("\"anyOf\":[{{{}}},{{\"type\":\"null\"}}]", T::schema())
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn schema() -> String {
        format!("\"type\":\"array\",\"items\":{{{}}}", T::schema())
    }
}

/// Declares the settings of a policy: a struct that is read from JSON, each field optional with its default, unknown ones
/// refused; and its JSON Schema, [`settings::schema`](crate::settings::schema).
///
/// ```
/// vmetal_policy_sdk::settings! {
///     /// What an operator can set.
///     pub struct Settings {
///         /// Points for a host that is on already.
///         pub standby: u32 = 300,
///         /// Hosts with less free memory are left out, in GiB.
///         pub floor: Option<u64> = None,
///     }
/// }
/// use vmetal_policy_sdk::settings;
///
/// let read: Settings = settings::read(r#"{"floor": 16}"#).unwrap();
/// assert_eq!((read.standby, read.floor), (300, Some(16)));
/// assert!(settings::read::<Settings>(r#"{"standbye": 1}"#).is_err());
/// assert!(settings::schema::<Settings>().contains(r#""description":"Points for a host that is on already.","default":300"#));
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[doc = $doc:literal])* $field_vis:vis $field:ident: $type:ty = $default:expr),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, $crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(default, deny_unknown_fields, crate = "vmetal_policy_sdk::serde")]
        $vis struct $name {
            $($(#[doc = $doc])* $field_vis $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }

        impl $crate::settings::Described for $name {
            const PROPERTIES: &'static [$crate::settings::Property] = &[$($crate::settings::Property {
                name: stringify!($field),
                doc: &[$($doc),*],
                schema: <$type as $crate::settings::Setting>::schema,
            }),*];
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    // The macro names this crate as policies do.
    extern crate self as vmetal_policy_sdk;

    crate::settings! {
        struct Mine {
            /// How many,
            /// at most.
            most: u8 = 7,
            name: String = "a \"b\"".to_owned(),
            flags: Vec<bool> = vec![],
            floor: Option<i64> = Option::None,
        }
    }

    #[test]
    fn settings_are_read_with_their_defaults_and_unknown_ones_are_refused() {
        let mine: Mine = read(r#"{"floor": -1}"#).unwrap_or_default();
        assert_eq!((mine.most, mine.name.as_str(), mine.floor), (7, "a \"b\"", Some(-1)));
        for wrong in [r#"{"most": 256}"#, r#"{"other": 1}"#, "[", "null"] {
            assert_eq!(read::<Mine>(wrong).map_err(|messages| messages.len()), Err(1), "{wrong}");
        }
    }

    #[test]
    fn the_schema_is_json_and_says_types_defaults_and_words() {
        let schema: serde_json::Value = serde_json::from_str(&schema::<Mine>()).unwrap_or_default();
        let properties = &schema["properties"];
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(
            properties["most"],
            serde_json::json!({
                "type": "integer", "minimum": 0, "maximum": 255, "description": "How many, at most.", "default": 7
            })
        );
        assert_eq!(properties["name"]["default"], "a \"b\"");
        assert_eq!(properties["flags"]["items"]["type"], "boolean");
        assert_eq!(properties["floor"]["anyOf"][1]["type"], "null");
        let none: serde_json::Value = serde_json::from_str(&super::schema::<super::None>()).unwrap_or_default();
        assert_eq!(none["properties"], serde_json::json!({}));
    }
}
