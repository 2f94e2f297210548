//! Which messages of a partition a group has done with, above its floor: one bit each.

use std::collections::VecDeque;

use super::limits::CHUNK_LEN;

pub(crate) const WORDS: usize = (CHUNK_LEN / 64) as usize;

/// Bits of one chunk.
pub(crate) type Bits = [u64; WORDS];

#[inline]
pub(crate) fn bit(offset: u64) -> (usize, u64) {
    let at = offset % CHUNK_LEN;
    ((at / 64) as usize, 1 << (at % 64))
}

/// Bits from the chunk of the floor on. What is before counts as settled; it is the caller's floor
/// that says so.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    first: u64,
    chunks: VecDeque<Bits>,
    /// Bits that are set at or above the floor.
    count: u64,
}

impl Settled {
    pub(crate) fn new(floor: u64) -> Self {
        Self { first: floor / CHUNK_LEN, ..Self::default() }
    }

    /// Messages above the floor that are settled.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    pub(crate) fn get(&self, offset: u64) -> bool {
        let Some(chunk) = (offset / CHUNK_LEN).checked_sub(self.first) else { return true };
        let (word, mask) = bit(offset);
        self.chunks.get(chunk as usize).is_some_and(|bits| bits[word] & mask != 0)
    }

    /// Says whether it was not before.
    #[inline]
    pub(crate) fn mark(&mut self, offset: u64) -> bool {
        let Some(chunk) = (offset / CHUNK_LEN).checked_sub(self.first) else { return false };
        while self.chunks.len() as u64 <= chunk {
            self.chunks.push_back([0; WORDS]);
        }
        let (word, mask) = bit(offset);
        let word = &mut self.chunks[chunk as usize][word];
        let is_new = *word & mask == 0;
        *word |= mask;
        self.count += u64::from(is_new);
        is_new
    }

    /// The floor moves over one message.
    #[inline]
    pub(crate) fn pass(&mut self, offset: u64) {
        self.count -= u64::from(self.get(offset) && offset / CHUNK_LEN >= self.first);
        if (offset + 1).is_multiple_of(CHUNK_LEN) {
            self.chunks.pop_front();
            self.first = (offset + 1) / CHUNK_LEN;
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Bits>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_and_given_up_as_the_floor_moves() {
        let mut settled = Settled::new(300);
        assert!(settled.mark(700));
        assert!(!settled.mark(700));
        assert!(settled.mark(300));
        assert!(settled.get(255), "before the floor's chunk everything is settled");
        assert!(!settled.get(301));
        assert_eq!(settled.count(), 2);
        for offset in 300..701 {
            settled.pass(offset);
        }
        assert_eq!((settled.count(), settled.chunks.len()), (0, 1));
    }
}
