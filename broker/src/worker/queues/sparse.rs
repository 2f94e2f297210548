//! A map that has nothing in it, as a rule.

use std::collections::BTreeMap;

/// A map that takes 8 bytes as long as it is empty.
#[derive(Debug)]
#[allow(clippy::box_collection)] // the tree by itself takes 24, and thousands are empty
pub(super) struct SparseMap<K, V>(Option<Box<BTreeMap<K, V>>>);

impl<K, V> Default for SparseMap<K, V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Ord, V> SparseMap<K, V> {
    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.as_ref()?.get(key)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.as_mut()?.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.0.get_or_insert_default().insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let map = self.0.as_mut()?;
        let removed = map.remove(key);
        if map.is_empty() {
            self.0 = None;
        }
        removed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().flat_map(|map| map.iter())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_without_anything_in_it_takes_eight_bytes_whatever_was_in_it() {
        let mut map = SparseMap::default();
        map.insert(1, "one");
        map.insert(2, "two");
        assert_eq!((map.get(&1), map.keys().count()), (Some(&"one"), 2));
        assert_eq!(
            (map.remove(&3), map.remove(&1), map.remove(&2)),
            (None, Some("one"), Some("two"))
        );
        assert!(map.0.is_none(), "nor a node of a tree");
        assert_eq!(size_of_val(&map), 8);
    }
}
