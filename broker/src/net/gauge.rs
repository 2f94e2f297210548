//! How busy a thread is.

/// How busy a thread is, in microseconds of its own count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauge {
    window_began: u64,
    awake: u64,
    /// Percent of the last window.
    share: u64,
    /// When it last had more to do than a little.
    busy_at: u64,
}

impl Gauge {
    /// What share of its time a thread is awake is measured over so many microseconds, and to the
    /// end of the next turn.
    pub(super) const WINDOW_US: u64 = 50_000;

    /// Nothing is known yet, and so everything could be: it is taken for busy at `now`.
    #[must_use]
    pub(super) fn start(now: u64) -> Self {
        Self { window_began: now, awake: 0, share: 100, busy_at: now }
    }

    /// The thread was awake.
    pub(super) fn add(&mut self, from: u64, to: u64, was_busy: bool) {
        self.awake += to - from;
        if was_busy {
            self.busy_at = to;
        }
        let window = to - self.window_began;
        if window >= Self::WINDOW_US {
            self.share = self.awake * 100 / window;
            (self.window_began, self.awake) = (to, 0);
        }
    }

    /// What share of its time it is awake, in percent.
    #[must_use]
    pub(super) fn share(&self) -> u64 {
        self.share
    }

    /// Since when the present window is being measured.
    #[must_use]
    pub(super) fn window_began(&self) -> u64 {
        self.window_began
    }

    /// When it was last busy.
    #[must_use]
    pub(super) fn busy_at(&self) -> u64 {
        self.busy_at
    }

    /// How long it has not been busy.
    #[must_use]
    pub(super) fn calm_us(&self, now: u64) -> u64 {
        now.saturating_sub(self.busy_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_last_window_and_one_busy_turn_ends_the_calm() {
        let mut gauge = Gauge::start(1_000);
        assert_eq!((gauge.share(), gauge.calm_us(1_500)), (100, 500));
        for turn in 0..10 {
            let from = 1_000 + turn * 6_000;
            gauge.add(from, from + 600, false);
        }
        assert_eq!((gauge.share(), gauge.calm_us(61_000)), (10, 60_000));
        gauge.add(60_000, 61_000, true);
        assert_eq!((gauge.share(), gauge.calm_us(62_000)), (10, 1_000));
        // A long sleep is part of a window.
        gauge.add(1_000_000, 1_000_100, false);
        assert_eq!(gauge.share(), 0);
    }
}
