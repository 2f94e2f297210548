//! The one place that reads the clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dunlin_queue::Time;

/// Milliseconds since the epoch, as the system clock had it when the clock was made, and running
/// on with the monotonic one: setting the system clock moves no deadline.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Time,
    started: Instant,
}

impl Clock {
    /// Begins now.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // here and nowhere else
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let base = Time::from_millis(since_epoch.as_millis() as u64);
        Self { base, started: Instant::now() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.base.plus_millis(self.started.elapsed().as_millis() as u64)
    }

    /// Microseconds since the clock was made.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}
