//! What the worker of a session and the home of a queue tell each other about its consumers.

use dunlin_queue::partitioned::{Commit, Start};

use super::{MemberTerms, Refusal};
use crate::worker::sessions::SessionKey;

/// A session begins to consume a queue, or comes back.
#[derive(Debug)]
pub struct QueueJoin {
    /// As [`QueueName`](crate::queues::QueueName) displays it.
    pub(super) queue: Box<str>,
    pub(super) group: Box<str>,
    /// Of the routing key; empty for all.
    pub(super) filter: Box<str>,
    pub(super) is_temporary: bool,
    pub(super) commit: Commit,
    pub(super) start: Option<Start>,
    /// Also if the group exists.
    pub(super) is_replay: bool,
    pub(super) session: SessionKey,
    /// What the session's worker knows the membership by.
    pub(super) membership: u32,
    pub(super) client_id: Box<str>,
    pub(super) terms: MemberTerms,
    /// The consumer has asked for a number of unanswered messages itself.
    pub(super) has_prefetch: bool,
    /// And said itself how it settles.
    pub(super) has_settle: bool,
    /// Which SUBACK waits, and which of its codes is this one's; 0 for none.
    pub(in crate::worker) ticket: u64,
    pub(in crate::worker) at: u16,
}

/// A membership has ended at home: nothing that was sent to it is under way any more.
#[derive(Clone, Copy, Debug)]
pub struct QueueLeft {
    pub(super) membership: u32,
}

/// A queue has taken a consumer, or not.
#[derive(Clone, Copy, Debug)]
pub struct QueueJoined {
    /// Which SUBACK waits, and which of its codes is this one's.
    pub(in crate::worker) ticket: u64,
    pub(in crate::worker) at: u16,
    /// Why not, if so.
    pub(in crate::worker) refusal: Option<Refusal>,
    /// Something was written down for it.
    pub(in crate::worker) is_recorded: bool,
}

/// A session consumes a queue no longer, or has gone offline.
#[derive(Debug)]
pub struct QueueLeave {
    pub(super) queue: Box<str>,
    pub(super) group: Box<str>,
    pub(super) session: SessionKey,
    pub(super) membership: u32,
    /// It will not come back.
    pub(super) is_final: bool,
}
