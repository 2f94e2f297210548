//! The log gets further, and what has waited for it goes on.

use dunlin_queue::MessageRef;
use dunlin_storage::FRAME_HEADER_BYTES;

use super::journal::{FRAME_BYTES, Kept, SPARES_MAX, UnderWay};
use super::mail::Mail;
use super::sessions::SessionId;
use super::{Transport, Worker, workers_in};
use crate::store::LogState;
use crate::store::record::Record;

/// What a session or a subscription takes in the log, and a retained message, about.
const SESSION_BYTES: usize = 64;
const RETAINED_BYTES: usize = 1024;

impl<T: Transport> Worker<T> {
    /// Hands what has been written down to the log.
    pub(super) fn submit_journal(&mut self) {
        let index = self.index;
        let Some(journal) = &mut self.journal else { return };
        if journal.state == LogState::Failed {
            // Nothing is written any more, so nobody waits.
            journal.frame.truncate(FRAME_HEADER_BYTES);
            let (cargo, number) = (std::mem::take(&mut journal.cargo), journal.number);
            (journal.number, journal.is_forced) = (number + 1, false);
            self.let_go(UnderWay { address: 0, end: 0, must_sync: false, number, cargo });
            return self.send_late();
        }
        if journal.submit(index) {
            self.send_late();
        }
    }

    /// Tells other workers what had to wait until the frame was submitted.
    fn send_late(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let joins = std::mem::take(&mut journal.late_joins);
        for (to, answer) in std::mem::take(&mut journal.late_answers) {
            self.answer(to, answer);
        }
        for (to, joined) in joins {
            self.mail(to, Mail::QueueJoined(joined));
        }
    }

    /// What a turn leaves to do for the log when everything else is done.
    pub(super) fn finish_log_turn(&mut self) {
        if self.journal.as_ref().is_some_and(|journal| journal.port.is_stuck()) {
            self.on_no_room();
        }
        self.submit_journal();
        self.spill();
        let live = self.live_log_bytes();
        if let Some(journal) = &self.journal {
            journal.port.set_live(self.index, live);
        }
    }

    /// What of the log this worker still needs, about: messages, sessions with their filters,
    /// retained messages.
    fn live_log_bytes(&self) -> u64 {
        let stats = self.pool.stats();
        let sessions = self.sessions.len() + self.subscriptions.len();
        let retained = stats.live_bytes.min(self.retained.len() * RETAINED_BYTES);
        (stats.logged_bytes + sessions * SESSION_BYTES + retained) as u64 + self.queues.log_bytes()
    }

    /// Submits a frame that has become large within a turn.
    pub(super) fn submit_if_large(&mut self) {
        if self.journal.as_ref().is_some_and(|journal| journal.frame.len() > FRAME_BYTES) {
            self.submit_journal();
        }
    }

    /// The log is further, or in another state.
    pub(super) fn on_log_progress(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let state = journal.port.state();
        let (written, synced) = journal.port.progress();
        while let Some(journal) = &mut self.journal
            && let Some(first) = journal.under_way.front()
            && first.end <= if first.must_sync { synced } else { written }
        {
            let Some(frame) = journal.under_way.pop_front() else { break };
            self.let_go(frame);
        }
        let Some(journal) = &mut self.journal else { return };
        if std::mem::replace(&mut journal.state, state) != state && state == LogState::Failed {
            self.on_log_failure();
        }
    }

    /// A frame is as safe as it has to be.
    fn let_go(&mut self, frame: UnderWay) {
        let UnderWay { address, number, must_sync, mut cargo, .. } = frame;
        if let Some(journal) = self.journal.as_mut().filter(|_| must_sync) {
            journal.synced = number;
        }
        for kept in cargo.messages.drain(..) {
            self.on_kept(&kept, address);
        }
        for queued in cargo.queued.drain(..) {
            self.on_queue_written(queued, address);
        }
        for id in cargo.answers.drain(..) {
            let Some(journal) = &mut self.journal else { break };
            match self.conns.get_mut(id) {
                Some(conn) if !conn.is_broken() => {
                    let out = self.buffers.ready(&mut conn.control);
                    journal.release_answers(id, number, out);
                    self.mark_dirty(id);
                }
                _ => {
                    journal.held.remove(&id);
                }
            }
        }
        for conn in cargo.conns.drain(..).chain(cargo.returning.drain(..)) {
            if let Some(entry) = self.conns.get_mut(conn) {
                entry.set_waiting(false);
                self.mark_dirty(conn);
            }
        }
        for (session, packet_id) in cargo.unholds.drain(..) {
            let Some(session) = self.sessions.resolve(session) else { continue };
            let slot = self.sessions.get_mut(session);
            slot.session.unhold(packet_id);
            if let Some(conn) = slot.conn {
                self.mark_dirty(conn);
            }
        }
        if let Some(journal) = &mut self.journal
            && journal.spares.len() < SPARES_MAX
        {
            journal.spares.push(cargo);
        }
    }

    /// A message that this worker has written down is in the log.
    fn on_kept(&mut self, kept: &Kept, frame_address: u64) {
        let Kept { id, offset, tell } = *kept;
        let position = if frame_address == 0 { 0 } else { frame_address + offset };
        for worker in workers_in(tell) {
            self.mail(worker, Mail::Kept { id, position });
        }
        self.on_kept_here(id, position);
    }

    /// Lets the bytes of a message go at the end of the turn, if they take room that others need.
    fn spill_later(&mut self, message: MessageRef) {
        let is_over = self.pool.live_bytes() > self.shared.settings.durability.memory_bytes;
        match &mut self.journal {
            Some(journal) if is_over => journal.spillable.push(message),
            _ => self.pool.release(message),
        }
    }

    /// A message that sessions of this worker may wait for is in the log.
    pub(super) fn on_kept_here(&mut self, id: u64, position: u64) {
        // Who waits goes on also if there is nothing left to wait for.
        self.wake_waiting(id);
        let Some(journal) = &mut self.journal else { return };
        if !journal.done_early.is_empty() {
            for sid in journal.done_early.remove(&id).unwrap_or_default() {
                journal.write(&Record::Done { sid, id });
            }
        }
        let returned = journal.returned.remove(&id);
        if let Some(message) = self.pool.find_logged(id) {
            self.pool.keep(&message, position);
            self.spill_later(message);
        }
        if let Some(returned) = returned {
            self.give_back(returned);
        }
    }

    /// Goes on with the sessions that have this message at their head.
    pub(super) fn wake_waiting(&mut self, id: u64) {
        let Some(journal) = &mut self.journal else { return };
        if journal.waiting.is_empty() {
            return;
        }
        for session in journal.waiting.remove(&id).unwrap_or_default() {
            let Some(session) = self.sessions.resolve(session) else { continue };
            if let Some(conn) = self.sessions.get(session).conn {
                self.mark_dirty(conn);
            }
        }
    }

    /// A session can send nothing before this message is kept, or loaded.
    pub(super) fn wait_for(&mut self, session: SessionId, id: u64) {
        let key = self.sessions.key(self.index, session);
        let Some(journal) = &mut self.journal else { return };
        let sessions = journal.waiting.entry(id).or_default();
        if !sessions.contains(&key) {
            sessions.push(key);
        }
    }
}
