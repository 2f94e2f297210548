//! A point in time as an argument.

/// Milliseconds since the Unix epoch, by a clock that does not jump back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// Later than anything that happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// This many milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds after the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Later by so many milliseconds.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Later by so many seconds.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        self.plus_millis(seconds as u64 * 1000)
    }

    /// Milliseconds since `earlier`; 0 if that is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds until `self`, the begun one included.
    #[must_use]
    pub fn seconds_from(self, now: Self) -> u32 {
        u32::try_from(self.millis_since(now).div_ceil(1000)).unwrap_or(u32::MAX)
    }
}
