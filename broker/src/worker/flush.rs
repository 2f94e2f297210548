//! Out to the sockets: each dirty connection pulls what its session has, into one write.

use std::io::ErrorKind;

use dunlin_queue::MessageRef;
use dunlin_session::{Context, Polled};

use super::conn::{ConnId, LargePayload, Phase};
use super::sessions::SessionId;
use super::{Transport, Worker};

/// Connections flushed in one turn: a fan-out to thousands lets others in between.
const FLUSHES_PER_TURN: usize = 256;
/// Composed for one write.
const WRITE_BYTES: usize = 64 << 10;
/// Writes to one connection in one turn.
const WRITES_PER_FLUSH: usize = 4;

/// What became of a write.
enum Wrote {
    All,
    /// The socket is full; so many bytes of the payload are out, and the rest of the head is kept.
    Part {
        of_payload: usize,
    },
    Failed,
}

impl<T: Transport> Worker<T> {
    /// The socket has room again.
    pub fn on_writable(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.unblock() {
            self.mark_dirty(id);
        }
    }

    pub(super) fn flush_dirty(&mut self) {
        for _ in 0..self.dirty.len().min(FLUSHES_PER_TURN) {
            let Some(id) = self.dirty.pop_front() else { break };
            self.unflushed = self.unflushed.saturating_sub(1);
            if !self.join_alike(id) {
                self.flush(id);
            }
        }
        self.write_alike();
    }

