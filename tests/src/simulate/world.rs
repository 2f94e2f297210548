//! One run: the broker, its clients and the auditor, step by step.

use std::cell::Cell;
use std::collections::VecDeque;

use dunlin::worker::{Level, OverlapPolicy, Settings};
use dunlin_router::Strategy;

use super::audit::{Auditor, Rules, Verdict, violation};
use super::broker::Broker;
use super::client::SimClient;
use super::link::{Diligence, Incoming};
use super::publication::PubId;
use super::random::Random;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many steps, before everybody comes back.
    pub steps: u64,
    /// How many workers; drawn without it.
    pub workers: Option<usize>,
    /// Whether the broker may crash.
    pub may_crash: bool,
    /// Print every step.
    pub is_verbose: bool,
}

/// What a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Workers.
    pub workers: usize,
    /// Publications.
    pub published: usize,
    /// Deliveries that were read.
    pub delivered: u64,
    /// Wills that went out.
    pub wills: u64,
    /// Crashes of the broker.
    pub crashes: u32,
    /// Sum of all that the clients were sent: the same for two runs of one seed.
    pub digest: u64,
}

/// A broken rule, and how it came to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// The step it was found in.
    pub step: u64,
    /// Workers and options.
    pub setting: String,
    /// The last steps.
    pub log: Vec<String>,
    /// What was broken.
    pub what: String,
}

/// Steps a failure shows.
const LOG_LINES: usize = 40;

thread_local! {
    /// Where the run of this thread is, for who reports a panic.
    static PLACE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Seed and step of the run of this thread.
#[must_use]
pub fn place() -> (u64, u64) {
    PLACE.get()
}

/// All of a run.
pub struct World {
    pub(super) random: Random,
    pub(super) broker: Broker,
    pub(super) audit: Auditor,
    pub(super) clients: Vec<SimClient>,
    pub(super) settings: Settings,
    /// Publications of connections that have ended: settled when the broker has come to rest.
    pub(super) orphans: Vec<PubId>,
    pub(super) may_crash: bool,
    pub(super) digest: u64,
    log: VecDeque<String>,
    is_verbose: bool,
}

/// Runs a plan to its end.
///
/// # Errors
/// The first rule that was broken.
///
/// # Panics
/// When the broker does.
pub fn run(plan: &Plan) -> Result<Report, Box<Failure>> {
    let mut world = World::new(plan);
    for step in 0..=plan.steps {
        PLACE.set((plan.seed, step));
        let verdict = if step < plan.steps { world.step() } else { world.finish() };
        if let Err(broken) = verdict {
            return Err(Box::new(Failure {
                seed: plan.seed,
                step,
                setting: world.describe_setting(),
                log: world.log.into(),
                what: broken.0,
            }));
        }
    }
    Ok(world.report())
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let workers = random.between(1, 4);
        let workers = plan.workers.unwrap_or(workers);
        let settings = draw_settings(&mut random);
        let rules = Rules {
            separate_copies: settings.overlap == OverlapPolicy::Separate,
            upgrade_qos: settings.upgrade_qos,
            may_not_retain: settings.retained.messages_max == 1,
        };
        let clients = random.between(3, 8);
        Self {
            broker: Broker::start(workers, &settings, random.number()),
            audit: Auditor::new(clients, rules),
            clients: (0..clients).map(SimClient::new).collect(),
            settings,
            orphans: Vec::new(),
            may_crash: plan.may_crash,
            digest: 0,
            log: VecDeque::new(),
            is_verbose: plan.is_verbose,
            random,
        }
    }

    fn describe_setting(&self) -> String {
        let limits = &self.settings.limits;
        format!(
            "{} workers, {} clients, overlap {:?}, upgrade_qos {}, share {:?}, receive_maximum {}, \
             in_flight_max {}, session_expiry_max_s {}, queue_qos0_offline {}, level {:?}, \
             memory_bytes {}, retained.messages_max {}",
            self.broker.workers(),
            self.clients.len(),
            self.settings.overlap,
            self.settings.upgrade_qos,
            self.settings.share_strategy,
            limits.receive_maximum,
            limits.in_flight_max,
            limits.session_expiry_max_s,
            limits.queue_qos0_offline,
            self.settings.durability.level,
            self.settings.durability.memory_bytes,
            self.settings.retained.messages_max,
        )
    }

    fn report(&self) -> Report {
        Report {
            workers: self.broker.workers(),
            published: self.audit.publications.len(),
            delivered: self.audit.deliveries,
            wills: self.audit.wills,
            crashes: self.audit.crashes,
            digest: self.digest,
        }
    }

    /// Enters a line into the log.
    pub(super) fn note(&mut self, line: &str) {
        if self.is_verbose {
            println!("{:>6} {:>9} ms  {line}", place().1, self.audit.now_ms);
        }
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:>6} {:>9} ms  {line}", place().1, self.audit.now_ms));
    }

    /// Has the broker do all there is to do, or some of it, or nothing yet.
    pub(super) fn schedule(&mut self) -> Verdict {
        match self.random.below(4) {
            0 => Ok(()),
            1 => self.run_a_little(),
            _ => self.rest(),
        }
    }

    /// Some turns of some workers.
    pub(super) fn run_a_little(&mut self) -> Verdict {
        self.broker.run_a_little(&mut self.random);
        self.gather()
    }

    /// Until nothing moves. Then it is known what has been read, and routed.
    pub(super) fn rest(&mut self) -> Verdict {
        self.broker.run();
        self.gather()?;
        self.audit.on_rest();
        for id in std::mem::take(&mut self.orphans) {
            self.audit.on_settled(id, false);
        }
        for client in &mut self.clients {
            let Some(link) = client.link.as_mut().filter(|link| link.is_taken()) else { continue };
            for id in link.unsettled.drain(..) {
                self.audit.on_settled(id, true);
            }
        }
        for index in 0..self.clients.len() {
            let link = self.clients[index].link.as_ref();
            if link.is_some_and(|link| link.diligence == Diligence::Prompt && !link.is_limited) {
                self.read(index, usize::MAX)?;
                self.answer(index, usize::MAX);
            }
        }
        Ok(())
    }

    /// Takes what the broker has written out of the network.
    pub(super) fn gather(&mut self) -> Verdict {
        let Self { clients, audit, .. } = self;
        for client in clients {
            let Some(link) = &mut client.link else { continue };
            link.receive(&audit.names, &audit.publications, audit.now_ms)?;
            if link.client.is_closed() {
                let last = link.arrived.back();
                let code = match last {
                    Some(Incoming::Disconnect(code)) => format!("{code:?}"),
                    _ => "nothing".into(),
                };
                return violation(format!("c{} was closed, with {code}", client.index));
            }
        }
        Ok(())
    }

    /// A client reads.
    pub(super) fn read(&mut self, index: usize, count: usize) -> Verdict {
        if self.is_verbose
            && let Some(link) = &self.clients[index].link
        {
            for incoming in link.arrived.iter().take(count) {
                println!("{:>26} < {incoming:?}", format!("c{index}"));
            }
        }
        self.clients[index].read(count, &mut self.audit)
    }

    /// A client writes answers that are due.
    pub(super) fn answer(&mut self, index: usize, count: usize) {
        if let Some(link) = &mut self.clients[index].link {
            link.answer(count, &mut self.random);
        }
    }
}

