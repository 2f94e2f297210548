//! The scenarios: what each does, under which name, with which figures.

mod burst;
mod catalogue;
mod churn;
mod connect;
mod filters;
mod flow;
mod load;
mod offline;
mod queue;
mod retained;
mod steady;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

pub(crate) use catalogue::{CATALOGUE, find};

use crate::audit::Audience;
use crate::client::{Deaf, Greeting};
use crate::clock::Clock;
use crate::meter::Meter;
use crate::outcome::{Outcome, Phase};
use crate::process::Process;
use crate::swarm::{Swarm, Target};

/// The figures of a scenario. Which of them count depends on its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Params {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Connections that carry no messages.
    pub(crate) connections: usize,
    /// Messages or connections per second; 0 for as fast as it goes.
    pub(crate) rate: f64,
    /// Bytes.
    pub(crate) payload: usize,
    pub(crate) qos: u8,
    pub(crate) seconds: f64,
    /// Messages of one publisher under way to its slowest subscriber, at most; where nobody is
    /// there to get them, those that are unacknowledged.
    pub(crate) window: usize,
    /// Messages, topics or filters in all, where a scenario ends by count; filters of each
    /// connection, where there are only connections.
    pub(crate) messages: usize,
}

impl Params {
    /// The figure of that name.
    fn get(&self, name: &str) -> f64 {
        match name {
            "publishers" => self.publishers as f64,
            "subscribers" => self.subscribers as f64,
            "connections" => self.connections as f64,
            "rate" => self.rate,
            "payload" => self.payload as f64,
            "qos" => f64::from(self.qos),
            "seconds" => self.seconds,
            "messages" => self.messages as f64,
            _ => self.window as f64,
        }
    }
}

/// What a scenario does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages from publishers to subscribers.
    Load(Audience),
    /// Connections that come at a rate and stay.
    Connect,
    /// Connections that come and go beside others that stay.
    Churn,
    /// Connections that come at a rate beside a load of messages.
    Burst,
    /// Messages for sessions that are away, and then come.
    Offline(Audience),
    /// Messages for a partitioned queue, and consumers that come for them.
    Queue,
    /// Messages at a rate to sessions that outlive their connection, for long.
    Steady,
    /// Retained messages are stored, and fetched by one subscription.
    Retained,
    /// Many filters with wildcards.
    Filters,
}

impl Kind {
    /// Options of the command line that mean something to it.
    pub(crate) fn uses(self) -> &'static [&'static str] {
        match self {
            Self::Load(_) => {
                &["publishers", "subscribers", "rate", "payload", "qos", "seconds", "window"]
            }
            Self::Connect => &["connections", "rate"],
            Self::Churn => &["connections", "rate", "seconds"],
            Self::Burst => &["publishers", "subscribers", "connections", "rate", "payload", "qos"],
            Self::Queue | Self::Offline(_) => {
                &["publishers", "subscribers", "messages", "payload", "qos", "window"]
            }
            Self::Steady => &["publishers", "subscribers", "rate", "payload", "qos", "seconds"],
            Self::Retained => &["messages", "payload", "qos"],
            Self::Filters => &["messages", "payload"],
        }
    }

    /// Whether each publisher has a subscriber of its own.
    pub(crate) fn is_paired(self) -> bool {
        matches!(self, Self::Load(Audience::Partner) | Self::Burst | Self::Steady)
    }

    /// Connections it needs at the same time.
    pub(crate) fn connections(self, params: &Params) -> usize {
        let pairs = params.publishers + params.subscribers;
        match self {
            Self::Load(_) | Self::Steady => pairs,
            Self::Connect => params.connections,
            // Cycles overlap when the broker is slow.
            Self::Churn => params.connections + 1000,
            Self::Burst => pairs + params.connections,
            Self::Queue | Self::Offline(_) => params.publishers.max(params.subscribers),
            Self::Retained | Self::Filters => 2,
        }
    }
}

/// A scenario by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
    pub(crate) params: Params,
}

/// What a scenario runs with.
pub(crate) struct Context<'a> {
    pub(crate) target: &'a Target,
    pub(crate) clock: Clock,
    pub(crate) meter: &'a mut Meter,
    pub(crate) params: Params,
    /// Somebody wants an end.
    pub(crate) is_over: Arc<AtomicBool>,
    /// Nothing has been asked of the broker by this run before.
    pub(crate) is_first: bool,
    /// Begins every topic and client identifier of this run.
    pub(crate) prefix: String,
    pub(crate) phases: Vec<Phase>,
}

