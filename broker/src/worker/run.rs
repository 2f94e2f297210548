//! A run: messages that one publisher sends to one topic, one behind the other.
//!
//! They go to the same subscribers, so they are routed once, and queued subscriber by subscriber
//! instead of message by message: each of a thousand sessions is touched once for all of them. A
//! run never outlives the bite of input it came in, and ends before anything else is done with
//! what came behind it, so nobody can tell but by the time it takes.

use dunlin_packets::QoS;
use dunlin_queue::{Entry, Identifiers, MessageRef, Shares};
use dunlin_router::{Match, SubscriberId, Target};

use super::mail::PublisherKey;
use super::sessions::SessionId;
use super::{Transport, Worker};

/// Fewer subscribers, and a message is queued at once.
const SUBSCRIBERS_MIN: usize = 4;
/// Messages of a run. A publisher that has to wait should learn it soon.
const MESSAGES_MAX: usize = 32;

/// Messages that have been routed, and where to; not yet in anybody's queue.
#[derive(Debug, Default)]
pub(super) struct Run {
    messages: Vec<MessageRef>,
    /// What is handed out of them, and their QoS.
    shares: Vec<(Shares, QoS)>,
    /// Bytes of all messages.
    bytes: usize,
    matches: Vec<Match>,
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

    /// Whether a run may begin with a message whose matches are in `matched`. Not where a share
    /// group is among them: its members may be on other workers, and mail to those is counted
    /// message by message.
    pub(super) fn may_begin_run(&self) -> bool {
        // Matches are in the order of their targets, and groups come last.
        let is_session = |matched: &Match| matches!(matched.target(), Target::Session(_));
        debug_assert!(self.matched.is_sorted_by_key(|matched| !is_session(matched)));
        self.matched.len() >= SUBSCRIBERS_MIN && self.matched.last().is_some_and(is_session)
    }

    /// Begins a run with a message whose matches are in `matched`.
    pub(super) fn begin_run(
        &mut self,
        message: &MessageRef,
        workers: u64,
        from: Option<SessionId>,
        publisher: Option<PublisherKey>,
    ) {
        debug_assert!(self.run.messages.is_empty());
        std::mem::swap(&mut self.run.matches, &mut self.matched);
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
        let mut run = std::mem::take(&mut self.run);
        run.bytes = 0;
        for message in &run.messages {
            let content = self.pool.get(message);
            run.bytes += content.len();
            let qos = content.qos;
            run.shares.push((self.pool.share_many(message, run.matches.len() as u32), qos));
        }
        let matches = std::mem::take(&mut run.matches);
        for matched in &matches {
            // Groups are no part of a run.
            let Target::Session(SubscriberId(id)) = matched.target() else { continue };
            let session = SessionId(id);
            // Not back to where it came from [MQTT-3.8.3-3].
            if !matched.no_local() || run.from != Some(session) {
                self.deliver_run(session, matched, &mut run);
            }
        }
        for (shares, _) in run.shares.drain(..) {
            self.pool.release_many(shares);
        }
        for message in run.messages.drain(..) {
            self.pool.release(message);
        }
        run.matches = matches;
        // Its lists are used again.
        self.run = run;
    }

    #[inline]
    fn deliver_run(&mut self, session: SessionId, matched: &Match, run: &mut Run) {
        let slot = self.sessions.get_mut(session);
        let settings = &self.shared.settings;
        let limits = &settings.limits.queue;
        let (granted, identifier) = (matched.qos(), matched.identifier());
        let entries = run.shares.iter_mut().map(|(shares, published)| Entry {
            message: shares.hand_out(),
            identifiers: Identifiers::one(identifier),
            group: 0,
            qos: settings.delivery_qos(*published, granted),
            // What is retained is no part of a run, so no flag has to pass.
            retain: false,
        });
        // With a connection it is online; that is on a line of the cache that is looked at anyway.
        let conn = slot.conn.filter(|_| slot.pressure.is_none());
        match conn.filter(|_| slot.session.enqueue_all(entries, run.bytes, limits)) {
            Some(conn) => self.mark_dirty(conn),
            None => self.deliver_run_slowly(session, matched, run),
        }
    }

    /// For a session that is offline, or whose queue fills. Each message goes in on its own, as the
    /// one that makes the queue half full changes what the queue may hold for those behind it.
    #[cold]
    fn deliver_run_slowly(&mut self, session: SessionId, matched: &Match, run: &mut Run) {
        for (shares, published) in &mut run.shares {
            let entry = Entry {
                message: shares.hand_out(),
                identifiers: Identifiers::one(matched.identifier()),
                group: 0,
                qos: self.shared.settings.delivery_qos(*published, matched.qos()),
                retain: false,
            };
            self.deliver(session, entry, run.publisher);
        }
    }
}
