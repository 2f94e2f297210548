//! A set of workers is a number with a bit for each: there are 64 of them at most.

/// The workers in a set, the first first.
#[inline]
pub(crate) fn workers_in(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(first)
    })
}
