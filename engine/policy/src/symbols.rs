//! Strings as numbers.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use vmetal_policy_sdk::Sym;

/// Strings as numbers, in the order in which they were first met. Zero is the empty string.
///
/// A decision's own strings lie over those of the fleet, which it shares and does not change. The texts lie one after the
/// other in one piece of memory: a fleet has tens of thousands of them, and an allocation for each would cost more than
/// everything else that is done with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Symbols {
    base: Option<Arc<Symbols>>,
    /// Own numbers, found by the hash of their text.
    numbers: HashTable<Sym>,
    hasher: DefaultHashBuilder,
    texts: String,
    /// Where each own text ends; it begins where the one before ends.
    ends: Vec<usize>,
}

impl Symbols {
    pub(crate) fn over(base: Arc<Symbols>) -> Self {
        Symbols { base: Some(base), ..Symbols::default() }
    }

    /// How many strings there are, the empty one aside.
    pub(crate) fn len(&self) -> usize {
        self.below() + self.ends.len()
    }

    fn below(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.len())
    }

    /// The number of a string, a new one if need be.
    pub(crate) fn sym(&mut self, text: &str) -> Sym {
        if let Some(known) = self.known(text) {
            return known;
        }
        self.texts.push_str(text);
        self.ends.push(self.texts.len());
        // Bounded: every string of an input that fits in memory is counted at most once.
        let number = Sym::try_from(self.len()).unwrap_or(Sym::MAX);
        let below = self.below();
        let Symbols { numbers, hasher, texts, ends, .. } = self;
        let hash = |sym: &Sym| hasher.hash_one(own(texts, ends, *sym as usize - 1 - below));
        numbers.insert_unique(hash(&number), number, hash);
        number
    }

    /// The number of a string, if it has one.
    pub(crate) fn known(&self, text: &str) -> Option<Sym> {
        if text.is_empty() {
            return Some(0);
        }
        let below = match &self.base {
            Some(base) => match base.known(text) {
                Some(known) => return Some(known),
                None => base.len(),
            },
            None => 0,
        };
        let same = |sym: &Sym| own(&self.texts, &self.ends, *sym as usize - 1 - below) == text;
        self.numbers.find(self.hasher.hash_one(text), same).copied()
    }

    /// The number of a string, or zero when no row has it.
    pub(crate) fn find(&self, text: &str) -> Sym {
        self.known(text).unwrap_or(0)
    }

    /// The string of a number.
    pub(crate) fn text(&self, sym: Sym) -> &str {
        let Some(index) = (sym as usize).checked_sub(1) else { return "" };
        match (&self.base, index.checked_sub(self.below())) {
            (Some(base), None) => base.text(sym),
            (_, at) => at.map_or("", |at| own(&self.texts, &self.ends, at)),
        }
    }
}

/// One of the texts that lie one after the other; empty where there is none.
fn own<'a>(texts: &'a str, ends: &[usize], at: usize) -> &'a str {
    let begin = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    ends.get(at).and_then(|end| texts.get(begin..*end)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_equal_exactly_when_their_strings_are() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.sym("a"), symbols.sym("b"));
        assert_eq!((symbols.sym("a"), symbols.sym(""), symbols.find("c")), (a, 0, 0));
        assert_ne!(a, b);
        assert_eq!((symbols.text(b), symbols.text(0), symbols.text(99)), ("b", "", ""));
    }

    #[test]
    fn symbols_over_others_go_on_where_those_end() {
        let mut base = Symbols::default();
        let a = base.sym("a");
        let mut over = Symbols::over(Arc::new(base));
        let b = over.sym("b");
        assert_eq!((over.sym("a"), over.find("b"), b), (a, b, a + 1));
        assert_eq!((over.text(a), over.text(b), over.len()), ("a", "b", 2));
    }
}
