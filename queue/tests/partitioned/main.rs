//! Anything may happen to a partitioned queue, at any time, and it does what a naive one would.

#[cfg(test)]
mod rig;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod timers;
#[cfg(test)]
mod work;

/// So many cases, or `PROPTEST_CASES`. Making a failure small ends in time for the test to say what
/// failed: each try takes as long as a case.
#[cfg(test)]
fn cases(usual: u32) -> proptest::test_runner::Config {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = wanted.unwrap_or(usual);
    proptest::test_runner::Config { cases, max_shrink_time: 60_000, ..Default::default() }
}
