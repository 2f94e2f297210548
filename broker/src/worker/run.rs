//! A run: messages that one publisher sends to one topic, one behind the other.
//!
//! They go to the same subscribers, so they are routed together, and queued subscriber by
//! subscriber instead of message by message: each of a thousand sessions is touched once for all of
//! them. A run never outlives the bite of input it came in, and ends before anything else is done
//! with what came behind it, so nobody can tell but by the time it takes.

use std::collections::VecDeque;

use dunlin_packets::QoS;
use dunlin_queue::{Entry, Identifiers, MessageRef, QueueLimits, Shares};
use dunlin_router::{Match, SubscriberId, Target};

use super::conn::{ConnId, Conns};
use super::mail::PublisherKey;
use super::sessions::{SessionId, Sessions};
use super::{Transport, Worker};

/// Fewer subscribers, and a message is queued at once.
const SUBSCRIBERS_MIN: usize = 4;
/// Messages of a run. A publisher that has to wait should learn it soon.
const MESSAGES_MAX: usize = 32;

/// Messages that have been routed, and where to; not yet in anybody's queue.
#[derive(Debug, Default)]
pub(super) struct Run {
    messages: Vec<MessageRef>,
    /// What is handed out of them, and the highest QoS they are delivered at.
    shares: Vec<(Shares, QoS)>,
    /// Subscriptions whose session is offline, or whose queue fills.
    slow: Vec<Match>,
    /// Other workers with an interest.
    workers: u64,
    from: Option<SessionId>,
    publisher: Option<PublisherKey>,
}

impl<T: Transport> Worker<T> {
    /// Adds a message to the run, if it goes where that goes. Says which workers it goes to.
    #[inline]
    pub(super) fn extend_run(
        &mut self,
        message: &MessageRef,
        from: Option<SessionId>,
        publisher: Option<PublisherKey>,
    ) -> Option<u64> {
        let run = &self.run;
        let first = self.pool.get(run.messages.first()?);
        let next = self.pool.get(message);
        let is_alike = run.from == from
            && run.publisher == publisher
            && !next.retain
            && first.topic_bytes() == next.topic_bytes();
        if !is_alike || run.messages.len() == MESSAGES_MAX {
            self.settle_run();
            return None;
        }
        let share = self.pool.share(message);
        self.run.messages.push(share);
        Some(self.run.workers)
    }

    /// Begins a run with a message, if [`may_begin_run`].
    pub(super) fn begin_run(
        &mut self,
        message: &MessageRef,
        workers: u64,
        from: Option<SessionId>,
        publisher: Option<PublisherKey>,
    ) {
        debug_assert!(self.run.messages.is_empty());
        let share = self.pool.share(message);
        self.run.messages.push(share);
        (self.run.workers, self.run.from, self.run.publisher) = (workers, from, publisher);
    }

    /// Queues the messages of the run for everybody they are for.
    #[inline]
    pub(super) fn settle_run(&mut self) {
        if !self.run.messages.is_empty() {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let Self { run, pool, subscriptions, interest, sessions, conns, dirty, shared, .. } = self;
        let Some(first) = run.messages.first() else { return };
        let topic = pool.get(first).topic();
        // As when the run began: whatever changes subscriptions has settled it before.
        let matches = match interest {
            Some(interest) => subscriptions.route(topic, interest).matches,
            None => subscriptions.route(topic, &mut ()).matches,
        };
        let mut bytes = 0;
        for message in &run.messages {
            let content = pool.get(message);
            bytes += content.len();
            let highest = shared.settings.delivery_qos(content.qos, QoS::ExactlyOnce);
            run.shares.push((pool.share_many(message, matches.len() as u32), highest));
        }
        let limits = &shared.settings.limits.queue;
        let mut everybody = Everybody { matches, from: run.from, sessions, conns, dirty, limits };
        match &mut run.shares[..] {
            // A loop of its own, which knows that there is one.
            [one] => everybody.queue(std::array::from_mut(one), bytes, &mut run.slow),
            all => everybody.queue(all, bytes, &mut run.slow),
        }
        self.end_run();
    }

    /// Queues what is left of a run, and has its lists ready for the next.
    fn end_run(&mut self) {
        let mut run = std::mem::take(&mut self.run);
        for matched in run.slow.drain(..) {
            self.deliver_run_slowly(&matched, &mut run.shares, run.publisher);
        }
        for (shares, _) in run.shares.drain(..) {
            self.pool.release_many(shares);
        }
        for message in run.messages.drain(..) {
            self.pool.release(message);
        }
        self.run = run;
    }

    /// Each message goes in on its own, as the one that makes the queue half full changes what the
    /// queue may hold for those behind it.
    #[cold]
    fn deliver_run_slowly(
        &mut self,
        matched: &Match,
        shares: &mut [(Shares, QoS)],
        publisher: Option<PublisherKey>,
    ) {
        let Target::Session(SubscriberId(id)) = matched.target() else { return };
        for (shares, highest) in shares {
            let entry = entry(shares, *highest, matched);
            self.deliver(SessionId(id), entry, publisher);
        }
    }
}

/// Whether a run may begin with a message that matches these. Not where a share group is among
/// them: its members may be on other workers, and mail to those is counted message by message.
pub(super) fn may_begin_run(matches: &[Match]) -> bool {
    // Matches are in the order of their targets, and groups come last.
    let is_session = |matched: &Match| matches!(matched.target(), Target::Session(_));
    debug_assert!(matches.is_sorted_by_key(|matched| !is_session(matched)));
    matches.len() >= SUBSCRIBERS_MIN && matches.last().is_some_and(is_session)
}

/// One message of a run for one subscription.
#[inline]
fn entry(shares: &mut Shares, highest: QoS, matched: &Match) -> Entry {
    Entry {
        message: shares.hand_out(),
        identifiers: Identifiers::one(matched.identifier()),
        group: 0,
        qos: matched.qos().min(highest),
        // What is retained is no part of a run, so no flag has to pass.
        retain: false,
    }
}

/// All a run is for, and the parts of a worker that it goes through for them.
struct Everybody<'a, L> {
    matches: &'a [Match],
    from: Option<SessionId>,
    sessions: &'a mut Sessions,
    conns: &'a mut Conns<L>,
    dirty: &'a mut VecDeque<ConnId>,
    limits: &'a QueueLimits,
}

impl<L> Everybody<'_, L> {
    /// Queues messages of `bytes` bytes together for everybody who is online and has room;
    /// `slow` gets the others.
    fn queue(
        &mut self,
        shares: &mut (impl AsMut<[(Shares, QoS)]> + ?Sized),
        bytes: usize,
        slow: &mut Vec<Match>,
    ) {
        for matched in self.matches {
            // Groups are no part of a run.
            let Target::Session(SubscriberId(id)) = matched.target() else { continue };
            let session = SessionId(id);
            // Not back to where it came from [MQTT-3.8.3-3].
            if matched.no_local() && self.from == Some(session) {
                continue;
            }
            let slot = self.sessions.get_mut(session);
            let entries = shares.as_mut().iter_mut();
            let entries = entries.map(|(shares, highest)| entry(shares, *highest, matched));
            // With a connection it is online; that is on a line of the cache that is looked at
            // anyway.
            let conn = slot.conn.filter(|_| slot.pressure.is_none());
            match conn.filter(|_| slot.session.enqueue_all(entries, bytes, self.limits)) {
                Some(conn) => self.conns.mark_dirty(conn, self.dirty),
                None => slow.push(*matched),
            }
        }
    }
}
