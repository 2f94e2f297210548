//! A session as its client has to expect it: whether it lives, what it was promised, what came.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{FilterId, TopicId};
use super::publication::{PubId, Tick};
use super::subscriptions::Subscriptions;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Without a DISCONNECT, or by a takeover.
    Broken,
    /// With one.
    Orderly {
        /// The client wants its will published all the same.
        with_will: bool,
        /// A new session expiry interval, in seconds.
        expiry_s: Option<u32>,
    },
}

/// Whether a session is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// No session, and no connection.
    None,
    /// With a connection.
    Online,
    /// Without one. It is there before `ends_min_ms`, it is not from `ends_max_ms` on, and between
    /// them it may be either; they differ only after a crash.
    Offline {
        /// Virtual time.
        ends_min_ms: u64,
        /// Virtual time; `u64::MAX` for never.
        ends_max_ms: u64,
    },
}

/// A will that is kept with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptWill {
    /// The publication it will be.
    pub publication: PubId,
    /// Seconds from the end of the connection.
    pub delay_s: u32,
    /// When it goes out, once the connection has ended.
    pub due_ms: Option<u64>,
}

/// A retained message that a subscription has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwedRetained {
    /// This one, or a newer one.
    pub floor: PubId,
    /// The request, in the history of its filter.
    pub place: usize,
    /// The SUBACK has come.
    pub is_granted: bool,
}

/// Publisher, topic, QoS of the publication and of the delivery, and whether it was published with
/// RETAIN: within these, first deliveries come in order.
pub type Lane = (usize, TopicId, u8, u8, bool);

/// What is known of one client identifier's session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whether it is there.
    pub life: Life,
    /// A CONNECT was never answered, so it may be the old session or a new one: it owes nothing.
    pub is_doubtful: bool,
    /// Seconds it outlives its connection.
    pub expiry_s: u32,
    /// The same as the last CONNACK said: what a DISCONNECT changes is not answered.
    pub connected_s: u32,
    /// The will of its last connection that was taken back, or has gone out: a broker that crashes
    /// may not remember that.
    pub past_will: Option<PubId>,
    /// What came before, if it outlived its connection: it ended without an answer, so after a
    /// crash it may be there again.
    pub ghost: Option<Box<Self>>,
    /// The will of its connection.
    pub will: Option<KeptWill>,
    /// What it has asked for.
    pub subscriptions: Subscriptions,
    /// What its client's application has got, and how often.
    pub delivered: BTreeMap<PubId, u32>,
    /// Of those at QoS 2 on both ways, how often.
    pub exactly: BTreeMap<PubId, u32>,
    /// The last first delivery in each lane.
    pub lanes: BTreeMap<Lane, PubId>,
    /// Acknowledged publications that it has to get.
    pub owed: BTreeSet<PubId>,
    /// Retained messages it has to get, or newer ones.
    pub owed_retained: BTreeMap<(FilterId, TopicId), OwedRetained>,
    /// By topic: the latest place, in the order of all sendings, of what it has got.
    pub current: BTreeMap<TopicId, u64>,
    /// Share groups it has left, and when.
    pub left: BTreeMap<FilterId, Tick>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            life: Life::None,
            is_doubtful: false,
            expiry_s: 0,
            connected_s: 0,
            past_will: None,
            ghost: None,
            will: None,
            subscriptions: Subscriptions::default(),
            delivered: BTreeMap::new(),
            exactly: BTreeMap::new(),
            lanes: BTreeMap::new(),
            owed: BTreeSet::new(),
            owed_retained: BTreeMap::new(),
            current: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }
}

/// Virtual time `seconds` after `now_ms`; the interval's largest value means never.
#[must_use]
pub fn end_of(now_ms: u64, seconds: u32) -> u64 {
    if seconds == u32::MAX { u64::MAX } else { now_ms + u64::from(seconds) * 1000 }
}

/// The broker rounds its timers up to this (`broker/src/worker/timers.rs`). The clock of a run
/// begins at a multiple of it.
const TIMER_GRAIN_MS: u64 = 16;

/// When the broker does what is due `seconds` after `now_ms`.
#[must_use]
pub fn timer_after(now_ms: u64, seconds: u32) -> u64 {
    match seconds {
        0 => now_ms,
        u32::MAX => u64::MAX,
        _ => end_of(now_ms, seconds).div_ceil(TIMER_GRAIN_MS) * TIMER_GRAIN_MS,
    }
}

impl Session {
    /// Whether it is there at all.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.life != Life::None
    }

    /// Whether it is there for certain: a crash leaves open from when on its expiry counts.
    #[must_use]
    pub fn exists_for_certain(&self, now_ms: u64) -> bool {
        let may_be_over =
            matches!(self.life, Life::Offline { ends_min_ms, .. } if ends_min_ms <= now_ms);
        self.exists() && !self.is_doubtful && !may_be_over
    }

    /// What Session Present has to say if the client connects without Clean Start; `None` when
    /// it may be either.
    #[must_use]
    pub fn expected_present(&self, now_ms: u64) -> Option<bool> {
        match self.life {
            _ if self.is_doubtful => None,
            Life::None => Some(false),
            // A takeover ends the old connection first, and a session without expiry with it.
            Life::Online => Some(self.expiry_s > 0),
            Life::Offline { ends_min_ms, .. } if now_ms < ends_min_ms => Some(true),
            Life::Offline { ends_max_ms, .. } if now_ms >= ends_max_ms => Some(false),
            Life::Offline { .. } => None,
        }
    }

    /// What has ended without an answer may be there again.
    pub fn call_ghost(&mut self, now_ms: u64) {
        if self.life == Life::None
            && let Some(ghost) = self.ghost.take()
        {
            *self = *ghost;
            self.is_doubtful = true;
            self.owed.clear();
            self.life = Life::Offline { ends_min_ms: now_ms, ends_max_ms: now_ms };
        }
    }

    /// Begins anew, with nothing of before.
    pub fn renew(&mut self) {
        let before = std::mem::take(self);
        self.ghost = match before.connected_s {
            0 => before.ghost,
            _ => Some(Box::new(before)),
        };
    }
}
