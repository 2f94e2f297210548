//! How safe a publication is when it is acknowledged.

/// What has happened to a message before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is in memory: a crash of the broker loses it.
    Memory,
    /// It has been written, and will be synced within `interval_ms`: it survives a crash of the
    /// broker, and a failure of power from then on.
    Interval,
    /// It has been synced: it survives a failure of power.
    #[default]
    Fsync,
}

impl Level {
    /// Its name in the configuration and in acknowledgements.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Interval => "interval",
            Self::Fsync => "fsync",
        }
    }
}
