//! How a log is to be opened.

/// The limits of a log, and its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Once a segment file has so many bytes, the next frame begins a new one.
    pub segment_bytes: u64,
    /// All segment files together, in bytes; 0 for no limit. A frame that would go beyond is
    /// refused with [`crate::LogError::Full`].
    pub bytes_max: u64,
    /// Drawn at random at every start of the program, and told to nobody. It goes into the header
    /// of each segment that the log begins, and keeps bytes of a payload from being made such that
    /// they pass for a frame. A segment that is there already has and keeps its own. With one that
    /// is known, as the 0 of the default is, whoever guesses where a payload will lie can make a
    /// torn tail look like corruption, and damage like frames.
    pub secret: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, bytes_max: 0, secret: 0 }
    }
}

/// What to do about parts of the log that had been synced and are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Do not open.
    Refuse,
    /// Go on behind them. They are reported at every open until their segments are removed.
    Skip,
}
