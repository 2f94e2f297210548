//! The course of a run: clients, lives of the broker, audit.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ScopedJoinHandle;

use dunlin_queue::Time;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::{Extent, TortureArgs};
use super::clients::{self, Handles};
use super::process::{Program, Running};
use super::publisher::PublisherRecord;
use super::queues::{DECLARATION, QueueState};
use super::random::{Random, mix};
use super::receipts::Published;
use super::report::{Lives, Records, Report};
use super::retained;
use super::shared::{Address, Phase, Progress, Shared};
use super::wire::Broken;
use crate::clock::Clock;

/// From "listening" to the kill.
const LIFE_MS: std::ops::RangeInclusive<u64> = 10..=600;
/// The last life's share of publications, before the last round.
const LAST_LIFE_MS: u64 = 1000;
/// A life and a start, on average, as far as the pace of a long run goes by it.
const LIFE_AND_START_MS: u64 = 500;
/// Publications of one publisher; with it the memory of the audit and the queues of those that
/// are offline have a limit. A longer run publishes more slowly.
const PUBLICATIONS_MAX: u32 = 200_000;
/// How long the publishers may take to end, and then the subscribers.
const LAST_ROUND_LIMIT_MS: u64 = 180_000;
const DRAIN_LIMIT_MS: u64 = 900_000;
/// Once in so many starts the retained messages are looked at before the kill.
const LOOK_ONE_IN: u64 = 3;
/// What the audit takes for loss must not be a queue that is full by its owner's choice.
const BROKER_DEFAULTS: [&str; 6] = [
    "--set",
    "queue.max_messages=10000000",
    "--set",
    "queue.max_bytes=64GiB",
    "--set",
    DECLARATION,
];

/// The killer's stream of random numbers.
const KILLER_STREAM: u64 = 0;

/// `dunlin torture`.
///
/// # Errors
/// When the run could not be made, or when the broker did not do what it has to.
pub(in crate::cli) fn run(args: &TortureArgs) -> Result<(), Box<dyn Error>> {
    let clock = Clock::start();
    let random_seed = || mix(clock.now().as_millis() ^ mix(u64::from(std::process::id())));
    let seed = args.seed.unwrap_or_else(random_seed);
    let directory = Directory::make(args, seed)?;
    eprintln!("seed {seed}, data in {}", directory.path.display());
    let mut shared = Shared::new(clock, seed, usize::from(args.publishers));
    (shared.rate, shared.publications_max) = (pace(args), PUBLICATIONS_MAX);
    shared.queue = QueueState::new(usize::from(clients::queue_publishers(args)));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(shared.interrupted()))?;
    }
    let mut arguments: Vec<OsString> = ["serve", "--listen", "127.0.0.1:0"].map(Into::into).into();
    arguments.extend(BROKER_DEFAULTS.map(Into::into));
    arguments.extend(args.broker.iter().map(Into::into));
    arguments.extend(["--data-dir".into(), directory.path.clone().into()]);
    let log = (!args.verbose).then(|| directory.log.clone());
    let program = Program::new(std::env::current_exe()?, arguments, log);
    let kept = format!("{} is kept", directory.describe());
    let report = Course { args, shared: &shared, program: &program, lives: Lives::default() }
        .run()
        .map_err(|error| format!("{error}; {kept}"))?;
    print!("{}", report.text());
    let failed = report.failed();
    if failed.is_empty() {
        directory.remove()?;
        return Ok(());
    }
    Err(format!("not as it has to be: {}; seed {seed}; {kept}", failed.join(", ")).into())
}

/// Publications per second, so that a long run stays below the limit.
fn pace(args: &TortureArgs) -> u32 {
    let run_ms = match args.extent {
        Extent::Kills(kills) => u64::from(kills) * LIFE_AND_START_MS,
        Extent::Seconds(seconds) | Extent::Calm(seconds) => u64::from(seconds) * 1000,
    };
    let most = u64::from(PUBLICATIONS_MAX) * 1000 / (run_ms + LAST_LIFE_MS);
    args.rate.min(most as u32).max(1)
}

/// Where the broker keeps its files, and the log beside it.
struct Directory {
    path: PathBuf,
    log: PathBuf,
    is_temporary: bool,
}

impl Directory {
    fn make(args: &TortureArgs, seed: u64) -> Result<Self, String> {
        let is_temporary = args.directory.is_none();
        let path = args.directory.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("dunlin-torture-{}-{seed}", std::process::id()))
        });
        let text = path.display().to_string();
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {text}: {error}"))?;
        let mut entries =
            fs::read_dir(&path).map_err(|error| format!("cannot read {text}: {error}"))?;
        if entries.next().is_some() {
            return Err(format!("{text} is not empty: what is in it would be taken for the run's"));
        }
        // Absolute, whatever the broker's working directory.
        let path = path.canonicalize().map_err(|error| format!("cannot find {text}: {error}"))?;
        let log = PathBuf::from(format!("{}.log", path.display()));
        Ok(Self { path, log, is_temporary })
    }

    fn describe(&self) -> String {
        let log = if self.log.exists() { " (and its .log)" } else { "" };
        format!("{}{log}", self.path.display())
    }

    /// Removes what nobody asked to have.
    fn remove(&self) -> std::io::Result<()> {
        if !self.is_temporary {
            return Ok(());
        }
        fs::remove_dir_all(&self.path)?;
        remove_if_there(&self.log)
    }
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    if path.exists() { fs::remove_file(path) } else { Ok(()) }
}

/// Says what was published, once nobody publishes any more.
fn publish(published: &OnceLock<Vec<Published>>, records: &[PublisherRecord]) {
    published.get_or_init(|| records.iter().map(|record| record.published.clone()).collect());
}

