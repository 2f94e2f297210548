//! Connections and sessions come together, and part.

use dunlin_packets::{PacketError, ReasonCode};
use dunlin_queue::{DropReason, Time};
use dunlin_session::{Context, Departure, Offer, Will};

use super::conn::{ConnId, Phase};
use super::mail::{Adoption, Mail};
use super::sessions::{SessionId, SessionKey};
use super::then::Then;
use super::timers::{Timer, Timers};
use super::{Transport, Worker};
use crate::queues::is_queue_topic;

/// How long a peer may take to close its half after we have closed ours.
const LINGER_MS: u64 = 2_000;

impl<T: Transport> Worker<T> {
    /// A CONNECT was found good: the connection goes to the worker of its client identifier.
    pub(super) fn on_offer(&mut self, id: ConnId, offer: Offer, unread: &[u8]) {
        let owner = self.shared.worker_of(&offer.client_id, self.outboxes.len());
        if owner == self.index {
            self.adopt(id, offer);
            if !unread.is_empty()
                && let Some(conn) = self.conns.get_mut(id)
            {
                // Copied out of the way: they are handled like any bytes that were kept.
                let unread = unread.to_vec();
                conn.input = unread;
                self.on_kept_input(id);
            }
            return;
        }
        let Some(mut conn) = self.conns.remove(id) else { return };
        self.transport.detach(&mut conn.link);
        self.buffers.give_back(&mut conn.control);
        let adoption = Adoption {
            link: conn.link,
            peer: conn.peer,
            offer,
            unread: unread.to_vec(),
            is_readable: conn.is_readable,
            is_hung_up: conn.is_hung_up,
        };
        self.mail(owner, Mail::Adopt(Box::new(adoption)));
    }

