//! The values Terraform passes around: null, unknown and known, of any type.
//!
//! A [`Value`] does not carry its type: a list, a set and a tuple are all [`Value::List`], a map and an object are both
//! [`Value::Map`]. The schema says which is meant whenever that matters (encoding, comparing sets). The one exception is
//! [`Value::Dynamic`], whose type is part of the data because the schema leaves it open.
//!
//! Three-way logic is explicit. `null` means "not set", `unknown` means "set, but not known before apply". The accessors
//! that return `Option` ([`Value::as_str`] and its kin) answer `None` for both; code that must tell them apart asks
//! [`Value::is_null`] and [`Value::is_unknown`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{codec::Type, path::Step};

/// Names to values: an object or a map.
pub type Map = BTreeMap<String, Value>;

static NULL: Value = Value::Null;

/// One Terraform value of any type.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Not set.
    #[default]
    Null,
    /// Will be known after apply; refinements say what can be promised already.
    Unknown(Refinements),
    /// A boolean.
    Bool(bool),
    /// A number of any size.
    Number(Number),
    /// A string.
    String(String),
    /// A list, set or tuple.
    List(Vec<Value>),
    /// A map or object.
    Map(Map),
    /// A value in a place whose type is open, with the type it has.
    Dynamic(Box<(Type, Value)>),
}

impl Value {
    /// An unknown value about which nothing is promised.
    pub fn unknown() -> Self {
        Self::Unknown(Refinements::default())
    }

    /// An object from names and values.
    pub fn object<K: Into<String>, V: Into<Value>>(fields: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Map(fields.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// A list from its elements.
    pub fn list<V: Into<Value>>(items: impl IntoIterator<Item = V>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether this is unknown as a whole.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Whether this is neither null nor unknown as a whole (parts of it may still be unknown).
    pub fn is_known(&self) -> bool {
        !self.is_null() && !self.is_unknown()
    }

    /// Whether no part of this is unknown.
    pub fn is_wholly_known(&self) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::List(items) => items.iter().all(Self::is_wholly_known),
            Self::Map(map) => map.values().all(Self::is_wholly_known),
            Self::Dynamic(inner) => inner.1.is_wholly_known(),
            _ => true,
        }
    }

    /// The string, if this is a known one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if this is a known one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The number, if this is a known one.
    pub fn as_number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The number as an `i64`, if it is a known one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(Number::Int(int)) => Some(*int),
            _ => None,
        }
    }

    /// The elements, if this is a known list, set or tuple.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if this is a known map or object.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The attribute of an object; null when this is no object or has no such attribute.
    pub fn attr(&self, name: &str) -> &Value {
        self.as_map().and_then(|map| map.get(name)).unwrap_or(&NULL)
    }

    /// Sets an attribute; anything that is not an object becomes one first.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(Map::new());
        }
        if let Self::Map(map) = self {
            map.insert(name.to_owned(), value.into());
        }
    }

    /// The part of this value one step further down; `None` where there is nothing.
    pub fn step(&self, step: &Step) -> Option<&Value> {
        match (self, step) {
            (Self::Map(map), Step::Attribute(name) | Step::Key(name)) => map.get(name),
            (Self::List(items), Step::Index(index)) => usize::try_from(*index).ok().and_then(|i| items.get(i)),
            (Self::Dynamic(inner), step) => inner.1.step(step),
            _ => None,
        }
    }

    /// A copy in which every unknown part is null: what can be stored when nothing more is known.
    pub fn without_unknowns(&self) -> Value {
        match self {
            Self::Unknown(_) => Self::Null,
            Self::List(items) => Self::List(items.iter().map(Self::without_unknowns).collect()),
            Self::Map(map) => Self::Map(map.iter().map(|(k, v)| (k.clone(), v.without_unknowns())).collect()),
            Self::Dynamic(inner) => {
                if inner.1.is_unknown() {
                    Self::Null
                } else {
                    Self::Dynamic(Box::new((inner.0.clone(), inner.1.without_unknowns())))
                }
            }
            other => other.clone(),
        }
    }

    /// Whether two values are equal when refinements of unknowns are ignored and, where `ty` says so, order in sets.
    pub fn equivalent(&self, other: &Value, ty: &Type) -> bool {
        match (self, other, ty) {
            (Self::Unknown(_), Self::Unknown(_), _) => true,
            (Self::List(a), Self::List(b), Type::Set(element)) => same_set(a, b, element),
            (Self::List(a), Self::List(b), Type::List(element)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.equivalent(y, element))
            }
            (Self::List(a), Self::List(b), Type::Tuple(types)) => {
                a.len() == b.len() && a.iter().zip(b).zip(types).all(|((x, y), t)| x.equivalent(y, t))
            }
            (Self::Map(a), Self::Map(b), Type::Map(element)) => {
                a.len() == b.len() && a.iter().all(|(k, x)| b.get(k).is_some_and(|y| x.equivalent(y, element)))
            }
            (Self::Map(_), Self::Map(_), Type::Object(types)) => {
                types.iter().all(|(name, t)| self.attr(name).equivalent(other.attr(name), t))
            }
            (Self::Dynamic(a), Self::Dynamic(b), _) => a.0 == b.0 && a.1.equivalent(&b.1, &a.0),
            _ => self == other,
        }
    }
}

