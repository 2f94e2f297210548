//! A map for what there is mostly little of, in order of its keys.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Entries that are kept in one allocation of their size.
const FEW_MAX: usize = 32;

/// A million sessions with a subscription each, and a message, are a million of these: a tree would
/// take room for eleven entries for every one.
#[derive(Debug)]
pub(super) enum FewMap<K, V> {
    /// By key.
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for FewMap<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Ord, V> FewMap<K, V> {
    /// Enters a value, and gives back the one it replaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let few = match self {
            Self::Few(few) => few,
            Self::Many(many) => return many.insert(key, value),
        };
        match few.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut few[at].1, value)),
            Err(at) if few.len() < FEW_MAX => {
                if few.is_empty() {
                    few.reserve_exact(1);
                }
                few.insert(at, (key, value));
                None
            }
            Err(_) => {
                let mut many: BTreeMap<K, V> = std::mem::take(few).into_iter().collect();
                let replaced = many.insert(key, value);
                *self = Self::Many(many);
                replaced
            }
        }
    }

    /// Takes a value out.
    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        match self {
            Self::Few(few) => {
                let at = few.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok()?;
                Some(few.remove(at).1)
            }
            Self::Many(many) => many.remove(key),
        }
    }

    /// Everything, by key.
    pub(super) fn into_vec(self) -> Vec<(K, V)> {
        match self {
            Self::Few(few) => few,
            Self::Many(many) => many.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_what_a_tree_does_however_much_is_in_it() {
        let (mut map, mut tree) = (FewMap::default(), BTreeMap::new());
        let mut state = 1u64;
        for step in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (state >> 33) % (1 + step / 100);
            if state.is_multiple_of(3) {
                assert_eq!(map.remove(&key), tree.remove(&key));
            } else {
                assert_eq!(map.insert(key, step), tree.insert(key, step));
            }
        }
        assert!(tree.len() > FEW_MAX);
        assert_eq!(map.into_vec(), tree.into_iter().collect::<Vec<_>>());
    }
}
