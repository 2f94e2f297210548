//! Random clients against the whole broker, which crashes now and then, with seeds nobody has
//! chosen. A seed that fails is printed, and
//! `cargo run -p dunlin-tests --release --bin simulate -- --steps 1000 --seed <it>` shows it again
//! (with `--queues` one of queues).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use dunlin_tests::simulate::{Plan, queues, run};

fn plan(seed: u64) -> Plan {
    Plan { seed, steps: 1000, workers: None, may_crash: true, is_verbose: false }
}

#[test]
fn fresh_seeds_break_no_rule() {
    let first = RandomState::new().hash_one(std::process::id()) >> 24;
    println!("seeds from {first}");
    for seed in first..first + 20 {
        if let Err(failure) = run(&plan(seed)) {
            panic!("{failure:#?}");
        }
    }
}

#[test]
fn fresh_seeds_break_no_rule_of_queues() {
    let first = RandomState::new().hash_one(std::process::id()) >> 24;
    println!("seeds of queues from {first}");
    for seed in first..first + 40 {
        if let Err(what) = queues::run(seed, 300, false) {
            panic!("{what}; again: simulate --queues --steps 300 --seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=4 {
        assert_eq!(run(&plan(seed)), run(&plan(seed)));
    }
}