/// Multiset equality: every element has its own partner.
fn same_set(a: &[Value], b: &[Value], element: &Type) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut taken = vec![false; b.len()];
    a.iter().all(|x| {
        let partner = b.iter().enumerate().position(|(i, y)| !taken[i] && x.equivalent(y, element));
        if let Some(index) = partner {
            taken[index] = true;
        }
        partner.is_some()
    })
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}
impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Number(Number::Int(int))
    }
}
impl From<u64> for Value {
    fn from(int: u64) -> Self {
        Self::Number(Number::from_u64(int))
    }
}
impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Self::Number(Number::from_f64(float))
    }
}
impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}
impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}
impl From<BTreeMap<String, String>> for Value {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self::object(map)
    }
}
impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(items: Vec<V>) -> Self {
        Self::list(items)
    }
}
impl From<BTreeSet<String>> for Value {
    fn from(items: BTreeSet<String>) -> Self {
        Self::list(items)
    }
}
impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A number without loss: Terraform's numbers have 512 bits, so the widest ones stay decimal text.
///
/// Build one with the constructors: they choose the one representation a number has, so that equality is equality of
/// numbers (`1` and `1.0` are the same [`Number::Int`]).
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// A whole number that fits in 64 bits with sign.
    Int(i64),
    /// A whole number above `i64::MAX` that fits in 64 bits.
    UInt(u64),
    /// A binary64 number that is not one of the above.
    Float(f64),
    /// Canonical decimal text (`-123.45e6` style) of a number no other variant holds exactly.
    Decimal(String),
}

impl Number {
    /// From an unsigned number.
    pub fn from_u64(int: u64) -> Self {
        i64::try_from(int).map_or(Self::UInt(int), Self::Int)
    }

    /// From a float; whole numbers within 64 bits become integers.
    pub fn from_f64(float: f64) -> Self {
        // Both bounds are exactly representable; the upper ones are exclusive because MAX itself is not.
        const I64_END: f64 = 9_223_372_036_854_775_808.0;
        const U64_END: f64 = 18_446_744_073_709_551_616.0;
        if float.fract() == 0.0 {
            if (-I64_END..I64_END).contains(&float) {
                return Self::Int(float as i64);
            }
            if (I64_END..U64_END).contains(&float) {
                return Self::UInt(float as u64);
            }
        }
        Self::Float(float)
    }

    /// From decimal text; `None` if it is not a number. The result is exact.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(int) = text.parse::<i64>() {
            return Some(Self::Int(int));
        }
        if let Ok(int) = text.parse::<u64>() {
            return Some(Self::from_u64(int));
        }
        let exact = Decimal::parse(text)?;
        if let Some(whole) = exact.whole() {
            return Some(whole);
        }
        // A float stands for the text only if its shortest form names the very same decimal.
        let float: f64 = text.parse().ok()?;
        if float.is_finite() && Decimal::parse(&float.to_string()).as_ref() == Some(&exact) {
            return Some(Self::from_f64(float));
        }
        Some(Self::Decimal(exact.to_string()))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(int) => int.fmt(f),
            Self::UInt(int) => int.fmt(f),
            Self::Float(float) => float.fmt(f),
            Self::Decimal(text) => f.write_str(text),
        }
    }
}

