//! Random clients of partitioned queues, from one seed, with an auditor.
//!
//! Publishers at QoS 1 and 2, two groups of consumers that settle by verbs or by PUBACK, leases
//! that end, connections that drop, power cuts between any two steps of the log, graceful
//! restarts, memory too small for anything. What is held against the broker:
//!
//! * what was acknowledged reaches every group;
//! * a publication is in its queue once, also at QoS 2 over crashes;
//! * messages of a key come to a group for the first time in their order;
//! * what a consumer has is given to no other of its group before its lease has ended;
//! * what was settled and confirmed never comes again;
//! * no message is tried more often than it may be.

mod actors;
mod audit;

use dunlin::config::{Config, Sources};
use dunlin::worker::Settings;

use super::random::Random;
use crate::{Sim, SimDisk};

use actors::{Consumer, Publisher};
use audit::Audit;

/// Milliseconds of a lease, and attempts.
const LEASE_MS: u64 = 10_000;
const ATTEMPTS: u32 = 4;
/// Between two looks at what clients have got, while time passes.
const LOOK_MS: u64 = 100;
const QUEUES: usize = 2;
const GROUPS: [&str; 2] = ["g", "h"];

/// One run.
struct World {
    /// Always there but while the broker is started anew.
    sim: Option<Sim>,
    random: Random,
    workers: usize,
    settings: Settings,
    publishers: Vec<Publisher>,
    consumers: Vec<Consumer>,
    audit: Audit,
    is_verbose: bool,
}

/// Runs so many random steps of a seed.
///
/// # Errors
/// What was broken.
pub fn run(seed: u64, steps: u64, is_verbose: bool) -> Result<(), String> {
    let mut random = Random::new(seed);
    let workers = random.between(1, 3);
    let settings = settings(&mut random);
    let sim = Sim::with_disk(workers, settings.clone(), SimDisk::default(), seed);
    let publishers = (0..4).map(|number| Publisher::new(number, number % 2 == 1)).collect();
    let consumers = (0..6).map(|number| Consumer::new(number, GROUPS[number % 2])).collect();
    let (sim, audit) = (Some(sim), Audit::default());
    let mut world =
        World { sim, random, workers, settings, publishers, consumers, audit, is_verbose };
    world.begin()?;
    for step in 0..steps {
        world.step().map_err(|what| format!("seed {seed}, step {step}: {what}"))?;
    }
    world.end().map_err(|what| format!("seed {seed}, at the end: {what}"))
}

fn settings(random: &mut Random) -> Settings {
    let mut options = vec![(
        "queues.default",
        format!(
            "partitions={} lease={LEASE_MS}ms attempts={ATTEMPTS} backoff=1s backoff_max=4s \
             prefetch={} serial={}",
            random.pick(&[1, 2, 8]),
            random.pick(&[1, 3, 20]),
            random.percent(30),
        ),
    )];
    if random.percent(50) {
        options.push(("durability.memory_per_worker", "0".into()));
        options.push(("queues.index_per_worker", "0".into()));
    }
    let flags = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let sources = Sources { flags, ..Sources::default() };
    Config::load(&sources).expect("good options").settings
}

impl World {
    fn sim(&mut self) -> &mut Sim {
        self.sim.as_mut().expect("it runs")
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if self.is_verbose {
            println!("{}", text());
        }
    }

    /// Both groups of each queue are there before anything else.
    fn begin(&mut self) -> Result<(), String> {
        for at in 0..2 * QUEUES {
            self.join(at % 2, at / 2, true)?;
        }
        self.settle()
    }

    fn join(&mut self, at: usize, queue: usize, is_auto: bool) -> Result<(), String> {
        self.note(|| format!("consumer {at} joins queue {queue}, auto {is_auto}"));
        let sim = self.sim.as_mut().expect("it runs");
        self.consumers[at].join(sim, queue, is_auto, &mut self.audit)
    }

