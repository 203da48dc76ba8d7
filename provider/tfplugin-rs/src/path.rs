//! Where in a configuration or state something is: `bmc.address`, `labels["rack"]`, `disks[0].size`.

use std::fmt;

use crate::{value::Value, wire};

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// An attribute of an object.
    Attribute(String),
    /// An element of a map.
    Key(String),
    /// An element of a list or tuple.
    Index(i64),
}

/// The way from the root of an object to one part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<Step>);

impl Path {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A top-level attribute.
    pub fn attr(name: &str) -> Self {
        Self::root().attribute(name)
    }

    /// Goes on to an attribute of the object here.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Self {
        self.then(Step::Attribute(name.to_owned()))
    }

    /// Goes on to an element of the map here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// Goes on to an element of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        // A list longer than i64::MAX elements does not fit in memory.
        self.then(Step::Index(i64::try_from(index).unwrap_or(i64::MAX)))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The steps, from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The first step alone: the top-level attribute that this path is in.
    #[must_use]
    pub fn first(&self) -> Self {
        Self(self.0.iter().take(1).cloned().collect())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The part of `value` this path leads to.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, Value::step)
    }

    /// The form that travels.
    pub fn to_wire(&self) -> wire::AttributePath {
        use wire::attribute_path::{Step as WireStep, step::Selector};
        let steps = self.0.iter().map(|step| {
            let selector = match step {
                Step::Attribute(name) => Selector::AttributeName(name.clone()),
                Step::Key(key) => Selector::ElementKeyString(key.clone()),
                Step::Index(index) => Selector::ElementKeyInt(*index),
            };
            WireStep { selector: Some(selector) }
        });
        wire::AttributePath { steps: steps.collect() }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Attribute(name) if position == 0 => f.write_str(name)?,
                Step::Attribute(name) => write!(f, ".{name}")?,
                Step::Key(key) => write!(f, "[{key:?}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_terraform() {
        let path = Path::attr("disks").index(0).attribute("labels").key("a b");
        assert_eq!(path.to_string(), "disks[0].labels[\"a b\"]");
        let disk = Value::object([("labels", Value::object([("a b", "x")]))]);
        let value = Value::object([("disks", Value::list([disk]))]);
        assert_eq!(path.find(&value).and_then(Value::as_str), Some("x"));
        assert_eq!(Path::attr("disks").index(1).find(&value), None);
    }
}
