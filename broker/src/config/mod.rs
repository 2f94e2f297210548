//! Configuration: defaults, then a TOML file, then the environment, then the command line.
//!
//! Every option is one row of [`table`](self), which has its name, its documentation, its check
//! and its place in [`Config`]. The commented default file, the environment and `--set` are made
//! from it.

mod field;
mod file;
mod queues;
mod table;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::worker::{Level, Settings};

pub use file::default_file;
pub use queues::Declarations;

/// One listening address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// Connections this listener takes.
    pub connections_max: usize,
    /// Nobody asked for it, so the machine may not have it.
    pub is_optional: bool,
}

impl ListenerConfig {
    /// A listener that takes as many connections as the broker does.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connections_max: usize::MAX, is_optional: false }
    }
}

/// How much is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// Bytes in all above which no new message is kept; 0 for no limit.
    pub bytes_max: u64,
    /// Free bytes of the device below which no new message is kept.
    pub free_min: u64,
    /// Bytes in all below which the space of what is done with is not given back.
    pub clean_min: u64,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// Start although a part of what was kept is damaged.
    pub skip_damage: bool,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            bytes_max: 0,
            free_min: 256 << 20,
            clean_min: 256 << 20,
            segment_bytes: 64 << 20,
            skip_damage: false,
        }
    }
}

/// All options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listeners: Vec<ListenerConfig>,
    /// Worker threads; 0 for one per core.
    pub workers: usize,
    /// Where the broker keeps its files; empty for nowhere: then everything is in memory.
    pub data_dir: String,
    /// Whether clients need not authenticate; decided by the listeners when nobody said.
    pub allow_anonymous: Option<bool>,
    /// Limits of what is kept there.
    pub storage: StorageConfig,
    /// Queues as they were declared; [`Config::load`] puts them into the settings.
    pub queues: Declarations,
    /// The log.
    pub log: LogConfig,
    /// What the workers go by.
    pub settings: Settings,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |address: &str| {
            let address = address.parse().expect("a well-formed address");
            ListenerConfig { is_optional: true, ..ListenerConfig::new(address) }
        };
        let mut listeners = vec![loopback("127.0.0.1:1883"), loopback("[::1]:1883")];
        listeners[0].is_optional = false;
        Self {
            listeners,
            workers: 0,
            data_dir: "dunlin-data".into(),
            storage: StorageConfig::default(),
            allow_anonymous: None,
            queues: Declarations::default(),
            log: LogConfig { level: "warn".into(), format: "text".into() },
            settings: Settings::default(),
        }
    }
}

/// Why a configuration is not accepted: where it stands, which option it is, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `file:line`, a variable or a flag; empty for the configuration as a whole.
    pub origin: String,
    /// The option's name.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Values from outside the program, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Variables that begin with `DUNLIN_`.
    pub environment: Vec<(String, String)>,
    /// `--set` and the flags that stand for it: option and value.
    pub flags: Vec<(String, String)>,
    /// `--listen`: replaces all listeners.
    pub listen: Vec<String>,
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = &sources.file {
            file::apply(&mut config, path)?;
        }
        for (variable, value) in &sources.environment {
            config.apply_variable(variable, value)?;
        }
        if !sources.listen.is_empty() {
            config.listeners = parse_addresses(sources.listen.iter(), "--listen")?;
        }
        for (key, value) in &sources.flags {
            let error =
                |problem| ConfigError { origin: format!("--set {key}"), key: key.clone(), problem };
            table::set(&mut config, key, &field::Raw::from_text(value)).map_err(error)?;
        }
        config.check()?;
        Ok(config)
    }

    /// `DUNLIN_LIMITS__MAX_PACKET_SIZE` stands for `limits.max_packet_size`.
    fn apply_variable(&mut self, variable: &str, value: &str) -> Result<(), ConfigError> {
        let origin = format!("environment variable {variable}");
        let Some(name) = variable.strip_prefix("DUNLIN_") else { return Ok(()) };
        if name == "LISTEN" {
            self.listeners = parse_addresses(value.split(',').map(str::trim), &origin)?;
            return Ok(());
        }
        let key = name.to_lowercase().replace("__", ".");
        table::set(self, &key, &field::Raw::from_text(value)).map_err(|problem| ConfigError {
            origin,
            key,
            problem,
        })
    }

    /// Checks what only shows in the whole, and decides what was left open.
    fn check(&mut self) -> Result<(), ConfigError> {
        let public = self.listeners.iter().find(|listener| !listener.address.ip().is_loopback());
        if let Some(listener) = public.filter(|_| self.allow_anonymous.is_none()) {
            return Err(ConfigError {
                origin: String::new(),
                key: "allow_anonymous".into(),
                problem: format!(
                    "the listener on {} is reachable from outside and nothing authenticates \
                     clients; write allow_anonymous = true if that is meant",
                    listener.address
                ),
            });
        }
        let wrong = |key: &str, problem: String| {
            Err(ConfigError { origin: String::new(), key: key.into(), problem })
        };
        if self.listeners.is_empty() {
            return wrong("listener", "there is none".into());
        }
        for (at, listener) in self.listeners.iter().enumerate() {
            let address = listener.address;
            let is_same = |other: &ListenerConfig| other.address == address && address.port() != 0;
            if self.listeners[..at].iter().any(is_same) {
                return wrong("listener.address", format!("{address} is there twice"));
            }
        }
        self.settings.allow_anonymous = self.allow_anonymous.unwrap_or(true);
        let declared = self.queues.resolve(&self.settings.queues);
        self.settings.queues.declared = declared.map_err(|problem| ConfigError {
            origin: String::new(),
            key: "queues.declare".into(),
            problem,
        })?;
        Ok(())
    }

    /// Whether anything is kept on disk.
    #[must_use]
    pub fn keeps(&self) -> bool {
        let Settings { durability, queues, .. } = &self.settings;
        !self.data_dir.is_empty() && queues.strictest(durability.strictest()) != Level::Memory
    }

    /// How many workers that makes on this machine.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => {
                std::thread::available_parallelism().map_or(1, usize::from).min(table::WORKERS_MAX)
            }
            workers => workers,
        }
    }
}

fn parse_addresses<S: AsRef<str>>(
    texts: impl Iterator<Item = S>,
    origin: &str,
) -> Result<Vec<ListenerConfig>, ConfigError> {
    texts
        .map(|text| {
            let address = parse_address(text.as_ref()).map_err(|problem| ConfigError {
                origin: origin.into(),
                key: "listener.address".into(),
                problem,
            })?;
            Ok(ListenerConfig::new(address))
        })
        .collect()
}

/// `host:port` with a literal address, or the name `localhost`.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let literal = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    literal.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!("\"{text}\" is not an address and port, such as 127.0.0.1:1883 or [::1]:1883")
    })
}