    /// A connection arrives from the worker that accepted it.
    pub(super) fn on_adoption(&mut self, adoption: Adoption<T::Link>) {
        let id = self.conns.insert(adoption.link, adoption.peer);
        if !self.attach_link(id) {
            return;
        }
        self.adopt(id, adoption.offer);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.input = adoption.unread;
            conn.is_readable |= adoption.is_readable;
            conn.is_hung_up |= adoption.is_hung_up;
        }
        self.on_kept_input(id);
        self.list_readable(id);
    }

    /// Gives the connection its session: the stored one, or a new one.
    fn adopt(&mut self, id: ConnId, offer: Offer) {
        let existing = self.sessions.find(&offer.client_id);
        if let Some(old) = existing.and_then(|session| self.sessions.get(session).conn) {
            self.take_over(old);
        }
        // Taking over may have ended the session.
        let mut existing = self.sessions.find(&offer.client_id);
        let mut is_replaced = false;
        if let Some(session) = existing.filter(|_| offer.clean_start) {
            let slot = self.sessions.get_mut(session);
            is_replaced = slot.durable.is_some();
            let will = slot.session.take_will();
            // At once, as the CONNACK waits for it.
            if let Some(end) = self.end_session(session) {
                self.write_then(end);
            }
            self.publish_will(will, &offer.client_id, None, None);
            existing = None;
        }
        let resumed = existing.is_some();
        let hash = self.shared.hash(&offer.client_id);
        let session = existing.unwrap_or_else(|| self.sessions.insert(&offer.client_id, hash));
        let Some(conn) = self.conns.get_mut(id) else { return };
        tracing::info!(
            client = %offer.client_id, peer = %conn.peer.address, version = offer.version.name(),
            keep_alive_s = offer.keep_alive_s, resumed, "connected"
        );
        conn.phase = Phase::Online(session);
        // The timer for the CONNECT may still be set; it finds nothing to do.
        conn.has_timer = false;
        let slot = self.sessions.get_mut(session);
        slot.conn = Some(id);
        let limits = &self.shared.settings.limits;
        let cx =
            Context { limits, pool: &mut self.pool, changes: &mut self.changes, now: self.now };
        slot.session.attach(offer, resumed, &cx, self.buffers.ready(&mut conn.control));
        self.record_attached(session, id, is_replaced);
        self.counters.connects += 1;
        self.counters.online += 1;
        self.count_sessions();
        self.arm_session(session);
        self.announce_memberships(session, true);
        self.rejoin_queues(session);
        self.mark_dirty(id);
    }

    /// A newer connection has the same client identifier \[MQTT-3.1.4-3\].
    fn take_over(&mut self, old: ConnId) {
        self.disconnect(old, ReasonCode::SessionTakenOver, "taken over by another connection");
    }

    /// Ends a connection with a DISCONNECT of ours, where the version has one.
    pub(super) fn disconnect(&mut self, id: ConnId, code: ReasonCode, reason: &'static str) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.phase.is_closing() {
            return;
        }
        if let Phase::Online(session) = conn.phase {
            let out = self.buffers.ready(&mut conn.control);
            self.sessions.get(session).session.disconnect(code, reason, out);
            self.part(id, session, false, reason);
        }
        self.close(id);
    }

    /// The client broke the protocol \[MQTT-4.13.1-1\].
    #[cold]
    pub(super) fn fail(&mut self, id: ConnId, error: PacketError) {
        let Some(conn) = self.conns.get(id) else { return };
        let client = conn.session().map_or("", |s| self.sessions.get(s).session.client_id());
        tracing::info!(client, peer = %conn.peer.address, %error, "protocol error");
        self.disconnect(id, error.code, error.detail);
    }

    /// The client said goodbye.
    pub(super) fn on_client_disconnect(
        &mut self,
        id: ConnId,
        discard_will: bool,
        code: ReasonCode,
    ) {
        let Some(session) = self.conns.get(id).and_then(super::conn::Conn::session) else {
            return;
        };
        let reason = if code == ReasonCode::Success {
            "the client disconnected"
        } else {
            "the client disconnected with a reason code"
        };
        self.part(id, session, discard_will, reason);
        if self.conns.get(id).is_some_and(super::conn::Conn::has_unsent) {
            // It may still want the answers to what it sent before.
            return self.close(id);
        }
        self.forget_conn(id);
    }

    /// The other side is gone.
    pub(super) fn on_peer_closed(&mut self, id: ConnId, reason: &'static str) {
        if let Some(session) = self.conns.get(id).and_then(super::conn::Conn::session) {
            self.part(id, session, false, reason);
        }
        self.forget_conn(id);
    }

    /// Separates a connection from its session, and does what the session leaves to do.
    fn part(&mut self, id: ConnId, session: SessionId, discard_will: bool, reason: &'static str) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.phase = Phase::Closing { until: Time::NEVER };
        let slot = self.sessions.get_mut(session);
        tracing::info!(
            client = slot.session.client_id(), peer = %conn.peer.address, reason, "disconnected"
        );
        slot.conn = None;
        self.counters.online -= 1;
        let Departure { will, ended } = slot.session.detach(discard_will, self.now);
        let client_id: Box<str> = slot.session.client_id().into();
        self.relieve(session);
        let mut then = Some(Then::Session(self.sessions.key(self.index, session)));
        if ended {
            then = self.end_session(session);
        } else {
            self.announce_memberships(session, false);
            self.redispatch_queued(session);
            self.leave_queues(session, false);
            self.arm_session(session);
        }
        let from = (!ended).then_some(session);
        self.publish_will(will, &client_id, from, then);
        self.count_sessions();
    }

    /// Lets the last bytes go out, then closes.
    pub(super) fn close(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let until = self.now.plus_millis(LINGER_MS);
        conn.phase = Phase::Closing { until };
        conn.pauses = 0;
        self.buffers.give_back(&mut conn.input);
        if let Some(journal) = &mut self.journal {
            // Nothing follows a DISCONNECT [MQTT-3.14.4-1], an answer that waits neither.
            journal.held.remove(&id);
        }
        conn.has_timer = true;
        self.timers.add(until, Timer::Conn(id));
        self.mark_dirty(id);
        self.list_readable(id);
    }

    /// Drops a connection with everything it has.
    pub(super) fn forget_conn(&mut self, id: ConnId) {
        let Some(mut conn) = self.conns.remove(id) else { return };
        if let Some(journal) = &mut self.journal {
            journal.held.remove(&id);
        }
        self.open_acks.forget(id);
        self.shared.connections.remove(conn.peer.listener);
        for buffer in [&mut conn.input, &mut conn.control] {
            self.buffers.give_back(buffer);
        }
        let unsent = conn.unsent.take();
        if let Some(large) = unsent.and_then(|unsent| self.buffers.give_back_unsent(unsent)) {
            self.pool.release(large.message);
        }
    }

    /// A connection was not even taken.
    pub fn count_refused(&mut self) {
        self.counters.refused += 1;
        self.counters.touch();
    }

    /// No CONNECT, half a packet, or a peer that does not close.
    pub(super) fn on_conn_timer(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.phase {
            Phase::Lobby => {
                tracing::info!(peer = %conn.peer.address, "no CONNECT in time");
                self.counters.refused += 1;
                self.forget_conn(id);
            }
            Phase::Closing { until } if self.now < until => {}
            Phase::Closing { .. } => self.forget_conn(id),
            Phase::Online(session) => {
                conn.has_timer = false;
                if conn.input.is_empty() {
                    return;
                }
                let is_waiting_for_us =
                    conn.pauses > 0 || conn.is_readable || self.is_out_of_credit;
                let since = self.sessions.get(session).session.last_received();
                let timeout_ms = self.shared.settings.packet_timeout_ms;
                if !is_waiting_for_us && self.now.millis_since(since) >= timeout_ms {
                    let error = PacketError::malformed("4.13", "half a packet, and no more");
                    return self.fail(id, error);
                }
                conn.has_timer = true;
                let next = since.plus_millis(timeout_ms).max(self.now.plus_millis(1000));
                self.timers.add(next, Timer::Conn(id));
            }
        }
    }

    /// Sets a timer for what the session has next, unless an earlier one is set.
    pub(super) fn arm_session(&mut self, session: SessionId) {
        let key = self.sessions.key(self.index, session);
        let slot = self.sessions.get_mut(session);
        let deadline = slot.session.deadline();
        if Timers::round(deadline) < slot.timer_at {
            slot.timer_at = self.timers.add(deadline, Timer::Session(key));
        }
    }

    pub(super) fn on_session_timer(&mut self, key: SessionKey, at: Time) {
        let Some(session) = self.sessions.resolve(key) else { return };
        let slot = self.sessions.get_mut(session);
        if slot.timer_at != at {
            // An earlier one has been set since.
            return;
        }
        slot.timer_at = Time::NEVER;
        let due = slot.session.on_timer(self.now);
        let client_id: Box<str> = slot.session.client_id().into();
        if due.keep_alive
            && let Some(id) = slot.conn
        {
            let conn = self.conns.get(id);
            let is_unread = conn.is_some_and(|conn| {
                // Who does not read our answers is not listened to, and that is its own doing.
                conn.pauses > 0 || conn.is_readable && !conn.has_unread_answers()
            });
            if is_unread || self.is_out_of_credit {
                // We have not listened, so its silence says nothing.
                self.sessions.get_mut(session).session.heard(self.now);
            } else {
                return self.disconnect(id, ReasonCode::KeepAliveTimeout, "keep alive timeout");
            }
        }
        // That the will is gone, if it is.
        let mut then = due.will.is_some().then_some(Then::Session(key));
        if due.ended {
            tracing::info!(client = %client_id, "session expired");
            then = self.end_session(session);
            self.count_sessions();
        } else {
            self.arm_session(session);
        }
        let from = (!due.ended).then_some(session);
        self.publish_will(due.will, &client_id, from, then);
    }

    /// Publishes a will, if there is one \[MQTT-3.1.2-8\]. Not while the broker ends: then it is
    /// not the client that has gone. `then` is what is to be written down of its session, behind
    /// it: a crash leaves the will with the session, or as a message.
    fn publish_will(
        &mut self,
        will: Option<Box<Will>>,
        client_id: &str,
        from: Option<SessionId>,
        then: Option<Then>,
    ) {
        let Some(will) = will.filter(|_| !self.shutdown.is_begun()) else {
            if let Some(then) = then {
                self.write_then(then);
            }
            return;
        };
        let publisher = self.shared.hash(client_id);
        let message = self.pool.insert(&will.fields(publisher), self.now);
        if is_queue_topic(self.pool.get(&message).topic_bytes()) {
            return self.publish_will_to_queue(message, then);
        }
        let is_recording = self.begin_recording(&message);
        self.publish(&message, from);
        if is_recording {
            self.end_recording(&message, None, then);
        } else if let Some(then) = then {
            self.write_then(then);
        }
        self.settle_run();
        self.pool.release(message);
    }

    /// Ends a session: nothing of it is left \[MQTT-4.1.0-2\]. Says what is to be written down of
    /// that.
    #[must_use]
    fn end_session(&mut self, session: SessionId) -> Option<Then> {
        self.relieve(session);
        let target = session.target();
        let slot = self.sessions.get_mut(session);
        let filters = std::mem::take(&mut slot.subscriptions);
        for filter in filters {
            let interest = &self.interest;
            self.subscriptions.unsubscribe(filter, target, |gone| {
                if let Some(interest) = interest {
                    interest.remove(gone);
                }
            });
        }
        self.leave_all_groups(session);
        self.leave_queues(session, true);
        let end = self.forget_durable(session);
        self.cancel_replays(session);
        let mut slot = self.sessions.remove(session);
        let lost = slot.session.clear(&mut self.pool);
        self.counters.drop_many(DropReason::SessionEnded, lost);
        if lost > 0 {
            let reason = DropReason::SessionEnded.name();
            tracing::debug!(client = slot.session.client_id(), lost, reason, "not delivered");
        }
        end
    }

    pub(super) fn count_sessions(&mut self) {
        self.counters.sessions = self.sessions.len() as u64;
        self.counters.subscriptions = self.subscriptions.len() as u64;
        self.counters.touch();
    }
}
