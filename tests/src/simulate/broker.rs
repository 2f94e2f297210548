//! The broker under test, with what a crash takes.
//!
//! A crash needs a disk that outlives the broker. Until [`Sim`] has one, [`Broker::crash`] says so
//! and everything else runs.

use dunlin::worker::Settings;

use super::random::Random;
use crate::{Client, Sim};

/// Whether [`Broker::crash`] is there.
pub const CAN_CRASH: bool = false;

/// A broker that can be started again.
pub struct Broker {
    sim: Sim,
    workers: usize,
}

impl Broker {
    /// With an empty disk.
    #[must_use]
    pub fn start(workers: usize, settings: &Settings, seed: u64) -> Self {
        let sim = Sim::with_hash_seed(workers, settings.clone(), seed);
        Self { sim, workers }
    }

    /// The broker itself.
    pub fn sim(&mut self) -> &mut Sim {
        &mut self.sim
    }

    /// How many workers it has.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A new connection.
    pub fn connect(&mut self) -> Client {
        self.sim.client()
    }

    /// Some turns of some workers, in any order, and nothing of the rest. With a disk, steps of the
    /// storage come between them.
    pub fn run_a_little(&mut self, random: &mut Random) {
        for _ in 0..random.between(1, 2 * self.workers + 1) {
            self.sim.turn(random.below(self.workers));
        }
    }

    /// Until nothing moves.
    pub fn run(&mut self) {
        self.sim.run();
    }

    /// Ends the broker at once, and starts another one with `workers` workers from what its disk
    /// has kept. `false` when there is no disk, and nothing has happened.
    pub fn crash(&mut self, _workers: usize, _random: &mut Random) -> bool {
        false
    }

    /// Makes the disk fail: full from now on, or unable to sync.
    pub fn break_disk(&mut self, _random: &mut Random) {}

    /// Makes the disk work again.
    pub fn repair_disk(&mut self) {}
}
