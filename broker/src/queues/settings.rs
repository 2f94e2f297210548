//! What an operator decides about queues.

use dunlin_queue::partitioned::{BadConfig, Config, Mode, Retention};
use dunlin_session::Level;

use super::terms::PREFETCH_MAX;

/// The section `queues` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// A queue that is not declared is made when somebody publishes or subscribes to it.
    pub auto_create: bool,
    /// Queues there may be.
    pub max: usize,
    /// Bytes of memory for the indexes of one worker's queues; what is above it is on disk.
    pub index_bytes: usize,
    /// Bytes of messages of one worker's queues that are in memory only, as their level is `memory`
    /// or there is no log; more are refused.
    pub memory_bytes: usize,
    /// How a queue is that is not declared.
    pub defaults: QueueConfig,
    /// Queues that are there from the beginning, by name.
    pub declared: Vec<(String, QueueConfig)>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            auto_create: true,
            max: 10_000,
            index_bytes: 64 << 20,
            memory_bytes: 1 << 30,
            defaults: QueueConfig::default(),
            declared: Vec::new(),
        }
    }
}

impl QueueSettings {
    /// Whether the queue is there from the beginning.
    #[must_use]
    pub fn is_declared(&self, name: &str) -> bool {
        self.declared.iter().any(|(declared, _)| declared == name)
    }

    /// How the queue `name` is or would be; `None` when it is not declared and may not be made.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<&QueueConfig> {
        let declared = self.declared.iter().find(|(declared, _)| declared == name);
        let defaults = || self.auto_create.then_some(&self.defaults);
        declared.map(|(_, config)| config).or_else(defaults)
    }

    /// The highest level that a queue has, if those without one have `otherwise`.
    #[must_use]
    pub fn strictest(&self, otherwise: Level) -> Level {
        let defaults = self.auto_create.then_some(&self.defaults);
        let configs = self.declared.iter().map(|(_, config)| config).chain(defaults);
        configs.filter_map(|config| config.level).fold(otherwise, Level::max)
    }
}

/// How one queue behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// What the core goes by.
    pub core: Config,
    /// When a message is acknowledged; `None` for the level of all that has none of its own.
    pub level: Option<Level>,
    /// Topic filters: what is published there is put into the queue too.
    pub capture: Vec<String>,
    /// The publisher's acknowledgement waits until the queue has what it captured, and says so when
    /// the queue is full.
    pub is_capture_acknowledged: bool,
    /// Deliveries a consumer has at a time if it does not say; 1 to [`PREFETCH_MAX`].
    pub prefetch: u32,
    /// Seconds after which a consumer group without members is removed; 0: never.
    pub group_idle_s: u32,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            core: Config { member_timeout_ms: 60_000, ..Config::default() },
            level: None,
            capture: Vec::new(),
            is_capture_acknowledged: true,
            prefetch: 100,
            group_idle_s: 7 * 24 * 3600,
        }
    }
}

impl QueueConfig {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not, in the words of the configuration.
    pub fn check(&self) -> Result<(), &'static str> {
        self.core.check().map_err(|bad| match bad {
            BadConfig::Partitions => "partitions is not between 1 and 1024",
            BadConfig::Lease => "lease is 0",
            BadConfig::Backoff => "backoff is longer than backoff_max",
            BadConfig::Compaction => "compact is for mode=stream",
            BadConfig::Serial => "serial is for mode=work",
            BadConfig::Retention => "messages or bytes is 0",
        })?;
        if !(1..=PREFETCH_MAX).contains(&self.prefetch) {
            return Err("prefetch is not between 1 and 10000");
        }
        if self.core.limits.groups_max == 0 {
            return Err("groups is 0");
        }
        Ok(())
    }

    /// Milliseconds after which a member that has messages and says nothing is taken for gone:
    /// never before it could have been given the same ones again; 0 for never.
    #[must_use]
    pub fn member_timeout_ms(&self) -> u32 {
        match self.core.member_timeout_ms {
            0 => 0,
            millis => millis.max(self.core.lease_ms.saturating_mul(2)),
        }
    }

    /// The queue of its dead letters: a work queue with as many partitions and the same retention
    /// but for age, where a message can be tried any number of times.
    #[must_use]
    pub fn dead_letter_config(&self) -> Self {
        let core = Config {
            mode: Mode::Work,
            attempts_max: 0,
            is_compacted: false,
            // One that is put back goes at once, whoever works on its key.
            is_serial: false,
            has_dead_letters: false,
            retention: Retention { age_ms_max: 0, ..self.core.retention },
            ..self.core
        };
        Self { core, capture: Vec::new(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use dunlin_queue::partitioned::Limits;

    use super::*;

    fn with_level(level: Option<Level>) -> QueueConfig {
        QueueConfig { level, ..QueueConfig::default() }
    }

    #[test]
    fn a_declared_queue_is_as_declared_and_others_as_the_default() {
        let declared = with_level(Some(Level::Memory));
        let mut settings = QueueSettings::default();
        settings.declared.push(("orders".into(), declared.clone()));
        assert_eq!(settings.config("orders"), Some(&declared));
        assert_eq!(settings.config("other"), Some(&QueueConfig::default()));
        settings.auto_create = false;
        assert_eq!(settings.config("orders"), Some(&declared));
        assert_eq!(settings.config("other"), None);
    }

    #[test]
    fn the_strictest_level_is_of_a_queue_that_can_be() {
        let mut settings = QueueSettings::default();
        assert_eq!(settings.strictest(Level::Memory), Level::Memory);
        settings.declared.push(("orders".into(), with_level(Some(Level::Interval))));
        assert_eq!(settings.strictest(Level::Memory), Level::Interval);
        assert_eq!(settings.strictest(Level::Fsync), Level::Fsync);
        settings.defaults = with_level(Some(Level::Fsync));
        assert_eq!(settings.strictest(Level::Memory), Level::Fsync);
        settings.auto_create = false;
        assert_eq!(settings.strictest(Level::Memory), Level::Interval);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let default = QueueConfig::default;
        assert_eq!(default().check(), Ok(()));
        let no_groups = Limits { groups_max: 0, ..Limits::default() };
        let bad = [
            QueueConfig { prefetch: 0, ..default() },
            QueueConfig { prefetch: PREFETCH_MAX + 1, ..default() },
            QueueConfig { core: Config { lease_ms: 0, ..Config::default() }, ..default() },
            QueueConfig { core: Config { limits: no_groups, ..Config::default() }, ..default() },
        ];
        for config in bad {
            assert!(config.check().is_err(), "{config:?}");
        }
    }

    #[test]
    fn any_queue_can_have_dead_letters() {
        let stream =
            Config { partitions: 3, mode: Mode::Stream, is_compacted: true, ..Config::default() };
        let capture = vec!["m/#".to_owned()];
        let config = QueueConfig { core: stream, capture, ..with_level(Some(Level::Memory)) };
        let dead = config.dead_letter_config();
        assert_eq!(dead.check(), Ok(()));
        assert_eq!((dead.core.partitions, dead.core.mode), (3, Mode::Work));
        assert_eq!((dead.core.attempts_max, dead.core.has_dead_letters), (0, false));
        assert!(dead.capture.is_empty());
        let retention = Retention { age_ms_max: 0, ..config.core.retention };
        assert_eq!((dead.level, dead.core.retention), (config.level, retention));
    }
}
