//! How a registry asks who we are: the header `WWW-Authenticate` (RFC 9110, section 11.6.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::credentials::Login;

/// One way to show who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request (RFC 7617).
    Basic,
    /// A token from a server that the registry trusts.
    Bearer {
        /// Where to get it.
        realm: String,
        /// For whom it is.
        service: Option<String>,
    },
}

impl Challenge {
    /// Those in one header.
    pub(super) fn read(header: &str) -> Vec<Challenge> {
        let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for item in items(header) {
            let (before, value) = match item.split_once('=') {
                Some((before, value)) => (before.trim(), Some(value.trim())),
                None => (item.as_str(), None),
            };
            // A scheme stands before its first parameter, with a space between, or alone.
            let (scheme, name) = match (before.split_once(' '), value) {
                (Some((scheme, name)), Some(_)) => (Some(scheme), name.trim()),
                (None, Some(_)) => (None, before),
                (_, None) => (Some(before), ""),
            };
            if let Some(scheme) = scheme {
                found.push((scheme.to_ascii_lowercase(), Vec::new()));
            }
            if let (Some((_, parameters)), Some(value)) = (found.last_mut(), value) {
                parameters.push((name.to_ascii_lowercase(), unquoted(value)));
            }
        }
        found.into_iter().filter_map(|(scheme, parameters)| Self::of(&scheme, &parameters)).collect()
    }

    fn of(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
        let get = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match scheme {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service") }),
            _ => None,
        }
    }
}

/// Splits at commas that are not in quotes.
fn items(header: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in header.chars() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ',' if !quoted => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        if let Some(last) = items.last_mut() {
            last.push(c);
        }
    }
    items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.to_owned() };
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        text.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    text
}

/// The value of the header `Authorization` for a login.
pub(super) fn basic(login: &Login) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (header, expected) in [
            ("Basic realm=\"Registry Realm\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            ("Bearer realm=https://a/t", vec![bearer("https://a/t", None)]),
            (
                "Negotiate, Bearer service=\"a \\\"b\\\", c\" , realm=\"https://a/t?x=1,2\", Basic realm=\"x\"",
                vec![bearer("https://a/t?x=1,2", Some("a \"b\", c")), Challenge::Basic],
            ),
            ("Bearer scope=\"x\"", vec![]),
            ("Digest realm=\"x\", nonce=\"y\"", vec![]),
            ("", vec![]),
            (",=,\"", vec![]),
        ] {
            assert_eq!(Challenge::read(header), expected, "{header}");
        }
    }
}
