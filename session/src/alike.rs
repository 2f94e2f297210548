//! Frames that serve many: subscribers of one topic wait for the same messages, and to clients of
//! one version those look the same on the wire, but for the packet identifier. They are composed
//! for the first of them and sent to the others as they are.

use dunlin_packets::{PacketId, QoS, Version};
use dunlin_queue::{Likeness, MessagePool, Time};

use crate::link::Link;
use crate::outbound::{COPIED_PAYLOAD_MAX, encode};
use crate::session::State;
use crate::{Context, Limits, Session};

/// Messages composed at a time. A queue with more is drained one by one.
const MESSAGES_MAX: usize = 256;
/// And their bytes, topics included.
const BYTES_MAX: usize = 32 << 10;

/// What was composed last, and from what.
#[derive(Debug)]
pub struct Alike {
    version: Version,
    edition: u64,
    messages: Vec<Likeness>,
    bytes: Vec<u8>,
    /// At QoS 1, where the packet identifiers are.
    id_places: Vec<usize>,
}

/// What a session got of an [`Alike`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Messages.
    pub count: usize,
    /// At QoS 1, the packet identifier of the first; those of the others follow.
    pub first_id: Option<PacketId>,
}

impl Default for Alike {
    fn default() -> Self {
        Self {
            version: Version::V5,
            edition: 0,
            messages: Vec::new(),
            bytes: Vec::new(),
            id_places: Vec::new(),
        }
    }
}

impl Alike {
    /// The packets, as they are for the session whose [`Share`] begins with this identifier.
    #[inline]
    #[must_use]
    pub fn bytes_for(&mut self, first_id: Option<PacketId>) -> &[u8] {
        if let Some(first) = first_id {
            for (id, &place) in (first.get()..=u16::MAX).zip(&self.id_places) {
                self.bytes[place..place + 2].copy_from_slice(&id.to_be_bytes());
            }
        }
        &self.bytes
    }

    /// Whether just this waits for the session.
    #[inline]
    fn holds(&self, version: Version, pool: &MessagePool, session: &Session) -> bool {
        !self.messages.is_empty()
            && self.version == version
            && self.edition == pool.edition()
            && session.queue.holds(&self.messages)
    }
}

impl Session {
    /// Whether what waits may be what others wait for, and may all be sent: a quick look.
    #[inline(always)]
    #[must_use]
    pub fn may_be_alike(&self, limits: &Limits) -> bool {
        let State::Online(link) = &self.state else { return false };
        let Some(entry) = self.queue.front() else { return false };
        if link.resends || link.topic_alias_maximum != 0 {
            return false;
        }
        match entry.qos {
            QoS::AtMostOnce => true,
            // What outlives a crash is written down one by one.
            QoS::AtLeastOnce => !link.is_durable && self.has_room_for_all(link, limits),
            QoS::ExactlyOnce => false,
        }
    }

    /// Whether everything that waits can be in flight.
    fn has_room_for_all(&self, link: &Link, limits: &Limits) -> bool {
        let (count, window) = (self.queue.len(), &self.window);
        window.counted() + count <= usize::from(link.receive_maximum)
            && window.len() + count <= limits.in_flight_max
            && window.bytes() + self.queue.bytes() <= limits.in_flight_bytes_max
    }

    /// Takes everything that waits, if it is what is in `alike` already; with `None` nothing has
    /// happened. Only of a session that [may be alike](Self::may_be_alike).
    #[inline]
    pub fn take_alike(&mut self, cx: &mut Context<'_>, alike: &Alike) -> Option<Share> {
        let State::Online(link) = &self.state else { return None };
        // No packet is larger than all together.
        let fits = alike.bytes.len() <= link.packet_bytes_max as usize;
        debug_assert!(self.may_be_alike(cx.limits));
        if !fits || !alike.holds(link.version, cx.pool, self) {
            return None;
        }
        if alike.id_places.is_empty() {
            return Some(Share { count: self.queue.clear(cx.pool), first_id: None });
        }
        self.put_in_flight()
    }

    /// Puts everything that waits in flight; the window has room for it.
    #[inline(never)]
    fn put_in_flight(&mut self) -> Option<Share> {
        let count = self.queue.len();
        let first = self.window.next_run(count)?;
        let (entries, bytes) = self.queue.take_all();
        self.window.push_run(first, entries, bytes);
        Some(Share { count, first_id: Some(first) })
    }

    /// Composes everything that waits and takes it, if it is what others have too, and all of it
    /// can be sent at once. As [`Self::take_alike`]; with `None`, [`Session::poll_publish`] is the
    /// way.
    pub fn compose_alike(&mut self, cx: &mut Context<'_>, alike: &mut Alike) -> Option<Share> {
        let count = self.queue.len();
        let is_shared = self.queue.front().is_some_and(|entry| cx.pool.is_shared(&entry.message));
        if !is_shared || count > MESSAGES_MAX || self.queue.bytes() > BYTES_MAX {
            return None;
        }
        alike.messages.clear();
        if self.compose(cx, alike) { self.take_alike(cx, alike) } else { None }
    }

    /// `false` when something that waits is for this session only.
    fn compose(&mut self, cx: &mut Context<'_>, alike: &mut Alike) -> bool {
        let State::Online(link) = &mut self.state else { return false };
        let Some(qos) = self.queue.front().map(|entry| entry.qos) else { return false };
        // Until it is known whose it is.
        let packet_id = (qos == QoS::AtLeastOnce).then_some(PacketId::MIN);
        alike.bytes.clear();
        alike.id_places.clear();
        let mut messages = std::mem::take(&mut alike.messages);
        let is_alike = self.queue.iter().all(|entry| {
            let message = cx.pool.get(&entry.message);
            if message.is_absent() || entry.qos != qos {
                return false;
            }
            // What has an expiry says how much of it is left, and may have none.
            let is_lasting = message.expires_at == Time::NEVER && cx.limits.queue_age_max_s == 0;
            let is_small = message.payload().len() <= COPIED_PAYLOAD_MAX;
            let Some(likeness) = entry.likeness().filter(|_| is_lasting && is_small) else {
                return false;
            };
            messages.push(likeness);
            let (begin, topic_len) = (alike.bytes.len(), message.topic_bytes().len());
            if encode(link, entry, packet_id, false, cx, &mut alike.bytes) != Some(true) {
                return false;
            }
            if packet_id.is_some() {
                alike.id_places.push(begin + packet_id_at(&alike.bytes[begin..], topic_len));
            }
            true
        });
        if !is_alike {
            messages.clear();
        }
        alike.messages = messages;
        (alike.version, alike.edition) = (link.version, cx.pool.edition());
        is_alike
    }
}

/// Where a PUBLISH has its packet identifier: behind the fixed header and the topic.
fn packet_id_at(packet: &[u8], topic_len: usize) -> usize {
    let goes_on = |&byte: &&u8| byte & 0x80 != 0;
    let length_bytes = 1 + packet[1..].iter().take_while(goes_on).count();
    1 + length_bytes + 2 + topic_len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_packet_identifiers_are_put_in_as_all_others() {
        let mut alike = Alike { id_places: vec![0, 3], bytes: vec![0; 5], ..Alike::default() };
        assert_eq!(alike.bytes_for(PacketId::new(u16::MAX - 2)), [255, 253, 0, 255, 254]);
        assert_eq!(alike.bytes_for(PacketId::new(u16::MAX - 1)), [255, 254, 0, 255, 255]);
    }
}
