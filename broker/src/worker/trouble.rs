//! A log that takes nothing: what is refused, and what becomes of those who wait for it.

use dunlin_packets::{QoS, ReasonCode};
use dunlin_queue::MessageRef;
use dunlin_router::Target;

use super::sessions::SessionId;
use super::settings::Level;
use super::{Transport, Worker};
use crate::store::LogState;

impl<T: Transport> Worker<T> {
    /// The code to refuse a message with that would have to be kept while the log takes nothing.
    pub(super) fn refusal_of_log(&mut self, message: &MessageRef) -> Option<ReasonCode> {
        let code = self.log_refusal()?;
        let content = self.pool.get(message);
        let level = self.shared.settings.durability.level(content.topic());
        if content.qos == QoS::AtMostOnce || level == Level::Memory {
            return None;
        }
        (content.retain || self.is_kept(message) && self.is_for_durable(message)).then_some(code)
    }

    /// What is answered to requests that would have to be kept, if the log takes nothing.
    pub(super) fn log_refusal(&self) -> Option<ReasonCode> {
        match self.journal.as_ref()?.port.state() {
            LogState::Ok => None,
            LogState::Full => Some(ReasonCode::QuotaExceeded),
            LogState::Failed => Some(ReasonCode::ImplementationSpecificError),
        }
    }

    /// Whether the log will never take anything again.
    pub(super) fn has_log_failed(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.port.state() == LogState::Failed)
    }

    /// Whether a message may be for a session that outlives a crash. Other workers' are guessed.
    fn is_for_durable(&mut self, message: &MessageRef) -> bool {
        let topic = self.pool.get(message).topic();
        let route = match &mut self.interest {
            Some(interest) => self.subscriptions.route(topic, interest),
            None => self.subscriptions.route(topic, &mut ()),
        };
        let sessions = &self.sessions;
        route.workers != 0
            || route.matches.iter().any(|matched| match matched.target() {
                Target::Session(id) => {
                    matched.qos() != QoS::AtMostOnce
                        && sessions.get(SessionId(id.0)).durable.is_some()
                }
                // What it captures is written down, as a rule.
                Target::Group(_) | Target::Queue(_) => true,
            })
    }

    /// What was written down finds no room, and has not for some time. It is written when there is
    /// some, so nobody can be told that it is refused: who waits for it is told by the end of the
    /// connection that it is not safe now. Who only comes back goes on; a crash would forget when
    /// that was.
    #[cold]
    pub(super) fn on_no_room(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let (waiting, returning) = journal.take_waiting_conns();
        let reason = "what you sent cannot be kept now: the storage is full";
        for conn in returning {
            if let Some(entry) = self.conns.get_mut(conn) {
                entry.set_waiting(false);
            }
            self.mark_dirty(conn);
        }
        for conn in waiting {
            if let Some(entry) = self.conns.get_mut(conn) {
                entry.set_waiting(false);
            }
            self.disconnect(conn, ReasonCode::QuotaExceeded, reason);
        }
    }

    /// Nothing is safe any more that was not before. Who waits for it is told so, by the end of the
    /// connection; who waits for a message gets it.
    #[cold]
    pub(super) fn on_log_failure(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let mut unanswered: Vec<_> = journal.held.drain().map(|(conn, _)| conn).collect();
        unanswered.sort_unstable();
        for pending in std::mem::take(&mut journal.pending) {
            journal.first_ticket += 1;
            if let Some(message) = pending.message {
                self.pool.release(message);
            }
        }
        let mut cargo = std::mem::take(&mut journal.cargo);
        for under_way in journal.take_under_way() {
            cargo.conns.extend(under_way.conns);
            cargo.conns.extend(under_way.returning);
            cargo.unholds.extend(under_way.unholds);
        }
        let mut returned: Vec<_> = journal.returned.drain().collect();
        returned.sort_unstable_by_key(|(id, _)| *id);
        journal.done_early.clear();
        self.pool.keep_all();
        returned.into_iter().for_each(|(_, returned)| self.give_back(returned));
        let returning = std::mem::take(&mut cargo.returning);
        cargo.conns.extend(returning);
        let reason = "what you sent cannot be kept: the storage has failed";
        for conn in unanswered.into_iter().chain(cargo.conns.drain(..)) {
            if let Some(entry) = self.conns.get_mut(conn) {
                entry.set_waiting(false);
            }
            self.disconnect(conn, ReasonCode::ImplementationSpecificError, reason);
        }
        for (session, packet_id) in cargo.unholds.drain(..) {
            if let Some(session) = self.sessions.resolve(session) {
                self.sessions.get_mut(session).session.unhold(packet_id);
            }
        }
        let online: Vec<_> = self.conns.ids().collect();
        online.into_iter().for_each(|conn| self.mark_dirty(conn));
    }
}