/// Options of the broker. Queues are large, so that nothing is ever dropped.
fn draw_settings(random: &mut Random) -> Settings {
    let mut settings = Settings::default();
    let strategies = [
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::Sticky,
        Strategy::HashClient,
        Strategy::HashTopic,
    ];
    settings.share_strategy = random.pick(&strategies);
    if random.percent(30) {
        settings.overlap = OverlapPolicy::Separate;
    }
    settings.upgrade_qos = random.percent(20);
    // Half packets may lie about for as long as they like here.
    settings.packet_timeout_ms = u64::MAX / 4;
    settings.connect_timeout_ms = u64::MAX / 4;
    let limits = &mut settings.limits;
    limits.receive_maximum = random.pick(&[1024, 20, 3]);
    limits.in_flight_max = random.pick(&[1024, 1024, 16, 1]);
    limits.session_expiry_max_s = random.pick(&[u32::MAX, u32::MAX, 50]);
    limits.queue_qos0_offline = random.percent(20);
    settings.durability.memory_bytes = random.pick(&[usize::MAX / 4, 256 << 20, 500, 0]);
    if random.percent(25) {
        settings.durability.level = Level::Interval;
    }
    if random.percent(25) {
        settings.retained.messages_max = 1;
    }
    let limits = &mut settings.limits;
    limits.topic_alias_maximum = random.pick(&[32, 2, 0]);
    limits.outgoing_aliases_max = random.pick(&[32, 2, 0]);
    settings
}
