//! The course of a run.

use super::audit::Audit;
use super::connected::Connected;
use super::consumer::{Consumer, Manner};
use super::publisher::Publisher;
use super::reader::Reader;
use super::scene::{Kind, STREAM, Scene, WORK_QUEUES};
use super::undertaker::Undertaker;
use super::{GROUPS, LONER, LOOK_MS};
use crate::simulate::random::Random;
use crate::{Sim, SimDisk};

const PUBLISHERS: usize = 5;
const CONSUMERS: usize = 7;
const READERS: usize = 4;
/// Looks without news after which everything has come.
const QUIET_MAX: usize = 8;

/// One run.
pub(super) struct World {
    /// Always there but while the broker is started anew.
    sim: Option<Sim>,
    pub(super) random: Random,
    workers: usize,
    scene: Scene,
    publishers: Vec<Publisher>,
    consumers: Vec<Consumer>,
    readers: Vec<Reader>,
    undertakers: Vec<Undertaker>,
    pub(super) audit: Audit,
    is_verbose: bool,
}

/// Runs so many random steps of a seed.
///
/// # Errors
/// What was broken.
pub fn run(seed: u64, steps: u64, is_verbose: bool) -> Result<(), String> {
    let mut world = World::new(seed, is_verbose);
    world.begin().map_err(|what| format!("seed {seed}, at the beginning: {what}"))?;
    for step in 0..steps {
        world.step().map_err(|what| format!("seed {seed}, step {step}: {what}"))?;
    }
    world.end().map_err(|what| format!("seed {seed}, at the end: {what}"))
}

impl World {
    fn new(seed: u64, is_verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let workers = random.between(1, 3);
        let scene = Scene::draw(&mut random);
        let mut audit = Audit::default();
        for spec in &scene.queues {
            match spec.kind {
                Kind::Timed => _ = audit.work.unordered.insert(spec.name),
                Kind::Bounded { drops_oldest: true } => _ = audit.work.dropping.insert(spec.name),
                Kind::Stream { is_compacted } => audit.streams.is_compacted = is_compacted,
                _ => {}
            }
        }
        (audit.work.prefetch, audit.is_verbose) = (scene.prefetch, is_verbose);
        let sim = Sim::with_disk(workers, scene.settings(), SimDisk::default(), seed);
        let group = |number: usize| GROUPS[number % 2];
        let consumer = |number| match number {
            6 => Consumer::new(number, LONER),
            _ => Consumer::new(number, group(number)),
        };
        let reader = |number| Reader::new(number, group(number), number % 2 == 1);
        Self {
            sim: Some(sim),
            random,
            workers,
            scene,
            publishers: (0..PUBLISHERS).map(Publisher::new).collect(),
            consumers: (0..CONSUMERS).map(consumer).collect(),
            readers: (0..READERS).map(reader).collect(),
            undertakers: ["q0", "q1", "m"].map(Undertaker::new).into(),
            audit,
            is_verbose,
        }
    }

