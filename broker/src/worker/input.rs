//! From bytes to packets to sessions.

use std::io::ErrorKind;

use dunlin_packets::{ConnectError, Frame, Kind, Packet, PacketError, ReasonCode, Version};
use dunlin_queue::Time;
use dunlin_session::{Action, Context, Offer, Refusal};

use super::conn::{ConnId, Peer, Phase};
use super::deliver::Publisher;
use super::sessions::SessionId;
use super::timers::Timer;
use super::{Transport, Worker};

/// Read from one connection in one turn.
pub(super) const READ_BYTES: usize = 64 << 10;
/// Read from all connections in one turn, before what that caused is flushed.
const TURN_BYTES: usize = 1 << 20;
/// How a PUBACK begins.
const PUBACK: u8 = (Kind::PubAck as u8) << 4;
/// Largest CONNECT: room for each of its fields, and for properties. What is larger comes from
/// somebody nobody knows.
const CONNECT_BYTES_MAX: usize = 512 << 10;

impl<T: Transport> Worker<T> {
    /// A listener has accepted a connection, and counted it.
    pub fn accept(&mut self, link: T::Link, peer: Peer, now: Time) {
        self.now = now;
        let id = self.conns.insert(link, peer);
        if !self.attach_link(id) {
            return;
        }
        let deadline = self.now.plus_millis(self.shared.settings.connect_timeout_ms);
        self.timers.add(deadline, Timer::Conn(id));
    }

    /// Begins to get events for the connection. `false` when that failed and it is gone.
    pub(super) fn attach_link(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        if let Err(error) = self.transport.attach(&mut conn.link, id) {
            tracing::warn!(peer = %conn.peer.address, %error, "cannot watch a connection");
            self.forget_conn(id);
            return false;
        }
        true
    }

