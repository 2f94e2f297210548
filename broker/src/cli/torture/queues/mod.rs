//! A partitioned queue under torture: its consumers, and what it owes them.
//!
//! * `delivery`: what a PUBLISH to a consumer says
//! * `verbs`: what a consumer says about its messages
//! * `consumer`: a member of a group
//! * `audit`: what the groups got, and what of it is wrong
//!
//! Consumers have QoS 1: at QoS 2 a delivery that was in flight when its consumer went away comes
//! back to it whoever has settled it meanwhile (docs/design/queues.md), which is no fault.

mod audit;
mod consumer;
mod delivery;
mod verbs;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

pub(super) use audit::Audit;
pub(super) use consumer::Consumer;

use super::receipts::Published;
use super::shared::{Phase, Shared, zeros};
use super::subscriber::LOST_MS;

/// The queue. Its lease is short enough to end while the run waits for what is left, and long
/// enough for a consumer that waits for its turn on a busy machine.
pub(super) const DECLARATION: &str =
    "queues.declare=torture lease=3s backoff=50ms backoff_max=200ms attempts=0";
/// After so much silence there is no lease that could end, and no attempt to come.
const QUIET_MS: u64 = 3_500;
/// Until a consumer looks whether the groups have come.
const GROUPS_PAUSE_MS: u64 = 5;

/// A consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// PUBACK settles.
    Auto,
    /// `$ack` and `$nack` settle.
    Verbs,
}

impl Group {
    pub(super) const ALL: [Self; 2] = [Self::Auto, Self::Verbs];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Verbs => "verbs",
        }
    }
}

/// What the clients of the queue share.
#[derive(Debug)]
pub(super) struct QueueState {
    /// By publisher: the next sequence number, as [`Shared::next`].
    pub(super) next: Vec<AtomicU32>,
    /// What was published, once the publishers have left.
    pub(super) published: OnceLock<Vec<Published>>,
    /// By group: whether a SUBACK has come. What is published after that it has to get.
    has_come: [AtomicBool; 2],
    /// A lock, as the order in which the members of a group get messages is what is audited.
    pub(super) audit: Mutex<Audit>,
}

impl QueueState {
    pub(super) fn new(publishers: usize) -> Self {
        Self {
            next: zeros(publishers),
            published: OnceLock::new(),
            has_come: Default::default(),
            audit: Mutex::new(Audit::new(publishers)),
        }
    }

    pub(super) fn come(&self, group: Group) {
        self.has_come[group as usize].store(true, Ordering::SeqCst);
    }

    /// How many groups never came.
    pub(super) fn absent(&self) -> u64 {
        self.has_come.iter().filter(|has_come| !has_come.load(Ordering::SeqCst)).count() as u64
    }

    /// Returns when all groups are there, or nobody comes any more.
    pub(super) fn wait_for_groups(&self, shared: &Shared) {
        while self.absent() > 0 && shared.phase() == Phase::Torture {
            shared.pause(GROUPS_PAUSE_MS);
        }
    }

    /// Whether everything has come that was acknowledged, and nothing will come again.
    fn is_drained(&self, shared: &Shared) -> bool {
        let Some(published) = self.published.get() else { return false };
        let audit = self.audit.lock();
        audit.silence_ms(shared.now()) >= QUIET_MS && audit.lost(published) == 0
    }

    /// Whether what has not come is lost.
    fn is_silent(&self, shared: &Shared) -> bool {
        self.published.get().is_some() && self.audit.lock().silence_ms(shared.now()) >= LOST_MS
    }
}
