//! The `timeouts` attribute: how long Terraform waits. The engine's work is not limited by it.

use std::time::Duration;

use tfplugin::{
    Attribute, Type, Value,
    schema::{Nesting, Usage, Validator},
};

use crate::convert::duration;

/// How long each operation may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) create: Duration,
    pub(crate) update: Duration,
    pub(crate) delete: Duration,
}

impl Timeouts {
    /// The same for all, minutes.
    pub(crate) const fn minutes(minutes: u64) -> Self {
        let span = Duration::from_secs(minutes * 60);
        Self { create: span, update: span, delete: span }
    }

    /// What the user set, over these defaults.
    pub(crate) fn with(self, value: &Value) -> Self {
        let or =
            |name: &str, default| value.attr(name).as_str().and_then(|text| duration(text).ok()).unwrap_or(default);
        Self { create: or("create", self.create), update: or("update", self.update), delete: or("delete", self.delete) }
    }

    /// The attribute.
    pub(crate) fn attribute(self) -> Attribute {
        let one = |what: &str, default: Duration| {
            Attribute::optional(Type::String)
                .validate(Validator::string("Invalid duration", |text| duration(text).map(drop)))
                .describe(format!("For {what}; default {}m.", default.as_secs() / 60))
        };
        let all = [
            ("create", one("the creation", self.create)),
            ("update", one("a change", self.update)),
            ("delete", one("the destruction", self.delete)),
        ];
        Attribute::nested(Nesting::Single, Usage::Optional, all).describe(
            "How long Terraform waits, such as `90m` or `1h30m`. When time is up the engine goes on by itself and the next \
             apply goes on waiting.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_wins() {
        let set = Value::object([("create", Value::from("2h")), ("delete", Value::unknown())]);
        let timeouts = Timeouts::minutes(90).with(&set);
        assert_eq!(timeouts.create, Duration::from_secs(7200));
        assert_eq!((timeouts.update, timeouts.delete), (Duration::from_secs(5400), Duration::from_secs(5400)));
    }
}
