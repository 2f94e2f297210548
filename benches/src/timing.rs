//! Times of what can only be done in turns.

use std::time::{Duration, Instant};

/// How long it took.
#[allow(clippy::disallowed_methods)] // criterion's own way to leave something out of the time
pub fn timed(step: impl FnOnce()) -> Duration {
    let start = Instant::now();
    step();
    start.elapsed()
}

/// For criterion's `iter_custom`: the time of `count` operations of which each round does `len`, in
/// two parts. A round says how long each took; `part` is the one that is wanted.
pub fn time_of_part(
    count: u64,
    len: u64,
    part: usize,
    mut round: impl FnMut() -> [Duration; 2],
) -> Duration {
    let rounds = count.div_ceil(len);
    let sum: Duration = (0..rounds).map(|_| round()[part]).sum();
    sum.mul_f64(count as f64 / (rounds * len) as f64)
}
