//! Links. What a BMC puts into `@odata.id` is a stranger's input: it must be a path on the same origin, nothing else.

use std::fmt;

/// An absolute path on the BMC's own origin, for example `/redfish/v1/Systems/1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResourcePath(String);

impl ResourcePath {
    /// The service root (DSP0266 section 6.4).
    pub(crate) fn root() -> Self {
        ResourcePath("/redfish/v1/".into())
    }

    /// Reads a link. `None` for anything that is not a plain absolute path: another origin (`//host`, `http://…`), dot
    /// segments, query, fragment, backslash, white space or control characters.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let plain = text.starts_with('/')
            && !text.starts_with("//")
            && text.len() <= 2048
            && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '\\' | '?' | '#'))
            && text.split('/').all(|segment| segment != "." && segment != "..");
        plain.then(|| ResourcePath(text.to_owned()))
    }

    /// A link object: `{"@odata.id": "…"}`.
    pub(crate) fn link(value: &serde_json::Value) -> Option<Self> {
        Self::parse(value["@odata.id"].as_str()?)
    }

    /// The URL on this origin; `None` if a parser would see another origin in it after all.
    pub(crate) fn on(&self, origin: &url::Url) -> Option<url::Url> {
        let url = origin.join(&self.0).ok()?;
        (url.origin() == origin.origin()).then_some(url)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Equal but for a closing slash.
    pub(crate) fn same(&self, other: &ResourcePath) -> bool {
        self.0.trim_end_matches('/') == other.0.trim_end_matches('/')
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_plain_paths_are_links() {
        for good in ["/redfish/v1/Systems/1", "/redfish/v1/Systems/System.Embedded.1", "/redfish/v1/"] {
            assert_eq!(ResourcePath::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "redfish/v1",
            "//evil/redfish",
            "http://evil/",
            "/a/../b",
            "/a/./b",
            "/a\\b",
            "/a?b",
            "/a#b",
            "/a b",
            "/a\u{0}b",
            "\\\\evil",
            "/\\evil",
        ] {
            assert_eq!(ResourcePath::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_path_stays_on_its_origin() {
        let origin = url::Url::parse("https://10.0.0.7:8443").unwrap();
        let url = ResourcePath::parse("/redfish/v1").unwrap().on(&origin).unwrap();
        assert_eq!(url.as_str(), "https://10.0.0.7:8443/redfish/v1");
    }
}