    pub(super) fn sim(&mut self) -> &mut Sim {
        self.sim.as_mut().expect("it runs")
    }

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.is_verbose {
            println!("{}", text());
        }
    }

    /// All groups are there before anything else.
    fn begin(&mut self) -> Result<(), String> {
        for queue in 0..WORK_QUEUES {
            self.join(0, queue, Manner::Auto)?;
            self.join(1, queue, Manner::Auto)?;
            self.settle()?;
        }
        self.join(6, 0, Manner::Auto)?;
        for at in 0..2 {
            self.join_reader(at, false)?;
        }
        self.settle()
    }

    fn join(&mut self, at: usize, queue: usize, manner: Manner) -> Result<(), String> {
        self.note(|| format!("consumer {at} joins queue {queue}, {manner:?}"));
        let Self { sim, consumers, scene, audit, .. } = self;
        let sim = sim.as_mut().expect("it runs");
        consumers[at].join(sim, &scene.queues[queue], manner, audit)
    }

    pub(super) fn join_somewhere(&mut self) -> Result<(), String> {
        let at = self.random.below(CONSUMERS);
        let manners = [Manner::Verbs, Manner::Verbs, Manner::Auto, Manner::AutoTwice, Manner::Old];
        let manner = self.random.pick(&manners);
        let queue = if at == 6 { 0 } else { self.random.below(WORK_QUEUES) };
        self.join(at, queue, manner)
    }

    fn join_reader(&mut self, at: usize, replays: bool) -> Result<(), String> {
        self.note(|| format!("reader {at} joins, replays {replays}"));
        let Self { sim, readers, scene, audit, .. } = self;
        let sim = sim.as_mut().expect("it runs");
        readers[at].join(sim, &scene.queues[STREAM], replays, audit)
    }

    /// Lets everything happen that is due, and looks at what has come.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        loop {
            self.sim().run();
            if !self.look()? {
                break;
            }
        }
        let now = self.sim().now();
        let Self { consumers, undertakers, audit, .. } = self;
        consumers.iter_mut().for_each(|consumer| consumer.rest(now, audit));
        undertakers.iter_mut().for_each(|undertaker| undertaker.rest(now, audit));
        Ok(())
    }

    /// Takes in what clients have got. Says whether they have answered.
    fn look(&mut self) -> Result<bool, String> {
        let now = self.sim().now();
        let Self { publishers, consumers, readers, undertakers, audit, .. } = self;
        let mut has_answered = false;
        for publisher in publishers {
            has_answered |= publisher.look(audit)?;
        }
        // What those had whose connection has ended is others' already.
        consumers.sort_by_key(|consumer| (!consumer.is_closed(), consumer.number));
        for consumer in consumers.iter_mut() {
            has_answered |= consumer.look(now, audit)?;
        }
        for reader in readers {
            reader.look(now, audit)?;
        }
        for undertaker in undertakers {
            undertaker.look(now, audit)?;
        }
        consumers.sort_by_key(|consumer| consumer.number);
        Ok(has_answered)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..35 => self.publish(),
            35..57 => self.consume(),
            57..65 => self.join_somewhere()?,
            65..70 => self.drop_somebody()?,
            70..77 => self.read()?,
            77..80 => self.undertake()?,
            80..88 => {
                let millis = self.random.pick(&[500, 3000, 11_000, 30_000]);
                self.note(|| format!("{millis} ms pass"));
                self.pass(millis)?;
            }
            88..92 => self.run_a_little(),
            92..94 => return self.fill_disk(),
            94 => return self.fail_disk(),
            95..97 => return self.restart(true),
            _ => return self.restart(false),
        }
        match self.random.percent(70) {
            true => self.settle(),
            false => self.look().map(|_| ()),
        }
    }

    pub(super) fn publish(&mut self) {
        let (at, queue) = (self.random.below(PUBLISHERS), self.random.below(WORK_QUEUES + 1));
        let count = self.random.between(1, 4);
        self.note(|| format!("publisher {at} sends {count} to {queue}"));
        let Self { sim, publishers, scene, random, audit, .. } = self;
        let sim = sim.as_mut().expect("it runs");
        for _ in 0..count {
            publishers[at].publish(sim, &scene.queues[queue], random, audit);
        }
    }

    /// A consumer does something about what it has.
    pub(super) fn consume(&mut self) {
        let (at, count) = (self.random.below(CONSUMERS), self.random.portion());
        self.note(|| format!("consumer {at} settles up to {count}"));
        let now = self.sim().now();
        let Self { consumers, random, audit, .. } = self;
        consumers[at].settle(now, count, random, audit);
    }

    fn drop_somebody(&mut self) -> Result<(), String> {
        let at = self.random.below(CONSUMERS + READERS);
        if at < CONSUMERS && self.random.percent(50) {
            self.leave(at);
            return Ok(());
        }
        self.note(|| format!("consumer or reader {at} drops"));
        let Self { sim, consumers, readers, audit, .. } = self;
        let sim = sim.as_mut().expect("it runs");
        match consumers.get_mut(at) {
            Some(consumer) => consumer.drop_connection(sim, audit),
            None => readers[at - CONSUMERS].drop_connection(sim, audit),
        }
    }

    fn leave(&mut self, at: usize) {
        let is_late = self.random.percent(50);
        self.note(|| format!("consumer {at} unsubscribes, and answers then: {is_late}"));
        let Self { consumers, scene, audit, .. } = self;
        consumers[at].leave(&scene.queues, is_late, audit);
    }

    fn read(&mut self) -> Result<(), String> {
        let at = self.random.below(READERS);
        match self.random.below(20) {
            0..4 => self.join_reader(at, false),
            4 => {
                let group = self.readers[at].group;
                let Self { sim, readers, audit, .. } = self;
                let sim = sim.as_mut().expect("it runs");
                for reader in readers.iter_mut().filter(|reader| reader.group == group) {
                    reader.drop_connection(sim, audit)?;
                }
                self.join_reader(at, true)
            }
            _ => {
                let count = self.random.portion();
                self.note(|| format!("reader {at} goes on by up to {count}"));
                let now = self.sim().now();
                let Self { readers, random, audit, .. } = self;
                readers[at].go_on(now, count, random, audit);
                Ok(())
            }
        }
    }

    fn undertake(&mut self) -> Result<(), String> {
        let at = self.random.below(self.undertakers.len());
        let chance = self.random.below(20);
        self.note(|| format!("undertaker {at} works, {chance}"));
        let now = self.sim().now();
        let Self { sim, undertakers, random, audit, .. } = self;
        let sim = sim.as_mut().expect("it runs");
        match chance {
            0..8 => undertakers[at].join(sim, audit)?,
            8..10 => undertakers[at].drop_connection(sim, audit)?,
            // What follows from it is not known, so it is rare.
            10 if random.percent(30) => undertakers[at].redrive(None, audit),
            _ => undertakers[at].work(now, random, audit),
        }
        Ok(())
    }

    /// Time passes in steps, so that it is known when what comes has come.
    pub(super) fn pass(&mut self, millis: u64) -> Result<(), String> {
        self.look()?;
        for _ in 0..millis / LOOK_MS {
            self.sim().advance_ms(LOOK_MS);
            self.look()?;
        }
        Ok(())
    }

    /// Some turns, and some steps of the log.
    pub(super) fn run_a_little(&mut self) {
        let turns = self.random.below(6);
        for _ in 0..turns {
            self.sim().run_workers();
            self.sim().run_storage_step();
        }
    }

    pub(super) fn restart(&mut self, is_crash: bool) -> Result<(), String> {
        self.look()?;
        if self.random.percent(15) {
            self.scene.grow(&mut self.random);
        }
        if self.random.percent(30) {
            self.workers = self.random.between(1, 3);
        }
        let (seed, is_killed) = (self.random.number(), self.random.percent(25));
        let is_killed = is_killed && !self.audit.is_failing;
        self.note(|| format!("restart, crash {is_crash}, killed {is_killed}: {:?}", self.scene));
        let sim = self.sim.take().expect("it runs");
        let mut disk = match is_crash {
            true if is_killed => sim.kill(),
            true => sim.crash(seed),
            false => sim.shut_down(),
        };
        disk.heal();
        self.audit.may_close = true;
        let Self { publishers, consumers, readers, undertakers, audit, .. } = self;
        // What the broker sent before it went has arrived.
        for publisher in publishers.iter_mut() {
            publisher.look(audit)?;
        }
        consumers.iter_mut().try_for_each(|consumer| consumer.end(audit))?;
        readers.iter_mut().try_for_each(|reader| reader.end(audit))?;
        undertakers.iter_mut().try_for_each(|undertaker| undertaker.end(audit))?;
        audit.restarted(is_crash && !is_killed);
        let mut sim = Sim::with_disk(self.workers, self.scene.settings(), disk, seed);
        for publisher in &mut self.publishers {
            publisher.come_back(&mut sim, &mut self.audit);
        }
        self.sim = Some(sim);
        self.settle()
    }

    /// Everybody comes for what is left.
    fn end(&mut self) -> Result<(), String> {
        self.restart(true)?;
        let Self { sim, undertakers, audit, .. } = self;
        let sim = sim.as_mut().expect("it runs");
        undertakers.iter_mut().try_for_each(|undertaker| undertaker.join(sim, audit))?;
        for at in 0..2 {
            self.join_reader(at, false)?;
        }
        self.join(6, 0, Manner::Auto)?;
        for queue in 0..WORK_QUEUES {
            self.join(0, queue, Manner::Auto)?;
            self.join(1, queue, Manner::Auto)?;
            self.drain()?;
        }
        self.audit.check_end(&self.scene)
    }

    /// Everything comes, and is acknowledged.
    fn drain(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        while quiet < QUIET_MAX {
            let before = self.audit.progress();
            self.settle()?;
            let now = self.sim().now();
            let Self { consumers, readers, undertakers, random, audit, .. } = self;
            consumers.iter_mut().for_each(|consumer| consumer.acknowledge_all(now, audit));
            readers.iter_mut().for_each(|reader| reader.go_on(now, usize::MAX, random, audit));
            undertakers.iter_mut().for_each(|undertaker| undertaker.acknowledge_all(now));
            self.settle()?;
            if self.audit.progress() == before {
                quiet += 1;
                self.pass(5000)?;
            } else {
                quiet = 0;
            }
        }
        Ok(())
    }
}
