//! The one place that reads the clocks.

use std::time::{Duration, Instant, SystemTime};

/// Nanoseconds since the program began. Latencies are differences of these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods)] // here and nowhere else
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

/// The date and time of day, UTC, to the second.
#[allow(clippy::disallowed_methods)] // for reports only
pub(crate) fn date() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Something that differs from run to run, so that no run meets topics and sessions of another.
#[allow(clippy::disallowed_methods)] // for names only
pub(crate) fn run_id() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since| since.as_millis() as u64) << 16
        | u64::from(std::process::id() & 0xffff)
}

pub(crate) fn seconds(seconds: f64) -> u64 {
    Duration::from_secs_f64(seconds.max(0.0)).as_nanos() as u64
}

pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;
