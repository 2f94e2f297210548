//! Which queues there are.

use dunlin::config::{Config, Sources};
use dunlin::worker::Settings;

use super::{ATTEMPTS, GROUPS, LEASE_MS, LONER, SILENCE_MS};
use crate::simulate::random::Random;

/// What there is to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Work,
    /// With delays, priorities and expiry.
    Timed,
    /// With a few messages at most.
    Bounded {
        drops_oldest: bool,
    },
    /// What is published to `m/#`.
    Captured {
        is_acknowledged: bool,
    },
    Stream {
        is_compacted: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct QueueSpec {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    partitions: usize,
}

impl QueueSpec {
    /// Where a message is published.
    pub(super) fn topic(&self, key: &str) -> String {
        match self.kind {
            Kind::Captured { .. } => format!("m/{key}"),
            _ => format!("$queue/{}/{key}", self.name),
        }
    }

    pub(super) fn filter(&self) -> String {
        format!("$queue/{}", self.name)
    }

    pub(super) fn groups(&self) -> Vec<&'static str> {
        let mut groups = GROUPS.to_vec();
        if self.name == "q0" {
            groups.push(LONER);
        }
        groups
    }

    /// Whether what was acknowledged has to reach every group.
    pub(super) fn keeps_all(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Bounded { drops_oldest: true }
                | Kind::Captured { is_acknowledged: false }
                | Kind::Stream { is_compacted: true }
        )
    }

    fn declaration(&self) -> String {
        let words = match self.kind {
            Kind::Work | Kind::Timed => "",
            Kind::Bounded { drops_oldest: false } => "messages=12",
            Kind::Bounded { drops_oldest: true } => "messages=12 full=drop-oldest",
            Kind::Captured { is_acknowledged: true } => "capture=m/#",
            Kind::Captured { is_acknowledged: false } => "capture=m/# capture_ack=false",
            Kind::Stream { is_compacted: false } => "mode=stream serial=false",
            Kind::Stream { is_compacted: true } => "mode=stream serial=false compact=true",
        };
        format!("{} partitions={} {words}", self.name, self.partitions)
    }
}

/// The queues of a run, and the options of the broker.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) queues: Vec<QueueSpec>,
    pub(super) prefetch: usize,
    default: String,
    has_memory: bool,
}

/// The work queues, and where the stream is.
pub(super) const WORK_QUEUES: usize = 3;
pub(super) const STREAM: usize = 3;

impl Scene {
    pub(super) fn draw(random: &mut Random) -> Self {
        let kinds = [
            Kind::Work,
            Kind::Timed,
            Kind::Timed,
            Kind::Bounded { drops_oldest: false },
            Kind::Bounded { drops_oldest: true },
        ];
        let kinds = [
            ("q0", Kind::Work),
            ("q1", random.pick(&kinds)),
            ("m", Kind::Captured { is_acknowledged: random.percent(70) }),
            ("s", Kind::Stream { is_compacted: random.percent(40) }),
        ];
        let queues = kinds.map(|(name, kind)| {
            let partitions = random.pick(&[1, 2, 8]);
            QueueSpec { name, kind, partitions }
        });
        let prefetch = random.pick(&[1, 3, 20]);
        let is_serial = random.percent(30);
        let default = format!(
            "partitions=2 lease={LEASE_MS}ms attempts={ATTEMPTS} backoff=1s backoff_max=4s \
             prefetch={prefetch} serial={is_serial} member_timeout={SILENCE_MS}ms"
        );
        Self { queues: queues.to_vec(), prefetch, default, has_memory: random.percent(50) }
    }

    pub(super) fn settings(&self) -> Settings {
        let declared: Vec<_> = self.queues.iter().map(QueueSpec::declaration).collect();
        let mut options =
            vec![("queues.default", self.default.clone()), ("queues.declare", declared.join(","))];
        if !self.has_memory {
            options.push(("durability.memory_per_worker", "0".into()));
            options.push(("queues.index_per_worker", "0".into()));
        }
        let flags = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let sources = Sources { flags, ..Sources::default() };
        Config::load(&sources).expect("good options").settings
    }

    /// A queue has more partitions from the next start on.
    pub(super) fn grow(&mut self, random: &mut Random) {
        let at = random.below(self.queues.len());
        self.queues[at].partitions += random.between(1, 3);
    }
}
