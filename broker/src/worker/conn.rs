//! Connections: what belongs to a socket and not to a session.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_queue::{MessageRef, Time};
use slab::Slab;

use super::Transport;
use super::sessions::SessionId;

/// A connection of one worker. The generation tells a late event for a closed connection from one
/// for its successor in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    /// As a number for the event queue.
    #[must_use]
    pub fn to_token(self) -> usize {
        (self.generation as usize) << 32 | self.slot as usize
    }

    /// Back from the number.
    #[must_use]
    pub fn from_token(token: usize) -> Self {
        Self { slot: token as u32, generation: (token >> 32) as u32 }
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The listener that accepted it.
    pub listener: u16,
}

/// How far a connection is.
///
/// ```text
/// Lobby ── CONNECT accepted ──▶ Online ── ended by either side ──▶ Closing ──▶ (gone)
///   └───────── refused, timed out ───────────────────────────────────▲
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for CONNECT.
    Lobby,
    /// Serves a session of this worker.
    Online(SessionId),
    /// The last bytes go out, until then at the latest; what still comes in is thrown away.
    Closing {
        /// When the connection is dropped.
        until: Time,
    },
}

impl Phase {
    pub(super) fn is_closing(self) -> bool {
        matches!(self, Self::Closing { .. })
    }
}

/// A large payload on its way: sent as far as `sent`.
#[derive(Debug)]
pub(super) struct LargePayload {
    pub(super) message: MessageRef,
    pub(super) sent: usize,
}

/// What the socket did not take.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pub(super) tail: Vec<u8>,
    /// A payload behind it.
    pub(super) large: Option<LargePayload>,
}

/// Why a connection is not put on the list of those to flush. Bits of a byte, as a fan-out asks
/// for all of them at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holds(u8);

impl Holds {
    /// It is on the list.
    const DIRTY: u8 = 1;
    /// The socket took no more; it will tell when it does again.
    const BLOCKED: u8 = 2;
    /// Nothing can be written any more; what the peer had sent before is still read.
    const BROKEN: u8 = 4;
    /// Nothing is sent before the log has what its session begins with.
    const WAITING: u8 = 8;

    #[inline]
    fn any(self, of: u8) -> bool {
        self.0 & of != 0
    }

    #[inline]
    fn set(&mut self, which: u8, is_set: bool) {
        self.0 = if is_set { self.0 | which } else { self.0 & !which };
    }
}

/// One connection. Its buffers are empty, without memory, while nothing is pending. A fan-out goes
/// through thousands of these, so what a flush looks at is in one line of the cache: the second, as
/// that of a session is a first one, and the two should not be after the same places. `control` is
/// last, because the slab's mark of a place that is taken is kept in a `Vec`, and by preference at
/// an end of the structure.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Conn<L> {
    pub(super) peer: Peer,
    /// Sessions that cannot keep up with what this connection publishes.
    pub(super) pauses: u32,
    /// The beginning of a packet whose rest has not come, and packets behind a pause.
    pub(super) input: Vec<u8>,
    generation: u32,
    pub(super) link: L,
    pub(super) phase: Phase,
    pub(super) unsent: Option<Box<Unsent>>,
    holds: Holds,
    /// The transport tells when the socket takes more again.
    is_watched: bool,
    /// There may be bytes to read.
    pub(super) is_readable: bool,
    /// The peer has closed its half, so its end is still to be read.
    pub(super) is_hung_up: bool,
    /// In the list of readable connections.
    pub(super) is_listed: bool,
    /// A timer is set for it.
    pub(super) has_timer: bool,
    /// Packets to be sent that are not publications.
    pub(super) control: Vec<u8>,
}

impl<L> Conn<L> {
    pub(super) fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Online(session) => Some(session),
            Phase::Lobby | Phase::Closing { .. } => None,
        }
    }

    /// The socket took no more; it tells when it does again.
    ///
    /// # Errors
    /// When it cannot tell: the connection ends.
    pub(super) fn block(
        &mut self,
        id: ConnId,
        transport: &mut impl Transport<Link = L>,
    ) -> io::Result<()> {
        self.holds.set(Holds::BLOCKED, true);
        if std::mem::replace(&mut self.is_watched, true) {
            return Ok(());
        }
        transport.watch_room(&mut self.link, id)
    }

    /// Whether the socket took no more, and has not told otherwise.
    pub(super) fn is_blocked(&self) -> bool {
        self.holds.any(Holds::BLOCKED)
    }

    /// The socket tells that it takes more. Says whether it had not.
    pub(super) fn unblock(&mut self) -> bool {
        let was_blocked = self.is_blocked();
        self.holds.set(Holds::BLOCKED, false);
        was_blocked
    }

    /// Whether nothing can be written any more.
    pub(super) fn is_broken(&self) -> bool {
        self.holds.any(Holds::BROKEN)
    }

    /// Nothing can be written any more.
    pub(super) fn set_broken(&mut self) {
        self.holds.set(Holds::BROKEN, true);
    }

    /// Nothing may be sent yet, or something may again: see [`Holds::WAITING`].
    pub(super) fn set_waiting(&mut self, is_waiting: bool) {
        self.holds.set(Holds::WAITING, is_waiting);
    }

    /// Whether the socket may be given something.
    #[inline]
    pub(super) fn may_write(&self) -> bool {
        !self.holds.any(Holds::BLOCKED | Holds::BROKEN | Holds::WAITING)
    }

    /// It is to be flushed. `true` when it has to be put on the list for that.
    #[inline]
    fn mark_dirty(&mut self) -> bool {
        let is_new = self.holds == Holds::default();
        if is_new {
            self.holds = Holds(Holds::DIRTY);
        }
        is_new
    }

    /// It is off the list.
    #[inline]
    pub(super) fn unmark_dirty(&mut self) {
        self.holds.set(Holds::DIRTY, false);
    }

    /// Whether so many answers wait for the peer that no more of its packets are read.
    pub(super) fn has_unread_answers(&self) -> bool {
        self.control.len() > CONTROL_BYTES_MAX && !self.is_broken()
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.unsent.is_some() || !self.control.is_empty()
    }
}