    /// Takes what a connection has to send, if others get the same, and leaves it to
    /// [`Self::write_alike`]. Between the writes of a fan-out there is then nothing else to do:
    /// whoever reads on the same machine has no time to fall asleep, and does not have to be woken.
    #[inline]
    fn join_alike(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return true };
        let Phase::Online(session) = conn.phase else { return false };
        if !conn.may_write() || conn.has_unsent() {
            return false;
        }
        let slot = self.sessions.get_mut(session);
        if !slot.session.may_be_alike(&self.shared.settings.limits) {
            return false;
        }
        let limits = &self.shared.settings.limits;
        let mut cx =
            Context { limits, pool: &mut self.pool, changes: &mut self.changes, now: self.now };
        let mut share = slot.session.take_alike(&mut cx, &self.alike);
        if share.is_none() {
            self.write_alike();
            let slot = self.sessions.get_mut(session);
            let limits = &self.shared.settings.limits;
            let mut cx =
                Context { limits, pool: &mut self.pool, changes: &mut self.changes, now: self.now };
            share = slot.session.compose_alike(&mut cx, &mut self.alike);
        }
        let Some(share) = share else { return false };
        self.counters.publishes_sent += share.count as u64;
        self.alike_conns.push((id, share.first_id));
        if let Some(conn) = self.conns.get_mut(id) {
            conn.unmark_dirty();
        }
        self.on_flushed(session);
        self.list_readable(id);
        true
    }

    /// Sends what was composed to all who get it.
    fn write_alike(&mut self) {
        let conns = std::mem::take(&mut self.alike_conns);
        let mut alike = std::mem::take(&mut self.alike);
        for &(id, first_id) in &conns {
            if matches!(self.write(id, alike.bytes_for(first_id), None), Wrote::Failed) {
                self.break_off(id);
            }
        }
        self.alike = alike;
        self.alike_conns = conns;
        self.alike_conns.clear();
    }

    fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.unmark_dirty();
        if !conn.may_write() {
            return;
        }
        let mut out = std::mem::take(&mut self.out_scratch);
        let mut finished = false;
        for _ in 0..WRITES_PER_FLUSH {
            match self.flush_once(id, &mut out) {
                Some(true) => {}
                Some(false) => {
                    finished = true;
                    break;
                }
                None => break,
            }
        }
        self.out_scratch = out;
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.phase {
            Phase::Closing { .. } if !conn.has_unsent() => {
                // Everything is out. The peer's close ends the connection, or a timer does.
                self.transport.shutdown(&mut conn.link);
            }
            Phase::Online(session) => {
                self.on_flushed(session);
                if !finished {
                    self.mark_dirty(id);
                }
                self.list_readable(id);
            }
            Phase::Lobby | Phase::Closing { .. } => {}
        }
    }

    /// One write. `Some(true)` when there may be more, `Some(false)` when nothing is left to send,
    /// `None` when the socket takes no more, or is gone.
    fn flush_once(&mut self, id: ConnId, out: &mut Vec<u8>) -> Option<bool> {
        let conn = self.conns.get_mut(id)?;
        if conn.unsent.is_some() {
            return self.flush_tail(id).then_some(true);
        }
        let phase = conn.phase;
        out.clear();
        if !conn.control.is_empty() {
            out.extend_from_slice(&conn.control);
            self.buffers.give_back(&mut conn.control);
        }
        let mut body = None;
        let mut drained = true;
        if let Phase::Online(session) = phase {
            (drained, body) = self.pull(session, out);
        }
        if out.is_empty() {
            return Some(false);
        }
        match self.write(id, out, body.as_ref()) {
            Wrote::All => {
                if let Some(message) = body {
                    self.pool.release(message);
                }
                Some(!drained)
            }
            Wrote::Part { of_payload } => {
                if let (Some(message), Some(conn)) = (body, self.conns.get_mut(id)) {
                    // The rest is written from where it is.
                    self.pool.pin(&message);
                    let unsent = conn.unsent.get_or_insert_with(|| self.buffers.unsent());
                    unsent.large = Some(LargePayload { message, sent: of_payload });
                }
                None
            }
            Wrote::Failed => {
                if let Some(message) = body {
                    self.pool.release(message);
                }
                self.break_off(id);
                None
            }
        }
    }

    /// Nothing can be written any more. What the client sent before it went, a DISCONNECT perhaps,
    /// is still to be read; its end is found there.
    #[cold]
    fn break_off(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.set_broken();
        self.buffers.give_back(&mut conn.control);
        let unsent = conn.unsent.take();
        if let Some(large) = unsent.and_then(|unsent| self.buffers.give_back_unsent(unsent)) {
            self.pool.release(large.message);
        }
        (conn.is_readable, conn.is_hung_up) = (true, true);
        self.list_readable(id);
    }

    /// Composes what the session has to send. Says whether that was all, and which payload has
    /// to follow.
    fn pull(&mut self, session: SessionId, out: &mut Vec<u8>) -> (bool, Option<MessageRef>) {
        while out.len() < WRITE_BYTES {
            let slot = self.sessions.get_mut(session);
            let limits = &self.shared.settings.limits;
            let mut cx =
                Context { limits, pool: &mut self.pool, changes: &mut self.changes, now: self.now };
            let polled = slot.session.poll_publish(&mut cx, out);
            self.write_changes(session);
            match polled {
                Polled::Idle => return (true, None),
                Polled::Sent => self.counters.publishes_sent += 1,
                Polled::SentHead(message) => {
                    self.counters.publishes_sent += 1;
                    return (false, Some(message));
                }
                Polled::Held(packet_id) => self.send_when_safe(session, packet_id),
                Polled::Waiting(id) => {
                    self.wait_for(session, id);
                    return (true, None);
                }
                Polled::Absent => {
                    self.load_backlog(session);
                    return (true, None);
                }
                Polled::Undeliverable(entry, reason) => self.undeliverable(session, entry, reason),
            }
        }
        (false, None)
    }

    /// Writes `head` and the payload of `body`, and keeps what is left of the head.
    fn write(&mut self, id: ConnId, head: &[u8], body: Option<&MessageRef>) -> Wrote {
        let Some(conn) = self.conns.get_mut(id) else { return Wrote::Failed };
        let payload = body.map_or(&[][..], |message| self.pool.get(message).payload());
        let sent = match self.transport.write(&mut conn.link, head, payload) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return Wrote::Failed,
        };
        self.counters.bytes_sent += sent as u64;
        self.counters.touch();
        if sent == head.len() + payload.len() {
            return Wrote::All;
        }
        if conn.block(id, &mut self.transport).is_err() {
            return Wrote::Failed;
        }
        let head_sent = sent.min(head.len());
        if head_sent < head.len() {
            let unsent = conn.unsent.get_or_insert_with(|| self.buffers.unsent());
            self.buffers.ready(&mut unsent.tail).extend_from_slice(&head[head_sent..]);
        }
        Wrote::Part { of_payload: sent - head_sent }
    }

    /// Writes what an earlier write left. `true` when all of it is out.
    fn flush_tail(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let Some(unsent) = conn.unsent.as_deref_mut() else { return true };
        let body = match &unsent.large {
            Some(large) => &self.pool.get(&large.message).payload()[large.sent..],
            None => &[],
        };
        let sent = match self.transport.write(&mut conn.link, &unsent.tail, body) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.break_off(id);
                return false;
            }
        };
        self.counters.bytes_sent += sent as u64;
        self.counters.touch();
        let whole = unsent.tail.len() + body.len();
        let tail_sent = sent.min(unsent.tail.len());
        unsent.tail.drain(..tail_sent);
        if let Some(large) = &mut unsent.large {
            large.sent += sent - tail_sent;
        }
        if sent < whole {
            if conn.block(id, &mut self.transport).is_err() {
                self.break_off(id);
            }
            return false;
        }
        let unsent = conn.unsent.take();
        if let Some(large) = unsent.and_then(|unsent| self.buffers.give_back_unsent(unsent)) {
            self.pool.release(large.message);
        }
        true
    }
}