impl Context<'_> {
    fn swarm(&self) -> io::Result<Swarm> {
        Swarm::new(self.target.clone(), self.clock, Arc::clone(&self.is_over))
    }

    /// Clients that tidy up, also when an end is wanted.
    fn tidy_swarm(&self) -> io::Result<Swarm> {
        Swarm::new(self.target.clone(), self.clock, Arc::default())
    }

    /// Ends stored sessions, so that nothing is left behind.
    fn forget(&self, sessions: impl IntoIterator<Item = Greeting>) -> io::Result<()> {
        let mut swarm = self.tidy_swarm()?;
        let clean = |session| Greeting { keeps_session: false, filters: Vec::new(), ..session };
        swarm.connect_all(sessions.into_iter().map(clean), None, &mut Deaf, |_, _| {})?;
        swarm.close_all();
        Ok(())
    }
}

impl Scenario {
    /// The figures it runs with, as text.
    pub(crate) fn figures(&self) -> String {
        let figures = self.kind.uses().iter().map(|name| match (*name, self.params.get(name)) {
            ("rate", 0.0) => "as fast as it goes".into(),
            ("rate", rate) => format!("{} per second", (rate * 100.0).round() / 100.0),
            (name, figure) => format!("{name} {figure}"),
        });
        figures.collect::<Vec<String>>().join(", ")
    }

    /// Makes the scenario small enough for `connections_max` connections, and says by how much.
    /// What it does per second shrinks along with those who do it.
    pub(crate) fn fit(&mut self, connections_max: usize) -> Option<String> {
        let wanted = self.kind.connections(&self.params);
        if wanted <= connections_max {
            return None;
        }
        let spare = if self.kind == Kind::Churn { 1000 } else { 0 };
        let share = connections_max.saturating_sub(spare) as f64 / (wanted - spare) as f64;
        let scale = |count: &mut usize| {
            *count = if *count > 0 { ((*count as f64 * share) as usize).max(1) } else { 0 };
        };
        let params = &mut self.params;
        scale(&mut params.publishers);
        scale(&mut params.subscribers);
        scale(&mut params.connections);
        if matches!(self.kind, Kind::Load(Audience::Partner) | Kind::Steady) {
            let pairs = params.publishers.min(params.subscribers);
            (params.publishers, params.subscribers) = (pairs, pairs);
        }
        if matches!(self.kind, Kind::Load(_) | Kind::Steady) {
            params.rate *= share;
        }
        Some(format!(
            "to {:.1} %: {wanted} connections are wanted, {connections_max} can be had here",
            share * 100.0
        ))
    }

    /// Runs it. What it found before it failed is kept.
    pub(crate) fn run(
        &self,
        target: &Target,
        clock: Clock,
        meter: &mut Meter,
        is_over: &Arc<AtomicBool>,
        is_first: bool,
    ) -> Outcome {
        meter.scenario(self.name);
        let mut cx = Context {
            target,
            clock,
            meter,
            params: self.params,
            is_over: Arc::clone(is_over),
            is_first,
            prefix: format!("bench-{:x}", crate::clock::run_id()),
            phases: Vec::new(),
        };
        let result = match self.kind {
            Kind::Load(audience) => load::run(&mut cx, audience),
            Kind::Connect => connect::run(&mut cx),
            Kind::Churn => churn::run(&mut cx),
            Kind::Burst => burst::run(&mut cx),
            Kind::Offline(audience) => offline::run(&mut cx, audience),
            Kind::Queue => queue::run(&mut cx),
            Kind::Steady => steady::run(&mut cx),
            Kind::Retained => retained::run(&mut cx),
            Kind::Filters => filters::run(&mut cx),
        };
        Outcome { phases: cx.phases, ..self.outcome(result.err().map(|error| error.to_string())) }
    }

    /// What comes of it without a phase.
    pub(crate) fn outcome(&self, failed: Option<String>) -> Outcome {
        Outcome {
            scenario: self.name.into(),
            about: self.about.into(),
            params: self.params,
            figures: self.figures(),
            scaled: None,
            failed,
            phases: Vec::new(),
        }
    }

    /// No longer than `seconds_max`, if it goes by time.
    pub(crate) fn shorten(&mut self, seconds_max: f64) {
        let params = &mut self.params;
        params.seconds = params.seconds.min(seconds_max);
        if self.kind == Kind::Burst {
            let connections = seconds_max * burst::CONNECTIONS_PER_S;
            params.connections = params.connections.min((connections as usize).max(1));
        }
    }
}

/// The broker's process, if its number is known.
pub(crate) fn broker_process(pid: Option<u32>) -> io::Result<Option<Process>> {
    pid.map(Process::open).transpose()
}
