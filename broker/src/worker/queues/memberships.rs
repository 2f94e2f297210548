//! Memberships of this worker's sessions in groups that are at home elsewhere: which have ended
//! while deliveries to them may be under way.
//!
//! ```text
//! session's worker   Leave ──▶ … Join ──▶   ◀── delivery   ◀── Left   ◀── delivery
//!                    ending = 1               is stale       0          is the new member's
//! ```
//!
//! Mail from one worker to another arrives in order, so what comes from the home before it says
//! `Left` was sent to the membership that has ended. All leases of that one are others' by then.

use std::collections::BTreeMap;

/// Numbers for memberships, and those that are ending.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    last: u32,
    /// How often each has been left without the home having said so. A session that loses its
    /// connection and comes back keeps its numbers, so it may be more than once.
    ending: BTreeMap<u32, u32>,
}

impl Memberships {
    /// A number for a new one.
    pub(super) fn number(&mut self) -> u32 {
        // Should it come round to one that lives, the end of one gives back what is under way to
        // the other; that is all.
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// The home is told that one has ended.
    pub(super) fn begin_end(&mut self, membership: u32) {
        *self.ending.entry(membership).or_default() += 1;
    }

    /// The home has said that it knows.
    pub(super) fn end(&mut self, membership: u32) {
        if let Some(count) = self.ending.get_mut(&membership) {
            *count -= 1;
            if *count == 0 {
                self.ending.remove(&membership);
            }
        }
    }

    /// Whether what comes for it was sent before its home knew that it has ended.
    pub(super) fn is_ending(&self, membership: u32) -> bool {
        self.ending.contains_key(&membership)
    }
}
