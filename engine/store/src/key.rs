//! Names of objects, and ways to point at several of them.

use std::borrow::Cow;
use std::fmt;

/// The kind of an object, for example `host`. Kinds are few and mostly constants, so the usual one costs no allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// A kind known at compile time.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The kind as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Kind {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Kind {
    fn from(name: String) -> Self {
        Self(Cow::Owned(name))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one object: its kind and a name unique within the kind. Ordered by kind, then name, bytewise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: impl Into<Kind>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which objects (or whose events) a reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Everything in the store.
    All,
    /// Every object of one kind.
    Kind(Kind),
    /// Every object of one kind whose name starts with a prefix.
    Prefix(Kind, String),
    /// One object.
    Key(Key),
}

impl Selector {
    /// Whether the selector points at this key.
    pub fn matches(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Kind(kind) => key.kind == *kind,
            Self::Prefix(kind, prefix) => key.kind == *kind && key.name.starts_with(prefix.as_str()),
            Self::Key(wanted) => key == wanted,
        }
    }
}

impl Selector {
    /// The kind that is selected, or nothing if that is all of them.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::All => "",
            Self::Kind(kind) | Self::Prefix(kind, _) => kind.as_str(),
            Self::Key(key) => key.kind.as_str(),
        }
    }

    /// The first text after all that start with the selector's prefix, in byte order; `None`: there is no such text.
    pub(crate) fn prefix_end(&self) -> Option<String> {
        let Self::Prefix(_, prefix) = self else { return None };
        let mut chars: Vec<char> = prefix.chars().collect();
        while let Some(last) = chars.pop() {
            // UTF-8 sorts like code points; those of surrogates are not characters and are stepped over.
            if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
                chars.push(next);
                return Some(chars.into_iter().collect());
            }
        }
        None
    }
}

impl From<Key> for Selector {
    fn from(key: Key) -> Self {
        Self::Key(key)
    }
}

impl From<Kind> for Selector {
    fn from(kind: Kind) -> Self {
        Self::Kind(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        let end = |prefix: &str| Selector::Prefix("host".into(), prefix.to_owned()).prefix_end();
        assert_eq!(end("rack-1"), Some("rack-2".to_owned()));
        assert_eq!(end("a\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(end("\u{d7ff}"), Some("\u{e000}".to_owned()));
        assert_eq!(end("\u{10ffff}"), None);
        assert_eq!(end(""), None);
    }
}
