//! Numbers that look random and follow from a seed.

use std::ops::RangeInclusive;

/// An xorshift64* generator.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

/// Spreads a number over all bits (the finaliser of splitmix64).
pub(super) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

impl Random {
    /// One of many generators of a run: each user takes a `stream` of its own.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Self(mix(seed ^ mix(stream)) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let width = range.end() - range.start() + 1;
        range.start() + (self.next() >> 11) % width
    }

    /// `true` once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.within(1..=n) == 1
    }
}