    /// Lets everything happen that is due, and looks at what has come.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.sim().run();
            if !self.look()? {
                return Ok(());
            }
        }
    }

    /// Takes in what clients have got. Says whether they have answered.
    fn look(&mut self) -> Result<bool, String> {
        let now = self.sim().now();
        let mut has_answered = false;
        for publisher in &mut self.publishers {
            has_answered |= publisher.look(&mut self.audit);
        }
        for consumer in &mut self.consumers {
            has_answered |= consumer.look(now, &mut self.audit)?;
        }
        Ok(has_answered)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..40 => {
                let (at, queue) = (self.random.below(4), self.random.below(QUEUES));
                let count = self.random.between(1, 4);
                self.note(|| format!("publisher {at} sends {count} to {queue}"));
                let sim = self.sim.as_mut().expect("it runs");
                for _ in 0..count {
                    self.publishers[at].publish(sim, queue, &mut self.random, &mut self.audit);
                }
            }
            40..65 => self.consume()?,
            65..75 => {
                let (at, queue) = (self.random.below(6), self.random.below(QUEUES));
                let is_auto = self.random.percent(40);
                self.join(at, queue, is_auto)?;
            }
            75..82 => {
                let at = self.random.below(6);
                self.note(|| format!("consumer {at} drops"));
                let sim = self.sim.as_mut().expect("it runs");
                self.consumers[at].drop_connection(sim, &mut self.audit);
            }
            82..92 => {
                let millis = self.random.pick(&[500, 3000, 11_000, 30_000]);
                self.note(|| format!("{millis} ms pass"));
                self.pass(millis)?;
            }
            92..96 => {
                let turns = self.random.below(6);
                for _ in 0..turns {
                    self.sim().run_workers();
                    self.sim().run_storage_step();
                }
            }
            96..98 => return self.restart(true),
            _ => return self.restart(false),
        }
        match self.random.percent(70) {
            true => self.settle(),
            false => self.look().map(|_| ()),
        }
    }

    /// Time passes in steps, so that it is known when what comes has come.
    fn pass(&mut self, millis: u64) -> Result<(), String> {
        self.look()?;
        for _ in 0..millis / LOOK_MS {
            self.sim().advance_ms(LOOK_MS);
            self.look()?;
        }
        Ok(())
    }

    /// A consumer does something about what it has.
    fn consume(&mut self) -> Result<(), String> {
        let at = self.random.below(6);
        let count = self.random.portion();
        self.note(|| format!("consumer {at} settles up to {count}"));
        let sim = self.sim.as_mut().expect("it runs");
        self.consumers[at].settle(sim, count, &mut self.random, &mut self.audit);
        Ok(())
    }

    fn restart(&mut self, is_crash: bool) -> Result<(), String> {
        self.note(|| format!("restart, crash {is_crash}"));
        self.look()?;
        let seed = self.random.number();
        let sim = self.sim.take().expect("it runs");
        let disk = if is_crash { sim.crash(seed) } else { sim.shut_down() };
        // What the broker sent before it went has arrived.
        for publisher in &mut self.publishers {
            publisher.look(&mut self.audit);
        }
        for consumer in &mut self.consumers {
            consumer.end(&mut self.audit);
        }
        self.audit.restarted();
        self.sim = Some(Sim::with_disk(self.workers, self.settings.clone(), disk, seed));
        let sim = self.sim.as_mut().expect("it runs");
        for publisher in &mut self.publishers {
            publisher.come_back(sim);
        }
        self.settle()
    }

    /// Everybody comes for what is left.
    fn end(&mut self) -> Result<(), String> {
        self.restart(true)?;
        for queue in 0..QUEUES {
            for at in 0..2 {
                self.join(2 * queue + at, queue, true)?;
            }
        }
        let mut quiet = 0;
        while quiet < 8 {
            let before = self.audit.received();
            self.settle()?;
            for at in 0..4 {
                let sim = self.sim.as_mut().expect("it runs");
                self.consumers[at].acknowledge_all(sim, &mut self.audit);
            }
            self.settle()?;
            if self.audit.received() == before {
                quiet += 1;
                self.pass(5000)?;
            } else {
                quiet = 0;
            }
        }
        self.settle()?;
        self.audit.everything_came(&GROUPS)
    }
}
