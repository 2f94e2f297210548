//! The broker under test, with what a crash takes.

use dunlin::worker::{Level, Settings};

use super::random::Random;
use crate::{Client, Sim, SimDisk};

/// A broker that can be started again.
pub struct Broker {
    /// `None` only while it is started again.
    sim: Option<Sim>,
    settings: Settings,
    seed: u64,
    workers: usize,
}

impl Broker {
    /// With an empty disk.
    #[must_use]
    pub fn start(workers: usize, settings: &Settings, seed: u64) -> Self {
        let sim = Sim::with_disk(workers, settings.clone(), SimDisk::default(), seed);
        Self { sim: Some(sim), settings: settings.clone(), seed, workers }
    }

    /// The broker itself.
    ///
    /// # Panics
    /// When starting it again has failed.
    pub fn sim(&mut self) -> &mut Sim {
        self.sim.as_mut().expect("a broker that runs")
    }

    /// How many workers it has.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A new connection.
    pub fn connect(&mut self) -> Client {
        self.sim().client()
    }

    /// Some turns of some workers, in any order, steps of the log between them, and nothing of the
    /// rest.
    pub fn run_a_little(&mut self, random: &mut Random) {
        for _ in 0..random.between(1, 2 * self.workers + 1) {
            let worker = random.below(self.workers);
            self.sim().turn(worker);
            if random.percent(30) {
                self.sim().run_storage_step();
            }
        }
    }

    /// Until nothing moves.
    pub fn run(&mut self) {
        self.sim().run();
    }

    /// Ends the broker at once, and starts another one with `workers` workers from what its disk
    /// has kept: what was written, or, when the power went as well, what was synced and of the rest
    /// whatever chance has it; only the latter when it `is_cut`.
    pub fn crash(&mut self, workers: usize, is_cut: bool, random: &mut Random) {
        let Some(sim) = self.sim.take() else { return };
        // Without syncs a power cut may take what was acknowledged.
        let may_be_cut = self.settings.durability.level == Level::Fsync;
        let is_killed = !may_be_cut || !is_cut && random.percent(25);
        let disk = if is_killed { sim.kill() } else { sim.crash(random.number()) };
        self.start_again(workers, disk);
    }

    /// Ends the broker as it should end, and starts another one. Says how long that has taken.
    pub fn restart(&mut self, workers: usize) -> u64 {
        let Some(sim) = self.sim.take() else { return 0 };
        let before = sim.now();
        let disk = sim.shut_down();
        self.start_again(workers, disk);
        self.sim().now().millis_since(before)
    }

    fn start_again(&mut self, workers: usize, mut disk: SimDisk) {
        disk.heal();
        self.workers = workers;
        self.sim = Some(Sim::with_disk(workers, self.settings.clone(), disk, self.seed));
    }
}