/// Answers that wait for a client to read them, before its packets are left unread.
const CONTROL_BYTES_MAX: usize = 64 << 10;

/// The connections of a worker.
#[derive(Debug)]
pub(super) struct Conns<L> {
    slots: Slab<Conn<L>>,
    generation: u32,
}

impl<L> Default for Conns<L> {
    fn default() -> Self {
        Self { slots: Slab::new(), generation: 0 }
    }
}

impl<L> Conns<L> {
    pub(super) fn insert(&mut self, link: L, peer: Peer) -> ConnId {
        self.generation = (self.generation + 1) & 0x7fff_ffff;
        let generation = self.generation;
        let slot = self.slots.insert(Conn {
            link,
            generation,
            peer,
            phase: Phase::Lobby,
            input: Vec::new(),
            control: Vec::new(),
            unsent: None,
            pauses: 0,
            is_readable: false,
            is_hung_up: false,
            is_listed: false,
            holds: Holds::default(),
            is_watched: false,
            has_timer: true,
        });
        ConnId { slot: slot as u32, generation }
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Conn<L>> {
        self.get(id)?;
        let conn = self.slots.remove(id.slot as usize);
        // After a storm of connections most of the slab is slack.
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
        Some(conn)
    }

    #[inline]
    pub(super) fn get(&self, id: ConnId) -> Option<&Conn<L>> {
        self.slots.get(id.slot as usize).filter(|conn| conn.generation == id.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn<L>> {
        self.slots.get_mut(id.slot as usize).filter(|conn| conn.generation == id.generation)
    }

    /// Puts a connection on the list of those to flush, if it may be flushed and is not there.
    #[inline]
    pub(super) fn mark_dirty(&mut self, id: ConnId, list: &mut VecDeque<ConnId>) {
        if self.get_mut(id).is_some_and(Conn::mark_dirty) {
            list.push_back(id);
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.slots
            .iter()
            .map(|(slot, conn)| ConnId { slot: slot as u32, generation: conn.generation })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// Largest buffer kept for the next user, and how many.
const BUFFER_BYTES_KEPT: usize = 64 << 10;
const BUFFERS_KEPT: usize = 1024;

/// Byte buffers that wait for a connection that needs one.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    free: Vec<Vec<u8>>,
    // Boxed, as they go into a connection and come back from there.
    #[allow(clippy::vec_box)]
    unsent: Vec<Box<Unsent>>,
}

impl BufferPool {
    /// Makes `buffer` ready to be appended to.
    #[inline]
    pub(super) fn ready<'a>(&mut self, buffer: &'a mut Vec<u8>) -> &'a mut Vec<u8> {
        if buffer.capacity() == 0
            && let Some(free) = self.free.pop()
        {
            *buffer = free;
        }
        buffer
    }

    /// A place for what a socket did not take.
    pub(super) fn unsent(&mut self) -> Box<Unsent> {
        self.unsent.pop().unwrap_or_default()
    }

    /// Takes the memory of what has been sent since, or never will be. The payload is the
    /// caller's to release.
    pub(super) fn give_back_unsent(&mut self, mut unsent: Box<Unsent>) -> Option<LargePayload> {
        self.give_back(&mut unsent.tail);
        let large = unsent.large.take();
        if self.unsent.len() < BUFFERS_KEPT {
            self.unsent.push(unsent);
        }
        large
    }

    /// Takes the memory of a buffer that is done with.
    #[inline]
    pub(super) fn give_back(&mut self, buffer: &mut Vec<u8>) {
        let mut buffer = std::mem::take(buffer);
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= BUFFER_BYTES_KEPT && self.free.len() < BUFFERS_KEPT {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

/// How many connections there are, for the limits.
#[derive(Debug)]
pub struct ConnectionCounts {
    all: AtomicUsize,
    by_listener: Box<[AtomicUsize]>,
}

impl ConnectionCounts {
    pub(super) fn new(listeners: usize) -> Self {
        let by_listener = (0..listeners).map(|_| AtomicUsize::new(0)).collect();
        Self { all: AtomicUsize::new(0), by_listener }
    }

    /// Counts a connection in, unless that exceeds one of the limits.
    pub fn try_add(&self, listener: u16, max: usize, listener_max: usize) -> bool {
        let by_listener = &self.by_listener[usize::from(listener)];
        if self.all.fetch_add(1, Ordering::Relaxed) >= max {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if by_listener.fetch_add(1, Ordering::Relaxed) >= listener_max {
            by_listener.fetch_sub(1, Ordering::Relaxed);
            self.all.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub(super) fn remove(&self, listener: u16) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        self.by_listener[usize::from(listener)].fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn a_connection_takes_two_lines_of_the_cache_and_a_flush_looks_at_the_second() {
        type C = Conn<std::os::fd::RawFd>;
        assert_eq!(size_of::<C>(), 128);
        let looked_at = [
            offset_of!(C, generation),
            offset_of!(C, link),
            offset_of!(C, phase),
            offset_of!(C, unsent),
            offset_of!(C, holds),
            offset_of!(C, control),
        ];
        assert!(looked_at.iter().all(|at| at / 64 == 1), "{looked_at:?}");
    }
}
