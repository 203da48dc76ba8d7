//! Conditions on labels, as Kubernetes node selectors spell them.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// One or more for `In` and `NotIn`, none for `Exists` and `DoesNotExist`, one integer for `Gt` and `Lt`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The value is one of the given ones.
    In,
    /// The label is absent or its value is none of the given ones.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    #[serde(alias = "NotExists")]
    DoesNotExist,
    /// The value is an integer greater than the given one.
    Gt,
    /// The value is an integer less than the given one.
    Lt,
}

impl Requirement {
    /// True when the labels satisfy the requirement. A value that is no integer never satisfies `Gt` or `Lt`.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let integers = || Some((value?.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => integers().is_some_and(|(have, bound)| have > bound),
            Operator::Lt => integers().is_some_and(|(have, bound)| have < bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { key, values, .. } = self;
        let values = values.join(", ");
        match self.operator {
            Operator::In => write!(f, "{key} in [{values}]"),
            Operator::NotIn => write!(f, "{key} not in [{values}]"),
            Operator::Exists => write!(f, "{key} exists"),
            Operator::DoesNotExist => write!(f, "{key} does not exist"),
            Operator::Gt => write!(f, "{key} > {values}"),
            Operator::Lt => write!(f, "{key} < {values}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(operator: Operator, values: &[&str], label: Option<&str>) -> bool {
        let labels = label.map(|v| ("k".to_owned(), v.to_owned())).into_iter().collect();
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        Requirement { key: "k".into(), operator, values }.matches(&labels)
    }

    #[test]
    fn every_operator_on_present_absent_and_odd_values() {
        assert!(holds(Operator::In, &["a", "b"], Some("b")) && !holds(Operator::In, &["a"], None));
        assert!(holds(Operator::NotIn, &["a"], None) && !holds(Operator::NotIn, &["a"], Some("a")));
        assert!(holds(Operator::Exists, &[], Some("")) && !holds(Operator::Exists, &[], None));
        assert!(holds(Operator::DoesNotExist, &[], None) && !holds(Operator::DoesNotExist, &[], Some("x")));
        assert!(holds(Operator::Gt, &["8"], Some("16")) && !holds(Operator::Gt, &["8"], Some("8")));
        assert!(holds(Operator::Lt, &["8"], Some("-1")) && !holds(Operator::Lt, &["8"], Some("many")));
    }
}
