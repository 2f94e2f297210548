//! Sessions that outlive a crash: what is written down of them, and when.

use dunlin_packets::{PacketId, QoS};
use dunlin_router::Subscription;
use dunlin_session::Change;

use super::conn::ConnId;
use super::sessions::SessionId;
use super::settings::Level;
use super::then::Then;
use super::{Transport, Worker};
use crate::store::LogState;
use crate::store::record::{Record, SessionRecord, WillRecord};

/// What a session that outlives a crash has beside its slot.
#[derive(Debug)]
pub(super) struct Durable {
    /// Its number in the log.
    pub(super) sid: u64,
    /// Where all of its state was last written down together; what is before has no meaning.
    pub(super) state_at: u64,
}

impl<T: Transport> Worker<T> {
    /// Whether somebody waits for syncs, of sessions at least.
    fn syncs_sessions(&self) -> bool {
        self.shared.settings.durability.strictest() == Level::Fsync
    }

    /// A connection has begun: from here on the session outlives a crash, or does not, or for
    /// another time. The CONNACK is not sent before that is safe, also for a session in place of
    /// one that is gone (`is_replaced`). Who only comes back does not wait for space.
    pub(super) fn record_attached(&mut self, session: SessionId, conn: ConnId, is_replaced: bool) {
        let must_sync = self.syncs_sessions();
        let Some(journal) = &mut self.journal else { return };
        let slot = self.sessions.get_mut(session);
        let lives_on = slot.session.expiry_s() > 0;
        // Without a session the client must not find one that was there before it.
        let may_come_back = !lives_on && journal.has_unsafe_end();
        let is_new = is_replaced || lives_on != slot.durable.is_some();
        let must_wait = is_new || may_come_back;
        match &slot.durable {
            None if lives_on => {
                let sid = journal.port.session_number();
                journal.port.add_durable_session();
                journal.sessions.insert(sid, session);
                slot.durable = Some(Box::new(Durable { sid, state_at: 0 }));
                slot.session.set_durable(true);
            }
            Some(_) if !lives_on => {
                if let Some(then) = self.forget_durable(session) {
                    self.write_then(then);
                }
            }
            _ => {}
        }
        self.record_session(session);
        let Some(journal) = &mut self.journal else { return };
        if must_wait || lives_on && journal.port.state() == LogState::Ok {
            journal.wait_for_frame(must_sync);
            let cargo = &mut journal.cargo;
            if is_new { &mut cargo.conns } else { &mut cargo.returning }.push(conn);
            if let Some(conn) = self.conns.get_mut(conn) {
                conn.set_waiting(true);
            }
        }
    }

    /// Writes the session itself down, as it is now.
    pub(super) fn record_session(&mut self, session: SessionId) {
        let Some(journal) = &mut self.journal else { return };
        let slot = self.sessions.get(session);
        let Some(durable) = &slot.durable else { return };
        journal.write(&Record::Session(session_record(durable.sid, &slot.session)));
    }

    /// The session has ended, or does not outlive a crash any more. Says what is to be written
    /// down, if it did until now.
    pub(super) fn forget_durable(&mut self, session: SessionId) -> Option<Then> {
        let slot = self.sessions.get_mut(session);
        slot.session.set_durable(false);
        let sid = slot.durable.take()?.sid;
        let journal = self.journal.as_mut()?;
        journal.sessions.remove(&sid);
        journal.port.remove_durable_session();
        Some(Then::Ended { sid })
    }

    /// Writes down what has changed in a session.
    #[inline]
    pub(super) fn write_changes(&mut self, session: SessionId) {
        if !self.changes.is_empty() {
            self.write_all_changes(session);
        }
    }

    #[cold]
    fn write_all_changes(&mut self, session: SessionId) {
        self.note_answers();
        let must_sync = self.syncs_sessions();
        let key = self.sessions.key(self.index, session);
        let slot = self.sessions.get(session);
        let (Some(journal), Some(durable)) = (&mut self.journal, &slot.durable) else {
            return self.changes.clear();
        };
        let sid = durable.sid;
        for change in self.changes.drain(..) {
            match change {
                Change::Sent { packet_id, id, is_exactly_once } => {
                    journal.write(&Record::Sent { sid, packet_id, id, is_exactly_once });
                }
                Change::Released { packet_id, id } => {
                    journal.write(&Record::Released { sid, packet_id, id });
                    journal.cargo.unholds.push((key, packet_id));
                    journal.wait_for_frame(must_sync);
                }
                Change::Completed { packet_id } => {
                    journal.write(&Record::Completed { sid, packet_id });
                }
                Change::Done { id, is_held: false } => {
                    journal.write(&Record::Done { sid, id });
                }
                // Not before the message, or it would be there when this is gone.
                Change::Done { id, .. } => journal.done_early.entry(id).or_default().push(sid),
                // Noted above.
                Change::Answered { .. } => {}
                Change::Freed { packet_id } => {
                    journal.write(&Record::Freed { sid, packet_id });
                    journal.wait_for_frame(must_sync);
                }
            }
        }
    }

    /// What has become of deliveries from queues.
    fn note_answers(&mut self) {
        for at in 0..self.changes.len() {
            if let Change::Answered { number, answer } = self.changes[at] {
                self.note_answer(number, answer);
            }
        }
    }