    /// The connection may have bytes to read; `hung_up` when its end is to be read as well.
    pub fn on_readable(&mut self, id: ConnId, hung_up: bool) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.is_readable = true;
        conn.is_hung_up |= hung_up;
        self.list_readable(id);
    }

    /// Puts a connection that may be read from on the list.
    #[inline]
    pub(super) fn list_readable(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.is_readable && conn.pauses == 0 && !conn.is_listed {
            conn.is_listed = true;
            self.readable.push_back(id);
        }
    }

    /// Reads a bite from each connection that has bytes. Returns whether there is more.
    pub(super) fn read_readable(&mut self) -> bool {
        if self.is_out_of_credit {
            return false;
        }
        let mut scratch = std::mem::take(&mut self.in_scratch);
        let mut left = TURN_BYTES;
        for _ in 0..self.readable.len() {
            let Some(id) = self.readable.pop_front() else { break };
            left = left.saturating_sub(self.read(id, &mut scratch));
            if left == 0 || self.is_out_of_credit {
                break;
            }
        }
        self.in_scratch = scratch;
        !self.readable.is_empty()
    }

    fn read(&mut self, id: ConnId, scratch: &mut [u8]) -> usize {
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        conn.is_listed = false;
        let is_quiet = self.shutdown.is_begun()
            && match conn.phase {
                // Acknowledgements are still welcome.
                Phase::Online(session) => self.sessions.get(session).session.window().is_empty(),
                Phase::Lobby | Phase::Closing { .. } => false,
            };
        let has_answers_waiting =
            self.journal.as_ref().is_some_and(|journal| journal.has_too_many_answers(id));
        if conn.pauses > 0 || conn.has_unread_answers() || is_quiet || has_answers_waiting {
            // Stays readable; it is listed again when the reason has gone.
            return 0;
        }
        match self.transport.read(&mut conn.link, scratch) {
            Ok(0) => {
                conn.is_readable = false;
                self.on_peer_closed(id, "the client closed the connection");
                0
            }
            Ok(len) => {
                // Only a full bite may have left something behind, or a peer that has closed.
                if len < scratch.len() && !conn.is_hung_up {
                    conn.is_readable = false;
                }
                self.counters.bytes_received += len as u64;
                self.counters.touch();
                self.on_bytes(id, &scratch[..len]);
                self.discard_answers_if_broken(id);
                self.list_readable(id);
                len
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                conn.is_readable = false;
                0
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.list_readable(id);
                0
            }
            Err(_) => {
                conn.is_readable = false;
                self.on_peer_closed(id, "the connection was reset");
                0
            }
        }
    }

    /// Nobody will read them.
    fn discard_answers_if_broken(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_broken()) {
            self.buffers.give_back(&mut conn.control);
        }
    }

    /// Handles what came in. A packet that is not complete is kept, and so is everything behind
    /// a pause: never more than one packet and one bite.
    fn on_bytes(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Phase::Online(session) = conn.phase {
            self.sessions.get_mut(session).session.heard(self.now);
        }
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.input.is_empty() {
            let used = self.on_packets(id, bytes);
            self.keep_input(id, &bytes[used..]);
        } else {
            conn.input.extend_from_slice(bytes);
            self.on_kept_input(id);
        }
    }

    /// Goes on with bytes that were kept.
    pub(super) fn on_kept_input(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let mut input = std::mem::take(&mut conn.input);
        let used = self.on_packets(id, &input);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if used == input.len() {
            self.buffers.give_back(&mut input);
        } else if !conn.phase.is_closing() {
            input.drain(..used);
            conn.input = input;
            self.watch_half_packet(id);
        }
    }

    fn keep_input(&mut self, id: ConnId, rest: &[u8]) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if rest.is_empty() || conn.phase.is_closing() {
            return;
        }
        self.buffers.ready(&mut conn.input).extend_from_slice(rest);
        self.watch_half_packet(id);
    }

    /// Half a packet has to be completed in time, even by a client without keep alive.
    fn watch_half_packet(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.phase != Phase::Lobby && !std::mem::replace(&mut conn.has_timer, true) {
            let deadline = self.now.plus_millis(self.shared.settings.packet_timeout_ms);
            self.timers.add(deadline, Timer::Conn(id));
        }
    }

    /// Handles all complete packets in `bytes`, until the connection is paused or closed. Returns
    /// how many bytes are done with.
    fn on_packets(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let used = self.on_each_packet(id, bytes);
        self.settle_run();
        used
    }

    fn on_each_packet(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let Some(conn) = self.conns.get(id) else { return bytes.len() };
            if conn.pauses > 0 {
                return used;
            }
            if self.is_out_of_credit && used < bytes.len() {
                // Goes on when batches have come home.
                self.resumed.push(id);
                return used;
            }
            let step = match conn.phase {
                Phase::Closing { .. } => return bytes.len(),
                Phase::Lobby => self.on_lobby_bytes(id, &bytes[used..]),
                Phase::Online(session) => self.on_online_bytes(id, session, &bytes[used..]),
            };
            match step {
                Ok(Some(len)) => used += len,
                Ok(None) => return used,
                Err(error) => {
                    self.settle_run();
                    self.fail(id, error);
                    return bytes.len();
                }
            }
        }
    }

    /// One packet of a connection that has a session.
    #[inline]
    fn on_online_bytes(
        &mut self,
        id: ConnId,
        session: SessionId,
        bytes: &[u8],
    ) -> Result<Option<usize>, PacketError> {
        if bytes.first() == Some(&PUBACK)
            && let Some(len) = self.on_pubacks(id, session, bytes)
        {
            return Ok(Some(len));
        }
        let version = self.sessions.get(session).session.version().unwrap_or(Version::V5);
        let limit = self.limits().packet_bytes_max as usize;
        let Some((frame, len)) = Frame::split(bytes, limit, version)? else { return Ok(None) };
        match frame.kind {
            // Whatever it says: a CONNECT that cannot be read is one too many all the same.
            Kind::Connect => return Err(PacketError::protocol("3.1.0-2", "a second CONNECT")),
            // Not accepted any more, and so not acknowledged.
            Kind::Publish if self.shutdown.is_begun() => return Ok(Some(len)),
            Kind::Publish => {}
            // It may change who there is to deliver to.
            _ => self.settle_run(),
        }
        let packet = Packet::decode(&frame, version)?;
        self.on_packet(id, session, &packet)?;
        Ok(Some(len))
    }

    /// Plain PUBACKs, as many as there are in a row. `None` for anything else.
    fn on_pubacks(&mut self, id: ConnId, session: SessionId, bytes: &[u8]) -> Option<usize> {
        self.settle_run();
        let slot = self.sessions.get_mut(session);
        let limits = &self.shared.settings.limits;
        let mut cx =
            Context { limits, pool: &mut self.pool, changes: &mut self.changes, now: self.now };
        let len = slot.session.take_pubacks(bytes, &mut cx);
        // They make room for what waits; mostly nothing does.
        let has_work = len > 0 && slot.session.has_deliveries();
        self.write_changes(session);
        if has_work {
            self.mark_dirty(id);
        }
        (len > 0).then_some(len)
    }

    #[inline]
    fn on_packet(
        &mut self,
        id: ConnId,
        session: SessionId,
        packet: &Packet<'_>,
    ) -> Result<(), PacketError> {
        let Some(conn) = self.conns.get_mut(id) else { return Ok(()) };
        let slot = self.sessions.get_mut(session);
        let limits = &self.shared.settings.limits;
        let mut cx =
            Context { limits, pool: &mut self.pool, changes: &mut self.changes, now: self.now };
        let out = self.buffers.ready(&mut conn.control);
        let action = slot.session.on_packet(packet, slot.hash, &mut cx, out)?;
        let has_answer = !conn.control.is_empty();
        if !has_answer {
            // A buffer that nothing was written to is for somebody else.
            self.buffers.give_back(&mut conn.control);
        }
        // An acknowledgement makes room for what waits; mostly nothing does.
        let has_work = has_answer || slot.session.has_deliveries();
        self.write_changes(session);
        match action {
            Action::None if has_work => self.mark_dirty(id),
            Action::None => {}
            Action::Publish { message, packet_id } => {
                let publisher = Publisher { session, conn: id };
                self.on_publish(publisher, message, packet_id);
            }
            Action::Acknowledged(refused) => {
                if let Some(refused) = refused {
                    self.counters.drop(refused.reason);
                }
                if has_work {
                    self.mark_dirty(id);
                }
            }
            Action::Repeated { packet_id } => {
                self.on_repeated(Publisher { session, conn: id }, packet_id);
            }
            Action::Complete { packet_id, is_known } => {
                self.complete_when_safe(id, session, packet_id, is_known);
            }
            Action::Subscribe(subscribe) => self.on_subscribe(id, session, &subscribe),
            Action::Unsubscribe(unsubscribe) => self.on_unsubscribe(id, session, &unsubscribe),
            Action::Disconnect { discard_will, code } => {
                self.on_client_disconnect(id, discard_will, code);
            }
        }
        Ok(())
    }

    /// The first packet has to be a CONNECT \[MQTT-3.1.0-1\].
    fn on_lobby_bytes(&mut self, id: ConnId, bytes: &[u8]) -> Result<Option<usize>, PacketError> {
        if bytes.first().is_some_and(|&first| first != (Kind::Connect as u8) << 4) {
            return Err(PacketError::protocol("3.1.0-1", "the first packet is not CONNECT"));
        }
        let limit = CONNECT_BYTES_MAX.min(self.limits().packet_bytes_max as usize);
        // The version is not known before the packet is there, so its length is judged mildly.
        let Some((frame, len)) = Frame::split(bytes, limit, Version::V4)? else { return Ok(None) };
        match dunlin_packets::Connect::decode(&frame) {
            Ok(connect) => {
                let assign = || self.shared.assign_client_id(self.index, self.outboxes.len());
                match Offer::new(&connect, self.limits(), assign) {
                    Ok(offer) if !self.shared.settings.allow_anonymous => {
                        let detail = "anonymous clients are not allowed";
                        self.refuse(id, &offer.refuse(ReasonCode::NotAuthorized, detail));
                    }
                    // What follows belongs to the session, wherever that lives.
                    Ok(offer) => self.on_offer(id, offer, &bytes[len..]),
                    Err(refusal) => self.refuse(id, &refusal),
                }
            }
            Err(ConnectError { error, version: Some(version) }) => {
                tracing::info!(%error, "CONNECT refused");
                let refusal = Refusal::of_unreadable(version, error.code, error.detail);
                self.refuse(id, &refusal);
            }
            Err(ConnectError { error, version: None }) => return Err(error),
        }
        // The connection has left the lobby, with all its bytes.
        Ok(Some(bytes.len()))
    }

    /// Answers a CONNECT with an error, and closes \[MQTT-3.2.2-7\].
    fn refuse(&mut self, id: ConnId, refusal: &Refusal) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        tracing::info!(
            peer = %conn.peer.address, code = ?refusal.code, detail = refusal.detail,
            "connection refused"
        );
        refusal.encode(self.buffers.ready(&mut conn.control));
        self.counters.refused += 1;
        self.counters.touch();
        self.close(id);
    }
}