/// Ends the clients on every way out.
struct OverAtEnd<'a>(&'a Shared);

impl Drop for OverAtEnd<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Over);
    }
}

struct Course<'a> {
    args: &'a TortureArgs,
    shared: &'a Shared,
    program: &'a Program,
    lives: Lives,
}

impl Course<'_> {
    fn run(mut self) -> Result<Report, String> {
        std::thread::scope(|scope| {
            let _over = OverAtEnd(self.shared);
            let publishers = clients::spawn_publishers(scope, self.args, self.shared);
            let subscribers = clients::spawn_subscribers(scope, self.args, self.shared);
            let queue_publishers = clients::spawn_queue_publishers(scope, self.args, self.shared);
            let consumers = clients::spawn_consumers(scope, self.args, self.shared);
            let mut broker = self.torture()?;
            let last_life_ms = match self.args.extent {
                Extent::Calm(seconds) => u64::from(seconds) * 1000,
                Extent::Kills(_) | Extent::Seconds(_) => LAST_LIFE_MS,
            };
            self.shared.pause(last_life_ms);
            self.check_interrupted()?;
            self.shared.enter(Phase::LastRound);
            let publishers = self.join(publishers, &mut broker, LAST_ROUND_LIMIT_MS)?;
            // The last one publishes retained messages, which no subscriber of the audit gets.
            publish(&self.shared.published, &publishers[..publishers.len() - 1]);
            let queue_publishers = self.join(queue_publishers, &mut broker, LAST_ROUND_LIMIT_MS)?;
            publish(&self.shared.queue.published, &queue_publishers);
            self.shared.enter(Phase::Drain);
            let subscribers = self.join(subscribers, &mut broker, DRAIN_LIMIT_MS)?;
            let consumers = self.join(consumers, &mut broker, DRAIN_LIMIT_MS)?;
            self.look(&broker, self.lives.kills)?;
            let records = Records { publishers, subscribers, queue_publishers, consumers };
            Ok(Report::new(&self.lives, &records, self.shared))
        })
    }

    /// Starts and kills the broker, and returns the last one, which lives.
    fn torture(&mut self) -> Result<Running, String> {
        let mut random = Random::new(self.shared.seed, KILLER_STREAM);
        let begun = self.shared.now();
        loop {
            let life = self.lives.kills;
            let mut broker = self.start(life)?;
            if self.is_last(begun) {
                return Ok(broker);
            }
            // What is lost once is missing at every later look, and each waits for it.
            let all_well = self.lives.looks.iter().all(|look| look.wrong.is_empty());
            if random.one_in(LOOK_ONE_IN) && all_well {
                self.look(&broker, life)?;
            }
            let life_ms = random.within(LIFE_MS);
            self.shared.pause(life_ms);
            self.check_interrupted()?;
            if let Some(status) = broker.ended() {
                return Err(format!("the broker ended by itself: {status}"));
            }
            self.shared.set_address(None);
            broker.kill(self.shared)?;
            self.lives.kills += 1;
            self.tell(life_ms);
        }
    }

    fn is_last(&self, begun: Time) -> bool {
        match self.args.extent {
            Extent::Kills(kills) => self.lives.kills >= kills,
            Extent::Calm(_) => true,
            Extent::Seconds(seconds) => {
                self.shared.now().millis_since(begun) >= u64::from(seconds) * 1000
            }
        }
    }

    fn start(&mut self, life: u32) -> Result<Running, String> {
        let broker = self.program.start(self.shared, life)?;
        self.lives.starts_ms.push(broker.start_ms);
        self.shared.set_address(Some(Address { life, port: broker.port }));
        Ok(broker)
    }

    /// Looks at the retained messages, while nobody kills the broker.
    fn look(&mut self, broker: &Running, life: u32) -> Result<(), String> {
        if self.shared.phase() == Phase::Over {
            return self.check_interrupted();
        }
        match retained::check(self.shared, Address { life, port: broker.port }, life) {
            Ok(findings) => self.lives.looks.push(findings),
            Err(Broken::Closed(error)) => {
                self.lives.faults.push(format!("no look at the retained messages: {error}"));
            }
            Err(Broken::Fault(text)) => self.lives.faults.push(text),
        }
        self.check_interrupted()
    }

    fn check_interrupted(&self) -> Result<(), String> {
        if self.shared.is_interrupted() { Err("interrupted".into()) } else { Ok(()) }
    }

    /// A line about the kill just done.
    fn tell(&self, life_ms: u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Progress { published, acked, delivered } = &self.shared.progress;
        eprintln!(
            "kill {} after {life_ms} ms: {} published, {} acknowledged, {} delivered; \
             the start took {} ms",
            self.lives.kills,
            load(published),
            load(acked),
            load(delivered),
            self.lives.starts_ms.last().unwrap_or(&0),
        );
    }

    /// Waits for clients, and ends them when they take too long or the broker is gone.
    fn join<T>(
        &mut self,
        handles: Handles<'_, T>,
        broker: &mut Running,
        limit_ms: u64,
    ) -> Result<Vec<T>, String> {
        let end = self.shared.now().plus_millis(limit_ms);
        while handles.iter().any(|handle| !handle.is_finished()) {
            if let Some(status) = broker.ended() {
                return Err(format!("the broker ended by itself: {status}"));
            }
            if self.shared.now() >= end {
                self.lives.faults.push("clients did not come to an end in time".into());
                self.shared.enter(Phase::Over);
                break;
            }
            self.shared.pause(20);
        }
        self.check_interrupted()?;
        let joined = handles.into_iter().map(ScopedJoinHandle::join);
        joined.map(|record| record.map_err(|_| "a client has panicked".into())).collect()
    }
}