/// Sign, digits without leading or trailing zeros, and a power of ten: one form per number.
#[derive(PartialEq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_end_matches('0');
        let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
        let exponent = exponent.checked_add(dropped)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let significant = significant.trim_start_matches('0');
        if significant.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        Some(Self { negative, digits: significant.to_owned(), exponent })
    }

    /// The number as an integer, if it is one that fits in 64 bits.
    fn whole(&self) -> Option<Number> {
        if self.digits.is_empty() {
            return Some(Number::Int(0));
        }
        let zeros = usize::try_from(self.exponent).ok().filter(|zeros| *zeros <= 20)?;
        let text = format!("{}{}{}", if self.negative { "-" } else { "" }, self.digits, "0".repeat(zeros));
        text.parse::<i64>().map(Number::Int).or_else(|_| text.parse::<u64>().map(Number::from_u64)).ok()
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.negative { "-" } else { "" }, self.digits)?;
        if self.exponent == 0 { Ok(()) } else { write!(f, "e{}", self.exponent) }
    }
}

/// What is promised about an unknown value. The promise must hold once the value is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refinements {
    /// `Some(false)`: certainly not null.
    pub null: Option<bool>,
    /// A string that begins with this.
    pub prefix: Option<String>,
    /// A number at least this; inclusive or not.
    pub lower: Option<(Number, bool)>,
    /// A number at most this; inclusive or not.
    pub upper: Option<(Number, bool)>,
    /// A collection with at least this many elements.
    pub min_length: Option<u64>,
    /// A collection with at most this many elements.
    pub max_length: Option<u64>,
}

impl Refinements {
    /// Certainly not null.
    pub fn not_null() -> Self {
        Self { null: Some(false), ..Self::default() }
    }

    /// Whether nothing is promised.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a value keeps the promise, as far as 64-bit numbers can tell.
    pub fn admits(&self, value: &Value) -> bool {
        if value.is_null() {
            return self.null != Some(false);
        }
        match value {
            Value::String(text) => self.prefix.as_ref().is_none_or(|prefix| text.starts_with(prefix.as_str())),
            Value::List(items) => self.admits_length(items.len()),
            Value::Map(map) => self.admits_length(map.len()),
            _ => true,
        }
    }

    fn admits_length(&self, length: usize) -> bool {
        let length = length as u64;
        self.min_length.is_none_or(|min| min <= length) && self.max_length.is_none_or(|max| length <= max)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        assert_eq!(Number::from_f64(1.0), Number::Int(1));
        assert_eq!(Number::parse("1.0"), Some(Number::Int(1)));
        assert_eq!(Number::parse("1e3"), Some(Number::Int(1000)));
        assert_eq!(Number::parse("-0"), Some(Number::Int(0)));
        assert_eq!(Number::parse("18446744073709551615"), Some(Number::UInt(u64::MAX)));
        assert_eq!(Number::parse("0.1"), Some(Number::Float(0.1)));
        assert_eq!(Number::parse("00.10"), Some(Number::Float(0.1)));
        assert_eq!(
            Number::parse("0.12345678901234567890123456789"),
            Some(Number::Decimal("12345678901234567890123456789e-29".into()))
        );
        assert_eq!(Number::parse("36893488147419103232"), Number::parse("3.6893488147419103232e19"));
        for bad in ["", "-", "x", "1x", "1e", ".", "--1", "NaN", "inf"] {
            assert_eq!(Number::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sets_are_compared_without_order() {
        let ty = Type::Set(Box::new(Type::String));
        let one = Value::list(["a", "b", "b"]);
        assert!(one.equivalent(&Value::list(["b", "a", "b"]), &ty));
        assert!(!one.equivalent(&Value::list(["b", "a", "a"]), &ty));
        assert!(!one.equivalent(&Value::list(["b", "a", "b"]), &Type::List(Box::new(Type::String))));
    }

    #[test]
    fn absent_attributes_read_as_null() {
        let mut value = Value::object([("a", 1i64)]);
        assert!(value.attr("b").is_null());
        assert!(value.attr("a").attr("deeper").is_null());
        value.set("b", Value::unknown());
        assert!(!value.is_wholly_known());
        assert!(value.without_unknowns().attr("b").is_null());
    }
}
