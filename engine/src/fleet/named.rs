//! Many objects by their names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vmetal_model::Object;

/// A table for as many objects as there are hosts. What happens with every commit, finding and replacing, takes constant time;
/// the order of the names is kept beside it and changes only when objects come and go.
pub(super) struct Named<Spec, Status> {
    places: HashMap<Arc<str>, usize>,
    order: BTreeMap<Arc<str>, usize>,
    objects: Vec<Arc<Object<Spec, Status>>>,
}

impl<Spec, Status> Default for Named<Spec, Status> {
    fn default() -> Self {
        Named { places: HashMap::new(), order: BTreeMap::new(), objects: Vec::new() }
    }
}

impl<Spec, Status> Named<Spec, Status> {
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Object<Spec, Status>>> {
        self.places.get(name).map(|place| &self.objects[*place])
    }

    /// Puts an object in the place of the one of its name.
    pub(super) fn put(&mut self, object: Arc<Object<Spec, Status>>) {
        if let Some(place) = self.places.get(object.name()) {
            self.objects[*place] = object;
            return;
        }
        let (name, place) = (Arc::<str>::from(object.name()), self.objects.len());
        self.places.insert(Arc::clone(&name), place);
        self.order.insert(name, place);
        self.objects.push(object);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(place) = self.places.remove(name) else { return };
        self.order.remove(name);
        self.objects.swap_remove(place);
        // The last one has moved into the gap.
        if let Some(moved) = self.objects.get(place) {
            let known = [self.places.get_mut(moved.name()), self.order.get_mut(moved.name())];
            known.into_iter().flatten().for_each(|of_moved| *of_moved = place);
        }
    }

    /// All, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Object<Spec, Status>>)> {
        self.order.iter().map(|(name, place)| (&**name, &self.objects[*place]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use vmetal_model::Timestamp;

    use super::*;

    fn object(name: &str, spec: u32) -> Arc<Object<u32, ()>> {
        let metadata = crate::ledger::new_metadata(name, [0; 16], Timestamp::UNIX_EPOCH);
        Arc::new(Object { metadata, spec, status: () })
    }

    #[test]
    fn it_is_a_map_in_order_whatever_comes_and_goes() {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let (mut table, mut expected) = (Named::default(), BTreeMap::new());
        for step in 0..5_000 {
            let name = format!("h{}", random.random_range(0..60));
            if random.random_bool(0.6) {
                table.put(object(&name, step));
                expected.insert(name.clone(), step);
            } else {
                table.remove(&name);
                expected.remove(&name);
            }
            assert_eq!(table.get(&name).map(|o| o.spec), expected.get(&name).copied(), "seed {seed}, step {step}");
            assert_eq!(table.len(), expected.len(), "seed {seed}, step {step}");
            assert!(
                table.iter().map(|(n, o)| (n, o.spec)).eq(expected.iter().map(|(n, s)| (n.as_str(), *s))),
                "seed {seed}, step {step}"
            );
        }
    }
}
