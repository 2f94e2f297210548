//! Into a session's queue.

use dunlin_packets::ReasonCode;
use dunlin_queue::{DropReason, Entry};
use dunlin_session::Context;

use super::conn::ConnId;
use super::mail::PublisherKey;
use super::sessions::SessionId;
use super::{Transport, Worker};

/// A client of this worker that has published something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publisher {
    pub(super) session: SessionId,
    pub(super) conn: ConnId,
}

impl<T: Transport> Worker<T> {
    /// Queues a message for a session and has its connection flushed this turn. A queue that
    /// fills holds `publisher` back.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        session: SessionId,
        entry: Entry,
        publisher: Option<PublisherKey>,
    ) {
        if self.journal.is_some() {
            return self.deliver_beside_log(session, entry, publisher);
        }
        let (_, overflowed) = self.enqueue(session, entry);
        self.after_delivery(session, publisher, overflowed);
    }

    /// The same where there is a log, that may have to know about it.
    #[inline(never)]
    fn deliver_beside_log(
        &mut self,
        session: SessionId,
        mut entry: Entry,
        publisher: Option<PublisherKey>,
    ) {
        let noted = self.note_delivery(session, &mut entry);
        if entry.group != 0 {
            // Its topic may be needed to pick another member, whoever else has it on disk.
            self.pool.pin(&entry.message);
        }
        let (is_queued, overflowed) = self.enqueue(session, entry);
        if let Some(noted) = noted.filter(|_| !is_queued) {
            self.take_delivery_back(noted);
        }
        self.write_changes(session);
        self.after_delivery(session, publisher, overflowed);
    }

    /// Says whether the message is in the queue, and whether the connection has to end for it.
    #[inline]
    fn enqueue(&mut self, session: SessionId, entry: Entry) -> (bool, bool) {
        let slot = self.sessions.get_mut(session);
        let limits = &self.shared.settings.limits;
        let queue_limits = slot.queue_limits(limits, &self.elastic_queue);
        let changes = &mut self.changes;
        let mut cx = Context { limits, pool: &mut self.pool, changes, now: self.now };
        let counters = &mut self.counters;
        let mut overflowed = false;
        let is_queued = slot.session.enqueue(entry, queue_limits, &mut cx, |reason, of| {
            counters.drop(reason);
            // Asked for by a line that is written only: a look at each topic costs, in overload.
            tracing::debug!(
                client = of.client_id,
                topic = of.message.topic_if_here(),
                reason = reason.name(),
                "not delivered"
            );
            overflowed |= reason == DropReason::QueueFullDisconnect;
        });
        (is_queued, overflowed)
    }

    /// Something has been put into a session's queue.
    #[inline]
    pub(super) fn after_delivery(
        &mut self,
        session: SessionId,
        publisher: Option<PublisherKey>,
        overflowed: bool,
    ) {
        let slot = self.sessions.get(session);
        let Some(conn) = slot.conn else { return };
        let is_high = slot.session.queue().is_high(&self.shared.settings.limits.queue);
        self.mark_dirty(conn);
        if is_high {
            self.hold_back(session, publisher);
        }
        if overflowed {
            // Not here: the session may be in the list that is being delivered to.
            self.doomed.push(conn);
        }
    }

    /// Ends the connections whose queues were full, where that is the policy.
    pub(super) fn disconnect_doomed(&mut self) {
        while let Some(id) = self.doomed.pop() {
            self.disconnect(id, ReasonCode::QuotaExceeded, "the queue is full");
        }
    }

    /// Has a connection flushed at the end of the turn.
    #[inline]
    pub(super) fn mark_dirty(&mut self, id: ConnId) {
        self.conns.mark_dirty(id, &mut self.dirty);
    }
}