    /// A QoS 2 PUBLISH goes out when its packet identifier, just written down, is safe.
    pub(super) fn send_when_safe(&mut self, session: SessionId, packet_id: PacketId) {
        let must_sync = self.syncs_sessions();
        let key = self.sessions.key(self.index, session);
        if let Some(journal) = &mut self.journal {
            journal.cargo.unholds.push((key, packet_id));
            journal.wait_for_frame(must_sync);
        }
    }

    /// PUBCOMP goes out when everything that was written down so far is safe.
    pub(super) fn complete_when_safe(
        &mut self,
        id: ConnId,
        session: SessionId,
        packet_id: PacketId,
        is_known: bool,
    ) {
        let session = &self.sessions.get(session).session;
        let Some(journal) = &mut self.journal else { return };
        if journal.hold_answer(id, |out| session.pubcomp(packet_id, is_known, out)) {
            return;
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        session.pubcomp(packet_id, is_known, self.buffers.ready(&mut conn.control));
        self.mark_dirty(id);
    }

    /// A session subscribes, to something new or on other terms.
    pub(super) fn record_subscribed(
        &mut self,
        session: SessionId,
        filter: &str,
        subscription: Subscription,
    ) {
        let Some(journal) = &mut self.journal else { return };
        let Some(durable) = &self.sessions.get(session).durable else { return };
        let Subscription { options, identifier } = subscription;
        let sid = durable.sid;
        journal.write(&Record::Subscribed { sid, filter, options, identifier });
    }

    /// A session subscribes no longer.
    pub(super) fn record_unsubscribed(&mut self, session: SessionId, filter: &str) {
        let Some(journal) = &mut self.journal else { return };
        let Some(durable) = &self.sessions.get(session).durable else { return };
        journal.write(&Record::Unsubscribed { sid: durable.sid, filter });
    }

    /// SUBACK and UNSUBACK of a session that outlives a crash wait until what they say does so too,
    /// and any whose queue has written something down (`is_recorded`). `None` when there is nothing
    /// to wait for, and `encode` was not called.
    pub(super) fn answer_when_safe(
        &mut self,
        conn: ConnId,
        session: SessionId,
        is_recorded: bool,
        encode: impl FnOnce(&dunlin_session::Session, &mut Vec<u8>) -> bool,
    ) -> Option<bool> {
        let must_sync = self.syncs_sessions();
        let slot = self.sessions.get(session);
        if slot.durable.is_none() && !is_recorded {
            return None;
        }
        let journal = self.journal.as_mut()?;
        journal.wait_for_frame(must_sync);
        let mut fits = true;
        let session = &self.sessions.get(session).session;
        journal.hold_answer(conn, |out| fits = encode(session, out));
        Some(fits)
    }

    /// Everything of a session that is not a message, written down together.
    pub(super) fn record_state(&mut self, session: SessionId) {
        self.record_session(session);
        let Some(journal) = &mut self.journal else { return };
        let slot = self.sessions.get(session);
        let Some(durable) = &slot.durable else { return };
        let sid = durable.sid;
        let target = session.target();
        for &filter in &slot.subscriptions {
            let Some(subscription) = self.subscriptions.get(filter, target) else { continue };
            let filter = self.subscriptions.filter(filter);
            let Subscription { options, identifier } = subscription;
            journal.write(&Record::Subscribed { sid, filter, options, identifier });
        }
        for (filter, subscription) in &slot.memberships {
            let Subscription { options, identifier } = *subscription;
            journal.write(&Record::Subscribed { sid, filter, options, identifier });
        }
        self.record_consumers(session);
        let Some(journal) = &mut self.journal else { return };
        let slot = self.sessions.get(session);
        for packet_id in slot.session.recorded() {
            journal.write(&Record::Received { sid, packet_id });
        }
        for slot in slot.session.window().iter() {
            let packet_id = slot.packet_id;
            match &slot.stage {
                dunlin_queue::Stage::Publish(entry) => {
                    let id = self.pool.get(&entry.message).id;
                    let is_exactly_once = entry.qos == QoS::ExactlyOnce;
                    if id != 0 || is_exactly_once {
                        journal.write(&Record::Sent { sid, packet_id, id, is_exactly_once });
                    }
                }
                dunlin_queue::Stage::Release => {
                    journal.write(&Record::Released { sid, packet_id, id: 0 });
                }
                dunlin_queue::Stage::Done => {}
            }
        }
    }
}

/// A session as it is written down.
fn session_record(sid: u64, session: &dunlin_session::Session) -> SessionRecord<'_> {
    let state = session.stored_state();
    let will = state.will.map(|will| {
        let fields = will.fields(0);
        WillRecord {
            topic: fields.topic,
            properties: fields.properties.as_bytes(),
            payload: fields.payload,
            qos: fields.qos,
            retain: fields.retain,
            delay_s: will.delay_s,
        }
    });
    SessionRecord {
        sid,
        client_id: session.client_id(),
        expiry_s: state.expiry_s,
        expires_at: state.expires_at,
        is_online: state.is_online,
        will_at: state.will_at,
        will,
    }
}
